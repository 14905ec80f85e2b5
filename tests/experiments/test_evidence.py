"""Scores of beliefs: against slow oracles and laws, and what the experiment writes and refuses."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import evidence, report
from experiments.evidence import compared, controls, results, said, scores, streams, within_adam
from experiments.evidence.config import Config
from experiments.evidence.streams import Stream
from experiments.kept import Kept
from experiments.options import OptionError
from experiments.tasks.task import Score, Task

RNG = np.random.default_rng(0)
Y = RNG.standard_t(4, size=(2, 50, 3)) * np.exp(RNG.normal(size=3))
EVERY = np.ones(3, bool)
STREAM = Stream(Y.astype(np.float32), 0.1 * RNG.normal(size=Y.shape).astype(np.float32), Y)


# --- the recipe ---------------------------------------------------------------------------------


def slow(error: np.ndarray, gain: float) -> list[float]:
    """Scores of one coordinate from the twentieth on, with scipy's density."""
    density: Any = stats.t
    log_scale = np.log(np.median(np.abs(error[:20])) / stats.t(4).ppf(0.75))
    found = []
    for e in error[20:]:
        found.append(density.logpdf(e, 4, scale=np.exp(log_scale)))
        log_scale += gain * (5 * e**2 / (4 * np.exp(2 * log_scale) + e**2) - 1)
    return found


def test_scores_are_densities_of_a_student_t_whose_scale_is_learned():
    got = scores.student(Y, 0.05)
    assert np.isnan(got[:, :20]).all()
    for network in range(2):
        for coordinate in range(3):
            want = slow(Y[network, :, coordinate], 0.05)
            # Float64 round-off of 30 steps.
            np.testing.assert_allclose(got[network, 20:, coordinate], want, rtol=1e-11)


@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e5])
def test_no_rule_wins_by_the_unit_of_its_errors(factor: float):
    """Errors of another unit lose its logarithm; a curvature in another unit loses nothing."""
    plain = scores.student(Y, 0.05)
    # Rounding of logarithms of order 10.
    np.testing.assert_allclose(scores.student(factor * Y, 0.05), plain - np.log(factor), atol=1e-10)
    size = np.exp(RNG.normal(size=Y.shape))
    np.testing.assert_allclose(
        scores.scale(Y, factor * size), scores.scale(Y, size), rtol=1e-9, atol=1e-10
    )
    moved = RNG.normal(size=Y.shape)
    once, other = (scores.curvature(Y, f * size, moved, EVERY) for f in (1.0, factor))
    np.testing.assert_allclose(once, other, rtol=1e-9, atol=1e-10)


def test_a_curvature_of_the_wrong_sign_is_none():
    moved, value = RNG.normal(size=Y.shape), np.ones(Y.shape)
    change = 2 * moved + 0.1 * Y
    nothing = scores.curvature(change, 0 * value, moved, EVERY)
    np.testing.assert_array_equal(scores.curvature(change, -value, moved, EVERY), nothing)
    assert np.nanmean(scores.curvature(change, value, moved, EVERY)) > np.nanmean(nothing) + 1


def test_neither_a_coordinate_that_begins_late_nor_one_reading_sets_the_factor_of_all():
    moved, value = RNG.normal(size=Y.shape), np.ones(Y.shape)
    change = 2 * moved + 0.1 * Y
    plain = scores.curvature(change, value, moved, EVERY)
    change[:, :20, 2], change[:, 22:25, 2] = np.nan, 1e6
    late = scores.curvature(change, value, moved, np.array([True, True, False]))
    # The factor is that of two coordinates in place of three.
    np.testing.assert_allclose(np.nanmean(late[..., :2]), np.nanmean(plain[..., :2]), atol=0.1)
    change[:, 25, 0] = -1e9 * np.sign(moved[:, 25, 0])
    struck = scores.curvature(change, value, moved, np.array([True, True, False]))[:, 26:, 1]
    assert np.mean(struck) > np.nanmean(late[:, 26:, 1]) - 0.5


def test_no_score_knows_what_comes_after():
    """Another last third leaves all scores before it, and what is said before it, as they are."""
    other = Y.copy()
    other[:, 35:] = 7.0
    size, moved = np.exp(Y / 5), np.cos(Y)
    for score in (
        lambda y: scores.location(y, 0.9 * size),
        lambda y: scores.scale(y, size),
        lambda y: scores.curvature(y, size, moved, EVERY),
    ):
        np.testing.assert_array_equal(score(Y)[:, :35], score(other)[:, :35])
        assert (score(Y)[:, 36:] != score(other)[:, 36:]).all()
    changed = STREAM._replace(gradient=other.astype(np.float32))
    for name in ("adam", "lion", "secant"):
        one, two = (said.said(said.RULES[name], s) for s in (STREAM, changed))
        for field in ("mean", "size"):
            mine, theirs = getattr(one, field), getattr(two, field)
            if mine is not None:
                # Step 35 is said before it is read.
                np.testing.assert_array_equal(mine[:, :36], theirs[:, :36])
                assert (mine[:, 36] != theirs[:, 36]).any()


