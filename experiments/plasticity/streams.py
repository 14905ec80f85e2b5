"""Streams of tasks. Nobody tells the learner where one ends, except those that are told."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from experiments import data as data_sets


class Task(NamedTuple):
    """What is to be learned, and what is asked at the end.

    Attributes:
        inputs: [example, input].
        targets: [example], integers for classes.
        test_inputs: [test example, input]; where there is nothing to generalise to, the same.
        test_targets: [test example].
    """

    inputs: Array
    targets: Array
    test_inputs: Array
    test_targets: Array


class Stream(NamedTuple):
    """A stream of tasks of equal length.

    Attributes:
        draw: ``(key of the stream, key of the task) -> Task``.
        tasks: number of tasks.
        epochs: passes through the examples of a task.
        examples: number of examples of a task.
        widths: of the network, from inputs to outputs.
        batch_size: examples a step.
    """

    draw: Callable[[Array, Array], Task]
    tasks: int
    epochs: int
    examples: int
    widths: tuple[int, ...]
    batch_size: int = 16

    @property
    def steps(self) -> int:
        """Steps a task."""
        return self.epochs * (self.examples // self.batch_size)

    @property
    def classifies(self) -> bool:
        """Whether scores are accuracies, of which more is better, and not square errors."""
        return self.widths[-1] > 1


HIDDEN = (64, 64)


def random_labels(folder: Path | None) -> Stream:
    """320 digits, whose labels are drawn anew in every task: nothing to generalise from."""
    inputs = _flat(data_sets.load("digits", folder)).inputs[:320]

    def draw(stream: Array, key: Array) -> Task:
        del stream
        labels = jax.random.randint(key, (320,), 0, 10)
        return Task(inputs, labels, inputs, labels)

    return Stream(draw, tasks=40, epochs=40, examples=320, widths=(64, *HIDDEN, 10))


def permuted_labels(folder: Path | None, name: str = "digits", epochs: int = 5) -> Stream:
    """Digits whose classes change names in every task."""
    data = _flat(data_sets.load(name, folder))

    def draw(stream: Array, key: Array) -> Task:
        del stream
        names = jax.random.permutation(key, 10).astype(jnp.int32)
        labels, test_labels = names[data.targets], names[data.test_targets]
        return Task(data.inputs, labels, data.test_inputs, test_labels)

    return _stream(data, draw, tasks=30, epochs=epochs)


def permuted_pixels(
    folder: Path | None, name: str = "digits", tasks: int = 30, epochs: int = 5, num: int = 1437
) -> Stream:
    """Digits whose pixels change places in every task."""
    data = jax.tree.map(lambda x: x[:num], _flat(data_sets.load(name, folder)))

    def draw(stream: Array, key: Array) -> Task:
        del stream
        order = jax.random.permutation(key, data.inputs.shape[1])
        return data._replace(inputs=data.inputs[:, order], test_inputs=data.test_inputs[:, order])

    return _stream(data, draw, tasks, epochs)


def permuted_pixels_fashion(folder: Path | None) -> Stream:
    """1,600 images of clothes whose pixels change places in every task."""
    return permuted_pixels(folder, "fashion_mnist", tasks=12, epochs=3, num=1600)


def slow_regression(folder: Path | None) -> Stream:
    """Bits, 15 of 20 of which are drawn anew in every task; the function of them stays.

    The target is a fixed random network of 100 threshold units; the learner has 5 ReLU, too few to
    be right everywhere, so that it has to go on learning (Dohare et al., 2024).
    """
    del folder
    bits, slow, units, examples = 20, 15, 100, 320

    def target(key: Array, inputs: Array) -> Array:
        key_weights, key_outputs = jax.random.split(key)
        weights = jax.random.rademacher(key_weights, (units, bits + 1), jnp.float32)
        ones = jnp.ones((len(inputs), 1))
        negative = jnp.sum(weights == -1, 1)
        threshold = 0.7 * (bits + 1) - negative
        fired = jnp.concatenate([inputs, ones], 1) @ weights.T > threshold[None]
        outputs = jax.random.rademacher(key_outputs, (units,), jnp.float32)
        return (fired @ outputs) / jnp.sqrt(units)

    def draw(stream: Array, key: Array) -> Task:
        key_slow, key_fast = jax.random.split(key)
        fixed = jax.random.bernoulli(key_slow, 0.5, (1, slow))
        fast = jax.random.bernoulli(key_fast, 0.5, (examples, bits - slow))
        inputs = jnp.concatenate([jnp.broadcast_to(fixed, (examples, slow)), fast], 1)
        inputs = inputs.astype(jnp.float32)
        targets = target(stream, inputs)
        return Task(inputs, targets, inputs, targets)

    return Stream(draw, tasks=60, epochs=25, examples=examples, widths=(bits, 5, 1))


def mnist1d(folder: Path | None) -> Stream:
    """Signals of mnist1d whose classes change names in every task."""
    return permuted_labels(folder, "mnist1d", epochs=2)


def stationary(folder: Path | None) -> Stream:
    """Ordinary digits, one task: what does it cost to expect switches where there are none?"""
    data = _flat(data_sets.load("digits", folder))

    def draw(stream: Array, key: Array) -> Task:
        del stream, key
        return data

    return _stream(data, draw, tasks=1, epochs=40)


STREAMS: dict[str, Callable[[Path | None], Stream]] = {
    "random_labels": random_labels,
    "permuted_labels": permuted_labels,
    "permuted_pixels": permuted_pixels,
    "permuted_pixels_fashion": permuted_pixels_fashion,
    "slow_regression": slow_regression,
    "mnist1d": mnist1d,
    "stationary": stationary,
}


def _stream(data: Task, draw: Callable[[Array, Array], Task], tasks: int, epochs: int) -> Stream:
    examples, size = data.inputs.shape
    return Stream(draw, tasks, epochs, examples, (size, *HIDDEN, 10))


def _flat(data: data_sets.Data) -> Task:
    inputs, tests = (x.reshape(len(x), -1) for x in (data.train_inputs, data.test_inputs))
    arrays = inputs, data.train_labels, tests, data.test_labels
    return Task(*(jnp.asarray(x) for x in arrays))
