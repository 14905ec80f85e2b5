"""Movement that no optimizer made: told from its own, learned, countered, and not invented."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import explain, rules
from beliefnav.beliefs.drift.coupled import CoupledDrift
from beliefnav.beliefs.drift.elementwise import ElementwiseDrift
from beliefnav.wrappers import uncontrolled
from beliefnav.wrappers.uncontrolled import DRIFT

PyTree = Any
drift_countering: Any = uncontrolled.drift_countering

TARGET = {"w": np.linspace(-2, 2, 12).reshape(3, 4), "b": np.array([1.0, -0.5])}
START = {"w": np.random.default_rng(0).normal(size=(3, 4)), "b": np.array([0.5, -1.5])}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "moments": lambda: optax.adam(0.02),
    "own decay": lambda: optax.adamw(0.02, weight_decay=0.1),
    "momentum, schedule": lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 300), momentum=0.9),
    "a belief": lambda: rules.adam(0.02),
}


def still(params: PyTree, key: Any) -> PyTree:
    del key
    return params


def decaying(rate: float, noise: float = 0.0) -> Callable[[PyTree, Any], PyTree]:
    """Lose a share between updates, and be disturbed."""

    def process(params: PyTree, key: Any) -> PyTree:
        noises = optax.tree.random_like(key, params)
        return jax.tree.map(lambda p, e: (1 - rate) * p + noise * e, params, noises)

    return process


def follow(
    optimizer: Any,
    process: Callable[[PyTree, Any], PyTree] = still,
    steps: int = 200,
    dtype: Any = jnp.float32,
) -> tuple[PyTree, Any]:
    """Where the process left the parameters at every step [step, ...], and the last state."""

    def step(carry: Any, key: Any) -> Any:
        params, state = carry
        gradient_key, process_key = jax.random.split(key)
        noise = optax.tree.random_like(gradient_key, params)
        gradient = jax.tree.map(
            lambda p, t, e: p - jnp.asarray(t, p.dtype) + (0.1 * e).astype(p.dtype),
            params,
            TARGET,
            noise,
        )
        updates, state = optimizer.update(gradient, state, params)
        params = process(optax.apply_updates(params, updates), process_key)
        return (params, state), params

    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), START)
    keys = jax.random.split(jax.random.key(1), steps)
    scan = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), keys))
    (_, state), path = scan(params)
    return path, state


def difference(one: PyTree, other: PyTree) -> float:
    """The largest difference of two paths."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.subtract(a, b, dtype=float)).max()) for a, b in pairs)


# --- where nothing drifts -----------------------------------------------------------------------


@pytest.mark.usefixtures("dtype_promotion")  # the code of optax
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_a_drift_every_step_is_that_of_the_optimizer_inside(name: str, dtype: Any) -> None:
    """Bit for bit, step by step; its own decay, momentum and schedule are no drift."""
    plain, countering = OPTIMIZERS[name](), drift_countering(OPTIMIZERS[name]())
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), START)
    states = plain.init(params), countering.init(params)
    for t in range(8):
        gradient = jax.tree.map(
            lambda p, x, t=t: (p - jnp.asarray(x, dtype)) * (1 + t % 3), params, TARGET
        )
        (one, first), (other, second) = (
            o.update(gradient, s, params) for o, s in zip((plain, countering), states, strict=True)
        )
        jax.tree.map(np.testing.assert_array_equal, one, other)
        states, params = (first, second), optax.apply_updates(params, one)
    assert not any(np.any(x) for x in states[1].drift_belief.drift_projection[0].values())


@pytest.mark.usefixtures("dtype_promotion")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_a_drift_a_compiled_run_stays_with_the_plain_one(name: str) -> None:
    """Within 200 roundings of parameters of size 2: the compiler may round the sum otherwise."""
    plain = follow(OPTIMIZERS[name]())[0]
    countered = follow(drift_countering(OPTIMIZERS[name]()))[0]
    assert difference(plain, countered) <= 200 * 2.4e-7


# --- where something drifts ---------------------------------------------------------------------


