"""The catalogue has every rule once, and what it says of each is measured."""

import ast
import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.typing import ArrayLike

from beliefnav import rules
from beliefnav._checks import (
    FINITE,
    HALF_OPEN_UNIT,
    LEFT_OPEN_UNIT,
    NON_NEGATIVE,
    POSITIVE,
    UNIT_INTERVAL,
    Range,
)
from beliefnav.beliefs.contract import as_belief
from beliefnav.reading import navigation_states
from beliefnav.rules._rule import Assumptions, Rule, rule
from beliefnav.rules.catalogue import CATALOGUE, Entry, Peer

PyTree = Any
ROOT = Path(__file__).parents[2]
every_rule = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)


def test_every_rule_is_here_once() -> None:
    assert sorted(rules.__all__) == sorted(CATALOGUE)
    for name, entry in CATALOGUE.items():
        assert vars(rules)[name] is entry.rule
        assert isinstance(entry.rule, Rule) and inspect.isfunction(entry.rule)


def test_the_table_of_the_package_has_the_rules_in_order_with_their_memory() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", rules.__doc__ or "", re.MULTILINE)
    assert rows == [(name, str(entry.memory)) for name, entry in CATALOGUE.items()]


# --- what is measured ---------------------------------------------------------------------------

PARAMS = {"w": jnp.linspace(-1, 1, 15).reshape(5, 3), "b": jnp.linspace(0.5, 1, 7)}
SIZE = 22


def readings(entry: Entry, last: ArrayLike = 1.0) -> dict[str, PyTree]:
    """What the rule is to be given as a curvature; the last entry is a number."""
    if entry.reading is None:
        return {}
    diagonal = {"w": jnp.full((5, 3), 2.0).at[4, 2].set(last), "b": jnp.ones(7)}
    if entry.reading == "diagonal":
        return {"curvature": diagonal}
    root = jnp.asarray(np.random.default_rng(0).normal(size=(SIZE, SIZE))) / 8
    return {"curvature": jnp.eye(SIZE) + root @ root.T}


def reads(name: str) -> bool:
    """Whether a step of a rule may read a curvature."""
    entry = CATALOGUE[name]
    sensor: Any = {"curvature_noise_variance": 1.0} if name == "secant" else {}
    belief = entry.rule.assumptions(**entry.arguments, **sensor).belief
    return as_belief(belief).filter().uses_curvature


@pytest.mark.parametrize("name", [name for name in CATALOGUE if reads(name)])
def test_a_rule_that_takes_a_reading_says_what_becomes_of_it_in_parts(name: str) -> None:
    text = " ".join((CATALOGUE[name].rule.__doc__ or "").split())
    assert re.search(r"optax\.MultiSteps``[^.]* the last part", text)


@pytest.mark.usefixtures("dtype_promotion")
def test_of_a_batch_in_parts_the_last_reading_is_passed_on() -> None:
    optimizer: Any = optax.MultiSteps(rules.newton(diagonal=True), 2).gradient_transformation()
    params = jnp.zeros(2)
    state = optimizer.init(params)
    for gradient, curvature in ((1.0, 2.0), (3.0, 4.0)):
        ones = jnp.ones(2)
        updates, state = optimizer.update(
            gradient * ones, state, params, curvature=curvature * ones
        )
    np.testing.assert_allclose(updates, -(1 + 3) / 2 / 4)


def held(optimizer: optax.GradientTransformation) -> tuple[float, list[tuple[int, ...]]]:
    """Trees of the shape of the parameters in the state, and the shapes of the other arrays."""
    leaves = jax.tree.leaves(optimizer.init(PARAMS))
    shapes = [p.shape for p in jax.tree.leaves(PARAMS)]
    trees = sum(x.size for x in leaves if x.shape in shapes) / SIZE
    return trees, [x.shape for x in leaves if x.shape not in shapes]


@every_rule
def test_memory_is_in_trees_of_the_shape_of_the_parameters(entry: Entry) -> None:
    trees, rest = held(entry.rule(**entry.arguments))
    assert trees == entry.memory
    if entry.elementwise:
        assert all(shape == () for shape in rest)


@every_rule
def test_the_docstring_says_how_much_memory_and_shows_an_example(entry: Entry) -> None:
    text = entry.rule.__doc__ or ""
    found = re.findall(r"^Memory: (\d+) trees? of the parameters' size(.*)\.$", text, re.MULTILINE)
    ((trees, besides),) = found
    assert int(trees) == entry.memory
    _, rest = held(entry.rule(**entry.arguments))
    assert ("matri" in besides) == any(rest), besides
    example = text.partition("\nExample:\n")[2]
    assert f"rules.{entry.rule.__name__}" in example
    assert doctest.DocTestParser().get_examples(example)[-1].want


