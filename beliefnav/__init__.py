r"""Learning rules as optimal navigation of a loss landscape seen through noisy gradients.

State what you believe about the landscape (`beliefnav.beliefs`), what moving costs and how far
ahead you plan (`Objective`, `beliefnav.control`), and `navigator` is the optimizer that follows: an
ordinary optax transformation with its posterior inside.

Example:
    `scale_by_navigation` is the navigator without its learning rate, to stand in a chain.

    >>> import jax.numpy as jnp, optax
    >>> from beliefnav import beliefs, control, posterior, scale_by_navigation
    >>> belief = beliefs.LocalLevel(0.9, noise_variance=1.0)
    >>> optimizer = optax.chain(
    ...     optax.clip(2.0), scale_by_navigation(belief, control.myopic()), optax.scale(-0.1)
    ... )
    >>> params = jnp.zeros(2)
    >>> _, state = optimizer.update(jnp.array([1.0, 5.0]), optimizer.init(params), params)
    >>> posterior(state).gradient_mean.tolist()
    [1.0, 2.0]
"""

import importlib
from typing import TYPE_CHECKING, Any

from beliefnav import beliefs, control, objective
from beliefnav.beliefs import Belief, Posterior
from beliefnav.control import Policy
from beliefnav.navigation import navigator, scale_by_navigation
from beliefnav.objective import Objective
from beliefnav.reading import optimum, posterior, sample_params

if TYPE_CHECKING:
    from beliefnav import atlas, filters, inference, recording, rules, sensors, wrappers
    from beliefnav.atlas.explaining import explain

__all__ = [
    "Belief",
    "Objective",
    "Policy",
    "Posterior",
    "atlas",
    "beliefs",
    "control",
    "explain",
    "filters",
    "inference",
    "navigator",
    "objective",
    "optimum",
    "posterior",
    "recording",
    "rules",
    "sample_params",
    "scale_by_navigation",
    "sensors",
    "wrappers",
]


def __getattr__(name: str) -> Any:
    """What a navigator does not need is imported when it is first asked for."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("beliefnav")
    if name not in __all__:
        raise AttributeError(f"module 'beliefnav' has no attribute {name!r}")
    if name == "explain":
        return importlib.import_module("beliefnav.atlas.explaining").explain
    return importlib.import_module(f"beliefnav.{name}")


def __dir__() -> list[str]:
    return __all__
