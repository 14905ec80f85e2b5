r"""The planning gain for a matrix of curvature and a matrix metric, and functions of matrices.

With $G = L L^\top$ the coordinates $u = L^\top \theta$ have the identity for a metric, and the step

$$ \Delta\theta = -\Phi m, \qquad
   \Phi = L^{-\top} \varphi_1 \bigl( L^{-1} V L^{-\top} \bigr) L^{-1} $$

with $\varphi_1$ the scalar gain for $G = 1$ (`beliefnav.control.planning_gain`), as a function of a
symmetric matrix: of its eigenvalues.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from beliefnav.control._arrays import floating
from beliefnav.control.gains.scalar import PlanningGain, planning_gain

__all__ = [
    "MatrixPlanningGain",
    "matrix_planning_gain",
    "polar_factor",
    "rounding",
    "symmetric_function",
    "symmetric_power",
]


class MatrixPlanningGain(NamedTuple):
    r"""The result of `matrix_planning_gain`.

    Attributes:
        gain: $\Phi$ [n, n], symmetric.
        clipped: [n] True for the directions (eigenvectors, by increasing curvature) in which the
            curvature was below what the objective bounds, and was clipped.
    """

    gain: Array
    clipped: Array


def matrix_planning_gain(
    curvature: ArrayLike,
    *,
    rate: ArrayLike,
    gain: ArrayLike,
    discount: ArrayLike,
    time_step: ArrayLike = 1.0,
    metric: ArrayLike | None = None,
    exact_hold: ArrayLike = False,
    margin: float = 1e-3,
) -> MatrixPlanningGain:
    r"""The gain $\Phi$ of the module docstring.

    Computed in float32 or wider: there is no eigendecomposition in half precision.

    Args:
        curvature: $V$ [n, n], symmetric; only its symmetric part is used.
        rate: see `planning_gain`, as are the others.
        gain: $k > 0$.
        discount: $\gamma \ge 0$.
        time_step: $\Delta t > 0$.
        metric: $G$ [n, n], symmetric positive definite; the identity by default.
        exact_hold: follow the closed loop for ``time_step``; otherwise replan continuously.
        margin: of the clip.

    Returns:
        The gain, NaN if the metric is not positive definite, and where it was clipped.

    Raises:
        ValueError: a number is out of its range, or the shapes do not fit.
    """
    v = floating(curvature)
    if v.ndim != 2 or v.shape[0] != v.shape[1]:
        raise ValueError(f"matrix_planning_gain: curvature must be [n, n], got {v.shape}.")
    if metric is not None and jnp.shape(metric) != v.shape:
        raise ValueError(
            f"matrix_planning_gain: metric must have shape {v.shape} to fit curvature, got "
            f"{jnp.shape(metric)}."
        )

    def scalar(x: Array) -> PlanningGain:
        return planning_gain(
            x,
            rate=rate,
            gain=gain,
            discount=discount,
            time_step=time_step,
            exact_hold=exact_hold,
            margin=margin,
        )

    whiten = jnp.eye(len(v), dtype=v.dtype)  # L^{-1}
    if metric is not None:
        root = jnp.linalg.cholesky(jnp.asarray(metric, v.dtype))
        whiten = jax.scipy.linalg.solve_triangular(root, whiten, lower=True)
    white = whiten @ v @ whiten.T
    phi = whiten.T @ symmetric_function(lambda x: scalar(x).gain, white) @ whiten
    eigenvalues = jnp.linalg.eigvalsh(lax.stop_gradient((white + white.T) / 2))
    return MatrixPlanningGain(phi, scalar(eigenvalues).clipped)


def symmetric_function(function: Callable[[Array], Array], matrix: ArrayLike) -> Array:
    r"""$f(S) = Q f(\Lambda) Q^\top$ of a symmetric matrix.

    Its derivative is exact where eigenvalues meet, which that of an eigendecomposition is not: it
    is made of divided differences, $Q (f[\lambda_i, \lambda_j] \circ Q^\top \dot S Q) Q^\top$
    (Daleckii and Krein). Differentiable once there, any number of times elsewhere.

    Args:
        function: $f$, elementwise, differentiable on the eigenvalues and in what it closes over.
        matrix: $S$ [n, n]; only its symmetric part is used.

    Returns:
        A symmetric matrix [n, n].
    """
    matrix = jnp.asarray(matrix)
    # A custom derivative may not close over what is differentiated: it becomes an argument.
    f, closed = jax.closure_convert(function, jnp.ones(len(matrix), matrix.dtype))

    @jax.custom_jvp
    def apply(s: Array, *closed: Array) -> Array:
        eigenvalues, vectors = jnp.linalg.eigh(s, symmetrize_input=False)
        return _compose(vectors, f(eigenvalues, *closed))

    @apply.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        (s, *closed), (ds, *closed_dots) = primals, tangents
        eigenvalues, vectors = jnp.linalg.eigh(s, symmetrize_input=False)
        ones, still = jnp.ones_like(eigenvalues), [jnp.zeros_like(c) for c in closed]
        values, slopes = jax.jvp(f, (eigenvalues, *closed), (ones, *still))
        _, drift = jax.jvp(f, (eigenvalues, *closed), (jnp.zeros_like(ones), *closed_dots))
        gap = _outer(jnp.subtract, eigenvalues)
        size = _outer(jnp.add, jnp.abs(eigenvalues))
        # Close together, the mean of the slopes is right to the square of the gap, and the quotient
        # is wrong by the rounding of f over the gap.
        close = jnp.abs(gap) <= jnp.finfo(s.dtype).eps ** (1 / 3) * size
        quotient = _outer(jnp.subtract, values) / jnp.where(close, 1, gap)
        difference = jnp.where(close, _outer(jnp.add, slopes) / 2, quotient)
        change = vectors @ (difference * (vectors.T @ ds @ vectors)) @ vectors.T
        return _compose(vectors, values), change + _compose(vectors, drift)

    return apply(matrix / 2 + matrix.T / 2, *closed)


def symmetric_power(matrix: ArrayLike, power: ArrayLike) -> Array:
    r"""$S^p$ of a symmetric positive semi-definite matrix; negative powers are pseudo-inverses.

    In the directions in which $S$ vanishes, up to the rounding of the eigenvalues, and where it is
    negative, the result is 0: for $p = -1/2$ it is $(S^+)^{1/2}$. Its derivative is finite also
    there, and where eigenvalues meet (see `symmetric_function`).

    Args:
        matrix: $S$ [n, n].
        power: $p$.

    Returns:
        A symmetric matrix [n, n].
    """
    s = floating(matrix)

    def function(x: Array) -> Array:
        positive = x > rounding(x)
        return jnp.where(positive, jnp.where(positive, x, 1) ** power, 0)

    return symmetric_function(function, s)


def rounding(eigenvalues: Array) -> Array:
    """What eigenvalues [n] of a symmetric matrix may be wrong by, a scalar without derivative."""
    size = jnp.max(jnp.abs(lax.stop_gradient(eigenvalues)), initial=0)
    return len(eigenvalues) * jnp.finfo(eigenvalues.dtype).eps * size


@jax.custom_jvp
def polar_factor(matrix: ArrayLike) -> Array:
    r"""The orthogonal factor $U V^\top = (M M^\top)^{-1/2} M$ of $M = U \Sigma V^\top$.

    By a singular value decomposition. Singular values that vanish up to rounding have no direction;
    they stay 0, so that the factor of 0 is 0.

    Args:
        matrix: $M$ [rows, columns].

    Returns:
        A matrix [rows, columns] whose singular values are 1 or 0.
    """
    return _polar(floating(matrix))[0]


@polar_factor.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # U W V^T with W the antisymmetric part of U^T dM V over sums of singular values, and outside of
    # the two ranges dM over the singular values: finite where they are equal.
    factor, u, s, vt = _polar(floating(primals[0]))
    dm = tangents[0].astype(factor.dtype)
    inner = u.T @ dm @ vt.T
    inverse = jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1), 0)
    total = _outer(jnp.add, s)
    turned = jnp.where(total > 0, (inner - inner.T) / jnp.where(total > 0, total, 1), 0)
    below = (dm - u @ (u.T @ dm)) @ (vt.T * inverse[None, :]) @ vt
    beside = (u * inverse[None, :]) @ (u.T @ dm - (u.T @ dm @ vt.T) @ vt)
    return factor, u @ turned @ vt + below + beside


def _polar(m: Array) -> tuple[Array, Array, Array, Array]:
    """The factor, and the singular vectors and values it is made of, 0 where those vanish."""
    u, s, vt = jnp.linalg.svd(m, full_matrices=False)
    kept = (s > max(m.shape) * jnp.finfo(m.dtype).eps * jnp.max(s, initial=0)).astype(s.dtype)
    u, s, vt = u * kept[None, :], s * kept, vt * kept[:, None]
    return u @ vt, u, s, vt


def _compose(vectors: Array, values: Array) -> Array:
    r"""$Q \operatorname{diag}(f) Q^\top$."""
    return jnp.einsum("ik,k,jk->ij", vectors, values, vectors)


def _outer(combine: Callable[[Array, Array], Array], x: Array) -> Array:
    """``combine(x_i, x_j)``, [n, n]."""
    return combine(x[:, None], x[None, :])