def test_a_reading_that_is_missing_is_not_scored_and_teaches_nothing():
    holes = Y.copy()
    holes[:, 30] = np.nan
    got, without = scores.student(holes, 0.05), scores.student(np.delete(Y, 30, 1), 0.05)
    assert np.isnan(got[:, 30]).all()
    np.testing.assert_array_equal(np.delete(got, 30, 1), without)


# --- what rules say -----------------------------------------------------------------------------


def average(y: np.ndarray, discount: float) -> np.ndarray:
    """Bias-corrected average before every reading [network, step, coordinate]; NaN at the first."""
    rows, total, count = [np.full_like(y[:, 0], np.nan)], 0.0, 0.0
    for t in range(y.shape[1] - 1):
        total, count = discount * total + y[:, t], discount * count + 1
        rows.append(total / count)
    return np.stack(rows, 1)


def test_rules_say_what_their_formulas_do():
    y = STREAM.gradient.astype(float)
    found = {name: said.said(asked, STREAM) for name, asked in said.RULES.items()}

    def holds(got: Any, want: np.ndarray) -> None:
        # Float32 round-off of 50 steps.
        np.testing.assert_allclose(got[:, 1:], want[:, 1:], rtol=1e-4, atol=1e-5)

    holds(found["adam"].mean, average(y, 0.9))
    holds(found["adam"].size, average(y**2, 0.999))
    holds(found["adam, b2 = 0.9"].size, average(y**2, 0.9))
    value = found["adam"].curvature
    assert value is not None
    holds(value[:, :-1], average(y**2, 0.999)[:, 1:])
    assert not np.any(found["rmsprop"].mean)
    # Lion's average has the discount 0.99 and starts from 0; a forecast mixes in the last.
    plain, rows = np.zeros_like(y[:, 0]), [np.zeros_like(y[:, 0])]
    for t in range(y.shape[1] - 1):
        rows.append(0.9 * plain + 0.1 * y[:, t])
        plain = 0.99 * plain + 0.01 * y[:, t]
    lion = found["lion"].mean
    assert lion is not None
    ratio = lion[:, 2:] / np.stack(rows, 1)[:, 2:]
    # Up to a factor that is common to all coordinates of a step: the correction of its bias.
    np.testing.assert_allclose(ratio, ratio[:1, :, :1] * np.ones_like(ratio), rtol=2e-3)


def test_who_says_nothing():
    silent = {
        name: [f for f, x in said.said(asked, STREAM)._asdict().items() if x is None]
        for name, asked in said.RULES.items()
    }
    assert {name: fields for name, fields in silent.items() if fields} == {
        "momentum": ["size", "curvature"],
        "lion": ["size", "curvature"],
        "muon": ["size", "curvature"],
        "secant": ["size"],
        "hazard_filter": ["mean", "size", "curvature"],
        "Aitchison": ["mean"],
    }


# --- recordings ---------------------------------------------------------------------------------

CURVATURES = jnp.array([0.5, 2.0, 1.0, 3.0])


def quadratic() -> Task:
    """A parabola whose place depends on the batch, which changes no difference of gradients."""

    def loss(params: Any, key: Any) -> Any:
        return jnp.sum(CURVATURES * (params["x"] - jax.random.normal(key, (4,))) ** 2) / 2

    return Task(
        lambda key: {"x": jax.random.normal(key, (4,))},
        loss,
        lambda *_: Score(jnp.zeros(()), jnp.zeros(())),
        50,
        1,
    )


def test_what_a_step_did_to_a_gradient_is_curvature_times_the_step(tmp_path: Path):
    found = streams.recorded(Kept(tmp_path), "parabola", quadratic(), 50, 4, 2, 0)
    assert found.gradient.shape == (2, 50, 4)
    slopes = found.change / found.displacement
    # Float32: gradients of size 1 differ by 1e-3.
    np.testing.assert_allclose(np.sort(np.median(slopes, 1)), [[0.5, 1, 2, 3]] * 2, rtol=5e-3)
    again = streams.recorded(Kept(tmp_path), "parabola", quadratic(), 50, 4, 2, 0)
    jax.tree.map(np.testing.assert_array_equal, found, again)


