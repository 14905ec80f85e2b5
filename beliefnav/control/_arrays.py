"""Shapes, dtypes and definiteness, as the solvers of this package need them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from beliefnav._checks import SYMMETRY
from beliefnav._sharding import gathered, placed_like
from beliefnav._trees import fitted, wide_dtype

__all__ = ["check_like", "floating", "is_positive", "is_symmetric", "per_parameter", "ravel"]

PyTree = Any


def ravel(tree: PyTree) -> tuple[Array, Callable[[Array], PyTree]]:
    """A tree as one vector, of real floating-point type and at least float32, and the way back.

    The vector is whole on every device; on the way back arrays are sharded as they were.
    """
    leaves = jax.tree.map(floating, tree)
    flat, unravel = ravel_pytree(jax.tree.map(gathered, leaves))
    return flat, lambda vector: jax.tree.map(placed_like, unravel(vector), leaves)


def floating(x: ArrayLike) -> Array:
    """An array of at least float32; weakly typed scalars keep their digits."""
    x = jnp.asarray(x)
    return x.astype(wide_dtype(x.dtype))


def check_like(
    owner: str, name: str, tree: PyTree, like: PyTree, leading: tuple[int, ...] = ()
) -> None:
    """Raise unless a tree has the structure of another, and its shapes after some leading axes.

    Args:
        owner: what checks, for the message.
        name: the name of ``tree``, for the message.
        tree: to check.
        like: what it should be like.
        leading: axes in front.

    Raises:
        ValueError: gives both shapes.
    """
    want = jax.tree.map(lambda x: leading + jnp.shape(x), like)
    got = jax.tree.map(jnp.shape, tree)
    if jax.tree.structure(tree) != jax.tree.structure(like) or want != got:
        raise ValueError(
            f"{owner}: {name} must fit the parameters: expected shapes {want}, got {got}."
        )


def per_parameter(owner: str, name: str, tree: PyTree, like: PyTree) -> PyTree:
    """A tree with an array for every parameter, of its shape, in the nodes of ``like``.

    Raises:
        ValueError: it does not fit; says where.
    """
    result = fitted(owner, name, tree, like)
    check_like(owner, name, result, like)
    return result


def is_symmetric(matrix: Array) -> Array:
    """Whether a matrix is finite and symmetric up to rounding."""
    return jnp.abs(matrix - matrix.T).max() <= SYMMETRY * jnp.abs(matrix).max()


def is_positive(matrix: Array) -> Array:
    """Whether a matrix is symmetric positive definite."""
    return is_symmetric(matrix) & jnp.all(jnp.isfinite(jnp.linalg.cholesky(matrix)))
