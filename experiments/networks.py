"""The networks of the image experiments, sized to their inputs."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

LARGE = 28 * 28
"""Number of inputs from which on the networks have their full size."""


def mlp(
    input_shape: tuple[int, ...],
    num_classes: int,
    key: Array,
    hidden: tuple[int, ...] | None = None,
) -> eqx.nn.Sequential:
    """Multi-layer perceptron with ReLU: 512-256, or 128-64 for inputs smaller than 28x28.

    Args:
        input_shape: shape of one input.
        num_classes: number of outputs.
        key: random key of the initial weights.
        hidden: other widths of the hidden layers.

    Returns:
        A module from one input to logits.
    """
    size = math.prod(input_shape)
    hidden = hidden or ((512, 256) if size >= LARGE else (128, 64))
    widths = (size, *hidden, num_classes)
    keys = jax.random.split(key, len(widths) - 1)
    layers: list[Any] = [eqx.nn.Lambda(jnp.ravel)]
    for i, k in enumerate(keys):
        layers.append(eqx.nn.Linear(widths[i], widths[i + 1], key=k))
        layers.append(eqx.nn.Lambda(jax.nn.relu))
    return eqx.nn.Sequential(layers[:-1])


def cnn(input_shape: tuple[int, ...], num_classes: int, key: Array) -> eqx.nn.Sequential:
    """Convolutional network: 64-64-pool-128-128-pool-256, or a quarter of it for small inputs.

    Convolutions have width 3 and ReLU, pooling takes the maximum of 2; one- and two-dimensional
    inputs alike.

    Args:
        input_shape: shape of one input, without a channel.
        num_classes: number of outputs.
        key: random key of the initial weights.

    Returns:
        A module from one input to logits.
    """
    dims = len(input_shape)
    scale = 1 if math.prod(input_shape) >= LARGE else 4
    keys = iter(jax.random.split(key, 6))
    layers: list[Any] = [eqx.nn.Lambda(_add_channel)]
    channels = 1
    for width in (64 // scale, 128 // scale):
        for _ in range(2):
            layers.append(eqx.nn.Conv(dims, channels, width, 3, padding=1, key=next(keys)))
            layers.append(eqx.nn.Lambda(jax.nn.relu))
            channels = width
        layers.append(eqx.nn.Pool(0.0, jnp.maximum, dims, 2, 2))
    flat, hidden = channels * math.prod(n // 4 for n in input_shape), 256 // scale
    layers += [
        eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(flat, hidden, key=next(keys)),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Linear(hidden, num_classes, key=next(keys)),
    ]
    return eqx.nn.Sequential(layers)


NETWORKS = {"mlp": mlp, "cnn": cnn}


def functional(
    make: Callable[[Array], eqx.Module],
) -> tuple[Callable[[Array], Any], Callable[[Any, Array], Array]]:
    """A network as two pure functions of its parameters.

    Args:
        make: ``key -> network``.

    Returns:
        ``key -> params``, and ``(params, inputs) -> logits`` of inputs with a batch axis.
    """
    abstract = eqx.filter_eval_shape(make, jax.random.key(0))
    static = eqx.filter(abstract, lambda x: not isinstance(x, jax.ShapeDtypeStruct))

    def init(key: Array) -> Any:
        return eqx.filter(make(key), eqx.is_inexact_array)

    def logits(params: Any, inputs: Array) -> Array:
        return jax.vmap(eqx.combine(params, static))(inputs)

    return init, logits


def _add_channel(x: Array) -> Array:
    return x[None]
