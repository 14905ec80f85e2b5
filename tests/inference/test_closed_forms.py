"""Fits and predictions where the answer is known in closed form; small, for the ordinary run."""

from typing import Any

import jax
import numpy as np
import numpyro
import pytest
import xarray as xr
from numpyro import distributions as dist
from scipy import stats

from beliefnav import beliefs, inference
from beliefnav.recording import from_arrays

pytestmark = pytest.mark.usefixtures("rank_promotion", "x64")


def test_the_evidence_of_a_gaussian_posterior_is_that_of_the_marginal() -> None:
    """An optimum of prior N(0, 9), read 20 times with noise 1.7: one Gaussian of all readings.

    All draws of Laplace's Gaussian then weigh the same, as much as the evidence.
    """
    y = np.random.default_rng(0).normal(1.5, 1.3, 20)

    def prior() -> beliefs.Optimum:
        return beliefs.Optimum(
            curvature=1.0,
            noise_variance=1.7,
            prior_variance=1e-12,
            prior_mean=numpyro.sample("mean", dist.Normal(0, 3)),
        )

    stream = from_arrays(y[:, None], displacement=np.zeros((20, 1)))
    fit = inference.laplace(
        inference.target(prior, stream), key=jax.random.key(0), num_draws=20, num_chains=1
    )
    normal: Any = stats.multivariate_normal
    want = normal.logpdf(y, np.zeros(20), 9 * np.ones((20, 20)) + 1.7 * np.eye(20))
    np.testing.assert_allclose(fit.diagnostics["log_evidence"], want, rtol=1e-9)
    np.testing.assert_allclose(fit.sample_stats["log_weight"], want, rtol=1e-7)
    np.testing.assert_allclose(fit.state.inverse_mass_matrix, 1 / (1 / 9 + 20 / 1.7), rtol=1e-9)


def test_replicates_under_a_learned_noise_are_student() -> None:
    """Of a level at 0 with a noise of 3 degrees of freedom and scale 0.7 before the first reading.

    A level of variance v in units of the noise adds that to the scale of the first replicate.
    """
    number = 4000

    def prior() -> beliefs.UnknownNoise:
        level = beliefs.OrnsteinUhlenbeck(0.0, numpyro.sample("v", dist.LogNormal(0, 1)), 1.0)
        return beliefs.UnknownNoise(level, 0.7, 3.0)

    y = np.linspace(0.3, 0.9, 20)[:, None]
    target = inference.target(prior, from_arrays(y))
    posterior = xr.Dataset({"v": (("chain", "draw"), np.full((1, number), 0.4))})
    found = inference.predict(target, posterior, key=jax.random.key(0))
    replicates = found["posterior_predictive"]["gradient"].values[0, :, 0, 0]
    scale = np.sqrt(0.7 * (1 + 0.4))
    assert replicates.shape == (number,)
    assert stats.kstest(replicates, stats.t(3, scale=scale).cdf).pvalue > 1e-3
    assert stats.kstest(replicates, stats.norm(scale=scale).cdf).pvalue < 1e-6
    density = found["log_likelihood"]["gradient"].values[0, :, 0, 0]
    want = stats.t.logpdf(0.3, 3, scale=scale)
    np.testing.assert_allclose(density, want, rtol=1e-12)
