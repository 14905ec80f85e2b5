"""What the belief of the hazard filter is worth for predictions, and a bias that is measured."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav import sample_params
from experiments.plasticity import network
from experiments.plasticity.methods import METHODS
from experiments.plasticity.results import Result
from experiments.plasticity.streams import Stream
from experiments.plasticity.training import batches, life
from experiments.report import interval

DRAWS = 50
BINS = 15


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy, over bins."""
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = (abs(np.sum((confidence - right)[bins == b])) for b in range(BINS))
    return float(sum(gaps) / len(labels))


def predictions(stream: Stream, found: dict[str, Result], seeds: int, key: Array) -> dict[str, Any]:
    """Quality of predictions on the test images after training: by the mean, and by draws.

    Args:
        stream: one task, with a test set.
        found: results of ``adam`` and ``hazard_filter``, for their settings.
        seeds: number of runs.
        key: random key.
    """
    keys = jax.random.split(key, seeds)
    task = stream.draw(key, key)
    labels = np.asarray(task.test_targets)

    def probabilities(params: network.Params) -> Array:
        return jax.nn.softmax(network.forward(params, task.test_inputs)[0])

    def drawn(state: Any, key: Array) -> Array:
        draws = jax.vmap(lambda k: sample_params(state, k))(jax.random.split(key, DRAWS))
        return jax.vmap(probabilities)(draws).mean(0)

    said = {}
    for name in ("adam", "hazard_filter"):
        settings = {k: jnp.float32(v) for k, v in found[name].settings.items()}

        def train(key: Array, name: str = name, settings: Any = settings) -> Any:
            params, state = life(stream, METHODS[name], settings, key)[0]
            averaged = drawn(state, key) if name == "hazard_filter" else probabilities(params)
            return probabilities(params), averaged, biases(stream, params, key)

        at_mean, averaged, ratio = jax.tree.map(np.asarray, jax.jit(jax.vmap(train))(keys))
        said[name] = _quality(at_mean, labels)
        if name == "hazard_filter":
            said[f"{name}, {DRAWS} draws"] = _quality(averaged, labels)
            said["mean_square_batch_over_examples_after"] = interval(ratio)
    starts = jax.vmap(lambda k: network.init(stream.widths, k))(keys)
    before = jax.jit(jax.vmap(lambda p, k: biases(stream, p, k)))(starts, keys)
    said["mean_square_batch_over_examples_before"] = interval(np.asarray(before))
    return said


def biases(stream: Stream, params: network.Params, key: Array) -> Array:
    """Sum over parameters of B times the squared gradient of a batch, over that of examples."""
    task = stream.draw(key, key)

    def both(batch: Array) -> Array:
        seen = task.inputs[batch], task.targets[batch]
        squares = network.mean_square_gradient(params, *seen)
        gradient = jax.grad(network.loss)(params, *seen)
        by_batch = sum(len(batch) * jnp.sum(g**2) for g in jax.tree.leaves(gradient))
        return jnp.stack([by_batch, sum(x.sum() for x in jax.tree.leaves(squares))])

    totals = jax.lax.map(both, batches(stream._replace(epochs=1), key)).sum(0)
    return totals[0] / totals[1]


def _quality(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """Accuracy, negative log-likelihood and calibration error, over seeds."""
    right = probabilities.argmax(-1) == labels
    of_labels = np.take_along_axis(
        probabilities, np.broadcast_to(labels, right.shape)[..., None], -1
    )
    losses = -np.log(np.maximum(of_labels[..., 0], 1e-30)).mean(-1)
    errors = np.array([calibration_error(p, labels) for p in probabilities])
    return {
        "accuracy": interval(right.mean(-1)),
        "nats": interval(losses),
        "calibration_error": interval(errors),
    }
