"""Positive curvature: moments of a truncated Gaussian, and beliefs that are read by them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from beliefnav import beliefs, filters
from beliefnav.beliefs import OrnsteinUhlenbeck, Posterior, Secant
from beliefnav.beliefs.composed.positive import truncate
from tests import oracles

T = np.array(
    [-200.0, -100, -50, -31, -30.01, -29.99, -25, -20, -15, -10, -5, -3, -1, 0, 0.5, 2, 10, 50]
)


def truncated(t: float) -> tuple[float, float]:
    """Mean and variance of N(t, 1) given that it is positive, by quadrature.

    Below 0 in units of 1/|t|, in which the density is exp(-u - u^2/(2 t^2)): nothing cancels.
    """
    unit = 1 / max(1.0, -t)

    def density(u: float) -> float:
        return np.exp(-((u * unit - max(t, 0)) ** 2) / 2 + min(t, 0) * unit * u)

    lower, upper = max(0.0, t - 12), max(t, 0) + (12 if unit == 1 else 60)

    def integral(f: Callable[[float], float]) -> float:
        return integrate.quad(
            lambda u: f(u) * density(u), lower, upper, epsabs=0, epsrel=1e-12, limit=500
        )[0]

    mass = integral(lambda _: 1)
    mean = integral(lambda u: u) / mass
    return unit * mean, unit**2 * integral(lambda u: (u - mean) ** 2) / mass


read_as_positive = jax.jit(truncate)
EXACT = np.array([truncated(t) for t in T]).T


def test_quadrature_is_that_of_a_truncated_normal():
    for t, mean, variance in zip(T, *EXACT, strict=True):
        if t >= -5:  # beyond, scipy's own variance loses digits
            law = stats.truncnorm(-t, np.inf, loc=t)
            np.testing.assert_allclose([mean, variance], [law.mean(), law.var()], rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_moments_of_the_curvature(scale: float):
    """Equal to quadrature whatever is used where; far below 0, that is an asymptotic series."""
    read = read_as_positive(
        Posterior(curvature_mean=jnp.asarray(scale * T), curvature_variance=jnp.full(18, scale**2))
    )
    np.testing.assert_allclose(read.curvature_mean, scale * EXACT[0], rtol=1e-8)
    np.testing.assert_allclose(read.curvature_variance, scale**2 * EXACT[1], rtol=1e-8)
    assert read.gradient_mean is None and read.gradient_curvature_covariance is None


def test_moments_in_single_precision():
    t = np.linspace(-200, 50, 20001, dtype=np.float32)
    read = read_as_positive(Posterior(None, None, jnp.asarray(t), jnp.ones_like(t)))
    mean, variance = np.asarray(read.curvature_mean), np.asarray(read.curvature_variance)
    assert mean.dtype == variance.dtype == np.float32
    assert np.all(mean > 0) and np.all(np.isfinite(mean))
    assert np.all(variance > 0) and np.all(variance <= 1)
    single = read_as_positive(Posterior(None, None, jnp.asarray(T, jnp.float32), jnp.ones(18)))
    # The variance is a share of some 1/t^2 of 1, and 1e-7 relative to what it is a share of.
    np.testing.assert_allclose(single.curvature_mean, EXACT[0], rtol=1e-3)
    np.testing.assert_allclose(single.curvature_variance, EXACT[1], rtol=1e-3)


def plane(density: Callable[..., Any], box: list[tuple[float, float]]) -> Posterior:
    """Moments of (g, h) by Gauss-Legendre quadrature of a density on a box."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    axes = [(b - a) / 2 * nodes + (a + b) / 2 for a, b in box]
    g, h = np.meshgrid(*axes, indexing="ij")
    mass = density(g, h) * np.outer(weights, weights)
    mass /= mass.sum()
    m, v = (mass * g).sum(), (mass * h).sum()
    return Posterior(
        m,
        (mass * (g - m) ** 2).sum(),
        v,
        (mass * (h - v) ** 2).sum(),
        (mass * (g - m) * (h - v)).sum(),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("correlation", [-0.95, 0.0, 0.6])
def test_moments_of_the_gradient(correlation: float):
    m, s, sigma = 0.7, 1.3, 0.4
    for t in (-4.0, -1.0, 0.0, 3.0):
        covariance = np.array(
            [[s**2, correlation * s * sigma], [correlation * s * sigma, sigma**2]]
        )
        precision = np.linalg.inv(covariance)
        mean = (m, t * sigma)

        def density(g: Any, h: Any, precision: Any = precision, mean: Any = mean) -> Any:
            x = np.stack([g - mean[0], h - mean[1]], -1)
            return np.exp(-np.einsum("...i,ij,...j", x, precision, x) / 2)

        top = max(t * sigma, 0) + 9 * sigma
        want = plane(density, [(m - 20 * s, m + 20 * s), (0, top)])
        fields = (m, s**2, t * sigma, sigma**2, covariance[0, 1])
        got = read_as_positive(Posterior(*(jnp.full(1, x) for x in fields)))
        # The box leaves out densities of 1e-17; the density is smooth on it.
        np.testing.assert_allclose(np.ravel(got[:5]), want[:5], rtol=1e-8, atol=1e-10)


def test_what_is_certain_and_what_is_unknown():
    inf = jnp.inf
    before = Posterior(
        gradient_mean=jnp.asarray([1.0, 1.0, 1.0, 1.0, 1.0]),
        gradient_variance=jnp.asarray([2.0, 2.0, inf, inf, 2.0]),
        curvature_mean=jnp.asarray([3.0, -3.0, 3.0, -3.0, 0.0]),
        curvature_variance=jnp.asarray([0.0, 0.0, inf, inf, 0.0]),
        gradient_curvature_covariance=jnp.asarray([0.0, 0.0, inf, -inf, 0.0]),
    )
    after = read_as_positive(before)
    np.testing.assert_array_equal(after.gradient_mean, 1)
    np.testing.assert_array_equal(after.gradient_variance, before.gradient_variance)
    np.testing.assert_array_equal(after.curvature_mean, [3, 0, inf, inf, 0])
    np.testing.assert_array_equal(after.curvature_variance, before.curvature_variance)
    np.testing.assert_array_equal(
        after.gradient_curvature_covariance, before.gradient_curvature_covariance
    )


def test_derivatives_are_finite_where_a_variance_is_zero_or_a_mean_far_below():
    mean = jnp.asarray([3.0, -3.0, 0.0, -100.0, -29.0, 60.0])
    variance = jnp.asarray([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])

    def total(mean: Any, variance: Any) -> Any:
        one = jnp.ones_like(mean)
        read = read_as_positive(Posterior(one, one, mean, variance, 0.1 * variance))
        return sum(jnp.sum(x) for x in read[:5])

    slopes = jax.grad(total, argnums=(0, 1))(mean, variance)
    assert all(np.all(np.isfinite(x)) for x in slopes)


# --- beliefs ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_a_static_curvature_that_is_positive_is_exactly_this():
    """To truncate the prior is to truncate the posterior."""
    y, d, noise = (
        np.array([0.3, 0.1, np.nan, 0.9, -0.2]),
        np.array([0.5, -0.2, 0.4, -0.9, 0.0]),
        0.2,
    )
    model = Secant(noise, 1.5, 0.8, prior_gradient_mean=0.2, prior_curvature_mean=-0.3)
    posterior, info = filters.filter_recording(
        beliefs.positive(model), jnp.asarray(y), jnp.asarray(d)
    )
    plain, plain_info = filters.filter_recording(model, jnp.asarray(y), jnp.asarray(d))
    # The same but for how XLA fuses float64.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), info, plain_info
    )
    position = np.concatenate([[0], np.cumsum(d)[:-1]])
    for t in range(5):

        def density(g: Any, h: Any, t: int = t) -> Any:
            """Of (g_t, h), by way of g_0 = g_t - h x_t."""
            start = g - h * position[t]
            total = stats.norm.logpdf(start, 0.2, np.sqrt(1.5))
            total = total + stats.norm.logpdf(h, -0.3, np.sqrt(0.8))
            for k in range(t + 1):
                if np.isfinite(y[k]):
                    total = total + stats.norm.logpdf(y[k], start + h * position[k], np.sqrt(noise))
            return np.exp(total)

        want = plane(density, [(-9, 9), (0, 9)])
        got = [x[t] for x in posterior[:5]]
        # The density at the edges of the box is below 1e-13.
        np.testing.assert_allclose(got, list(want[:5]), rtol=1e-8, atol=1e-9)
        assert got[2] > plain.curvature_mean[t]


