"""Every named rule converges, and keeps the contract of an optimizer of optax."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from beliefnav import sensors
from beliefnav.rules.catalogue import CATALOGUE, Entry

# The code of optax, which rules are compared with and wrapped in, promotes dtypes.
pytestmark = pytest.mark.usefixtures("dtype_promotion")
PyTree = Any


# --- convergence --------------------------------------------------------------------------------


class Case(NamedTuple):
    """How a rule converges here.

    Attributes:
        rate: its learning rate, or what it has first instead.
        left: share of the loss of Rosenbrock's valley that may be left, 2 to 5 times what is.
        left_elsewhere: the same of a parabola and of a matrix problem.
        arguments: other arguments.
        steps: number of steps.
        why: the reason of what is not as for the others.
    """

    rate: float
    left: float
    left_elsewhere: float = 1e-6
    arguments: Mapping[str, Any] = {}
    steps: int = 2000
    why: str = ""


def metric(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: 1 + x**2 / 10, params)


BIAS = "rests between the optimum and the start, or 0, by design: a weak pull is little bias"
FIXED = "a rate below 2 over the largest curvature, 1,000, hardly moves along the valley's floor"
STALLED = "the square of a gradient without noise is no curvature, and what is seen adds up"
DIAGONAL = "the diagonal of the Hessian does not see that the valley is bent"

# All rules but two are given a schedule that falls to 0: signs and polar factors do not shrink with
# the gradient, so that such rules come no nearer to the optimum than their learning rate is.
CASES: dict[str, Case] = {
    "adagrad": Case(0.5, 1e-2),
    "adam": Case(0.1, 1e-6),
    "adam_toward_start": Case(0.1, 1e-6, arguments={"decay": 1e-4}, why=BIAS),
    "adamax": Case(0.1, 3e-2),
    "adamw": Case(0.1, 1e-6),
    "ballistic": Case(0.03, 1e-2),
    "bayesian_learning_rule": Case(0.1, 1e-6, why="its rate is also the precision's"),
    "countering": Case(0.1, 1e-6, arguments={"weight_decay": 1e-4}, why=BIAS),
    "family": Case(0.1, 1e-6, arguments={"discount": 0.5}),
    "full_ballistic": Case(0.03, 1e-2, 1e-5),
    "hazard_filter": Case(1e-4, 5e-2, 1e-2, {"prior_variance": 1.0, "examples": 1}, why=STALLED),
    "ivon": Case(0.3, 5e-2, arguments={"b2": 0.9}, why=DIAGONAL),
    "l2_init": Case(1e-3, 2e-2, 1e-2, {"strength": 1e-4}, steps=4000, why=f"{FIXED}; {BIAS}"),
    "learning_rate_free": Case(1e-4, 5e-2, 1e-2),
    "lion": Case(0.01, 1e-6),
    "momentum": Case(1e-3, 2e-2, 1e-2, steps=4000, why=FIXED),
    "muon": Case(0.01, 1e-6),
    "nadam": Case(0.1, 1e-6),
    "nadamw": Case(0.1, 1e-6),
    "natural_gradient": Case(1e-3, 2e-2, 1e-2, {"metric": metric}, steps=4000, why=FIXED),
    "newton": Case(0.3, 1e-6, steps=200),
    "newton, held": Case(0.1, 1e-6, 1e-6, {"time_step": 1.0}, steps=500),
    "resetting": Case(0.1, 1e-6, arguments={"hazard": 1e-5}, why=BIAS),
    "rmsprop": Case(0.03, 1e-4),
    "secant": Case(0.1, 1e-2),
    "sgd": Case(1e-3, 2e-2, 1e-2, steps=4000, why=FIXED),
    "shampoo": Case(0.3, 2e-2, 1e-4),
    "sign_sgd": Case(3e-3, 5e-3),
    "signum": Case(3e-3, 1e-6),
    "sophia_like": Case(0.3, 5e-2, why=DIAGONAL),
    "von": Case(0.3, 5e-2, arguments={"b2": 0.9}, why=DIAGONAL),
    "wiener": Case(0.1, 2e-2, 1e-3, why="what has no noise is taken for noise at first"),
}


def test_every_rule_converges_here() -> None:
    assert {name.split(",")[0] for name in CASES} == CATALOGUE.keys()


def scheduled(entry: Entry) -> bool:
    """Whether the rate of the rule may be a schedule."""
    rate = inspect.signature(entry.rule).parameters.get("learning_rate")
    return rate is not None and rate.annotation == optax.ScalarOrSchedule


MATRIX = np.random.default_rng(0).normal(size=(5, 3)) + 2 * np.eye(5, 3)  # singular values 0.8-4.1
SOLUTION = np.random.default_rng(1).normal(size=(3, 2))


def losses(params: PyTree) -> PyTree:
    x, (u, v), m = params["vector"][:3], params["vector"][3:], params["matrix"]
    a = jnp.asarray(MATRIX, m.dtype)
    return {
        "parabola": jnp.sum(jnp.asarray([1.0, 3.0, 10.0]) * (x - 1) ** 2) / 2,
        "rosenbrock": (1 - u) ** 2 + 100 * (v - u**2) ** 2,
        "matrix": jnp.sum((a @ m - a @ jnp.asarray(SOLUTION, m.dtype)) ** 2) / 2,
    }


def total(params: PyTree) -> Any:
    return sum(losses(params).values())


def sensed(entry: Entry, params: PyTree) -> PyTree:
    """What a sensor reads at ``params``, exactly."""
    if entry.reading is None:
        return {}
    hessian = sensors.hessian(total, params)
    if entry.reading == "matrix":
        return {"curvature": hessian}
    return {"curvature": ravel_pytree(params)[1](jnp.diag(hessian))}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_converges_on_a_parabola_in_rosenbrocks_valley_and_on_a_matrix(name: str) -> None:
    case, entry = CASES[name], CATALOGUE[name.split(",")[0]]
    falling: Any = optax.cosine_decay_schedule(case.rate, case.steps)
    rate = falling if scheduled(entry) else case.rate
    optimizer = entry.rule(rate, **case.arguments)

    def step(carry: PyTree, _: None) -> tuple[PyTree, None]:
        params, state = carry
        gradient = jax.grad(total)(params)
        readings = sensed(entry, params)
        updates, state = optimizer.update(gradient, state, params, **readings)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params: PyTree) -> PyTree:
        start = params, optimizer.init(params)
        return losses(jax.lax.scan(step, start, None, case.steps)[0][0])

    start = {"vector": jnp.asarray([0, 0, 0, -1.2, 1]), "matrix": jnp.zeros((3, 2))}
    left = jax.tree.map(lambda after, before: float(after / before), train(start), losses(start))
    assert left["rosenbrock"] <= case.left, left
    assert max(left["parabola"], left["matrix"]) <= case.left_elsewhere, left


# --- the contract -------------------------------------------------------------------------------

STEPS = 3
SIZE = 8


def tree(seed: int) -> PyTree:
    """A tree of two dtypes with an empty place; multiples of 1/4, exact also in bfloat16."""
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.asarray(rng.integers(1, 9, shape) * rng.choice([-1, 1], shape) / 4, dtype)

    return {"b": draw((2,), jnp.bfloat16), "none": None, "w": draw((3, 2), jnp.float32)}


PATH = [tree(10 + t) for t in range(STEPS)]
GRADIENTS = [tree(20 + t) for t in range(STEPS)]
PATH_OF_HALVES = [params for params in PATH for _ in range(2)]
HALVES = [
    jax.tree.map(lambda g, d: g + sign * d, gradient, tree(30 + t))  # noqa: B023
    for t, gradient in enumerate(GRADIENTS)
    for sign in (1, -1)
]
halving: Any = optax.piecewise_constant_schedule(1.0, {1: 0.5, 2: 0.5})


def given(entry: Entry, masked: bool = False) -> dict[str, PyTree]:
    """The extra arguments that the rule needs: a reading of a positive curvature."""
    if entry.reading is None:
        return {}
    if entry.reading == "matrix":
        root = np.random.default_rng(0).normal(size=(SIZE, SIZE)) / 4
        return {"curvature": jnp.asarray(np.eye(SIZE) + root @ root.T, jnp.float32)}
    diagonal = jax.tree.map(lambda x: 1 + jnp.abs(x), tree(1))
    return {"curvature": diagonal | ({"outside": optax.MaskedNode()} if masked else {})}


def stacked(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def signature(state: PyTree) -> PyTree:
    """Shape, dtype and weak type of every leaf: what jit keys its cache on."""
    return jax.tree.map(lambda x: jax.typeof(x).str_short() + str(x.weak_type), state)


def assert_close(actual: PyTree, expected: PyTree, rtol: float) -> None:
    """Equal relative to the largest entry of a leaf, or to one rounding of bfloat16."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)

    def leaf(a: Any, b: Any) -> None:
        assert a.dtype == b.dtype
        allowed = max(rtol, 2**-7 if a.dtype == jnp.bfloat16 else 0)
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        assert np.all(np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed * np.abs(b).max())

    jax.tree.map(leaf, actual, expected)


