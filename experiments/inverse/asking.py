"""What the inference says of a recording, as results that are kept and written down."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beliefnav import recording
from beliefnav.atlas.explaining import explain
from experiments.options import OptionError

if TYPE_CHECKING:
    import xarray as xr

Said = Mapping[str, Any]
"""What `ask` returns, also as a file gives it back."""


def ask(stream: "xr.Dataset") -> dict[str, Any]:
    """Infer what a learner assumes.

    Args:
        stream: its recording.

    Returns:
        ``verdict``, ``rule``, ``nearest`` and ``missing``; ``parameters``, name -> median, low,
        high and whether it is told; ``options``; ``rates`` [step]; ``unexplained`` and
        ``rounding``, shares of the movement; ``coordinates`` and ``steps`` that are not explained;
        ``statements``; ``residual`` [step, param]; the ``table`` that a person reads.
    """
    inferred = explain(stream)
    learner = inferred.learner
    return {
        "verdict": learner.verdict,
        "rule": inferred.rule,
        "nearest": inferred.nearest,
        "missing": list(inferred.missing),
        "parameters": {
            name: [float(p.median), float(p.low), float(p.high), bool(p.curved)]
            for name, p in learner.parameters.items()
        },
        "options": {name: [str(x) for x in chosen] for name, chosen in learner.options.items()},
        "rates": np.asarray(learner.rates),
        "unexplained": float(learner.unexplained),
        "rounding": float(learner.rounding),
        "coordinates": list(learner.coordinates),
        "steps": [[int(a), int(b)] for a, b in learner.steps],
        "statements": list(learner.statements),
        "residual": np.asarray(learner.residual, np.float32),
        "table": str(inferred),
    }


def called(said: Said) -> str | None:
    """The rule, with those of its options that the baseline has names of their own for."""
    rule, options = said["rule"], said["options"]
    if rule == "sgd" and abs(said["parameters"]["b1"][0]) > 1e-3:
        return "nesterov" if options["look_ahead"][0] == "True" else "momentum"
    if rule == "rmsprop" and options["second_moment"][0] == "centred":
        return "rmsprop, centred"
    return rule


def written(said: Said) -> dict[str, Any]:
    """What ``metrics.json`` has of it: all but the arrays and the table."""
    return {name: x for name, x in said.items() if name not in ("rates", "residual", "table")}


def ask_file(path: Path) -> dict[str, Any]:
    """Ask of a person's own recording.

    Raises:
        OptionError: it is no stream file, or one of gradients alone.
    """
    return _readable(path, lambda: ask(recording.read_stream(path)))


def _readable(path: Path, answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return answer()
    except ValueError as error:
        said = str(error)
        raise OptionError(said if str(path) in said else f"{path}: {said}") from error
