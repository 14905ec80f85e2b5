r"""The cheapest linear policy, found by search.

The optimum $\theta^*$ is known, and drawn anew from $N(\mu_0, v_0)$ at the rate $\lambda$. A linear
policy $\dot\theta = -a\theta + b\theta^* + c$ moves $z = (\theta, \theta^*, 1)$, whose second
moments $\Sigma = E[z z^\top]$ obey a linear differential equation. Hence its expected cost

$$ J = \int_0^\infty E \left[ \tfrac{1}{2\eta} \dot\theta^2
       + \tfrac{k h}{2} (\theta - \theta^*)^2 \right] e^{-\gamma t} dt $$

from a random start is exact, by one Lyapunov equation, and is minimised over $(a, b, c)$ without
derivatives. Without discounting $J$ is infinite, and its average over time is minimised instead.
If the policy is $-r[\theta - \mu_0 - w(\theta^* - \mu_0)]$ the search finds $a = r$, $b = rw$ and
$c = r(1 - w)\mu_0$. The form of the policy contains that answer, and the optimum is known here; a
search that is given neither is in `experiments.task_switch.inferring`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from tqdm import tqdm

from beliefnav import control
from experiments import report
from experiments.task_switch.config import Config

HAZARDS = (0.0, 0.02, 0.1, 0.3, 1.0, 3.0)
DISCOUNTS = (0.0, 0.3, 1.0, 3.0)
CURVATURES = (0.1, 1.0, 5.0)
PRIOR_MEAN, PRIOR_VARIANCE = 1.0, 1.0
TOLERANCE = 1e-4
"""Of every rate and reset fraction: a simplex of size 1e-11 on a cost that is flat at its least."""


class Setting(NamedTuple):
    r"""One problem, what theory says of it and what search found; $\eta = k = 1$.

    Attributes:
        hazard: $\lambda$, per unit of time.
        discount: of the cost.
        curvature: of the loss.
        rate: at which the set-point is approached, predicted and recovered.
        reset: the fraction $1 - w$ of the set-point that is the prior's, predicted and recovered.
        target: $c / (a - b)$, where the pull of the policy that was found points; NaN if it has
            none.
    """

    hazard: float
    discount: float
    curvature: float
    rate: tuple[float, float]
    reset: tuple[float, float]
    target: float


def recover(config: Config) -> list[Setting]:
    """Search every setting of the grid."""
    hazards = (0.0, 0.1, 1.0) if config.quick else HAZARDS
    discounts = DISCOUNTS[:-1] if config.quick else DISCOUNTS
    # Without a hazard and a discount nothing ever ends, and rates make no difference in the end.
    pairs = [(x, y) for x in hazards for y in discounts if x > 0 or y > 0]
    grid = [(x, y, h) for x, y in pairs for h in CURVATURES]
    settings = []
    for hazard, discount, curvature in tqdm(grid, desc="search", unit="setting"):
        theory = control.anticipation(curvature, hazard, discount=discount)
        a, b, c = cheapest_policy(hazard, discount, curvature)
        settings.append(
            Setting(
                hazard,
                discount,
                curvature,
                (float(theory.rate), float(a)),
                (float(1 - theory.weight), float(1 - b / a)),
                float(c / (a - b)) if hazard else float("nan"),
            )
        )
    return settings


def cheapest_policy(hazard: float, discount: float, curvature: float) -> NDArray[np.float64]:
    """The gains (a, b, c) of least cost, from a start that knows nothing of the solution."""

    def cost(gains: Any) -> float:
        return expected_cost(gains, hazard, discount, curvature)

    found = np.array([1.0, 0.5, 0.0])
    for _ in range(2):  # a simplex that has shrunk too early begins anew
        options = {"xatol": 1e-11, "fatol": 1e-16, "maxiter": 4000, "maxfev": 4000}
        found = optimize.minimize(cost, found, method="Nelder-Mead", options=options).x
    return found


def expected_cost(gains: Any, hazard: float, discount: float, curvature: float) -> float:
    """The cost of a linear policy, infinite if it does not come to rest."""
    a, b, c = gains
    if 2 * a + discount <= 0 or a + discount + hazard <= 0:
        return np.inf
    gains = np.array([a, b, c])
    second = (
        discounted_moments(gains, hazard, discount)
        if discount > 0
        else average_moments(gains, hazard)
    )
    moving, missing = np.array([-a, b, c]), np.array([1.0, -1.0, 0.0])
    return float(moving @ second @ moving + curvature * missing @ second @ missing) / 2


def discounted_moments(
    gains: NDArray[np.float64], hazard: float, discount: float
) -> NDArray[np.float64]:
    r"""$X = \int E[z z^\top] e^{-\gamma t} dt$.

    $\gamma X = \Sigma_0 + F X + X F^\top + Q/\gamma$.
    """
    flow = _flow(gains, hazard)
    noise = np.diag([0.0, 2 * hazard * PRIOR_VARIANCE, 0.0])
    # From a weight of its own, and the optimum of some task.
    start = np.diag([1.0, PRIOR_VARIANCE, 0.0])
    mean = np.array([0.0, PRIOR_MEAN, 1.0])
    constant = start + np.outer(mean, mean) + noise / discount
    return _lyapunov(flow - discount / 2 * np.eye(3), constant)


def average_moments(gains: NDArray[np.float64], hazard: float) -> NDArray[np.float64]:
    r"""$E[z z^\top]$ in the long run."""
    a, b, c = gains
    mean = np.array([(b * PRIOR_MEAN + c) / a, PRIOR_MEAN, 1.0])
    second = np.outer(mean, mean)
    noise = np.diag([0.0, 2 * hazard * PRIOR_VARIANCE])
    second[:2, :2] += _lyapunov(_flow(gains, hazard)[:2, :2], noise)
    return second


def _lyapunov(flow: NDArray[np.float64], constant: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""$X$ of $F X + X F^\top + C = 0$: for matrices as small as these, as one linear system."""
    n = len(flow)
    identity = np.eye(n)
    both = flow[:, None, :, None] * identity[None, :, None, :]
    both = both + identity[:, None, :, None] * flow[None, :, None, :]
    solved: Any = np.linalg.solve(both.reshape(n * n, n * n), -constant.ravel())
    return solved.reshape(n, n)


