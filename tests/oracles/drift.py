"""Bayesian linear regression by sums of squares, in extended precision."""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["LearnedDrift", "learned_drift"]


class LearnedDrift(NamedTuple):
    """The posterior of the coefficients of one output."""

    mean: Any
    covariance: Any
    noise_variance: float
    degrees_of_freedom: float


def learned_drift(
    rows: Any,
    values: Any,
    scales: Any,
    noise_scale: float,
    noise_degrees_of_freedom: float,
    discount: float = 1.0,
    time_step: float = 1.0,
) -> LearnedDrift:
    """Normal equations, written out; readings that are not finite are left out.

    Args:
        rows: regressors [step, coefficient].
        values: what is seen [step].
        scales: of the prior of the coefficients [coefficient].
        noise_scale: of the noise before any reading.
        noise_degrees_of_freedom: how many readings that is worth.
        discount: weight of a reading for every step that it is old.
        time_step: what the regressors are multiplied by.
    """
    x, y = time_step * np.asarray(rows, np.longdouble), np.asarray(values, np.longdouble)
    weights = np.longdouble(discount) ** np.arange(len(y) - 1, -1, -1)
    seen = np.isfinite(y) & np.isfinite(x).all(1)
    x, y, weights = x[seen], y[seen], weights[seen]
    k = x.shape[1]
    gram, moment = (x.T * weights) @ x, (x.T * weights) @ y
    fit = np.linalg.lstsq(
        np.sqrt(weights)[:, None].astype(float) * x.astype(float),
        (np.sqrt(weights) * y).astype(float),
    )[0]
    left = np.sum(weights * (y - x @ fit) ** 2)
    degrees = noise_degrees_of_freedom + max(float(weights.sum()) - k, 0.0)
    variance = float(noise_degrees_of_freedom * noise_scale**2 + left) / degrees
    precision = (gram / variance + np.diag(1 / np.asarray(scales) ** 2)).astype(float)
    covariance = np.linalg.inv(precision)
    mean = covariance @ (moment / variance).astype(float)
    return LearnedDrift(mean, covariance, variance, degrees)
