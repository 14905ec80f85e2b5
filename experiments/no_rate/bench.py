"""All arms on all tasks."""

from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from experiments.kept import Kept
from experiments.no_rate.arms import ARMS, POWERS, READINGS, TUNED, TUNED_COSINE
from experiments.no_rate.config import Config
from experiments.no_rate.paths import Paths, once
from experiments.tasks import measuring
from experiments.tasks.catalogue import available
from experiments.tasks.measuring import Budget, Found, Setup
from experiments.tasks.rules import RULES

MORE_SEEDS = {"noisy_quadratic": 4}
"""By how much there are more seeds of a task, which are cheap there and differ a lot."""


class Scored(NamedTuple):
    """What an arm came to.

    Attributes:
        error: on the test split [seed].
        nats: likewise.
        settings: what was chosen for it.
    """

    error: np.ndarray
    nats: np.ndarray
    settings: dict[str, Any]


class Benched(NamedTuple):
    """What came of the bench.

    Attributes:
        scores: task -> "arm, reading" -> scores.
        paths: task -> arm -> what `paths.follow` returns, of those that are not tuned.
    """

    scores: dict[str, dict[str, Scored]]
    paths: dict[str, dict[str, Paths]]


def measure(config: Config, kept: Kept) -> Benched:
    """Tune what has a rate, and run all arms on the same seeds, an arm on all tasks at a time."""
    tasks = available(config.tasks, config.steps)
    found = Benched({name: {} for name in tasks}, {name: {} for name in tasks})
    tuned = {TUNED: "constant", TUNED_COSINE: "cosine"}
    work = [(arm, name) for arm in (*tuned, *config.all_arms) for name in tasks]
    with tqdm(work, desc="bench", unit="arm") as bar:
        for arm, name in bar:
            bar.set_description(f"{name}, {arm}")
            where, task, budget = f"{name}/{arm}", tasks[name], budget_of(name, config)
            if arm in tuned:
                setup = Setup(RULES["adam"], tuned[arm], POWERS)
                options = {"task": name, "schedule": tuned[arm], "steps": task.steps}
                came = measuring.tune(kept, where, task, setup, budget, options)
                readings = {"last": _scored(came.last)}
                if came.average is not None:
                    readings["average"] = _scored(came.average)
            else:
                path = found.paths[name][arm] = once(kept, where, (task,), ARMS[arm], budget)
                readings = {
                    reading: Scored(path[f"{reading} error"], path[f"{reading} nats"], {})
                    for reading in READINGS
                }
            found.scores[name] |= {f"{arm}, {reading}": x for reading, x in readings.items()}
    return found


def budget_of(task: str, config: Config) -> Budget:
    """Seeds to choose by, and to end with."""
    more = MORE_SEEDS.get(task, 1)
    return Budget(config.seed, more * config.tuning_seeds, more * config.seeds)


def _scored(found: Found) -> Scored:
    settings = {"rate": found.rate, "power": found.power}
    return Scored(found.scores["test error"], found.scores["test nats"], settings)
