"""A recording changes nothing, forgets the oldest, and says what was seen, done and believed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import beliefs, control, navigator, posterior, recording, rules
from beliefnav.beliefs import Info, Posterior
from beliefnav.recording.dataset import to_arrays
from tests.beliefs import laws

PyTree = Any

local_level = beliefs.LocalLevel(0.8, noise_variance=2.0)
CHOSEN = {"b": [2, 0], "layers/0/w": [5, 0, 3]}


def tree(seed: int) -> PyTree:
    rng = np.random.default_rng(seed)
    return {
        "b": jnp.asarray(rng.normal(size=3), jnp.float32),
        "layers": [{"w": jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)}],
    }


def at_chosen(t: PyTree) -> np.ndarray:
    """The entries of ``CHOSEN``, by hand."""
    b, w = np.asarray(t["b"], np.float32), np.asarray(t["layers"][0]["w"], np.float32)
    return np.array([b[2], b[0], w[1, 2], w[0, 0], w[1, 0]])


def recorded(optimizer: Any, capacity: int = 10, **options: Any) -> Any:
    return recording.record(optimizer, **({"coordinates": CHOSEN, "capacity": capacity} | options))


def train(optimizer: Any, num_steps: int) -> tuple[PyTree, list[PyTree], list[PyTree], list[Any]]:
    """Last state, parameters before every step and at the end, gradients, and updates."""
    optimizer = optax.with_extra_args_support(optimizer)
    update = jax.jit(optimizer.update)
    params = [tree(0)]
    state, gradients, steps = optimizer.init(params[0]), [], []
    for t in range(num_steps):
        gradients.append(tree(t + 1))
        updates, state = update(gradients[-1], state, params[-1])
        params.append(jax.tree.map(jnp.add, params[-1], updates))
        steps.append(updates)
    return state, params, gradients, steps


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "optax.adam": lambda: optax.adam(0.1),
    "optax momentum": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "optax chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
    "adam": lambda: rules.adam(0.1),
    "wiener": lambda: rules.wiener(0.1),
    "local level": lambda: navigator(0.1, local_level, control.myopic()),
    "multi steps": lambda: optax.MultiSteps(rules.adam(0.1), 2).gradient_transformation(),
    "partition": lambda: optax.partition(
        {"one": rules.adam(0.1), "other": optax.adam(0.1)}, {"b": "one", "layers": "other"}
    ),
    "masked": lambda: optax.masked(rules.adam(0.1), {"b": True, "layers": False}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_recording_changes_no_bit_of_the_updates(name: str) -> None:
    # Operation by operation: under jit, what is read besides may change how XLA fuses the rest.
    with jax.disable_jit():
        *_, steps = train(recorded(OPTIMIZERS[name]()), 3)
        *_, plain = train(OPTIMIZERS[name](), 3)
    jax.tree.map(np.testing.assert_array_equal, steps, plain)


WHOLE_CHAINS: dict[str, Callable[[], Any]] = {
    "alone": lambda: recorded(rules.adam(0.1)),
    "around a chain": lambda: recorded(
        optax.chain(optax.clip_by_global_norm(0.1), rules.adam(0.1), optax.add_decayed_weights(-1))
    ),
    "weight decay after it": lambda: optax.chain(
        recorded(rules.adam(0.1)), optax.add_decayed_weights(-0.3), optax.scale(0.5)
    ),
    "no belief": lambda: optax.chain(recorded(optax.adam(0.1)), optax.scale(2.0)),
}


@pytest.mark.parametrize("name", WHOLE_CHAINS)
def test_gradient_is_raw_and_displacement_is_what_happened(name: str) -> None:
    state, params, gradients, _ = train(WHOLE_CHAINS[name](), 5)
    data = recording.to_dataset(state, params[-1])
    np.testing.assert_array_equal(data.gradient, [at_chosen(g) for g in gradients])
    moved = [at_chosen(b) - at_chosen(a) for a, b in zip(params[:-1], params[1:], strict=True)]
    np.testing.assert_array_equal(data.displacement, moved)
    np.testing.assert_array_equal(data.params, [at_chosen(p) for p in params[:-1]])
    assert np.all(data.displacement[-1] != 0)


def test_behind_a_clip_the_gradient_is_recorded_as_it_enters() -> None:
    clipped = optax.chain(optax.clip(0.2), recorded(rules.adam(0.1)))
    state, params, gradients, _ = train(clipped, 3)
    data = recording.to_dataset(state, params[-1])
    expected = [np.clip(at_chosen(g), -0.2, 0.2) for g in gradients]
    np.testing.assert_array_equal(data.gradient, np.array(expected, np.float32))


@pytest.mark.parametrize(("capacity", "num_steps"), [(1, 4), (3, 2), (3, 3), (3, 4), (3, 8)])
def test_the_oldest_steps_are_overwritten(capacity: int, num_steps: int) -> None:
    state, params, gradients, _ = train(recorded(rules.adam(0.1), capacity), num_steps)
    data = recording.to_dataset(state, params[-1])
    first = max(0, num_steps - capacity)
    np.testing.assert_array_equal(data.step, np.arange(first, num_steps))
    assert data.attrs["steps_overwritten"] == first
    np.testing.assert_array_equal(data.gradient, [at_chosen(g) for g in gradients[first:]])
    long, long_params, *_ = train(recorded(rules.adam(0.1), 20), num_steps)
    everything = recording.to_dataset(long, long_params[-1])
    for variable in everything:
        np.testing.assert_array_equal(data[variable], everything[variable][first:])


def test_recording_inside_a_scan() -> None:
    optimizer = recorded(rules.adam(0.1), 3)
    gradients = [tree(t + 1) for t in range(5)]

    @jax.jit
    def scan(params: PyTree, gradients: PyTree) -> PyTree:
        def step(carry: PyTree, gradient: PyTree) -> tuple[PyTree, None]:
            params, state = carry
            updates, state = optimizer.update(gradient, state, params)
            return (jax.tree.map(jnp.add, params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0]

    params, state = scan(tree(0), jax.tree.map(lambda *g: jnp.stack(g), *gradients))
    looped, looped_params, *_ = train(optimizer, 5)
    data = recording.to_dataset(state, params)
    expected = recording.to_dataset(looped, looped_params[-1])
    assert list(data.param.values) == list(expected.param.values)
    np.testing.assert_array_equal(data.step, [2, 3, 4])
    for variable in expected:  # two compilations of one float32 program
        np.testing.assert_allclose(data[variable], expected[variable], rtol=1e-5, atol=1e-7)


def test_vmapped_seeds_are_recordings_to_be_taken_one_at_a_time() -> None:
    optimizer = recorded(rules.adam(0.1))
    params = jax.tree.map(lambda *p: jnp.stack(p), tree(0), tree(1))
    state = jax.vmap(optimizer.init)(params)
    _, state = jax.jit(jax.vmap(optimizer.update))(params, state, params)
    with pytest.raises(ValueError, match=r"batched, of shape \(2,\).*x\[0\]"):
        recording.to_dataset(state, params)
    for seed in range(2):
        one = jax.tree.map(lambda x, seed=seed: x[seed], (state, params))
        data = recording.to_dataset(*one)
        np.testing.assert_array_equal(data.gradient, [at_chosen(tree(seed))])


class Layer(NamedTuple):
    weight: jax.Array
    bias: jax.Array


def test_labels_are_paths_and_positions() -> None:
    params = {"net": [Layer(jnp.zeros((2, 3)), jnp.zeros(2))], "scale": jnp.zeros(())}
    coordinates = {"net/0/weight": [4, 0], "scale": [0], "net/0/bias": 1}
    optimizer = recording.record(optax.sgd(0.1), coordinates=coordinates, capacity=2)
    _, state = optimizer.update(params, optimizer.init(params), params)
    assert recording.to_dataset(state, params).param.values.tolist() == [
        "net/0/bias[1]",
        "net/0/weight[1,1]",
        "net/0/weight[0,0]",
        "scale",
    ]


def test_a_step_that_is_compiled_records_what_one_that_is_not_records() -> None:
    """Also where it goes on with a recording that the other began: jax sorts the paths."""
    params = {"v": jnp.array([1.0]), "u": jnp.array([2.0])}
    optimizer = recording.record(optax.sgd(0.1), coordinates={"v": [0], "u": [0]}, capacity=2)
    _, state = optimizer.update(params, optimizer.init(params), params)
    _, state = jax.jit(optimizer.update)(params, state, params)
    data = recording.to_dataset(state, params)
    assert data.param.values.tolist() == ["u[0]", "v[0]"]
    assert data.gradient.values.tolist() == [[2.0, 1.0], [2.0, 1.0]]


@pytest.mark.parametrize("coordinates", [1, 3])
def test_scalar_parameters_are_recorded_among_others(coordinates: int) -> None:
    params = {"b": jnp.arange(2.0), "scale": jnp.asarray(5.0)}
    optimizer = recording.record(
        rules.adam(0.1), coordinates=coordinates, capacity=2, key=jax.random.key(0)
    )
    _, state = optimizer.update(params, optimizer.init(params), params)
    data = recording.to_dataset(state, params)
    assert data.sizes["param"] == min(coordinates, 2) + 1
    assert float(data.gradient.sel(param="scale").squeeze()) == 5.0


def flat_information(belief: Any, gradients: list[PyTree]) -> list[dict[str, np.ndarray]]:
    """Posterior and diagnostics of every step at ``CHOSEN``, from the filter itself."""
    filter_ = belief.filter()
    state, rows = filter_.init(gradients[0]), []
    for gradient in gradients:
        state, info = laws.observe(filter_, filter_.predict(state, None), gradient)
        fields = state.posterior()._asdict() | info._asdict()
        rows.append({k: at_chosen(v) for k, v in fields.items() if v is not None})
    return rows


@pytest.mark.parametrize(
    "belief",
    [
        local_level,
        beliefs.Wiener(0.9, 0.99),
        beliefs.independent(
            gradient=beliefs.OrnsteinUhlenbeck(0.9, 0.1, 1.0), curvature=beliefs.PrecisionWalk(0.9)
        ),
    ],
    ids=lambda b: type(b).__name__,
)
def test_the_belief_is_recorded_as_it_is_at_every_step(belief: Any) -> None:
    optimizer = navigator(0.1, belief, control.myopic())
    state, params, gradients, _ = train(recorded(optimizer), 4)
    data = recording.to_dataset(state, params[-1])
    rows = flat_information(belief, gradients)
    assert set(data) == {"gradient", "displacement", "params", *rows[0]}
    for name in rows[0]:
        expected = np.array([row[name] for row in rows], np.float32)
        # Jitted against eager float32 arithmetic.
        np.testing.assert_allclose(data[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_posterior_of_the_last_step_is_the_one_that_can_be_read() -> None:
    state, params, *_ = train(recorded(rules.adam(0.1)), 3)
    data = recording.to_dataset(state, params[-1])
    belief = posterior(state)
    np.testing.assert_array_equal(data.gradient_mean[-1], at_chosen(belief.gradient_mean))
    np.testing.assert_array_equal(data.curvature_mean[-1], at_chosen(belief.curvature_mean))


def test_missing_entries_are_recorded_as_they_came() -> None:
    optimizer = recorded(rules.adam(0.1))
    gradient = tree(1)
    gradient["b"] = gradient["b"].at[2].set(jnp.inf)
    _, state = optimizer.update(gradient, optimizer.init(tree(0)), tree(0))
    data = recording.to_dataset(state, tree(0))
    assert np.isinf(data.gradient.values[0, 0])
    np.testing.assert_array_equal(data.missing[0], [1, 0, 0, 0, 0])


def test_under_multi_steps_the_belief_of_the_last_real_step_is_shown() -> None:
    optimizer = optax.MultiSteps(navigator(0.1, local_level, control.myopic()), 2)
    state, params, gradients, _ = train(recorded(optimizer.gradient_transformation()), 4)
    data = recording.to_dataset(state, params[-1])
    np.testing.assert_array_equal(data.gradient, [at_chosen(g) for g in gradients])
    means = [jax.tree.map(lambda a, b: (a + b) / 2, gradients[t], gradients[t + 1]) for t in (0, 2)]
    expected = [row["gradient_mean"] for row in flat_information(local_level, means)]
    shown = data.gradient_mean.values[1:]
    np.testing.assert_allclose(shown, [expected[0], expected[0], expected[1]], rtol=1e-5)


@pytest.mark.parametrize("name", ["masked", "partition"])
def test_entries_without_a_belief_are_nan_in_its_variables(name: str) -> None:
    state, params, gradients, _ = train(recorded(OPTIMIZERS[name]()), 3)
    data = recording.to_dataset(state, params[-1])
    np.testing.assert_array_equal(data.gradient, [at_chosen(g) for g in gradients])
    assert np.isnan(data.gradient_mean[:, 2:]).all()
    believed = train(rules.adam(0.1), 3)[0]
    mean = at_chosen(posterior(believed).gradient_mean)[:2]
    np.testing.assert_allclose(data.gradient_mean[-1, :2], mean, rtol=1e-6)


def test_two_beliefs_fill_one_variable_each_on_its_own_parameters() -> None:
    labels = {"b": "one", "layers": "other"}
    other = navigator(0.1, local_level, control.myopic())
    both = optax.partition({"one": rules.adam(0.1), "other": other}, labels)
    state, params, gradients, _ = train(recorded(both), 3)
    data = recording.to_dataset(state, params[-1])
    rows = flat_information(local_level, gradients)
    np.testing.assert_allclose(
        data.gradient_variance[:, 2:], [row["gradient_variance"][2:] for row in rows], rtol=1e-6
    )
    assert np.isnan(data.gradient_variance[:, :2]).all()
    assert np.isfinite(data.gradient_mean).all()


def test_an_optimizer_without_belief_has_three_variables() -> None:
    state, params, *_ = train(recorded(optax.adam(0.1)), 2)
    data = recording.to_dataset(state, params[-1])
    assert set(data) == {"gradient", "displacement", "params"}


@pytest.mark.parametrize("name", ["optax.adam", "adam"])
def test_the_norm_is_that_of_the_whole_raw_gradient_and_is_asked_for(name: str) -> None:
    optimizer = recorded(OPTIMIZERS[name](), 3, coordinates={"b": [1]}, norm=True)
    state, params, gradients, _ = train(optimizer, 5)
    data = recording.to_dataset(state, params[-1])
    whole = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in gradients]
    expected = [np.linalg.norm(g.astype(np.float64)) for g in whole[-3:]]
    assert data.gradient_norm.dims == ("step",)
    np.testing.assert_allclose(data.gradient_norm, expected, rtol=1e-6)  # sums of nine in float32


def test_whole_arrays_are_recorded_in_their_order() -> None:
    state, params, gradients, _ = train(recorded(optax.adam(0.1), coordinates="all"), 2)
    data = recording.to_dataset(state, params[-1])
    layers = [f"layers/0/w[{i},{j}]" for i in range(2) for j in range(3)]
    assert data.param.values.tolist() == ["b[0]", "b[1]", "b[2]", *layers]
    for variable, trees in {"gradient": gradients, "params": params[:-1]}.items():
        whole = [np.concatenate([t["b"], np.ravel(t["layers"][0]["w"])]) for t in trees]
        np.testing.assert_array_equal(data[variable], whole)
    with pytest.raises(ValueError, match="must be a number, a mapping.* or 'all', got 'every'"):
        recorded(optax.sgd(0.1), coordinates="every")


def test_a_stream_file_gives_back_what_it_was_given_with_parameters_or_without(
    tmp_path: Path,
) -> None:
    optimizer = recorded(optax.adam(0.1), norm=True)
    state, params, *_ = train(optimizer, 3)
    data = recording.to_dataset(state, params[-1])
    for names in (["gradient"], ["gradient", "displacement"], list(data)):
        data[names].to_netcdf(tmp_path / "stream.nc", engine="h5netcdf")
        stream = recording.read_stream(tmp_path / "stream.nc")
        assert stream.equals(data[names])
        back = to_arrays(stream, ("step", "param"))
        for field, values in back._asdict().items():
            assert (values is not None) == (field in names), field
            if values is not None:
                np.testing.assert_array_equal(values, data[field])
        params, norms = (stream.get(name) for name in ("params", "gradient_norm"))
        again = recording.from_arrays(
            **back._asdict(),
            labels=data["param"].values,
            params=None if params is None else params.values,
            gradient_norm=None if norms is None else norms.values,
        )
        for name in names:
            np.testing.assert_array_equal(again[name], stream[name])


def test_parameters_and_norms_of_another_layout_are_refused(tmp_path: Path) -> None:
    y = np.ones((4, 2))
    with pytest.raises(ValueError, match="arrays .* of one shape"):
        recording.from_arrays(y, params=y[:, :1])
    with pytest.raises(ValueError, match=r"one value a step, \(4,\), got \(3,\)"):
        recording.from_arrays(y, gradient_norm=np.ones(3))
    stream = recording.from_arrays(y, params=y, gradient_norm=y[:, 0])
    for name, found in {"params": "the dimensions of its", "gradient_norm": "one value a"}.items():
        other = "param" if name == "gradient_norm" else "step"
        stream.assign({name: (other, np.ones(stream.sizes[other]))}).to_netcdf(tmp_path / "bad.nc")
        with pytest.raises(ValueError, match=f"The {name} of a stream has {found}"):
            recording.read_stream(tmp_path / "bad.nc")


@pytest.mark.parametrize("size", [10, 100_000])
def test_memory_is_bounded_by_capacity_and_coordinates(size: int) -> None:
    params = {"w": jnp.zeros(size)}

    def memory(optimizer: Any) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(optimizer.init(params)))

    capacity, coordinates = 50, 4
    optimizer = recording.record(
        rules.adam(0.1), coordinates=coordinates, capacity=capacity, key=jax.random.key(0)
    )
    variables = 3 + len(Posterior._fields) + len(Info._fields)
    numbers = coordinates * (variables * (capacity + 1) + 4)
    assert memory(optimizer) - memory(rules.adam(0.1)) <= 4 * numbers


@pytest.mark.parametrize("count", [1, 3, 7, 12, 20])
def test_drawn_coordinates_are_distinct_in_range_and_decided_by_the_key(count: int) -> None:
    params = {"w": jnp.zeros((3, 4)), "b": jnp.zeros(5), "none": jnp.zeros((0, 2))}

    def draw(seed: int) -> dict[str, np.ndarray]:
        optimizer = recording.record(
            optax.sgd(0.1), coordinates=count, capacity=1, key=jax.random.key(seed)
        )
        state: Any = optimizer.init(params)
        return {k: np.asarray(v) for k, v in state.coordinates.items()}

    draws = [draw(seed) for seed in range(20)]
    for drawn in draws:
        for path, size in {"w": 12, "b": 5}.items():
            assert len(set(drawn[path].tolist())) == len(drawn[path]) == min(count, size)
            assert drawn[path].min() >= 0 and drawn[path].max() < size
        assert drawn.get("none", np.zeros(0)).size == 0
    jax.tree.map(np.testing.assert_array_equal, draws[0], draw(0))
    if count < 12:
        # Every entry of the larger array is drawn sooner or later: 20 draws of one in twelve or
        # better miss a given entry with a probability below 0.18, and all seeds are fixed.
        assert len({tuple(d["w"].tolist()) for d in draws}) > 1
        assert len(set(np.concatenate([d["w"] for d in draws]).tolist())) >= 8


def test_mistakes_are_named_at_construction() -> None:
    key = jax.random.key(0)
    for capacity in (0, -3):
        with pytest.raises(ValueError, match="capacity must be at least 1"):
            recording.record(optax.sgd(0.1), coordinates=1, capacity=capacity, key=key)
    mistakes: Any = ("every", np.array([0, 1]))
    for wrong in mistakes:
        with pytest.raises(ValueError, match="coordinates must be a number, a mapping"):
            recording.record(optax.sgd(0.1), coordinates=wrong, capacity=1)
    for coordinates in (0, -1):
        with pytest.raises(ValueError, match="coordinates must be at least 1"):
            recording.record(optax.sgd(0.1), coordinates=coordinates, capacity=1, key=key)
    with pytest.raises(ValueError, match="give a key"):
        recording.record(optax.sgd(0.1), coordinates=1, capacity=1)


def test_mistakes_are_named_at_init_and_update() -> None:
    with pytest.raises(ValueError, match=r"no parameter 'w'; there are: b, layers/0/w"):
        recorded(optax.sgd(0.1), coordinates={"w": [0]}).init(tree(0))
    for index in (-1, 3):
        with pytest.raises(ValueError, match=r"'b' must be in \[0, 3\)"):
            recorded(optax.sgd(0.1), coordinates={"b": [0, index]}).init(tree(0))
    optimizer = recorded(optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"without params.*update\(gradient, state, params\)"):
        optimizer.update(tree(0), optimizer.init(tree(0)))


def test_a_state_must_hold_one_recording_that_has_seen_something() -> None:
    with pytest.raises(ValueError, match=r"found 0\. Wrap one"):
        recording.to_dataset(optax.adam(0.1).init(tree(0)), tree(0))
    one = recorded(optax.adam(0.1))
    with pytest.raises(ValueError, match="found 2"):
        recording.to_dataset(optax.chain(one, one).init(tree(0)), tree(0))
    with pytest.raises(ValueError, match="recording is empty"):
        recording.to_dataset(one.init(tree(0)), tree(0))


def test_a_matrix_of_curvature_is_not_recorded_as_if_it_were_the_parameters() -> None:
    params = jnp.ones(3)
    optimizer = recording.record(rules.full_ballistic(0.1), coordinates={"": [0, 2]}, capacity=2)
    _, state = optimizer.update(jnp.arange(3.0), optimizer.init(params), params)
    recorded = recording.to_dataset(state, params)
    np.testing.assert_array_equal(recorded["gradient_mean"][0], [0.0, 2.0])
    assert "curvature_mean" not in recorded


# --- hosts --------------------------------------------------------------------------------------


def test_a_gradient_of_other_paths_is_refused() -> None:
    """Silence would record nothing but NaN."""
    optimizer = recording.record(optax.sgd(0.1), coordinates=1, capacity=3, key=jax.random.key(0))
    params = {"kernel": {"value": jnp.ones(2)}}
    state = optimizer.init(params)
    bare = {"kernel": jnp.ones(2)}
    with pytest.raises(ValueError, match="the parameters at 'kernel/value'.*there are kernel"):
        optimizer.update(params, state, bare)
    with pytest.raises(ValueError, match="the gradient at 'kernel/value'.*there are kernel"):
        optimizer.update(bare, state, params)
    _, state = optimizer.update(params, state, params)
    with pytest.raises(ValueError, match="the parameters at 'kernel/value'"):
        recording.to_dataset(state, bare)


def test_a_recording_has_no_empty_array() -> None:
    """Checkpoints refuse arrays of no entries."""
    for optimizer in (optax.sgd(0.1), rules.adam(0.1), rules.hazard_filter(0.1, examples=1)):
        recorded = recording.record(optimizer, coordinates={"w": [0]}, capacity=3)
        assert all(jnp.size(x) for x in jax.tree.leaves(recorded.init({"w": jnp.ones(2)})))


def test_a_search_for_nans_is_refused_in_one_line() -> None:
    """A recording has NaN where nothing is known."""
    params, optimizer = tree(0), recorded(rules.adam(0.1))
    state = optimizer.init(params)
    message = "Cannot record under jax_debug_nans.*without record"
    with jax.debug_nans(True):
        with pytest.raises(ValueError, match=message):
            jax.jit(optimizer.init)(params)
        with pytest.raises(ValueError, match=message):
            jax.jit(optimizer.update)(params, state, params)
