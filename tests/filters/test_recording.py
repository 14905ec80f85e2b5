"""Filtering a recording is the learner's loop over it."""

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
