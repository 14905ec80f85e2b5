"""The atlas holds what it claims, and explains the calls of optax."""

import json
import math
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import optax
import pytest

from beliefnav import atlas, explain, rules
from beliefnav.atlas import __main__ as command
from beliefnav.atlas.problems import network, quadratic
from beliefnav.atlas.table import APPROXIMATE, EXACT, LIMIT, NOT_DERIVABLE, Row

ROWS = atlas.rows()


def test_the_atlas_has_every_rule_that_follows_and_says_why_others_do_not() -> None:
    names = {row.rule.split(",")[0].split(" with")[0] for row in ROWS}
    # sgd has rows of its own for its momenta; wiener, secant and family recover no other rule, and
    # two_hypothesis wraps one.
    missing = set(rules.__all__) - names - {"wiener", "secant", "family", "two_hypothesis"}
    assert not missing
    assert len(ROWS) >= 24
    assert {row.verdict for row in ROWS} == {EXACT, LIMIT, APPROXIMATE, NOT_DERIVABLE}
    assert all(row.reason for row in ROWS if row.verdict != EXACT)
    assert all((row.order is None) == (row.verdict != LIMIT) for row in ROWS)


def check(row: Row, num_steps: int) -> None:
    with jax.enable_x64(True):
        entry = atlas.measure(row, (quadratic(num_steps), network(num_steps)))
    assert entry.holds, entry
    if row.verdict == EXACT:
        assert entry.deviation < 1e-10


def test_a_claim_that_does_not_hold_is_not_printed_as_if_it_did() -> None:
    row = next(row for row in ROWS if row.rule == "sign_sgd")
    wrong = row._replace(ours=lambda _: rules.sign_sgd.assumptions(0.02))
    with jax.enable_x64(True):
        problems = quadratic(5), network(5)
        assert atlas.measure(row, problems).holds
        assert not atlas.measure(wrong, problems).holds


# One of each kind here; the equalities with optax have tests of their own.
SOME = ("lion", "countering", "ivon")


@pytest.mark.parametrize("row", [r for r in ROWS if r.rule in SOME], ids=lambda r: r.compared_with)
def test_a_row_holds_its_claim_on_a_short_run(row: Row) -> None:
    check(row, 60)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.rule}, {r.compared_with}")
def test_every_row_holds_its_claim(row: Row) -> None:
    check(row, 500)


def test_the_command_prints_a_list_in_json_and_a_table_in_markdown(capsys: Any) -> None:
    command.main(["--rule", "sign_sgd", "--steps", "20", "--json"])
    (entry,) = json.loads(capsys.readouterr().out)
    assert {"rule", "compared_with", "deviation", "verdict", "assumptions"} <= entry.keys()
    assert entry["rule"], entry["compared_with"] == ("sign_sgd", "optax.sign_sgd")
    assert entry["verdict"] == "exact" and entry["deviation"] == 0.0
    command.main(["--rule", "sign_sgd", "--steps", "20", "--markdown"])
    head, line, row = capsys.readouterr().out.strip().splitlines()
    assert head.count("|") == line.count("|") == row.count("|") == 6


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--rule", "no such rule"]])
def test_the_command_refuses_what_it_cannot_do(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)


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
        (optax.amsgrad, {}, "amsgrad does not follow.*posterior means"),
        (optax.lamb, {}, "lamb does not follow.*no quadratic cost"),
        (optax.rmsprop, {"centered": True}, r"rmsprop\(centered=True\) assumes is not known"),
        (optax.yogi, {}, "Nothing is known of what yogi assumes.*nadamw"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(
    optimizer: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        explain(optimizer, 0.1, **arguments)
