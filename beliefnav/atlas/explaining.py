"""What a call of an optimizer assumes."""

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import jax
import numpy as np
import optax

from beliefnav import rules
from beliefnav._format import number
from beliefnav.reading import optimum
from beliefnav.rules._rule import Assumptions, Fact, Rule, table
from beliefnav.rules.catalogue import CATALOGUE, Peer
from beliefnav.wrappers.contract import Optimizer, Telling, Wrapper

if TYPE_CHECKING:
    import xarray as xr

    from beliefnav.atlas.inferred import Inferred

__all__ = ["Held", "Wrapped", "explain"]

_PEERS: dict[Any, tuple[str, Any]] = {
    entry.peer.build: (entry.peer.name.removeprefix("optax."), entry.rule)
    for name, entry in CATALOGUE.items()
    if isinstance(entry.peer, Peer) and entry.peer.name == f"optax.{name}"
}
"""Function of optax -> its name, which partial functions do not tell, and our rule."""
_NESTEROV: dict[Any, Any] = {
    optax.adam: (rules.adam, rules.nadam),
    optax.adamw: (rules.adamw, rules.nadamw),
    optax.nadam: (rules.adam, rules.nadam),
    optax.nadamw: (rules.adamw, rules.nadamw),
}
_STORAGE = ("mu_dtype", "accumulator_dtype")
_REASONS: dict[Any, str] = {
    optax.amsgrad: "no model is known whose posterior mean is the largest of past ones",
    optax.lamb: "no model of gradients is known that has its trust ratio for a curvature",
    optax.lars: "no model of gradients is known that has its trust ratio for a curvature",
}


class Wrapped(NamedTuple):
    """What a wrapper assumes, and what the optimizer inside it does.

    Attributes:
        own: what the wrapper assumes.
        inner: what the optimizer inside assumes; or that optimizer, if it was built before.
        wrap: from an optimizer to the wrapped one.
    """

    own: tuple[Fact, ...]
    inner: "Assumptions | Wrapped | Optimizer"
    wrap: Callable[[Any], optax.GradientTransformationExtraArgs]

    def optimizer(self, *, count_missing: bool = False) -> optax.GradientTransformationExtraArgs:
        """The optimizer that follows.

        Args:
            count_missing: see `beliefnav.scale_by_navigation`; of an inner optimizer that was built
                before, nothing is changed.

        Returns:
            The wrapper around the optimizer inside.
        """
        if isinstance(self.inner, Optimizer):
            return self.wrap(self.inner)
        return self.wrap(self.inner.optimizer(count_missing=count_missing))

    def facts(self) -> tuple[Fact, ...]:
        """The assumptions one by one, those of the wrapper first."""
        if not isinstance(self.inner, Optimizer):
            return *self.own, *self.inner.facts()
        sentence = "What it assumes cannot be read any more; explain the call that builds it."
        return *self.own, Fact("inner optimizer", "built before", sentence)

    def __str__(self) -> str:
        """The facts as a table, at most 100 columns wide."""
        return table(self.facts())


class Held(NamedTuple):
    """What the state of an optimizer holds, in numbers.

    Attributes:
        told: one by one; of averages inside of one another, the outer one first.
    """

    told: tuple[Fact, ...]

    def facts(self) -> tuple[Fact, ...]:
        """The numbers one by one."""
        return self.told

    def __str__(self) -> str:
        """The facts as a table, at most 100 columns wide."""
        return table(self.told)


def _is_stream(x: Any) -> bool:
    """Whether it is a labelled dataset; without xarray there is none."""
    return "xarray" in sys.modules and isinstance(x, sys.modules["xarray"].Dataset)


@overload
def explain(
    optimizer: Callable[..., Any] | Assumptions | Wrapped | Optimizer, *args: Any, **kwargs: Any
) -> Assumptions | Wrapped: ...


@overload
def explain(optimizer: "xr.Dataset") -> "Inferred": ...


@overload
def explain(
    optimizer: optax.OptState, params: Any = None, value_fn: Callable[[Any], Any] | None = None
) -> Held: ...


