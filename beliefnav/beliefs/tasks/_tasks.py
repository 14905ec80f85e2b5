"""What the filters of a switching optimum have in common: the Gaussian belief about one task."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from beliefnav import _trees
from beliefnav._checks import FINITE, POSITIVE
from beliefnav._format import counted, reciprocal
from beliefnav.beliefs._linear_gaussian import check_displacement
from beliefnav.beliefs.contract import Fact, Info, Posterior
from beliefnav.beliefs.tasks.hazard_grid import HazardGrid, on_grid
from beliefnav.beliefs.tasks.switching_optimum import SwitchingOptimum

__all__ = [
    "Hazard",
    "Task",
    "check_shapes",
    "condition",
    "evidence",
    "expected",
    "facts",
    "hazards",
    "info",
    "known",
    "log_sum",
    "mixture",
    "move",
    "new_task",
    "read",
    "square",
    "start",
    "total",
    "transition",
]

PyTree = Any


class Task(NamedTuple):
    r"""A Gaussian belief about the optimum of one task, as long as that lasts.

    Attributes:
        mean: of $\theta^* - \theta_0$, a tree like the parameters.
        variance: a tree like the parameters.
    """

    mean: PyTree
    variance: PyTree


class Hazard(NamedTuple):
    """What is believed of the hazard.

    Attributes:
        hazards: [grid]; one, if it is known.
        log_weights: [grid].
    """

    hazards: Array
    log_weights: Array


def start(owner: str, model: SwitchingOptimum, params: PyTree) -> tuple[Task, PyTree, Hazard]:
    """The belief about a new task, the position, and the belief about the hazard.

    Raises:
        ValueError: a hyper-parameter is out of its range, as far as it is known, or does not fit
            the parameters.
    """
    wide = _trees.full_like(params, 0)
    for name, allowed, value in (
        ("curvature", FINITE, model.curvature),
        ("noise_variance", POSITIVE, model.noise_variance),
        ("prior_variance", POSITIVE, model.prior_variance),
        ("prior_mean", FINITE, model.prior_mean),
    ):
        allowed.check_leaves(owner, name, value)
        _trees.spread(owner, name, value, wide)
    # Arrays of its own, which can be donated: not those of the model.
    hazard = Hazard(*(jnp.array(x, _dtype(wide)) for x in on_grid(owner, model.hazard)))
    return jax.tree.map(jnp.array, new_task(owner, model, wide)), wide, hazard


def known(curvature: PyTree) -> PyTree:
    """The curvature as a state holds it: arrays of its own, in float32 at least."""

    def leaf(h: Any) -> Array:
        return jnp.array(h, _trees.wide_dtype(jnp.asarray(h).dtype))

    return jax.tree.map(leaf, curvature)


def new_task(owner: str, model: SwitchingOptimum, like: PyTree) -> Task:
    """The belief about a task of which nothing was seen yet."""
    mean = _trees.spread(owner, "prior_mean", model.prior_mean, like)
    return Task(mean, _trees.spread(owner, "prior_variance", model.prior_variance, like))


def hazards(owner: str, model: SwitchingOptimum, position: PyTree) -> Array:
    """The hazards [grid] of the model as it is now: they may be injected, or follow a schedule."""
    return on_grid(owner, model.hazard)[0].astype(_dtype(position))


def condition(
    owner: str, model: SwitchingOptimum, task: Task, position: PyTree, gradient: PyTree
) -> tuple[Task, PyTree]:
    r"""Condition the belief about a task on $y = h(x - \theta^*) + N(0, R)$, $x$ the position.

    Returns:
        The belief, and the log density of every entry, 0 where missing.
    """
    h = _trees.spread(owner, "curvature", model.curvature, position)
    noise = _trees.spread(owner, "noise_variance", model.noise_variance, position)
    num_entries = max(1, sum(x.size for x in jax.tree.leaves(position)))

    def leaf(
        m: Array, v: Array, x: Array, y: Array, h: Array, noise: Array
    ) -> tuple[Array, Array, Array]:
        seen = _trees.is_observed(y)
        total = h * h * v + noise
        scale = lax.rsqrt(total)
        error = jnp.where(seen, y, 0).astype(m.dtype) - h * (x - m)
        gain = jnp.where(seen, -h * v * scale**2, 0)
        # If their sum overflowed in every task there would be none to believe in.
        square = jnp.minimum((error * scale) ** 2, jnp.finfo(m.dtype).max / (4 * num_entries))
        density = -(math.log(2 * math.pi) + jnp.log(total) + square) / 2
        density = jnp.where(seen, density, 0)
        return m + gain * error, jnp.where(seen, v * noise * scale**2, v), density

    mean, variance, density = _trees.unzip(
        leaf, (0, 0, 0), task.mean, task.variance, position, gradient, h, noise
    )
    return Task(mean, variance), density


def evidence(density: PyTree, reference: PyTree) -> Array:
    """The log of a ratio of densities of all entries, from those of each.

    Differences are taken before the sum: of a million entries that say nothing, nothing is left.
    """
    ratios = jax.tree.map(lambda d, r: jnp.sum(d - r), density, reference)
    return sum(jax.tree.leaves(ratios), _trees.scalar_like(reference, 0.0))


def total(density: PyTree) -> Array:
    """The log density of all entries together."""
    return sum((d.sum() for d in jax.tree.leaves(density)), _trees.scalar_like(density, 0.0))


def transition(hazards: Array, started: Array) -> tuple[Array, Array]:
    """Log probabilities [grid] of no switch and of a switch, for each hazard."""
    # With derivatives that are finite, if not right, at 0 and 1.
    sure, never = hazards == 1, hazards == 0
    stay = jnp.where(sure, -jnp.inf, jnp.log1p(-jnp.where(sure, 0, hazards)))
    switch = jnp.where(never, -jnp.inf, jnp.log(jnp.where(never, 1, hazards)))
    return jnp.where(started, stay, 0), jnp.where(started, switch, -jnp.inf)


def log_sum(x: Array, axis: int) -> Array:
    """``logsumexp``, whose derivative is 0 and not NaN where all is minus infinity."""
    none = jnp.isneginf(x).all(axis, keepdims=True)
    total = jax.nn.logsumexp(jnp.where(none, 0, x), axis=axis)
    return jnp.where(none.squeeze(axis), -jnp.inf, total)


def mixture(weight: Array, first: Task, second: Task) -> Task:
    """The moments of a mixture of two, ``weight`` that of the second."""

    def mean(m: Array, other: Array) -> Array:
        return (1 - weight) * m + weight * other

    def variance(m: Array, v: Array, other_m: Array, other_v: Array) -> Array:
        return mean(v, other_v) + weight * (1 - weight) * square(other_m - m)

    means = jax.tree.map(mean, first.mean, second.mean)
    return Task(means, jax.tree.map(variance, *first, *second))


def square(x: Array) -> Array:
    """A square, capped where a variance of that size would overflow in what follows."""
    return jnp.minimum(x**2, jnp.finfo(x.dtype).max ** 0.75)


def move(owner: str, position: PyTree, displacement: PyTree) -> PyTree:
    """The position after a displacement.

    Raises:
        ValueError: there is no displacement, or it is not like the parameters.
    """
    check_displacement(owner, displacement)
    check_shapes(owner, "displacement", displacement, position)
    return jax.tree.map(lambda x, d: x + d.astype(x.dtype), position, displacement)


def check_shapes(owner: str, name: str, tree: PyTree, position: PyTree) -> None:
    """Raise unless a tree has the shapes of the parameters.

    Raises:
        ValueError: names both.
    """
    want, got = (jax.tree.map(jnp.shape, x) for x in (position, tree))
    if want != got:
        raise ValueError(f"{owner}: {name} must have the parameters' shapes {want}, got {got}.")


def read(curvature: PyTree, task: Task, position: PyTree, hazard: Hazard) -> Posterior:
    """The posterior over gradient and curvature, from moments of the optimum."""
    h = _trees.spread("known_curvature", "curvature", curvature, position)
    return Posterior(
        gradient_mean=jax.tree.map(lambda h, x, m: h * (x - m), h, position, task.mean),
        gradient_variance=jax.tree.map(lambda h, v: h * h * v, h, task.variance),
        curvature_mean=h,
        curvature_variance=jax.tree.map(jnp.zeros_like, h),
        distance_mean=jax.tree.map(jnp.subtract, task.mean, position),
        distance_variance=task.variance,
        hazard=expected(hazard),
    )


def expected(hazard: Hazard) -> Array:
    """The expected hazard."""
    mean = jnp.exp(hazard.log_weights) @ hazard.hazards
    return jnp.minimum(mean, hazard.hazards.max())  # and not above it by rounding


def info(
    owner: str,
    model: SwitchingOptimum,
    predicted: Task,
    position: PyTree,
    gradient: PyTree,
    log_density: Array,
    switch_probability: Array,
    hazard: Hazard,
) -> Info:
    """Diagnostics, from the moments of the predicted optimum."""
    h = _trees.spread(owner, "curvature", model.curvature, position)
    noise = _trees.spread(owner, "noise_variance", model.noise_variance, position)
    prediction = jax.tree.map(lambda h, x, m: h * (x - m), h, position, predicted.mean)
    error = _trees.innovation(gradient, prediction)

    def surprise(e: Array, h: Array, v: Array, noise: Array) -> Array:
        return e**2 / (h * h * v + noise)

    return Info(
        innovation=error,
        log_density=log_density,
        missing=jax.tree.map(lambda y: ~_trees.is_observed(y), gradient),
        surprise=jax.tree.map(surprise, error, h, predicted.variance, noise),
        switch_probability=switch_probability,
        hazard=expected(hazard),
    )


def _dtype(wide: PyTree) -> Any:
    return _trees.wide_dtype(*jax.tree.leaves(wide))


def facts(model: SwitchingOptimum, kept: str, time: str) -> tuple[Fact, ...]:
    """How long tasks are, and where the curvature is from."""
    learned = isinstance(model.hazard, HazardGrid)
    length = "learned" if learned else counted(reciprocal(model.hazard), time)
    sentence = "On average; then the optimum is drawn anew, for all parameters at once. "
    return (
        Fact("task length", length, sentence + kept),
        Fact("curvature", "known", "The curvature is known, and the same for all tasks."),
    )
