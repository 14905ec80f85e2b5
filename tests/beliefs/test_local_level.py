"""Local level with discount: filter and program against the joint Gaussian."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.infer.util import log_density

from beliefnav import filters
from beliefnav.beliefs import LocalLevel, steady_sample_size
from tests import oracles
from tests.beliefs import laws

BETA, R, M0, N0 = 0.7, 0.6, 0.4, 1.7
MODEL = LocalLevel(BETA, R, M0, N0)
DIFFUSE = LocalLevel(BETA, R)


def oracle(y: np.ndarray) -> oracles.Gaussian:
    return oracles.local_level(y, BETA, R, M0, N0)


@pytest.mark.usefixtures("x64")
def test_filter_equals_the_conditioned_joint_gaussian():
    laws.assert_filter_is_exact(MODEL, oracle)


@jax.jit
def _filtered(beta: jax.Array, r: jax.Array, m0: jax.Array, n0: jax.Array, y: jax.Array) -> Any:
    model = LocalLevel(beta, r, m0, n0)
    posterior, info = filters.filter_recording(model, y)
    return posterior.gradient_mean, posterior.gradient_variance, info.log_density.sum()


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    beta=st.floats(0.3, 1),
    r=st.floats(1e-2, 1e2),
    m0=st.floats(-3, 3),
    n0=st.floats(1e-2, 1e2),
    y=st.lists(
        st.one_of(st.floats(-10, 10), st.sampled_from([np.nan, np.inf, -np.inf])),
        min_size=6,
        max_size=6,
    ),
)
def test_filter_equals_the_oracle_for_any_numbers(
    beta: float, r: float, m0: float, n0: float, y: list[float]
):
    with jax.enable_x64(True):
        got = _filtered(*(jnp.asarray(x) for x in (beta, r, m0, n0, y)))
    want = oracles.local_level(np.array(y), beta, r, m0, n0)
    # The dense solve has a condition number of up to beta^-6 / n0 + 1 ~ 1e5, times eps.
    np.testing.assert_allclose(got[0], want.filtered_mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(got[1], want.filtered_variance, rtol=1e-8)
    np.testing.assert_allclose(got[2], want.log_likelihood, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_diffuse_prior_is_conditioning_on_the_first_observation():
    y = oracles.random_stream(seed=1, num_steps=15)["nested"][0]
    start = int(np.flatnonzero(np.isfinite(y))[0])
    exact = oracles.local_level_conditioned(y[start:], BETA, R)
    for stream in (y[start:], np.concatenate([[np.nan, np.inf], y[start:]])):
        posterior, info = filters.filter_recording(DIFFUSE, jnp.asarray(stream))
        first = len(stream) - len(y[start:])
        np.testing.assert_allclose(posterior.gradient_mean[first], y[start], rtol=1e-14)
        np.testing.assert_allclose(posterior.gradient_variance[first], R, rtol=1e-14)
        after = np.stack([posterior.gradient_mean, posterior.gradient_variance])[:, first + 1 :]
        np.testing.assert_allclose(after, exact.filtered, rtol=1e-10, atol=1e-10)
        # The likelihood sums from the second observation.
        np.testing.assert_array_equal(info.log_density[: first + 1], 0)
        np.testing.assert_allclose(info.log_density.sum(), exact.log_likelihood, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_before_anything_is_seen_a_diffuse_belief_is_infinitely_wide():
    posterior = filters.filter_recording(DIFFUSE, np.full((2, 3), np.nan))[0]
    np.testing.assert_array_equal(posterior.gradient_mean, 0)
    np.testing.assert_array_equal(posterior.gradient_variance, np.inf)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shared", [False, True])
def test_bias_correction_is_a_prior(shared: bool):
    y = np.random.default_rng(2).normal(size=(50, 3))
    betas = [0.0, 0.9, 0.999]
    sums = [oracles.per_entry(lambda x, b=b: oracles.discounted(x, b), y) for b in betas]
    uncorrected = [(1 - b) * s for b, s in zip(betas, sums, strict=True)]
    weights = [1 - b ** np.arange(1, 51)[:, None] for b in betas]
    corrected = [u / w for u, w in zip(uncorrected, weights, strict=True)]

    @jax.vmap
    def means(beta: jax.Array, n0: jax.Array) -> jax.Array:
        filter_ = (
            LocalLevel(beta, prior_sample_size=n0).shared_filter()
            if shared
            else LocalLevel(beta, prior_sample_size=n0).filter()
        )
        return filters.filter_recording(filter_, jnp.asarray(y))[0].gradient_mean

    n0 = [0.0] * 3 + [steady_sample_size(b) for b in betas]
    got = means(jnp.asarray(betas * 2), jnp.asarray(n0))
    # 50 steps of float64 round-off; 1 - beta^t loses three digits at beta = 0.999.
    np.testing.assert_allclose(got, corrected + uncorrected, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_without_forgetting_it_is_the_mean_of_all_that_was_seen():
    y = np.random.default_rng(3).normal(size=20)
    y[[2, 7]] = np.nan
    posterior = filters.filter_recording(LocalLevel(1.0, R), jnp.asarray(y))[0]
    np.testing.assert_allclose(posterior.gradient_mean[-1], np.nanmean(y), rtol=1e-12)
    np.testing.assert_allclose(posterior.gradient_variance[-1], R / 18, rtol=1e-12)
    assert steady_sample_size(1.0) == np.inf


@pytest.mark.usefixtures("x64")
def test_derivatives_of_the_likelihood_are_those_of_the_oracle():
    stream = oracles.random_stream(seed=5, num_steps=12)["nested"][0]

    def likelihood(y: jax.Array, *hyper: Any) -> jax.Array:
        return filters.log_likelihood(LocalLevel(*hyper), y)

    slopes = jax.jit(jax.grad(likelihood, argnums=(1, 2, 3, 4)))
    for first, n0 in ((np.nan, N0), (0.3, 0.0)):
        y = np.concatenate([[first], stream])

        def exact(beta: float, r: float, m0: float = 0, n0: float = 0, y: Any = y) -> float:
            if n0 == 0:
                return oracles.local_level_conditioned(y, beta, r).log_likelihood
            return oracles.local_level(y, beta, r, m0, n0).log_likelihood

        got = slopes(jnp.asarray(y), BETA, R, M0, n0)
        assert np.all(np.isfinite(got))
        # A diffuse prior is diffuse: there, only discount and noise can be moved.
        want = laws.differences(exact, (BETA, R, M0, N0) if n0 else (BETA, R))
        # Central differences with step h: error h^2 f''' + eps f / h ~ 1e-9, relative to O(1).
        np.testing.assert_allclose(got[: len(want)], want, rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [MODEL, DIFFUSE])
def test_derivatives_in_a_missing_observation_are_zero_and_not_nan(model: LocalLevel):
    y = jnp.asarray([[jnp.nan, 1.0], [0.5, jnp.inf], [-1.0, 2.0], [3.0, 0.1]])
    got = jax.grad(lambda y: filters.log_likelihood(model, y).sum())(y)
    assert np.all(np.isfinite(got))
    np.testing.assert_array_equal(got == 0, ~np.isfinite(y))


def test_unknown_noise_leaves_the_mean_and_takes_away_the_density():
    y = jnp.asarray([1.0, jnp.nan, 3.0])
    known, unknown = (filters.filter_recording(LocalLevel(BETA, r), y) for r in (R, None))
    np.testing.assert_array_equal(known[0].gradient_mean, unknown[0].gradient_mean)
    assert unknown[0].gradient_variance is None
    assert unknown[1].log_density is None


# --- the program --------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_program_over_posterior_of_the_path_is_the_likelihood():
    """Log p(y, g) - log p(g | y) = log p(y) at any path g."""
    y = oracles.random_stream(seed=7, num_steps=12)["matrix"][:, :2, :].reshape(12, 4)
    path = np.random.default_rng(7).normal(size=(13, 4))
    params = {"initial_gradient": jnp.asarray(path[0]), "gradient": jnp.asarray(path[1:])}
    joint = laws.log_joint(MODEL.numpyro_model, params, y)
    exact = [oracle(y[:, i]) for i in range(4)]
    posterior = sum(e.path_log_density(path[:, i]) for i, e in enumerate(exact))
    # Float64 round-off of densities of order 1e2.
    np.testing.assert_allclose(joint - posterior, sum(e.log_likelihood for e in exact), rtol=1e-10)
    np.testing.assert_allclose(
        joint - posterior, filters.log_likelihood(MODEL, jnp.asarray(y)).sum(), rtol=1e-10
    )


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_program_of_a_diffuse_prior_is_conditioned_on_the_first_observation():
    y = oracles.random_stream(seed=8, num_steps=12)["matrix"][:, :2, :].reshape(12, 4)
    y[0] = [0.1, -2.0, 0.3, -0.2]
    path = np.random.default_rng(8).normal(size=(12, 4))
    params = {"initial_gradient": jnp.asarray(path[0]), "gradient": jnp.asarray(path[1:])}
    joint = laws.log_joint(DIFFUSE.numpyro_model, params, y)
    exact = [oracles.local_level_conditioned(y[:, i], BETA, R) for i in range(4)]
    posterior = sum(e.path_log_density(path[:, i]) for i, e in enumerate(exact))
    # Float64 round-off of densities of order 1e2.
    np.testing.assert_allclose(joint - posterior, sum(e.log_likelihood for e in exact), rtol=1e-10)
    np.testing.assert_allclose(
        joint - posterior, filters.log_likelihood(DIFFUSE, jnp.asarray(y)).sum(), rtol=1e-10
    )


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_program_takes_sampled_hyper_parameters():
    y = jnp.asarray(oracles.random_stream(seed=9, num_steps=5)["nested"][0])

    def program() -> None:
        beta = numpyro.sample("beta", numpyro.distributions.Uniform(0, 1))
        n0 = numpyro.sample("n0", numpyro.distributions.Uniform(1, 2))
        LocalLevel(beta, R, M0, n0).numpyro_model(y)

    latents = {"initial_gradient": jnp.asarray(0.1), "gradient": jnp.linspace(0, 1, 5)}

    @jax.jit
    @jax.value_and_grad
    def joint(hyper: Any) -> Any:
        return log_density(program, (), {}, hyper | latents)[0]

    at = {"beta": jnp.asarray(BETA), "n0": jnp.asarray(N0)}
    value, slopes = joint(at)
    # Float64 round-off of a dozen terms, in another order.
    np.testing.assert_allclose(value, laws.log_joint(MODEL.numpyro_model, latents, y), rtol=1e-14)
    assert np.all(np.isfinite(jax.tree.leaves(slopes)))


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_simulated_covariance():
    streams, num_steps = 20_000, 6
    program = numpyro.handlers.seed(MODEL.numpyro_model, jax.random.key(10))
    y = np.asarray(program(num_steps=num_steps, shape=(streams,)))
    assert y.shape == (num_steps, streams)
    level = oracles.local_level_covariance(np.ones(num_steps, bool), BETA, N0)[1:, 1:]
    exact = R * (level + np.eye(num_steps))
    # Second moments of Gaussians: variance (C_ii C_jj + C_ij^2) / streams. Five standard errors,
    # for 21 + 6 comparisons: a chance of 2e-5 that a right program fails for a fresh seed.
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / streams)
    centred = y - M0
    assert np.max(np.abs(centred @ centred.T / streams - exact) / error) < 5
    assert np.max(np.abs(centred.mean(1)) / np.sqrt(np.diag(exact) / streams)) < 5


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
def test_nuts_agrees_with_the_smoother():
    y = oracles.random_stream(seed=11, num_steps=12)["nested"][0]
    y[0] = 0.5
    exact = oracles.local_level_conditioned(y, BETA, R)
    draws = oracles.nuts(DIFFUSE.numpyro_model, jnp.asarray(y), seed=11, num_samples=3000)[
        "gradient"
    ]
    mean, variance = exact.smoothed_mean[1:], np.diag(exact.smoothed_covariance)[1:]
    # Four standard errors, by effective sample size, for 2 x 12 comparisons: a chance of 2e-3.
    assert np.max(oracles.standard_errors(draws, mean)) < 4
    assert np.max(oracles.standard_errors((draws - mean) ** 2, variance)) < 4


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("discount", [0, 1, 0.0, 1.0])
def test_program_needs_a_proper_walk(discount: float):
    with pytest.raises(ValueError, match="LocalLevel: .* 0 < discount < 1"):
        dataclasses.replace(MODEL, discount=discount).numpyro_model(np.zeros(3))


def test_program_needs_the_noise_variance():
    with pytest.raises(ValueError, match="LocalLevel: .* noise_variance"):
        dataclasses.replace(MODEL, noise_variance=None).numpyro_model(np.zeros(3))


def test_improper_prior_cannot_be_simulated():
    with pytest.raises(ValueError, match="improper prior.* prior_sample_size"):
        DIFFUSE.numpyro_model(num_steps=3)


def test_improper_prior_needs_a_complete_first_observation():
    y = np.array([[1.0, np.nan], [1.0, 2.0]])
    with pytest.raises(ValueError, match="first row of gradient.* prior_sample_size"):
        DIFFUSE.numpyro_model(y)
    # Inference traces the program; what is known of the recording is known there too.
    traced = jax.jit(lambda key: numpyro.handlers.seed(DIFFUSE.numpyro_model, key)(y))
    with jax.numpy_rank_promotion("allow"):
        with pytest.raises(ValueError, match="first row of gradient.* prior_sample_size"):
            traced(jax.random.key(0))


@pytest.mark.usefixtures("rank_promotion")
@pytest.mark.parametrize("model", [MODEL, DIFFUSE], ids=["proper", "diffuse"])
def test_program_can_be_traced(model: LocalLevel):
    y = np.array([[1.0, -1.0], [0.5, np.nan]], np.float32)
    row = jnp.zeros((1 if model is DIFFUSE else 2, 2))
    params = {"initial_gradient": jnp.zeros(2), "gradient": row}
    eager = log_density(model.numpyro_model, (y,), {}, params)[0]
    jitted = jax.jit(lambda y: log_density(model.numpyro_model, (y,), {}, params)[0])(y)
    # Float32 round-off of a handful of terms.
    np.testing.assert_allclose(jitted, eager, rtol=1e-6)


def test_likelihood_needs_the_noise_variance():
    with pytest.raises(ValueError, match="LocalLevel has no predictive density.* noise_variance"):
        filters.log_likelihood(LocalLevel(BETA), jnp.zeros(3))
