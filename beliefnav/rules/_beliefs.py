"""Beliefs and policies that several rules share."""

from typing import Any

import optax
from jax.typing import ArrayLike

from beliefnav import beliefs, control

__all__ = ["APART", "LOOK_AHEAD", "MOMENT", "as_seen", "divided", "level", "moments", "never_clips"]

APART = (
    "Gradient and curvature are believed of the same observations, each as if the other did not "
    "exist."
)
MOMENT = (
    "The second moment is proportional to curvature only near an optimum of a log-likelihood, "
    "where it is the Fisher information over the batch size, plus the squared mean."
)
LOOK_AHEAD = (
    "The bias of the look-ahead is corrected term by term, which is no prior: at first its weights "
    "do not add up to 1."
)


def as_seen() -> beliefs.Belief:
    """The gradient is what was just seen: no correlation, no noise; a missing one is 0."""
    return beliefs.shared(
        beliefs.OrnsteinUhlenbeck(autocorrelation=0.0, process_variance=1.0, noise_variance=0.0)
    )


def level(discount: ArrayLike) -> beliefs.Belief:
    """A gradient that drifts, of which nothing is known at first."""
    return beliefs.shared(beliefs.LocalLevel(discount))


def moments(b1: ArrayLike, b2: ArrayLike) -> beliefs.Belief:
    """Adam's belief."""
    return beliefs.independent(
        gradient=level(b1), curvature=beliefs.shared(beliefs.PrecisionWalk(b2))
    )


def never_clips(policy: control.Policy) -> control.Policy:
    """Tell that there is nothing to count: a second moment read as curvature is not negative."""
    return policy._replace(clipped=None)


def divided(learning_rate: optax.ScalarOrSchedule, by: ArrayLike) -> Any:
    """A learning rate over a number."""
    if not callable(learning_rate):
        return learning_rate / by
    schedule: Any = learning_rate
    return lambda count: schedule(count) / by
