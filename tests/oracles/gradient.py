"""Beliefs about a gradient alone: Gaussians written out over all steps."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.oracles.streams import Floats


class Gaussian(NamedTuple):
    """Everything about a linear-Gaussian stream, by conditioning the joint distribution.

    Latents are [1 + step]: the one before the first observation comes first in ``smoothed_*``.
    """

    filtered_mean: Floats
    filtered_variance: Floats
    smoothed_mean: Floats
    smoothed_covariance: Floats
    log_likelihood: float

    @property
    def filtered(self) -> Floats:
        """Filtered mean and variance, [2, step]."""
        return np.stack([self.filtered_mean, self.filtered_variance])

    def path_log_density(self, path: Floats) -> float:
        """The log posterior density of a whole latent path [1 + step]."""
        return _log_density(path - self.smoothed_mean, self.smoothed_covariance)


def _log_density(error: Floats, covariance: Floats) -> float:
    """The log density of a Gaussian of mean zero."""
    sign, log_determinant = np.linalg.slogdet(2 * np.pi * covariance)
    assert sign == 1
    return float(-(error @ np.linalg.solve(covariance, error) + log_determinant) / 2)


def _condition(
    mean: Floats, covariance: Floats, noise_variance: float, y: Floats
) -> tuple[Floats, Floats, float]:
    """Posterior of all latents given the finite entries of y, and their log density."""
    seen = 1 + np.flatnonzero(np.isfinite(y))
    values = y[seen - 1]
    marginal = covariance[np.ix_(seen, seen)] + noise_variance * np.eye(len(seen))
    weights = np.linalg.solve(marginal, covariance[seen]).T
    error = values - mean[seen]
    posterior = covariance - weights @ covariance[seen]
    return mean + weights @ error, (posterior + posterior.T) / 2, _log_density(error, marginal)


def _gaussian(mean: Floats, covariance: Floats, noise_variance: float, y: Floats) -> Gaussian:
    means, variances = [], []
    for t in range(len(y)):
        until_now = np.where(np.arange(len(y)) <= t, y, np.nan)
        m, v, _ = _condition(mean, covariance, noise_variance, until_now)
        means.append(m[t + 1])
        variances.append(v[t + 1, t + 1])
    smoothed = _condition(mean, covariance, noise_variance, y)
    return Gaussian(np.array(means), np.array(variances), *smoothed)


def ornstein_uhlenbeck_covariance(num_latents: int, rho: float, q: float) -> Floats:
    """The stationary covariance of the gradient, [latent, latent]."""
    steps = np.arange(num_latents)
    return q / (1 - rho**2) * rho ** np.abs(steps[:, None] - steps)


def ornstein_uhlenbeck(y: Floats, rho: float, q: float, noise_variance: float) -> Gaussian:
    """Stationary Ornstein-Uhlenbeck gradient."""
    covariance = ornstein_uhlenbeck_covariance(1 + len(y), rho, q)
    return _gaussian(np.zeros(1 + len(y)), covariance, noise_variance, y)


def local_level_covariance(seen: NDArray[np.bool_], discount: float, n0: float) -> Floats:
    r"""Covariance of the level in units of R: $1/n_0 + \sum_{k \le \min(i, j)} W_k$."""
    c = 1 / n0
    variances = [c]
    for observed in seen:
        w = c * (1 - discount) / discount
        variances.append(variances[-1] + w)
        c = (c + w) / (c + w + 1) if observed else c + w
    steps = np.arange(len(variances))
    return np.array(variances)[np.minimum(steps[:, None], steps)]


def local_level(
    y: Floats, discount: float, noise_variance: float, m0: float, n0: float
) -> Gaussian:
    """Local level with discount from a proper prior."""
    covariance = noise_variance * local_level_covariance(np.isfinite(y), discount, n0)
    return _gaussian(np.full(1 + len(y), m0), covariance, noise_variance, y)


def local_level_conditioned(y: Floats, discount: float, noise_variance: float) -> Gaussian:
    """Local level given its first observation: what follows starts from N(y_1, R)."""
    return local_level(y[1:], discount, noise_variance, y[0], 1.0)


def polynomial_level(
    y: Floats, power: float, noise_variance: float, m0: float, t0: float
) -> Gaussian:
    """Level whose drift in a step is p/(t-1) times what is not known of it, after t0 > 0 steps."""
    c = (power + 1) / (power + t0)
    variances = [c]
    for age, observed in enumerate(np.isfinite(y)):
        w = c * power / (t0 + age)
        variances.append(variances[-1] + w)
        c = (c + w) / (c + w + 1) if observed else c + w
    steps = np.arange(len(variances))
    covariance = noise_variance * np.array(variances)[np.minimum(steps[:, None], steps)]
    return _gaussian(np.full(1 + len(y), m0), covariance, noise_variance, y)


def kalman_gains(drift_variances: Floats, noise_variance: float) -> Floats:
    """Gains [1 + step] of a random walk that is first seen, then drifts and is seen again."""
    gains, variance = [1.0], noise_variance
    for drift in drift_variances:
        variance = variance + drift
        gains.append(variance / (variance + noise_variance))
        variance = (1 - gains[-1]) * variance
    return np.array(gains)


def wiener(y: Floats, discount: float, curvature_discount: float) -> Floats:
    """Posterior mean and curvature [2, step] of a complete stream, by weighted sums."""
    rows = []
    for t in range(len(y)):
        ages = t - np.arange(t + 1)
        weights = discount**ages
        average = np.sum(weights * y[: t + 1]) / np.sum(weights)
        square_weights = curvature_discount**ages
        second_moment = np.sum(square_weights * y[: t + 1] ** 2) / np.sum(square_weights)
        effective_size = np.sum(weights) ** 2 / np.sum(weights**2)
        noise = 0.0
        if discount > 0 and t > 0:  # otherwise one observation has all the weight
            noise = max(second_moment - average**2, 0) / (effective_size - 1)
        signal = max(average**2 - noise, 0)
        factor = signal / (signal + noise)
        rows.append([factor * average, second_moment])
    return np.array(rows).T
