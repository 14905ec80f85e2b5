r"""Plan a path over a barrier that gradient descent does not cross.

Claim: on the loss $(\theta_1^2 - 1)^2 + \theta_2^2 - \theta_1 / 2$ the path of
least action from (-0.6, 0.55) to the global minimum climbs over the barrier between the two
minima, investing kinetic energy first, where gradient descent from the same start ends in the local
minimum near -0.93. Beyond the paper: with a free end the planner finds the global minimum by
itself; how far ahead one must look for that, from every start; and what planning costs. It would be
refuted by another minimal action than the paper's, by a plan that stays, or by a cost that grows
faster than the number of points.

The paper's discretisation is the left-point rule over 49 intervals, and its action the mean over
them: the action of this library divided by the duration.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax import Array, lax
from tqdm import tqdm

from beliefnav import Objective, control
from beliefnav.control.paths.least_action import LeastActionPath, MultiStart
from beliefnav.objective import action
from experiments import figures, report
from experiments.options import Options

START = (-0.6, 0.55)
END = (1.0625, 0.0)
DURATION = 4.0
NUM_POINTS = 50
PAPER_ACTION = 0.16957144
BARRIER = -0.12705084
"""First coordinate of the saddle between the wells, a root of $4 x^3 - 4 x = 1/2$."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Plan a path over a barrier that gradient descent does not cross."""

    QUICK = {"grid": 21, "races": (50,)}
    LEAST = {"discount": 0.0, "guesses": 1, "grid": 3, "races": 10}

    discount: float = 0.1
    """Temporal discount of the path."""
    guesses: int = 12
    """Straight lines to random ends that the free planner begins with."""
    grid: int = 61
    """Starts, and two thirds as many discounts, of the map."""
    races: tuple[int, ...] = (50, 1_000)
    """Points of the paths on which Newton's method is compared with gradient descent."""


def loss(x: Any) -> Any:
    """Two wells, tilted: the right one is deeper."""
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2 - x[0] / 2


class Map(NamedTuple):
    """Where far-sighted planning escapes.

    Attributes:
        starts: [start] first coordinate of the start.
        discounts: [discount].
        stay: [discount, start] cost of the best plan for ever that ends in the left well; infinite
            where there is none.
        cross: the same for the right well.
    """

    starts: np.ndarray
    discounts: np.ndarray
    stay: np.ndarray
    cross: np.ndarray

    @property
    def escapes(self) -> np.ndarray:
        """[discount, start] whether the better plan ends in the right well."""
        return self.cross < self.stay

    @property
    def planned(self) -> np.ndarray:
        """[discount, start] whether there is a plan."""
        return np.isfinite(np.minimum(self.cross, self.stay))


def run(config: Config) -> report.Report:
    """Plan, measure, draw."""
    with jax.enable_x64(True), tqdm(total=6, unit="part") as bar:

        def part(name: str, value: Any) -> Any:
            bar.set_description(name)
            value = jax.block_until_ready(value())
            bar.update()
            return value

        objective = Objective(discount=config.discount)
        start, end = jnp.array(START), jnp.array(END)
        minima = part("minima", lambda: [_minimum(x) for x in (-0.9, 1.0)])
        descent = part("descent", lambda: descend(start))
        path = part("paper's path", lambda: plan(objective, start, end, NUM_POINTS))
        free = part("free end", lambda: plan_freely(config, objective, start))
        scaling, races = part("cost", lambda: (measure_scaling(objective), race(config, objective)))
        escape = part("map", lambda: escape_map(config.grid, minima))
        draw(config.folder / "double_well.png", path, free, descent, scaling, escape)
        distance = float(np.linalg.norm(np.subtract(free.best.params[-1], minima[1])))
        escapes = _from_start(escape)
        results = report.plain(
            {
                "action": path.action / DURATION,
                "newton_iterations": path.num_steps,
                "action_gradient_norm": path.gradient_norm,
                "free_end_point": free.best.params[-1],
                "local_optima": free.distinct.sum(),
                "global_minimum": minima[1],
                "descent_end_point": descent[-1],
                "largest_discount_that_escapes": escape.discounts[escapes].max(),
                "scaling": scaling,
                "speedup_over_gradient_descent": {str(r["points"]): r["speedup"] for r in races},
                "gradient_descent": races,
            }
        )
        made = claims(path, distance, descent, minima, energies(path), scaling, escapes)

    return report.Report(made, results)


