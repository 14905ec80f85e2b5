r"""Kronecker walk: second moments of matrices of gradients, a factor for rows, one for columns.

For a parameter matrix with gradient $Y_t$ [rows, columns], the discounted sums

$$ L \leftarrow \beta L + Y Y^\top, \qquad R \leftarrow \beta R + Y^\top Y $$

are those of the Gram matrices of its rows and its columns. Read as a curvature,
$V \approx L^p \otimes R^p$, in place of the sum of all products that a `WishartWalk` keeps:
$p = 1/2$ is Shampoo's reading, an upper bound of that sum over the rank of $Y_t$;
$L \otimes R / \operatorname{tr} L$ is the first step towards the nearest Kronecker product. It is
exact where $Y_t$ is independent noise between two fixed matrices. Both are approximations
elsewhere.

An array of another rank is read as a matrix: a vector as one column, more axes by their last.
There is a filter only, no program.

Reference:
    Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", ICML 2018,
    arXiv:1802.09568, algorithm 1 and lemma 8.
"""

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav._format import memory, number
from beliefnav._sharding import gathered
from beliefnav.beliefs.contract import Belief, Fact, Filter, Posterior

__all__ = ["Kronecker", "KroneckerWalk", "KroneckerWalkState", "matrix_shape"]

PyTree = Any


class Kronecker(NamedTuple):
    r"""$L^p \otimes R^p$ acting on a matrix parameter: $M \mapsto L^p M R^p$.

    Attributes:
        left: $L$ [rows, rows], symmetric positive semi-definite.
        right: $R$ [columns, columns], the same.
        power: $p$.
    """

    left: Array
    right: Array
    power: ArrayLike = 1.0


class KroneckerWalkState(NamedTuple):
    r"""The Gram matrices after an observation, trees like the parameters of matrices.

    Attributes:
        left: $L$ [rows, rows] of every array.
        right: $R$ [columns, columns] of every array.
        power: $p$, a scalar.
    """

    left: PyTree
    right: PyTree
    power: Array

    def posterior(self) -> Posterior:
        """A `Kronecker` for every array of parameters."""
        return Posterior(
            curvature_mean=jax.tree.map(
                lambda x, y: Kronecker(x, y, self.power), self.left, self.right
            )
        )


class KroneckerWalk(Belief):
    r"""Kronecker walk (equations in the module docstring).

    Attributes:
        discount: $\beta$ in [0, 1]; 1 forgets nothing.
        prior_scale: $\epsilon$, $L_0 = R_0 = \epsilon I$.
        power: $p > 0$ of the reading.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {"discount": UNIT_INTERVAL, "prior_scale": NON_NEGATIVE, "power": POSITIVE}

    discount: ArrayLike = 1.0
    prior_scale: ArrayLike = 0.0
    power: ArrayLike = 0.5

    def filter(self) -> Filter:
        """The online filter. A missing entry is taken as 0: it adds nothing to the sums.

        Sums that overflow are capped.

        Returns:
            A filter whose states are `KroneckerWalkState`.
        """

        def eye(params: PyTree, side: int) -> PyTree:
            def leaf(p: Any) -> Any:
                size = matrix_shape(jnp.shape(p))[side]
                dtype = _trees.wide_dtype(jnp.result_type(p))
                if isinstance(p, jax.ShapeDtypeStruct):
                    return jax.ShapeDtypeStruct((size, size), dtype)
                return jnp.asarray(self.prior_scale, dtype) * jnp.eye(size, dtype=dtype)

            return jax.tree.map(leaf, params)

        def init(params: PyTree) -> KroneckerWalkState:
            power = jnp.asarray(self.power, jnp.result_type(float))
            return KroneckerWalkState(eye(params, 0), eye(params, 1), power)

        def predict(state: KroneckerWalkState, displacement: PyTree = None) -> KroneckerWalkState:
            del displacement
            left, right = (_trees.scale(side, self.discount) for side in (state.left, state.right))
            return KroneckerWalkState(left, right, state.power)

        def update(
            predicted: KroneckerWalkState, gradient: PyTree, curvature: PyTree = None
        ) -> KroneckerWalkState:
            del curvature

            def matrix(y: Array, like: Array) -> Array:
                y = gathered(y).reshape(matrix_shape(y.shape)).astype(like.dtype)
                return jnp.where(_trees.is_observed(y), y, 0)

            seen = jax.tree.map(matrix, gradient, predicted.left)
            return KroneckerWalkState(
                jax.tree.map(lambda x, y: jnp.nan_to_num(x + y @ y.T), predicted.left, seen),
                jax.tree.map(lambda x, y: jnp.nan_to_num(x + y.T @ y), predicted.right, seen),
                predicted.power,
            )

        return Filter(init, predict, update)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory and its prior."""
        del quantity
        sentence = (
            "The second moments of rows and of columns are read as the two factors of the "
            f"curvature, each to the power {number(self.power)}."
        )
        scale = f"{number(self.prior_scale)} times the identity"
        return (
            Fact("curvature", memory(self.discount, time), sentence),
            Fact("curvature prior", scale, "What is believed of each factor at first."),
        )


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The rows and columns of an array read as a matrix: a vector is one column."""
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (math.prod(shape), 1)
