"""Published algorithms, line by line: VON, IVON, Shampoo; and Adam with matrices."""

from collections.abc import Callable

import numpy as np

from tests.oracles.streams import Floats


def von(
    gradient: Callable[[Floats], Floats],
    curvature: Callable[[Floats], Floats],
    start: Floats,
    noise: Floats,
    rate: float,
    prior_precision: float,
    num_examples: float,
) -> Floats:
    r"""Means [step, ...] of variational online Newton: Khan et al. 2018, equation (8).

    $s$ starts at 1. ``prior_precision`` is $\tilde\lambda = \lambda/N$, and gradient and curvature
    are of the mean loss, at $\theta_t = \mu_t + \sigma_t \epsilon_t$.
    """
    mu, s, means = start, np.ones_like(start), []
    for epsilon in noise:
        sigma = 1 / np.sqrt(num_examples * (s + prior_precision))
        theta = mu + sigma * epsilon
        s = (1 - rate) * s + rate * curvature(theta)
        mu = mu - rate * (gradient(theta) + prior_precision * mu) / (s + prior_precision)
        means.append(mu)
    return np.array(means)


def ivon(
    gradient: Callable[[Floats], Floats],
    start: Floats,
    noise: Floats,
    rate: float,
    b1: float,
    b2: float,
    weight_decay: float,
    hess_init: float,
    num_examples: float,
) -> Floats:
    r"""Means [step, ...] of IVON: Shen et al. 2024, algorithm 1, line by line, $\lambda = N$."""
    m, h, g, means = start, np.full_like(start, hess_init), np.zeros_like(start), []
    sigma = 1 / np.sqrt(num_examples * (h + weight_decay))
    for t, epsilon in enumerate(noise, start=1):
        theta = m + sigma * epsilon
        g_hat = gradient(theta)
        h_hat = g_hat * (theta - m) / sigma**2
        g = b1 * g + (1 - b1) * g_hat
        correction = (1 - b2) ** 2 * (h - h_hat) ** 2 / (h + weight_decay) / 2
        h = b2 * h + (1 - b2) * h_hat + correction
        g_bar = g / (1 - b1**t)
        m = m - rate * (g_bar + weight_decay * m) / (h + weight_decay)
        sigma = 1 / np.sqrt(num_examples * (h + weight_decay))
        means.append(m)
    return np.array(means)


def power(matrix: Floats, exponent: float) -> Floats:
    """A power of a symmetric positive semi-definite matrix, on its range."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-12 * values.max()
    return vectors[:, kept] @ np.diag(values[kept] ** exponent) @ vectors[:, kept].T


def shampoo(gradients: Floats, eps: float, b1: float, b2: float) -> Floats:
    r"""Directions $L^{-1/4} \hat M R^{-1/4}$ of a stream of matrices [step, row, column]."""
    left, right = (eps * np.eye(n) for n in gradients.shape[1:])
    mean, directions = np.zeros(gradients.shape[1:]), []
    for t, y in enumerate(gradients, start=1):
        left, right = b2 * left + y @ y.T, b2 * right + y.T @ y
        mean = b1 * mean + (1 - b1) * y
        directions.append(power(left, -0.25) @ mean / (1 - b1**t) @ power(right, -0.25))
    return np.array(directions)


def full_ballistic(gradients: Floats, b1: float, b2: float, eps: float, eps_root: float) -> Floats:
    r"""Directions $((\hat V + \epsilon_r)^{1/2} + \epsilon)^{-1} \hat m$ of [step, n]."""
    size = gradients.shape[1]
    mean, moment, directions = np.zeros(size), np.zeros((size, size)), []
    for t, y in enumerate(gradients, start=1):
        mean = b1 * mean + (1 - b1) * y
        moment = b2 * moment + (1 - b2) * np.outer(y, y)
        root = power(moment / (1 - b2**t) + eps_root * np.eye(size), 0.5) + eps * np.eye(size)
        directions.append(power(root, -1.0) @ mean / (1 - b1**t))
    return np.array(directions)
