"""What the belief of a rule is, and which gradients would speak against it.

That two programs take the same steps says nothing of gradients. What a belief says of them can be
wrong. A belief predicts every reading from those before it; if it is right, neither its errors, in
units of what it expects, nor their sizes depend on those of the step before. The verdict on a
stream is "against" if one of these two correlations is further from 0 than chance takes it in one
of `CHANCE` streams.

`forbidden` draws `STREAMS` streams of what the belief itself predicts, and as many of every rival.
A belief forbids a rival whose streams speak against it at a rate of `POWER` or more, where its own
do at one of `LEVEL` or less.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from beliefnav.beliefs.contract import Belief, as_belief
from beliefnav.rules._rule import Assumptions

__all__ = [
    "KINDS",
    "RIVALS",
    "bursts",
    "correlated",
    "drifting",
    "forbidden",
    "forbids",
    "kind",
    "own",
    "rate",
    "unrelated",
]

MODEL, APART, FILTER, OFF_THE_MEAN = KINDS = (
    "a model, filtered exactly",
    "two models of the same readings, held apart",
    "a filter without a model",
    "a curvature read off the mean",
)
"""What a belief is; the less it is a model, the less a rule that follows from it is derived."""


def kind(assumed: Assumptions) -> str:
    """One of `KINDS`: whether what the plan reads is predicted by a model, or only computed."""
    parts = as_belief(assumed.belief).parts()
    if assumed.policy.plan is not None and assumed.policy.plan.curvature:
        return OFF_THE_MEAN
    if not all(part.modelled() for part in parts):
        return FILTER
    return MODEL if len(parts) == 1 else APART


STREAMS, STEPS, ENTRIES = 200, 400, 4
"""Streams that are judged, and the readings of one: steps, and entries side by side."""
SETTLED = 50
"""Steps before errors are looked at: at first a belief without a prior predicts nothing."""
CHANCE, LEVEL, POWER = 50, 0.05, 0.9

Streams = Array
"""Gradients [step, stream, entry]."""


def unrelated(key: Array) -> Streams:
    """Every gradient is drawn anew around a constant mean of 1, with variance 1."""
    return 1 + jax.random.normal(key, (STEPS, STREAMS, ENTRIES))


def correlated(key: Array) -> Streams:
    """Three quarters of a gradient are left a step later: no noise, a mean of 0 and variance 1."""
    noise = jax.random.normal(key, (STEPS, STREAMS, ENTRIES)) * np.sqrt(1 - 0.75**2)

    def step(before: Array, noise: Array) -> tuple[Array, Array]:
        now = 0.75 * before + noise
        return now, now

    return lax.scan(step, jnp.zeros((STREAMS, ENTRIES)), noise)[1]


def drifting(key: Array) -> Streams:
    """The mean walks at random, and noise of variance 1 is added.

    It is the model of the moving average that moves by a tenth, whose memory is 10 steps.
    """
    gain = 0.1
    noise, steps = jax.random.normal(key, (2, STEPS, STREAMS, ENTRIES))
    return jnp.cumsum(gain / np.sqrt(1 - gain) * steps, 0) + noise


def bursts(key: Array) -> Streams:
    """Gradients without a mean whose scale is three times as large in every second 20 steps."""
    scale = 1 + 2.0 * (jnp.arange(STEPS) // 20 % 2)
    return scale[:, None, None] * jax.random.normal(key, (STEPS, STREAMS, ENTRIES))


RIVALS: Mapping[str, Callable[[Array], Streams]] = {
    "unrelated": unrelated,
    "correlated": correlated,
    "bursts": bursts,
    "drifting": drifting,
}
"""Name -> ``key -> gradients`` [step, stream, entry]."""


def _followed(belief: Belief, read: Callable[..., tuple[Array, Array]], inputs: Array) -> Array:
    """What is kept of every step of a filter.

    Args:
        belief: whose filter reads.
        read: from an input, and mean, scale and degrees of freedom of the next reading (a scale of
            1 where none is said), to the reading and what is kept.
        inputs: [step, ...].
    """
    filter_, zeros = belief.filter(), jnp.zeros((STREAMS, ENTRIES))
    assert filter_.diagnose is not None
    diagnose = filter_.diagnose

    def step(state: Any, now: Array) -> tuple[Any, Array]:
        predicted = filter_.predict(state, zeros)
        info = diagnose(predicted, zeros)
        if info.innovation is None:
            raise ValueError(
                "Cannot judge a stream. This is because the belief predicts no gradients."
            )
        scale = zeros + 1 if info.predictive_scale is None else info.predictive_scale
        proper = jnp.where(jnp.isfinite(scale) & (scale > 0), scale, 1)
        reading, kept = read(now, -info.innovation, proper, info.predictive_degrees_of_freedom)
        return filter_.update(predicted, reading), kept

    return lax.scan(step, filter_.init(zeros), inputs)[1]


@eqx.filter_jit
def own(belief: Belief, key: Array) -> Streams:
    """Streams that a belief predicts: every reading is drawn from what it says of the next."""

    def drawn(key: Array, mean: Array, scale: Array, degrees: Any) -> tuple[Array, Array]:
        if degrees is None:
            noise = jax.random.normal(key, mean.shape)
        else:
            noise = jax.random.t(key, jnp.where(degrees > 0, degrees, 1.0), mean.shape)
        reading = mean + scale * noise
        return reading, reading

    return _followed(belief, drawn, jax.random.split(key, STEPS))


@eqx.filter_jit
def rate(belief: Belief, streams: Streams) -> Array:
    """The share of streams [step, stream, entry] that speak against a belief."""

    def judged(reading: Array, mean: Array, scale: Array, degrees: Any) -> tuple[Array, Array]:
        del degrees
        return reading, (reading - mean) / scale

    errors = _followed(belief, judged, streams)[SETTLED:]
    tests = [_correlation(errors), _correlation(jnp.minimum(jnp.abs(errors), 10.0))]
    number = (STEPS - SETTLED) * ENTRIES
    bound = jax.scipy.stats.norm.ppf(1 - 1 / CHANCE / len(tests) / 2) / np.sqrt(number)
    return jnp.mean(jnp.any(jnp.abs(jnp.stack(tests)) > bound, 0))


def _correlation(errors: Array) -> Array:
    """Of every error with the one before it, over steps and entries [stream]."""
    centred = errors - errors.mean((0, 2), keepdims=True)
    return (centred[1:] * centred[:-1]).sum((0, 2)) / (centred**2).sum((0, 2))


@functools.cache
def _rivals() -> Mapping[str, Streams]:
    keys = jax.random.split(jax.random.key(1), len(RIVALS))
    return {name: make(key) for (name, make), key in zip(RIVALS.items(), keys, strict=True)}


def forbidden(belief: Belief) -> tuple[str, ...]:
    """The rivals that a belief forbids, by name; none if it has no model of gradients.

    Args:
        belief: about one array of gradients.

    Returns:
        Names of `RIVALS`.

    Raises:
        ValueError: streams of the belief itself speak against it more often than `LEVEL`.
    """
    if belief.filter().needs_curvature or not belief.modelled():
        return ()
    false = float(rate(belief, own(belief, jax.random.key(0))))
    if false > LEVEL:
        raise ValueError(
            f"Cannot say what {belief.name} forbids. This is because {false:.0%} of the streams "
            f"that it predicts speak against it, more than {LEVEL:.0%}."
        )
    return tuple(name for name, of in _rivals().items() if float(rate(belief, of)) >= POWER)


_SOME, _EVERY = ("correlated", "bursts"), tuple(RIVALS)
_STILL = (*_SOME, "drifting")
_CLAIMED: Mapping[str, tuple[str, ...]] = {
    "shared(OrnsteinUhlenbeck) as seen": _STILL,
    "LocalLevel memory 10 steps": _SOME,
    "shared(LocalLevel) memory 1 step": _EVERY,
    "shared(LocalLevel) memory 10 steps": _SOME,
    "shared(LocalLevel) memory 28.57 steps": _SOME,
    "shared(look_ahead(LocalLevel)) memory 10 steps": _SOME,
    "shared(look_ahead(LocalLevel)) memory 20 steps": _SOME,
    "Transient memory 10 steps": (*_SOME, "unrelated"),
    "Transient memory 100 steps": _STILL,
    "Optimum Optimum": _STILL,
    "FisherOptimum 100 steps": _STILL,
    "PrecisionWalk memory 1,000 steps": _STILL,
    "shared(PrecisionWalk) memory 10 steps": _STILL,
    "shared(PrecisionWalk) memory 1,000 steps": _STILL,
    "shared(accumulated(PrecisionWalk)) memory unlimited": _STILL,
}
"""A part of a belief, by its name and what it says first -> rivals that it forbids, at least."""


def forbids(assumed: Assumptions) -> tuple[str, ...]:
    """The rivals that the belief of a rule is claimed to forbid; a part of it is enough."""
    claimed = [_CLAIMED.get(described(part), ()) for part in as_belief(assumed.belief).parts()]
    return tuple(name for name in RIVALS if any(name in of for of in claimed))


def described(part: Belief) -> str:
    """A part of a belief by its name and the value of its first fact."""
    return f"{part.name} {part.facts()[0].value}"
