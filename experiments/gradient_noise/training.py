"""Networks that are trained again, with the implied memories."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from experiments.gradient_noise.config import Config
from experiments.training import Problem, train

HIDDEN = (128, 64)
LEARNING_RATES = (3e-4, 1e-3, 3e-3)


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
    params = jax.eval_shape(problem.make, jax.random.key(0))
    paths = jax.tree.leaves_with_path(params)
    layers = [jax.tree_util.keystr(path[:-1], simple=True, separator="/") for path, _ in paths]
    labels = jax.tree.unflatten(jax.tree.structure(params), layers)

    def one(
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
        keys = jax.random.split(key_batches, 3 * config.stage_steps)
        batches = problem.batches(keys, config.batch_size)
        params = train(problem.loss, optimizer, start, batches)[0][0]
        return problem.validation_accuracy(params), problem.test_accuracy(params)

    keys = jax.random.split(jax.random.key(config.seed + 1), config.seeds)
    results = {}
    run_all = jax.jit(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)))
    for setting, memories in tqdm(settings.items(), desc=f"again on {name}"):
        validation, test = run_all(memories, jnp.asarray(LEARNING_RATES), keys)
        results[setting] = Retrained(
            memories,
            dict(zip(LEARNING_RATES, np.asarray(validation.mean(1)).tolist(), strict=True)),
            dict(zip(LEARNING_RATES, np.asarray(test), strict=True)),
        )
    return results