@pytest.mark.parametrize(
    ("name", "argument", "value", "said"),
    [
        ("sgd", "nesterov", True, "with"),
        ("secant", "noise_variance", 1.0, "with"),
        ("newton", "diagonal", True, "with"),
        ("muon", "nesterov", False, "without"),
    ],
)
def test_an_argument_that_changes_the_memory_is_named(
    name: str, argument: str, value: Any, said: str
) -> None:
    entry = CATALOGUE[name]
    momentum = {"momentum": 0.5} if name == "sgd" else {}
    trees, _ = held(entry.rule(**{**entry.arguments, **momentum, argument: value}))
    assert trees != entry.memory
    sentence = rf"^Memory: .*; {trees:.0f} trees? {said} a? ?``{argument}``\.$"
    assert re.search(sentence, entry.rule.__doc__ or "", re.MULTILINE)


@every_rule
def test_memory_is_held_in_float32_about_half_precision(entry: Entry) -> None:
    halves, seen = (
        jax.tree.map(lambda p: p.astype(jnp.bfloat16), x) for x in (PARAMS, readings(entry))
    )
    optimizer = entry.rule(**entry.arguments)
    before: Any = optimizer.init(halves)
    # Where no dtype is promoted silently, what is cast is cast on purpose.
    updates, after = jax.eval_shape(optimizer.update, halves, before, halves, **seen)
    for state in (before, after):
        (believing,) = navigation_states(state)
        beliefs = [x for x in jax.tree.leaves(believing.belief) if x.ndim]
        assert beliefs and all(x.dtype == jnp.float32 for x in beliefs)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(updates))


@every_rule
def test_an_elementwise_step_depends_on_its_own_entry_alone(entry: Entry) -> None:
    optimizer: Any = entry.rule(**entry.arguments)

    @jax.jit
    def steps(last: jax.Array) -> PyTree:
        gradient = {"w": jnp.ones((5, 3)).at[4, 2].set(last), "b": jnp.ones(7)}
        read = readings(entry, jnp.abs(last))
        params, updates, state = PARAMS, jnp.zeros(()), optimizer.init(PARAMS)
        for _ in range(6):  # so many until a distance that is learned is more than the guess
            updates, state = optimizer.update(gradient, state, params, **read)
            params = optax.apply_updates(params, updates)
        return updates

    one, other = steps(jnp.asarray(1.0)), steps(jnp.asarray(-3.0))
    assert one["w"][4, 2] != other["w"][4, 2]
    others = jax.tree.map(jnp.array_equal, one | {"w": one["w"][:4]}, other | {"w": other["w"][:4]})
    assert all(jax.tree.leaves(others)) == entry.elementwise


@every_rule
def test_a_rule_is_given_the_reading_that_it_needs(entry: Entry) -> None:
    optimizer: Any = entry.rule(**entry.arguments)
    given = readings(entry)
    doubled = jax.tree.map(lambda x: 2 * x, given)
    step = jax.jit(lambda given: optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, **given))
    one, other = (step(given)[0] for given in (given, doubled))
    same = jax.tree.map(jnp.array_equal, one, other)
    assert all(jax.tree.leaves(same)) == (entry.reading is None)


@pytest.mark.parametrize("name", [n for n, e in CATALOGUE.items() if isinstance(e.peer, str)])
def test_the_reason_for_no_peer_is_a_sentence(name: str) -> None:
    peer = CATALOGUE[name].peer
    assert isinstance(peer, str) and peer.endswith(".") and len(peer.split()) > 4


OF_OPTAX = [
    name
    for name, entry in CATALOGUE.items()
    if isinstance(entry.peer, Peer) and entry.peer.name == f"optax.{name}"
]


