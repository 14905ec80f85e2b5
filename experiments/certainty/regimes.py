r"""Where a schedule wins, where an average does, and the number that says so.

A plain average at the largest rate that is stable, near $2/h_{\max}$, forgets the start like
$(1 + h T/h_{\max})^{-1}$. The *carried start* is the loss that this leaves, over the loss $L^*$ of
a learner who knows all curvatures, noises and the start (`quadratic.kalman`), which no one can be
below:

$$ N = \frac{1}{2 L^*} \sum_i \frac{h_i v_i}{(1 + h_i T/h_{\max})^2} . $$

It grows with the start and shrinks with the noise. Where $N \ll 1$ the noise is what there is to
lose: an average removes it, at a large rate. Where $N \gg 1$ the start is, and an average carries
it along.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from tqdm import tqdm

from experiments.certainty import quadratic
from experiments.certainty.quadratic import POWERS, Quadratic

MARGIN = 0.03
"""By how much less of the loss something must come to in order to win."""
SIZE = 80
"""Coordinates of the problems of the map."""
COARSE = quadratic.RATES[::5]
"""Rates that are tried in the map, 7 % apart."""


class Compared(NamedTuple):
    """The losses on one problem; those of the field come from the best rate each.

    Attributes:
        constant: of the last iterate at a constant rate.
        best_schedule: of the last iterate at the best of all schedules.
        plain_average: at a constant rate.
        best_average: polynomial, at a constant rate, with the best p of `POWERS`.
        best_power: that p.
        together: the least loss of an average (with one of these p) under a schedule of
            `TOGETHER`.
        kalman: of a learner who knows all.
        carried_start: the number N of the module docstring.
    """

    constant: float
    best_schedule: float
    plain_average: float
    best_average: float
    best_power: int
    together: float
    kalman: float
    carried_start: float

    @property
    def average_to_schedule(self) -> float:
        """The loss of the best average as a multiple of that of the best schedule."""
        return self.best_average / self.best_schedule

    @property
    def winner(self) -> str:
        """What ends lowest by more than `MARGIN`."""
        alone = min(self.best_schedule, self.best_average)
        if self.together < (1 - MARGIN) * alone:
            return "together"
        if abs(np.log(self.average_to_schedule)) < MARGIN:
            return "alike"
        return "average" if self.average_to_schedule < 1 else "schedule"


def together_shapes(steps: int) -> np.ndarray:
    """Schedules under which averages are taken: constant, linear, and rising to its double."""
    shapes = quadratic.schedules(steps)
    return np.stack([shapes["constant"], shapes["linear"], 1 - shapes["linear"] / 2])


def compare(
    problem: Quadratic, steps: int, relative_rates: np.ndarray = quadratic.RATES
) -> Compared:
    """The losses of a constant rate, schedules, averages, and both."""
    swept = quadratic.sweep(problem, together_shapes(steps), POWERS, relative_rates)
    averages = swept.average[0].min(0)
    best = int(averages.argmin())
    return Compared(
        constant=float(swept.last[0].min()),
        best_schedule=quadratic.best_schedule(problem, steps).loss,
        plain_average=float(averages[0]),
        best_average=float(averages[best]),
        best_power=POWERS[best],
        together=float(swept.average.min()),
        kalman=quadratic.kalman(problem, steps),
        carried_start=carried_start(problem, steps),
    )


def carried_start(problem: Quadratic, steps: int) -> float:
    """The number N of the module docstring."""
    h = problem.curvature
    left = np.sum(h * problem.start / (1 + h * steps / h.max()) ** 2) / 2
    return float(left / quadratic.kalman(problem, steps))


def signal_to_noise(problem: Quadratic, steps: int) -> float:
    """The control: what all gradients say of the optimum over its prior, in loss-weighted mean.

    It is $T h^2 v / R$, averaged geometrically with weights $h v$.
    """
    h, noise, start = problem
    return float(np.exp(np.average(np.log(steps * h**2 * start / noise), weights=h * start)))


# --- the regimes that are named -----------------------------------------------------------------


def regimes() -> dict[str, Quadratic]:
    """Changes to the standard problem, one each."""
    standard = quadratic.standard()
    h, noise, start = standard
    return {
        "standard": standard,
        "noise x 0.01": standard._replace(noise=noise / 100),
        "noise x 0.001": standard._replace(noise=noise / 1000),
        "start variance 100": standard._replace(start=100 * start),
        "start variance 1/h": standard._replace(start=1 / h),
        "noise flat, 1/200": standard._replace(noise=np.full_like(h, 1 / len(h))),
        "noise variance h^2": standard._replace(noise=h**2),
    }


# --- the map ------------------------------------------------------------------------------------


class Place(NamedTuple):
    r"""A problem of the map: $h_i = i^{-s}$, $R \propto h^j$, $v \propto h^{-k}$, T steps.

    Attributes:
        signal: the start's loss over the sum of the noise variances.
        steps: T.
        spectrum: s.
        noise: j.
        start: k.
    """

    signal: float
    steps: int
    spectrum: float
    noise: float
    start: float

    def problem(self, size: int = SIZE) -> Quadratic:
        """The problem, with a start of unit loss."""
        h = np.arange(1.0, size + 1) ** -self.spectrum
        noise, start = h**self.noise, h**-self.start
        start = 2 * start / np.sum(h * start)
        return Quadratic(h, noise / noise.sum() / self.signal, start)


def places(quick: bool) -> list[Place]:
    """All places of the map; of a quick run a few."""
    signals = 10.0 ** np.arange(-1.0, 5.0)
    every = itertools.product(signals, (50, 300), (1.0, 2.0), (0.0, 1.0, 2.0), (0.0, 1.0))
    chosen = [Place(*place) for place in every]
    return [p for p in chosen if p[1:] == (50, 1.0, 1.0, 0.0)] if quick else chosen


def survey(quick: bool) -> dict[Place, Compared]:
    """Compare at all places."""
    return {
        place: compare(place.problem(), place.steps, COARSE)
        for place in tqdm(places(quick), "map", unit="problem")
    }


class Decided(NamedTuple):
    """How well a number says which of the two wins.

    Attributes:
        rank_correlation: Spearman's, of the number with the average's loss over the schedule's.
        right: share of the places where it is on the right side of its best threshold, of those
            where average and schedule are not alike. The threshold is fitted on these places.
        threshold: that.
        right_when_left_out: the same share, each place with the threshold that is best for the
            other ones.
        constant_answer: share of the better one of two answers without a number, a schedule always
            or an average always.
    """

    rank_correlation: float
    right: float
    threshold: float
    right_when_left_out: float
    constant_answer: float


def decided(found: dict[Place, Compared], number: Any) -> Decided:
    """Judge a number: ``(problem, steps) -> number``."""
    numbers = np.array([number(place.problem(), place.steps) for place in found])
    ratios = np.array([compared.average_to_schedule for compared in found.values()])
    ordered = np.sort(numbers)
    middles = np.sqrt(ordered[1:] * ordered[:-1])
    differ = abs(np.log(ratios)) > MARGIN
    sides = (numbers > middles[:, None]) == (ratios > 1)  # [threshold, place]
    right = sides[:, differ].mean(1)
    best = int(np.argmax(right))
    # Without a place, the sum over the others is that over all less its own.
    others = sides[:, differ].sum(1, keepdims=True) - sides[:, differ]
    left_out = np.take_along_axis(sides[:, differ], others.argmax(0)[None], 0).mean()
    schedule = float(np.mean(ratios[differ] > 1))
    correlation: Any = stats.spearmanr(numbers, ratios)
    return Decided(
        rank_correlation=float(correlation.statistic),
        right=float(right[best]),
        threshold=float(middles[best]),
        right_when_left_out=float(left_out),
        constant_answer=max(schedule, 1 - schedule),
    )
