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
_OF_SIGNS = {
    "rate": ("learning rate", "The size of every move."),
    "b1": ("look-ahead", "The weight b1 of the memory, beside the present gradient's, in a sign."),
    "b2": ("gradient", "The discount b2 of what is remembered of gradients."),
}
"""Of learners by signs, whose numbers are others of the same name."""
_OPTIONS: dict[str, tuple[str, dict[object, str]]] = {
    "sign": ("step", {True: "sign"}),
    "one_memory": ("memories", {True: "one", False: "two"}),
    "second_moment": (
        "second moment",
        {
            "none": "none",
            "average": "an average",
            "centred": "an average, less the mean squared",
            "sum": "a sum",
            "largest": "the largest",
        },
    ),
    "corrected": ("prior at 0", {True: "corrected for", False: "not corrected for"}),
    "look_ahead": ("look-ahead", {True: "one step", False: "none"}),
    "eps_at": (
        "eps stands",
        {"outside": "outside the root", "inside": "inside it", "horizon": "for a horizon"},
    ),
    "rate": ("learning rate", {"constant": "constant", "path": "varies"}),
    "decay_to": ("decay towards", {"zero": "0", "start": "the start"}),
    "decay_in": ("decay stands", {"step": "in the step", "gradient": "in the gradient"}),
    "clipped": ("clipping", {True: "by global norm", False: "none"}),
}
"""Option -> what it is called, and what its values are."""


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
        """What is told, one by one; last, what is wrong with the recording."""
        learner = self.learner
        facts = [Fact("verdict", learner.verdict, _judged(learner)), *self._named()]
        told = [name for name, parameter in learner.parameters.items() if parameter.curved]
        subjects = _SUBJECTS | (_OF_SIGNS if True in learner.options.get("sign", ()) else {})
        if learner.parameters and not told:
            facts.append(Fact("numbers", "not told", "No numbers follow from these data."))
        for name, parameter in learner.parameters.items() if told else ():
            subject, sentence = subjects[name]
            if name == "rate" and learner.options["rate"][0] == "path":
                sentence = f"Its mean; from {_ends(learner)}. {sentence}"
            facts.append(Fact(subject, _interval(parameter), sentence))
        facts += _chosen(learner) if told else []
        if learner.coordinates:
            shown = ", ".join(learner.coordinates[:5])
            more = ", ..." if len(learner.coordinates) > 5 else ""
            sentence = f"Not explained: {shown}{more}."
            facts.append(Fact("coordinates", str(len(learner.coordinates)), sentence))
        for first, last in _joined(learner.steps):
            facts.append(Fact("steps", f"{first} to {last - 1}", "Not explained."))
        return (*facts, *(Fact("recording", "", said) for said in learner.statements))

    def _named(self) -> tuple[Fact, ...]:
        if self.rule:
            return (Fact("rule", self.rule, "All that defines it lies in the intervals."),)
        if self.nearest:
            return (
                Fact("rule", "none", f"Nearest: {self.nearest}, without {_all(self.missing)}."),
            )
        return ()

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


def _all(parts: tuple[str, ...]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]][len(parts) == 1 :])


def _ends(learner: Learner) -> str:
    return f"{number(learner.rates[0])} to {number(learner.rates[-1])}"