def kind(entry: Entry) -> tuple[Any, str]:
    """Structure of the belief and name of the plan."""
    built = entry.rule.assumptions(**entry.arguments)
    state: Any = jax.eval_shape(built.optimizer().init, PATH[0])
    return jax.tree.structure(state[0]), built.policy.step.__qualname__


def demonstrations() -> Iterator[Any]:
    """All rules; where the belief and the plan were those of one before, slow."""
    seen = set()
    held = CATALOGUE["newton"]._replace(arguments={"learning_rate": 0.1, "time_step": 1.0})
    for name, entry in {**CATALOGUE, "newton, held": held}.items():
        alike = kind(entry) in seen
        seen.add(kind(entry))
        yield pytest.param(entry, id=name, marks=[pytest.mark.slow] if alike else [])


def steps_of(entry: Entry, folder: Path) -> list[PyTree]:
    """The updates on `GRADIENTS` along `PATH`, one jitted call each, by a rate that halves twice.

    On the way: dtypes and the signature of the state stay, so that it is compiled once; unknown
    arguments are accepted; abstract parameters tell the state; and what was saved goes on bitwise.
    """
    arguments = dict(entry.arguments)
    if scheduled(entry):
        arguments["learning_rate"] = lambda count: entry.arguments["learning_rate"] * halving(count)
    optimizer = entry.rule(**arguments)
    update: Any = jax.jit(
        functools.partial(optimizer.update, **given(entry), value=1.0, anything=tree(2))
    )
    state, updates = optimizer.init(PATH[0]), []
    before = signature(state)
    for params, gradient in zip(PATH, GRADIENTS, strict=True):
        _save(folder, state)
        step, state = update(gradient, state, params)
        assert signature(state) == before
        assert signature(step) == signature(params)
        updates.append(step)
    abstract = jax.eval_shape(optimizer.init, PATH[0])
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), PATH[0])
    for described in (abstract, optimizer.init(shapes)):
        assert jax.tree.structure(described) == jax.tree.structure(state)
        for told, x in zip(jax.tree.leaves(described), jax.tree.leaves(state), strict=True):
            assert (told.shape, told.dtype) == (x.shape, x.dtype)
    again, resumed = update(GRADIENTS[-1], _load(folder, abstract), PATH[-1])
    jax.tree.map(np.testing.assert_array_equal, (again, resumed), (updates[-1], state))
    assert update._cache_size() == 1
    return updates


