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


# --- perturbed parameters -----------------------------------------------------------------------

SCALE = {"a": np.array([0.5, 0.2]), "b": [np.array([[0.7], [0.3]]), None]}


def cubic(params: PyTree, weight: Any) -> jax.Array:
    x = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])
    return weight * (jnp.sum(x**3) + x[0] ** 2 * x[1] ** 2 + x[2] * x[3])


@pytest.mark.usefixtures("x64")
def test_perturbed_is_unbiased_for_averages_over_the_gaussian():
    """Of gradient and curvature, on a polynomial whose Gaussian averages are known."""

    @jax.jit
    def read(keys: jax.Array) -> PyTree:
        return jax.vmap(lambda key: sensors.perturbed(cubic, PARAMS, SCALE, key, 1.5))(keys)

    gradient, curvature = read(jax.random.split(jax.random.key(6), 20_000))
    assert curvature["b"][0].shape == (20_000, 2, 1) and curvature["b"][1] is None
    x, variance = flat(PARAMS), flat(SCALE) ** 2
    square = x**2 + variance  # E[(x + sigma z)^2]
    slope = 3 * square
    slope += np.array([2 * x[0] * square[1], 2 * square[0] * x[1], x[3], x[2]])
    bend = 6 * x + np.array([2 * square[1], 2 * square[0], 0, 0])
    for got, want in ((gradient, slope), (curvature, bend)):
        readings = np.concatenate([v.reshape(20_000, -1) for v in jax.tree.leaves(got)], 1)
        assert_unbiased(readings, 1.5 * want)


@pytest.mark.usefixtures("x64")
def test_perturbed_reads_the_gradient_where_it_looked():
    r"""On $\sum h x^2 / 2$ the gradient says where that was, and the reading is $g z / \sigma$."""

    def loss(params: PyTree) -> Any:
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    gradient, curvature = sensors.perturbed(loss, PARAMS, SCALE, jax.random.key(7))
    z = (flat(gradient) / 2 - flat(PARAMS)) / flat(SCALE)
    np.testing.assert_allclose(flat(curvature), flat(gradient) * z / flat(SCALE), rtol=1e-11)
    # Every entry has noise of its own.
    assert len(set(np.round(z, 6))) == 4
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (PARAMS, SCALE))
    shapes = jax.eval_shape(lambda p, s: sensors.perturbed(loss, p, s, jax.random.key(0)), *half)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.usefixtures("x64")
def test_hessian_is_that_of_the_raveled_parameters():
    got = jax.jit(lambda p: sensors.hessian(cubic, p, 1.5))(PARAMS)
    x = flat(PARAMS)
    want = np.diag(6 * x)
    want[0, 0] += 2 * x[1] ** 2
    want[1, 1] += 2 * x[0] ** 2
    want[0, 1] = want[1, 0] = 4 * x[0] * x[1]
    want[2, 3] = want[3, 2] = 1
    np.testing.assert_allclose(got, 1.5 * want, rtol=1e-13, atol=1e-14)


# --- the Fisher information ---------------------------------------------------------------------


def fisher_by_labels(parameters: PyTree, x: np.ndarray) -> np.ndarray:
    """The mean over examples of E[g g^T] over the model's own labels, g one example's gradient."""
    start, unravel = ravel_pytree(parameters)

    @jax.jit
    def per_label() -> Any:
        probabilities = jax.nn.softmax(logits(parameters, x))
        slopes = jax.jacobian(lambda p: -jax.nn.log_softmax(logits(unravel(p), x)))(start)
        return probabilities, slopes

    probabilities, slopes = map(np.asarray, per_label())
    total = np.zeros((len(start), len(start)))
    for example, labels in zip(probabilities, slopes, strict=True):
        for probability, g in zip(example, labels, strict=True):
            total += probability * np.outer(g, g) / len(x)
    return total


@pytest.fixture
def fishers() -> Any:
    """All three of the network, compiled together."""

    @jax.jit
    def read(parameters: PyTree) -> Any:
        return [
            f(logits, cross_entropy, parameters, X)
            for f in (sensors.fisher, sensors.fisher_diagonal, sensors.fisher_kronecker)
        ]

    with jax.enable_x64(True):
        return read(NETWORK)


@pytest.mark.usefixtures("x64")
def test_fisher_is_the_sum_over_examples_and_model_labels_of_squared_gradients(fishers: Any):
    """For cross-entropy, whose Gauss-Newton matrix it is, whatever the labels were."""
    whole, diagonal, products = fishers
    want = fisher_by_labels(NETWORK, X)
    # Roots of eigenvalues that are 0 but for rounding: 1e-8, squared.
    np.testing.assert_allclose(whole, want, atol=1e-14)
    np.testing.assert_allclose(flat(diagonal), np.diag(want), atol=1e-14)
    np.testing.assert_allclose(np.diag(want), gauss_newton_diagonal(X), rtol=1e-10)
    # The product keeps the trace of every block; that of a vector is its block itself.
    blocks = {"b": want[:3, :3], "w": want[3:, 3:]}
    for name, block in blocks.items():
        left, right, _ = products[name]
        np.testing.assert_allclose(np.trace(left) * np.trace(right), np.trace(block), rtol=1e-12)
    np.testing.assert_allclose(np.kron(*products["b"][:2]), blocks["b"], atol=1e-14)
    assert products["w"].left.shape == (2, 2) and products["w"].right.shape == (3, 3)


@pytest.mark.usefixtures("x64")
def test_kronecker_factors_are_exact_where_inputs_and_slopes_are_independent():
    """A linear layer with squared error: every input meets every slope."""
    weights = {"w": np.random.default_rng(8).normal(size=(2, 3)), "none": None}
    metric = np.random.default_rng(9).normal(size=(3, 3))

    def squared(values: jax.Array) -> jax.Array:
        return jnp.sum((values @ metric.T) ** 2) / 2

    def outputs(params: PyTree, x: Any) -> jax.Array:
        return x @ params["w"]

    @jax.jit
    def read() -> Any:
        return [f(outputs, squared, weights, X) for f in (sensors.fisher, sensors.fisher_kronecker)]

    whole, products = read()
    want = np.kron(X.T @ X, metric.T @ metric)
    np.testing.assert_allclose(whole, want, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(np.kron(*products["w"][:2]), want, rtol=1e-11, atol=1e-12)
    assert products["none"] is None


def test_a_loss_without_curvature_has_no_fisher_information():
    """Numbers, vectors and matrices of parameters; the trace that is divided by is 0."""
    params = {"s": jnp.asarray(1.0), "v": jnp.ones(2), "m": jnp.ones((2, 2))}

    def outputs(p: PyTree) -> jax.Array:
        return jnp.stack([p["s"] * p["v"], p["m"] @ p["v"]])

    products = jax.jit(lambda p: sensors.fisher_kronecker(outputs, jnp.sum, p))(params)
    shapes = {"s": ((1, 1), (1, 1)), "v": ((2, 2), (1, 1)), "m": ((2, 2), (2, 2))}
    for name, (left, right) in shapes.items():
        assert (products[name].left.shape, products[name].right.shape) == (left, right)
        np.testing.assert_array_equal(products[name].left, 0)
        np.testing.assert_array_equal(products[name].right, 0)


@pytest.mark.parametrize("name", ["fisher", "fisher_diagonal", "fisher_kronecker"])
def test_fisher_needs_an_axis_of_outputs(name: str):
    with pytest.raises(ValueError, match=rf"{name}: outputs must return an array"):
        getattr(sensors, name)(lambda p: jnp.sum(p), jnp.sum, jnp.ones(2))
