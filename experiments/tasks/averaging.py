"""Polynomial averages of the iterates of any optimizer, several read off one path."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AveragingState(NamedTuple):
    """The state of the optimizer, steps taken, and the averages, with a first axis [power]."""

    inner: Any
    steps: Any
    averages: Any


def averaging(inner: Any, powers: tuple[float, ...]) -> optax.GradientTransformationExtraArgs:
    r"""Average what an optimizer passes through, with gains $(p + 1)/(t + p)$; its steps stay.

    $p = 0$ is the plain average of all iterates after the start; a larger $p$ forgets early ones.
    """
    inner = optax.with_extra_args_support(inner)
    power = jnp.asarray(powers, jnp.float32)

    def init(params: Any) -> AveragingState:
        averages = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(powers), *x.shape)), params)
        return AveragingState(inner.init(params), jnp.zeros((), jnp.int32), averages)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates, after = inner.update(updates, state.inner, params, **extra)
        steps = optax.safe_increment(state.steps)
        gains = (power + 1) / (steps + power)
        moved = optax.apply_updates(params, updates)
        follow = jax.vmap(lambda gain, average, x: average + gain * (x - average), (0, 0, None))
        averages = jax.tree.map(lambda a, x: follow(gains, a, x), state.averages, moved)
        return updates, AveragingState(after, steps, averages)

    return optax.GradientTransformationExtraArgs(init, update)
