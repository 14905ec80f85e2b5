"""What was inferred of a learner, as a table, and which rule of the catalogue it is."""

from typing import NamedTuple

from beliefnav._format import number
from beliefnav.inference.learners.inferring import NONE, UNTOLD, Learner, Parameter
from beliefnav.rules._rule import Fact, table

__all__ = ["Inferred", "named"]

_SUBJECTS = {
    "rate": ("learning rate", "It multiplies the mean of gradients, whose weights sum to one."),
    "b1": ("gradient", "The discount b1 of what is remembered of gradients."),
    "b2": ("second moment", "The discount b2 of what is remembered of it."),
    "power": ("power", "By this power of its second moment a gradient is divided; 0.5 is Adam's."),
    "eps": ("eps", "It bounds the step where second moments are small."),
    "decay": ("drift", "Weights decay by this share per unit of learning rate."),
    "clip": ("clipping", "A whole gradient of a larger norm is cut to this one."),
    "relative_noise": ("noise of execution", "A share of the step."),
    "absolute_noise": ("noise of execution", "In units of the parameters, whatever the step."),
}


class Inferred(NamedTuple):
    """What a recording says of a learner.

    Attributes:
        learner: numbers, options and verdict.
        rule: which rule of the catalogue it is, or ``None``.
        nearest: the rule that comes nearest.
        missing: what that one does not have.
    """

    learner: Learner
    rule: str | None
    nearest: str | None
    missing: tuple[str, ...]

    def facts(self) -> tuple[Fact, ...]:
        """What is told, one by one."""
        learner = self.learner
        facts = [Fact("verdict", learner.verdict, _judged(learner))]
        if self.rule:
            facts.append(Fact("rule", self.rule, "All that defines it lies in the intervals."))
        elif self.nearest:
            sentence = f"The nearest; it does not have {', '.join(self.missing)}."
            facts.append(Fact("rule", f"not {self.nearest}", sentence))
        for name, parameter in learner.parameters.items():
            subject, sentence = _SUBJECTS[name]
            facts.append(Fact(subject, _interval(parameter), sentence))
        for name, (best, *others) in learner.options.items():
            if others:
                rest = " or ".join(map(str, others))
                sentence = f"Not told by these data: {rest} fits as well."
                facts.append(Fact(name.replace("_", " "), str(best), sentence))
            elif best not in (False, "none", "constant"):
                facts.append(Fact(name.replace("_", " "), str(best), "Nothing else fits as well."))
        if learner.coordinates:
            shown = ", ".join(learner.coordinates[:5])
            more = ", ..." if len(learner.coordinates) > 5 else ""
            facts.append(
                Fact("coordinates", str(len(learner.coordinates)), f"Not explained: {shown}{more}.")
            )
        for first, last in learner.steps:
            facts.append(Fact("steps", f"{first} to {last - 1}", "Not explained."))
        return (*facts, *(Fact("recording", "", said) for said in learner.statements))

    def __str__(self) -> str:
        """The facts as a table, at most 100 columns wide."""
        return table(self.facts())


def _judged(learner: Learner) -> str:
    if learner.unexplained != learner.unexplained:
        return "Nothing was fitted."
    left = f"Of the movement {number(learner.unexplained)} is not explained"
    if learner.rounding != learner.rounding:
        return f"{left}; how much of it is rounding is not known."
    return f"{left}; rounding is {number(learner.rounding)} of it."


def _interval(parameter: Parameter) -> str:
    if not parameter.curved:
        return "not told by these data"
    low, high = parameter.low, parameter.high
    return f"{number(parameter.median)} ({number(low)} to {number(high)})"


def _is(parameter: Parameter | None, value: float) -> bool:
    """Whether a number is a defining value, up to its interval or a thousandth."""
    if parameter is None or not parameter.curved:
        return False
    inside = parameter.low <= value <= parameter.high
    return inside or abs(parameter.median - value) < 1e-3


def named(learner: Learner) -> Inferred:
    """The rule of the catalogue that a learner is, or the nearest and what that does not have.

    Args:
        learner: as `beliefnav.inference.learners.inferring.infer` returns it.

    Returns:
        The learner with its name.
    """
    if learner.verdict == UNTOLD or not learner.parameters:
        return Inferred(learner, None, None, ())
    numbers, missing = learner.parameters, list[str]()
    if learner.options["sign"][0]:
        sgd = numbers["b1"].low <= 0
        rule = "sign_sgd" if sgd else "signum" if True in learner.options["one_memory"] else "lion"
        decays = rule == "lion"
    else:
        rule, decays = _by_moments(learner, missing)
    decay = numbers.get("decay")
    # A decay of a thousandth per unit of rate is beside steps of order 1 what rounding is.
    decaying = decay and decay.curved and not decay.low <= 0 <= decay.high
    if decay and decaying and abs(decay.median) > 1e-3 and not decays:
        if rule in ("adam", "nadam") and "step" in learner.options["decay_in"]:
            rule = f"{rule}w"
        else:
            missing.append("decay of weights")
        if "zero" not in learner.options["decay_to"]:
            missing.append("decay to the start")
    if learner.verdict == NONE:
        missing.append("what is not explained")
    if missing:
        return Inferred(learner, None, rule, tuple(missing))
    return Inferred(learner, rule, rule, ())


def _by_moments(learner: Learner, missing: list[str]) -> tuple[str, bool]:
    """The name by averages and powers."""
    numbers, options = learner.parameters, learner.options
    second, ahead = options["second_moment"][0], options["look_ahead"][0]
    present = _is(numbers["b1"], 0.0)
    if second == "none":
        uncorrected = False in options["corrected"]
        rule = "sgd" if present or uncorrected or ahead else "momentum"
        return rule, False
    if not _is(numbers["power"], 0.5):
        missing.append(f"the power {number(numbers['power'].median)}")
    if second in ("sum", "centred"):
        if not present:
            missing.append("a memory of gradients")
        return ("adagrad" if second == "sum" else "rmsprop"), False
    if second == "largest":
        if ahead and not present:
            missing.append("looking ahead")
        return "adamax", False
    if present:
        return ("rmsprop" if False in options["corrected"] else "ballistic"), False
    if True not in options["corrected"]:
        missing.append("a prior that has weight")
    return ("nadam" if ahead else "adam"), False
