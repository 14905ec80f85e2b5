"""The rules that the bench knows, and the rates that each is tried at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from beliefnav import rules


def _as_they_are(state: Any, params: Any) -> Any:
    """The parameters that gradients are taken at are those that are handed over."""
    del state
    return params


class Rule(NamedTuple):
    """An optimizer with one learning rate.

    Attributes:
        make: ``rate or schedule -> optimizer``.
        rates: that it is tried at.
        read: ``(state, params) -> params`` to be scored, where these are not the parameters.
    """

    make: Callable[[Any], Any]
    rates: tuple[float, ...]
    read: Callable[[Any, Any], Any] = _as_they_are


def geometric(first: float) -> tuple[float, ...]:
    """Seven rates, each three times the one before."""
    return tuple(float(f"{first * 3**k:.3g}") for k in range(7))


def muon(rate: Any) -> optax.GradientTransformation:
    """Muon on all matrices; kernels of convolutions are matrices from inputs to outputs."""

    def dimensions(params: Any) -> Any:
        return jax.tree.map(
            lambda x: (
                optax.contrib.MuonDimensionNumbers(tuple(range(1, x.ndim)), 0)
                if x.ndim > 1 and x.size > max(x.shape)
                else None
            ),
            params,
        )

    return optax.contrib.muon(rate, muon_weight_dimension_numbers=dimensions)


def schedule_free_muon(rate: Any) -> optax.GradientTransformation:
    """Schedule-free around Muon."""
    return optax.contrib.schedule_free(muon(rate), rate)


FREE = optax.contrib.schedule_free_eval_params

RULES: dict[str, Rule] = {
    "adam": Rule(rules.adam, geometric(3e-4)),
    "momentum": Rule(lambda rate: rules.sgd(rate, momentum=0.9), geometric(1e-3)),
    "muon": Rule(muon, geometric(1e-3)),
    "schedule_free_adam": Rule(optax.contrib.schedule_free_adamw, geometric(3e-4), FREE),
    "schedule_free_momentum": Rule(optax.contrib.schedule_free_sgd, geometric(1e-2), FREE),
    "schedule_free_muon": Rule(schedule_free_muon, geometric(1e-3), FREE),
}
"""Schedule-free has a momentum of its own, so that the rates of its descent are ten times as large
as those of a momentum of 0.9."""
