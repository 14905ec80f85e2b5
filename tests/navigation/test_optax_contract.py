"""The contract of optax for state: dtypes, abstract init, donation, one compilation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import beliefs, control, posterior, recording, rules, scale_by_navigation
from tests.navigation.test_navigation import (
    OPTIMIZERS,
    assert_identical,
    every_optimizer,
    some_optimizers,
)

PyTree = Any

HALF = [jnp.bfloat16, jnp.float16]


def tree(seed: int, dtype: Any = jnp.float32) -> PyTree:
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(4, 3)), dtype),
        "b": [jnp.asarray(rng.normal(size=3), dtype), jnp.asarray(rng.normal(), dtype)],
    }


def signature(state: PyTree) -> PyTree:
    """Shape, dtype and weak type of every leaf: what jit keys its cache on."""
    return jax.tree.map(lambda x: jax.typeof(x).str_short() + str(x.weak_type), state)


@every_optimizer
def test_update_keeps_the_signature_of_the_state_and_compiles_once(name: str) -> None:
    optimizer = OPTIMIZERS[name]()
    update: Any = jax.jit(optimizer.update)
    params, state = tree(0), optimizer.init(tree(0))
    before = signature(state)
    for t in range(3):
        updates, state = update(tree(t + 1), state, params)
        params = optax.apply_updates(params, updates)
        assert signature(state) == before
        assert signature(updates) == signature(params)
    assert update._cache_size() == 1


@every_optimizer
@pytest.mark.parametrize("abstract", ["eval_shape", "ShapeDtypeStruct"])
def test_abstract_init_tells_the_state_of_a_concrete_one(name: str, abstract: str) -> None:
    optimizer = OPTIMIZERS[name]()
    if abstract == "eval_shape":
        shapes = jax.eval_shape(optimizer.init, tree(0))
    else:
        placeholders = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), tree(0))
        shapes = optimizer.init(placeholders)
    concrete = optimizer.init(tree(0))
    assert jax.tree.structure(shapes) == jax.tree.structure(concrete)
    jax.tree.map(
        lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)),
        shapes,
        concrete,
    )


@every_optimizer
@pytest.mark.parametrize("half", HALF)
def test_half_precision_parameters_have_a_float32_belief_and_get_half_updates(
    name: str, half: Any
) -> None:
    optimizer = OPTIMIZERS[name]()
    state = optimizer.init(tree(0, half))
    updates, new = jax.eval_shape(optimizer.update, tree(1, half), state, tree(0, half))
    for leaf in jax.tree.leaves([state[0].belief, new[0].belief]):
        assert leaf.dtype == jnp.float32
    assert all(leaf.dtype == half for leaf in jax.tree.leaves(updates))


@some_optimizers
@pytest.mark.parametrize("half", HALF)
def test_half_precision_gradients_are_those_numbers_in_float32(name: str, half: Any) -> None:
    # The belief is computed in float32 from the same numbers, so equality is exact.
    optimizer = OPTIMIZERS[name]()
    update = jax.jit(optimizer.update)
    gradient, params = tree(1, half), tree(0)
    wide = jax.tree.map(lambda y: y.astype(jnp.float32), gradient)
    updates, state = update(gradient, optimizer.init(params), params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
    assert_identical((updates, state), update(wide, optimizer.init(params), params))


@some_optimizers
def test_integer_gradients_are_those_numbers_in_float32(name: str) -> None:
    optimizer = OPTIMIZERS[name]()
    params = {"w": jnp.ones((2, 3))}
    whole = {"w": jnp.arange(6, dtype=jnp.int32).reshape(2, 3)}
    same = {"w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3)}
    update = jax.jit(optimizer.update)
    state = optimizer.init(params)
    assert_identical(update(whole, state, params), update(same, state, params))


def test_without_params_updates_have_the_dtype_of_the_gradient() -> None:
    optimizer = rules.adam(0.1)
    updates, _ = optimizer.update(tree(1, jnp.bfloat16), optimizer.init(tree(0)))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(updates))


@every_optimizer
def test_map_params_finds_the_parameter_shaped_state(name: str) -> None:
    optimizer = OPTIMIZERS[name]()
    state = optimizer.init(tree(0))
    marked = optax.tree.map_params(
        optimizer, lambda leaf: str(leaf.shape), state, transform_non_params=lambda _: "other"
    )
    found = [leaf for leaf in jax.tree.leaves(marked) if leaf != "other"]
    wide = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (4, 3)]
    assert wide and found == ["(3,)", "()", "(4, 3)"] * len(wide)


@some_optimizers
def test_unknown_extra_arguments_are_ignored(name: str) -> None:
    optimizer = OPTIMIZERS[name]()
    state, update = optimizer.init(tree(0)), jax.jit(optimizer.update)
    plain = update(tree(1), state, tree(0))
    extra = update(tree(1), state, tree(0), value=jnp.ones(()), anything=tree(2))
    assert_identical(extra, plain)


@every_optimizer
def test_complex_parameters_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(ValueError, match=r"parameter 'a/0' of dtype complex64.*split_real_and_ima"):
        OPTIMIZERS[name]().init({"a": [jnp.ones(2, jnp.complex64)]})


def test_complex_parameters_are_split_into_real_and_imaginary() -> None:
    optimizer = optax.contrib.split_real_and_imaginary(rules.adam(0.1))
    value = jnp.asarray([1 + 2j, -3 + 0.5j], jnp.complex64)
    updates, _ = optimizer.update(value, optimizer.init(value), value)
    alone: Any = rules.adam(0.1)
    real, _ = alone.update(value.real, alone.init(value.real), value.real)
    imaginary, _ = alone.update(value.imag, alone.init(value.imag), value.imag)
    np.testing.assert_array_equal(updates, real + 1j * imaginary)


@every_optimizer
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
def test_parameters_that_are_not_floats_are_refused(name: str, dtype: Any) -> None:
    with pytest.raises(ValueError, match=rf"'n' of dtype {jnp.dtype(dtype)}.*optax.masked"):
        OPTIMIZERS[name]().init({"w": jnp.ones(2), "n": jnp.ones(2, dtype)})


def test_python_numbers_are_parameters_as_in_optax() -> None:
    params = {"a": 1.0, "b": jnp.ones(2)}
    state = rules.adam(0.1).init(params)
    assert jax.tree.map(jnp.shape, posterior(state).gradient_mean) == {"a": (), "b": (2,)}


def assert_can_be_donated(optimizer: optax.GradientTransformationExtraArgs) -> None:
    def step(params: PyTree, state: PyTree, gradient: PyTree) -> PyTree:
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def train(step: Any) -> PyTree:
        params = tree(0)
        state = optimizer.init(params)
        for t in range(3):
            params, state = step(params, state, tree(t + 1))
        return params, state

    assert_identical(train(jax.jit(step, donate_argnums=(0, 1))), train(jax.jit(step)))


@every_optimizer
def test_parameters_and_state_can_be_donated_together(name: str) -> None:
    assert_can_be_donated(OPTIMIZERS[name]())


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), rules.adam(0.1)], ids=["optax", "rules"])
def test_a_recording_can_be_donated_too(optimizer: Any) -> None:
    assert_can_be_donated(recording.record(optimizer, coordinates={"w": [0, 5]}, capacity=2))


def test_tree_get_reads_the_count_of_a_recorded_optimizer() -> None:
    counting = rules.adam.assumptions(0.1).optimizer(count_missing=True)
    optimizer = recording.record(counting, coordinates={"w": [0, 5]}, capacity=2)
    gradient = {"w": jnp.full((4, 3), jnp.nan), "b": tree(1)["b"]}
    _, state = optimizer.update(gradient, optimizer.init(tree(0)), tree(0))
    assert optax.tree.get(state, "missing") == 12


def test_a_belief_is_kept_once() -> None:
    transform = scale_by_navigation(beliefs.LocalLevel(0.9).shared_filter(), control.myopic())
    state = transform.init({"w": jnp.zeros((100, 100))})
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) <= 100 * 100 * 4 + 64
