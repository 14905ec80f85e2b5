"""Simulation-based calibration: what is drawn is the posterior, over the whole prior.

Reference:
    Talts et al., "Validating Bayesian inference algorithms with simulation-based calibration",
    arXiv:1804.06788.
"""

from typing import Any

import arviz
import jax
import numpy as np
import numpyro
import pytest
import xarray as xr
from numpyro import distributions as dist
from scipy import stats

from beliefnav import beliefs, inference
from beliefnav.recording import from_arrays
from tests.inference import laws

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rank_promotion")]

NUM_UNITS = 200
NUM_BINS = 20
NUM_RANKS = 40  # two to a bin, which 39 draws have


def ornstein_uhlenbeck() -> beliefs.OrnsteinUhlenbeck:
    correlation = numpyro.sample("correlation", dist.Uniform(0, 1))
    ratio = numpyro.sample("signal_to_noise", dist.LogNormal(0, 1))
    noise = numpyro.sample("noise_variance", dist.LogNormal(0, 1))
    return beliefs.OrnsteinUhlenbeck(correlation, ratio * noise * (1 - correlation**2), noise)


def secant() -> beliefs.Secant:
    noise = numpyro.sample("noise_variance", dist.LogNormal(0, 1))
    scale = numpyro.sample("curvature_scale", dist.HalfNormal(1))
    process = numpyro.sample("process_variance", dist.LogNormal(0, 1))
    return beliefs.Secant(noise, 1.0, scale**2, gradient_process_variance=process)


def simulated(prior: Any, seed: int, num_units: int, **how: Any) -> tuple[Any, xr.Dataset]:
    """True values [unit], and streams [step, param], each of values of its own."""
    keys = jax.random.split(jax.random.key(seed), num_units)
    moved = how.pop("displacement", None)

    def one(key: Any, moved: Any) -> Any:
        return inference.simulate(prior, key=key, displacement=moved, **how)

    with jax.numpy_rank_promotion("allow"):
        truth, recording = jax.jit(jax.vmap(one))(keys, moved)
    return truth, from_arrays(
        recording.gradient.T, None if moved is None else recording.displacement.T
    )


def assert_calibrated(prior: Any, truth: Any, stream: xr.Dataset, seed: int) -> None:
    thinning = 10
    fit = inference.numpyro_nuts(
        inference.target(prior, stream, separate="param"),
        key=jax.random.key(seed),
        num_warmup=300,
        num_samples=(NUM_RANKS - 1) * thinning,
        num_chains=1,
        progress_bar=False,
    )
    # The number of 90 % intervals that hold the truth is binomial: 166 to 192 of 200.
    fewest, most = stats.binom.interval(0.998, NUM_UNITS, 0.9)
    for name, values in truth.items():
        draws = fit.posterior[name].isel(chain=0).transpose("draw", "param").values
        true = np.asarray(values)
        # Every tenth draw is as good as independent of the last.
        ranks = (draws[thinning - 1 :: thinning] < true).sum(0)
        counts = np.bincount(ranks // (NUM_RANKS // NUM_BINS), minlength=NUM_BINS)
        assert stats.chisquare(counts).pvalue > 0.01, f"{name}: ranks {counts}"
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        covered = ((low < true) & (true < high)).sum()
        assert fewest <= covered <= most, f"{name}: {covered} of {NUM_UNITS}"


def test_draws_of_an_ornstein_uhlenbeck_gradient_are_calibrated() -> None:
    truth, stream = simulated(ornstein_uhlenbeck, 0, NUM_UNITS, num_steps=80)
    assert_calibrated(ornstein_uhlenbeck, truth, stream, seed=1)


def test_draws_of_a_secant_are_calibrated() -> None:
    moved = jax.random.normal(jax.random.key(2), (NUM_UNITS, 60))
    truth, stream = simulated(secant, 3, NUM_UNITS, displacement=moved)
    assert_calibrated(secant, truth, stream, seed=4)


def test_numpyro_and_blackjax_draw_the_same_posterior() -> None:
    _, stream = simulated(laws.prior, 5, 3, num_steps=60)
    target = inference.target(laws.prior, stream, separate="param")
    fits = [
        run(
            target,
            key=jax.random.key(seed),
            num_warmup=300,
            num_samples=800,
            target_acceptance=0.9,
            progress_bar=False,
        )
        for seed, run in ((6, inference.numpyro_nuts), (7, inference.blackjax_nuts))
    ]
    for fit in fits:
        assert fit.converged, fit.diagnostics
        assert float(fit.diagnostics["r_hat"].max()) < 1.01
        assert int(fit.diagnostics["divergences"].sum()) == 0
    one, other = (fit.posterior.mean(("chain", "draw")) for fit in fits)
    errors: Any = [arviz.mcse(fit.posterior) for fit in fits]
    for name in one:
        error = np.hypot(errors[0][name], errors[1][name])
        # 9 quantities within four standard errors: 6e-4 to fail, if they agree.
        assert (np.abs(one[name] - other[name]) < 4 * error).all(), name
