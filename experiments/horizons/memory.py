r"""What the past velocity says that the position does not say already.

The velocity of an optimizer with momentum depends on where the optimizer came from. The velocity of
an optimal policy on a loss that is known, and that of any descent whose preconditioner has no
memory, is a function of the position; at a finite horizon, of position and time. That is the
Hamilton-Jacobi-Bellman equation. What is measured is a share of the variance of the velocity,

$$ \frac{\mathrm{RSS}(\text{position}) - \mathrm{RSS}(\text{position, past velocity})}
        {\mathrm{TSS}} , $$

of least-squares regressions over many starts, with coefficients of their own in every direction
(and, at a finite horizon, at every time). The regressors are the monomials of the position up to a
degree: 1 on a quadratic, `DEGREE` otherwise. The same regressions are made of heavy ball,
$\ddot\theta = -\dot\theta - \nabla L$, which has a memory.

One coefficient for all directions is another matter. It makes directions of different curvature
look like memory: `pooled_share` is as large for a descent without memory that is preconditioned by
$H^{-1/2}$ as for the optimal path, because the two paths are the same.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import integrate

from beliefnav import Objective, control
from beliefnav.control.paths.least_action import LeastActionPath
from experiments.horizons.planning import CURVATURES, Costate, check_converged, costate

LAG = 0.5
"""Time between a velocity and the one that explains it."""
DEGREE = 9
"""Of the monomials of a position on the loss that is not quadratic."""
NAMES = ("quadratic", "not quadratic")
STARTS = {"quadratic": 8, "not quadratic": 160}
"""How many random starts."""
SHOWN = {"quadratic": 6.0, "not quadratic": 3.0}
"""Time over which velocities are looked at."""
FINITE = 2.0
"""A duration whose end is felt from the start."""
LONG = 24.0
"""A duration whose end is not felt within ``SHOWN``."""


class Walks(NamedTuple):
    """Ways from many starts.

    Attributes:
        position: [start, time, direction].
        velocity: [start, time, direction].
        density: number of times for a unit of time.
    """

    position: np.ndarray
    velocity: np.ndarray
    density: int


def loss(name: str) -> Callable[[Array], Array]:
    """A loss by its name, of positions [direction]."""
    if name == "quadratic":
        return lambda x: jnp.sum(CURVATURES * x**2) / 2

    def curved(x: Array) -> Array:
        wide, steep = x[0] ** 2 / 4, 2 * jnp.sqrt(1 + x[1] ** 2)
        return wide + steep + (x[0] + x[1]) ** 4 / 8

    return curved


def starts(name: str, seed: int) -> np.ndarray:
    """Random positions [start, direction]."""
    rng = np.random.default_rng(seed)
    size = len(CURVATURES) if name == "quadratic" else 2
    return rng.uniform(-1.0, 1.0, (STARTS[name], size))


def planned(
    name: str, begin: np.ndarray, duration: float, density: int
) -> Callable[[float], Walks]:
    """Discount -> paths of least action with a free end, from starts [start, direction].

    The quadratic is planned entry by entry: a direction knows nothing of another.
    """
    quadratic, own = name == "quadratic", loss(name)

    def path(discount: Array, start: Array, curvature: Array) -> LeastActionPath:
        return control.least_action_path(
            Objective(discount=discount),
            (lambda x: jnp.sum(curvature * x**2) / 2) if quadratic else own,
            start,
            duration=duration,
            num_points=1 + int(duration * density),
        )

    if quadratic:
        begin = begin[..., None]
        every = jax.vmap(jax.vmap(path, (None, 0, 0)), (None, 0, None))
    else:
        every = jax.vmap(path, (None, 0, None))
    every = jax.jit(every)

    def walk(discount: float) -> Walks:
        paths = every(discount, begin, CURVATURES)
        check_converged(paths)
        points = np.asarray(paths.params)
        points = np.moveaxis(points[..., 0], 1, 2) if quadratic else points
        velocity = np.gradient(points, 1 / density, axis=1, edge_order=2)
        return Walks(points, velocity, density)

    return walk


def integrated(
    name: str, preconditioner: Callable[[Array], Array], begin: np.ndarray, density: int
) -> Walks:
    """Ways of a descent whose preconditioner is a function of the position."""
    slope = jax.grad(loss(name))
    step = jax.jit(jax.vmap(lambda x: -preconditioner(x) * slope(x)))

    def velocity(t: float, flat: np.ndarray) -> np.ndarray:
        return np.ravel(step(flat.reshape(begin.shape)))

    x = solved(velocity, begin, SHOWN[name], density)
    v = np.stack([velocity(0, here).reshape(begin.shape) for here in x], 1)
    return Walks(np.moveaxis(x, 0, 1), v, density)


def heavy_ball(name: str, begin: np.ndarray, density: int, seed: int) -> Walks:
    """Ways of heavy ball from random velocities: an optimizer that has run for a while has one."""
    slope = jax.jit(jax.vmap(jax.grad(loss(name))))

    def acceleration(t: float, flat: np.ndarray) -> np.ndarray:
        x, v = flat.reshape(2, *begin.shape)
        return np.ravel([v, -v - np.asarray(slope(x))])

    pushed = np.random.default_rng(seed + 1).normal(0, 0.5, begin.shape)
    both = solved(acceleration, np.stack([begin, pushed]), SHOWN[name], density)
    place, velocity = np.moveaxis(both, 0, 2)
    return Walks(place, velocity, density)


def solved(flow: Any, start: np.ndarray, duration: float, density: int) -> np.ndarray:
    """The solution [time, ...] of an ordinary differential equation of raveled states."""
    times = np.arange(1 + int(duration * density)) / density
    options = {"t_eval": times, "rtol": 1e-10, "atol": 1e-12}
    found = integrate.solve_ivp(flow, (0, times[-1]), start.ravel(), **options)
    return found.y.T.reshape(-1, *start.shape)


def past_share(name: str, walks: Walks, at_each_time: bool = False, every: int = 5) -> float:
    """The share of the module docstring, of the direction where it is largest.

    Args:
        name: of the loss.
        walks: from many starts.
        at_each_time: coefficients of their own at every time too.
        every: times that are left out, but one of so many.
    """
    lag, degree = int(LAG * walks.density), 1 if name == "quadratic" else DEGREE
    position, velocity = (
        x[:, : 1 + int(SHOWN[name] * walks.density)] for x in (walks.position, walks.velocity)
    )
    position, now, past = position[:, lag::every], velocity[:, lag::every], velocity[:, :-lag:every]
    groups = [slice(t, t + 1) for t in range(now.shape[1])] if at_each_time else [slice(None)]
    shares = []
    for d in range(now.shape[-1]):
        # A direction of the quadratic knows nothing of the others.
        own = slice(d, d + 1) if name == "quadratic" else slice(None)
        size = 1 if name == "quadratic" else now.shape[-1]
        sums = np.zeros(3)
        for group in groups:
            given, before = (x[:, group, own].reshape(-1, size) for x in (position, past))
            sums += unexplained(now[:, group, d].ravel(), monomials(given, degree), before)
        shares.append((sums[0] - sums[1]) / sums[2])
    return float(max(shares))


def unexplained(
    target: np.ndarray, given: np.ndarray, past: np.ndarray
) -> tuple[float, float, float]:
    """Sums of squares: of residuals without and with the past, and of the target."""

    def residual(design: np.ndarray) -> float:
        scaled = design / np.maximum(np.abs(design).max(0), 1e-300)
        left = target - scaled @ np.linalg.lstsq(scaled, target)[0]
        return float(left @ left)

    return residual(given), residual(np.hstack([given, past])), float(target @ target)


def monomials(position: np.ndarray, degree: int) -> np.ndarray:
    """All products of at most ``degree`` of the columns of a position [row, direction]."""
    columns = range(position.shape[1])
    return np.stack(
        [
            position[:, list(chosen)].prod(1)
            for d in range(degree + 1)
            for chosen in itertools.combinations_with_replacement(columns, d)
        ],
        1,
    )


def pooled_share(times: np.ndarray, paths: np.ndarray) -> float:
    """The share with the gradient for the position, and one coefficient for all directions.

    Args:
        times: [time].
        paths: [curvature, time] from 1, on `CURVATURES`.
    """
    lag = int(LAG / (times[1] - times[0]))
    velocity = np.gradient(paths, times, axis=1)
    gradient = (CURVATURES[:, None] * paths)[:, lag:].reshape(-1, 1)
    past = velocity[:, :-lag].reshape(-1, 1)
    sums = unexplained(velocity[:, lag:].ravel(), gradient, past)
    return (sums[0] - sums[1]) / sums[2]


PRECONDITIONERS: Mapping[str, Callable[[str], Callable[[Array], Array]]] = {
    "gradient descent": lambda name: jnp.ones_like,
    "H^(-1/2)": lambda name: lambda x: jnp.diag(jax.hessian(loss(name))(x)) ** -0.5,
    "random diagonal": lambda name: lambda x: random_diagonal(len(x)),
}
"""Name -> name of a loss -> its preconditioner: a function of the position [direction]."""


def random_diagonal(size: int) -> Array:
    """Positive factors, log-normal, the same whenever they are asked for."""
    return jnp.exp(jax.random.normal(jax.random.key(1), (size,)))


class Shares(NamedTuple):
    """Shares of the variance of velocity that only the past velocity explains, by loss.

    Attributes:
        unlimited: optimal policy, given the position: loss -> discount -> share.
        finite: optimal policy of a finite horizon, given position and time: loss -> share.
        without_time: the same, given the position only: loss -> share.
        preconditioned: descent without memory: loss -> preconditioner -> share.
        heavy_ball: given the position: loss -> share.
        heavy_ball_with_time: given position and time: loss -> share.
    """

    unlimited: dict[str, dict[float, float]]
    finite: dict[str, float]
    without_time: dict[str, float]
    preconditioned: dict[str, dict[str, float]]
    heavy_ball: dict[str, float]
    heavy_ball_with_time: dict[str, float]


class Memory(NamedTuple):
    """What was found on both losses.

    Attributes:
        shares: of the variance of velocity.
        bent: discount -> costates of one path on the loss that is not quadratic, one a direction.
    """

    shares: Shares
    bent: dict[float, list[Costate]]


def look_for_memory(discounts: Sequence[float], density: int, seed: int) -> Memory:
    """All shares, and the integrals along a path on the loss that is not quadratic.

    Args:
        discounts: of the plans.
        density: points of that path for a unit of time; the paths of the shares have a quarter.
        seed: of the starts.
    """
    coarse = max(20, density // 4)
    shares = Shares({}, {}, {}, {}, {}, {})
    for name in NAMES:
        begin = starts(name, seed)
        plan = planned(name, begin, LONG, coarse)
        shares.unlimited[name] = {g: past_share(name, plan(g)) for g in discounts}
        short = planned(name, begin, FINITE, coarse)(discounts[0])
        shares.finite[name] = past_share(name, short, at_each_time=True)
        shares.without_time[name] = past_share(name, short)
        shares.preconditioned[name] = {
            kind: past_share(name, integrated(name, make(name), begin, coarse))
            for kind, make in PRECONDITIONERS.items()
        }
        ball = heavy_ball(name, begin, coarse, seed)
        shares.heavy_ball[name] = past_share(name, ball)
        shares.heavy_ball_with_time[name] = past_share(name, ball, at_each_time=True)
    bent = NAMES[1]
    plan = planned(bent, starts(bent, seed)[:1], LONG, density)
    return Memory(shares, {g: along(plan(g).position[0], bent, g, density) for g in discounts})


def along(path: np.ndarray, name: str, discount: float, density: int) -> list[Costate]:
    """The costates of a path [time, direction] on a loss."""
    slope = np.asarray(jax.vmap(jax.grad(loss(name)))(path))
    return [costate(x, g, discount, 1 / density) for x, g in zip(path.T, slope.T, strict=True)]
