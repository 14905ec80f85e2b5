"""Whether a residual is rounding, noise of execution, or a learner outside of the family; where."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from beliefnav.inference.learners.searching import cells, windows

__all__ = ["LEVEL", "TWICE", "Judgement", "Noise", "execution_noise", "judge"]

Floats = NDArray[np.float64]

LEVEL = 0.01
"""How often one of all the places that are looked at may exceed its bound by chance."""
TWICE = 2.0
"""A mean square up to so many times that of rounding is rounding."""


class Noise(NamedTuple):
    """Noise of execution.

    Attributes:
        relative: standard deviation, as a share of the step.
        absolute: standard deviation, in units of the parameters.
        relative_sd: standard deviation of the log of ``relative``; infinite if that is 0.
        absolute_sd: likewise.
    """

    relative: float
    absolute: float
    relative_sd: float = math.inf
    absolute_sd: float = math.inf


class Judgement(NamedTuple):
    """What a residual says.

    Attributes:
        explained: whether nothing is left but what the variance says.
        coordinates: positions of those that are not explained.
        windows: [first, last) steps that are not explained.
        patterns: what the residual still goes along with.
    """

    explained: bool
    coordinates: list[int]
    windows: list[tuple[int, int]]
    patterns: list[str]


def execution_noise(residual: Floats, step: Floats, variance: Floats, seen: Floats) -> Noise:
    """Moments of a residual: a part that is as large as the step, and one that is not.

    Squares are regressed on squares of steps, weighted by the variance that is fitted so far; of
    Gaussian noise the square has twice the square of the variance for its own.
    """
    use = seen > 0
    y = (residual**2 - variance)[use]
    x = step[use] ** 2
    both = np.stack([x, np.ones_like(x)], 1)
    units = np.maximum(np.sqrt((both**2).mean(0)), 1e-300)
    both = both / units
    share, normal, scale = np.array([0.0, max(float(y.mean()), 0.0)]), np.eye(2), np.ones(2)
    for _ in range(20):
        weight = (variance[use] + both @ share) ** -2.0
        normal, right = (both.T * weight) @ both, (both.T * weight) @ y
        scale = np.maximum(np.sqrt(np.diag(normal)), 1e-300)  # small steps weigh most by far
        normal, right = normal / scale / scale[:, None], right / scale
        share = np.linalg.lstsq(normal, right, rcond=None)[0] / scale
        for i in (0, 1):
            if share[i] < 0:
                share = np.zeros(2)
                share[1 - i] = max(right[1 - i] / scale[1 - i], 0.0)
    spread = np.sqrt(2 * np.diag(np.linalg.pinv(normal, hermitian=True))) / scale
    with np.errstate(divide="ignore"):
        logs = np.where(share > 0, spread / share / 2, np.inf)
    return Noise(*np.sqrt(share / units).tolist(), *logs.tolist())


def judge(
    residual: Floats, variance: Floats, seen: Floats, causes: dict[str, Floats], *, noisy: bool
) -> Judgement:
    """Look at all coordinates and windows, and at what the residual goes along with.

    The mean square of a coordinate or of a window, in units of its variance, may exceed the upper
    point of its chi-square at `LEVEL` over the number of places; where the variance is that of
    rounding, which is known up to a factor, it may also reach `TWICE`.

    Args:
        residual: [step, param].
        variance: [step, param].
        seen: [step, param], 0 or 1.
        causes: what the residual must not go along with, each [step, param].
        noisy: whether the variance was fitted to this residual, and patterns count.

    Returns:
        What is not explained, and where.
    """
    square = seen * residual**2 / variance
    parts = windows(len(residual))
    places = residual.shape[1] + len(parts) + len(causes)
    level = LEVEL / places
    floor = 1.0 if noisy else TWICE

    def exceeds(total: float, count: float) -> bool:
        return bool(count and total > floor * max(float(stats.chi2.isf(level, count)), count))

    wrong_params = [
        i for i in range(residual.shape[1]) if exceeds(square[:, i].sum(), seen[:, i].sum())
    ]
    wrong_windows = [
        (int(w[0]), int(w[-1]) + 1) for w in parts if exceeds(square[w].sum(), seen[w].sum())
    ]
    patterns = []
    if noisy:
        z = residual * np.sqrt(seen / variance)
        bound = stats.norm.isf(level / 2)
        for name, cause in causes.items():
            x = np.where(seen > 0, cause, 0) / (np.sqrt((cause**2).mean(0)) + 1e-300)
            width = np.sqrt((x**2 * z**2).sum())
            if width > 0 and abs((x * z).sum()) > bound * width:
                patterns.append(name)
    else:
        wrong_params, wrong_windows = _localised(
            residual, variance, seen, wrong_params, wrong_windows
        )
    return Judgement(
        not (wrong_params or wrong_windows or patterns), wrong_params, wrong_windows, patterns
    )


def _localised(
    residual: Floats,
    variance: Floats,
    seen: Floats,
    params: list[int],
    steps: list[tuple[int, int]],
) -> tuple[list[int], list[tuple[int, int]]]:
    """The fewest coordinates and windows that hold all cells which are not explained, nearly.

    One after the other the coordinate or window is taken out of whose cells most are left.
    """
    if not (params or steps):
        return params, steps
    parts, ratio = windows(len(residual)), cells(residual, variance, seen)
    counts = np.maximum(np.stack([seen[w].sum(0) for w in parts]), 1)
    bad = ratio > TWICE * np.maximum(stats.chi2.isf(LEVEL / ratio.size, counts) / counts, 1)
    rows, columns = [], []
    while bad.any():
        by_row, by_column = bad.mean(1), bad.mean(0)
        if by_row.max() > by_column.max():
            rows.append(int(by_row.argmax()))
            bad[rows[-1]] = False
        else:
            columns.append(int(by_column.argmax()))
            bad[:, columns[-1]] = False
    if not (rows or columns):
        return params, steps
    return sorted(columns), [(int(parts[i][0]), int(parts[i][-1]) + 1) for i in sorted(rows)]
