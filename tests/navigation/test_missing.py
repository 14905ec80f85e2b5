"""Entries of the gradient that are not finite are not observed, and are counted; so is clipping."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beliefnav import (
    Objective,
    beliefs,
    control,
    navigator,
    posterior,
    recording,
    scale_by_navigation,
)
from beliefnav.rules.catalogue import CATALOGUE

PyTree = Any

ELEMENTWISE = [n for n, entry in CATALOGUE.items() if entry.elementwise and not entry.reading]
every_rule = pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in ("adam", "wiener") else [pytest.mark.slow])
        for n in ELEMENTWISE
    ],
)


def counting(name: str) -> Any:
    """The demonstration of a rule, which counts what is missing."""
    entry = CATALOGUE[name]
    return entry.rule.assumptions(**entry.arguments).optimizer(count_missing=True)


def stream(seed: int, steps: int = 4) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(steps, 6)), jnp.float32)


@functools.cache
def scan(name: str) -> Any:
    """Jitted: a stream [step, entry] -> updates, posteriors and counts of every step."""
    optimizer = counting(name)

    @jax.jit
    def run(gradients: jax.Array) -> tuple[jax.Array, beliefs.Posterior, jax.Array]:
        params = jnp.linspace(-1.0, 1.0, gradients.shape[1])

        def step(state: PyTree, gradient: jax.Array) -> tuple[PyTree, PyTree]:
            updates, state = optimizer.update(gradient, state, params)
            read = posterior(state)._replace(hazard=None)  # a scalar, of all entries
            return state, (updates, read, optax.tree.get(state, "missing"))

        return jax.lax.scan(step, optimizer.init(params), gradients)[1]

    return run


def hurt(gradients: jax.Array, mask: np.ndarray, value: float) -> jax.Array:
    return jnp.where(jnp.asarray(mask), value, gradients)


masks = st.lists(st.booleans(), min_size=24, max_size=24).map(
    lambda flags: np.array(flags).reshape(4, 6)
)
missing_values = st.sampled_from([np.nan, np.inf, -np.inf])


@every_rule
@settings(deadline=None, derandomize=True, max_examples=30, database=None)
@given(mask=masks, value=missing_values)
def test_entries_without_missing_observations_go_on_as_if_alone(
    name: str, mask: np.ndarray, value: float
) -> None:
    # Entries share no arithmetic, so equality is exact.
    whole = scan(name)(stream(0))
    broken = scan(name)(hurt(stream(0), mask, value))
    untouched = ~mask.any(0)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[..., untouched], b[..., untouched]),
        broken[:2],
        whole[:2],
    )
    # Before the first missing observation of an entry nothing has happened to it either.
    before = ~np.logical_or.accumulate(mask, 0)
    np.testing.assert_array_equal(broken[0][before], whole[0][before])


@every_rule
@settings(deadline=None, derandomize=True, max_examples=30, database=None)
@given(mask=masks, value=missing_values)
def test_missing_entries_are_counted_and_keep_every_number_finite(
    name: str, mask: np.ndarray, value: float
) -> None:
    updates, belief, count = scan(name)(hurt(stream(1), mask, value))
    np.testing.assert_array_equal(count, mask.sum(1))
    assert np.isfinite(updates).all()
    mean = belief.distance_mean if belief.gradient_mean is None else belief.gradient_mean
    assert np.isfinite(mean).all()


@pytest.mark.parametrize("name", ["adam", "wiener"])
@settings(deadline=None, derandomize=True, max_examples=30, database=None)
@given(mask=masks, value=missing_values)
def test_a_missing_entry_keeps_its_means(name: str, mask: np.ndarray, value: float) -> None:
    _, belief, _ = scan(name)(hurt(stream(2), mask, value))
    curvature = np.asarray(belief.curvature_mean)
    np.testing.assert_array_equal(curvature[1:][mask[1:]], curvature[:-1][mask[1:]])
    if name != "wiener":  # whose mean is shrunk by a sample size that all entries share
        mean = np.asarray(belief.gradient_mean)
        np.testing.assert_array_equal(mean[1:][mask[1:]], mean[:-1][mask[1:]])


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_a_rule_that_believes_what_was_just_seen_does_not_step_where_nothing_was(
    name: str,
) -> None:
    mask = np.zeros((4, 6), bool)
    mask[2, 1:3] = True
    updates, _, _ = scan(name)(hurt(stream(3), mask, np.nan))
    np.testing.assert_array_equal(np.asarray(updates) == 0, mask)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_huge_gradients_are_missing_only_if_their_squares_overflow(dtype: Any) -> None:
    optimizer = counting("adam")
    params = {"w": jnp.zeros((3, 5), dtype), "b": jnp.zeros((), dtype)}
    largest = min(float(jnp.finfo(dtype).max), 1.8e19)  # the root of the largest float32
    gradient = jax.tree.map(lambda p: jnp.full_like(p, largest), params)
    update = jax.jit(optimizer.update)
    _, state = update(gradient, optimizer.init(params), params)
    assert optax.tree.get(state, "missing") == 0
    gradient["w"] = gradient["w"].at[1, 2].set(-jnp.inf).at[0, 0].set(jnp.nan)
    _, state = update(gradient, state, params)
    assert optax.tree.get(state, "missing") == 2
    gradient["w"] = gradient["w"].at[2, 2].set(jnp.finfo(dtype).max)
    _, state = update(gradient, state, params)
    assert optax.tree.get(state, "missing") == (2 if dtype == jnp.float16 else 3)


@pytest.mark.parametrize("name", ["rmsprop", "wiener"])
@pytest.mark.parametrize("size", [1e25, -3e38])
def test_a_finite_gradient_whose_square_overflows_does_not_poison_its_entry(
    name: str, size: float
) -> None:
    # In optax the second moment is then infinite, and the steps of the entry are 0, not NaN.
    updates, _, count = scan(name)(stream(5).at[1, 3].set(size))
    assert not np.isnan(updates).any()
    np.testing.assert_array_equal(count, [0, 1, 0, 0])


@pytest.mark.parametrize("shape", [(), (1,), (4099,), (2, 3, 5), (4096, 1), (1, 4097)])
def test_missing_entries_are_counted_in_arrays_of_any_shape(shape: tuple[int, ...]) -> None:
    gradient = jnp.ones(shape).reshape(-1).at[-1].set(jnp.nan).reshape(shape)
    optimizer = counting("sgd")
    update = jax.jit(optimizer.update)
    _, state = update(gradient, optimizer.init(gradient), gradient)
    assert optax.tree.get(state, "missing") == 1
    _, state = update(jnp.ones(shape), state, gradient)
    assert optax.tree.get(state, "missing") == 0


def test_nothing_is_counted_unless_asked_for() -> None:
    gradient = jnp.array([1.0, jnp.nan, 1.0, 1.0, 1.0])
    for optimizer in (scale_by_navigation(*INVERTED), navigator(0.1, *INVERTED)):
        state = optimizer.init(gradient)
        _, after = optimizer.update(gradient, state, gradient)
        for told in (state, after):
            assert optax.tree.get(told, "missing") is None
            assert optax.tree.get(told, "clipped") is None


@every_rule
def test_counting_changes_no_bit_of_the_updates(name: str) -> None:
    gradient = jnp.array([1.0, jnp.nan])
    loud, silent = counting(name), CATALOGUE[name].rule(**CATALOGUE[name].arguments)
    state: Any
    updates, state = silent.update(gradient, silent.init(gradient), jnp.ones(2))
    expected, counted = loud.update(gradient, loud.init(gradient), jnp.ones(2))
    assert state[0].missing is None
    assert counted[0].missing == 1
    np.testing.assert_array_equal(updates, expected)


@pytest.mark.parametrize("empty", [{}, {"a": None, "b": ()}, {"none": jnp.zeros((0, 3))}])
def test_there_is_nothing_to_count_where_there_are_no_entries(empty: PyTree) -> None:
    optimizer = counting("adam")
    _, state = jax.jit(optimizer.update)(empty, optimizer.init(empty), empty)
    missing: Any = optax.tree.get(state, "missing")
    assert missing.dtype == jnp.int32 and missing == 0


@pytest.mark.parametrize("counting", [False, True])
def test_a_recording_counts_whatever_the_optimizer_does(counting: bool) -> None:
    """All entries, also of arrays and of steps that it does not keep; nobody else is touched."""
    transform = scale_by_navigation(*INVERTED, count_missing=counting)
    optimizer = recording.record(transform, coordinates={"": [1]}, capacity=1)
    params = jnp.zeros(5)
    state = optimizer.init(params)
    for gradient, missing in (([1, jnp.nan, jnp.inf, 1, 1], 2), ([1, 1, 1, 1, 1], 0)):
        _, state = jax.jit(optimizer.update)(jnp.array(gradient, float), state, params)
        assert optax.tree.get(state, "missing") == missing
        assert optax.tree.get(state, "clipped") == 3


class Curved:
    """A belief in the gradient that was just seen, and in a given curvature."""

    def __init__(self, curvature: Any) -> None:
        self.curvature = jnp.asarray(curvature)

    def filter(self) -> beliefs.Filter:
        constant = self.curvature

        class Constant:
            def posterior(self) -> beliefs.Posterior:
                return beliefs.Posterior(curvature_mean=constant)

        jax.tree_util.register_static(Constant)
        other = beliefs.Filter(
            lambda params: Constant(),
            lambda state, displacement: state,
            lambda predicted, gradient, curvature: predicted,
        )
        as_seen = beliefs.OrnsteinUhlenbeck(0.0, 1.0, 0.0)
        return beliefs.independent(gradient=as_seen, curvature=other).filter()


CURVATURE = [-2.0, -0.05, 0.0, 0.5, 3.0]
INVERTED = Curved(CURVATURE), control.newton()
discounted = Objective(rate=1.0, gain=1.0, discount=1.0)  # bounded above -1/4


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (control.ballistic(eps=1.0), 2),
        (control.newton(), 3),
        (control.horizon(discounted), 1),
        (control.horizon(discounted, exact_hold=True), 1),
        (control.myopic(), 0),
    ],
    ids=["ballistic", "newton", "horizon", "horizon, held", "myopic"],
)
def test_clipped_curvatures_are_counted(policy: control.Policy, expected: int) -> None:
    transform: Any = scale_by_navigation(Curved(CURVATURE), policy, count_missing=True)
    params = jnp.zeros(5)
    state = transform.init(params)
    _, new = jax.jit(transform.update)(jnp.ones(5), state, params)
    assert state.clipped == 0 and new.clipped.dtype == jnp.int32
    assert new.clipped == expected


@pytest.mark.parametrize("name", ["adam", "wiener"])
def test_rules_on_second_moments_never_clip_and_look_at_none(name: str) -> None:
    optimizer = counting(name)
    gradient = jnp.zeros(3)
    _, state = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert CATALOGUE[name].rule.assumptions(0.1).policy.clipped is None
    assert state[0].clipped == 0


def test_a_belief_without_curvature_is_never_clipped_by_a_horizon() -> None:
    plan = control.horizon(discounted)
    optimizer: Any = navigator(1.0, beliefs.LocalLevel(0.9), plan, count_missing=True)
    _, state = optimizer.update(jnp.ones(3), optimizer.init(jnp.zeros(3)), jnp.zeros(3))
    assert state[0].clipped == 0


# --- entries that are too large or too small to be squared --------------------------------------


@pytest.mark.usefixtures("dtype_promotion")
@pytest.mark.parametrize("name", CATALOGUE)
def test_one_entry_whose_square_overflows_is_not_observed(name: str):
    """The parameter has moved no further than in a few steps, and moves again; so do the others.

    An entry whose square underflows makes no step that is longer than those of others.
    """
    entry = CATALOGUE[name]
    optimizer: Any = entry.rule(**entry.arguments)
    reading = {"diagonal": jnp.ones((2, 2)), "matrix": jnp.eye(4), None: None}[entry.reading]
    extra = {} if reading is None else {"curvature": reading}
    rng = np.random.default_rng(0)
    gradients = 0.1 * rng.normal(size=(60, 2, 2)) + 0.1
    gradients[20, 0, 0] = 1e25
    gradients[40:43, 1, 1] = np.finfo(np.float32).max

    def path(gradients: Any) -> np.ndarray:
        def step(carry: Any, gradient: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(gradient, state, params, **extra)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        start = jnp.ones((2, 2), jnp.float32)
        run = jax.jit(lambda y: jax.lax.scan(step, (start, optimizer.init(start)), y)[1])
        return np.asarray(run(jnp.asarray(gradients, jnp.float32)))

    # Too small to be squared, before anything else was seen: no step is longer than others are.
    small = np.where(gradients > 1e19, 0.1, gradients)
    small[:30, 0, 1] = 1e-24
    moved = np.abs(np.diff(path(small), axis=0))
    assert np.all(np.isfinite(moved))
    assert moved[:29, 0, 1].max() <= 3 * np.delete(moved.reshape(-1, 4), 1, 1).max()
    assert moved[-5:, 0, 1].max() > 0

    with_them, without = path(gradients), path(np.where(gradients > 1e19, np.nan, gradients))
    np.testing.assert_array_equal(with_them, without)
    assert np.all(np.isfinite(with_them))
    moved = np.abs(np.diff(with_them, axis=0))
    for t in (19, 39, 40, 41):  # on a loss without a minimum steps may grow, and forever
        assert moved[t].max() <= 3 * np.median(moved[t - 8 : t + 9].max((1, 2)))
    assert moved[25:39, 0, 0].max() > 0 and moved[-5:, 1, 1].max() > 0
