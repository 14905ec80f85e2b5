"""Gains, linear-quadratic policies and set-points, by integration and minimisation."""

from typing import Any, NamedTuple

import numpy as np
from scipy import integrate, linalg, optimize, sparse
from scipy.sparse import linalg as sparse_linalg

from tests.oracles.streams import Floats


def planning_gain(
    curvature: float,
    rate: float,
    gain: float,
    discount: float,
    time_step: float,
    metric: float,
    exact_hold: bool,
) -> float:
    r"""The first step of the discounted LQ problem with loss $\theta + V \theta^2 / 2$, from 0.

    A Riccati solver gives the quadratic part of the value, a linear equation its linear part, and a
    matrix exponential follows the closed loop for the time step.
    """
    # Discounting shifts the dynamics by -gamma/2 (0 there is a rate of decay too slow to be seen).
    shift = np.array([[-discount / 2]])
    price = np.array([[metric / rate]])
    p = linalg.solve_continuous_are(shift, np.eye(1), np.array([[gain * curvature]]), price)[0, 0]
    mobility = rate / metric
    s = gain / (discount + mobility * p)
    if not exact_hold:
        return time_step * mobility * s
    loop = np.array([[-mobility * p, -mobility * s], [0.0, 0.0]])
    return -linalg.expm(loop * time_step)[0, 1]


def averaged_step(
    step: Any,
    gradient: float,
    curvature: float,
    covariance: Floats,
    law: str,
    draws: int = 1_000_000,
) -> tuple[float, float]:
    """E[step(g, h)] by drawing gradients and curvatures together; the mean, its standard error.

    Args:
        step: ``(g, h) -> step``, on arrays [draw].
        gradient: the mean of g.
        curvature: the mean of h, before any truncation.
        covariance: of (g, h) [2, 2], before any truncation.
        law: of h: "log-normal"; or "truncated", where both are jointly Gaussian and draws with
            h <= 0 are thrown away.
        draws: how many are made.
    """
    rng = np.random.default_rng(0)
    (a, c), (_, v) = covariance
    if law == "log-normal":
        s = np.log1p(v / curvature**2)
        h = curvature * np.exp(np.sqrt(s) * rng.normal(size=draws) - s / 2)
        g = gradient + c / v * (h - curvature) + np.sqrt(a - c**2 / v) * rng.normal(size=draws)
    else:
        g, h = rng.multivariate_normal([gradient, curvature], covariance, draws).T
        g, h = g[h > 0], h[h > 0]
    steps = step(g, h)
    return float(steps.mean()), float(steps.std() / np.sqrt(len(steps)))


def planned_path(
    curvature: float, rate: float, gain: float, discount: float, metric: float, times: Floats
) -> Floats:
    r"""The path from 0 that minimises the discretised objective, loss $\theta + V \theta^2 / 2$.

    Piecewise linear paths on the even grid ``times``, the loss by the trapezoidal rule, discounted
    in the middle of each interval; the end is free.
    """
    h = times[1] - times[0]
    middle = np.exp(-discount * (times[:-1] + times[1:]) / 2)
    kinetic = metric / rate * middle / h
    potential = gain * h * middle / 2
    diagonal = np.zeros(len(times))
    diagonal[:-1] += kinetic + potential * curvature
    diagonal[1:] += kinetic + potential * curvature
    slope = np.zeros(len(times))
    slope[:-1] += potential
    slope[1:] += potential
    # theta[0] = 0 is given: solve for the others.
    banded = np.zeros((2, len(times) - 1))
    banded[1] = diagonal[1:]
    banded[0, 1:] = -kinetic[1:]
    return np.concatenate([[0.0], linalg.solveh_banded(banded, -slope[1:])])


class LQ(NamedTuple):
    """The solution of a linear-quadratic problem over n parameters."""

    quadratic: Floats
    linear: Floats
    closed_loop: Floats
    offset: Floats


