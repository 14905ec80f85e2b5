"""A rule is built from its assumptions, and they are printed in physical units."""

import dataclasses
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from beliefnav import beliefs, control, navigator, rules
from beliefnav.rules._rule import Assumptions, Fact

MEMORIES = {"gradient": "memory 10 steps", "gradient prior": "0 observations"}
ADAM = {
    **MEMORIES,
    "horizon": "unlimited",
    "hold": "replanned",
    "curvature": "memory 1,000 steps",
    "curvature prior": "0 observations",
}
DESCENT = {"horizon": "0 steps", "hold": "replanned", "gradient": "as seen", "curvature": "none"}
SIGN = DESCENT | {"horizon": "unlimited"}
NEWTON = {"horizon": "any", "hold": "to the end", "gradient": "as seen"}
SQUARE = {"curvature": "square of the mean"}
DIFFUSE = {"gradient prior": "0 observations"}
LAST = {"gradient": "memory 1 step"}
"""A discount of 0: the average of one step."""

# rule -> what its defaults assume, other than what all have at a learning rate of 0.1.
#
# A discount beta is a memory of 1/(1 - beta) steps, a discount gamma of the plan a horizon of
# 1/gamma units of time, of which a step takes the learning rate; an uncorrected average has a prior
# worth as many observations as its memory.
ASSUMED: dict[str, dict[str, str]] = {
    "adagrad": SIGN
    | {
        "curvature": "memory unlimited",
        "curvature prior": "1 observation",
        "curvature floor": "1e-07",
    },
    "adam": ADAM,
    "adam_toward_start": ADAM | {"drift": "0.001 a step"},
    "adamax": {k: v for k, v in ADAM.items() if k != "curvature prior"},
    "adamw": ADAM | {"drift": "1e-05 a step"},
    "ballistic": SIGN
    | {
        "curvature": "memory 1,000 steps",
        "curvature prior": "1,000 observations",
        "curvature floor": "1e-08",
    },
    "bayesian_learning_rule": NEWTON
    | {"curvature": "sensed; memory 10 readings", "curvature prior": "10 readings"},
    "countering": ADAM | {"drift": "decay 0.01 per unit of time"},
    "family": ADAM | {"curvature floor": "1e-16"},
    "full_ballistic": ADAM | LAST,
    "ivon": NEWTON
    | MEMORIES
    | {"curvature": "sensed; memory 100,000 readings", "curvature prior": "1"},
    "hazard_filter": {
        "learning rate": "1",
        "horizon": "any",
        "hold": "to the end",
        "task length": "10 steps",
        "optimum prior": "variance of the initial array",
        "curvature": "read",
    },
    "l2_init": DESCENT,
    "lion": SIGN
    | SQUARE
    | {
        "gradient": "memory 100 steps",
        "gradient prior": "100 observations",
        "drift": "0.0001 a step",
    },
    "momentum": DESCENT | MEMORIES,
    "muon": SIGN
    | {"curvature": "M M^T x I of the mean"}
    | {"gradient": "memory 20 steps"}
    | DIFFUSE,
    "nadam": ADAM,
    "nadamw": ADAM | {"drift": "1e-05 a step"},
    "natural_gradient": DESCENT | DIFFUSE | LAST | {"geometry": "given"},
    "newton": NEWTON | {"curvature": "sensed; memory 1 reading", "curvature prior": "0 readings"},
    "resetting": ADAM | {"horizon": "100 steps"},
    "rmsprop": SIGN
    | {
        "curvature": "memory 10 steps",
        "curvature prior": "10 observations",
        "curvature floor": "1e-08",
    },
    "secant": {
        "horizon": "100 steps",
        "hold": "replanned",
        "gradient": "drift 0.01 a step",
        "curvature": "memory 1,000 steps",
        "curvature prior": "variance 1",
        "noise": "memory 1,000 steps",
    },
    "sgd": DESCENT,
    "shampoo": ADAM
    | LAST
    | {"curvature": "memory unlimited", "curvature prior": "0.0001 times the identity"},
    "sign_sgd": SIGN | SQUARE,
    "signum": SIGN | SQUARE | MEMORIES,
    "sophia_like": {
        "horizon": "1 unit of time",
        "hold": "1 unit of time",
        "gradient": "memory 28.57 steps",
        "gradient prior": "0 observations",
        "curvature": "sensed; memory 100 readings",
        "curvature prior": "0 readings",
    },
    "von": NEWTON
    | {"curvature": "sensed; memory 1,000 readings", "curvature prior": "1,000 readings"},
    "wiener": {
        "horizon": "unlimited",
        "hold": "replanned",
        "gradient": "memory 10 steps",
        "curvature": "memory 1,000 steps",
        "prior": "0 observations",
    },
}
every_rule = pytest.mark.parametrize("name", ASSUMED)
UNSCHEDULED = {"bayesian_learning_rule", "hazard_filter"}


