"""Student-t densities against scipy, in float64 and where float32 would cancel."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from beliefnav.beliefs import _student

DEGREES = np.array([1e-3, 0.1, 0.5, 1.0, 2.0, 3.7, 10.0, 1e2, 1e4, 1e6])


def test_half_step_of_log_gamma(x64: None) -> None:
    # scipy's own difference cancels for large x: there its Pochhammer symbol is the oracle.
    expected = np.log(special.poch(DEGREES, 0.5))
    np.testing.assert_allclose(_student.log_gamma_half_step(DEGREES), expected, atol=1e-12)
    slope = jax.vmap(jax.grad(_student.log_gamma_half_step))(jnp.asarray(DEGREES))
    expected = special.digamma(DEGREES + 0.5) - special.digamma(DEGREES)
    np.testing.assert_allclose(slope, expected, rtol=1e-9, atol=1e-12)


def test_float32_keeps_its_digits() -> None:
    value = _student.log_gamma_half_step(jnp.asarray(DEGREES, jnp.float32))
    expected = np.log(special.poch(DEGREES, 0.5))
    # Rounding of the product of eight ratios and of the logarithms, of up to 7 in size.
    np.testing.assert_allclose(value, expected, atol=3e-6)


def test_density(x64: None) -> None:
    value = np.array([0.0, 1e-3, 0.5, -2.0, 30.0])[:, None]
    for scale in (1e-6, 1.0, 1e4):
        ours = _student.log_density(
            jnp.broadcast_to(scale * value, (5, 10)),
            jnp.broadcast_to(DEGREES, (5, 10)),
            jnp.full((5, 10), scale),
        )
        np.testing.assert_allclose(
            ours, stats.t.logpdf(scale * value, DEGREES, scale=scale), rtol=1e-9, atol=1e-9
        )