def lq_solution(
    hessian: Floats,
    center: Floats,
    gradient: Floats,
    metric: Floats,
    drift_matrix: Floats,
    drift_offset: Floats,
    rate: float,
    gain: float,
    discount: float,
) -> LQ:
    r"""Value and policy in absolute coordinates, drift $A \theta + a$: velocity = loop x + offset.

    A Schur method gives the quadratic part; $k H$ may be indefinite.
    """
    identity = np.eye(len(center))
    shifted = drift_matrix - discount / 2 * identity
    p = linalg.solve_continuous_are(shifted, identity, gain * hessian, metric / rate)
    mobility = rate * np.linalg.inv(metric)
    loop = drift_matrix - mobility @ p
    force = gain * (gradient - hessian @ center) + p @ drift_offset
    s = np.linalg.solve(discount * identity - drift_matrix.T + p @ mobility, force)
    return LQ(p, s, loop, drift_offset - mobility @ s)


def has_lq_solution(
    hessian: Floats,
    metric: Floats,
    drift_matrix: Floats,
    rate: float,
    gain: float,
    discount: float,
    gap: float,
) -> bool:
    """Whether no eigenvalue of the Hamiltonian matrix is within ``gap`` of the imaginary axis."""
    shifted = drift_matrix - discount / 2 * np.eye(len(hessian))
    hamiltonian = np.block(
        [[shifted, -rate * np.linalg.inv(metric)], [-gain * hessian, -shifted.T]]
    )
    return bool(np.abs(np.linalg.eigvals(hamiltonian).real).min() > gap)


def lq_path(
    start: Floats,
    hessian: Floats,
    center: Floats,
    gradient: Floats,
    metric: Floats,
    drift_matrix: Floats,
    drift_offset: Floats,
    rate: float,
    gain: float,
    discount: float,
    times: Floats,
) -> Floats:
    r"""The path [time, n] that minimises the discretised objective, from a given start.

    Straight between the points of the even grid ``times``, cost and discount read in the middle of
    each interval; the end is free. The normal equations of one sparse least-squares problem.
    """
    n, h = len(start), times[1] - times[0]
    num_intervals = len(times) - 1
    weight: Any = sparse.diags(h * np.exp(-discount * (times[:-1] + times[1:]) / 2))
    before = sparse.eye(num_intervals, num_intervals + 1)
    after = sparse.eye(num_intervals, num_intervals + 1, k=1)
    middle = sparse.kron((before + after) / 2, np.eye(n))
    control = sparse.kron((after - before) / h, np.eye(n)) - sparse.kron(
        (before + after) / 2, drift_matrix
    )
    kinetic = sparse.kron(weight, metric / rate)
    potential = sparse.kron(weight, gain * hessian)
    ones = np.ones(num_intervals)
    quadratic = (control.T @ kinetic @ control + middle.T @ potential @ middle).tocsc()
    linear = control.T @ kinetic @ np.kron(ones, drift_offset) - middle.T @ np.kron(
        weight @ ones, gain * (gradient - hessian @ center)
    )
    # theta[0] is given: solve for the others.
    rest: Any = sparse_linalg.spsolve(quadratic[n:, n:], linear[n:] - quadratic[n:, :n] @ start)
    return np.concatenate([start, rest]).reshape(-1, n)


class Follower(NamedTuple):
    r"""The linear policy $\dot\theta = -A\theta + Bx + c$ of an optimum $x$ that is seen."""

    rate: Floats
    pull: Floats
    offset: Floats


def switching_cost(
    policy: Follower,
    hessian: Floats,
    hazard: float,
    metric: Floats,
    rate: float,
    gain: float,
    discount: float,
    prior_mean: Floats,
    start: Floats,
) -> Any:
    r"""The exact $J$ of a policy, where $x$ jumps at a rate to draws of unit covariance.

    The moments $M = \int e^{-\gamma t} E[z z^\top] dt$ of $z = (\theta, x, 1)$ solve a linear
    system: $z$ drifts with $F$, and jumps to $K z$ plus noise $Q$. They start as ``start``.
    """
    n, size = len(hessian), 2 * len(hessian) + 1
    follow = np.hstack([-policy.rate, policy.pull, policy.offset[:, None]])
    drift = np.vstack([follow, np.zeros((n + 1, size))])
    jump, noise = np.eye(size), np.zeros((size, size))
    jump[n:-1, n:-1], jump[n:-1, -1], noise[n:-1, n:-1] = 0, prior_mean, np.eye(n)
    one = np.eye(size)
    outflow = (discount + hazard) * np.kron(one, one) - hazard * np.kron(jump, jump)
    outflow = outflow - np.kron(drift, one) - np.kron(one, drift)
    source = start + hazard * noise / discount
    moments = np.linalg.solve(outflow, source.ravel()).reshape(size, size)
    apart = np.hstack([np.eye(n), -np.eye(n), np.zeros((n, 1))])
    cost = gain / 2 * apart.T @ hessian @ apart + follow.T @ metric @ follow / (2 * rate)
    return np.sum(cost * moments)


