"""The library by the names of either layout, so that one program runs on both.

A name is looked up under its new spelling first, in the modules where it may live, the new one
first. What no module has is `Absent`, which the recorder writes down instead of a number.
"""

import functools
import importlib
import inspect
import types
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

OLDER: dict[str, tuple[str, ...]] = {
    "RetractedLevel": ("PositiveLevel",),
    "look_ahead": ("anticipated",),
    "from_arrays": ("stream",),
}
"""What a name was called before."""


class Absent(LookupError):
    """A name that this revision does not have."""


class Names:
    """Attributes of the first module that has them, looked up when they are asked for."""

    def __init__(self, *homes: str) -> None:
        """Look in ``homes``, modules in order; those that do not exist are passed over."""
        self._homes = homes

    def __getattr__(self, name: str) -> Any:
        """The object of that name, or of an older one; a module of the name is no such object."""
        for spelling in (name, *OLDER.get(name, ())):
            for home in self._homes:
                found = getattr(_module(home), spelling, None)
                if found is not None and not isinstance(found, types.ModuleType):
                    return found
        raise Absent(f"{name} is in none of {', '.join(self._homes)}")

    def public(self) -> Sequence[str]:
        """The public names of the first module that exists."""
        return next(module.__all__ for module in map(_module, self._homes) if module)


@functools.cache
def _module(name: str) -> Any:
    """A module, or ``None`` if there is none; one that fails inside raises."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            return None
        raise


beliefs = Names("beliefnav.beliefs", "beliefnav.ssm", "beliefnav.filters")
control = Names("beliefnav.control")
filters = Names("beliefnav.filters", "beliefnav.recording")
inference = Names("beliefnav.inference")
recordings = Names(
    "beliefnav.recording", "beliefnav.inspection", "beliefnav.filters", "beliefnav.inference"
)
rules = Names("beliefnav.rules")
root = Names("beliefnav")
wrappers = Names("beliefnav.wrappers", "beliefnav.rules")
atlas = Names("beliefnav.atlas")
problems = Names("beliefnav.atlas.problems")


def advance(filter_: Any, predicted: Any, gradient: Any, curvature: Any = None) -> tuple[Any, Any]:
    """The state after an observation and its diagnostics, of a filter that gives both or one.

    A filter without diagnostics has none, where it had empty ones.
    """
    updated = filter_.update(predicted, gradient, curvature)
    if not hasattr(filter_, "diagnose"):
        return updated
    return updated, filter_.diagnose and filter_.diagnose(predicted, gradient, curvature)


def optimum(state: Any, params: Any) -> Any:
    """Mean and variance of the optimum, by a state or by its posterior; ``None`` if neither."""
    if hasattr(state, "optimum"):
        return state.optimum(params)
    posterior = state.posterior()
    if getattr(posterior, "distance_mean", None) is None:
        return None
    mean = jax.tree.map(jnp.add, params, posterior.distance_mean)
    return mean, posterior.distance_variance


def positive_program(belief: Any) -> Any:
    """The program with a curvature that is positive: by an option, or by a wrapper."""
    if "positive" in inspect.signature(belief.numpyro_model).parameters:
        return functools.partial(belief.numpyro_model, positive=True)
    return beliefs.positive(belief).numpyro_model
