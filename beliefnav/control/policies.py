r"""Policies: from a posterior at the present parameters to a direction.

The direction has the sign of the gradient; an optimizer steps against it. Limits of the planning
gain (`beliefnav.control.planning_gain`) are policies of their own, normalised so that the learning
rate multiplies them, never huge numbers in a formula:

| policy | limit | direction | learning rate |
|---|---|---|---|
| `myopic` | replanning, $\gamma \to \infty$ | $m / G$ | $\eta k \Delta t / \gamma$ |
| `ballistic` | replanning, $\gamma = 0$ | $m / \sqrt{G V}$ | $\sqrt{\eta k} \Delta t$ |
| `newton` | exact hold, $\Delta t \to \infty$ | $m / V$ | 1 |
| `horizon` | none | $\varphi m$ | 1 |
| `matrix_horizon` | none | $\Phi m$ | 1 |
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.control._arrays import check_like, ravel
from beliefnav.control.lq import LQStatus, lq_policy
from beliefnav.control.matrices import matrix_planning_gain
from beliefnav.control.planning import PlanningGain, planning_gain
from beliefnav.objective import Objective, is_like, metric_matrix
from beliefnav.ssm import Posterior

PyTree = Any


class Policy(NamedTuple):
    """A map from a posterior to a direction.

    Attributes:
        step: ``(posterior, params) -> direction``, a tree like the parameters.
        clipped: ``(posterior, params) -> mask``, True where the curvature had to be clipped before
            ``step`` could use it; ``None`` if it never has to be. Optimizers count it.
    """

    step: Callable[[Posterior, PyTree], PyTree]
    clipped: Callable[[Posterior, PyTree], PyTree] | None = None


def myopic(metric: PyTree = None) -> Policy:
    r"""Descend: $m / G$, for any curvature. Natural gradient descent if $G$ is the Fisher metric.

    Args:
        metric: $G$, ``None`` (identity) or a positive tree like the parameters.

    Returns:
        The policy.

    Raises:
        ValueError: ``metric`` is a callable.
    """
    _check_diagonal("myopic", metric)

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        mean = _required(posterior, "gradient_mean", "myopic")
        _check_metric("myopic", metric, mean)
        return mean if metric is None else jax.tree.map(jnp.divide, mean, metric)

    return Policy(step)


def ballistic(eps: ArrayLike = 0.0, eps_root: ArrayLike = 0.0, metric: PyTree = None) -> Policy:
    r"""Plan without discounting: $m / (\sqrt{G (V + \epsilon_r)} + \epsilon)$.

    Inside the root, $\epsilon_r$ is a curvature floor: the belief that no direction is flatter.
    Outside, $\epsilon$ has no such reading; it is the approximation that Adam makes to keep the
    step finite, and it bounds the gain by $1/\epsilon$.

    Negative curvature is read as 0, since the undiscounted problem is unbounded below, and counted
    as clipped.

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
        scale = jnp.sqrt(g * (jnp.maximum(v, 0) + eps_root)) + eps
        return jnp.where(m == 0, 0, m / scale)  # where there is no force, none is amplified

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        mean = _required(posterior, "gradient_mean", "ballistic")
        curvature = _required(posterior, "curvature_mean", "ballistic")
        _check_metric("ballistic", metric, mean)
        trees = (mean, curvature) if metric is None else (mean, curvature, metric)
        return jax.tree.map(direction, *trees)

    def clipped(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        return jax.tree.map(lambda v: v < 0, posterior.curvature_mean)

    return Policy(step, clipped)


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
        mean = _required(posterior, "gradient_mean", "newton")
        return jax.tree.map(direction, mean, _required(posterior, "curvature_mean", "newton"))

    def clipped(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        return jax.tree.map(lambda v: v <= 0, posterior.curvature_mean)

    return Policy(step, clipped)


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

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        mean = _required(posterior, "curvature_mean", "cautious")
        variance = _required(posterior, "curvature_variance", "cautious")
        root = jax.tree.map(lambda m, v: jnp.sqrt(m * m + v), mean, variance)
        return policy.step(posterior._replace(curvature_mean=root), params)

    return Policy(step)


def horizon(
    objective: Objective,
    time_step: ArrayLike = 1.0,
    *,
    exact_hold: bool = False,
    margin: float = 1e-3,
) -> Policy:
    r"""Plan over a finite horizon $1/\gamma$: $\varphi m$ with the `planning_gain` $\varphi$.

    The direction is the step itself: use it with a learning rate of 1. A belief without curvature
    is planned on as if $V = 0$, which is gradient descent.

    Args:
        objective: the rate, gain, discount and (diagonal) metric.
        time_step: $\Delta t$, the time between looks, in the unit of $\gamma$.
        exact_hold: follow the closed loop for ``time_step`` before looking again; otherwise replan
            continuously.
        margin: of the clip at a saddle, see `planning_gain`.

    Returns:
        The policy.

    Raises:
        ValueError: ``time_step`` or ``margin`` is out of range, or the objective has a drift or a
            callable metric.
    """
    POSITIVE.check("horizon", "time_step", time_step)
    UNIT_INTERVAL.check("horizon", "margin", margin)
    _check_diagonal("horizon", objective.metric)
    if objective.drift is not None:
        raise ValueError(
            "Cannot use control.horizon with an objective that has a drift. This is because the "
            "planning gain is derived for movement that is all under control; use "
            "control.matrix_horizon."
        )

    def plan(v: ArrayLike, metric: ArrayLike = 1.0) -> PlanningGain:
        return planning_gain(
            v,
            rate=objective.rate,
            gain=objective.gain,
            discount=objective.discount,
            time_step=time_step,
            metric=metric,
            exact_hold=exact_hold,
            margin=margin,
        )

    def plans(posterior: Posterior, params: PyTree) -> tuple[PyTree, PyTree]:
        del params
        mean = _required(posterior, "gradient_mean", "horizon")
        curvature = posterior.curvature_mean
        _check_metric("horizon", objective.metric, mean)
        if curvature is None:
            if isinstance(objective.discount, int | float) and objective.discount == 0:
                raise ValueError(
                    "Cannot use control.horizon at discount 0 with a belief without curvature. "
                    "This is because its gain is infinite there; believe a curvature or discount."
                )
            curvature = jax.tree.map(jnp.zeros_like, mean)
        trees = (curvature,) if objective.metric is None else (curvature, objective.metric)
        return mean, jax.tree.map(plan, *trees)

    def is_plan(x: Any) -> bool:
        return isinstance(x, PlanningGain)

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        mean, planned = plans(posterior, params)
        return jax.tree.map(
            lambda p, m: jnp.where(m == 0, 0, p.gain * m), planned, mean, is_leaf=is_plan
        )

    def clipped(posterior: Posterior, params: PyTree) -> PyTree:
        return jax.tree.map(lambda p: p.clipped, plans(posterior, params)[1], is_leaf=is_plan)

    return Policy(step, clipped)


def matrix_horizon(
    objective: Objective,
    time_step: ArrayLike = 1.0,
    *,
    exact_hold: bool = False,
    margin: float = 1e-3,
) -> Policy:
    r"""`horizon` with coupled parameters: $\Phi m$ with the `matrix_planning_gain` $\Phi$.

    For small problems: a matrix over the n raveled parameters is decomposed at every step. The
    posterior's ``curvature_mean`` is a matrix [n, n], a tree like the parameters (diagonal), or
    ``None`` (flat); the metric may be any that `Objective` allows.

    A drift is taken into account to first order, by `lq_policy`: the step is what control and drift
    do together in ``time_step``. Where that problem has no solution the parameters stay.

    Args:
        objective: the constants, metric and drift.
        time_step: $\Delta t$, the time between looks, in the unit of $\gamma$.
        exact_hold: follow the closed loop for ``time_step`` before looking again; otherwise replan
            continuously.
        margin: of the clip at a saddle, see `planning_gain`; not used with a drift.

    Returns:
        The policy; its direction is the step itself, for a learning rate of 1.

    Raises:
        ValueError: ``time_step`` or ``margin`` is out of range.
    """
    POSITIVE.check("matrix_horizon", "time_step", time_step)
    UNIT_INTERVAL.check("matrix_horizon", "margin", margin)

    def plan(posterior: Posterior, params: PyTree) -> tuple[PyTree, Array]:
        gradient = _required(posterior, "gradient_mean", "matrix_horizon")
        flat, unravel = ravel(gradient)
        curvature = _as_matrix(posterior.curvature_mean, gradient)
        if objective.drift is None:
            planned = matrix_planning_gain(
                curvature,
                rate=objective.rate,
                gain=objective.gain,
                discount=objective.discount,
                time_step=time_step,
                metric=None if objective.metric is None else metric_matrix(objective, params),
                exact_hold=exact_hold,
                margin=margin,
            )
            return unravel(jnp.where(jnp.all(flat == 0), 0, planned.gain @ flat)), planned.clipped
        policy = lq_policy(objective, curvature, params, gradient)
        if exact_hold:
            after = policy.path(params, jnp.asarray(time_step)[None])
            move = jax.tree.map(lambda x, y: x - y[0], params, after)
        else:
            move = jax.tree.map(lambda v: -jnp.asarray(time_step) * v, policy.velocity(params))
        solved = policy.status == LQStatus.SOLVED
        return jax.tree.map(lambda d: jnp.where(solved, d, 0), move), ~solved

    return Policy(lambda *args: plan(*args)[0], lambda *args: plan(*args)[1])


def _as_matrix(curvature: Any, params: PyTree) -> Array:
    """A matrix, a diagonal tree or nothing, as a matrix [n, n]."""
    flat, _ = ravel(params)
    if curvature is None:
        return jnp.zeros((flat.size, flat.size), flat.dtype)
    if is_like(curvature, params):
        return jnp.diag(ravel(curvature)[0])
    if jnp.shape(curvature) != (flat.size, flat.size):
        raise ValueError(
            "Cannot use control.matrix_horizon with this belief. This is because its "
            f"curvature_mean must be a tree like the parameters or a matrix "
            f"{(flat.size, flat.size)}, and has shapes {jax.tree.map(jnp.shape, curvature)}."
        )
    return jnp.asarray(curvature)


def _required(posterior: Posterior, field: str, policy: str) -> PyTree:
    """A field of the posterior that a policy cannot do without."""
    value = getattr(posterior, field)
    if value is None:
        raise ValueError(
            f"Cannot use control.{policy} with a belief that has no {field}. This is because its "
            f"step depends on it; join one in with ssm.independent."
        )
    return value


def _check_metric(policy: str, metric: PyTree, params: PyTree) -> None:
    """Raise unless a diagonal metric is a tree like the parameters: it would be broadcast."""
    if metric is not None:
        check_like(f"control.{policy}", "metric", metric, params)


def _check_diagonal(policy: str, metric: PyTree) -> None:
    """Raise unless the metric is the identity or a tree."""
    if callable(metric):
        raise ValueError(
            f"Cannot use control.{policy} with a callable metric. This is because its gain is "
            "elementwise; give the metric's diagonal as a tree like the parameters, or use "
            "control.matrix_horizon."
        )
