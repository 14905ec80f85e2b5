r"""Paths of least action: planning more than one step ahead on a loss that is known.

The path $\theta_0, \ldots, \theta_{N-1}$ that minimises the discretised objective
(`beliefnav.objective.action`), from a given start to an end that is given, free, or worth a
terminal value. The minimum is found by Newton's method on the whole path at once. The Hessian of
the action is block tridiagonal, so a step costs time linear in the number of points; it is damped
until the action falls as it predicts, and a path is accepted only where the Hessian is positive
definite, so that what is returned is a local minimum and not just stationary.

A path with a free end differs from that of an unlimited duration. On a quadratic whose optimum is
approached at the rate $r$, the difference falls like $e^{-(\gamma + 2r)(T - t)}$ in relation to the
path, with $T$ the duration: solutions of the Euler-Lagrange equation decay at $r$ or grow at
$\gamma + r$, and the free end mixes in the second. So the velocity at the start is that of the
stationary policy up to a part of the order of $e^{-(\gamma + 2r)T}$.

All is written in current values: row $i$ of the gradient is divided by $e^{-\gamma t_i}$, and the
Hessian scaled symmetrically, so that a long horizon with a strong discount neither underflows nor
loses digits.

Reference:
    Vastola, Gershman, Rajan, arXiv:2510.26997, Section 3 and Figure 1 (the paper minimises the
    left-point rule, ``node=0``, towards a given end).
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from beliefnav._checks import COUNT, POSITIVE, UNIT_INTERVAL
from beliefnav.control._arrays import check_like, is_positive, ravel
from beliefnav.control.paths import _block_tridiagonal
from beliefnav.objective import (
    Loss,
    Objective,
    action,
    check_metric,
    interval_cost,
    metric_matrix,
    path_length,
)

__all__ = [
    "LeastActionPath",
    "MultiStart",
    "PathStatus",
    "least_action_path",
    "multi_start",
    "straight_line",
]

PyTree = Any


class PathStatus(enum.IntEnum):
    """Why `least_action_path` stopped."""

    CONVERGED = 0
    """A local minimum of the action, to the tolerance."""
    OUT_OF_STEPS = 1
    """``max_steps`` were not enough: give more, a better guess, or fewer points to start with."""
    STALLED = 2
    """No step makes the action fall, although the tolerance is not reached: at a saddle of the
    action, or at the limit of the floating-point format."""
    NOT_FINITE = 3
    """The action or its derivatives are not finite on the guess, or on a path that was reached:
    check the loss, the guess and the terminal value."""
    METRIC_NOT_POSITIVE = 4
    """The metric is not symmetric positive definite somewhere on the path."""
    UNBOUNDED = 5
    """The action falls without end: no path of least action exists for this duration."""


class LeastActionPath(NamedTuple):
    r"""The result of `least_action_path`.

    Attributes:
        times: [time] from 0 to the duration.
        params: the path, a tree of arrays [time, ...].
        action: the minimal action, with the terminal value if there is one (in present value:
            multiplied by $e^{-\gamma T}$).
        gradient_norm: Euclidean norm of the gradient of the action with respect to the points.
        num_steps: Newton steps that were tried, int32.
        status: a `PathStatus`, int32.
    """

    times: Array
    params: PyTree
    action: Array
    gradient_norm: Array
    num_steps: Array
    status: Array


class MultiStart(NamedTuple):
    """The result of `multi_start`.

    Attributes:
        best: the converged path of least action; the first path if none converged.
        paths: all paths, every field with a leading axis [guess].
        distinct: [guess] True for the first of every group of converged paths that agree: the
            local optima that were found.
    """

    best: LeastActionPath
    paths: LeastActionPath
    distinct: Array


def least_action_path(
    objective: Objective,
    loss: Loss,
    start: PyTree,
    end: PyTree = None,
    *,
    duration: ArrayLike,
    num_points: int,
    terminal_value: Callable[[PyTree], ArrayLike] | None = None,
    guess: PyTree = None,
    node: float = 0.5,
    max_steps: int = 100,
    tolerance: float | None = None,
) -> LeastActionPath:
    r"""The path that minimises the discretised action (see the module docstring).

    $$ \min_{\theta_1, \ldots} \; S(\theta_0, \ldots, \theta_{N-1})
       \; [\, + \, e^{-\gamma T} \, V(\theta_{N-1}) \,] $$

    With a given ``end`` both ends are held. With a free end the momentum vanishes there
    (transversality). With a ``terminal_value`` $V$ it is minus the gradient of $V$; the value of
    the linear-quadratic problem at a minimum, `beliefnav.control.quadratic_value`, makes a finite
    path the beginning of an infinite one.

    Newton's method finds the local minimum that the guess leads to; a guess on one side of a
    barrier does not cross it. Use `multi_start` where there may be several.

    Pure: it can be jitted (which saves compiling it again at the next call), vmapped over whatever
    is an array, and differentiated any number of times, in both modes, with respect to the ends,
    the duration and all that the objective, the loss and the terminal value depend on. Derivatives
    are those of the implicit function theorem, and hold where the status is ``CONVERGED``.

    Args:
        objective: the constants, metric and drift.
        loss: $L$, twice differentiable.
        start: $\theta_0$, a tree of arrays.
        end: $\theta_{N-1}$, a tree like ``start``, or ``None``: it is free.
        duration: $T > 0$.
        num_points: $N \ge 3$, both ends included; the time step is $T / (N - 1)$.
        terminal_value: $V$, what the end is worth from then on: parameters -> scalar, in values of
            time $T$; only with a free end.
        guess: path to begin with, a tree of arrays [num_points, ...], whose ends are not read where
            they are given; by default the straight line to ``end``, or to stay at ``start``.
        node: where in an interval the cost is read, see `beliefnav.objective.action`.
        max_steps: of Newton's method.
        tolerance: the path has converged when an undamped step moves no coordinate by more than
            this times one plus the largest coordinate; that step is still taken, so that the error
            left is of the order of its square. By default the root of the machine precision.

    Returns:
        The path, and a status that says how far it can be trusted.

    Raises:
        ValueError: ``duration`` is not positive, there are fewer than three points, ``end`` or
            ``guess`` does not fit ``start``, both an end and a terminal value are given, or the
            metric is not symmetric positive definite at the start (if it is known by then).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import Objective, control
        >>> plan = jax.jit(lambda start: control.least_action_path(
        ...     Objective(discount=0.0), lambda x: 2 * x**2, start, duration=5.0, num_points=501))
        >>> path = plan(jnp.array(1.0))
        >>> int(path.status) == control.PathStatus.CONVERGED
        True
        >>> abs(path.params[100] - jnp.exp(-2.0)) < 1e-3  # rate sqrt(4), at time 1
        Array(True, dtype=bool)
    """
    owner = "least_action_path"
    POSITIVE.check(owner, "duration", duration)
    UNIT_INTERVAL.check(owner, "node", node)
    COUNT.check(owner, "max_steps", max_steps)
    if tolerance is not None:
        POSITIVE.check(owner, "tolerance", tolerance)
    if num_points < 3:
        raise ValueError(f"{owner}: num_points must be at least 3, got {num_points}.")
    if end is not None and terminal_value is not None:
        raise ValueError(
            f"{owner}: cannot use an end with a terminal_value. This is because what a given end "
            "is worth changes nothing; give one of the two."
        )
    check_metric(owner, objective, start)
    if end is not None:
        check_like(owner, "end", end, start)
    if guess is not None:
        check_like(owner, "guess", guess, start, (num_points,))

    first, unravel = ravel(start)
    last = None if end is None else ravel(end)[0]
    dtype = jnp.result_type(first, *([] if last is None else [last]))
    first = first.astype(dtype)
    time_step = jnp.asarray(duration, dtype) / (num_points - 1)
    threshold = float(jnp.finfo(dtype).eps) ** 0.5 if tolerance is None else tolerance

    def with_ends(points: Array) -> Array:
        ends = [] if last is None else [last[None].astype(dtype)]
        return jnp.concatenate([first[None], points, *ends])

    def cost(before: Array, after: Array) -> Array:
        return interval_cost(objective, loss, unravel(before), unravel(after), time_step, node)

    def worth(last: Array) -> Array:
        value = 0.0 if terminal_value is None else terminal_value(unravel(last))
        return jnp.asarray(value, dtype)

    growth = jnp.exp(jnp.asarray(objective.discount, dtype) * time_step)

    def gradient(points: Array) -> Array:
        r"""Gradient of the action, its row i divided by e^{-gamma t_i}."""
        path = with_ends(points)
        here, there = jax.vmap(jax.grad(cost, (0, 1)))(path[:-1], path[1:])
        shrink = growth**-node
        inner = shrink * (here[1:] + growth * there[:-1])
        if last is not None:
            return inner
        final = shrink * growth * there[-1]
        if terminal_value is not None:
            final = final + jax.grad(worth)(path[-1])
        return jnp.concatenate([inner, final[None]])

    def hessian(points: Array) -> tuple[Array, Array]:
        """Hessian of the action, its rows scaled like the gradient: blocks on and above."""
        path = with_ends(points)
        local = jax.vmap(jax.hessian(cost, (0, 1)))(path[:-1], path[1:])
        (here, across), (_, there) = local
        shrink = growth**-node
        inner, upper = shrink * (here[1:] + growth * there[:-1]), shrink * across[1:]
        if last is not None:
            return inner, upper[:-1]
        final = shrink * growth * there[-1]
        if terminal_value is not None:
            final = final + jax.hessian(worth)(path[-1])
        return jnp.concatenate([inner, final[None]]), upper

    def value(points: Array) -> Array:
        path = with_ends(points)
        total = action(objective, loss, jax.vmap(unravel)(path), time_step, node=node)
        if terminal_value is not None:
            total = total + growth ** (1 - num_points) * worth(path[-1])
        return total.astype(dtype)

    num_free = num_points - (1 if last is None else 2)
    weights = growth ** -jnp.arange(1, 1 + num_free, dtype=dtype)[:, None]
    scaling = _Scaling(time_step, growth, weights)

    def mass(points: Array) -> Array:
        path = with_ends(points)
        middles = path[:-1] + jnp.diff(path, axis=0) / 2
        return jax.vmap(lambda x: metric_matrix(objective, unravel(x)).astype(dtype))(
            middles
        ) / jnp.asarray(objective.rate, dtype)

    def search(gradient: Callable[[Array], Array], points: Array) -> tuple[Array, Any]:
        action = _Action(value, gradient, hessian, mass)
        final = _minimise(action, points, scaling, threshold, max_steps)
        # As floats: custom_root has no tangents for integers that it carries along.
        return final.points, (final.num_steps.astype(dtype), final.status.astype(dtype))

    def tangent(linear: Callable[[Array], Array], rhs: Array) -> Array:
        return _block_tridiagonal.solve(*_block_tridiagonal.blocks(linear, rhs), rhs, growth)

    guessed = _guess(first, last, guess, num_points)
    points, (num_steps, status) = lax.custom_root(gradient, guessed, search, tangent, has_aux=True)
    path = with_ends(points)
    return LeastActionPath(
        times=jnp.linspace(0.0, 1.0, num_points, dtype=dtype) * duration,
        params=jax.vmap(unravel)(path),
        action=value(points),
        gradient_norm=jnp.linalg.norm(weights * gradient(points)),
        num_steps=num_steps.astype(jnp.int32),
        status=_with_metric(
            status.astype(jnp.int32),
            objective,
            jax.vmap(unravel)(path[:-1] + node * jnp.diff(path, axis=0)),
        ),
    )


def multi_start(
    objective: Objective,
    loss: Loss,
    start: PyTree,
    end: PyTree = None,
    *,
    guesses: PyTree,
    separation: float = 1e-3,
    **options: Any,
) -> MultiStart:
    r"""`least_action_path` from each of a set of guesses, all at once; the best, and what differs.

    Args:
        objective: the constants, metric and drift.
        loss: $L$.
        start: $\theta_0$.
        end: see `least_action_path`.
        guesses: paths to begin with, a tree of arrays [guess, num_points, ...], such as some
            `straight_line`.
        separation: two converged paths are one local optimum if no coordinate of one is farther
            from the other than this, times one plus the largest coordinate of all.
        **options: of `least_action_path`; ``num_points`` is that of the guesses.

    Returns:
        The converged path of least action, all paths, and which of them are distinct optima.

    Raises:
        ValueError: see `least_action_path`.
    """
    POSITIVE.check("multi_start", "separation", separation)
    num_points = path_length("multi_start", jax.tree.map(lambda x: jnp.asarray(x)[0], guesses))
    paths = jax.vmap(
        lambda guess: least_action_path(
            objective, loss, start, end, guess=guess, num_points=num_points, **options
        )
    )(guesses)
    converged = paths.status == PathStatus.CONVERGED
    best = jnp.argmin(jnp.where(converged, paths.action, jnp.inf))
    flat = jax.vmap(lambda path: ravel(path)[0])(paths.params)
    flat = jnp.where(converged[:, None], flat, 0)
    distance = jnp.abs(flat[:, None] - flat[None]).max(-1)
    same = distance <= separation * (1 + jnp.abs(flat).max())
    earlier = jnp.tril(same & jnp.broadcast_to(converged, same.shape), -1).any(1)
    return MultiStart(jax.tree.map(lambda x: x[best], paths), paths, converged & ~earlier)


def straight_line(start: PyTree, end: PyTree, num_points: int) -> PyTree:
    """The straight path from ``start`` to ``end`` at constant velocity: a guess.

    Args:
        start: a tree of arrays.
        end: a tree like ``start``.
        num_points: number of points, both ends included.

    Returns:
        A tree of arrays [num_points, ...].

    Raises:
        ValueError: ``end`` does not fit ``start``.
    """
    check_like("straight_line", "end", end, start)
    return jax.tree.map(lambda a, b: jnp.linspace(a, b, num_points), start, end)


class _Action(NamedTuple):
    """The action as a function of the free points, [point, n] each, and what Newton needs of it."""

    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    hessian: Callable[[Array], tuple[Array, Array]]
    mass: Callable[[Array], Array]


class _Scaling(NamedTuple):
    r"""The time step, $e^{\gamma h}$, and $e^{-\gamma t_i}$ [point, 1] of the free points."""

    time_step: Array
    growth: Array
    weights: Array


class _Search(NamedTuple):
    """State of the damped Newton iteration."""

    points: Array
    value: Array
    damping: Array
    num_steps: Array
    status: Array


_RUNNING, _CHECKING = -1, -2
LEAST_DAMPING = 0.1


def _minimise(
    action: _Action,
    points: Array,
    scaling: _Scaling,
    tolerance: float,
    max_steps: int,
) -> _Search:
    r"""Newton's method with the Hessian $H + \mu D$.

    $D$ is the Hessian of the kinetic term for a metric that does not change, and as much mass as
    the loss has curvature on the path: positive definite, as strong on any grid of times and in
    any coordinates. $\mu$ starts at 0, rises when the Hessian is not positive definite or the value
    does not fall, and returns to 0 with steps that do as predicted. Convergence is declared at
    $\mu = 0$ only.
    """
    time_step, growth, weights = scaling
    eps = jnp.finfo(points.dtype).eps
    initial = action.value(points)

    def damper(points: Array, diagonal: Array, upper: Array) -> tuple[Array, Array]:
        """The blocks of D; intervals lie before every point, and one more before a given end."""
        masses, n = action.mass(points), len(points)
        # Movement as a whole meets the loss alone: the row sums of the Hessian are its curvature,
        # but for those next to a given end.
        row_sums = diagonal.at[:-1].add(upper).at[1:].add(growth * upper.swapaxes(1, 2))
        ratios = _norms(row_sums) / _norms(masses[:n])
        curvature = (ratios[1:-1] if n > 2 else ratios).mean() / time_step
        after = masses[1:] / time_step
        own = (growth / time_step + curvature * time_step) * masses[:n]
        return own.at[: len(after)].add(after), -after[: n - 1]

    def step(search: _Search) -> _Search:
        points, before, damping, num_steps, status = search
        slope, (diagonal, upper) = action.gradient(points), action.hessian(points)
        own, coupling = damper(points, diagonal, upper)
        move = -_block_tridiagonal.solve(
            diagonal + damping * own, upper + damping * coupling, slope, growth
        )
        after = action.value(points + move)
        predicted = -jnp.sum(weights * move * slope) / 2  # at least; exactly without damping
        definite = jnp.all(jnp.isfinite(move))
        small = jnp.abs(move).max() <= tolerance * (1 + jnp.abs(points).max())
        noise = 8 * eps * jnp.abs(before)
        falls = before - after >= 1e-4 * predicted - noise
        stationary = small & (predicted <= noise)  # and not just held back by the damping
        accepted = definite & jnp.isfinite(after) & (small | falls)
        as_predicted = before - after >= 0.5 * predicted
        raised = jnp.maximum(4 * damping, LEAST_DAMPING)
        lowered = jnp.where(as_predicted, damping / 4, damping)
        lowered = jnp.where(stationary | (lowered < LEAST_DAMPING), 0.0, lowered)
        outcomes = {
            PathStatus.NOT_FINITE: ~(
                jnp.all(jnp.isfinite(slope)) & jnp.all(jnp.isfinite(diagonal))
            ),
            PathStatus.CONVERGED: accepted & small & (damping == 0),
            PathStatus.UNBOUNDED: accepted & (after < -(1 + jnp.abs(initial)) / eps),
            _CHECKING: accepted & stationary,
            PathStatus.STALLED: ~accepted & ((status == _CHECKING) | (raised > 1 / eps)),
        }
        status = jnp.select(list(outcomes.values()), list(outcomes), _RUNNING)
        return _Search(
            points=jnp.where(accepted, points + move, points),
            value=jnp.where(accepted, after, before),
            damping=jnp.where(accepted, lowered, raised),
            num_steps=num_steps + 1,
            status=status.astype(jnp.int32),
        )

    finite = jnp.isfinite(initial)
    search = _Search(
        points=points,
        value=initial,
        damping=jnp.zeros((), points.dtype),
        num_steps=jnp.zeros((), jnp.int32),
        status=jnp.where(finite, _RUNNING, PathStatus.NOT_FINITE).astype(jnp.int32),
    )
    search = lax.while_loop(lambda s: (s.status < 0) & (s.num_steps < max_steps), step, search)
    status = jnp.where(search.status < 0, PathStatus.OUT_OF_STEPS, search.status)
    return search._replace(status=status.astype(jnp.int32))


def _norms(matrices: Array) -> Array:
    return jnp.sqrt(jnp.sum(matrices**2, (1, 2)))


def _guess(first: Array, last: Array | None, guess: PyTree, num_points: int) -> Array:
    """The free points to begin with, [point, n]."""
    if guess is None:
        path = straight_line(first, first if last is None else last, num_points)
    else:
        path = jax.vmap(lambda x: ravel(x)[0])(guess)
    return path[1 : None if last is None else -1].astype(first.dtype)


def _with_metric(status: Array, objective: Objective, places: PyTree) -> Array:
    """The status, unless the metric is not symmetric positive definite at one of the places."""
    if objective.metric is None:
        return status

    good = jnp.all(jax.vmap(lambda x: is_positive(metric_matrix(objective, x)))(places))
    return jnp.where(good, status, PathStatus.METRIC_NOT_POSITIVE).astype(jnp.int32)
