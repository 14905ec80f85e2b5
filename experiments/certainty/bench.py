"""The bench: last iterates, averages, schedules and both, with three optimizers inside.

One path gives its last iterate and five averages. Every arm has the same number of rates; those of
schedule-free, which is an optimizer of its own, are as many.
"""

from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from experiments.certainty.config import Config
from experiments.certainty.quadratic import POWERS
from experiments.kept import Kept
from experiments.report import interval
from experiments.tasks import measuring
from experiments.tasks.catalogue import available
from experiments.tasks.measuring import Budget, Found, Setup, Tuned
from experiments.tasks.rules import RULES

SCHEDULES = ("constant", "cosine", "linear")
ARMS = ("last", "average", "cosine", "linear", "cosine + average", "linear + average")
FREE = "schedule-free"
MORE_SEEDS = {"noisy_quadratic": 20}
"""By how much there are more seeds of a task, which are cheap there and differ a lot."""


class Benched(NamedTuple):
    """What came of it.

    Attributes:
        arms: task -> "rule, arm" -> what it came to.
        tuned: task -> "rule, schedule" -> the same at all rates.
    """

    arms: dict[str, dict[str, Found]]
    tuned: dict[str, dict[str, Tuned]]


def measure(config: Config) -> Benched:
    """Tune and run all arms of all tasks."""
    kept = Kept(config.folder / "kept")
    tasks = available(config.tasks, config.steps)
    found = Benched({}, {})
    work = [(rule, schedule) for rule in config.rules for schedule in (*SCHEDULES, FREE)]
    with tqdm(total=len(tasks) * len(work), desc="bench", unit="setup") as bar:
        for name, task in tasks.items():
            tuned = found.tuned[name] = {}
            more = MORE_SEEDS.get(name, 1)
            budget = Budget(config.seed, more * config.tuning_seeds, more * config.seeds)
            for rule, schedule in work:
                bar.set_description(f"{name}, {rule}, {schedule}")
                setup = (
                    Setup(RULES[f"schedule_free_{rule}"], "number")
                    if schedule == FREE
                    else Setup(RULES[rule], schedule, POWERS)
                )
                options = {"task": name, "rule": rule, "schedule": schedule, "steps": task.steps}
                where = f"{name}/{rule}, {schedule}"
                tuned[f"{rule}, {schedule}"] = measuring.tune(
                    kept, where, task, setup, budget, options
                )
                bar.update()
            found.arms[name] = arms(tuned)
    return found


def arms(tuned: dict[str, Tuned]) -> dict[str, Found]:
    """By "rule, arm": each schedule's last iterate and best average."""
    named = {}
    for setup, of_setup in tuned.items():
        rule, schedule = setup.split(", ")
        constant = schedule == "constant"
        named[f"{rule}, {'last' if constant else schedule}"] = of_setup.last
        if of_setup.average is not None:
            arm = "average" if constant else f"{schedule} + average"
            named[f"{rule}, {arm}"] = of_setup.average
    return named


def paired(
    of_task: dict[str, Found], rule: str, arm: str, other: str, score: str = "test error"
) -> list[float]:
    """A score of one arm minus another's on the same seeds: mean, and its 95 % interval."""
    ours, theirs = (of_task[f"{rule}, {name}"].scores[score] for name in (arm, other))
    return interval(ours - theirs)


def tally(benched: Benched, other: str) -> dict[str, int]:
    """On how many pairs of network and inner optimizer the average is clearly below another arm.

    A difference is clear if its interval leaves out 0.
    """
    counts = {"lower": 0, "higher": 0, "neither": 0}
    for task, of_task in benched.arms.items():
        for rule in rules_of(of_task) if task != "noisy_quadratic" else ():
            _, low, high = paired(of_task, rule, "average", other)
            counts["lower" if high < 0 else "higher" if low > 0 else "neither"] += 1
    return counts


def rules_of(of_task: dict[str, Found]) -> list[str]:
    """The inner optimizers of "rule, arm"."""
    return list(dict.fromkeys(name.split(", ")[0] for name in of_task))


# --- the band of good rates ---------------------------------------------------------------------

GOOD = 0.1
"""How much more than the least loss is still good, as a share of it."""


def width(rates: np.ndarray, losses: np.ndarray) -> float:
    """The ratio of the largest to the smallest good rate around the best one.

    Between two rates the loss is interpolated in the logarithm of the rate. A band that reaches the
    end of the rates is at least as wide as what is said.
    """
    bound, logs = (1 + GOOD) * losses.min(), np.log(rates)
    best = int(losses.argmin())

    def reach(step: int) -> float:
        at = best
        while 0 <= at + step < len(rates) and losses[at + step] <= bound:
            at += step
        if not 0 <= at + step < len(rates):
            return logs[at]
        rise = losses[at + step] - losses[at]
        share = (bound - losses[at]) / rise if np.isfinite(rise) else 0.0
        return logs[at] + share * (logs[at + step] - logs[at])

    return float(np.exp(reach(1) - reach(-1)))


def bands(tuned: dict[str, Tuned]) -> dict[str, float]:
    """Arm -> width of its band, by validation error; of averages that with the best p."""
    widths = {}
    for setup, of_setup in tuned.items():
        rule, schedule = setup.split(", ")
        errors = of_setup.tuning["validation error"].mean(1)  # [rate, reading]
        name = "last" if schedule == "constant" else schedule
        widths[f"{rule}, {name}"] = width(of_setup.rates, errors[:, 0])
        if errors.shape[1] > 1:
            best = errors[:, 1:].min(0).argmin()
            arm = "average" if schedule == "constant" else f"{schedule} + average"
            widths[f"{rule}, {arm}"] = width(of_setup.rates, errors[:, 1 + best])
    return widths
