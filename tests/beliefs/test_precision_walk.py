"""Precision walk with discount: filter and program against sums, grids and paths."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import integrate, stats

from beliefnav import filters
from beliefnav.beliefs import PrecisionWalk, shared, steady_sample_size
from beliefnav.beliefs.second_moment.precision_walk import PrecisionWalkState
from tests import oracles
from tests.beliefs import laws

BETA, V0, N0 = 0.8, 0.6, 2.5
MODEL = PrecisionWalk(BETA, V0, N0)
IMPROPER = PrecisionWalk(BETA)


def oracle(y: np.ndarray) -> oracles.Precision:
    return oracles.precision_walk(y, BETA, V0 * N0, N0)


def test_defining_sums_integrate_the_walk():
    """The sums that the other tests compare with, against numerical integration."""
    y = np.random.default_rng(0).normal(size=8)
    y[[0, 3]] = np.nan, np.inf
    sums, grid = oracle(y), oracles.precision_walk_grid(y, BETA, V0 * N0, N0)
    n, s = sums.degrees_of_freedom[-1], sums.sum_of_squares[-1]
    # 8 steps of spline interpolation on a grid of 0.005 in log phi: errors of 1e-9 a step.
    np.testing.assert_allclose(grid.mean, n / s, rtol=1e-7)
    np.testing.assert_allclose(grid.variance, 2 * n / s**2, rtol=1e-7)
    np.testing.assert_allclose(grid.log_likelihood, sums.log_densities.sum(), rtol=1e-7)


@pytest.mark.usefixtures("x64")
def test_filter_equals_the_defining_sums():
    recorded = oracles.random_stream(seed=1, num_steps=15)
    posterior, info = filters.filter_recording(MODEL, recorded)
    assert posterior.gradient_mean is None

    def check(y: Any, curvature: Any, density: Any, missing: Any) -> None:
        def exact(x: np.ndarray) -> np.ndarray:
            sums = oracle(x)
            return np.stack([sums.sum_of_squares / sums.degrees_of_freedom, sums.log_densities])

        # Float64 round-off of 15 steps.
        want = oracles.per_entry(exact, y)
        np.testing.assert_allclose(np.stack([curvature, density]), want, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(missing, ~np.isfinite(y))

    jax.tree.map(check, recorded, posterior.curvature_mean, info.log_density, info.missing)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("beta", "v0", "n0"), [(0.0, 1.0, 3.0), (1.0, 2.0, 0.5), (0.95, 0.0, 0.0)])
def test_likelihood_equals_student_t_at_the_edges_of_the_ranges(beta: float, v0: float, n0: float):
    y = oracles.random_stream(seed=2, num_steps=15)["nested"][0]
    got = filters.log_likelihood(PrecisionWalk(beta, v0, n0), jnp.asarray(y))
    want = oracles.precision_walk(y, beta, v0 * n0, n0).log_densities.sum()
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_variance_of_curvature_is_the_mean_square_deviation_under_the_gamma():
    s, n = jnp.asarray([0.7, 2.0, 5.0, 1.0]), jnp.asarray([5.0, 12.5, 4.0, 3.0])
    got = PrecisionWalkState(s, n).posterior().curvature_variance
    for i in range(2):
        value, size = float(s[i]), float(n[i])
        density = functools.partial(stats.gamma.pdf, a=size / 2, scale=2 / (size * value))

        def integrand(u: float, v: float = value, p: Any = density) -> float:
            """The mean square deviation of 1/phi = e^u, as an integral over u."""
            return (np.exp(u) - v) ** 2 * p(np.exp(-u)) * np.exp(-u)

        want = integrate.quad(integrand, -12, 60, limit=400, epsabs=0, epsrel=1e-10)[0]
        np.testing.assert_allclose(got[i], want, rtol=1e-8)
    np.testing.assert_array_equal(got[2:], np.inf)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shared", [False, True])
def test_bias_correction_is_a_prior(shared: bool):
    y = np.random.default_rng(3).normal(size=(50, 3))
    betas = [0.0, 0.9, 0.999]
    sums = [oracles.per_entry(lambda x, b=b: oracles.discounted(x**2, b), y) for b in betas]
    uncorrected = [(1 - b) * s for b, s in zip(betas, sums, strict=True)]
    weights = [1 - b ** np.arange(1, 51)[:, None] for b in betas]
    corrected = [u / w for u, w in zip(uncorrected, weights, strict=True)]

    @jax.vmap
    def second_moments(beta: jax.Array, n0: jax.Array) -> jax.Array:
        filter_ = (
            PrecisionWalk(beta, prior_degrees_of_freedom=n0).shared_filter()
            if shared
            else PrecisionWalk(beta, prior_degrees_of_freedom=n0).filter()
        )
        return filters.filter_recording(filter_, jnp.asarray(y))[0].curvature_mean

    n0 = [0.0] * 3 + [steady_sample_size(b) for b in betas]
    got = second_moments(jnp.asarray(betas * 2), jnp.asarray(n0))
    # 50 steps of float64 round-off; 1 - beta^t loses three digits at beta = 0.999.
    np.testing.assert_allclose(got, corrected + uncorrected, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_derivatives_of_the_likelihood_are_those_of_the_oracle():
    y = oracles.random_stream(seed=5, num_steps=12)["matrix"].reshape(12, 6)
    y[0] = np.nan

    def likelihood(*hyper: Any) -> jax.Array:
        return filters.log_likelihood(PrecisionWalk(*hyper), jnp.asarray(y)).sum()

    def exact(beta: float, v0: float, n0: float) -> float:
        return oracles.per_entry(
            lambda x: oracles.precision_walk(x, beta, v0 * n0, n0).log_densities.sum(), y
        ).sum()

    slopes, h = jax.jit(jax.grad(likelihood, argnums=(0, 1, 2))), 1e-5
    for v0, n0 in ((V0, N0), (0.0, 0.0)):
        got = slopes(BETA, v0, n0)
        assert np.all(np.isfinite(got))
        # An improper prior is improper: there, only the discount can be moved.
        point, directions = np.array([BETA, v0, n0]), np.eye(3)[: 3 if n0 else 1]
        want = [(exact(*(point + h * e)) - exact(*(point - h * e))) / (2 * h) for e in directions]
        # Central differences with step h: error h^2 f''' + eps f / h ~ 1e-9, relative to O(10).
        np.testing.assert_allclose(got[: len(want)], want, rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [MODEL, IMPROPER], ids=["proper", "improper"])
def test_derivatives_in_a_missing_observation_are_zero_and_not_nan(model: PrecisionWalk):
    y = jnp.asarray([[jnp.nan, 1.0], [0.5, jnp.inf], [-1.0, 2.0], [3.0, 0.1]])
    got = jax.grad(lambda y: filters.log_likelihood(model, y).sum())(y)
    assert np.all(np.isfinite(got))
    np.testing.assert_array_equal(got == 0, ~np.isfinite(y))


# --- the program --------------------------------------------------------------------------------


def _random_path(seed: int, num_steps: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shocks [step, size], and the path of precisions [1 + step, size] that they make."""
    rng = np.random.default_rng(seed)
    shocks = rng.uniform(0.3, 0.95, (num_steps, size))
    initial = rng.uniform(0.5, 2, (1, size))
    return shocks, initial * np.cumprod(np.concatenate([np.ones((1, size)), shocks / BETA]), axis=0)


