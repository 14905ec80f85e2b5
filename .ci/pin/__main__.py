"""Compare every number of two revisions: ``python .ci/pin BASE HEAD``.

Both are checked out, and one program runs on each, in a process of its own and in the Python that
runs this. BASE and HEAD are revisions, or folders with an uncommitted working tree. What is pinned:

- every rule: updates and states of ten steps, eager and jitted, with missing entries;
- every belief and every wrapper: states, posteriors and diagnostics;
- recordings: filters, smoothers, likelihoods and their slopes, paths, change points, programs;
- one chain of NUTS, Laplace's approximation, Datasets and stream files;
- signatures, printed assumptions, and verdicts of the atlas.

Eager results agree in every byte, jitted and sampled ones to a tolerance (`comparing.TOLERANCES`).
Differences that are meant are listed in ``intended.py``. The exit status is 1 if there are others.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from comparing import differences, sorted_out, told
from intended import INTENDED
from recorder import load

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PACKAGE = "beliefnav"
NUMERICAL = ("jax", "jaxlib", "numpy", "optax", "numpyro", "blackjax", "equinox", "xarray")
"""Packages whose versions decide the numbers."""
RESULT = "result.pickle"


def main() -> int:
    """Run both, print what differs, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python .ci/pin", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("base", help="a revision, or a folder")
    parser.add_argument("head", help="a revision, or a folder")
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="sections of the program")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep the results of revisions and what XLA compiled, to reuse them",
    )
    options = parser.parse_args()
    sections = options.only or []
    with tempfile.TemporaryDirectory(prefix="pin-") as work:
        compiled = Path(work if options.keep is None else options.keep).resolve() / "compiled"
        compiled.mkdir(parents=True, exist_ok=True)
        outcomes = []
        for role in ("base", "head"):
            print(f"{role}: {getattr(options, role)}", file=sys.stderr, flush=True)
            folder = Path(work) / role
            folder.mkdir()
            kept = _kept(getattr(options, role), sections, options.keep)
            if kept is None or not kept.exists():
                _run(getattr(options, role), folder, sections, compiled, kept)
            outcomes.append(load(kept or folder / RESULT))
    base, head = outcomes
    found = list(differences(base, head))
    unexpected, explained = sorted_out(found, INTENDED)
    for entry, matched in explained.items():
        state = f"{len(matched)} leaves" if matched else "unused"
        print(f"intended ({state}): {entry.item}  {entry.leaf}: {entry.reason}")
    for line in told(unexpected):
        print(f"DIFFERENT: {line}")
    leaves = sum(map(len, base.values()))
    print(
        f"{len(base)} items, {leaves} leaves: {len(found)} differences, {len(unexpected)} of them "
        "not intended."
    )
    return 1 if unexpected else 0


def _kept(revision: str, sections: list[str], keep: Path | None) -> Path | None:
    """Where the result of a revision is kept; ``None`` for a folder, whose files may change."""
    if keep is None or Path(revision).is_dir():
        return None
    return keep.resolve() / f"{_commit(revision)[:12]}-{_digest(sections)}.pickle"


def _run(
    revision: str, folder: Path, sections: list[str], compiled: Path, kept: Path | None
) -> None:
    """Check a revision out into ``folder``, run the program there, and keep what it wrote."""
    if Path(revision).is_dir():
        unneeded = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(revision) / PACKAGE, folder / PACKAGE, ignore=unneeded)
    else:
        archive = _git("archive", _commit(revision), PACKAGE)
        subprocess.run(["tar", "x", "-C", str(folder)], input=archive, check=True)
    program = [sys.executable, "-W", "ignore", str(HERE / "program.py")]
    program += [str(folder), str(folder / RESULT), *sections]
    subprocess.run(program, cwd=folder, env=_environment(folder, compiled), check=True)
    if kept is not None:
        shutil.copyfile(folder / RESULT, kept)


def _environment(checkout: Path, compiled: Path) -> dict[str, str]:
    """That of this process, with the checkout first on the path and XLA and jax as they come.

    Both revisions share what XLA compiled, operation by operation and mostly the same: a third of
    the time of a run would be spent on it again.
    """
    names = ("XLA_", "JAX_", "PYTHON", "NUMPYRO_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(names)}
    return inherited | {
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def _digest(sections: list[str]) -> str:
    """Of all but the revision that decides a result: the program, its sections, the environment."""
    known = hashlib.sha256(" ".join((sys.version, *sections)).encode())
    for name in NUMERICAL:
        known.update(f"{name} {metadata.version(name)}".encode())
    for file in sorted(HERE.glob("*.py")):
        if file.name not in ("__main__.py", "comparing.py", "intended.py"):
            known.update(file.read_bytes())
    return known.hexdigest()[:12]


def _commit(revision: str) -> str:
    return _git("rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
