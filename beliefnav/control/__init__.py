"""From belief to step: policies in closed form, and whole paths of least action."""

from beliefnav.control.anchored import countering, penalised, resetting
from beliefnav.control.coupled import matrix_ballistic, matrix_horizon, matrix_newton, polar
from beliefnav.control.lq import (
    DiagonalLQPolicy,
    LQPolicy,
    LQStatus,
    QuadraticValue,
    diagonal_lq_policy,
    lq_policy,
    quadratic_value,
)
from beliefnav.control.matrices import (
    MatrixPlanningGain,
    matrix_planning_gain,
    polar_factor,
    symmetric_function,
    symmetric_power,
)
from beliefnav.control.paths import (
    LeastActionPath,
    MultiStart,
    PathStatus,
    least_action_path,
    multi_start,
    straight_line,
)
from beliefnav.control.planning import PlanningGain, planning_gain
from beliefnav.control.policies import (
    Plan,
    Policy,
    averaged,
    ballistic,
    cautious,
    horizon,
    myopic,
    newton,
    sign,
)
from beliefnav.control.receding import (
    Followed,
    Navigation,
    follow,
    local_quadratic,
    navigate,
    navigate_locally,
)

__all__ = [
    "DiagonalLQPolicy",
    "Followed",
    "LQPolicy",
    "LQStatus",
    "LeastActionPath",
    "MatrixPlanningGain",
    "MultiStart",
    "Navigation",
    "PathStatus",
    "Plan",
    "PlanningGain",
    "Policy",
    "QuadraticValue",
    "averaged",
    "ballistic",
    "cautious",
    "countering",
    "diagonal_lq_policy",
    "follow",
    "horizon",
    "least_action_path",
    "local_quadratic",
    "lq_policy",
    "matrix_ballistic",
    "matrix_horizon",
    "matrix_newton",
    "matrix_planning_gain",
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
