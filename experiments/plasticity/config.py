"""Options of the experiment, and the one rule with its one setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.options import OptionError, Options
from experiments.plasticity.methods import METHODS
from experiments.plasticity.network import NETWORKS
from experiments.plasticity.streams import STREAMS
from experiments.tasks.task import find

ONE = "layer_hypotheses"
"""The one rule, which is to serve all streams."""
ONE_SETTING: Mapping[str, float] = {"learning_rate": 3e-3, "hazard": 1e-2}
"""Its one setting, chosen on `streams.DEVELOPMENT` before any final run."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """How methods keep their plasticity, most of them without being told when tasks begin.

    Results that are already in the folder, of the same code, versions and options, are read and not
    measured again. A stream, method or network of your own is MODULE:NAME. A quick run has a short
    stream of random labels by default, the methods that have settings for it, and chooses nothing.
    """

    QUICK = {"streams": ("random_labels",), "seeds": 2, "tasks": 10}
    NOT_QUICK = ("tuning_seeds", "backwards")
    LEAST = {"seeds": 2, "tuning_seeds": 1, "tasks": 1}

    streams: tuple[str, ...] | None = None
    """Which streams; by default all whose data are there, and what is left out is said."""
    methods: tuple[str, ...] | None = None
    """Which methods; by default all, of a quick run those with settings for it."""
    network: str | None = None
    """The network that learns, if other than that of the stream."""
    seeds: int = 10
    """Tasks and initial networks for the final runs."""
    tuning_seeds: int = 2
    """The same for the first rung of choosing settings: not those of the end."""
    tasks: int | None = None
    """The most tasks of a stream."""
    data_dir: Path | None = None
    """Where the files of fashion_mnist are, if not in Debian's place."""
    backwards: bool = False
    """Work from the last method to the first, as a second process beside one with the same
    folder."""

    def check(self) -> None:
        """Raise an `OptionError` on what cannot be run as it is asked for."""
        for name in self.streams or ():
            find("stream", name, STREAMS)
        if self.network is not None:
            find("network", self.network, NETWORKS)
        streams = self.streams or tuple(STREAMS)
        for name in self.methods or ():
            method = find("method", name, METHODS)
            if self.quick and method.quick is None:
                raise OptionError(
                    f"Method {name!r} has no settings for a quick run; those that have: "
                    f"{', '.join(with_quick_settings())}."
                )
            if not any(method.belongs(stream) for stream in streams):
                raise OptionError(
                    f"Method {name!r} is run on random_labels only; name that among the streams."
                )
        for stream in self.streams or ():
            if not any(find("method", name, METHODS).belongs(stream) for name in self.run_methods):
                raise OptionError(f"No method of this run is run on stream {stream!r}; name one.")

    @property
    def run_methods(self) -> tuple[str, ...]:
        """The methods that are run."""
        return self.methods or (with_quick_settings() if self.quick else tuple(METHODS))


def with_quick_settings() -> tuple[str, ...]:
    """The methods that a quick run can have."""
    return tuple(name for name, method in METHODS.items() if method.quick is not None)
