"""The options of the experiment."""

from dataclasses import dataclass

from experiments.no_rate.arms import ARMS, DEFAULT, RULE
from experiments.options import Options, check_known
from experiments.tasks.catalogue import HELD_OUT, TASKS


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A rule without a learning rate, beside Adam with one, tuned or not.

    A quick run has two tasks, three arms, few seeds and few steps.
    """

    QUICK = {
        "tasks": ("noisy_quadratic", "digits_mlp"),
        "arms": ("dog",),
        "seeds": 2,
        "tuning_seeds": 1,
        "steps": 300,
    }
    LEAST = {"seeds": 2, "tuning_seeds": 1, "steps": 1}

    tasks: tuple[str, ...] = (*TASKS, *HELD_OUT)
    """Tasks of the bench; one whose data are not there is left out, and said so."""
    arms: tuple[str, ...] = tuple(ARMS)
    """Arms beside tuned Adam; those that others are compared with are always there."""
    seeds: int = 5
    """Runs of every arm; four times as many of the quadratic."""
    tuning_seeds: int = 2
    """Runs at every rate of tuned Adam, to choose by; other seeds than those."""
    steps: int = 10_000
    """The most steps of a task."""

    def check(self) -> None:
        """Raise an `OptionError` on unknown names."""
        check_known("task", self.tasks, TASKS | HELD_OUT)
        check_known("arm", self.arms, ARMS)

    @property
    def all_arms(self) -> tuple[str, ...]:
        """The rule, its rival, and the others."""
        return tuple(dict.fromkeys((RULE, DEFAULT, *self.arms)))