def explain(optimizer: Any, *args: Any, **kwargs: Any) -> "Assumptions | Wrapped | Held | Inferred":
    """The assumptions that a call of an optimizer encodes. Printed, a sentence for each.

    Or the numbers that the state of an average holds, and, given a loss, what to hand over and
    whether a schedule would have done better: where the state has averages of two memories, and the
    shorter one has the lower loss, the other still carries where the path came from. No number that
    an average holds by itself decides that.

    Args:
        optimizer: a rule of `beliefnav.rules` or an alias of optax, not yet called. Or a wrapper of
            `beliefnav.wrappers`; then the first argument is what it wraps: such a function, whose
            arguments follow, or an optimizer. `Assumptions` are returned as they are. Or the state
            of an optimizer with a `beliefnav.wrappers.iterate_averaging` in it. Or a stream, as of
            `beliefnav.recording.to_dataset`, of any learner: what it assumes is inferred.
        *args: its arguments; of a state, if you like, the present parameters and ``value_fn``, a
            loss as a function of them, as of held-out data.
        **kwargs: its keyword arguments; around a wrapper, also those of the wrapper.

    Returns:
        What the optimizer is built from; of a wrapper, what it assumes and what the optimizer
        inside does; of a state, the numbers it holds; of a stream, what is inferred
        (`beliefnav.atlas.inferred.Inferred`).

    Raises:
        ValueError: no belief and policy are known of it, an argument has no counterpart,
            nothing is known of it, or it was built before; around a wrapper, a keyword argument
            could be that of both. The error says which.
        TypeError: an argument is missing, or nobody takes it.

    Example:
        >>> import jax, optax
        >>> from beliefnav import explain, rules, wrappers
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
        >>> wrapped = explain(wrappers.two_hypothesis, rules.adam, 1e-3, hazard=0.01, examples=32)
        >>> [(fact.subject, fact.value) for fact in wrapped.facts()[:3]]
        [('task length', '100 steps'), ('evidence', '32 examples a batch'),
         ('task prior', 'the initial parameters')]

        Of a state: two averages of one path, whose start is far away, and still carried.

        >>> import jax.numpy as jnp
        >>> from beliefnav.beliefs import PolynomialLevel
        >>> inner = wrappers.iterate_averaging(optax.sgd(0.01), PolynomialLevel(2.0))
        >>> optimizer = wrappers.iterate_averaging(inner, PolynomialLevel(8.0))
        >>> params = jnp.array([10.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(params, state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> told = explain(state, params, lambda p: jnp.sum(p**2) / 2)
        >>> [(fact.subject, fact.value) for fact in told.facts() if fact.subject.startswith("to")]
        [('to hand over', 'the parameters'), ('to train with', 'a schedule')]

        Of a stream: what a learner assumes that was only watched.

        >>> from beliefnav import recording
        >>> watched = optax.lion(0.01, weight_decay=0.1)
        >>> watched = recording.record(watched, coordinates="all", capacity=100)
        >>> params = jnp.linspace(-1.0, 1.0, 8)
        >>> state, step = watched.init(params), jax.jit(watched.update)
        >>> for key in jax.random.split(jax.random.key(0), 100):
        ...     gradient = params + jax.random.normal(key, (8,))
        ...     updates, state = step(gradient, state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> print(explain(recording.to_dataset(state, params)))
        verdict        of the family              Of the movement ... is not explained; rounding is
                                                  ... of it.
        rule           lion                       All that defines it lies in the intervals.
        learning rate  0.01 within ...            The size of every move.
        look-ahead     0.90... (0.89... to 0.90...)  The weight b1 of the memory, beside the
                                                  present gradient's, in a sign.
        gradient       0.99... (0.98... to 0.99...)  The discount b2 of what is remembered of
                                                  gradients.
        drift          0.1 within ...             Weights decay by this share per unit of
                                                  learning rate.
        step           sign                       Nothing else fits as well.
    """
    if _is_stream(optimizer):
        if args or kwargs:
            raise TypeError("Cannot give arguments to a stream. This is because it has them all.")
        from beliefnav.atlas.inferred import named
        from beliefnav.inference.learners.inferring import infer

        return named(infer(optimizer))
    if isinstance(optimizer, Assumptions | Wrapped):
        if args or kwargs:
            raise TypeError("Cannot give arguments to assumptions. This is because they have them.")
        return optimizer
    if isinstance(optimizer, Wrapper):
        return _wrapped(optimizer, *args, **kwargs)
    if isinstance(optimizer, Rule):
        return optimizer.assumptions(*args, **kwargs)
    if isinstance(optimizer, Optimizer):
        raise ValueError(
            "Cannot explain an optimizer that was built before. This is because it does not say "
            "what built it; give the function and its arguments, as in explain(optax.adam, 1e-3)."
        )
    if not callable(optimizer):
        if told := _told(optimizer, *args, **kwargs):
            return Held(told)
        raise ValueError(
            "Cannot explain this. This is because it is no function of an optimizer, nor a state "
            "with an average in it; give a function and its arguments, as in "
            "explain(optax.adam, 1e-3)."
        )
    name = _name(optimizer)
    if optimizer in _REASONS:
        raise ValueError(
            f"Cannot explain {name} by a belief and a policy. This is because "
            f"{_REASONS[optimizer]}."
        )
    if optimizer not in _PEERS:
        raise ValueError(
            f"Nothing is known of what {name} assumes; known are the rules of beliefnav.rules and "
            f"optax's {', '.join(name for name, _ in _PEERS.values())}."
        )
    bound = inspect.signature(optimizer).bind(*args, **kwargs)
    bound.apply_defaults()
    given, (_, ours) = bound.arguments, _PEERS[optimizer]
    if optimizer in _NESTEROV:
        ours = _NESTEROV[optimizer][given.pop("nesterov")]
    elif given.get("momentum") is None:
        given.pop("nesterov", None)  # it looks ahead on nothing
    return ours.assumptions(**_translated(name, given, inspect.signature(ours)))


