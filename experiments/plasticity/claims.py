"""What the experiment claims."""

import numpy as np

from experiments import report
from experiments.plasticity.results import Result, alarms, first, last

SHORT = 0.1
"""How much less than the hazard filter an ablation ends with, at least, to be clearly short."""


def claims(found: dict[str, dict[str, Result]], *, quick: bool) -> list[report.Claim]:
    """Those of the methods that were run. A quick run is too short for Adam to fall all the way."""
    made = []
    of = found.get("random_labels", {})
    ends = {name: float(last(result.lives).mean()) for name, result in of.items()}
    starts = {name: float(first(result.lives).mean()) for name, result in of.items()}
    loose = 0.03 if quick else 0.0
    if "adam_3e-3" in of:
        made += [
            report.at_least("Adam 3e-3, first tenth", starts["adam_3e-3"], 0.55),
            report.at_most("Adam 3e-3, last tenth", ends["adam_3e-3"], 0.25, 0.3 if quick else 0.0),
        ]
    if "oracle" in of:
        change = ends["oracle"] - starts["oracle"]
        made.append(report.close("oracle, last - first: tasks are equally hard", change, 0.0, 0.03))
    for name in ("hazard_filter", "two_hypothesis"):
        if name in of:
            said = f"{name}, last tenth against first"
            made.append(report.at_least(said, ends[name], starts[name], 0.03 + loose))
            if "oracle" in of:
                made.append(
                    report.at_least(
                        f"{name}, last tenth against the oracle's",
                        ends[name],
                        ends["oracle"],
                        0.03 + loose,
                    )
                )
    if "hazard_filter" in of:
        for name in ("variance_only", "mean_only", "to_zero", "no_hazard"):
            if name in of:
                bound = ends["hazard_filter"] - SHORT
                made.append(report.at_most(f"{name}, last tenth", ends[name], bound))
    if {"two_hypothesis", "random_resets"} <= set(of):
        bound = ends["two_hypothesis"] - SHORT
        made.append(report.at_most("resets at random times, last", ends["random_resets"], bound))
    if "two_hypothesis" in of:
        seen = alarms(of["two_hypothesis"].lives)
        if seen["detected"] is not None:
            name = "two_hypothesis: switches that are seen"
            made.append(report.at_least(name, seen["detected"], 0.95))
        made += [
            report.at_most(
                "two_hypothesis: false alarms in 1,000 steps",
                seen["false_alarms_per_1000_steps"] or 0.0,
                1.0,
            ),
        ]
    gaps = stationary_gaps(found.get("stationary", {}))
    made += [
        report.at_most(f"one ordinary task: test accuracy, Adam - {name}", gap, 0.01)
        for name, gap in gaps.items()
    ]
    return made


def stationary_gaps(of: dict[str, Result]) -> dict[str, float]:
    """Adam's test accuracy on one ordinary task, minus ours."""
    if "adam" not in of:
        return {}
    ends = {name: float(np.mean(result.lives.end[:, -1])) for name, result in of.items()}
    ours = ("hazard_filter", "hazard_filter_batch", "two_hypothesis")
    return {name: ends["adam"] - ends[name] for name in ours if name in ends}
