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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import NON_NEGATIVE, UNIT_INTERVAL, checked
from beliefnav.beliefs.contract import Filter, Info, Posterior

PyTree = Any


class UniformWalkState(NamedTuple):
    """The bound $u$ after an observation, a tree like the parameters."""

    bound: PyTree

    def posterior(self) -> Posterior:
        r"""Curvature $V = u^2$."""
        return Posterior(curvature_mean=jax.tree.map(jnp.square, self.bound))


class UniformWalkPredicted(NamedTuple):
    """The bound before an observation."""

    bound: PyTree


@checked(discount=UNIT_INTERVAL, eps=NON_NEGATIVE)
class UniformWalk(NamedTuple):
    r"""Uniform walk with discount (equations in the module docstring).

    Attributes:
        discount: $\beta$ in [0, 1].
        eps: $\epsilon \ge 0$, added to every gradient's size.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """

    discount: ArrayLike
    eps: ArrayLike = 0.0

    def filter(self) -> Filter:
        """The online filter. A missing entry keeps its discounted bound.

        Returns:
            A filter whose states are `UniformWalkState`.
        """

        def init(params: PyTree) -> UniformWalkState:
            return UniformWalkState(_trees.full_like(params, 0))

        def predict(state: UniformWalkState, displacement: PyTree = None) -> UniformWalkPredicted:
            del displacement
            return UniformWalkPredicted(_trees.scale(state.bound, self.discount))

        def update(
            predicted: UniformWalkPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[UniformWalkState, Info]:
            del curvature
            seen = _trees.observed(gradient)

            def leaf(u: Array, y: Array, o: Array) -> Array:
                size = jnp.abs(jnp.where(o, y, 0)).astype(u.dtype) + self.eps
                return jnp.where(o, jnp.maximum(u, size), u).astype(u.dtype)

            bound = jax.tree.map(leaf, predicted.bound, gradient, seen)
            return UniformWalkState(bound), Info(missing=jax.tree.map(jnp.logical_not, seen))

        return Filter(init, predict, update)
