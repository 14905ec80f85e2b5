r"""The effective sample size $n$ that both discount models keep: $n \leftarrow \beta n + 1$."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike

from beliefnav.beliefs._program import Stream

__all__ = [
    "check_program",
    "first_observation",
    "is_zero",
    "mean_gain",
    "observe",
    "sample_sizes",
    "steady_sample_size",
]

PyTree = Any


def steady_sample_size(discount: ArrayLike) -> ArrayLike:
    r"""The sample size $1/(1-\beta)$ at which discounting and observing balance.

    As a prior it makes a discounted mean the uncorrected exponential moving average.

    Args:
        discount: $\beta$ in [0, 1].

    Returns:
        $1/(1-\beta)$, infinite at $\beta = 1$; of an array, in as many digits as it has. In
        float32 the $\beta$ next to 0.999 is 0.99900001, and $1/(1-\beta)$ of that 1000.013: it
        says 1000 to within 0.03.
    """
    if isinstance(discount, int | float):
        return math.inf if discount == 1 else 1 / (1 - discount)
    return _in_known_digits(jnp.asarray(1 / (1 - discount)))


def _in_known_digits(sample_size: Array) -> Array:
    r"""$n = 1/(1-\beta)$ as the one number of few binary digits from which $\beta$ may be rounded.

    $\beta$ is known to half its last digit, $\epsilon/4$ below 1, and so $n$ to $n^2\epsilon/4$: it
    is rounded to the power of two above twice that. Whole $n$ come out, up to where none is known.
    """
    doubt = sample_size**2 * jnp.finfo(sample_size.dtype).eps / 2
    known = jnp.isfinite(doubt)
    grid = jnp.ldexp(jnp.ones_like(doubt), jnp.frexp(jnp.where(known, doubt, 1))[1])
    whole = jnp.where(known, jnp.round(sample_size / grid) * grid, sample_size)
    # The derivative is that of the quotient.
    return sample_size + lax.stop_gradient(jnp.where(known, whole - sample_size, 0))


def observe(sample_size: PyTree, seen: PyTree) -> PyTree:
    """Add an observation where it was ``seen``; ``None``: to one sample size for all entries."""
    if seen is None:
        return sample_size + 1
    return jax.tree.map(lambda n, o: n + o.astype(n.dtype), sample_size, seen)


def mean_gain(sample_size: PyTree) -> PyTree:
    """The gain ``1 / n`` of a running mean; of any finite value where nothing was seen yet."""
    return jax.tree.map(lambda n: 1 / jnp.where(n > 0, n, 1), sample_size)


def sample_sizes(
    discount: ArrayLike | Callable[[Array], Array], prior: ArrayLike, seen: Array
) -> Array:
    r"""The sample sizes $n_0, \ldots, n_{T-1}$ before each observation of ``seen`` [step, ...].

    The discount is that of all steps; a function gives that of each, from 0, 1, ....
    """

    def step(n: Any, inputs: tuple[Array, Array]) -> tuple[Any, Any]:
        seen_now, t = inputs
        return (discount(t) if callable(discount) else discount) * n + seen_now, n

    dtype = jnp.result_type(float)
    start = jnp.broadcast_to(jnp.asarray(prior, dtype), seen.shape[1:])
    return lax.scan(step, start, (seen.astype(dtype), jnp.arange(len(seen), dtype=dtype)))[1]


def is_zero(prior: ArrayLike) -> bool:
    """Whether a prior's number is known to be 0; a traced one is taken to be positive."""
    return not isinstance(prior, Tracer) and bool(np.all(np.asarray(prior) == 0))


def check_program(owner: str, discount: ArrayLike) -> None:
    """Raise unless the random walk of a discount model is proper.

    Raises:
        ValueError: ``discount`` is a Python number that is not strictly between 0 and 1.
    """
    if isinstance(discount, int | float) and not 0 < discount < 1:
        raise ValueError(
            f"{owner}: the NumPyro program needs 0 < discount < 1, got {discount!r}. At 0 and 1 "
            "the random walk is degenerate; only the filter is defined there."
        )


def first_observation(owner: str, prior: str, stream: Stream) -> Array:
    """The first row of a stream, on which an improper prior is conditioned.

    Raises:
        ValueError: there is nothing to condition on, or the first row has missing entries.
    """
    if stream.values is None:
        raise ValueError(
            f"{owner}: cannot simulate from an improper prior. Give a positive {prior}, or a "
            "recorded gradient to condition on."
        )
    if not isinstance(stream.seen, Tracer) and not np.all(np.asarray(stream.seen[0])):
        raise ValueError(
            f"{owner}: the first row of gradient has missing entries, so an improper prior cannot "
            f"be conditioned on it. Give a positive {prior}, or drop the rows before the first "
            "complete one."
        )
    return stream.values[0]
