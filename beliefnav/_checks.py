"""Early validation of hyper-parameters.

What can be known at construction is checked at construction: Python numbers, and arrays that are
not traced, as optax's ``inject_hyperparams`` makes them at ``init``. A traced value passes: one
that is sampled, differentiated or injected into a jitted step is known only when the program runs.
"""

import dataclasses
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, get_args, get_origin

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = [
    "COUNT",
    "Checked",
    "FINITE",
    "HALF_OPEN_UNIT",
    "LEFT_OPEN_UNIT",
    "NON_NEGATIVE",
    "POSITIVE",
    "Range",
    "SYMMETRY",
    "UNIT_INTERVAL",
    "check_symmetric",
    "is_concrete",
    "is_number",
    "refuse_schedule",
]


def is_concrete(value: Any) -> bool:
    """Whether the value of an array is known now, and not only when a traced program runs."""
    return not isinstance(value, Tracer)


def is_number(value: Any, number: float) -> bool:
    """Whether a value is a Python number equal to ``number``, and so known while tracing."""
    return isinstance(value, int | float) and value == number


SYMMETRY = 1e-5
"""Asymmetry, relative to the largest entry, that is taken for rounding (of float32)."""


def check_symmetric(owner: str, name: str, symbol: str, matrix: Any) -> None:
    """Raise unless a matrix whose values are known is finite and symmetric up to rounding.

    Args:
        owner: what checks, for the message.
        name: what the matrix is, for the message.
        symbol: its symbol, for the message.
        matrix: [n, n], concrete.

    Raises:
        ValueError: names all of these and the asymmetry.
    """
    matrix = np.asarray(matrix, np.float64)
    asymmetry = np.abs(matrix - matrix.T).max()
    if not asymmetry <= SYMMETRY * np.abs(matrix).max():
        raise ValueError(
            f"{owner}: {name} is not symmetric: {symbol} - {symbol}^T reaches {asymmetry}."
        )


class Range(NamedTuple):
    """A set of admissible numbers and the words that describe it in an error."""

    contains: Callable[[float], bool]
    description: str

    def check(self, owner: str, name: str, value: Any) -> None:
        """Raise if ``value`` is no number, or is known to be outside this range.

        An array may also hold the limits of an open range, infinity among them: a schedule may
        begin at 0, float32 rounds to 1, and a rate that was computed may be infinite.

        Args:
            owner: what the parameter belongs to, for the message.
            name: the parameter's name, for the message.
            value: a number or an array; one that is traced is not checked, nor is ``None``, a
                schedule or a tree of numbers and arrays.

        Raises:
            TypeError: it is nothing of that.
            ValueError: it is outside. Both name the owner, the parameter, its value and the range.
        """
        if isinstance(value, int | float):
            held = self.contains(value)
        elif _is_real(value):
            held = not _is_known(value) or all(map(self._nearly_contains, _extremes(value)))
        elif value is None or callable(value) or _is_tree(value):
            return
        else:
            raise TypeError(f"{owner}: {name} must be {self.description}, got {_shown(value)}.")
        if not held:
            raise ValueError(f"{owner}: {name} must be {self.description}, got {_shown(value)}.")

    def check_annotated(self, owner: str, name: str, value: Any, annotation: Any) -> None:
        """As `check`, of what the annotation of the parameter has: numbers and arrays in any case.

        ``None``, a schedule or a record of its own passes only where the annotation names it, and a
        tree only where the annotation is ``Any``.

        Args:
            owner: what the parameter belongs to, for the message.
            name: the parameter's name, for the message.
            value: as in `check`.
            annotation: of the parameter.

        Raises:
            TypeError: the annotation does not have it; see `check`.
            ValueError: see `check`.
        """
        number = isinstance(value, int | float) or _is_real(value)
        if not number and not _is_annotated(value, annotation):
            raise TypeError(f"{owner}: {name} must be {self.description}, got {_shown(value)}.")
        self.check(owner, name, value)

    def _nearly_contains(self, x: float) -> bool:
        neighbours = (math.nextafter(x, limit) for limit in (-math.inf, math.inf))
        return self.contains(x) or any(map(self.contains, neighbours))

    def check_leaves(self, owner: str, name: str, tree: Any) -> None:
        """Raise ``ValueError`` if an entry of a tree of arrays is known to be outside this range.

        Args:
            owner: what the parameter belongs to, for the message.
            name: the parameter's name, for the message.
            tree: numbers and arrays; what is traced is not checked.

        Raises:
            TypeError: a leaf is neither a number nor an array of numbers.
            ValueError: names the owner, the parameter, the leaf and the range.
        """
        for leaf in jax.tree.leaves(tree):
            wrong = f"{owner}: {name} must be {self.description}, got {_shown(leaf)}."
            if not isinstance(leaf, int | float) and not _is_real(leaf):
                raise TypeError(wrong)
            if _is_known(leaf) and not all(map(self.contains, _extremes(leaf))):
                raise ValueError(wrong)


