"""Paths of an arm: what is handed over at their end, and what was believed along them."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from experiments.kept import Kept
from experiments.no_rate.arms import READINGS, Arm
from experiments.tasks import measuring
from experiments.tasks.measuring import Budget
from experiments.tasks.task import Task

STRETCHES = 100
"""Into how many stretches a stage is cut, at the most; the distance is read at the end of each."""

Paths = dict[str, np.ndarray]


def follow(stages: Sequence[Task], arm: Arm, keys: Array) -> Paths:
    """Learn one task after another, a path for every key, side by side.

    Start and batches of the first task are those of `experiments.tasks.measuring.train`, so that
    arms can be compared seed by seed.

    Args:
        stages: tasks with the same parameters; the last is what scores.
        arm: what learns, made for the first.
        keys: of the paths [seed].

    Returns:
        "READING error" and "READING nats" [seed] on the test split, infinite of what diverged;
        "READING largest" and "READING rms" [seed], entries of the way from the start; "distance"
        and "loss" [seed, stretch], the mean over the stretch; "steps" [stretch], taken at its end.
    """
    run = jax.jit(jax.vmap(lambda *begin: _path(stages, arm, *begin)))
    return _finished(run(*_begin(stages[0], keys)), stages)


def guessed(task: Task, make: Callable[[Any], Arm], guesses: Sequence[float], keys: Array) -> Paths:
    """What `follow` returns, with an axis of first guesses of the distance in front [guess]."""
    begin = _begin(task, keys)

    def of_guess(guess: Array) -> dict[str, Array]:
        return jax.vmap(lambda *begin: _path((task,), make(guess), *begin))(*begin)

    return _finished(jax.jit(jax.vmap(of_guess))(jnp.asarray(guesses, jnp.float32)), (task,))


def _begin(task: Task, keys: Array) -> tuple[Any, Array]:
    """Initial parameters, and keys of the batches: outside of programs, which compile sooner."""
    key_start, key_batches = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    return jax.jit(jax.vmap(task.init))(key_start), key_batches


def _path(stages: Sequence[Task], arm: Arm, start: Any, key: Array) -> dict[str, Array]:
    optimizer = optax.with_extra_args_support(arm.make(stages[0]))
    carry = start, optimizer.init(start)
    seen = []
    for stage in stages:
        batches = jax.random.split(key, stage.steps).reshape(_stretches(stage), -1)
        carry, along = lax.scan(partial(_stretch, stage, arm, optimizer), carry, batches)
        seen.append(along)
        key = jax.random.fold_in(key, len(seen))
    params, state = carry
    handed = [read(state, params) for read in READINGS.values()]

    def judged(params: Any) -> dict[str, Array]:
        error, nats = stages[-1].score(params, "test")
        return {"error": error, "nats": nats} | _size(jax.tree.map(jnp.subtract, params, start))

    judgement = lax.map(judged, jax.tree.map(lambda *x: jnp.stack(x), *handed))
    named = {f"{name} {k}": x[i] for i, name in enumerate(READINGS) for k, x in judgement.items()}
    return named | jax.tree.map(lambda *parts: jnp.concatenate(parts), *seen)


def _stretch(task: Task, arm: Arm, optimizer: Any, carry: Any, keys: Array) -> Any:
    """A step for every key; the distance after the last, and the mean loss before them."""

    def step(carry: Any, key: Array) -> Any:
        params, state = carry

        def loss(params: Any) -> Array:
            return task.loss(params, key)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params, value_fn=loss)
        return (optax.apply_updates(params, updates), state), value

    carry, losses = lax.scan(step, carry, keys)
    return carry, {"distance": arm.distance(carry[1]), "loss": losses.mean()}


def _finished(found: Mapping[str, Array], stages: Sequence[Task]) -> Paths:
    """As arrays of NumPy, with infinite scores of what diverged."""
    paths = {name: np.asarray(x, float) for name, x in found.items()}
    for name, x in paths.items():
        if name.endswith((" error", " nats")):
            paths[name] = np.where(np.isfinite(x), x, np.inf)
    each = [np.full(_stretches(stage), stage.steps // _stretches(stage)) for stage in stages]
    return paths | {"steps": np.cumsum(np.concatenate(each))}


def once(kept: Kept, where: str, stages: Sequence[Task], arm: Arm, budget: Budget) -> Paths:
    """Follow the paths of the end, unless they are kept under a name that says what is learned."""
    keys = measuring.keys_of(budget)[1]
    return kept.measure(where, depends(stages, budget), lambda: follow(stages, arm, keys))


def depends(stages: Sequence[Task], budget: Budget) -> dict[str, Any]:
    """What paths depend on besides what their name says."""
    return {"steps": [stage.steps for stage in stages]} | budget._asdict()


def _stretches(task: Task) -> int:
    return math.gcd(task.steps, STRETCHES)


def _size(tree: Any) -> dict[str, Array]:
    """Of the entries of a tree: the largest size, and the root of the mean square."""
    entries = jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
    return {"largest": jnp.max(jnp.abs(entries)), "rms": jnp.sqrt(jnp.mean(entries**2))}
