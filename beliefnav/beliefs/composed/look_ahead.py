r"""LookAhead level: the average as it will be, if the last gradient is seen once more.

Of a local level with mean $m$ and sample size $n$ after the gradient $y$,

$$ \frac{\beta n}{\beta n + 1} m + \frac{1}{n} y . $$

In the steady state that is Nesterov's look-ahead $\beta m + (1-\beta) y$, the exact forecast of a
`Transient` with $\phi = \beta (1-\beta)$. Before, it is the bias correction of NAdam, which
divides the two terms by sums of weights of different lengths, $\beta n + 1$ and $n$: an
approximation, whose weights do not add up to 1 but to $1 + 1/n - 1/(\beta n + 1)$, 1.47 at the
first step for $\beta = 0.9$. The unbiased forecast is that of a diffuse `Transient`.

Reference:
    Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop, 2016.
"""

from typing import Any, NamedTuple

import jax
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav.beliefs import _discounting
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Fact, Filter, Posterior
from beliefnav.beliefs.gradient.local_level import LocalLevel, LocalLevelState

__all__ = ["LookAhead", "LookAheadState", "look_ahead"]

PyTree = Any


class LookAheadState(NamedTuple):
    """A local level, and where it is expected to be.

    Attributes:
        level: the level as seen so far.
        anticipated_mean: a tree like the parameters.
    """

    level: LocalLevelState
    anticipated_mean: PyTree

    def posterior(self) -> Posterior:
        """The anticipated mean, with the variance of the level."""
        return self.level.posterior()._replace(gradient_mean=self.anticipated_mean)


class LookAhead(Belief):
    """A local level that looks ahead, made by `look_ahead`."""

    belief: LocalLevel

    def filter(self) -> Filter:
        """The filter of the local level, whose states are `LookAheadState`.

        A missing entry is taken to be the mean.
        """
        return self._filter(self.belief.filter())

    def shared_filter(self) -> Filter:
        """That of the shared local level."""
        return self._filter(self.belief.shared_filter())

    def _filter(self, inner: Filter) -> Filter:
        def init(params: PyTree) -> LookAheadState:
            level = inner.init(params)
            return LookAheadState(level, jax.tree.map(lambda m: m + 0, level.mean))

        def predict(state: LookAheadState, displacement: PyTree = None) -> LocalLevelState:
            return inner.predict(state.level, displacement)

        def update(
            predicted: LocalLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> LookAheadState:
            level = inner.update(predicted, gradient, curvature)
            error = _trees.innovation(gradient, level.mean)
            sizes = jax.tree.broadcast(level.sample_size, level.mean)

            def ahead(m: Array, e: Array, n: Array) -> Array:
                later = self.belief.discount * n + 1
                share, again = 1 - 1 / later, _discounting.mean_gain(n)
                return (share * m + again * (m + e)).astype(m.dtype)

            return LookAheadState(level, jax.tree.map(ahead, level.mean, error, sizes))

        return Filter(init, predict, update, inner.diagnose)

    @property
    def name(self) -> str:
        """Its own, and that of the level."""
        return f"look_ahead({self.belief.name})"

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Those of the level, but for where the step is taken."""
        level, *rest = self.belief.facts(quantity, time)
        sentence = (
            f"The {quantity} drifts; the step is taken on its average as it will be at the next."
        )
        return (level._replace(sentence=sentence), *rest)

    def proper(self) -> bool:
        """As the level."""
        return self.belief.proper()

    def scaled(self, factor: ArrayLike) -> "LookAhead":
        """The look-ahead of the level in other units."""
        return LookAhead(self.belief.scaled(factor))

    def program(self, stream: Stream) -> Any:
        """That of the level: only what is read off it differs."""
        return self.belief.program(stream)


def look_ahead(belief: LocalLevel) -> LookAhead:
    """Read a local level as it will be if the last gradient is seen once more (module docstring).

    Args:
        belief: a local level.

    Returns:
        A belief.
    """
    return LookAhead(belief)
