"""A package of runnable modules on the command line: list them, or run the one that is named."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro


def main(package: str, kind: str, names: Sequence[str], arguments: Sequence[str]) -> None:
    """Run the module that the first argument names, or list them all.

    Args:
        package: where the modules are; each has a ``Config`` and a ``run(config)``.
        kind: what they are called, in the singular.
        names: the modules.
        arguments: of the command line.
    """
    program = f"python -m {package}"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {program} NAME [options]; NAME --help lists the options\n")
        for name in names:
            doc = importlib.import_module(f"{package}.{name}").__doc__ or ""
            print(f"  {name:<16}{doc.splitlines()[0]}")
        return
    name, *options = arguments
    if name not in names:
        sys.exit(f"Unknown {kind} {name!r}; known are: {', '.join(names)}.")
    module = importlib.import_module(f"{package}.{name}")
    config = tyro.cli(module.Config, args=options, prog=f"{program} {name}")
    if getattr(config, "quick", False):
        compile_quickly()
    try:
        module.run(config)
    except FileNotFoundError as error:
        sys.exit(f"{name}: {error}")


def compile_quickly() -> None:
    """Have XLA optimise less, if it has not started yet: a quick run is mostly compilation."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_optimization_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"


def check_at_least(config: Any, **least: float) -> None:
    """Raise unless every number of the options is at least as large as it must be.

    Raises:
        ValueError: names the first that is not.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {value}.")
