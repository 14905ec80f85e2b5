"""What a rule without a learning rate may fail at.

First guesses that are far off, small and large batches, gradients that are mostly zero, and a task
that turns into another one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from tqdm import tqdm

from experiments import data as data_sets
from experiments.kept import Kept
from experiments.networks import mlp
from experiments.no_rate import arms
from experiments.no_rate.config import Config
from experiments.no_rate.paths import Paths, depends, guessed, once
from experiments.tasks import images, measuring
from experiments.tasks.measuring import Budget
from experiments.tasks.noisy_quadratic import noisy_quadratic
from experiments.tasks.task import Score, Task

GUESSES = (1e-6, 1e-4, 1e2)
"""Of the first distance; the second is the default of the rule."""
SYMBOLS = 500
"""Rows of the table."""
COLUMNS = 8
"""Numbers in a row of the table."""


def digits(batch: int, steps: int, permuted: bool = False) -> Task:
    """The task `digits_mlp` with other batches, and with labels that stand for other digits."""
    parts = images.split(data_sets.load("digits"), train=1150, validation=287, test=360)
    if permuted:
        parts = {k: part._replace(labels=(part.labels * 3 + 1) % 10) for k, part in parts.items()}
    return images.classification(parts, mlp, steps, batch)


def sparse_table(steps: int = 1000, batch: int = 16) -> Task:
    """A table of 500 rows that are seen as often as words: the n-th in proportion to 1/n.

    An example is a row, and its values with noise of variance 1; the loss is that of a Gaussian.
    The last row is in one batch of 200. The mean squared error of a value without noise stands in
    place of the share of errors, with the rows as often as they are seen.
    """
    truth = jax.random.normal(jax.random.key(0), (SYMBOLS, COLUMNS))
    often = 1 / jnp.arange(1.0, SYMBOLS + 1)
    often /= often.sum()

    def init(key: Array) -> Array:
        return 0.1 * jax.random.normal(key, (SYMBOLS, COLUMNS))

    def loss(params: Array, key: Array) -> Array:
        key_row, key_noise = jax.random.split(key)
        row = jax.random.categorical(key_row, jnp.log(often), shape=(batch,))
        noise = jax.random.normal(key_noise, (batch, COLUMNS))
        return jnp.mean(jnp.sum((params[row] - truth[row] - noise) ** 2, 1)) / 2

    def score(params: Array, split: str) -> Score:
        del split
        square = jnp.sum(often * jnp.sum((params - truth) ** 2, 1))
        return Score(square / COLUMNS, square / 2)

    return Task(init, loss, score, steps, batch)


def problems(steps: int) -> dict[str, tuple[Task, ...]]:
    """Name -> tasks to be learned one after another, each of so many steps at the most."""
    switch = min(500, steps)
    return {
        "batch 4": (digits(4, min(1000, steps)),),
        "batch 1024": (digits(1024, min(300, steps)),),
        "sparse gradients": (sparse_table(min(1000, steps)),),
        "no switch": (digits(64, switch),),
        "after a switch": (digits(64, switch), digits(64, switch, permuted=True)),
    }


class Stressed(NamedTuple):
    """What came of it.

    Attributes:
        problems: problem -> arm -> what `paths.follow` returns.
        guesses: task -> arm -> what `paths.guessed` returns for `GUESSES`.
    """

    problems: dict[str, dict[str, Paths]]
    guesses: dict[str, dict[str, Paths]]


def measure(config: Config, kept: Kept) -> Stressed:
    """The rule and Adam at its default on all problems, and the rule and Prodigy from guesses."""
    found = Stressed({}, {})
    budget = Budget(config.seed, config.tuning_seeds, config.seeds)
    keys = measuring.keys_of(budget)[1]
    compared = {name: arms.ARMS[name] for name in (arms.RULE, arms.DEFAULT)}
    guessing = {arms.RULE: arms.learning_rate_free, "prodigy": arms.prodigy}
    todo = problems(config.steps)
    tasks = {
        "noisy_quadratic": noisy_quadratic(),
        "digits_mlp": digits(64, min(1000, config.steps)),
    }
    total = len(todo) * len(compared) + len(tasks) * len(guessing)
    with tqdm(total=total, desc="stress", unit="arm") as bar:
        for problem, stages in todo.items():
            of_arms = found.problems[problem] = {}
            for name, arm in compared.items():
                bar.set_description(f"{problem}, {name}")
                of_arms[name] = once(kept, f"stress/{problem}/{name}", stages, arm, budget)
                bar.update()
        for name, task in tasks.items():
            of_rules = found.guesses[name] = {}
            for rule, make in guessing.items():
                bar.set_description(f"{name}, guesses of {rule}")
                options = depends((task,), budget) | {"guesses": GUESSES}
                of_rules[rule] = kept.measure(
                    f"stress/guesses/{name}, {rule}",
                    options,
                    lambda task=task, make=make: guessed(task, make, GUESSES, keys),
                )
                bar.update()
    return found
