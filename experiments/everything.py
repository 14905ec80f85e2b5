"""All experiments, one after another, each in a process of its own: a run that can be resumed.

``python -m experiments all`` passes over an experiment whose ``metrics.json`` is there already, of
the same commit and with the same options. An experiment that fails does not stop the others.
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
from experiments.options import Options


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
    folder = config.out / name
    options = ["--out", str(folder), *(["--quick"] if config.quick else [])]
    expected = importlib.import_module(f"experiments.{name}").Config(quick=config.quick)
    if not is_done(folder, expected):
        (folder / report.METRICS).unlink(missing_ok=True)
        status = subprocess.run([sys.executable, "-m", "experiments", name, *options]).returncode
        if not (folder / report.METRICS).is_file():
            return f"ended with exit status {status} before it wrote {report.METRICS}"
    failed = report.failed(json.loads((folder / report.METRICS).read_text()))
    return f"claims that do not hold: {'; '.join(failed)}" if failed else ""


def is_done(folder: Path, config: Options) -> bool:
    """Whether a folder has the metrics of these options and of the commit that is checked out.

    Without a commit, or with changes that are not committed, nothing is known to be the same.
    """
    path, commit = folder / report.METRICS, report.commit()
    if not report.is_certain(commit) or not path.is_file():
        return False
    metrics = json.loads(path.read_text())
    return (metrics["commit"], metrics["options"]) == (commit, report.options(config))
