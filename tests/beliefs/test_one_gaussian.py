"""One Gaussian kept: against the equations; and what all beliefs about switching tasks promise."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array, flatten_util

from beliefnav import control, filters, navigator, posterior, recording
from beliefnav.beliefs import (
    HazardGrid,
    RunLengthReset,
    RunLengths,
    SwitchingOptimum,
    TwoHypotheses,
)
from beliefnav.recording import Recording
from tests import oracles
from tests.beliefs import laws

# Steep, turned over, flat, and hardly curved.
MODEL = SwitchingOptimum(
    curvature=np.array([1.7, -0.4, 0.0, 0.03]),
    noise_variance=np.array([0.3, 0.02, 1.0, 0.1]),
    prior_variance=np.array([2.0, 0.7, 3.0, 5.0]),
    hazard=0.2,
    prior_mean=np.array([-0.6, 1.0, 0.4, 0.0]),
)
GRID = HazardGrid(np.array([0.02, 0.1, 0.4]), np.array([3.0, 1.0, 2.0]))
HAZARDS: dict[str, Any] = {"never": 0.0, "rarely": 0.01, "often": 0.3, "always": 1.0, "grid": GRID}
ONE: dict[str, Any] = {"two hypotheses": TwoHypotheses, "reset": RunLengthReset}
ALL: dict[str, Callable[[SwitchingOptimum], Any]] = {
    **ONE,
    "run lengths": partial(RunLengths, capacity=16),
}
# A reset is built as two hypotheses are.
SLOW_RESET = ["two hypotheses", "run lengths", pytest.param("reset", marks=pytest.mark.slow)]


def recorded(seed: int, num_steps: int = 12) -> tuple[Any, Any]:
    y, d = oracles.switching_recording(MODEL, seed, num_steps)
    return jnp.asarray(y), jnp.asarray(d)


def arrays(model: Any) -> Any:
    return jax.tree.map(jnp.asarray, model)


@partial(jax.jit, static_argnames="kind")
def follow(kind: str, model: SwitchingOptimum, y: Array, d: Array) -> Any:
    """What is said of the optimum and of gradient and curvature after every step, and the state."""
    filter_ = ALL[kind](model).filter()

    def step(before: Any, now: Any) -> Any:
        state, params = before
        y, moved = now
        params = params + moved
        state, info = laws.observe(filter_, filter_.predict(state, moved), y)
        return (state, params), (*state.posterior().optimum(params), state.posterior(), info, state)

    moved = jnp.concatenate([jnp.zeros_like(d[:1]), d[:-1]])
    start = jnp.zeros_like(d[0])
    return jax.lax.scan(step, (filter_.init(start), start), (y, moved))[1]


# --- the equations ------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("hazard", HAZARDS)
@pytest.mark.parametrize("kind", ONE)
def test_the_recursion_is_that_of_the_equations(kind: str, hazard: str):
    y, d = recorded(0)
    model = dataclasses.replace(MODEL, hazard=HAZARDS[hazard])
    mean, variance, read, info, state = follow(kind, arrays(model), y, d)
    want = oracles.one_task(oracles.tasks(model), np.asarray(y), np.asarray(d), kind == "reset")
    h = np.asarray(MODEL.curvature)
    # Float64 round-off of a dozen steps; probabilities of 1e-20 from densities or logarithms.
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    close(mean, want.mean)
    close(variance, want.variance)
    close(read.gradient_mean, h * (oracles.positions(np.asarray(d)) - want.mean))
    close(read.gradient_variance, h**2 * want.variance)
    np.testing.assert_array_equal(read.curvature_mean, np.broadcast_to(h, y.shape))
    np.testing.assert_array_equal(read.curvature_variance, 0)
    close(read.hazard, want.hazard @ oracles.tasks(model).hazards)
    close(np.exp(state.hazard_belief.log_weights), want.hazard)
    close(info.log_density, want.log_density)
    close(info.switch_probability, want.switch_probability)
    close(state.switch_probability, want.switch_probability)
    np.testing.assert_array_equal(info.missing, ~np.isfinite(y))
    # Both hypotheses must have won at some step where both are possible, for this to say anything.
    if hazard in ("often", "grid"):
        assert (want.switch_probability > 0.5).any()
        assert ((want.switch_probability > 0) & (want.switch_probability < 0.5)).any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("hazard", ["rarely", "often", "grid"])
def test_the_moments_are_exact_for_two_steps(hazard: str):
    model = dataclasses.replace(MODEL, hazard=HAZARDS[hazard])
    for seed in (1, 2, 3):
        y, d = recorded(seed)
        said = follow("two hypotheses", arrays(model), y, d)
        mean, variance, read, info, _ = jax.tree.map(lambda x: x[:2], said)
        tasks = oracles.tasks(model)
        want, _ = oracles.switch_patterns(tasks, np.asarray(y)[:2], np.asarray(d)[:2])
        # Float64 round-off.
        np.testing.assert_allclose(mean, want.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(variance, want.variance, rtol=1e-12)
        np.testing.assert_allclose(info.log_density, want.log_density, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(info.switch_probability, want.switch_probability, rtol=1e-11)
        np.testing.assert_allclose(read.hazard, want.hazard @ tasks.hazards, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ALL)
def test_nothing_observed_says_nothing_of_a_switch(kind: str):
    y, d = recorded(4)
    for value in (0.2, 0.3):
        model = arrays(dataclasses.replace(MODEL, hazard=value))
        info = follow(kind, model, y.at[5].set(jnp.nan), d)[3]
        # Float64 round-off.
        np.testing.assert_allclose(info.switch_probability[5], value, rtol=1e-12)
        np.testing.assert_allclose(info.log_density[5], 0, atol=1e-13)
        np.testing.assert_array_equal(info.switch_probability[0], 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ALL)
def test_one_task_for_ever_is_an_optimum_that_stays(kind: str):
    y, d = recorded(5)
    _, _, read, info, _ = follow(kind, arrays(dataclasses.replace(MODEL, hazard=0.0)), y, d)
    stays = dataclasses.replace(MODEL, hazard=0.0).linear()
    want, stays = filters.filter_recording(arrays(stays), y, d)
    # Float64 round-off of a dozen steps.
    np.testing.assert_allclose(read.gradient_mean, want.gradient_mean, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(read.gradient_variance, want.gradient_variance, rtol=1e-10)
    density: Any = stays.log_density
    np.testing.assert_allclose(info.log_density, density.sum(1), rtol=1e-10, atol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ALL)
def test_a_new_task_at_every_step_is_the_prior_and_one_observation(kind: str):
    y, d = map(np.asarray, recorded(6))
    mean, variance, _, info, _ = follow(kind, arrays(dataclasses.replace(MODEL, hazard=1.0)), y, d)
    alone = [oracles.tasks(dataclasses.replace(MODEL, hazard=0.0)), y[:1], np.zeros_like(d[:1])]
    for t in range(len(y)):
        # A displacement of its own moves the position, and with it the gradient that is predicted.
        alone[1] = y[t : t + 1] - MODEL.curvature * oracles.positions(d)[t : t + 1]
        want, _ = oracles.switch_patterns(*alone)
        # Float64 round-off of one step.
        np.testing.assert_allclose(mean[t], want.mean[0], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(variance[t], want.variance[0], rtol=1e-12)
        np.testing.assert_allclose(info.log_density[t], want.log_density[0], rtol=1e-12)
    np.testing.assert_array_equal(info.switch_probability[1:], 1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ONE)
def test_what_is_not_seen_is_reset_by_the_probability_of_a_switch(kind: str):
    """That is seen on another parameter; an entry that is missing and one without curvature."""
    filter_ = ONE[kind](MODEL).filter()

    @jax.jit
    def step(state: Any, gradient: Array) -> Any:
        return laws.observe(filter_, filter_.predict(state, jnp.zeros(4)), gradient)

    for first in (-1.2, 0.3, 5.0):
        y = jnp.array([-1.3, 0.2, 0.0, 0.0])
        state = step(filter_.init(jnp.zeros(4)), y)[0]
        old = state.task.mean.at[2].set(1.9)  # of the flat one, from elsewhere
        state = state._replace(task=state.task._replace(mean=old))
        state, info = step(state, jnp.array([first, jnp.nan, 0.7, 0.0]))
        pi, mu = info.switch_probability, jnp.asarray(MODEL.prior_mean)
        stays = 1 - pi if kind != "reset" or pi < 0.5 else 0
        want = (mu + stays * (old - mu))[jnp.array([1, 2])]
        # Float64 round-off of one step.
        np.testing.assert_allclose(state.task.mean[1:3], want, rtol=1e-13)


# --- all of them: trees and dtypes --------------------------------------------------------------


def split(x: Any) -> Any:
    """Four entries in a tree with holes."""
    return {"a": x[..., :2][..., None], "b": [None, x[..., 2], {"c": x[..., 3:]}]}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", SLOW_RESET)
def test_trees_are_believed_as_their_entries_together(kind: str):
    """Of parameters and of hyper-parameters, which may be numbers, too."""
    y, d = recorded(7)
    whole = arrays(dataclasses.replace(MODEL, hazard=GRID, noise_variance=np.full(4, 0.3)))
    h, v0, mu = (split(x) for x in (whole.curvature, whole.prior_variance, whole.prior_mean))
    belief = ALL[kind](SwitchingOptimum(h, 0.3, v0, GRID, mu))

    @jax.jit
    def run(y: Any, d: Any) -> Any:
        state = filters.last_state(belief, y, d)
        params = jax.tree.map(lambda d: d[:-1].sum(0), d)
        return *state.posterior().optimum(params), *state.posterior()[:4], state.posterior().hazard

    mean, variance, read, *_ = jax.tree.map(lambda x: x[-1], follow(kind, whole, y, d))
    # Float64 round-off of sums in another order.
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-11)
    want = *(split(x) for x in (mean, variance, *read[:4])), read.hazard
    jax.tree.map(close, run(split(y), split(d)), want)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("given", "held"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_a_known_curvature_is_held_in_float32_at_least(kind: str, given: str, held: str):
    """To widen a number changes none of its digits; the state keeps no array of the model's."""
    curvature = jnp.asarray([0.1, 1.7], given)
    filter_ = ALL[kind](SwitchingOptimum(curvature, 0.3, 2.0, 0.2)).filter()
    gradient = jnp.ones(2, jnp.float32)
    before = filter_.init(gradient)
    after = filter_.update(filter_.predict(before, gradient), gradient)
    for state in (before, after):
        assert state.known_curvature.dtype == held and state.known_curvature is not curvature
        np.testing.assert_array_equal(state.known_curvature, curvature)


@pytest.mark.parametrize("kind", ALL)
def test_without_parameters_only_time_passes(kind: str):
    filter_ = ALL[kind](SwitchingOptimum(1.7, 0.3, 2.0, 0.25)).filter()

    @jax.jit
    def believe() -> Any:
        first = filter_.update(filter_.predict(filter_.init({}), {}), {})
        state, info = laws.observe(filter_, filter_.predict(first, {}), {})
        return state.posterior(), info

    read, info = believe()
    assert read[:4] == ({}, {}, {}, {})
    # Float32 round-off.
    np.testing.assert_allclose(info.switch_probability, 0.25, rtol=1e-6)
    np.testing.assert_allclose(info.log_density, 0, atol=1e-6)


@pytest.mark.parametrize("kind", SLOW_RESET)
def test_a_state_owns_its_arrays(kind: str):
    """It can be donated, and the hyper-parameters it was made from are used again."""
    model = jax.tree.map(
        partial(jnp.asarray, dtype=jnp.float32), dataclasses.replace(MODEL, hazard=GRID)
    )
    filter_ = ALL[kind](model).filter()
    still = jnp.zeros(4)

    def step(state: Any) -> Any:
        return filter_.update(filter_.predict(state, still), still)

    donating, keeping = jax.jit(step, donate_argnums=0), jax.jit(step)
    want = keeping(keeping(filter_.init(still)))
    for _ in range(2):
        got = donating(donating(filter_.init(still)))
        jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", SLOW_RESET)
def test_streams_side_by_side_have_tasks_of_their_own(kind: str):
    """vmap of a filter is the loop over streams."""
    model = arrays(MODEL)
    y, d = (jnp.stack(x) for x in zip(*(recorded(seed) for seed in (8, 9)), strict=True))
    together = jax.jit(jax.vmap(lambda y, d: filters.last_state(ALL[kind](model), y, d)))(y, d)
    for i in range(2):
        alone = follow(kind, model, y[i], d[i])[-1]
        # Float64 round-off of compiling otherwise.
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b[-1], rtol=1e-11, atol=1e-12),
            together,
            alone,
        )


# --- all of them: numbers -----------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kind", [*SLOW_RESET, pytest.param("few run lengths", marks=pytest.mark.slow)]
)
def test_likelihood_has_the_derivatives_of_finite_differences(kind: str):
    """Of all hyper-parameters, those of a grid included; with slots that are never used."""
    y, d = recorded(10)
    few = kind == "few run lengths"
    belief = partial(RunLengths, capacity=3) if few else ALL[kind]
    model = dataclasses.replace(MODEL, hazard=GRID if kind == "run lengths" else 0.2)
    start, unravel = flatten_util.ravel_pytree(arrays(model))
    way = jnp.cos(jnp.arange(len(start)))

    def value(x: Array) -> Any:
        return filters.log_likelihood(belief(unravel(x)), y, d)

    @jax.jit
    def derivatives(x: Array) -> Any:
        steps = 1e-5 * jnp.concatenate([jnp.eye(len(x)), -jnp.eye(len(x))])
        up, down = jax.vmap(value)(x[None] + steps).reshape(2, -1)
        return *jax.value_and_grad(value)(x), jax.jvp(value, (x,), (way,))[1], (up - down) / 2e-5

    total, gradient, forward, differences = derivatives(start)
    # Central differences: round-off of 1e-16 * 50 / 1e-5, third derivatives times 1e-10.
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(forward, gradient @ way, rtol=1e-10)
    # All but the prior mean and the variance of the flat parameter matter.
    assert (np.abs(gradient) > 1e-6).sum() == len(start) - 2
    if not few:
        density = follow(kind, arrays(model), y, d)[3].log_density
        np.testing.assert_allclose(total, density.sum(), rtol=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_small_variances_keep_their_digits(kind: str):
    """In float32, next to a prior that is wider by more than its precision."""
    model = dataclasses.replace(
        MODEL,
        curvature=np.ones(4),
        noise_variance=np.full(4, 1e-10),
        prior_variance=np.ones(4),
        hazard=1e-3,
    )
    rng = np.random.default_rng(15)
    y = rng.normal(rng.normal(size=4) * 0.1, 1e-5, (12, 4)).astype(np.float32)
    tasks = oracles.tasks(model)
    want = (
        oracles.kept_run_lengths(tasks, y.astype(float), np.zeros((12, 4)), 16)
        if kind == "run lengths"
        else oracles.one_task(tasks, y.astype(float), np.zeros((12, 4)), kind == "reset")
    )
    single = jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), model)
    _, variance, *_ = follow(kind, single, jnp.asarray(y), jnp.zeros((12, 4)))
    # Errors of 1e-5 are known to float32 precision of 0.1, and move probabilities by as much.
    np.testing.assert_allclose(variance, want.variance, rtol=0.02)


@pytest.mark.parametrize("kind", ALL)
def test_a_huge_observation_leaves_a_finite_belief(kind: str):
    """In float32, where its square overflows."""
    y = jnp.zeros((12, 4)).at[3, 0].set(1e30).at[9, 1].set(-1e30)
    h, noise, v0 = (jnp.full(4, x) for x in (1.3, 0.5, 2.0))
    model = arrays(SwitchingOptimum(h, noise, v0, 0.1, jnp.zeros(4)))
    *said, info, state = follow(kind, model, y, jnp.zeros_like(y))
    said = *said, info._replace(surprise=None)  # a square that overflows may say so here
    if kind == "run lengths":  # an empty slot has the logarithm of 0
        assert not np.isnan(state.log_weights).any()
        assert np.isfinite(state.log_weights).any((1, 2)).all()
        state = state._replace(log_weights=None)
    wrong = [
        (jax.tree_util.keystr(path), np.flatnonzero(~np.isfinite(x).reshape(12, -1).all(1)))
        for path, x in jax.tree.leaves_with_path((said, state))
        if not np.isfinite(x).all()
    ]
    assert not wrong


@pytest.mark.parametrize("kind", ALL)
def test_many_huge_observations_leave_a_finite_belief(kind: str):
    """One in every array of parameters: each is within bounds, but not their sum."""
    belief = ALL[kind](SwitchingOptimum(1.3, 0.5, 2.0, 0.1))
    y = [jnp.array([1.0, 1e30, 0.5])] * 10

    @jax.jit
    def run(y: Any) -> Any:
        state = filters.last_state(belief, y, jax.tree.map(jnp.zeros_like, y))
        return state.switch_probability, state.posterior()

    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run(y)))


# --- all of them: recordings and optimizers -----------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", SLOW_RESET)
def test_a_recording_in_parts_is_the_whole(kind: str):
    y, d = recorded(11)
    model = dataclasses.replace(MODEL, hazard=GRID)
    chunks = [Recording(y[i : i + 6], d[i : i + 6]) for i in (0, 6)]
    parts = list(filters.filter_chunks(ALL[kind](model), chunks))
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    want = follow(kind, arrays(model), y, d)[2:4]
    # Float64 round-off of compiling otherwise.
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-11)
    jax.tree.map(close, joined, want)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ALL)
def test_a_forecast_returns_to_the_prior_with_the_hazard(kind: str):
    y, d = recorded(12)
    model = arrays(dataclasses.replace(MODEL, hazard=0.3))
    *now, _, _, states = follow(kind, model, y, d)
    mean, variance = (np.asarray(x[-1]) for x in now[:2])
    ahead = np.random.default_rng(13).normal(size=(4, 4))

    @jax.jit
    def run(state: Any) -> Any:
        return filters.forecast(ALL[kind](model), state, displacement=jnp.asarray(ahead))

    got = run(jax.tree.map(lambda x: x[-1], states))
    kept = 0.7 ** np.arange(1, 5)[:, None]
    want = MODEL.prior_mean + kept * (mean - MODEL.prior_mean)
    if kind == "reset":
        spread = MODEL.prior_variance + kept**2 * (variance - MODEL.prior_variance)
    else:
        apart = kept * (1 - kept) * (mean - MODEL.prior_mean) ** 2
        spread = kept * variance + (1 - kept) * MODEL.prior_variance + apart
    x = oracles.positions(np.asarray(d))[-1] + np.cumsum(ahead, 0)
    h = np.asarray(MODEL.curvature)
    # Float64 round-off of a dozen steps.
    np.testing.assert_allclose(got.gradient_mean, h * (x - want), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(got.gradient_variance, h**2 * spread, rtol=1e-11)
    np.testing.assert_allclose(jnp.asarray(got.hazard), 0.3, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "resetting"),
    [
        ("run lengths", None),
        pytest.param("two hypotheses", 0.1, marks=pytest.mark.slow),
        pytest.param("reset", 0.1, marks=pytest.mark.slow),
    ],
)
def test_an_optimizer_believes_what_a_filter_of_its_recording_does(
    kind: str, resetting: float | None
):
    """And follows an optimum that switches, to where a fraction of it is given up."""
    model = SwitchingOptimum(1.0, 0.1, 4.0, GRID)
    belief, num_steps = ALL[kind](model), 24
    optimizer = recording.record(
        navigator(0.5, belief, control.resetting(resetting)),
        coordinates={"a": [0, 2], "b": [0]},
        capacity=num_steps,
    )
    start = {"a": jnp.array([0.3, -0.1, 0.2]), "b": jnp.array(1.0)}
    state = optimizer.init(start)
    rng = np.random.default_rng(14)
    noise = jnp.asarray(rng.normal(0, np.sqrt(0.1), (num_steps, 4)), jnp.float32)

    @jax.jit
    def train(state: Any) -> Any:
        def step(before: Any, now: Any) -> Any:
            params, state = before
            t, noise = now
            optimum = jnp.where(t < 12, 2.0, -2.0)
            y = jax.tree.map(lambda p: p - optimum, params)
            y = {"a": y["a"] + noise[:3], "b": y["b"] + noise[3]}
            updates, state = optimizer.update(y, state, params)
            moved = optax.apply_updates(params, updates)
            believed: Any = posterior(state)
            seen = optax.tree.get(state, "switch_probability"), believed.hazard
            return (moved, state), (y, jax.tree.map(jnp.subtract, moved, params), seen)

        return jax.lax.scan(step, (start, state), (jnp.arange(num_steps), noise))

    (params, state), (y, d, seen) = train(state)
    switch_probability = optax.tree.get(state, "switch_probability")
    assert jnp.shape(switch_probability) == ()
    want, info = jax.jit(lambda y, d: filters.filter_recording(belief, y, d))(y, d)
    # Float32 round-off of the displacements, over 24 steps.
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    close(seen[0], info.switch_probability)
    close(seen[1], want.hazard)
    close(posterior(state).gradient_mean["a"], jnp.asarray(want.gradient_mean["a"])[-1])
    assert seen[0][12] > 0.9 and (seen[0][4:12] < 0.5).all()
    dataset = recording.to_dataset(state, params)
    for name, values in (("switch_probability", seen[0]), ("hazard", seen[1])):
        recorded = dataset[name].values
        np.testing.assert_array_equal(recorded, np.tile(np.asarray(values)[:, None], 3))
    assert dataset["log_density"].values.shape == (num_steps, 3)
    at = jax.tree.map(lambda p, d: p[None] + jnp.cumsum(d, 0), start, d)["a"].mean(1)
    assert at[11] > 0.5 and at[-1] < -0.5


# --- all of them: errors ------------------------------------------------------------------------

GOOD = SwitchingOptimum(1.0, 1.0, 1.0, 0.1)


@pytest.mark.parametrize("field", ["curvature", "noise_variance", "prior_variance", "prior_mean"])
@pytest.mark.parametrize("kind", ALL)
def test_hyper_parameters_that_do_not_fit_are_named(kind: str, field: str):
    """A shape that only broadcasts with the parameters' help would make another parameter of it."""
    name = type(ALL[kind](GOOD)).__name__
    for value, params, shapes in (
        (jnp.ones(3), jnp.zeros(2), r"\(3,\).*\(2,\)"),
        (jnp.ones((2, 2)), jnp.zeros(2), r"\(2, 2\).*\(2,\)"),
        (jnp.ones(2), jnp.zeros(1), r"\(2,\).*\(1,\)"),
        (jnp.ones(2), {"a": jnp.zeros(2), "b": jnp.zeros(())}, r"\(2,\).*\(\)"),
        ({"a": jnp.ones(3)}, {"a": jnp.zeros(2)}, r"\(3,\).*\(2,\)"),
        ({"a": 1.0}, {"b": jnp.zeros(2)}, "be like the parameters"),
        ([1.0, 1.0], jnp.zeros(2), "be like the parameters"),
    ):
        filter_ = ALL[kind](dataclasses.replace(GOOD, **{field: value})).filter()
        with pytest.raises(ValueError, match=f"{name}: {field} .*{shapes}"):
            state = filter_.init(params)
            filter_.update(filter_.predict(state, params), params)


@pytest.mark.parametrize("kind", ALL)
def test_all_hyper_parameters_are_checked_before_anything_is_seen(kind: str):
    for field in ("curvature", "noise_variance", "prior_variance", "prior_mean"):
        filter_ = ALL[kind](dataclasses.replace(GOOD, **{field: jnp.ones(3)})).filter()
        with pytest.raises(ValueError, match=field):
            filter_.init(jnp.zeros(2))


@pytest.mark.parametrize("kind", ALL)
def test_a_hazard_is_one_number_or_a_proper_grid(kind: str):
    name = type(ALL[kind](GOOD)).__name__
    for hazard, message in (
        (jnp.array([0.1, 0.2]), rf"{name}: the hazard is one number.*\(2,\).*HazardGrid"),
        (jnp.array(1.5), r"hazard must be in \[0, 1\], got 1\.5"),
        (np.array(-0.1), r"hazard must be in \[0, 1\]"),
        (HazardGrid(jnp.array([0.1, -0.2])), rf"{name}: hazards must be in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            ALL[kind](dataclasses.replace(GOOD, hazard=hazard)).filter().init(jnp.zeros(2))


@pytest.mark.parametrize("kind", ALL)
def test_a_displacement_is_needed(kind: str):
    belief = ALL[kind](GOOD)
    filter_ = belief.filter()
    assert filter_.uses_displacement
    name = type(belief).__name__
    with pytest.raises(ValueError, match=f"{name}: predict needs the displacement"):
        filter_.predict(filter_.init(jnp.ones(2)))
    for run in (filters.filter_recording, filters.log_likelihood, filters.last_state):
        with pytest.raises(ValueError, match=f"with {name} without displacement="):
            run(belief, jnp.zeros(3))
        with pytest.raises(ValueError, match="displacement must be recorded like the gradient"):
            run(belief, jnp.zeros(3), jnp.zeros(2))
    state = filter_.init(jnp.ones(2))
    with pytest.raises(ValueError, match=f"forecast: {name} needs displacement="):
        filters.forecast(belief, state, num_steps=2)
    update = navigator(0.1, belief, control.myopic())
    with pytest.raises(ValueError, match=f"Cannot update {name} without params"):
        update.update(jnp.ones(2), update.init(jnp.ones(2)))


# --- all of them: many parameters, and what changes on the way ----------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_evidence_of_a_million_parameters_keeps_its_digits(kind: str):
    """In float32: weights are ratios of densities, which are of the order of e^1,000,000 here."""
    size = 1_000_000
    rng = np.random.default_rng(17)
    first, second = rng.normal(size=(2, size))
    grid = HazardGrid(jnp.array([0.1, 0.3]))
    belief = ALL[kind](SwitchingOptimum(1.0, 0.01, 1.0, grid))
    if kind == "run lengths":
        belief = dataclasses.replace(belief, capacity=3)
    filter_ = belief.filter()

    @jax.jit
    def step(state: Any, y: Array) -> Any:
        state = filter_.update(filter_.predict(state, jnp.zeros(size)), y)
        read = state.posterior()
        return state, (state.switch_probability, read.hazard, read.gradient_variance.min())

    state, rows = filter_.init(jnp.zeros(size)), []
    for optimum in (first, first, first, second, second):
        y = -optimum + 0.1 * rng.normal(size=size)
        state, row = step(state, jnp.asarray(y, jnp.float32))
        rows.append(row)
    switched, hazard, variance = np.array(rows).T
    np.testing.assert_allclose(switched, [0, 0, 0, 1, 0], atol=1e-6)
    # Switches are certain here: two stays, a switch, a stay, from even odds.
    odds = np.cumprod([1.0, 0.9 / 0.7, 0.9 / 0.7, 0.1 / 0.3, 0.9 / 0.7])
    np.testing.assert_allclose(hazard, (0.1 * odds + 0.3) / (odds + 1), rtol=1e-4)
    assert (variance > 0).all()


@pytest.mark.parametrize("kind", ALL)
def test_flat_parameters_do_not_drown_the_evidence_of_one(kind: str):
    """A million entries that say nothing change nothing."""
    y = jnp.array([0.3, 0.2, -1.5])

    def last(size: int) -> Any:
        h = jnp.zeros(size).at[0].set(1.0)
        stream = jnp.zeros((3, size)).at[:, 0].set(y)
        belief = ALL[kind](SwitchingOptimum(h, 0.5, 1.0, 0.1))
        if kind == "run lengths":
            belief = dataclasses.replace(belief, capacity=3)
        state = jax.jit(lambda g: filters.last_state(belief, g, jnp.zeros_like(g)))(stream)
        return state.switch_probability

    np.testing.assert_allclose(last(300_000), last(1), rtol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_an_injected_hazard_is_that_of_the_step(kind: str):
    def make(hazard: Any) -> Any:
        belief = ALL[kind](SwitchingOptimum(1.0, 1.0, 1.0, hazard))
        return navigator(0.1, belief, control.resetting())

    schedule = optax.linear_schedule(0.1, 0.9, 2)
    optimizer: Any = optax.inject_hyperparams(make)(hazard=schedule)
    params = jnp.zeros(2)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for count in range(3):
        _, state = update(jnp.ones(2), state, params)
        believed = state.inner_state[0].belief.posterior().hazard
        np.testing.assert_allclose(believed, schedule(count), rtol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_hyper_parameters_of_masked_parameters_are_not_used(kind: str):
    model = SwitchingOptimum({"a": 1.0, "b": jnp.ones(7)}, 1.0, 1.0, 0.1)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    inner = navigator(0.1, ALL[kind](model), control.resetting())
    optimizer = optax.masked(inner, {"a": True, "b": False})
    gradient = {"a": jnp.ones(2), "b": jnp.ones(3)}
    updates: Any = optimizer.update(gradient, optimizer.init(params), params)[0]
    alone = navigator(
        0.1, ALL[kind](dataclasses.replace(model, curvature=1.0)), control.resetting()
    )
    want: Any = alone.update(jnp.ones(2), alone.init(jnp.zeros(2)), jnp.zeros(2))[0]
    np.testing.assert_allclose(updates["a"], want, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 1.0)


@pytest.mark.parametrize("kind", ALL)
def test_ranges_of_arrays_are_checked_where_they_are_known(kind: str):
    for name, value in (
        ("prior_variance", jnp.array([-1.0, 1.0])),
        ("noise_variance", np.float32(0.0)),
        ("curvature", jnp.array(jnp.nan)),
        ("prior_mean", np.array([np.inf, 0.0])),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            ALL[kind](dataclasses.replace(GOOD, **{name: value})).filter().init(jnp.zeros(2))
    with pytest.raises(ValueError, match="hazard must be in"):
        dataclasses.replace(GOOD, hazard=np.array(1.5))


@pytest.mark.parametrize("kind", ALL)
def test_a_gradient_of_another_shape_is_refused(kind: str):
    filter_ = ALL[kind](GOOD).filter()
    state = filter_.init(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"displacement must have the parameters' shapes \(2,\)"):
        filter_.predict(state, jnp.zeros(()))
    predicted = filter_.predict(state, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"gradient must have .* \(2,\), got \(5, 2\)"):
        filter_.update(predicted, jnp.zeros((5, 2)))


def test_a_capacity_is_an_integer_of_at_least_one():
    wrong: list[Any] = [0, -3, 1.5]
    for capacity in wrong:
        with pytest.raises(ValueError, match="RunLengths: capacity must be an integer of at least"):
            RunLengths(GOOD, capacity)


def test_a_model_that_has_to_be_approximated_says_by_what():
    given: Any = GOOD
    with pytest.raises(TypeError, match="SwitchingOptimum.*choose .*RunLengths.*TwoHypotheses"):
        navigator(0.1, given, control.resetting())


def test_what_is_dropped_says_nothing_about_the_hazard():
    """Without observations nothing is learned of it, however many run lengths are dropped."""
    grid = HazardGrid.beta(1.0, 50.0, 32)
    nothing, still = jnp.full(300, jnp.nan), jnp.zeros(300)
    state = filters.last_state(
        RunLengths(dataclasses.replace(GOOD, hazard=grid), 8), nothing, still
    )
    assert state.dropped_mass > 1
    want = jnp.mean(jnp.asarray(grid.hazards))
    # 300 steps of float32 round-off.
    np.testing.assert_allclose(state.posterior().hazard, want, rtol=1e-3)