def arguments_of(name: str, rate: Any = 0.1) -> dict[str, Any]:
    """All arguments of a rule at their defaults."""
    needed: dict[str, Any] = {
        "natural_gradient": {"metric": lambda params: jnp.eye(8)},
        "hazard_filter": {"examples": 16},
    }.get(name, {})
    bound = inspect.signature(getattr(rules, name)).bind(rate, **needed)
    bound.apply_defaults()
    return bound.arguments


def values(assumptions: Assumptions) -> dict[str, str]:
    return {fact.subject: fact.value for fact in assumptions.facts() if fact.value}


def assert_is_table(text: str, facts: tuple[Fact, ...]) -> None:
    """Every fact is in it, in 100 columns."""
    assert max(len(line) for line in text.splitlines()) <= 100
    words = " ".join(text.split())
    for fact in facts:
        assert fact.subject in words
        for word in f"{fact.value} {fact.sentence}".split():
            assert word in words


def test_every_rule_is_here() -> None:
    assert set(ASSUMED) == set(rules.__all__) - {"two_hypothesis"}


@every_rule
def test_assumptions_build_the_rule(name: str) -> None:
    rule, arguments = getattr(rules, name), arguments_of(name)
    params = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}

    def program(optimizer: optax.GradientTransformationExtraArgs) -> str:
        def steps(gradient: Any, params: Any) -> Any:
            _, state = optimizer.update(gradient, optimizer.init(params), params)
            return optimizer.update(gradient, state, params)

        return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(steps)(params, params)))

    assumptions = rule.assumptions(**arguments)
    assert isinstance(assumptions, Assumptions)
    assert program(assumptions.optimizer()) == program(rule(**arguments))
    own, other = inspect.signature(rule), inspect.signature(rule.assumptions)
    assert own.parameters == other.parameters
    assert own.return_annotation is optax.GradientTransformationExtraArgs
    assert (rule.__name__, rule.__doc__) == (name, rule.assumptions.__doc__)


@every_rule
def test_assumptions_are_in_physical_units_in_a_table_of_100_columns(name: str) -> None:
    assumptions = getattr(rules, name).assumptions(**arguments_of(name))
    common = {"geometry": "identity", "drift": "none", "learning rate": "0.1"}
    assert values(assumptions) == common | ASSUMED[name]
    assert_is_table(str(assumptions), assumptions.facts())


@pytest.mark.parametrize("name", sorted(ASSUMED.keys() - UNSCHEDULED))
def test_schedules_are_named(name: str) -> None:
    arguments = arguments_of(name, optax.linear_schedule(0.1, 0.0, 10))
    if "weight_decay" in arguments and name != "countering":
        arguments["weight_decay"] = optax.linear_schedule(0.1, 0.0, 10)
    assumptions = getattr(rules, name).assumptions(**arguments)
    read = values(assumptions)
    assert read.pop("learning rate") == "a schedule"
    drift = read.pop("drift")
    assert drift == "none" if "drift" not in ASSUMED[name] else "per unit of" in drift
    known = {k: v for k, v in ASSUMED[name].items() if k != "drift"}
    if name in ("resetting", "secant"):  # how much time a step takes is not known
        known["horizon"] = "10 units of time"
    assert read == {"geometry": "identity"} | known
    assert_is_table(str(assumptions), assumptions.facts())


@every_rule
def test_numbers_that_are_traced_are_said_to_be(name: str) -> None:
    seen = []

    def look(factor: jax.Array) -> jax.Array:
        arguments = arguments_of(name)
        numbers = {k: factor * v for k, v in arguments.items() if type(v) in (int, float)}
        assumptions = getattr(rules, name).assumptions(**(arguments | numbers))
        assert_is_table(str(assumptions), assumptions.facts())
        seen.append(values(assumptions))
        return factor

    jax.eval_shape(look, jnp.ones(()))
    (read,) = seen
    assert read["learning rate"] == ASSUMED[name].get("learning rate", "traced")
    assert set(read) >= {"horizon", "hold", "geometry", "drift", *ASSUMED[name]}
    for subject, value in ASSUMED[name].items():
        if "memory" in value and name not in ("adagrad", "newton"):  # they are no arguments
            assert "traced" in read[subject], subject


