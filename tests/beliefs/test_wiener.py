"""Empirical-Bayes Wiener average: filter against explicit weighted sums."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import filters
from beliefnav.beliefs import Wiener
from tests import oracles
from tests.beliefs import laws


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.99), (0.5, 0.2), (1.0, 1.0), (0.0, 0.9)])
def test_posterior_equals_the_weighted_sums(b1: float, b2: float):
    recorded = oracles.random_stream(seed=0, num_steps=20, missing=0.0)
    posterior = filters.filter_recording(Wiener(b1, b2), recorded)[0]

    def check(y: Any, *read: Any) -> None:
        # Float64 round-off; the noise is a difference of squares of order 1.
        want = oracles.per_entry(lambda x: oracles.wiener(x, b1, b2), y)
        np.testing.assert_allclose(np.stack(read), want, rtol=1e-10, atol=1e-12)

    assert posterior.gradient_variance is None
    jax.tree.map(check, recorded, posterior.gradient_mean, posterior.curvature_mean)


@pytest.mark.usefixtures("x64")
def test_shrinkage_is_the_positive_part_james_stein_factor():
    rng = np.random.default_rng(1)
    y = 0.3 + rng.normal(size=(30, 200))
    mean = filters.filter_recording(Wiener(1.0, 1.0), jnp.asarray(y))[0].gradient_mean[-1]
    average = y.mean(0)
    factor = np.maximum(0, 1 - y.var(0, ddof=1) / 30 / average**2)
    np.testing.assert_allclose(mean, factor * average, rtol=1e-9, atol=1e-12)
    # Both branches are taken: some entries stand out of their noise, some do not.
    assert 0 < np.sum(factor == 0) < 200
    np.testing.assert_array_equal(mean[factor == 0], 0)


@pytest.mark.usefixtures("x64")
def test_first_observation_and_constant_streams_are_believed_unshrunk():
    posterior = filters.filter_recording(Wiener(0.5, 0.5), np.full((5, 1), 1.5))[0]
    # Halves are exact in floating point: no noise is seen.
    np.testing.assert_array_equal(posterior.gradient_mean, 1.5)


@pytest.mark.usefixtures("x64")
def test_zero_gradients_are_believed_zero():
    posterior = filters.filter_recording(Wiener(0.9, 0.99), jnp.zeros((3, 2)))[0]
    np.testing.assert_array_equal(posterior.gradient_mean, 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("discount", [0.5, 0.9, 1.0])
def test_the_noise_is_not_biased(discount: float):
    """m (m_hat - m) is what is taken for the noise of the average, where the average stands out."""
    rng = np.random.default_rng(3)
    y = 10 + rng.normal(size=(12, 20_000))
    mean = filters.filter_recording(Wiener(discount, discount), jnp.asarray(y))[0].gradient_mean[-1]
    weights = discount ** np.arange(12.0)
    average = np.tensordot(weights[::-1], y, 1) / weights.sum()
    variance = np.sum(weights**2) / np.sum(weights) ** 2  # of an average of unit noise
    # The relative standard error of a sample variance of 12 over 20,000 is 0.003 at most; with the
    # sample size in the place of one less it would be off by a twelfth at least.
    np.testing.assert_allclose(np.mean(average * (average - mean)), variance, rtol=0.05)


def test_prior_can_be_read():
    posterior = Wiener(0.9, 0.99).filter().init(jnp.ones(2)).posterior()
    np.testing.assert_array_equal(posterior.gradient_mean, 0)


@pytest.mark.usefixtures("x64")
def test_missing_entry_keeps_its_averages_and_counts_as_observed():
    y = jnp.asarray([[1.0, 1.0], [2.0, 2.0], [jnp.nan, 3.0], [-jnp.inf, 4.0], [3.0, 5.0]])
    filter_ = Wiener(0.8, 0.9).filter()
    state = filter_.init(y[0])
    states, infos = [], []
    for row in y:
        state, info = laws.observe(filter_, filter_.predict(state), row)
        states.append(state)
        infos.append(info)
    for t in (2, 3):
        assert states[t].average[0] == states[1].average[0]
        assert states[t].second_moment[0] == states[1].second_moment[0]
        assert infos[t].innovation[0] == infos[t].gain[0] == 0
        assert infos[t].gain[1] > 0
    weights = 0.8 ** np.arange(5)
    np.testing.assert_allclose(states[-1].weight_sum, weights.sum(), rtol=1e-14)
    np.testing.assert_allclose(states[-1].squared_weight_sum, (weights**2).sum(), rtol=1e-14)
    # The last correction has the gain of five observations.
    before = states[1].average[0]
    want = before + (3 - before) / weights.sum()
    np.testing.assert_allclose(states[-1].average[0], want, rtol=1e-14)
    np.testing.assert_array_equal([i.missing[0] for i in infos], [0, 0, 1, 1, 0])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_derivatives_are_finite_with_missing_and_zero_entries():
    y = oracles.random_stream(seed=2, num_steps=8)["matrix"][:, :2, 0]
    y[:, 1] = 0.0

    def mean(b1: Any, b2: Any, y: Any) -> jax.Array:
        return filters.filter_recording(Wiener(b1, b2), y)[0].gradient_mean.sum()

    got = jax.grad(mean, argnums=(0, 1, 2))(0.9, 0.95, jnp.asarray(y))
    assert all(np.all(np.isfinite(x)) for x in got)
    np.testing.assert_array_equal(got[2][~np.isfinite(y)], 0)


def test_no_predictive_density_no_likelihood():
    with pytest.raises(ValueError, match="Wiener has no predictive density"):
        filters.log_likelihood(Wiener(0.9, 0.99), jnp.zeros(3))
