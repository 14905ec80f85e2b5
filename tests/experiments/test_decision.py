"""The numbers of .github/AVERAGES.md: what two memories say, by exact second moments."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from experiments.certainty import quadratic, regimes
from experiments.certainty.quadratic import Quadratic

PAGE = (Path(__file__).parents[2] / ".github" / "AVERAGES.md").read_text()
RATES, PEAKS = quadratic.RATES[::5], np.geomspace(0.02, 60, 100)
"""Of a constant rate, and of schedules, which may begin beyond the largest stable rate, 2."""


class Case(NamedTuple):
    """Losses on one problem, each at the rate that is best for it but for the last two.

    Attributes:
        constant: of the last iterate at a constant rate.
        schedule: of the last iterate under the better of a linear and a cosine schedule.
        average: with p = 2 at a constant rate.
        shorter: with p = 8 at the rate that is best for p = 2.
        beside_last: of p = 8 over p = 2 at the rate that is best for the last iterate.
    """

    constant: float
    schedule: float
    average: float
    shorter: float
    beside_last: float

    @property
    def falls(self) -> bool:
        """Whether the last iterate, with or without a schedule, ends lower than the average."""
        return min(self.constant, self.schedule) < self.average

    @property
    def differ(self) -> bool:
        """Whether they differ by more than 3 %."""
        ratio = min(self.constant, self.schedule) / self.average
        return bool(abs(np.log(ratio)) > regimes.MARGIN)


def case(problem: Quadratic, steps: int) -> Case:
    shapes = quadratic.schedules(steps)
    falling = np.stack([shapes["linear"], shapes["cosine"]])
    constant = quadratic.sweep(problem, shapes["constant"][None], (2, 8), RATES)
    schedule = quadratic.sweep(problem, falling, (0,), PEAKS)
    last, averages = constant.last[0], constant.average[0]
    average, shorter = averages[averages[:, 0].argmin()]
    untuned = averages[last.argmin()]
    return Case(last.min(), schedule.last.min(), average, shorter, untuned[1] / untuned[0])


def test_the_table_of_regimes_is_exact() -> None:
    for name, problem in regimes.regimes().items():
        (row,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", PAGE, re.M)
        *numbers, verdict = row.split(" | ")
        found = case(problem, 300)
        # The page has three digits.
        np.testing.assert_allclose([float(x) for x in numbers], found[:4], rtol=6e-3)
        assert verdict == ("a schedule" if found.shorter < found.average else "an average")
        right = (found.shorter < found.average) == found.falls
        assert right == (name != "start variance 1/h")


def test_the_program_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(program, {})
    assert re.search(r"^to train with +an average ", capsys.readouterr().out, re.M)


@pytest.mark.slow
def test_the_shorter_memory_says_which_and_at_which_rate() -> None:
    """Shares of the map's problems that are rightly decided, with no number that was fitted."""
    cases = [case(place.problem(), place.steps) for place in regimes.places(quick=False)]
    differ = [c for c in cases if c.differ]
    tuned = np.mean([(c.shorter < c.average) == c.falls for c in differ])
    untuned = np.mean([(c.beside_last < 1) == c.falls for c in differ])
    falls = np.mean([c.falls for c in differ])
    numbers = r"by more than 3 % on (\d+) problems.*?(\d+) %.*?(\d+) %.*?(\d+) %"
    (said,) = re.findall(numbers, PAGE, re.S)
    got = np.array([len(differ), 100 * falls, 100 * tuned, 100 * untuned])
    np.testing.assert_allclose([float(x) for x in said], got, atol=0.6)
