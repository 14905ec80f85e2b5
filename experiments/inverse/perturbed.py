"""Learners that are not quite of the family: noise of execution, and two from outside of it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from beliefnav._trees import named_leaves
from experiments.inverse.catalogue import KINDS

MEMORIES = (0.9, 0.5)
"""Of a learner whose memory of the gradient changes at half time."""


def noise_of_execution(relative: float, key: Array) -> optax.GradientTransformation:
    """Every entry of a step is off by its own share of it: a factor of mean 1."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        now, later = jax.random.split(state)
        leaves, structure = jax.tree.flatten(updates)
        keys = jax.random.split(now, len(leaves))
        moved = [
            x * (1 + relative * jax.random.normal(k, x.shape, x.dtype))
            for x, k in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(structure, moved), later

    return optax.GradientTransformation(lambda params: key, update)


def flipped(label: str) -> optax.GradientTransformation:
    """One entry, called as in a recording, moves the other way."""
    path, _, position = label.rstrip("]").partition("[")
    at = tuple(int(i) for i in position.split(","))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        leaves, structure = jax.tree.flatten(updates)
        which = [name for name, _ in named_leaves(updates)].index(path)
        leaves[which] = leaves[which].at[at].multiply(-1)
        return jax.tree.unflatten(structure, leaves), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def switching(steps: int) -> optax.GradientTransformation:
    """Adam whose memory of the gradient becomes a fifth at half time: 10 steps, then 2."""
    numbers = KINDS["adam"].numbers
    before, after = MEMORIES

    def memory(count: Any) -> Array:
        return jnp.where(count < steps // 2, before, after)

    return optax.inject_hyperparams(optax.adam)(numbers["rate"], b1=memory, b2=numbers["b2"])
