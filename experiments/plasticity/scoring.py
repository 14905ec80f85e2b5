"""What is said of methods: levels, differences paired by seed, ranks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.report import interval

ALLOWED = {True: 0.01, False: 0.02}
"""What counts as not worse: less by this accuracy; or an error larger by this share of itself."""

Scores = Mapping[str, np.ndarray]
"""Method -> mean score over all tasks [seed]."""


def tenth(online: np.ndarray) -> int:
    """A tenth of the tasks, at least one."""
    return max(1, online.shape[1] // 10)


def first(online: np.ndarray) -> np.ndarray:
    """Online score in the first tenth of the tasks [seed]."""
    return online[:, : tenth(online)].mean(1)


def last(online: np.ndarray) -> np.ndarray:
    """Online score in the last tenth of the tasks [seed]."""
    return online[:, -tenth(online) :].mean(1)


def advantage(one: np.ndarray, other: np.ndarray, classifies: bool) -> np.ndarray:
    """By how much one is better [seed]: in accuracy, or as a share of the mean error of the other.

    Where one diverged, it is infinitely worse.
    """
    found = one - other if classifies else (other - one) / np.mean(other)
    return np.where(np.isnan(found), -np.inf, found)


def best(scores: Scores, classifies: bool) -> str:
    """The method with the best mean score; one that diverged is none."""
    sign = 1 if classifies else -1
    means = {name: sign * float(np.mean(values)) for name, values in scores.items()}
    return max(means, key=lambda name: means[name] if np.isfinite(means[name]) else -np.inf)


def compared(one: np.ndarray, others: Scores, classifies: bool) -> dict[str, Any]:
    """One rule beside the best of others on a stream, paired by seed."""
    name = best(others, classifies)
    mean, low, high = _interval(advantage(one, others[name], classifies))
    return {
        "best": name,
        "difference": [mean, low, high],
        "half_width": (high - low) / 2,
        "not_worse": low >= -ALLOWED[classifies],
        "short_by": max(0.0, -ALLOWED[classifies] - low),
    }


def ranked(
    at_one: Mapping[str, Scores], tuned: Mapping[str, Scores], classifies: Mapping[str, bool]
) -> dict[str, dict[str, Any]]:
    """Every method at one setting for all streams, beside the best of each stream.

    Args:
        at_one: stream -> scores of methods at their one setting.
        tuned: stream -> scores of methods at the settings that were chosen for that stream.
        classifies: whether scores of the stream are accuracies.

    Returns:
        Method -> its mean rank among the methods (1 is best), its largest loss in units of what is
        allowed and the stream of that, and by stream its difference to the best, with the interval.
    """
    methods = list(dict.fromkeys(name for scores in at_one.values() for name in scores))
    said: dict[str, dict[str, Any]] = {name: {"streams": {}, "ranks": []} for name in methods}
    for stream, scores in at_one.items():
        sign = 1 if classifies[stream] else -1
        means = {
            k: sign * float(np.nan_to_num(np.mean(v), nan=-sign * np.inf))
            for k, v in scores.items()
        }
        for name, values in scores.items():
            beside = compared(values, tuned[stream], classifies[stream])
            said[name]["streams"][stream] = beside
            said[name]["ranks"].append(1 + sum(mean > means[name] for mean in means.values()))
    for of in said.values():
        losses = {
            stream: -beside["difference"][0] / ALLOWED[classifies[stream]]
            for stream, beside in of["streams"].items()
        }
        of["rank"] = float(np.mean(of.pop("ranks")))
        of["worst_stream"] = max(losses, key=lambda stream: losses[stream])
        of["loss"] = losses[of["worst_stream"]]
        of["not_worse"] = float(np.mean([b["not_worse"] for b in of["streams"].values()]))
    return said


def trend(online: np.ndarray, told: np.ndarray, classifies: bool) -> list[float]:
    """Last tenth minus first tenth, less that of a learner that is told, paired by seed.

    Errors count with the other sign, as a share of the mean error of the learner that is told.
    """
    changes = [last(x) - first(x) for x in (online, told)]
    difference = changes[0] - changes[1]
    return _interval(difference if classifies else -difference / np.mean(told))


def _interval(values: np.ndarray) -> list[float]:
    """That of `report.interval`; minus infinity if a run diverged."""
    return interval(values) if np.all(np.isfinite(values)) else 3 * [-np.inf]
