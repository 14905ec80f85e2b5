"""What the filters of a switching optimum have in common: the Gaussian belief about one task."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from beliefnav.ssm import Info, SwitchingOptimum, TaskPosterior, _trees
from beliefnav.ssm.hazard_grid import on_grid

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
    """The belief about a new task, the position, and the belief about the hazard."""
    wide = _trees.full_like(params, 0)
    # Arrays of its own, which can be donated: not those of the model.
    hazard = Hazard(*(jnp.array(x, _dtype(wide)) for x in on_grid(owner, model.hazard)))
    for name in ("curvature", "noise_variance"):
        spread(owner, name, getattr(model, name), wide)
    return jax.tree.map(jnp.array, new_task(owner, model, wide)), wide, hazard


def new_task(owner: str, model: SwitchingOptimum, like: PyTree) -> Task:
    """The belief about a task of which nothing was seen yet."""
    mean = spread(owner, "prior_mean", model.prior_mean, like)
    return Task(mean, spread(owner, "prior_variance", model.prior_variance, like))


def condition(
    owner: str, model: SwitchingOptimum, task: Task, position: PyTree, gradient: PyTree
) -> tuple[Task, Array]:
    r"""Condition the belief about a task on $y = h(x - \theta^*) + N(0, R)$, $x$ the position.

    Returns:
        The belief, and the log density of all that was observed, a scalar.
    """
    h = spread(owner, "curvature", model.curvature, position)
    noise = spread(owner, "noise_variance", model.noise_variance, position)
    num_entries = sum(x.size for x in jax.tree.leaves(position))

    def leaf(
        m: Array, v: Array, x: Array, y: Array, h: Array, noise: Array
    ) -> tuple[Array, Array, Array]:
        seen = jnp.isfinite(y)
        total = h * h * v + noise
        scale = lax.rsqrt(total)
        error = jnp.where(seen, y, 0).astype(m.dtype) - h * (x - m)
        gain = jnp.where(seen, -h * v * scale**2, 0)
        # If their sum overflowed in every task there would be none to believe in.
        square = jnp.minimum((error * scale) ** 2, jnp.finfo(m.dtype).max / (4 * num_entries))
        density = -(math.log(2 * math.pi) + jnp.log(total) + square) / 2
        density = jnp.where(seen, density, 0).sum()
        return m + gain * error, jnp.where(seen, v * noise * scale**2, v), density

    mean, variance, density = _trees.unzip(
        leaf, (0, 0, 0), task.mean, task.variance, position, gradient, h, noise
    )
    return Task(mean, variance), sum(jax.tree.leaves(density), jnp.zeros((), _dtype(position)))


def transition(hazards: Array, started: Array) -> tuple[Array, Array]:
    """Log probabilities [grid] of no switch and of a switch, for each hazard."""
    stay = jnp.where(started, jnp.log1p(-hazards), 0)
    return stay, jnp.where(started, jnp.log(hazards), -jnp.inf)


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
        ValueError: there is no displacement.
    """
    if displacement is None:
        raise ValueError(
            f"{owner}: predict needs the displacement of the parameters since the last "
            "observation, zeros at first."
        )
    return jax.tree.map(lambda x, d: x + d.astype(x.dtype), position, displacement)


def read(curvature: PyTree, task: Task, position: PyTree, hazard: Hazard) -> TaskPosterior:
    """The posterior over gradient and curvature, from moments of the optimum."""
    h = spread("known_curvature", "curvature", curvature, position)
    return TaskPosterior(
        gradient_mean=jax.tree.map(lambda h, x, m: h * (x - m), h, position, task.mean),
        gradient_variance=jax.tree.map(lambda h, v: h * h * v, h, task.variance),
        curvature_mean=h,
        curvature_variance=jax.tree.map(jnp.zeros_like, h),
        hazard=expected(hazard),
    )


def expected(hazard: Hazard) -> Array:
    """The expected hazard."""
    return jnp.exp(hazard.log_weights) @ hazard.hazards


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
    h = spread(owner, "curvature", model.curvature, position)
    noise = spread(owner, "noise_variance", model.noise_variance, position)
    prediction = jax.tree.map(lambda h, x, m: h * (x - m), h, position, predicted.mean)
    error = _trees.innovation(gradient, prediction)

    def surprise(e: Array, h: Array, v: Array, noise: Array) -> Array:
        return e**2 / (h * h * v + noise)

    return Info(
        innovation=error,
        log_density=log_density,
        missing=jax.tree.map(lambda y: ~jnp.isfinite(y), gradient),
        surprise=jax.tree.map(surprise, error, h, predicted.variance, noise),
        switch_probability=switch_probability,
        hazard=expected(hazard),
    )


def spread(owner: str, name: str, value: PyTree, like: PyTree) -> PyTree:
    """A number, an array or a tree as a tree like the parameters, in the dtypes of ``like``.

    Raises:
        ValueError: it does not fit the parameters; names the owner, the value and the shapes.
    """
    leaves, treedef = jax.tree.flatten(like)
    whole = jax.tree.structure(value) == jax.tree.structure(0)
    if not whole and jax.tree.structure(value) != treedef:
        raise ValueError(
            f"{owner}: {name} must be a number, an array or a tree like the parameters, whose "
            f"structure is {treedef}; got {jax.tree.structure(value)}."
        )
    values = [value] * len(leaves) if whole else jax.tree.leaves(value)
    for x, leaf in zip(values, leaves, strict=True):
        if not _fits(jnp.shape(x), leaf.shape):
            raise ValueError(
                f"{owner}: {name} of shape {jnp.shape(x)} does not broadcast to a parameter of "
                f"shape {leaf.shape}."
            )
    return treedef.unflatten(
        [
            jnp.broadcast_to(jnp.asarray(x).astype(leaf.dtype), leaf.shape)
            for x, leaf in zip(values, leaves, strict=True)
        ]
    )


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return jnp.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _dtype(wide: PyTree) -> Any:
    return jnp.result_type(jnp.float32, *jax.tree.leaves(wide))
