"""The options of the experiment."""

from dataclasses import dataclass

from experiments.certainty import classifiers
from experiments.options import Options, check_known
from experiments.tasks.catalogue import TASKS

RULES = ("adam", "momentum", "muon")
"""The optimizers inside averages and schedules."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What to hand over in the end: the last iterate, an average, a schedule's end, or both.

    A quick run has no network on the bench, one whose parameters are drawn, one optimizer, and a
    part of the map.
    """

    QUICK = {
        "tasks": ("noisy_quadratic",),
        "rules": ("adam",),
        "seeds": 2,
        "tuning_seeds": 1,
        "paths": 100,
        "networks": ("digits_mlp",),
        "draws": 5,
        "iterations": 100,
    }
    LEAST = {"seeds": 2, "tuning_seeds": 1, "paths": 10, "steps": 1, "iterations": 1, "draws": 2}

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks of the bench; one whose data are not there is left out, and said so."""
    rules: tuple[str, ...] = RULES
    """Optimizers inside: adam, momentum, muon."""
    seeds: int = 5
    """Runs of every arm with the settings that were chosen; 20 times as many of the quadratic."""
    tuning_seeds: int = 2
    """Runs at every rate, to choose by; other seeds than those of the end."""
    networks: tuple[str, ...] = classifiers.NAMES
    """Networks whose parameters are drawn; one whose data are not there is left out likewise."""
    draws: int = 20
    """Draws of parameters whose probabilities are averaged."""
    paths: int = 1000
    """Simulated paths of the noisy quadratic."""
    steps: int = 10_000
    """The most steps of a task."""
    iterations: int = 1000
    """Iterations of the search for the best rates and gains together."""

    def check(self) -> None:
        """Raise an `OptionError` on unknown names."""
        check_known("task", self.tasks, TASKS)
        check_known("rule", self.rules, RULES)
        check_known("network", self.networks, classifiers.NAMES)
