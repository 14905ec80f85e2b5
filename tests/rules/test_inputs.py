"""What a person hands to a rule: Python numbers, numpy arrays, wrong numbers, misspelt names."""

import dataclasses
import functools
import inspect
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import Posterior, control, recording, rules, wrappers
from beliefnav._checks import POSITIVE, UNIT_INTERVAL
from beliefnav.rules.catalogue import CATALOGUE
from beliefnav.wrappers.partial_switches import layer_hypotheses
from tests.contract import catalogue

PARAMS = {"a": 3.0, "b": np.array([1.0, 2.0]), "c": np.float32(0.5)}
GRADIENT = {"a": 6.0, "b": np.array([1.0, -1.0]), "c": np.float32(2.0)}


def steps(optimizer: Any, convert: Any, **extra_args: Any) -> Any:
    """Two steps, on trees that are converted; the state in between as a file may give it back."""
    params, gradient = convert(PARAMS), convert(GRADIENT)
    state = optimizer.init(params)
    _, state = optimizer.update(gradient, state, params, **extra_args)
    if convert is given:
        state = jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), state)
    return optimizer.update(gradient, state, params, **extra_args)


def given(tree: Any) -> Any:
    return tree


def is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def as_arrays(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def check_same(optimizer: Any, **extra_args: Any) -> None:
    got = steps(optimizer, given, **extra_args)
    jax.tree.map(np.testing.assert_array_equal, got, steps(optimizer, as_arrays, **extra_args))


@pytest.mark.parametrize("name", CATALOGUE)
def test_numbers_and_numpy_arrays_are_arrays(name: str) -> None:
    entry = CATALOGUE[name]
    readings: dict[str, Any] = {
        "diagonal": {"curvature": GRADIENT},
        "matrix": {"curvature": 2 * np.eye(4)},
    }
    check_same(entry.rule(**entry.arguments), **readings.get(entry.reading or "", {}))


@pytest.mark.usefixtures("dtype_promotion")  # the code of optax
def test_wrappers_take_them_too() -> None:
    def loss(params: Any) -> Any:
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    switching = wrappers.two_hypothesis(optax.adam(0.1), hazard=0.1, examples=2)
    check_same(switching, value=loss(PARAMS), value_fn=loss)
    key = jax.random.key(0)
    check_same(recording.record(rules.adam(0.1), coordinates=1, capacity=3, key=key))


WRONG = ("0.1", b"0.1", 1j, [], {}, object(), [object()], np.array(["0.1"]), np.array([1j]))
"""What is no number and no array of real ones."""
TREES = ([0.5], {"a": 0.5}, (0.5,))
"""Trees of numbers, which only an argument that says so may be."""


def refused(build: Any, owner: str, name: str, values: Any, kind: type[Exception]) -> None:
    for value in values:
        with pytest.raises(kind) as error:
            build(**{name: value})
        said = str(error.value)
        assert said.startswith(f"{owner}: {name} must be ") and "\n" not in said, said
        assert len(said) < 250, said


def test_what_is_no_number_is_named_by_every_rule() -> None:
    """And what is out of range, in an array as by itself; see `test_catalogue` for the bounds."""
    for owner, entry in CATALOGUE.items():
        parameters = inspect.signature(entry.rule.assumptions).parameters
        for name in entry.rule.ranges:
            annotation = parameters[name].annotation
            build = functools.partial(entry.rule, **{**entry.arguments, name: None})
            wrong: list[Any] = list(WRONG)
            if type(None) not in get_args(annotation):
                wrong.append(None)
            if annotation is not optax.ScalarOrSchedule:
                wrong.append(optax.constant_schedule(0.1))
            wrong += TREES if annotation is not Any else ()
            refused(build, owner, name, wrong, TypeError)
            nans = (
                np.nan,
                np.float32(np.nan),
                jnp.full((30, 2), jnp.nan),
                np.array([1.0, np.nan]),
            )
            refused(build, owner, name, nans, ValueError)


def test_what_is_no_number_is_named_by_every_belief() -> None:
    for belief in map(catalogue.build, catalogue.ALONE):
        fields = {field.name: field.type for field in dataclasses.fields(belief)}
        ranges: Any = getattr(belief, "ranges", {})
        for name in ranges:
            build = functools.partial(dataclasses.replace, belief)
            wrong, nans = WRONG, (np.nan, np.float32(np.nan))
            if fields[name] is int:  # of arrays in static fields equinox warns first
                wrong, nans = wrong[:-2], nans[:-1]
            none = [] if type(None) in get_args(fields[name]) else [None]
            more = () if fields[name] is Any else (*TREES, lambda: 0.5)
            refused(build, type(belief).__name__, name, [*wrong, *none, *more], TypeError)
            refused(build, type(belief).__name__, name, nans, ValueError)


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": -1.0}, {"learning_rate": np.nan}, {"learning_rate": 0.1, "b1": 1.5}],
)
def test_injected_numbers_are_checked_at_init(wrong: dict[str, float]) -> None:
    name = list(wrong)[-1]
    with pytest.raises(ValueError, match=f"adam: {name} must be"):
        optax.inject_hyperparams(rules.adam)(**wrong).init(jnp.ones(2))


