"""The evidence for a prior variance and for a switch, from dense Gaussians of a whole stream."""

from typing import Any

import numpy as np
from scipy import optimize, special, stats

from tests.oracles.streams import Floats

__all__ = ["evidence_of_variance", "most_evident_variance", "switch_evidence"]


def evidence_of_variance(
    variance: float, y: Floats, h: Floats, position: Floats, examples: float
) -> float:
    """Log density of gradients [step, entry] of optima that are one draw from N(0, variance)."""
    total = 0.0
    for i in range(y.shape[1]):
        covariance = variance * np.outer(h[:, i], h[:, i]) + np.diag(h[:, i] / examples)
        law: Any = stats.multivariate_normal
        total += law(cov=covariance).logpdf(y[:, i] - h[:, i] * position[:, i])
    return total


def most_evident_variance(
    y: Floats, h: Floats, position: Floats, examples: float, start: float, weight: float
) -> float:
    """Where evidence times prior is largest: an inverse gamma one, of ``weight`` entries at start.

    The prior is a density of the logarithm of the variance.
    """

    def minus_log_posterior(log_variance: float) -> float:
        variance = np.exp(log_variance)
        prior = -weight / 2 * (log_variance + start / variance)
        return -prior - evidence_of_variance(variance, y, h, position, examples)

    bounds = np.log(start) + np.array([-15, 15])
    found: Any = optimize.minimize_scalar(
        minus_log_posterior, bounds=bounds, method="bounded", options={"xatol": 1e-10}
    )
    return float(np.exp(found.x))


def switch_evidence(
    y: Floats, h: Floats, position: Floats, examples: float, prior: float, grid: Floats
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """What two Gaussians a step believe of a stream [step, entry] whose optima are drawn anew.

    Returns:
        Mean and variance after the last step [entry], the probability of a switch at every step,
        that of every hazard in the end [grid], and the log density of every step.
    """
    mean, variance = np.zeros(y.shape[1]), np.full(y.shape[1], prior)
    weights = np.full(len(grid), 1 / len(grid))
    switches, densities = [], []
    for now, curvature, x in zip(y, h, position, strict=True):
        after, logs = [], []
        for m, v in ((mean, variance), (np.zeros_like(mean), np.full_like(variance, prior))):
            scale = np.sqrt(curvature**2 * v + curvature / examples)
            logs.append(stats.norm.logpdf(now, curvature * (x - m), scale).sum())
            precision = 1 / v + examples * curvature
            reading = examples * curvature * (x - now / curvature)
            after.append(((m / v + reading) / precision, 1 / precision))
        joint = np.log(weights) + np.array([np.log1p(-grid) + logs[0], np.log(grid) + logs[1]])
        densities.append(special.logsumexp(joint))
        joint = np.exp(joint - densities[-1])
        weights, switch = joint.sum(0), joint[1].sum()
        (m, v), (fresh, wide) = after
        mean = (1 - switch) * m + switch * fresh
        variance = (1 - switch) ** 2 * v + (1 - (1 - switch) ** 2) * wide
        switches.append(switch)
    return mean, variance, np.array(switches), weights, np.array(densities)
