r"""Policies that couple parameters: the planning gain and its limits as functions of matrices.

| policy | limit | direction | learning rate |
|---|---|---|---|
| `matrix_horizon` | none | $\Phi m$ | 1 |
| `matrix_ballistic` | replanning, $\gamma = 0$ | $V^{-1/2} m$ | $\sqrt{\eta k} \Delta t$ |
| `polar` | ... and $V = M M^\top \otimes I$ | $(M M^\top)^{-1/2} M$ | the same |
| `matrix_newton` | exact hold, $\Delta t \to \infty$ | $V^{-1} m$ | 1 |

The curvature is a matrix over the n raveled parameters, for small problems, or one
`beliefnav.beliefs.Kronecker` for every array.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, is_number
from beliefnav._format import number
from beliefnav._sharding import gathered, placed_like
from beliefnav.beliefs import Posterior
from beliefnav.beliefs.second_moment.kronecker_walk import matrix_shape
from beliefnav.control._arrays import floating, ravel
from beliefnav.control.gains.kronecker import is_kronecker, times_power
from beliefnav.control.gains.lq import LQStatus, lq_policy
from beliefnav.control.gains.matrix import (
    matrix_planning_gain,
    polar_factor,
    rounding,
    symmetric_function,
    symmetric_power,
)
from beliefnav.control.policies.contract import MEANS, Plan, Policy, required
from beliefnav.control.policies.pointwise import EPS_OUTSIDE
from beliefnav.objective import Objective, is_like, metric_matrix

__all__ = ["matrix_ballistic", "matrix_horizon", "matrix_newton", "polar"]

PyTree = Any

COUPLED = "Parameters are planned for together: the curvature is a matrix."


def matrix_horizon(
    objective: Objective,
    time_step: ArrayLike = 1.0,
    *,
    exact_hold: ArrayLike = False,
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
        ValueError: ``time_step``, ``exact_hold`` or ``margin`` is out of range, or ``exact_hold``
            is neither 0 nor 1 and there is a drift.
    """
    POSITIVE.check("matrix_horizon", "time_step", time_step)
    UNIT_INTERVAL.check("matrix_horizon", "exact_hold", exact_hold)
    UNIT_INTERVAL.check("matrix_horizon", "margin", margin)
    if objective.drift is not None and not (is_number(exact_hold, 0) or is_number(exact_hold, 1)):
        raise ValueError(
            "Cannot use control.matrix_horizon with a drift and an exact_hold between. This is "
            "because the plan is then the LQ policy, which is held or remade; give True or False."
        )

    def plan(posterior: Posterior, params: PyTree) -> tuple[PyTree, Array]:
        gradient = required(posterior, "gradient_mean", "matrix_horizon")
        flat, unravel = ravel(gradient)
        curvature = _as_matrix("matrix_horizon", posterior.curvature_mean, gradient)
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

    return Policy(
        lambda *args: plan(*args)[0],
        lambda *args: plan(*args)[1],
        Plan(
            objective.discount * time_step,
            exact_hold,
            "identity" if objective.metric is None else "given",
            drift="" if objective.drift is None else "given",
            remarks=(COUPLED,),
        ),
    )


def matrix_ballistic(eps: ArrayLike = 0.0, eps_root: ArrayLike = 0.0) -> Policy:
    r"""Plan without discounting: $((V + \epsilon_r I)^{1/2} + \epsilon I)^{-1} m$.

    In directions of which nothing was seen ($V = \epsilon_r = \epsilon = 0$) there is no step, and
    no gain is larger than the rounding of the eigenvalues of $V$ allows. For a
    `beliefnav.beliefs.Kronecker`, $\epsilon_r$ is added to each of its factors before they are
    raised to their power, and $\epsilon$ must be 0.

    Args:
        eps: $\epsilon \ge 0$, in units of the gradient; see `ballistic`.
        eps_root: $\epsilon_r \ge 0$, in units of the curvature (of a Kronecker factor).

    Returns:
        The policy.

    Raises:
        ValueError: ``eps`` or ``eps_root`` is a negative Python number; when it is used, the
            curvature is neither a matrix nor made of Kronecker products, or ``eps`` is given with
            the latter.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import Posterior, control
        >>> curvature = jnp.array([[2.5, 1.5], [1.5, 2.5]])  # 4 along (1, 1), 1 across
        >>> belief = Posterior(jnp.ones(2), curvature_mean=curvature)
        >>> direction = control.matrix_ballistic().step(belief, jnp.zeros(2))
        >>> [round(x, 3) for x in direction.tolist()]
        [0.5, 0.5]
    """
    NON_NEGATIVE.check("matrix_ballistic", "eps", eps)
    NON_NEGATIVE.check("matrix_ballistic", "eps_root", eps_root)

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        mean = required(posterior, "gradient_mean", "matrix_ballistic")
        curvature = required(posterior, "curvature_mean", "matrix_ballistic")
        if is_kronecker(curvature):
            if not is_number(eps, 0):
                raise ValueError(
                    "Cannot use control.matrix_ballistic(eps=) with a Kronecker product. This is "
                    "because a sum with the identity is not one; use eps_root."
                )
            return times_power(curvature, mean, -0.5, eps_root)
        flat, unravel = ravel(mean)
        v = _as_matrix("matrix_ballistic", curvature, mean)

        def gain(x: Array) -> Array:
            v, noise = jnp.maximum(x, 0) + eps_root, rounding(x)
            root = jnp.where(v > 0, jnp.sqrt(jnp.where(v > 0, v, 1)), 0)
            # A floor below the noise of eigenvalues would amplify that of eigenvectors.
            scale = jnp.maximum(root + eps, jnp.sqrt(noise))
            seen = ((x > noise) | (jnp.asarray(eps_root) + eps > 0)) & (scale > 0)
            return jnp.where(seen, 1 / jnp.where(seen, scale, 1), 0)

        return unravel(symmetric_function(gain, v) @ flat)

    outside = () if is_number(eps, 0) else (EPS_OUTSIDE.format(number(eps)),)
    plan = Plan(0.0, floor=eps_root, remarks=(COUPLED,), approximations=outside)
    return Policy(step, plan=plan, reads=MEANS)


