"""What is believed of a sharded parameter stays where the parameter is.

An elementwise rule steps on meshes of automatic and of explicit axes and inside ``jax.shard_map``,
and its devices exchange nothing; to count is one exchange. Rules that couple entries name what they
exchange. `tests.sharding.test_sharding` runs this file where there are eight devices.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from beliefnav import beliefs, control, navigator, optimum, recording, rules, wrappers
from beliefnav.beliefs.drift.elementwise import ElementwiseDrift
from beliefnav.rules.catalogue import CATALOGUE, Peer
from beliefnav.wrappers.partial_switches import layer_hypotheses
from beliefnav.wrappers.uncontrolled import drift_countering
from tests.sharding.listed import COUPLED, ELEMENTWISE, RULES, made

PyTree = Any
P = PartitionSpec

QUICK = ("adam", "secant", "resetting", "muon")  # moments; displacements; a start; a matrix


def over(names: list[str]) -> pytest.MarkDecorator:
    """All rules of a list; those that are not of a kind of their own only on request."""
    quick = [n for n in names if n in QUICK]
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=[] if n in quick else [pytest.mark.slow]) for n in names]
    )


@pytest.fixture(autouse=True)
def _devices() -> None:
    assert jax.device_count() == 8, "run tests/sharding/test_sharding.py"


SPECS = {"middle": P(None, "d"), "vector": P("d"), "whole": P()}


SHAPES = {"middle": (3, 8, 32), "vector": (16,), "whole": (5,)}
SMALL = {"middle": (2, 8, 2), "vector": (8,), "whole": (3,)}  # all entries are one matrix


def tree(seed: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> PyTree:
    """A leaf to be sharded on its middle axis, one on its only axis, one on none."""
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def mesh_of(kind: AxisType) -> Mesh:
    return jax.make_mesh((8,), ("d",), axis_types=(kind,))


def sharded(values: PyTree, mesh: Mesh) -> PyTree:
    return {k: jax.device_put(v, NamedSharding(mesh, SPECS[k])) for k, v in values.items()}


def given(name: str, params: PyTree) -> dict[str, PyTree]:
    """The readings that a rule needs besides gradients."""
    reading = RULES[name].reading
    if reading == "matrix":
        return {"curvature": jnp.eye(sum(x.size for x in jax.tree.leaves(params)))}
    return {} if reading is None else {"curvature": jax.tree.map(lambda x: 1 + x * x, params)}


def collectives(update: Any, *args: Any, **extra: Any) -> list[str]:
    """What devices exchange in the compiled program."""
    text = jax.jit(update).lower(*args, **extra).compile().as_text() or ""
    names = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return re.findall(rf" ({names})(?:-start)?\(", text)


def assert_close(actual: PyTree, expected: PyTree) -> None:
    """Elementwise arithmetic in float32, the same up to how XLA fuses it."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected
    )


def on_one_device(name: str, steps: int = 2, shapes: Any = SHAPES) -> list[PyTree]:
    """The updates of a rule on whole arrays."""
    optimizer, params = made(name), tree(0, shapes)
    update, state, updates = jax.jit(optimizer.update), optimizer.init(params), []
    for t in range(steps):
        step, state = update(tree(t + 1, shapes), state, params, **given(name, params))
        updates.append(step)
    return updates


def types(values: PyTree) -> PyTree:
    """Shapes, dtypes, and on explicit meshes shardings."""
    return jax.tree.map(lambda x: str(jax.typeof(x)), values)


# --- explicit axes ------------------------------------------------------------------------------


@pytest.mark.parametrize("counting", [False, True])
@over(ELEMENTWISE)
def test_an_elementwise_rule_steps_on_a_mesh_of_explicit_axes(name: str, counting: bool) -> None:
    mesh, optimizer = mesh_of(AxisType.Explicit), made(name, counting)
    params = sharded(tree(0), mesh)
    with jax.set_mesh(mesh):
        state = optimizer.init(params)
        before, update = types(state), jax.jit(optimizer.update)
        for t, expected in enumerate(on_one_device(name)):
            updates, state = update(sharded(tree(t + 1), mesh), state, params)
            assert types(state) == before
            assert types(updates) == types(params)
            assert_close(updates, expected)
        # Operation by operation, where nothing is compiled together.
        if not counting:
            assert types(optimizer.update(params, state, params)[1]) == before


