"""What optax asks of the optimizers that are contributed to it, asked of every rule.

Its cases about convergence and about extra arguments are laws of `tests.rules`; here are those
about dtypes, accumulation, schedules and injected numbers.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import rules
from tests.sharding.listed import RULES

PyTree = Any

KINDS = ("adam", "ballistic", "ivon", "secant", "shampoo")  # the others only on request
every_rule = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in KINDS else [pytest.mark.slow]) for n in RULES]
)


def made(name: str, **arguments: Any) -> Any:
    """A rule, called as a person does."""
    rate = {} if name == "hazard_filter" else {"learning_rate": 0.01}
    return getattr(rules, name)(**(rate | dict(RULES[name].arguments) | arguments))


def given(name: str, params: PyTree) -> dict[str, PyTree]:
    """The reading of a second sensor, for a rule that needs one."""
    reading = RULES[name].reading
    if reading is None:
        return {}
    if reading == "matrix":
        size = sum(x.size for x in jax.tree.leaves(params))
        return {"curvature": 2 * jnp.eye(size, dtype=jax.tree.leaves(params)[0].dtype)}
    return {"curvature": jax.tree.map(lambda x: 2 * jnp.ones_like(x), params)}


def parabola(dtype: Any) -> tuple[PyTree, PyTree]:
    """Parameters, and the gradient of |x - (1, -1, 1)|^2 there."""
    params = jnp.asarray([-1.0, 10.0, 1.0], dtype)
    return params, 2 * (params - jnp.asarray([1.0, -1.0, 1.0], dtype))


DTYPES = [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64]


@every_rule
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_a_state_can_be_one_branch_of_a_condition(name: str, dtype: Any) -> None:
    """Shapes, dtypes and weak types stay, of the state as of the parameters."""
    with jax.enable_x64(dtype == jnp.float64):
        params, gradient = parabola(dtype)
        optimizer, readings = made(name), given(name, params)

        @jax.jit
        def step(skip: jax.Array, params: PyTree, state: PyTree) -> PyTree:
            return jax.lax.cond(
                skip,
                lambda: (jnp.zeros_like(params), state),
                # A loss of another dtype, which some hosts hand to all their optimizers.
                lambda: optimizer.update(
                    gradient, state, params, value=jnp.ones((), jnp.float16), **readings
                ),
            )

        state = optimizer.init(params)
        for skip in (False, True, False):
            updates, state = step(jnp.asarray(skip), params, state)
            assert updates.dtype == dtype
            params = optax.apply_updates(params, updates)
        assert jax.tree.leaves(params)[0].dtype == dtype
        assert np.isfinite(np.asarray(params, np.float64)).all()


@every_rule
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=lambda d: d.__name__)
def test_accumulated_steps_are_none_until_the_last(name: str, dtype: Any) -> None:
    optimizer = optax.MultiSteps(made(name), every_k_schedule=4)
    params, gradient = parabola(dtype)
    state = jax.jit(optimizer.init)(params)
    update = jax.jit(optimizer.update)
    for last in (False, False, False, True):
        updates, state = update(gradient, state, params, **given(name, params))
        assert updates.dtype == dtype
        assert np.any(np.asarray(updates) != 0) == last


@every_rule
def test_a_constant_schedule_is_a_number(name: str) -> None:
    """Where the annotation says that there may be a schedule, which is where optax looks for it."""
    argument = inspect.signature(getattr(rules, name)).parameters.get("learning_rate")
    if argument is None or argument.annotation != optax.ScalarOrSchedule:
        assert name in ("bayesian_learning_rule", "hazard_filter", "secant")
        return
    params, gradient = parabola(jnp.float32)
    steps = []
    for rate in (0.01, optax.constant_schedule(0.01)):
        optimizer = made(name, learning_rate=rate)
        update = jax.jit(optimizer.update)
        readings = given(name, params)
        _, state = update(gradient, optimizer.init(params), params, **readings)
        steps.append(update(gradient, state, params, **readings)[0])
    # One product in float32.
    np.testing.assert_allclose(*steps, rtol=1e-6)


@every_rule
def test_injected_numbers_are_those_that_were_given(name: str) -> None:
    """The tolerance is that of optax: relative 1e-5 for updates, and absolute too for states."""
    rate = {} if name == "hazard_filter" else {"learning_rate": 0.01}
    arguments = rate | dict(RULES[name].arguments)
    static = tuple(k for k, v in arguments.items() if callable(v))
    injected = optax.inject_hyperparams(getattr(rules, name), static_args=static)(**arguments)
    plain = made(name)
    params = [-jnp.ones((2, 3)), jnp.ones((2, 5, 2))]
    gradient = jax.tree.map(jnp.negative, params)
    readings = given(name, params)
    state: Any = jax.jit(injected.init)(params)
    assert state.hyperparams
    updates, state = jax.jit(injected.update)(gradient, state, params, **readings)
    expected, after = jax.jit(plain.update)(
        gradient, jax.jit(plain.init)(params), params, **readings
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), updates, expected
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        state.inner_state,
        after,
    )


@pytest.mark.parametrize("memory", [2, 10, 100, 1000, 2000, 10_000])
def test_the_sample_size_of_an_injected_average_is_the_one_that_was_meant(memory: int) -> None:
    """Exactly, in float32, and it stays: a step then moves it by less than half a digit.

    The quotient 1/(1 - b) of the rounded b is off by up to 2^-25 n^2.
    """
    injected: Any = optax.inject_hyperparams(rules.ballistic)(0.1, 1 - 1 / memory)
    params = jnp.ones(2)
    state, update = jax.jit(injected.init)(params), jax.jit(injected.update)
    for _ in range(3):
        assert optax.tree.get(state, "degrees_of_freedom") == memory
        _, state = update(params, state, params)


@every_rule
def test_every_number_of_a_state_is_found_by_optax(name: str) -> None:
    """``tree.map_params`` meets the arrays of the parameters' shapes, and nothing is lost."""
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(4)}
    optimizer = made(name)
    state = optimizer.init(params)
    same = optax.tree.map_params(optimizer, lambda x: x, state)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    found: list[tuple[int, ...]] = []
    optax.tree.map_params(optimizer, lambda x: found.append(x.shape), state)
    wide = [x for x in jax.tree.leaves(state) if x.shape in ((2, 3), (4,))]
    assert len([s for s in found if s in ((2, 3), (4,))]) == len(wide)
