"""What a call of an optimizer assumes."""

import inspect
from collections.abc import Callable
from typing import Any

import optax

from beliefnav import rules
from beliefnav.rules._rule import Assumptions

_OURS: dict[Any, Any] = {
    optax.sgd: rules.sgd,
    optax.sign_sgd: rules.sign_sgd,
    optax.signum: rules.signum,
    optax.lion: rules.lion,
    optax.rmsprop: rules.rmsprop,
    optax.adagrad: rules.adagrad,
    optax.adamax: rules.adamax,
    optax.adam: rules.adam,
    optax.adamw: rules.adamw,
    optax.nadam: rules.nadam,
    optax.nadamw: rules.nadamw,
}
_NESTEROV: dict[Any, Any] = {
    optax.adam: (rules.adam, rules.nadam),
    optax.adamw: (rules.adamw, rules.nadamw),
    optax.nadam: (rules.adam, rules.nadam),
    optax.nadamw: (rules.adamw, rules.nadamw),
}
_STORAGE = ("mu_dtype", "accumulator_dtype")
_REASONS: dict[Any, str] = {
    optax.amsgrad: "the largest of past posterior means is the posterior mean of no prior",
    optax.lamb: "its trust ratio is optimal for no quadratic cost of moving",
    optax.lars: "its trust ratio is optimal for no quadratic cost of moving",
}


def explain(optimizer: Callable[..., Any], *args: Any, **kwargs: Any) -> Assumptions:
    """The assumptions that a call of an optimizer encodes. Printed, a sentence for each.

    Args:
        optimizer: a rule of `beliefnav.rules` or an alias of optax, not yet called.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Returns:
        What the optimizer is built from.

    Raises:
        ValueError: it does not follow from a belief and a policy, an argument has no counterpart,
            or nothing is known of it; the error says which.

    Example:
        >>> import optax
        >>> from beliefnav import explain
        >>> print(explain(optax.sgd, 0.1, momentum=0.5))
        horizon         0 steps         Only the present gradient is descended: planning ahead is
                                        not worth it.
        hold            replanned       The plan is remade continuously.
        geometry        identity        All directions cost the same to move in.
        gradient        memory 2 steps  The gradient drifts as fast as it is forgotten; it is seen
                                        through noise.
        gradient prior  2 observations  At first it is believed to be 0, as if seen this often.
        curvature       none            Nothing is believed of the curvature.
        drift           none            Nothing moves the parameters but the plan.
        learning rate   0.2             eta k dt / gamma: how far one step goes down the gradient.
    """
    assumptions = getattr(optimizer, "assumptions", None)
    if assumptions is not None:
        return assumptions(*args, **kwargs)
    name = getattr(optimizer, "__name__", repr(optimizer))
    if optimizer in _REASONS:
        raise ValueError(
            f"{name} does not follow from a belief and a policy. This is because "
            f"{_REASONS[optimizer]}."
        )
    if optimizer not in _OURS:
        raise ValueError(
            f"Nothing is known of what {name} assumes; known are the rules of beliefnav.rules and "
            f"optax's {', '.join(_name(f) for f in _OURS)}."
        )
    bound = inspect.signature(optimizer).bind(*args, **kwargs)
    bound.apply_defaults()
    given, ours = bound.arguments, _OURS[optimizer]
    if optimizer in _NESTEROV:
        ours = _NESTEROV[optimizer][given.pop("nesterov")]
    elif given.get("momentum") is None:
        given.pop("nesterov", None)  # it looks ahead on nothing
    return ours.assumptions(**_translated(name, given, inspect.signature(ours)))


def _translated(name: str, given: dict[str, Any], ours: inspect.Signature) -> dict[str, Any]:
    """The arguments that are assumptions; those that say how numbers are stored are none."""
    known = {k: v for k, v in given.items() if k in ours.parameters}
    for argument in given.keys() - known.keys() - set(_STORAGE):
        if given[argument]:
            raise ValueError(
                f"What {name}({argument}={given[argument]!r}) assumes is not known; without this "
                "argument it is."
            )
    return known


def _name(optimizer: Any) -> str:
    """The name of an alias; those with nesterov=True are partial functions."""
    if hasattr(optimizer, "__name__"):
        return optimizer.__name__
    return {optax.nadam: "nadam", optax.nadamw: "nadamw"}.get(optimizer, repr(optimizer))
