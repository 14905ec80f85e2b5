"""Options of the experiment."""

from dataclasses import dataclass
from pathlib import Path

from experiments.command_line import check_at_least
from experiments.plasticity.methods import METHODS
from experiments.plasticity.streams import STREAMS


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    out: Path = Path("runs/plasticity")
    """Where to write; methods that are already there, with these options, are not run again."""
    quick: bool = False
    """A short stream of random labels, the main methods at settings that are given."""
    seed: int = 0
    """Random seed."""
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

    def __post_init__(self) -> None:
        """Raise on options that cannot be run."""
        check_at_least(self, seeds=2, other_seeds=1, sweep_seeds=1, tasks=1)
        for kind, chosen, known in (
            ("stream", self.streams, STREAMS),
            ("method", self.methods, METHODS),
        ):
            for name in chosen:
                if name not in known:
                    raise ValueError(f"Unknown {kind} {name!r}; known are: {', '.join(known)}.")
        for i, name in enumerate(self.methods):
            leader = METHODS[name].follows
            if leader is not None and leader not in self.methods[:i]:
                raise ValueError(
                    f"Method {name!r} takes over the settings of {leader!r}; name that before it."
                )
