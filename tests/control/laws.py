"""Laws that more than one policy obeys."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from beliefnav import beliefs, control, navigator


def flat(tree: Any) -> np.ndarray:
    """All leaves as one array."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def assert_settles_near_the_start(
    make: Callable[[Any], control.Policy],
    values: np.ndarray,
    penalties: np.ndarray,
    dtype: str,
    atol: float,
) -> None:
    """Scanned and vmapped over the value [k] that makes a policy: it rests where a penalty does.

    The optimum is at 1 and the curvature 1; the penalties [k] are on the distance from the start.
    """
    params = {"a": jnp.full((2, 2), 3.0, dtype), "s": jnp.asarray(-1.0, dtype), "none": None}
    belief = beliefs.independent(
        gradient=beliefs.LocalLevel(0.0), curvature=beliefs.sensed(beliefs.LocalLevel(0.0))
    )
    curvature = jax.tree.map(jnp.ones_like, params)

    @jax.jit
    @jax.vmap
    def train(value: Any) -> Any:
        optimizer = navigator(0.3, belief, make(value))

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            gradient = jax.tree.map(lambda x: x - 1, params)
            updates, state = optimizer.update(gradient, state, params, curvature=curvature)
            return (jax.tree.map(jnp.add, params, updates), state), None

        start: Any = params, optimizer.init(params)
        (last, state), _ = jax.lax.scan(step, start, None, length=60)
        return last, state[0].start_params

    last, kept = train(jnp.asarray(values))
    penalties = penalties[:, None]
    rest = (1 + penalties * flat(params).astype(float)) / (1 + penalties)
    got = np.concatenate([np.float64(x).reshape(2, -1) for x in jax.tree.leaves(last)], 1)
    np.testing.assert_allclose(got, rest, atol=atol)
    for x, start in zip(jax.tree.leaves(kept), jax.tree.leaves(params), strict=True):
        assert x.dtype == start.dtype
        np.testing.assert_array_equal(x, np.broadcast_to(start, x.shape))
