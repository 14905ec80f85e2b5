"""From belief to step: the planning gain and the policies that use it."""

from beliefnav.control.planning import PlanningGain, planning_gain
from beliefnav.control.policies import Policy, ballistic, horizon, myopic, newton

__all__ = [
    "PlanningGain",
    "Policy",
    "ballistic",
    "horizon",
    "myopic",
    "newton",
    "planning_gain",
]