@pytest.mark.usefixtures("x64", "dtype_promotion")
@pytest.mark.parametrize("rate", [0.01, -0.01, 0.2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_decay_is_learned_and_the_path_becomes_that_without_it(name: str, rate: float) -> None:
    """From the second step on, to 1e-6; without the wrapper it is far off."""
    belief = ElementwiseDrift(0.1)
    inner = OPTIMIZERS[name]
    _, state = follow(drift_countering(inner(), belief), decaying(rate), dtype=jnp.float64)
    for mean in jax.tree.leaves(belief.posterior(state.drift_belief).rate_mean):
        np.testing.assert_allclose(mean, -rate, rtol=1e-6)
    # The last updates send the parameters where the process then brings them to the aim.
    countered, _ = follow(drift_countering(inner(), belief), decaying(rate), dtype=jnp.float64)
    ignored, _ = follow(inner(), decaying(rate), dtype=jnp.float64)
    plain, _ = follow(inner(), dtype=jnp.float64)
    last = [jax.tree.map(lambda x: x[-1], path) for path in (countered, ignored, plain)]
    # What differs is what the first, unknown, step left, which the optimizer forgets.
    assert difference(last[0], last[2]) < 0.05 * difference(last[1], last[2])


@pytest.mark.usefixtures("x64", "dtype_promotion")
def test_a_learned_decay_is_countered_exactly() -> None:
    """The update after which a decay of 0.2 leads to the aim of the optimizer inside, to 1e-9."""
    optimizer = drift_countering(optax.sgd(0.1), ElementwiseDrift(1.0))
    params = jnp.array([2.0, -1.0])
    state = optimizer.init(params)
    for t in range(4):
        gradient = jnp.array([0.5, 1.0])
        updates, state = optimizer.update(gradient, state, params)
        sent: Any = optax.apply_updates(params, updates)
        after = 0.8 * sent
        if t >= 2:
            np.testing.assert_allclose(after, params - 0.1 * gradient, rtol=1e-9)
        params = after


@pytest.mark.usefixtures("x64", "dtype_promotion")
def test_a_constant_drift_and_a_decay_to_elsewhere_are_countered() -> None:
    """Toward 3 by 5 % a step, of weights that rest where they are sent."""

    def toward(params: PyTree, key: Any) -> PyTree:
        del key
        return jax.tree.map(lambda p: p + 0.05 * (3 - p), params)

    belief = ElementwiseDrift(0.1, 0.5)
    path, state = follow(drift_countering(optax.adam(0.02), belief), toward, 400, jnp.float64)
    plain, _ = follow(optax.adam(0.02), steps=400, dtype=jnp.float64)
    ignored, _ = follow(optax.adam(0.02), toward, 400, jnp.float64)
    believed = belief.posterior(state.drift_belief)
    for mean in jax.tree.leaves(believed.rate_mean):
        np.testing.assert_allclose(mean, -0.05, rtol=1e-5)
    for mean in jax.tree.leaves(believed.offset_mean):
        np.testing.assert_allclose(mean, 0.15, rtol=1e-5)
    last = [jax.tree.map(lambda x: x[-1], p) for p in (path, ignored, plain)]
    assert difference(last[0], last[2]) < 0.05 * difference(last[1], last[2])


@pytest.mark.usefixtures("dtype_promotion")
def test_it_only_learns_where_it_is_told_not_to_counter() -> None:
    silent, plain = drift_countering(optax.adam(0.02), strength=0.0), optax.adam(0.02)
    with jax.disable_jit():
        one, other = (follow(x, decaying(0.01), steps=30)[0] for x in (silent, plain))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    path, state = follow(silent, decaying(0.01))
    # A compiler rounds the sums of two programs in two ways: one rounding of 2 at every step.
    assert difference(path, follow(plain, decaying(0.01))[0]) <= 200 * 2.4e-7
    for mean in jax.tree.leaves(DRIFT.posterior(state.drift_belief).rate_mean):
        np.testing.assert_allclose(mean, -0.01, rtol=1e-3)


@pytest.mark.usefixtures("dtype_promotion")
def test_noise_is_no_drift() -> None:
    """400 disturbances of 0.01: rates are 0 to 4.5 deviations, and almost none is countered."""
    cautious = drift_countering(optax.adam(0.02), deviations=4.5)
    path, state = follow(cautious, decaying(0.0, 0.01), 400)
    believed = DRIFT.posterior(state.drift_belief)
    for mean, variance in zip(
        *map(jax.tree.leaves, (believed.rate_mean, believed.rate_variance)), strict=True
    ):
        assert (np.abs(mean) < 4.5 * np.sqrt(variance)).all()
    for variance in jax.tree.leaves(believed.noise_variance):
        np.testing.assert_allclose(np.sqrt(variance), 0.01, rtol=0.15)
    plain, _ = follow(optax.adam(0.02), decaying(0.0, 0.01), 400)
    spreads = [np.std(p["w"][200:], axis=0).mean() for p in (path, plain)]
    np.testing.assert_allclose(*spreads, rtol=0.1)


def test_another_writer_is_told_from_the_step() -> None:
    """Weights are written back to halfway between updates; the step itself is no part of it."""
    optimizer = drift_countering(optax.sgd(1.0), ElementwiseDrift(1.0))
    params = jnp.array([1.0, -2.0])
    state = optimizer.init(params)
    for _ in range(4):
        updates, state = optimizer.update(jnp.array([0.25, 0.5]), state, params)
        sent = params + updates
        np.testing.assert_allclose(state.sent_params, sent)
        params = 0.5 * sent
    _, state = optimizer.update(jnp.zeros(2), state, params)
    rates = ElementwiseDrift(1.0).posterior(state.drift_belief).rate_mean
    np.testing.assert_allclose(rates, -0.5, rtol=1e-6)


# --- inputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_an_entry_that_is_not_finite_says_nothing_and_spoils_nothing(entry: float) -> None:
    optimizer = drift_countering(optax.sgd(0.1), ElementwiseDrift(0.1))
    params = jnp.array([1.0, 1.0])
    state = optimizer.init(params)
    for t in range(6):
        updates, state = optimizer.update(jnp.zeros(2), state, params)
        params = jnp.array([0.99, 1.0]) * (params + updates)
        params = params.at[1].set(entry if t == 2 else 1.0)
    believed = ElementwiseDrift(0.1).posterior(state.drift_belief)
    np.testing.assert_allclose(believed.rate_mean, [-0.01, 0.0], atol=1e-5)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.drift_belief))
    # The first update has nothing to compare with, and two readings lack their end or start.
    np.testing.assert_allclose(state.drift_belief.drift_readings, [5, 3], rtol=1e-2)


