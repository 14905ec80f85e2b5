r"""What rules say of the next reading, before they see it.

A rule that says something of a part is scored on it; the others say nothing. The belief of a rule
is filtered over the recorded gradients, which the rule itself did not choose: all rules are asked
about the same readings.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from beliefnav import beliefs, rules
from beliefnav.beliefs.contract import as_belief
from beliefnav.beliefs.landscape.coupled_optimum import CoupledOptimum
from experiments.evidence.streams import RATE, Stream

REFERENCE = "adam"
"""The rule that the others are compared with."""


class Asked(NamedTuple):
    """A rule, and what may be asked of it.

    Attributes:
        belief: that of the rule.
        ahead: whether its posterior is a forecast of the next gradient already.
        size: whether it takes its curvature for the mean square of the gradient.
    """

    belief: Any
    ahead: bool = False
    size: bool = True


def _of(rule: Any, *arguments: Any, **named: Any) -> Any:
    return rule.assumptions(*arguments, **named).belief


RULES: dict[str, Asked] = {
    "adam": Asked(_of(rules.adam, RATE)),
    "adam, b2 = 0.99": Asked(_of(rules.adam, RATE, b2=0.99)),
    "adam, b2 = 0.9": Asked(_of(rules.adam, RATE, b2=0.9)),
    "nadam": Asked(_of(rules.nadam, RATE), ahead=True),
    "adamax": Asked(_of(rules.adamax, RATE)),
    "wiener": Asked(_of(rules.wiener, RATE)),
    "rmsprop": Asked(_of(rules.rmsprop, RATE)),
    "ballistic": Asked(_of(rules.ballistic, RATE)),
    "adagrad": Asked(_of(rules.adagrad, RATE)),
    "momentum": Asked(_of(rules.momentum, RATE)),
    "lion": Asked(_of(rules.lion, RATE), ahead=True),
    "muon": Asked(_of(rules.muon, RATE), ahead=True),
    "secant": Asked(_of(rules.secant, RATE), size=False),
    "hazard_filter": Asked(_of(rules.hazard_filter, 1e-3, 0.1, examples=64)),
    "Aitchison": Asked(CoupledOptimum(RATE**2, 0.1 / 64, 64.0)),
}
"""Each with its defaults. Aitchison's belief has the two learning rates of its program's defaults,
1e-3 in the limit of much data and 0.1 in that of little."""
CONTROL = "no belief"
"""The mean is 0 and the curvature the same for all coordinates at all times."""


class Said(NamedTuple):
    """What a rule says, each [network, step, coordinate], or ``None`` where it says nothing.

    Attributes:
        mean: of the gradient, before it is seen.
        size: the curvature taken for the mean square of the gradient, before it is seen.
        curvature: after it is seen, when the step is taken.
    """

    mean: np.ndarray | None
    size: np.ndarray | None
    curvature: np.ndarray | None


def said(asked: Asked, stream: Stream) -> Said:
    """What a rule says of every reading of a stream."""
    belief = as_belief(asked.belief)
    filter_ = belief.filter()

    def step(state: Any, now: Any) -> tuple[Any, Any]:
        y, moved = now
        predicted = filter_.predict(state, moved if filter_.uses_displacement else None)
        unseen = filter_.update(predicted, jnp.full_like(y, jnp.nan)).posterior()
        before = state.posterior()
        state = filter_.update(predicted, y)
        mean = before.gradient_mean if asked.ahead else unseen.gradient_mean
        return state, (mean, before.curvature_mean, state.posterior().curvature_mean)

    @jax.jit
    @jax.vmap
    def run(y: Any, moved: Any) -> Any:
        start = filter_.init(y[0])
        led = jnp.concatenate([jnp.zeros_like(moved[:1]), moved[:-1]])
        return lax.scan(step, start, (y, led))[1]

    found = run(jnp.asarray(stream.gradient), jnp.asarray(stream.displacement))
    mean, size, curvature = (None if x is None else np.asarray(x, float) for x in found)
    return Said(mean, size if asked.size else None, curvature)


def nothing(stream: Stream) -> Said:
    """What the control says."""
    one = np.ones(stream.gradient.shape)
    return Said(0 * one, one, one)


def moments(stream: Stream, b1: np.ndarray, b2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adam's mean and second moment before every reading, at many memories.

    Returns:
        Means [b1, network, step, coordinate] and second moments [b2, network, step, coordinate].
    """
    adam = [
        said(Asked(rules_belief), stream)
        for rules_belief in (_moments(float(x), float(y)) for x, y in zip(b1, b2, strict=True))
    ]
    means, sizes = zip(*((x.mean, x.size) for x in adam), strict=True)
    return np.stack(means), np.stack(sizes)


def _moments(b1: float, b2: float) -> beliefs.Belief:
    return _of(rules.adam, RATE, b1=b1, b2=b2)
