"""Descent on a noisy parabola and the average of its iterates, by the weights of every draw."""

import numpy as np

from tests.oracles.streams import Floats


def noisy_descent(
    curvature: float, noise: float, start: float, rates: Floats, gains: Floats
) -> tuple[float, float]:
    """Second moments of the last iterate and of the average, around the optimum.

    Every iterate is a sum of the start and of the noise of every step, which are independent.
    """
    steps = len(rates)
    draws = np.eye(1 + steps)
    iterates = [draws[0]]
    for t, rate in enumerate(rates):
        gradient = curvature * iterates[-1] + draws[1 + t]
        iterates.append(iterates[-1] - rate * gradient)
    variances = np.array([start] + [noise] * steps)
    average = average_weights(gains) @ np.stack(iterates)
    return float(iterates[-1] ** 2 @ variances), float(average**2 @ variances)


def average_weights(gains: Floats) -> Floats:
    """Weights of the start and of all iterates in an average with these gains [1 + step]."""
    kept = np.append(np.cumprod((1 - gains)[::-1])[::-1], 1.0)  # of what came before each step
    return np.concatenate([kept[:1], gains * kept[1:]])
