r"""Second sensors: readings of the diagonal of the Hessian from a loss, for ``update(curvature=)``.

Each is a noisy observation $c = h + N(0, R_c)$ of the curvature of every parameter, for beliefs
that have such a sensor (`beliefnav.ssm.Secant` with a ``curvature_noise_variance``). They cost
between one and two gradients each.

| sensor | unbiased for | noise |
|---|---|---|
| `hutchinson` | the diagonal of the Hessian | $\sum_{j \ne i} H_{ij}^2$, the off-diagonal |
| `gauss_newton` | the diagonal of the Gauss-Newton matrix | non-negative, like a square |
| `paired_gradients` | the diagonal where the loss is separable | that of the batch cancels |
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

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
    if not isinstance(values, jax.Array) or values.ndim == 0:
        raise ValueError("gauss_newton: outputs must return an array [..., output].")
    size = values.shape[-1]
    slope = jax.grad(loss)

    def column(j: Array) -> Array:
        direction = jnp.zeros_like(values).at[..., j].set(1)
        return jax.jvp(slope, (values,), (direction,))[1]

    blocks = jax.vmap(column, out_axes=-1)(jnp.arange(size))  # [..., output, output]
    eigenvalues, vectors = jnp.linalg.eigh((blocks + jnp.swapaxes(blocks, -1, -2)) / 2)
    signs = jax.random.rademacher(key, values.shape, values.dtype)
    weighted = jnp.sqrt(jnp.maximum(eigenvalues, 0)) * signs
    (projected,) = pullback(jnp.squeeze(vectors @ weighted[..., None], -1))
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


def _signs(key: Array, tree: PyTree) -> PyTree:
    """Independent random signs like the leaves of a tree."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    return treedef.unflatten(
        [jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=False)]
    )
