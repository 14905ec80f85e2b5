"""Beliefs whose posterior is a small Gaussian for every parameter: what they have in common."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import is_number
from beliefnav.beliefs import gaussian
from beliefnav.beliefs.contract import Filter, Info, Posterior
from beliefnav.beliefs.gaussian import Conditional, Gaussian, Row

PyTree = Any


class Sensor(NamedTuple):
    r"""A scalar observation $y = h^\top x + N(0, R)$ of the state of one parameter.

    Attributes:
        row: $h$.
        value: $y$ [...]; NaN or infinite where missing.
        noise_variance: $R > 0$.
    """

    row: Row
    value: Array
    noise_variance: ArrayLike

    def filled(self) -> "Sensor":
        """The same reading with a finite value; a missing one has a row of zeros: nothing said."""
        seen = jnp.isfinite(self.value)
        mask = seen.astype(self.value.dtype)
        row = tuple(0 if is_number(h, 0) else h * mask for h in self.row)
        return Sensor(row, jnp.where(seen, self.value, 0), self.noise_variance)


@runtime_checkable
class LinearGaussian(Protocol):
    """A linear-Gaussian model of the stream of each parameter, for whole recordings.

    All methods are about one leaf. ``inputs`` is a tree of arrays [step, ...]; the others see one
    step of it. The model starts at ``prior``, before the transition into the first step.
    """

    def filter(self) -> Filter:
        """The online filter."""
        ...

    def inputs(
        self,
        gradient: Array,
        displacement: Array | None,
        curvature: Array | None,
        context: Any = None,
    ) -> tuple[Any, Any]:
        """What ``transition`` and ``sensors`` need to know, from a recording [step, ...].

        The second result is the ``context`` of a recording that continues this one.
        """
        ...

    def prior(self) -> Gaussian:
        """The belief before the transition into the first step."""
        ...

    def transition(self, inputs: Any) -> Conditional:
        """The transition into a step."""
        ...

    def sensors(self, inputs: Any) -> Sequence[Sensor]:
        """The observations made at a step."""
        ...

    def read(self, belief: Gaussian) -> Posterior:
        """The posterior, from the belief about the state."""
        ...


def full(belief: Gaussian, like: Array) -> Gaussian:
    """A Gaussian whose entries are arrays of the shape of ``like``, in at least float32."""
    dtype = jnp.promote_types(jnp.result_type(like), jnp.float32)
    return jax.tree.map(lambda x: jnp.full_like(like, x, dtype=dtype), belief)


def cast(belief: Gaussian, dtype: Any) -> Gaussian:
    """A Gaussian in the dtype of the state, whatever that of the hyper-parameters."""
    return jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), belief)


def observe(belief: Gaussian, sensors: Sequence[Sensor]) -> tuple[Gaussian, Info]:
    """Condition on all sensors of one step; diagnostics are those of the first.

    The density and the surprise are of all of them.
    """
    log_density: Any = 0
    surprise: Any = 0
    infos = []
    for sensor in sensors:
        seen = jnp.isfinite(sensor.value)
        belief, reading = gaussian.condition(belief, *sensor.filled())
        density, square, scale = normal_reading(reading.innovation, reading.variance, seen)
        log_density += density
        surprise += jnp.minimum(square, jnp.finfo(square.dtype).max / len(sensors))
        gain = gaussian.dot(sensor.row, reading.gain)
        infos.append((reading.innovation, gain, ~seen, scale))
    innovation, gain, missing, scale = infos[0]
    return belief, Info(innovation, log_density, gain, missing, surprise, scale)


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


def update(
    sensors: Callable[..., Sequence[Sensor]], belief: Gaussian, *readings: PyTree
) -> tuple[Gaussian, Info]:
    """Condition a Gaussian of trees on the sensors that ``sensors(*readings)`` gives for a leaf."""

    def leaf(belief: Gaussian, *values: Array | None) -> tuple[Gaussian, Info]:
        dtype = belief.mean[0].dtype
        wide = (None if x is None else x.astype(dtype) for x in values)
        belief, info = observe(belief, sensors(*wide))
        return cast(belief, dtype), info

    placeholder = gaussian.independent((0,) * len(belief.mean), (0,) * len(belief.mean))
    return per_leaf(leaf, (placeholder, Info(0, 0, 0, 0, 0, 0)), belief, *readings)


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
