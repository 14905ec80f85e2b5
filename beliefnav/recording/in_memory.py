"""A recorded stream in memory: trees of [step, ...], to be traced."""

from typing import Any, NamedTuple

PyTree = Any

__all__ = ["Recording"]


class Recording(NamedTuple):
    """A recorded stream, or a part of one.

    Attributes:
        gradient: tree of [step, ...]; NaN or infinite entries are missing.
        displacement: tree of [step, ...], or ``None`` if the belief does not use it.
        curvature: tree of [step, ...], readings of a second sensor, or ``None``.
    """

    gradient: PyTree
    displacement: PyTree = None
    curvature: PyTree = None
