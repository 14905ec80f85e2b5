"""Accumulated squares: against explicit sums and the inverse gamma distribution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from beliefnav import filters
from beliefnav.beliefs import PrecisionWalk, accumulated
from tests import oracles


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("beta", "s0", "n0"), [(1.0, 0.0, 0.0), (0.9, 0.0, 0.0), (0.9, 0.4, 2.5)])
def test_curvature_is_the_sum_of_squares_with_missing_entries_left_out(
    beta: float, s0: float, n0: float
):
    y = oracles.random_stream(seed=0, num_steps=15)["matrix"]
    model = PrecisionWalk(beta, s0, n0)
    posterior, info = filters.filter_recording(accumulated(model), jnp.asarray(y))
    squares = np.where(np.isfinite(y), y, 0) ** 2
    want = oracles.per_entry(lambda x: oracles.discounted(x, beta, s0 * n0), squares)
    # Float64 roundings of 15 steps.
    np.testing.assert_allclose(posterior.curvature_mean, want, rtol=1e-12, atol=1e-14)
    assert posterior.gradient_mean is None
    plain = filters.filter_recording(model, jnp.asarray(y))[1]
    np.testing.assert_allclose(info.log_density, plain.log_density, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_variance_is_the_square_deviation_of_that_many_inverse_precisions():
    r"""Of $n/\phi$ from $S$, with $1/\phi$ inverse gamma; infinite up to four observations."""
    y = np.random.default_rng(1).normal(size=9)
    posterior = filters.filter_recording(accumulated(PrecisionWalk(1.0)), jnp.asarray(y))[0]
    total, n = np.cumsum(y**2), np.arange(1.0, 10)
    np.testing.assert_array_equal(posterior.curvature_variance[:4], np.inf)
    law: Any = stats.invgamma(n[4:] / 2, scale=n[4:] * total[4:] / (2 * n[4:]))
    # In units of n: S is the scale of n / phi.
    want = n[4:] ** 2 * (law.var() + (law.mean() - total[4:] / n[4:]) ** 2)
    np.testing.assert_allclose(posterior.curvature_variance[4:], want, rtol=1e-11)


def test_before_anything_is_seen_the_sum_is_zero_and_nothing_is_known():
    for prior, variance in (((0.0, 0.0), np.inf), ((0.1, 2.0), np.inf), ((0.5, 8.0), 4 * 2 * 3.0)):
        state = accumulated(PrecisionWalk(1.0, *prior)).shared_filter().init(jnp.ones(2))
        posterior = state.posterior()
        np.testing.assert_allclose(posterior.curvature_mean, np.prod(prior), rtol=1e-6)
        # n^2 times 2 (S/n)^2 (n + 4) / ((n - 2) (n - 4)) for S = 4, n = 8: 32 * 12 / 24.
        variance = 16.0 if np.isfinite(variance) else variance
        np.testing.assert_allclose(posterior.curvature_variance, variance, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_derivatives_are_finite():
    y = jnp.asarray([[1.0, jnp.nan], [0.0, jnp.inf], [2.0, 0.0]])

    def total(beta: Any, y: Any) -> Any:
        read = filters.filter_recording(accumulated(PrecisionWalk(beta)), y)[0]
        return read.curvature_mean.sum()

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(0.9, y)
    # Sums of beta^(t - k) y_k^2 over t: in beta, 1 + 2 beta for y_1.
    np.testing.assert_allclose(slopes[0], 1 + 1.8, rtol=1e-12)
    weights = np.array([1 + 0.9 + 0.81, 1.9, 1.0])[:, None]
    np.testing.assert_allclose(
        slopes[1], np.where(np.isfinite(y), 2 * weights * np.nan_to_num(y, posinf=0), 0), rtol=1e-12
    )
