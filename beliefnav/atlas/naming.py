"""What was inferred of a learner, in words: the rule that it is, or the nearest, and a table."""

from typing import NamedTuple

import numpy as np

from beliefnav._format import counted, memory, number
from beliefnav.inference.learners.inferring import NONE, UNTOLD, Learner, Parameter
from beliefnav.rules._rule import Fact, table

__all__ = ["Inferred", "named"]

SMALL = 1e-3
"""A discount or a decay below is none."""
POWER = 0.5
_KINDS = {
    "none": ("sgd", "momentum", "nesterov"),
    "average": ("rmsprop", "adam", "nadam"),
    "centred": ("rmsprop, centred", "adabelief", "adabelief, looking ahead"),
    "sum": ("adagrad", "adagrad, with a mean", "adagrad, looking ahead"),
    "largest": ("rmsprop of the largest", "adamax", "adamax, looking ahead"),
}
"""Second moment -> rule without a memory of the gradient, with one, and looking ahead too."""
_DECAYING = {"adam": "adamw", "nadam": "nadamw"}


class Inferred(NamedTuple):
    """What a learner assumes, and what it is called.

    Attributes:
        learner: numbers, options and the verdict.
        rule: its name in optax's words, or ``None`` where it is not of the family.
        nearest: the name of what fits best.
        missing: what that rule would not explain, in words.
    """

    learner: Learner
    rule: str | None
    nearest: str | None
    missing: tuple[str, ...]

    def facts(self) -> tuple[Fact, ...]:
        """What is known, one by one."""
        learner = self.learner
        facts = [Fact("verdict", learner.verdict, _explained(learner))]
        if self.nearest is not None:
            sentence = "; ".join(self.missing) or "Nothing else is needed."
            facts.append(Fact("rule" if self.rule else "nearest rule", self.nearest, sentence))
        facts += [_fact(name, p) for name, p in learner.parameters.items()]
        for name, (chosen, *others) in learner.options.items():
            also = f"{', '.join(map(_said, others))} would do as well." if others else "Told."
            facts.append(Fact(name.replace("_", " "), _said(chosen), also))
        if learner.coordinates:
            some = ", ".join(learner.coordinates[:5]) + (", ..." if learner.coordinates[5:] else "")
            facts.append(Fact("where", counted(len(learner.coordinates), "coordinate"), some))
        if learner.steps:
            some = ", ".join(f"{a} to {b - 1}" for a, b in learner.steps)
            facts.append(Fact("when", counted(len(learner.steps), "window"), f"Steps {some}."))
        return (*facts, *(Fact("beware", "", x) for x in learner.statements))

    def __str__(self) -> str:
        """The facts as a table, at most 100 columns wide."""
        return table(self.facts())


def named(learner: Learner) -> Inferred:
    """Find the name of what was inferred.

    Args:
        learner: the result of `beliefnav.inference.learners.inferring.infer`.

    Returns:
        The learner with a name; without one where nothing is told.
    """
    if learner.verdict == UNTOLD and not learner.parameters:
        return Inferred(learner, None, None, ())
    nearest, missing = _sign(learner) if learner.options["sign"][0] else _smooth(learner)
    return Inferred(learner, None if learner.verdict == NONE else nearest, nearest, missing)


def _sign(learner: Learner) -> tuple[str, tuple[str, ...]]:
    remembers = learner.parameters["b2"].high > SMALL
    return "lion" if remembers else "sign_sgd", ()


def _smooth(learner: Learner) -> tuple[str, tuple[str, ...]]:
    told, options, missing = learner.parameters, learner.options, []
    averages = _there(told["b1"])
    ahead = averages and bool(options["look_ahead"][0])
    name = _KINDS[str(options["second_moment"][0])][averages + ahead]
    decays = "decay" in told and _there(told["decay"])
    if decays and options["decay_to"][0] == "start":
        missing.append("what decays goes to the start")
    elif decays and options["decay_in"][0] == "gradient":
        missing.append("what decays is a part of the gradient")
    elif decays and name in _DECAYING:
        name = _DECAYING[name]
    elif decays:
        missing.append("the parameters decay")
    power = told.get("power")
    if power is not None and not power.low - 0.01 <= POWER <= power.high + 0.01:
        missing.append(f"the power of the second moment is {number(power.median)}, not a half")
    if options["rate"][0] == "path":
        missing.append("the rate is a path")
    if options["clipped"][0]:
        missing.append("the norm of the whole gradient is clipped")
    return name, tuple(missing)


def _there(parameter: Parameter) -> bool:
    """Whether a number is told to be other than 0."""
    half = (parameter.high - parameter.low) / 2
    return parameter.curved and abs(parameter.median) > max(SMALL, half)


def _explained(learner: Learner) -> str:
    if np.isnan(learner.unexplained):
        return "Nothing is told."
    left = f"{learner.unexplained:.1e} of the movement is not explained"
    if np.isnan(learner.rounding):
        return f"{left}."
    return f"{left}; rounding of the parameters is {learner.rounding:.1e} of it."


def _fact(name: str, p: Parameter) -> Fact:
    values = (p.median, p.low, p.high)
    if not p.curved:
        return Fact(name.replace("_", " "), "not told", "These data do not tell it.")
    middle, low, high = (memory(x) if name in ("b1", "b2") and x < 1 else number(x) for x in values)
    return Fact(name.replace("_", " "), number(p.median), f"{middle}; 95 %: {low} to {high}.")


def _said(option: object) -> str:
    return ("yes" if option else "no") if isinstance(option, bool) else str(option)
