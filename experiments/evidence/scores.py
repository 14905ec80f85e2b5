r"""Log scores of what was said, in nats a reading, with one recipe of nuisances for all rules.

An error $e_t$ is scored by a Student-t density of $\nu = 4$ degrees of freedom, whose scale is
learned online from the errors before it,

$$ \log s \leftarrow \log s + \kappa \Bigl( \frac{(\nu + 1) e^2}{\nu s^2 + e^2} - 1 \Bigr), $$

a step up the score of the density. A rule cannot win by knowing the unit of an error: errors that
are $c$ times as large lose $\log c$ nats, and nothing else changes. A stage starts anew, with the
scale whose median is that of its first errors.

- *Location*: $e = y - m$.
- *Scale*: $e = y / \sqrt V$, with $-\tfrac12 \log V$ nats for the unit. Here $s$ is learned ten
  times as slowly: it is a factor between $V$ and the mean square, and not a second memory.
- *Both*: $e = (y - m) / \sqrt V$, as scale.
- *Curvature*: $e = c - k V \Delta\theta$ of the change $c$ of the gradient of the same batch, where
  $k \ge 0$ is common to all coordinates and the least-squares one of the readings before, of
  coordinates without zeros.

Reference:
    Harvey, "Dynamic Models for Volatility and Heavy Tails", 2013, chapter 4 (Beta-t-EGARCH, the
    recursion of the scale).
"""

import numpy as np
from scipy import special

from experiments.evidence.streams import WARM_UP

DEGREES = 4.0
FAST, SLOW = 0.05, 0.005
"""Gains of the scale: of location and curvature, of scale."""
TINY = 1e-30
"""What a curvature is at least, in units of the squared gradient."""


def student(
    error: np.ndarray, gain: float, degrees: float = DEGREES, warm_up: int = WARM_UP
) -> np.ndarray:
    """Log densities of errors [..., step, coordinate]; NaN where not scored."""
    height = special.gammaln((degrees + 1) / 2) - special.gammaln(degrees / 2)
    height -= np.log(degrees * np.pi) / 2
    log_scale = np.log(np.maximum(_middle(error[..., :warm_up, :]), TINY)) - np.log(
        special.stdtrit(degrees, 0.75)
    )
    scores = np.full(error.shape, np.nan)
    for t in range(warm_up, error.shape[-2]):
        now = error[..., t, :]
        with np.errstate(over="ignore"):
            square = np.minimum((now * np.exp(-log_scale)) ** 2, 1e300)
        scores[..., t, :] = height - log_scale - (degrees + 1) / 2 * np.log1p(square / degrees)
        pull = (degrees + 1) * square / (degrees + square) - 1
        log_scale = log_scale + gain * np.where(np.isfinite(now), pull, 0.0)
    return scores


def _middle(x: np.ndarray) -> np.ndarray:
    """Median over steps of the sizes that are known; 0 where none is."""
    some = np.isfinite(x).any(-2, keepdims=True)
    known = np.where(some, np.abs(x), 0.0)
    return np.nanmedian(known, -2)


def location(y: np.ndarray, mean: np.ndarray, degrees: float = DEGREES) -> np.ndarray:
    """Of a mean, [..., step, coordinate]; a reading that is missing is NaN."""
    return student(y - mean, FAST, degrees)


def both(
    y: np.ndarray, mean: np.ndarray | float, size: np.ndarray, degrees: float = DEGREES
) -> np.ndarray:
    """Of a mean and a mean square, [..., step, coordinate]; a square of 0 is not said yet."""
    root = np.sqrt(np.where(size > 0, np.maximum(size, TINY), np.nan))
    return student((y - mean) / root, SLOW, degrees) - np.log(root)


def scale(y: np.ndarray, size: np.ndarray, degrees: float = DEGREES) -> np.ndarray:
    """Of a mean square, [..., step, coordinate]."""
    return both(y, 0.0, size, degrees)


def curvature(
    change: np.ndarray,
    value: np.ndarray,
    moved: np.ndarray,
    among: np.ndarray,
    degrees: float = DEGREES,
) -> np.ndarray:
    """Of a curvature, [..., step, coordinate], whose factor is that of ``among`` [..., coordinate].

    In the least squares an error weighs as under a Student-t density of the first changes' scale,
    so that no single reading decides.
    """
    spread = _middle(change[..., :WARM_UP, :])
    counted, spread = among & (spread > 0), np.where(spread > 0, spread, 1.0)
    predicted = value * moved
    error = np.array(change)
    factor = products = squares = np.zeros((*change.shape[:-2], 1))
    for t in range(change.shape[-2]):
        x, c = predicted[..., t, :], change[..., t, :]
        error[..., t, :] = off = c - factor * x
        seen = counted & np.isfinite(c)
        off = np.where(seen, off, 0.0)
        weight = seen / (spread**2 + off**2 / DEGREES)
        products = products + (weight * x * np.where(seen, c, 0.0)).sum(-1, keepdims=True)
        squares = squares + (weight * x**2).sum(-1, keepdims=True)
        factor = np.maximum(products / np.where(squares > 0, squares, 1.0), 0.0)
    return student(error, FAST, degrees)
