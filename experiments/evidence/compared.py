"""The three scores of every rule on every stream, as differences to a reference."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.evidence import scores
from experiments.evidence.said import CONTROL, REFERENCE, RULES, Said, nothing, said
from experiments.evidence.streams import STAGES, Stream
from experiments.report import interval

PARTS = ("location", "scale", "curvature")
TRIMMED = 0.1
"""The share of coordinates that is left out at either end of a trimmed mean."""
GAUSSIAN = 100.0
"""Degrees of freedom of another recipe, with tails that are nearly Gaussian."""
Scores = dict[str, dict[str, np.ndarray]]


class Difference(NamedTuple):
    """How much more a rule gives a reading than the reference, in nats.

    Attributes:
        trimmed_mean: over coordinates, mean over networks with its 95 % interval.
        median: over coordinates of all networks.
        coordinates: how many there are, over all networks.
    """

    trimmed_mean: list[float]
    median: float
    coordinates: int


def scored(of: Said, stream: Stream, stage: slice, degrees: float) -> dict[str, np.ndarray]:
    """Part -> mean over the steps of a stage [network, coordinate] of what a rule says of."""

    def cut(x: np.ndarray | None) -> np.ndarray | None:
        return None if x is None else x[:, stage].astype(float)

    gradient, moved, change = (x[:, stage].astype(float) for x in stream)
    y = np.where(gradient == 0, np.nan, gradient)
    change = np.where((gradient == 0) | (change == 0), np.nan, change)
    mean, size, value = map(cut, of)
    found = {}
    if mean is not None:
        found["location"] = scores.location(y, mean, degrees)
    if size is not None:
        found["scale"] = scores.scale(y, size, degrees)
    if value is not None:
        found["curvature"] = scores.curvature(change, value, moved, (gradient != 0).all(1), degrees)
    return {part: mean_seen(x) for part, x in found.items()}


def mean_seen(x: np.ndarray) -> np.ndarray:
    """Over the steps that have a score; NaN where none has."""
    seen = np.isfinite(x)
    total = np.where(seen, x, 0.0).sum(1)
    return np.where(seen.any(1), total / np.maximum(seen.sum(1), 1), np.nan)


def all_scores(stream: Stream, degrees: float = scores.DEGREES) -> dict[str, Scores]:
    """Stage -> rule -> part -> scores [network, coordinate]."""
    everything = {name: said(asked, stream) for name, asked in RULES.items()}
    everything[CONTROL] = nothing(stream)
    return {
        name: {
            rule: scored(of, stream, stream.stage(i), degrees) for rule, of in everything.items()
        }
        for i, name in enumerate(STAGES)
    }


def complete(stream: Stream, number: int) -> np.ndarray:
    """Which coordinates have no gradient of exactly zero in a stage [network, coordinate]."""
    return (stream.gradient[:, stream.stage(number)] != 0).all(1)


def differences(of_stage: Scores, among: np.ndarray) -> dict[str, dict[str, Difference | str]]:
    """Rule -> part -> difference to the reference, or that the rule says nothing.

    Args:
        of_stage: rule -> part -> scores.
        among: coordinates that count [network, coordinate].
    """
    return {
        rule: {part: _difference(of_stage, rule, part, among) for part in PARTS}
        for rule in of_stage
    }


def _difference(of_stage: Scores, rule: str, part: str, among: np.ndarray) -> Difference | str:
    if part not in of_stage[rule]:
        return "says nothing"
    more = np.where(among, of_stage[rule][part] - of_stage[REFERENCE][part], np.nan)
    rows = [row[np.isfinite(row)] for row in more]
    means = np.array([stats.trim_mean(row, TRIMMED) for row in rows if len(row)])
    if not len(means):
        return "no coordinates"
    return Difference(interval(means), float(np.median(np.concatenate(rows))), sum(map(len, rows)))
