"""A rule is built from its assumptions, and they are printed in physical units."""

import dataclasses
import inspect
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from beliefnav import beliefs, control, navigator, rules
from beliefnav.rules._rule import Assumptions
from beliefnav.rules.catalogue import CATALOGUE

INF = math.inf
MEMORIES: dict[str, float] = {"gradient": 10, "gradient prior": 0}
ADAM = MEMORIES | {"horizon": INF, "curvature": 1000, "curvature prior": 0}
LAST = {"gradient": 1, "gradient prior": 0}
"""A discount of 0: the average of one step."""

# rule -> the numbers that its defaults assume, other than a learning rate of 0.1.
#
# A discount beta is a memory of 1/(1 - beta) steps, a discount gamma of the plan a horizon of
# 1/gamma units of time, of which a step takes the learning rate; an uncorrected average has a prior
# worth as many observations as its memory; a decay is that of a step or of a unit of time.
NUMBERS: dict[str, dict[str, float]] = {
    "sgd": {"horizon": 0},
    "momentum": MEMORIES | {"horizon": 0},
    "sign_sgd": {"horizon": INF},
    "signum": MEMORIES | {"horizon": INF},
    "lion": {"horizon": INF, "gradient": 100, "gradient prior": 100, "drift": 1e-4},
    "rmsprop": {"horizon": INF, "curvature": 10, "curvature prior": 10, "curvature floor": 1e-8},
    "ballistic": {
        "horizon": INF,
        "curvature": 1000,
        "curvature prior": 1000,
        "curvature floor": 1e-8,
    },
    "adagrad": {"horizon": INF, "curvature": INF, "curvature prior": 1, "curvature floor": 1e-7},
    "adam": ADAM,
    "adamw": ADAM | {"drift": 1e-5},
    "adamax": {k: v for k, v in ADAM.items() if k != "curvature prior"},
    "nadam": ADAM,
    "nadamw": ADAM | {"drift": 1e-5},
    "wiener": {"horizon": INF, "gradient": 10, "curvature": 1000, "prior": 0},
    "secant": {
        "horizon": 100,
        "gradient": 0.01,
        "curvature": 1000,
        "curvature prior": 1,
        "noise": 1000,
    },
    "l2_init": {"horizon": 0},
    "adam_toward_start": ADAM | {"drift": 1e-3},
    "resetting": ADAM | {"horizon": 100},
    "countering": ADAM | {"drift": 0.01},
    "natural_gradient": LAST | {"horizon": 0},
    "newton": {"curvature": 1, "curvature prior": 0},
    "sophia_like": {
        "horizon": 1,
        "hold": 1,
        "gradient": 28.57,
        "gradient prior": 0,
        "curvature": 100,
        "curvature prior": 0,
    },
    "full_ballistic": ADAM | LAST,
    "shampoo": ADAM | LAST | {"curvature": INF, "curvature prior": 1e-4},
    "muon": {"horizon": INF, "gradient": 20, "gradient prior": 0},
    "von": {"curvature": 1000, "curvature prior": 1000},
    "ivon": MEMORIES | {"curvature": 100_000, "curvature prior": 1},
    "bayesian_learning_rule": {"curvature": 10, "curvature prior": 10},
    "family": ADAM | {"curvature floor": 1e-16},
    "hazard_filter": {"task length": 10},
    "learning_rate_free": ADAM
    | {"optimum": 0.5, "optimum prior": 0, "distance": 0.1, "distance memory": 1999},
}
FREE = ("hazard_filter", "learning_rate_free")
"""Those without a learning rate."""
every_rule = pytest.mark.parametrize("name", NUMBERS)


def arguments_of(name: str, rate: Any = 0.1) -> dict[str, Any]:
    """All arguments of a rule at their defaults; those without one as in the catalogue."""
    signature, shown = inspect.signature(CATALOGUE[name].rule), CATALOGUE[name].arguments
    first, *others = signature.parameters.values()
    needed = {p.name: shown[p.name] for p in others if p.default is p.empty}
    bound = signature.bind(rate, **needed)
    bound.apply_defaults()
    return bound.arguments


def assumed(name: str, **others: Any) -> Assumptions:
    return CATALOGUE[name].rule.assumptions(**(arguments_of(name) | others))


