"""The predictions of ``predictions.md``, each judged by what the bench came to.

A prediction is a sentence, and leaves open what decides. `Judged.criterion` says what decides here;
it was written before any test error was looked at, and asks for every pair of task and
inner optimizer that the sentence is about. A prediction about what was not run cannot be judged.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from experiments.certainty import bench
from experiments.certainty.bench import Benched
from experiments.certainty.config import RULES
from experiments.tasks.catalogue import TASKS
from experiments.tasks.measuring import Found

HELD, FAILED, OPEN = "held", "did not hold", "cannot be judged"
QUADRATIC = "noisy_quadratic"
NETWORKS = tuple(name for name in TASKS if name != QUADRATIC)
DIGITS = ("digits_mlp", "digits_batch_norm")
OTHERS = ("last", "cosine", "linear")


class Judged(NamedTuple):
    """What came of a prediction.

    Attributes:
        prediction: in one line.
        criterion: what decides.
        outcome: `HELD`, `FAILED` or `OPEN`.
        because: the numbers that it rests on, in words.
    """

    prediction: str
    criterion: str
    outcome: str
    because: str


class Missing(Exception):
    """A task, or an inner optimizer, that was not run."""


class _Evidence(NamedTuple):
    """What the judges look at."""

    benched: Benched
    exact_bands: dict[str, float]

    def arm(self, task: str, rule: str, arm: str) -> Found:
        try:
            return self.benched.arms[task][f"{rule}, {arm}"]
        except KeyError:
            raise Missing(f"{task} with {rule} was not run") from None

    def mean(self, task: str, rule: str, arm: str, score: str = "test error") -> float:
        return float(np.mean(self.arm(task, rule, arm).scores[score]))

    def paired(self, task: str, rule: str, arm: str, other: str) -> list[float]:
        """Mean and 95 % interval of the difference in test error."""
        for name in (arm, other):
            self.arm(task, rule, name)
        return bench.paired(self.benched.arms[task], rule, arm, other)

    def band(self, task: str, rule: str, arm: str) -> float:
        self.arm(task, rule, arm)
        return bench.bands(self.benched.tuned[task])[f"{rule}, {arm}"]


Verdict = tuple[bool, str]


def judge(benched: Benched, exact_bands: dict[str, float]) -> dict[str, Judged]:
    """Judge every prediction.

    Args:
        benched: the bench.
        exact_bands: widths of the bands of good rates on the exact quadratic, "constant" and "0".

    Returns:
        Number of the prediction -> what came of it.
    """
    evidence, found = _Evidence(benched, exact_bands), {}
    for number, (prediction, criterion, decide) in enumerate(_PREDICTIONS, 1):
        try:
            held, because = decide(evidence)
            outcome = HELD if held else FAILED
        except Missing as missing:
            outcome, because = OPEN, str(missing)
        found[str(number)] = Judged(prediction, criterion, outcome, because)
    return found


# --- the judges, in the order of the predictions ------------------------------------------------


def _quadratic(of: _Evidence) -> Verdict:
    found = {(rule, other): of.paired(QUADRATIC, rule, "average", other) for rule, other in _PAIRS}
    worst = max(found, key=lambda pair: found[pair][2])
    clear = sum(high < 0 for _, _, high in found.values())
    return clear == len(found), (
        f"clear in {clear} of {len(found)} pairs; the largest difference is {_said(found[worst])}, "
        f"to {worst[1]} with {worst[0]}"
    )


def _mnist1d(of: _Evidence) -> Verdict:
    task = "mnist1d_cnn"
    found = {
        rule: {other: of.paired(task, rule, "average", other)[0] for other in OTHERS}
        for rule in RULES
    }
    largest = max(found["adam"].values()) <= -0.01
    order = all(
        found["adam"][other] < found[rule][other] < 0
        for rule in ("momentum", "muon")
        for other in OTHERS
    )
    return largest and order, _list(
        f"{rule} {', '.join(f'{x:+.4f} to {other}' for other, x in of_rule.items())}"
        for rule, of_rule in found.items()
    )


def _clothes(of: _Evidence) -> Verdict:
    task, rule = "fashion_cnn", "adam"
    between = of.paired(task, rule, "average", "cosine")
    average, cosine = (of.paired(task, rule, arm, "last") for arm in ("average", "cosine"))
    held = abs(between[0]) <= 0.005 and average[2] < 0 and cosine[2] < 0
    return held, (
        f"average - cosine {_said(between)}, average - last {_said(average)}, cosine - last "
        f"{_said(cosine)}"
    )


def _digits(of: _Evidence) -> Verdict:
    clear, not_worst = [], []
    for task in DIGITS:
        for rule in RULES:
            for arm, other in (("average", "cosine"), ("average", "linear"), ("cosine", "linear")):
                mean, low, high = of.paired(task, rule, arm, other)
                if low > 0 or high < 0:
                    clear.append(f"{arm} - {other} {mean:+.4f} ({task}, {rule})")
            means = [of.mean(task, rule, arm) for arm in ("average", *OTHERS)]
            off = max(means) - of.mean(task, rule, "last")
            if off > 0.003:
                not_worst.append(f"{task}, {rule}")
    return not clear and not not_worst, (
        f"clear differences: {_list(clear) or 'none'}; last iterate not the worst: "
        f"{_list(not_worst) or 'nowhere'}"
    )


def _batch_normalisation(of: _Evidence) -> Verdict:
    found = {rule: of.paired("digits_batch_norm", rule, "average", "last") for rule in RULES}
    held = all(low <= 0 for _, low, _ in found.values())
    return held, "average - last: " + _list(f"{rule} {_said(x)}" for rule, x in found.items())


def _together(of: _Evidence) -> Verdict:
    off = {
        (task, rule, schedule): of.mean(task, rule, f"{schedule} + average")
        - min(of.mean(task, rule, "average"), of.mean(task, rule, schedule))
        for task in TASKS
        for rule in RULES
        for schedule in ("cosine", "linear")
    }
    quadratic = {
        rule: min(off[QUADRATIC, rule, schedule] for schedule in ("cosine", "linear"))
        for rule in RULES
    }
    elsewhere = {place: x for place, x in off.items() if place[0] != QUADRATIC}
    far = max(elsewhere, key=lambda place: abs(elsewhere[place]))
    near = sum(abs(x) <= 0.005 for x in elsewhere.values())
    held = max(quadratic.values()) < 0 and near == len(elsewhere)
    return held, (
        f"quadratic: {_list(f'{rule} {x:+.4f}' for rule, x in quadratic.items())}; elsewhere "
        f"{near} of {len(elsewhere)} within 0.005, the farthest {elsewhere[far]:+.4f} "
        f"({', '.join(far)})"
    )


def _schedule_free(of: _Evidence) -> Verdict:
    no_better = {
        rule: sum(
            of.mean(task, rule, bench.FREE) >= of.mean(task, rule, "average") for task in TASKS
        )
        for rule in RULES
    }
    held = min(no_better.values()) > len(TASKS) / 2
    return held, "no better on " + _list(
        f"{count} of {len(TASKS)} tasks with {rule}" for rule, count in no_better.items()
    )


def _training_loss(of: _Evidence) -> Verdict:
    task, said, held = "mnist1d_cnn", [], []
    for rule in RULES:
        error = {arm: of.mean(task, rule, arm) for arm in ("average", "cosine", "linear")}
        nats = {arm: of.mean(task, rule, arm, "train nats") for arm in error}
        if error["average"] < min(error["cosine"], error["linear"]):
            held.append(min(nats["cosine"], nats["linear"]) < nats["average"])
            said.append(f"{rule} {', '.join(f'{arm} {x:.4f}' for arm, x in nats.items())} nats")
    if not said:
        raise Missing("the average has the lowest test error with no inner optimizer")
    return all(held), "training loss: " + _list(said)


def _rates(of: _Evidence) -> Verdict:
    ratios = [
        of.arm(task, rule, "average").rate / of.arm(task, rule, "last").rate
        for task in TASKS
        for rule in RULES
    ]
    at_least, larger = sum(r >= 1 for r in ratios), sum(r > 1 for r in ratios)
    held = at_least >= 0.8 * len(ratios) and larger >= len(ratios) / 3
    return held, f"at least in {at_least} and larger in {larger} of {len(ratios)} pairs"


def _memory(of: _Evidence) -> Verdict:
    powers = [of.arm(task, rule, "average").power or 0 for task in NETWORKS for rule in RULES]
    count = sum(power >= 2 for power in powers)
    every = _list(f"{powers.count(p)} times {p:g}" for p in sorted(set(powers)))
    return count > len(powers) / 2, f"at least 2 in {count} of {len(powers)} pairs: {every}"


def _bands(of: _Evidence) -> Verdict:
    exact = of.exact_bands["0"] / of.exact_bands["constant"]
    said, held = [f"exact quadratic {exact:.2f}"], [exact >= 1.5]
    for task in (QUADRATIC, "mnist1d_cnn"):
        for rule in RULES:
            last, average, *schedules = (
                of.band(task, rule, arm) for arm in ("last", "average", "cosine", "linear")
            )
            between = last <= min(schedules) and max(schedules) <= average
            held.append(average / last >= 1.5 and between)
            said.append(f"{task}, {rule} {average / last:.2f}{'' if between else ' (not between)'}")
    return all(held), "width for the average over that for the last iterate: " + _list(said)


def _muon(of: _Evidence) -> Verdict:
    gains = {
        task: [of.mean(task, r, "last") - of.mean(task, r, "average") for r in ("muon", "adam")]
        for task in NETWORKS
    }
    held = all(muon > adam for muon, adam in gains.values())
    return held, "last - average, Muon and Adam: " + _list(
        f"{task} {muon:+.4f} and {adam:+.4f}" for task, (muon, adam) in gains.items()
    )


def _said(found: Iterable[float]) -> str:
    mean, low, high = found
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def _list(said: Iterable[str]) -> str:
    return "; ".join(said)


_PAIRS = [(rule, other) for rule in RULES for other in OTHERS]

_PREDICTIONS: tuple[tuple[str, str, Callable[[_Evidence], Verdict]], ...] = (
    (
        "on the quadratic the average ends lower than last iterate, cosine and linear",
        "the 95 % interval of each difference lies below 0, with each inner optimizer",
        _quadratic,
    ),
    (
        "on mnist1d the average has the lowest error, with Adam by 0.01, else by less",
        "means: Adam's differences are at most -0.01; those of the others lie between these and 0",
        _mnist1d,
    ),
    (
        "on clothes, with Adam, average and cosine are alike, and below the last iterate",
        "means are within 0.005; both intervals to the last iterate lie below 0",
        _clothes,
    ),
    (
        "on the digits average, cosine and linear do not differ, and the last iterate is the worst",
        "all intervals hold 0; the last iterate is within 0.003 of the worst mean, for each pair",
        _digits,
    ),
    (
        "with batch normalisation the average is no worse than the last iterate",
        "no interval of the difference lies above 0",
        _batch_normalisation,
    ),
    (
        "schedule and average together beat both parts on the quadratic alone",
        "means: the better schedule's is lower on the quadratic, elsewhere all within 0.005",
        _together,
    ),
    (
        "schedule-free is no better than the average on most tasks",
        "its mean is not lower on more than half of the tasks, with each inner optimizer",
        _schedule_free,
    ),
    (
        "where the average wins on mnist1d, a schedule has the lower training loss",
        "means, with each inner optimizer with which the average has the lowest error",
        _training_loss,
    ),
    (
        "the best rate of the average is at least that of the last iterate",
        "in 4 of 5 pairs of task and inner optimizer, and larger in 1 of 3",
        _rates,
    ),
    (
        "on networks the chosen p is at least 2 for most pairs",
        "more than half of the pairs",
        _memory,
    ),
    (
        "the band of good rates is 1.5 times as wide for the average, schedules between",
        "on the quadratic (exact, and with each inner optimizer) and on mnist1d",
        _bands,
    ),
    (
        "with Muon an average gains more over the last iterate than with Adam",
        "means, on every network",
        _muon,
    ),
)