@over(COUPLED)
def test_what_a_coupled_rule_needs_whole_is_gathered(name: str) -> None:
    mesh, optimizer = mesh_of(AxisType.Explicit), made(name)
    params, readings = sharded(tree(0, SMALL), mesh), given(name, tree(0, SMALL))
    if RULES[name].reading == "diagonal":
        readings = {"curvature": sharded(readings["curvature"], mesh)}
    with jax.set_mesh(mesh):
        state = optimizer.init(params)
        before, update = types(state), jax.jit(optimizer.update)
        for t, expected in enumerate(on_one_device(name, shapes=SMALL)):
            gradient = sharded(tree(t + 1, SMALL), mesh)
            updates, state = update(gradient, state, params, **readings)
            assert types(state) == before
            assert types(updates) == types(params)
            # Singular values and solves in float32, of matrices of condition below 100.
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
                updates,
                expected,
            )


class Flat(NamedTuple):
    """A belief that says nothing of how what it reshapes is sharded."""

    def filter(self) -> beliefs.Filter:
        inner = beliefs.LocalLevel(0.9).filter()

        def update(predicted: Any, gradient: PyTree, curvature: PyTree = None) -> Any:
            ordered = jax.tree.map(lambda y: y.reshape(-1).reshape(y.shape), gradient)
            return inner.update(predicted, ordered, curvature)

        return beliefs.Filter(inner.init, inner.predict, update)


def test_a_belief_that_would_have_to_choose_a_sharding_is_refused_with_the_remedy() -> None:
    mesh, optimizer = mesh_of(AxisType.Explicit), navigator(0.1, Flat(), control.myopic())
    params = sharded(tree(0), mesh)
    with jax.set_mesh(mesh):
        state = optimizer.init(params)
        with pytest.raises(ValueError, match="Cannot step with Flat on a mesh of explicit.*auto_a"):
            optimizer.update(params, state, params)
        # The remedy, as the error writes it.
        update = jax.sharding.auto_axes(
            optimizer.update,
            out_sharding=jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (params, state)),
        )
        updates, after = jax.jit(update)(params, state, params)
    assert types((updates, after)) == types((params, state))
    whole = navigator(0.1, beliefs.LocalLevel(0.9), control.myopic())
    assert_close(updates, whole.update(tree(0), whole.init(tree(0)), tree(0))[0])


# --- what optax asks of its own on explicit axes --------------------------------------------------

PEERS = {
    name: entry.peer.build(**entry.arguments)
    for name, entry in CATALOGUE.items()
    if isinstance(entry.peer, Peer)
}


def check_stable_types(optimizer: Any) -> None:
    """The types of a state, shardings too: after init as after update, compiled as not compiled."""
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, P(None, "d"))
        params = jnp.zeros((2, 8, 4), jnp.float16, out_sharding=sharding)
        state = optimizer.init(params)
        told = jax.tree.map(jax.typeof, state)
        _, after = optimizer.update(params, state, params)
        _, compiled = jax.jit(optimizer.update)(params, state, params)
        for other in (after, compiled, jax.jit(optimizer.init)(params)):
            assert jax.tree.map(jax.typeof, other) == told


@over(ELEMENTWISE)
def test_types_are_stable_on_explicit_axes_as_those_of_the_peer_are(name: str) -> None:
    if name in PEERS:
        check_stable_types(PEERS[name])
    check_stable_types(made(name))
    abstract = made(name).init(jax.ShapeDtypeStruct((2, 4, 8), jnp.float32))
    assert all(isinstance(x, jax.ShapeDtypeStruct | jax.Array) for x in jax.tree.leaves(abstract))


# --- shard_map ----------------------------------------------------------------------------------


