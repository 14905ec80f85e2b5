"""What a wrapper is: an optimizer around another, which says what it assumes itself."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, runtime_checkable

import optax

from beliefnav.beliefs.contract import Fact

__all__ = ["Forgetting", "Optimizer", "Telling", "Wrapper", "check_optimizer", "wrapper"]

P = ParamSpec("P")


@runtime_checkable
class Optimizer(Protocol):
    """Anything with the two functions of an optax optimizer."""

    @property
    def init(self) -> Callable[..., Any]:
        """From parameters to a state."""
        ...

    @property
    def update(self) -> Callable[..., Any]:
        """From a gradient and a state to a step and a state."""
        ...


def check_optimizer(owner: str, inner: Any) -> None:
    """Raise unless ``inner`` has the two functions of an optimizer."""
    if not isinstance(inner, Optimizer):
        raise TypeError(f"{owner}: inner must be an optax optimizer, got {inner!r}.")


@runtime_checkable
class Forgetting(Protocol):
    """The state of a wrapper that says itself what a switch of the task leaves of it."""

    inner_state: Any

    def forgotten(self, probability: Any, fresh: Any) -> Any:
        """The state after a switch with a probability, but for its inner state, which stays."""
        ...


@runtime_checkable
class Telling(Protocol):
    """The state of a wrapper that says which numbers its average holds."""

    inner_state: Any

    def memory(self) -> float:
        """How many iterates it remembers."""
        ...

    def told(self, params: Any) -> tuple[Fact, ...]:
        """The numbers, as far as they can be told with the parameters or without (``None``)."""
        ...


@runtime_checkable
class Wrapper(Protocol[P]):
    """A function from an optimizer and arguments of its own to an optimizer."""

    __name__: str
    __doc__: str | None
    own_facts: Callable[P, tuple[Fact, ...]]
    """The arguments of its own, to what it assumes."""

    def __call__(
        self, inner: optax.GradientTransformation, *args: P.args, **kwargs: P.kwargs
    ) -> optax.GradientTransformationExtraArgs:
        """Wrap an optimizer."""
        ...


def wrapper(
    facts: Callable[P, tuple[Fact, ...]],
) -> Callable[[Callable[Concatenate[Any, P], optax.GradientTransformationExtraArgs]], Wrapper[P]]:
    """Declare what a function that wraps optimizers assumes.

    Args:
        facts: from its arguments but the first, the inner optimizer, to what it assumes.

    Returns:
        A decorator: the function itself becomes a `Wrapper`.
    """

    def declare(wrap: Callable[..., Any]) -> Any:
        result: Any = wrap
        result.own_facts = facts
        return result

    return declare
