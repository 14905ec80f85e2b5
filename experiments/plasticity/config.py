"""Options of the experiment."""

from dataclasses import dataclass
from pathlib import Path

from experiments.options import OptionError, Options, check_known
from experiments.plasticity.methods import METHODS
from experiments.plasticity.streams import STREAMS


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """How methods keep their plasticity, without being told when tasks begin.

    Results that are already in the folder, of the same code, versions and options, are read and not
    measured again. A quick run has a short stream of random labels by default, and those methods
    that have settings for it.
    """

    QUICK = {"streams": ("random_labels",), "seeds": 2, "tasks": 10}
    NOT_QUICK = ("sweep_seeds",)
    LEAST = {"seeds": 2, "other_seeds": 1, "sweep_seeds": 1, "tasks": 1}

    streams: tuple[str, ...] | None = None
    """Which streams; by default all whose data are there, and what is left out is said."""
    methods: tuple[str, ...] | None = None
    """Which methods; by default all, of a quick run those with settings for it."""
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
        """Raise an `OptionError` on what cannot be run as it is asked for."""
        streams, methods = self.streams or tuple(STREAMS), self.methods or ()
        check_known("stream", streams, STREAMS)
        check_known("method", methods, METHODS)
        for i, name in enumerate(methods):
            method = METHODS[name]
            if self.quick and method.quick is None:
                raise OptionError(
                    f"Method {name!r} has no settings for a quick run; those that have: "
                    f"{', '.join(with_quick_settings())}."
                )
            if not any(method.belongs(stream) for stream in streams):
                raise OptionError(
                    f"Method {name!r} is run on random_labels only; name that among the streams."
                )
            leader = method.follows
            if leader is not None and leader not in methods[:i]:
                raise OptionError(
                    f"Method {name!r} takes over the settings of {leader!r}; name that before it."
                )

        for stream in self.streams or ():
            if not any(METHODS[name].belongs(stream) for name in self.run_methods):
                raise OptionError(f"No method of this run is run on stream {stream!r}; name one.")

    @property
    def run_methods(self) -> tuple[str, ...]:
        """The methods that are run."""
        return self.methods or (with_quick_settings() if self.quick else tuple(METHODS))


def with_quick_settings() -> tuple[str, ...]:
    """The methods that a quick run can have."""
    return tuple(name for name, method in METHODS.items() if method.quick is not None)