@over(ELEMENTWISE)
def test_an_elementwise_rule_steps_inside_a_shard_map(name: str) -> None:
    mesh = mesh_of(AxisType.Explicit)
    for counting in (False, True):
        optimizer = made(name, counting)

        def steps(params: PyTree, *gradients: PyTree, optimizer: Any = optimizer) -> PyTree:
            state, updates = optimizer.init(params), []
            for gradient in gradients:
                step, after = optimizer.update(gradient, state, params)
                assert types(after) == types(state)  # so that it can be carried by a scan
                state = after
                updates.append(step)
            return updates, optax.tree.get(state, "missing")

        gradients = [tree(1), tree(2)]
        gradients[1]["middle"] = gradients[1]["middle"].at[:, ::4, 0].set(jnp.nan)
        mapped = jax.shard_map(
            steps,
            mesh=mesh,
            in_specs=(SPECS,) * 3,
            out_specs=([SPECS] * 2, P() if counting else None),
        )
        args = [sharded(x, mesh) for x in (tree(0), *gradients)]
        updates, missing = jax.jit(mapped)(*args)
        assert_close(updates[0], on_one_device(name, 1)[0])
        # Three rows of two shards each; no shard knows of the others but by the sum.
        assert missing == 6 if counting else missing is None


def test_devices_that_see_parts_of_a_batch_agree_on_whether_the_task_switched() -> None:
    """By the loss of the whole batch; by that of a part each would go elsewhere, and is refused."""
    optimizer = wrappers.two_hypothesis(rules.adam(0.1), 0.1, 16.0)
    x, start = tree(0)["vector"], jnp.zeros(())
    mesh = mesh_of(AxisType.Explicit)

    def steps(of_all: Callable[[Any], Any], x: Any, params: Any) -> Any:
        def value_fn(params: Any) -> Any:
            return of_all(jnp.mean((x - params) ** 2) / 2)

        state: Any = optimizer.init(params)
        for _ in range(3):
            value, grads = jax.value_and_grad(value_fn)(params)
            told = {"value": value, "value_fn": value_fn}
            updates, state = optimizer.update(grads, state, params, **told)
            params = optax.apply_updates(params, updates)
        return params, state.switch_probability

    def mapped(of_all: Callable[[Any], Any]) -> Any:
        specs = {"in_specs": (P("d"), P()), "out_specs": P()}
        one = jax.jit(jax.shard_map(partial(steps, of_all), mesh=mesh, **specs))
        return one(jax.device_put(x, NamedSharding(mesh, P("d"))), start)

    assert_close(mapped(lambda loss: jax.lax.pmean(loss, "d")), steps(lambda loss: loss, x, start))
    with pytest.raises(ValueError, match="replicated"):
        mapped(lambda loss: loss)


LAYERS: Any = partial(layer_hypotheses, hazard=0.1, examples=16.0, trial=3)


def reset_twice(optimizer: Any, loss: Callable[[PyTree], Any], params: PyTree) -> Any:
    """Parameters and state after steps of which the third is told that a task begins."""
    state = optimizer.init(params)
    for t in range(4):
        value, gradient = jax.value_and_grad(loss)(params)
        told = {"value": value, "value_fn": loss, "task_begins": t == 2}
        updates, after = optimizer.update(gradient, state, params, **told)
        assert types(after) == types(state)  # so that it can be carried by a scan
        params, state = optax.apply_updates(params, updates), after
    return params, state


def test_devices_agree_on_which_layers_start_anew() -> None:
    optimizer = LAYERS(rules.adam(0.1), masks=[{"a": True, "b": True}, {"a": False, "b": True}])
    x, start = tree(0)["vector"], {"a": jnp.ones(()), "b": jnp.ones(())}
    mesh = mesh_of(AxisType.Explicit)

    def steps(of_all: Callable[[Any], Any], x: Any, params: Any) -> Any:
        def loss(p: Any) -> Any:
            return of_all(jnp.mean((x - p["a"]) ** 2 + (p["a"] - p["b"]) ** 2) / 2)

        params, state = reset_twice(optimizer, loss, params)
        return params, state.leader, state.log_weights

    mapped = jax.shard_map(
        partial(steps, lambda loss: jax.lax.pmean(loss, "d")),
        mesh=mesh,
        in_specs=(P("d"), P()),
        out_specs=P(),
    )
    got = jax.jit(mapped)(jax.device_put(x, NamedSharding(mesh, P("d"))), start)
    assert_close(got, steps(lambda loss: loss, x, start))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize(
    "optimizer", [LAYERS(made("adam")), wrappers.two_hypothesis(made("adam"), 0.1, 16.0)]
)
def test_resets_of_sharded_parameters_are_those_of_whole_ones(optimizer: Any, kind: Any) -> None:
    def loss(params: PyTree) -> Any:
        return sum(jnp.mean((p - 1) ** 2) for p in jax.tree.leaves(params))

    expected, _ = reset_twice(optimizer, loss, tree(0))
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        params = sharded(tree(0), mesh)
        got, _ = jax.jit(partial(reset_twice, optimizer, loss))(params)
        assert_close(got, expected)
        state = optimizer.init(params)
        for name, x in state.prior_mean.items():
            assert x.sharding.is_equivalent_to(params[name].sharding, x.ndim)
        for name, x in getattr(state, "rivals", {}).items():  # with an axis in front
            assert x.addressable_shards[0].data.size * params[name].size == (
                x.size * params[name].addressable_shards[0].data.size
            )


