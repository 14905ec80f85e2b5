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
        params: tree of [step, ...], the parameters at which the gradient was taken, or ``None``;
            those after the last step are the last ones and their displacement.
        gradient_norm: [step], the norm of the whole gradient, recorded entries and others, or
            ``None``.
    """

    gradient: PyTree
    displacement: PyTree = None
    curvature: PyTree = None
    params: PyTree = None
    gradient_norm: PyTree = None
