"""What the rules of the atlas are compared on: a random problem, and a small network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from beliefnav import sensors
from beliefnav.navigation import forwarding

__all__ = [
    "DIAGONAL",
    "HESSIAN",
    "HUTCHINSON",
    "Problem",
    "Sensor",
    "network",
    "quadratic",
    "trajectory",
]

PyTree = Any


class Problem(NamedTuple):
    """A loss seen through noisy gradients.

    Attributes:
        name: what it is.
        params: where to start, a tree of matrices.
        loss: ``(params, batch) -> scalar``.
        batches: the batches of all steps, [step, ...].
        fisher: ``(kind) -> (params -> metric)``: the exact Fisher information of the whole problem,
            by the function of `beliefnav.sensors` that is given.
    """

    name: str
    params: PyTree
    loss: Callable[[PyTree, Array], Array]
    batches: Array
    fisher: Callable[[Callable[..., Any]], Callable[[PyTree], Any]]


def quadratic(num_steps: int, noise: float = 0.3) -> Problem:
    r"""$\tfrac12 (\theta-\theta^*)^\top H (\theta-\theta^*)$ in 39 coupled parameters.

    The eigenvalues of $H$ go from 0.1 to 10 in random directions; every gradient has its own noise.
    """
    keys = jax.random.split(jax.random.key(1), 5)
    params = {"a": jax.random.normal(keys[0], (6, 4)), "b": jax.random.normal(keys[1], (3, 5))}
    flat, _ = ravel_pytree(params)
    size = flat.size
    basis, _ = jnp.linalg.qr(jax.random.normal(keys[2], (size, size)))
    root = basis * jnp.sqrt(jnp.logspace(-1, 1, size))[None, :]
    optimum = jax.random.normal(keys[3], (size,))

    def residual(params: PyTree) -> Array:
        return root.T @ (ravel_pytree(params)[0] - optimum)

    def loss(params: PyTree, push: Array) -> Array:
        return jnp.sum(residual(params) ** 2) / 2 + push @ ravel_pytree(params)[0]

    def fisher(kind: Callable[..., Any]) -> Callable[[PyTree], Any]:
        return lambda params: kind(
            lambda p: residual(p)[:, None], lambda r: jnp.sum(r**2) / 2, params
        )

    pushes = noise * jax.random.normal(keys[4], (num_steps, size))
    return Problem("random quadratic", params, loss, pushes, fisher)


def network(num_steps: int, batch_size: int = 32) -> Problem:
    """A tanh network of 8-6-3 without biases, on labels of a random one, with weight penalty 0.1.

    The penalty belongs to the loss; it keeps the labels' noise from being learned by heart.
    """
    keys = jax.random.split(jax.random.key(2), 7)
    inputs = jax.random.normal(keys[0], (64, 8))

    def weights(key: Array, other: Array) -> PyTree:
        return {
            "hidden": jax.random.normal(key, (8, 6)) / jnp.sqrt(8.0),
            "out": jax.random.normal(other, (6, 3)) / jnp.sqrt(6.0),
        }

    def logits(params: PyTree, x: Array) -> Array:
        return jnp.tanh(x @ params["hidden"]) @ params["out"]

    teacher = jax.tree.map(lambda w: 3 * w, weights(keys[1], keys[2]))
    labels = jax.random.categorical(keys[3], logits(teacher, inputs))

    def cross_entropy(outputs: Array, labels: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    def loss(params: PyTree, batch: Array) -> Array:
        penalty = sum(jnp.sum(w**2) for w in jax.tree.leaves(params)) / 20
        return cross_entropy(logits(params, inputs[batch]), labels[batch]) + penalty

    def fisher(kind: Callable[..., Any]) -> Callable[[PyTree], Any]:
        return lambda params: kind(
            logits, lambda outputs: cross_entropy(outputs, labels), params, inputs
        )

    batches = jax.random.randint(keys[6], (num_steps, batch_size), 0, len(inputs))
    return Problem("small network", weights(keys[4], keys[5]), loss, batches, fisher)


class Sensor(NamedTuple):
    """A reading of the curvature that a rule is given at every step, and its name.

    Attributes:
        name: what is read.
        read: ``(loss, params, batch, key) -> curvature``.
    """

    name: str
    read: Callable[[Callable[..., Array], PyTree, Array, Array], Any]


def _diagonal(loss: Callable[..., Array], params: PyTree, batch: Array, key: Array) -> PyTree:
    del key
    _, unravel = ravel_pytree(params)
    return unravel(jnp.diagonal(sensors.hessian(loss, params, batch)))


HESSIAN = Sensor("Hessian", lambda loss, p, batch, _: sensors.hessian(loss, p, batch))
DIAGONAL = Sensor("diagonal of the Hessian", _diagonal)
HUTCHINSON = Sensor(
    "Hutchinson's estimate", lambda loss, p, batch, key: sensors.hutchinson(loss, p, key, batch)
)


def trajectory(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    sensor: Sensor | None,
    read: Callable[[Any, PyTree], PyTree] | None = None,
) -> Array:
    """The parameters after every step [step, n], on the same batches for every optimizer.

    Args:
        problem: what to descend.
        optimizer: any.
        sensor: what it gets as ``curvature``.
        read: ``(state, parameters) ->`` those to evaluate; ``None``: as they are.

    Returns:
        The raveled parameters, relative to the start.
    """
    extended = forwarding(optimizer)
    start, _ = ravel_pytree(problem.params)

    def step(carry: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, Array]:
        params, state = carry
        batch, key = now
        gradient = jax.grad(problem.loss)(params, batch)
        extra = {}
        if sensor is not None:
            extra["curvature"] = sensor.read(problem.loss, params, batch, key)
        updates, state = extended.update(gradient, state, params, **extra)
        params = jax.tree.map(jnp.add, params, updates)
        evaluated = params if read is None else read(state, params)
        return (params, state), ravel_pytree(evaluated)[0] - start

    keys = jax.random.split(jax.random.key(3), len(problem.batches))
    carry = problem.params, extended.init(problem.params)
    return jax.lax.scan(step, carry, (problem.batches, keys))[1]
