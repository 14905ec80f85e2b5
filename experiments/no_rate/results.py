"""Ratios of errors, what was expected of them, what is claimed, and what ``metrics.json`` says."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import report
from experiments.no_rate.arms import DEFAULT, READINGS, RULE, TUNED, TUNED_COSINE
from experiments.no_rate.bench import Benched, Scored
from experiments.no_rate.paths import Paths
from experiments.no_rate.stress import GUESSES, Stressed
from experiments.report import interval
from experiments.tasks.catalogue import HELD_OUT, TASKS

PREDICTIONS = Path(__file__).parent / "predictions.md"
OURS = f"{RULE}, average"
RIVALS = {
    "tuned": f"{TUNED}, last",
    "tuned cosine": f"{TUNED_COSINE}, last",
    "tuned average": f"{TUNED}, average",
    "default": f"{DEFAULT}, last",
}
"""Adam in four ways, which the rule is compared with."""
GROUPS = {"five": tuple(TASKS), "held out": tuple(HELD_OUT), "all": (*TASKS, *HELD_OUT)}
SETTLED = 0.1
"""How far from where it ends a distance may be, relatively, to have settled."""


class Results(NamedTuple):
    """Both parts of the experiment."""

    benched: Benched
    stressed: Stressed


def ratio(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    r"""Ratio of the means over seeds with its 95 % interval, paired by seed.

    With $r = \bar a / \bar b$ the interval is that of the mean of $(a_i - r b_i) / \bar b$, which
    is the ratio's error to first order; unlike a mean of ratios it bears a seed without errors.
    """
    found = float(np.mean(ours) / np.mean(theirs))
    _, low, high = interval((ours - found * theirs) / np.mean(theirs))
    return [found, found + low, found + high]


def ratios(benched: Benched, arm: str, rival: str) -> dict[str, list[float]]:
    """Task -> ratio of an arm's test error to that of another."""
    return {
        task: ratio(scores[arm].error, scores[rival].error)
        for task, scores in benched.scores.items()
    }


