"""Streams are lived through, with many settings and seeds side by side."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from experiments.plasticity.methods import Method, Observed, Setup
from experiments.plasticity.network import Network, example_losses, score
from experiments.plasticity.streams import Stream

AT_ONCE = 20
"""Steps from the beginning of a task within which an alarm is not a false one."""
SUSPICION = 0.5
"""Probability of a switch from which on it counts as an alarm."""


class Lives(NamedTuple):
    """What learners lived through.

    Attributes:
        online: [life, task], the score on every batch before it was learned from, on average.
        end: [life, task], the score at the end of the task, on its test examples.
        alarms: [life, task], steps with an alarm among the first of the task.
        false_alarms: [life, task], steps with an alarm among the others.
        seconds: what a step took, a number, without compilation.
    """

    online: Any
    end: Any
    alarms: Any
    false_alarms: Any
    seconds: Any


class Trainer:
    """A method on a stream, compiled once for lives with any settings.

    Lives of one key have the same initial network, tasks and batches, whatever the method.

    Args:
        stream: the stream.
        network: the network that learns it.
        method: the method.
    """

    def __init__(self, stream: Stream, network: Network, method: Method) -> None:
        """Compile nothing yet."""
        self.stream = stream

        def begin(settings: Any, key: Array) -> Any:
            start, learner = _born(stream, network, method, settings, key)
            return start, learner.state

        def chunk(settings: Any, key: Array, carry: Any, *place: Array) -> Any:
            return _chunk(stream, network, method, (settings, key), carry, place)

        self._begin, self._chunk = jax.jit(begin), jax.jit(chunk)
        self._compiled: Any = None

    def live(self, settings: Mapping[str, float], keys: Array, tasks: int | None = None) -> Lives:
        """Live through the first tasks of the stream, once for each key."""
        arrays = {k: jnp.asarray(v, jnp.float32) for k, v in settings.items()}
        carry, zero = self._begin(arrays, keys[0]), jnp.zeros((), jnp.int32)
        if self._compiled is None:
            self._compiled = self._chunk.lower(arrays, keys[0], carry, zero, zero, zero).compile()
        lengths = self.stream.lengths[:tasks]
        started = time.perf_counter()
        lives = np.asarray([self._one(arrays, key, lengths) for key in keys])
        seconds = (time.perf_counter() - started) / (len(keys) * sum(lengths))
        return Lives._make([*np.moveaxis(lives, 2, 0), seconds])

    def _one(self, settings: Any, key: Array, lengths: Sequence[int]) -> list[Any]:
        """The readings of `Lives`, [task, reading], of one life."""
        carry, before, found = self._begin(settings, key), 0, []
        for index, length in enumerate(lengths):
            of_task = []
            for at in range(0, length, self.stream.chunk):
                place = (jnp.asarray(n, jnp.int32) for n in (index, at, before))
                carry, readings = self._compiled(settings, key, carry, *place)
                of_task.append(readings)
                before += self.stream.chunk
            online, end, alarms, false_alarms = np.asarray(of_task).T
            found.append((online.mean(), end[-1], alarms.sum(), false_alarms.sum()))
        return found


def _born(stream: Stream, network: Network, method: Method, settings: Any, key: Array) -> Any:
    start = network.init(jax.random.split(key, 3)[0])
    return start, method.make(settings, Setup(network, start, stream.batch_size))


def _chunk(
    stream: Stream,
    network: Network,
    method: Method,
    life: tuple[Any, Array],
    carry: Any,
    place: Sequence[Array],
) -> tuple[Any, Array]:
    """Some steps of one life: parameters and state, and the four readings of `Lives`."""
    settings, key = life
    index, first, before = place
    learner = _born(stream, network, method, settings, key)[1]
    _, key_stream, key_rest = jax.random.split(key, 3)
    key_batches, key_spare, key_steps = jax.random.split(jax.random.fold_in(key_rest, before), 3)
    now, spare = stream.draw(key_stream, index), network.init(key_spare)

    def step(carry: Any, inputs: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        params, state = carry
        t, batch, key = inputs
        x, y = now.inputs[batch], now.targets[batch]

        def objective(params: Any) -> tuple[Array, Any]:
            seen = None if network.look is None else network.look(params, x, None)
            outputs = network.forward(params, x) if seen is None else seen.outputs
            return jnp.mean(example_losses(outputs, y)), (outputs, seen)

        (value, (outputs, seen)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        begins = (first + t == 0) & (index > 0)
        units = None if seen is None else seen.units
        observed = Observed(network, value, gradient, x, y, units, before + t, begins, spare, key)
        params, state = learner.update(params, state, observed)
        suspected = jnp.asarray(optax.tree.get(state, "switch_probability", 0.0)) > SUSPICION
        early = (first + t < AT_ONCE) & (index > 0)
        return (params, state), jnp.stack(
            [score(outputs, y), suspected & early, suspected & ~early]
        )

    steps = (
        jnp.arange(stream.chunk),
        batches(stream, key_batches),
        jax.random.split(key_steps, stream.chunk),
    )
    carry, readings = lax.scan(step, carry, steps)
    end = score(network.forward(carry[0], now.test_inputs), now.test_targets)
    return carry, jnp.stack(
        [readings[:, 0].mean(), end, readings[:, 1].sum(), readings[:, 2].sum()]
    )


def batches(stream: Stream, key: Array) -> Array:
    """Examples [step, example in batch] of a chunk.

    Every example comes once an epoch, but for those left over.
    """
    each = stream.examples // stream.batch_size

    def epoch(key: Array) -> Array:
        order = jax.random.permutation(key, stream.examples)[: each * stream.batch_size]
        return order.reshape(each, stream.batch_size)

    keys = jax.random.split(key, -(-stream.chunk // each))
    return jax.vmap(epoch)(keys).reshape(-1, stream.batch_size)[: stream.chunk]
