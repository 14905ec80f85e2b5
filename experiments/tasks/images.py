"""Tasks that classify: three data sets, and networks that two processor cores train in seconds."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from experiments import data as data_sets
from experiments.networks import functional, mlp
from experiments.tasks.task import Score, Task
from experiments.training import mean_cross_entropy

BATCH_AXIS = "batch"
CHUNK = 500
"""Examples that are scored at once."""
SCORED = 4000
"""The most examples of a split that are scored, the first ones."""
SEEN = 1000
"""Training examples whose statistics batch normalisation takes to be scored."""


class Part(NamedTuple):
    """Some examples: inputs [example, ...] and labels [example]."""

    inputs: Array
    labels: Array


def digits_mlp() -> Task:
    """8x8 digits, 1,150 to train on, and a perceptron with layers of 128 and 64."""
    parts = split(data_sets.load("digits"), train=1150, validation=287, test=360)
    return classification(parts, mlp, steps=1000, batch=64)


def digits_batch_norm() -> Task:
    """The same digits, and a convolutional network with batch normalisation.

    Its statistics are those of the batch in training. To be scored, parameters get those of `SEEN`
    training examples: weights that were averaged have none of their own.
    """
    parts = split(data_sets.load("digits"), train=1150, validation=287, test=360)
    return classification(
        parts, lambda *given: Convolutional(*given, widths=(16, 32), normal=True), 600, 64
    )


def mnist1d_cnn() -> Task:
    """Signals of length 40, 3,200 to train on, and three convolutions with 25 channels."""
    parts = split(data_sets.load("mnist1d"), train=3200, validation=800, test=1000)
    return classification(
        parts, lambda *given: Convolutional(*given, widths=(25, 25, 25)), 1500, 64
    )


def fashion_cnn() -> Task:
    """12,000 images of clothes, and a convolutional network.

    Raises:
        FileNotFoundError: Fashion-MNIST is not there; the error says how to get it.
    """
    parts = split(data_sets.load("fashion_mnist"), train=12000, validation=2000, test=4000)
    return classification(parts, lambda *given: Convolutional(*given, widths=(8, 16)), 600, 64)


def split(data: data_sets.Data, train: int, validation: int, test: int) -> dict[str, Part]:
    """Parts of so many examples; validation follows on training in the training examples."""
    inputs, labels, test_inputs, test_labels = map(jnp.asarray, data)
    end = train + validation
    return {
        "train": Part(inputs[:train], labels[:train]),
        "validation": Part(inputs[train:end], labels[train:end]),
        "test": Part(test_inputs[:test], test_labels[:test]),
    }


class Convolutional(eqx.Module):
    """Convolutions of width 3 and stride 2 with ReLU, and one linear layer."""

    convolutions: list[eqx.nn.Conv]
    normalisations: list[eqx.nn.BatchNorm]
    linear: eqx.nn.Linear

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        key: Array,
        widths: tuple[int, ...],
        normal: bool = False,
    ) -> None:
        """Draw the weights; ``normal`` normalises over the batch before every ReLU."""
        dims, channels, keys = len(input_shape), 1, jax.random.split(key, len(widths) + 1)
        self.convolutions, self.normalisations = [], []
        for width, key in zip(widths, keys[1:], strict=True):
            self.convolutions.append(eqx.nn.Conv(dims, channels, width, 3, 2, 1, key=key))
            if normal:
                self.normalisations.append(eqx.nn.BatchNorm(width, BATCH_AXIS, mode="ema"))
            channels = width
        flat = channels * math.prod(-(-n // 2 ** len(widths)) for n in input_shape)
        self.linear = eqx.nn.Linear(flat, num_classes, key=keys[0])

    def __call__(self, x: Array, state: eqx.nn.State) -> tuple[Array, eqx.nn.State]:
        """Logits of one input in a batch, and the statistics of that."""
        x = x[None]
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if self.normalisations:
                x, state = self.normalisations[i](x, state)
            x = jax.nn.relu(x)
        return self.linear(x.ravel()), state


def classification(parts: dict[str, Part], network: Any, steps: int, batch: int) -> Task:
    """Draw batches with replacement, and learn by cross-entropy.

    Args:
        parts: split -> examples.
        network: ``(input shape, number of classes, key) -> module``, of one input or of one input
            and an `equinox.nn.State` of statistics.
        steps: of the task.
        batch: examples in a batch.
    """
    train = parts["train"]
    shape, classes = train.inputs.shape[1:], int(train.labels.max()) + 1
    init, logits, logits_of = _functions(lambda key: network(shape, classes, key))

    def loss(params: Any, key: Array) -> Array:
        drawn = jax.random.randint(key, (batch,), 0, len(train.labels))
        return mean_cross_entropy(logits(params, train.inputs[drawn]), train.labels[drawn])

    def score(params: Any, split: str) -> Score:
        inputs, labels = (x[:SCORED] for x in parts[split])
        whole = math.gcd(CHUNK, len(labels)) if len(labels) > CHUNK else len(labels)
        read = logits_of(params, train.inputs[:SEEN])
        chunks = inputs.reshape(-1, whole, *shape)
        found = lax.map(read, chunks).reshape(-1, classes)
        nats = optax.softmax_cross_entropy_with_integer_labels(found, labels)
        return Score(jnp.mean(found.argmax(-1) != labels), nats.mean())

    return Task(init, loss, score, steps, batch)


def _functions(make: Callable[[Array], Any]) -> tuple[Any, Any, Any]:
    """``key -> params``, logits in training, and logits after training.

    The last are ``(params, seen) -> inputs -> logits``, with the statistics of what was seen.
    """
    key = jax.random.key(0)
    if not isinstance(eqx.filter_eval_shape(make, key), Convolutional):
        plain_init, plain = functional(make)
        return plain_init, plain, lambda params, seen: lambda inputs: plain(params, inputs)
    model, fresh = eqx.nn.make_with_state(make)(key)
    static = eqx.filter(model, eqx.is_inexact_array, inverse=True)

    def init(key: Array) -> Any:
        return eqx.filter(eqx.nn.make_with_state(make)(key)[0], eqx.is_inexact_array)

    def run(model: Any, inputs: Array, state: Any) -> Any:
        batched = jax.vmap(model, (0, None), (0, None), axis_name=BATCH_AXIS)
        return batched(inputs, state)

    def logits(params: Any, inputs: Array) -> Array:
        return run(eqx.combine(params, static), inputs, fresh)[0]

    def logits_of(params: Any, seen: Array) -> Callable[[Array], Array]:
        model = eqx.combine(params, static)
        state = run(model, seen, fresh)[1] if model.normalisations else fresh
        model = eqx.nn.inference_mode(model)
        return lambda inputs: run(model, inputs, state)[0]

    return init, logits, logits_of
