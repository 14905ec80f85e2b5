"""Policies that couple parameters: against numpy's eigendecompositions, solves and np.kron."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, control, navigator
from beliefnav.beliefs import Kronecker, Posterior

MEAN = {"a": np.array([1.0, -2.0]), "b": [np.array([[0.5, 3.0]]), None]}
EMPTY = {"a": None, "b": ()}
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def kronecker(left: Any, right: Any, power: float = 1.0) -> Kronecker:
    return Kronecker(jnp.asarray(left), jnp.asarray(right), power)


def rotated(*values: float) -> np.ndarray:
    """A symmetric matrix with these eigenvalues, in no basis of relation to the parameters."""
    return ROTATION * np.array(values) @ ROTATION.T


def step(policy: control.Policy, curvature: Any, mean: Any = MEAN) -> Any:
    """A step of the shapes of the mean."""
    got = policy.step(Posterior(gradient_mean=mean, curvature_mean=curvature), None)
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, mean)
    return got


# --- ballistic ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("eps", "eps_root"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
def test_ballistic_is_a_root_of_the_matrix(eps: float, eps_root: float):
    """In its eigenvectors; repeated eigenvalues have no others, negative ones are read as 0."""
    values = [-0.3, 0.5, 0.5, 2.0] if eps or eps_root else [0.1, 0.5, 0.5, 2.0]
    matrix = rotated(*values)
    scale = np.sqrt(np.maximum(values, 0) + eps_root) + eps
    want = (ROTATION / scale) @ ROTATION.T @ flat(MEAN)
    plain, traced = jax.jit(
        lambda v, *floors: (
            step(control.matrix_ballistic(eps, eps_root), v),
            step(control.matrix_ballistic(*floors), v),
        )
    )(matrix, eps, eps_root)
    np.testing.assert_allclose(flat(plain), want, rtol=1e-12)
    np.testing.assert_allclose(flat(traced), want, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_ballistic_does_not_step_where_nothing_was_seen():
    """Two gradients span a plane; the third, out of it, is not amplified by their rounding."""
    y = np.random.default_rng(1).normal(size=(2, 4))
    matrix = y.T @ y / 2
    want = root_of(matrix, -0.5) @ flat(MEAN)
    for policy in (control.matrix_ballistic(), control.matrix_ballistic(jnp.zeros(()), 0.0)):
        np.testing.assert_allclose(flat(step(policy, matrix)), want, rtol=1e-9)
    np.testing.assert_array_equal(flat(step(control.matrix_ballistic(), 0 * matrix)), 0)


@pytest.mark.usefixtures("x64")
def test_ballistic_on_a_diagonal_is_ballistic():
    curvature = {"a": np.array([4.0, 0.25]), "b": [np.array([[0.1, 9.0]]), None]}
    got = step(control.matrix_ballistic(0.1, 0.2), curvature)
    want = step(control.ballistic(0.1, 0.2), curvature)
    np.testing.assert_allclose(flat(got), flat(want), rtol=1e-13)


def kroneckers(seed: int, power: float) -> dict[str, Any]:
    """Products that fit `MATRICES`; the right factor of the first has no full rank."""
    rng = np.random.default_rng(seed)

    def gram(n: int, rank: int) -> np.ndarray:
        x = rng.normal(size=(n, rank))
        return x @ x.T

    return {
        "m": kronecker(gram(2, 2), gram(3, 2), power),
        "v": [kronecker(gram(4, 4), gram(1, 1), power), None],
        "t": kronecker(gram(4, 4), gram(3, 3), power),
    }


_RNG = np.random.default_rng(2)
MATRICES = {
    "m": _RNG.normal(size=(2, 3)),
    "v": [_RNG.normal(size=4), None],
    "t": _RNG.normal(size=(2, 2, 3)),
}


def root_of(matrix: np.ndarray, power: float, floor: float = 0.0) -> np.ndarray:
    """A power on the range of a matrix, by numpy."""
    values, vectors = np.linalg.eigh(matrix + floor * np.eye(len(matrix)))
    kept = values > 1e-12 * values.max()
    return (vectors[:, kept] * values[kept] ** power) @ vectors[:, kept].T


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("power", "floor"), [(0.5, 0.0), (1.0, 0.3)])
def test_ballistic_on_kronecker_products_is_that_on_their_matrix(power: float, floor: float):
    products = kroneckers(3, power)
    got = step(control.matrix_ballistic(eps_root=floor), products, MATRICES)

    def check(got: Any, mean: Any, product: Kronecker) -> None:
        left, right = (root_of(np.asarray(x), power, floor) for x in (product.left, product.right))
        whole = np.kron(left, right)  # V, a matrix over the raveled array
        want = root_of(whole, -0.5) @ np.ravel(mean)
        np.testing.assert_allclose(np.ravel(got), want, rtol=1e-9, atol=1e-11)

    check(got["m"], MATRICES["m"], products["m"])
    check(got["v"][0], MATRICES["v"][0], products["v"][0])
    check(got["t"], MATRICES["t"], products["t"])
    assert got["v"][1] is None


def test_ballistic_on_moments_of_any_size_is_finite():
    """Capped moments, whose eigenvalues overflow, and such that underflow, lead to no step."""
    mean = jnp.ones((1, 2))
    largest = float(jnp.finfo(jnp.float32).max)
    sign = jnp.asarray([[1.0, -1.0], [-1.0, 1.0]])
    for scale in (largest, 1e30, 1e-30, 1e-45, 0.0):
        product = Kronecker(jnp.full((1, 1), scale), scale * sign, 0.5)
        assert np.all(np.isfinite(step(control.matrix_ballistic(), product, mean)))
        assert np.all(np.isfinite(step(control.matrix_ballistic(), scale * sign, mean)))
        assert np.all(np.isfinite(step(control.matrix_newton(), scale * sign, mean)))


# --- Newton -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_newton_solves():
    matrix = rotated(0.1, 0.5, 0.5, 30.0)
    got = step(control.matrix_newton(), matrix)
    np.testing.assert_allclose(flat(got), np.linalg.solve(matrix, flat(MEAN)), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_newton_stays_in_directions_without_an_optimum_and_counts_them():
    values = np.array([-2.0, 0.0, 0.5, 3.0])
    matrix = rotated(*values)
    inverse = np.array([0, 0, 2.0, 1 / 3])
    policy = control.matrix_newton()
    got = step(policy, matrix)
    np.testing.assert_allclose(
        flat(got), (ROTATION * inverse) @ ROTATION.T @ flat(MEAN), rtol=1e-11
    )
    assert policy.clipped is not None
    posterior = Posterior(gradient_mean=MEAN, curvature_mean=matrix)
    np.testing.assert_array_equal(policy.clipped(posterior, None), [True, True, False, False])
    # A direction that is flat but for rounding is counted as it is stepped on: not at all.
    noisy = posterior._replace(curvature_mean=rotated(1e-17, 1.0, 2.0, 3.0))
    assert np.sum(policy.clipped(noisy, None)) == 1


# --- polar --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_polar_is_ballistic_on_a_curvature_read_off_the_mean():
    got = step(control.polar(), None, MATRICES)
    for array, mean, shape in (
        (got["m"], MATRICES["m"], (2, 3)),
        (got["v"][0], MATRICES["v"][0], (4, 1)),
        (got["t"], MATRICES["t"], (4, 3)),
    ):
        matrix = np.reshape(mean, shape)
        want = root_of(matrix @ matrix.T, -0.5) @ matrix
        np.testing.assert_allclose(np.reshape(array, shape), want, rtol=1e-10, atol=1e-12)
        # V = M M^T x I is a Kronecker product with the identity.
        one_sided = kronecker(matrix @ matrix.T, np.eye(shape[1]), 1.0)
        same = step(control.matrix_ballistic(), one_sided, mean)
        np.testing.assert_allclose(same, array, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(got["v"][0]), 1, rtol=1e-14)
    numbers = [np.array(x) for x in (-3.0, 0.0, 1e-300)]
    np.testing.assert_allclose(step(control.polar(), None, numbers), [-1, 0, 1], rtol=1e-14)


# --- all ----------------------------------------------------------------------------------------

POLICIES = [control.matrix_ballistic(), control.matrix_newton(), control.polar()]


@pytest.mark.parametrize("policy", POLICIES, ids=["ballistic", "newton", "polar"])
def test_no_parameters_get_no_step(policy: control.Policy):
    assert step(policy, jnp.zeros((0, 0)), EMPTY) == EMPTY
    array = {"none": jnp.zeros((0, 3))}
    assert step(policy, jnp.zeros((0, 0)), array)["none"].shape == (0, 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_they_drive_optimizers_of_any_parameters(dtype: str):
    """Of a vector, a matrix, a number and nothing, scanned and vmapped over a hyper-parameter."""
    params: Any = {
        "v": jnp.ones(3, dtype),
        "m": jnp.full((2, 2), -2.0, dtype),
        "s": jnp.ones((), dtype),
    }
    params["none"] = None
    policies = {
        "wishart": (beliefs.WishartWalk(0.9), control.matrix_ballistic),
        "kronecker": (
            beliefs.KroneckerWalk(0.9, 1e-4),
            lambda floor: control.matrix_ballistic(eps_root=floor),
        ),
    }

    @jax.jit
    @jax.vmap
    def train(floor: Any) -> Any:
        outcome = {}
        for name, (curvature, policy) in policies.items():
            belief = beliefs.independent(gradient=beliefs.LocalLevel(0.5), curvature=curvature)
            optimizer = navigator(0.05, belief, policy(floor))

            def step(carry: Any, _: None, optimizer: Any = optimizer) -> Any:
                params, state = carry
                gradient = jax.tree.map(lambda x: 3 * x, params)
                updates, state = optimizer.update(gradient, state, params)
                return (jax.tree.map(jnp.add, params, updates), state), None

            start = params, optimizer.init(params)
            outcome[name] = jax.lax.scan(step, start, None, length=30)[0][0]
        return outcome

    after = train(jnp.asarray([1e-6, 1e-2]))
    for name in policies:
        assert jax.tree.structure(after[name]) == jax.tree.structure(params)
        assert {x.dtype for x in jax.tree.leaves(after[name])} == {jnp.dtype(dtype)}
        # The distance from the optimum falls.
        for x, start in zip(jax.tree.leaves(after[name]), jax.tree.leaves(params), strict=True):
            assert np.all(np.abs(np.float32(x)) < np.abs(np.float32(start)))


def test_beliefs_that_do_not_fit_are_refused_and_named():
    product = kronecker(np.eye(2), np.eye(2))
    square = {"a": np.ones((2, 2))}
    for policy, name in (
        (control.matrix_newton(), "matrix_newton"),
        (control.matrix_ballistic(), "matrix_ballistic"),
    ):
        with pytest.raises(ValueError, match=rf"control.{name} with this belief.*a matrix"):
            step(policy, np.eye(3))
        with pytest.raises(ValueError, match=rf"control.{name} with a belief .* curvature_mean"):
            policy.step(Posterior(gradient_mean=MEAN), None)
    for curvature, mean in ((product, square["a"]), ({"a": product}, square)):
        with pytest.raises(ValueError, match=r"control.matrix_newton with this belief.*\(2, 2\)"):
            step(control.matrix_newton(), curvature, mean)
        with pytest.raises(ValueError, match=r"matrix_ballistic\(eps=\) with a Kronecker product"):
            step(control.matrix_ballistic(eps=0.1), curvature, mean)
    for name in ("eps", "eps_root"):
        with pytest.raises(ValueError, match=f"matrix_ballistic: {name} must be"):
            control.matrix_ballistic(**{name: -1.0})
    with pytest.raises(ValueError, match="control.polar with a belief .* no gradient_mean"):
        control.polar().step(Posterior(), None)