# --- automatic axes -----------------------------------------------------------------------------


@over(ELEMENTWISE)
def test_devices_exchange_nothing_in_a_step_of_an_elementwise_rule(name: str) -> None:
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh, optimizer = mesh_of(kind), made(name)
        params = sharded(tree(0), mesh)
        state = optimizer.init(params)
        assert collectives(optimizer.update, params, state, params) == []
        updates, after = jax.jit(optimizer.update)(sharded(tree(1), mesh), state, params)
        shapes = {x.shape: x.sharding for x in jax.tree.leaves(params)}
        for leaf in jax.tree.leaves((state, updates, after)):
            if leaf.ndim:
                assert leaf.sharding.is_equivalent_to(shapes[leaf.shape], leaf.ndim)
        assert_close(updates, on_one_device(name, 1)[0])


@over(ELEMENTWISE)
def test_to_count_is_one_exchange(name: str) -> None:
    mesh, optimizer = mesh_of(AxisType.Auto), made(name, count_missing=True)
    params, gradient = sharded(tree(0), mesh), tree(1)
    gradient["middle"] = gradient["middle"].at[:, ::4, 0].set(jnp.nan)
    gradient["whole"] = gradient["whole"].at[0].set(jnp.inf)
    gradient = sharded(gradient, mesh)
    state = optimizer.init(params)
    assert collectives(optimizer.update, gradient, state, params) == ["all-reduce"]
    _, state = jax.jit(optimizer.update)(gradient, state, params)
    assert optax.tree.get(state, "missing") == 7  # a leaf that all devices hold counts once


def test_to_count_over_a_mesh_of_two_axes_is_one_exchange_for_each() -> None:
    mesh = jax.make_mesh((4, 2), ("d", "e"), axis_types=(AxisType.Auto,) * 2)
    specs, shapes = [P("d", "e"), P("e"), P("d"), P()], [(8, 4), (6,), (4, 3), (7,)]
    params = [
        jax.device_put(jnp.ones(shape), NamedSharding(mesh, spec))
        for shape, spec in zip(shapes, specs, strict=True)
    ]
    optimizer = made("adam", count_missing=True)
    state = optimizer.init(params)
    assert collectives(optimizer.update, params, state, params) == ["all-reduce"] * 2


@over(COUPLED)
def test_coupled_rules_exchange_what_is_listed(name: str) -> None:
    mesh, optimizer = mesh_of(AxisType.Auto), made(name)
    params = sharded(tree(0), mesh)
    state, readings = optimizer.init(params), given(name, params)
    found = collectives(optimizer.update, params, state, params, **readings)
    if RULES[name].collectives == {"all-reduce"}:  # a few numbers, and nothing else
        assert set(found) == {"all-reduce"}
    else:  # a matrix, which arrives in ways that the compiler chooses by its size
        assert RULES[name].collectives <= set(found)


# --- averages of iterates -----------------------------------------------------------------------

AVERAGES: dict[str, Any] = {
    "always": wrappers.iterate_averaging(made("adam"), variance=True),
    "every other": wrappers.iterate_averaging(made("adam"), beliefs.LocalLevel(0.9), every=2),
}
over_averages = pytest.mark.parametrize("optimizer", AVERAGES.values(), ids=AVERAGES)


def averaged(optimizer: Any, params: PyTree, *gradients: PyTree) -> PyTree:
    """What to evaluate after some steps, and the variance of the path."""
    state = optimizer.init(params)
    for gradient in gradients:
        updates, after = optimizer.update(gradient, state, params)
        assert types(after) == types(state)  # so that it can be carried by a scan
        params, state = jax.tree.map(jnp.add, params, updates), after
    return optimum(state, params), state.path_variance


