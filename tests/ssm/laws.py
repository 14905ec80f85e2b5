"""Laws that more than one belief obeys."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from beliefnav import filters
from beliefnav.ssm import Belief
from tests import oracles


def assert_filter_is_exact(model: Belief, oracle: Callable[[np.ndarray], oracles.Gaussian]) -> None:
    """The filter of a Gaussian gradient is the conditioned joint Gaussian, entry by entry."""
    recorded = oracles.random_stream(seed=0, num_steps=15)
    posterior, info = filters.filter_recording(model, recorded)
    assert posterior.curvature_mean is None

    def check(y: Any, mean: Any, variance: Any, density: Any, missing: Any) -> None:
        # Float64 round-off of a 16 x 16 solve.
        want = oracles.per_entry(lambda x: oracle(x).filtered, y)
        np.testing.assert_allclose(np.stack([mean, variance]), want, rtol=1e-10, atol=1e-10)
        want = oracles.per_entry(lambda x: oracle(x).log_likelihood, y)
        np.testing.assert_allclose(density.sum(0), want, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(missing, ~np.isfinite(y))

    read = posterior.gradient_mean, posterior.gradient_variance, info.log_density, info.missing
    jax.tree.map(check, recorded, *read)
