"""The bench: what a task keeps to, what is read off a path, and what settings are chosen by."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

from experiments import data as data_sets
from experiments import report, tasks
from experiments.kept import Kept
from experiments.options import OptionError
from experiments.tasks import images, measuring, sequences
from experiments.tasks.averaging import averaging
from experiments.tasks.catalogue import HELD_OUT, TASKS, available
from experiments.tasks.config import Config
from experiments.tasks.measuring import Budget, Setup
from experiments.tasks.rules import RULES, Rule
from experiments.tasks.task import SPLITS, Score, Task, code_of, find
from tests import oracles

POWERS = (0, 1, 4)


def parabola() -> Task:
    """A task of one's own: validation and test have their optima elsewhere."""
    optima = {"train": 0.0, "validation": 1.0, "test": 5.0}

    def score(params: Array, split: str) -> Score:
        off = jnp.sum((params - optima[split]) ** 2)
        return Score(off, off / 2)

    def loss(params: Array, key: Array) -> Array:
        return jnp.sum((params - 2.0 - jax.random.normal(key, (3,))) ** 2) / 2

    return Task(lambda key: jax.random.normal(key, (3,)), loss, score, steps=8, batch=1)


sgd = Rule(optax.sgd, (0.05, 0.2, 0.8))


# --- tasks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["noisy_quadratic", "digits_mlp", "digits_batch_norm"])
def test_a_task_draws_batches_by_its_key_and_scores_every_split(name: str) -> None:
    task = TASKS[name]()
    keys = jax.random.split(jax.random.key(0), 3)
    params = task.init(keys[0])
    loss = jax.jit(task.loss)
    assert loss(params, keys[1]) == loss(params, keys[1]) != loss(params, keys[2])
    for split in SPLITS:
        error, nats = task.score(params, split)
        assert error.shape == nats.shape == () and np.isfinite(error) and np.isfinite(nats)
    if name != "noisy_quadratic":  # one of ten classes, and not much known yet
        assert 0.7 < float(task.score(params, "test").error) < 1


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_task_that_is_held_out_draws_batches_by_its_key_and_scores_every_split(name: str) -> None:
    task = HELD_OUT[name]()
    keys = jax.random.split(jax.random.key(0), 3)
    params = task.init(keys[0])
    loss = jax.jit(task.loss)
    assert loss(params, keys[1]) == loss(params, keys[1]) != loss(params, keys[2])
    score = jax.jit(task.score, static_argnums=1)
    found = {split: score(params, split) for split in SPLITS}
    # Before training: one of ten classes, one of 98 characters, a pixel of variance 1.
    classes = {"gru_mnist1d": 10, "text_transformer": 98}.get(name)
    for error, nats in found.values():
        if classes is None:
            assert 0.8 < float(error) < 1.5 and abs(float(nats) / float(error) - 32) < 1e-3
        else:
            assert abs(float(nats) - np.log(classes)) < 0.3
    assert len({float(nats) for _, nats in found.values()}) == 3  # three sets of examples
    assert find("task", name, TASKS | HELD_OUT) is HELD_OUT[name] and name not in TASKS


def test_no_window_of_text_is_in_two_splits() -> None:
    windows, size = sequences.text()
    counts = [len(windows[name]) for name in SPLITS]
    assert sum(counts) * 33 > 100_000 and min(counts) >= 300
    assert all(x.shape[1] == 33 and 0 <= x.min() and x.max() < size for x in windows.values())
    found = [{tuple(row) for row in np.asarray(windows[name]).tolist()} for name in SPLITS]
    # Help repeats itself: some lines of signatures and rules are the same.
    for other in found[1:]:
        assert len(found[0] & other) <= 0.1 * len(other)


def test_a_transformer_does_not_see_what_comes_next() -> None:
    network = sequences.Transformer(20, jax.random.key(0))
    window = jax.random.randint(jax.random.key(1), (sequences.CONTEXT,), 0, 20)
    logits, changed = network(window), network(window.at[10].add(1))
    assert jnp.array_equal(logits[:10], changed[:10])
    assert bool(jnp.all(jnp.any(logits[10:] != changed[10:], axis=1)))


def test_splits_have_no_example_in_common() -> None:
    data = data_sets.load("digits")
    parts = images.split(data, train=1150, validation=287, test=360)
    assert [len(parts[name].labels) for name in SPLITS] == [1150, 287, 360]
    np.testing.assert_array_equal(parts["validation"].inputs, data.train_inputs[1150:])
    np.testing.assert_array_equal(parts["test"].inputs, data.test_inputs)


