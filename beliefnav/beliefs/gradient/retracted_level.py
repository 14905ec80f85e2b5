r"""Positive level: a discounted average of readings that stays positive, whatever is read.

With the level $h$, readings $c$ and a margin $\delta$,

$$ h \leftarrow h + (h + \delta) (u + u^2/2), \qquad u = (1 - \beta) \frac{c - h}{h + \delta} . $$

That is $(h + \delta) e^u - \delta$ to second order, a step along the geodesic of the positive
numbers: a plain average, without $u^2/2$, could fall below $-\delta$ where a reading does; here
$h + \delta$ is never less than half of what it was. Where readings are near the level it is the
plain average.

An approximation, the retraction of natural-gradient variational inference: there is no program of
which it is the exact filter.

Reference:
    Lin, Schmidt and Khan, "Handling the Positive-Definite Constraint in the Bayesian Learning
    Rule", ICML 2020, arXiv:2002.10060, section 3.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import FINITE, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav._format import memory, number
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, Posterior

__all__ = ["RetractedLevel", "RetractedLevelState"]

PyTree = Any


class RetractedLevelState(NamedTuple):
    """The level $h$ after a reading, a tree like the parameters."""

    level: PyTree

    def posterior(self) -> Posterior:
        """The level, as the mean of what is read."""
        return Posterior(gradient_mean=self.level)


class RetractedLevel(Belief):
    r"""Positive level (equations in the module docstring).

    Attributes:
        discount: $\beta$ in [0, 1].
        prior_level: $h_0 > -\delta$, in the unit of the readings.
        margin: $\delta \ge 0$, such as the precision of a prior, in the same unit.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {"discount": UNIT_INTERVAL, "prior_level": FINITE, "margin": NON_NEGATIVE}

    discount: ArrayLike
    prior_level: ArrayLike
    margin: ArrayLike = 0.0

    def filter(self) -> Filter:
        r"""The online filter. A missing reading changes nothing; a level that overflows is capped.

        Returns:
            A filter whose states are `RetractedLevelState`.

        Raises:
            ValueError: $h_0 + \delta$ is known and not positive.
        """
        start, margin = self.prior_level, self.margin
        if isinstance(start, int | float) and isinstance(margin, int | float):
            POSITIVE.check("RetractedLevel", "prior_level + margin", start + margin)

        def init(params: PyTree) -> RetractedLevelState:
            return RetractedLevelState(_trees.full_like(params, self.prior_level))

        def predict(state: RetractedLevelState, displacement: PyTree = None) -> RetractedLevelState:
            del displacement
            return state

        def update(
            predicted: RetractedLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> RetractedLevelState:
            del curvature

            def leaf(h: Array, e: Array) -> Array:
                limits = jnp.finfo(h.dtype)
                positive = jnp.maximum(h + self.margin, limits.tiny)
                u = (1 - jnp.asarray(self.discount)) * e / positive
                return jnp.minimum(h + positive * (u * (1 + u / 2)), limits.max).astype(h.dtype)

            error = _trees.innovation(gradient, predicted.level)
            return RetractedLevelState(jax.tree.map(leaf, predicted.level, error))

        def diagnose(
            predicted: RetractedLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            del curvature
            return Info(
                innovation=_trees.innovation(gradient, predicted.level),
                missing=jax.tree.map(jnp.logical_not, _trees.observed(gradient)),
            )

        return Filter(init, predict, update, diagnose)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory and its prior."""
        sentence = "It drifts as fast as it is forgotten, and stays positive."
        return (
            Fact(quantity, memory(self.discount, time), sentence),
            Fact(f"{quantity} prior", number(self.prior_level), "What is believed at first."),
        )
