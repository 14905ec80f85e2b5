r"""Numerical paths of least action, their rates, and the integral that their velocity is.

On a loss that is known a path of least action obeys $\ddot\theta - \gamma \dot\theta = \eta k
\nabla L$. With a free end, that is an integral over the gradients that are still to come:

$$ \dot\theta_t = -\eta k \int_t^T e^{-\gamma (s - t)} \nabla L(\theta_s) \, ds . $$

The velocity is a costate, which runs backward in time. The momentum of an optimizer is an integral
over gradients that it has seen, $\int_0^t e^{-\gamma (t - s)} \nabla L(\theta_s) \, ds$ at the same
discount. Both are compared with the velocity of numerical paths, the integrals by Simpson's rule
along the path.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import integrate

from beliefnav import Objective, control
from beliefnav.control.paths.least_action import LeastActionPath

HORIZON, SHOWN = 60.0, 12.0
"""Time that is planned, and that is shown."""
CURVATURES = np.geomspace(1 / 9, 4, 12)
"""Of the directions of the quadratic loss."""


class Paths(NamedTuple):
    """Numerical paths of least action of one discount, up to ``SHOWN``.

    Attributes:
        times: [time].
        plane: [time, 2] on curvatures 1/9 and 1, from (-3, -3).
        single: [curvature, time] from 1, on `CURVATURES`.
        unit: [time] from 1, on curvature 1.
        steep: [time] from 1, on curvature 4.
        whole: ``single``, up to ``HORIZON``.
    """

    times: np.ndarray
    plane: np.ndarray
    single: np.ndarray
    unit: np.ndarray
    steep: np.ndarray
    whole: np.ndarray


def rate(curvature: np.ndarray | float, discount: np.ndarray | float) -> np.ndarray:
    r"""$r = \sqrt{\gamma^2/4 + h} - \gamma/2$."""
    return np.asarray(curvature / (np.sqrt(discount**2 / 4 + curvature) + discount / 2))


def planner(density: int) -> Callable[[float], Paths]:
    """Discount -> numerical paths of least action with a free end at ``HORIZON``."""
    num_points = 1 + int(HORIZON * density)
    shown = 1 + int(SHOWN * density)

    def path(discount: Array, start: Array, curvature: Array) -> LeastActionPath:
        return control.least_action_path(
            Objective(discount=discount),
            lambda x: jnp.sum(curvature * x**2) / 2,
            start,
            duration=HORIZON,
            num_points=num_points,
        )

    in_plane = jax.jit(path)
    on_lines = jax.jit(jax.vmap(path, (None, 0, 0)))

    def plan(discount: float) -> Paths:
        plane = in_plane(discount, jnp.array([-3.0, -3.0]), jnp.array([1 / 9, 1.0]))
        curvatures = jnp.array([*CURVATURES, 1.0, 4.0])
        lines = on_lines(discount, jnp.ones_like(curvatures), curvatures)
        check_converged(plane, lines)
        whole = np.asarray(lines.params)
        each = whole[:, :shown]
        return Paths(
            times=np.asarray(plane.times)[:shown],
            plane=np.asarray(plane.params)[:shown],
            single=each[:-2],
            unit=each[-2],
            steep=each[-1],
            whole=whole[:-2],
        )

    return plan


def check_converged(*paths: LeastActionPath) -> None:
    """Raise unless all paths are local minima of the action."""
    statuses = {int(status) for path in paths for status in np.ravel(path.status)}
    if statuses != {control.PathStatus.CONVERGED}:
        raise RuntimeError(f"Paths of least action ended with {statuses}.")


def measured_rate(times: np.ndarray, path: np.ndarray) -> float:
    """The rate of decay of a path, between times 0.5 and 3."""
    first, last = np.searchsorted(times, (0.5, 3.0))
    return float(np.log(path[first] / path[last]) / (times[last] - times[first]))


def path_error(discount: float, paths: Paths) -> float:
    """The largest distance of the numerical paths from the closed form of a discount."""
    pairs = [
        (paths.plane[:, 0], -3 * np.exp(-rate(1 / 9, discount) * paths.times)),
        (paths.plane[:, 1], -3 * np.exp(-rate(1.0, discount) * paths.times)),
        (paths.unit, np.exp(-rate(1.0, discount) * paths.times)),
        (paths.steep, np.exp(-rate(4.0, discount) * paths.times)),
    ]
    return float(max(np.abs(numerical - exact).max() for numerical, exact in pairs))


class Costate(NamedTuple):
    """The velocity of a path in one direction, and what integrals say of it.

    Attributes:
        times: [time].
        velocity: [time], by central differences.
        future: minus the discounted integral of the gradients to come [time].
        past: minus the discounted integral of the gradients since the start [time], times the
            factor that brings it nearest to the velocity.
    """

    times: np.ndarray
    velocity: np.ndarray
    future: np.ndarray
    past: np.ndarray

    @property
    def errors(self) -> dict[str, float]:
        """Integral -> its largest distance from the velocity, relative to the largest velocity."""
        largest = np.abs(self.velocity).max()
        sides = {"future": self.future, "past": self.past}
        return {side: np.abs(x - self.velocity).max() / largest for side, x in sides.items()}


def costate(path: np.ndarray, gradient: np.ndarray, discount: float, spacing: float) -> Costate:
    """The velocity of a path [time] and the integrals over the gradients [time] along it."""
    times = spacing * np.arange(len(path))
    decay = np.exp(-discount * times)

    def since_start(values: np.ndarray) -> np.ndarray:
        return decay * integrate.cumulative_simpson(values / decay, x=times, initial=0)

    def to_come(values: np.ndarray) -> np.ndarray:
        backward = integrate.cumulative_simpson((decay * values)[::-1], x=-times[::-1], initial=0)
        return backward[::-1] / decay

    velocity = np.gradient(path, times, edge_order=2)
    past = -since_start(gradient)
    past = past * (past @ velocity) / (past @ past)
    return Costate(times, velocity, -to_come(gradient), past)