@pytest.mark.parametrize("name", OF_OPTAX)
def test_arguments_have_the_names_order_and_defaults_of_optax(name: str) -> None:
    peer: Any = CATALOGUE[name].peer
    ours = inspect.signature(CATALOGUE[name].rule).parameters
    optaxs = inspect.signature(peer.build).parameters
    assert {a: ours[a].default for a in ours} == {a: optaxs[a].default for a in ours}
    positional = [a for a in ours if ours[a].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == list(optaxs)[: len(positional)]


# --- ranges -------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
OUTSIDE = {
    POSITIVE: (0, -1e-9, INF, NAN),
    NON_NEGATIVE: (-1e-9, INF, NAN),
    FINITE: (INF, -INF, NAN),
    UNIT_INTERVAL: (-1e-9, 1 + 1e-9, NAN),
    HALF_OPEN_UNIT: (-1e-9, 1, NAN),
    LEFT_OPEN_UNIT: (0, 1 + 1e-9, NAN),
}
WRITTEN = {
    POSITIVE: "> 0",
    NON_NEGATIVE: r"\ge 0",
    UNIT_INTERVAL: "in [0, 1]",
    HALF_OPEN_UNIT: "in [0, 1)",
    LEFT_OPEN_UNIT: "in (0, 1]",
}


@pytest.mark.parametrize(
    ("name", "argument"), [(n, a) for n, e in CATALOGUE.items() for a in e.rule.ranges]
)
def test_a_number_out_of_its_range_is_named_by_the_rule(name: str, argument: str) -> None:
    entry = CATALOGUE[name]
    allowed = entry.rule.ranges[argument]
    for value in OUTSIDE[allowed]:
        message = rf"^{name}: {argument} must be {re.escape(allowed.description)}, got {value!r}\.$"
        for build in (entry.rule, entry.rule.assumptions):
            with pytest.raises(ValueError, match=message):
                build(**{**entry.arguments, argument: value})


@every_rule
def test_every_number_has_a_range_and_the_docstring_agrees(entry: Entry) -> None:
    parameters = inspect.signature(entry.rule).parameters
    numbers = {
        name
        for name, p in parameters.items()
        if isinstance(p.default, float) or "learning_rate" in name
    }
    assert numbers <= set(entry.rule.ranges)
    documented = dict(re.findall(r"^    (\w+): (.*)$", entry.rule.__doc__ or "", re.MULTILINE))
    for argument, allowed in entry.rule.ranges.items():
        said = [r.description for r, text in WRITTEN.items() if text in documented[argument]]
        assert said in ([], [allowed.description]), argument


@every_rule
def test_the_docstring_says_once_what_is_raised(entry: Entry) -> None:
    text = entry.rule.__doc__ or ""
    assert text == entry.rule.assumptions.__doc__
    assert text.count("Raises:\n    ValueError: a number is out of its range,") == 1
    headings = re.findall(r"^(Args|Returns|Raises|Reference|Example):$", text, re.MULTILINE)
    order = ["Args", "Returns", "Raises", "Reference", "Example"]
    assert headings == [heading for heading in order if heading in headings]


@pytest.mark.parametrize("initial_scale", [0.1, 1])
def test_a_prior_and_none_at_once_are_refused(initial_scale: float) -> None:
    with pytest.raises(ValueError, match="initial_scale with bias_correction"):
        rules.rmsprop(0.1, initial_scale=initial_scale, bias_correction=True)


# --- the decorator ------------------------------------------------------------------------------


def own(learning_rate: float, /, share: float = 0.5, *, name: str = "") -> Assumptions:
    """Descend a share."""
    del name
    return rules.sgd.assumptions(share * learning_rate)


@pytest.mark.parametrize("ranges", [{}, {"learning_rate": POSITIVE, "share": UNIT_INTERVAL}])
def test_a_rule_of_ones_own_is_its_function_and_what_it_builds(ranges: dict[str, Range]) -> None:
    made: Any = rule(**ranges)(own) if ranges else rule(own)
    assert isinstance(made, Rule)
    assert made.ranges == ranges
    assert made.assumptions(0.1).learning_rate == 0.05
    gradient = jnp.ones(2)
    optimizer, plain = made(0.1, name="half"), rules.sgd(0.05)
    updates: list[Any]
    updates = [o.update(gradient, o.init(gradient), gradient)[0] for o in (optimizer, plain)]
    assert jnp.array_equal(*updates)
    given, returned = inspect.signature(own), inspect.signature(made)
    assert returned.parameters == given.parameters
    assert returned.return_annotation is optax.GradientTransformationExtraArgs
    assert (made.__name__, made.__module__) == ("own", __name__)
    assert ("Raises:" in (made.__doc__ or "")) == bool(ranges)
    with pytest.raises(TypeError, match="positional argument"):
        made(0.1, 0.5, 1.1)


@pytest.mark.parametrize("call", [((-0.1,), {}), ((0.1, 2), {}), ((0.1,), {"share": 2})])
def test_ranges_are_checked_by_place_and_by_name(call: Any) -> None:
    args, kwargs = call
    with pytest.raises(ValueError, match="^own: (learning_rate|share) must be"):
        rule(learning_rate=POSITIVE, share=UNIT_INTERVAL)(own)(*args, **kwargs)


def test_without_docstrings_there_is_none_to_extend() -> None:
    def bare(share: float) -> Assumptions:
        return rules.sgd.assumptions(share)

    assert rule(share=POSITIVE)(bare).__doc__ is None


def test_a_range_of_no_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="range of rate in own.*it has learning_rate, share, name"):
        rule(rate=POSITIVE)(own)


