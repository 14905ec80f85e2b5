"""Strictness for all tests: no silent rank promotion; warnings are errors (see pyproject.toml)."""

from collections.abc import Iterator

import jax
import pytest

from experiments.command_line import compile_quickly

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Compile quickly, unless the slow tests, which compute a lot, run too."""
    if config.option.markexpr == "not slow":
        compile_quickly()


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for one test, where a law is exact."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rank_promotion() -> Iterator[None]:
    """Allow rank promotion for one test: NumPyro's own code relies on it."""
    with jax.numpy_rank_promotion("allow"):
        yield
