"""No learning rate: ratios by hand, paths beside those of the bench, and a quick run."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from beliefnav import optimum
from experiments import no_rate, report
from experiments.no_rate import arms, results, stress
from experiments.no_rate.arms import ARMS, Arm
from experiments.no_rate.bench import Benched, Scored
from experiments.no_rate.config import Config
from experiments.no_rate.paths import follow, guessed
from experiments.options import OptionError
from experiments.tasks import measuring
from experiments.tasks.measuring import Budget, Setup
from experiments.tasks.noisy_quadratic import noisy_quadratic
from experiments.tasks.rules import Rule

SHORT = noisy_quadratic()._replace(steps=20)
BUDGET = Budget(seed=0, tuning_seeds=1, seeds=3)
KEYS = measuring.keys_of(BUDGET)[1]
SGD = arms.averaged(lambda _: optax.sgd(0.1), 1.0)


# --- ratios -------------------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_means_with_the_interval_of_its_residuals() -> None:
    ours, theirs = np.array([1.0, 2.0, 4.0, 2.0]), np.array([2.0, 3.0, 5.0, 2.0])
    r = 9 / 12
    residuals = np.array([1 - 2 * r, 2 - 3 * r, 4 - 5 * r, 2 - 2 * r]) / 3
    half = stats.t.ppf(0.975, 3) * np.sqrt(np.sum(residuals**2) / 3 / 4)
    np.testing.assert_allclose(results.ratio(ours, theirs), [r, r - half, r + half], rtol=1e-12)
    # Paired: what both have in common leaves no doubt about the ratio. A few roundings.
    np.testing.assert_allclose(results.ratio(0.7 * theirs, theirs), 0.7, rtol=1e-12)


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    """19 times in 20, of means over seeds that have noise of their own and some in common."""
    rng, truth, covered = np.random.default_rng(0), 0.8, 0
    for _ in range(2000):
        common = rng.normal(1.0, 0.2, 5)
        ours, theirs = truth * common + rng.normal(0, 0.03, 5), common + rng.normal(0, 0.03, 5)
        _, low, high = results.ratio(ours, theirs)
        covered += low <= truth <= high
    # 0.95 give or take 4 standard errors of 0.005, and 0.02 of the first order.
    assert 0.91 < covered / 2000 < 0.97


def scored(*error: float) -> Scored:
    return Scored(np.array(error), np.array(error), {})


def test_worst_and_median_are_over_the_tasks_of_a_group() -> None:
    tuned = results.RIVALS["tuned"]
    of_tasks = {"noisy_quadratic": 1.0, "digits_mlp": 3.0, "mnist1d_cnn": 0.5, "gru_mnist1d": 2.0}
    benched = Benched(
        {
            name: {results.OURS: scored(2 * x, 2 * x), tuned: scored(2.0, 2.0)}
            for name, x in of_tasks.items()
        },
        {},
    )
    assert results.summary(results.ratios(benched, results.OURS, tuned)) == {
        "five": {"worst": 3.0, "median": 1.0},
        "held out": {"worst": 2.0, "median": 2.0},
        "all": {"worst": 3.0, "median": 1.5},
    }


def test_a_distance_has_settled_when_it_stays_within_a_tenth() -> None:
    steps = np.array([10, 20, 30, 40])
    distance = np.array([[1.0, 4.0, 4.2, 4.0], [4.0, 1.0, 4.0, 4.0], [4, 4, 4, 4], [1, 2, 3, 4.0]])
    np.testing.assert_array_equal(results.settled(distance, steps), [20, 30, 10, 40])


# --- paths --------------------------------------------------------------------------------------


def test_paths_are_those_of_the_bench_seed_by_seed() -> None:
    """So that pairing means something: the same starts and batches as tuned Adam."""
    found = follow((SHORT,), SGD, KEYS)
    want = measuring.train(SHORT, Setup(Rule(optax.sgd, ()), powers=(1.0,)), (0.1,), KEYS)
    # Sums in float32, in programs that differ.
    for reading, name in enumerate(("last", "average")):
        error = want["test error"][0, :, reading]
        np.testing.assert_allclose(found[f"{name} error"], error, rtol=1e-5)


@pytest.mark.slow
def test_a_path_says_how_far_it_went_and_what_was_believed() -> None:
    counting = SGD._replace(distance=lambda state: 1.0 * optax.tree.get(state, "averaged_calls"))
    found = follow((SHORT,), counting, KEYS)
    np.testing.assert_array_equal(found["steps"], np.arange(1, 21))
    np.testing.assert_array_equal(found["distance"], np.tile(np.arange(1, 21), (3, 1)))
    key_start, key_batches = jax.random.split(KEYS[1])
    start = params = SHORT.init(key_start)
    optimizer: Any = SGD.make(SHORT)
    state, losses = optimizer.init(start), []
    for key in jax.random.split(key_batches, 20):
        loss, gradient = jax.value_and_grad(SHORT.loss)(params, key)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    np.testing.assert_allclose(found["loss"][1], losses, rtol=1e-4)
    for name, handed in (("last", params), ("average", optimum(state, params))):
        way = np.asarray(handed - start)
        largest, rms = np.abs(way).max(), np.sqrt(np.mean(way**2))
        np.testing.assert_allclose(found[f"{name} largest"][1], largest, rtol=1e-4)
        np.testing.assert_allclose(found[f"{name} rms"][1], rms, rtol=1e-4)


def test_stages_follow_on_each_other_and_the_last_one_scores() -> None:
    away = SHORT._replace(
        loss=lambda params, key: SHORT.loss(params - 3.0, key),
        score=lambda params, split: SHORT.score(params - 3.0, split),
        steps=200,
    )
    one, two = follow((SHORT,), SGD, KEYS), follow((SHORT, away), SGD, KEYS)
    assert two["loss"].shape == (3, 20 + 100) and two["steps"][-1] == 220
    np.testing.assert_allclose(two["loss"][:, :20], one["loss"], rtol=1e-5)
    # Where the second loss is least: entries of small curvature have not moved yet.
    assert (two["last error"] < 0.5 * follow((away,), SGD, KEYS)["loss"][:, 0]).all()


@pytest.mark.slow
def test_guesses_are_paths_side_by_side() -> None:
    guesses = (1e-3, 0.1)

    def make(guess: Any) -> Arm:
        return arms.averaged(lambda _: optax.sgd(guess))

    found = guessed(SHORT, make, guesses, KEYS)
    for i, guess in enumerate(guesses):
        alone = follow((SHORT,), make(guess), KEYS)
        np.testing.assert_allclose(found["last error"][i], alone["last error"], rtol=1e-5)


def test_what_diverges_scores_as_infinite() -> None:
    found = follow((SHORT,), arms.averaged(lambda _: optax.sgd(1e30)), KEYS)
    assert np.isinf(found["last error"]).all() and np.isinf(found["last nats"]).all()
    # The average takes in nothing that is not finite.
    assert np.isfinite(found["average error"]).all()


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_learns_and_hands_over_an_average(name: str) -> None:
    found = follow((SHORT,), ARMS[name], KEYS)
    assert np.isfinite(found["last error"]).all()
    assert (found["last error"] != found["average error"]).all()
    has_distance = np.isfinite(found["distance"]).all()
    assert has_distance == (ARMS[name].distance is not arms._unknown)


# --- problems -----------------------------------------------------------------------------------


def test_the_table_has_its_least_loss_at_the_truth_and_sparse_gradients() -> None:
    task = stress.sparse_table()
    truth = jax.random.normal(jax.random.key(0), (stress.SYMBOLS, stress.COLUMNS))
    assert float(task.score(truth, "test").nats) == 0
    start = task.init(jax.random.key(1))
    gradient = jax.grad(task.loss)(start, jax.random.key(2))
    rows = jnp.any(gradient != 0, axis=1).sum()
    assert 1 <= rows <= task.batch
    # Noise of variance 1 in every column is what no table can foresee.
    keys = jax.random.split(jax.random.key(3), 500)
    at_truth = jax.vmap(lambda key: task.loss(truth, key))(keys)
    assert abs(float(at_truth.mean()) - stress.COLUMNS / 2) < 4 * float(at_truth.std()) / 500**0.5


@pytest.mark.slow
def test_permuted_labels_are_another_task_of_the_same_difficulty() -> None:
    plain, permuted = stress.digits(64, 1), stress.digits(64, 1, permuted=True)
    params = plain.init(jax.random.key(0))
    order = (np.arange(10) * 3 + 1) % 10
    assert sorted(order) == list(range(10)) and (order != np.arange(10)).sum() >= 9
    last = params.layers[-1]
    moved = jax.tree.map(lambda x: x, params)
    for name in ("weight", "bias"):
        # Logit order[c] of the new task is logit c of the old one.
        rows = getattr(last, name)[np.argsort(order)]
        object.__setattr__(moved.layers[-1], name, rows)
    for split in ("train", "test"):
        np.testing.assert_allclose(
            permuted.score(moved, split).nats, plain.score(params, split).nats, rtol=1e-6
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("digit",)}, "Unknown task 'digit'; known are: noisy_quadratic.*gru_mnist1d"),
        ({"seeds": 1}, "seeds must be at least 2, got 1"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Config(**options)


@pytest.mark.slow
def test_a_quick_run_holds_its_claims(tmp_path: Path) -> None:
    metrics = report.perform(no_rate.run, Config(out=tmp_path, quick=True))
    assert not report.failed(metrics)
    figures = {"no_rate.png", "arms.png", "stress.png"}
    assert figures | {"metrics.json"} <= {path.name for path in tmp_path.iterdir()}
    written = hashlib.sha256(results.PREDICTIONS.read_bytes()).hexdigest()
    assert metrics["predictions_sha256"] == written
    tuned = {f"{arm}, {reading}" for arm in (arms.TUNED, arms.TUNED_COSINE) for reading in READ}
    for of_task in metrics["tasks"].values():
        run = (arms.RULE, arms.DEFAULT, "dog")
        assert set(of_task) == tuned | {f"{arm}, {reading}" for arm in run for reading in READ}
    # What was expected is said whether it came out or not, and is no claim.
    assert {said["held"] for said in metrics["predictions"].values()} <= {True, False}
    assert not metrics["predictions"].keys() & metrics["claims"].keys()


READ = tuple(arms.READINGS)
