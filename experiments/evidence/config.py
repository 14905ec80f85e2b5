"""The options of the experiment."""

from dataclasses import dataclass

from experiments.evidence.streams import DATA, STAGES, WARM_UP
from experiments.options import Options, check_known
from experiments.tasks.catalogue import TASKS


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Which beliefs predict recorded gradients, and whether those that do train better.

    A quick run has one data set, one task and short training.
    """

    QUICK = {
        "data": ("digits",),
        "tasks": ("digits_mlp",),
        "stage_steps": 60,
        "coordinates": 8,
        "recordings": 2,
        "steps": 40,
        "seeds": 2,
        "tuning_seeds": 1,
        "resamples": 200,
    }
    LEAST = {
        "stage_steps": 2 * WARM_UP,
        "coordinates": 1,
        "recordings": 2,
        "steps": 1,
        "seeds": 2,
        "tuning_seeds": 1,
        "resamples": 100,
    }

    data: tuple[str, ...] = tuple(DATA)
    """Data sets whose gradients are recorded; one that is not there is left out, and said so."""
    tasks: tuple[str, ...] = ("digits_mlp", "mnist1d_cnn")
    """Tasks of the bench on which Adam is trained at every pair of memories."""
    stage_steps: int = 300
    """Steps of a stage; there are three, with as many steps between two of them."""
    coordinates: int = 20
    """Coordinates of every array, drawn at random."""
    recordings: int = 5
    """Networks that are recorded on every data set or task."""
    steps: int = 400
    """The most steps that Adam is trained for at every pair of memories."""
    seeds: int = 4
    """Networks that are trained at every pair of memories, with the rate that was chosen."""
    tuning_seeds: int = 1
    """Networks at every rate, to choose by; other seeds than those."""
    resamples: int = 2000
    """Draws of seeds for an interval."""

    def check(self) -> None:
        """Raise an `OptionError` on unknown names."""
        check_known("data set", self.data, DATA)
        check_known("task", self.tasks, TASKS)

    @property
    def recorded_steps(self) -> int:
        """Steps of a recording."""
        return (2 * len(STAGES) - 1) * self.stage_steps
