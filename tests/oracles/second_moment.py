"""Precisions that walk, on a grid and path by path."""

from typing import NamedTuple

import numpy as np
from scipy import integrate, interpolate, special, stats

from tests.oracles.streams import Floats, discounted


class Precision(NamedTuple):
    r"""$\phi_t \sim \Gamma(n_t/2, S_t/2)$ after every observation, by the defining sums."""

    degrees_of_freedom: Floats
    sum_of_squares: Floats
    log_densities: Floats


def precision_walk(y: Floats, discount: float, s0: float, n0: float) -> Precision:
    """The sums, and the Student-t predictive density where it is proper."""
    seen = np.isfinite(y)
    n = discounted(seen.astype(float), discount, n0)
    total = discounted(np.where(seen, y, 0) ** 2, discount, s0)
    before_n = discount * np.concatenate([[n0], n[:-1]])
    before_s = discount * np.concatenate([[s0], total[:-1]])
    log_densities = np.zeros(len(y))
    for t in np.flatnonzero(seen & (before_n > 0) & (before_s > 0)):
        scale = np.sqrt(before_s[t] / before_n[t])
        log_densities[t] = stats.t.logpdf(y[t], before_n[t], scale=scale)
    return Precision(n, total, log_densities)


class PrecisionGrid(NamedTuple):
    """Moments of the final precision, and the log marginal likelihood."""

    mean: float
    variance: float
    log_likelihood: float


def precision_walk_grid(y: Floats, discount: float, s0: float, n0: float) -> PrecisionGrid:
    r"""The walk as it is defined, integrated numerically on a grid of $u = \log \phi$.

    The expectation over the shock is Gauss-Jacobi quadrature; between grid points the log density
    is a spline. Only the parameters of the shock come from the model's sample sizes.
    """
    centre = np.log(n0 / s0)
    u = np.linspace(centre - 40, centre + 5, 9001)
    log_density = stats.gamma.logpdf(np.exp(u), n0 / 2, scale=2 / s0) + u
    n, log_likelihood = n0, 0.0
    for value in y:
        a, b = discount * n / 2, (1 - discount) * n / 2
        with np.errstate(invalid="ignore"):  # scipy evaluates a branch that it does not use
            nodes, weights = special.roots_jacobi(80, b - 1, a - 1)
        shocks, weights = (1 + nodes) / 2, weights / weights.sum()
        spline = interpolate.CubicSpline(u, log_density)
        density = np.zeros_like(u)
        for shock, weight in zip(shocks, weights, strict=True):
            source = u + np.log(discount) - np.log(shock)
            inside = (source >= u[0]) & (source <= u[-1])
            density[inside] += weight * np.exp(np.maximum(spline(source[inside]), -700))
        log_density = np.log(np.maximum(density, 1e-300))
        n = discount * n
        if np.isfinite(value):
            log_density = log_density + stats.norm.logpdf(value, scale=np.exp(-u / 2))
            evidence = integrate.simpson(np.exp(log_density), x=u)
            log_density = log_density - np.log(evidence)
            log_likelihood += np.log(evidence)
            n = n + 1
    weight = np.exp(log_density)
    mean = integrate.simpson(weight * np.exp(u), x=u)
    square = integrate.simpson(weight * np.exp(2 * u), x=u)
    return PrecisionGrid(float(mean), float(square - mean**2), float(log_likelihood))


def precision_path_log_density(path: Floats, y: Floats, discount: float, s0: float, n0: float):
    r"""The log posterior density of a whole path of precisions $\phi_0, \ldots, \phi_T$.

    Backwards in time the gamma-beta walk is $\phi_{t-1} = \beta \phi_t + \Gamma((1-\beta)
    n_{t-1}/2, S_{t-1}/2)$, independent of $\phi_t$.
    """
    sums = precision_walk(y, discount, s0, n0)
    n = np.concatenate([[n0], sums.degrees_of_freedom])
    s = np.concatenate([[s0], sums.sum_of_squares])
    total = stats.gamma.logpdf(path[-1], n[-1] / 2, scale=2 / s[-1])
    rest = path[:-1] - discount * path[1:]
    return total + stats.gamma.logpdf(rest, (1 - discount) * n[:-1] / 2, scale=2 / s[:-1]).sum()
