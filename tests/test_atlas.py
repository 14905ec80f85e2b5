"""The atlas holds what it claims, and explains the calls of optax."""

import functools
import inspect
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import atlas, beliefs, control, explain, navigator, rules, wrappers
from beliefnav.atlas import __main__ as command
from beliefnav.atlas import forbidding
from beliefnav.atlas.measuring import assumptions_of, inside
from beliefnav.atlas.problems import network, quadratic
from beliefnav.atlas.table import (
    APPROXIMATE,
    COMPOSED,
    EXACT,
    FORMULA,
    LIMIT,
    NO_MODEL,
    SHIPPED,
    Row,
)
from beliefnav.beliefs.contract import as_belief
from beliefnav.rules._rule import Assumptions
from beliefnav.rules.catalogue import CATALOGUE

ROWS = atlas.rows()
HERE = Path(atlas.__file__).parent


@functools.cache
def page_of_all() -> str:
    """It asks every belief what it is, which takes seconds."""
    return command.markdown(ROWS)


def test_the_atlas_has_every_rule_that_follows_and_says_why_others_do_not() -> None:
    for name, entry in CATALOGUE.items():
        verdicts = {row.verdict for row in ROWS if row.rule == name}
        assert entry.claim in verdicts if entry.claim else not verdicts, name
    assert len(ROWS) >= 24
    assert {row.verdict for row in ROWS} == {EXACT, LIMIT, APPROXIMATE, NO_MODEL}
    assert all(row.reason for row in ROWS if row.verdict != EXACT)
    assert all((row.order is None) == (row.verdict != LIMIT) for row in ROWS)


def check(row: Row, num_steps: int) -> None:
    with jax.enable_x64(True):
        entry = atlas.measure(row, (quadratic(num_steps), network(num_steps)))
    assert entry.holds, entry
    assert entry.deviation <= row.bound
    if row.verdict == EXACT:
        assert row.bound <= (1e-8 if row.reason else 1e-11)


def test_a_claim_that_does_not_hold_is_not_printed_as_if_it_did() -> None:
    row = next(row for row in ROWS if row.rule == "sign_sgd")
    wrong = row._replace(ours=lambda _: rules.sign_sgd.assumptions(0.02))
    with jax.enable_x64(True):
        problems = quadratic(5), network(5)
        assert atlas.measure(row, problems).holds
        assert not atlas.measure(wrong, problems).holds


# The equalities with optax have tests of their own.
@pytest.mark.parametrize(
    "row",
    [r for r in ROWS if r.rule in ("countering", "ivon") or r.read is not None],
    ids=lambda r: r.compared_with,
)
def test_a_row_holds_its_claim_on_a_short_run(row: Row) -> None:
    check(row, 60)


def test_schedule_free_is_the_plain_average_as_its_interpolation_vanishes(x64: None) -> None:
    """As its row says: the deviation falls as b1."""
    row = next(row for row in ROWS if row.compared_with == "optax.contrib.schedule_free")

    def deviation(b1: float) -> float:
        peer: Any = optax.contrib.schedule_free(optax.sgd(0.05), 0.05, b1=b1)
        return atlas.measure(row._replace(peer=lambda _: peer), [quadratic(50)]).deviation

    # To first order in b1; in float64 rounding is divided by b1.
    np.testing.assert_allclose(deviation(1e-3) / deviation(1e-4), 10, rtol=1e-2)
    assert deviation(1e-4) < 1e-4


def test_the_readme_of_the_atlas_is_what_the_command_prints() -> None:
    """Where all claims hold, which the slow tests say: what is claimed needs no row to run."""
    assert (HERE / "README.md").read_text() == page_of_all() + "\n"


def test_a_claim_that_does_not_hold_is_marked() -> None:
    page = command.markdown(ROWS[:2], ROWS[1:2])
    assert "| exact (does not hold) |" in page and page.count("does not hold") == 1


