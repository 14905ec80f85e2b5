"""Second sensors: unbiased for the diagonals of the matrices that they read."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from beliefnav import sensors

PyTree = Any

PARAMS = {"a": np.array([0.3, -0.7]), "b": [np.array([[0.5], [1.1]]), None]}


def ravelled(f: Callable[[PyTree], Any]) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    flat, unravel = ravel_pytree(PARAMS)
    return flat, lambda x: f(unravel(x))


def flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def coupled(params: PyTree, scale: Any = 1.0) -> jax.Array:
    a, b = params["a"], params["b"][0]
    return scale * (jnp.sum(jnp.sin(a) * b[:, 0] ** 2) + a[0] * a[1] ** 3 + jnp.prod(b))


def separable(params: PyTree) -> Any:
    return sum(jnp.sum(jnp.cosh(x)) for x in jax.tree.leaves(params))


def assert_unbiased(readings: np.ndarray, want: np.ndarray) -> None:
    """Readings [draw, entry]: four standard errors for four entries, a chance of 3e-4."""
    error = readings.std(0) / np.sqrt(len(readings))
    assert np.all(np.abs(readings.mean(0) - want) <= 4 * error + 1e-12)


@pytest.mark.usefixtures("x64")
def test_hutchinson_is_unbiased_for_the_diagonal_of_the_hessian():
    start, function = ravelled(lambda params: coupled(params, 1.7))
    hessian = np.asarray(jax.jit(jax.hessian(function))(start))
    off_diagonal = hessian - np.diag(np.diag(hessian))
    assert np.abs(off_diagonal).max() > 0.1

    @jax.jit
    def read(keys: jax.Array) -> PyTree:
        return jax.vmap(lambda key: sensors.hutchinson(coupled, PARAMS, key, 1.7))(keys)

    tree = read(jax.random.split(jax.random.key(0), 4000))
    assert tree["b"][0].shape == (4000, 2, 1) and tree["b"][1] is None
    readings = np.concatenate([x.reshape(4000, -1) for x in jax.tree.leaves(tree)], 1)
    assert_unbiased(readings, np.diag(hessian))
    # Its noise is the off-diagonal: of a variance of 4,000 readings, to 4 sqrt(2 / 4000) < 0.1.
    np.testing.assert_allclose(readings.var(0), np.sum(off_diagonal**2, 1), rtol=0.1)


@pytest.mark.usefixtures("x64")
def test_hutchinson_is_exact_on_a_separable_loss():
    got = jax.jit(lambda key: sensors.hutchinson(separable, PARAMS, key))(jax.random.key(1))
    want = jax.tree.map(np.cosh, PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), got, want)


# --- Gauss-Newton -------------------------------------------------------------------------------

X = np.random.default_rng(2).normal(size=(4, 2))
LABELS = np.array([0, 2, 1, 0])
NETWORK = {"w": np.random.default_rng(3).normal(size=(2, 3)), "b": np.array([0.1, -0.4, 0.2])}


def logits(params: PyTree, x: Any) -> jax.Array:
    return jnp.tanh(x @ params["w"] + params["b"][None])


def cross_entropy(values: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(values, -1)
    return -jnp.mean(log_probabilities[jnp.arange(len(values)), LABELS[: len(values)]])


def gauss_newton_diagonal(x: np.ndarray) -> np.ndarray:
    """Diag(J^T Lambda J), with the whole matrix Lambda of the batch."""
    network, unravel = ravel_pytree(NETWORK)
    values = logits(NETWORK, x)

    @jax.jit
    def matrices() -> Any:
        jacobian = jax.jacobian(lambda p: logits(unravel(p), x).ravel())(network)
        loss = jax.hessian(lambda v: cross_entropy(v.reshape(values.shape)))
        return jacobian, loss(values.ravel())

    jacobian, curvature = map(np.asarray, matrices())
    return np.diag(jacobian.T @ curvature @ jacobian)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_gauss_newton_is_unbiased_for_its_diagonal_and_not_negative():
    @jax.jit
    def read(keys: jax.Array) -> PyTree:
        return jax.vmap(lambda key: sensors.gauss_newton(logits, cross_entropy, NETWORK, key, X))(
            keys
        )

    tree = read(jax.random.split(jax.random.key(4), 4000))
    readings = np.concatenate([x.reshape(4000, -1) for x in jax.tree.leaves(tree)], 1)
    assert readings.min() >= 0
    assert_unbiased(readings, gauss_newton_diagonal(X))


@pytest.mark.usefixtures("x64")
def test_gauss_newton_has_its_diagonal_as_the_mean_over_all_signs(monkeypatch: Any):
    x = X[:2]  # 2 x 3 signs
    signs = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=6))).reshape(64, 2, 3)
    # The key stands for the signs.
    monkeypatch.setattr(jax.random, "rademacher", lambda key, shape, dtype: key.reshape(shape))

    @jax.jit
    def read(signs: jax.Array) -> PyTree:
        return jax.vmap(lambda z: sensors.gauss_newton(logits, cross_entropy, NETWORK, z, x))(signs)

    tree = jax.tree.map(lambda c: c.mean(0), read(signs))
    # Float64 round-off of a mean of 64, and of eigenvalues that are 0 but for rounding.
    np.testing.assert_allclose(flat(tree), gauss_newton_diagonal(x), rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_gauss_newton_of_squared_error_is_the_squared_jacobian_with_one_output():
    def outputs(params: PyTree, x: Any) -> jax.Array:
        return (x @ params["w"])[:, None]

    w = {"w": np.array([0.2, -0.1])}
    x = X[:1]
    got = jax.jit(
        lambda key: sensors.gauss_newton(outputs, lambda v: jnp.sum(v**2) / 2, w, key, x)
    )(jax.random.key(5))
    np.testing.assert_allclose(got["w"], x[0] ** 2, rtol=1e-14)


# --- paired gradients ---------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_paired_gradients_are_exact_on_a_quadratic_and_nothing_where_nothing_moved():
    curvature = {"a": np.array([2.0, -3.0]), "b": [np.array([[0.5], [4.0]]), None]}

    def loss(params: PyTree, noise: PyTree) -> Any:
        terms = jax.tree.map(
            lambda h, p, n: jnp.sum(h * p**2 / 2 + n * p), curvature, params, noise
        )
        return sum(jax.tree.leaves(terms))

    noise = jax.tree.map(lambda p: 100 * np.cos(p), PARAMS)
    before = jax.tree.map(lambda p: p - 0.1, PARAMS)
    before["a"] = np.array([PARAMS["a"][0], before["a"][1]])
    got = jax.jit(lambda p, q: sensors.paired_gradients(loss, p, q, noise))(PARAMS, before)
    want = {"a": np.array([np.nan, -3.0]), "b": curvature["b"]}
    # Gradients of 100 that differ by 0.1: float64 loses three digits.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), got, want)


def test_paired_gradients_have_finite_derivatives_where_nothing_moved():
    def reading(p: jax.Array) -> jax.Array:
        return jnp.nansum(sensors.paired_gradients(lambda q: jnp.sum(q**3), p, jnp.ones(2)))

    assert np.all(np.isfinite(jax.jit(jax.grad(reading))(jnp.array([1.0, 2.0]))))


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [lambda p: jnp.sum(p), lambda p: {"logits": p}])
def test_gauss_newton_needs_an_axis_of_outputs(outputs: Any):
    with pytest.raises(ValueError, match=r"gauss_newton: outputs must return an array"):
        sensors.gauss_newton(outputs, jnp.sum, jnp.ones(2), jax.random.key(0))


def test_a_loss_is_a_scalar():
    with pytest.raises(TypeError, match="scalar"):
        sensors.hutchinson(lambda p: p, jnp.ones(2), jax.random.key(0))


def test_a_tree_without_leaves():
    assert sensors.hutchinson(lambda p: jnp.zeros(()), {}, jax.random.key(0)) == {}
    assert sensors.paired_gradients(lambda p: jnp.zeros(()), {}, {}) == {}
