"""Filters step by step: the secant belief, and noise that is learned."""

from typing import Any, NamedTuple

import numpy as np
from scipy import integrate, optimize, special

from tests.oracles.linear_gaussian import Joint, LinearModel, joint


class Secant(NamedTuple):
    """A secant landscape filtered with its covariance, arrays [step, ...] of extended precision."""

    gradient_mean: Any
    gradient_variance: Any
    curvature_mean: Any
    curvature_variance: Any
    gradient_curvature_covariance: Any
    log_density: Any
    surprise: Any
    seen: Any


def secant(model: Any, gradient: Any, displacement: Any, curvature: Any = None) -> Secant:
    """Textbook Kalman filtering, written out; ``model`` names the hyper-parameters.

    In extended precision (64 bits of mantissa), because this form cancels at small noise.
    """
    y, d = np.asarray(gradient, np.longdouble), np.asarray(displacement, np.longdouble)
    c = np.full_like(y, np.nan) if curvature is None else np.asarray(curvature, np.longdouble)

    def number(name: str) -> Any:
        value = getattr(model, name)
        return np.longdouble(np.nan) if value is None else np.asarray(value, np.longdouble)

    rho_g, rho_h = number("gradient_autocorrelation"), number("curvature_autocorrelation")
    q_g, q_h = number("gradient_process_variance"), number("curvature_process_variance")
    noise_g, noise_h = number("noise_variance"), number("curvature_noise_variance")
    mu = number("prior_curvature_mean")
    one = np.ones(y.shape[1:], np.longdouble)
    g, h = number("prior_gradient_mean") * one, mu * one
    gg, hh = number("prior_gradient_variance") * one, number("prior_curvature_variance") * one
    gh = 0 * one
    rows = []
    for t in range(len(y)):
        if t > 0:
            moved = d[t - 1]
            g, h = rho_g * g + moved * h, mu + rho_h * (h - mu)
            gg = rho_g**2 * gg + 2 * rho_g * moved * gh + moved**2 * hh + q_g
            gh, hh = rho_h * (rho_g * gh + moved * hh), rho_h**2 * hh + q_h
        log_density, surprise, count = 0 * one, 0 * one, 0 * one
        for value, of_curvature, noise in ((y[t], False, noise_g), (c[t], True, noise_h)):
            seen = np.isfinite(value)
            e = np.where(seen, value - (h if of_curvature else g), 0)
            s = np.where(seen, (hh if of_curvature else gg) + noise, 1)
            k_g = np.where(seen, (gh if of_curvature else gg) / s, 0)
            k_h = np.where(seen, (hh if of_curvature else gh) / s, 0)
            log_density += np.where(seen, -(e**2 / s + np.log(2 * np.pi * s)) / 2, 0)
            surprise, count = surprise + e**2 / s, count + seen
            g, h = g + k_g * e, h + k_h * e
            gg, gh, hh = gg - k_g * s * k_g, gh - k_g * s * k_h, hh - k_h * s * k_h
        rows.append((g, gg, h, hh, gh, log_density, surprise, count))
    return Secant(*(np.stack(column).astype(np.float64) for column in zip(*rows, strict=True)))


class UnknownNoise(NamedTuple):
    """What readings say of latents and of the unit of all variances."""

    log_likelihood: float
    noise_variance: float
    posterior: Joint  # variances in absolute units


def unknown_noise(model: LinearModel, degrees_of_freedom: float, scale: float) -> UnknownNoise:
    r"""A stream all of whose variances are in units of $\sigma^2$, which is integrated out.

    Numerically, over $u = \log \sigma^2$ with its inverse-gamma prior. Given $\sigma^2$ the mean of
    the latents does not depend on it, so that their covariance is the expected one.
    """
    unit = joint(model)

    def log_joint(u: float) -> float:
        half = degrees_of_freedom / 2
        log_prior = half * np.log(half * scale) - special.gammaln(half)
        log_prior -= half * u + half * scale * np.exp(-u)
        excess = unit.surprise * (np.exp(-u) - 1) + unit.num_readings * u
        return float(log_prior + unit.log_likelihood - excess / 2)

    found: Any = optimize.minimize_scalar(lambda u: -log_joint(u), bracket=(-1.0, 1.0))
    peak, height = float(found.x), -float(found.fun)

    def integral(power: int) -> float:
        """Of the joint density times a power of the variance, in units of those at the peak."""

        def integrand(u: float) -> float:
            return np.exp(log_joint(u) - height + power * (u - peak))

        pieces = np.array([-30.0, -3.0, 0.0, 3.0, 60.0]) + peak
        ends = zip(pieces[:-1], pieces[1:], strict=True)
        return sum(integrate.quad(integrand, a, b, epsabs=1e-14, limit=500)[0] for a, b in ends)

    evidence = integral(0)
    variance = float(np.exp(peak)) * integral(1) / evidence
    scaled = unit._replace(
        filtered_covariance=variance * unit.filtered_covariance,
        smoothed_covariance=variance * unit.smoothed_covariance,
    )
    return UnknownNoise(height + float(np.log(evidence)), variance, scaled)
