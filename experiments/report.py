"""What every experiment reports: claims, metrics.json, and the table at the end."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

PACKAGES = ("beliefnav", "jax", "optax", "numpyro", "arviz", "numpy")


class Claim(NamedTuple):
    """A statement with a number, and whether the run bears it out."""

    name: str
    value: float
    expected: float
    tolerance: float
    holds: bool


def at_least(name: str, value: float, bound: float, tolerance: float = 0.0) -> Claim:
    """Claim that ``value`` is no more than ``tolerance`` below ``bound``."""
    return Claim(name, float(value), bound, tolerance, bool(value >= bound - tolerance))


def at_most(name: str, value: float, bound: float, tolerance: float = 0.0) -> Claim:
    """Claim that ``value`` is no more than ``tolerance`` above ``bound``."""
    return Claim(name, float(value), bound, tolerance, bool(value <= bound + tolerance))


def close(name: str, value: float, expected: float, tolerance: float) -> Claim:
    """Claim that ``value`` is within ``tolerance`` of ``expected``."""
    return Claim(name, float(value), expected, tolerance, bool(abs(value - expected) <= tolerance))


def write_metrics(
    folder: Path, *, seed: int, quick: bool, claims: Sequence[Claim], results: Mapping[str, Any]
) -> None:
    """Write ``metrics.json`` and print the claims.

    Args:
        folder: where to.
        seed: the seed of the run.
        quick: whether it was a quick run.
        claims: what the run claims.
        results: further entries of ``metrics.json``.
    """
    metrics = {
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "seed": seed,
        "quick": quick,
        "claims": [claim._asdict() for claim in claims],
        **results,
    }
    path = folder / "metrics.json"
    path.write_text(json.dumps(metrics, indent=2) + "\n")
    for claim in claims:
        verdict = "holds" if claim.holds else "FAILS"
        print(
            f"{verdict}  {claim.name}: {claim.value:.4g} "
            f"(expected {claim.expected:.4g}, tolerance {claim.tolerance:.2g})"
        )
    print(f"Wrote {', '.join(sorted(p.name for p in folder.iterdir()))} to {folder}")
