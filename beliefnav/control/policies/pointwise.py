r"""Policies: from a posterior at the present parameters to a direction.

The direction has the sign of the gradient; an optimizer steps against it. Limits of the planning
gain (`beliefnav.control.planning_gain`) are policies of their own, normalised so that the learning
rate multiplies them, never huge numbers in a formula:

| policy | limit | direction | learning rate |
|---|---|---|---|
| `myopic` | replanning, $\gamma \to \infty$ | $G^{-1} m$ | $\eta k \Delta t / \gamma$ |
| `ballistic` | replanning, $\gamma = 0$ | $m / \sqrt{G V}$ | $\sqrt{\eta k} \Delta t$ |
| `sign` | ... and $V = m^2$ | $\mathrm{sign}(m)$ | the same |
| `newton` | exact hold, $\Delta t \to \infty$ | $m / V$ | 1 |
| `to_optimum` | the same, of a belief about the optimum | $\theta - E[\theta^*]$ | 1 |
| `horizon` | none | $\varphi m$ | 1 |

Two make a policy out of another: `cautious` and `averaged`. Those that couple parameters are in
`beliefnav.control.policies.matrix`, those that know of a drift or a penalty in
`beliefnav.control.policies.pulled`, those that foresee that the optimum moves in
`beliefnav.control.policies.switching`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, is_number
from beliefnav._format import number
from beliefnav._trees import is_function, select
from beliefnav.beliefs import Posterior
from beliefnav.control._arrays import per_parameter
from beliefnav.control.gains.kronecker import solve
from beliefnav.control.gains.scalar import gain_at, relative_curvature
from beliefnav.control.policies.contract import MEANS, Plan, Policy, required
from beliefnav.objective import Objective

__all__ = [
    "EPS_OUTSIDE",
    "averaged",
    "ballistic",
    "cautious",
    "horizon",
    "myopic",
    "newton",
    "sign",
    "to_optimum",
]

PyTree = Any


def myopic(metric: Any = None) -> Policy:
    r"""Descend: $G^{-1} m$, for any curvature. Natural gradient if $G$ is the Fisher metric.

    Args:
        metric: $G(\theta)$: ``None`` (identity), a positive tree like the parameters (diagonal), a
            matrix [n, n] over the n raveled parameters, a tree with `beliefs.Kronecker` for leaves,
            or a callable from parameters to one of these.

    Returns:
        The policy. Its direction is NaN where a matrix [n, n] is not positive definite; directions
        in which a Kronecker factor vanishes get no step.

    Raises:
        ValueError: when it is used, the metric does not fit the parameters.
    """

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        mean = required(posterior, "gradient_mean", "myopic")
        return solve(metric(params) if is_function(metric) else metric, mean)

    plan = Plan(math.inf, metric="identity" if metric is None else "given")
    return Policy(step, plan=plan, reads=("gradient_mean",))


def ballistic(eps: ArrayLike = 0.0, eps_root: ArrayLike = 0.0, metric: PyTree = None) -> Policy:
    r"""Plan without discounting: $m / (\sqrt{G (V + \epsilon_r)} + \epsilon)$.

    Inside the root, $\epsilon_r$ is a curvature floor: the belief that no direction is flatter.
    Outside, $\epsilon$ has no such reading; it is the approximation that Adam makes to keep the
    step finite, and it bounds the gain by $1/\epsilon$.

    Negative curvature is read as 0, since the undiscounted problem is unbounded below, and counted
    as clipped. Where curvature and floors are 0 there is no step: so it is where no gradient was
    seen yet, and where squares of gradients are too small for the dtype (float32: below 1e-19).

    Args:
        eps: $\epsilon \ge 0$, in units of the gradient.
        eps_root: $\epsilon_r \ge 0$, in units of the curvature.
        metric: $G$, ``None`` (identity) or a positive tree like the parameters.

    Returns:
        The policy.

    Raises:
        ValueError: ``eps`` or ``eps_root`` is a negative Python number, or ``metric`` a callable.
    """
    NON_NEGATIVE.check("ballistic", "eps", eps)
    NON_NEGATIVE.check("ballistic", "eps_root", eps_root)
    _check_diagonal("ballistic", metric)

    def direction(m: Array, v: Array, g: ArrayLike = 1.0) -> Array:
        v = jnp.maximum(v, 0)
        v = v if is_number(eps_root, 0) else v + eps_root
        scale = jnp.sqrt(v if is_number(g, 1) else g * v)
        scale = scale if is_number(eps, 0) else scale + eps
        return _finite(scale > 0, m / scale, scale)

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        mean = required(posterior, "gradient_mean", "ballistic")
        curvature = required(posterior, "curvature_mean", "ballistic")
        return jax.tree.map(direction, mean, curvature, *_diagonal("ballistic", metric, mean))

    def clipped(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        return jax.tree.map(lambda v: v < 0, posterior.curvature_mean)

    outside = () if is_number(eps, 0) else (EPS_OUTSIDE.format(number(eps)),)
    named = "identity" if metric is None else "given"
    plan = Plan(0.0, 0.0, named, eps_root, approximations=outside)
    return Policy(step, clipped, plan, reads=MEANS)


def _finite(known: Array, step: Array, zero: Array) -> Array:
    """A step where its gain is finite, and none elsewhere: ``zero`` is 0 there."""
    alike = zero.shape == step.shape and zero.dtype == step.dtype
    return select(known, step, zero if alike else 0)


EPS_OUTSIDE = (
    "eps = {} stands outside the root, where it is no belief about the curvature but bounds the "
    "gain by 1/eps."
)


def sign() -> Policy:
    r"""The sign of the gradient: `ballistic` on a curvature read off its own mean, $V = m^2$.

    That is a second moment without memory. Where $m = 0$ there is no step.

    Returns:
        The policy.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import Posterior, control
        >>> control.sign().step(Posterior(jnp.array([30.0, -0.2, 0.0])), None).tolist()
        [1.0, -1.0, 0.0]
    """

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        return jax.tree.map(jnp.sign, required(posterior, "gradient_mean", "sign"))

    return Policy(step, plan=Plan(0.0, curvature="square of the mean"), reads=("gradient_mean",))


def newton() -> Policy:
    r"""Jump to the believed optimum: $m / V$ where $V > 0$.

    Where $V \le 0$ there is no optimum to jump to: the entry stays, and is counted as clipped.

    Returns:
        The policy.
    """

    def direction(m: Array, v: Array) -> Array:
        return jnp.where(v > 0, m / jnp.where(v > 0, v, 1), 0)

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        mean = required(posterior, "gradient_mean", "newton")
        return jax.tree.map(direction, mean, required(posterior, "curvature_mean", "newton"))

    def clipped(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        return jax.tree.map(lambda v: v <= 0, posterior.curvature_mean)

    return Policy(step, clipped, Plan(None, math.inf), reads=MEANS)


def to_optimum() -> Policy:
    r"""Go to where the optimum is believed to be: the step is $E[\theta^*] - \theta$.

    For a belief about the optimum itself, such as `beliefs.FisherOptimum`. Where the curvature is
    known, as in `beliefs.Optimum`, that is the step of `newton`. The learning rate is 1.

    Returns:
        The policy.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import beliefs, control, navigator
        >>> belief = beliefs.Optimum(curvature=2.0, noise_variance=1.0, prior_variance=1.0)
        >>> optimizer = navigator(1.0, belief, control.to_optimum())
        >>> params = jnp.zeros(1)
        >>> optimizer.update(jnp.array([5.0]), optimizer.init(params), params)[0].tolist()
        [-2.0]
    """

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        return jax.tree.map(jnp.negative, required(posterior, "distance_mean", "to_optimum"))

    return Policy(step, plan=Plan(None, math.inf), reads=("distance_mean",))


def cautious(policy: Policy) -> Policy:
    r"""Plan on the root mean square of the curvature, $\sqrt{V^2 + \mathrm{Var}[h]}$.

    That is $\sqrt{E[h^2]}$. Certainty equivalence would plan on $V = E[h]$ however uncertain it is,
    and step without bound where that is near 0. Here no curvature is believed to be smaller than
    its own uncertainty, a floor that follows from the posterior, and its sign is not relied on: a
    saddle is left downhill. Where the curvature is resolved and positive the two are the same.

    Args:
        policy: one that plans on the curvature, such as `horizon` or `ballistic`.

    Returns:
        The policy; there is no negative curvature left that it could clip.

    Raises:
        ValueError: when it is used, the belief has no curvature or no curvature variance.
    """

    def step(posterior: Posterior, *places: PyTree) -> PyTree:
        mean = required(posterior, "curvature_mean", "cautious")
        variance = required(posterior, "curvature_variance", "cautious")
        root = jax.tree.map(lambda m, v: _root(m * m + v), mean, variance)
        return policy.step(posterior._replace(curvature_mean=root), *places)

    return _uncertain(policy, step, None, _CAUTIOUS)


@jax.custom_jvp
def _root(square: Array) -> Array:
    """The square root, whose derivative is 0 at 0, where nothing is believed and nothing known."""
    return jnp.sqrt(square)


@_root.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    root = _root(*primals)
    return root, jnp.where(root > 0, tangents[0] / (2 * jnp.where(root > 0, root, 1)), 0)


def averaged(policy: Policy, num_nodes: int = 8) -> Policy:
    r"""Average what a policy does over what the curvature may be, $E[\mathrm{step}(g, h)]$.

    Certainty equivalence plans on $V = E[h]$. The gain $\varphi$ is convex in the curvature, so
    that its average is larger: what is uncertain is moved further. A gradient that is large where
    the curvature is large works against that: a step in proportion to the gradient is
    $E[\varphi(h) g]$, which differs from $E[\varphi(h)]\, m$ where a belief has a covariance of
    the two, as `beliefs.Secant` has. At a curvature $h$ the policy is therefore given

    $$ E[g \mid h] = m + \frac{\mathrm{Cov}[g, h]}{\mathrm{Var}[h]} (h - V), $$

    which is exact where the belief is jointly Gaussian, also where `beliefs.positive` truncates it.
    A belief that says nothing of the covariance is averaged as if it were 0. A policy that is not
    linear in the gradient, such as `sign`, is averaged over the curvature only.

    The expectation is over the log-normal with the mean and variance of the curvature's posterior,
    by Gauss-Hermite quadrature. A curvature that is certain, or whose mean is not positive, is
    taken as it is.

    Args:
        policy: one that plans on the curvature, such as `horizon` or `ballistic`.
        num_nodes: number of nodes; the policy's step is computed for each.

    Returns:
        The policy.

    Raises:
        ValueError: ``num_nodes`` is less than 1; when it is used, the belief has no curvature or no
            curvature variance.
    """
    if num_nodes < 1:
        raise ValueError(f"averaged: num_nodes must be at least 1, got {num_nodes}.")
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    weights = (weights / weights.sum()).tolist()

    def step(posterior: Posterior, *places: PyTree) -> PyTree:
        mean = required(posterior, "curvature_mean", "averaged")
        variance = required(posterior, "curvature_variance", "averaged")
        gradient, covariance = posterior.gradient_mean, posterior.gradient_curvature_covariance

        def at(node: float) -> PyTree:
            def exponent(m: Array, v: Array) -> Array:
                known = _is_spread(m, v)
                log_mean, log_variance = (jnp.log(jnp.where(known, x, 1)) for x in (m, v))
                square = jax.nn.softplus(log_variance - 2 * log_mean)  # log(1 + v / m^2)
                return node * jnp.sqrt(square) - square / 2

            def leaf(m: Array, v: Array) -> Array:
                h = jnp.exp(exponent(m, v)) * m
                # A node that is positive stays so: policies may divide by it.
                return jnp.where(_is_spread(m, v), jnp.maximum(h, jnp.finfo(h.dtype).tiny), m)

            def there(g: Array, c: Array, m: Array, v: Array) -> Array:
                known = _is_spread(m, v) & jnp.isfinite(c)
                slope = jnp.where(known, c, 0) / jnp.where(known, v, 1)
                # How far the node is from the mean, whose difference would be rounding.
                return g + slope * jnp.where(known, m * jnp.expm1(exponent(m, v)), 0)

            curvature = jax.tree.map(leaf, mean, variance)
            given = posterior._replace(curvature_mean=curvature)
            if gradient is not None and covariance is not None:
                expected = jax.tree.map(there, gradient, covariance, mean, variance)
                given = given._replace(gradient_mean=expected)
            return policy.step(given, *places)

        steps = [at(float(node)) for node in nodes]
        return jax.tree.map(lambda *d: sum(w * x for w, x in zip(weights, d, strict=True)), *steps)

    averages = _uncertain(policy, step, policy.clipped, _AVERAGED)
    reads = averages.reads and (*averages.reads, "gradient_curvature_covariance")
    return averages._replace(reads=reads)


def _is_spread(mean: Array, variance: Array) -> Array:
    """Where a curvature is positive, uncertain, and not infinitely so."""
    return (mean > 0) & (variance > 0) & jnp.isfinite(variance)


_CAUTIOUS = "The plan is made on the root mean square of the curvature, sqrt(E[h^2])."
_AVERAGED = "The plan is averaged over the posterior of the curvature, and of the gradient with it."


def _uncertain(policy: Policy, step: Any, clipped: Any, remark: str) -> Policy:
    """A policy made of another, which looks at the variance of the curvature too."""
    plan = policy.plan and policy.plan._replace(remarks=(*policy.plan.remarks, remark))
    reads = policy.reads and (*policy.reads, "curvature_mean", "curvature_variance")
    return Policy(step, clipped, plan, policy.uses_start, reads)


def horizon(
    objective: Objective,
    time_step: ArrayLike = 1.0,
    *,
    exact_hold: ArrayLike = False,
    margin: float = 1e-3,
    eps_root: ArrayLike = 0.0,
) -> Policy:
    r"""Plan over a finite horizon $1/\gamma$: $\varphi m$ with the `planning_gain` $\varphi$.

    The direction is the step itself: use it with a learning rate of 1. A belief without curvature
    is planned on as if $V = 0$, which is gradient descent.

    Args:
        objective: the rate, gain, discount and (diagonal) metric.
        time_step: $\Delta t$, the time between looks, in the unit of $\gamma$.
        exact_hold: follow the closed loop for ``time_step`` before looking again; otherwise replan
            continuously. A number in [0, 1] lies between, see `planning_gain`.
        margin: of the clip at a saddle, see `planning_gain`.
        eps_root: $\epsilon_r \ge 0$, added to the curvature: a floor, as in `ballistic`.

    Returns:
        The policy.

    Raises:
        ValueError: ``time_step`` or ``margin`` is out of range, or the objective has a drift or a
            callable metric.
    """
    POSITIVE.check("horizon", "time_step", time_step)
    UNIT_INTERVAL.check("horizon", "exact_hold", exact_hold)
    UNIT_INTERVAL.check("horizon", "margin", margin)
    NON_NEGATIVE.check("horizon", "eps_root", eps_root)
    _check_diagonal("horizon", objective.metric)
    if objective.drift is not None:
        raise ValueError(
            "Cannot use control.horizon with an objective that has a drift. This is because the "
            "planning gain is derived for movement that is all under control; use "
            "control.matrix_horizon."
        )

    def relative(v: Array, g: ArrayLike) -> tuple[Array, Any, ArrayLike]:
        """The relative curvature, its bound, and the mobility."""
        v = v if is_number(eps_root, 0) else v + eps_root
        mobility = objective.rate * objective.gain / g
        return *relative_curvature(v, mobility, objective.discount, margin), mobility

    def planned_on(posterior: Posterior) -> tuple[PyTree, ...]:
        """The mean; the curvature, and the metric where there is one."""
        mean = required(posterior, "gradient_mean", "horizon")
        curvature = posterior.curvature_mean
        metric = _diagonal("horizon", objective.metric, mean)
        if curvature is None:
            if is_number(objective.discount, 0) and is_number(eps_root, 0):
                raise ValueError(
                    "Cannot use control.horizon at discount 0 with a belief without curvature. "
                    "This is because its gain is infinite there; believe a curvature or discount."
                )
            curvature = jax.tree.map(jnp.zeros_like, mean)
        return mean, curvature, *metric

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params

        def leaf(m: Array, v: Array, g: ArrayLike = 1.0) -> Array:
            x, bound, mobility = relative(v, g)
            x = jnp.maximum(x, bound)
            gain = gain_at(x, mobility, objective.discount, time_step, exact_hold)
            return _finite(jnp.isfinite(gain), gain * m, x)  # infinite without discount at x = 0

        return jax.tree.map(leaf, *planned_on(posterior))

    def clipped(posterior: Posterior, params: PyTree) -> PyTree:
        del params

        def leaf(v: Array, g: ArrayLike = 1.0) -> Array:
            x, bound, _ = relative(v, g)
            return x < bound

        return jax.tree.map(leaf, *planned_on(posterior)[1:])

    plan = Plan(
        objective.discount * time_step,
        exact_hold,
        "identity" if objective.metric is None else "given",
        eps_root,
    )
    return Policy(step, clipped, plan, reads=MEANS)


def _diagonal(policy: str, metric: PyTree, params: PyTree) -> tuple[PyTree, ...]:
    """A diagonal metric as a tree like the parameters, or nothing: it would be broadcast."""
    if metric is None:
        return ()
    return (per_parameter(f"control.{policy}", "metric", metric, params),)


def _check_diagonal(policy: str, metric: PyTree) -> None:
    """Raise unless the metric is the identity or a tree."""
    if is_function(metric):
        raise ValueError(
            f"Cannot use control.{policy} with a callable metric. This is because its gain is "
            "elementwise; give the metric's diagonal as a tree like the parameters, or use "
            "control.matrix_horizon."
        )
