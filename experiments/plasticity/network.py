"""The network that learns: a multi-layer perceptron whose hidden units can be looked at."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

Params = Any
"""A tuple of ``equinox.nn.Linear``, which start uniform within 1/sqrt(number of inputs) of 0."""


def init(widths: tuple[int, ...], key: Array) -> Params:
    """The initial network."""
    keys = jax.random.split(key, len(widths) - 1)
    pairs = zip(widths[:-1], widths[1:], keys, strict=True)
    return tuple(eqx.nn.Linear(n, m, key=k) for n, m, k in pairs)


def forward(
    params: Params, inputs: Array, shifts: tuple[Array, ...] | None = None
) -> tuple[Array, list[Array]]:
    """Outputs [example, output], and the inputs [example, unit] of every layer.

    Args:
        params: the layers.
        inputs: [example, input].
        shifts: added to what each layer puts out, before ReLU.
    """
    x, seen = inputs, []
    for i, layer in enumerate(params):
        seen.append(x)
        x = x @ layer.weight.T + layer.bias[None]
        x = x if shifts is None else x + shifts[i]
        x = x if i == len(params) - 1 else jax.nn.relu(x)
    return x, seen


def example_losses(outputs: Array, targets: Array) -> Array:
    """Negative log-likelihood of each example in nats, up to a constant.

    Classes are integers; numbers are seen through Gaussian noise of variance 1.
    """
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    return (outputs[:, 0] - targets) ** 2 / 2


def score(outputs: Array, targets: Array) -> Array:
    """Fraction of classes that are right, or mean square error."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return jnp.mean(outputs.argmax(-1) == targets)
    return jnp.mean((outputs[:, 0] - targets) ** 2)


def loss(params: Params, inputs: Array, targets: Array) -> Array:
    """Mean over examples."""
    return jnp.mean(example_losses(forward(params, inputs)[0], targets))


def mean_square_gradient(params: Params, inputs: Array, targets: Array) -> Params:
    r"""The mean over examples of the squared gradient of each, for the price of two gradients.

    That of a weight is a product, of the slope $\delta_i$ of the loss at what the layer puts out
    and of its input $a_i$, so that $\sum_i (\delta_i a_i)^2$ is a product of two matrices.
    """
    zeros = tuple(jnp.zeros((len(inputs), layer.bias.size)) for layer in params)

    def total(shifts: tuple[Array, ...]) -> tuple[Array, list[Array]]:
        outputs, seen = forward(params, inputs, shifts)
        return jnp.sum(example_losses(outputs, targets)), seen

    slopes, seen = jax.grad(total, has_aux=True)(zeros)
    squares = [
        (slope.T**2 @ x**2 / len(inputs), jnp.mean(slope**2, 0))
        for slope, x in zip(slopes, seen, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), [x for pair in squares for x in pair])


def replace(params: Params, weights: Any, biases: Any) -> Params:
    """The same layers with other weights and biases."""
    return eqx.tree_at(
        lambda p: [x for layer in p for x in (layer.weight, layer.bias)],
        params,
        [x for pair in zip(weights, biases, strict=True) for x in pair],
    )
