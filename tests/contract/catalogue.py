"""The beliefs that the contract is about: each alone, each in every wrapper that takes it."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from beliefnav import beliefs
from beliefnav.beliefs import Belief
from beliefnav.beliefs.landscape.coupled_optimum import CoupledOptimum
from beliefnav.beliefs.tasks.switching_optimum import SwitchingOptimum
from beliefnav.recording import Recording

TASKS = SwitchingOptimum(
    curvature=1.5, noise_variance=0.5, prior_variance=2.0, hazard=0.1, prior_mean=0.2
)

ALONE: dict[str, Belief] = {
    # All priors are proper, and no number is one that a filter knows a shorter way for.
    "LocalLevel": beliefs.LocalLevel(0.9, 0.5, 0.2, 3.0),
    "PolynomialLevel": beliefs.PolynomialLevel(2.0, 0.5, 0.2, 3.0),
    "OrnsteinUhlenbeck": beliefs.OrnsteinUhlenbeck(0.8, 0.3, 0.5),
    "RetractedLevel": beliefs.RetractedLevel(0.9, 1.0, 0.1),
    "Transient": beliefs.Transient(0.9, 0.3, 0.7),
    "Wiener": beliefs.Wiener(0.9, 0.8),
    "Optimum": beliefs.Optimum(1.5, 0.5, 2.0, 0.2, 0.1, 0.9),
    "Secant": beliefs.Secant(0.5, 1.2, 0.8, 0.2, 0.4, 0.1, 0.05, 0.9, 0.8, 0.6),
    "FisherOptimum": beliefs.FisherOptimum(0.1, 4.0, 2.0),
    "CoupledOptimum": CoupledOptimum(0.1, 2.0, 4.0),
    "PrecisionWalk": beliefs.PrecisionWalk(0.9, 0.5, 6.0),
    "UniformWalk": beliefs.UniformWalk(0.9, 0.01),
    "WishartWalk": beliefs.WishartWalk(0.9, 0.5, 4.0),
    "KroneckerWalk": beliefs.KroneckerWalk(0.9, 0.1, 0.5),
    "TwoHypotheses": beliefs.TwoHypotheses(TASKS),
    "RunLengthReset": beliefs.RunLengthReset(TASKS),
    "RunLengths": beliefs.RunLengths(TASKS, 4),
}

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "shared": beliefs.shared,
    "positive": beliefs.positive,
    "sensed": beliefs.sensed,
    "UnknownNoise": lambda belief: beliefs.UnknownNoise(belief, 0.7, 5.0),
    "look_ahead": beliefs.look_ahead,
    "accumulated": beliefs.accumulated,
    "located": beliefs.located,
    "gradient": lambda b: beliefs.independent(gradient=b, curvature=ALONE["PrecisionWalk"]),
    "curvature": lambda b: beliefs.independent(gradient=ALONE["LocalLevel"], curvature=b),
}
"""``gradient`` and ``curvature`` are the two places of `beliefnav.beliefs.independent`."""

AROUND = {
    "look_ahead": ("LocalLevel",),
    "accumulated": ("PrecisionWalk",),
    "located": ("Secant",),
    "gradient": ("LocalLevel", "Secant", "RunLengths"),
    "curvature": ("Wiener", "Secant", "WishartWalk"),
}
"""Wrappers that are not put around every belief.

The first two take one type, the third what says enough of both. `independent` asks of the two that
it runs side by side that one says something of the gradient, and the other of the curvature: it is
put around one that reads all there is, one whose density is of all entries, one that has none.
"""

DEEPER = (
    "shared(UnknownNoise(LocalLevel))",
    "shared(UnknownNoise(OrnsteinUhlenbeck))",
    "shared(UnknownNoise(Optimum))",
    "shared(UnknownNoise(Secant))",
    "positive(UnknownNoise(Secant))",
    "positive(shared(UnknownNoise(Secant)))",
    "shared(positive(UnknownNoise(Secant)))",
    "shared(look_ahead(LocalLevel))",
    "shared(accumulated(PrecisionWalk))",
    "shared(sensed(LocalLevel))",
    "shared(gradient(LocalLevel))",
)


@functools.cache
def build(name: str) -> Belief:
    """The belief of a name such as ``shared(UnknownNoise(Secant))``."""
    if name in ALONE:
        return ALONE[name]
    wrapper, _, rest = name.partition("(")
    return WRAPPERS[wrapper](build(rest.removesuffix(")")))


def attempts() -> Iterator[str]:
    """Every wrapper around every belief."""
    for wrapper in WRAPPERS:
        for name in AROUND.get(wrapper, ALONE):
            yield f"{wrapper}({name})"


def stream(num_steps: int, shape: tuple[int, ...] = (3,)) -> Recording:
    """Gradients, displacements and positive readings of the curvature, in float64."""
    rng = np.random.default_rng(0)
    size = (num_steps, *shape)
    gradient = 1 + rng.normal(size=size)
    moved = 0.3 * rng.normal(size=size)
    return Recording(*map(jnp.asarray, (gradient, moved, np.exp(rng.normal(size=size) / 2))))


MOVES = {
    *("Optimum", "Secant", "FisherOptimum"),
    *("TwoHypotheses", "RunLengthReset", "RunLengths"),
}
READS = {"Secant", "FisherOptimum", "sensed"}
"""What asks for displacements, and for readings of the curvature, also from deep inside."""


def needs(name: str) -> tuple[bool, bool]:
    """Whether the belief of a name asks for displacements, and for readings of the curvature."""
    parts = set(re.findall(r"\w+", name))
    return bool(parts & MOVES), bool(parts & READS)


def read_by(name: str, recording: Recording) -> Recording:
    """What the belief of a name asks of a recording, whatever its filter says that it does."""
    gradient, displacement, curvature = recording
    moves, reads = needs(name)
    return Recording(gradient, displacement if moves else None, curvature if reads else None)


def float_leaves(belief: Belief) -> tuple[Belief, Belief]:
    """The hyper-parameters that are numbers of a continuum, as arrays, and the rest."""
    one, rest = eqx.partition(belief, lambda x: isinstance(x, float))
    return jax.tree.map(jnp.asarray, one), rest
