r"""Riccati and Lyapunov equations, jitted, batched and differentiable, on any device.

JAX has no Schur decomposition on accelerators and no derivative of one; what follows needs only
inverses and converges quadratically.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

__all__ = ["lyapunov", "riccati"]

MAX_ITERATIONS = 100


@jax.custom_jvp
def _riccati(a: Array, b: Array, q: Array) -> Array:
    r"""The stabilising solution of $Q + PA + A^\top P - PBP = 0$.

    The Hamiltonian matrix has as many eigenvalues left as right of the imaginary axis; its matrix
    sign, by Newton's iteration with determinantal scaling, projects on those to the left, whose
    subspace is that of $(I, P)$. Two steps of Newton-Kleinman iteration remove what rounding left.

    Args:
        a: $A$ [n, n].
        b: $B$ [n, n], symmetric positive definite.
        q: $Q$ [n, n], symmetric.

    Returns:
        $P$ [n, n], with the eigenvalues of $A - BP$ left of the imaginary axis; NaN if there is no
        such solution.

    Reference:
        Roberts, "Linear model reduction and solution of the algebraic Riccati equation by use of
        the sign function", Int. J. Control 32 (1980), 677-687; Byers, Linear Algebra Appl. 85
        (1987), 267-279 (scaling). Kleinman, IEEE Trans. Automat. Contr. 13 (1968), 114-115.
    """
    n = len(a)
    # P is found in units in which B and Q are of one size.
    scale = jnp.sqrt(_norm(q) / _norm(b))
    scale = jnp.where(scale > 0, scale, 1)
    hamiltonian = jnp.block([[a, -b * scale], [-q / scale, -a.T]])
    sign = _matrix_sign(hamiltonian)
    # (sign + I) (I, P) = 0: its upper half determines P, since B is invertible.
    p = -scale * jnp.linalg.solve(sign[:n, n:], sign[:n, :n] + jnp.eye(n, dtype=a.dtype))
    p = (p + p.T) / 2

    def refine(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        # Twice for P, then for a Lyapunov function of the closed loop: positive if it is stable.
        p, _ = carry
        x = lyapunov(a - b @ p, jnp.where(i < 2, q + p @ b @ p, jnp.eye(n, dtype=a.dtype)))
        x = (x + x.T) / 2
        return jnp.where(i < 2, x, p), x

    p, x = lax.fori_loop(0, 3, refine, (p, p))
    stable = jnp.all(jnp.isfinite(jnp.linalg.cholesky(x)))
    loop = a - b @ p
    residual = _norm(q + p @ loop + a.T @ p)
    terms = _norm(q) + 2 * _norm(p) * _norm(a) + _norm(p) ** 2 * _norm(b)
    solved = residual <= jnp.sqrt(jnp.finfo(a.dtype).eps) * terms
    return jnp.where(stable & solved, p, jnp.nan)


@_riccati.defjvp
def _riccati_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
    a, b, q = primals
    da, db, dq = tangents
    p = riccati(a, b, q)
    change = dq + p @ da + da.T @ p - p @ db @ p
    return p, lyapunov(a - b @ p, (change + change.T) / 2)


riccati = jax.jit(_riccati)


def lyapunov(a: Array, q: Array) -> Array:
    r"""The solution of $A^\top X + X A + Q = 0$ for stable $A$, symmetric if $Q$ is.

    Smith's doubling iteration on the Cayley transform of $A$.

    Args:
        a: $A$ [n, n], all eigenvalues left of the imaginary axis.
        q: $Q$ [n, n].

    Returns:
        $X$ [n, n]; not meaningful if $A$ is not stable.

    Reference:
        Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16 (1968), 198-201.
    """

    def matvec(a: Array, x: Array) -> Array:
        return a.T @ x + x @ a

    return lax.custom_linear_solve(
        functools.partial(matvec, a),
        -q,
        solve=lambda _, rhs: _smith(a, -rhs),
        transpose_solve=lambda _, rhs: _smith(a.T, -rhs),
    )


def _smith(a: Array, q: Array) -> Array:
    r"""$X = \sum_k (U^\top)^k R U^k$, summed by doubling."""
    n = len(a)
    identity = jnp.eye(n, dtype=a.dtype)
    # The geometric mean of the eigenvalues: the best shift if they are all alike.
    shift = jnp.exp(jnp.linalg.slogdet(a)[1] / n)
    inverse = jnp.linalg.inv(shift * identity - a)
    u = inverse @ (shift * identity + a)
    r = 2 * shift * inverse.T @ q @ inverse
    eps = jnp.finfo(a.dtype).eps

    def going(state: tuple[Array, ...]) -> Array:
        _, _, change, k = state
        return (change > eps) & (k < MAX_ITERATIONS)

    def double(state: tuple[Array, ...]) -> tuple[Array, ...]:
        x, u, _, k = state
        more = u.T @ x @ u
        total = x + more
        return total, u @ u, _norm(more) / _norm(total), k + 1

    start = (r, u, jnp.full((), jnp.inf, a.dtype), jnp.zeros((), jnp.int32))
    return lax.while_loop(going, double, start)[0]


def _matrix_sign(matrix: Array) -> Array:
    """Newton's iteration for the sign of a matrix; NaN if it does not converge."""
    n = len(matrix)
    # Rounding keeps the iteration from settling below this; the step after it squares the error.
    tolerance = n * jnp.sqrt(jnp.finfo(matrix.dtype).eps)

    def going(state: tuple[Array, ...]) -> Array:
        _, change, k = state
        return (change > tolerance) & (k < MAX_ITERATIONS)

    def newton(state: tuple[Array, ...]) -> tuple[Array, ...]:
        z, change, k = state
        # Far from the sign, scaling brings the determinant to one; near it, it would only disturb.
        scale = jnp.where(change > 0.1, jnp.exp(-jnp.linalg.slogdet(z)[1] / n), 1.0)
        after = (scale * z + jnp.linalg.inv(z) / scale) / 2
        return after, _norm(after - z) / _norm(after), k + 1

    start = (matrix, jnp.full((), jnp.inf, matrix.dtype), jnp.zeros((), jnp.int32))
    z, change, _ = newton(lax.while_loop(going, newton, start))
    return jnp.where(change <= tolerance, z, jnp.nan)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x))
