"""Stands in for a store of results, with the interface that it will have."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Kept:
    """Results in a folder; this one keeps nothing."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read."""
        self.folder = folder

    def measure(self, name: str, options: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """The result of a name and options."""
        return compute()
