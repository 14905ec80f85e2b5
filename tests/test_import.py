"""Importing the library is light, and its surface is small."""

import subprocess
import sys

import pytest

import beliefnav

HEAVY = {"numpyro", "blackjax", "arviz", "xarray", "matplotlib"}


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Top-level names of all modules that a bare ``import beliefnav`` brings."""
    code = "import beliefnav, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_brings_no_heavy_optional_library(imported: set[str]):
    assert {"beliefnav", "jax", "optax"} <= imported
    assert not imported & HEAVY


def test_public_names_are_few_and_exist():
    assert len(beliefnav.__all__) <= 40
    assert len(set(beliefnav.__all__)) == len(beliefnav.__all__)
    assert all(hasattr(beliefnav, name) for name in beliefnav.__all__)
