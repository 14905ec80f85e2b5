"""The laws of `tests.sharding.laws`, which are about eight devices, in a process that has them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beliefnav import rules
from tests.sharding.listed import RULES

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> None:
    """Run tests on eight devices of the CPU."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", *arguments],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    assert " skipped" not in finished.stdout.splitlines()[-1], finished.stdout


def test_every_rule_is_listed() -> None:
    assert set(RULES) == {n for n in rules.__all__ if hasattr(getattr(rules, n), "assumptions")}


def test_one_rule_of_each_kind_on_eight_devices() -> None:
    run("-m", "not slow", "tests/sharding/laws.py", "beliefnav/navigation.py")


@pytest.mark.slow
def test_all_rules_on_eight_devices() -> None:
    run("-m", "slow", "tests/sharding/laws.py")
