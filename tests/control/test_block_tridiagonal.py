"""Block elimination against dense linear algebra, on both sides of the unrolled sizes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav.control.paths import _block_tridiagonal

# Nearly all the time is that of compiling: leave out what makes programs fast, not right.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def random_symmetric(seed: int, n: int, d: int, lowest: float) -> np.ndarray:
    """A block tridiagonal symmetric matrix [n d, n d] with a given lowest eigenvalue."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((n * d, n * d))
    for i in range(n):
        block = rng.normal(size=(d, d))
        matrix[i * d : (i + 1) * d, i * d : (i + 1) * d] = block + block.T
    for i in range(n - 1):
        block = rng.normal(size=(d, d))
        matrix[i * d : (i + 1) * d, (i + 1) * d : (i + 2) * d] = block
        matrix[(i + 1) * d : (i + 2) * d, i * d : (i + 1) * d] = block.T
    return matrix + (lowest - np.linalg.eigvalsh(matrix)[0]) * np.eye(n * d)


def current_values(matrix: np.ndarray, d: int, growth: float) -> np.ndarray:
    """The matrix, its block row i divided by growth^-i."""
    weights = np.repeat(growth ** -np.arange(len(matrix) / d), d)
    return matrix / weights[:, None]


def dense_blocks(matrix: np.ndarray, d: int) -> tuple[np.ndarray, np.ndarray]:
    """The diagonal blocks and those above."""
    n = len(matrix) // d
    grid = matrix.reshape(n, d, n, d).transpose(0, 2, 1, 3)
    index = np.arange(n)
    return grid[index, index], grid[index[:-1], index[1:]]


@jit
def probe_and_solve(matrix: jax.Array, rhs: jax.Array, growth: jax.Array):
    found = _block_tridiagonal.blocks(lambda x: (matrix @ x.ravel()).reshape(x.shape), rhs)
    return found, _block_tridiagonal.solve(*found, rhs, growth)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("n", "d"), [(3, d) for d in range(1, 7)] + [(n, d) for n in (1, 2, 7) for d in (2, 5)]
)
def test_blocks_and_solution_equal_dense_algebra(n: int, d: int):
    rng = np.random.default_rng(100 * n + d)
    symmetric = random_symmetric(10 * n + d, n, d, lowest=0.5)
    for growth in (1.0, 1.7, 0.8):
        matrix = current_values(symmetric, d, growth)
        rhs = rng.normal(size=(n, d))
        found, got = probe_and_solve(matrix, rhs, growth)
        # Every entry of a probed column is one entry of the matrix, and sums of zeros.
        for block, want in zip(found, dense_blocks(matrix, d), strict=True):
            np.testing.assert_allclose(block, want, rtol=0, atol=1e-14)
        want = np.linalg.solve(matrix, rhs.ravel()).reshape(n, d)
        # Rounding of float64 times a condition number of a few hundred.
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("d", [2, 5])
def test_not_positive_definite_is_nan_everywhere(d: int):
    """The sign of the lowest eigenvalue decides, however close to zero it is."""
    n, growth = 7, 1.7
    rhs = np.ones((n, d))
    for seed in range(5):
        for lowest in (1e-6, -1e-6):
            symmetric = random_symmetric(seed, n, d, lowest)
            got = probe_and_solve(current_values(symmetric, d, growth), rhs, growth)[1]
            assert np.all(np.isfinite(got) if lowest > 0 else np.isnan(got)), (seed, lowest)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("d", [2, 5])
def test_one_indefinite_block_spoils_the_solution_wherever_it_is(d: int):
    """Also where nothing couples the blocks, and in the last entry of a block."""
    n = 7
    rhs = np.ones((n, d))
    assert np.all(np.asarray(probe_and_solve(np.eye(n * d), rhs, 1.0)[1]) == 1)
    for place in range(n):
        for value in (0.0, -1.0):
            matrix = np.eye(n * d)
            matrix[(place + 1) * d - 1, (place + 1) * d - 1] = value
            assert np.all(np.isnan(probe_and_solve(matrix, rhs, 1.0)[1])), (place, value)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("d", [2, 5])
def test_derivatives_are_those_of_the_dense_solution(d: int):
    """M x = b gives M dx = db - dM x, and the transpose of that map backwards."""
    n, growth = 3, 1.1
    rng = np.random.default_rng(4)
    symmetric = random_symmetric(3, n, d, lowest=1.0)
    matrix = current_values(symmetric, d, growth)
    rhs, slope, weights = rng.normal(size=(3, n, d))
    change = current_values(random_symmetric(5, n, d, lowest=1.0), d, growth)

    @jit
    def derivatives(diagonal, upper, rhs, *tangents):
        def solution(*args):
            return _block_tridiagonal.solve(*args, growth=growth)

        args = (diagonal, upper, rhs)
        forward = jax.jvp(solution, args, tangents)[1]
        return forward, jax.vjp(solution, *args)[1](weights)

    forward, backward = derivatives(*dense_blocks(matrix, d), rhs, *dense_blocks(change, d), slope)
    x = np.linalg.solve(matrix, rhs.ravel())
    want = np.linalg.solve(matrix, slope.ravel() - change @ x).reshape(n, d)
    # Rounding times the square of a condition number of ten.
    np.testing.assert_allclose(forward, want, rtol=1e-10, atol=1e-11)
    tangents = (*dense_blocks(change, d), slope)
    product = sum(np.sum(b * t) for b, t in zip(backward, tangents, strict=True))
    np.testing.assert_allclose(product, np.sum(weights * want), rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("d", [2, 5])
def test_the_map_from_right_hand_sides_can_be_transposed(d: int):
    """As reverse mode through an implicit function does it, without differentiating first."""
    n, growth = 3, 1.1
    matrix = current_values(random_symmetric(3, n, d, lowest=1.0), d, growth)
    diagonal, upper = (jnp.asarray(x) for x in dense_blocks(matrix, d))
    cotangent = np.random.default_rng(4).normal(size=(n, d))

    @jit
    def transposed(cotangent: jax.Array) -> jax.Array:
        def solution(rhs: jax.Array) -> jax.Array:
            return _block_tridiagonal.solve(diagonal, upper, rhs, growth)

        return jax.linear_transpose(solution, cotangent)(cotangent)[0]

    want = np.linalg.solve(matrix.T, cotangent.ravel()).reshape(n, d)
    # Rounding times a condition number of ten.
    np.testing.assert_allclose(transposed(cotangent), want, rtol=1e-11, atol=1e-12)
