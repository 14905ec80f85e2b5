r"""Sensed curvature: any belief about a stream, held about the readings of a second sensor.

A model of a noisy stream does not care what the stream is of. Fed with ``curvature`` instead of the
gradient, `LocalLevel` is a curvature that drifts and is read with noise,

$$ h_t = h_{t-1} + N(0, R_c W_t), \qquad c_t = h_t + N(0, R_c), $$

whose posterior mean is a discounted average of the readings. Time is counted in readings: a step
without one leaves the belief as it is.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._trees import is_observed, wide_dtype
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs._said import is_said
from beliefnav.beliefs.contract import Belief, BeliefLike, Fact, Filter, Info, Posterior, as_belief

__all__ = ["Sensed", "SensedState", "sensed", "square_like"]

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


class Sensed(Belief):
    """A belief about the readings of a second sensor, made by `sensed`."""

    belief: BeliefLike
    dense: bool = eqx.field(static=True)
    required: bool = eqx.field(static=True, default=False)

    def filter(self) -> Filter:
        """The filter of the belief on the readings, whose states are `SensedState`.

        Its diagnostics are of the readings, and empty where there is none.
        """
        return self._filter(as_belief(self.belief).filter())

    def shared_filter(self) -> Filter:
        """The shared filter of the belief on the readings."""
        return self._filter(as_belief(self.belief).shared_filter())

    @property
    def name(self) -> str:
        """Its own, and that of the belief."""
        return f"sensed({as_belief(self.belief).name})"

    def _filter(self, inner: Filter) -> Filter:
        def check(curvature: PyTree, gradient: PyTree) -> None:
            like = jax.eval_shape(square_like, gradient) if self.dense else gradient
            _check_reading(curvature, like)

        def init(params: PyTree) -> SensedState:
            state = inner.init(square_like(params) if self.dense else params)
            if not is_said(state, params, "gradient_mean"):
                raise ValueError(
                    f"Cannot hold {as_belief(self.belief).name} about readings of a sensor. This "
                    "is because it says nothing of the mean of what it sees (its posterior has no "
                    "gradient_mean); use a belief such as beliefs.LocalLevel."
                )
            return SensedState(state)

        def predict(state: SensedState, displacement: PyTree = None) -> SensedState:
            del displacement
            return state  # time waits for a reading

        def update(
            predicted: SensedState, gradient: PyTree, curvature: PyTree = None
        ) -> SensedState:
            if curvature is None:
                return predicted
            check(curvature, gradient)
            before = predicted.belief
            read = inner.update(inner.predict(before), curvature)
            seen = [jnp.any(is_observed(c)) for c in jax.tree.leaves(curvature)]
            any_seen = jnp.any(jnp.array(seen, bool))
            return SensedState(jax.tree.map(lambda a, b: jnp.where(any_seen, a, b), read, before))

        def diagnose(predicted: SensedState, gradient: PyTree, curvature: PyTree = None) -> Info:
            assert inner.diagnose is not None
            if curvature is None:
                return Info()
            check(curvature, gradient)
            return inner.diagnose(inner.predict(predicted.belief), curvature)

        return Filter(
            init,
            predict,
            update,
            inner.diagnose and diagnose,
            uses_curvature=True,
            needs_curvature=self.required,
        )

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Those of the belief, about the curvature, in readings."""
        del quantity, time
        return tuple(
            fact._replace(value=f"sensed; {fact.value}") if fact.subject == "curvature" else fact
            for fact in as_belief(self.belief).facts("curvature", "reading")
        )

    def proper(self) -> bool:
        """As the belief."""
        return as_belief(self.belief).proper()

    def scaled(self, factor: ArrayLike) -> "Sensed":
        """The belief in other units, about the same readings."""
        return Sensed(as_belief(self.belief).scaled(factor), self.dense, self.required)

    def modelled(self) -> bool:
        """As the belief, of readings."""
        return as_belief(self.belief).modelled()

    def program(self, stream: Stream) -> Any:
        """Refuse: nothing is said of gradients."""
        del stream
        raise ValueError(
            f"Cannot simulate or sample the latents of {self.name}. This is because it is about "
            "readings of the curvature, and says nothing of gradients; use the belief that it "
            "holds."
        )


def sensed(belief: BeliefLike, *, dense: bool = False, required: bool = False) -> Sensed:
    """Hold a belief about the readings of a second sensor, given as ``update(curvature=)``.

    Args:
        belief: a belief about a stream without displacements, such as `LocalLevel`.
        dense: readings are matrices [n, n] over the n raveled parameters, and not trees like them.
        required: an optimizer refuses an ``update`` without ``curvature=``; ``curvature=None`` says
            that there is no reading at a step.

    Returns:
        A belief about curvature alone; join it to one about the gradient with `independent`.

    Raises:
        ValueError: the belief is about how far the parameters moved; at ``init``, it says nothing
            of the mean of what it sees.
    """
    if as_belief(belief).filter().uses_displacement:
        raise ValueError(
            f"Cannot hold {as_belief(belief).name} about readings of a sensor. This is because it "
            "asks how far the parameters moved; use a belief such as beliefs.LocalLevel."
        )
    return Sensed(belief, dense, required)


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
    size = sum(math.prod(jnp.shape(leaf)) for leaf in leaves)
    dtype = wide_dtype(*leaves)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        return jax.ShapeDtypeStruct((size, size), dtype)
    return jnp.zeros((size, size), dtype)