def test_exact_rows_are_counted_by_who_wrote_what_they_are_compared_with() -> None:
    """Optimizers of optax run code of optax alone; those of optax that are whole have its name."""
    problem = quadratic(1)
    written: list[str] = []
    for row in ROWS:
        peer: Any = row.peer(problem)
        ours = peer.update.__module__.startswith("beliefnav")
        assert ours == (row.written_by == FORMULA), row
        if not ours:
            assert peer.update.__module__.startswith("optax."), row
            name = re.split(r"[( ,]", row.compared_with.removeprefix("optax."))[0]
            home: Any = functools.reduce(getattr, name.split("."), optax)
            made = inspect.unwrap(getattr(home, "func", home)).__module__
            whole = "alias" in made or ("contrib" in made and "scale_by" not in name)
            assert whole == (row.written_by == SHIPPED), row
        written += [row.written_by] * (row.verdict == EXACT)
    page = page_of_all()
    assert f"Of {len(ROWS)} rows, {len(written)} are exact" in page
    for who in (SHIPPED, COMPOSED, FORMULA):
        assert f"| {who} | {written.count(who)} |" in page and who in written


def test_exact_rows_say_how_many_numbers_their_peer_is_given() -> None:
    assert all((row.numbers is not None) == (row.verdict == EXACT) for row in ROWS)
    # optax.adam has a rate, b1, b2, eps and eps_root.
    assert next(row.numbers for row in ROWS if row.rule == "adam") == 5


# --- what exact does not say --------------------------------------------------------------------


class LargestMoment(beliefs.Belief):
    """Adam's mean, and the largest of its past second moments for a curvature: no model."""

    def filter(self) -> beliefs.Filter:
        inner = beliefs.independent(
            gradient=beliefs.shared(beliefs.LocalLevel(0.9)),
            curvature=beliefs.shared(beliefs.PrecisionWalk(0.999)),
        ).filter()

        def init(params: Any) -> Any:
            return Largest(inner.init(params), jax.tree.map(jnp.zeros_like, params))

        def update(predicted: Any, gradient: Any, curvature: Any = None) -> Any:
            state = inner.update(predicted.inner, gradient, curvature)
            seen = state.posterior().curvature_mean
            return Largest(state, jax.tree.map(jnp.maximum, predicted.largest, seen))

        def predict(state: Any, displacement: Any = None) -> Any:
            return Largest(inner.predict(state.inner, displacement), state.largest)

        return beliefs.Filter(init, predict, update)


class Largest(NamedTuple):
    inner: Any
    largest: Any

    def posterior(self) -> beliefs.Posterior:
        return self.inner.posterior()._replace(curvature_mean=self.largest)


def test_a_rule_without_a_model_is_equal_to_one_with_a_filter_as_well() -> None:
    """AMSGrad, to rounding: being equal to belief and policy does not make a rule derived."""
    assumed = rules.adam.assumptions(0.01)._replace(belief=LargestMoment())
    row = next(row for row in ROWS if row.rule == "amsgrad")
    with jax.enable_x64(True):
        found = atlas.measure(row._replace(ours=lambda _: assumed), [quadratic(60)])
    assert found.deviation < 1e-12
    assert forbidding.kind(assumed) == "a filter without a model"
    assert forbidding.forbids(assumed) == ()


def test_a_nonsense_rule_is_ballistic_on_a_curvature_read_off_the_mean() -> None:
    """Steps of the cube of the gradient: V = (m/u)^2 of any elementwise rule u(m)."""

    def step(posterior: beliefs.Posterior, params: Any) -> Any:
        mean = posterior.gradient_mean
        curvature = jax.tree.map(lambda m: (m / m**3) ** 2, mean)
        ballistic = control.ballistic().step
        return ballistic(posterior._replace(curvature_mean=curvature), params)

    belief = beliefs.OrnsteinUhlenbeck(0.0, 1.0, 0.0)
    optimizer = navigator(0.1, belief, control.Policy(step))
    gradient = jnp.array([0.5, -2.0])
    updates: Any = optimizer.update(gradient, optimizer.init(gradient), gradient)[0]
    np.testing.assert_allclose(updates, -0.1 * gradient**3, rtol=1e-5)


# --- what beliefs forbid ------------------------------------------------------------------------


def test_every_class_of_belief_is_in_the_atlas_and_none_claims_what_it_has_no_model_of() -> None:
    problem = quadratic(1)
    assumed = [(row.rule, inside(assumptions_of(row, problem))) for row in ROWS]
    kinds = {rule: forbidding.kind(one) for rule, one in assumed}
    assert set(kinds.values()) == set(forbidding.KINDS)
    assert kinds["sgd"] == forbidding.MODEL and kinds["adam"] == forbidding.APART
    assert kinds["shampoo"] == forbidding.FILTER and kinds["sign_sgd"] == forbidding.OFF_THE_MEAN
    parts = {
        forbidding.described(part): part
        for _, one in assumed
        for part in as_belief(one.belief).parts()
    }
    assert set(forbidding._CLAIMED) <= set(parts)
    assert all(parts[name].modelled() for name in forbidding._CLAIMED)


