"""The options of the experiment."""

from dataclasses import dataclass
from pathlib import Path

from experiments.inverse.catalogue import learners
from experiments.options import OptionError, Options, check_known


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What learners assume, inferred from their recordings; or what your own learner assumes.

    A quick run has three learners, few runs and few fits.
    """

    QUICK = {
        "learners": ("adamw", "momentum", "lion"),
        "steps": 100,
        "coordinates": 6,
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

    def check(self) -> None:
        """Raise an `OptionError` on unknown names."""
        check_known("learner", self.learners, learners(1))
        if self.stream is not None and not self.stream.is_file():
            raise OptionError(
                f"Cannot read {self.stream}. This is because there is no such file; give one that "
                "beliefnav.recording.to_dataset(...).to_netcdf wrote."
            )
