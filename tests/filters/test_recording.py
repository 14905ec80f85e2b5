"""Filtering a recording is the learner's loop over it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import filters, ssm
from tests import oracles

BELIEF = ssm.independent(
    gradient=ssm.OrnsteinUhlenbeck(0.8, 0.3, 0.7),
    curvature=ssm.PrecisionWalk(0.9).filter(shared=True),
)


@pytest.mark.usefixtures("x64")
def test_recording_equals_the_loop():
    recorded = jax.tree.map(jnp.asarray, oracles.random_stream(seed=0, num_steps=7))
    filter_ = BELIEF.filter()
    state = filter_.init(jax.tree.map(lambda y: y[0], recorded))

    @jax.jit
    def step(state: Any, now: Any) -> Any:
        state, info = filter_.update(filter_.predict(state), now)
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

    def filter(self) -> ssm.Filter:
        def init(params: Any) -> "Position":
            return Position(*(jax.tree.map(jnp.zeros_like, params) for _ in range(2)))

        def predict(state: "Position", displacement: Any = None) -> "Position":
            if displacement is None:
                return state
            return Position(displacement, jax.tree.map(jnp.add, state.total, displacement))

        def update(predicted: "Position", gradient: Any, curvature: Any = None) -> Any:
            del curvature
            return predicted, ssm.Info(innovation=gradient)

        return ssm.Filter(init, predict, update, self.uses_displacement)


class Position(NamedTuple):
    last: Any
    total: Any

    def posterior(self) -> ssm.Posterior:
        return ssm.Posterior(gradient_mean=self.last, curvature_mean=self.total)


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


# --- what does not fit --------------------------------------------------------------------------

SECANT = ssm.Secant(0.3, 2.0, 1.5)
Y = jnp.asarray([1.0, jnp.nan, 2.0])
ONE_LENGTH = "needs streams .* of one length of at least 1"


@pytest.mark.parametrize(
    "gradient",
    [jnp.ones(()), {"a": Y, "b": jnp.ones(())}, jnp.ones((0, 2)), {"a": Y, "b": Y[:2]}, {}],
    ids=["scalar", "one scalar", "empty", "lengths", "no leaves"],
)
@pytest.mark.parametrize("belief", [SECANT, ssm.LocalLevel(0.9, 1.0)], ids=["secant", "level"])
def test_streams_need_steps(belief: Any, gradient: Any):
    streams = (gradient, gradient) if belief is SECANT else (gradient,)
    chunk = filters.Recording(*streams)
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
    for run in (filters.filter_recording, filters.log_likelihood, filters.last_state):
        with pytest.raises(ValueError, match=f"{field} must be recorded like the gradient"):
            run(SECANT, Y, **streams)
    with pytest.raises(ValueError, match=f"{field} must be recorded like the gradient"):
        next(filters.filter_chunks(SECANT, [filters.Recording(Y, **streams)]))


def test_readings_of_a_sensor_that_a_secant_does_not_have_are_refused():
    for parallel in (False, True):
        run = partial(filters.filter_recording, SECANT, parallel=parallel)
        with pytest.raises(ValueError, match="no second sensor.*curvature_noise_variance"):
            jax.eval_shape(run, Y, Y, Y)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])
def test_noise_is_not_learned_from_readings_that_are_not_used(parallel: bool):
    """A belief without a second sensor ignores its readings, and so does what it is made of."""
    belief = ssm.UnknownNoise(ssm.OrnsteinUhlenbeck(0.8, 0.3, 1.0), 1.0, 3.0)
    y = jnp.asarray([1.0, -2.0, 0.5])

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run() -> Any:
        return tuple(
            filters.filter_recording(belief, y, None, second, parallel=parallel)
            for second in (y, None)
        )

    got, want = run()
    # Float64 round-off.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), got, want)


@pytest.mark.parametrize(
    "belief", [SECANT, ssm.positive(SECANT), ssm.UnknownNoise(SECANT, 1.0, 3.0)]
)
def test_forecast_needs_displacements(belief: Any):
    state = belief.filter().init(jnp.zeros(2))
    name = type(belief).__name__
    for num_steps in (None, 3):
        with pytest.raises(ValueError, match=f"forecast: {name} needs displacement="):
            filters.forecast(belief, state, num_steps=num_steps)


def test_forecast_needs_a_number_of_steps():
    belief = ssm.OrnsteinUhlenbeck(0.8, 0.3, 0.7)
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