def _flow(gains: NDArray[np.float64], hazard: float) -> NDArray[np.float64]:
    """The drift of z: the policy, and optima that decay to the prior mean on average."""
    a, b, c = gains
    return np.array([[-a, b, c], [0.0, -hazard, hazard * PRIOR_MEAN], [0.0, 0.0, 0.0]])


def claims(settings: Sequence[Setting]) -> list[report.Claim]:
    """That search and theory agree."""

    def error(name: str) -> float:
        return max(abs(found - said) for said, found in (getattr(s, name) for s in settings))

    pulled = [s for s in settings if s.reset[0] > 0.01]
    shortsighted = max(
        abs(s.reset[1] - s.hazard / (s.rate[1] + s.hazard)) for s in settings if s.hazard > 0
    )
    known = "optimum known: "
    return [
        report.at_most(
            f"{known}reset fraction, search - theory, largest", error("reset"), TOLERANCE
        ),
        report.at_least(
            f"control: {known}reset fraction, search - hazard/(r + hazard), largest",
            shortsighted,
            0.1,
        ),
        report.at_most(f"{known}rate, search - theory, largest", error("rate"), TOLERANCE),
        report.at_most(f"{known}pull without a hazard", reset_at_zero_hazard(settings), 1e-6),
        report.at_most(
            f"{known}where the pull points, from the prior mean, largest",
            max(abs(s.target - PRIOR_MEAN) for s in pulled),
            TOLERANCE,
        ),
    ]


def reset_at_zero_hazard(settings: Sequence[Setting]) -> float:
    """The largest pull that was found where tasks never switch."""
    return max(abs(s.reset[1]) for s in settings if s.hazard == 0)


def metrics(settings: Sequence[Setting]) -> dict[str, Any]:
    """What goes into metrics.json."""

    def listed(name: str) -> list[dict[str, float]]:
        fields = ("hazard", "discount", "curvature")
        return [
            {field: getattr(s, field) for field in fields}
            | dict(zip(("predicted", "recovered"), getattr(s, name), strict=True))
            for s in settings
        ]

    return {
        "settings_searched": len(settings),
        "reset_fraction": listed("reset"),
        "rate": listed("rate"),
        "reset_at_zero_hazard": reset_at_zero_hazard(settings),
    }