def _is_known(value: Any) -> bool:
    """Whether an array can be looked at: it is not traced, nor in part on another host."""
    return is_concrete(value) and getattr(value, "is_fully_addressable", True)


def _is_real(value: Any) -> bool:
    """Whether the entries of an array are real numbers."""
    kinds = (np.bool_, np.integer, np.floating)
    known = isinstance(value, np.ndarray | np.generic | jax.Array)
    return known and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)


def _is_annotated(value: Any, annotation: Any) -> bool:
    """Whether a value is of one of the types of an annotation."""
    kinds = get_args(annotation) or (annotation,)
    return Any in kinds or isinstance(value, tuple(get_origin(kind) or kind for kind in kinds))


def _is_tree(value: Any) -> bool:
    """Whether a value is a tree of numbers and arrays, and no leaf."""
    leaves = jax.tree.leaves(value)
    numbers = all(isinstance(leaf, int | float) or _is_real(leaf) for leaf in leaves)
    return bool(leaves) and leaves[0] is not value and numbers


def _shown(value: Any) -> str:
    """A value in one line, which is short for a large array."""
    if isinstance(value, np.ndarray | np.generic | jax.Array) and _is_known(value):
        if value.size > 8 and _is_real(value):
            low, high = _extremes(value)
            return f"an array of shape {value.shape} from {low} to {high}"
        value = np.asarray(value).tolist()
    return textwrap.shorten(repr(value), 100)


def _extremes(value: Any) -> tuple[float, ...]:
    """The least and the largest entry; a NaN is both. Ranges are intervals."""
    values = np.asarray(value)  # not an operation of jax, which might be traced
    return (float(values.min()), float(values.max())) if values.size else ()


POSITIVE = Range(lambda x: 0 < x < math.inf, "a positive, finite number")
NON_NEGATIVE = Range(lambda x: 0 <= x < math.inf, "a non-negative, finite number")
COUNT = Range(lambda x: x >= 0, "a non-negative number")
FINITE = Range(math.isfinite, "a finite number")
UNIT_INTERVAL = Range(lambda x: 0 <= x <= 1, "in [0, 1]")
HALF_OPEN_UNIT = Range(lambda x: 0 <= x < 1, "in [0, 1)")
LEFT_OPEN_UNIT = Range(lambda x: 0 < x <= 1, "in (0, 1]")


class Checked(eqx.Module):
    """A record whose numbers are validated where a person constructs it, and nowhere else.

    ``dataclasses.replace`` constructs and so validates. To rebuild the record as a pytree does not:
    under ``jax.tree.map``, ``eqx.partition`` or as the ``in_axes`` of ``vmap`` its fields hold
    whatever takes the place of the numbers.

    Example:
        >>> from typing import ClassVar
        >>> class Coin(Checked):
        ...     ranges: ClassVar = {"heads": UNIT_INTERVAL}
        ...     heads: float
        >>> Coin(2.0)
        Traceback (most recent call last):
        ValueError: Coin: heads must be in [0, 1], got 2.0.

    Attributes:
        ranges: field -> where it lies, as far as it is known; a subclass states its own.
    """

    ranges: ClassVar[Mapping[str, Range]] = {}

    def __check_init__(self) -> None:
        """Raise if a field is no number, or is known to be outside its range."""
        kinds = {field.name: field.type for field in dataclasses.fields(self)}
        for name, allowed in self.ranges.items():
            allowed.check_annotated(type(self).__name__, name, getattr(self, name), kinds[name])


def refuse_schedule(factory: str, name: str, value: Any) -> None:
    """Raise if an argument that must be a number is a schedule.

    Args:
        factory: of optimizers, whose argument it is, with its module: "rules.hazard_filter".
        name: the argument's name.
        value: what was given.

    Raises:
        TypeError: it is callable.
    """
    if callable(value):
        owner = factory.split(".")[-1]
        raise TypeError(
            f"{owner}: {name} must be a number, got a callable. For a schedule use "
            f"optax.inject_hyperparams({factory})."
        )
