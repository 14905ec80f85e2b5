"""The plasticity experiment: networks, methods, streams, tuning, scores, and that it resumes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

from experiments import plasticity, report
from experiments.data import IDX_FOLDER
from experiments.options import OptionError
from experiments.plasticity import methods, network, results, scoring, surgery, training, tuning
from experiments.plasticity.config import ONE, ONE_SETTING, Config
from experiments.plasticity.methods import METHODS, Observed, Setup
from experiments.plasticity.network import NETWORKS, Network
from experiments.plasticity.results import Work
from experiments.plasticity.streams import STREAMS, Stream, Task
from experiments.plasticity.training import Trainer

BATCH = 8
SMALL = network.perceptron((6,), 3, hidden=(5, 4))


def setup_of() -> Setup:
    return Setup(SMALL, jax.jit(SMALL.init)(jax.random.key(0)), BATCH)


def batch(seed: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    inputs = jnp.asarray(rng.normal(size=(BATCH, 6)), jnp.float32)
    return inputs, jnp.asarray(rng.integers(0, 3, BATCH), jnp.int32)


@jax.jit
def _seen(params: Any, inputs: Any, targets: Any, key: Any) -> Any:
    assert SMALL.look is not None
    value, gradient = jax.value_and_grad(network.loss, 1)(SMALL, params, inputs, targets)
    return value, gradient, SMALL.look(params, inputs, None).units, SMALL.init(key)


def seen(params: Any, seed: int, step: int = 0, boundary: bool = False) -> Observed:
    inputs, targets = batch(seed)
    value, gradient, units, spare = _seen(params, inputs, targets, jax.random.key(100 + seed))
    return Observed(
        SMALL,
        value,
        gradient,
        inputs,
        targets,
        units,
        jnp.asarray(step),
        jnp.asarray(boundary),
        spare,
        jax.random.key(seed),
    )


def follow(learner: methods.Learner, params: Any, boundary: int = -1, steps: int = 4) -> list[Any]:
    """Parameters after every step."""
    state, path = learner.state, []
    step = jax.jit(lambda p, s, o: learner.update(p, s, o._replace(network=SMALL)))
    for t in range(steps):
        observed: Any = seen(params, t, t, t == boundary)._replace(network=None)
        params, state = step(params, state, observed)
        path.append(params)
    return path


def assert_close(got: Any, want: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want)


# --- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "regression",
        "cnn",  # which has dense layers too
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("mlp", "one's own")),
    ],
)
def test_mean_square_gradient_is_that_of_the_gradients_of_examples(kind: str) -> None:
    inputs, targets = batch(0)
    of = SMALL
    if kind == "regression":
        of, targets = network.perceptron((6,), 1, (5,)), targets.astype(jnp.float32)
    if kind == "cnn":
        of, inputs = NETWORKS["cnn"]((9, 9), 3), jax.random.normal(jax.random.key(0), (BATCH, 9, 9))
    if kind == "one's own":
        of = of._replace(look=None)
    params = jax.jit(of.init)(jax.random.key(1))
    gradient = jax.jit(jax.grad(lambda p, x, y: network.loss(of, p, x[None], y[None])))
    each = [gradient(params, x, y) for x, y in zip(inputs, targets, strict=True)]
    want = jax.tree.map(lambda *g: np.mean(np.square(g), 0), *each)
    got = jax.jit(lambda *a: network.mean_square_gradient(of, *a))(params, inputs, targets)
    assert_close(got, want, 1e-4, 1e-8)


def test_patches_are_those_of_a_convolution_and_the_unit_is_the_position_modulo_units() -> None:
    x = np.random.default_rng(0).normal(size=(2, 7, 7, 4)).astype(np.float32)
    got = network.patches(jnp.asarray(x), 3, 2)
    assert got.shape == (2, 3, 3, 36)
    window = x[1, 2:5, 4:7].reshape(9, 4)  # the second row of places, the third column
    np.testing.assert_array_equal(got[1, 1, 2].reshape(9, 4), window)


# --- methods ------------------------------------------------------------------------------------

# Those whose updates no other test of this file runs.
SOME = ("resetting_by_curvature",)
# The middle of the grid, 64 times the initial variance, takes too long steps on this small task.
AT = {"no_hazard": {"spread": 4.0}}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SOME else [pytest.mark.slow]) for n in METHODS]
)
def test_every_method_learns_a_task_and_makes_a_grid_of_twelve(name: str) -> None:
    method = METHODS[name]
    grid = method.settings()
    assert len(grid) == (1 if method.kind == "reference" else 12)
    settings = AT.get(name, grid[len(grid) // 2])
    assert settings in grid
    learner = method.make(settings, setup_of())
    start = setup_of().start

    def step(carry: Any, t: Any) -> Any:
        params, state = carry
        params, state = learner.update(params, state, seen(params, 0)._replace(step=t))
        return (params, state), None

    @jax.jit
    def train() -> Any:
        return jax.lax.scan(step, (start, learner.state), jnp.arange(300))[0][0]

    data = batch(0)
    assert network.loss(SMALL, train(), *data) < 0.8 * network.loss(SMALL, start, *data)


@pytest.mark.slow
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


def test_l2_init_is_the_penalty_of_its_paper() -> None:
    setup, adam = setup_of(), optax.adam(1e-2)
    params, state = setup.start, adam.init(setup.start)

    def penalised(p: Any, x: Any, y: Any) -> Any:
        pairs = zip(jax.tree.leaves(p), jax.tree.leaves(setup.start), strict=True)
        return network.loss(SMALL, p, x, y) + 0.3 * sum(jnp.sum((a - b) ** 2) for a, b in pairs)

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        updates, state = adam.update(jax.grad(penalised)(params, x, y), state)
        return optax.apply_updates(params, updates), state

    got = follow(methods.l2_init({"learning_rate": 1e-2, "strength": 0.3}, setup), setup.start)
    for t in range(4):
        params, state = step(params, state, *batch(t))
        assert_close(got[t], params, 1e-4, 1e-5)


def test_the_oracle_begins_anew_where_it_is_told() -> None:
    setup, settings = setup_of(), {"learning_rate": 1e-2}
    plain = follow(methods.adam(settings, setup), setup.start)
    told = follow(methods.adam_restarted(settings, setup), setup.start, boundary=2)
    assert_close(told[1], plain[1])
    gradient = seen(setup.start, 2).gradient
    # The first step of Adam is that against the signs.
    want = jax.tree.map(lambda p, g: p - 1e-2 * np.sign(g), setup.start, gradient)
    assert_close(told[2], want, atol=1e-4)


drawn_like = jax.jit(optax.tree.random_like)


def test_upgd_is_that_of_its_paper() -> None:
    """In NumPy, entry by entry of one vector; the noise is that which was drawn."""
    rate, sigma, decay, memory = 0.1, 0.5, 0.01, 0.999
    settings = {"learning_rate": rate, "noise": sigma, "weight_decay": decay}
    setup, utility = setup_of(), 0.0
    got = follow(methods.upgd(settings, setup), setup.start)
    params = setup.start
    for t in range(4):
        observed = seen(params, t)
        noise = drawn_like(observed.key, params)
        p, g, e = (
            np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(float)
            for tree in (params, observed.gradient, noise)
        )
        utility = memory * utility - (1 - memory) * g * p
        scaled = special.expit(utility / (1 - memory ** (t + 1)) / utility.max())
        p = p * (1 - rate * decay) - 2 * rate * (g + sigma * e) * (1 - scaled)
        params = got[t]
        want = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
        np.testing.assert_allclose(want, p, rtol=1e-3, atol=1e-5)


def test_soft_reset_is_that_of_its_paper() -> None:
    """In NumPy, on linear regression of one array, whose gradients are known."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(BATCH, 6)), rng.normal(size=BATCH)
    start, theta = rng.normal(size=(6, 1)), rng.normal(size=(6, 1))
    rate, drift_rate, width = 0.1, 0.05, 0.3
    linear = Network(lambda key: {"w": jnp.asarray(start)}, lambda p, inputs: inputs @ p["w"])
    settings = {"learning_rate": rate, "drift_rate": drift_rate, "width": width}
    params: Any = {"w": jnp.asarray(start, jnp.float32)}
    learner = methods.soft_reset(settings, Setup(linear, params, BATCH))
    now: Any = {"w": jnp.asarray(theta, jnp.float32)}
    data = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    observed = seen(setup_of().start, 0)._replace(network=linear, inputs=data[0], targets=data[1])
    got, _ = jax.jit(lambda p: learner.update(p, (), observed))(now)

    def slope(at: np.ndarray) -> np.ndarray:
        return x.T @ (x @ at - y[:, None]) / BATCH

    normal: Any = drawn_like(observed.key, now)
    noise = np.asarray(normal["w"], float)
    scale, drift = start.std(), 1.0
    for _ in range(methods.ASCENTS):
        spread = np.sqrt(drift**2 * width**2 + 1 - drift**2)
        drawn = drift * theta + (1 - drift) * start + scale * spread * noise
        moves = theta - start + scale * noise * drift * (width**2 - 1) / spread
        drift = np.clip(drift - drift_rate * np.sum(slope(drawn) * moves), 0, 1)
    assert 0.05 < drift < 0.95  # or nothing would be tested
    moved = drift * theta + (1 - drift) * start
    want = moved - rate * (drift**2 + (1 - drift**2) / width**2) * slope(moved)
    np.testing.assert_allclose(got["w"], want, rtol=1e-3, atol=1e-4)