@every_rule
def test_numbers_may_be_arrays(name: str) -> None:
    # As optax.inject_hyperparams gives them.
    arguments = arguments_of(name)
    arrays = {k: jnp.asarray(v) for k, v in arguments.items() if type(v) in (int, float)}
    assumptions = getattr(rules, name).assumptions(**(arguments | arrays))
    exact = getattr(rules, name).assumptions(**arguments)

    def numbers(value: str) -> tuple[list[float], str]:
        pattern = r"\d[\d,.]*(?:e-\d+)?"
        found = [float(n.replace(",", "")) for n in re.findall(pattern, value)]
        return found, re.sub(pattern, "#", value)

    for subject, value in values(exact).items():
        (got, words), (want, expected) = numbers(values(assumptions)[subject]), numbers(value)
        assert words == expected, subject
        # float32 holds 1 - 0.99999 to 3e-3 of itself.
        assert got == pytest.approx(want, rel=5e-3), subject


def test_numbers_that_are_given_are_those_that_are_read() -> None:
    read = values(rules.adamw.assumptions(0.5, b1=0.75, b2=0.5, weight_decay=0.1))
    assert read["gradient"] == "memory 4 steps"
    assert read["curvature"] == "memory 2 steps"
    assert read["drift"] == "0.05 a step"
    read = values(rules.sgd.assumptions(0.1, momentum=0.75))
    assert (read["gradient"], read["gradient prior"]) == ("memory 4 steps", "4 observations")
    assert read["learning rate"] == "0.4"  # of the average, not of the sum
    read = values(rules.adam.assumptions(0.1, b1=1.0, b2=0.0))
    assert (read["gradient"], read["curvature"]) == ("memory unlimited", "memory 1 step")
    # A plan that is held counts time in its own time steps, of which a step goes a share.
    read = values(rules.newton.assumptions(0.1, time_step=0.5, discount=0.2))
    assert (read["horizon"], read["hold"]) == ("10 units of time", "1 unit of time")
    read = values(rules.family.assumptions(0.1, discount=0.1, prior_weight=0.5))
    # A plan that is remade continuously goes on for the learning rate: 0.1 units of time a step.
    assert (read["horizon"], read["gradient prior"]) == ("100 steps", "5 observations")
    read = values(rules.resetting.assumptions(optax.constant_schedule(0.1), discount=0.5))
    assert read["horizon"] == "2 units of time"


def test_a_drift_is_told_by_its_half_life() -> None:
    text = " ".join(str(rules.adamw.assumptions(0.1, weight_decay=10 * (1 - 0.5**0.1))).split())
    assert "Weights decay to 0, by half in 10 steps" in text
    text = " ".join(
        str(rules.adam_toward_start.assumptions(0.1, decay=10 * (1 - 0.5**0.1))).split()
    )
    assert "Weights decay to their initial values, by half in 10 steps" in text
    assert values(rules.lion.assumptions(0.1, weight_decay=0.0))["drift"] == "none"


def test_own_beliefs_and_policies_are_named() -> None:
    class Mine:
        """What I believe.

        And why.
        """

        def filter(self) -> beliefs.Filter:
            return beliefs.LocalLevel(0.9).filter()

    policy = control.Policy(lambda posterior, params: posterior.gradient_mean)
    assumptions = Assumptions(0.1, Mine(), policy)
    text = str(assumptions)
    assert "Mine" in text and "What I believe." in text and "And why" not in text
    assert "Nobody said what this policy assumes." in text
    params = jnp.ones(2)
    ours, plain = assumptions.optimizer(), navigator(0.1, Mine(), policy)
    updates: Any = [o.update(params, o.init(params), params)[0] for o in (ours, plain)]
    assert jnp.array_equal(*updates)


def test_tasks_are_told_by_their_length_and_by_what_is_kept_of_them() -> None:
    model = beliefs.SwitchingOptimum(1.0, 1.0, 1.0, hazard=0.02)
    learned = dataclasses.replace(model, hazard=beliefs.HazardGrid.beta(1.0, 20.0))
    for belief, length, kept in (
        (beliefs.RunLengths(model, 64), "50 steps", "the 64 likeliest are kept"),
        (beliefs.TwoHypotheses(model), "50 steps", "One Gaussian"),
        (beliefs.RunLengthReset(learned), "learned", "One Gaussian"),
    ):
        facts = Assumptions(0.5, belief, control.resetting()).facts()
        found = {fact.subject: fact for fact in facts}
        assert found["task length"].value == length
        assert kept in found["task length"].sentence
        assert found["curvature"].value == "known"
        assert "as often as the belief says" in found["plan"].sentence
