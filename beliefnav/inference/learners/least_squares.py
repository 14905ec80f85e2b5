r"""Least squares by damped steps, and likelihoods by scoring: derivatives are carried forwards.

Few parameters move many residuals, so that all derivatives go along with one pass of the filter.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

__all__ = ["Minimum", "minimise"]


class Minimum(NamedTuple):
    """Where a minimiser stands.

    Attributes:
        position: [dim].
        potential: minus the log density there.
        slope: its gradient [dim].
        information: its expected second derivatives [dim, dim].
    """

    position: Array
    potential: Array
    slope: Array
    information: Array


def minimise(
    moments: Callable[[Array], tuple[Array, Array]],
    observed: Array,
    seen: Array,
    start: Array,
    free: Array,
    prior: tuple[Array, Array],
    num_steps: int,
) -> Minimum:
    r"""The mode of $y \sim N(\mu(x), \sigma^2(x))$ with a Gaussian prior, by Fisher scoring.

    $$ I_{jk} = \sum \frac{\partial_j \mu \, \partial_k \mu}{\sigma^2}
       + \frac12 \partial_j \log\sigma^2 \, \partial_k \log\sigma^2 $$

    Where $\sigma$ does not depend on $x$ the steps are those of Levenberg and Marquardt. The
    damping is in units of the information, so that the unit of a parameter does not matter.

    Args:
        moments: position -> (mean, log variance), of the shape of ``observed``.
        observed: what was seen; any finite number where nothing was.
        seen: 1 where something was seen, else 0; of the shape of ``observed``.
        start: [dim].
        free: [dim] of 0 and 1: those at 0 stay where they start.
        prior: mean and precision, each [dim].
        num_steps: how many steps are tried.

    Returns:
        The best position found.
    """
    centre, precision = prior
    units = jnp.diag(free)

    def look(x: Array) -> Minimum:
        def along(unit: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            return jax.jvp(moments, (x,), (unit,))

        (mean, log_variance), (moved, widened) = jax.vmap(along, out_axes=(None, 0))(units)
        weight = seen * jnp.exp(-log_variance)
        error = observed - mean
        pull = precision * (x - centre) * free
        potential = (weight * error**2 + seen * log_variance).sum() / 2
        potential = potential + (pull * (x - centre)).sum() / 2
        flat = moved.reshape(len(x), -1), widened.reshape(len(x), -1)
        slope = (
            -flat[0] @ (weight * error).ravel()
            + flat[1] @ (seen - weight * error**2).ravel() / 2
            + pull
        )
        information = (flat[0] * weight.ravel()) @ flat[0].T
        information = information + (flat[1] * seen.ravel()) @ flat[1].T / 2
        return Minimum(x, potential, slope, information + jnp.diag(precision * free + 1 - free))

    def body(carry: tuple[Minimum, Array], _: None) -> tuple[tuple[Minimum, Array], None]:
        best, damping = carry
        scale = jnp.sqrt(jnp.diagonal(best.information))
        scaled = best.information / scale[:, None] / scale + damping * jnp.eye(len(scale))
        step = -jnp.linalg.solve(scaled, best.slope / scale) / scale
        there = look(best.position + jnp.clip(step, -2, 2))
        finite = jnp.isfinite(there.potential) & jnp.isfinite(there.information).all()
        better = finite & (there.potential < best.potential)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), there, best)
        return (best, jnp.where(better, damping / 5, damping * 4)), None

    begin = look(start)
    begin = begin._replace(
        potential=jnp.where(jnp.isfinite(begin.potential), begin.potential, jnp.inf)
    )
    return lax.scan(body, (begin, jnp.asarray(1e-2, start.dtype)), None, num_steps)[0][0]
