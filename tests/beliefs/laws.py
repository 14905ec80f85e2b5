"""Laws that more than one belief obeys."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpyro.infer.util import log_density

from beliefnav import filters
from beliefnav.beliefs import Belief, Filter, Info
from tests import oracles


def observe(filter_: Filter, *seen: Any) -> tuple[Any, Info]:
    """The state after an observation of a prediction, and what it did."""
    info = Info() if filter_.diagnose is None else filter_.diagnose(*seen)
    return filter_.update(*seen), info


def log_joint(program: Callable[..., Any], latents: Any, *streams: Any) -> Any:
    """The log density of a program at its latents, compiled as one, the streams known."""
    return jax.jit(lambda latents: log_density(program, streams, {}, latents)[0])(latents)


def differences(f: Any, at: tuple[float, ...], h: float = 1e-5) -> list[float]:
    """Central differences of a function in each of its arguments."""
    point = np.array(at)
    return [(f(*(point + h * e)) - f(*(point - h * e))) / (2 * h) for e in np.eye(len(at))]


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
