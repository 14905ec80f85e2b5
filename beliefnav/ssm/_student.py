"""Student-t densities that are accurate in float32 for any number of degrees of freedom."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

_SHIFT = 8
_SERIES = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224)


def log_gamma_half_step(x: ArrayLike) -> Array:
    r"""$\log\Gamma(x + \tfrac12) - \log\Gamma(x)$ for $x > 0$.

    The difference of two ``gammaln`` loses all digits for large $x$; and it costs five times as
    much, with its derivative. Here the recurrence $\Gamma(x + 1) = x\Gamma(x)$ leads to $x + 8$,
    where Stirling's series

    $$ \tfrac12 \log x - \tfrac{1}{8x} + \tfrac{1}{192 x^3} - \tfrac{1}{640 x^5} + \ldots $$

    is exact to $10^{-13}$.
    """
    x = jnp.asarray(x)
    product: Any = 1.0
    for k in range(_SHIFT):
        product = product * ((x + (k + 0.5)) / (x + k))
    far = x + _SHIFT
    inverse = 1 / far
    square = inverse * inverse
    series: Any = 0.0
    for coefficient in reversed(_SERIES):
        series = series * square + coefficient
    return 0.5 * jnp.log(far) + series * inverse - jnp.log(product)


def log_density(value: Array, degrees: Array, scale: Array) -> Array:
    r"""$\log t_n(y; 0, s^2)$.

    Args:
        value: $y$.
        degrees: $n > 0$.
        scale: $s > 0$.

    Returns:
        The log density.
    """
    relative = (value / scale) ** 2 / degrees
    constant = log_gamma_half_step(degrees / 2) - jnp.log(math.pi * degrees) / 2 - jnp.log(scale)
    return constant - (degrees + 1) * jnp.log1p(relative) / 2
