r"""Choosing the memory of an average after training, from averages of other memories.

A polynomial average of power $p$ over $T$ iterates has the profile of weights
$w_p(s) \propto \Gamma(s+p)/\Gamma(s)$, $s = 1, \ldots, T$. It is linear in the iterates, and so are
averages that were kept: $\sum_i x_i \bar\theta_i$ has the profile $\sum_i x_i w_i$. The one nearest
to the average with another power has

$$ \min_x \sum_s \Bigl( \sum_i x_i w_i(s) - w_p(s) \Bigr)^2 , \qquad \sum_i x_i = 1 . $$

The iterates themselves are not needed. What is approximated is the profile. Its relative error,
the root of the minimum over $\sum_s w_p(s)^2$, is the root mean square of the difference to the
average itself, in units of the standard deviation of that average, where the iterates are
independent with one variance.

Two averages at the end of the run span one line of profiles alone. With the powers 1 and 8 at the
end of 1,000 steps the error is 0.15 for p = 2, 0.16 for p = 4 and 0.50 for p = 0. Snapshots of the
two along the way bring it down: at the end and at half of the steps to 0.07, 0.10 and 0.34, at each
quarter to 0.02, 0.03 and 0.23, at each eighth to 0.007, 0.009 and 0.16.

Reference:
    Karras et al., "Analyzing and improving the training dynamics of diffusion models", CVPR 2024,
    section 3.2 (least squares of power-function profiles, from snapshots of two averages). The sum
    of the coefficients is not held at 1 there; here it is, so that what stood still stays.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav import _trees
from beliefnav._checks import NON_NEGATIVE

__all__ = ["Combined", "combined_average"]

PyTree = Any


class Combined(NamedTuple):
    """An average that was made of others.

    Attributes:
        mean: a tree like the averages, of their dtypes.
        coefficients: of the averages [average]; their sum is 1.
        error: of the profile of weights, relative to that of the average itself.
    """

    mean: PyTree
    coefficients: np.ndarray
    error: float


def combined_average(
    averages: Sequence[PyTree], powers: Sequence[float], steps: Sequence[int], power: float
) -> Combined:
    r"""The average of another power, from polynomial averages of one run (module docstring).

    Args:
        averages: what `beliefnav.optimum` said of `iterate_averaging` with a
            ``PolynomialLevel(p)``, at one time or at several [average].
        powers: p of each.
        steps: the number of iterates that each had read when it was taken, increasing or not.
        power: p of the average that is wanted, over as many iterates as the longest has read.

    Returns:
        The average, the coefficients that make it, and the error of its profile: 0 for an average
        that is one of the given ones; it may exceed 1.

    Raises:
        ValueError: there are not as many powers and steps as averages, or none; a number is out of
            its range.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import beliefs, optimum, wrappers
        >>> long, short = beliefs.PolynomialLevel(1.0), beliefs.PolynomialLevel(8.0)
        >>> inner = wrappers.iterate_averaging(optax.sgd(0.3), long)
        >>> optimizer = wrappers.iterate_averaging(inner, short)
        >>> params = jnp.array([1.0, -1.0])
        >>> state, taken, steps = optimizer.init(params), [], []
        >>> for t, key in enumerate(jax.random.split(jax.random.key(0), 400), 1):
        ...     gradient = params + jax.random.normal(key, (2,))
        ...     updates, state = optimizer.update(gradient, state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     if t % 100 == 0:
        ...         taken += [optimum(part, params) for part in (state.inner_state, state)]
        ...         steps += [t, t]
        >>> found = {
        ...     power: wrappers.combining.combined_average(taken, [1.0, 8.0] * 4, steps, power)
        ...     for power in (0.0, 2.0, 4.0, 8.0)
        ... }
        >>> [round(average.error, 2) for average in found.values()]
        [0.23, 0.02, 0.03, 0.0]
        >>> min(found, key=lambda power: float(jnp.sum(found[power].mean ** 2)))  # the loss
        2.0
    """
    counts = len(averages), len(powers), len(steps)
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            f"combined_average: averages, powers and steps must be as many, and at least one; got "
            f"{counts[0]}, {counts[1]} and {counts[2]}."
        )
    for p in (*powers, power):
        NON_NEGATIVE.check_annotated("combined_average", "a power", p, float)
    if not all(math.isfinite(t) and t >= 1 and t == int(t) for t in steps):
        raise ValueError(f"combined_average: steps must be positive whole numbers, got {steps}.")
    if len({(jax.tree.structure(x), *map(jnp.shape, jax.tree.leaves(x))) for x in averages}) > 1:
        raise ValueError(
            "combined_average: averages must be trees of the same arrays; give those of one run."
        )
    last = max(steps)
    columns = np.stack([_profile(p, t, last) for p, t in zip(powers, steps, strict=True)])
    wanted = _profile(power, last, last)
    size = np.linalg.norm(wanted)
    # The first coefficient is what the others leave of 1.
    others, *_ = np.linalg.lstsq((columns[1:] - columns[0]).T / size, (wanted - columns[0]) / size)
    coefficients = np.array([1 - others.sum(), *others])
    error = np.linalg.norm(coefficients @ columns - wanted) / size
    mean = jax.tree.map(lambda *leaves: _combined(others, *leaves), *averages)
    return Combined(mean, coefficients, float(error))


def _profile(power: float, steps: int, last: int) -> np.ndarray:
    """The weights of the iterates 1 to ``last`` in an average of the first ``steps`` of them."""
    ratios = 1 + power / np.arange(1.0, steps)  # of each weight to the one before
    logarithms = np.cumsum(np.log(np.append(1.0, ratios)))
    weights = np.exp(logarithms - logarithms[-1])
    return np.pad(weights / weights.sum(), (0, last - steps))


def _combined(others: np.ndarray, first: Any, *leaves: Any) -> Array:
    """The first, and how far the others are from it: equal ones come out to the digit."""
    dtype = jnp.result_type(first)
    start = _trees.wide(jnp.asarray(first), _trees.wide_dtype(dtype))
    moved = (
        float(c) * (_trees.wide(jnp.asarray(x), start.dtype) - start)
        for c, x in zip(others, leaves, strict=True)
    )
    return sum(moved, start=start).astype(dtype)