GRADIENTS = [tree(t) for t in (1, 2, 3, 4)]


@over_averages
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_averages_of_sharded_parameters_are_those_of_whole_ones(optimizer: Any, kind: Any) -> None:
    expected, mesh = averaged(optimizer, tree(0), *GRADIENTS), mesh_of(kind)
    with jax.set_mesh(mesh):
        params, *gradients = (sharded(x, mesh) for x in (tree(0), *GRADIENTS))
        result = jax.jit(lambda *trees: averaged(optimizer, *trees))(params, *gradients)
        assert_close(result, expected)
        state = optimizer.init(params)
        assert collectives(optimizer.update, params, state, params) == []
        assert collectives(optimum, state, params) == []
        _, after = jax.jit(optimizer.update)(params, state, params)
        for mean in (state.average.mean, after.average.mean, result[0]):
            for name, x in mean.items():
                assert x.sharding.is_equivalent_to(params[name].sharding, x.ndim)


@over_averages
def test_types_of_averages_are_stable_on_explicit_axes(optimizer: Any) -> None:
    check_stable_types(optimizer)


@over_averages
def test_averages_are_taken_inside_a_shard_map(optimizer: Any) -> None:
    mesh = mesh_of(AxisType.Explicit)
    expected = averaged(optimizer, tree(0), *GRADIENTS)
    spread = None if expected[1] is None else SPECS
    mapped = jax.shard_map(
        lambda *trees: averaged(optimizer, *trees),
        mesh=mesh,
        in_specs=(SPECS,) * 5,
        out_specs=(SPECS, spread),
    )
    args = [sharded(x, mesh) for x in (tree(0), *GRADIENTS)]
    assert_close(jax.jit(mapped)(*args), expected)


# --- drift --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_drift_of_sharded_parameters_is_that_of_whole_ones(kind: Any) -> None:
    """Learned and countered on every device by itself."""
    optimizer = drift_countering(made("adam"), ElementwiseDrift(0.1, 0.1))

    def steps(params: PyTree, *gradients: PyTree) -> PyTree:
        state = optimizer.init(params)
        for gradient in gradients:
            updates, after = optimizer.update(gradient, state, params)
            assert types(after) == types(state)
            params, state = jax.tree.map(lambda p, u: 0.9 * (p + u), params, updates), after
        return params

    expected, mesh = steps(tree(0), *GRADIENTS), mesh_of(kind)
    with jax.set_mesh(mesh):
        params, *gradients = (sharded(x, mesh) for x in (tree(0), *GRADIENTS))
        assert_close(jax.jit(steps)(params, *gradients), expected)
        assert collectives(optimizer.update, params, optimizer.init(params), params) == []


# --- recordings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("name", [n for n in QUICK if n in ELEMENTWISE])
def test_a_recording_of_sharded_parameters_is_that_of_whole_ones(name: str, kind: Any) -> None:
    optimizer = recording.record(
        made(name),
        coordinates={"middle": [0, 37, 300, 767], "vector": [15], "whole": [2]},
        capacity=3,
    )

    def recorded(params: PyTree, *gradients: PyTree) -> Any:
        state = optimizer.init(params)
        before = types(state)
        for gradient in gradients:
            _, state = jax.jit(optimizer.update)(gradient, state, params)
        assert types(state) == before
        # A few entries are fetched, by a sum in which all but one device add 0.
        exchanged = collectives(optimizer.update, gradients[0], state, params)
        assert set(exchanged) <= {"all-reduce"}
        return recording.to_dataset(state, params), optax.tree.get(state, "missing")

    gradients = [tree(1), tree(2)]
    gradients[1]["middle"] = gradients[1]["middle"].at[0, 1, 5].set(jnp.nan)  # entry 37
    expected, _ = recorded(tree(0), *gradients)
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        data, missing = recorded(*(sharded(x, mesh) for x in (tree(0), *gradients)))
    assert list(data) == list(expected) and list(data.param.values) == list(expected.param.values)
    for variable in expected:
        np.testing.assert_allclose(data[variable], expected[variable], rtol=1e-5, atol=1e-6)
    assert missing == 1
    np.testing.assert_array_equal(data["missing"], [[0] * 6, [0, 1, 0, 0, 0, 0]])


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield
