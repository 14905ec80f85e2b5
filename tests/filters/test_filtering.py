"""Filtering a recording is the learner's loop over it."""

import dataclasses
import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from beliefnav import beliefs, filters
from beliefnav.beliefs.contract import as_belief
from beliefnav.recording import Recording
from tests import oracles
from tests.beliefs import laws

BELIEF = beliefs.independent(
    gradient=beliefs.OrnsteinUhlenbeck(0.8, 0.3, 0.7),
    curvature=beliefs.PrecisionWalk(0.9).shared_filter(),
)


@pytest.mark.usefixtures("x64")
def test_recording_equals_the_loop():
    recorded = jax.tree.map(jnp.asarray, oracles.random_stream(seed=0, num_steps=7))
    filter_ = BELIEF.filter()
    state = filter_.init(jax.tree.map(lambda y: y[0], recorded))

    @jax.jit
    def step(state: Any, now: Any) -> Any:
        state, info = laws.observe(filter_, filter_.predict(state), now)
        return state, (state.posterior(), info)

    rows = []
    for t in range(7):
        now = jax.tree.map(lambda y, t=t: y[t], recorded)
        state, row = step(state, now)
        rows.append(row)
    want = jax.tree.map(lambda *row: jnp.stack(row), *rows)
    got = filters.filter_recording(BELIEF, recorded)

    # Compiled as a whole or step by step: float64 round-off.
    def close(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)

    jax.tree.map(close, got, want)
    one = recorded["nested"][0]
    close(filters.log_likelihood(BELIEF, one), want[1].log_density["nested"][0].sum())


class Odometer(NamedTuple):
    """Believes nothing but where it is: the last displacement, and the sum of all."""

    uses_displacement: bool = True

    def filter(self) -> beliefs.Filter:
        def init(params: Any) -> "Position":
            return Position(*(jax.tree.map(jnp.zeros_like, params) for _ in range(2)))

        def predict(state: "Position", displacement: Any = None) -> "Position":
            if displacement is None:
                return state
            return Position(displacement, jax.tree.map(jnp.add, state.total, displacement))

        def update(predicted: "Position", gradient: Any, curvature: Any = None) -> Any:
            del gradient, curvature
            return predicted

        def diagnose(predicted: "Position", gradient: Any, curvature: Any = None) -> beliefs.Info:
            del predicted, curvature
            return beliefs.Info(innovation=gradient)

        uses = self.uses_displacement
        return beliefs.Filter(init, predict, update, diagnose, uses_displacement=uses)


class Position(NamedTuple):
    last: Any
    total: Any

    def posterior(self) -> beliefs.Posterior:
        return beliefs.Posterior(gradient_mean=self.last, curvature_mean=self.total)


def test_displacement_drives_the_step_after_it():
    """``displacement[t]`` leads from t to t + 1: none before the first, the last one unused."""
    params = np.random.default_rng(1).integers(-9, 9, (5, 3)).astype(np.float32)
    displacement = {"a": jnp.asarray(np.concatenate([np.diff(params, axis=0), [[99] * 3]]))}
    gradient = {"a": jnp.asarray(params)}
    posterior, info = filters.filter_recording(
        Odometer(), gradient, jax.tree.map(jnp.float32, displacement)
    )
    # Whole numbers: exact.
    np.testing.assert_array_equal(posterior.gradient_mean["a"][0], 0)
    np.testing.assert_array_equal(posterior.gradient_mean["a"][1:], np.diff(params, axis=0))
    np.testing.assert_array_equal(posterior.curvature_mean["a"], params - params[0])
    np.testing.assert_array_equal(info.innovation["a"], params)


def test_belief_that_uses_displacements_needs_them():
    with pytest.raises(ValueError, match="Cannot filter .* with Odometer without displacement="):
        filters.filter_recording(Odometer(), jnp.zeros(3))
    with pytest.raises(ValueError, match="Cannot filter .* with Odometer without displacement="):
        filters.log_likelihood(Odometer(), jnp.zeros(3))


def test_belief_that_does_not_use_displacements_is_given_none():
    posterior = filters.filter_recording(Odometer(uses_displacement=False), jnp.ones(3))[0]
    np.testing.assert_array_equal(posterior.curvature_mean, 0)


def test_log_likelihood_needs_a_density():
    with pytest.raises(ValueError, match="Odometer has no predictive density"):
        filters.log_likelihood(Odometer(), jnp.zeros(3), jnp.zeros(3))


# --- the predictive density ---------------------------------------------------------------------

OU = beliefs.OrnsteinUhlenbeck(0.8, 0.3, 0.7)
LEVEL = beliefs.LocalLevel(0.8, 0.7, 0.4, 1.5)
SENSED = beliefs.Secant(0.3, 2.0, 1.5, 0.2, -0.1, 0.1, 0.2, 0.9, 0.8, curvature_noise_variance=0.4)
OPTIMUM = beliefs.Optimum(0.8, 0.5, 2.0, 0.3, 0.1, 0.9)
PARALLEL = {
    "ornstein uhlenbeck": OU,
    "level": LEVEL,
    "secant": SENSED,
    "optimum": OPTIMUM,
    "unknown noise": beliefs.UnknownNoise(OU, 0.7, 2.5),
    "drifting noise of a level": beliefs.UnknownNoise(LEVEL, 0.7, 2.5, 0.9),
    "unknown noise of a secant": beliefs.UnknownNoise(SENSED, 0.7, 2.5),
    "improper noise": beliefs.UnknownNoise(OU),
}
PREDICTIVE = PARALLEL | {
    "no noise": dataclasses.replace(OU, noise_variance=0.0),
    "shared": OU.shared_filter(),
    "diffuse level": dataclasses.replace(LEVEL, prior_sample_size=0.0),
    "shared level": LEVEL.shared_filter(),
    "precision": beliefs.PrecisionWalk(0.9, 0.6, 3.0),
    "shared precision": beliefs.PrecisionWalk(0.9, 0.6, 3.0).shared_filter(),
    "improper precision": beliefs.PrecisionWalk(0.9),
    "diffuse level of unknown noise": beliefs.UnknownNoise(
        dataclasses.replace(LEVEL, prior_sample_size=0.0), 0.7, 2.5
    ),
    "shared noise": beliefs.UnknownNoise(OU, 0.7, 2.5).shared_filter(),
    "independent": BELIEF,
    "positive": beliefs.positive(SENSED),
}
IMPROPER = {
    "diffuse level",
    "improper precision",
    "improper noise",
    "diffuse level of unknown noise",
}


def with_holes() -> Recording:
    """Gradients [12, 3], a third of them missing, and displacements."""
    y = oracles.random_stream(seed=3, num_steps=12)["matrix"][:, :, 0]
    d = oracles.random_stream(seed=4, num_steps=12, missing=0.0)["matrix"][:, :, 0]
    assert not np.isfinite(y).all()
    return Recording(jnp.asarray(y), jnp.asarray(d))


def recorded_for(belief: Any) -> Recording:
    y, d, _ = with_holes()
    return Recording(y, d if as_belief(belief).filter().uses_displacement else None)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PREDICTIVE)
def test_log_density_is_that_of_the_innovation_at_its_scale(name: str):
    """Around 0, Gaussian or Student-t; 0 where missing, infinite where nothing was predicted."""
    belief = PREDICTIVE[name]
    seen = np.isfinite(with_holes().gradient)
    info = filters.filter_recording(belief, *recorded_for(belief))[1]
    scale = np.asarray(info.predictive_scale)
    assert scale.shape == seen.shape
    np.testing.assert_array_equal(scale[~seen], 0)
    assert (scale[seen] > 0).all()
    improper = np.isinf(scale)
    first = seen & (np.cumsum(seen, 0) == 1)
    np.testing.assert_array_equal(improper, first if name in IMPROPER else False)
    density, innovation = np.asarray(info.log_density), np.asarray(info.innovation)
    np.testing.assert_array_equal(density[improper | ~seen], 0)
    at = seen & ~improper
    if info.predictive_degrees_of_freedom is None:
        want = stats.norm.logpdf(innovation[at], scale=scale[at])
    else:
        degrees = np.asarray(info.predictive_degrees_of_freedom)
        assert degrees.shape == seen.shape
        want = stats.t.logpdf(innovation[at], degrees[at], scale=scale[at])
    # Float64 round-off; half-step gamma functions to 1e-13.
    np.testing.assert_allclose(density[at], want, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PARALLEL)
def test_predictive_density_in_parallel_is_the_sequential_one(name: str):
    belief = PARALLEL[name]
    recorded = recorded_for(belief)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run() -> Any:
        infos = (
            filters.filter_recording(belief, *recorded, parallel=parallel)[1]
            for parallel in (False, True)
        )
        return [(info.predictive_scale, info.predictive_degrees_of_freedom) for info in infos]

    want, got = run()
    # Float64 round-off of two orders of summation.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), got, want)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "belief", [SENSED, PARALLEL["unknown noise of a secant"]], ids=["known", "unknown"]
)
def test_predictive_scale_is_of_the_gradient_alone(belief: Any):
    """What the second sensor reads at a step comes after the gradient was predicted."""
    y, d, _ = with_holes()
    two = filters.filter_recording(belief, y[:1], d[:1], y[:1])[1]
    one = filters.filter_recording(belief, y[:1], d[:1])[1]
    np.testing.assert_array_equal(two.predictive_scale, one.predictive_scale)


# --- what does not fit --------------------------------------------------------------------------

SECANT = beliefs.Secant(0.3, 2.0, 1.5)
Y = jnp.asarray([1.0, jnp.nan, 2.0])
ONE_LENGTH = "needs streams .* of one length of at least 1"


@pytest.mark.parametrize(
    "gradient",
    [jnp.ones(()), {"a": Y, "b": jnp.ones(())}, jnp.ones((0, 2)), {"a": Y, "b": Y[:2]}, {}],
    ids=["scalar", "one scalar", "empty", "lengths", "no leaves"],
)
@pytest.mark.parametrize("belief", [SECANT, beliefs.LocalLevel(0.9, 1.0)], ids=["secant", "level"])
def test_streams_need_steps(belief: Any, gradient: Any):
    streams = (gradient, gradient) if belief is SECANT else (gradient,)
    chunk = Recording(*streams)
    for run in (filters.filter_recording, filters.log_likelihood, filters.last_state):
        with pytest.raises(ValueError, match=ONE_LENGTH):
            run(belief, *streams)
    with pytest.raises(ValueError, match=ONE_LENGTH):
        next(filters.filter_chunks(belief, [chunk]))


@pytest.mark.parametrize(
    "other",
    [Y[:2], Y[:, None], jnp.ones(()), {"a": Y}, [Y, Y]],
    ids=["shorter", "wider", "scalar", "tree", "more leaves"],
)
@pytest.mark.parametrize("field", ["displacement", "curvature"])
def test_streams_must_match(field: str, other: Any):
    streams: dict[str, Any] = {"displacement": Y, field: other}
    sensed = dataclasses.replace(SECANT, curvature_noise_variance=1.0)
    for run in (filters.filter_recording, filters.log_likelihood, filters.last_state):
        with pytest.raises(ValueError, match=f"{field} must be recorded like the gradient"):
            run(sensed, Y, **streams)
    with pytest.raises(ValueError, match=f"{field} must be recorded like the gradient"):
        next(filters.filter_chunks(sensed, [Recording(Y, **streams)]))


def test_readings_of_a_sensor_that_a_secant_does_not_have_are_refused():
    for parallel in (False, True):
        run = partial(filters.filter_recording, SECANT, parallel=parallel)
        with pytest.raises(
            ValueError, match="no part of it reads a second sensor.*curvature_noise"
        ):
            jax.eval_shape(run, Y, Y, Y)


@pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])
def test_readings_that_no_part_of_a_belief_uses_are_refused(parallel: bool):
    """They would be lost without a word."""
    walk = beliefs.OrnsteinUhlenbeck(0.8, 0.3, 1.0)
    for belief in (walk, beliefs.UnknownNoise(walk, 1.0, 3.0), beliefs.shared(walk)):
        with pytest.raises(ValueError, match="Cannot use curvature= .* no part of it reads"):
            filters.filter_recording(belief, Y, None, Y, parallel=parallel)


@pytest.mark.parametrize(
    "belief", [SECANT, beliefs.positive(SECANT), beliefs.UnknownNoise(SECANT, 1.0, 3.0)]
)
def test_forecast_needs_displacements(belief: Any):
    state = belief.filter().init(jnp.zeros(2))
    name = re.escape(belief.name)
    for num_steps in (None, 3):
        with pytest.raises(ValueError, match=f"forecast: {name} needs displacement="):
            filters.forecast(belief, state, num_steps=num_steps)


def test_forecast_needs_a_number_of_steps():
    belief = beliefs.OrnsteinUhlenbeck(0.8, 0.3, 0.7)
    state = belief.filter().init(jnp.zeros(2))
    with pytest.raises(ValueError, match="does not use displacements; give num_steps="):
        filters.forecast(belief, state, displacement=jnp.zeros((3, 2)))
    for num_steps in (0, -1, None):
        with pytest.raises(ValueError, match="num_steps must be at least 1, got"):
            filters.forecast(belief, state, num_steps=num_steps)


def test_forecast_of_no_steps_at_all_is_refused():
    """As its documentation says of both of its lengths."""
    with pytest.raises(ValueError, match="forecast: .*at least (1|one)"):
        filters.forecast(SECANT, SECANT.filter().init(jnp.zeros(2)), displacement=jnp.zeros((0, 2)))
