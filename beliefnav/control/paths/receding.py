r"""Receding horizons: look, step, look again; and following a policy in time.

`navigate_locally` takes the steps of a `Policy` on what is believed of the landscape at each place,
for example its local quadratic, in one scan. `follow` integrates a feedback policy continuously.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from beliefnav._checks import POSITIVE
from beliefnav.beliefs import Posterior
from beliefnav.control._arrays import floating
from beliefnav.control.policies.contract import Policy

__all__ = ["Followed", "follow", "navigate_locally"]

PyTree = Any


def navigate_locally(
    policy: Policy,
    believe: Callable[[PyTree, Array], Posterior],
    start: PyTree,
    *,
    num_steps: int,
) -> PyTree:
    """Look, step by a policy on what is believed, look again.

    Args:
        policy: one of `beliefnav.control`, or your own, whose direction is the whole step.
        believe: ``(params, step) -> posterior``. ``step`` counts from 0, for beliefs that change or
            are drawn at random.
        start: where to begin, a tree.
        num_steps: number of steps.

    Returns:
        Where it went, a tree of arrays [1 + num_steps, ...].

    Raises:
        ValueError: ``num_steps`` is less than 1; or the policy refuses the belief.

    Example:
        On a landscape that is known, believe its gradient and Hessian: the Rosenbrock function.

        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import Objective, Posterior, control
        >>> loss = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        >>> def believe(x, step):
        ...     return Posterior(jax.grad(loss)(x), curvature_mean=jax.hessian(loss)(x))
        >>> policy = control.matrix_horizon(Objective(discount=0.1), 1.0, exact_hold=True)
        >>> path = control.navigate_locally(policy, believe, jnp.array([-1.0, 1.0]), num_steps=200)
        >>> [round(x, 2) for x in path[-1].tolist()]
        [1.0, 1.0]
    """
    if num_steps < 1:
        raise ValueError(f"navigate_locally: num_steps must be at least 1, got {num_steps}.")
    start = jax.tree.map(jnp.asarray, start)

    def step(params: PyTree, index: Array) -> tuple[PyTree, PyTree]:
        direction = policy.step(believe(params, index), params)
        params = jax.tree.map(lambda x, d: (x - d).astype(x.dtype), params, direction)
        return params, params

    _, visited = lax.scan(step, start, jnp.arange(num_steps))
    return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), start, visited)


class Followed(NamedTuple):
    """The result of `follow`.

    Attributes:
        params: a tree of arrays [time, ...]; infinite at times that were not reached.
        succeeded: whether the last time was reached.
    """

    params: PyTree
    succeeded: Array


def follow(
    velocity: Callable[[PyTree], PyTree],
    start: PyTree,
    times: ArrayLike,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_steps: int = 100_000,
) -> Followed:
    r"""Integrate a feedback policy $\dot\theta = v(\theta)$ from its start.

    By diffrax, with an adaptive Runge-Kutta method of order 5 (Tsitouras). This is for policies,
    which say where to go from anywhere, such as ``lq_policy(...).velocity``. The Euler-Lagrange
    equation is not one: integrated from a start it diverges.

    Args:
        velocity: parameters -> velocity, a tree like them.
        start: a tree.
        times: [time], increasing; the start is at the first of them.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        max_steps: of the integrator.

    Returns:
        The path at ``times``.

    Raises:
        ValueError: a tolerance is not positive, or there are fewer than two times.
        ImportError: diffrax is not installed; it comes with the extra ``paths``.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import Objective, control
        >>> policy = control.lq_policy(Objective(discount=0.0), 4 * jnp.eye(1), jnp.zeros(1))
        >>> path = control.follow(policy.velocity, jnp.ones(1), jnp.array([0.0, 1.0]))
        >>> bool(abs(path.params[1, 0] - jnp.exp(-2.0)) < 1e-5)  # at the rate sqrt(4)
        True
    """
    POSITIVE.check("follow", "rtol", rtol)
    POSITIVE.check("follow", "atol", atol)
    if jnp.ndim(times) != 1 or jnp.size(times) < 2:
        raise ValueError(f"follow: times must be [time] with at least 2, got {jnp.shape(times)}.")
    try:
        import diffrax
    except ImportError as error:
        raise ImportError(
            "Cannot follow a policy in time. This is because diffrax is not installed; do "
            "pip install 'beliefnav[paths]'."
        ) from error

    ts = jnp.asarray(times)
    start = jax.tree.map(floating, start)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: velocity(y)),
        diffrax.Tsit5(),
        t0=ts[0],
        t1=ts[-1],
        dt0=None,
        y0=start,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
        throw=False,
    )
    return Followed(solution.ys, solution.result == diffrax.RESULTS.successful)
