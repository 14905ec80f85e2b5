r"""Recordings of networks that learn: gradients, displacements, and what a step did to a gradient.

At every step the gradient $y_t$ of a batch is taken at $\theta_t$, and once more of the same batch
at $\theta_{t+1}$: the difference is what the curvature did, without the noise of batches.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from beliefnav import rules
from experiments import data as data_sets
from experiments.kept import Kept
from experiments.networks import mlp
from experiments.tasks import images
from experiments.tasks.task import Task

RATE = 1e-3
"""The learning rate of Adam in training that is recorded."""
STAGES = ("early", "middle", "late")
WARM_UP = 20
"""Readings of a stage from which scores take their first scale, and which are not scored."""


def fashion_mlp() -> Task:
    """12,000 images of clothes, and a perceptron with layers of 128 and 64, as for the digits."""
    parts = images.split(data_sets.load("fashion_mnist"), train=12000, validation=2000, test=4000)
    network = functools.partial(mlp, hidden=(128, 64))
    return images.classification(parts, network, steps=1500, batch=64)


DATA: dict[str, Callable[[], Task]] = {"digits": images.digits_mlp, "fashion_mnist": fashion_mlp}
"""What is recorded, by the name of the data."""


class Stream(NamedTuple):
    r"""What was recorded of a few coordinates.

    Attributes:
        gradient: $y_t$ [network, step, coordinate].
        displacement: $\theta_{t+1} - \theta_t$ [network, step, coordinate].
        change: of the gradient of the same batch over it [network, step, coordinate].
    """

    gradient: np.ndarray
    displacement: np.ndarray
    change: np.ndarray

    def stage(self, number: int) -> slice:
        """The steps of a stage."""
        length = self.gradient.shape[1] // (2 * len(STAGES) - 1)
        return slice(2 * number * length, (2 * number + 1) * length)


def recorded(
    kept: Kept, name: str, task: Task, steps: int, coordinates: int, networks: int, seed: int
) -> Stream:
    """The recordings of a task, from a file if they are there.

    Args:
        kept: where results are kept.
        name: of the data or the task.
        task: what is learned.
        steps: of the recording.
        coordinates: of every array.
        networks: how many are recorded.
        seed: of all keys.
    """
    options = {"name": name, "steps": steps, "coordinates": coordinates}
    options |= {"networks": networks, "seed": seed, "rate": RATE}
    keys = jax.random.split(jax.random.key(seed), networks)

    def compute() -> dict[str, Any]:
        run = jax.jit(jax.vmap(lambda key: record(task, steps, coordinates, key)))
        return dict(zip(Stream._fields, run(keys), strict=True))

    found = kept.measure(f"stream_{name}", options, compute)
    return Stream(*(np.asarray(found[field], np.float32) for field in Stream._fields))


def record(task: Task, steps: int, coordinates: int, key: Array) -> tuple[Array, Array, Array]:
    """Train a network with Adam; the fields of `Stream` of one network, [step, coordinate]."""
    key_start, key_batches, key_chosen = jax.random.split(key, 3)
    params, optimizer = task.init(key_start), rules.adam(RATE)
    keys = jax.random.split(key_chosen, len(jax.tree.leaves(params)))
    chosen = [
        jax.random.permutation(k, leaf.size)[:coordinates]
        for k, leaf in zip(keys, jax.tree.leaves(params), strict=True)
    ]

    def pick(tree: Any) -> Array:
        pairs = zip(jax.tree.leaves(tree), chosen, strict=True)
        return jnp.concatenate([leaf.ravel()[places] for leaf, places in pairs])

    def step(carry: Any, key: Array) -> tuple[Any, tuple[Array, Array, Array]]:
        params, state = carry
        gradient = jax.grad(task.loss)(params, key)
        updates, state = optimizer.update(gradient, state, params)
        after = optax.apply_updates(params, updates)
        again = jax.grad(task.loss)(after, key)
        moved, changed = pick(after) - pick(params), pick(again) - pick(gradient)
        return (after, state), (pick(gradient), moved, changed)

    carry = params, optimizer.init(params)
    return lax.scan(step, carry, jax.random.split(key_batches, steps))[1]