@pytest.mark.usefixtures("x64", "rank_promotion")
@pytest.mark.parametrize("model", [MODEL, IMPROPER], ids=["proper", "improper"])
def test_program_over_posterior_of_the_path_is_the_likelihood(model: PrecisionWalk):
    """Log p(y, shocks) - log p(shocks | y) = log p(y) at any path."""
    y = oracles.random_stream(seed=7, num_steps=12)["matrix"].reshape(12, 6)[:, :4]
    y[0] = [0.1, -2.0, 0.3, -0.2]
    # Conditioned on its first observation the walk starts from the posterior Gamma(1/2, y^2/2).
    rest, n0 = (y, N0) if model is MODEL else (y[1:], 1.0)
    s0 = np.full(4, V0 * N0) if model is MODEL else y[0] ** 2
    shocks, path = _random_path(7, len(rest), 4)
    params = {"initial_precision": jnp.asarray(path[0]), "shock": jnp.asarray(shocks)}
    joint = laws.log_joint(model.numpyro_model, params, y)
    posterior = np.log(path[:-1] / BETA).sum() + sum(
        oracles.precision_path_log_density(path[:, i], rest[:, i], BETA, s0[i], n0)
        for i in range(4)
    )
    exact = sum(
        oracles.precision_walk(rest[:, i], BETA, s0[i], n0).log_densities.sum() for i in range(4)
    )
    # Float64 round-off of densities of order 1e2.
    np.testing.assert_allclose(joint - posterior, exact, rtol=1e-10)
    np.testing.assert_allclose(
        joint - posterior, filters.log_likelihood(model, jnp.asarray(y)).sum(), rtol=1e-10
    )


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_program_reports_the_path_of_precisions():
    y = jnp.asarray([0.5, jnp.nan, 1.0])
    shocks, path = _random_path(8, 3, 1)
    data = {"initial_precision": jnp.asarray(path[0, 0]), "shock": jnp.asarray(shocks[:, 0])}
    program = numpyro.handlers.substitute(MODEL.numpyro_model, data)
    sites = numpyro.handlers.trace(program).get_trace(y)
    assert sites["precision"]["type"] == "deterministic"
    np.testing.assert_allclose(sites["precision"]["value"], path[1:, 0], rtol=1e-14)


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
def test_simulated_moments():
    streams, num_steps = 20_000, 5
    program = numpyro.handlers.seed(MODEL.numpyro_model, jax.random.key(9))
    sites = numpyro.handlers.trace(program).get_trace(num_steps=num_steps, shape=(streams,))
    y = np.asarray(sites["observation"]["value"])
    precision = np.asarray(sites["precision"]["value"])
    assert y.shape == precision.shape == (num_steps, streams)
    # The mean of the precision stays; of its square, the shocks are Beta(a, b) over beta.
    n = np.concatenate([[N0], oracles.discounted(np.ones(num_steps - 1), BETA, N0)])
    a, total = BETA * n / 2, n / 2
    square = V0**-2 * (1 + 2 / N0) * np.cumprod(a * (a + 1) / (total * (total + 1)) / BETA**2)

    def errors(draws: np.ndarray, mean: Any) -> np.ndarray:
        return np.abs(draws.mean(1) - mean) / (draws.std(1) / np.sqrt(streams))

    # Five standard errors for 5 x 3 comparisons; precision * y^2 is chi-squared of one degree.
    assert np.max(errors(precision, 1 / V0)) < 5
    assert np.max(errors(precision**2, square)) < 5
    assert np.max(errors(precision * y**2, 1)) < 5
    # The first observation is Student-t; a right program fails for a fresh seed by 1e-4.
    exact = stats.t(BETA * N0, scale=np.sqrt(V0))
    assert stats.kstest(y[0], exact.cdf).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
