r"""Vary how far ahead a plan looks, and look for momentum in what comes out.

Claim: on a quadratic loss of curvature $h$ the optimal path decays at the
rate $r = \sqrt{\gamma^2/4 + \eta k h} - \gamma/2$. Looking far ahead ($\gamma \to 0$) it is
$\sqrt{\eta k h}$, so that flat and steep directions are approached at rates less unequal than under
gradient descent ($\gamma \to \infty$), where it is proportional to $h$. It would be refuted by
numerical paths of least action that leave the closed form. The rates do not tell a plan from a
descent without memory that is preconditioned by $H^{-1/2}$: at $\gamma = 0$ the two paths are one.

Beyond the paper: where does momentum come from? Under this objective, whose price is that of the
velocity alone, not from the horizon. On a loss that is known, the optimal velocity is a function of
the position, whatever the discount: given the position, the past velocity explains nothing
(`memory`), and the velocity is an integral over future gradients (`planning`), while an optimizer's
momentum is an integral over past ones. What makes the past count
is what the learner does not know (`noise`): with noise, by the memory of its filter; with unknown
curvature, because displacements are what curvature is read off.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments import report
from experiments.horizons import drawing, memory, noise, planning
from experiments.horizons.memory import Shares
from experiments.horizons.noise import Coefficients, Unknown
from experiments.horizons.planning import CURVATURES, Costate, Paths
from experiments.options import Options

__all__ = ["Config", "run"]

DISCOUNTS = (0.0, 1.0, 10.0)
EXPECTED_RATIO = {0.0: 2.000, 1.0: 2.527, 10.0: 3.890}
"""Rate at curvature 4 over rate at curvature 1."""
MORE_DISCOUNTS = (0.3, 3.0, 30.0, 100.0)
NOTHING, SOMETHING = 1e-6, 0.01
"""Shares of the variance of velocity: at most for what has no memory, at least for what has."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Vary how far ahead a plan looks, and look for momentum."""

    QUICK = {"points_per_time": 100, "steps": 2000, "problems": 5000}
    LEAST = {"points_per_time": 20, "steps": 1000, "problems": 1000}

    points_per_time: int = 200
    """Points of a path for a unit of time."""
    steps: int = 20_000
    """Of a learner that reads gradients through noise."""
    problems: int = 50_000
    """Quadratics of a learner that does not know their curvature."""


def run(config: Config) -> report.Report:
    """Plan, compare, regress, draw."""
    density = config.points_per_time
    discounts = sorted((*DISCOUNTS, *MORE_DISCOUNTS))
    with jax.enable_x64(True):
        plan = planning.planner(density)
        paths = {g: plan(g) for g in tqdm(discounts, unit="discount")}
        with tqdm(total=3, desc="momentum", unit="part") as bar:
            shares, bent = memory.look_for_memory(DISCOUNTS, density, config.seed)
            bar.update()
            coefficients = noise.with_known_curvature(config.steps, config.seed)
            bar.update()
            second = noise.second_moves(config.problems, config.seed)
            bar.update()
    straight = {g: costates(paths[g], g, 1 / density) for g in DISCOUNTS}
    costate = {
        name: {
            g: {side: max(c.errors[side] for c in cs) for side in ("future", "past")}
            for g, cs in each.items()
        }
        for name, each in (("quadratic", straight), ("not quadratic", bent))
    }
    ratios = {g: ratio(p.times, p.unit, p.steep) for g, p in paths.items()}
    times, descents = paths[0.0].times, descent_paths(paths[0.0].times)
    pooled = {
        **{f"plan, discount {g:g}": memory.pooled_share(times, p.single) for g, p in paths.items()},
        **{name: memory.pooled_share(times, path) for name, path in descents.items()},
    }
    errors = {
        "own": max(planning.path_error(g, paths[g]) for g in DISCOUNTS),
        "of another discount": planning.path_error(1.0, paths[0.0]),
    }
    drawing.draw(
        config.folder / "horizons.png",
        *(paths, ratios, bent[1.0][0], shares, coefficients, second),
    )
    claims = [
        *_rate_claims(ratios, errors, times),
        *_memory_claims(shares, pooled),
        *_costate_claims(costate, max(DISCOUNTS) / density),
        *_noise_claims(coefficients, second),
    ]
    results = {
        "rate_ratio": {g: ratios[g] for g in DISCOUNTS},
        "path_error": errors,
        "past_velocity_share": shares,
        "share": {
            "without_memory_at_most": largest(shares.unlimited, shares.preconditioned),
            "heavy_ball_at_least": min(shares.heavy_ball.values()),
        },
        "pooled_over_directions": pooled,
        "costate_error": costate,
        "noise": {"variance": noise.NOISES, "known_curvature": coefficients, "second_move": second},
    }
    return report.Report(claims, results)


def largest(*tables: dict[str, dict[Any, float]]) -> float:
    """The largest share in tables of loss -> policy -> share."""
    return max(x for table in tables for shares in table.values() for x in shares.values())


def ratio(times: np.ndarray, unit: np.ndarray, steep: np.ndarray) -> float:
    """The rate at curvature 4 over that at curvature 1."""
    return planning.measured_rate(times, steep) / planning.measured_rate(times, unit)