def matrix_newton() -> Policy:
    r"""Jump to the believed optimum: $V^{-1} m$ in the directions in which $V > 0$.

    In the others there is no optimum to jump to, and no step; they are counted as clipped.

    Returns:
        The policy.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import Posterior, control
        >>> curvature, distance = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([3.0, -4.0])
        >>> belief = Posterior(curvature @ distance, curvature_mean=curvature)
        >>> direction = control.matrix_newton().step(belief, None)
        >>> [round(x, 3) for x in direction.tolist()]
        [3.0, -4.0]
    """

    def curvature_matrix(posterior: Posterior) -> tuple[PyTree, Array]:
        mean = required(posterior, "gradient_mean", "matrix_newton")
        curvature = required(posterior, "curvature_mean", "matrix_newton")
        return mean, _as_matrix("matrix_newton", curvature, mean)

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        mean, v = curvature_matrix(posterior)
        flat, unravel = ravel(mean)
        return unravel(symmetric_power(v, -1.0) @ flat)

    def clipped(posterior: Posterior, params: PyTree) -> PyTree:
        del params
        eigenvalues = jnp.linalg.eigvalsh(curvature_matrix(posterior)[1])
        return eigenvalues <= rounding(eigenvalues)

    return Policy(step, clipped, Plan(None, math.inf, remarks=(COUPLED,)), reads=MEANS)


def polar() -> Policy:
    r"""The polar factor of every matrix: ballistic on $V = M M^\top \otimes I$, read off its mean.

    $V^{-1/2} m = (M M^\top)^{-1/2} M = U V^\top$ for $M = U \Sigma V^\top$: `sign` with matrices
    for numbers. All singular values of the step are 1. A vector is one column, and becomes its
    direction; arrays of more axes are matrices by their last.

    Returns:
        The policy.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import Posterior, control
        >>> direction = control.polar().step(Posterior(jnp.array([[3.0, 1.0], [0.0, 0.1]])), None)
        >>> bool(jnp.allclose(direction @ direction.T, jnp.eye(2), atol=1e-5))
        True
    """

    def step(posterior: Posterior, params: PyTree) -> PyTree:
        del params

        def leaf(m: Array) -> Array:
            matrix = gathered(floating(m)).reshape(matrix_shape(m.shape))
            return placed_like(polar_factor(matrix).reshape(m.shape), m)

        return jax.tree.map(leaf, required(posterior, "gradient_mean", "polar"))

    plan = Plan(0.0, curvature="M M^T x I of the mean", remarks=(COUPLED,))
    return Policy(step, plan=plan, reads=("gradient_mean",))


def _as_matrix(owner: str, curvature: Any, params: PyTree) -> Array:
    """A matrix, a diagonal tree or nothing, as a matrix [n, n]."""
    flat, _ = ravel(params)
    if curvature is None:
        return jnp.zeros((flat.size, flat.size), flat.dtype)
    if is_like(curvature, params):
        return jnp.diag(ravel(curvature)[0])
    shapes = jax.tree.map(jnp.shape, curvature)
    if shapes != (flat.size, flat.size):
        raise ValueError(
            f"Cannot use control.{owner} with this belief. This is because its "
            f"curvature_mean must be a tree like the parameters or a matrix "
            f"{(flat.size, flat.size)}, and has shapes {shapes}."
        )
    return jnp.asarray(curvature)
