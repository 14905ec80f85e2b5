"""A filter whose states are read in another way."""

from collections.abc import Callable
from typing import Any

from beliefnav.beliefs.contract import Filter, Surprise

PyTree = Any

__all__ = ["reread"]


def reread(inner: Filter, wrap: Callable[[Any], Any]) -> Filter:
    """The same filter with ``wrap(state)`` for states, whose first field is the state itself.

    Args:
        inner: the filter.
        wrap: a NamedTuple of one field, with a ``posterior()`` of its own.

    Returns:
        A filter of the same predictions and diagnostics.
    """

    def init(params: PyTree) -> Any:
        return wrap(inner.init(params))

    def predict(state: Any, displacement: PyTree = None) -> Any:
        return inner.predict(state[0], displacement)

    def update(predicted: Any, gradient: PyTree, curvature: PyTree = None) -> Any:
        return wrap(inner.update(predicted, gradient, curvature))

    def weigh(predicted: Any, gradient: PyTree, curvature: PyTree = None) -> tuple[Any, Surprise]:
        assert inner.weigh is not None
        state, surprise = inner.weigh(predicted, gradient, curvature)
        return wrap(state), surprise

    weighed = inner.weigh and weigh
    return inner._replace(init=init, predict=predict, update=update, weigh=weighed, read=None)
