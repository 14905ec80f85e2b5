"""All rules in one place, with what others need to know of them.

The atlas, `beliefnav.explain`, tests and experiments read it, so that a rule that is added here is
compared, explained and tested.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav import rules
from beliefnav.rules._rule import Rule

__all__ = ["APPROXIMATE", "CATALOGUE", "EXACT", "LIMIT", "Entry", "Peer"]

EXACT, LIMIT, APPROXIMATE = "exact", "limit", "approximate"


class Peer(NamedTuple):
    """An implementation of a rule in optax.

    Attributes:
        name: what to call it.
        build: from the arguments of our rule, under the same names, to an optimizer.
        composed: whether optax has its parts, and not the whole.
    """

    name: str
    build: Callable[..., optax.GradientTransformation]
    composed: bool = False


class Entry(NamedTuple):
    """One rule.

    Attributes:
        rule: the function.
        arguments: those of a demonstration, by name.
        memory: trees of the shape of the parameters that its state holds.
        peer: the rule in optax; or why there is none, a sentence.
        claim: what the atlas claims of it beside another implementation: ``exact``,
            ``limit`` or ``approximate``; ``None`` for a rule that recovers no other.
        reading: what ``update(curvature=)`` needs: nothing, a tree like the parameters
            (``diagonal``) or one matrix over all of them (``matrix``).
        elementwise: whether the step of an entry depends on the gradients and readings of that
            entry alone.
        collectives: what devices exchange in a step where parameters are sharded: nothing, unless
            entries are coupled or a scalar says something of all of them.
    """

    rule: Rule[...]
    arguments: Mapping[str, Any]
    memory: int
    peer: Peer | str
    claim: str | None = EXACT
    reading: Literal["diagonal", "matrix"] | None = None
    elementwise: bool = True
    collectives: frozenset[str] = frozenset()


def _rmsprop(
    learning_rate: optax.ScalarOrSchedule, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    return optax.rmsprop(learning_rate, b2, eps)


def _average(
    learning_rate: optax.ScalarOrSchedule, decay: float = 0.9
) -> optax.GradientTransformation:
    return optax.chain(optax.ema(decay), optax.scale_by_learning_rate(learning_rate))


def _coupled(params: Any) -> Array:
    """A metric [n, n] over all parameters."""
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return jnp.eye(size) + 1 / size


def _rate(learning_rate: ArrayLike, **others: Any) -> Mapping[str, Any]:
    return {"learning_rate": learning_rate, **others}


_MATRIX_OF_MEANS = "optax has no rule with a matrix of second moments."
_VARIATIONAL = "optax has no rule of variational inference."
_TASKS = "optax has no rule that expects tasks to switch."
_WHOLE = frozenset({"all-gather"})
"""What is decomposed is needed whole."""
_ANY_READING = frozenset({"all-reduce"})
"""Whether anything was read, of all parameters together: time is counted in readings."""
_DISTANCE = frozenset({"all-reduce"})
"""How far the optimum is at least, of all parameters together."""
_SURPRISE = frozenset({"all-reduce"})
"""The mean surprise of all entries, a scalar of the state."""

_ENTRIES = (
    Entry(rules.sgd, _rate(0.05), 1, Peer("optax.sgd", optax.sgd)),
    Entry(rules.momentum, _rate(0.05), 1, Peer("optax.ema", _average, composed=True)),
    Entry(rules.sign_sgd, _rate(0.01), 1, Peer("optax.sign_sgd", optax.sign_sgd)),
    Entry(rules.signum, _rate(0.01), 1, Peer("optax.signum", optax.signum)),
    Entry(rules.lion, _rate(0.01), 2, Peer("optax.lion", optax.lion)),
    Entry(rules.rmsprop, _rate(0.01), 2, Peer("optax.rmsprop", optax.rmsprop)),
    Entry(rules.ballistic, _rate(0.01), 2, Peer("optax.rmsprop(decay=0.999)", _rmsprop)),
    Entry(rules.adagrad, _rate(0.1), 2, Peer("optax.adagrad", optax.adagrad)),
    Entry(rules.adam, _rate(0.01), 2, Peer("optax.adam", optax.adam)),
    Entry(rules.adamw, _rate(0.01), 2, Peer("optax.adamw", optax.adamw)),
    Entry(rules.adamax, _rate(0.01), 2, Peer("optax.adamax", optax.adamax)),
    Entry(rules.nadam, _rate(0.01), 3, Peer("optax.nadam", optax.nadam)),
    Entry(rules.nadamw, _rate(0.01), 3, Peer("optax.nadamw", optax.nadamw)),
    Entry(rules.wiener, _rate(0.01), 2, "optax has no Adam on a shrunk mean.", None),
    Entry(rules.secant, _rate(0.1), 7, "optax has no curvature learned from displacements.", None),
    Entry(rules.l2_init, _rate(0.05, strength=0.1), 2, _TASKS),
    Entry(rules.adam_toward_start, _rate(0.01, decay=0.1), 3, _TASKS),
    Entry(rules.resetting, _rate(0.02, hazard=0.05, discount=0.5), 3, _TASKS),
    Entry(rules.countering, _rate(0.01), 2, "optax's plans ignore weight decay.", LIMIT),
    Entry(
        rules.natural_gradient,
        _rate(0.05, metric=_coupled),
        1,
        "optax has no metric on parameters.",
        elementwise=False,
        collectives=_WHOLE,
    ),
    Entry(
        rules.newton,
        _rate(0.2),
        1,
        "optax has no step on a Hessian that is given.",
        reading="matrix",
        elementwise=False,
        collectives=_WHOLE,
    ),
    Entry(
        rules.sophia_like,
        _rate(0.02, time_step=5.0),
        2,
        "optax.contrib.sophia cuts Newton's step off at a fixed size.",
        APPROXIMATE,
        "diagonal",
        collectives=_ANY_READING,
    ),
    Entry(
        rules.full_ballistic,
        _rate(0.01, b1=0.9, b2=0.99),
        1,
        _MATRIX_OF_MEANS,
        elementwise=False,
        collectives=_WHOLE,
    ),
    Entry(rules.shampoo, _rate(0.1), 1, _MATRIX_OF_MEANS, elementwise=False, collectives=_WHOLE),
    Entry(
        rules.muon,
        _rate(0.003),
        2,
        "The iteration of optax.contrib.muon approaches the polar factor only roughly.",
        elementwise=False,
        collectives=_WHOLE,
    ),
    Entry(
        rules.von,
        _rate(0.05, b2=0.995, prior_precision=0.1),
        2,
        _VARIATIONAL,
        reading="diagonal",
        collectives=_ANY_READING,
    ),
    Entry(
        rules.ivon,
        _rate(0.05, b2=0.9, prior_precision=0.1),
        2,
        _VARIATIONAL,
        reading="diagonal",
        collectives=_ANY_READING,
    ),
    Entry(
        rules.bayesian_learning_rule,
        _rate(0.1, prior_precision=0.6),
        1,
        _VARIATIONAL,
        reading="matrix",
        elementwise=False,
        collectives=_WHOLE,
    ),
    Entry(
        rules.family,
        _rate(0.01, discount=0.1, exact_hold=0.5, prior_weight=0.5),
        2,
        "It lies between optax's rules, and is one of them at its ends.",
        None,
    ),
    Entry(
        rules.hazard_filter,
        {"hazard": 0.01, "prior_variance": 0.3, "examples": 4},
        4,
        _TASKS,
        collectives=_SURPRISE,
    ),
    Entry(
        rules.learning_rate_free,
        {"guess": 0.01},
        5,
        "optax.contrib.prodigy weighs the first gradients otherwise, and does not average.",
        APPROXIMATE,
        elementwise=False,
        collectives=_DISTANCE,
    ),
)
CATALOGUE: Mapping[str, Entry] = {entry.rule.__name__: entry for entry in _ENTRIES}
"""Every rule under its name, in the order of the table in `beliefnav.rules`."""