def test_batch_normalisation_is_scored_with_statistics_of_training() -> None:
    """So that the score of one example does not depend on those beside it."""
    data = data_sets.load("digits")
    parts = images.split(data, train=100, validation=10, test=3)
    alone = parts | {"test": images.Part(parts["test"].inputs[:1], parts["test"].labels[:1])}

    def network(*given: Any) -> Any:
        return images.Convolutional(*given, widths=(3,), normal=True)

    whole, single = (images.classification(p, network, 1, 100) for p in (parts, alone))
    params = whole.init(jax.random.key(0))
    one = [
        images.classification(
            parts
            | {
                "test": images.Part(
                    parts["test"].inputs[i : i + 1], parts["test"].labels[i : i + 1]
                )
            },
            network,
            1,
            100,
        )
        .score(params, "test")
        .nats
        for i in range(3)
    ]
    # Sums in float32, in another order.
    np.testing.assert_allclose(np.mean(one), whole.score(params, "test").nats, rtol=1e-5)
    np.testing.assert_allclose(single.score(params, "test").nats, one[0], rtol=1e-5)
    # Weights a thousand times as large give the same logits: the normalisation is at work.
    scaled = jax.tree.map(lambda x: x, params)
    kernel = scaled.convolutions[0]
    object.__setattr__(kernel, "weight", 1000 * kernel.weight)
    object.__setattr__(kernel, "bias", 1000 * kernel.bias)
    np.testing.assert_allclose(
        whole.score(scaled, "test").nats, whole.score(params, "test").nats, rtol=1e-3
    )


def test_a_missing_data_set_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sets, "IDX_FOLDER", Path("/nowhere"))
    with pytest.raises(FileNotFoundError, match="Install Debian's package"):
        images.fashion_cnn()


# --- names --------------------------------------------------------------------------------------


def test_names_of_ones_own_are_found() -> None:
    assert find("task", "digits_mlp", TASKS) is images.digits_mlp
    assert find("task", f"{__name__}:parabola", TASKS) is parabola
    assert find("rule", f"{__name__}:sgd", RULES) is sgd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": ("digit",)}, "Unknown task 'digit'; known are: noisy_quadratic"),
        ({"rule": ("sgdd",)}, "Unknown rule 'sgdd'; known are: adam"),
        ({"task": ("nowhere:task",)}, "Cannot find the task 'nowhere:task'.*No module named"),
        ({"rule": (f"{__name__}:nothing",)}, "Cannot find the rule.*has no attribute 'nothing'"),
        ({"schedule": "cosin"}, "Unknown schedule 'cosin'; known are: constant, cosine"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Config(**options)


# --- paths --------------------------------------------------------------------------------------


def test_averages_are_those_of_the_iterates_and_steps_stay() -> None:
    inner, optimizer = optax.adam(0.3), averaging(optax.adam(0.3), POWERS)
    params: Any = {"w": jnp.array([1.0, -2.0])}
    state: Any = optimizer.init(params)
    alone = inner.init(params)
    iterates = [params["w"]]
    step = jax.jit(optimizer.update)
    for _ in range(6):
        updates, state = step(params, state, params)
        expected, alone = jax.jit(inner.update)(params, alone, params)
        np.testing.assert_array_equal(updates["w"], expected["w"])
        params = optax.apply_updates(params, updates)
        iterates.append(params["w"])
    for power, average in zip(POWERS, state.averages["w"], strict=True):
        weights = oracles.average_weights((power + 1) / (np.arange(1, 7) + power))
        assert weights[0] == 0  # the start is no iterate
        want = weights @ np.array(iterates)
        np.testing.assert_allclose(average, want, rtol=2e-6)  # a few roundings of float32
    np.testing.assert_allclose(state.averages["w"][0], np.mean(iterates[1:], 0), rtol=2e-6)


@pytest.mark.parametrize(
    ("name", "shares"),
    [("constant", (1, 1, 1)), ("cosine", (1, 0.5, 0)), ("linear", (1, 0.5, 0))],
)
def test_schedules_go_from_the_rate_to_their_end(name: str, shares: tuple[float, ...]) -> None:
    schedule = measuring.SCHEDULES[name](0.4, 10)
    np.testing.assert_allclose([schedule(t) for t in (0, 5, 10)], 0.4 * np.array(shares), atol=1e-7)


def test_training_scores_every_rate_seed_and_reading() -> None:
    task, keys = parabola(), jax.random.split(jax.random.key(0), 2)
    scores = measuring.train(task, Setup(sgd, powers=POWERS), (0.1, 1e30), keys)
    assert set(scores) == {f"{s} {n}" for s in SPLITS for n in ("error", "nats")}
    assert scores["test error"].shape == (2, 2, 1 + len(POWERS))
    assert np.isinf(scores["test error"][1]).all()  # has diverged
    np.testing.assert_allclose(scores["test error"][0], 2 * scores["test nats"][0], rtol=1e-6)
    key_start, key_batches = jax.random.split(keys[1])
    params, iterates = task.init(key_start), []
    for key in jax.random.split(key_batches, task.steps):
        params = params - 0.1 * jax.grad(task.loss)(params, key)
        iterates.append(params)
    for reading, want in enumerate((params, np.mean(iterates, 0))):
        np.testing.assert_allclose(
            scores["validation error"][0, 1, reading],
            task.score(want, "validation").error,
            rtol=1e-5,
        )


@pytest.mark.parametrize("name", [name for name in RULES if "schedule_free" in name])
def test_schedule_free_is_read_off_its_state(name: str) -> None:
    """What it hands over is neither where gradients are taken nor where it would stand alone."""
    rule = RULES[name]
    optimizer = rule.make(0.1)
    params: Any = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    state = optimizer.init(params)

    def noise(x: Array) -> Array:
        return jax.random.normal(jax.random.key(x.size), x.shape)

    for sign in (1.0, -1.0, 1.0, 1.0):
        gradient = jax.tree.map(lambda x, s=sign: s * x + noise(x), params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    handed = rule.read(state, params)
    between = jax.tree.map(lambda x, z: 0.9 * x + 0.1 * z, handed, optax.tree.get(state, "z"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), between, params)
    assert float(jnp.max(jnp.abs(handed["w"] - params["w"]))) > 1e-3


def test_muon_takes_kernels_for_matrices_and_leaves_vectors_to_adam() -> None:
    rule = RULES["muon"]
    params = {"kernel": jnp.ones((4, 2, 3)), "bias": jnp.ones((4, 1)), "weight": jnp.ones((4, 5))}
    gradient = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape), params)
    optimizer = rule.make(1.0)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    for name in ("kernel", "weight"):
        singular = jnp.linalg.svd(updates[name].reshape(4, -1), compute_uv=False)
        assert 0.5 < singular.min() and singular.max() < 1.5, name  # orthogonalised
    size = jnp.abs(updates["bias"])  # the first step of Adam (with Nesterov) is a sign
    np.testing.assert_allclose(size, size.mean(), rtol=1e-5)


