r"""Uniform walk with discount: a gradient that is uniform up to a bound which shrinks when unseen.

$$ y_t \sim U(-a_t, a_t), $$

and $a_t$ is believed to be Pareto distributed above the largest gradient seen, the conjugate prior
of a uniform distribution. Before each observation that largest one is discounted:

$$ u \leftarrow \max(\beta u, |y| + \epsilon) . $$

The second moment of such a gradient is proportional to the square of its bound, and $V = u^2$ is
read as curvature, up to that constant: with ballistic planning it is AdaMax. There is a filter
only, no program: the discount is on the bound, not on a transition.

Reference:
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, section 7.1 (AdaMax).
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import NON_NEGATIVE, UNIT_INTERVAL
from beliefnav._format import memory
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, Posterior

__all__ = ["UniformWalk", "UniformWalkState"]

PyTree = Any


class UniformWalkState(NamedTuple):
    """The bound $u$ after an observation, a tree like the parameters."""

    bound: PyTree

    def posterior(self) -> Posterior:
        r"""Curvature $V = u^2$."""
        return Posterior(curvature_mean=jax.tree.map(jnp.square, self.bound))


class UniformWalk(Belief):
    r"""Uniform walk with discount (equations in the module docstring).

    Attributes:
        discount: $\beta$ in [0, 1].
        eps: $\epsilon \ge 0$, added to every gradient's size.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {"discount": UNIT_INTERVAL, "eps": NON_NEGATIVE}

    discount: ArrayLike
    eps: ArrayLike = 0.0

    def filter(self) -> Filter:
        """The online filter. A missing entry keeps its discounted bound.

        Returns:
            A filter whose states are `UniformWalkState`.
        """

        def init(params: PyTree) -> UniformWalkState:
            return UniformWalkState(_trees.full_like(params, 0))

        def predict(state: UniformWalkState, displacement: PyTree = None) -> UniformWalkState:
            del displacement
            return UniformWalkState(_trees.scale(state.bound, self.discount))

        def update(
            predicted: UniformWalkState, gradient: PyTree, curvature: PyTree = None
        ) -> UniformWalkState:
            del curvature

            def leaf(u: Array, y: Array) -> Array:
                seen = _trees.is_observed(y)
                size = jnp.abs(jnp.where(seen, y, 0)).astype(u.dtype) + self.eps
                return jnp.where(seen, jnp.maximum(u, size), u).astype(u.dtype)

            return UniformWalkState(jax.tree.map(leaf, predicted.bound, gradient))

        def diagnose(
            predicted: UniformWalkState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            del predicted, curvature
            return Info(missing=jax.tree.map(jnp.logical_not, _trees.observed(gradient)))

        return Filter(init, predict, update, diagnose)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory."""
        sentence = (
            f"The largest {quantity}, which is discounted, is read as the root of the curvature."
        )
        return (Fact("curvature", memory(self.discount, time), sentence),)
