r"""Accumulated squares: the second moment read as a sum, not as a mean.

A `PrecisionWalk` holds $S$, the discounted sum of squared gradients, and $n$, their number. Adam
reads $V = S/n$ as the curvature; here it is $V = S$. Without discounting that is the empirical
Fisher information of all examples seen so far: the curvature of the sum of their losses, which
grows as long as one learns. It is AdaGrad's reading.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from beliefnav.ssm._contracts import Filter, Info, Posterior
from beliefnav.ssm.precision_walk import PrecisionWalk, PrecisionWalkState

PyTree = Any


class AccumulatedState(NamedTuple):
    """The state of a precision walk whose squares are read as a sum."""

    precision: PrecisionWalkState

    def posterior(self) -> Posterior:
        r"""Curvature $V = S$, and $n^2$ times the variance of the mean."""
        mean = self.precision.posterior()
        sizes = jax.tree.broadcast(self.precision.degrees_of_freedom, mean.curvature_mean)
        return Posterior(
            curvature_mean=jax.tree.map(lambda s, n: s * n, mean.curvature_mean, sizes),
            curvature_variance=jax.tree.map(
                lambda v, n: jnp.where(jnp.isinf(v), v, v * n**2), mean.curvature_variance, sizes
            ),
        )


class Accumulated(NamedTuple):
    """A precision walk whose squares are read as a sum, made by `accumulated`."""

    belief: PrecisionWalk

    def filter(self, shared: bool = False) -> Filter:
        """The filter of the precision walk, whose states are `AccumulatedState`.

        Args:
            shared: see `PrecisionWalk.filter`.
        """
        inner = self.belief.filter(shared=shared)

        def init(params: PyTree) -> AccumulatedState:
            return AccumulatedState(inner.init(params))

        def predict(state: AccumulatedState, displacement: PyTree = None) -> Any:
            return inner.predict(state.precision, displacement)

        def update(
            predicted: Any, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[AccumulatedState, Info]:
            state, info = inner.update(predicted, gradient, curvature)
            return AccumulatedState(state), info

        return Filter(init, predict, update)


def accumulated(belief: PrecisionWalk) -> Accumulated:
    """Read the second moment of a precision walk as a sum (module docstring).

    Args:
        belief: a precision walk; with ``discount=1`` nothing is forgotten.

    Returns:
        A belief.
    """
    return Accumulated(belief)
