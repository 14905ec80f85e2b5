"""Numbers that are kept by their logarithms, for likelihoods in which small ones stay numbers."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

__all__ = ["log", "log_square", "log_sum", "summed"]


def log(x: ArrayLike) -> Array:
    """The logarithm; at 0 it is minus infinity, with a derivative of 0."""
    x = jnp.asarray(x)
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)


def log_square(y: Array) -> Array:
    r"""$\log y^2$, also where the square would underflow."""
    return 2 * log(jnp.abs(y))


def log_sum(a: Array, b: Array) -> Array:
    """The logarithm of a sum from those of two numbers; its derivative is finite where both are 0.

    That of ``jnp.logaddexp`` is not.
    """
    top, low = jnp.maximum(a, b), jnp.minimum(a, b)
    positive = top > -jnp.inf
    top = jnp.where(positive, top, 0)
    return jnp.where(positive, top + jnp.log1p(jnp.exp(low - top)), -jnp.inf)


def summed(gradient: Array, curvature: Any, surprise: Array, log_density: Array) -> Array:
    """The log density of a recording as the sum of those of its steps."""
    del gradient, curvature, surprise
    return log_density
