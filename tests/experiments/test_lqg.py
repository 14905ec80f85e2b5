"""The search for the cheapest linear recursion, against closed forms and a simulation."""

import numpy as np
import pytest

from experiments import lqg

WALK = lqg.Problem(curvature=1.0, noise=0.3, process=0.01, kept=1.0, time_step=0.3)
SWITCHING = lqg.Problem(curvature=2.0, noise=1.0, process=1 - 0.9**2, kept=0.9, time_step=0.2)


def simulated_cost(recursion: np.ndarray, problem: lqg.Problem, steps: int) -> float:
    """The mean cost of a step, over many learners at once."""
    a, b, c = recursion
    rng = np.random.default_rng(0)
    theta, optimum, moved = np.zeros((3, 2000))
    costs = []
    for _ in range(steps):
        y = problem.curvature * (theta - optimum)
        y = y + np.sqrt(problem.noise) * rng.normal(size=theta.size)
        missed = (theta - optimum) ** 2
        moved = -a * y + b * moved - c * theta
        price = moved**2 / problem.time_step
        costs.append(np.mean(price + problem.time_step * problem.curvature * missed) / 2)
        theta = theta + moved
        drawn = np.sqrt(problem.process) * rng.normal(size=theta.size)
        optimum = problem.kept * optimum + drawn
    return float(np.mean(costs[steps // 3 :]))


@pytest.mark.parametrize(
    ("problem", "recursion"), [(WALK, [0.05, 0.6, 0.0]), (SWITCHING, [0.05, 0.4, 0.03])]
)
def test_long_run_cost_is_that_of_a_simulation(problem: lqg.Problem, recursion: list[float]):
    cost = lqg.long_run_cost(np.array(recursion), problem)
    # 2,000 learners over some 20 memories each: a standard error below 1 %.
    assert simulated_cost(np.array(recursion), problem, 300) == pytest.approx(cost, rel=0.03)
    assert lqg.long_run_cost(np.array([0.05, 1.1, 0.0]), problem) == np.inf


def test_search_finds_the_filter_and_the_plan_of_a_walk() -> None:
    """Against closed forms: the roots of the two Riccati equations of a random walk."""
    a, b, c = lqg.cheapest(WALK)
    variance = (WALK.process + np.sqrt(WALK.process**2 + 4 * WALK.process * WALK.noise)) / 2
    gain = variance / (variance + WALK.noise)
    step = WALK.time_step**2
    left = 1 + step / 2 - np.sqrt(step + step**2 / 4)  # 1 - K
    assert c == 0
    np.testing.assert_allclose([a, b], [(1 - left) * gain, (1 - gain) * left], atol=1e-6)


def test_search_finds_the_set_point_of_a_switching_optimum() -> None:
    found = lqg.cheapest(SWITCHING)
    parts = lqg.taken_apart(found, SWITCHING, lqg.filter_gain(SWITCHING))
    np.testing.assert_allclose(parts[:2], lqg.planned(SWITCHING), atol=1e-5)
    # Three coefficients, two unknowns: the third equation is met too, and not by another gain.
    assert parts.missed < 1e-6
    assert lqg.taken_apart(found, SWITCHING, 0.5).missed > 0.01
    # An older displacement has nothing to add; without any the learner pays more.
    more, less = lqg.cheapest(SWITCHING, 2), lqg.cheapest(SWITCHING, 0)
    cost, longer, shorter = (lqg.long_run_cost(x, SWITCHING) for x in (found, more, less))
    assert longer == pytest.approx(cost, rel=1e-8)
    assert shorter > 1.01 * cost
