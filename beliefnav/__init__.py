r"""Learning rules as optimal navigation of a loss landscape seen through noisy gradients.

State what you believe about the landscape (`beliefnav.beliefs`), what moving costs and how far
ahead you plan (`Objective`, `beliefnav.control`), and `navigator` is the optimizer that follows: an
ordinary optax transformation with its posterior inside.
"""

from beliefnav import (
    atlas,
    beliefs,
    control,
    filters,
    inference,
    objective,
    recording,
    rules,
    sensors,
    wrappers,
)
from beliefnav.atlas import explain
from beliefnav.beliefs import Filter, Info, Posterior, gaussian
from beliefnav.control import Policy
from beliefnav.navigation import (
    NavigationState,
    navigator,
    posterior,
    sample_params,
    scale_by_navigation,
)
from beliefnav.objective import Objective
from beliefnav.rules._rule import Assumptions

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
    "recording",
    "navigator",
    "objective",
    "posterior",
    "rules",
    "sample_params",
    "scale_by_navigation",
    "sensors",
    "wrappers",
    "beliefs",
]
