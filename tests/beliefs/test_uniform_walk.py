"""Uniform walk: the largest of discounted sizes, and what a missing entry does not do."""

import jax.numpy as jnp
import numpy as np

from beliefnav import filters
from beliefnav.beliefs import UniformWalk


def test_the_bound_is_the_largest_discounted_size(x64: None) -> None:
    gradient = np.random.default_rng(0).standard_t(3, size=(30, 4))
    gradient[7, 2] = np.nan
    gradient[8, 1] = np.inf
    seen = np.where(np.isfinite(gradient), np.abs(gradient) + 1e-3, 0)
    posterior = filters.filter_recording(UniformWalk(0.9, 1e-3), jnp.asarray(gradient))[0]
    for t in range(30):
        ages = 0.9 ** (t - np.arange(t + 1))[:, None]
        bound = (ages * seen[: t + 1]).max(0)
        np.testing.assert_allclose(posterior.curvature_mean[t], bound**2, rtol=1e-12)
