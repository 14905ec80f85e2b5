"""The options that all experiments have in common, and what a quick run is."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from beliefnav._files import check_writable


class OptionError(Exception):
    """An option with which nothing can be run: what a person should read in one line.

    It is no `ValueError`, which tyro would catch and draw a box around.
    """


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every experiment can be told. An experiment adds options of its own.

    A quick run has other defaults; what is given is taken, whatever its default. The options say
    what runs.
    """

    QUICK: ClassVar[Mapping[str, Any]] = {}
    """Option -> its default in a quick run, where that differs."""
    NOT_QUICK: ClassVar[tuple[str, ...]] = ()
    """Options that a quick run has no use for."""
    LEAST: ClassVar[Mapping[str, float]] = {}
    """Option that is a number, or several -> the least that says anything; in a quick run `QUICK`
    may have less."""

    seed: int = 0
    """The random seed of the whole run, below 2^32."""
    out: Path | None = None
    """Folder to write to; runs/NAME by default."""
    quick: bool = False
    """Fewer of everything, for a run of less than a minute; the claims stay."""

    def __new__(cls, **given: Any) -> Self:
        """Take the defaults of a quick run for what is not given, before anything is checked."""
        self = super().__new__(cls)
        object.__setattr__(self, "_given", frozenset(given))
        return self

    def __post_init__(self) -> None:
        """Take the defaults of a quick run for what is not given, and check the options.

        Raises:
            OptionError: names the option that is out of range, and says what it must be.
        """
        if self.quick:
            for name in self.QUICK.keys() - vars(self)["_given"]:
                object.__setattr__(self, name, self.QUICK[name])
        for field in fields(self):
            self._check_option(field.name, getattr(self, field.name), field.default)
        self.check()

    def _check_option(self, name: str, value: Any, default: Any) -> None:
        if self.quick and name in self.NOT_QUICK and value != default:
            raise OptionError(
                f"{name} has no part in a quick run, got {value}; leave it out, or run without "
                "--quick."
            )
        if value == ():
            raise OptionError(f"{name} must have at least one entry, got none.")
        least = {"seed": 0, **self.LEAST}.get(name)
        if least is not None and self.quick:
            least = min([least, *_numbers(self.QUICK.get(name))])
        for number in _numbers(value):
            if not math.isfinite(number):
                raise OptionError(f"{name} must be finite, got {number}.")
            if least is not None and number < least:
                raise OptionError(f"{name} must be at least {least}, got {number}.")
        if name == "seed" and value >= 2**32:
            raise OptionError(f"seed must be below 2^32, got {value}.")

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
        """Raise unless the folder can be written to; see `check_folder`."""
        check_folder(self.out or Path("runs") / self.name)


def check_folder(folder: Path) -> None:
    """Raise unless a folder can be written to; it is made where it is missing.

    Raises:
        OptionError: it cannot be made, or nothing can be written into it.
    """
    try:
        check_writable(folder / "file")
    except OSError as error:
        raise OptionError(
            f"Cannot write to {folder}. This is because of {error.strerror!r}; give another "
            "folder with --out."
        ) from error


def _numbers(value: Any) -> list[float]:
    """The numbers in the value of an option: itself, or those of a sequence or mapping."""
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int | float):
        return [value]
    values = value.values() if isinstance(value, Mapping) else value
    return [x for x in values if isinstance(x, int | float)] if isinstance(values, Iterable) else []


def check_known(kind: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise unless every name is known.

    Raises:
        OptionError: lists the known names.
    """
    for name in names:
        if name not in known:
            raise OptionError(f"Unknown {kind} {name!r}; known are: {', '.join(known)}.")