def test_nothing_is_counted_unless_asked() -> None:
    gradient, assumptions = jnp.array([1.0, jnp.nan]), rules.adam.assumptions(0.1)
    for optimizer, missing in (
        (rules.adam(0.1), None),
        (assumptions.optimizer(), None),
        (assumptions.optimizer(count_missing=True), 1),
    ):
        _, state = optimizer.update(gradient, optimizer.init(gradient), gradient)
        assert optax.tree.get(state, "missing") == missing


# --- no other list ------------------------------------------------------------------------------

EXCEPTIONS = {
    ("experiments/classify/__init__.py", "LEARNING_RATES"): "numbers of the paper",
    ("experiments/classify/__init__.py", "CLAIMED"): "the rules that the paper is about",
    ("experiments/certainty/config.py", "RULES"): "those inside of averages",
    ("experiments/certainty/drawing.py", "COLOURS"): "of those",
    ("experiments/evidence/said.py", "RULES"): "those whose belief says something of gradients",
    ("experiments/tasks/config.py", "rule"): "those that run by default",
    ("experiments/tasks/rules.py", "RULES"): "what the bench knows, with rates",
    ("experiments/plasticity/methods.py", "METHODS"): "methods of an experiment, with settings",
    ("experiments/inverse/catalogue.py", "KINDS"): "optax's, with numbers in the family's words",
    ("tests/control/test_policy_contract.py", "POLICIES"): "policies, after which rules are named",
    ("tests/rules/test_assumptions.py", "NUMBERS"): "derived by hand",
    ("tests/rules/test_optax_contract.py", "CASES"): "measured: what is left of a loss",
    ("tests/rules/test_rules.py", "ROUNDING"): "measured: deviations in float32",
    ("tests/rules/test_traced_equations.py", "AT_MOST"): "measured: equations of a step",
    ("tests/navigation/test_contrib_cases.py", "KINDS"): "one of each kind, where all take minutes",
    ("tests/navigation/test_contrib_cases.py", ""): "those that take no schedule",
    ("tests/experiments/test_evidence.py", ""): "those that are looked at",
    ("tests/experiments/test_inverse.py", ""): "those that are written down",
    ("tests/inference/test_learners.py", "LEARNERS"): "recorded with known numbers",
    ("tests/hosts/test_flax.py", "GIVEN"): "policies, after which rules are named",
    ("tests/hosts/test_hosts.py", "SHAPES"): "one of each shape of state",
    ("tests/sharding/laws.py", "QUICK"): "one of each kind, where all take minutes",
    ("tests/test_readme.py", "named"): "those that the page names",
}


def named(node: ast.AST | None) -> str:
    """The rule that an element of a literal names, as a string or as ``rules.adam``."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "rules" else ""
    return ""


def lists(tree: ast.AST, target: str = "") -> Iterator[tuple[str, int]]:
    """Literals that name three rules or more: what each is assigned to, and its line."""
    node: Any
    for node in ast.iter_child_nodes(tree):
        assigned = target
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            assigned = ast.unparse(targets[0])
        elements: list[Any] = []
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            elements = node.elts
        elif isinstance(node, ast.Dict):
            elements = node.keys
        if len({named(element) for element in elements} & CATALOGUE.keys()) >= 3:
            yield assigned, node.lineno
        yield from lists(node, assigned)


def test_the_finder_of_lists_finds_them() -> None:
    found = "a = ['adam', 'sgd', 'lion']\nb: Any = {'x': {rules.adam: 1, 'von': 2, 'ivon': 3}}"
    assert list(lists(ast.parse(found))) == [("a", 1), ("b", 2)]
    assert not list(lists(ast.parse("a = ['adam', 'sgd', optax.lion]; b = {1: ('adam', 'sgd')}")))


def test_no_other_place_lists_rules() -> None:
    read = ("beliefnav", "experiments", "models", "tests")
    found = {
        (path.relative_to(ROOT).as_posix(), target)
        for folder in read
        for path in (ROOT / folder).rglob("*.py")
        for target, _ in lists(ast.parse(path.read_text()))
        if target != "__all__"
    }
    assert found == set(EXCEPTIONS)