def values(assumptions: Assumptions) -> dict[str, str]:
    return {fact.subject: fact.value for fact in assumptions.facts() if fact.value}


def numbers(assumptions: Assumptions) -> dict[str, float]:
    """The number of every fact that has one, but of the learning rate."""
    found = {}
    for subject, value in values(assumptions).items():
        number = re.search(r"unlimited|\d[\d,.]*(?:e-\d+)?", value)
        if number and subject != "learning rate":
            found[subject] = INF if number[0] == "unlimited" else float(number[0].replace(",", ""))
    return found


def assert_is_table(assumptions: Assumptions) -> None:
    """Every fact is in it, in 100 columns."""
    text = str(assumptions)
    assert max(len(line) for line in text.splitlines()) <= 100
    words = " ".join(text.split())
    for fact in assumptions.facts():
        assert fact.subject in words
        for word in f"{fact.value} {fact.sentence}".split():
            assert word in words


def test_every_rule_is_here() -> None:
    assert NUMBERS.keys() == CATALOGUE.keys()


def test_assumptions_build_the_rule() -> None:
    """A law about the decorator, so that one rule stands for all."""
    gradients = jnp.linspace(-1, 1, 12).reshape(3, 4)
    steps: list[Any] = []
    for optimizer in (rules.lion(0.1), rules.lion.assumptions(0.1).optimizer()):
        state = optimizer.init(gradients[0])
        for gradient in gradients:
            step, state = optimizer.update(gradient, state, gradients[0])
            steps.append(step)
    assert jnp.array_equal(jnp.stack(steps[:3]), jnp.stack(steps[3:]))
    own, other = inspect.signature(rules.lion), inspect.signature(rules.lion.assumptions)
    assert own.parameters == other.parameters
    assert own.return_annotation is optax.GradientTransformationExtraArgs
    assert other.return_annotation is Assumptions


@every_rule
def test_assumptions_are_in_physical_units_in_a_table_of_100_columns(name: str) -> None:
    assumptions = assumed(name)
    assert numbers(assumptions) == NUMBERS[name]
    assert_is_table(assumptions)


@pytest.mark.parametrize("name", sorted(NUMBERS.keys() - {"bayesian_learning_rule", *FREE}))
def test_schedules_are_named(name: str) -> None:
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    scheduled = {"learning_rate": schedule}
    if "weight_decay" in arguments_of(name) and name != "countering":
        scheduled["weight_decay"] = schedule
    assumptions = assumed(name, **scheduled)
    read = values(assumptions)
    assert read["learning rate"] == "a schedule"
    drift = read["drift"]
    assert drift == "none" if "drift" not in NUMBERS[name] else "per unit of" in drift
    known = NUMBERS[name] | ({"horizon": 10} if name in ("resetting", "secant") else {})
    if known != NUMBERS[name]:  # how much time a step takes is not known
        assert read["horizon"] == "10 units of time"
    got = numbers(assumptions)
    for found in (got, known):
        found.pop("drift", None)
    assert got == known
    assert_is_table(assumptions)


@every_rule
def test_numbers_that_are_traced_are_said_to_be(name: str) -> None:
    seen = []

    def look(factor: jax.Array) -> jax.Array:
        given = {k: factor * v for k, v in arguments_of(name).items() if type(v) in (int, float)}
        assumptions = assumed(name, **given)
        assert_is_table(assumptions)
        seen.append(values(assumptions))
        return factor

    jax.eval_shape(look, jnp.ones(()))
    (read,) = seen
    assert read["learning rate"] == ("1" if name in FREE else "traced")
    assert set(read) >= {"horizon", "hold", "geometry", "drift", *NUMBERS[name]}
    for subject, value in values(assumed(name)).items():
        if name in ("adagrad", "newton") or subject == "optimum":  # they are no arguments
            continue
        if "memory" in value:
            assert "traced" in read[subject], subject


@every_rule
def test_numbers_may_be_arrays(name: str) -> None:
    # As optax.inject_hyperparams gives them.
    given = arguments_of(name)
    arrays = {k: jnp.asarray(v) for k, v in given.items() if type(v) in (int, float)}
    # float32 holds 1 - 0.99999 to 3e-3 of itself.
    assert numbers(assumed(name, **arrays)) == pytest.approx(NUMBERS[name], rel=5e-3)


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
