r"""Receding horizons: plan, act for a while, look again, plan anew; and following a policy in time.

`navigate` plans whole paths on a landscape that is known. `navigate_locally` takes the steps of a
`Policy` on what is believed of the landscape at each place, for example its local quadratic. Both
are one scan. `follow` integrates a feedback policy continuously.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from beliefnav._checks import POSITIVE
from beliefnav.beliefs import Posterior
from beliefnav.control._arrays import floating, ravel
from beliefnav.control.paths.least_action import least_action_path
from beliefnav.control.policies.contract import Policy
from beliefnav.objective import Loss, Objective

PyTree = Any


class Navigation(NamedTuple):
    """The result of `navigate`.

    Attributes:
        times: [1 + num_plans * hold], from 0.
        params: where it went, a tree of arrays [1 + num_plans * hold, ...].
        planned_action: [plan] of every plan, in values of the time it was made.
        num_steps: [plan] Newton steps of every plan.
        status: [plan] `beliefnav.control.PathStatus` of every plan. A plan that did not converge is
            acted on as it is.
    """

    times: Array
    params: PyTree
    planned_action: Array
    num_steps: Array
    status: Array


def navigate(
    objective: Objective,
    loss: Loss,
    start: PyTree,
    *,
    lookahead: ArrayLike,
    num_points: int,
    hold: int,
    num_plans: int,
    guess: PyTree = None,
    **options: Any,
) -> Navigation:
    r"""Plan a path of least action, act on its first part, plan again from there.

    Every plan begins with the rest of the one before. Looking ahead by $T$ with a free end, and
    acting on a small part of it, approximates the stationary policy of an infinite horizon, up to
    terms that fall like $e^{-(\gamma + r) T}$ where the approach has the rate $r$; a
    ``terminal_value`` improves on that.

    Args:
        objective: the constants, metric and drift.
        loss: $L$, twice differentiable.
        start: where to begin, a tree.
        lookahead: $T$, the duration of every plan.
        num_points: points of every plan, see `beliefnav.control.least_action_path`.
        hold: intervals of a plan that are acted on before the next one is made, less than
            ``num_points``; the time between looks is $\Delta t$ = hold $T$ / (num_points - 1).
        num_plans: number of plans.
        guess: of the first plan, a tree of arrays [num_points, ...]; it matters on which side of a
            barrier it ends.
        **options: of `least_action_path`, ``terminal_value`` among them.

    Returns:
        The path that was taken, and how every plan went.

    Raises:
        ValueError: ``hold`` or ``num_plans`` is out of range; see also `least_action_path`.
    """
    if not 1 <= hold < num_points:
        raise ValueError(
            f"navigate: hold must be in 1 ... num_points - 1 = {num_points - 1}, got {hold}."
        )
    if num_plans < 1:
        raise ValueError(f"navigate: num_plans must be at least 1, got {num_plans}.")
    first, unravel = ravel(start)
    if guess is None:
        guess = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_points, *jnp.shape(x))), start)

    def plan(carry: tuple[Array, Array], _: None) -> tuple[Any, Any]:
        here, guess = carry
        path = least_action_path(
            objective,
            loss,
            unravel(here),
            duration=lookahead,
            num_points=num_points,
            guess=jax.vmap(unravel)(guess),
            **options,
        )
        points = jax.vmap(lambda x: ravel(x)[0])(path.params)
        rest = jnp.concatenate([points[hold:], jnp.broadcast_to(points[-1:], (hold, len(here)))])
        return (points[hold], rest), (
            points[1 : hold + 1],
            path.action,
            path.num_steps,
            path.status,
        )

    flat_guess = jax.vmap(lambda x: ravel(x)[0])(guess).astype(first.dtype)
    _, (taken, *rest) = lax.scan(plan, (first, flat_guess), None, length=num_plans)
    path = jnp.concatenate([first[None], taken.reshape(num_plans * hold, -1)])
    times = jnp.arange(len(path)) * (jnp.asarray(lookahead, first.dtype) / (num_points - 1))
    return Navigation(times, jax.vmap(unravel)(path), *rest)


def local_quadratic(loss: Loss, params: PyTree) -> Posterior:
    r"""What is to be known of a loss to second order at a place, as a certain belief.

    Args:
        loss: $L$, twice differentiable.
        params: a tree.

    Returns:
        The gradient, a tree, and the Hessian [n, n] over the n raveled parameters in place of the
        curvature: a posterior for `beliefnav.control.matrix_horizon`.
    """
    flat, unravel = ravel(params)
    hessian = jax.hessian(lambda x: jnp.asarray(loss(unravel(x))))(flat)
    return Posterior(gradient_mean=jax.grad(loss)(params), curvature_mean=hessian)


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
        believe: ``(params, step) -> posterior``; `local_quadratic` for a landscape that is known.
            ``step`` counts from 0, for beliefs that change or are drawn at random.
        start: where to begin, a tree.
        num_steps: number of steps.

    Returns:
        Where it went, a tree of arrays [1 + num_steps, ...].

    Raises:
        ValueError: ``num_steps`` is less than 1; or the policy refuses the belief.
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
    """
    POSITIVE.check("follow", "rtol", rtol)
    POSITIVE.check("follow", "atol", atol)
    if jnp.ndim(times) != 1 or jnp.size(times) < 2:
        raise ValueError(f"follow: times must be [time] with at least 2, got {jnp.shape(times)}.")
    import diffrax

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
