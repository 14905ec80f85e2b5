"""Methods that replace single hidden units, and the Adam they need, which counts each weight.

A unit of layer $i$ has the weights of its row there, its bias, and those of its columns in the
next, of which there is one for every place that the next layer sees it at (`network.layered`).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.plasticity.network import Params, replace

MATURITY = 100
"""Steps before which continual backprop does not replace a unit."""
DECAY = 0.99


class Moments(NamedTuple):
    """Adam's state, of which every entry has its own count."""

    first: Params
    second: Params
    steps: Params


class Units(NamedTuple):
    """What continual backprop knows of the units of one layer.

    Attributes:
        utility: [unit].
        activation: [unit], the running mean of what the unit puts out.
        age: [unit], in steps.
        due: number of units to be replaced, with fractions.
    """

    utility: Array
    activation: Array
    age: Array
    due: Array


def moments(params: Params) -> Moments:
    """Nothing seen yet."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return Moments(zeros, zeros, zeros)


def units(params: Params) -> list[Units]:
    """New units, for every hidden layer."""
    sizes = [layer.weight.shape[0] for layer in params[:-1]]
    return [Units(jnp.zeros(n), jnp.zeros(n), jnp.zeros(n), jnp.zeros(())) for n in sizes]


def adam(rate: Array, params: Params, state: Moments, gradient: Params) -> tuple[Params, Moments]:
    """A step of Adam."""
    count = jax.tree.map(lambda n: n + 1, state.steps)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, state.second, gradient)

    def step(p: Array, m: Array, v: Array, n: Array) -> Array:
        return p - rate * (m / (1 - 0.9**n)) / (jnp.sqrt(v / (1 - 0.999**n)) + 1e-8)

    return jax.tree.map(step, params, first, second, count), Moments(first, second, count)


def continual_backprop(
    replacement_rate: Array,
    params: Params,
    state: Moments,
    known: list[Units],
    outputs: list[Array],
    key: Array,
) -> tuple[Params, Moments, list[Units]]:
    """Replace mature units of the least utility, at most one a layer and step.

    Args:
        replacement_rate: share of the mature units that is replaced a step.
        params: the layers.
        state: of Adam.
        known: of the units of every hidden layer.
        outputs: of every hidden layer, [example, ..., unit].
        key: random key.
    """
    keys = jax.random.split(key, len(known))
    later = []
    for i, unit in enumerate(known):
        seen = outputs[i].reshape(-1, len(unit.age))
        age = unit.age + 1
        corrected = 1 - DECAY**age
        activation = DECAY * unit.activation + (1 - DECAY) * jnp.mean(seen, 0)
        average = activation / corrected
        outgoing = jnp.mean(jnp.abs(_by_unit(params[i + 1].weight, len(age))), (0, 1))
        incoming = jnp.mean(jnp.abs(params[i].weight), 1)
        use = outgoing * jnp.mean(jnp.abs(seen - average[None]), 0) / (incoming + 1e-12)
        utility = DECAY * unit.utility + (1 - DECAY) * use
        mature = age > MATURITY
        due = unit.due + replacement_rate * jnp.sum(mature)
        now = (due >= 1) & jnp.any(mature)
        worst = jnp.argmin(jnp.where(mature, utility / corrected, jnp.inf))
        chosen = now & (jnp.arange(len(age)) == worst)
        fan_in = params[i].weight.shape[1]
        bound = jnp.sqrt(2.0) * jnp.sqrt(3 / fan_in)
        row = jax.random.uniform(keys[i], (1, fan_in), minval=-bound, maxval=bound)
        params, state = lax.cond(
            now,
            functools.partial(_replace_units, i=i),
            lambda params, state, *_: (params, state),
            *(params, state, chosen, row, average),
        )
        fresh = jnp.where(chosen, 0, jnp.stack([utility, activation, age]))
        later.append(Units._make([*fresh, due - now]))
    return params, state, later


def redo(
    threshold: Array,
    now: Array,
    params: Params,
    state: Moments,
    outputs: list[Array],
    spare: Params,
) -> tuple[Params, Moments]:
    """Draw anew what comes into a unit that puts out little, and cut what goes out."""

    def drawn(params: Params, state: Moments) -> tuple[Params, Moments]:
        for i in range(len(params) - 1):
            size = jnp.mean(jnp.abs(outputs[i].reshape(-1, outputs[i].shape[-1])), 0)
            dormant, nothing = size <= threshold * jnp.mean(size), jnp.zeros_like(size)
            params, state = _replace_units(params, state, dormant, spare[i].weight, nothing, i)
        return params, state

    return lax.cond(now, drawn, lambda *same: same, params, state)


def _by_unit(weight: Array, units: int) -> Array:
    """The weights [output, place, unit] of a layer, by the unit before that they come from."""
    return weight.reshape(len(weight), -1, units)


def _replace_units(
    params: Params, state: Moments, chosen: Array, rows: Array, average: Array, i: int
) -> tuple[Params, Moments]:
    """New weights into some units of layer ``i``, none out of them; the next bias makes up."""

    def cut(tree: Params, rows: Any) -> Params:
        weights = [layer.weight for layer in tree]
        biases: list[Any] = [layer.bias for layer in tree]
        weights[i] = jnp.where(chosen[:, None], rows, weights[i])
        biases[i] = jnp.where(chosen, 0, biases[i])
        column = jnp.tile(chosen, weights[i + 1].shape[1] // len(chosen))
        weights[i + 1] = jnp.where(column[None], 0, weights[i + 1])
        return replace(tree, weights, biases)

    lost = _by_unit(params[i + 1].weight, len(chosen)).sum(1) @ jnp.where(chosen, average, 0)
    params = cut(params, rows)
    biases: list[Any] = [layer.bias for layer in params]
    biases[i + 1] = biases[i + 1] + lost
    params = replace(params, [layer.weight for layer in params], biases)
    return params, Moments(*(cut(tree, 0.0) for tree in state))
