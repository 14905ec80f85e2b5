"""Streams of tasks. Nobody tells the learner where one ends, except those that are told."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments import data as data_sets


class Task(NamedTuple):
    """What is to be learned, and what is asked at the end.

    Attributes:
        inputs: [example, ...].
        targets: [example], integers for classes.
        test_inputs: [test example, ...]; where there is nothing to generalise to, the same.
        test_targets: [test example].
    """

    inputs: Array
    targets: Array
    test_inputs: Array
    test_targets: Array


class Stream(NamedTuple):
    """A stream of tasks.

    Attributes:
        draw: ``(key of the stream, position of the task) -> Task``.
        lengths: steps of every task.
        examples: number of examples of a task.
        shape: of an input.
        outputs: of the network: classes, or 1 for a number.
        network: one of `network.NETWORKS`, or MODULE:NAME.
        batch_size: examples a step.
    """

    draw: Callable[[Array, Array], Task]
    lengths: tuple[int, ...]
    examples: int
    shape: tuple[int, ...]
    outputs: int = 10
    network: str = "mlp"
    batch_size: int = 16

    @property
    def chunk(self) -> int:
        """Steps that are compiled together: every task is some of these."""
        return math.gcd(*self.lengths)

    @property
    def classifies(self) -> bool:
        """Whether scores are accuracies, of which more is better, and not square errors."""
        return self.outputs > 1

    def shortened(self, tasks: int | None) -> "Stream":
        """The first tasks, so many at most."""
        return self._replace(lengths=self.lengths[:tasks])


def random_labels(folder: Path | None) -> Stream:
    """320 digits, whose labels are drawn anew in every task: nothing to generalise from."""
    return _random_labels(folder, 40 * (800,))


def unequal_lengths(folder: Path | None) -> Stream:
    """The same, with tasks of 200, 400, 800, 1,600 and 3,200 steps in a mixed order."""
    order, rng = (200, 400, 800, 1600, 3200), np.random.default_rng(0)
    return _random_labels(folder, tuple(int(n) for _ in range(4) for n in rng.permutation(order)))


def _random_labels(folder: Path | None, lengths: tuple[int, ...]) -> Stream:
    inputs = _flat(data_sets.load("digits", folder)).inputs[:320]

    def draw(stream: Array, index: Array) -> Task:
        labels = jax.random.randint(jax.random.fold_in(stream, index), (320,), 0, 10)
        return Task(inputs, labels, inputs, labels)

    return Stream(draw, lengths, 320, (64,))


def permuted_pixels(folder: Path | None) -> Stream:
    """Digits whose pixels change places in every task."""
    data = _flat(data_sets.load("digits", folder))

    def draw(stream: Array, index: Array) -> Task:
        order = jax.random.permutation(jax.random.fold_in(stream, index), 64)
        return data._replace(inputs=data.inputs[:, order], test_inputs=data.test_inputs[:, order])

    return Stream(draw, 30 * (445,), len(data.inputs), (64,))


def one_task(folder: Path | None) -> Stream:
    """Ordinary digits, one task: what does it cost to expect switches where there are none?"""
    data = _flat(data_sets.load("digits", folder))
    return Stream(lambda stream, index: data, (3560,), len(data.inputs), (64,))


def one_task_mnist1d(folder: Path | None) -> Stream:
    """Signals of mnist1d, one task."""
    data = _flat(data_sets.load("mnist1d", folder))
    return Stream(lambda stream, index: data, (4000,), len(data.inputs), (40,))


def permuted_labels(folder: Path | None) -> Stream:
    """Digits whose classes change names in every task."""
    data = _flat(data_sets.load("digits", folder))
    return Stream(_named(data, _permuted), 30 * (445,), len(data.inputs), (64,))


def two_swap(folder: Path | None) -> Stream:
    """Digits of which two classes swap names with every task."""

    def names(stream: Array, index: Array) -> Array:
        def swapped(t: Array, names: Array) -> Array:
            pair = jax.random.choice(jax.random.fold_in(stream, t), 10, (2,), replace=False)
            return names.at[pair].set(names[pair[::-1]])

        return lax.fori_loop(1, index + 1, swapped, jnp.arange(10))

    data = _flat(data_sets.load("digits", folder))
    return Stream(_named(data, names), 30 * (445,), len(data.inputs), (64,))


def recurring(folder: Path | None) -> Stream:
    """Digits whose classes have three sets of names, one after the other, again and again."""

    def names(stream: Array, index: Array) -> Array:
        return _permuted(stream, index % 3)

    data = _flat(data_sets.load("digits", folder))
    return Stream(_named(data, names), 30 * (445,), len(data.inputs), (64,))


def fashion_cnn(folder: Path | None) -> Stream:
    """1,600 images of clothes, 14x14, whose classes change names; a convolutional network."""
    data = data_sets.load("fashion_mnist", folder)
    halved = [
        x.reshape(-1, 14, 2, 14, 2).mean((2, 4))
        for x in (data.train_inputs[:1600], data.test_inputs[:1000])
    ]
    arrays = halved[0], data.train_labels[:1600], halved[1], data.test_labels[:1000]
    draw = _named(Task(*map(jnp.asarray, arrays)), _permuted)
    return Stream(draw, 20 * (500,), 1600, (14, 14), network="cnn")


def drift(folder: Path | None) -> Stream:
    """Bits, of which one of the first 15 flips every 200 steps; the function of them stays.

    The target is a fixed random network of 100 threshold units; the learner has 5 ReLU, too few to
    be right everywhere, so that it has to go on learning (Dohare et al., 2024).
    """
    del folder
    bits, slow, units, examples, tasks = 20, 15, 100, 320, 60

    def target(key: Array, inputs: Array) -> Array:
        key_weights, key_outputs = jax.random.split(key)
        weights = jax.random.rademacher(key_weights, (units, bits + 1), jnp.float32)
        ones = jnp.ones((len(inputs), 1))
        threshold = 0.7 * (bits + 1) - jnp.sum(weights == -1, 1)
        fired = jnp.concatenate([inputs, ones], 1) @ weights.T > threshold[None]
        outputs = jax.random.rademacher(key_outputs, (units,), jnp.float32)
        return (fired @ outputs) / jnp.sqrt(units)

    def draw(stream: Array, index: Array) -> Task:
        key_start, key_flips, key_fast = jax.random.split(stream, 3)
        flips = jax.random.randint(key_flips, (tasks,), 0, slow)
        flipped = jnp.sum((jnp.arange(tasks) < index)[:, None] * jax.nn.one_hot(flips, slow), 0)
        state = (jax.random.bernoulli(key_start, 0.5, (slow,)) + flipped) % 2
        fast = jax.random.bernoulli(
            jax.random.fold_in(key_fast, index), 0.5, (examples, bits - slow)
        )
        fixed = jnp.broadcast_to(state[None], (examples, slow))
        inputs = jnp.concatenate([fixed, fast], 1).astype(jnp.float32)
        targets = target(stream, inputs)
        return Task(inputs, targets, inputs, targets)

    return Stream(draw, tasks * (200,), examples, (bits,), outputs=1, network="five_units")


DEVELOPMENT = ("random_labels", "permuted_pixels", "one_task")
"""The streams on which the one rule and the one setting of every method are chosen."""

STREAMS: Mapping[str, Callable[[Path | None], Stream]] = {
    "random_labels": random_labels,
    "permuted_pixels": permuted_pixels,
    "one_task": one_task,
    "permuted_labels": permuted_labels,
    "two_swap": two_swap,
    "recurring": recurring,
    "unequal_lengths": unequal_lengths,
    "drift": drift,
    "fashion_cnn": fashion_cnn,
    "one_task_mnist1d": one_task_mnist1d,
}
"""Name -> ``folder of fashion_mnist, or None -> stream``."""


def _permuted(stream: Array, index: Array) -> Array:
    """New names of ten classes."""
    return jax.random.permutation(jax.random.fold_in(stream, index), 10)


def _named(data: Task, names: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Task]:
    """Tasks whose classes have names of their own."""

    def draw(stream: Array, index: Array) -> Task:
        named = names(stream, index).astype(jnp.int32)
        return data._replace(targets=named[data.targets], test_targets=named[data.test_targets])

    return draw


def _flat(data: data_sets.Data) -> Task:
    inputs, tests = (x.reshape(len(x), -1) for x in (data.train_inputs, data.test_inputs))
    arrays = inputs, data.train_labels, tests, data.test_labels
    return Task(*(jnp.asarray(x) for x in arrays))
