"""What learns: rules without a learning rate, rules with one that is never tuned, and tuned Adam.

All that is not tuned is handed over in two ways, which are read off one path: the last iterate, and
an average of the iterates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from beliefnav import optimum, rules
from beliefnav.beliefs import PolynomialLevel
from beliefnav.wrappers import iterate_averaging
from experiments.no_rate import controls
from experiments.tasks.task import Task

RULE = "learning_rate_free"
TUNED = "adam_tuned"
TUNED_COSINE = "adam_cosine_tuned"
DEFAULT = "adam_1e-3"
POWERS = (0, 1, 2, 4, 8)
"""Of the averages that tuned Adam chooses from."""


def _unknown(state: Any) -> Any:
    """A rule that has no distance."""
    del state
    return jnp.nan


class Arm(NamedTuple):
    """A rule that nothing is chosen for.

    Attributes:
        make: the optimizer for a task, with an average that `beliefnav.optimum` reads.
        distance: ``state -> what it has for the distance to the optimum``; NaN where it has none.
    """

    make: Callable[[Task], optax.GradientTransformation]
    distance: Callable[[Any], Any] = _unknown


def averaged(
    make: Callable[[Task], Any], power: float = 1.0, distance: Callable[[Any], Any] = _unknown
) -> Arm:
    """A rule, and a polynomial average of its iterates."""
    memory = PolynomialLevel(power)
    return Arm(lambda task: iterate_averaging(make(task), memory), distance)


def _estimate(state: Any) -> Any:
    """The distance of Prodigy and D-Adaptation."""
    return optax.tree.get(state, "estim_lr")


def learning_rate_free(guess: Any = 1e-4) -> Arm:
    """The rule; ``guess`` is the first distance, in units of the initial parameters."""
    return Arm(
        lambda _: rules.learning_rate_free(guess=guess),
        lambda state: optax.tree.get(state, "distance"),
    )


def prodigy(guess: Any = 1e-6) -> Arm:
    """Prodigy at rate 1; ``guess`` is the first distance, in the units of the parameters."""
    return averaged(lambda _: optax.contrib.prodigy(1.0, estim_lr0=guess), 1.0, distance=_estimate)


ARMS: dict[str, Arm] = {
    RULE: learning_rate_free(),
    "prodigy": prodigy(),
    DEFAULT: averaged(lambda _: rules.adam(1e-3), 2.0),
    "d_adaptation": averaged(lambda _: optax.contrib.dadapt_adamw(1.0), distance=_estimate),
    "dog": averaged(lambda _: optax.contrib.dog(1.0)),
    "hazard_filter": averaged(lambda task: rules.hazard_filter(examples=task.batch), 16.0),
    "hazard_filter_learned": averaged(
        lambda task: rules.hazard_filter(examples=task.batch, learn_variance=True), 16.0
    ),
    "schaul": averaged(lambda _: controls.schaul()),
    "li_tai_e": averaged(lambda _: controls.li_tai_e()),
}
"""Powers of the averages: those of the rule for what has no rate either, the library's default for
Adam, and for the filter, whose steps are long, what a prototype on the five tasks found."""

READINGS: dict[str, Callable[[Any, Any], Any]] = {
    "last": lambda state, params: params,
    "average": optimum,
}
"""``(state, params) -> what is handed over``."""
