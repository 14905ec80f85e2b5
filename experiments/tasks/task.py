"""What a task is, and how one is found by its name."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from jax import Array

from experiments.kept import digest
from experiments.options import OptionError, check_known

SPLITS = ("train", "validation", "test")

Named = TypeVar("Named")


class Score(NamedTuple):
    """What is asked of parameters on a split, less of both being better.

    Attributes:
        error: share of the examples that are classified wrongly; a task that does not classify
            says what stands in its place.
        nats: mean loss.
    """

    error: Array
    nats: Array


class Task(NamedTuple):
    """Something to be learned from random batches.

    Attributes:
        init: ``key -> params``.
        loss: ``(params, key) -> loss`` of a batch that the key draws, in nats where it has a unit.
        score: ``(params, split) -> Score`` on one of `SPLITS`: on examples to train on, to choose
            settings by, and to look at in the end.
        steps: batches to learn from.
        batch: examples in a batch.
    """

    init: Callable[[Array], Any]
    loss: Callable[[Any, Array], Array]
    score: Callable[[Any, str], Score]
    steps: int
    batch: int


def code_of(name: str) -> str | None:
    """A digest of the module of a ``module:name``; ``None`` of what a registry has.

    Results of a person's own are used again only while that module stays as it is.
    """
    module, colon, _ = name.partition(":")
    return digest(inspect.getsource(importlib.import_module(module))) if colon else None


def find(kind: str, name: str, known: Mapping[str, Named]) -> Named:
    """An entry of a registry, or one of a person's own as ``module:name``.

    Args:
        kind: what it is called in errors.
        name: the name; Python finds the module as it does for ``import``.
        known: the registry.

    Returns:
        The entry.

    Raises:
        OptionError: there is no such name, module, or name in the module.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        check_known(kind, [name], known)
        return known[name]
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(
            f"Cannot find the {kind} {name!r}. This is because of: {error}; write MODULE:NAME, "
            "with a module that Python can import from here."
        ) from error
