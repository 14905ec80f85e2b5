r"""Vary how far ahead a plan looks: gradient descent at one end, momentum at the other.

Claim: on a quadratic loss of curvature $h$ the optimal path decays at the
rate $r = \sqrt{\gamma^2/4 + \eta k h} - \gamma/2$. Looking far ahead ($\gamma \to 0$) it is
$\sqrt{\eta k h}$, so that flat and steep directions are approached at rates less unequal than under
gradient descent ($\gamma \to \infty$), where it is proportional to $h$. Beyond the paper: momentum
comes from the horizon. With one rate for all directions the present gradient alone explains the
velocity of gradient descent; of a far-sighted path it leaves a part unexplained, and the velocity a
moment ago explains it. It would be refuted by numerical paths of least action that leave the closed
form, or by a past velocity that says nothing at $\gamma = 0$ or much at large $\gamma$.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from beliefnav import Objective, control
from beliefnav.control.paths.least_action import LeastActionPath
from experiments import figures, report
from experiments.options import Options

DISCOUNTS = (0.0, 1.0, 10.0)
EXPECTED_RATIO = {0.0: 2.000, 1.0: 2.527, 10.0: 3.890}
"""Rate at curvature 4 over rate at curvature 1."""
MORE_DISCOUNTS = (0.3, 3.0, 30.0, 100.0)
COLOURS = {0.0: figures.BLUE, 1.0: figures.GREEN, 10.0: figures.RED}
HORIZON, SHOWN, LAG = 60.0, 12.0, 0.5
"""Time that is planned, shown, and between a velocity and the one that explains it."""
CURVATURES = np.geomspace(1 / 9, 4, 12)
"""Directions in which momentum is looked for."""


ZERO = 0.03
"""Where a discount of zero stands on a logarithmic axis."""
DISCOUNT_TICKS = [ZERO, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"]


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Vary how far ahead a plan looks. Nothing here is random."""

    QUICK = {"points_per_time": 100}
    LEAST = {"points_per_time": 20}

    points_per_time: int = 200
    """Points of a path for a unit of time."""


class Paths(NamedTuple):
    """Numerical paths of least action of one discount, up to ``SHOWN``.

    Attributes:
        times: [time].
        plane: [time, 2] on curvatures 1/9 and 1, from (-3, -3).
        single: [curvature, time] from 1, on `CURVATURES`.
        unit: [time] from 1, on curvature 1.
        steep: [time] from 1, on curvature 4.
    """

    times: np.ndarray
    plane: np.ndarray
    single: np.ndarray
    unit: np.ndarray
    steep: np.ndarray


def run(config: Config) -> report.Report:
    """Plan, compare, draw."""
    density = config.points_per_time
    discounts = sorted((*DISCOUNTS, *MORE_DISCOUNTS))
    with jax.enable_x64(True):
        plan = planner(density)
        paths = {g: plan(g) for g in tqdm(discounts, unit="discount")}
    ratios = {
        g: measured_rate(p.times, p.steep) / measured_rate(p.times, p.unit)
        for g, p in paths.items()
    }
    momentum = {g: momentum_from_horizon(p, density) for g, p in paths.items()}
    error = max(path_error(g, paths[g]) for g in DISCOUNTS)
    draw(config.folder / "horizons.png", paths, ratios, momentum)
    claims = [
        *(
            report.close(f"rate ratio, discount {g:g}", ratios[g], expected, 1e-3)
            for g, expected in EXPECTED_RATIO.items()
        ),
        report.at_most("path error against the closed form", error, 1e-3),
        report.at_least("past velocity explains, discount 0", momentum[0.0], 0.01),
        report.at_most("past velocity explains, discount 100", momentum[100.0], 1e-4),
        report.at_most(
            "past velocity explains: growth with the discount",
            max(np.diff(list(momentum.values()))),
            0.0,
        ),
    ]
    results = {
        "rate_ratio": {g: ratios[g] for g in DISCOUNTS},
        "max_path_error": error,
        "momentum_from_horizon": momentum,
    }
    return report.Report(claims, results)


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
        statuses = {int(s) for s in (plane.status, *lines.status)}
        if statuses != {control.PathStatus.CONVERGED}:
            raise RuntimeError(f"Paths of discount {discount} ended with {statuses}.")
        each = np.asarray(lines.params)[:, :shown]
        return Paths(
            times=np.asarray(plane.times)[:shown],
            plane=np.asarray(plane.params)[:shown],
            single=each[:-2],
            unit=each[-2],
            steep=each[-1],
        )

    return plan


def measured_rate(times: np.ndarray, path: np.ndarray) -> float:
    """The rate of decay of a path, between times 0.5 and 3."""
    first, last = np.searchsorted(times, (0.5, 3.0))
    return float(np.log(path[first] / path[last]) / (times[last] - times[first]))


def path_error(discount: float, paths: Paths) -> float:
    """The largest distance of the numerical paths from the closed form."""
    pairs = [
        (paths.plane[:, 0], -3 * np.exp(-rate(1 / 9, discount) * paths.times)),
        (paths.plane[:, 1], -3 * np.exp(-rate(1.0, discount) * paths.times)),
        (paths.unit, np.exp(-rate(1.0, discount) * paths.times)),
        (paths.steep, np.exp(-rate(4.0, discount) * paths.times)),
    ]
    return float(max(np.abs(numerical - exact).max() for numerical, exact in pairs))