def test_adam_with_a_count_for_each_weight_is_adam() -> None:
    params, state = setup_of().start, surgery.moments(setup_of().start)
    step = jax.jit(surgery.adam)
    for t, want in enumerate(follow(methods.adam({"learning_rate": 1e-2}, setup_of()), params)):
        gradient = seen(params, t).gradient
        params, state = step(jnp.float32(1e-2), params, state, gradient)
        assert_close(params, want, 1e-4, 1e-5)


def units_of(observed: Observed) -> list[jax.Array]:
    assert observed.units is not None
    return observed.units


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
    old[0] = old[0]._replace(activation=units_of(observed)[0].mean(0), utility=jnp.arange(5.0) + 1)
    old[0] = old[0]._replace(utility=old[0].utility.at[2].set(0.0))
    arguments = jnp.float32(1e-4), params, state, old, units_of(observed), jax.random.key(0)
    after, moments, units = jax.jit(surgery.continual_backprop)(*arguments)
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
    arguments = params, state, units_of(observed), observed.spare
    redo = jax.jit(surgery.redo)
    kept, _ = redo(jnp.float32(0.0), jnp.asarray(False), *arguments)
    assert_close(kept, params)
    after, _ = redo(jnp.float32(0.0), jnp.asarray(True), *arguments)
    np.testing.assert_array_equal(after[0].weight[1], observed.spare[0].weight[1])
    assert after[0].bias[1] == 0
    assert np.all(np.asarray(after[1].weight[:, 1]) == 0)
    others = [0, 2, 3, 4]
    np.testing.assert_array_equal(after[0].weight[others, :], params[0].weight[others, :])


