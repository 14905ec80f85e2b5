"""The plasticity experiment: what its methods do, its streams, its metrics, and that it resumes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from experiments import plasticity, report
from experiments.kept import Kept
from experiments.options import OptionError
from experiments.plasticity import methods, network, predicting, results, surgery, training
from experiments.plasticity.config import Config
from experiments.plasticity.methods import METHODS, Seen, Setup
from experiments.plasticity.streams import STREAMS, Stream, Task
from experiments.plasticity.training import Lives

WIDTHS = (6, 5, 4, 3)
BATCH = 8


def setup_of(seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> Setup:
    return Setup(network.init(widths, jax.random.key(seed)), widths, BATCH, steps=50)


def batch(seed: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    inputs = jnp.asarray(rng.normal(size=(BATCH, WIDTHS[0])), jnp.float32)
    return inputs, jnp.asarray(rng.integers(0, WIDTHS[-1], BATCH), jnp.int32)


def seen(params: Any, seed: int, step: int = 0, boundary: bool = False) -> Seen:
    inputs, targets = batch(seed)
    value, gradient = jax.value_and_grad(network.loss)(params, inputs, targets)
    layers = network.forward(params, inputs)[1]
    spare = network.init(WIDTHS, jax.random.key(100 + seed))
    return Seen(
        value,
        gradient,
        inputs,
        targets,
        layers,
        jnp.asarray(step),
        jnp.asarray(boundary),
        spare,
        jax.random.key(seed),
    )


def follow(learner: methods.Learner, params: Any, boundary: int = -1, steps: int = 4) -> list[Any]:
    """Parameters after every step."""
    update, state, path = jax.jit(learner.update), learner.state, []
    for t in range(steps):
        params, state = update(params, state, seen(params, t, t, t == boundary))
        path.append(params)
    return path


def assert_close(got: Any, want: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want)


# --- the network --------------------------------------------------------------------------------


@pytest.mark.parametrize("regression", [False, True])
def test_mean_square_gradient_is_that_of_the_gradients_of_examples(regression: bool) -> None:
    params = network.init((6, 5, 4, 1 if regression else 3), jax.random.key(1))
    inputs, targets = batch(0)
    targets = targets.astype(jnp.float32) if regression else targets

    def one(params: Any, x: Any, y: Any) -> Any:
        return network.loss(params, x[None], y[None])

    each = jax.vmap(jax.grad(one), (None, 0, 0))(params, inputs, targets)
    want = jax.tree.map(lambda g: jnp.mean(g**2, 0), each)
    assert_close(network.mean_square_gradient(params, inputs, targets), want, 1e-4, 1e-8)


def test_effective_rank_counts_equal_directions() -> None:
    q, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (20, 6)))
    scales = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    # The square root of rounding, 1e-7, in three of six directions.
    assert float(training.rank(q * scales[None])) == pytest.approx(3, rel=1e-2)
    shares = np.array([3.0, 1.0]) / 4
    got = training.rank(q[:, :2] * jnp.array([[3.0, 1.0]]))
    assert float(got) == pytest.approx(np.exp(stats.entropy(shares)), rel=1e-5)


# --- methods ------------------------------------------------------------------------------------


# Those whose updates no other test of this file runs.
SOME = ("adamw", "shrink_and_perturb", "redo", "to_zero")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SOME else [pytest.mark.slow]) for n in METHODS]
)
def test_every_method_learns_a_task_and_makes_a_grid_of_six(name: str) -> None:
    method = METHODS[name]
    grid = method.settings()
    assert len(grid) == {"reference": 1, "ablation": 1}.get(method.kind, 6)
    if method.follows is not None:
        grid = METHODS[method.follows].settings()
    middle = grid[len(grid) // 2]
    setup = setup_of()._replace(steps=2000)  # no task ends here
    learner = method.make(middle, setup)
    start = setup.start

    def step(carry: Any, t: Any) -> Any:
        params, state = carry
        params, state = learner.update(params, state, seen(params, 0)._replace(step=t))
        return (params, state), None

    @jax.jit
    def train() -> Any:
        return jax.lax.scan(step, (start, learner.state), jnp.arange(300))[0][0]

    assert network.loss(train(), *batch(0)) < 0.8 * network.loss(start, *batch(0))


def test_the_parts_of_the_filter_make_the_filter_of_the_library() -> None:
    settings = {"hazard": 0.05, "spread": 4.0}
    start = setup_of().start
    whole = methods.part_of_filter(settings, setup_of(), mean=True, variance=True)
    library = methods.hazard_filter(settings, setup_of())
    for got, want in zip(follow(whole, start), follow(library, start), strict=True):
        assert_close(got, want, 1e-4, 1e-5)
    none = methods.part_of_filter(settings, setup_of(), mean=False, variance=False)
    library = methods.no_hazard(settings, setup_of())
    for got, want in zip(follow(none, start), follow(library, start), strict=True):
        assert_close(got, want, 1e-4, 1e-5)


def test_penalties_are_those_of_their_papers() -> None:
    setup = setup_of()
    settings = {"learning_rate": 1e-2, "strength": 0.3}
    for name, target in (("l2", 0.0), ("l2_init", 1.0)):
        adam = optax.adam(1e-2)
        params, state = setup.start, adam.init(setup.start)
        got = follow(METHODS[name].make(settings, setup), setup.start)
        for t in range(4):

            def loss(p: Any, t: int = t, target: float = target) -> Any:
                pairs = zip(jax.tree.leaves(p), jax.tree.leaves(setup.start), strict=True)
                squares = sum(jnp.sum((a - target * b) ** 2) for a, b in pairs)
                return network.loss(p, *batch(t)) + 0.3 * squares

            updates, state = adam.update(jax.grad(loss)(params), state)
            params = optax.apply_updates(params, updates)
            assert_close(got[t], params, 1e-4, 1e-5)


def test_resets_begin_anew_where_they_are_told() -> None:
    setup, settings = setup_of(), {"learning_rate": 1e-2}
    plain = follow(methods.adam(settings, setup), setup.start)
    oracle = follow(methods.oracle(settings, setup), setup.start, boundary=2)
    assert_close(oracle[1], plain[1])
    state = optax.adam(1e-2).init(setup.start)
    gradient = jax.grad(network.loss)(setup.start, *batch(2))
    updates, _ = optax.adam(1e-2).update(gradient, state)
    assert_close(oracle[2], optax.apply_updates(setup.start, updates))
    kept = follow(methods.adam_state_reset(settings, setup), setup.start, boundary=2)
    gradient = jax.grad(network.loss)(plain[1], *batch(2))
    updates, _ = optax.adam(1e-2).update(gradient, state)
    assert_close(kept[2], optax.apply_updates(plain[1], updates))
    # Every second step, of tasks of 50 steps.
    often = {"learning_rate": 1e-2, "period": 2 / 50}
    assert_close(follow(methods.periodic(often, setup), setup.start)[2], oracle[2])


def test_random_resets_are_as_many_as_tasks() -> None:
    """One in 50 steps of tasks of 50: of 4,000 keys 80 are expected, with a deviation of 8.9."""
    setup = setup_of()
    learner = methods.random_resets({"learning_rate": 1e-2}, setup)
    params, state = learner.update(setup.start, learner.state, seen(setup.start, 0))
    now = seen(params, 1)

    def count_after(key: jax.Array) -> Any:
        return optax.tree.get(learner.update(params, state, now._replace(key=key))[1], "count")

    counts = jax.jit(jax.vmap(count_after))(jax.random.split(jax.random.key(0), 4000))
    assert set(np.unique(counts)) == {1, 2}
    assert abs(np.sum(counts == 1) - 80) < 4 * 8.9


def test_methods_are_told_of_a_task_at_its_first_step() -> None:
    """The step at which targets first come from the new task; not at the first task."""

    def draw(key_stream: jax.Array, key_task: jax.Array) -> Task:
        inputs = jax.random.normal(key_stream, (8, 6))
        targets = jnp.full(8, jax.random.randint(key_task, (), 0, 3))
        return Task(inputs, targets, inputs, targets)

    stream = Stream(draw, tasks=3, epochs=1, examples=8, widths=WIDTHS, batch_size=2)

    def make(settings: Any, setup: Setup) -> methods.Learner:
        del settings, setup

        def update(params: Any, state: Any, seen: Seen) -> tuple[Any, Any]:
            return params, state.at[seen.step].set(seen.boundary)

        return methods.Learner(jnp.zeros(12, bool), update)

    method = methods.Method("writes down what it is told", make, {})
    told = training.life(stream, method, {}, jax.random.key(0))[0][1]
    assert np.flatnonzero(told).tolist() == [4, 8]


def test_calibration_error_is_the_mean_gap_of_confidence_and_accuracy() -> None:
    """Four predictions with confidence 0.9, of which 3 are right, and two with 0.6, both right."""
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    got = predicting.calibration_error(probabilities, np.array([0, 0, 0, 1, 0, 0]))
    assert got == pytest.approx((4 * (0.9 - 0.75) + 2 * (1 - 0.6)) / 6)


def test_soft_reset_without_drift_is_gradient_descent_and_drifts_when_it_helps() -> None:
    setup = setup_of()
    settings = {"learning_rate": 0.1, "drift_rate": 0.0}
    got = follow(methods.soft_reset(settings, setup), setup.start)
    assert_close(got, follow(methods.sgd({"learning_rate": 0.1}, setup), setup.start))
    # Far from the start, with a loss that is lower there, it goes back some of the way.
    far = jax.tree.map(lambda p: 20 * p, setup.start)
    learner = methods.soft_reset({"learning_rate": 0.0, "drift_rate": 1e-3}, setup)
    moved, _ = learner.update(far, learner.state, seen(far, 0))
    shares = [
        float(jnp.mean((a - b) / (c - b)))
        for a, b, c in zip(*map(jax.tree.leaves, (moved, setup.start, far)), strict=True)
    ]
    assert min(shares) < 0.99 and max(shares) < 1.001


def test_adam_with_a_count_for_each_weight_is_adam() -> None:
    params, state = setup_of().start, surgery.moments(setup_of().start)
    for t, want in enumerate(follow(methods.adam({"learning_rate": 1e-2}, setup_of()), params)):
        gradient = seen(params, t).gradient
        params, state = surgery.adam(jnp.float32(1e-2), params, state, gradient)
        assert_close(params, want, 1e-4, 1e-5)


def test_continual_backprop_replaces_the_least_useful_mature_unit_and_keeps_the_mean() -> None:
    params = setup_of().start
    state = jax.tree.map(jnp.ones_like, surgery.moments(params))
    # Of the first layer unit 2 puts out little; the second layer is too young.
    quiet = params[0].weight.at[2].multiply(1e-3)
    params = network.replace(
        params,
        [quiet, *(layer.weight for layer in params[1:])],
        [layer.bias * 0 + 0.1 for layer in params],
    )
    old = [
        u._replace(age=jnp.full_like(u.age, 500.0 if i == 0 else 5.0), due=jnp.ones(()))
        for i, u in enumerate(surgery.units(params))
    ]
    observed = seen(params, 0)
    old[0] = old[0]._replace(activation=observed.layers[1].mean(0), utility=jnp.arange(5.0) + 1)
    old[0] = old[0]._replace(utility=old[0].utility.at[2].set(0.0))
    arguments = jnp.float32(1e-4), params, state, old, observed.layers, jax.random.key(0)
    after, moments, units = surgery.continual_backprop(*arguments)
    changed = np.any(np.asarray(after[0].weight != params[0].weight), 1)
    assert changed.tolist() == [False, False, True, False, False]
    assert np.abs(after[0].weight[2]).max() <= np.sqrt(2) * np.sqrt(3 / 6)
    assert after[0].bias[2] == 0
    assert np.all(np.asarray(after[1].weight[:, 2]) == 0)
    # What the unit used to add to the next layer, on average, is in its biases.
    average = old[0].activation[2] / (1 - 0.99**501)  # corrected for its bias
    lost = params[1].weight[:, 2] * average
    assert_close(after[1].bias, params[1].bias + lost, 1e-3, 1e-6)
    for tree in moments:
        assert np.all(np.asarray(tree[0].weight[2]) == 0) and tree[0].bias[2] == 0
        assert np.all(np.asarray(tree[1].weight[:, 2]) == 0)
        assert np.all(np.asarray(tree[0].weight[:2]) == 1)
    assert units[0].age[2] == 0 and units[0].age[0] == 501
    assert float(units[0].due) == pytest.approx(1e-4 * 5, rel=1e-3)  # 1 is taken off in float32
    assert float(units[1].due) == 1  # nothing was mature
    assert_close(after[2], params[2])


def test_redo_draws_dormant_units_anew_and_only_then() -> None:
    params = setup_of().start
    dead, alive = params[0].bias.at[1].set(-100.0), params[1].bias + 10
    weights = [layer.weight for layer in params]
    params = network.replace(params, weights, [dead, alive, params[2].bias])
    observed = seen(params, 0)
    state = surgery.moments(params)
    arguments = params, state, observed.layers, observed.spare
    kept, _ = surgery.redo(jnp.float32(0.0), jnp.asarray(False), *arguments)
    assert_close(kept, params)
    after, _ = surgery.redo(jnp.float32(0.0), jnp.asarray(True), *arguments)
    np.testing.assert_array_equal(after[0].weight[1], observed.spare[0].weight[1])
    assert after[0].bias[1] == 0
    assert np.all(np.asarray(after[1].weight[:, 1]) == 0)
    others = [0, 2, 3, 4]
    np.testing.assert_array_equal(after[0].weight[others, :], params[0].weight[others, :])


# --- streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in STREAMS if n != "permuted_pixels_fashion"])
def test_streams_draw_tasks_that_fit_the_network(name: str) -> None:
    stream = STREAMS[name](None)
    keys = jax.random.split(jax.random.key(0), 3)
    tasks = [stream.draw(keys[0], key) for key in keys[1:]]
    for task in tasks:
        assert task.inputs.shape == (stream.examples, stream.widths[0])
        assert task.targets.shape == (stream.examples,)
        assert task.test_inputs.shape[1:] == task.inputs.shape[1:]
        assert len(task.test_targets) == len(task.test_inputs)
        assert jnp.issubdtype(task.targets.dtype, jnp.integer) == stream.classifies
        if stream.classifies:
            assert task.targets.min() >= 0 and task.targets.max() < stream.widths[-1]
    differs = any(np.any(np.asarray(a != b)) for a, b in zip(*tasks, strict=True))
    assert differs == (name != "stationary")
    order = np.asarray(training.batches(stream, keys[1]))
    assert order.shape == (stream.steps, stream.batch_size)
    once = order[: stream.examples // stream.batch_size].ravel()
    assert len(set(once.tolist())) == once.size


def test_permutations_are_of_what_they_say() -> None:
    stream, key, other = STREAMS["permuted_labels"](None), jax.random.key(1), jax.random.key(2)
    pairs = {tuple(p) for p in np.stack([stream.draw(key, k).targets for k in (key, other)], 1)}
    assert len(pairs) == 10  # a bijection of classes
    stream = STREAMS["permuted_pixels"](None)
    one, two = stream.draw(key, key), stream.draw(key, other)
    np.testing.assert_array_equal(np.sort(one.inputs, 1), np.sort(two.inputs, 1))
    np.testing.assert_array_equal(one.targets, two.targets)


def test_slow_bits_stay_for_a_task_and_the_target_for_a_stream() -> None:
    stream, keys = STREAMS["slow_regression"](None), jax.random.split(jax.random.key(0), 3)
    task = stream.draw(keys[0], keys[1])
    varies = np.ptp(np.asarray(task.inputs), 0) > 0
    assert varies.tolist() == 15 * [False] + 5 * [True]
    again, other = stream.draw(keys[0], keys[1]), stream.draw(keys[2], keys[1])
    np.testing.assert_array_equal(task.targets, again.targets)
    np.testing.assert_array_equal(task.inputs, other.inputs)
    assert np.any(np.asarray(task.targets != other.targets))


# --- results ------------------------------------------------------------------------------------


def lives(switch: np.ndarray) -> Lives:
    zeros = np.zeros(switch.shape[:2])
    return Lives._make([*(6 * [zeros]), switch, switch, 0.0])


def test_interval_is_that_of_students_t() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.5])
    want = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(report.interval(values), [0.3, want.low, want.high])
    assert report.interval(np.array([0.7])) == [0.7, 0.7, 0.7]


def test_alarms_count_delays_misses_and_false_ones() -> None:
    switch = np.zeros((1, 4, 100))
    switch[0, 1, 2] = switch[0, 2, 4] = 0.9  # two of three switches, after 2 and 4 steps
    switch[0, 0, 50] = switch[0, 3, 50] = 0.8  # where there is none, of 100 + 3 * 80 steps
    assert results.alarms(lives(switch)) == {
        "detected": pytest.approx(2 / 3),
        "mean_delay_steps": 3.0,
        "false_alarms_per_1000_steps": pytest.approx(2000 / 340),
    }


def small(folder: Path | None) -> Stream:
    """Random labels of 32 points."""
    del folder
    inputs = jax.random.normal(jax.random.key(0), (32, 6))

    def draw(stream: Any, key: Any) -> Task:
        del stream
        labels = jax.random.randint(key, (32,), 0, 3)
        return Task(inputs, labels, inputs, labels)

    return Stream(draw, tasks=2, epochs=3, examples=32, widths=WIDTHS, batch_size=BATCH)


def test_a_run_is_kept_resumed_and_run_again_where_options_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path)
    config = Config(out=tmp_path, sweep_seeds=1, seeds=2)
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return training.live(*args)

    monkeypatch.setattr(results, "live", counted)
    stream = small(None)
    first = results.measure(kept, config, "random_labels", stream, "sgd", {})
    assert len(calls) == 2  # the sweep and the end
    assert first.settings in METHODS["sgd"].settings()
    best = int(np.argmax(first.scores))
    assert METHODS["sgd"].settings()[best] == first.settings
    assert first.lives.online.shape == (2, 2)
    assert not kept.read
    again = results.measure(kept, config, "random_labels", stream, "sgd", {})
    assert len(calls) == 2 and kept.read == ["random_labels/sgd"]
    jax.tree.map(np.testing.assert_array_equal, again, first)
    other = Config(out=tmp_path, sweep_seeds=1, seeds=2, seed=1)
    results.measure(kept, other, "random_labels", stream, "sgd", {})
    assert len(calls) == 4
    results.measure(kept, config, "random_labels", stream, "sgd", {})
    assert len(calls) == 4  # both are there
    mean, low, high = results.metrics(first)["lifetime"]
    assert low <= mean <= high


def test_a_stream_without_its_data_is_left_out_and_said_so_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("stationary", "permuted_pixels_fashion")
    monkeypatch.setattr(plasticity, "STREAMS", {name: STREAMS[name] for name in names})
    assert list(plasticity.prepare(Config(data_dir=tmp_path))) == ["stationary"]
    assert "Left out: permuted_pixels_fashion" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="Fashion-MNIST: no file"):
        plasticity.prepare(Config(streams=names, data_dir=tmp_path))


def test_a_quick_run_takes_what_is_asked_for() -> None:
    quick = Config(quick=True)
    assert quick.streams == ("random_labels",) and quick.tasks == 10
    assert set(quick.run_methods) == {"adam_3e-3", "oracle", "hazard_filter", "two_hypothesis"}
    asked = Config(quick=True, streams=("stationary",), methods=("oracle",), seeds=10, tasks=None)
    assert asked.streams == ("stationary",) and asked.run_methods == ("oracle",)
    assert asked.seeds == 10 and asked.tasks is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streams": ("mnist",)}, "Unknown stream 'mnist'; known are: random_labels"),
        ({"methods": ("adamax",)}, "Unknown method 'adamax'; known are: sgd"),
        ({"methods": ("to_zero", "hazard_filter")}, "takes over the settings of 'hazard_filter'"),
        ({"quick": True, "methods": ("oracle", "adamw")}, "'adamw' has no settings for a quick"),
        ({"quick": True, "sweep_seeds": 3}, "sweep_seeds has no part in a quick run, got 3"),
        ({"streams": ("mnist1d",), "methods": ("adam_3e-3",)}, "is run on random_labels only"),
        (
            {"streams": ("random_labels", "mnist1d"), "methods": ("adam_3e-3",)},
            "No method of this run is run on stream 'mnist1d'",
        ),
        ({"streams": ()}, "streams must have at least one entry, got none"),
        ({"methods": ()}, "methods must have at least one entry, got none"),
        ({"seeds": 1}, "seeds must be at least 2, got 1"),
        ({"tasks": 0}, "tasks must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Config(**options)


@pytest.mark.slow
def test_a_quick_run_holds_its_claims(tmp_path: Path) -> None:
    metrics = report.perform(plasticity.run, Config(out=tmp_path, quick=True))
    assert not report.failed(metrics)
    methods = metrics["streams"]["random_labels"]
    assert set(methods) >= {"adam_3e-3", "oracle", "hazard_filter", "two_hypothesis"}
    for numbers in methods.values():
        assert len(numbers["first"]) == len(numbers["last"]) == len(numbers["lifetime"]) == 3
        assert numbers["settings"]
    assert (tmp_path / "accuracy.png").is_file()
