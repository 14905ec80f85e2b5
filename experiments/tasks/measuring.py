"""Train a rule on a task, choose its numbers on the validation split, look at the test split."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from experiments import training
from experiments.kept import Kept
from experiments.report import interval
from experiments.tasks.averaging import averaging
from experiments.tasks.rules import Rule
from experiments.tasks.task import SPLITS, Task

SCHEDULES: Mapping[str, Callable[[Any, int], Any]] = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "number": lambda rate, steps: rate,
}
"""Name -> ``(largest rate, steps) -> what the rule takes for a rate``."""


class Setup(NamedTuple):
    """How a rule is trained on a task.

    Attributes:
        rule: the rule.
        schedule: one of `SCHEDULES`.
        powers: of the averages that are read off the path.
    """

    rule: Rule
    schedule: str = "constant"
    powers: tuple[float, ...] = ()


def train(
    task: Task, setup: Setup, rates: Any, keys: Array, splits: Sequence[str] = SPLITS
) -> dict[str, np.ndarray]:
    """Scores of every rate [rate] and key [seed]; a reading is the last iterate, or an average.

    Seeds go side by side, rates one after another.

    Returns:
        ``"SPLIT error"`` and ``"SPLIT nats"``, [rate, seed, reading] each; what diverged scores as
        infinite.
    """

    def path(rate: Array, key: Array) -> Array:
        schedule = SCHEDULES[setup.schedule](rate, task.steps)
        optimizer = averaging(setup.rule.make(schedule), setup.powers)
        key_start, key_batches = jax.random.split(key)
        params = task.init(key_start)
        batches = jax.random.split(key_batches, task.steps)
        carry = params, optimizer.init(params)
        (params, state), _ = training.train(task.loss, optimizer, carry, batches)
        last = setup.rule.read(state.inner, params)
        readings = jax.tree.map(lambda x, a: jnp.concatenate([x[None], a]), last, state.averages)

        def score(split: str, params: Any) -> Array:
            return jnp.stack(task.score(params, split))

        scores = [lax.map(functools.partial(score, split), readings) for split in splits]
        return jnp.stack(scores)  # [split, reading, error or nats]

    of_seeds = jax.vmap(path, (None, 0))
    run = jax.jit(lambda rates: lax.map(lambda rate: of_seeds(rate, keys), rates))
    found = np.asarray(run(jnp.asarray(rates, jnp.float32)), float)
    found = np.moveaxis(np.where(np.isfinite(found), found, np.inf), (2, 4), (0, 1))
    return {
        f"{split} {name}": found[i, j]
        for i, split in enumerate(splits)
        for j, name in enumerate(("error", "nats"))
    }


def choose(scores: Mapping[str, np.ndarray], readings: Sequence[int]) -> tuple[int, int]:
    """Rate and reading of the lowest validation error, averaged over seeds.

    Among equal errors the one with the lowest loss is chosen.

    Args:
        scores: of `train`.
        readings: positions of those to choose from.

    Returns:
        Positions of rate and reading.
    """
    error, nats = (
        scores[f"validation {name}"].mean(1)[:, readings].ravel() for name in ("error", "nats")
    )
    rate, reading = divmod(int(np.lexsort((nats, error))[0]), len(readings))
    return rate, readings[reading]


class Budget(NamedTuple):
    """What every arm may spend.

    Attributes:
        seed: of all keys.
        tuning_seeds: paths for each rate, to choose by.
        seeds: paths at what was chosen; others than those.
    """

    seed: int
    tuning_seeds: int
    seeds: int


def keys_of(budget: Budget) -> tuple[Array, Array]:
    """Those of the paths to choose by, and those of the paths at what was chosen."""
    tuning, final = jax.random.split(jax.random.key(budget.seed))
    return jax.random.split(tuning, budget.tuning_seeds), jax.random.split(final, budget.seeds)


class Found(NamedTuple):
    """What an arm came to.

    Attributes:
        rate: the chosen one.
        power: of the chosen average; ``None`` of the last iterate.
        scores: ``"SPLIT error"`` and ``"SPLIT nats"`` [seed].
    """

    rate: float
    power: float | None
    scores: dict[str, np.ndarray]


class Tuned(NamedTuple):
    """All rates of a setup, and what its arms came to.

    Attributes:
        rates: [rate].
        tuning: of `train`, on the validation split.
        last: of the last iterate.
        average: of the best average; ``None`` where none is read.
    """

    rates: np.ndarray
    tuning: dict[str, np.ndarray]
    last: Found
    average: Found | None


def tune(
    kept: Kept, name: str, task: Task, setup: Setup, budget: Budget, options: Mapping[str, Any]
) -> Tuned:
    """Choose on the validation split, then run other seeds with what was chosen.

    The last iterate and the averages each choose a rate of their own, from the same paths.

    Args:
        kept: where results are kept.
        name: of the result there.
        task: the task.
        setup: how it is learned.
        budget: seeds.
        options: what the result depends on besides, in words.
    """
    rates = np.asarray(setup.rule.rates)
    depends = dict(options) | budget._asdict() | {"rates": rates.tolist(), "powers": setup.powers}
    keys_tuning, keys_final = keys_of(budget)
    tuning = kept.measure(
        f"{name}/tuning",
        depends,
        lambda: train(task, setup, rates, keys_tuning, ("validation",)),
    )
    arms = [[0], list(range(1, 1 + len(setup.powers)))]
    chosen = [choose(tuning, readings) for readings in arms if readings]
    positions = sorted({rate for rate, _ in chosen})
    final = kept.measure(
        f"{name}/final",
        depends | {"chosen": positions},
        lambda: train(task, setup, rates[positions], keys_final),
    )
    found = [
        Found(
            float(rates[rate]),
            setup.powers[reading - 1] if reading else None,
            {k: v[positions.index(rate), :, reading] for k, v in final.items()},
        )
        for rate, reading in chosen
    ]
    return Tuned(rates, tuning, found[0], found[1] if setup.powers else None)


def metrics(found: Found) -> dict[str, Any]:
    """What metrics.json says of an arm."""
    return {
        "error": interval(found.scores["test error"]),
        "nats": interval(found.scores["test nats"]),
        "train_loss": interval(found.scores["train nats"]),
        "settings": {"rate": found.rate, "power": found.power},
    }
