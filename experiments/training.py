"""Networks on images, and the one loop that trains them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from experiments import data as data_sets
from experiments.networks import NETWORKS, functional


class Problem(NamedTuple):
    """A data set, and a network to be trained on it.

    Attributes:
        data: as device arrays.
        make: ``key -> params``.
        logits: ``(params, inputs) -> logits``.
        num_train: number of examples to train on; those behind them validate.
    """

    data: data_sets.Data
    make: Callable[[Array], Any]
    logits: Callable[[Any, Any], Array]
    num_train: int

    def loss(self, params: Any, batch: Any) -> Array:
        """Mean cross-entropy in nats of some training examples, by their positions."""
        logits = self.logits(params, self.data.train_inputs[batch])
        return mean_cross_entropy(logits, self.data.train_labels[batch])

    def training_loss(self, params: Any) -> Array:
        """Mean cross-entropy in nats of all examples to train on."""
        return self.loss(params, slice(self.num_train))

    def test_accuracy(self, params: Any) -> Array:
        """Fraction of the test examples that are classified correctly."""
        return (
            self.logits(params, self.data.test_inputs).argmax(-1) == self.data.test_labels
        ).mean()

    def validation_accuracy(self, params: Any) -> Array:
        """Fraction of the training examples that are not trained on, likewise."""
        part = slice(self.num_train, None)
        inputs, labels = self.data.train_inputs[part], self.data.train_labels[part]
        return (self.logits(params, inputs).argmax(-1) == labels).mean()

    def batches(self, keys: Array, batch_size: int) -> Array:
        """Positions of examples drawn with replacement, a batch for every key [key, example]."""
        return jax.vmap(lambda key: jax.random.randint(key, (batch_size,), 0, self.num_train))(keys)


def make_problem(
    data: str = "digits",
    network: str = "mlp",
    *,
    hidden: tuple[int, ...] | None = None,
    validation: float = 0.0,
    folder: Path | None = None,
) -> Problem:
    """Load a data set, and describe a network for it.

    Args:
        data: name of the data set.
        network: mlp or cnn.
        hidden: widths of the hidden layers of an mlp, if other than those of its default.
        validation: share of the training examples, the last ones, that are not trained on.
        folder: where the files of ``fashion_mnist`` are, if not in Debian's place.

    Returns:
        The problem.

    Raises:
        FileNotFoundError: the data set is not there; the error says how to get it.
    """
    arrays = data_sets.load(data, folder)
    sizes: dict[str, Any] = {} if hidden is None else {"hidden": hidden}
    make, logits = functional(
        lambda key: NETWORKS[network](arrays.input_shape, arrays.num_classes, key, **sizes)
    )
    num_train = round(len(arrays.train_labels) * (1 - validation))
    return Problem(jax.tree.map(jnp.asarray, arrays), make, logits, num_train)


def train(
    loss: Callable[[Any, Any], Array],
    optimizer: optax.GradientTransformation,
    carry: tuple[Any, ...],
    batches: Any,
    watch: Callable[[Any, Any, Any, Any], Any] = lambda watched, *_: watched,
) -> tuple[tuple[Any, ...], Array]:
    """Take one step for every batch.

    Args:
        loss: ``(params, batch) -> loss``.
        optimizer: what steps.
        carry: parameters, state of the optimizer, and what is watched, if anything is.
        batches: arrays with a batch in every row.
        watch: ``(watched, params, gradient, batch) -> watched``, called before every step.

    Returns:
        The carry after the last step, and the loss before every step [batch].
    """

    def step(carry: tuple[Any, ...], batch: Any) -> tuple[tuple[Any, ...], Array]:
        params, state, *watched = carry
        value, gradient = jax.value_and_grad(loss)(params, batch)
        watched = [watch(seen, params, gradient, batch) for seen in watched]
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state, *watched), value

    return lax.scan(step, carry, batches)


def mean_cross_entropy(logits: Array, labels: Any) -> Array:
    """In nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
