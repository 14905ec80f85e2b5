"""Importing the library is light: it brings jax, optax and equinox, and is soon there."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import beliefnav

FOUNDATIONS = "import jax, optax, equinox"


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout


PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
HEAVY = {"numpyro", "blackjax", "arviz", "xarray", "pandas", "diffrax", "matplotlib", "tqdm"}
"""What only some of the library needs. Not scipy, which jax itself brings in some versions."""
HOSTS = {"flax", "optimistix", "orbax"}
"""What the library works in, and does not need."""


def test_import_brings_no_other_library():
    """Not scipy either, nor anything else that jax, optax and equinox do not bring themselves."""
    code = (
        f"import sys; {FOUNDATIONS}; before = set(sys.modules); import beliefnav;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    assert set(run(code).split()) - {"jax"} == {"beliefnav"}


def test_all_of_the_library_brings_no_heavy_library():
    code = (
        f"import sys; {FOUNDATIONS}; before = set(sys.modules);"
        "from beliefnav import *; assert explain;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    assert not set(run(code).split()) & (HEAVY | HOSTS | {"scipy"})


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=]", requirement)[0]


def test_what_is_installed_without_extras_is_what_the_library_is_made_of():
    """Of it, importing the library brings what an optimizer needs."""
    needed = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    assert needed - HEAVY == {"jax", "numpy", "optax", "equinox"}
    extras = PROJECT["optional-dependencies"]
    assert {name_of(requirement) for requirement in extras["paths"]} == {"diffrax"}
    assert "beliefnav[paths]" in extras["experiments"]


def test_the_version_is_that_of_the_project():
    assert beliefnav.__version__ == PROJECT["version"]


def test_what_is_imported_late_is_there():
    for name in beliefnav.__all__:
        assert getattr(beliefnav, name) is not None
    assert set(beliefnav.__all__) <= set(dir(beliefnav))
    assert not hasattr(beliefnav, "nothing")


@pytest.mark.slow
def test_import_takes_little_longer_than_what_it_is_made_of(tmp_path: Path):
    """Processor time, the least of ten interleaved runs that find everything compiled.

    Garbage is not collected: in whose import a full collection falls (50 ms) is chance.
    """

    def seconds(imports: str) -> float:
        clock = "time.process_time()"
        code = f"import gc, time; gc.disable(); t = {clock}; {imports}; print({clock} - t)"
        return float(run(code, PYTHONPYCACHEPREFIX=str(tmp_path), PYTHONDONTWRITEBYTECODE=""))

    both = [[seconds(FOUNDATIONS), seconds("import beliefnav")] for _ in range(11)][1:]
    foundations, library = map(min, zip(*both, strict=True))
    assert library <= 1.15 * foundations
