r"""Wishart walk with discount: gradients of zero mean whose covariance drifts, as one matrix.

The matrix form of `PrecisionWalk`, over the $n$ raveled parameters: $y_t \sim N(0, \Phi_t^{-1})$,
$\Phi_t$ a precision matrix that is multiplied by a matrix beta variate each step. Its filter keeps
$\Phi_t \sim \mathrm{Wishart}(\nu, S^{-1})$:

$$ \nu \leftarrow \beta\nu + 1, \qquad S \leftarrow \beta S + y y^\top, $$

and $S/\nu = E[\Phi]^{-1}$, read as the matrix of curvature, is what full-matrix RMSprop and AdaGrad
accumulate. The improper prior $\nu_0 = 0$ gives plain, bias-corrected means. For small problems:
$n^2$ numbers. There is a filter only; as a program the matrix beta variate has no density for
$\nu < n$.

Reference:
    Uhlig, "On singular Wishart and singular multivariate beta distributions", Annals of Statistics
    22 (1994), theorem 7 (the evolution).
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import COUNT, NON_NEGATIVE, UNIT_INTERVAL
from beliefnav._format import memory
from beliefnav._sharding import gathered
from beliefnav.beliefs import _discounting
from beliefnav.beliefs._facts import prior
from beliefnav.beliefs.composed.sensed import square_like
from beliefnav.beliefs.contract import Belief, Fact, Filter, Posterior

__all__ = ["WishartWalk", "WishartWalkState"]

PyTree = Any


class WishartWalkState(NamedTuple):
    r"""The precision matrix after an observation.

    Attributes:
        second_moment: $S/\nu$ [n, n].
        degrees_of_freedom: $\nu$, in observations, a scalar.
    """

    second_moment: Any
    degrees_of_freedom: Array

    def posterior(self) -> Posterior:
        r"""Curvature $V = S/\nu$, a matrix over the raveled parameters."""
        return Posterior(curvature_mean=self.second_moment)


class WishartWalk(Belief):
    r"""Wishart walk with discount (equations in the module docstring).

    Attributes:
        discount: $\beta$ in [0, 1].
        prior_second_moment: $S_0/\nu_0$, times the identity.
        prior_degrees_of_freedom: $\nu_0$, in observations; 0 is improper.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "discount": UNIT_INTERVAL,
        "prior_second_moment": NON_NEGATIVE,
        "prior_degrees_of_freedom": COUNT,
    }

    discount: ArrayLike
    prior_second_moment: ArrayLike = 0.0
    prior_degrees_of_freedom: ArrayLike = 0.0

    def filter(self) -> Filter:
        """The online filter.

        A missing entry is one whose square is as predicted. Its products with the others shrink as
        far as $S$ needs to stay positive semi-definite. A product that overflows is capped.

        Returns:
            A filter whose states are `WishartWalkState`.
        """

        def init(params: PyTree) -> WishartWalkState:
            matrix = square_like(params)
            if isinstance(matrix, Array):
                eye = jnp.eye(len(matrix), dtype=matrix.dtype)
                matrix = matrix + jnp.asarray(self.prior_second_moment, matrix.dtype) * eye
            sizes = _trees.scalar_like(params, self.prior_degrees_of_freedom)
            return WishartWalkState(matrix, sizes)

        def predict(state: WishartWalkState, displacement: PyTree = None) -> WishartWalkState:
            del displacement
            sizes = _trees.scale(state.degrees_of_freedom, self.discount)
            return WishartWalkState(state.second_moment, sizes)

        def update(
            predicted: WishartWalkState, gradient: PyTree, curvature: PyTree = None
        ) -> WishartWalkState:
            del curvature
            matrix = predicted.second_moment
            y = ravel_pytree(jax.tree.map(gathered, gradient))[0].astype(matrix.dtype)
            seen = _trees.is_observed(y)
            y = jnp.where(seen, y, 0)
            largest = jnp.finfo(matrix.dtype).max
            products = jnp.clip(y[:, None] * y[None, :], -largest, largest)
            sizes = _discounting.observe(predicted.degrees_of_freedom, None)
            gain = _discounting.mean_gain(sizes)
            rest = jnp.maximum(1 - gain, 0)
            root = jnp.where(rest > 0, jnp.sqrt(jnp.where(rest > 0, rest, 1)), 0)
            one, both = seen[:, None] | seen[None, :], seen[:, None] & seen[None, :]
            kept = jnp.where(both, rest, jnp.where(one, root, 1))
            matrix = (kept * matrix + gain * products).astype(matrix.dtype)
            return WishartWalkState(matrix, sizes)

        return Filter(init, predict, update)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory and its prior."""
        sentence = f"The matrix of second moments of all pairs of {quantity}s is read as curvature."
        return (
            Fact("curvature", memory(self.discount, time), sentence),
            prior("curvature", self.prior_degrees_of_freedom, self.prior_second_moment, time),
        )
