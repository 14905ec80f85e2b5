"""What the NumPyro programs of all models share: the shape of a stream, and its observation."""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import is_number

__all__ = [
    "Stream",
    "check_complete",
    "moved",
    "moving_stream",
    "observe",
    "read",
    "scaled",
    "stream",
    "unread",
]


class Stream(NamedTuple):
    """A recorded gradient stream as a NumPyro program wants it, or the shape of one to simulate.

    Attributes:
        values: [step, ...] with missing entries filled in, or ``None`` to simulate.
        seen: [step, ...] True where there is an observation; a numpy array if it is known.
        displacement: [step, ...] how far the parameters moved after each observation, or ``None``
            for a belief that does not use it.
        curvature: the stream of a second sensor, or ``None`` if nothing is read.
    """

    values: Array | None
    seen: Any
    displacement: Array | None = None
    curvature: "Stream | None" = None

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        return self.seen.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self.seen.shape[1:]

    def drop_first(self) -> "Stream":
        """The stream from its second step on."""
        return Stream(None if self.values is None else self.values[1:], self.seen[1:])


def read(
    filter_: Any,
    owner: str,
    gradient: ArrayLike | None,
    displacement: ArrayLike | None,
    curvature: ArrayLike | None,
    num_steps: int | None,
    shape: tuple[int, ...],
) -> Stream:
    """Read the arguments of a program, as far as the filter of a belief reads them.

    Raises:
        ValueError: they do not fit each other or the belief.
    """
    if curvature is not None and not filter_.uses_curvature:
        raise unread(owner)
    if filter_.uses_displacement:
        recorded, moved_by = moving_stream(gradient, displacement, owner)
    else:
        recorded, moved_by = stream(gradient, num_steps, shape, owner), None
    second = None
    if filter_.uses_curvature and (curvature is not None or gradient is None):
        steps = None if curvature is not None else recorded.num_steps
        second = stream(curvature, steps, recorded.shape, owner)
    return recorded._replace(displacement=moved_by, curvature=second)


def unread(owner: str) -> ValueError:
    """The error of readings of a sensor that a belief does not have."""
    return ValueError(
        f"Cannot use curvature= with this {owner}. This is because no part of it reads a second "
        "sensor; for a Secant, give its curvature_noise_variance, for other beliefs join in "
        "beliefs.sensed."
    )


def stream(
    gradient: ArrayLike | None, num_steps: int | None, shape: tuple[int, ...], owner: str
) -> Stream:
    """Read the arguments that every program takes.

    Args:
        gradient: [step, ...] a recorded stream; NaN or infinite entries are missing.
        num_steps: number of steps to simulate, if there is no ``gradient``.
        shape: shape of one observation to simulate.
        owner: name of the model, for errors.

    Returns:
        The stream.

    Raises:
        ValueError: neither or both of ``gradient`` and ``num_steps`` were given.
    """
    if (gradient is None) == (num_steps is None):
        raise ValueError(
            f"{owner}: give either a recorded gradient to condition on, or num_steps to simulate."
        )
    if gradient is None:
        assert num_steps is not None
        return Stream(None, np.ones((num_steps, *shape), bool))
    # A recording that is known stays known when the program is traced, as MCMC does.
    known = not isinstance(gradient, Tracer)
    with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
        values = jnp.asarray(gradient)
        seen: Any = _trees.is_observed(values)
    return Stream(jnp.where(seen, values, 0), np.asarray(seen) if known else seen)


def check_complete(owner: str, stream: Stream) -> None:
    """Raise if entries of a recorded stream are known to be missing.

    Raises:
        ValueError: names the owner.
    """
    if not isinstance(stream.seen, Tracer) and not np.all(np.asarray(stream.seen)):
        raise ValueError(
            f"{owner}: the NumPyro program needs a stream without missing entries; fill them in, "
            "or use the filter."
        )


def observe(distribution: Any, value: Array | None, seen: Array) -> Any:
    """Sample the site ``observation``, or condition it on ``value`` where it was seen."""
    import numpyro

    return numpyro.sample("observation", distribution.mask(seen), obs=value)


def moving_stream(
    gradient: ArrayLike | None, displacement: ArrayLike | None, owner: str
) -> tuple[Stream, Array]:
    """Read the arguments of a program whose stream depends on how far the parameters moved.

    Args:
        gradient: [step, ...] a recorded stream, or ``None`` to simulate one.
        displacement: [step, ...] the displacement after each observation.
        owner: name of the model, for errors.

    Returns:
        The stream, and the displacement as an array.

    Raises:
        ValueError: there is no displacement, or its shape is not that of the gradient.
    """
    if displacement is None:
        raise ValueError(f"{owner}: the NumPyro program needs a displacement [step, ...].")
    moved = jnp.asarray(displacement)
    recorded = stream(gradient, len(moved) if gradient is None else None, moved.shape[1:], owner)
    if recorded.seen.shape != moved.shape:
        raise ValueError(
            f"{owner}: displacement has shape {moved.shape}, but gradient has shape "
            f"{recorded.seen.shape}. Each observation has the displacement after it."
        )
    return recorded, moved


def moved(displacement: Array, before: Array | None = None) -> Array:
    """The displacement that led to each step [step, ...]; ``before`` to the first, or none did."""
    first = jnp.zeros_like(displacement[:1]) if before is None else before[None]
    return jnp.concatenate([first, displacement[:-1]])


def scaled(process_variance: ArrayLike, factor: ArrayLike) -> ArrayLike:
    """A process variance in other units; one that is known to be 0 stays so."""
    return process_variance if is_number(process_variance, 0) else process_variance * factor
