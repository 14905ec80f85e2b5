"""From belief to step: policies in closed form, and whole paths of least action."""

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
    symmetric_function,
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
    Policy,
    ballistic,
    cautious,
    horizon,
    matrix_horizon,
    myopic,
    newton,
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
    "PlanningGain",
    "Policy",
    "QuadraticValue",
    "ballistic",
    "cautious",
    "diagonal_lq_policy",
    "follow",
    "horizon",
    "least_action_path",
    "local_quadratic",
    "lq_policy",
    "matrix_horizon",
    "matrix_planning_gain",
    "multi_start",
    "myopic",
    "navigate",
    "navigate_locally",
    "newton",
    "planning_gain",
    "quadratic_value",
    "straight_line",
    "symmetric_function",
]