def plan(objective: Objective, start: Array, end: Array, num_points: int) -> Any:
    """The paper's path, on its discretisation."""
    return _planner(objective, num_points, node=0.0)(start, end)


def _planner(objective: Objective, num_points: int, node: float) -> Callable[..., Any]:
    """A compiled plan from a start to an end."""
    return jax.jit(
        lambda start, end: control.least_action_path(
            objective, loss, start, end, duration=DURATION, num_points=num_points, node=node
        )
    )


def plan_freely(config: Config, objective: Objective, start: Array) -> MultiStart:
    """Paths with a free end, from straight lines to random places."""
    ends = jax.random.uniform(jax.random.key(config.seed), (config.guesses, 2), float, -1.6, 1.6)
    guesses = jax.vmap(lambda e: control.straight_line(start, e, NUM_POINTS))(ends)
    return jax.jit(
        lambda a, g: control.multi_start(objective, loss, a, guesses=g, duration=DURATION)
    )(start, guesses)


def descend(start: Array) -> Array:
    """The path of gradient descent in continuous time, [time, 2]."""
    times = jnp.linspace(0.0, 10.0, 101)
    return control.follow(lambda x: -jax.grad(loss)(x), start, times).params


def energies(path: LeastActionPath) -> tuple[np.ndarray, np.ndarray]:
    """Kinetic and potential energy of every interval of a path, at rate and gain 1."""
    params = np.asarray(path.params)
    speeds = np.diff(params, axis=0) / (DURATION / (len(params) - 1))
    return (speeds**2).sum(1) / 2, loss(params[:-1].T)


def measure_scaling(objective: Objective) -> list[dict[str, float]]:
    """Seconds of a compiled plan for a growing number of points."""
    start, end = jnp.array(START), jnp.array(END)
    rows = []
    for points in (100, 1_000, 10_000, 100_000):
        repeats = 5 + 10_000 // points  # what takes a moment is disturbed the most
        seconds, path = _time(_planner(objective, points, node=0.5), start, end, repeats=repeats)
        assert path.status == control.PathStatus.CONVERGED
        rows.append({"points": points, "seconds": seconds, "iterations": int(path.num_steps)})
    return rows


def race(config: Config, objective: Objective) -> list[dict[str, float]]:
    """Newton's method against gradient descent on the same action, compiled, from one guess."""
    start, end = jnp.array(START), jnp.array(END)
    rows = []
    for points in config.races:
        newton_seconds, path = _time(_planner(objective, points, node=0.0), start, end)
        minimum = path.action / DURATION
        descent_seconds, (num_steps, reached) = _time(
            _descend_on_action(objective, points), start, end, minimum + 1e-6, repeats=1
        )
        rows.append(
            {
                "points": points,
                "newton_seconds": newton_seconds,
                "descent_seconds": descent_seconds,
                "descent_steps": int(num_steps),
                "descent_excess": float(reached - minimum),
                "speedup": descent_seconds / newton_seconds,
            }
        )
    return rows


def _descend_on_action(objective: Objective, num_points: int) -> Callable[..., Any]:
    """Gradient descent on the inner points until the mean action is below a bound."""
    step = DURATION / (num_points - 1)
    # 95 % of the largest stable step: the Hessian of the action is at most 4 / h from the kinetic
    # term and 12 h from the loss on this path.
    rate = 1.9 / (4 / step + 12 * step)

    @jax.jit
    def descend(start: Array, end: Array, bound: Array) -> tuple[Array, Array]:
        line = control.straight_line(start, end, num_points)

        def total(inner: Array) -> Array:
            path = jnp.concatenate([line[:1], inner, line[-1:]])
            return action(objective, loss, path, step, node=0.0)

        def improve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            inner, _, k = carry
            value, slope = jax.value_and_grad(total)(inner)
            return inner - rate * slope, value / DURATION, k + 1

        _, value, k = lax.while_loop(
            lambda c: (c[1] > bound) & (c[2] < 10_000_000),
            improve,
            (line[1:-1], jnp.array(jnp.inf), jnp.array(0)),
        )
        return k, value

    return descend


