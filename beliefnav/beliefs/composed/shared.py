"""A belief that keeps one sample size for all parameters: half the memory, that of the rule."""

from typing import Any, NamedTuple

from beliefnav.beliefs.contract import Filter


class Shared(NamedTuple):
    """A belief that keeps one sample size or variance for all entries, made by `shared`."""

    belief: Any

    def filter(self) -> Filter:
        """The filter of the belief, with its scalars shared."""
        return self.belief.filter(shared=True)


def shared(belief: Any) -> Shared:
    """Keep one sample size or variance for all entries: ``belief.filter(shared=True)``.

    Exact while every entry is observed; after a missing entry, an approximation in which it counts
    as observed. All rules of `beliefnav.rules` that have a peer elsewhere are held like this.

    Args:
        belief: a model whose ``filter`` takes ``shared``: `LocalLevel`, `PrecisionWalk`,
            `OrnsteinUhlenbeck`, `UnknownNoise`.

    Returns:
        A belief.
    """
    return Shared(belief)