def test_a_unit_of_a_convolution_goes_out_at_every_place() -> None:
    of = NETWORKS["cnn"]((9, 9), 3)
    params, images = jax.jit(of.init)(jax.random.key(0)), jnp.ones((2, 9, 9))
    look = of.look
    assert look is not None
    units = jax.jit(lambda p: look(p, images, None).units)(params)
    quiet = [(x + 1).at[..., 3].set(0.0) if i == 1 else x + 1 for i, x in enumerate(units)]
    state, spare = surgery.moments(params), jax.jit(of.init)(jax.random.key(1))
    redo = jax.jit(surgery.redo)
    after, _ = redo(jnp.float32(0.0), jnp.asarray(True), params, state, quiet, spare)
    np.testing.assert_array_equal(after[1].weight[3], spare[1].weight[3])
    out = np.asarray(after[2].weight).reshape(64, -1, 16)
    assert np.all(out[:, :, 3] == 0) and np.all(np.delete(out, 3, 2) != 0)


# --- streams ------------------------------------------------------------------------------------


def drawn(stream: Stream, tasks: int, seed: int = 0) -> list[Task]:
    """The first tasks, as arrays of NumPy."""
    draw, key = jax.jit(stream.draw), jax.random.key(seed)
    return [jax.tree.map(np.asarray, draw(key, jnp.asarray(index))) for index in range(tasks)]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in ("permuted_labels", "drift") else [pytest.mark.slow])
        for n in STREAMS
        if n != "fashion_cnn" or IDX_FOLDER.is_dir()
    ],
)
def test_streams_draw_tasks_that_fit_the_network(name: str) -> None:
    stream, key = STREAMS[name](None), jax.random.key(0)
    tasks = drawn(stream, 2)
    of = NETWORKS[stream.network](stream.shape, stream.outputs)
    for task in tasks:
        assert task.inputs.shape == (stream.examples, *stream.shape)
        assert task.targets.shape == (stream.examples,)
        assert task.test_inputs.shape[1:] == task.inputs.shape[1:]
        assert len(task.test_targets) == len(task.test_inputs)
        assert jnp.issubdtype(task.targets.dtype, jnp.integer) == stream.classifies
        if stream.classifies:
            assert task.targets.min() >= 0 and task.targets.max() < stream.outputs
    outputs = jax.eval_shape(of.forward, jax.eval_shape(of.init, key), tasks[0].inputs)
    assert outputs.shape == (stream.examples, stream.outputs)
    differs = any(np.any(a != b) for a, b in zip(*tasks, strict=True))
    assert differs == (len(stream.lengths) > 1)
    order = np.asarray(jax.jit(lambda key: training.batches(stream, key))(key))
    assert order.shape == (stream.chunk, stream.batch_size)
    once = order[: stream.examples // stream.batch_size].ravel()
    assert len(set(once.tolist())) == once.size


def names_of(name: str, tasks: int, seed: int = 0) -> np.ndarray:
    """The name [task, class] of every class of the digits."""
    (true,) = drawn(STREAMS["one_task"](None), 1)
    found = []
    for task in drawn(STREAMS[name](None), tasks, seed):
        of = {(int(a), int(b)) for a, b in zip(true.targets, task.targets, strict=True)}
        of |= {(int(a), int(b)) for a, b in zip(true.test_targets, task.test_targets, strict=True)}
        assert len(of) == len(dict(of)) == 10 and set(dict(of).values()) == set(range(10))
        found.append([name for _, name in sorted(of)])
    return np.array(found)


def test_names_change_as_the_streams_say() -> None:
    names = names_of("permuted_labels", 4)
    assert np.all(np.sum(names[1:] != names[:-1], 1) > 2)
    names = names_of("two_swap", 5)
    assert names[0].tolist() == list(range(10))
    assert np.all(np.sum(names[1:] != names[:-1], 1) == 2)
    names = names_of("recurring", 6)
    np.testing.assert_array_equal(names[:3], names[3:])
    assert len({tuple(row) for row in names[:3]}) == 3
    assert np.any(names_of("two_swap", 5, seed=1) != names_of("two_swap", 5))


def test_labels_are_drawn_anew_and_pixels_change_places() -> None:
    tasks = drawn(STREAMS["random_labels"](None), 2)
    np.testing.assert_array_equal(tasks[0].inputs, tasks[1].inputs)
    # Of 320 labels a tenth agree: 32, with a deviation of 5.4.
    assert abs(np.sum(tasks[0].targets == tasks[1].targets) - 32) < 4 * 5.4
    tasks = drawn(STREAMS["permuted_pixels"](None), 2)
    np.testing.assert_array_equal(np.sort(tasks[0].inputs, 1), np.sort(tasks[1].inputs, 1))
    np.testing.assert_array_equal(tasks[0].targets, tasks[1].targets)
    assert np.any(tasks[0].inputs != tasks[1].inputs)


def test_lengths_are_unequal_and_in_another_order_every_time() -> None:
    lengths = STREAMS["unequal_lengths"](None).lengths
    rounds = np.reshape(lengths, (4, 5))
    assert all(sorted(row) == [200, 400, 800, 1600, 3200] for row in rounds.tolist())
    assert len({tuple(row) for row in rounds.tolist()}) > 1
    assert STREAMS["unequal_lengths"](None).chunk == 200


def test_one_slow_bit_flips_at_a_time_and_the_target_stays() -> None:
    tasks = drawn(STREAMS["drift"](None), 20)
    slow = np.array([task.inputs[:, :15] for task in tasks])
    assert np.all(np.ptp(slow, 1) == 0)
    assert np.all(np.abs(np.diff(slow[:, 0], axis=0)).sum(1) == 1)
    assert np.all(np.ptp(tasks[0].inputs[:, 15:], 0) == 1)
    of: dict[bytes, float] = {}
    for task in tasks:
        for x, y in zip(task.inputs, task.targets, strict=True):
            assert of.setdefault(x.tobytes(), float(y)) == float(y)
    assert len(set(of.values())) > 5


# --- lives --------------------------------------------------------------------------------------


def small(folder: Path | None) -> Stream:
    """Random labels of 16 points, tasks of 4, 8 and 4 steps."""
    del folder
    inputs = jax.random.normal(jax.random.key(0), (16, 6))

    def draw(stream: Any, index: Any) -> Task:
        labels = jax.random.randint(jax.random.fold_in(stream, index), (16,), 0, 3)
        return Task(inputs, labels, inputs, labels)

    return Stream(draw, (4, 8, 4), 16, (6,), outputs=3, network=f"{__name__}:small_network")


def small_network(shape: tuple[int, ...], outputs: int) -> Network:
    """A network of one's own that hides its units."""
    return network.perceptron(shape, outputs, hidden=(5, 4))._replace(look=None)


def _writes_down(settings: Any, setup: Setup) -> methods.Learner:
    """Learns nothing; what it was told is in its state."""

    def update(params: Any, told: Any, observed: Observed) -> tuple[Any, Any]:
        return params, told.at[observed.step].set(observed.boundary)

    return methods.Learner(jnp.zeros(16, bool), update)


stays = methods.Method(
    "stays",
    lambda settings, setup: methods.Learner((), lambda p, s, seen: (p, s)),
    {"rate": (1.0,)},
)
writes_down = methods.Method("writes down what it is told", _writes_down, {"rate": (0.5, 1.0)})


def test_methods_are_told_of_a_task_at_its_first_step() -> None:
    trainer = Trainer(small(None), SMALL, writes_down)
    states = []

    def chunk(*arguments: Any) -> Any:
        carry, readings = trainer._chunk(*arguments)
        states.append(carry[1])
        return carry, readings

    trainer._compiled = chunk
    trainer.live({"rate": 1.0}, jax.random.split(jax.random.key(0), 1))
    assert len(states) == 4  # two of the second task
    assert np.flatnonzero(states[-1]).tolist() == [4, 12]


def test_lives_of_a_key_have_the_same_tasks_and_score_what_was_seen_before_it_was_learned() -> None:
    keys, stream = jax.random.split(jax.random.key(0), 2), small(None)
    trainer = Trainer(stream, SMALL, stays)
    slow = trainer.live({"rate": 0.0}, keys)
    assert slow.online.shape == slow.end.shape == (2, 3)
    other = Trainer(stream, SMALL, writes_down).live({"rate": 1.0}, keys)
    # Neither learns, so that both score the same if all they see is the same.
    np.testing.assert_array_equal(slow.online, other.online)
    np.testing.assert_array_equal(slow.end, other.end)
    assert np.any(slow.online[0] != slow.online[1])
    short = trainer.live({"rate": 0.0}, keys, tasks=1)
    np.testing.assert_array_equal(short.online, slow.online[:, :1])


# --- tuning -------------------------------------------------------------------------------------

GRID = {"a": (0.01, 0.1, 1.0), "b": (1.0, 2.0, 4.0, 8.0)}


KNOWN = methods.Method("of known losses", _writes_down, GRID, limits={"b": (1.0, np.inf)})


def loss_of(a: float, b: float, rungs: list[int]) -> Any:
    def loss(setting: Any, rung: int) -> list[float]:
        rungs.append(rung)
        # Every step costs more than what counts as flat.
        distance = abs(np.log(setting["a"] / a)) + abs(np.log2(setting["b"] / b))
        return [distance - 0.5, distance + 0.5]

    return loss


def test_halving_finds_the_best_setting_and_goes_beyond_an_edge() -> None:
    rungs: list[int] = []
    found = tuning.tune(KNOWN, loss_of(0.1, 2.0, rungs))
    assert found.settings == {"a": 0.1, "b": 2.0} and found.edges == {}
    assert rungs == 12 * [0] + 4 * [1] and len(found.tried) == 12
    found = tuning.tune(KNOWN, loss_of(1e-3, 1.0, []))
    # The limit of b is no edge.
    assert found.settings == {"a": 1e-3, "b": 1.0} and found.edges == {}
    found = tuning.tune(KNOWN, loss_of(1e-9, 1.0, []))
    assert found.settings == {"a": 1e-5, "b": 1.0} and found.edges == {"a": "smallest"}
    assert len(found.tried) == 12 + tuning.ROUNDS


def test_a_direction_that_does_not_matter_has_no_edge() -> None:
    found = tuning.tune(KNOWN, lambda setting, rung: [0.1 + 1e-5 * setting["a"]])
    assert len(found.tried) == 12 and found.edges == {}


def test_the_second_rung_decides_and_what_diverges_is_worst() -> None:
    def loss(setting: Any, rung: int) -> list[float]:
        if setting == {"a": 0.1, "b": 2.0}:
            return [0.0] if rung == 0 else [9.0, 9.0]
        if setting == {"a": 0.1, "b": 4.0}:
            return [0.1]
        return [np.nan]

    assert tuning.tune(KNOWN, loss).settings == {"a": 0.1, "b": 4.0}


def test_one_setting_for_all_has_the_least_regret() -> None:
    tried: Any = [{"a": 1.0}, {"a": 2.0}, {"a": 3.0}]
    losses = [[0.1, 0.2, 0.5], [0.6, 0.4, 0.3]]
    tuned = [tuning.Tuned(tried[0], tried, of, {}) for of in losses]
    # Regrets: 0 + 0.3, 0.1 + 0.1, 0.4 + 0.
    assert tuning.for_all(tuned) == {"a": 2.0}
    tuned[1] = tuned[1]._replace(tried=[{"a": 3.0}, {"a": 1.0}], losses=[0.3, np.inf])
    assert tuning.for_all(tuned) == {"a": 3.0}


# --- scores -------------------------------------------------------------------------------------


def test_a_rule_is_compared_with_the_best_method_paired_by_seed() -> None:
    one = np.array([0.80, 0.90, 0.70, 0.85])
    gain = np.array([0.004, -0.002, 0.001, 0.0])
    others = {"worse": one - 0.1, "best": one - gain, "diverged": one * np.nan}
    found = scoring.compared(one, others, classifies=True)
    want = stats.ttest_1samp(gain, 0).confidence_interval(0.95)
    assert found["best"] == "best" and found["not_worse"]
    np.testing.assert_allclose(found["difference"], [gain.mean(), want.low, want.high])
    assert found["half_width"] == pytest.approx((want.high - want.low) / 2)
    # The mean is not below -0.01, the lower end of the interval is.
    found = scoring.compared(one, {"best": one - 30 * gain}, classifies=True)
    assert not found["not_worse"]
    assert found["short_by"] == pytest.approx(-0.01 - 30 * want.low)
    # Errors are shares of that of the best method, and less is better.
    errors = {"best": np.full(4, 0.2), "worse": np.full(4, 0.3)}
    found = scoring.compared(np.full(4, 0.203), errors, classifies=False)
    assert found["best"] == "best" and found["difference"][0] == pytest.approx(-0.015)
    assert found["not_worse"]
    assert not scoring.compared(np.full(4, 0.205), errors, classifies=False)["not_worse"]


def test_ranks_and_largest_losses_are_those_of_known_scores() -> None:
    level = np.ones(3)
    at_one = {
        "accuracy": {"x": 0.9 * level, "y": 0.8 * level, "z": np.nan * level},
        "error": {"x": 0.4 * level, "y": 0.2 * level, "z": 0.3 * level},
    }
    tuned = {"accuracy": {"x": 0.92 * level}, "error": {"y": 0.2 * level}}
    found = scoring.ranked(at_one, tuned, {"accuracy": True, "error": False})
    assert {name: of["rank"] for name, of in found.items()} == {"x": 2.0, "y": 1.5, "z": 2.5}
    # In units of what is allowed: 0.02 / 0.01, and an error that is doubled, 1 / 0.02.
    assert found["x"]["loss"] == pytest.approx(50)
    assert found["x"]["worst_stream"] == "error"
    assert found["y"]["loss"] == pytest.approx(12) and found["y"]["not_worse"] == 0.5
    assert found["z"]["loss"] == np.inf


def test_a_trend_is_less_that_of_the_oracle() -> None:
    online = np.array([[0.9, 0.5, 0.8], [0.8, 0.5, 0.6]])
    told = np.array([[0.7, 0.9, 0.7], [0.7, 0.9, 0.6]])
    assert scoring.trend(online, told, True)[0] == pytest.approx(-0.1)
    assert scoring.trend(online, told, False)[0] == pytest.approx(0.1 / told.mean())


# --- runs ---------------------------------------------------------------------------------------

OWN = (f"{__name__}:small", f"{__name__}:writes_down")


def test_methods_streams_and_networks_of_ones_own_run_are_kept_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(out=tmp_path, streams=OWN[:1], methods=(*OWN[1:], "redo"), seeds=2)
    lived = []

    def counted(self: Trainer, *arguments: Any) -> Any:
        lived.append(arguments)
        return live(self, *arguments)

    live = Trainer.live
    monkeypatch.setattr(Trainer, "live", counted)
    work = Work(config)
    assert work.belongs(OWN[0], OWN[1]) and not work.belongs(OWN[0], "redo")
    first = work.tuned(*OWN)
    assert first.tuned is not None and first.settings in writes_down.settings()
    assert first.lives.online.shape == (2, 3)
    number = len(lived)
    assert number == len(first.tuned.tried) + min(4, len(first.tuned.tried)) + 1
    again = Work(config)
    jax.tree.map(np.testing.assert_array_equal, again.tuned(*OWN), first)
    assert len(lived) == number and again.read == number
    other = Work(Config(out=tmp_path, streams=OWN[:1], methods=OWN[1:], seeds=3))
    assert other.tuned(*OWN).lives.online.shape == (3, 3)
    assert len(lived) == number + 1  # the final one
    said = results.metrics(first)
    assert said["lifetime"][0] == pytest.approx(first.lives.online.mean())


def test_two_processes_find_the_same_whichever_way_they_work(tmp_path: Path) -> None:
    found = {}
    for backwards in (False, True):
        config = Config(
            out=tmp_path / str(backwards),
            streams=OWN[:1],
            methods=(OWN[1], f"{__name__}:stays"),
            seeds=2,
            tuning_seeds=1,
            backwards=backwards,
        )
        of = plasticity.run(config).results["streams"][OWN[0]]
        found[backwards] = {name: said["online_by_task"] for name, said in of.items()}
    assert list(found[False]) == list(found[True]) == [OWN[1], f"{__name__}:stays"]
    jax.tree.map(np.testing.assert_array_equal, found[False], found[True])


def test_a_stream_without_its_data_is_left_out_and_said_so_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("one_task", "fashion_cnn")
    monkeypatch.setattr(results, "STREAMS", {name: STREAMS[name] for name in names})
    assert list(Work(Config(data_dir=tmp_path, out=tmp_path)).streams) == ["one_task"]
    assert "Left out: fashion_cnn" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="Fashion-MNIST: no file"):
        Work(Config(streams=names, data_dir=tmp_path, out=tmp_path))