def check_forbidden(parts: set[str]) -> None:
    problem, left = quadratic(1), set(parts)
    for row in ROWS:
        for part in as_belief(inside(assumptions_of(row, problem)).belief).parts():
            name = forbidding.described(part)
            if name in left:
                left.remove(name)
                assert set(forbidding._CLAIMED[name]) <= set(forbidding.forbidden(part)), name
    assert not left


def test_a_level_is_contradicted_by_what_it_is_said_to_forbid() -> None:
    check_forbidden({"shared(LocalLevel) memory 10 steps"})


@pytest.mark.slow
def test_every_belief_is_contradicted_by_what_it_is_said_to_forbid() -> None:
    check_forbidden(set(forbidding._CLAIMED))


def test_verdicts_on_white_noise_are_rare_and_those_on_bursts_certain() -> None:
    """Of a belief that gradients are unrelated: chance is 1 in 50, of 200 streams 4 (sd 2)."""
    belief = beliefs.OrnsteinUhlenbeck(0.0, 1.0, 0.0)
    streams = forbidding.unrelated(jax.random.key(3))
    assert float(forbidding.rate(belief, streams)) <= (4 + 4 * 2) / 200
    assert float(forbidding.rate(belief, forbidding.bursts(jax.random.key(3)))) > 0.99


def test_a_drift_speaks_against_a_mean_at_rest_and_not_against_the_mean_that_so_moves() -> None:
    """Of the right belief chance is 1 in 50, of 200 streams 4 (sd 2)."""
    streams = forbidding.drifting(jax.random.key(3))
    moves, rests = beliefs.LocalLevel(0.9), beliefs.OrnsteinUhlenbeck(0.0, 1.0, 0.0)
    assert float(forbidding.rate(moves, streams)) <= (4 + 4 * 2) / 200
    assert float(forbidding.rate(rests, streams)) > 0.99
    problem = quadratic(1)
    said = {forbidding.forbids(inside(assumptions_of(row, problem))) for row in ROWS}
    assert len(said) >= 3  # two values alone would tell rules apart hardly at all


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.rule}, {r.compared_with}")
def test_every_row_holds_its_claim(row: Row) -> None:
    check(row, 500)


