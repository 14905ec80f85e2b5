"""What is claimed, and what ``metrics.json`` says."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments import report
from experiments.inverse.asking import Said, called, written
from experiments.inverse.baseline import Classified
from experiments.inverse.catalogue import KINDS, Learner
from experiments.inverse.coverage import TOLD

OUTSIDE = ("one sign flipped", "memory that switches")
"""Learners outside of the family."""
CONTROL = "adam"
"""The learner that both depart from."""


class Results(NamedTuple):
    """All parts of the experiment but those of a drift.

    Attributes:
        learners: what was recorded.
        said: learner -> what was inferred, also of those that depart from the family.
        baseline: what the classifiers say.
        noisy: learner -> noise -> what was inferred.
        coverage: learner -> noise -> how often intervals hold the truth.
        ends: memory -> noise -> factor between the ends of its interval.
        fits: of every cell of the coverage.
        flipped: label of the coordinate whose sign is flipped.
        steps: of a recording.
    """

    learners: Mapping[str, Learner]
    said: Mapping[str, Said]
    baseline: Classified
    noisy: Mapping[str, Mapping[float, Said]]
    coverage: Mapping[str, Mapping[str, Any]]
    ends: Mapping[str, Mapping[str, float]]
    fits: int
    flipped: str
    steps: int


def recovered(results: Results) -> list[dict[str, Any]]:
    """A row for every number of every learner that is known.

    The error is relative; where the truth is 0 it is the number itself. An interval ``holds`` the
    truth up to its spacing in float32. A number that was not inferred has neither.
    """
    return [
        {"learner": name} | row
        for name, learner in results.learners.items()
        for row in _beside(learner.true, results.said[name])
    ]


def recovered_noisy(results: Results) -> list[dict[str, Any]]:
    """Likewise under noise of execution, whose share of the step is a number too."""
    return [
        {"learner": name, "noise": noise} | row
        for name, of in results.noisy.items()
        for noise, said in of.items()
        for row in _beside(
            KINDS[name].true(**KINDS[name].numbers) | {"relative_noise": noise}, said
        )
    ]


def _beside(true: Mapping[str, float], said: Said) -> list[dict[str, Any]]:
    rows = []
    for parameter, value in true.items():
        row: dict[str, Any] = {"parameter": parameter, "true": value}
        if parameter in said["parameters"]:
            median, low, high, curved = said["parameters"][parameter]
            row |= {"median": median, "low": low, "high": high, "curved": curved}
            row["error"] = abs(median - value) / (abs(value) or 1)
            spacing = float(np.spacing(np.float32(value)))  # a learner has its numbers in float32
            row["holds"] = bool(low - spacing <= value <= high + spacing)
        else:
            row |= {"curved": False, "error": None, "holds": None}
        rows.append(row)
    return rows


def identified(results: Results) -> dict[str, dict[str, str | None]]:
    """Method -> learner -> rule."""
    found: dict[str, dict[str, str | None]] = {
        "inferred": {name: called(results.said[name]) for name in results.learners},
    }
    for classifier, said in results.baseline.said.items():
        found[classifier] = {name: said[name] for name in results.learners}
    return found


def right(results: Results) -> dict[str, float]:
    """Method -> share of the learners whose rule it names."""
    return {
        method: float(np.mean([said[name] == of.kind for name, of in results.learners.items()]))
        for method, said in identified(results).items()
    }


def same_places(named: set[Any], true: set[Any]) -> float:
    """Size of what is in both over the size of what is in either."""
    return len(named & true) / len(named | true) if named | true else 1.0


FADING = 20
"""Steps after which what a learner remembered before a switch is below rounding."""


def half_named(said: Said, steps: int) -> float:
    """How well the windows that are named are one half of the recording.

    The steps after the middle count for neither, while an old memory fades.
    """
    middle = steps // 2
    halves = set(range(middle)), set(range(middle + FADING, steps))
    named = {t for a, b in said["steps"] for t in range(a, b)} & (halves[0] | halves[1])
    return max(same_places(named, half) for half in halves)


def schedule_error(results: Results) -> float | None:
    """The largest relative error of a rate that is a path."""
    errors = [
        float(np.max(np.abs(np.asarray(results.said[name]["rates"]) / learner.rates - 1)))
        for name, learner in results.learners.items()
        if learner.rates is not None
    ]
    return max(errors) if errors else None


def excess(said: Said) -> float:
    """How often what is unexplained is as large as rounding."""
    return said["unexplained"] / said["rounding"]


def claims(results: Results) -> list[report.Claim]:
    """What must hold; each has its control beside it."""
    rows = recovered(results)
    told = [row for row in rows if row["curved"]]
    cells = [of for rule in results.coverage.values() for of in rule.values()]
    noisy = [(name, said) for name, of in results.noisy.items() for said in of.values()]
    told_noisy = [row for row in recovered_noisy(results) if row["curved"]]
    methods = right(results)
    outside = {name: results.said[name] for name in OUTSIDE}
    flip = set(outside["one sign flipped"]["coordinates"])
    plain = results.said[CONTROL]
    made = [
        report.at_most("largest error of a number that is told", _largest(told), 0.01),
        report.at_least("share of the numbers that are told", len(told) / len(rows), 0.9),
        report.at_least("share of 95 % intervals that hold the truth", _held(told), 0.85),
        report.at_least("share of the rules that are identified", methods["inferred"], 1),
        report.at_least(
            "share of the rules that are identified, less that of the best classifier",
            methods["inferred"] - max(methods[name] for name in results.baseline.said),
            0,
        ),
        report.at_least(
            "share of the learners that are called of the family",
            np.mean(
                [results.said[name]["verdict"] == "of the family" for name in results.learners]
            ),
            1,
        ),
        report.at_most(
            "of the family: largest unexplained share, rounding = 1",
            max(excess(results.said[name]) for name in results.learners),
            2,
        ),
        report.at_least(
            "outside: smallest unexplained share, rounding = 1",
            min(excess(said) for said in outside.values()),
            100,
        ),
        report.at_least(
            "outside: share that is called none of these",
            np.mean([said["verdict"] == "none of these" for said in outside.values()]),
            1,
        ),
        report.close(
            "sign: coordinates that are named, in common with the flipped one",
            same_places(flip, {results.flipped}),
            1,
            0,
        ),
        report.at_least(
            "memory: steps that are named, in common with one half",
            half_named(outside["memory that switches"], results.steps),
            0.8,
        ),
        report.at_most(
            "Adam as it is: coordinates and windows that are named",
            len(plain["coordinates"]) + len(plain["steps"]),
            0,
        ),
        report.at_least(
            "noise of execution: share of the learners whose rule is identified",
            np.mean([called(said) == name for name, said in noisy]),
            1,
        ),
        report.at_least(
            "noise of execution: share of 95 % intervals that hold the truth",
            _held(told_noisy),
            0.85,
        ),
        report.at_least(
            "coverage: smallest p, times the number of tests",
            min(of["p"] for of in cells) * len(cells),
            0.01,
        ),
        report.at_most(
            "coverage: largest p of intervals of half the width",
            max(of["narrow"]["p"] for of in cells),
            1e-3,
        ),
    ]
    if ends := results.ends:
        short, *_, long = ends
        made += [
            report.at_most(
                f"memory of squares, {short} steps: largest ratio of the ends of its interval",
                max(ends[short].values()),
                TOLD,
            ),
            report.at_least(
                f"memory of squares, {long} steps: the same at the most noise",
                ends[long][f"{max(map(float, ends[long])):g}"],
                TOLD,
            ),
        ]
    if (error := schedule_error(results)) is not None:
        made.append(report.at_most("schedule: largest error of a rate", error, 0.01))
    return made


def _largest(rows: list[dict[str, Any]]) -> float:
    return max((row["error"] for row in rows), default=np.nan)


def _held(rows: list[dict[str, Any]]) -> float:
    """How many of the intervals hold the truth."""
    return float(np.mean([row["holds"] for row in rows])) if rows else np.nan


def metrics(results: Results) -> dict[str, Any]:
    """What goes into metrics.json."""
    return {
        "recovered": recovered(results),
        "identified": identified(results),
        "true_rules": {name: learner.kind for name, learner in results.learners.items()},
        "share_identified": right(results),
        "baseline": {
            "accuracy": results.baseline.accuracy,
            "shuffled": results.baseline.shuffled,
        },
        "unexplained": {
            name: [said["unexplained"], said["rounding"]] for name, said in results.said.items()
        },
        "inferred": {name: written(results.said[name]) for name in results.learners},
        "schedule_error": schedule_error(results),
        "recovered_noisy": recovered_noisy(results),
        "counts": {
            name: {"numbers": len(rows), "told": len(told), "held": sum(r["holds"] for r in told)}
            for name, rows in (
                ("without noise", recovered(results)),
                ("under noise", recovered_noisy(results)),
            )
            for told in [[row for row in rows if row["curved"]]]
        },
        "noisy": {
            name: {noise: written(said) for noise, said in of.items()}
            for name, of in results.noisy.items()
        },
        "coverage": results.coverage,
        "coverage_smallest_p": min(
            of["p"] for rule in results.coverage.values() for of in rule.values()
        ),
        "memory_told_within": results.ends,
        "outside": {name: written(results.said[name]) for name in (*OUTSIDE, CONTROL)},
        "flipped": results.flipped,
        "half_named": half_named(results.said["memory that switches"], results.steps),
    }
