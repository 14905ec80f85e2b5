"""What every experiment reports: its claims, and ``metrics.json``."""

import dataclasses
import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from beliefnav._files import written_beside
from experiments.kept import Kept, versions
from experiments.options import Options

METRICS = "metrics.json"
KEPT = "kept"
"""The folder, in that of a run, of results that a later run may use again."""


def interval(values: np.ndarray) -> list[float]:
    """Mean over seeds with its 95 % interval, by Student's t; of one seed just the mean."""
    from scipy import stats

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return [mean, mean, mean]
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return [mean, mean - half, mean + half]


class Claim(NamedTuple):
    """A statement with a number: ``value relation bound``, give or take the tolerance."""

    name: str
    value: float
    relation: str
    bound: float
    tolerance: float = 0.0

    @property
    def key(self) -> str:
        """The name in lower case, with underscores: where ``metrics.json`` has the claim."""
        return re.sub(r"[^0-9a-z]+", "_", self.name.lower()).strip("_")

    @property
    def holds(self) -> bool:
        """Whether the run bears it out; what is not a number does not."""
        off = {
            "≥": self.bound - self.value,
            "≤": self.value - self.bound,
            "=": abs(self.value - self.bound),
        }
        return off[self.relation] <= self.tolerance

    def __str__(self) -> str:
        """The relation in numbers, as in ``0.203 ≥ 0.01`` or ``0.5003 = 0.5 ± 0.01``."""
        sign = {"≥": "-", "≤": "+", "=": "±"}[self.relation]
        slack = f" {sign} {self.tolerance:.2g}" if self.tolerance else ""
        return f"{self.value:.4g} {self.relation} {self.bound:.4g}{slack}"


def at_least(name: str, value: Any, bound: Any, tolerance: float = 0.0) -> Claim:
    """Claim that ``value`` is no more than ``tolerance`` below ``bound``."""
    return Claim(name, float(value), "≥", float(bound), tolerance)


def at_most(name: str, value: Any, bound: Any, tolerance: float = 0.0) -> Claim:
    """Claim that ``value`` is no more than ``tolerance`` above ``bound``."""
    return Claim(name, float(value), "≤", float(bound), tolerance)


def close(name: str, value: Any, expected: Any, tolerance: float) -> Claim:
    """Claim that ``value`` is within ``tolerance`` of ``expected``."""
    return Claim(name, float(value), "=", float(expected), tolerance)


class Report(NamedTuple):
    """What a run came to.

    Attributes:
        claims: what it claims, each under a name of its own.
        results: further entries of ``metrics.json``, of whatever `plain` can write.
    """

    claims: Sequence[Claim]
    results: Mapping[str, Any]


def perform(
    run: Callable[[Any], Report], config: Options, command: str | None = None
) -> dict[str, Any]:
    """Run an experiment, write its ``metrics.json``, and print its claims.

    Args:
        run: ``config -> report``; it writes figures to ``config.folder``.
        config: the options.
        command: the command line that asked for it.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        ValueError: two claims have one key, or a result has the name of another entry.
    """
    date, started = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    revision, kept = commit(), Kept(config.folder / KEPT)  # before anything runs: what is run
    claims, results = run(config)
    metrics = {
        "experiment": config.name,
        "commit": revision,
        "date": date,
        "command": command,
        "options": options(config),
        "versions": versions(),
        "device": jax.devices()[0].device_kind,
        "seeds": {name: value for name, value in options(config).items() if "seed" in name},
        "seconds": round(time.perf_counter() - started, 1),
        "claims": {c.key: c._asdict() | {"says": str(c), "holds": c.holds} for c in claims},
    }
    if len(metrics["claims"]) < len(claims) or metrics.keys() & results.keys():
        raise ValueError(
            f"Cannot write {METRICS} of {config.name}. This is because two claims have one key, or "
            f"a result is called like one of {', '.join(metrics)}; do rename it."
        )
    metrics |= plain(results)
    with written_beside(config.folder / METRICS) as unfinished:
        unfinished.write_text(dumps(metrics))
    kept.put(METRICS, options(config), {"metrics": metrics})
    for claim in claims:
        print(f"{'holds' if claim.holds else 'FAILS'}  {claim.name}: {claim}")
    written = sorted(p.name for p in config.folder.iterdir())
    print(f"Wrote {', '.join(written)} to {config.folder}")
    return metrics


def measured(config: Options) -> dict[str, Any] | None:
    """The metrics of a finished run, if code, versions and options are those that made them."""
    found = Kept(config.folder / KEPT).get(METRICS, options(config))
    path = config.folder / METRICS
    if found is None or not path.is_file() or path.read_text() != dumps(found["metrics"]):
        return None
    return found["metrics"]


def failed(metrics: Mapping[str, Any]) -> list[str]:
    """The names of the claims that do not hold."""
    return [claim["name"] for claim in metrics["claims"].values() if not claim["holds"]]


def options(config: Options) -> dict[str, Any]:
    """The options as ``metrics.json`` has them: without the folder, which changes nothing in it."""
    return {name: value for name, value in plain(config).items() if name != "out"}


def plain(value: Any) -> Any:
    """What JSON can hold, from arrays, NamedTuples, dataclasses, mappings, sequences and paths.

    A key that is a number is written as ``0.3``, one that is a tuple as ``0.3, 1``.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, Mapping):
        return {_key(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    return np.asarray(value).tolist()


def _key(key: Any) -> str:
    if isinstance(key, tuple):
        return ", ".join(map(_key, key))
    return str(key) if isinstance(key, str | int) else f"{key:g}"


def dumps(metrics: Any) -> str:
    """JSON, with a list of numbers on one line."""
    text = json.dumps(metrics, indent=1, ensure_ascii=False)
    indent = r"\n\s+"  # no string has a newline in JSON
    lists = re.compile(rf"\[{indent}([^\[\]{{}}]*?){indent}\]")
    return lists.sub(lambda match: f"[{re.sub(indent, ' ', match[1])}]", text) + "\n"


def commit() -> str | None:
    """The commit of the checkout, marked if Python files differ from it; ``None`` without one."""
    here = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "-s", "--", "*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
