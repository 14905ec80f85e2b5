r"""What a learning rule assumes, as a record: an optimizer is built from it, and it can be read.

`Assumptions` holds what `navigator` consumes. Printed, it is a table in physical units: memory in
steps, the weight of a prior in observations, the horizon in steps.

Example:
    >>> from beliefnav import rules
    >>> print(rules.sgd.assumptions(0.1))
    horizon        0 steps    Only the present gradient is descended: planning ahead is not worth
                              it.
    hold           replanned  The plan is remade continuously.
    geometry       identity   All directions cost the same to move in.
    gradient       as seen    The gradient is what was just seen, without noise or memory.
    curvature      none       Nothing is believed of the curvature.
    drift          none       Nothing moves the parameters but the plan.
    learning rate  0.1        eta k dt / gamma: how far one step goes down the gradient.
"""

import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, ParamSpec, Protocol, overload, runtime_checkable

import optax

from beliefnav._checks import Range, refuse_schedule
from beliefnav._format import counted, known, number, reciprocal
from beliefnav.beliefs.contract import BeliefLike, Fact, as_belief
from beliefnav.control import Plan, Policy
from beliefnav.drift import Decay, check_drift
from beliefnav.navigation import navigator
from beliefnav.wrappers.contract import Wrapper

__all__ = ["Around", "Assumptions", "Fact", "Rule", "rule", "table"]

P = ParamSpec("P")
OUT_OF_RANGE = """\
ValueError: a number is out of its range, as far as it is known; the error names it.
    TypeError: an argument that must be a number is none; the error names it."""


class Around(NamedTuple):
    """A wrapper, and the arguments of its own.

    Attributes:
        wrapper: one of `beliefnav.wrappers`.
        settings: by name.
    """

    wrapper: Wrapper[...]
    settings: Mapping[str, Any]


class Assumptions(NamedTuple):
    r"""What `navigator` consumes, and what stands around it.

    Attributes:
        learning_rate: a number or a schedule.
        belief: what is believed about gradient and curvature.
        policy: how far the plan looks, at what price of moving.
        drift: movement that the plan does not know of.
        approximations: sentences on what does not follow from belief and policy.
        around: wrappers that stand around the optimizer, the innermost first.
    """

    learning_rate: optax.ScalarOrSchedule
    belief: BeliefLike
    policy: Policy
    drift: Decay | None = None
    approximations: tuple[str, ...] = ()
    around: tuple[Around, ...] = ()

    def optimizer(self, *, count_missing: bool = False) -> optax.GradientTransformationExtraArgs:
        """The optimizer that follows.

        Args:
            count_missing: see `beliefnav.scale_by_navigation`; not an assumption.

        Returns:
            What the rule itself returns, if nothing is counted.
        """
        optimizer = navigator(
            self.learning_rate, self.belief, self.policy, self.drift, count_missing=count_missing
        )
        for wrap, settings in self.around:
            optimizer = wrap(optimizer, **settings)
        return optimizer

    def facts(self) -> tuple[Fact, ...]:
        """The assumptions one by one, those of wrappers first and then those of the policy."""
        check_drift(self.drift)
        plan = self.policy.plan
        if plan is None:
            planned = [Fact("policy", "own", "Nobody said what this policy assumes.")]
            meaning, plan = "It multiplies the direction of the policy.", Plan(None)
        else:
            planned, meaning = _plan_facts(plan, known(self.learning_rate)), _meaning(plan)
        believed = list(as_belief(self.belief).facts())
        if plan.curvature:
            sentence = "The plan reads the curvature off the mean; nothing is remembered of it."
            believed.append(Fact("curvature", plan.curvature, sentence))
        elif all(fact.is_about("gradient") for fact in believed):
            believed.append(Fact("curvature", "none", "Nothing is believed of the curvature."))
        sentences = (*plan.approximations, *self.approximations)
        outer = (wrap.own_facts(**settings) for wrap, settings in reversed(self.around))
        return (
            *(fact for facts in outer for fact in facts),
            *planned,
            *believed,
            _drift_fact(self.drift, self.learning_rate, plan),
            Fact("learning rate", number(self.learning_rate), meaning),
            *(Fact("approximation", "", sentence) for sentence in sentences),
        )

    def __str__(self) -> str:
        """The facts as a table, at most 100 columns wide."""
        return table(self.facts())


