"""The task of which everything is known: a quadratic whose gradients are noisy."""

import jax
import jax.numpy as jnp
from jax import Array

from experiments.tasks.task import Score, Task

SIZE = 200
STEPS = 300


def noisy_quadratic() -> Task:
    r"""Curvatures $h_i = 1/i$, gradients with noise of variance $h_i$, a start of variance 1.

    The loss is $\tfrac12 \sum h_i \theta_i^2$ and a linear term without mean, which is the noise.
    The score is the loss without that, in place of the share of errors too, and the same on all
    splits: nothing is left to generalise.
    """
    curvature = 1 / jnp.arange(1.0, SIZE + 1)

    def init(key: Array) -> Array:
        return jax.random.normal(key, (SIZE,))

    def excess(params: Array) -> Array:
        return jnp.sum(curvature * params**2) / 2

    def loss(params: Array, key: Array) -> Array:
        noise = jnp.sqrt(curvature) * jax.random.normal(key, (SIZE,))
        return excess(params) + jnp.sum(noise * params)

    def score(params: Array, split: str) -> Score:
        del split
        return Score(excess(params), excess(params))

    return Task(init, loss, score, STEPS, batch=1)