def test_frozen_parameters_and_masks_pass_through() -> None:
    def run(optimizer: Any, params: Any) -> Any:
        state = optimizer.init(params)
        for _ in range(5):
            updates, state = optimizer.update(params, state, params)
            params = jax.tree.map(lambda p, u: 0.9 * (p + u), params, updates)
        return params["w"]

    rule = drift_countering(optax.sgd(0.1))
    whole = {"w": jnp.array([1.0, -2.0]), "still": jnp.array([100.0])}
    masked: Any = optax.masked(rule, {"w": True, "still": False})
    alone = run(rule, {"w": whole["w"]})
    np.testing.assert_array_equal(alone, run(rule, {"w": whole["w"], "still": None}))
    np.testing.assert_array_equal(alone, run(masked, whole))


def test_it_is_vmapped_and_its_names_are_found() -> None:
    optimizer = drift_countering(rules.adam(0.1))

    def steps(params: Any, rate: Any) -> Any:
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(params - 1, state, params)
            params = (1 - rate) * (params + updates)
        return params, state

    start, rates = jnp.ones((2, 3)), jnp.array([0.0, 0.01])
    together, state = jax.vmap(steps)(start, rates)
    np.testing.assert_allclose(together[1], steps(start[1], rates[1])[0], rtol=1e-5)
    assert optax.tree.get(state, "drift_steps").tolist() == [3, 3]
    for name in ("drift_belief", "sent_params", "drift_readings", "drift_residual"):
        assert optax.tree.get(state, name) is not None


@pytest.mark.usefixtures("dtype_promotion")
def test_it_passes_on_what_it_does_not_use() -> None:
    inner = optax.polyak_sgd()
    optimizer = drift_countering(inner)
    params = jnp.array([1.0, 2.0])
    given: Any = {"value": jnp.array(2.5)}
    one = optimizer.update(params, optimizer.init(params), params, **given)[0]
    other = inner.update(params, inner.init(params), params, **given)[0]
    np.testing.assert_array_equal(one, other)


def test_abstract_and_empty_parameters_are_taken() -> None:
    optimizer = drift_countering(optax.adam(0.1))
    state = jax.eval_shape(optimizer.init, jnp.ones(3))
    assert state.sent_params.shape == (3,)
    updates, _ = optimizer.update({}, optimizer.init({}), {})
    assert updates == {}


def test_it_says_what_it_assumes() -> None:
    told = str(explain(drift_countering, rules.adam, 1e-3, strength=0.5))
    assert re.search(r"drift rate +within 0\.01", told)
    assert re.search(r"drift memory +memory 1,000 steps", told)
    assert re.search(r"drift countered +0\.5", told)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: drift_countering(3.0), "inner must be an optax optimizer"),
        (lambda: drift_countering(optax.sgd(1.0), CoupledDrift()), "must be a beliefs.drift"),
        (lambda: drift_countering(optax.sgd(1.0), strength=1.5), r"strength must be in \[0, 1\]"),
        (lambda: drift_countering(optax.sgd(1.0), deviations=-1.0), "deviations must be a non-neg"),
        (lambda: drift_countering(optax.sgd(1.0), strength=lambda _: 1.0), "must be a number"),
        (lambda: drift_countering(optax.sgd(1.0)).init(jnp.ones(2, int)), "of dtype int"),
        (
            lambda: drift_countering(optax.sgd(1.0)).update(
                jnp.ones(2), drift_countering(optax.sgd(1.0)).init(jnp.ones(2))
            ),
            "without params",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(call: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        call()
