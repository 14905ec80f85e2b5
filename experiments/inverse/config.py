"""The options of the experiment."""

from dataclasses import dataclass
from pathlib import Path

from experiments.inverse.catalogue import learners
from experiments.inverse.coverage import RULES
from experiments.options import OptionError, Options, check_known


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What learners assume, inferred from their recordings; or what your own learner assumes.

    A quick run has two learners, few runs and few fits.
    """

    QUICK = {
        "learners": ("adam", "lion"),
        "noisy": ("momentum",),
        "rules": ("momentum",),
        "steps": 80,
        "coordinates": 4,
        "runs": 4,
        "fits": 20,
        "noises": (0.1,),
    }
    LEAST = {"steps": 100, "coordinates": 4, "runs": 4, "fits": 20, "noises": 1e-6}

    stream: Path | None = None
    """A stream file of your own; then nothing else is run. See `beliefnav.recording`."""
    learners: tuple[str, ...] = tuple(learners(1))
    """Learners that are recorded and inferred."""
    steps: int = 300
    """Steps of a recording."""
    coordinates: int = 16
    """Coordinates of every array; the network has four."""
    runs: int = 40
    """Runs of every kind of learner, with numbers at random, for the baseline."""
    fits: int = 200
    """Recordings of every learner at every noise of execution."""
    noises: tuple[float, ...] = (0.01, 0.1, 0.5)
    """Noise of execution, as a share of the step."""
    noisy: tuple[str, ...] = ("adamw", "momentum")
    """Learners that are inferred under noise of execution too."""
    rules: tuple[str, ...] = tuple(RULES)
    """Rules whose intervals are counted; memories are told or not where adamw is among them."""

    def check(self) -> None:
        """Raise an `OptionError` on unknown names."""
        check_known("learner", (*self.learners, *self.noisy), learners(1))
        check_known("rule", self.rules, RULES)
        if self.stream is not None and not self.stream.is_file():
            raise OptionError(
                f"Cannot read {self.stream}. This is because there is no such file; give one that "
                "beliefnav.recording.to_dataset(...).to_netcdf wrote."
            )
