r"""Block tridiagonal systems of discounted paths, in time linear in the number of blocks.

The matrix is $W^{-1} M$, where $M$ is symmetric positive definite and block tridiagonal, and $W$ a
diagonal of weights that fall by a constant factor from one block to the next: the Hessian of a
discounted cost in current values. Without discounting it is just $M$.

Block elimination from the last block to the first. Each pivot is a Schur complement of $M$ over its
weight, so all of them are positive definite if and only if $M$ is; otherwise the solution is NaN.
The pivots are the Hessians of the cost-to-go: the elimination is the Riccati recursion of the
linear-quadratic problem around the path.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

__all__ = ["blocks", "solve"]

UNROLLED = 4
"""Blocks up to this size are solved by arithmetic that is unrolled while tracing and multiplied as
sums, which XLA fuses; calls to LAPACK and to a matrix product cost ten times as much on blocks of
two."""


def blocks(matvec: Callable[[Array], Array], like: Array) -> tuple[Array, Array]:
    """The blocks of a linear map that is known to be block tridiagonal.

    It is probed with 3d vectors: blocks that are three apart do not interfere.

    Args:
        matvec: a linear map on arrays [n, d].
        like: an array of its shape and dtype.

    Returns:
        The diagonal blocks [n, d, d], and the blocks above them [n - 1, d, d].
    """
    n, d = like.shape
    index = jnp.arange(n)
    own = jax.nn.one_hot(index % 3, 3, axis=0, dtype=like.dtype)  # [colour, block]
    probes = jnp.einsum("cn,ij->cinj", own, jnp.eye(d, dtype=like.dtype))
    columns = jax.vmap(jax.vmap(matvec))(probes)  # [colour, column, block, row]
    columns = columns.transpose(2, 0, 3, 1)
    return columns[index, index % 3], columns[index[:-1], index[1:] % 3]


def solve(diagonal: Array, upper: Array, rhs: Array, growth: ArrayLike = 1.0) -> Array:
    """Solve a block tridiagonal system (see the module docstring).

    Args:
        diagonal: symmetric blocks [n, d, d].
        upper: blocks [n - 1, d, d] above the diagonal; those below are their transposes times
            ``growth``.
        rhs: right-hand side [n, d].
        growth: the weight of a block over that of the next.

    Returns:
        The solution [n, d]; NaN if the matrix is not positive definite.
    """

    def eliminate(carry: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[Any, Any]:
        pivot, remainder = carry
        own, coupling, right = row
        # The later block is offset - slope @ this block. Solved for apart, because the offset is
        # linear in the right-hand side: reverse-mode derivatives transpose that part alone.
        slope = _solve_positive(pivot, jnp.asarray(growth) * coupling.T)
        offset = _solve_positive(pivot, remainder[:, None])[:, 0]
        carry = own - _times(coupling, slope), right - _times(coupling, offset)
        return carry, (slope, offset)

    (pivot, remainder), later = lax.scan(
        eliminate, (diagonal[-1], rhs[-1]), (diagonal[:-1], upper, rhs[:-1]), reverse=True
    )

    def substitute(before: Array, later: tuple[Array, Array]) -> tuple[Array, Array]:
        slope, offset = later
        after = offset - _times(slope, before)
        return after, after

    first = _solve_positive(pivot, remainder[:, None])[:, 0]
    return jnp.concatenate([first[None], lax.scan(substitute, first, later)[1]])


def _times(matrix: Array, other: Array) -> Array:
    """``matrix @ other``, a matrix or a vector."""
    if len(matrix) > UNROLLED:
        return matrix @ other
    columns = matrix[:, :, None] * other.reshape(1, len(matrix), -1)
    return columns.sum(1).reshape(other.shape)


def _solve_positive(matrix: Array, rhs: Array) -> Array:
    """Solve with a symmetric matrix [d, d]; NaN if it is not positive definite."""
    d = len(matrix)
    if d > UNROLLED:
        factor = jnp.linalg.cholesky(matrix)
        half = lax.linalg.triangular_solve(factor, rhs, left_side=True, lower=True)
        return lax.linalg.triangular_solve(
            factor, half, left_side=True, lower=True, transpose_a=True
        )
    a = [[matrix[i, j] for j in range(d)] for i in range(d)]
    x = [rhs[i] for i in range(d)]
    for k in range(d):
        a[k][k] = jnp.where(a[k][k] > 0, a[k][k], jnp.nan)
        for i in range(k + 1, d):
            factor = a[i][k] / a[k][k]
            a[i] = [a[i][j] - factor * a[k][j] for j in range(d)]
            x[i] = x[i] - factor * x[k]
    for k in reversed(range(d)):
        for j in range(k + 1, d):
            x[k] = x[k] - a[k][j] * x[j]
        x[k] = x[k] / a[k][k]
    return jnp.stack(x)