def table(facts: Sequence[Fact]) -> str:
    """Facts as a table, at most 100 columns wide."""
    subject, value = (max(len(f[i]) for f in facts) + 2 for i in (0, 1))
    value = min(value, 30)
    lines = []
    for fact in facts:
        values = textwrap.wrap(fact.value, value - 2) or [""]
        words = textwrap.wrap(fact.sentence, 100 - subject - value)
        for i in range(max(len(values), len(words))):
            name = "" if i else fact.subject
            left, right = (column[i] if i < len(column) else "" for column in (values, words))
            lines.append(f"{name:<{subject}}{left:<{value}}{right}".rstrip())
    return "\n".join(lines)


@runtime_checkable
class Rule(Protocol[P]):
    """A named learning rule: called, it is the optimizer."""

    __name__: str
    __doc__: str | None
    ranges: Mapping[str, Range]
    """Argument -> where it lies, as far as it is known."""
    assumptions: Callable[P, Assumptions]
    """The same arguments, to what the optimizer is built from."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        """Build the optimizer."""
        ...


@overload
def rule(assume: Callable[P, Assumptions], /) -> Rule[P]: ...


@overload
def rule(**ranges: Range) -> Callable[[Callable[P, Assumptions]], Rule[P]]: ...


def rule(assume: Callable[..., Assumptions] | None = None, /, **ranges: Range) -> Any:
    """Make a learning rule of a function that returns its assumptions.

    Both ``@rule`` and ``@rule(learning_rate=POSITIVE, ...)`` stand above such a function.

    Args:
        assume: a function with the arguments and the docstring of the rule.
        **ranges: argument -> where it lies, of those that may be Python numbers. Each is checked
            before the function runs, and the docstring says so.

    Returns:
        A function from the same arguments to the optimizer: a `Rule`.

    Raises:
        TypeError: a range is given of what is no argument of the function.
    """
    return functools.partial(_rule, ranges) if assume is None else _rule(ranges, assume)


def _rule(ranges: Mapping[str, Range], assume: Callable[P, Assumptions]) -> Rule[P]:
    name, signature = assume.__name__, inspect.signature(assume)
    if unknown := ", ".join(sorted(ranges.keys() - signature.parameters.keys())):
        raise TypeError(
            f"Cannot check the range of {unknown} in {name}. This is because it has no such "
            f"argument; it has {', '.join(signature.parameters)}."
        )
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [name for name, p in signature.parameters.items() if p.kind in by_place]

    @functools.wraps(assume)
    def assumptions(*args: P.args, **kwargs: P.kwargs) -> Assumptions:
        given = dict(zip(places, args, strict=False)) | kwargs
        for argument in given.keys() & ranges.keys():
            value, kind = given[argument], signature.parameters[argument].annotation
            if kind is not optax.ScalarOrSchedule:
                refuse_schedule(f"rules.{name}", argument, value)
            ranges[argument].check_annotated(name, argument, value, kind)
        return assume(*args, **kwargs)

    @functools.wraps(assume)
    def build(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        return assumptions(*args, **kwargs).optimizer()

    result: Any = build
    result.assumptions = assumptions
    result.ranges = MappingProxyType(ranges)
    if ranges:
        build.__doc__ = assumptions.__doc__ = _with_ranges(assume.__doc__)
    result.__signature__ = signature.replace(
        return_annotation=optax.GradientTransformationExtraArgs
    )
    return result


def _with_ranges(doc: str | None) -> str | None:
    """A docstring that says what is raised for a wrong number; none of none (-OO)."""
    if doc is None:
        return None
    parts = inspect.cleandoc(doc).split("\n\n")
    for i, part in enumerate(parts):
        if part.startswith("Raises:\n"):
            parts[i] = part.replace("Raises:", f"Raises:\n    {OUT_OF_RANGE}", 1)
            break
        if part.startswith(("Reference:\n", "Example:\n")):
            parts.insert(i, f"Raises:\n    {OUT_OF_RANGE}")
            break
    else:
        parts.append(f"Raises:\n    {OUT_OF_RANGE}")
    return "\n\n".join(parts)


def _times(value: Any) -> str:
    """In units of the time step of a plan."""
    return "1 unit of time" if number(value) == "1" else f"{number(value)} units of time"


def _plan_facts(plan: Plan, learning_rate: float | None) -> list[Fact]:
    """Horizon, hold and geometry.

    Where plans are remade continuously, the learning rate is the time that passes in a step; where
    they are held, it is a share of what was planned for a unit of time.
    """
    time_step = learning_rate if known(plan.hold) == 0 or learning_rate == 1 else None
    if plan.discount is None:
        horizon = Fact("horizon", "any", "The step does not depend on how far the plan looks.")
    elif known(plan.discount) == math.inf:
        sentence = "Only the present gradient is descended: planning ahead is not worth it."
        horizon = Fact("horizon", "0 steps", sentence)
    elif known(plan.discount) == 0:
        sentence = "The future is not discounted: the plan coasts to the optimum (ballistic)."
        horizon = Fact("horizon", "unlimited", sentence)
    else:
        sentence = "Costs further ahead than this hardly count."
        value = _times(reciprocal(plan.discount))
        if time_step is not None:
            value = counted(reciprocal(plan.discount * time_step), "step")
        horizon = Fact("horizon", value, sentence)
    if known(plan.hold) == 0:
        held = Fact("hold", "replanned", "The plan is remade continuously.")
    elif known(plan.hold) == math.inf:
        held = Fact("hold", "to the end", "The plan is followed to the optimum that is believed.")
    else:
        sentence = "A plan is made to be followed for this long."
        held = Fact("hold", _times(plan.hold), sentence)
    geometry = "All directions cost the same to move in."
    if plan.metric != "identity":
        geometry = "What it costs to move depends on the direction, by the metric."
    facts = [horizon, held, Fact("geometry", plan.metric, geometry)]
    if known(plan.floor) != 0:
        sentence = "No direction is believed to be flatter than this."
        facts.append(Fact("curvature floor", number(plan.floor), sentence))
    return facts + [Fact("plan", "", remark) for remark in plan.remarks]


def _meaning(plan: Plan) -> str:
    """What the learning rate is, in the constants of the objective."""
    if plan.discount is None:
        return "The share of the way to the believed optimum that a step goes."
    if known(plan.discount) == 0:
        return "sqrt(eta k) dt: how far one step goes on a plan without discounting."
    if known(plan.discount) == math.inf:
        return "eta k dt / gamma: how far one step goes down the gradient."
    if known(plan.hold) == 0:
        return "The time between two looks at the landscape, in units of that of the plan."
    return "The share of the planned move that a step takes."


def _drift_fact(drift: Decay | None, learning_rate: optax.ScalarOrSchedule, plan: Plan) -> Fact:
    if plan.drift:
        return Fact("drift", plan.drift, "It moves the parameters, and the plan counters it.")
    strength = 0.0 if drift is None else known(drift.strength)
    if drift is None or strength == 0:
        return Fact("drift", "none", "Nothing moves the parameters but the plan.")
    where = "their initial values" if drift.toward_start else "0"
    value, rate = f"{number(drift.strength)} per unit of learning rate", known(learning_rate)
    if strength is not None and rate is not None:
        value = f"{number(strength * rate)} a step"
        if strength * rate < 1:
            where += f", by half in {number(-math.log(2) / math.log1p(-strength * rate))} steps"
    if drift.mask is not None:
        where += ", where the mask says so"
    return Fact("drift", value, f"Weights decay to {where}, which the plan does not know of.")
