"""All experiments, one after another, each in a process of its own: a run that can be resumed.

``python -m experiments all`` passes over an experiment whose ``metrics.json`` is there already, of
the same code, the same versions and the same options (see `experiments.kept`). An experiment that
fails does not stop the others.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from experiments import EXPERIMENTS, report
from experiments.command_line import in_one_line
from experiments.kept import code_of
from experiments.options import check_folder


@dataclass(frozen=True)
class Config:
    """Run all experiments that have not been run yet."""

    out: Path = Path("runs")
    """Folder of their folders."""
    quick: bool = False
    """Quick runs."""


def main(arguments: Sequence[str]) -> None:
    """Run what has not been run, and say what failed; then the exit status is 1.

    Args:
        arguments: of the command line, after ``all``.
    """
    config = tyro.cli(Config, args=arguments, prog="python -m experiments all")
    with in_one_line("all"):
        check_folder(config.out)
    outcomes = {}
    with tqdm(EXPERIMENTS, unit="experiment") as bar:
        for name in bar:
            bar.set_description(name)
            outcomes[name] = outcome(name, config)
            bar.write(f"{name}: {outcomes[name] or 'all claims hold'}")
    if failures := {name: said for name, said in outcomes.items() if said}:
        listed = "".join(f"\n  {name}: {said}" for name, said in failures.items())
        sys.exit(f"{len(failures)} of {len(outcomes)} experiments failed:{listed}")


def outcome(name: str, config: Config) -> str:
    """Run an experiment unless it was run; what went wrong, or nothing."""
    module = importlib.import_module(f"experiments.{name}")
    expected = module.Config(quick=config.quick, out=config.out / name)
    code_of.cache_clear()  # what would run is what the files have now
    metrics, path = report.measured(expected), expected.folder / report.METRICS
    if metrics is not None:
        tqdm.write(f"{name}: read from {path}, of {metrics['date']}")
    else:
        path.unlink(missing_ok=True)  # the run that it is of keeps a copy
        options = ["--out", str(expected.folder), *(["--quick"] if config.quick else [])]
        status = subprocess.run([sys.executable, "-m", "experiments", name, *options]).returncode
        if not path.is_file():
            return f"ended with exit status {status} before it wrote {report.METRICS}"
        metrics = json.loads(path.read_text())
    failed = report.failed(metrics)
    return f"claims that do not hold: {'; '.join(failed)}" if failed else ""
