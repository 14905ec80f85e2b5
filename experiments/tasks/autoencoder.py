"""A task without labels: digits through a bottleneck."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from experiments import data as data_sets
from experiments.networks import functional
from experiments.tasks.images import split
from experiments.tasks.task import Score, Task

BATCH = 64


def digits_autoencoder() -> Task:
    """8x8 digits, 1,150 to train on, through layers of 64, 8 and 64 with tanh, and linear ends.

    The loss is that of a Gaussian of unit variance around the reconstruction, half the squared
    error of an image, in nats but for a constant. The mean squared error of a pixel, in units of
    the variance of all pixels, stands in place of the share of errors.
    """
    digits = split(data_sets.load("digits"), train=1150, validation=287, test=360)
    images = {name: part.inputs.reshape(len(part.inputs), -1) for name, part in digits.items()}
    train = images["train"]
    init, reconstructed = functional(lambda key: perceptron(train.shape[1], key))

    def squared_error(params: Any, images: Array) -> Array:
        return jnp.mean(jnp.sum((reconstructed(params, images) - images) ** 2, 1))

    def loss(params: Any, key: Array) -> Array:
        drawn = train[jax.random.randint(key, (BATCH,), 0, len(train))]
        return squared_error(params, drawn) / 2

    def score(params: Any, split: str) -> Score:
        found = squared_error(params, images[split])
        return Score(found / train.shape[1], found / 2)

    return Task(init, loss, score, steps=1000, batch=BATCH)


def perceptron(size: int, key: Array) -> eqx.nn.Sequential:
    """From so many pixels to 8 numbers, and back."""
    widths, keys, tanh = (size, 64, 8, 64, size), jax.random.split(key, 4), eqx.nn.Lambda(jnp.tanh)
    layers: list[Any] = [eqx.nn.Linear(widths[i], widths[i + 1], key=keys[i]) for i in range(4)]
    return eqx.nn.Sequential([layers[0], tanh, layers[1], layers[2], tanh, layers[3]])
