"""The posterior that most tests of this folder draw from, and how to compute it the slow way."""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpyro
import xarray as xr
from numpy.typing import NDArray
from numpyro import distributions as dist
from scipy import special, stats

from beliefnav import beliefs
from beliefnav.recording import from_arrays
from tests import oracles

Floats = NDArray[np.float64]

NUM_STEPS = 60
LABELS = ["slow", "fast", "loud"]
TRUTH = {"slow": (0.98, 5.0), "fast": (0.2, 3.0), "loud": (0.8, 400.0)}
"""Correlation and signal-to-noise of the coordinates of `streams`, of unit noise."""


def prior() -> beliefs.OrnsteinUhlenbeck:
    correlation = numpyro.sample("correlation", dist.Uniform(0, 1))
    ratio = numpyro.sample("signal_to_noise", dist.LogNormal(0, 2))
    process = numpyro.deterministic("process_variance", ratio * (1 - correlation**2))
    return beliefs.OrnsteinUhlenbeck(correlation, process, 1.0)


def streams() -> xr.Dataset:
    """One stream [step, param] for each truth, the first with missing entries."""
    rng = np.random.default_rng(0)
    columns = []
    for correlation, ratio in TRUTH.values():
        covariance = ratio * oracles.ornstein_uhlenbeck_covariance(
            NUM_STEPS, correlation, 1 - correlation**2
        )
        covariance += np.eye(NUM_STEPS)
        columns.append(np.linalg.cholesky(covariance) @ rng.normal(size=NUM_STEPS))
    gradient = np.stack(columns, 1)
    gradient[[3, 20, 21], 0] = np.nan, np.inf, np.nan
    return from_arrays(gradient, labels=LABELS)


def log_joint(z: Floats, y: Floats) -> float:
    """Of `prior` and one stream [step], at unconstrained (logit correlation, log ratio)."""
    correlation, ratio = special.expit(z[0]), np.exp(z[1])
    process = ratio * (1 - correlation**2)
    log_prior = stats.logistic.logpdf(z[0]) + stats.norm.logpdf(z[1], scale=2)
    seen = oracles.ornstein_uhlenbeck_covariance(len(y), correlation, process)
    kept = np.isfinite(y)
    covariance = seen[np.ix_(kept, kept)] + np.eye(kept.sum())
    half = np.linalg.cholesky(covariance)
    error = np.linalg.solve(half, y[kept])
    return float(log_prior + (stats.norm.logpdf(error) - np.log(np.diag(half))).sum())


class Grid(NamedTuple):
    """The posterior of a coordinate on a grid that is fine and wide enough to be exact."""

    correlation: Floats  # [i, 1]
    ratio: Floats  # [j]
    log_weight: Floats  # [i, j], of weights of sum one
    log_density: Floats  # [i, j, step], of every observation given those before it; 0 if missing


@functools.cache
def grid(label: str) -> Grid:
    """Over unconstrained space; densities by the Cholesky factor of the whole covariance."""
    y = streams()["gradient"].sel(param=label).values
    kept = np.flatnonzero(np.isfinite(y))
    lags = np.abs(kept[:, None] - kept)
    logit, log = np.linspace(-10, 12, 89), np.linspace(-9, 11, 81)
    correlation, ratio = special.expit(logit)[:, None], np.exp(log)
    log_density = np.zeros((89, 81, len(y)))
    for i, rho in enumerate(correlation):
        half = np.linalg.cholesky(rho**lags * ratio[:, None, None] + np.eye(len(kept)))
        error = np.linalg.solve(half, y[kept])
        scale = np.diagonal(half, axis1=1, axis2=2)
        log_density[i][:, kept] = stats.norm.logpdf(error) - np.log(scale)
    log_prior = stats.logistic.logpdf(logit)[:, None] + stats.norm.logpdf(log, scale=2)
    height = log_prior + log_density.sum(-1)
    return Grid(correlation, ratio, height - special.logsumexp(height), log_density)


def moments(label: str) -> tuple[Floats, Floats]:
    """Mean and standard deviation of `functions` under the posterior of a coordinate."""
    at = grid(label)
    values = functions(at.correlation, at.ratio)
    weight = np.exp(at.log_weight)
    mean = (weight * values).sum((1, 2))
    return mean, np.sqrt((weight * values**2).sum((1, 2)) - mean**2)


def leave_one_out(label: str) -> Floats:
    r"""$-\log E[1/p(y_t \mid y_{1:t-1}, \psi)]$ [step]: without its own say in $\psi$."""
    at = grid(label)
    inverse: Any = special.logsumexp(at.log_weight[..., None] - at.log_density, axis=(0, 1))
    return -inverse


def functions(correlation: Any, ratio: Any) -> Floats:
    """Whose expectations tell the location and the shape of the posterior."""
    parts = np.broadcast_arrays(correlation, np.log(ratio))
    one, other = (np.asarray(x, np.float64) for x in parts)
    return np.stack([one, other, one**2, other**2, one * other])
