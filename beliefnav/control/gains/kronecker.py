r"""Metrics and curvatures that may be Kronecker products, applied to a tree like the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import is_number
from beliefnav._sharding import gathered, placed_like
from beliefnav.beliefs.second_moment.kronecker_walk import Kronecker, matrix_shape
from beliefnav.control._arrays import floating
from beliefnav.control.gains.matrix import symmetric_power
from beliefnav.objective import Objective, raise_index

__all__ = ["is_kronecker", "solve", "times_power"]

PyTree = Any


def is_kronecker(tree: PyTree) -> bool:
    """Whether a tree is made of Kronecker products."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Kronecker))
    return any(isinstance(leaf, Kronecker) for leaf in leaves)


def solve(metric: Any, covector: PyTree) -> PyTree:
    r"""$G^{-1} m$, a tree like ``covector``.

    Args:
        metric: $G$, see `control.myopic`; not a callable.
        covector: $m$.

    Returns:
        A tree like ``covector``.

    Raises:
        ValueError: the metric does not fit.
    """
    if is_kronecker(metric):
        return times_power(metric, covector, -1.0)
    return raise_index(Objective(metric=metric), covector, covector)


def times_power(tree: PyTree, covector: PyTree, exponent: float, floor: ArrayLike = 0.0) -> PyTree:
    r"""$(L + \epsilon I)^{pq} M (R + \epsilon I)^{pq}$ for every array.

    Args:
        tree: a tree with `Kronecker` for leaves: $L$, $R$ and $p$.
        covector: the arrays $M$, read as matrices.
        exponent: $q$.
        floor: $\epsilon$.

    Returns:
        A tree like ``covector``.
    """

    def side(factor: Array, power: ArrayLike) -> Array:
        if not is_number(floor, 0):
            factor = factor + floor * jnp.eye(len(factor), dtype=factor.dtype)
        return symmetric_power(factor, jnp.asarray(power, factor.dtype) * exponent)

    def leaf(m: Array, product: Kronecker) -> Array:
        matrix = gathered(floating(m)).reshape(matrix_shape(m.shape))
        left, right = side(product.left, product.power), side(product.right, product.power)
        return placed_like((left @ matrix @ right).reshape(m.shape), m)

    return jax.tree.map(leaf, covector, tree)
