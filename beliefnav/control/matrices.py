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
from beliefnav.control.planning import PlanningGain, planning_gain


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
    exact_hold: bool = False,
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
        ValueError: a Python number is out of its range, or the shapes do not fit.
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
        function: $f$, elementwise, differentiable on the eigenvalues.
        matrix: $S$ [n, n]; only its symmetric part is used.

    Returns:
        A symmetric matrix [n, n].
    """
    matrix = jnp.asarray(matrix)

    @jax.custom_jvp
    def apply(s: Array) -> Array:
        eigenvalues, vectors = jnp.linalg.eigh(s)
        return _compose(vectors, function(eigenvalues))

    @apply.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (s,), (ds,) = primals, tangents
        eigenvalues, vectors = jnp.linalg.eigh(s)
        values, slopes = jax.jvp(function, (eigenvalues,), (jnp.ones_like(eigenvalues),))
        gap = _outer(jnp.subtract, eigenvalues)
        size = _outer(jnp.add, jnp.abs(eigenvalues))
        # Close together, the mean of the slopes is right to the square of the gap, and the quotient
        # is wrong by the rounding of f over the gap.
        close = jnp.abs(gap) <= jnp.finfo(s.dtype).eps ** (1 / 3) * size
        quotient = _outer(jnp.subtract, values) / jnp.where(close, 1, gap)
        difference = jnp.where(close, _outer(jnp.add, slopes) / 2, quotient)
        change = vectors @ (difference * (vectors.T @ ds @ vectors)) @ vectors.T
        return _compose(vectors, values), change

    return apply((matrix + matrix.T) / 2)


def _compose(vectors: Array, values: Array) -> Array:
    r"""$Q \operatorname{diag}(f) Q^\top$."""
    return jnp.einsum("ik,k,jk->ij", vectors, values, vectors)


def _outer(combine: Callable[[Array, Array], Array], x: Array) -> Array:
    """``combine(x_i, x_j)``, [n, n]."""
    return combine(x[:, None], x[None, :])
