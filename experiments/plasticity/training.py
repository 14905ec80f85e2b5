"""A whole stream as one jitted scan, for many settings and seeds side by side."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from experiments.plasticity import network
from experiments.plasticity.methods import Method, Seen, Setup
from experiments.plasticity.network import Params
from experiments.plasticity.streams import Stream, Task


class Lives(NamedTuple):
    """What learners lived through, [..., task] unless it is said.

    Attributes:
        online: the score on every batch before it was learned from, averaged over the task.
        end: the score at the end, on the test examples of the task.
        dead: the share of hidden units that are 0 for all examples.
        rank: the effective rank of the last hidden layer, the exponential of the entropy of its
            singular values, as shares.
        norm: the norm of all parameters.
        distance: their distance from where they started.
        switch_probability: [..., task, step], as the learner believed; 0 of one that does not.
        reset_fraction: [..., task, step], likewise.
        seconds: what a step of one learner took, a number, without compilation.
    """

    online: Any
    end: Any
    dead: Any
    rank: Any
    norm: Any
    distance: Any
    switch_probability: Any
    reset_fraction: Any
    seconds: Any = 0.0


def live(
    stream: Stream, method: Method, settings: dict[str, np.ndarray], seeds: int, key: Array
) -> Lives:
    """Live through a stream with every setting [setting] and every seed: [setting, seed, ...]."""
    keys = jax.random.split(key, seeds)

    def one(settings: dict[str, Array], key: Array) -> Lives:
        return life(stream, method, settings, key)[1]

    run = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    arrays = {name: jnp.asarray(values, jnp.float32) for name, values in settings.items()}
    compiled = run.lower(arrays, keys).compile()
    start = time.perf_counter()
    lives = jax.block_until_ready(compiled(arrays, keys))
    count = seeds * len(next(iter(settings.values()))) * stream.tasks * stream.steps
    seconds = (time.perf_counter() - start) / count
    return jax.tree.map(np.asarray, lives)._replace(seconds=seconds)


def life(stream: Stream, method: Method, settings: Any, key: Array) -> tuple[Any, Lives]:
    """Live through a stream once: parameters and state in the end, and what happened."""
    key_start, key_stream, key_tasks = jax.random.split(key, 3)
    start = network.init(stream.widths, key_start)
    learner = method.make(settings, Setup(start, stream.widths, stream.batch_size, stream.steps))

    def task(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, Lives]:
        index, key = inputs
        key_task, key_batches, key_spare, key_steps = jax.random.split(key, 4)
        now = stream.draw(key_stream, key_task)
        spare = network.init(stream.widths, key_spare)
        keys = jax.random.split(key_steps, stream.steps)
        order = jnp.arange(stream.steps), batches(stream, key_batches), keys

        def step(carry: Any, inputs: tuple[Array, Array, Array]) -> tuple[Any, Any]:
            params, state = carry
            at, batch, key = inputs
            x, y = now.inputs[batch], now.targets[batch]

            def objective(params: Params) -> tuple[Array, Any]:
                outputs, layers = network.forward(params, x)
                return jnp.mean(network.example_losses(outputs, y)), (outputs, layers)

            (value, seen), gradient = jax.value_and_grad(objective, has_aux=True)(params)
            outputs, layers = seen
            total, begins = index * stream.steps + at, (at == 0) & (index > 0)
            observed = Seen(value, gradient, x, y, layers, total, begins, spare, key)
            params, state = learner.update(params, state, observed)
            readings = (
                jnp.asarray(optax.tree.get(state, name, 0.0), jnp.float32)
                for name in ("switch_probability", "reset_fraction")
            )
            return (params, state), (network.score(outputs, y), *readings)

        carry, (online, *readings) = lax.scan(step, carry, order)
        return carry, Lives(online.mean(), *look(carry[0], start, now), *readings)

    order = jnp.arange(stream.tasks), jax.random.split(key_tasks, stream.tasks)
    return lax.scan(task, (start, learner.state), order)


def batches(stream: Stream, key: Array) -> Array:
    """Examples [step, example in batch]: every one once an epoch, but for those left over."""
    each = stream.examples // stream.batch_size

    def epoch(key: Array) -> Array:
        order = jax.random.permutation(key, stream.examples)[: each * stream.batch_size]
        return order.reshape(each, stream.batch_size)

    keys = jax.random.split(key, stream.epochs)
    return jax.vmap(epoch)(keys).reshape(-1, stream.batch_size)


def look(params: Params, start: Params, task: Task) -> tuple[Array, ...]:
    """Score, share of dead units, effective rank, norm and distance from the start."""
    outputs, _ = network.forward(params, task.test_inputs)
    _, layers = network.forward(params, task.inputs)
    dead = jnp.concatenate([jnp.all(x <= 0, 0) for x in layers[1:]])
    moved = jax.tree.map(jnp.subtract, params, start)
    norms = (jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(t))) for t in (params, moved))
    return network.score(outputs, task.test_targets), dead.mean(), rank(layers[-1]), *norms


def rank(features: Array) -> Array:
    """The exponential of the entropy of the singular values (Roy and Vetterli, 2007).

    From their squares, in float32, whose rounding adds a tenth to a rank of 1.
    """
    squares = jnp.linalg.eigvalsh(features.T @ features)
    values = jnp.sqrt(jnp.maximum(squares, 0))
    shares = values / jnp.maximum(values.sum(), jnp.finfo(values.dtype).tiny)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(shares)))
