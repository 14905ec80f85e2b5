"""Paths of least action, by dense Newton steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize

from tests.oracles.streams import Floats


def path_action(
    lagrangian: Callable[[Any, Any], Any],
    path: Any,
    duration: float,
    discount: float = 0.0,
    node: float = 0.5,
) -> Any:
    """The discretised cost of paths [..., time, n], of which complex ones are welcome.

    ``lagrangian`` maps places and velocities [..., n] to costs [...].
    """
    num_intervals = path.shape[-2] - 1
    h = duration / num_intervals
    total = 0.0
    for i in range(num_intervals):
        before, after = path[..., i, :], path[..., i + 1, :]
        running = lagrangian((1 - node) * before + node * after, (after - before) / h)
        total = total + h * np.exp(-discount * h * (i + node)) * running
    return total


def path_gradient(cost: Callable[[Any], Any], path: Floats) -> Floats:
    """Gradient [time, n] of an analytic cost of paths [..., time, n], by steps of 1e-30 i."""
    steps = 1e-30j * np.eye(path.size).reshape(-1, *path.shape)
    return (cost(path + steps).imag / 1e-30).reshape(path.shape)


def path_curvature(cost: Callable[[Any], Any], path: Floats, weights: Floats) -> Floats:
    """Eigenvalues of the Hessian over some weights [time] of its rows; held points weigh inf."""
    scale = np.repeat(1 / np.sqrt(weights), path.shape[1])
    free = np.flatnonzero(scale)
    rows = []
    for k in free:
        step = 1e-5 * np.eye(path.size)[k].reshape(path.shape)
        change = path_gradient(cost, path + step) - path_gradient(cost, path - step)
        rows.append(scale[k] * scale[free] * change.ravel()[free] / 2e-5)
    hessian = np.array(rows)
    return np.asarray(np.linalg.eigvalsh((hessian + hessian.T) / 2), np.float64)


def least_action(cost: Callable[[Any], Any], guess: Floats, free: slice) -> Floats:
    """The path [time, n] that BFGS finds from a guess, moving the ``free`` points of it."""

    def full(x: Any) -> Floats:
        path = guess.copy()
        path[free] = x.reshape(path[free].shape)
        return path

    found = optimize.minimize(
        lambda x: cost(full(x)),
        guess[free].ravel(),
        jac=lambda x: path_gradient(cost, full(x))[free].ravel(),
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 2000},
    )
    assert np.linalg.norm(found.jac) < 1e-6, found.message
    return full(found.x)
