"""From belief to step: policies in closed form, and whole paths of least action."""

from beliefnav.control.gains.lq import (
    DiagonalLQPolicy,
    LQPolicy,
    LQStatus,
    QuadraticValue,
    diagonal_lq_policy,
    lq_policy,
    quadratic_value,
)
from beliefnav.control.gains.matrix import (
    MatrixPlanningGain,
    matrix_planning_gain,
    polar_factor,
    symmetric_function,
    symmetric_power,
)
from beliefnav.control.gains.scalar import PlanningGain, planning_gain
from beliefnav.control.gains.set_point import (
    Anticipation,
    MatrixAnticipation,
    anticipation,
    continuous_hazard,
    discounted_average,
    matrix_anticipation,
)
from beliefnav.control.paths.least_action import (
    LeastActionPath,
    MultiStart,
    PathStatus,
    least_action_path,
    multi_start,
    straight_line,
)
from beliefnav.control.paths.receding import (
    Followed,
    Navigation,
    follow,
    local_quadratic,
    navigate,
    navigate_locally,
)
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
)
from beliefnav.control.policies.pulled import countering, penalised
from beliefnav.control.policies.switching import anticipating, matrix_resetting, resetting

__all__ = [
    "Anticipation",
    "DiagonalLQPolicy",
    "Followed",
    "LQPolicy",
    "LQStatus",
    "LeastActionPath",
    "MatrixAnticipation",
    "MatrixPlanningGain",
    "MultiStart",
    "Navigation",
    "PathStatus",
    "Plan",
    "PlanningGain",
    "Policy",
    "QuadraticValue",
    "anticipating",
    "anticipation",
    "averaged",
    "ballistic",
    "cautious",
    "continuous_hazard",
    "countering",
    "diagonal_lq_policy",
    "discounted_average",
    "follow",
    "horizon",
    "least_action_path",
    "local_quadratic",
    "lq_policy",
    "matrix_anticipation",
    "matrix_ballistic",
    "matrix_horizon",
    "matrix_newton",
    "matrix_planning_gain",
    "matrix_resetting",
    "multi_start",
    "myopic",
    "navigate",
    "navigate_locally",
    "newton",
    "penalised",
    "planning_gain",
    "polar",
    "polar_factor",
    "quadratic_value",
    "resetting",
    "sign",
    "straight_line",
    "symmetric_function",
    "symmetric_power",
]
