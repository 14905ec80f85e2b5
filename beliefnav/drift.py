"""Drift: movement of the parameters that is not under control."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from beliefnav._checks import NON_NEGATIVE, Checked
from beliefnav._trees import copied

PyTree = Any

__all__ = ["Decay", "DecayState", "check_drift"]


class Decay(Checked):
    r"""A drift that the plan does not know of: weights decay by $\alpha\lambda\theta$ a step.

    The movement is the sum of plan and drift, so that the weights settle short of the optimum. For
    a plan that counters the decay see `beliefnav.control.countering`; for a drift that is not
    stated and is learned, `beliefnav.wrappers.uncontrolled`.

    Attributes:
        strength: $\lambda \ge 0$, a number or a schedule, per unit of learning rate.
        mask: tree of booleans, or a callable from parameters to one: which of them decay.
        toward_start: decay toward the initial parameters instead of 0.

    Raises:
        ValueError: ``strength`` is a negative Python number.
    """

    ranges: ClassVar = {"strength": NON_NEGATIVE}

    strength: optax.ScalarOrSchedule
    mask: PyTree = None
    toward_start: bool = False

    def transformation(self) -> optax.GradientTransformation:
        """The drift as a direction that is added to another."""
        decay = optax.add_decayed_weights(self.strength, self.mask)
        if not self.toward_start:
            return decay

        def init(params: PyTree) -> Any:
            return DecayState(copied(params), decay.init(params))

        def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
            if params is None:
                raise ValueError(
                    "Cannot decay toward the initial parameters without params; call "
                    "update(gradient, state, params)."
                )
            moved = jax.tree.map(jnp.subtract, params, state.decay_target)
            updates, inner = decay.update(updates, state.decay_state, moved)
            return updates, state._replace(decay_state=inner)

        return optax.GradientTransformation(init, update)


def check_drift(drift: Any) -> None:
    """Raise unless a drift is a `Decay` or ``None``.

    Raises:
        TypeError: says what to give.
    """
    if drift is not None and not isinstance(drift, Decay):
        raise TypeError(
            f"drift must be a beliefnav.drift.Decay, such as Decay(0.01), got {drift!r}."
        )


class DecayState(NamedTuple):
    """State of a `Decay` toward the initial parameters.

    Attributes:
        decay_target: the initial parameters.
        decay_state: the state of ``optax.add_decayed_weights``.
    """

    decay_target: PyTree
    decay_state: Any
