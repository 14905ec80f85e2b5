"""The rules as these tests make them: their arguments, and whether they couple entries."""

from typing import Any, NamedTuple

import jax

from beliefnav import navigator, rules

PyTree = Any


def metric(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: 1 + x**2 / 10, params)


class Listed(NamedTuple):
    """A rule.

    Attributes:
        arguments: what it is given besides a learning rate.
        collectives: what devices exchange in a step on automatic axes, at least; nothing if the
            rule is elementwise.
        reading: what ``update(curvature=)`` gets: nothing, "diagonal" or "matrix".
    """

    arguments: dict[str, Any] = {}
    collectives: frozenset[str] = frozenset()
    reading: str | None = None


MATRICES = frozenset({"all-gather"})  # what is decomposed is needed whole
ANY_READING = frozenset({"all-reduce"})  # whether anything was read, of all parameters together

RULES: dict[str, Listed] = {
    "adagrad": Listed(),
    "adam": Listed(),
    "adam_toward_start": Listed({"decay": 1e-4}),
    "adamax": Listed(),
    "adamw": Listed(),
    "ballistic": Listed(),
    "bayesian_learning_rule": Listed({}, MATRICES, "matrix"),
    "countering": Listed({"weight_decay": 1e-4}),
    "family": Listed({"discount": 0.5}),
    "full_ballistic": Listed({}, MATRICES),
    "hazard_filter": Listed(
        {"hazard": 1e-3, "prior_variance": 1.0, "examples": 1}, frozenset({"all-reduce"})
    ),
    "ivon": Listed({"b2": 0.9}, ANY_READING, "diagonal"),
    "l2_init": Listed({"strength": 1e-4}),
    "lion": Listed(),
    "momentum": Listed(),
    "muon": Listed({}, MATRICES),
    "nadam": Listed(),
    "nadamw": Listed(),
    "natural_gradient": Listed({"metric": metric}),
    "newton": Listed({}, MATRICES, "matrix"),
    "resetting": Listed({"hazard": 1e-5}),
    "rmsprop": Listed(),
    "secant": Listed(),
    "sgd": Listed(),
    "shampoo": Listed({}, MATRICES),
    "sign_sgd": Listed(),
    "signum": Listed(),
    "sophia_like": Listed({}, ANY_READING, "diagonal"),
    "von": Listed({"b2": 0.9}, ANY_READING, "diagonal"),
    "wiener": Listed(),
}
ELEMENTWISE = [name for name, listed in RULES.items() if not listed.collectives]
COUPLED = [name for name, listed in RULES.items() if listed.collectives]


def assumed(name: str) -> Any:
    """What a rule is built from."""
    rate = () if name == "hazard_filter" else (0.01,)
    return getattr(rules, name).assumptions(*rate, **RULES[name].arguments)


def made(name: str, count_missing: bool = False) -> Any:
    """A rule by its name, that counts or does not."""
    a: Any = assumed(name)
    return navigator(a.learning_rate, a.belief, a.policy, a.drift, count_missing=count_missing)
