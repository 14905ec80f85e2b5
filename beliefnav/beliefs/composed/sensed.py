r"""Sensed curvature: any belief about a stream, held about the readings of a second sensor.

A model of a noisy stream does not care what the stream is of. Fed with ``curvature`` instead of the
gradient, `LocalLevel` is a curvature that drifts and is read with noise,

$$ h_t = h_{t-1} + N(0, R_c W_t), \qquad c_t = h_t + N(0, R_c), $$

whose posterior mean is a discounted average of the readings. Time is counted in readings: a step
without one leaves the belief as it is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from beliefnav.beliefs.contract import Belief, Filter, Info, Posterior

PyTree = Any


class SensedState(NamedTuple):
    """The state of a belief about the readings."""

    belief: Any

    def posterior(self) -> Posterior:
        """The mean and variance of what was read, as those of the curvature."""
        read = self.belief.posterior()
        return Posterior(
            curvature_mean=read.gradient_mean, curvature_variance=read.gradient_variance
        )


class SensedPredicted(NamedTuple):
    """The state before a reading, which time waits for."""

    belief: Any


class Sensed(NamedTuple):
    """A belief about the readings of a second sensor, made by `sensed`."""

    belief: Belief
    dense: bool

    def filter(self) -> Filter:
        """The filter of the belief on the readings, whose states are `SensedState`.

        Its diagnostics are of the readings, and empty where there is none.
        """
        inner = self.belief.filter()

        def init(params: PyTree) -> SensedState:
            return SensedState(inner.init(square_like(params) if self.dense else params))

        def predict(state: SensedState, displacement: PyTree = None) -> SensedPredicted:
            del displacement
            return SensedPredicted(state.belief)

        def update(
            predicted: SensedPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[SensedState, Info]:
            before = predicted.belief
            if curvature is None:
                return SensedState(before), Info()
            like = jax.eval_shape(square_like, gradient) if self.dense else gradient
            _check_reading(curvature, like)
            read, info = inner.update(inner.predict(before), curvature)
            seen = [jnp.any(jnp.isfinite(c)) for c in jax.tree.leaves(curvature)]
            any_seen = jnp.any(jnp.array(seen, bool))
            after = jax.tree.map(lambda a, b: jnp.where(any_seen, a, b), read, before)
            return SensedState(after), info

        return Filter(init, predict, update)


def sensed(belief: Belief, *, dense: bool = False) -> Sensed:
    """Hold a belief about the readings of a second sensor, given as ``update(curvature=)``.

    Args:
        belief: a belief about a stream without displacements, such as `LocalLevel`.
        dense: readings are matrices [n, n] over the n raveled parameters, and not trees like them.

    Returns:
        A belief about curvature alone; join it to one about the gradient with `independent`.

    Raises:
        ValueError: the belief is about how far the parameters moved.
    """
    if belief.filter().uses_displacement:
        raise ValueError(
            f"Cannot hold {belief!r} about readings of a sensor. This is because it asks how far "
            "the parameters moved; use a belief such as beliefs.LocalLevel."
        )
    return Sensed(belief, dense)


def _check_reading(curvature: PyTree, like: PyTree) -> None:
    """Raise unless a reading has the shapes of what it is about: it would be broadcast."""
    got, want = ([jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (curvature, like))
    if got != want:
        raise ValueError(
            f"sensed: curvature must have the shapes {want}, got {got}. A matrix over the raveled "
            "parameters needs dense=True, a tree like them dense=False."
        )


def square_like(params: PyTree) -> Array | jax.ShapeDtypeStruct:
    """A matrix [n, n] of zeros over the n raveled parameters, abstract if they are."""
    leaves = jax.tree.leaves(params)
    size = sum(leaf.size if hasattr(leaf, "size") else 1 for leaf in leaves)
    dtype = jnp.result_type(jnp.float32, *leaves)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        return jax.ShapeDtypeStruct((size, size), dtype)
    return jnp.zeros((size, size), dtype)