def escape_map(grid: int, minima: list[Array]) -> Map:
    """The best plans for ever into both wells, for every start and discount."""
    starts = jnp.linspace(-1.6, 0.6, grid)
    discounts = jnp.geomspace(0.05, 10.0, 2 * grid // 3)

    def cost(discount: Array, first: Array, end: Array) -> Array:
        objective = Objective(discount=discount)
        start = jnp.stack([first, jnp.full_like(first, START[1])])
        path = control.least_action_path(
            objective,
            loss,
            start,
            duration=8.0,
            num_points=100,
            terminal_value=control.quadratic_value(objective, loss, end),
            guess=control.straight_line(start, end, 100),
        )
        # The terminal value is quadratic: it is that of the end only for paths that end there.
        there = jnp.abs(path.params[-1, 0] - end[0]) < 0.1
        converged = path.status == control.PathStatus.CONVERGED
        return jnp.where(converged & there, path.action, jnp.inf)

    costs = jax.vmap(jax.vmap(cost, (None, 0, None)), (None, None, 0))
    values = jax.jit(lambda d: lax.map(lambda x: costs(x, starts, jnp.stack(minima)), d))(discounts)
    return Map(*(np.asarray(x) for x in (starts, discounts, values[:, 0], values[:, 1])))


def claims(
    path: LeastActionPath,
    distance: float,
    descent: Array,
    minima: list[Array],
    energies: tuple[np.ndarray, np.ndarray],
    scaling: list[dict[str, float]],
    escapes: np.ndarray,
) -> list[report.Claim]:
    """What this run claims."""
    per_point = [row["seconds"] / row["points"] for row in scaling]
    return [
        report.close("minimal action", float(path.action) / DURATION, PAPER_ACTION, 1e-7),
        report.at_most("Newton iterations", int(path.num_steps), 15),
        report.at_most("norm of the gradient of the action", float(path.gradient_norm), 1e-9),
        report.close("free end to global minimum", distance, 0.0, 1e-2),
        report.close("gradient descent ends at", float(descent[-1, 0]), float(minima[0][0]), 1e-3),
        *(
            report.at_least(f"{name} energy: peak over start", x.max() - x[0], 0.0)
            for name, x in zip(("kinetic", "potential"), energies, strict=True)
        ),
        report.at_most("seconds for 100,000 points", scaling[-1]["seconds"], 5.0),
        report.at_most("growth of the time for a point", max(per_point) / per_point[0], 1.3),
        report.close("escapes at the least discount", escapes[0], 1.0, 0.0),
        report.close("escapes at the largest discount", escapes[-1], 0.0, 0.0),
    ]


def _from_start(escape: Map) -> np.ndarray:
    """[discount] whether the plan from `START` escapes."""
    return escape.escapes[:, np.argmin(np.abs(escape.starts - START[0]))]


def draw(
    file: Path,
    path: LeastActionPath,
    free: MultiStart,
    descent: Array,
    scaling: list[dict[str, float]],
    escape: Map,
) -> None:
    """Paths on the loss, energies, the map of escapes, and the cost of planning."""
    with figures.page(file, 2, 2, 7.6) as ((landscape, energy_axes), (map_axes, cost_axes)):
        _draw_landscape(landscape, path, free, descent)
        _draw_energies(energy_axes, path, descent)
        _draw_map(map_axes, escape)
        _draw_cost(cost_axes, scaling)


def _draw_landscape(landscape: Any, path: Any, free: MultiStart, descent: Array) -> None:
    """Three paths on the loss."""
    x, y = np.meshgrid(np.linspace(-1.6, 1.6, 201), np.linspace(-1.2, 0.9, 141))
    levels = np.concatenate([np.arange(-0.5, 1.0, 0.1), np.arange(1.0, 3.0, 0.25)])
    height = (x**2 - 1) ** 2 + y**2 - x / 2
    landscape.contourf(x, y, height, levels, cmap="Greys", alpha=0.55, extend="max")
    landscape.contour(x, y, height, levels, colors="0.55", linewidths=0.4)
    for params, colour, style, label in (
        (descent, figures.ORANGE, "-", "gradient descent"),
        (path.params, figures.BLUE, "o-", "least action, end given"),
        (free.best.params, figures.RED, "--", "least action, end free"),
    ):
        landscape.plot(*np.asarray(params).T, style, color=colour, ms=2.5, lw=1.8, label=label)
    landscape.plot(*START, "o", color="k", ms=6)
    landscape.annotate("start", START, (4, 6), textcoords="offset points")
    landscape.legend(loc="lower center", fontsize=8)
    landscape.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", title="Paths on the loss")


def _draw_energies(energy_axes: Any, path: Any, descent: Array) -> None:
    """Kinetic energy and loss along the path."""
    kinetic, potential = energies(path)
    times = np.asarray(path.times)[:-1]
    energy_axes.plot(times, potential, color=figures.BLUE, label="loss along the path")
    energy_axes.plot(times, kinetic, color=figures.GREEN, label="kinetic energy")
    flow = np.asarray(loss(descent.T))
    keep = np.linspace(0, 10, len(flow)) <= DURATION
    energy_axes.plot(
        np.linspace(0, 10, len(flow))[keep],
        flow[keep],
        color=figures.ORANGE,
        label="loss of gradient descent",
    )
    energy_axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    energy_axes.legend(fontsize=8)
    energy_axes.set(xlabel="time", ylabel="energy", title="Invest first, arrive later")


def _draw_map(map_axes: Any, escape: Map) -> None:
    """Where planning escapes, and what it saves."""
    from matplotlib.colors import ListedColormap

    grid = (escape.starts, escape.discounts)
    kind = np.where(escape.planned, np.where(escape.escapes, 2.0, 1.0), 0.0)
    colours = ["0.85", figures.YELLOW, figures.SKY]
    map_axes.pcolormesh(*grid, kind, cmap=ListedColormap(colours), vmin=0, vmax=2, alpha=0.6, lw=0)
    stay, cross = (np.where(np.isfinite(x), x, np.nan) for x in (escape.stay, escape.cross))
    lines = map_axes.contour(
        *grid, stay - cross, [0.25, 1, 2, 5, 10], colors=figures.BLUE, linewidths=1
    )
    map_axes.clabel(lines, fontsize=8)
    map_axes.axvline(BARRIER, color="k", ls="--", lw=1)
    map_axes.text(BARRIER + 0.02, 7.5, "barrier", fontsize=8, rotation=90, va="top")
    map_axes.axvline(START[0], color="k", ls=":", lw=1)
    map_axes.text(START[0] + 0.02, 7.5, "start of the path", fontsize=8, rotation=90, va="top")
    map_axes.text(-1.5, 2.5, "stays in the left well", fontsize=10)
    map_axes.text(-1.5, 0.056, "crosses to the deeper well", fontsize=10)
    map_axes.set(
        yscale="log",
        xlabel=r"$\theta_1$ of the start (grey: no plan found)",
        ylabel=r"discount $\gamma$",
        title="Where looking ahead escapes (lines: cost saved)",
    )


def _draw_cost(cost_axes: Any, scaling: list[dict[str, float]]) -> None:
    """Seconds of a plan, and steps of Newton's method."""
    points, seconds = ([row[k] for row in scaling] for k in ("points", "seconds"))
    cost_axes.loglog(points, seconds, "o-", color=figures.BLUE, label="least action path")
    linear = seconds[-1] * np.array(points) / points[-1]
    cost_axes.loglog(points, linear, ":", color="0.4", label="linear")
    for row in scaling:
        cost_axes.annotate(
            f"{row['iterations']} steps",
            (row["points"], row["seconds"]),
            (-8, 6),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    cost_axes.margins(0.15)
    cost_axes.legend(fontsize=8)
    cost_axes.set(
        xlabel="points of the path",
        ylabel="seconds for a plan",
        title="The cost of a plan, in steps of Newton's method",
    )


def _minimum(guess: float) -> Array:
    """The minimum of the loss near a guess on the first axis."""
    solver = optx.Newton(rtol=1e-12, atol=1e-12)
    return optx.root_find(lambda x, _: jax.grad(loss)(x), solver, jnp.array([guess, 0.0])).value


def _time(call: Callable[..., Any], *args: Any, repeats: int = 5) -> tuple[float, Any]:
    """Seconds of a compiled call, the best of a few, and its value."""
    compiled = jax.jit(call).lower(*args).compile()
    durations, value = [], None
    for _ in range(repeats):
        begun = time.perf_counter()
        value = jax.block_until_ready(compiled(*args))
        durations.append(time.perf_counter() - begun)
    return min(durations), value
