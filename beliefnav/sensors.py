r"""Second sensors: readings of curvature and geometry from a loss, for ``update(curvature=)``.

Each is a noisy observation $c = h + N(0, R_c)$ of the curvature of every parameter, for beliefs
that have such a sensor (`beliefnav.beliefs.Secant` with a ``curvature_noise_variance``,
`beliefnav.beliefs.composed.sensed`). They cost between one and two gradients each.

| sensor | unbiased for | noise |
|---|---|---|
| `hutchinson` | the diagonal of the Hessian | $\sum_{j \ne i} H_{ij}^2$, the off-diagonal |
| `gauss_newton` | the diagonal of the Gauss-Newton matrix | non-negative, like a square |
| `paired_gradients` | the diagonal where the loss is separable | that of the batch cancels |
| `perturbed` | the diagonal, averaged over a Gaussian | falls with the Gaussian's width |

For small models there is also the exact `hessian`, and the Fisher information, as a matrix
(`fisher`), its diagonal (`fisher_diagonal`), or Kronecker-factored (`fisher_kronecker`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from beliefnav._trees import wide_dtype
from beliefnav.beliefs.second_moment.kronecker_walk import Kronecker, matrix_shape

__all__ = [
    "fisher",
    "fisher_diagonal",
    "fisher_kronecker",
    "gauss_newton",
    "hessian",
    "hutchinson",
    "paired_gradients",
    "perturbed",
]

PyTree = Any


def hutchinson(loss: Callable[..., Array], params: PyTree, key: Array, *args: Any) -> PyTree:
    r"""$z \odot H z$ with random signs $z$: unbiased for the diagonal of the Hessian.

    Its variance in entry $i$ is $\sum_{j \ne i} H_{ij}^2$: without noise on a separable loss. Costs
    one Hessian-vector product, some two gradients.

    Args:
        loss: ``(params, *args) -> scalar``.
        params: where to measure, a tree.
        key: random key.
        *args: the rest of the loss's arguments, such as a batch.

    Returns:
        A tree like ``params``.

    Reference:
        Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix", Applied Numerical
        Mathematics 57 (2007), eq. (1).
    """
    signs = _signs(key, params)
    _, product = jax.jvp(jax.grad(lambda p: loss(p, *args)), (params,), (signs,))
    return jax.tree.map(jnp.multiply, signs, product)


def gauss_newton(
    outputs: Callable[..., PyTree],
    loss: Callable[..., Array],
    params: PyTree,
    key: Array,
    *args: Any,
) -> PyTree:
    r"""$(J^\top \Lambda^{1/2} z)^2$ with random signs $z$.

    It is unbiased for the diagonal of the Gauss-Newton matrix $J^\top \Lambda J$. $J$ is the
    Jacobian of the outputs and $\Lambda$ the Hessian of the loss in the outputs, which must be
    positive semi-definite: the loss is convex in the outputs, as cross-entropy in logits and
    squared error are. Then the reading is non-negative. The loss must be a sum (or mean) of one
    term for every row of the outputs, so that $\Lambda$ has one block for the last axis of each.

    Args:
        outputs: ``(params, *args) -> array [..., output]``.
        loss: ``array [..., output] -> scalar``, convex.
        params: where to measure, a tree.
        key: random key.
        *args: the rest of the arguments of ``outputs``, such as a batch.

    Returns:
        A tree like ``params``.

    Raises:
        ValueError: the outputs are not an array with an axis of outputs.

    Reference:
        Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
        Neural Computation 14 (2002), section 3.1 (the matrix).
    """
    values, pullback = jax.vjp(lambda p: outputs(p, *args), params)
    root = _curvature_root("gauss_newton", loss, values)
    signs = jax.random.rademacher(key, values.shape, values.dtype)
    (projected,) = pullback(jnp.squeeze(root @ signs[..., None], -1))
    return jax.tree.map(jnp.square, projected)


def paired_gradients(
    loss: Callable[..., Array],
    params: PyTree,
    previous_params: PyTree,
    *args: Any,
) -> PyTree:
    r"""$(g' - g)/\Delta\theta$, both gradients on one batch, whose noise cancels.

    On a separable loss that is the mean curvature between the two points. In a network it is
    $\sum_j \bar H_{ij} \Delta\theta_j / \Delta\theta_i$: the steps of other parameters enter, most
    where one's own was small.

    Args:
        loss: ``(params, *args) -> scalar``.
        params: the parameters now, a tree.
        previous_params: the parameters one step before.
        *args: the rest of the loss's arguments: one batch, for both.

    Returns:
        A tree like ``params``; NaN, not observed, where a parameter did not move.
    """
    slope = jax.grad(lambda p: loss(p, *args))

    def quotient(new: Array, old: Array, p: Array, q: Array) -> Array:
        moved = p - q
        return jnp.where(moved == 0, jnp.nan, (new - old) / jnp.where(moved == 0, 1, moved))

    return jax.tree.map(quotient, slope(params), slope(previous_params), params, previous_params)


def perturbed(
    loss: Callable[..., Array], params: PyTree, scale: PyTree, key: Array, *args: Any
) -> tuple[PyTree, PyTree]:
    r"""Gradient $g$ at $\theta + \sigma z$, $z \sim N(0, I)$, and the reading $c = g z / \sigma$.

    By Stein's identity $E[c_i] = E[\partial^2 L / \partial\theta_i^2]$, averages over the Gaussian.
    Costs one gradient. The wider the Gaussian, the smaller the noise of $c$.

    Args:
        loss: ``(params, *args) -> scalar``.
        params: the mean $\theta$, a tree.
        scale: $\sigma > 0$, a tree like ``params``.
        key: random key.
        *args: the rest of the loss's arguments, such as a batch.

    Returns:
        The gradient and the reading of the curvature, trees like ``params``.

    Reference:
        Khan et al., arXiv:1806.04854, section 3.1 (the reparameterisation trick for the Hessian).
    """
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    noise = treedef.unflatten(
        [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=False)]
    )
    drawn = jax.tree.map(lambda p, s, z: p + s * z, params, scale, noise)
    gradient = jax.grad(loss)(drawn, *args)
    return gradient, jax.tree.map(lambda g, z, s: g * z / s, gradient, noise, scale)


def hessian(loss: Callable[..., Array], params: PyTree, *args: Any) -> Array:
    r"""The Hessian over the n raveled parameters, for small models. Costs some 2n gradients.

    Args:
        loss: ``(params, *args) -> scalar``.
        params: where to measure, a tree.
        *args: the rest of the loss's arguments, such as a batch.

    Returns:
        A symmetric matrix [n, n].
    """
    flat, unravel = ravel_pytree(params)
    matrix = jax.hessian(lambda x: loss(unravel(x), *args))(flat)
    return (matrix + matrix.T) / 2


def fisher(
    outputs: Callable[..., PyTree], loss: Callable[..., Array], params: PyTree, *args: Any
) -> Array:
    r"""$J^\top \Lambda J$ over the n raveled parameters, for small models.

    The Gauss-Newton matrix (see `gauss_newton` for $J$ and $\Lambda$). Where the loss is the
    negative log-likelihood of an exponential family in the outputs, such as cross-entropy in logits
    or half a squared error, it is the Fisher information, labels being averaged over the model's
    own. Costs one gradient for each row and output.

    Args:
        outputs: ``(params, *args) -> array [..., output]``.
        loss: ``array [..., output] -> scalar``, convex: a sum or mean over the rows.
        params: where to measure, a tree.
        *args: the rest of the arguments of ``outputs``, such as a batch.

    Returns:
        A symmetric positive semi-definite matrix [n, n].

    Raises:
        ValueError: the outputs are not an array with an axis of outputs.
    """
    rows = _weighted_jacobian("fisher", outputs, loss, params, *args)
    flat = jax.vmap(lambda row: ravel_pytree(row)[0])(rows)
    return flat.T @ flat


def fisher_diagonal(
    outputs: Callable[..., PyTree], loss: Callable[..., Array], params: PyTree, *args: Any
) -> PyTree:
    """The diagonal of `fisher`, exactly.

    Args:
        outputs: see `fisher`, as are the others.
        loss: convex.
        params: a tree.
        *args: the rest of the arguments of ``outputs``.

    Returns:
        A non-negative tree like ``params``.

    Raises:
        ValueError: the outputs are not an array with an axis of outputs.
    """
    rows = _weighted_jacobian("fisher_diagonal", outputs, loss, params, *args)
    return jax.tree.map(lambda row: jnp.sum(row**2, 0), rows)


def fisher_kronecker(
    outputs: Callable[..., PyTree], loss: Callable[..., Array], params: PyTree, *args: Any
) -> PyTree:
    r"""$L \otimes R / \operatorname{tr} L$ for every array: `fisher`, Kronecker-factored.

    With the rows $J_i$ of $\Lambda^{1/2} J$ as matrices, $L = \sum_i J_i J_i^\top$ and
    $R = \sum_i J_i^\top J_i$. Blocks between arrays are left out. It has the trace of the exact
    block, and is equal to it in a layer whose inputs and slopes are independent of each other;
    elsewhere it is one power iteration towards the nearest Kronecker product. K-FAC takes inputs
    and slopes apart, and needs to know the layer; this does not.

    Args:
        outputs: see `fisher`, as are the others.
        loss: convex.
        params: a tree.
        *args: the rest of the arguments of ``outputs``.

    Returns:
        A tree like ``params`` with a `beliefnav.beliefs.Kronecker` for every array.

    Raises:
        ValueError: the outputs are not an array with an axis of outputs.

    Reference:
        Morwani et al., "A New Perspective on Shampoo's Preconditioner", 2024, arXiv:2406.17748,
        section 3 (the power iteration).
    """
    rows = _weighted_jacobian("fisher_kronecker", outputs, loss, params, *args)

    def leaf(row: Array) -> Kronecker:
        matrices = row.reshape(len(row), *matrix_shape(row.shape[1:]))
        left = jnp.einsum("nij,nkj->ik", matrices, matrices)
        right = jnp.einsum("nij,nik->jk", matrices, matrices)
        total = jnp.trace(left)
        return Kronecker(left, right / jnp.where(total > 0, total, 1))

    return jax.tree.map(leaf, rows)


def _curvature_root(owner: str, loss: Callable[..., Array], values: Any) -> Array:
    r"""$\Lambda^{1/2}$ [..., output, output]: its columns square to the loss's Hessian."""
    if not isinstance(values, jax.Array) or values.ndim == 0:
        raise ValueError(f"{owner}: outputs must return an array [..., output].")
    slope = jax.grad(loss)

    def column(j: Array) -> Array:
        direction = jnp.zeros_like(values).at[..., j].set(1)
        return jax.jvp(slope, (values,), (direction,))[1]

    blocks = jax.vmap(column, out_axes=-1)(jnp.arange(values.shape[-1]))
    blocks = blocks.astype(wide_dtype(blocks.dtype))
    eigenvalues, vectors = jnp.linalg.eigh((blocks + jnp.swapaxes(blocks, -1, -2)) / 2)
    root = vectors * jnp.sqrt(jnp.maximum(eigenvalues, 0))[..., None, :]
    return root.astype(values.dtype)


def _weighted_jacobian(
    owner: str,
    outputs: Callable[..., PyTree],
    loss: Callable[..., Array],
    params: PyTree,
    *args: Any,
) -> PyTree:
    r"""The rows of $\Lambda^{1/2} J$, a tree of arrays [row, ...]."""
    values, pullback = jax.vjp(lambda p: outputs(p, *args), params)
    root = _curvature_root(owner, loss, values)
    size = values.shape[-1]
    roots = root.reshape(-1, size, size)

    def row(index: Array) -> PyTree:
        example, column = index // size, index % size
        flat = jnp.zeros((len(roots), size), values.dtype)
        return pullback(flat.at[example].set(roots[example, :, column]).reshape(values.shape))[0]

    return jax.vmap(row)(jnp.arange(len(roots) * size))


def _signs(key: Array, tree: PyTree) -> PyTree:
    """Independent random signs like the leaves of a tree."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    return treedef.unflatten(
        [jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=False)]
    )