def momentum_from_horizon(paths: Paths, density: int) -> float:
    """Share of the velocity that the past velocity explains and the present gradient does not.

    The gain in the share of explained variance of a linear regression, over all directions and
    times up to ``SHOWN``, when the velocity ``LAG`` earlier joins the gradient.
    """
    lag = int(LAG * density)
    velocity = np.gradient(paths.single, paths.times, axis=1)
    now, past = velocity[:, lag:].ravel(), velocity[:, :-lag].ravel()
    gradient = (CURVATURES[:, None] * paths.single)[:, lag:].ravel()

    def explained(*predictors: np.ndarray) -> float:
        design = np.stack(predictors, 1)
        residual = now - design @ np.linalg.lstsq(design, now)[0]
        return float(1 - residual @ residual / (now @ now))

    return explained(gradient, past) - explained(gradient)


def draw(
    file: Path, paths: dict[float, Paths], ratios: dict[float, float], momentum: dict[float, float]
) -> None:
    """Trajectories, losses, paths in the plane, rate ratios, and where momentum comes from."""
    with figures.page(file, 2, 3, 6.4) as ((position, loss, plane), (ratio, scatter, share)):
        _draw_paths(position, loss, plane, paths)
        _draw_ratio(ratio, ratios)
        _draw_velocities(scatter, paths)
        shown = {max(g, ZERO): max(value, 1e-12) for g, value in momentum.items()}
        share.loglog(list(shown), list(shown.values()), "o-", color=figures.PURPLE)
        share.set(xlabel=r"discount $\gamma$", ylabel="share of the variance of velocity")
        share.set_xticks(*DISCOUNT_TICKS)
        share.set_title("Explained by past velocity only")


def _draw_paths(position: Any, loss: Any, plane: Any, paths: dict[float, Paths]) -> None:
    """Paths and losses in one direction, and paths in two: closed forms, and least action."""
    for g in DISCOUNTS:
        p, style = paths[g], {"color": COLOURS[g]}
        exact = np.exp(-rate(1.0, g) * p.times)
        dots = np.linspace(0, np.searchsorted(p.times, 6.0), 13).astype(int)
        position.plot(p.times, exact, **style)
        position.plot(p.times[dots], p.unit[dots], "o", ms=4, mfc="none", **style)
        loss.semilogy(p.times, exact**2 / 2, **style)
        loss.semilogy(p.times[dots], p.unit[dots] ** 2 / 2, "o", ms=4, mfc="none", **style)
        exact = -3 * np.exp(-np.outer(p.times, rate(np.array([1 / 9, 1.0]), g)))
        plane.plot(*exact.T, **style, label=rf"$\gamma$ = {g:g}")
        dots = np.linspace(0, len(p.times) - 1, 13).astype(int)
        plane.plot(*p.plane[dots].T, "o", ms=4, mfc="none", **style)
    position.set(
        xlabel="time", ylabel=r"parameter $\theta_t$", title="Path, curvature 1", xlim=(0, 6)
    )
    loss.set(xlabel="time", ylabel="loss", title="Loss", xlim=(0, 6), ylim=(1e-5, 1))
    x, y = np.meshgrid(np.linspace(-3.3, 0.5, 60), np.linspace(-3.3, 0.5, 60))
    plane.contour(x, y, x**2 / 18 + y**2 / 2, 12, colors="0.8", linewidths=0.6, zorder=0)
    plane.set(
        xlabel=r"$\theta_1$ (flat)", ylabel=r"$\theta_2$ (steep)", title="Curvatures 1/9 and 1"
    )

    plane.plot([], [], "-", color="0.4", label="closed form")
    plane.plot([], [], "o", ms=4, mfc="none", color="0.4", label="least action")
    plane.legend(loc="lower right")


def _draw_ratio(ratio: Any, ratios: dict[float, float]) -> None:
    """The rate at curvature 4 over that at curvature 1."""
    grid = np.geomspace(ZERO, 200, 200)
    ratio.semilogx(grid, rate(4.0, grid) / rate(1.0, grid), color="0.4", label="closed form")
    shown = {max(g, ZERO): value for g, value in ratios.items()}
    ratio.semilogx(list(shown), list(shown.values()), "o", color=figures.BLUE, label="measured")
    ratio.axhline(2, color="0.8", lw=0.8, zorder=0)
    ratio.axhline(4, color="0.8", lw=0.8, zorder=0)
    ratio.text(ZERO, 3.97, "gradient descent", va="top", fontsize=8)
    ratio.text(200, 2.03, "ballistic", ha="right", va="bottom", fontsize=8)
    ratio.set(xlabel=r"discount $\gamma$", ylabel="rate at 4 / rate at 1")
    ratio.set_xticks(*DISCOUNT_TICKS)
    ratio.set_title("Steep against flat")
    ratio.legend(fontsize=8, loc="center left")


def _draw_velocities(scatter: Any, paths: dict[float, Paths]) -> None:
    """Velocities against the present gradient, with one rate for all directions."""
    for g in DISCOUNTS:
        p = paths[g]
        velocity = np.gradient(p.single, p.times, axis=1)
        pull = CURVATURES[:, None] * p.single
        slope = (pull * velocity).sum() / (pull**2).sum()
        every = len(p.times) // 40
        scatter.plot(
            (slope * pull)[:, ::every].ravel(),
            velocity[:, ::every].ravel(),
            ".",
            ms=3,
            color=COLOURS[g],
            label=rf"$\gamma$ = {g:g}",
        )
    scatter.axline((0, 0), slope=1, color="0.6", lw=0.8, zorder=0)
    scatter.set(xlabel="explained by the gradient", ylabel="velocity", title="One rate for all?")
    scatter.legend(fontsize=8, markerscale=2)