def _joined(steps: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Windows, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for first, last in steps:
        if joined and joined[-1][1] == first:
            first, _ = joined.pop()
        joined.append((first, last))
    return joined


def _interval(parameter: Parameter) -> str:
    """Median and ends, in as many digits as the interval leaves."""
    if not parameter.curved:
        return "not told by these data"
    median, low, high = parameter[:3]
    told = [number(x) for x in (median, low, high)]
    if told[1] != told[2]:
        return f"{told[0]} ({told[1]} to {told[2]})"
    half = max(high - median, median - low)
    return f"{told[0]} within {half:.0e}"


def _chosen(learner: Learner) -> list[Fact]:
    """Options that say something, and what else fits as well."""
    options, numbers, facts = learner.options, learner.parameters, list[Fact]()
    silent = set[str]()
    if "none" in options.get("second_moment", ()):
        silent |= {"eps_at", "second_moment"}
        if _is(numbers["b1"], 0.0):
            silent |= {"corrected", "look_ahead"}  # they are about a memory that is not there
    if "decay" not in numbers or _is(numbers["decay"], 0.0):
        silent |= {"decay_to", "decay_in"}
    if "eps" in numbers and not numbers["eps"].curved:
        silent |= {"eps_at"}
    if "clip" in numbers and numbers["clip"].curved:
        silent |= {"clipped"}
    for name, (best, *others) in options.items():
        subject, words = _OPTIONS[name]
        if name in silent or best not in words:
            continue
        if others:
            rest = " or ".join(f"{words[x]}" for x in others if x in words)
            sentence = f"Not told by these data: {rest or 'the opposite'} fits as well."
            facts.append(Fact(subject, words[best], sentence))
        elif best not in (False, "none", "constant"):
            facts.append(Fact(subject, words[best], "Nothing else fits as well."))
    return facts


def _is(parameter: Parameter, value: float) -> bool:
    """Whether a number is a defining value: in its interval, three times widened.

    Up to a millionth, which is what a learner in float32 can tell.
    """
    median, low, high, curved = parameter
    below, above = median - 3 * (median - low), median + 3 * (high - median)
    return curved and below - 1e-6 <= value <= above + 1e-6


def _about(parameter: Parameter, value: float) -> bool:
    """Whether it is, or, where it is not told, comes near."""
    return _is(parameter, value) or not parameter.curved and abs(parameter.median - value) < 0.1


def named(learner: Learner) -> Inferred:
    """The rule of the catalogue that a learner is, or the nearest and what that does not have.

    Args:
        learner: as `beliefnav.inference.learners.inferring.infer` returns it.

    Returns:
        The learner with its name.
    """
    if learner.verdict == UNTOLD or not learner.parameters:
        return Inferred(learner, None, None, ())
    missing = list[str]()
    by_sign = learner.options["sign"][0]
    rule = (_by_signs if by_sign else _by_moments)(learner, missing)
    if learner.verdict == NONE:
        missing.append(_left(learner))
    return Inferred(learner, None if missing else rule, rule, tuple(missing))


def _left(learner: Learner) -> str:
    """What is not explained, as a part of the movement."""
    if learner.coordinates and len(learner.coordinates) <= 3:
        return f"what {_all(learner.coordinates)} do" + "es" * (len(learner.coordinates) == 1)
    if learner.steps and not learner.coordinates:
        places = [f"{first} to {last - 1}" for first, last in _joined(learner.steps)]
        return f"what happens in steps {_all(tuple(places))}"
    return f"{number(100 * learner.unexplained)} % of the movement"


def _by_signs(learner: Learner, missing: list[str]) -> str:
    """The name of a learner by signs."""
    numbers = learner.parameters
    if numbers["b1"].low <= 0:
        rule = "sign_sgd"
    elif True in learner.options["one_memory"] and _is(numbers["decay"], 0.0):
        rule = "signum"
    else:
        return "lion"
    if not _is(numbers["decay"], 0.0):
        missing.append("decay of weights")
    return rule


def _by_moments(learner: Learner, missing: list[str]) -> str:
    """The name by averages, powers and decay."""
    numbers, options = learner.parameters, learner.options
    rule = _without_decay(learner, missing)
    decay = numbers.get("decay")
    if decay is None or not decay.curved or _is(decay, 0.0):
        return rule
    if "zero" not in options["decay_to"]:
        missing.append("decay to the start")
    elif rule in ("adam", "nadam") and "step" in options["decay_in"]:
        return f"{rule}w"
    else:
        missing.append("decay of weights")
    return rule


def _without_decay(learner: Learner, missing: list[str]) -> str:
    numbers, options = learner.parameters, learner.options
    second, ahead = options["second_moment"][0], options["look_ahead"][0]
    immediate = _about(numbers["b1"], 0.0)
    if second == "none":
        if immediate or False in options["corrected"]:
            return "sgd"
        if ahead:
            missing.append("looking ahead")
        return "momentum"
    if not _about(numbers["power"], 0.5):
        missing.append(f"the power {number(numbers['power'].median)}")
    if second in ("sum", "centred"):
        if not immediate:
            missing.append("a memory of gradients")
        return "adagrad" if second == "sum" else "rmsprop"
    if second == "largest":
        if ahead and not immediate:
            missing.append("looking ahead")
        return "adamax"
    if immediate:
        return "rmsprop" if False in options["corrected"] else "ballistic"
    if True not in options["corrected"]:
        missing.append("a prior that has weight")
    return "nadam" if ahead else "adam"
