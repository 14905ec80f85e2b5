r"""The cheapest linear recursion with a memory, found by search: a learner that knows no theory.

An optimum decays toward its mean 0 and is disturbed, $\theta^*_{t+1} = \rho\,\theta^*_t + N(0, q)$
(or is drawn anew with probability $1 - \rho$, which has the same second moments if
$q = v_0 (1 - \rho^2)$). A gradient is read through noise, $y_t = h(\theta_t - \theta^*_t) +
N(0, R)$. Every linear learner with one memory is a recursion

$$ \Delta\theta_t = -a y_t + b \, \Delta\theta_{t-1} - c \, \theta_t . $$

Its long-run cost $E[\Delta\theta^2 / (2 \Delta t) + \Delta t\, h (\theta - \theta^*)^2 / 2]$ is
exact, by one Lyapunov equation, and is minimised without derivatives. Belief and policy are found
together: nothing in the search knows of a filter, a plan, or a set-point.

Theory says that the cheapest learner keeps a mean $m$ of the optimum, with the Kalman gain $G$, and
moves by $-K(\theta - w m)$. In those three numbers

$$ a = K w G / h, \qquad b = u (1 - K), \qquad c = K (1 - u - w G), \qquad u = \rho (1 - G) . $$

A recursion alone does not say which of its two time scales is the belief and which the plan: to
exchange $u$ and $1 - K$ gives the same $b$. So `taken_apart` is told the gain of the filter, solves
the first two equations for $K$ and $w$, and says by how much the third is missed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

Floats = NDArray[np.float64]


class Problem(NamedTuple):
    r"""A scalar linear-quadratic Gaussian problem, of rate and gain 1 and no discount.

    Attributes:
        curvature: $h$.
        noise: $R$.
        process: $q$, per step.
        kept: $\rho$, the share of the optimum that is left after a step; 1 for a random walk.
        time_step: $\\Delta t$.
    """

    curvature: float
    noise: float
    process: float
    kept: float
    time_step: float


class Parts(NamedTuple):
    """What a recursion does, in the words of theory.

    Attributes:
        feedback: $K$, the share of the way to the set-point that a step goes.
        weight: $w$ of the belief in the set-point; the rest is that of the prior mean.
        missed: by how much the recursion is another than that of a filter and such a policy.
    """

    feedback: float
    weight: float
    missed: float


def long_run_cost(recursion: Floats, problem: Problem) -> float:
    """The cost per step, infinite where the learner does not come to rest.

    Args:
        recursion: $a$, $b$, $c$, and coefficients of displacements before the last.
        problem: the problem.
    """
    a, b, c, *extra = recursion
    h, rho = problem.curvature, problem.kept
    # The state: theta - theta*, theta* unless it walks without end, displacements, latest first.
    walks = rho == 1
    row = np.array([-a * h - c, *([] if walks else [-c]), b, *extra])
    first = 1 if walks else 2
    flow = np.zeros((len(row), len(row)))
    flow[0] = row
    flow[0, 0] += 1
    if not walks:
        flow[0, 1] += 1 - rho
        flow[1, 1] = rho
    flow[first] = row
    flow[np.arange(first + 1, len(row)), np.arange(first, len(row) - 1)] = 1
    if np.abs(np.linalg.eigvals(flow)).max() >= 1:
        return np.inf
    read, drawn = np.zeros(len(row)), np.zeros(len(row))
    read[[0, first]] = -a
    drawn[0] = -1
    drawn[1:first] = 1
    new = problem.noise * np.outer(read, read) + problem.process * np.outer(drawn, drawn)
    second = linalg.solve_discrete_lyapunov(flow, new)
    moved, missed = second[first, first], second[0, 0]
    return float(moved / problem.time_step + problem.time_step * h * missed) / 2


def cheapest(problem: Problem, memories: int = 1) -> Floats:
    """The recursion of least cost, by search: a, b, c, and the b of older displacements.

    Args:
        problem: the problem.
        memories: how many past displacements it reads; 0: none, and b is 0.
    """

    def whole(free: Floats) -> Floats:
        """In the search all are of like size, whatever the curvature."""
        past = free[2:] if memories else np.zeros(1)
        position = 0.0 if problem.kept == 1 else free[1]
        return np.array([free[0] / problem.curvature, past[0], position, *past[1:]])

    found = np.array([0.1, 0.05, *[0.05] * memories])
    options = {"xatol": 1e-11, "fatol": 1e-16, "maxiter": 4000, "maxfev": 4000}
    for _ in range(4):  # a simplex that has shrunk too early begins anew
        found = optimize.minimize(
            lambda free: long_run_cost(whole(free), problem),
            found,
            method="Nelder-Mead",
            options=options,
        ).x
    return whole(found)


def taken_apart(recursion: Floats, problem: Problem, gain: float) -> Parts:
    """The feedback and weight of a recursion (a, b, c) whose filter has a gain."""
    a, b, c = recursion
    memory = problem.kept * (1 - gain)
    feedback = 1 - b / memory
    weight = a * problem.curvature / (feedback * gain)
    return Parts(feedback, weight, abs(c - feedback * (1 - memory - weight * gain)))


def filter_gain(problem: Problem) -> float:
    """The steady gain of the Kalman filter of the optimum, by a solver of Riccati equations."""
    noise = np.array([[problem.noise / problem.curvature**2]])
    kept, process = np.array([[problem.kept]]), np.array([[problem.process]])
    variance = linalg.solve_discrete_are(kept, np.eye(1), process, noise)
    return float((variance / (variance + noise))[0, 0])


def planned(problem: Problem) -> tuple[float, float]:
    """$K$ and $w$ of the cheapest plan for a known optimum, by a solver of Riccati equations."""
    kept, price = problem.kept, np.array([[1 / problem.time_step]])
    stake = problem.time_step * problem.curvature
    if kept == 1:  # what never comes back is no matter of the plan
        value = linalg.solve_discrete_are(np.eye(1), np.eye(1), stake * np.eye(1), price)
        return float((value / (value + price))[0, 0]), 1.0
    moves, pushed = np.diag([1.0, kept]), np.array([[1.0], [0.0]])
    missed = stake * np.array([[1.0, -1.0], [-1.0, 1.0]])
    value = linalg.solve_discrete_are(moves, pushed, missed, price)
    back = np.linalg.solve(price + pushed.T @ value @ pushed, pushed.T @ value @ moves)[0]
    return float(back[0]), float(-back[1] / back[0])
