"""What the parts come to: claims, ``metrics.json``, and tables."""

from typing import Any, NamedTuple

import numpy as np

from experiments import report
from experiments.adam_recovery import means_and_variances
from experiments.adam_recovery.controls import EXPONENT, Controls
from experiments.adam_recovery.dual import Checks, Solution
from experiments.adam_recovery.means_and_variances import Costs, Trained
from experiments.adam_recovery.sampled import RATIOS, Sampled
from experiments.adam_recovery.slopes import (
    POLICIES,
    Between,
    Failure,
    FilterSlopes,
    Observed,
)

TOLERANCE, TOLERANCE_SAMPLED = 0.02, 0.05


class Results(NamedTuple):
    """What every part of the experiment measured."""

    filtered: FilterSlopes
    between: list[Between]
    failure: Failure
    observed: Observed
    sampled: Sampled
    costs: Costs
    networks: dict[str, Trained]
    solutions: dict[tuple[float, float], Solution]
    checks: Checks
    controls: Controls

    def tracking(self) -> dict[str, float]:
        """Slopes of log V on the logarithm of what it should track, by reading and who reads."""
        readings = {
            "Adam's belief, noise variance": self.filtered.variance,
            "Adam's belief by NUTS, noise variance": self.sampled.second_moment[RATIOS[0]],
            "secant, curvature": self.filtered.curvature,
            "secant by NUTS, curvature": self.sampled.curvature,
        }
        return {name: reading.tracking for name, reading in readings.items()}

    def regimes(self) -> dict[str, dict[str, float]]:
        """The slopes in the three regimes, by reading and by what reads."""
        variance, curvature = self.filtered.by_regime()
        variance_mcmc, curvature_mcmc = self.sampled.by_regime()
        return {
            "slopes": variance,
            "slopes_mcmc": variance_mcmc,
            "slopes_curvature": curvature,
            "slopes_curvature_mcmc": curvature_mcmc,
        }


def claims(results: Results) -> list[report.Claim]:
    """What the experiment claims."""
    return [*_slope_claims(results), *_observed_claims(results), *_dual_claims(results)]


def _slope_claims(results: Results) -> list[report.Claim]:
    """What is believed tracks the generator; exponents of policies are theirs by construction."""
    failure, between, controls = results.failure, results.between, results.controls
    law = float(np.abs(failure.measured - failure.derived).max())
    flat = float(np.abs(failure.measured + 0.5).max())
    replanned = [row for row in between if not row.exact_hold]
    return [
        *(
            report.close(
                f"log V on what it tracks: {name}",
                slope,
                1.0,
                TOLERANCE_SAMPLED if "NUTS" in name else TOLERANCE,
            )
            for name, slope in results.tracking().items()
        ),
        *(
            report.at_most(
                f"control: {name} in random order, slope of the ballistic step", abs(slope), 0.1
            )
            for name, slope in controls.shuffled.items()
        ),
        *(
            report.close(
                f"control: slope of a policy V^-0.37 on the {name}", slope, EXPONENT, TOLERANCE
            )
            for name, slope in controls.other_exponent.items()
        ),
        *(
            report.close(f"control: slope on the {name} without a belief", slope, -0.5, TOLERANCE)
            for name, slope in controls.without_belief.items()
        ),
        report.at_most(
            "LQG: slope of the best feedback on the noise", abs(controls.feedback_on_noise), 1e-3
        ),
        report.close(
            "LQG: slope of the best gain on the curvature", controls.gain_on_curvature, -0.5, 0.01
        ),
        report.at_most(
            "slopes between the regimes: largest deviation",
            max(row.error for row in between),
            0.0,
            TOLERANCE,
        ),
        report.at_least(
            "control: slopes between the regimes, deviation from the next discount",
            min(
                row.error_from(other)
                for row, other in zip(replanned[:-1], replanned[1:], strict=True)
            ),
            TOLERANCE,
        ),
        report.at_most("slopes by signal to noise: largest deviation", law, 0.0, TOLERANCE),
        report.at_least("control: slopes by signal to noise, deviation from -1/2", flat, 0.3),
    ]


