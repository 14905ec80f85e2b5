"""A belief that keeps one sample size for all parameters: half the memory, that of the rule."""

from typing import Any

from jax.typing import ArrayLike

from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import (
    Belief,
    Conjugate,
    Fact,
    Filter,
    LinearForm,
    RunLengthWeights,
    as_belief,
)

__all__ = ["Shared", "shared"]


class Shared(Belief):
    """A belief that keeps one sample size or variance for all entries, made by `shared`."""

    belief: Any

    def filter(self) -> Filter:
        """The filter of the belief, with its scalars shared."""
        return as_belief(self.belief).shared_filter()

    def shared_filter(self) -> Filter:
        """The same: to share twice is to share."""
        return self.filter()

    @property
    def name(self) -> str:
        """Its own, and that of the belief."""
        return f"shared({as_belief(self.belief).name})"

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Those of the belief: what is shared is storage."""
        return as_belief(self.belief).facts(quantity, time)

    def averages(self) -> bool:
        """As the belief."""
        return as_belief(self.belief).averages()

    def proper(self) -> bool:
        """As the belief."""
        return as_belief(self.belief).proper()

    def scaled(self, factor: ArrayLike) -> "Shared":
        """The belief in other units, shared."""
        return Shared(as_belief(self.belief).scaled(factor))

    def linear_gaussian(self) -> LinearForm | None:
        """That of the belief, which looks back entry by entry.

        While every entry is observed, it ends where the filter does. After a missing entry the
        filter counts it as observed, and what looks back does not.
        """
        return as_belief(self.belief).linear_gaussian()

    def conjugate(self) -> Conjugate | None:
        """That of the shared filter."""
        return as_belief(self.belief).shared_conjugate()

    def shared_conjugate(self) -> Conjugate | None:
        """The same: to share twice is to share."""
        return self.conjugate()

    def run_lengths(self, state: Any) -> RunLengthWeights:
        """Those of the belief."""
        return as_belief(self.belief).run_lengths(state)

    def program(self, stream: Stream) -> Any:
        """That of the belief."""
        return as_belief(self.belief).program(stream)

    def positive_program(self, stream: Stream) -> Any:
        """That of the belief."""
        return as_belief(self.belief).positive_program(stream)


def shared(belief: Any) -> Shared:
    """Keep one sample size or variance for all entries.

    Exact while every entry is observed; after a missing entry, an approximation in which it counts
    as observed. All rules of `beliefnav.rules` that have a peer elsewhere are held like this.

    Args:
        belief: one with a `Belief.shared_filter`: `LocalLevel`, `PrecisionWalk`,
            `OrnsteinUhlenbeck`, `UnknownNoise`, and what is made of them.

    Returns:
        A belief.

    Raises:
        ValueError: when its filter is asked for, the belief has no scalars to share.
    """
    return Shared(belief)
