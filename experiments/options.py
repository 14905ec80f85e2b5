"""The options that all experiments have in common, and what a quick run is."""

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


class OptionError(ValueError):
    """An option with which nothing can be run: what a person should read in one line."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every experiment can be told. An experiment adds options of its own.

    A quick run has at most as much of each option as `QUICK` says, and the options say so: what
    runs is what they hold.
    """

    QUICK: ClassVar[Mapping[str, Any]] = {}
    """Option -> the most of it in a quick run; for an option that is not a number, its value."""
    LEAST: ClassVar[Mapping[str, float]] = {}
    """Option -> the least of it that says anything."""

    seed: int = 0
    """The random seed of the whole run."""
    out: Path | None = None
    """Folder to write to; runs/NAME by default."""
    quick: bool = False
    """Fewer of everything, for a run of less than a minute; the claims stay."""

    def __post_init__(self) -> None:
        """Check the options, and take less of them for a quick run.

        Raises:
            OptionError: names the option that is out of range, and says what it must be.
        """
        for name, least in self.LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name} must be at least {least}, got {value}.")
        self.check()
        if self.quick:
            for name, most in self.QUICK.items():
                value = getattr(self, name)
                number = isinstance(value, int | float)
                object.__setattr__(self, name, min(value, most) if number else most)

    def check(self) -> None:
        """Raise an `OptionError` on what `LEAST` cannot say."""

    @property
    def name(self) -> str:
        """The name of the experiment that these are the options of."""
        modules = type(self).__module__.split(".")[1:]
        return "/".join(module for module in modules if module != "config")

    @property
    def folder(self) -> Path:
        """The folder to write to, which is there."""
        folder = self.out or Path("runs") / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def check_folder(self) -> None:
        """Raise unless the folder can be written to.

        Raises:
            OptionError: it cannot be made, or nothing can be written into it.
        """
        try:
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            folder = self.out or Path("runs") / self.name
            raise OptionError(
                f"Cannot write to {folder}. This is because of {error.strerror!r}; give another "
                "folder with --out."
            ) from error


def check_known(kind: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise unless every name is known.

    Raises:
        OptionError: lists the known names.
    """
    for name in names:
        if name not in known:
            raise OptionError(f"Unknown {kind} {name!r}; known are: {', '.join(known)}.")
