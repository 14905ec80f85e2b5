"""Beliefs whose posterior is a small Gaussian for every parameter: what they have in common."""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from beliefnav import _trees
from beliefnav._trees import select
from beliefnav.beliefs import gaussian
from beliefnav.beliefs.contract import Info, Sensor, Surprise
from beliefnav.beliefs.gaussian import Gaussian, Reading

__all__ = [
    "Met",
    "Sensors",
    "cast",
    "check_displacement",
    "condition",
    "diagnose",
    "diagnostics_of",
    "full",
    "normal_reading",
    "per_leaf",
    "reciprocal",
    "start",
    "surprise_of",
    "update",
    "weigh",
]

PyTree = Any


def full(belief: Gaussian, like: Array) -> Gaussian:
    """A Gaussian whose entries are arrays of the shape of ``like``, in at least float32."""
    dtype = _trees.wide_dtype(jnp.result_type(like))
    return jax.tree.map(lambda x: jnp.full_like(like, x, dtype=dtype), belief)


def cast(belief: Gaussian, dtype: Any) -> Gaussian:
    """A Gaussian in the dtype of the state, whatever that of the hyper-parameters."""
    return jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), belief)


class Met(NamedTuple):
    """A reading of one sensor, and what it met.

    Attributes:
        sensor: with its value.
        reading: innovation, predictive variance and gain.
    """

    sensor: Sensor
    reading: Reading


def condition(belief: Gaussian, sensors: Iterable[Sensor]) -> tuple[Gaussian, list[Met]]:
    """Condition the belief about one leaf on all sensors of one step, one after the other."""
    met = []
    for sensor in sensors:
        belief, reading = gaussian.condition(belief, *sensor, _trees.is_observed(sensor.value))
        met.append(Met(sensor, reading))
    return belief, met


def surprise_of(met: Sequence[Met]) -> Surprise:
    """How surprising the readings of one step were, together."""
    squares = (reading.innovation**2 * reciprocal(reading.variance) for _, reading in met)
    counts = (jnp.asarray(reading.weight) for _, reading in met)
    return Surprise(functools.reduce(operator.add, squares), functools.reduce(operator.add, counts))


def diagnostics_of(met: Sequence[Met]) -> Info:
    """Diagnostics are those of the first sensor, density and surprise those of all."""
    log_density: Any = 0
    for sensor, reading in met:
        seen = _trees.is_observed(sensor.value)
        log_density += normal_reading(reading.innovation, reading.variance, seen)[0]
    sensor, reading = met[0]
    seen = _trees.is_observed(sensor.value)
    surprise = surprise_of(met).square
    return Info(
        innovation=reading.innovation,
        log_density=log_density,
        gain=select(seen, gaussian.dot(sensor.row, reading.gain), 0),
        missing=~seen,
        surprise=jnp.minimum(surprise, jnp.finfo(surprise.dtype).max),
        predictive_scale=normal_reading(reading.innovation, reading.variance, seen)[2],
    )


@jax.custom_jvp
def reciprocal(x: Array) -> Array:
    """``1 / x``, whose derivative needs no division, and overflows only where it does itself."""
    return 1 / x


@reciprocal.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    inverse = reciprocal(*primals)
    return inverse, -(inverse * tangents[0]) * inverse


def normal_reading(error: Array, variance: Array, seen: Array) -> tuple[Array, Array, Array]:
    r"""Log density, surprise $e^2/S$ and scale $\sqrt S$ of a reading; 0 where it is missing.

    Written with $1/S$, which the gain needs too: divisions are what a small filter spends time on.
    """
    surprise = jnp.where(seen, error**2 * reciprocal(variance), 0)
    log_density = -(math.log(2 * math.pi) + jnp.log(variance) + surprise) / 2
    scale = jnp.sqrt(variance)
    return jnp.where(seen, log_density, 0), surprise, jnp.where(seen, scale, 0)


def start(prior: Gaussian, params: PyTree) -> Gaussian:
    """The prior of every parameter: a Gaussian of trees."""
    return _trees.unzip(lambda p: full(prior, p), prior, params)


Sensors = Callable[..., Sequence[Sensor]]


def update(sensors: Sensors, belief: Gaussian, *readings: PyTree) -> Gaussian:
    """Condition a Gaussian of trees on the sensors that ``sensors(*readings)`` gives for a leaf."""
    return _on_leaves(lambda conditioned, _: conditioned, belief, belief, sensors, *readings)


def weigh(sensors: Sensors, belief: Gaussian, *readings: PyTree) -> tuple[Gaussian, Surprise]:
    """The same, and how surprising the readings were."""
    like = (belief, Surprise(0, 0))
    return _on_leaves(lambda b, met: (b, surprise_of(met)), like, belief, sensors, *readings)


def diagnose(sensors: Sensors, belief: Gaussian, *readings: PyTree) -> Info:
    """What the readings do to a Gaussian of trees."""
    like = Info(0, 0, 0, 0, 0, 0)
    return _on_leaves(lambda _, met: diagnostics_of(met), like, belief, sensors, *readings)


def _on_leaves(
    result: Callable[[Gaussian, list[Met]], Any],
    like: Any,
    belief: Gaussian,
    sensors: Sensors,
    *readings: PyTree,
) -> Any:
    def leaf(belief: Gaussian, *values: Array | None) -> Any:
        dtype = belief.mean[0].dtype
        wide = (None if x is None else x.astype(dtype) for x in values)
        conditioned, met = condition(belief, sensors(*wide))
        return result(cast(conditioned, dtype), met)

    zeros = gaussian.independent((0,) * len(belief.mean), (0,) * len(belief.mean))
    like = jax.tree.map(
        lambda x: zeros if isinstance(x, Gaussian) else x,
        like,
        is_leaf=lambda x: isinstance(x, Gaussian),
    )
    return per_leaf(leaf, like, belief, *readings)


def check_displacement(owner: str, displacement: PyTree) -> None:
    """Raise unless there is a displacement to predict over.

    Raises:
        ValueError: names the owner.
    """
    if displacement is None:
        raise ValueError(
            f"{owner}: predict needs the displacement of the parameters since the last "
            "observation, zeros at first."
        )


def per_leaf(f: Callable[..., Any], like: Any, belief: Gaussian, *rest: PyTree) -> Any:
    """Apply ``f(Gaussian of leaves, *leaves)`` to a Gaussian of trees; see `_trees.unzip`."""
    d, n = len(belief.mean), len(belief.factor)

    def leaf(*entries: Any) -> Any:
        own, others = entries[: 2 * d + n], entries[2 * d + n :]
        return f(Gaussian(own[:d], own[d : d + n], own[d + n :]), *others)

    return _trees.unzip(leaf, like, *belief.mean, *belief.factor, *belief.variances, *rest)
