"""Ornstein-Uhlenbeck gradient: filter and program against the joint Gaussian."""

from decimal import Decimal, localcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.infer.util import log_density
from scipy import linalg

from beliefnav import filters
from beliefnav.beliefs import OrnsteinUhlenbeck
from tests import oracles
from tests.beliefs import laws

RHO, Q, R = 0.8, 0.3, 0.7
MODEL = OrnsteinUhlenbeck(RHO, Q, R)


def oracle(y: np.ndarray) -> oracles.Gaussian:
    return oracles.ornstein_uhlenbeck(y, RHO, Q, R)


@pytest.mark.usefixtures("x64")
def test_filter_equals_the_conditioned_joint_gaussian():
    laws.assert_filter_is_exact(MODEL, oracle)


@jax.jit
def _filtered(rho: jax.Array, q: jax.Array, r: jax.Array, y: jax.Array) -> Any:
    model = OrnsteinUhlenbeck(rho, q, r)
    posterior, info = filters.filter_recording(model, y)
    return posterior.gradient_mean, posterior.gradient_variance, info.log_density.sum()


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    rho=st.floats(0, 0.99),
    q=st.floats(1e-2, 1e2),
    r=st.floats(1e-2, 1e2),
    y=st.lists(
        st.one_of(st.floats(-10, 10), st.sampled_from([np.nan, np.inf, -np.inf])),
        min_size=6,
        max_size=6,
    ),
)
def test_filter_equals_the_oracle_for_any_numbers(rho: float, q: float, r: float, y: list[float]):
    with jax.enable_x64(True):
        got = _filtered(*(jnp.asarray(x) for x in (rho, q, r, y)))
    want = oracles.ornstein_uhlenbeck(np.array(y), rho, q, r)
    # The dense solve has a condition number of up to (q / (1 - rho^2) + R) / R ~ 5e5, times eps.
    np.testing.assert_allclose(got[0], want.filtered_mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(got[1], want.filtered_variance, rtol=1e-8)
    np.testing.assert_allclose(got[2], want.log_likelihood, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_steady_gain_memory_and_response_to_a_constant():
    predicted = linalg.solve_discrete_are(RHO, 1.0, Q, R)[0, 0]
    gain = predicted / (predicted + R)
    impulse = jnp.zeros(200).at[100].set(1.0)
    posterior, info = filters.filter_recording(MODEL, impulse)
    mean = posterior.gradient_mean
    # The gain converges geometrically by (rho (1 - K))^2 < 0.3 a step: exact after 100.
    np.testing.assert_allclose(info.gain[100:], gain, rtol=1e-12)
    np.testing.assert_allclose(mean[100], gain, rtol=1e-12)
    np.testing.assert_allclose(mean[101:110] / mean[100:109], RHO * (1 - gain), rtol=1e-12)
    constant = filters.filter_recording(MODEL, jnp.ones(200))[0].gradient_mean[-1]
    np.testing.assert_allclose(constant, gain / (1 - RHO * (1 - gain)), rtol=1e-12)
    assert constant < 1


def exact_gain(rho: float, q: float, r: float) -> float:
    """From the fixed point of the variance by its textbook quadratic, with digits to spare."""
    with localcontext() as context:
        context.prec = 120
        rho_, q_, r_ = (Decimal(x) for x in (rho, q, r))
        b = q_ - r_ * (1 - rho_**2)
        variance = (b + (b * b + 4 * q_ * r_).sqrt()) / 2
        return float(variance / (variance + r_))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("q", [1e-3, 0.3, 50.0])
def test_steady_gain_is_where_the_filter_settles(rho: float, q: float):
    model = OrnsteinUhlenbeck(rho, q, R)
    info = filters.filter_recording(model, jnp.zeros(1000))[1]
    # The gain converges by (rho (1 - K))^2 < 0.96 a step: exact after 1000.
    np.testing.assert_allclose(model.steady_gain, info.gain[-1], rtol=1e-12)
    np.testing.assert_allclose(model.steady_gain, exact_gain(rho, q, R), rtol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("ratio", [1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12])
def test_steady_gain_keeps_its_digits_in_float32(rho: float, ratio: float):
    """However small or large the signal is: neither of two large numbers is subtracted."""
    rho, ratio = float(np.float32(rho)), float(np.float32(ratio))
    got = OrnsteinUhlenbeck(rho, jnp.float32(ratio), jnp.float32(1)).steady_gain
    assert got.dtype == jnp.float32
    # Some roundings of 6e-8.
    np.testing.assert_allclose(got, exact_gain(rho, ratio, 1.0), rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-24, 1e-12, 1e12, 1e24])
def test_steady_gain_does_not_depend_on_the_unit(unit: float):
    """In float32, where the square of a small or a large variance is no number any more."""
    q, r = (jnp.float32(x * unit) for x in (Q, R))
    got = OrnsteinUhlenbeck(RHO, q, r).steady_gain
    np.testing.assert_allclose(got, exact_gain(RHO, Q, R), rtol=1e-6)


def test_steady_gain_without_noise_is_one():
    np.testing.assert_array_equal(OrnsteinUhlenbeck(RHO, Q, 0.0).steady_gain, 1)


@pytest.mark.usefixtures("x64")
def test_without_noise_and_memory_the_belief_is_what_was_just_seen():
    y = jnp.asarray([1.0, -2.0, jnp.nan, 3.0])
    posterior = filters.filter_recording(OrnsteinUhlenbeck(0.0, 2.0, 0.0), y)[0]
    np.testing.assert_array_equal(posterior.gradient_mean, [1, -2, 0, 3])
    np.testing.assert_array_equal(posterior.gradient_variance, [0, 0, 2, 0])


@pytest.mark.usefixtures("x64")
def test_derivatives_of_the_likelihood_are_those_of_the_oracle():
    y = oracles.random_stream(seed=3, num_steps=12)["matrix"][:, :2, 0]
    y[0] = np.nan, np.inf

    def likelihood(*hyper: Any) -> jax.Array:
        return filters.log_likelihood(OrnsteinUhlenbeck(*hyper), jnp.asarray(y)).sum()

    def exact(*hyper: Any) -> float:
        return oracles.per_entry(
            lambda x: oracles.ornstein_uhlenbeck(x, *hyper).log_likelihood, y
        ).sum()

    got = jax.jit(jax.grad(likelihood, argnums=(0, 1, 2)))(RHO, Q, R)
    # Central differences with step h: error h^2 f''' + eps f / h ~ 1e-9, relative to O(1).
    np.testing.assert_allclose(got, laws.differences(exact, (RHO, Q, R)), rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_derivatives_in_a_missing_observation_are_zero_and_not_nan():
    y = jnp.asarray([[jnp.nan, 1.0], [0.5, jnp.inf], [-1.0, 2.0]])
    got = jax.grad(lambda y: filters.log_likelihood(MODEL, y).sum())(y)
    assert np.all(np.isfinite(got))
    np.testing.assert_array_equal(got == 0, ~np.isfinite(y))


# --- the program --------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_program_over_posterior_of_the_path_is_the_likelihood():
    """Log p(y, g) - log p(g | y) = log p(y) at any path g."""
    rng = np.random.default_rng(5)
    y = oracles.random_stream(seed=5, num_steps=12)["matrix"][:, :2, :].reshape(12, 4)
    path = rng.normal(size=(13, 4))
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
def test_program_takes_sampled_hyper_parameters():
    y = jnp.asarray(oracles.random_stream(seed=6, num_steps=5)["nested"][0])

    def program() -> None:
        rho = numpyro.sample("rho", numpyro.distributions.Uniform(0, 1))
        OrnsteinUhlenbeck(rho, Q, R).numpyro_model(y)

    latents = {"initial_gradient": jnp.asarray(0.1), "gradient": jnp.linspace(0, 1, 5)}

    @jax.jit
    @jax.value_and_grad
    def joint(rho: Any) -> Any:
        return log_density(program, (), {}, {"rho": rho, **latents})[0]

    value, slope = joint(jnp.asarray(RHO))
    # Float64 round-off of a dozen terms, in another order.
    np.testing.assert_allclose(value, laws.log_joint(MODEL.numpyro_model, latents, y), rtol=1e-14)
    assert np.isfinite(slope)


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_simulated_covariance():
    streams, num_steps = 20_000, 6
    program = numpyro.handlers.seed(MODEL.numpyro_model, jax.random.key(7))
    y = np.asarray(program(num_steps=num_steps, shape=(streams,)))
    assert y.shape == (num_steps, streams)
    exact = oracles.ornstein_uhlenbeck_covariance(num_steps, RHO, Q) + R * np.eye(num_steps)
    # Second moments of Gaussians: variance (C_ii C_jj + C_ij^2) / streams. Five standard errors,
    # for 21 + 6 comparisons: a chance of 2e-5 that a right program fails for a fresh seed.
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / streams)
    assert np.max(np.abs(y @ y.T / streams - exact) / error) < 5
    assert np.max(np.abs(y.mean(1)) / np.sqrt(np.diag(exact) / streams)) < 5


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
def test_nuts_agrees_with_the_smoother():
    y = oracles.random_stream(seed=8, num_steps=12)["nested"][0]
    assert 0 < np.isfinite(y).sum() < 12
    exact = oracle(y)
    draws = oracles.nuts(MODEL.numpyro_model, jnp.asarray(y), seed=8, num_samples=3000)["gradient"]
    mean, variance = exact.smoothed_mean[1:], np.diag(exact.smoothed_covariance)[1:]
    # Four standard errors, by effective sample size, for 2 x 12 comparisons: a chance of 2e-3.
    assert np.max(oracles.standard_errors(draws, mean)) < 4
    assert np.max(oracles.standard_errors((draws - mean) ** 2, variance)) < 4
