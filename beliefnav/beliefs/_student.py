"""Student-t densities that are accurate in float32 for any number of degrees of freedom."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

__all__ = ["log_density", "log_density_of_logs", "log_gamma_half_step"]

_SERIES = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224)


def log_gamma_half_step(x: ArrayLike) -> Array:
    r"""$\log\Gamma(x + \tfrac12) - \log\Gamma(x)$ for $x > 0$.

    The difference of two ``gammaln`` loses all digits for large $x$; and it costs several times as
    much, with its derivative. Here the recurrence $\Gamma(x + 1) = x\Gamma(x)$ leads to $x + 4$
    ($x + 8$ in float64), where Stirling's series

    $$ \tfrac12 \log x - \tfrac{1}{8x} + \tfrac{1}{192 x^3} - \tfrac{1}{640 x^5} + \ldots $$

    is exact to $10^{-9}$ ($10^{-13}$).
    """
    x = jnp.asarray(x)
    shift = 8 if x.dtype == jnp.float64 else 4
    near = jnp.minimum(x, 1e8)  # the products do not overflow, and their ratio is 1
    above: Any = 1.0
    below: Any = 1.0
    for k in range(shift):
        above = above * (near + (k + 0.5))
        below = below * (near + k)
    far = x + shift
    inverse = 1 / far
    square = inverse * inverse
    series: Any = 0.0
    for coefficient in reversed(_SERIES):
        series = series * square + coefficient
    return 0.5 * jnp.log(far) + series * inverse - jnp.log(above / below)


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
    return _log_height(degrees) - jnp.log(scale) - (degrees + 1) * jnp.log1p(relative) / 2


def log_density_of_logs(log_square: Array, degrees: Array, log_variance: Array) -> Array:
    r"""The same from $\log y^2$, minus infinity for $y = 0$, and $\log s^2$.

    Whatever the size of $y$ and $s$, of which the squares may have no number in float32.
    """
    relative = jax.nn.softplus(log_square - log_variance - jnp.log(degrees))
    return _log_height(degrees) - log_variance / 2 - (degrees + 1) * relative / 2


def _log_height(degrees: Array) -> Array:
    r"""$\log t_n(0; 0, 1)$."""
    return log_gamma_half_step(degrees / 2) - jnp.log(math.pi * degrees) / 2
