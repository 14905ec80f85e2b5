"""Local level with polynomial memory: gain, weights, filter and program against oracles."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy.special import gammaln

from beliefnav import beliefs, filters
from beliefnav.beliefs import PolynomialLevel
from tests import oracles
from tests.beliefs import laws

P, R, M0, T0 = 2.5, 0.6, 0.4, 1.7
MODEL = PolynomialLevel(P, R, M0, T0)
DIFFUSE = PolynomialLevel(P, R)


def oracle(y: np.ndarray) -> oracles.Gaussian:
    return oracles.polynomial_level(y, P, R, M0, T0)


@pytest.mark.usefixtures("x64")
def test_filter_equals_the_conditioned_joint_gaussian():
    laws.assert_filter_is_exact(MODEL, oracle)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 4.0, 16.0])
def test_its_gain_is_that_of_kalman_and_its_weights_are_polynomial(power: float):
    """Of a level whose drift has the variance R p(p+1) / ((t-1)(t-1+p)), from a diffuse start."""
    t = np.arange(1, 41)
    drift = R * power * (power + 1) / (t[:-1] * (t[:-1] + power))
    gain = (power + 1) / (t + power)
    # Float64 round-off of 40 steps.
    np.testing.assert_allclose(oracles.kalman_gains(drift, R), gain, rtol=1e-12)
    y = np.random.default_rng(0).normal(size=40)
    posterior, info = filters.filter_recording(PolynomialLevel(power, R), jnp.asarray(y))
    np.testing.assert_allclose(info.gain, gain, rtol=1e-12)
    np.testing.assert_allclose(posterior.gradient_variance, R * gain, rtol=1e-12)
    weights = np.exp(gammaln(t + power) - gammaln(t))
    means = np.cumsum(weights * y) / np.cumsum(weights)
    # Logarithms of the gamma function lose two digits.
    np.testing.assert_allclose(posterior.gradient_mean, means, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_plain_average_is_the_level_that_does_not_drift():
    y = oracles.random_stream(seed=3, num_steps=20)["matrix"]
    plain, level = (
        filters.filter_recording(belief, jnp.asarray(y))[0]
        for belief in (PolynomialLevel(0.0, R), beliefs.LocalLevel(1.0, R))
    )
    jax.tree.map(np.testing.assert_array_equal, plain, level)


@pytest.mark.usefixtures("x64")
def test_of_a_large_power_the_last_observation_is_left():
    y = np.random.default_rng(4).normal(size=20)
    means = filters.filter_recording(PolynomialLevel(1e9), jnp.asarray(y))[0].gradient_mean
    # One minus the gain is (t - 1) / (t + p) < 2e-8.
    np.testing.assert_allclose(means, y, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_where_entries_are_missing_the_others_keep_the_weights_of_their_steps():
    y = np.random.default_rng(5).normal(size=30)
    y[[0, 3, 4, 11, 29]] = np.nan
    t = np.arange(1, 31)
    weights = np.where(np.isfinite(y), np.exp(gammaln(t + P) - gammaln(t)), 0)
    mean = filters.filter_recording(DIFFUSE, jnp.asarray(y))[0].gradient_mean[-1]
    np.testing.assert_allclose(mean, np.average(np.nan_to_num(y), weights=weights), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_prior_is_the_belief_after_so_many_steps_at_its_mean():
    y = np.random.default_rng(6).normal(size=12)
    posterior, info = filters.filter_recording(
        PolynomialLevel(P, R), jnp.concatenate([jnp.full(3, M0), jnp.asarray(y)])
    )
    later, its_info = filters.filter_recording(PolynomialLevel(P, R, M0, 3.0), jnp.asarray(y))
    for one, other in zip(
        jax.tree.leaves((posterior, info)), jax.tree.leaves((later, its_info)), strict=True
    ):
        np.testing.assert_allclose(one[3:], other, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_slopes_are_finite_also_of_a_diffuse_start():
    y = jnp.asarray(oracles.random_stream(seed=5, num_steps=12)["nested"][0])

    def likelihood(power: jax.Array, noise_variance: jax.Array) -> jax.Array:
        return filters.log_likelihood(PolynomialLevel(power, noise_variance), y)

    got = jax.jit(jax.grad(likelihood, argnums=(0, 1)))(P, R)
    want = laws.differences(lambda p, r: float(likelihood(p, r)), (P, R))
    # Central differences with step h: error h^2 f''' + eps f / h ~ 1e-9, relative to O(1).
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-7)


def test_in_float32_the_sample_size_is_right_after_a_million_steps():
    filter_ = PolynomialLevel(2.0).shared_filter()

    @jax.jit
    def run(state: Any) -> Any:
        def step(state: Any, _: None) -> tuple[Any, None]:
            return filter_.update(filter_.predict(state), jnp.ones(())), None

        return jax.lax.scan(step, state, None, 1_000_000)[0]

    state = run(filter_.init(jnp.zeros(())))
    assert int(state.steps) == 1_000_000
    # Roundings of n add up over its memory, n steps: eps n / 2 at most.
    np.testing.assert_allclose(state.sample_size, 1_000_002 / 3, rtol=6e-8 * 333_334)
    np.testing.assert_allclose(state.mean, 1.0, rtol=1e-6)


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


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_program_of_a_diffuse_prior_is_conditioned_on_the_first_observation():
    y = oracles.random_stream(seed=8, num_steps=12)["matrix"][:, 0, :]
    y[0] = np.linspace(-1, 1, y.shape[1])
    path = np.random.default_rng(8).normal(size=y.shape)
    params = {"initial_gradient": jnp.asarray(path[0]), "gradient": jnp.asarray(path[1:])}
    joint = laws.log_joint(DIFFUSE.numpyro_model, params, y)
    # After one step the prior is that observation.
    exact = [oracles.polynomial_level(x[1:], P, R, x[0], 1.0) for x in y.T]
    posterior = sum(e.path_log_density(path[:, i]) for i, e in enumerate(exact))
    # Float64 round-off of densities of order 1e2.
    want = sum(e.log_likelihood for e in exact)
    np.testing.assert_allclose(joint - posterior, want, rtol=1e-10)
    np.testing.assert_allclose(filters.log_likelihood(DIFFUSE, jnp.asarray(y)).sum(), want)


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_simulated_levels_drift_ever_less():
    streams, num_steps = 20_000, 6
    program = numpyro.handlers.seed(MODEL.numpyro_model, jax.random.key(10))
    y = np.asarray(program(num_steps=num_steps, shape=(streams,)))
    s = T0 + np.arange(num_steps)
    steps = R * P * (P + 1) / (s * (s + P))
    # Differences of observations: the step of the level and two noises.
    got = np.diff(y, axis=0).var(1)
    want = steps[1:] + 2 * R
    # Five standard errors of a variance, for five comparisons: a chance of 3e-6 for a fresh seed.
    assert np.max(np.abs(got / want - 1)) < 5 * np.sqrt(2 / streams)


# --- words and errors ---------------------------------------------------------------------------


def test_what_it_assumes_in_words():
    facts = {f.subject: f.value for f in PolynomialLevel(3.0).facts()}
    assert facts == {"gradient": "memory 0.25 of all steps", "gradient prior": "0 observations"}
    assert PolynomialLevel(0).facts()[0].value == "memory unlimited"
    assert PolynomialLevel(1, prior_steps=3).facts()[1].value == "2 observations"


@pytest.mark.parametrize("power", [0, 0.0])
def test_program_needs_a_level_that_drifts(power: float):
    with pytest.raises(ValueError, match="PolynomialLevel: .* power > 0"):
        dataclasses.replace(MODEL, power=power).numpyro_model(np.zeros(3))


def test_program_needs_the_noise_variance():
    with pytest.raises(ValueError, match="PolynomialLevel: .* noise_variance"):
        dataclasses.replace(MODEL, noise_variance=None).numpyro_model(np.zeros(3))


def test_improper_prior_cannot_be_simulated_nor_looked_back_to():
    with pytest.raises(ValueError, match="improper prior.* prior_steps"):
        DIFFUSE.numpyro_model(num_steps=3)
    with pytest.raises(ValueError, match="improper PolynomialLevel.*prior_steps=1"):
        filters.smooth_recording(DIFFUSE, jnp.zeros(3))
