"""How much a setting matters: one is varied, the others stay."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import report
from experiments.plasticity.config import ONE, ONE_SETTING
from experiments.plasticity.results import Work

STREAMS = ("random_labels", "permuted_pixels", "two_swap")
FACTORS = tuple(10.0 ** (k / 2) for k in range(-3, 4))


def curves(
    field: str, at_one: Mapping[str, Mapping[str, float]]
) -> dict[str, tuple[str, dict[str, float], str]]:
    """Curve -> method, settings, and the name of the one that is varied.

    Args:
        field: the best method of the field.
        at_one: the one setting of every method.
    """
    filter_ = {"hazard": 6e-4, "spread": 4.0}
    name = [name for name, value in at_one[field].items() if value > 0][-1]
    return {
        f"{ONE}, hazard": (ONE, dict(ONE_SETTING), "hazard"),
        "hazard_filter, hazard": ("hazard_filter", filter_, "hazard"),
        "hazard_filter, prior variance": ("hazard_filter", filter_, "spread"),
        f"{field}, {name}": (field, dict(at_one[field]), name),
        f"{field}, learning_rate": (field, dict(at_one[field]), "learning_rate"),
    }


def plan(
    of: Mapping[str, tuple[str, dict[str, float], str]],
) -> list[tuple[str, str, str, dict[str, float]]]:
    """Stream, curve, method and settings of every point."""
    return [
        (stream, curve, method, settings | {name: float(f"{settings[name] * factor:.3g}")})
        for stream in STREAMS
        for curve, (method, settings, name) in of.items()
        for factor in FACTORS
    ]


def measure(work: Work, of: Mapping[str, tuple[str, dict[str, float], str]]) -> dict[str, Any]:
    """Stream -> curve -> the setting, its values, and the score at each with its interval."""
    said: dict[str, Any] = {stream: {} for stream in STREAMS}
    for stream, curve, method, settings in plan(of):
        name = of[curve][2]
        online = work.at(stream, method, settings).lives.online.mean(1)
        entry = said[stream].setdefault(curve, {"setting": name, "values": [], "scores": []})
        entry["values"].append(settings[name])
        entry["scores"].append(report.interval(np.nan_to_num(online)))
    return said
