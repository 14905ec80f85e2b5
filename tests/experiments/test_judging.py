"""Each prediction of the bench is judged: one table in which they hold, and what refutes each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments.certainty import bench, judging, results
from experiments.certainty.bench import Benched
from experiments.certainty.config import RULES
from experiments.tasks.catalogue import TASKS
from experiments.tasks.measuring import Found, Tuned

Errors = dict[tuple[str, str, str], float]
"""Task, inner optimizer and arm -> test error."""
ALIKE = {"last": 0.03, "average": 0.03, "cosine": 0.03, "linear": 0.03}
"""No difference."""
ADAM = {"last": 0.13, "average": 0.10, "cosine": 0.12, "linear": 0.12}
LESS = {"last": 0.106, "average": 0.10, "cosine": 0.105, "linear": 0.105}
CLOTHES = {"last": 0.15, "average": 0.135, "cosine": 0.138, "linear": 0.138}
QUADRATIC = {"last": 0.5, "average": 0.3, "cosine": 0.4, "linear": 0.4}


def errors() -> Errors:
    """What holds all predictions but the last, which contradicts the second."""
    found: Errors = {}
    for task in TASKS:
        for rule in RULES:
            of = {"noisy_quadratic": QUADRATIC, "fashion_cnn": CLOTHES}.get(task, ALIKE)
            if task == "mnist1d_cnn":
                of = ADAM if rule == "adam" else LESS
            off = -0.01 if task == "noisy_quadratic" else 0.0
            together = {f"{s} + average": of["average"] + off for s in ("cosine", "linear")}
            for arm, error in (of | together | {bench.FREE: of["average"] + 0.001}).items():
                found[task, rule, arm] = error
    return found


def benched(
    of: Errors,
    rate: Callable[[str], float] = lambda arm: 2.0 if arm == "average" else 1.0,
    power: float = 2.0,
    nats: Callable[[str], float] = lambda arm: 0.2 if arm == "average" else 0.1,
    widths: tuple[float, float, float] = (1.0, 1.4, 2.0),
) -> Benched:
    """A bench with these test errors, give or take 0.0005 in 4 of 5 seeds.

    Args:
        of: errors.
        rate: arm -> chosen rate.
        power: of all averages.
        nats: arm -> training loss.
        widths: of the bands of last iterate, schedules and average, in units of a logarithm.
    """
    rng, seeds = np.random.default_rng(0), np.array([-0.0005, 0.0005, 0.0, 0.0005, -0.0005])
    found = Benched({}, {})
    for (task, rule, arm), error in of.items():
        scores = {"test error": error + rng.permutation(seeds), "train nats": nats(arm) + seeds}
        of_task = found.arms.setdefault(task, {})
        of_task[f"{rule}, {arm}"] = Found(rate(arm), power if "average" in arm else None, scores)
    rates = np.geomspace(1e-4, 1e4, 201)
    last, schedule, average = (1 + (np.log(rates) / width) ** 2 for width in widths)
    for task in found.arms:
        tuned = found.tuned[task] = {}
        for rule in RULES:
            for name, first in (("constant", last), ("cosine", schedule), ("linear", schedule)):
                readings = {"validation error": np.stack([first, average], -1)[:, None]}
                own = next(iter(found.arms[task].values()))
                tuned[f"{rule}, {name}"] = Tuned(rates, readings, own, own)
    return found


BANDS = {"constant": 2.0, "0": 4.0}


def outcomes(found: Benched, bands: dict[str, float] = BANDS) -> dict[int, str]:
    return {int(n): each.outcome for n, each in judging.judge(found, bands).items()}


def test_a_table_that_was_foretold_holds_every_prediction_but_the_last() -> None:
    found = outcomes(benched(errors()))
    assert found.pop(12) == judging.FAILED
    assert found == dict.fromkeys(range(1, 12), judging.HELD)


def changed(*changes: tuple[str, str, str, float]) -> Errors:
    return errors() | {(task, rule, arm): error for task, rule, arm, error in changes}


REFUTED: dict[str, tuple[int, Benched]] = {
    "one pair is not clear": (1, benched(changed(("noisy_quadratic", "muon", "last", 0.3)))),
    "by less than 0.01": (2, benched(changed(("mnist1d_cnn", "adam", "cosine", 0.107)))),
    "no smaller than with Adam": (2, benched(changed(("mnist1d_cnn", "muon", "last", 0.14)))),
    "not alike": (3, benched(changed(("fashion_cnn", "adam", "cosine", 0.141)))),
    "not below the last": (3, benched(changed(("fashion_cnn", "adam", "last", 0.138)))),
    "a clear difference": (4, benched(changed(("digits_mlp", "muon", "cosine", 0.035)))),
    "the last not the worst": (4, benched(changed(("digits_mlp", "muon", "last", 0.026)))),
    "normalised, it is worse": (5, benched(changed(("digits_batch_norm", "adam", "last", 0.01)))),
    "together, better": (6, benched(changed(("mnist1d_cnn", "adam", "linear + average", 0.09)))),
    "together, no better on the quadratic": (
        6,
        benched(
            changed(
                ("noisy_quadratic", "adam", "linear + average", 0.31),
                ("noisy_quadratic", "adam", "cosine + average", 0.31),
            )
        ),
    ),
    "schedule-free is better": (
        7,
        benched(changed(*((task, "adam", bench.FREE, 0.0) for task in list(TASKS)[:3]))),
    ),
    "the average trains lower": (
        8,
        benched(errors(), nats=lambda arm: 0.1 + 0.1 * (arm == "linear")),
    ),
    "no larger rate": (9, benched(errors(), rate=lambda arm: 1.0)),
    "short memory": (10, benched(errors(), power=1.0)),
    "bands are alike": (11, benched(errors(), widths=(1.0, 1.2, 1.4))),
    "schedules are wider": (11, benched(errors(), widths=(1.0, 2.2, 2.0))),
}


@pytest.mark.parametrize("name", REFUTED)
def test_what_refutes_a_prediction_does(name: str) -> None:
    number, found = REFUTED[name]
    assert outcomes(found)[number] == judging.FAILED


def test_the_last_prediction_and_the_bands_of_the_exact_quadratic_are_judged_too() -> None:
    gains = [(task, "muon", "last", 0.3) for task in judging.NETWORKS]
    found = outcomes(benched(changed(*gains)), {"constant": 2.0, "0": 2.2})
    assert found[12] == judging.HELD and found[11] == judging.FAILED


def test_what_was_not_run_cannot_be_judged_and_says_what_is_missing() -> None:
    part = {place: x for place, x in errors().items() if place[:2] == ("noisy_quadratic", "adam")}
    whole = benched(errors())
    alone = Benched({"noisy_quadratic": benched(part).arms["noisy_quadratic"]}, whole.tuned)
    found = judging.judge(alone, BANDS)
    assert {each.outcome for each in found.values()} == {judging.OPEN}
    assert found["1"].because == "noisy_quadratic with momentum was not run"
    assert len(found) == len(results.PREDICTIONS.read_text().split("\n1. ")[1].split("**")) // 2


def test_the_average_is_tallied_against_other_arms_on_networks() -> None:
    found: Any = benched(errors())
    assert bench.tally(found, "last") == {"lower": 6, "higher": 0, "neither": 6}
    lost = benched(changed(("digits_mlp", "adam", "cosine", 0.0)))
    assert bench.tally(lost, "cosine")["higher"] == 1
