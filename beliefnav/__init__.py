r"""Learning rules as optimal navigation of a loss landscape seen through noisy gradients.

State what you believe about the landscape (`beliefnav.ssm`), what moving costs and how far ahead
you plan (`Objective`, `beliefnav.control`), and `navigator` is the optimizer that follows: an
ordinary optax transformation with its posterior inside.
"""

from beliefnav import (
    atlas,
    control,
    filters,
    gaussian,
    inference,
    inspection,
    objective,
    rules,
    sensors,
    ssm,
)
from beliefnav.assumptions import Assumptions
from beliefnav.atlas import explain
from beliefnav.control import Policy
from beliefnav.objective import Objective
from beliefnav.ssm import Filter, Info, Posterior
from beliefnav.transform import (
    NavigationState,
    navigator,
    posterior,
    sample_params,
    scale_by_navigation,
)

__all__ = [
    "Assumptions",
    "Filter",
    "Info",
    "NavigationState",
    "Objective",
    "Policy",
    "Posterior",
    "atlas",
    "control",
    "explain",
    "filters",
    "gaussian",
    "inference",
    "inspection",
    "navigator",
    "objective",
    "posterior",
    "rules",
    "sample_params",
    "scale_by_navigation",
    "sensors",
    "ssm",
]