def _observed_claims(results: Results) -> list[report.Claim]:
    secant, adam = results.observed.secant, results.observed.adam
    return [
        report.close("fully observed: secant on variance", secant[0, 0], 0.0, TOLERANCE),
        report.close("fully observed: secant on curvature", secant[0, 1], -0.5, TOLERANCE),
        report.close("hardly observed: secant on variance", secant[-1, 0], -0.25, TOLERANCE),
        report.close("hardly observed: secant on curvature", secant[-1, 1], 0.0, TOLERANCE),
        report.close("fully observed: second moment on variance", adam[0, 0], 0.0, TOLERANCE),
        report.close("fully observed: second moment on curvature", adam[0, 1], -1.0, 0.05),
    ]


def _dual_claims(results: Results) -> list[report.Claim]:
    checks = results.checks
    others = [
        solution.gain(over=policy)
        for solution in results.solutions.values()
        for policy in solution.first_move
    ]
    return [
        report.close("dual control: gain if the curvature is known", checks.known, 0.0, 1e-3),
        report.close("dual control: gain if nothing is learned", checks.useless, 0.0, 1e-3),
        report.at_least("dual control: gain in between", checks.reference, 0.01),
        report.at_least("dual control: least gain over any policy", min(others), 0.0, 1e-3),
        report.at_most("dual control: change on a coarser grid", checks.refinement, 0.0, 1e-3),
    ]


def metrics(results: Results) -> dict[str, Any]:
    """What goes into ``metrics.json``."""
    failure, observed, sampled = results.failure, results.observed, results.sampled
    failed = np.flatnonzero(np.abs(failure.measured + 0.5) > TOLERANCE)
    ballistic = POLICIES["ballistic"]
    return {
        **results.regimes(),
        "tracking": results.tracking(),
        "controls": results.controls,
        "between": results.between,
        "signal_to_noise": {
            "ratio": failure.ratios,
            "slope": failure.measured,
            "derived": failure.derived,
            "holds_up_to": failure.within(TOLERANCE),
            "fails_from": float(failure.ratios[failed[0]]) if len(failed) else None,
        },
        "signal_to_noise_mcmc": {
            ratio: {
                "second_moment": sampled.second_moment[ratio].slope(ballistic),
                "variance": sampled.variance[ratio].slope(ballistic),
            }
            for ratio in sampled.variance
        },
        "mcmc": sampled.diagnostics(),
        "fully_observed": {
            "noise": observed.noise,
            "uncertainty": observed.uncertainty,
            "secant": observed.secant,
            "second_moment": observed.adam,
        },
        "quadratics": _costs(results.costs),
        "networks": {
            name: {
                "loss": dict(zip(rates, t.loss.mean(1), strict=True)),
                "accuracy": dict(zip(rates, t.accuracy.mean(1), strict=True)),
                "best_rate": rates[t.best],
                "best_loss": t.loss[t.best].mean(),
                "best_accuracy": t.accuracy[t.best].mean(),
            }
            for rates in [means_and_variances.LEARNING_RATES]
            for name, t in results.networks.items()
        },
        "dual": _dual(results),
    }


def _costs(costs: Costs) -> dict[tuple[float, float], dict[str, Any]]:
    """(Dispersion, noise) -> field -> plan -> number."""
    tables = {
        "excess": costs.excess,
        "versus": costs.versus,
        "standard_error": costs.error,
        "cheaper": costs.cheaper,
    }
    return {
        (c, r): {
            field: {name: x[i, j] for name, x in table.items()} for field, table in tables.items()
        }
        for i, c in enumerate(costs.dispersions)
        for j, r in enumerate(costs.noises)
    }


def _dual(results: Results) -> dict[str, Any]:
    return {
        "gain_by_moves": results.checks.by_moves,
        "largest_gain": {
            c: max(s.gain() for (own, _), s in results.solutions.items() if own == c)
            for c, _ in results.solutions
        },
        "solutions": {
            setting: {
                "gain": s.gain(),
                "probing": s.gain(over="anticipating"),
                "averaged": s.gain("averaged"),
                "cost": {name: cost[-1] for name, cost in s.cost.items()},
                "first_move": s.first_move,
            }
            for setting, s in results.solutions.items()
        },
    }
