r"""The navigation objective: what moving costs, and how far ahead it is worth looking.

A learning rule is the optimal policy of

$$ J = E \int_0^\infty \Bigl( \tfrac{1}{2\eta} (\dot\theta - f(\theta))^\top G(\theta)
       (\dot\theta - f(\theta)) + k \, \hat L_t(\theta) \Bigr) e^{-\gamma t} \, dt, $$

where $\hat L_t$ is the expected loss under the learner's belief at time $t$. This module has the
objective and its mechanics for a loss that is known: with $\ell(\theta, \dot\theta)$ the integrand
before discounting, paths that make $J$ stationary obey the Euler-Lagrange equation

$$ \frac{d}{dt} p = \gamma p + \frac{\partial \ell}{\partial \theta}, \qquad
   p = \frac{\partial \ell}{\partial \dot\theta} = \tfrac{1}{\eta} G (\dot\theta - f), $$

which for $G = I$, $f = 0$ is $\ddot\theta = \gamma \dot\theta + \eta k \nabla L$. Both signs are
plus, since the potential is added to the kinetic term and not subtracted: integrated forward from
an arbitrary velocity, solutions diverge. The optimal path is the solution of a boundary value
problem (`beliefnav.control.least_action_path`) or of a feedback policy.

Wibisono, Wilson and Jordan also derive optimizers from a Lagrangian. Theirs has the loss subtracted
from the kinetic term, so that its paths have an inertia: integrated forward they are accelerated
methods, and their velocity is a state. Here the loss is a price, and the optimal velocity is a
function of the position.

Reference:
    Vastola, Gershman, Rajan, "Gradient Descent as Loss Landscape Navigation", NeurIPS 2025,
    arXiv:2510.26997.
    Wibisono, Wilson and Jordan, "A variational perspective on accelerated methods in optimization",
    PNAS 113 (2016), arXiv:1603.04245.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from beliefnav._checks import (
    NON_NEGATIVE,
    POSITIVE,
    UNIT_INTERVAL,
    Checked,
    check_symmetric,
    is_concrete,
)
from beliefnav._trees import fitted, is_function

__all__ = ["Objective", "action", "energy", "lagrangian", "velocity"]

PyTree = Any
Loss = Callable[[PyTree], ArrayLike]
"""A differentiable map from parameters to a real scalar."""


class Objective(Checked):
    r"""The constants and fields of the navigation objective $J$ (see the module docstring).

    Time is measured in the units of ``control.horizon``'s ``time_step``, most simply in steps.

    Attributes:
        rate: $\eta > 0$, the mobility: $1/\eta$ is the mass, the price of moving.
        gain: $k > 0$, the weight of the loss.
        discount: $\gamma \ge 0$ per unit time; $1/\gamma$ is the planning horizon. $\gamma \to
            \infty$ is myopic (gradient descent), $\gamma \to 0$ ballistic (the root in Adam).
        metric: $G(\theta)$, the geometry of parameter space: ``None`` (identity), a tree like the
            parameters (diagonal, positive), a symmetric positive definite matrix [n, n] over the n
            raveled parameters, or a callable from parameters to one of these.
        drift: $f(\theta)$, movement that is not under control: ``None`` or a callable from
            parameters to a velocity tree.

    Raises:
        ValueError: ``rate`` or ``gain`` is not positive, or ``discount`` is negative (checked when
            they are Python numbers).
    """

    ranges: ClassVar = {"rate": POSITIVE, "gain": POSITIVE, "discount": NON_NEGATIVE}

    rate: ArrayLike = 1.0
    gain: ArrayLike = 1.0
    discount: ArrayLike = 1.0
    metric: Any = None
    drift: Any = None


def lagrangian(objective: Objective, loss: Loss, params: PyTree, velocity: PyTree) -> Array:
    r"""$\ell(\theta, \dot\theta)$, what a unit of time costs before discounting.

    Args:
        objective: the constants, metric and drift.
        loss: $L$.
        params: $\theta$.
        velocity: $\dot\theta$, a tree like ``params``.

    Returns:
        A scalar.

    Raises:
        ValueError: the trees, the loss, the metric or the drift do not fit each other.

    Example:
        To go where the drift goes costs nothing but the loss.

        >>> import jax.numpy as jnp
        >>> from beliefnav.objective import Objective, lagrangian
        >>> decay = Objective(drift=lambda x: -0.1 * x)
        >>> x = jnp.array([2.0, 1.0])
        >>> float(lagrangian(decay, lambda x: x @ x / 2, x, -0.1 * x))
        2.5
    """
    _check_velocity(velocity, params)
    controlled = jax.tree.map(jnp.subtract, velocity, _drift(objective, params))
    kinetic = _dot(controlled, _lower(objective, params, controlled)) / (2 * objective.rate)
    return kinetic + objective.gain * _scalar(loss, params)


def velocity(objective: Objective, params: PyTree, momentum: PyTree) -> PyTree:
    r"""$\dot\theta = f(\theta) + \eta G(\theta)^{-1} p$ of a momentum $p$.

    The momentum is zero at a free end of an optimal path (transversality), and minus the gradient
    of the value function along it.

    Args:
        objective: the rate, metric and drift.
        params: $\theta$.
        momentum: $p$, a tree like ``params``.

    Returns:
        A tree like ``params``; NaN where a dense metric is not positive definite.
    """
    controlled = jax.tree.map(
        lambda p: objective.rate * p, raise_index(objective, params, momentum)
    )
    return jax.tree.map(jnp.add, controlled, _drift(objective, params))


def energy(objective: Objective, loss: Loss, params: PyTree, velocity: PyTree) -> Array:
    r"""$E = (\dot\theta^\top G \dot\theta - f^\top G f) / 2\eta - k L$.

    Minus the loss, because the potential is added in $J$. On an optimal path $dE/dt = \gamma \,
    \dot\theta^\top p$: conserved without discount, also with a drift; without a drift it never
    falls.

    Args:
        objective: the constants, metric and drift.
        loss: $L$.
        params: $\theta$.
        velocity: $\dot\theta$, a tree like ``params``.

    Returns:
        A scalar.

    Raises:
        ValueError: the trees, the metric or the drift do not fit each other.

    Example:
        The optimal path to rest at the minimum of a quadratic is exponential; its energy is 0.

        >>> import jax, jax.numpy as jnp
        >>> from beliefnav.objective import Objective, energy
        >>> patient, path = Objective(discount=0.0), jnp.exp(-jnp.arange(3.0))
        >>> jax.vmap(lambda x: energy(patient, lambda x: x**2 / 2, x, -x))(path).tolist()
        [0.0, 0.0, 0.0]
    """
    _check_velocity(velocity, params)
    kinetic = _dot(velocity, _lower(objective, params, velocity))
    drift = _drift(objective, params)
    carried = _dot(drift, _lower(objective, params, drift))
    return (kinetic - carried) / (2 * objective.rate) - objective.gain * _scalar(loss, params)


def action(
    objective: Objective,
    loss: Loss,
    path: PyTree,
    time_step: ArrayLike,
    *,
    node: float = 0.5,
) -> Array:
    r"""The discounted cost of a path that is straight between its points.

    $$ S = h \sum_i e^{-\gamma (t_i + c h)} \,
       \ell\Bigl( (1 - c) \theta_i + c \, \theta_{i+1}, \frac{\theta_{i+1} - \theta_i}{h} \Bigr) $$

    Args:
        objective: the constants, metric and drift.
        loss: $L$.
        path: tree of arrays [time, ...], at least two points, ``time_step`` apart.
        time_step: $h > 0$.
        node: $c$ in [0, 1], where in an interval the cost is read. 0.5, the midpoint rule, is of
            second order in $h$; 0, the left-point rule, of first.

    Returns:
        A scalar, the integral: divide by the duration for the mean cost of a unit of time.

    Raises:
        ValueError: fewer than two points, or ``time_step`` is not positive.
    """
    POSITIVE.check("action", "time_step", time_step)
    UNIT_INTERVAL.check("action", "node", node)
    length = path_length("action", path)
    if length < 2:
        raise ValueError("action: the path must have at least 2 points.")

    def cost(before: PyTree, after: PyTree) -> Array:
        return interval_cost(objective, loss, before, after, time_step, node)

    head, tail = (jax.tree.map(lambda x, s=s: x[s], path) for s in _TWO)
    costs = jax.vmap(cost)(head, tail)
    steps = jnp.arange(length - 1) + node
    return jnp.sum(jnp.exp(-jnp.asarray(objective.discount) * time_step * steps) * costs)


# --- for beliefnav.control ----------------------------------------------------------------------

_TWO = (slice(None, -1), slice(1, None))


def interval_cost(
    objective: Objective,
    loss: Loss,
    before: PyTree,
    after: PyTree,
    time_step: ArrayLike,
    node: ArrayLike,
) -> Array:
    r"""$h \ell$ on the straight line between two points, before discounting (see `action`)."""
    place = jax.tree.map(lambda a, b: a + node * (b - a), before, after)
    speed = jax.tree.map(lambda a, b: (b - a) / time_step, before, after)
    return jnp.asarray(time_step) * lagrangian(objective, loss, place, speed)


def raise_index(objective: Objective, params: PyTree, covector: PyTree) -> PyTree:
    """$G^{-1} p$, a tree like ``params``."""
    metric = _metric(objective, params)
    if metric is None:
        return covector
    if not _is_dense(metric, params):
        return jax.tree.map(lambda p, g: p / g, covector, metric)
    flat, unravel = ravel_pytree(covector)
    return unravel(jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(metric), flat))


def path_length(owner: str, path: PyTree) -> int:
    """The number of points of a path; ``ValueError`` if its arrays disagree about it."""
    shapes = [jnp.shape(x) for x in jax.tree.leaves(path)]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            f"{owner}: every array of a path must have time as its first axis, of one length; "
            f"got shapes {shapes}."
        )
    (length,) = lengths
    assert length is not None
    return length


def is_like(tree: PyTree, params: PyTree) -> bool:
    """Whether a tree has the structure and shapes of the parameters."""
    return jax.tree.structure(tree) == jax.tree.structure(params) and _shapes(tree) == _shapes(
        params
    )


def metric_matrix(objective: Objective, params: PyTree) -> Array:
    """$G$ as a matrix [n, n] over the raveled parameters."""
    metric = _metric(objective, params)
    if metric is None:
        flat, _ = ravel_pytree(params)
        return jnp.eye(flat.size, dtype=flat.dtype)
    return jnp.asarray(metric if _is_dense(metric, params) else jnp.diag(ravel_pytree(metric)[0]))


def check_metric(owner: str, objective: Objective, params: PyTree) -> None:
    """Raise unless $G$ at ``params`` fits them and, as far as its values are known, is SPD.

    Args:
        owner: what checks, for the message.
        objective: the metric and drift.
        params: where to evaluate a callable metric, and the drift.

    Raises:
        ValueError: says what does not fit, or that the metric is not symmetric positive definite.
    """
    _drift(objective, params)
    metric = _metric(objective, params)
    if metric is None or not all(is_concrete(x) for x in jax.tree.leaves(metric)):
        return
    if _is_dense(metric, params):
        check_symmetric(owner, "the metric", "G", metric)
        lowest = np.linalg.eigvalsh(np.asarray(metric, np.float64))[0]
        if not lowest > 0:
            raise ValueError(
                f"{owner}: the metric is not positive definite: its lowest eigenvalue is {lowest}."
            )
    elif not all(np.all(np.asarray(x) > 0) for x in jax.tree.leaves(metric)):
        raise ValueError(f"{owner}: a diagonal metric must be positive everywhere, got {metric}.")


def _scalar(loss: Loss, params: PyTree) -> Array:
    """The loss; raise unless it is one real number."""
    value = jnp.asarray(loss(params))
    if value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"The loss must be one real number, got an array of shape {value.shape} and type "
            f"{value.dtype}."
        )
    return value


def _metric(objective: Objective, params: PyTree) -> Any:
    """$G$ at ``params``: ``None``, a tree like them, or a matrix."""
    metric = objective.metric(params) if is_function(objective.metric) else objective.metric
    if metric is None or _is_dense(metric, params):
        return metric
    with suppress(ValueError):  # more is said below
        metric = fitted("Objective", "metric", metric, params)
    if is_like(metric, params):
        return metric
    size = sum(jnp.size(x) for x in jax.tree.leaves(params))
    raise ValueError(
        "The metric must be None, a tree like the parameters (diagonal), a matrix "
        f"[{size}, {size}], or a callable from parameters to one of these; for parameters of "
        f"shapes {_shapes(params)} got {_shapes(metric)}."
    )


def _is_dense(metric: Any, params: PyTree) -> bool:
    """Whether a metric is a matrix over the raveled parameters."""
    size = sum(jnp.size(x) for x in jax.tree.leaves(params))
    return not is_like(metric, params) and _shapes(metric) == (size, size)


def _drift(objective: Objective, params: PyTree) -> PyTree:
    """$f$ at ``params``."""
    if objective.drift is None:
        return jax.tree.map(jnp.zeros_like, params)
    drift = objective.drift(params)
    if not is_like(drift, params):
        raise ValueError(
            "The drift must be a tree like the parameters; for parameters of shapes "
            f"{_shapes(params)} got {_shapes(drift)}."
        )
    return drift


def _lower(objective: Objective, params: PyTree, vector: PyTree) -> PyTree:
    """$G u$, a tree like ``params``."""
    metric = _metric(objective, params)
    if metric is None:
        return vector
    if not _is_dense(metric, params):
        return jax.tree.map(jnp.multiply, metric, vector)
    flat, unravel = ravel_pytree(vector)
    return unravel(metric @ flat)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.shape, tree)


def _check_velocity(velocity: PyTree, params: PyTree) -> None:
    if not is_like(velocity, params):
        raise ValueError(
            "The velocity must be a tree like the parameters; for parameters of shapes "
            f"{_shapes(params)} got {_shapes(velocity)}."
        )


def _dot(a: PyTree, b: PyTree) -> Array:
    products = jax.tree.map(lambda x, y: jnp.sum(jnp.asarray(x) * y), a, b)
    return jax.tree.reduce(jnp.add, products, jnp.zeros(()))
