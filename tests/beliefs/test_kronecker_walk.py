"""Kronecker walk: Gram matrices against explicit sums, and what their product says of all."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from beliefnav import filters
from beliefnav.beliefs import Kronecker, KroneckerWalk
from beliefnav.beliefs.second_moment.kronecker_walk import matrix_shape


@jax.jit
def grams(model: KroneckerWalk, y: Any) -> Any:
    return filters.filter_recording(model, y)[0].curvature_mean


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("beta", "prior"), [(1.0, 0.0), (0.8, 0.3)])
def test_factors_are_discounted_sums_of_products_of_rows_and_of_columns(beta: float, prior: float):
    rng = np.random.default_rng(0)
    y = {"m": rng.normal(size=(6, 2, 3)), "v": [rng.normal(size=(6, 4)), None]}
    y |= {"s": rng.normal(size=6), "t": rng.normal(size=(6, 2, 2, 3))}
    y["m"][2, 0, 1], y["v"][0][3] = np.nan, np.inf
    got = grams(KroneckerWalk(beta, prior, 0.25), jax.tree.map(jnp.asarray, y))
    weights = beta ** np.arange(5, -1, -1)

    def check(product: Kronecker, y: Any, rows: int, columns: int) -> None:
        y = np.where(np.isfinite(y), y, 0).reshape(6, rows, columns)
        left = np.einsum("t,tij,tkj->ik", weights, y, y) + prior * beta**6 * np.eye(rows)
        right = np.einsum("t,tji,tjk->ik", weights, y, y) + prior * beta**6 * np.eye(columns)
        np.testing.assert_allclose(product.left[-1], left, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(product.right[-1], right, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(product.power, 0.25)

    check(got["m"], y["m"], 2, 3)
    check(got["v"][0], y["v"][0], 4, 1)
    check(got["s"], y["s"], 1, 1)
    check(got["t"], y["t"], 4, 3)
    assert got["v"][1] is None


def test_arrays_are_read_as_matrices_by_their_last_axis():
    shapes = {(): (1, 1), (3,): (3, 1), (2, 3): (2, 3), (4, 2, 3): (8, 3), (0, 3): (0, 3)}
    for shape, want in shapes.items():
        assert matrix_shape(shape) == want


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [1, 2])
def test_roots_bound_the_sum_of_all_products_over_the_rank(rank: int):
    """Gupta, Koren and Singer, lemma 8: of what a `WishartWalk` would sum up."""
    rng = np.random.default_rng(rank)
    y = rng.normal(size=(5, 3, rank)) @ rng.normal(size=(5, rank, 4))
    got = grams(KroneckerWalk(1.0, 1e-3), jnp.asarray(y))
    bound = np.kron(linalg.sqrtm(got.left[-1]), linalg.sqrtm(got.right[-1]))
    exact = np.einsum("ti,tj->ij", y.reshape(5, 12), y.reshape(5, 12))
    assert np.linalg.eigvalsh(bound - exact / rank)[0] > 0
    if rank == 1:
        return
    # Not of the sum itself: one identity has the eigenvalue 2, and roots of 1.
    one = grams(KroneckerWalk(1.0), jnp.eye(2)[None])
    bound = np.kron(linalg.sqrtm(one.left[-1]), linalg.sqrtm(one.right[-1]))
    gap = bound - np.outer(np.eye(2), np.eye(2))
    np.testing.assert_allclose(np.linalg.eigvalsh(gap)[0], -1, rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_product_over_the_trace_is_exact_for_noise_between_two_matrices():
    """All unit matrices stand for the noise: their products are those of independent entries."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(3, 3)), rng.normal(size=(2, 2))
    y = np.array([a @ e.reshape(3, 2) @ b for e in np.eye(6)])
    got = grams(KroneckerWalk(1.0), jnp.asarray(y))
    exact = np.einsum("ti,tj->ij", y.reshape(6, 6), y.reshape(6, 6))
    product = np.kron(got.left[-1], got.right[-1]) / np.trace(got.left[-1])
    np.testing.assert_allclose(product, exact, rtol=1e-12, atol=1e-13)


def test_gradients_of_any_size_leave_numbers():
    y = jnp.asarray([[[1e30, -1e30], [1e30, 1e30]], [[1.0, 1.0], [1.0, 0.0]]])
    got = grams(KroneckerWalk(0.9), y)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(got))
