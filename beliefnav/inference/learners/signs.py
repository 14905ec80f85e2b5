r"""Learners that move by the sign of a mean: its memories are known as intervals.

$$ \Delta\theta_t = -r_t \big(\mathrm{sign}(\beta_1 m_{t-1} + (1-\beta_1) g_t)
   + \lambda\theta_t\big), \qquad m_t = \beta_2 m_{t-1} + (1-\beta_2) g_t . $$

All moves of a step are of one size, whatever the memories are. Which signs there are is piecewise
constant in the memories: those that make the fewest mistakes are an interval, whose ends bisection
finds.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

__all__ = ["Signs", "fit_signs"]

Floats = NDArray[np.float64]
TINY = 1e-6
"""A sum is of no certain sign, in float32, if it is so small beside its parts."""


class Signs(NamedTuple):
    """A learner by signs.

    Attributes:
        rates: [step].
        decay: per unit of rate.
        rate_sd: standard deviation of the mean rate.
        decay_sd: of the decay. Steps of one size are rounded alike as long as a parameter stays
            between two powers of 2, so that both deviations add up what coordinates do, not steps.
        path: whether the rate varies.
        residual: [step, param], with the signs that were seen.
        mistakes: the smallest number of signs that no pair of memories explains.
        told: number of signs.
        b1: the least and the largest.
        b2: the least and the largest.
        equal: whether one memory does for both.
    """

    rates: Floats
    decay: float
    rate_sd: float
    decay_sd: float
    path: bool
    residual: Floats
    mistakes: int
    told: int
    b1: tuple[float, float]
    b2: tuple[float, float]
    equal: bool


class _Moves(NamedTuple):
    """Moves of one size and a decay, see `Signs`."""

    rates: Floats
    decay: float
    rate_sd: float
    decay_sd: float
    path: bool
    signs: Floats
    residual: Floats


def fit_signs(
    gradient: Floats, displacement: Floats, params: Floats, variance: Floats, seen: Floats
) -> Signs | None:
    """The learner by signs that moves like this; ``None`` if moves are not all of one size.

    Args:
        gradient: [step, param].
        displacement: [step, param].
        params: [step, param], before the step.
        variance: of what rounding does to a displacement [step, param].
        seen: [step, param], 1 where the displacement is known, else 0.
    """
    moves = _one_size(displacement, params, seen / variance, variance, path=False)
    moves = moves or _one_size(displacement, params, seen / variance, variance, path=True)
    if moves is None:
        return None
    used = (seen > 0) & (np.abs(moves.signs) > 0)

    def wrong(b1: float, b2: float) -> int:
        m = lfilter([1 - b2], [1, -b2], gradient, axis=0)
        before = np.concatenate([np.zeros_like(m[:1]), m[:-1]])
        mean, now = b1 * before, (1 - b1) * gradient
        told = np.abs(mean + now) > TINY * (np.abs(mean) + np.abs(now))
        return int((np.sign(mean + now) != moves.signs)[used & told].sum())

    least, (b1, b2), equal = _memories(wrong)
    return Signs(*moves[:5], moves.residual, least, int(used.sum()), b1, b2, equal)


def _one_size(
    displacement: Floats, params: Floats, weight: Floats, variance: Floats, *, path: bool
) -> _Moves | None:
    """Sizes, the same at every step or a path, and decay, by turns; or ``None``."""
    moved = np.where(displacement == 0, np.nan, np.abs(displacement))
    with np.errstate(all="ignore"):
        sizes = np.nan_to_num(np.nanmedian(np.where(np.isfinite(moved), moved, 0), 1))
    decay, rates = 0.0, sizes if path else np.full(len(sizes), np.median(sizes))
    u = signs = pull = displacement
    for _ in range(20):
        with np.errstate(all="ignore"):
            signs = np.nan_to_num(
                -displacement / np.where(rates > 0, rates, np.inf)[:, None] - decay * params
            )
        signs = np.clip(np.round(signs), -1, 1)
        u = signs + decay * params
        along, done = (weight * u * u).sum(1), -(weight * u * displacement).sum(1)
        if not path:
            along, done = np.full_like(along, along.sum()), np.full_like(done, done.sum())
        rates = done / np.where(along > 0, along, 1)
        pull = rates[:, None] * params
        information = float((weight * pull**2).sum())
        rest = -displacement - rates[:, None] * signs
        decay = float((weight * pull * rest).sum() / information) if information else 0.0
    residual = displacement + rates[:, None] * (signs + decay * params)
    if (weight * residual**2).sum() > 2 * (weight * variance).sum():
        return None
    deviations = _deviation(weight, u, residual), _deviation(weight, pull, residual)
    return _Moves(rates, decay, *deviations, path, signs, residual)


Ends = tuple[float, float]


def _memories(wrong: Callable[[float, float], int]) -> tuple[int, tuple[Ends, Ends], bool]:
    """The fewest mistakes, which memories make no more, and whether one for both does."""
    memories = 1 - np.exp(-np.concatenate([[0], np.linspace(np.log(1.25), np.log(2000), 47)]))
    table = np.array([[wrong(b1, b2) for b2 in memories] for b1 in memories])
    i, j = np.unravel_index(np.argmin(table), table.shape)
    least, point = _descended(wrong, int(table.min()), [float(memories[i]), float(memories[j])])
    allowed = [
        (b1, b2)
        for a, b1 in enumerate(memories)
        for b, b2 in enumerate(memories)
        if table[a, b] <= least
    ] + [(point[0], point[1])]
    ends: list[Ends] = [(float(min(v)), float(max(v))) for v in zip(*allowed, strict=True)]
    for _ in range(3):  # the further one memory may go, the further may the other
        for axis in (0, 1):
            low, high = ends[axis]
            others = np.linspace(*ends[1 - axis], 15)

            def fits(value: float, axis: int = axis, others: Floats = others) -> bool:
                pairs = [(value, o) if axis == 0 else (o, value) for o in others]
                return any(wrong(*pair) <= least for pair in pairs)

            below, above = memories[memories < low], memories[memories > high]
            ends[axis] = (
                _edge(fits, low, float(below[-1]) if len(below) else low),
                _edge(fits, high, float(above[0]) if len(above) else high),
            )
    shared = [b for pair in allowed for b in pair] + list(np.linspace(*ends[0], 20))
    return least, (ends[0], ends[1]), any(wrong(b, b) <= least for b in shared)


def _descended(
    wrong: Callable[[float, float], int], least: int, point: list[float]
) -> tuple[int, list[float]]:
    """The fewest mistakes around a point, by steps of logs of memories that are halved."""
    step = 0.06
    while step > 1e-4 and least:
        found = False
        for di, dj in [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)]:
            trial = [
                1 - float(np.exp(-max(-np.log1p(-b) + step * k, 0.0)))
                for b, k in zip(point, (di, dj), strict=True)
            ]
            if (count := wrong(*trial)) < least:
                point, least, found = trial, count, True
                break
        step = step if found else step / 2
    return least, point


def _deviation(weight: Floats, slope: Floats, residual: Floats) -> float:
    """Of a coefficient: what the weights say, or what sums over coordinates say, if that is more.

    Liang and Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 73,
    1986: the covariance that is robust to how the errors of one coordinate go together.
    """
    information = float((weight * slope**2).sum())
    if not information:
        return np.inf
    sums = (weight * slope * residual).sum(0)
    return max(information**-0.5, float(np.sqrt((sums**2).sum()) / information))


def _edge(fits: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where a property ends between a point that has it and one that has not, by bisection."""
    for _ in range(12):
        middle = (inside + outside) / 2
        if fits(middle):
            inside = middle
        else:
            outside = middle
    return inside
