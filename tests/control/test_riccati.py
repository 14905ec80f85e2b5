"""Riccati and Lyapunov equations against scipy's Schur methods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpy.typing import NDArray
from scipy import linalg

from beliefnav.control.gains._riccati import lyapunov, riccati

Floats = NDArray[np.float64]

N = 4
solve = jax.jit(jax.vmap(riccati))
solve_lyapunov = jax.jit(jax.vmap(lyapunov))


def positive(rng: np.random.Generator, n: int) -> Floats:
    x = rng.normal(size=(n, n))
    return x @ x.T / n + 0.2 * np.eye(n)


def random_problems(seed: int, size: int) -> tuple[Floats, Floats, Floats]:
    """A [size, N, N] of any stability, B positive definite, Q positive definite or, every third,
    indefinite with no eigenvalue of the Hamiltonian matrix near the imaginary axis."""
    rng = np.random.default_rng(seed)
    problems = []
    while len(problems) < size:
        a, b, q = rng.normal(size=(N, N)), positive(rng, N), positive(rng, N)
        if len(problems) % 3 == 0:
            q = q - 0.8 * np.eye(N)
        hamiltonian = np.block([[a, -b], [-q, -a.T]])
        if np.abs(np.linalg.eigvals(hamiltonian).real).min() > 0.1:
            problems.append((a, b, q))
    a, b, q = (np.stack(x) for x in zip(*problems, strict=True))
    return a, b, q


def schur(a: Floats, b: Floats, q: Floats) -> Floats:
    return linalg.solve_continuous_are(a, np.eye(len(a)), q, np.linalg.inv(b))


def distance(got: jax.Array, want: Floats) -> Floats:
    """Relative to the norm, of each [batch]."""
    error = np.linalg.norm(np.asarray(got, np.float64) - want, axis=(1, 2))
    return error / np.linalg.norm(want, axis=(1, 2))


@pytest.mark.usefixtures("x64")
def test_solution_is_the_stabilising_one():
    a, b, q = random_problems(seed=0, size=60)
    assert np.sum(np.linalg.eigvalsh(q)[:, 0] < 0) > 10 and np.any(np.linalg.eigvals(a).real > 1)
    p = np.asarray(solve(a, b, q))
    # What scipy leaves of float64; P reaches condition numbers of 1e3.
    assert distance(jnp.asarray(p), np.stack(list(map(schur, a, b, q)))).max() < 1e-10
    residual = q + p @ a + a.swapaxes(1, 2) @ p - p @ b @ p
    np.testing.assert_allclose(residual, 0, atol=1e-11 * np.abs(p).max() ** 2)
    np.testing.assert_array_equal(p, p.swapaxes(1, 2))
    assert np.linalg.eigvals(a - b @ p).real.max() < 0


@pytest.mark.usefixtures("x64")
def test_units_of_time_and_of_value_do_not_matter():
    r"""$A \to \tau A$, $B \to \tau B / \nu$, $Q \to \tau \nu Q$ gives $P \to \nu P$."""
    a, b, q = random_problems(seed=1, size=60)
    want = np.stack(list(map(schur, a, b, q)))
    time, value = 10.0 ** np.random.default_rng(2).uniform(-6, 6, (2, 60, 1, 1))
    got = solve(time * a, time * b / value, time * value * q)
    assert distance(got / value, want).max() < 1e-10  # as without the units


@pytest.mark.usefixtures("x64")
def test_units_of_every_parameter_do_not_matter():
    r"""$\theta \to D \theta$ with entries of D from 1e-3 to 1e3: those of B and Q span 1e12."""
    a, b, q = random_problems(seed=3, size=60)
    want = np.stack(list(map(schur, a, b, q)))
    d = 10.0 ** np.random.default_rng(4).uniform(-3, 3, (60, N, 1))
    row, column = d, d.swapaxes(1, 2)
    got = solve(row * a / column, row * b * column, q / row / column)
    # Inverses are taken with pivots: each entry keeps digits of its own, and loses some to the
    # condition of matrices that span 1e12.
    assert distance(row * got * column, want).max() < 1e-6


def test_float32_keeps_four_digits():
    a, b, q = (x.astype(np.float32) for x in random_problems(seed=5, size=60))
    got = solve(a, b, q)
    assert got.dtype == jnp.float32
    want = np.stack(list(map(schur, *(x.astype(np.float64) for x in (a, b, q)))))
    # Eigenvalues 0.1 from the axis amplify a rounding of 6e-8 a hundredfold.
    assert distance(got, want).max() < 1e-4


@pytest.mark.usefixtures("x64")
def test_without_a_stabilising_solution_all_is_nan():
    one = np.eye(N)
    block = np.kron(np.eye(N // 2), [[0.0, -1.0], [1.0, 0.0]])
    a = np.stack([0 * one, 0 * one, block, -one, -one])
    # Oscillation, rest and rotation on the axis; a well too steep, and just not so.
    q = np.stack([-one, 0 * one, 0 * one, -1.01 * one, -0.99 * one])
    b = np.broadcast_to(one, a.shape)
    # Repeated to the shape that is compiled already.
    p = np.asarray(solve(*(np.resize(x, (60, N, N)) for x in (a, b, q))))
    assert np.all(np.isnan(p[:4]))
    # p^2 + 2 p + 0.99 = 0, of whose solutions -0.9 stabilises; the other is 0.2 away.
    np.testing.assert_allclose(p[4], -0.9 * one, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_lyapunov_equals_scipy():
    rng = np.random.default_rng(6)
    a = rng.normal(size=(60, N, N))
    # Rates of decay from 0.01 on, and eigenvalues that are far apart.
    a -= (np.linalg.eigvals(a).real.max(-1) + 10 ** rng.uniform(-2, 1, 60))[:, None, None] * np.eye(
        N
    )
    q = rng.normal(size=(60, N, N))
    for right in (q, q + q.swapaxes(1, 2)):
        got = solve_lyapunov(a, right)
        want = np.stack(
            [
                linalg.solve_continuous_lyapunov(x.T, -np.asarray(y))
                for x, y in zip(a, right, strict=True)
            ]
        )
        # A rate of 0.01 costs two digits, non-normality of A some more.
        assert distance(got, want).max() < 1e-10
    np.testing.assert_allclose(got, got.swapaxes(1, 2), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_derivative_of_the_solution_obeys_its_own_lyapunov_equation():
    a, b, q = random_problems(seed=7, size=20)
    rng = np.random.default_rng(8)
    da, db, dq = rng.normal(size=(3, 20, N, N))
    db, dq = (x + x.swapaxes(1, 2) for x in (db, dq))
    p, dp = jax.jit(lambda x, dx: jax.jvp(jax.vmap(riccati), x, dx))((a, b, q), (da, db, dq))
    p = np.asarray(p)
    change = dq + p @ da + da.swapaxes(1, 2) @ p - p @ db @ p
    want = [
        linalg.solve_continuous_lyapunov((x - y @ z).T, -c)
        for x, y, z, c in zip(a, b, p, change, strict=True)
    ]
    assert distance(dp, np.stack(want)).max() < 1e-9  # as for P, and once more


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_lyapunov_has_derivatives_of_any_order(mode: str):
    rng = np.random.default_rng(9)
    a, q = rng.normal(size=(2, 2)) - 2 * np.eye(2), rng.normal(size=(2, 2))
    # Central differences in float64.
    check_grads(jax.jit(lyapunov), (a, q), order=2, modes=(mode,), atol=1e-6, rtol=1e-6)
