"""The experiment that recovers Adam's root: its parts, and what a quick run claims."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import Posterior, control
from experiments import adam_recovery, report
from experiments.adam_recovery import controls, dual, means_and_variances, slopes, streams
from experiments.options import OptionError


@pytest.mark.parametrize("exact_hold", [False, True])
@pytest.mark.parametrize("discount", [0.0, 0.5, 4.0])
def test_local_exponent_is_the_derivative_of_the_planning_gain(
    x64: None, discount: float, exact_hold: bool
) -> None:
    curvature, step = np.geomspace(1e-3, 1e3, 25), 1e-4

    def log_gain(v: np.ndarray) -> np.ndarray:
        planned = control.planning_gain(
            v, rate=1.0, gain=1.0, discount=discount, time_step=0.7, exact_hold=exact_hold
        )
        return np.log(np.asarray(planned.gain))

    up, down = log_gain(curvature * np.exp(step)), log_gain(curvature * np.exp(-step))
    exponent = slopes.local_exponent(curvature, discount, 0.7, exact_hold)
    # Central differences of second order.
    np.testing.assert_allclose(exponent, (up - down) / (2 * step), atol=1e-6)


def test_average_exponent_is_the_slope_of_least_squares() -> None:
    x = np.random.default_rng(0).normal(size=4000)
    curve, exponent = np.tanh(x) + x, 1 / np.cosh(x) ** 2 + 1
    # The trapezoidal rule between neighbours is all that tells them apart.
    assert slopes.average(exponent, x) == pytest.approx(np.polyfit(x, curve, 1)[0], abs=1e-4)


def test_streams_have_the_variances_that_were_fixed() -> None:
    generator = streams.low_signal(jax.random.key(0), 200, ratio=1.0, signal_decades=0.0)
    stream = streams.simulate(jax.random.key(1), generator, 500)
    ratio = jnp.mean(stream.gradient**2, 0) / (generator.noise + generator.signal)
    # At least 26 of the 500 steps of a signal are independent: standard errors of 0.28 and 0.02.
    np.testing.assert_allclose(ratio, 1, atol=1.2)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.06)
    assert float(jnp.std(stream.displacement)) == pytest.approx(1, abs=0.01)


def test_gradient_of_a_curved_stream_follows_the_displacements() -> None:
    generator = streams.curved(jax.random.key(0), 200, noise=1e-8)
    y, moved = streams.simulate(jax.random.key(1), generator, 500)
    change = y[1:] - streams.AUTOCORRELATION * y[:-1]
    curvature = jnp.sum(change * moved[:-1], 0) / jnp.sum(moved[:-1] ** 2, 0)
    # The least curvature is 1e-2, the noise 1e-3 at most.
    np.testing.assert_allclose(curvature, generator.curvature, rtol=0.1)


def test_slopes_do_not_come_from_the_belief() -> None:
    """A belief that knows nothing of the generator has a slope of 0."""
    truth = np.geomspace(0.01, 100, 50)
    unrelated = Posterior(gradient_mean=jnp.ones(50), curvature_mean=jnp.full(50, 3.0))
    reading = slopes.Reading(truth, unrelated)
    for policy in slopes.POLICIES.values():
        assert reading.slope(policy) == pytest.approx(0, abs=1e-6)


def test_small_streams_have_the_slopes_of_the_regimes() -> None:
    found = slopes.read_filters(slopes.simulate_both(jax.random.key(0), 200, 500))
    variance, curvature = found.by_regime()
    for regime, expected in slopes.EXPECTED.items():
        # Standard errors of 0.002 and less.
        assert variance[regime] == pytest.approx(expected, abs=0.01)
        assert curvature[regime] == pytest.approx(expected, abs=0.01)


GRID, TOLERANCE = 161, 3e-3
"""Positions are 0.075 apart and log odds 0.15, interpolated linearly."""


def brute_force(dispersion: float, noise: float) -> float:
    """Cost of two moves: all first moves, and all readings, in small steps."""
    h = np.array([1 - dispersion, 1 + dispersion])
    moves = np.linspace(0.2, 1.6, 141)
    y = np.linspace(-8, 8, 801) * np.sqrt(noise)  # around the two gradients
    costs = []
    for s in moves:
        gradients = -1 + h * s
        reading = np.concatenate([g + y for g in gradients])
        density = np.exp(-((reading[:, None] - gradients) ** 2) / (2 * noise))
        odds = density / density.sum(1, keepdims=True)
        mean = odds @ h
        last = (1 - mean * s) / (1 + mean)  # the best second move
        later = last**2 / 2 + mean * (s + last) ** 2 / 2 - (s + last)
        weights = np.exp(-(y**2) / (2 * noise))
        later = (later.reshape(2, -1) @ weights / weights.sum()).mean()
        costs.append(s**2 / 2 + s**2 / 2 - s + later)
    return float(min(costs))


@pytest.mark.parametrize("noise", [0.03, 0.3, 3.0])
def test_dynamic_programming_of_two_moves_equals_brute_force(noise: float) -> None:
    solution = dual.solve(dual.make_problem(0.8, noise, GRID))
    cost = brute_force(0.8, noise)
    assert solution.cost["optimal"][1] == pytest.approx(cost, abs=TOLERANCE)
    assert solution.cost["certainty-equivalent"][1] >= cost - TOLERANCE
    # One move: the loss is linear in the curvature, so that its mean is all that matters.
    for policy in ("optimal", "certainty-equivalent", "myopic Bayes"):
        assert solution.cost[policy][0] == pytest.approx(-0.25, abs=TOLERANCE)


def test_averaged_plan_is_the_mean_of_both_clairvoyant_moves() -> None:
    """With one move to go, whoever knows h goes from S to (S + 1) / (1 + h)."""
    problem = dual.make_problem(0.8, 1.0, GRID)
    low, high = ((problem.positions + 1) / (1 + h) for h in problem.curvatures)
    want = np.outer(low, problem.odds[0]) + np.outer(high, problem.odds[1])
    np.testing.assert_allclose(dual.averaged_targets(problem)[0], want, rtol=1e-5)


def test_what_no_belief_is_needed_for() -> None:
    """NumPy alone has the slopes of the far-sighted step; another exponent has its own."""
    both = slopes.simulate_both(jax.random.key(0), 200, 500)
    read = slopes.read_filters(both)
    truth = read.variance.truth, read.curvature.truth
    for believed, true in zip(
        (controls.mean_square(both), controls.regressed(both)), truth, strict=True
    ):
        assert slopes.slopes(-np.log(believed) / 2, true)[0] == pytest.approx(-0.5, abs=0.01)
    assert read.curvature.slope(controls.strange()) == pytest.approx(-0.37, abs=0.01)
    assert read.variance.tracking == pytest.approx(1, abs=0.02)


def test_known_curvature_is_planned_as_by_riccati() -> None:
    solution = dual.solve(dual.make_problem(0.0, 0.1, GRID))
    for cost in (solution.cost["optimal"], solution.cost["certainty-equivalent"]):
        np.testing.assert_allclose(cost, solution.cost["clairvoyant"], atol=TOLERANCE)
    # With many moves to go the gain is the golden ratio's.
    assert solution.first_move["optimal"] == pytest.approx((np.sqrt(5) - 1) / 2, abs=2e-3)


def test_an_averaged_plan_weighs_where_each_curvature_leads_by_its_probability() -> None:
    """With one move to go, a curvature h leads from s to (s + 1)/(1 + h)."""
    problem = dual.make_problem(0.8, 0.3, GRID)
    target, (low, high) = dual.averaged_targets(problem)[0], np.asarray(problem.curvatures)
    probability = 1 / (1 + np.exp(-np.asarray(problem.log_odds)))  # of the high curvature
    assert low < high
    weight = (1 - probability) / (1 + low) + probability / (1 + high)
    want = (np.asarray(problem.positions)[:, None] + 1) * weight
    np.testing.assert_allclose(target, want, rtol=1e-5, atol=1e-6)
    # The mean curvature at the same belief, to say which end of the odds is which.
    np.testing.assert_allclose(problem.mean, low + probability * (high - low), rtol=1e-5)


def test_following_a_known_quadratic_costs_what_its_value_function_says() -> None:
    """Without noise, on a known curvature, the cost is that of the recursion of its rate."""
    curvature, gradient = jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0])
    rate, steps = 0.25, jnp.arange(means_and_variances.MOVES)
    policy = control.Policy(lambda p, _: rate / p.curvature_mean * p.gradient_mean)
    belief = means_and_variances.beliefs.Secant(
        noise_variance=1e-10,
        prior_gradient_variance=1.0,
        prior_curvature_mean=curvature,
        prior_curvature_variance=jnp.asarray(1e-10),
    )
    optimizer = means_and_variances.navigator(1.0, belief, policy)
    cost = means_and_variances.follow(optimizer, curvature, gradient, 1e-12, jax.random.key(0))
    before = (1 - rate) ** (2.0 * steps)
    paid = (rate / curvature) ** 2 / 2 + (1 - rate) ** 2 / (2 * curvature)
    discounted = jnp.sum(jnp.exp(-means_and_variances.DISCOUNT * steps) * before)
    np.testing.assert_allclose(cost, paid * discounted, rtol=1e-3)


@pytest.mark.slow
def test_quick_run_holds_its_claims(tmp_path: Path, rank_promotion: None) -> None:
    config = adam_recovery.Config(quick=True, out=tmp_path)
    metrics = report.perform(adam_recovery.run, config)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adam_recovery.png",
        "adam_recovery_beyond.png",
        "metrics.json",
        "posterior.nc",
    }
    assert not report.failed(metrics)
    assert len(metrics["claims"]) == 27
    assert metrics["controls"]["other_exponent"].keys() == {"variance", "curvature"}
    for name in ("slopes", "slopes_mcmc"):
        assert metrics[name].keys() == slopes.EXPECTED.keys()
    assert 1e-4 < metrics["signal_to_noise"]["holds_up_to"] < 1e-1
    assert set(metrics["networks"]) == set(means_and_variances.PLANS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_params": 10}, "num_params must be at least 100"),
        ({"num_steps": 10}, "num_steps must be at least 500"),
        ({"sampled_params": 1}, "sampled_params must be at least 4"),
        ({"grid": 20}, "grid must be at least 121"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        adam_recovery.Config(**options)
