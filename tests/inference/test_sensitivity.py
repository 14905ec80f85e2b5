"""Derivatives that are carried forwards are those of reverse mode, of all orders and under vmap."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, filters
from beliefnav.inference import _sensitivity
from beliefnav.recording import Recording

pytestmark = pytest.mark.usefixtures("x64")


def streams() -> tuple[Any, Any, Any]:
    """Gradients with a hole, displacements, curvatures [step, param]."""
    keys = jax.random.split(jax.random.key(0), 3)
    y, d, c = (jax.random.normal(key, (30, 3)) for key in keys)
    return y.at[4, 1].set(jnp.nan), 0.1 * d, c


BELIEFS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "Ornstein-Uhlenbeck": (lambda h: beliefs.OrnsteinUhlenbeck(h[0], h[1], h[2]), 1),
    "one scalar for all": (lambda h: beliefs.OrnsteinUhlenbeck(h[0, 0], h[1, 1], h[2]), 1),
    "local level": (lambda h: beliefs.LocalLevel(h[0], h[1]), 1),
    "secant with a second sensor": (
        lambda h: beliefs.Secant(
            h[0], h[1], h[2], gradient_process_variance=h[3], curvature_noise_variance=0.3
        ),
        3,
    ),
}


@pytest.mark.parametrize("name", list(BELIEFS))
def test_values_and_derivatives_are_those_of_the_filter(name: str) -> None:
    make, num_parts = BELIEFS[name]
    recording = Recording(*streams()[:num_parts])
    where = jax.random.uniform(jax.random.key(1), (4, 3), minval=0.2, maxval=0.8)

    def forwards(h: Any) -> Any:
        return _sensitivity.log_likelihood(make(h), recording)

    def backwards(h: Any) -> Any:
        return filters.log_likelihood(make(h), *recording).sum()

    def look(f: Any) -> Any:
        if name == "Ornstein-Uhlenbeck":
            return jax.jit(lambda h: (f(h), jax.grad(f)(h), jax.jacfwd(jax.grad(f))(h)))(where)
        return jax.jit(jax.value_and_grad(f))(where)

    # Float64 round-off of thirty steps, in sums of the size of the largest entry.
    for ours, theirs in zip(look(forwards), look(backwards), strict=True):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12 * scale)


def test_batches_are_differentiated_one_by_one() -> None:
    make, _ = BELIEFS["Ornstein-Uhlenbeck"]
    y = streams()[0]
    where = jax.random.uniform(jax.random.key(1), (2, 4, 3), minval=0.2, maxval=0.8)

    def gradient(h: Any, y: Any) -> Any:
        return jax.grad(lambda h: _sensitivity.log_likelihood(make(h), Recording(y)))(h)

    alone, together = jax.jit(gradient), jax.jit(jax.vmap(gradient))(where, jnp.stack([y, 2 * y]))
    np.testing.assert_allclose(together[0], alone(where[0], y), rtol=1e-12)
    np.testing.assert_allclose(together[1], alone(where[1], 2 * y), rtol=1e-12)


def test_a_belief_that_is_known_has_a_likelihood_too() -> None:
    y = streams()[0]
    belief = beliefs.OrnsteinUhlenbeck(0.9, 0.1, 1.0)
    ours = _sensitivity.log_likelihood(belief, Recording(y))
    np.testing.assert_allclose(ours, filters.log_likelihood(belief, y).sum(), rtol=1e-12)


def test_without_a_density_there_is_the_error_of_the_filter() -> None:
    def likelihood(discount: Any) -> Any:
        belief = beliefs.LocalLevel(discount, prior_sample_size=1.0)
        return _sensitivity.log_likelihood(belief, Recording(streams()[0]))

    with pytest.raises(ValueError, match="no predictive density"):
        jax.grad(likelihood)(0.9)