def _told(
    state: Any, params: Any = None, value_fn: Callable[[Any], Any] | None = None
) -> tuple[Fact, ...]:
    """What all averages in a state hold, and what their losses say."""
    parts = _averages(state)
    if not parts:
        return ()
    if value_fn is not None and params is None:
        raise ValueError("Cannot compare losses without params; give the present parameters too.")
    if value_fn is None or params is None:
        facts = [fact for part in parts for fact in part.told(params)]
        sentence = "The losses decide, not these numbers: give params and value_fn."
        return (*facts, Fact("to hand over", "not told", sentence))

    def loss_of(point: Any) -> float:
        loss = value_fn(point)
        if shape := np.shape(loss):
            raise ValueError(f"explain: value_fn must return one number, got shape {shape}.")
        return float(loss)

    losses = [loss_of(optimum(part, params)) for part in parts]
    facts = []
    for part, loss in zip(parts, losses, strict=True):
        facts += [*part.told(params), Fact("loss", number(loss), "Of this average.")]
    own = loss_of(params)
    facts.append(Fact("loss of parameters", number(own), "As they are."))
    if not np.isfinite([own, *losses]).all():
        return (*facts, Fact("to hand over", "not told", "Not all of these losses are finite."))
    best = np.argmin([own, *losses])
    handed = f"memory {number(parts[best - 1].memory())}" if best else "the parameters"
    facts.append(Fact("to hand over", handed, "It has the lowest of these losses."))
    memories = [part.memory() for part in parts]
    nested = len(parts) == 1 + len(_averages(parts[0].inner_state))
    if nested and min(memories) < max(memories):
        order = np.argsort(memories)
        travels = losses[order[0]] < losses[order[-1]]
        sentence = (
            "The shorter memory has the lower loss: the longer one still carries where the path "
            "came from, and a rate that falls would have forgotten it."
            if travels
            else "The longer memory has no higher loss: noise is what there is to lose, and a rate "
            "that stays, with an average, loses less than one that falls."
        )
        facts.append(Fact("to train with", "a schedule" if travels else "an average", sentence))
    return tuple(facts)


def _averages(state: Any) -> list[Telling]:
    """All averages in a state; of those inside of one another, the outer one first."""

    def is_part(x: Any) -> bool:
        return isinstance(x, Telling)

    parts = [x for x in jax.tree.leaves(state, is_leaf=is_part) if is_part(x)]
    return [each for part in parts for each in (part, *_averages(part.inner_state))]


def _wrapped(wrapper: Wrapper[...], inner: Any, *args: Any, **kwargs: Any) -> Wrapped:
    """What a wrapper assumes around a function of an optimizer, assumptions or an optimizer."""
    name = wrapper.__name__
    _, *own = inspect.signature(wrapper).parameters
    told = isinstance(inner, Assumptions | Wrapped | Optimizer)
    for argument in () if told else inspect.signature(inner).parameters:
        if argument in own and argument in kwargs:
            raise ValueError(
                f"Cannot tell whose argument {argument} is. This is because both {name} and "
                f"{_name(inner)} have one; explain the inner one first: explain({name}, "
                f"explain({_name(inner)}, ...), ...)."
            )
    settings = {key: value for key, value in kwargs.items() if key in own}
    rest = {key: value for key, value in kwargs.items() if key not in own}
    if told and (args or rest):
        raise TypeError(
            f"Nobody takes {', '.join([*map(repr, args), *rest])}. This is because the optimizer "
            f"inside has its arguments; {name} takes {', '.join(own)}, by name."
        )
    facts = wrapper.own_facts(**settings)
    if not isinstance(inner, Optimizer):
        inner = explain(inner, *args, **rest)
    return Wrapped(facts, inner, lambda optimizer: wrapper(optimizer, **settings))


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
    """What to call a function, of ours or of optax, whose nadam is a partial one."""
    if optimizer in _PEERS:
        return _PEERS[optimizer][0]
    if inspect.isfunction(optimizer) or inspect.isclass(optimizer):
        return optimizer.__name__
    return repr(optimizer)