def test_a_schedule_may_begin_at_zero() -> None:
    rising = optax.linear_schedule(0.0, 0.1, 10)
    optimizer = optax.inject_hyperparams(rules.adam)(learning_rate=rising)
    update, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_array_equal(update, 0)


@pytest.mark.parametrize(
    ("allowed", "value", "held"),
    [
        (POSITIVE, 0.0, False),
        (POSITIVE, np.float32(0.0), True),  # the limit: a schedule may begin there
        (POSITIVE, np.float32(-1e-30), False),
        (POSITIVE, np.array([1.0, np.inf]), True),  # the other limit
        (POSITIVE, np.array([1.0, -np.inf]), False),
        (UNIT_INTERVAL, np.array([0.0, 1.0]), True),
        (UNIT_INTERVAL, np.array([0.5, np.nan]), False),
        (UNIT_INTERVAL, jnp.array(1.5), False),
        (UNIT_INTERVAL, np.zeros(0), True),
    ],
)
def test_known_arrays_are_checked(allowed: Any, value: Any, held: bool) -> None:
    if held:
        allowed.check("owner", "name", value)
    else:
        with pytest.raises(ValueError, match="owner: name must be"):
            allowed.check("owner", "name", value)


def test_traced_numbers_pass() -> None:
    jax.jit(lambda x: UNIT_INTERVAL.check("owner", "name", x))(2.0)


@pytest.mark.parametrize("name", ["per_example_grad", "curvatures", "displacment"])
def test_a_misspelt_reading_is_refused(name: str) -> None:
    optimizer = rules.adam(0.1)
    with pytest.raises(TypeError, match=f"unexpected argument '{name}'; did you mean"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2), **{name: 1.0})


@pytest.mark.parametrize("name", ["task_begin", "example"])
@pytest.mark.parametrize("wrapper", [wrappers.two_hypothesis, layer_hypotheses])
def test_a_wrapper_refuses_what_is_misspelt(wrapper: Any, name: str) -> None:
    """Nothing inside of it would: optax.sgd takes anything."""
    optimizer, params = wrapper(optax.sgd(0.1), 0.01, 8), jnp.ones(2)
    state, told = optimizer.init(params), {"value": 1.0, "value_fn": jnp.sum, name: 1}
    with pytest.raises(TypeError, match=f"unexpected argument '{name}'; did you mean"):
        optimizer.update(params, state, params, **told)


def test_arguments_of_others_in_a_chain_pass() -> None:
    optimizer = rules.adam(0.1)
    others: dict[str, Any] = {"value": 1.0, "grad": 2.0, "curvature_fn": None}
    optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2), **others)


class Network(eqx.Module):
    """Trees that may be called, as networks are."""

    weight: Any

    def __call__(self, x: Any) -> Any:
        raise AssertionError("a tree was taken for a function")


def test_a_module_is_a_tree_and_no_function() -> None:
    """A mask and a metric of the person's own class."""
    params: Any = Network(jnp.ones(2))
    switching = wrappers.two_hypothesis(optax.sgd(0.1), hazard=0.5, examples=1, mask=Network(False))

    def loss(_: Any) -> Any:
        return jnp.zeros(())

    update: Any
    update, _ = switching.update(
        params, switching.init(params), params, value=jnp.ones(()), value_fn=loss
    )
    np.testing.assert_allclose(update.weight, -0.1)  # no reset, although a switch is likely

    policy = control.myopic(metric=Network(jnp.full(2, 4.0)))
    step = policy.step(Posterior(gradient_mean=params), params)
    np.testing.assert_array_equal(step.weight, 0.25)


@pytest.mark.parametrize("diagonal", [False, True])
def test_newton_asks_for_the_curvature(diagonal: bool) -> None:
    """Without one it would stand still, and say nothing."""
    optimizer = rules.newton(diagonal=diagonal)
    params = gradient = jnp.array([1.0, 2.0])
    state = optimizer.init(params)
    with pytest.raises(TypeError, match="without curvature.*curvature=None at a step without"):
        optimizer.update(gradient, state, params)
    reading = jnp.full(2, 2.0) if diagonal else 2 * jnp.eye(2)
    first, state = optimizer.update(gradient, state, params, curvature=reading)
    again, _ = optimizer.update(gradient, state, params, curvature=None)
    for step in (first, again):
        np.testing.assert_allclose(np.asarray(step), -gradient / 2)


def test_a_number_is_no_drift() -> None:
    """Neither where an optimizer is made of it nor where it is told in words."""
    assumptions: Any = rules.adam.assumptions(0.1)._replace(drift=0.01)
    for ask in (assumptions.optimizer, assumptions.facts, assumptions.__str__):
        with pytest.raises(TypeError, match=r"such as Decay\(0.01\), got 0.01"):
            ask()
