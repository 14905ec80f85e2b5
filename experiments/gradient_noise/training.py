"""Networks and how they are trained: with Adam, and again with the implied memories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from tqdm import tqdm

from experiments import data as data_sets
from experiments.gradient_noise.config import Config
from experiments.networks import functional, mlp

HIDDEN = (128, 64)
LEARNING_RATES = (3e-4, 1e-3, 3e-3)


class Problem(NamedTuple):
    """A data set, and a network to be trained on it.

    Attributes:
        data: as device arrays; the last tenth of the training examples validates.
        make: ``key -> params``.
        logits: ``(params, inputs) -> logits``.
    """

    data: data_sets.Data
    make: Callable[[Array], Any]
    logits: Callable[[Any, Array], Array]

    @property
    def num_train(self) -> int:
        """Number of examples to train on."""
        return len(self.data.train_labels) * 9 // 10

    def loss(self, params: Any, key: Array, batch_size: int) -> Array:
        """Mean cross-entropy of a random batch, in nats."""
        batch = jax.random.randint(key, (batch_size,), 0, self.num_train)
        logits = self.logits(params, jnp.take(self.data.train_inputs, batch, 0))
        labels = self.data.train_labels[batch]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def train(self, optimizer: Any, batch_size: int, carry: Any, keys: Array) -> Any:
        """Parameters and state of the optimizer after a step with every key."""

        def step(carry: Any, key: Array) -> tuple[Any, None]:
            params, opt_state = carry
            gradient = jax.grad(self.loss)(params, key, batch_size)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return lax.scan(step, carry, keys)[0]

    def accuracies(self, params: Any) -> tuple[Array, Array]:
        """Fractions of the validation and of the test examples that are classified correctly."""
        inputs, labels = jnp.asarray(self.data.train_inputs), jnp.asarray(self.data.train_labels)
        start = self.num_train
        validation = self.logits(params, inputs[start:]).argmax(-1) == labels[start:]
        test = self.logits(params, jnp.asarray(self.data.test_inputs)).argmax(-1)
        test = test == jnp.asarray(self.data.test_labels)
        return validation.mean(), test.mean()


def make_problem(name: str, folder: Path | None) -> Problem:
    """Load a data set, and describe the network for it."""
    arrays = data_sets.load(name, folder)
    make, logits = functional(lambda key: mlp(arrays.input_shape, arrays.num_classes, key, HIDDEN))
    return Problem(jax.tree.map(jnp.asarray, arrays), make, logits)


class Retrained(NamedTuple):
    """How a setting trained.

    Attributes:
        memories: layer -> the two memories.
        validation: learning rate -> mean accuracy over seeds.
        test: learning rate -> accuracies [seed].
    """

    memories: dict[str, tuple[float, float]]
    validation: dict[float, float]
    test: dict[float, np.ndarray]

    @property
    def learning_rate(self) -> float:
        """That of the best validation accuracy."""
        return max(self.validation, key=lambda rate: self.validation[rate])

    @property
    def accuracy(self) -> float:
        """Mean test accuracy at that learning rate."""
        return float(self.test[self.learning_rate].mean())


def train_again(
    config: Config,
    name: str,
    problem: Problem,
    settings: dict[str, dict[str, tuple[float, float]]],
) -> dict[str, Retrained]:
    """Train networks with every setting, for all learning rates and seeds side by side.

    A bias has the memories of the weights of its layer, a layer that was not asked those of Adam.
    """
    num_steps = 3 * config.steps
    num_seeds = 1 if config.quick else config.seeds
    params = jax.eval_shape(problem.make, jax.random.key(0))
    paths = jax.tree.leaves_with_path(params)
    layers = [jax.tree_util.keystr(path[:-1], simple=True, separator="/") for path, _ in paths]
    labels = jax.tree.unflatten(jax.tree.structure(params), layers)

    def train(
        memories: dict[str, tuple[float, float]], learning_rate: Array, key: Array
    ) -> tuple[Array, Array]:
        transforms: dict[Any, Any] = {
            layer: optax.adam(learning_rate, *memories.get(f"{layer}/weight", (0.9, 0.999)))
            for layer in layers
        }
        optimizer = optax.partition(transforms, lambda _: labels)
        key_init, key_batches = jax.random.split(key)
        params = problem.make(key_init)
        start = params, optimizer.init(params)
        keys = jax.random.split(key_batches, num_steps)
        return problem.accuracies(problem.train(optimizer, config.batch_size, start, keys)[0])

    keys = jax.random.split(jax.random.key(config.seed + 1), num_seeds)
    results = {}
    run_all = jax.jit(jax.vmap(jax.vmap(train, (None, None, 0)), (None, 0, None)))
    for setting, memories in tqdm(settings.items(), desc=f"again on {name}"):
        validation, test = run_all(memories, jnp.asarray(LEARNING_RATES), keys)
        results[setting] = Retrained(
            memories,
            dict(zip(LEARNING_RATES, np.asarray(validation.mean(1)).tolist(), strict=True)),
            dict(zip(LEARNING_RATES, np.asarray(test), strict=True)),
        )
    return results
