r"""Belief and policy, found together: the optimum is inferred from noisy gradients.

`recovery` gives the search the optimum. Here the learner reads gradients through noise, and what is
searched are all linear recursions with one memory,
$\Delta\theta_t = -a y_t + b \Delta\theta_{t-1} - c\theta_t$, for the least long-run cost without
discounting (`experiments.lqg`). No filter is given, no plan, no set-point, and no form that
contains them. If the cheapest learner is a Kalman filter of gain $G$ with the policy
$-K(\theta - w m)$, its three coefficients obey three equations in $K$ and $w$; a reset fraction
$1 - w$ comes out of two of them, and the third may fail.

Theory is asked twice: a solver of Riccati equations has $K$ and $w$ in discrete time,
`beliefnav.control.anticipation` has $w = r/(r + \lambda)$ in continuous time, which differs by the
order of $r \Delta t$. Controls: a learner without memory pays more; one with a second memory pays
no less; with another gain of the filter the third equation fails.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from beliefnav import control
from experiments import lqg, report
from experiments.task_switch.config import Config

HAZARDS, CURVATURES, NOISES = (0.1, 0.3, 1.0), (0.1, 1.0, 5.0), (0.1, 1.0)
"""$\\lambda$ per unit of time, $h$, and $R \\Delta t / h^2$ in units of the variance of optima."""
TIME_STEP = 0.02
PRECISE, FIRST_ORDER = 1e-4, 0.02
"""Tolerances: of the simplex, and of $r \\Delta t \\le 0.045$ times $w (1 - w)$."""


class Together(NamedTuple):
    """One problem, what theory says of it and what search found.

    Attributes:
        hazard: per unit of time.
        curvature: of the loss.
        noise: of a gradient, per unit of time.
        feedback: $K$, by Riccati and by search.
        reset: $1 - w$, by Riccati and by search.
        reset_in_continuous_time: by `beliefnav.control.anticipation`.
        missed: the third equation, in units of $KG$.
        missed_with_another_gain: the same, with half of the gain of the filter.
        price_of_no_memory: cost of the cheapest learner without memory, over the least, less 1.
        gain_of_a_second_memory: least cost over that with a second memory, less 1; NaN where it was
            not sought.
    """

    hazard: float
    curvature: float
    noise: float
    feedback: tuple[float, float]
    reset: tuple[float, float]
    reset_in_continuous_time: float
    missed: float
    missed_with_another_gain: float
    price_of_no_memory: float
    gain_of_a_second_memory: float


def search(config: Config) -> list[Together]:
    """Search every setting; a second memory in the first only."""
    hazards, noises = (HAZARDS[1:], NOISES[:1]) if config.quick else (HAZARDS, NOISES)
    curvatures = CURVATURES[1:] if config.quick else CURVATURES
    grid = [(x, h, r) for x in hazards for h in curvatures for r in noises]
    return [
        one(*setting, second=i == 0)
        for i, setting in enumerate(tqdm(grid, desc="belief and policy", unit="setting"))
    ]


def one(hazard: float, curvature: float, noise: float, second: bool = False) -> Together:
    """Search one setting."""
    kept = float(np.exp(-hazard * TIME_STEP))
    own = noise * curvature**2 / TIME_STEP
    problem = lqg.Problem(curvature, own, 1 - kept**2, kept, TIME_STEP)
    found, gain = lqg.cheapest(problem), lqg.filter_gain(problem)
    parts, other = (lqg.taken_apart(found, problem, x) for x in (gain, gain / 2))
    feedback, weight = lqg.planned(problem)
    cost = lqg.long_run_cost(found, problem)
    longer = lqg.long_run_cost(lqg.cheapest(problem, 2), problem) if second else np.nan
    return Together(
        hazard,
        curvature,
        noise,
        (feedback, parts.feedback),
        (1 - weight, 1 - parts.weight),
        1 - float(control.anticipation(curvature, hazard, discount=0.0).weight),
        parts.missed / (parts.feedback * gain),
        other.missed / abs(other.feedback * gain / 2),
        lqg.long_run_cost(lqg.cheapest(problem, 0), problem) / cost - 1,
        cost / longer - 1,
    )


def claims(settings: Sequence[Together]) -> list[report.Claim]:
    """That search and theory agree, and that they need not have."""
    reset = max(abs(s.reset[1] - s.reset[0]) for s in settings)
    continuous = max(abs(s.reset[1] - s.reset_in_continuous_time) for s in settings)
    feedback = max(abs(s.feedback[1] / s.feedback[0] - 1) for s in settings)
    said = "optimum inferred: "
    return [
        report.at_most(f"{said}reset fraction, search - Riccati, largest", reset, PRECISE),
        report.at_most(
            f"{said}reset fraction, search - theory in continuous time, largest",
            continuous,
            FIRST_ORDER,
        ),
        report.at_most(f"{said}feedback, search / Riccati - 1, largest", feedback, PRECISE),
        report.at_most(
            f"{said}third equation, missed by, largest", max(s.missed for s in settings), PRECISE
        ),
        report.at_least(
            f"control: {said}third equation with half of the filter's gain, smallest",
            min(s.missed_with_another_gain for s in settings),
            100 * PRECISE,
        ),
        report.at_least(
            f"control: {said}spread of reset fractions",
            np.ptp([s.reset[1] for s in settings]),
            0.1,
        ),
        report.at_least(
            f"control: {said}price of no memory, smallest",
            min(s.price_of_no_memory for s in settings),
            0.005,
        ),
        report.at_most(
            f"control: {said}gain of a second memory",
            np.nanmax([s.gain_of_a_second_memory for s in settings]),
            1e-6,
        ),
    ]


def metrics(settings: Sequence[Together]) -> dict[str, Any]:
    """What goes into metrics.json."""
    return {"optimum_inferred": [s._asdict() for s in settings]}