def test_the_command_prints_a_list_in_json_and_a_table_in_markdown(
    capsys: Any, tmp_path: Path
) -> None:
    command.main(["--rule", "sign_sgd", "--steps", "20", "--json"])
    (entry,) = json.loads(capsys.readouterr().out)
    assert {"rule", "compared_with", "deviation", "verdict", "assumptions"} <= entry.keys()
    assert (entry["rule"], entry["compared_with"]) == ("sign_sgd", "optax.sign_sgd")
    assert entry["verdict"] == "exact" and entry["deviation"] == 0.0
    command.main(["--rule", "sign_sgd", "--steps", "20", "--markdown"])
    printed = capsys.readouterr().out
    assert printed == command.markdown([row for row in ROWS if row.rule == "sign_sgd"]) + "\n"
    assert printed.splitlines()[-1] in (HERE / "README.md").read_text().splitlines()
    page = tmp_path / "folder" / "page.md"
    command.main(["--rule", "sign_sgd", "--steps", "20", "--markdown", "--out", str(page)])
    assert page.read_text() == printed and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1"),
        (["--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["--rule", "no such rule"], "no rule's name contains 'no such rule'"),
        (["--out", str(HERE)], "--out: cannot write .*: Is a directory"),
        (["--out", f"{HERE}/README.md/page.md"], "--out: cannot write .*: "),
    ],
)
def test_the_command_refuses_what_it_cannot_do(
    arguments: list[str], message: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    assert left.value.code == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


@pytest.mark.slow
def test_the_command_runs_as_a_module() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "beliefnav.atlas", "--rule", "sgd", "--steps", "5", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert len(json.loads(finished.stdout)) >= 2


def test_optax_calls_and_our_own_encode_the_same_assumptions() -> None:
    theirs = explain(optax.adamw, b1=0.9, b2=0.999, weight_decay=1e-2, learning_rate=1e-3)
    ours = explain(rules.adamw, b1=0.9, b2=0.999, weight_decay=1e-2, learning_rate=1e-3)
    assert str(theirs) == str(ours)
    facts = {fact.subject: fact.value for fact in theirs.facts()}
    assert facts["gradient"] == "memory 10 steps"
    assert facts["curvature"] == "memory 1,000 steps"
    assert facts["gradient prior"] == facts["curvature prior"] == "0 observations"
    assert facts["horizon"] == "unlimited"
    assert facts["drift"] == "1e-05 a step"
    assert math.isclose((1 - 1e-5) ** 69_314, 0.5, rel_tol=1e-5)
    assert "69,314 steps" in str(theirs).replace("\n", " ")


@pytest.mark.parametrize(
    ("optaxs", "ours", "arguments"),
    [
        (optax.sgd, rules.sgd, {"momentum": 0.9, "nesterov": True}),
        (optax.lion, rules.lion, {"b1": 0.95}),
        (optax.rmsprop, rules.rmsprop, {"decay": 0.95, "initial_scale": 0.5}),
        (optax.adagrad, rules.adagrad, {"eps": 1e-5}),
        (optax.nadam, rules.nadam, {"b1": 0.8}),
    ],
)
def test_what_is_explained_is_built_to_the_same_steps(
    optaxs: Any, ours: Any, arguments: dict[str, Any], x64: None
) -> None:
    built = explain(optaxs, 0.1, **arguments).optimizer()
    gradients = np.random.default_rng(0).normal(size=(5, 3))
    peers = [built, ours(0.1, **arguments), optaxs(0.1, **arguments)]

    def steps(gradients: Any) -> list[Any]:
        def run(optimizer: Any) -> Any:
            def step(state: Any, gradient: Any) -> Any:
                update, state = optimizer.update(gradient, state, gradients[0])
                return state, update

            return jax.lax.scan(step, optimizer.init(gradients[0]), gradients)[1]

        return [run(optimizer) for optimizer in peers]

    one, other, third = jax.jit(steps)(gradients)
    np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_allclose(one, third, rtol=1e-10)


def test_nesterov_of_adam_is_explained_as_nadam() -> None:
    assert str(explain(optax.adam, 0.1, nesterov=True)) == str(explain(rules.nadam, 0.1))


def test_nadam_without_nesterov_is_explained_as_adam() -> None:
    assert str(explain(optax.nadam, 0.1, nesterov=False)) == str(explain(rules.adam, 0.1))
    assert str(explain(optax.nadamw, 0.1, nesterov=True)) == str(explain(rules.nadamw, 0.1))
    assert str(explain(optax.sgd, 0.1, nesterov=True)) == str(explain(rules.sgd, 0.1))


def test_storage_is_no_assumption() -> None:
    assert str(explain(optax.adam, 0.1, mu_dtype="bfloat16")) == str(explain(rules.adam, 0.1))


@pytest.mark.parametrize(
    ("optimizer", "arguments", "message"),
    [
        (optax.amsgrad, {}, "Cannot explain amsgrad.*no model is known"),
        (optax.lamb, {}, "Cannot explain lamb.*no model of gradients is known"),
        (optax.rmsprop, {"centered": True}, r"rmsprop\(centered=True\) assumes is not known"),
        (optax.yogi, {}, "Nothing is known of what yogi assumes.*nadamw"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(
    optimizer: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        explain(optimizer, 0.1, **arguments)


# --- wrappers -----------------------------------------------------------------------------------

two_hypothesis = wrappers.two_hypothesis
WRAPPER = [
    ("task length", "1,000 steps"),
    ("evidence", "32 examples a batch"),
    ("task prior", "the initial parameters"),
]


def read(explained: Any) -> list[tuple[str, str]]:
    return [(fact.subject, fact.value) for fact in explained.facts()]


@pytest.mark.parametrize(
    ("inner", "arguments", "alone"),
    [
        (rules.adam, {"b1": 0.95}, explain(rules.adam, 1e-3, b1=0.95)),
        (optax.adam, {"nesterov": True}, explain(rules.nadam, 1e-3)),
    ],
    ids=["rules", "optax"],
)
def test_a_wrapper_tells_its_assumptions_and_then_those_of_what_it_wraps(
    inner: Any, arguments: dict[str, Any], alone: Any
) -> None:
    told = explain(two_hypothesis, inner, 1e-3, hazard=1e-3, examples=32, **arguments)
    assert read(told)[:3] == WRAPPER
    own = len(told.facts()) - len(alone.facts())
    assert told.facts()[own:] == alone.facts()
    assert max(len(line) for line in str(told).splitlines()) <= 100
    assert str(told).startswith("task length")


def test_a_wrapped_optimizer_that_was_built_is_not_read() -> None:
    told = explain(two_hypothesis, optax.adam(1e-3), hazard=1e-3, examples=32)
    assert read(told)[:3] == WRAPPER
    assert read(told)[-1] == ("inner optimizer", "built before")
    assert "cannot be read" in told.facts()[-1].sentence


@pytest.mark.parametrize("built", [False, True])
def test_what_is_explained_of_a_wrapper_is_built_to_the_same_steps(built: bool) -> None:
    inner = (optax.adam(0.1),) if built else (rules.adam, 0.1)
    told = explain(two_hypothesis, *inner, hazard=0.1, examples=2, prior_mean=jnp.ones(3))
    params = jnp.linspace(0, 1, 3)
    for optimizer in (told.optimizer(), explain(told).optimizer()):
        want = two_hypothesis(optax.adam(0.1), 0.1, 2, prior_mean=jnp.ones(3))
        results: list[Any] = [
            o.update(params, o.init(params), params, value=1.0, value_fn=lambda p: jnp.sum(p))[0]
            for o in (optimizer, want)
        ]
        # Our Adam corrects its bias by another order of roundings than optax's.
        np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_counting_is_passed_on_to_what_is_wrapped() -> None:
    told = explain(two_hypothesis, rules.adam, 0.1, hazard=0.1, examples=2)
    state = told.optimizer(count_missing=True).init(jnp.ones(3))
    assert optax.tree.get(state, "missing") == 0


def test_assumptions_are_returned_as_they_are() -> None:
    assumptions = Assumptions(0.1, rules.sgd.assumptions(0.1).belief, control.myopic())
    assert explain(assumptions) is assumptions
    told = explain(two_hypothesis, rules.resetting.assumptions(0.1), hazard=0.1, examples=2)
    assert explain(told) is told
    assert told.facts()[-len(explain(rules.resetting, 0.1).facts()) :] == (
        explain(rules.resetting, 0.1).facts()
    )
    with pytest.raises(TypeError, match="arguments to assumptions"):
        explain(assumptions, 0.1)


def test_what_a_wrapper_is_told_of_its_arguments() -> None:
    facts = {
        fact.subject: fact
        for fact in explain(
            two_hypothesis, optax.adam(0.1), hazard=0, examples=1, prior_mean=0.0, mask=True
        ).facts()
    }
    assert facts["task length"].value == "unlimited"
    assert facts["task prior"].value == "given" and "mask" in facts["task prior"].sentence


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((rules.adamw, 0.1), {"mask": None}, ValueError, "whose argument mask is.*both two_hyp"),
        ((rules.resetting, 0.1), {}, ValueError, "whose argument hazard is.*resetting have one"),
        ((rules.adam, 0.1), {"decay": 1}, TypeError, "adam.. got an unexpected.*decay"),
        ((optax.adam(0.1),), {"b1": 0.9}, TypeError, "Nobody takes b1.*by name"),
        ((optax.adam(0.1), 0.1), {}, TypeError, "Nobody takes 0.1.*hazard, examples"),
        ((rules.adam,), {}, TypeError, "learning_rate"),
        ((rules.adam, 0.1), {"hazard": 2.0}, ValueError, "two_hypothesis: hazard must be in"),
        ((rules.adam, -0.1), {}, ValueError, "adam: learning_rate must be"),
        ((optax.yogi, 0.1), {}, ValueError, "Nothing is known of what yogi"),
    ],
)
def test_what_cannot_be_told_around_a_wrapper_is_refused(
    args: Any, kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explain(two_hypothesis, *args, **({"hazard": 0.1, "examples": 2} | kwargs))


def test_a_wrapper_needs_its_own_arguments() -> None:
    with pytest.raises(TypeError, match="two_hypothesis_facts.*missing.*examples"):
        explain(two_hypothesis, rules.adam, 0.1, hazard=0.1)


def test_an_optimizer_that_was_built_is_not_explained() -> None:
    with pytest.raises(ValueError, match="was built before.*explain.optax.adam"):
        explain(optax.adam(0.1))
    with pytest.raises(ValueError, match="Nothing is known of what .*partial"):
        explain(functools.partial(rules.adam, b1=0.5), 0.1)
