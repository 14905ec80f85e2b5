"""Options of the experiment."""

from dataclasses import dataclass
from pathlib import Path

from experiments.options import OptionError, Options, check_known
from experiments.plasticity.methods import METHODS
from experiments.plasticity.streams import STREAMS


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """How methods keep their plasticity, without being told when tasks begin.

    Methods that are already in the folder, of this commit and these options, are not run again. A
    quick run has a short stream of random labels, and the main methods at settings that are given.
    """

    QUICK = {
        "streams": ("random_labels",),
        "methods": tuple(name for name, method in METHODS.items() if method.quick is not None),
        "seeds": 2,
        "tasks": 10,
    }
    LEAST = {"seeds": 2, "other_seeds": 1, "sweep_seeds": 1, "tasks": 1}

    streams: tuple[str, ...] = tuple(STREAMS)
    """Which streams; one whose data are not there is left out, and said so."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Which methods."""
    seeds: int = 10
    """Streams and initial networks for the final runs on random labels."""
    other_seeds: int = 3
    """The same on other streams."""
    sweep_seeds: int = 2
    """Streams and initial networks for choosing the settings of a method: not those of the end."""
    tasks: int | None = None
    """Number of tasks, if other than that of the stream."""
    data_dir: Path | None = None
    """Where the files of fashion_mnist are, if not in Debian's place."""

    def check(self) -> None:
        """Raise an `OptionError` on unknown names, and on an order that cannot be run."""
        check_known("stream", self.streams, STREAMS)
        check_known("method", self.methods, METHODS)
        for i, name in enumerate(self.methods):
            leader = METHODS[name].follows
            if leader is not None and leader not in self.methods[:i]:
                raise OptionError(
                    f"Method {name!r} takes over the settings of {leader!r}; name that before it."
                )