def test_a_curvature_that_is_certain_and_negative_is_read_as_zero():
    model = beliefs.positive(beliefs.Optimum(-2.0, 1.0, 1.0))
    filter_ = model.filter()
    assert filter_.uses_displacement
    params = {"a": jnp.ones(2), "b": None}
    state = filter_.update(filter_.predict(filter_.init(params), params), params)
    read = state.posterior()
    np.testing.assert_array_equal(read.curvature_mean["a"], 0)
    np.testing.assert_array_equal(
        read.gradient_mean["a"], state.belief.posterior().gradient_mean["a"]
    )
    assert read.gradient_curvature_covariance is None and read.gradient_mean["b"] is None


@pytest.mark.parametrize("belief", [OrnsteinUhlenbeck(0.5, 1.0, 1.0), beliefs.Wiener(0.9, 0.9)])
def test_beliefs_without_an_uncertain_curvature_are_refused(belief: Any):
    message = f"Cannot read {belief.name} as positive.* no curvature mean or no curvature variance"
    with pytest.raises(ValueError, match=message):
        beliefs.positive(belief).filter().init(jnp.ones(2))
    posterior = belief.filter().init(jnp.ones(2)).posterior()
    with pytest.raises(ValueError, match="Cannot read this belief as positive"):
        truncate(posterior)


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
def test_for_a_walking_curvature_it_is_close_to_the_truncated_walk():
    """An approximation: the past is not conditioned on. Measured where it matters, next to 0."""
    rng = np.random.default_rng(0)
    num_steps, size = 15, 8
    model = Secant(0.05, 1.0, 1.0, gradient_process_variance=0.01, curvature_process_variance=0.03)
    # The curvature is 0 all along: half of what is seen of it is negative.
    d = 0.7 * rng.normal(size=(num_steps, size))
    g = rng.normal(size=size) + 0.1 * np.cumsum(rng.normal(size=(num_steps, size)), 0)
    y = g + np.sqrt(0.05) * rng.normal(size=(num_steps, size))

    def program(y: Any) -> Any:
        return beliefs.positive(model).numpyro_model(y, d)

    draws = oracles.nuts(program, jnp.asarray(y), seed=0, num_samples=1000)["curvature"][:, :, -1]
    exact, spread = draws.mean((0, 1)), draws.std((0, 1))
    belief = filters.filter_recording(beliefs.positive(model), jnp.asarray(y), jnp.asarray(d))[0]
    plain = filters.filter_recording(model, jnp.asarray(y), jnp.asarray(d))[0]
    off = np.abs(belief.curvature_mean[-1] - exact) / spread
    without = np.abs(plain.curvature_mean[-1] - exact) / spread
    # Measured: 0.49 at most, 0.24 on average; without truncation 4.9 and 2.0. In posterior standard
    # deviations; the draws' own error is 0.05 of one.
    assert np.max(off) < 0.6
    assert np.mean(off) < np.mean(without) / 4
    ratio = np.sqrt(belief.curvature_variance[-1]) / spread
    assert np.all((ratio > 0.75) & (ratio < 1.1))
