"""What the experiment claims of what it found."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import report
from experiments.plasticity import scoring
from experiments.plasticity.config import ONE
from experiments.plasticity.results import Found
from experiments.plasticity.streams import DEVELOPMENT

SHORT = 0.1
"""How much less than the hazard filter an ablation ends with, at least, to be clearly short."""
MANY = 5
"""Held-out streams of which a share says something."""
TOLD = "adam_restarted"
ORDINARY = ("one_task", "one_task_mnist1d")


class Tables(NamedTuple):
    """Stream -> method -> what was found.

    Attributes:
        best: at settings that were chosen for the stream.
        at_one: at one setting for all streams.
        classifies: whether scores of a stream are accuracies.
    """

    best: Mapping[str, Mapping[str, Found]]
    at_one: Mapping[str, Mapping[str, Found]]
    classifies: Mapping[str, bool]


def not_told(of: Mapping[str, Found], kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Mean score over all tasks [seed] of the methods that nobody tells anything."""
    return {
        name: found.lives.online.mean(1)
        for name, found in of.items()
        if kinds[name] in ("field", "ours")
    }


def summary(tables: Tables, kinds: Mapping[str, str]) -> dict[str, Any]:
    """The one rule on streams that were held out, and every method at one setting."""
    best, at_one = (
        {stream: not_told(of, kinds) for stream, of in table.items()}
        for table in (tables.best, tables.at_one)
    )
    said: dict[str, Any] = {}
    beside = {
        stream: scoring.compared(at_one[stream][ONE], best[stream], tables.classifies[stream])
        for stream in best
        if ONE in at_one.get(stream, {})
    }
    held_out = [stream for stream in beside if stream not in DEVELOPMENT]
    if held_out:
        right = [beside[s]["half_width"] for s in held_out if tables.classifies[s]]
        said["one"] = {
            "settings": tables.at_one[held_out[0]][ONE].settings,
            "on": beside,
            "held_out": len(held_out),
            "not_worse": sum(beside[s]["not_worse"] for s in held_out),
            "share": float(np.mean([beside[s]["not_worse"] for s in held_out])),
            "half_width": max(right, default=0.0),
        }
        said["ranks"] = scoring.ranked({s: at_one[s] for s in held_out}, best, tables.classifies)
    trends = {
        stream: scoring.trend(
            of[ONE].lives.online,
            tables.best[stream][TOLD].lives.online,
            tables.classifies[stream],
        )
        for stream, of in tables.at_one.items()
        if ONE in of and TOLD in tables.best[stream] and of[ONE].lives.online.shape[1] > 1
    }
    if trends:
        said["trend"] = trends
    ordinary = {
        stream: report.interval(best[stream]["adam"] - at_one[stream][ONE])
        for stream in ORDINARY
        if "adam" in best.get(stream, {}) and ONE in at_one.get(stream, {})
    }
    if ordinary:
        said["ordinary"] = ordinary
    return said


def claims(tables: Tables, said: Mapping[str, Any], *, quick: bool) -> list[report.Claim]:
    """Those of the methods and streams that were run. A quick run is short, its claims loose."""
    made = _random_labels(tables, quick=quick)
    if said.get("one", {}).get("held_out", 0) >= MANY:
        made += [
            report.at_least(
                f"{ONE} at one setting: held-out streams on which it is not worse than the best",
                said["one"]["share"],
                0.7,
            ),
            report.at_most(
                "half-width of the differences in accuracy", said["one"]["half_width"], 0.01
            ),
        ]
    swap = tables.at_one.get("two_swap", {})
    if ONE in swap:
        end = float(swap[ONE].lives.end.mean())
        made.append(
            report.at_least(f"two classes swap: {ONE}, test accuracy at the end", end, 0.97)
        )
    if "trend" in said and not quick:
        worst = min(mean for mean, *_ in said["trend"].values())
        name = f"{ONE}, last tenth - first, less the oracle's change, on the worst stream"
        made.append(report.at_least(name, worst, -0.02))
    made += [
        report.at_most(f"{stream}: online accuracy, Adam - {ONE}", gap, 0.003)
        for stream, (gap, *_) in said.get("ordinary", {}).items()
    ]
    return made


def _random_labels(tables: Tables, *, quick: bool) -> list[report.Claim]:
    of = tables.best.get("random_labels", {})
    ends = {name: float(scoring.last(found.lives.online).mean()) for name, found in of.items()}
    starts = {name: float(scoring.first(found.lives.online).mean()) for name, found in of.items()}
    made = []
    if "adam_3e-3" in of:
        made += [
            report.at_least("Adam 3e-3, first tenth", starts["adam_3e-3"], 0.55),
            report.at_most("Adam 3e-3, last tenth", ends["adam_3e-3"], 0.25, 0.05 if quick else 0),
        ]
    if TOLD in of:
        change = ends[TOLD] - starts[TOLD]
        made.append(report.close("oracle, last - first: tasks are equally hard", change, 0.0, 0.03))
        made += [
            report.at_least(
                f"{name}, last tenth against the oracle's", ends[name], ends[TOLD], 0.06
            )
            for name in ("hazard_filter", ONE)
            if name in of
        ]
    ablations: Sequence[str] = ("variance_only", "mean_only", "to_zero", "no_hazard")
    if "hazard_filter" in of:
        bound = ends["hazard_filter"] - SHORT
        made += [
            report.at_most(f"{name}, last tenth", ends[name], bound)
            for name in ablations
            if name in of
        ]
    return made
