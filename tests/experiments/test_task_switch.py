"""The testbed of weight resetting: its exact costs and errors, and its claims."""

from pathlib import Path

import numpy as np
import pytest

from experiments import report, task_switch
from experiments.options import OptionError
from experiments.task_switch import hyperparameters, inferring, navigation, recovery, tracking
from experiments.task_switch.config import Config


@pytest.mark.parametrize(("hazard", "discount"), [(0.4, 0.7), (0.0, 1.5), (0.4, 0.0)])
def test_the_expected_cost_is_that_of_the_moments_followed_in_time(
    hazard: float, discount: float
) -> None:
    """Euler steps of mean and second moment, small enough for the tolerance."""
    a, b, c = 0.8, 0.5, 0.2
    flow = np.array(
        [[-a, b, c], [0, -hazard, hazard * recovery.PRIOR_MEAN], [0, 0, 0]], dtype=float
    )
    mean = np.array([0.0, recovery.PRIOR_MEAN, 1.0])
    moments = np.diag([1.0, recovery.PRIOR_VARIANCE, 0.0]) + np.outer(mean, mean)
    noise = np.diag([0.0, 2 * hazard * recovery.PRIOR_VARIANCE, 0.0])
    curvature, step, duration = 1.7, 2e-3, 30.0
    moving, missing = np.array([-a, b, c]), np.array([1.0, -1.0, 0.0])
    total = last = 0.0
    for i in range(int(duration / step)):
        last = (moving @ moments @ moving + curvature * missing @ moments @ missing) / 2
        total += last * np.exp(-discount * i * step) * step
        moments = moments + step * (flow @ moments + moments @ flow.T + noise)
    want = total if discount else last
    got = recovery.expected_cost((a, b, c), hazard, discount, curvature)
    np.testing.assert_allclose(got, want, rtol=5e-3)  # first order in the step


def test_a_policy_that_never_comes_to_rest_costs_without_bound() -> None:
    assert recovery.expected_cost((-0.1, 0.5, 0.0), 0.1, 0.0, 1.0) == np.inf


def test_the_search_finds_what_is_cheaper_than_its_neighbours() -> None:
    best = recovery.cheapest_policy(0.3, 0.5, 2.0)
    cost = recovery.expected_cost(best, 0.3, 0.5, 2.0)
    for direction in np.eye(3):
        for sign in (-1, 1):
            assert recovery.expected_cost(best + sign * 1e-3 * direction, 0.3, 0.5, 2.0) > cost


def test_the_steady_error_of_the_linear_filter_is_that_of_a_long_sum() -> None:
    """The error of sum_j K a^j y_{t-j}, with covariances written out."""
    hazard, assumed = 0.1, 0.03
    own = 1 - assumed
    variance = 1.0
    for _ in range(2000):  # Riccati recursion to its fixed point
        variance = own**2 * variance / (variance + 1) + 1 - own**2
    gain = variance / (variance + 1)
    lags = np.arange(400)
    weights = gain * (own * (1 - gain)) ** lags
    covariance = (1 - hazard) ** np.abs(lags[:, None] - lags) + np.eye(400)
    want = 1 - 2 * weights @ (1 - hazard) ** lags + weights @ covariance @ weights
    np.testing.assert_allclose(tracking.steady_error(assumed, hazard), want, rtol=1e-10)


def test_the_tasks_of_a_stream_switch_where_they_say() -> None:
    truth, switched, gradient = tracking.simulate(0.1, 5000, seed=3)
    np.testing.assert_array_equal(switched[1:], np.diff(truth) != 0)
    assert not switched[0]
    np.testing.assert_allclose(np.mean((np.asarray(gradient) + truth) ** 2), 1, atol=0.1)


def test_what_is_retained_is_the_slope_on_what_was_believed_before() -> None:
    rng = np.random.default_rng(0)
    steps = 400
    believed = rng.normal(size=(steps, 3))
    at = np.array([100, 200, 300])
    for t in at:
        for lag in range(navigation.LAGS):
            believed[t + lag] = 0.5**lag * believed[t - 1] * [1.0, 2.0, -1.0]
    nothing = np.empty(0)
    found = navigation.Walk(nothing, believed, nothing, nothing, nothing)
    want = 0.5 ** np.arange(navigation.LAGS)[:, None] * [1.0, 2.0, -1.0]
    np.testing.assert_allclose(navigation.retained_share(found, at), want, rtol=1e-12)


def test_options_are_checked() -> None:
    for name, value in {"hazard": 0.0, "streams": 0, "num_chains": 1, "tracking_steps": 5}.items():
        with pytest.raises(OptionError, match=f"{name} must be"):
            Config(**{name: value})


def test_belief_and_policy_that_are_found_together_are_those_of_theory() -> None:
    found = inferring.one(hazard=1.0, curvature=1.0, noise=0.1)
    # w = r / (r + lambda) with r = 1, to the order of the time step of 0.02.
    assert found.reset[1] == pytest.approx(0.5, abs=0.01)
    assert found.reset[1] == pytest.approx(found.reset[0], abs=1e-5)
    assert found.missed < 1e-5 < 0.1 < found.missed_with_another_gain


def test_intervals_are_refuted_when_too_few_hold_the_truth() -> None:
    # Of 20, 13 and fewer are refuted: binomial tables have 0.0024 for them at 90 %, 0.94 at 50 %.
    assert hyperparameters.power(20, 0.9) == pytest.approx(0.0024, abs=1e-4)
    assert hyperparameters.power(20, 0.5) == pytest.approx(0.942, abs=1e-3)


@pytest.mark.slow
def test_the_quick_run_holds_its_claims(tmp_path: Path) -> None:
    metrics = report.perform(task_switch.run, Config(quick=True, out=tmp_path))
    assert len(metrics["claims"]) > 20
    assert not report.failed(metrics)
    for row in metrics["reset_fraction"] + metrics["rate"]:
        assert abs(row["predicted"] - row["recovered"]) <= 0.02
    assert metrics["reset_at_zero_hazard"] < 1e-6
    for name in ("recovery", "tracking", "trajectories", "resets", "run_lengths", "intervals"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