def cheapest_follower(
    hessian: Floats,
    hazard: float,
    metric: Floats,
    rate: float,
    gain: float,
    discount: float,
    prior_mean: Floats,
) -> Follower:
    r"""The linear policy of least `switching_cost`, by minimisation over all its entries."""
    n = len(hessian)
    # All that a policy could respond to varies at the start, so that one policy is the best.
    root = np.random.default_rng(0).normal(size=(2 * n + 1, 2 * n + 1))
    root[-1] = np.eye(2 * n + 1)[-1]
    start = root @ root.T

    def policy(x: Any) -> Follower:
        return Follower(x[: n * n].reshape(n, n), x[n * n : -n].reshape(n, n), x[-n:])

    def cost(x: Any) -> Any:
        if np.linalg.eigvals(-policy(x).rate).real.max() >= discount / 2:
            return np.inf  # and not what the linear system has for a solution
        return switching_cost(
            policy(x), hessian, hazard, metric, rate, gain, discount, prior_mean, start
        )

    def slope(x: Floats) -> Floats:
        """Exact, by complex steps."""
        return np.array([cost(x + 1e-30j * e).imag / 1e-30 for e in np.eye(len(x))])

    first = np.concatenate([np.eye(n).ravel(), np.eye(n).ravel() / 2, np.zeros(n)])
    near = optimize.minimize(cost, first, jac=slope, method="BFGS").x
    found: Any = optimize.root(slope, near, tol=1e-14)
    return policy(found.x)


def cheapest_velocity(
    v: float, theta: float, times: Floats, target: Floats, discount: float
) -> float:
    r"""The first velocity of the path that minimises the discretised, discounted objective.

    $\int e^{-\gamma t} [\dot\theta^2 / 2 + V (\theta - x_t)^2 / 2]$ for a target $x$ at
    even times; straight between points, read in the middle of intervals, end free.
    """
    h, n = times[1], len(times) - 1
    weight: Any = sparse.diags(h * np.exp(-discount * (times[:-1] + times[1:]) / 2))
    slope = (sparse.eye(n, n + 1, k=1) - sparse.eye(n, n + 1)) / h
    mean = (sparse.eye(n, n + 1, k=1) + sparse.eye(n, n + 1)) / 2
    quadratic = (slope.T @ weight @ slope + v * mean.T @ weight @ mean).tocsc()
    linear = v * mean.T @ (weight @ (mean @ target))
    # The first point is given.
    right = linear[1:] - quadratic[1:, 0].toarray()[:, 0] * theta
    path: Any = sparse_linalg.spsolve(quadratic[1:, 1:], right)
    return (4 * path[0] - path[1] - 3 * theta) / (2 * h)


def discounted_integral(times: Floats, path: Floats, matrix: Floats) -> Floats:
    r"""$D \int_0^\infty e^{-Ds} x_s ds$ of a path [time, n] that is straight between points."""
    total = linalg.expm(-matrix * times[-1]) @ path[-1]
    for start, end, x, y in zip(times[:-1], times[1:], path[:-1], path[1:], strict=True):

        def integrand(s: float, start: Any = start, end: Any = end, x: Any = x, y: Any = y) -> Any:
            here = x + (s - start) / (end - start) * (y - x)
            return matrix @ linalg.expm(-matrix * s) @ here

        if end > start:
            total = total + integrate.quad_vec(integrand, start, end, epsabs=1e-13)[0]
    return total
