"""A package of runnable modules on the command line: list them, run one, or publish its run."""

import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from experiments import publishing, report
from experiments.options import OptionError


def main(package: str, kind: str, names: Sequence[str], arguments: Sequence[str]) -> None:
    """Run the module that the first argument names, publish its finished run, or list them all.

    Exits with status 1 if a claim does not hold.

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
            doc = importlib.import_module(f"{package}.{name}").__doc__ or "\n"  # none with -OO
            print(f"  {name:<16}{doc.splitlines()[0]}")
        return
    name, *options = arguments
    if name not in names:
        sys.exit(f"Unknown {kind} {name!r}; known are: {', '.join(names)}.")
    with in_one_line(name):
        if "--publish" in options:
            options.remove("--publish")
            publishing.publish(configure(package, name, options))
            return
        config = configure(package, name, options)
        config.check_folder()  # before anything is computed
    if config.quick:
        compile_quickly()
    shown = [x for i, x in enumerate(arguments) if "--out" not in arguments[max(0, i - 1) : i + 1]]
    run = importlib.import_module(f"{package}.{name}").run
    try:
        with in_one_line(name):
            metrics = report.perform(run, config, f"{program} {shlex.join(shown)}")
    except KeyboardInterrupt:
        kept = ", ".join(sorted(path.name for path in config.folder.iterdir())) or "nothing"
        print(f"{name}: interrupted; {config.folder} holds {kept}.", file=sys.stderr)
        sys.exit(130)
    if failed := report.failed(metrics):
        sys.exit(f"{name}: {len(failed)} of {len(metrics['claims'])} claims do not hold.")


@contextlib.contextmanager
def in_one_line(name: str) -> Iterator[None]:
    """What a person can mend is said in one line: a wrong option, a file that is not there."""
    try:
        yield
    except (OptionError, FileNotFoundError) as error:
        sys.exit(f"{name}: {error}")


@contextlib.contextmanager
def piped() -> Iterator[None]:
    """A reader that goes away, such as ``head``, is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Else Python would complain once more when it closes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def configure(package: str, name: str, options: Sequence[str]) -> Any:
    """The options of a module, from its part of the command line.

    What is given there wins over the defaults, which are others in a quick run.
    """
    module = importlib.import_module(f"{package}.{name}")

    def parse(**default: Any) -> Any:
        return tyro.cli(module.Config, args=options, prog=f"python -m {package} {name}", **default)

    config = parse()
    return parse(default=module.Config(quick=True)) if config.quick else config


def compile_quickly() -> None:
    """Have XLA optimise less, if it has not started yet: a quick run is mostly compilation."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_optimization_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"
