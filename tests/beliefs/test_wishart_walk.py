"""Wishart walk: against explicit sums of outer products."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import filters
from beliefnav.beliefs import PrecisionWalk, WishartWalk

Y = np.random.default_rng(0).normal(size=(8, 3)) @ np.array([[1, 2, 0], [0, 1, -1], [0, 0, 0.5]])


@jax.jit
def moments(model: WishartWalk, y: Any) -> Any:
    return filters.filter_recording(model, y)[0].curvature_mean


def tree(y: Any) -> Any:
    return {"a": y[..., :1], "b": [None, y[..., 1:, None]]}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("beta", "s0", "n0"), [(1.0, 0.0, 0.0), (0.8, 0.0, 0.0), (0.8, 0.3, 2.5)])
def test_it_is_the_discounted_sum_of_outer_products_over_their_number(
    beta: float, s0: float, n0: float
):
    want = []
    for t in range(len(Y)):
        weights = beta ** np.arange(t, -1, -1)
        total = np.einsum("k,ki,kj->ij", weights, Y[: t + 1], Y[: t + 1])
        prior = n0 * beta ** (t + 1)
        want.append((total + prior * s0 * np.eye(3)) / (weights.sum() + prior))
    got = moments(WishartWalk(beta, s0, n0), tree(jnp.asarray(Y)))
    # Float64 roundings of 8 steps.
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
    # Its diagonal is what each entry believes by itself.
    alone = filters.filter_recording(PrecisionWalk(beta, s0, n0), jnp.asarray(Y))[0]
    np.testing.assert_allclose(np.diagonal(got, axis1=1, axis2=2), alone.curvature_mean, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_it_moves_along_with_the_coordinates():
    b = np.random.default_rng(1).normal(size=(3, 3))
    model = WishartWalk(0.8)
    want = b @ np.asarray(moments(model, jnp.asarray(Y))) @ b.T
    np.testing.assert_allclose(moments(model, jnp.asarray(Y @ b.T)), want, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_missing_entries_keep_their_square_and_the_matrix_positive():
    y = Y.copy()
    y[2, 1], y[3, :2], y[5] = np.nan, np.inf, -np.inf
    got = np.asarray(moments(WishartWalk(0.8), jnp.asarray(y)))
    n = (1 - 0.8 ** np.arange(1, 9)) / 0.2
    for t, missing in ((2, [1]), (3, [0, 1]), (5, [0, 1, 2])):
        before, after = got[t - 1], got[t]
        np.testing.assert_allclose(
            after[np.ix_(missing, missing)], before[np.ix_(missing, missing)], rtol=1e-14
        )
        seen = np.setdiff1d(np.arange(3), missing)
        block = np.ix_(seen, seen)
        want = before[block] + (np.outer(y[t, seen], y[t, seen]) - before[block]) / n[t]
        np.testing.assert_allclose(after[block], want, rtol=1e-13)
        # Products of one seen and one missing: by the root, which keeps the matrix positive.
        cross = np.ix_(seen, np.array(missing))
        np.testing.assert_allclose(after[cross], before[cross] * np.sqrt(1 - 1 / n[t]), rtol=1e-13)
    lowest = np.linalg.eigvalsh(got)[:, 0]
    assert np.all(lowest > -1e-14 * np.linalg.norm(got, axis=(1, 2)))
    # Also where keeping the products with the others as they are would not be.
    pair = moments(WishartWalk(0.8), jnp.asarray([[1.0, 1.0], [0.0, np.nan]]))[-1]
    assert np.linalg.eigvalsh(pair)[0] > -1e-15


def test_gradients_of_any_size_leave_numbers():
    y = jnp.asarray([[1e30, -1e30, 1e-30], [1.0, 1.0, 1.0], [3e38, 3e38, -3e38]])
    got = moments(WishartWalk(0.9), y)
    assert np.all(np.isfinite(got))
    # The small entry is not touched by the large ones.
    np.testing.assert_allclose(got[1, 2, 2], 1 / 1.9, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_derivatives_are_finite():
    y = jnp.asarray(Y).at[0, 0].set(jnp.nan).at[4].set(0)

    def total(beta: Any, y: Any) -> Any:
        return moments(WishartWalk(beta), y)[-1].sum()

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(0.8, y)
    assert all(np.all(np.isfinite(x)) for x in slopes)
    h = 1e-6
    want = (total(0.8 + h, y) - total(0.8 - h, y)) / (2 * h)
    np.testing.assert_allclose(slopes[0], want, rtol=1e-7)
