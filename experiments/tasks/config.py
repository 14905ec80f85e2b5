"""The options of the bench."""

from dataclasses import dataclass

from experiments.options import Options, check_known
from experiments.tasks.catalogue import HELD_OUT, TASKS
from experiments.tasks.measuring import SCHEDULES
from experiments.tasks.rules import RULES
from experiments.tasks.task import find


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Learning rules on small tasks, one's own included.

    Every rule is tried at all its rates on the validation split, and then run at the best one with
    other seeds. A task or rule of your own is MODULE:NAME: a function without arguments that
    returns a `Task`, a `Rule`.
    """

    QUICK = {"task": ("digits_mlp",), "seeds": 2, "tuning_seeds": 1}
    LEAST = {"seeds": 1, "tuning_seeds": 1}

    task: tuple[str, ...] = tuple(TASKS)
    """Tasks: names, or MODULE:NAME."""
    rule: tuple[str, ...] = ("adam", "momentum", "muon")
    """Rules: names, or MODULE:NAME."""
    schedule: str = "constant"
    """constant, cosine or linear; number for a rule that takes no schedule."""
    seeds: int = 5
    """Runs with what was chosen."""
    tuning_seeds: int = 2
    """Runs for each rate, to choose by."""

    def check(self) -> None:
        """Raise an `OptionError` on what is not there."""
        check_known("schedule", [self.schedule], SCHEDULES)
        for name in self.task:
            find("task", name, TASKS | HELD_OUT)
        for name in self.rule:
            find("rule", name, RULES)