def summary(of_tasks: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Worst and median ratio over the tasks of a group."""
    found = {}
    for group, tasks in GROUPS.items():
        values = [of_tasks[task][0] for task in tasks if task in of_tasks]
        if values:
            found[group] = {"worst": max(values), "median": float(np.median(values))}
    return found


def settled(distance: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Steps after which a distance stays within a tenth of where it ends [seed]."""
    off = np.abs(np.log(distance / distance[:, -1:])) > np.log1p(SETTLED)
    last_off = off.shape[1] - 1 - np.argmax(off[:, ::-1], axis=1)
    return np.where(off.any(1), steps[np.minimum(last_off + 1, len(steps) - 1)], steps[0])


def distances(path: Paths) -> dict[str, list[float]]:
    """What was believed of the distance in the end, the way that was gone, and when it settled."""
    learned = path["distance"][:, -1]
    return {
        "learned": interval(learned),
        "way of the largest entry": interval(path["average largest"]),
        "way, root mean square": interval(path["average rms"]),
        "learned to largest": ratio(learned, path["average largest"]),
        "learned to root mean square": ratio(learned, path["average rms"]),
        "settled after steps": interval(settled(path["distance"], path["steps"])),
    }


def expected(results: Results) -> list[report.Claim]:
    """What was expected in ``predictions.md``, whether or not it came out."""
    groups = [
        group
        for group in ("five", "held out")
        if group in summary(ratios(results.benched, OURS, OURS))
    ]
    found = [claim for group in groups for claim in _expected_of(results.benched, group)]
    return found + _expected_under_stress(results.stressed)


BOUNDS = (
    ("tuned", "worst", 1.05),
    ("tuned", "median", 1.0),
    ("tuned cosine", "worst", 1.2),
    ("tuned cosine", "median", 1.0),
    ("tuned average", "median", 1.1),
    ("default", "worst", 1.05),
    ("default", "median", 0.95),
    ("own last iterate", "median", 1.0),
    ("DoG", "median", 1.0),
)
"""What the rule is compared with, over tasks how, and the largest ratio that is expected."""


def _expected_of(benched: Benched, group: str) -> list[report.Claim]:
    """On the tasks of a group."""
    rivals = RIVALS | {"own last iterate": f"{RULE}, last", "DoG": "dog, average"}
    return [
        report.at_most(
            f"{group}: {how} ratio to {name}",
            summary(ratios(benched, OURS, rivals[name]))[group][how],
            bound,
        )
        for name, how, bound in BOUNDS
        if all(rivals[name] in scores for scores in benched.scores.values())
    ]


def _expected_under_stress(stressed: Stressed) -> list[report.Claim]:
    """On other batches, a table, a switch, and from bad guesses."""
    found, problems = [], stressed.problems
    for problem in ("batch 4", "batch 1024", "sparse gradients"):
        of_arms = problems[problem]
        to_default = _mean(of_arms[RULE], "average") / _mean(of_arms[DEFAULT], "last")
        found.append(report.at_most(f"{problem}: ratio to Adam at 1e-3", to_default, 1.1))
    after, without = problems["after a switch"][RULE], problems["no switch"][RULE]
    last = _mean(after, "last")
    found += [
        report.at_least("switch: average, last iterate = 1", _mean(after, "average") / last, 2.0),
        report.at_most("switch: last iterate, without = 1", last / _mean(without, "last"), 1.5),
    ]
    for task, of_rules in stressed.guesses.items():
        low, middle, high = of_rules[RULE]["average error"].mean(1)
        found += [
            report.at_most(f"{task}: a guess of 1e-6, of 1e-4 = 1", low / middle, 1.1),
            report.at_least(f"{task}: a guess of 100, of 1e-4 = 1", high / middle, 2.0),
        ]
    return found


def claims(results: Results, *, quick: bool) -> list[report.Claim]:
    """What must hold over all tasks of the run."""
    rivals = RIVALS | {"own last iterate": f"{RULE}, last", "DoG": "dog, average"}
    slack = 0.3 if quick else 0.0
    made = []
    for name, how, bound in (
        ("default", "worst", 1.1),
        ("default", "median", 0.95),
        ("tuned", "median", 1.05),
        ("own last iterate", "median", 1.0),
        ("DoG", "median", 1.0),
    ):
        if all(rivals[name] in scores for scores in results.benched.scores.values()):
            found = summary(ratios(results.benched, OURS, rivals[name]))["all"][how]
            made.append(report.at_most(f"{how} ratio to {name}", found, bound, slack))
    default = summary(ratios(results.benched, RIVALS["default"], RIVALS["tuned"]))["all"]["worst"]
    made.append(report.at_least("worst ratio of default to tuned", default, 1.5))
    for task, of_rules in results.stressed.guesses.items():
        low, middle, _ = of_rules[RULE]["distance"][:, :, -1].mean(1)
        name = f"{task}: learned distance from a guess of 1e-6, from 1e-4 = 1"
        made.append(report.close(name, low / middle, 1.0, 0.3))
    return made


def metrics(results: Results) -> dict[str, Any]:
    """What goes into metrics.json."""
    benched, stressed = results.benched, results.stressed
    arms = next(iter(benched.scores.values()))
    of_arms = {arm: ratios(benched, arm, RIVALS["tuned"]) for arm in arms}
    of_rivals = {name: ratios(benched, OURS, rival) for name, rival in RIVALS.items()}
    return {
        "predictions_sha256": hashlib.sha256(PREDICTIONS.read_bytes()).hexdigest(),
        "predictions": {
            claim.key: claim._asdict() | {"says": str(claim), "held": claim.holds}
            for claim in expected(results)
        },
        "tasks": {
            task: {arm: _said(scored) for arm, scored in scores.items()}
            for task, scores in benched.scores.items()
        },
        "ratios": of_rivals,
        "summary": {name: summary(of_tasks) for name, of_tasks in of_rivals.items()},
        "arms": {arm: summary(of_tasks) for arm, of_tasks in of_arms.items()},
        "ratios_to_tuned": of_arms,
        "distances": {task: distances(paths[RULE]) for task, paths in benched.paths.items()},
        "stress": {
            problem: {arm: _readings(path) for arm, path in of_arms.items()}
            for problem, of_arms in stressed.problems.items()
        },
        "guesses": {
            task: {rule: _of_guesses(paths) for rule, paths in of_rules.items()}
            for task, of_rules in stressed.guesses.items()
        },
    }


def _readings(path: Paths) -> dict[str, list[float]]:
    """Test error of both readings."""
    return {reading: interval(path[f"{reading} error"]) for reading in READINGS}


def _of_guesses(paths: Paths) -> dict[str, Any]:
    """Guess -> errors, and what became of the distance."""
    found = {}
    for i, guess in enumerate(GUESSES):
        path = {name: x if name == "steps" else x[i] for name, x in paths.items()}
        found[f"{guess:g}"] = _readings(path) | {
            "learned": interval(path["distance"][:, -1]),
            "settled after steps": interval(settled(path["distance"], path["steps"])),
        }
    return found


def _said(scored: Scored) -> dict[str, Any]:
    return {
        "error": interval(scored.error),
        "nats": interval(scored.nats),
        "settings": scored.settings,
    }


def _mean(path: Paths, reading: str) -> float:
    return float(np.mean(path[f"{reading} error"]))
