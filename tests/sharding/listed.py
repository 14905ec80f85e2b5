"""The rules as these tests make them: those of the catalogue, with a metric that is no matrix."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from beliefnav.rules.catalogue import CATALOGUE, Entry

PyTree = Any


def metric(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: 1 + x**2 / 10, params)


class Listed(NamedTuple):
    """A rule.

    Attributes:
        arguments: what it is given besides a learning rate.
        collectives: what devices exchange in a step on automatic axes, at least.
        reading: what ``update(curvature=)`` gets: nothing, "diagonal" or "matrix".
    """

    arguments: Mapping[str, Any]
    collectives: frozenset[str]
    reading: str | None


def listed(name: str, entry: Entry) -> Listed:
    given = {k: v for k, v in entry.arguments.items() if k != "learning_rate"}
    if name == "natural_gradient":  # elementwise, as its metric is
        return Listed({"metric": metric}, frozenset(), None)
    return Listed(given, entry.collectives, entry.reading)


RULES = {name: listed(name, entry) for name, entry in CATALOGUE.items()}
ELEMENTWISE = [name for name, rule in RULES.items() if not rule.collectives]
COUPLED = [name for name, rule in RULES.items() if rule.collectives]


def assumed(name: str) -> Any:
    """What a rule is built from."""
    rate = {"learning_rate": 0.01} if "learning_rate" in CATALOGUE[name].arguments else {}
    return CATALOGUE[name].rule.assumptions(**rate, **RULES[name].arguments)


def made(name: str, count_missing: bool = False) -> Any:
    """A rule by its name, that counts or does not."""
    return assumed(name).optimizer(count_missing=count_missing)