def test_nuts_agrees_with_the_filter_at_the_last_step():
    y = oracles.random_stream(seed=10, num_steps=8)["nested"][0]
    y[0] = 0.7
    sums = oracles.precision_walk(y, BETA, 0, 0)
    n, s = sums.degrees_of_freedom[-1], sums.sum_of_squares[-1]
    draws = oracles.nuts(IMPROPER.numpyro_model, jnp.asarray(y), seed=10, num_samples=2000)
    last = draws["precision"][..., -1:]
    # Four standard errors, by effective sample size, for 2 comparisons: a chance of 1e-4.
    assert np.max(oracles.standard_errors(last, n / s)) < 4
    assert np.max(oracles.standard_errors((last - n / s) ** 2, 2 * n / s**2)) < 4


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("discount", [0, 1, 0.0, 1.0])
def test_program_needs_a_proper_walk(discount: float):
    with pytest.raises(ValueError, match="PrecisionWalk: .* 0 < discount < 1"):
        dataclasses.replace(MODEL, discount=discount).numpyro_model(np.zeros(3))


def test_program_needs_a_positive_prior_second_moment():
    with pytest.raises(ValueError, match="PrecisionWalk: .* prior_second_moment"):
        dataclasses.replace(MODEL, prior_second_moment=0).numpyro_model(np.zeros(3))


def test_improper_prior_cannot_be_simulated():
    with pytest.raises(ValueError, match="improper prior.* prior_degrees_of_freedom"):
        IMPROPER.numpyro_model(num_steps=3)


def test_improper_prior_needs_a_complete_first_observation():
    y = np.array([[1.0, np.nan], [1.0, 2.0]])
    with pytest.raises(ValueError, match="first row of gradient.* prior_degrees_of_freedom"):
        IMPROPER.numpyro_model(y)
    # Inference traces the program; what is known of the recording is known there too.
    traced = jax.jit(lambda key: numpyro.handlers.seed(IMPROPER.numpyro_model, key)(y))
    with jax.numpy_rank_promotion("allow"):
        with pytest.raises(ValueError, match="first row of gradient.* prior_degrees_of_freedom"):
            traced(jax.random.key(0))


def test_likelihood_of_a_stream_of_zeros_is_right_in_float32():
    """After some steps the second moment has no number in float32; the likelihood has."""
    y = np.zeros(400)
    y[:5], y[-1] = 1e-3, 1e-25

    def of(dtype: Any) -> Any:
        def log_likelihood(discount: Any) -> Any:
            belief = PrecisionWalk(discount, 1e-4, 1.0)
            return filters.log_likelihood(belief, jnp.asarray(y, dtype))

        both = jax.jit(jax.vmap(jax.value_and_grad(log_likelihood)))
        return both(jnp.array([0.3, 0.5, 0.8, 0.9], dtype))

    low = of(np.float32)
    with jax.enable_x64(True):
        want = of(np.float64)
    for one, other in zip(low, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)
    # It falls with the memory: such a coordinate asks for none.
    assert np.all(np.diff(want[0]) < 0)


@pytest.mark.usefixtures("x64")
def test_likelihood_is_that_of_the_steps_of_the_filter():
    """With missing entries, an improper prior, and zeros at first."""
    y = oracles.random_stream(seed=3, num_steps=30, missing=0.2)["matrix"]
    y[:3, 0] = 0.0
    for belief in (PrecisionWalk(0.8), PrecisionWalk(0.8, 0.5, 3.0), shared(PrecisionWalk(0.8))):
        got = filters.log_likelihood(belief, y)
        want = filters.filter_recording(belief, y)[1].log_density.sum(0)
        np.testing.assert_allclose(got, want, rtol=1e-10)