def _save(folder: Path, state: PyTree) -> None:
    np.savez(folder / "state.npz", *map(np.asarray, jax.tree.leaves(state)))


def _load(folder: Path, abstract: PyTree) -> PyTree:
    """The saved state; numpy keeps the bits of bfloat16, but not its name."""
    leaves, treedef = jax.tree.flatten(abstract)
    with np.load(folder / "state.npz") as saved:
        arrays = [saved[key].view(x.dtype) for key, x in zip(saved.files, leaves, strict=True)]
    return treedef.unflatten([jnp.asarray(x) for x in arrays])


def check_composition(entry: Entry, expected: list[PyTree]) -> None:
    """Injected, batched, accumulated, masked and scanned, at a constant rate, it takes these steps.

    All its numbers are injected, and there is a batch of two of them. Two half-batches are one step
    on their mean; in between ``optax.MultiSteps`` skips the rule with ``lax.cond``. What is masked
    out passes through, and an empty place stays empty.
    """
    bound = inspect.signature(entry.rule).bind(**entry.arguments)
    bound.apply_defaults()
    numbers = {k: v for k, v in bound.arguments.items() if type(v) in (int, float)}
    others = {k: v for k, v in bound.arguments.items() if k not in numbers}
    assert {"learning_rate", "hazard", "guess"} & set(numbers)
    # optax takes every callable for a schedule, unless it is told otherwise.
    static = tuple(k for k, v in others.items() if callable(v))
    mask = {"b": True, "none": None, "w": True, "outside": False}
    outside, readings = {"outside": jnp.full((3, 2), 0.25)}, given(entry, masked=True)

    @jax.jit
    @jax.vmap
    def train(factor: jax.Array) -> PyTree:
        injected = optax.inject_hyperparams(entry.rule, static_args=static)
        inner = injected(**{k: factor * v for k, v in numbers.items()}, **others)
        optimizer = optax.MultiSteps(optax.masked(inner, mask), every_k_schedule=2)

        def step(state: Any, inputs: PyTree) -> tuple[Any, PyTree]:
            half, params = inputs
            updates, state = optimizer.update(half | outside, state, params | outside, **readings)
            # An injected rate is an array in float32, which optax makes of a bfloat16 beside it.
            return state, jax.tree.map(lambda u, p: u.astype(p.dtype), updates, params | outside)

        start: Any = optimizer.init(PATH[0] | outside)
        return jax.lax.scan(step, start, (stacked(HALVES), stacked(PATH_OF_HALVES)))[1]

    both = train(jnp.asarray([1.0, 0.9]))
    assert any(np.any(u[0] != u[1]) for u in jax.tree.leaves(both))
    updates = jax.tree.map(lambda u: u[0], both)
    passed = np.asarray(updates.pop("outside"))
    np.testing.assert_array_equal(passed[1::2], np.full_like(passed[1::2], 0.25))
    for u in (passed, *jax.tree.leaves(updates)):
        np.testing.assert_array_equal(u[::2], np.zeros_like(u[::2]))
    for t, want in enumerate(expected):
        rate = float(halving(t)) if scheduled(entry) else 1.0
        one = jax.tree.map(lambda u, r=rate, t=t: u[2 * t + 1] * r, updates)
        # In float32 1 - 0.999 is known to 3e-5 of itself.
        assert_close(one, want, 2e-4)


@pytest.mark.parametrize("entry", [*demonstrations()])
def test_it_keeps_the_contract_of_optax(entry: Entry, tmp_path: Path) -> None:
    """One test for all laws that are about the same steps: a rule compiles for a second."""
    check_composition(entry, steps_of(entry, tmp_path))
