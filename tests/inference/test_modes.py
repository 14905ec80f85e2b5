"""The mode by another minimiser, and Laplace's Gaussian where it is exact and where it is not."""

from typing import Any

import jax
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist
from scipy import integrate, optimize, special, stats

from beliefnav import beliefs, inference
from beliefnav.recording import from_arrays
from tests import oracles
from tests.inference import laws

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rank_promotion")]

DISCOUNT, NOISE, SIZE = 0.9, 1.7, 0.8
Y = np.random.default_rng(0).normal(1.5, 1.5, (40, 3))
Y[5, 0] = np.nan


def levels(y: Any, deviation: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Means and variance of levels of prior N(0, deviation^2), and the log evidence, exactly.

    Observations are the mean plus a Gaussian error; so their sum is a dense Gaussian.
    """
    kept = np.isfinite(y)
    covariance = oracles.local_level_covariance(kept, DISCOUNT, SIZE)[1:, 1:]
    error = NOISE * (covariance + np.eye(len(y)))[np.ix_(kept, kept)]
    weight = np.linalg.solve(error, np.ones(kept.sum()))
    precision = weight.sum() + deviation**-2
    normal: Any = stats.multivariate_normal
    evidence = normal.logpdf(y[kept], np.zeros(len(error)), error + deviation**2)
    return weight @ y[kept] / precision, 1 / precision, evidence


def level() -> beliefs.LocalLevel:
    return beliefs.LocalLevel(DISCOUNT, NOISE, numpyro.sample("mean", dist.Normal(0, 3)), SIZE)


def plates() -> beliefs.LocalLevel:
    with numpyro.plate("param", 3):
        mean = numpyro.sample("mean", dist.Normal(0, 3))
    return beliefs.LocalLevel(DISCOUNT, NOISE, mean, SIZE)


# --- a Gaussian posterior -----------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("apart", [True, False], ids=["separate", "joint"])
def test_laplace_is_exact_for_a_gaussian_posterior(apart: bool) -> None:
    stream = from_arrays(Y, labels=list("abc"))
    target = inference.target(
        level if apart else plates, stream, separate="param" if apart else None
    )
    fit = inference.laplace(target, key=jax.random.key(0), num_draws=4000, num_chains=3)
    means, variances, evidence = map(np.array, zip(*(levels(y, 3.0) for y in Y.T), strict=True))
    matrix = np.asarray(fit.state.inverse_mass_matrix)
    # The Hessian in float64.
    if apart:
        want = np.broadcast_to(variances[:, None, None, None], (3, 3, 1, 1))
        assert fit.posterior["mean"].dims == ("chain", "draw", "param")
        assert fit.diagnostics["converged"].dims == ("param",)
        assert fit.state.step_size.shape == (3, 3)
    else:
        want = np.broadcast_to(np.diag(variances), (3, 3, 3))
        assert fit.diagnostics["converged"].dims == ()
        assert fit.state.step_size.shape == (3,)
    np.testing.assert_allclose(matrix, want, rtol=1e-10, atol=1e-12)
    assert fit.posterior["param"].values.tolist() == list("abc")
    evidence = evidence if apart else evidence.sum()
    # From the mode up to what is left of the Newton decrement.
    slack = float(fit.diagnostics["newton_decrement"].max())
    assert slack < 1e-6
    np.testing.assert_allclose(fit.diagnostics["log_evidence"], evidence, atol=1e-9 + slack)
    # All draws weigh the same, as much as the evidence.
    weights = fit.sample_stats["log_weight"]
    np.testing.assert_allclose(
        weights, np.broadcast_to(evidence, weights.shape), atol=10 * np.sqrt(1e-9 + slack)
    )
    # 4000 independent draws: means within 4 standard errors, covariances likewise.
    draws = fit.posterior["mean"].values[0]
    np.testing.assert_array_less(np.abs(draws.mean(0) - means), 4 * np.sqrt(variances / 4000))
    unit = np.cov(draws.T / np.sqrt(variances)[:, None])
    np.testing.assert_allclose(unit, np.eye(3), atol=4 * np.sqrt(2 / 4000))
    assert fit.converged, fit.diagnostics


# --- the mode -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_mode_and_curvature_are_those_of_another_minimiser() -> None:
    streams = laws.streams()
    target = inference.target(laws.prior, streams, separate="param")
    mode = inference.map_estimate(target, key=jax.random.key(1))
    assert mode.values["correlation"].dims == ("param",)
    fit = inference.laplace(target, key=jax.random.key(1), num_draws=20)
    for unit, label in enumerate(laws.LABELS):
        y = streams["gradient"].values[:, unit]
        starts = [np.zeros(2), np.array([2.0, 2.0]), np.array([2.0, -1.0]), np.array([-1.0, 3.0])]
        found: Any = min(
            (optimize.minimize(lambda z, y=y: -laws.log_joint(z, y), x) for x in starts),
            key=lambda r: r.fun,
        )
        at = mode.values.sel(param=label)
        got = [special.logit(float(at["correlation"])), np.log(float(at["signal_to_noise"]))]
        diagnosed = mode.diagnostics.sel(param=label)
        # As near as it says it is: within the decrement, of which half a squared distance.
        slack = 2 * float(diagnosed["newton_decrement"]) + 1e-7
        assert slack < 2e-2
        np.testing.assert_allclose(diagnosed["lp"], -found.fun, atol=slack)
        assert diagnosed["converged"]
        process = at["signal_to_noise"] * (1 - at["correlation"] ** 2)
        np.testing.assert_allclose(at["process_variance"], process, rtol=1e-12)
        # Central differences of step h: h^2 of truncation, and 1e-16 |U| / h^2 of rounding.
        h, hessian = 1e-3, np.zeros((2, 2))
        for i, j in np.ndindex(2, 2):
            for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                z = np.array(got) + h * (a * np.eye(2)[i] + b * np.eye(2)[j])
                hessian[i, j] -= a * b * laws.log_joint(z, y) / (4 * h**2)
        covariance = fit.state.inverse_mass_matrix[unit, 0]
        np.testing.assert_allclose(covariance @ hessian, np.eye(2), atol=1e-3)
        distance = np.array(got) - found.x
        assert distance @ hessian @ distance / 2 < slack
        want = -found.fun + np.log(2 * np.pi) - np.linalg.slogdet(hessian)[1] / 2
        np.testing.assert_allclose(diagnosed["log_evidence"], want, atol=1e-3 + slack)


@pytest.mark.usefixtures("x64")
def test_log_evidence_approaches_that_of_quadrature() -> None:
    """An error of the order of one over the number of observations."""
    _, recording = inference.simulate(
        lambda: beliefs.OrnsteinUhlenbeck(0.6, 1.0, 0.5), key=jax.random.key(0), num_steps=200
    )
    y = np.asarray(recording.gradient)

    def prior() -> beliefs.OrnsteinUhlenbeck:
        noise = numpyro.sample("noise_variance", dist.LogNormal(0, 1))
        return beliefs.OrnsteinUhlenbeck(0.6, 1.0, noise)

    target = inference.target(prior, from_arrays(y))
    fit = inference.laplace(target, key=jax.random.key(2))

    def log_density(z: float) -> float:
        covariance = oracles.ornstein_uhlenbeck_covariance(200, 0.6, 1.0) + np.exp(z) * np.eye(200)
        determinant = np.linalg.slogdet(2 * np.pi * covariance)[1]
        half = (y @ np.linalg.solve(covariance, y) + determinant) / 2
        return float(stats.norm.logpdf(z) - half)

    height = float(fit.diagnostics["lp"])
    area = integrate.quad(lambda z: np.exp(log_density(z) - height), -6, 4, points=[-1.0, 0.0])[0]
    assert abs(float(fit.diagnostics["log_evidence"]) - (height + np.log(area))) < 1 / 20
    # Weighting the draws makes it exact, within 4 standard errors.
    weights = np.exp(fit.sample_stats["log_weight"].values.ravel() - height)
    error = weights.std() / np.sqrt(weights.size)
    assert abs(weights.mean() - area) < 4 * error
    assert fit.converged


# --- where it is not good -----------------------------------------------------------------------


def test_heavy_tails_are_noticed() -> None:
    """A stream that says little of eight sites of Cauchy prior leaves that as their posterior."""

    def prior() -> beliefs.LocalLevel:
        with numpyro.plate("site", 8):
            x: Any = numpyro.sample("x", dist.Cauchy(0, 1))
        return beliefs.LocalLevel(DISCOUNT, NOISE, 0.01 * (x / (1 + x**2)).sum(), SIZE)

    target = inference.target(prior, from_arrays(Y[:, 1]))
    fit = inference.laplace(target, key=jax.random.key(3), num_draws=4000)
    # There is a mode: it is the Gaussian around it that is wrong.
    assert fit.diagnostics["newton_decrement"] < 1e-2
    assert fit.diagnostics["pareto_k"] > 0.7
    assert not fit.converged
    assert inference.map_estimate(target, key=jax.random.key(3)).diagnostics["converged"]


def test_a_ridge_is_no_mode() -> None:
    """Only the sum of two sites matters, under priors so wide that float32 calls them flat."""

    def prior() -> beliefs.LocalLevel:
        one = numpyro.sample("one", dist.Normal(0, 1e4))
        other = numpyro.sample("other", dist.Normal(0, 1e4))
        return beliefs.LocalLevel(DISCOUNT, NOISE, one + other, SIZE)

    mode = inference.map_estimate(
        inference.target(prior, from_arrays(Y[:, 1])), key=jax.random.key(0)
    )
    assert not mode.diagnostics["converged"]


def test_a_minimiser_that_is_stopped_early_has_no_mode() -> None:
    target = inference.target(level, from_arrays(Y + 10), separate="param")
    mode = inference.map_estimate(target, key=jax.random.key(0), num_starts=1, max_steps=1)
    assert not mode.diagnostics["converged"].any()
    assert (mode.diagnostics["newton_decrement"] > 1e-2).all()


def test_numbers_are_checked() -> None:
    target = inference.target(level, from_arrays(Y), separate="param")
    key = jax.random.key(0)
    for number in ({"num_starts": 0}, {"max_steps": 0}):
        for run in (inference.map_estimate, inference.laplace):
            with pytest.raises(ValueError, match="num_starts and max_steps must be at least 1"):
                run(target, key=key, **number)
    for number in ({"num_draws": 19}, {"num_chains": 0}):
        with pytest.raises(ValueError, match="needs num_draws >= 20 and num_chains >= 1, got"):
            inference.laplace(target, key=key, **number)