def test_a_quick_run_takes_what_is_asked_for() -> None:
    quick = Config(quick=True)
    assert quick.streams == ("random_labels",) and quick.tasks == 10
    assert set(quick.run_methods) == {"adam_3e-3", "adam_restarted", "hazard_filter", ONE}
    assert METHODS[ONE].quick == ONE_SETTING
    asked = Config(quick=True, streams=("one_task",), methods=(ONE,), seeds=10, tasks=None)
    assert asked.streams == ("one_task",) and asked.run_methods == (ONE,)
    assert asked.seeds == 10 and asked.tasks is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streams": ("mnist",)}, "Unknown stream 'mnist'; known are: random_labels"),
        ({"methods": ("adamax",)}, "Unknown method 'adamax'; known are: adam"),
        ({"methods": ("nowhere:mine",)}, "Cannot find the method 'nowhere:mine'"),
        ({"network": "rnn"}, "Unknown network 'rnn'; known are: mlp"),
        ({"quick": True, "methods": ("upgd",)}, "'upgd' has no settings for a quick"),
        ({"quick": True, "tuning_seeds": 3}, "tuning_seeds has no part in a quick run, got 3"),
        ({"streams": ("drift",), "methods": ("adam_3e-3",)}, "is run on random_labels only"),
        (
            {"streams": ("random_labels", "drift"), "methods": ("adam_3e-3",)},
            "No method of this run is run on stream 'drift'",
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
    found = metrics["streams"]["random_labels"]
    assert set(found) == {"adam_3e-3", "adam_restarted", "hazard_filter", ONE}
    for numbers in found.values():
        assert len(numbers["first"]) == len(numbers["last"]) == len(numbers["lifetime"]) == 3
        assert numbers["settings"]
    assert (tmp_path / "accuracy.png").is_file()
