"""The networks that learn: layers that multiply, whose hidden units can be looked at."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

Params = Any
"""Any tree. Of `layered`: ``equinox.nn.Linear``, uniform within 1/sqrt(inputs) of 0 at first."""


class Seen(NamedTuple):
    """What a pass through a layered network shows.

    Attributes:
        outputs: [example, output].
        inputs: of every layer, [example, ..., input]; places of a convolution between the two.
        units: what every hidden layer puts out, behind ReLU, [example, ..., unit].
    """

    outputs: Array
    inputs: list[Array]
    units: list[Array]


class Network(NamedTuple):
    """A network.

    Attributes:
        init: ``key -> params``.
        forward: ``(params, inputs) -> outputs`` [example, output].
        look: ``(params, inputs, shifts) -> Seen``, with shifts added to what each layer puts out,
            before ReLU, if there are any. Methods that replace hidden units need it; ``None`` of a
            network that they cannot be used with.
    """

    init: Callable[[Array], Params]
    forward: Callable[[Params, Array], Array]
    look: Callable[[Params, Array, Sequence[Array] | None], Seen] | None = None


def layered(
    widths: Sequence[tuple[int, int]], prepare: Sequence[Callable[[Array], Array]]
) -> Network:
    """Layers with ReLU between them.

    Args:
        widths: inputs and outputs of every layer.
        prepare: of every layer, from what the one before puts out to its inputs. The unit of the
            layer before that an input comes from is the position of the input, modulo its units.
    """

    def init(key: Array) -> Params:
        keys = jax.random.split(key, len(widths))
        return tuple(eqx.nn.Linear(*pair, key=k) for pair, k in zip(widths, keys, strict=True))

    def look(params: Params, inputs: Array, shifts: Sequence[Array] | None = None) -> Seen:
        x, ins, units = inputs, [], []
        for i, (layer, ready) in enumerate(zip(params, prepare, strict=True)):
            ins.append(ready(x))
            bias = layer.bias.reshape((1,) * (ins[-1].ndim - 1) + (-1,))
            x = ins[-1] @ layer.weight.T + bias
            x = x if shifts is None else x + shifts[i]
            if i < len(widths) - 1:
                x = jax.nn.relu(x)
                units.append(x)
        return Seen(x, ins, units)

    return Network(init, lambda params, inputs: look(params, inputs).outputs, look)


def flat(x: Array) -> Array:
    """One axis of everything but examples."""
    return x.reshape(len(x), -1)


def patches(x: Array, size: int, stride: int) -> Array:
    """The inputs of a convolution, [example, row, column, input], without padding."""
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    shifted = [
        x[:, i : i + stride * rows : stride, j : j + stride * columns : stride][:, :rows, :columns]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(shifted, -1)


def perceptron(shape: tuple[int, ...], outputs: int, hidden: tuple[int, ...]) -> Network:
    """Dense layers."""
    widths = (math.prod(shape), *hidden, outputs)
    same = [lambda x: x] * len(hidden)
    return layered(list(zip(widths[:-1], widths[1:], strict=True)), [flat, *same])


def cnn(shape: tuple[int, ...], outputs: int) -> Network:
    """Convolutions 3x3 of 8 units, stride 2, and of 16 units; dense layers of 64 and of outputs."""
    first, second = (
        functools.partial(patches, size=3, stride=2),
        functools.partial(patches, size=3, stride=1),
    )
    places = math.prod((n - 3) // 2 - 1 for n in shape)
    widths = [(9, 8), (72, 16), (16 * places, 64), (64, outputs)]
    return layered(widths, [lambda x: first(x[..., None]), second, flat, lambda x: x])


NETWORKS: Mapping[str, Callable[[tuple[int, ...], int], Network]] = {
    "mlp": functools.partial(perceptron, hidden=(64, 64)),
    "five_units": functools.partial(perceptron, hidden=(5,)),
    "cnn": cnn,
}
"""Name -> ``(shape of an input, outputs) -> network``."""


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


def loss(network: Network, params: Params, inputs: Array, targets: Array) -> Array:
    """Mean over examples."""
    return jnp.mean(example_losses(network.forward(params, inputs), targets))


def mean_square_gradient(network: Network, params: Params, inputs: Array, targets: Array) -> Params:
    r"""The mean over examples of the squared gradient of each.

    In a layered network for the price of two gradients: that of a weight of a dense layer is a
    product, of the slope $\delta_i$ of the loss at what the layer puts out and of its input $a_i$,
    so that $\sum_i (\delta_i a_i)^2$ is a product of two matrices. A convolution has such a product
    at every place, which are added before they are squared.
    """
    if network.look is None:
        one = jax.grad(lambda p, x, y: loss(network, p, x[None], y[None]))
        each = jax.vmap(one, (None, 0, 0))(params, inputs, targets)
        return jax.tree.map(lambda g: jnp.mean(g**2, 0), each)
    look = network.look
    seen = jax.eval_shape(look, params, inputs, None)
    zeros = [jnp.zeros(x.shape, x.dtype) for x in (*seen.units, seen.outputs)]

    def total(shifts: list[Array]) -> tuple[Array, list[Array]]:
        seen = look(params, inputs, shifts)
        return jnp.sum(example_losses(seen.outputs, targets)), seen.inputs

    slopes, ins = jax.grad(total, has_aux=True)(zeros)

    def squares(slope: Array, x: Array) -> list[Array]:
        if x.ndim == 2:
            return [slope.T**2 @ x**2 / len(inputs), jnp.mean(slope**2, 0)]
        slope, x = (a.reshape(len(a), -1, a.shape[-1]) for a in (slope, x))
        each = jnp.einsum("bpo,bpi->boi", slope, x)
        return [jnp.mean(each**2, 0), jnp.mean(slope.sum(1) ** 2, 0)]

    found = [a for pair in zip(slopes, ins, strict=True) for a in squares(*pair)]
    return jax.tree.unflatten(jax.tree.structure(params), found)


def replace(params: Params, weights: Any, biases: Any) -> Params:
    """The same layers with other weights and biases."""
    return eqx.tree_at(
        lambda p: [x for layer in p for x in (layer.weight, layer.bias)],
        params,
        [x for pair in zip(weights, biases, strict=True) for x in pair],
    )