def test_coordinates_with_zeros_are_scored_apart():
    y = np.ones((1, 100, 2), np.float32) * np.arange(1, 101, dtype=np.float32)[:, None]
    y[0, 3, 1] = 0
    stream = Stream(y, y, y)
    np.testing.assert_array_equal(compared.complete(stream, 0), [[True, False]])
    np.testing.assert_array_equal(compared.complete(stream, 1), [[True, True]])
    assert stream.stage(0) == slice(0, 20) and stream.stage(2) == slice(80, 100)
    of_stage = {
        "adam": {"location": np.array([[1.0, 2.0]])},
        "other": {"location": np.array([[1.5, 9.0]])},
    }
    found = compared.differences(of_stage, np.array([[True, False]]))["other"]
    assert found["scale"] == "says nothing"
    assert isinstance(found["location"], compared.Difference)
    assert found["location"].trimmed_mean[0] == found["location"].median == 0.5
    assert found["location"].coordinates == 1


# --- controls -----------------------------------------------------------------------------------


def test_the_formula_of_the_control_is_the_variance_of_an_average_of_a_random_walk():
    rng, drift = np.random.default_rng(1), 0.05
    walk = np.cumsum(np.sqrt(drift) * rng.normal(size=(4000, 200)), 0)
    y = walk + rng.normal(size=walk.shape)
    for discount in (0.0, 0.8):
        mean, errors = y[0], []
        for now in y[1:]:
            errors.append(now - mean)
            mean = discount * mean + (1 - discount) * now
        # 800,000 errors, correlated over a few steps: standard error below 0.4 %.
        want = controls.error_variance(discount, drift)
        assert np.var(errors[100:]) == pytest.approx(want, rel=0.015)


def test_controls_hold_and_a_wrong_belief_does_not_gain():
    found = controls.simulate(0, steps=200, coordinates=100)
    made = results.claims(results.Results(found, {}, {}))
    assert len(made) == 3 and all(claim.holds for claim in made)
    wrong = {part: control._replace(measured=-control.measured) for part, control in found.items()}
    assert not any(claim.holds for claim in results.claims(results.Results(wrong, {}, {})))


# --- inside Adam --------------------------------------------------------------------------------


def test_a_better_score_with_less_error_is_a_positive_correlation():
    score, error = np.arange(5.0), np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    assert within_adam.correlation(score, error) == pytest.approx(1)
    assert within_adam.correlation(score, -error) == pytest.approx(-1)
    assert within_adam.correlation(score, np.ones(5)) == 0


def test_intervals_are_over_networks_that_are_recorded_and_trained():
    rng = np.random.default_rng(0)
    score = np.arange(25.0)[:, None] + 0.01 * rng.normal(size=(25, 4))
    known = -score.mean(1)[:, None] + 0.01 * rng.normal(size=(25, 6))
    value, low, high = within_adam.interval([(score, known)], 200, 0)
    assert value == pytest.approx(1) and low > 0.99 and high <= 1
    noise = 100 * rng.normal(size=(25, 6))
    value, low, high = within_adam.interval([(score, noise)], 200, 0)
    assert low < value < high and high - low > 0.2
    both = within_adam.interval([(score, known), (score, -known)], 200, 0)
    assert both[0] == pytest.approx(0, abs=1e-12)
    assert within_adam.agreement(known) > 0.99 > 0.5 > abs(within_adam.agreement(noise))


# --- what a run writes and refuses --------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ("digit",)}, "Unknown data set 'digit'; known are: digits, fashion_mnist"),
        ({"tasks": ("digit",)}, "Unknown task 'digit'"),
        ({"stage_steps": 39}, "stage_steps must be at least 40, got 39"),
        ({"recordings": 1}, "recordings must be at least 2, got 1"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options: Any, message: str):
    with pytest.raises(OptionError, match=message):
        Config(**options)


def test_missing_data_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def missing() -> Any:
        raise FileNotFoundError("no file")

    monkeypatch.setitem(evidence.DATA, "fashion_mnist", missing)
    assert evidence.compare(Config(data=("fashion_mnist",)), Kept(tmp_path)) == {}
    assert "Left out: fashion_mnist. no file" in capsys.readouterr().out


@pytest.mark.slow
def test_a_quick_run_holds_its_claims(tmp_path: Path):
    metrics = report.perform(evidence.run, Config(out=tmp_path, quick=True))
    assert not report.failed(metrics)
    assert {"evidence.png", "within_adam.png"} <= {p.name for p in tmp_path.iterdir()}
    written = hashlib.sha256(results.PREDICTIONS.read_bytes()).hexdigest()
    assert metrics["predictions_sha256"] == written
    assert set(metrics["evidence"]) == {*said.RULES, said.CONTROL}
    for of_rule in metrics["evidence"].values():
        assert set(of_rule) == {"digits, early", "digits, middle", "digits, late"}
        assert all(set(of_stream) == set(compared.PARTS) for of_stream in of_rule.values())
    value, low, high = metrics["within_adam"]
    assert -1 <= low <= value <= high <= 1