# --- choosing -----------------------------------------------------------------------------------


def test_the_lowest_error_is_chosen_and_the_lowest_loss_among_equals() -> None:
    error = np.array([[[0.2, 0.1]], [[0.1, 0.3]], [[0.1, 0.1]]])  # [rate, seed, reading]
    nats = np.array([[[1.0, 1.0]], [[2.0, 1.0]], [[3.0, 0.5]]])
    scores = {"validation error": error, "validation nats": nats}
    assert measuring.choose(scores, [0]) == (1, 0)
    assert measuring.choose(scores, [1]) == (2, 1)
    assert measuring.choose(scores, [0, 1]) == (2, 1)


def test_tuning_looks_at_validation_alone_and_ends_on_other_seeds(tmp_path: Path) -> None:
    task, seen = parabola(), []

    class Watched(Kept):
        def measure(self, name: str, options: Any, compute: Any) -> Any:
            result = compute()
            seen.append((name, options, result))
            return result

    setup = Setup(sgd, powers=POWERS)
    budget = Budget(seed=0, tuning_seeds=3, seeds=4)
    tuned = measuring.tune(Watched(tmp_path), "here", task, setup, budget, {"task": "parabola"})
    (first, _, tuning), (second, options, final) = seen
    assert (first, second) == ("here/tuning", "here/final")
    assert set(tuning) == {"validation error", "validation nats"}
    assert tuning["validation error"].shape == (3, 3, 4)
    assert options["task"] == "parabola" and options["seeds"] == 4
    last = tuning["validation error"].mean(1)[:, 0]
    assert tuned.last.rate == sgd.rates[last.argmin()]
    assert tuned.average is not None and tuned.average.power in POWERS
    assert tuned.last.scores["test error"].shape == (4,)
    # The optimum of the test split is elsewhere: by that another rate is the best.
    assert not np.isin(final["validation error"], tuning["validation error"]).any()


def test_a_run_of_the_bench_takes_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = f"{__name__}:parabola", f"{__name__}:sgd"
    config = Config(out=tmp_path, task=names[:1], rule=names[1:], seeds=2, tuning_seeds=1)
    metrics = report.perform(tasks.run, config)
    said = metrics["tasks"][names[0]][names[1]]
    assert len(said["error"]) == 3 and said["settings"]["rate"] in sgd.rates
    assert f"{names[0]}: test error" in capsys.readouterr().out


def test_results_of_ones_own_depend_on_the_code_of_ones_own() -> None:
    assert code_of("adam") is None
    assert code_of(f"{__name__}:sgd") == code_of(f"{__name__}:parabola") is not None
    assert code_of(f"{__name__}:sgd") != code_of("experiments.tasks.rules:RULES")


def test_a_task_without_its_data_is_left_out_and_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> Any:
        raise FileNotFoundError("no file")

    monkeypatch.setitem(TASKS, "fashion_cnn", missing)
    found = available(("noisy_quadratic", "fashion_cnn"), 20)
    assert list(found) == ["noisy_quadratic"] and found["noisy_quadratic"].steps == 20
    assert "Left out: fashion_cnn. no file" in capsys.readouterr().out
