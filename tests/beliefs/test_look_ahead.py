"""LookAhead level: against sums of weights, and as the forecast of a transient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import filters
from beliefnav.beliefs import LocalLevel, Transient, look_ahead, steady_sample_size
from tests import oracles

Y = np.random.default_rng(0).normal(0.4, 1.0, (20, 3))


@jax.jit
def means(model: LocalLevel, y: Any) -> Any:
    posterior, info = filters.filter_recording(look_ahead(model), y)
    return posterior.gradient_mean, info.innovation


def nadam(y: np.ndarray, beta: float) -> np.ndarray:
    """Dozat's bias corrections, of each term by the weights that are due one step later or now."""
    sums, out = (1 - beta) * oracles.discounted(y, beta), []
    for t, (m, value) in enumerate(zip(sums, y, strict=True), start=1):
        out.append(
            beta * m / (1 - beta ** (t + 1)) + (1 - beta) * value / (1 - beta**t if beta else 1)
        )
    return np.array(out)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99])
def test_diffuse_prior_is_the_bias_correction_of_nadam(beta: float):
    got, innovation = means(LocalLevel(beta, 1.0), jnp.asarray(Y))
    # Float64 round-off; 1 - beta^t loses two digits.
    np.testing.assert_allclose(got, oracles.per_entry(lambda x: nadam(x, beta), Y), rtol=1e-11)
    # The level itself is the local level's.
    plain = filters.filter_recording(LocalLevel(beta, 1.0), jnp.asarray(Y))[1].innovation
    np.testing.assert_allclose(innovation, plain, rtol=1e-13, atol=1e-15)


@pytest.mark.usefixtures("x64")
def test_weights_of_the_bias_correction_do_not_add_up_to_one():
    """A constant gradient is overestimated by 1/n - 1/(beta n + 1), which falls like beta^t."""
    got = means(LocalLevel(0.9, 1.0), jnp.ones((200, 1)))[0][:, 0]
    n = (1 - 0.9 ** np.arange(1, 201)) / 0.1
    np.testing.assert_allclose(got, 1 + 1 / n - 1 / (0.9 * n + 1), rtol=1e-13)
    np.testing.assert_allclose(got[0], 1.4737, atol=1e-4)
    np.testing.assert_allclose(got[-1], 1, atol=0.9**200)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_in_the_steady_state_it_is_the_exact_forecast_of_a_transient(beta: float):
    steady = LocalLevel(beta, 1.0, prior_sample_size=steady_sample_size(beta))
    transient = Transient(beta, beta * (1 - beta), 1.0)
    want = filters.filter_recording(transient, jnp.asarray(Y))[0].gradient_mean
    np.testing.assert_allclose(means(steady, jnp.asarray(Y))[0], want, rtol=1e-11, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_variance_is_that_of_the_level_and_all_prior_sample_sizes_are_finite():
    posterior = filters.filter_recording(look_ahead(LocalLevel(0.9, 2.0)), jnp.asarray(Y))[0]
    level = filters.filter_recording(LocalLevel(0.9, 2.0), jnp.asarray(Y))[0]
    np.testing.assert_allclose(posterior.gradient_variance, level.gradient_variance, rtol=1e-14)
    # Without forgetting and with an infinite prior, nothing is learned and nothing expected.
    certain = LocalLevel(1.0, 1.0, 0.3, np.inf)
    np.testing.assert_array_equal(means(certain, jnp.asarray(Y))[0], 0.3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shared", [False, True])
def test_missing_entry_is_taken_to_be_the_mean(shared: bool):
    filter_ = (
        look_ahead(LocalLevel(0.8, prior_mean=0.5)).shared_filter()
        if shared
        else look_ahead(LocalLevel(0.8, prior_mean=0.5)).filter()
    )

    @jax.jit
    def run(y: Any) -> Any:
        state = filter_.init(y[0])
        np.testing.assert_array_equal(state.posterior().gradient_mean, 0.5)
        read = []
        for row in y:
            state = filter_.update(filter_.predict(state), row)
            n = jnp.broadcast_to(state.level.sample_size, row.shape)
            read.append((state.level.mean, n, state.anticipated_mean))
        return read

    filter_.init(jnp.ones(2))
    y = jnp.asarray([[np.nan, 1.0], [2.0, 3.0], [np.inf, 4.0]])
    with jax.disable_jit():
        read = run(y)
    for (mean, n, ahead), row in zip(read, y, strict=True):
        seen = jnp.where(jnp.isfinite(row), row, mean)
        again = np.where(n > 0, 1 / np.where(n > 0, n, 1), 1)
        want = 0.8 * n / (0.8 * n + 1) * mean + again * seen
        np.testing.assert_allclose(ahead, want, rtol=1e-14)
    assert read[0][0][0] == 0.5 and read[0][2][0] == (0.5 if not shared else ahead_of(0.5))


def ahead_of(mean: float) -> Any:
    """The first step of a discount of 0.8, with the weights 0.8 / 1.8 and 1."""
    return pytest.approx(mean * (0.8 / 1.8 + 1), rel=1e-14)