def descent_paths(times: np.ndarray) -> dict[str, np.ndarray]:
    """Paths [curvature, time] from 1 of descents without memory, on `CURVATURES`: controls."""
    factors = {
        "gradient descent": np.ones_like(CURVATURES),
        "descent, H^(-1/2)": CURVATURES**-0.5,
        "descent, random diagonal": np.exp(np.random.default_rng(0).normal(size=len(CURVATURES))),
    }
    return {name: np.exp(-np.outer(d * CURVATURES, times)) for name, d in factors.items()}


def costates(paths: Paths, discount: float, spacing: float) -> list[Costate]:
    """Of the paths in all directions of the quadratic."""
    return [
        planning.costate(path, h * path, discount, spacing)
        for h, path in zip(CURVATURES, paths.whole, strict=True)
    ]


def _rate_claims(
    ratios: dict[float, float], errors: dict[str, float], times: np.ndarray
) -> list[report.Claim]:
    """The rates of the closed form; a descent without memory has those of discount 0."""
    preconditioned = ratio(times, np.exp(-times), np.exp(-(4**0.5) * times))
    return [
        *(
            report.close(f"rate ratio, discount {g:g}", ratios[g], expected, 1e-3)
            for g, expected in EXPECTED_RATIO.items()
        ),
        report.close(
            "control: rate ratio, descent with H^(-1/2)", preconditioned, EXPECTED_RATIO[0.0], 1e-3
        ),
        report.at_most("path error against the closed form", errors["own"], 1e-3),
        report.at_least(
            "control: path error against the closed form of another discount",
            errors["of another discount"],
            0.1,
        ),
    ]


def _memory_claims(shares: Shares, pooled: dict[str, float]) -> list[report.Claim]:
    """Past velocity explains nothing but of heavy ball, and of what leaves the time out."""
    said = "past velocity explains, given the"
    made = []
    for name in memory.NAMES:
        preconditioned = max(shares.preconditioned[name].values())
        made += [
            report.at_most(
                f"{said} position: plan, {name}", max(shares.unlimited[name].values()), NOTHING
            ),
            report.at_most(
                f"{said} position and time: plan of duration 2, {name}",
                shares.finite[name],
                NOTHING,
            ),
            report.at_most(
                f"{said} position: descents without memory, {name}", preconditioned, NOTHING
            ),
            report.at_least(
                f"control: {said} position: heavy ball, {name}",
                shares.heavy_ball[name],
                SOMETHING,
            ),
            report.at_least(
                f"control: {said} position and time: heavy ball, {name}",
                shares.heavy_ball_with_time[name],
                SOMETHING,
            ),
            report.at_least(
                f"control: {said} position: plan of duration 2, time left out, {name}",
                shares.without_time[name],
                SOMETHING,
            ),
        ]
    plan, descent = pooled["plan, discount 0"], pooled["descent, H^(-1/2)"]
    return [
        *made,
        report.close(
            "one coefficient for all directions: plan / descent with H^(-1/2)",
            plan / descent,
            1.0,
            1e-3,
        ),
    ]


def _costate_claims(
    costate: dict[str, dict[float, dict[str, float]]], coarseness: float
) -> list[report.Claim]:
    """The velocity is an integral of future gradients, and none of past ones.

    Paths are of second order in their spacing, in units of the horizon: ``coarseness``.
    """
    every = [errors for each in costate.values() for errors in each.values()]
    return [
        report.at_most(
            "velocity - integral of future gradients, relative, largest",
            max(errors["future"] for errors in every),
            coarseness**2 / 2,
        ),
        report.at_least(
            "control: velocity - integral of past gradients, relative, smallest",
            min(errors["past"] for errors in every),
            0.1,
        ),
    ]


def _noise_claims(known: Coefficients, second: dict[str, Unknown]) -> list[report.Claim]:
    """With noise the past counts by the memory of the filter, without by what it says of h."""
    return [
        report.at_most(
            "LQG: coefficient of past displacement, search - (1 - G)(1 - K), largest",
            np.abs(known.searched - known.predicted).max(),
            1e-4,
        ),
        report.at_most(
            "LQG: coefficient of past displacement, navigator - (1 - G)(1 - K), largest",
            np.abs(known.regressed - known.predicted_of_navigator).max(),
            1e-4,
        ),
        report.at_most("LQG: coefficient at the least noise", known.searched[0], 1e-3),
        report.at_least("control: LQG: coefficient at the largest noise", known.searched[-1], 0.5),
        report.at_least(
            "control: LQG: 1 - G alone - search, largest",
            (known.memory - known.searched).max(),
            0.1,
        ),
        report.at_least(
            "unknown curvature: share of past displacement at the least noise",
            second["unknown curvature"].share[0],
            0.01,
        ),
        report.at_most(
            "control: known curvature: share of past displacement at the least noise",
            second["known curvature"].share[0],
            1e-5,
        ),
        report.at_most(
            "unknown curvature: coefficient of past displacement at the least noise",
            second["unknown curvature"].coefficient[0],
            -0.1,
        ),
    ]
