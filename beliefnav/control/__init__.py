"""From belief to step: policies in closed form, and whole paths of least action.

| part | from | to |
|---|---|---|
| `beliefnav.control.policies` | a posterior at the present parameters | a direction |
| `beliefnav.control.gains` | a local quadratic | how far to step, or a feedback policy |
| `beliefnav.control.paths` | a loss that is known | a whole path |

Results and their statuses are named tuples and enumerations that stand beside the functions that
return them.
"""

from beliefnav.control.gains.lq import lq_policy, quadratic_value
from beliefnav.control.gains.scalar import planning_gain
from beliefnav.control.gains.set_point import anticipation, continuous_hazard
from beliefnav.control.paths.least_action import (
    PathStatus,
    least_action_path,
    multi_start,
    straight_line,
)
from beliefnav.control.paths.receding import follow, navigate_locally
from beliefnav.control.policies.contract import Plan, Policy
from beliefnav.control.policies.matrix import (
    matrix_ballistic,
    matrix_horizon,
    matrix_newton,
    polar,
)
from beliefnav.control.policies.pointwise import (
    averaged,
    ballistic,
    cautious,
    horizon,
    myopic,
    newton,
    sign,
    to_optimum,
)
from beliefnav.control.policies.pulled import countering, penalised
from beliefnav.control.policies.switching import anticipating, resetting

__all__ = [
    "PathStatus",
    "Plan",
    "Policy",
    "anticipating",
    "anticipation",
    "averaged",
    "ballistic",
    "cautious",
    "continuous_hazard",
    "countering",
    "follow",
    "horizon",
    "least_action_path",
    "lq_policy",
    "matrix_ballistic",
    "matrix_horizon",
    "matrix_newton",
    "multi_start",
    "myopic",
    "navigate_locally",
    "newton",
    "penalised",
    "planning_gain",
    "polar",
    "quadratic_value",
    "resetting",
    "sign",
    "straight_line",
    "to_optimum",
]
