"""Strictness for all tests, programs that are kept between runs, and how many were compiled.

No test promotes ranks silently, and warnings are errors (see pyproject.toml).

Compilation is what tests take most time for. JAX keeps their compiled programs in the folder
``beliefnav/programs`` of the user's cache (``XDG_CACHE_HOME``, else ``~/.cache``), which may be
deleted at any time, apart for every version of JAX and every processor, since a program is made for
the instructions of one processor. ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
``JAX_ENABLE_COMPILATION_CACHE=0`` turns the cache off. No test depends on it: a program that cannot
be read, such as one that another worker is writing, is compiled.

The last lines of a run say how many programs its tests asked for, and how many of these the cache
had; ``--programs=N`` adds the N files with most.
"""

import hashlib
import os
import platform
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


# --- programs -----------------------------------------------------------------------------------

PROGRAMS: Counter[str] = Counter()
"""How many programs each file asked for, and under "" how many of all the cache had."""

_file = pytest.StashKey[str]()


def _processor() -> str:
    """What tells processors apart that a program may or may not run on."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else [platform.processor()]
    kinds = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return hashlib.sha256(repr((platform.machine(), sorted(kinds or lines))).encode()).hexdigest()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--programs",
        nargs="?",
        const=10,
        default=0,
        type=int,
        metavar="N",
        help="list the N files that ask for most programs (10)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Compile quickly, unless the slow tests, which compute a lot, run too; keep and count that."""
    flags = os.environ.get("XLA_FLAGS", "")
    if config.option.markexpr == "not slow" and "xla_backend_optimization_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"
    configured: Any = jax.config
    if configured.jax_compilation_cache_dir is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        kept = home / "beliefnav" / "programs" / f"jax-{jax.__version__}-{_processor()[:12]}"
        jax.config.update("jax_compilation_cache_dir", str(kept))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    def compiled(event: str, duration_secs: float, **_: Any) -> None:
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            PROGRAMS[config.stash.get(_file, "before any test")] += 1

    def found(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            PROGRAMS[""] += 1

    jax.monitoring.register_event_duration_secs_listener(compiled)
    jax.monitoring.register_event_listener(found)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[_file] = item.nodeid.split("::")[0]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands over what it counted."""
    getattr(session.config, "workeroutput", {})["programs"] = dict(PROGRAMS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    PROGRAMS.update(getattr(node, "workeroutput", {}).get("programs", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found, files = PROGRAMS[""], Counter({k: n for k, n in PROGRAMS.items() if k})
    terminalreporter.write_line(f"{files.total():,} programs, {found:,} of them from the cache")
    for file, number in files.most_common(config.option.programs):
        terminalreporter.write_line(f"{number:6,} {file}")


# --- fixtures -----------------------------------------------------------------------------------


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for one test, where a law is exact."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def dtype_promotion() -> Iterator[None]:
    """Allow promotion of dtypes for one test: optax's own code relies on it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def rank_promotion(dtype_promotion: None) -> Iterator[None]:
    """Allow rank promotion, too, for one test: NumPyro's own code relies on both."""
    with jax.numpy_rank_promotion("allow"):
        yield
