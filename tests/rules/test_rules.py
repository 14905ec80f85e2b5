"""The named rules are those of optax, in float64 to its last digits and in float32 to rounding."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import posterior, rules
from beliefnav.rules.catalogue import CATALOGUE, Peer

# The code of optax, which rules are compared with and wrapped in, promotes dtypes.
pytestmark = pytest.mark.usefixtures("dtype_promotion")
PyTree = Any
Optimizer = optax.GradientTransformation

schedule = optax.piecewise_constant_schedule(0.25, {300: 0.5, 600: 0.25})
decay_mask = [True, False, True]


def matrices(params: Any) -> Any:
    return [leaf.ndim > 1 for leaf in params]


# The largest deviation of a step in float32, relative to the scale of a step, of every rule that
# optax has.
#
# The sources of the deviations in float32, all measured on these streams with a margin of two:
# both sides hold 1 - b2 in float32, whose rounding error relative to 1 - b2 is 3e-8 / (1 - b2).
# optax corrects the bias by 1 - b2**t and we by a running sample size, so for adam they keep it
# (1e-5 of a step at b2 = 0.999, 1e-4 at 0.9999); uncorrected averages have it on both sides alike,
# and deviate by what 1/(1 - b2) roundings of a running mean amount to.
# A sign is wrong altogether or not at all.
ROUNDING = {
    "sgd": 0.0,
    "momentum": 5e-6,
    "sign_sgd": 0.0,
    "signum": 0.0,
    "lion": 0.0,
    "rmsprop": 2e-6,
    "ballistic": 8e-6,
    "adagrad": 2e-6,
    "adam": 2e-5,
    "adamw": 2e-5,
    "adamax": 2e-5,
    "nadam": 2e-5,
    "nadamw": 2e-5,
}
# Other arguments, and their deviation where it is another one.
VARIANTS: list[tuple[str, dict[str, Any], float]] = [
    ("sgd", {"learning_rate": schedule}, 0.0),
    ("sgd", {"momentum": 0.9}, 2e-6),
    ("sgd", {"learning_rate": schedule, "momentum": 0.75}, 2e-6),
    ("sgd", {"momentum": 0.9, "nesterov": True}, 2e-6),
    ("momentum", {"decay": 0.95}, 5e-6),
    ("lion", {"b1": 0.95, "b2": 0.8, "weight_decay": 0.1, "mask": decay_mask}, 0.0),
    ("ballistic", {"b2": 0.95, "eps": 1e-2}, 2e-6),
    ("rmsprop", {"decay": 0.95, "eps": 1e-3, "eps_in_sqrt": False}, 2e-6),
    ("rmsprop", {"decay": 0.99, "initial_scale": 0.5}, 6e-6),
    ("rmsprop", {"decay": 0.99, "bias_correction": True}, 6e-6),
    ("adagrad", {"initial_accumulator_value": 0.0, "eps": 1e-3}, 2e-6),
    ("adam", {"eps_root": 1e-2}, 2e-5),
    ("adam", {"b1": 0.99, "b2": 0.9999, "eps": 1e-4}, 2e-4),
    ("adam", {"learning_rate": schedule}, 2e-5),
    ("adamw", {"weight_decay": 0.1, "mask": decay_mask}, 2e-5),
    ("adamw", {"weight_decay": 0.1, "mask": matrices}, 2e-5),
    ("adamw", {"weight_decay": schedule}, 2e-5),
    ("nadamw", {"b1": 0.8, "b2": 0.99, "weight_decay": 0.1, "mask": matrices}, 2e-5),
]
# name -> (ours, optax's, the deviation)
SAME: dict[str, tuple[Callable[[], Optimizer], Callable[[], Optimizer], float]] = {
    "family at discount 0": (
        lambda: rules.family(0.1, eps_root=1e-4),
        lambda: optax.adam(0.1, eps=0.0, eps_root=1e-4),
        2e-5,
    ),
    "family at b1 0 with its prior": (
        lambda: rules.family(0.1, 0.0, 0.9, 1e-8, prior_weight=1.0),
        lambda: optax.rmsprop(0.1, 0.9, 1e-8),
        2e-6,
    ),
}
for name, given, rtol in [*((n, {}, r) for n, r in ROUNDING.items()), *VARIANTS]:
    entry: Any = CATALOGUE[name]
    arguments = {"learning_rate": 0.1} | given
    case = ", ".join([name, *given])
    SAME[case if case not in SAME else f"{case} by a function"] = (
        functools.partial(entry.rule, **arguments),
        functools.partial(entry.peer.build, **arguments),
        rtol,
    )


def test_every_rule_that_optax_has_is_here() -> None:
    assert set(ROUNDING) == {n for n, e in CATALOGUE.items() if isinstance(e.peer, Peer)}


def stream(seed: int, dtype: Any, steps: int = 1000) -> PyTree:
    """Gradients [step, ...] whose noise spans several orders of magnitude, around a mean."""
    rng = np.random.default_rng(seed)

    def leaf(*shape: int) -> jax.Array:
        scale, mean = np.exp(2 * rng.normal(size=shape)), rng.normal(size=shape)
        return jnp.asarray(scale * rng.normal(size=(steps, *shape)) + mean, dtype)

    return [leaf(20), leaf(6, 5)]


def updates_on(optimizer: Optimizer, gradients: PyTree) -> PyTree:
    """Updates [step, ...], at parameters that stay, so that deviations do not add up."""
    params = jax.tree.map(lambda y: jnp.ones(y.shape[1:], y.dtype), gradients)
    extended = optax.with_extra_args_support(optimizer)

    def step(state: PyTree, gradient: PyTree) -> tuple[PyTree, PyTree]:
        updates, state = extended.update(gradient, state, params)
        return state, updates

    return jax.jit(lambda g: jax.lax.scan(step, extended.init(params), g)[1])(gradients)


def assert_equal_rules(one: PyTree, other: PyTree, rtol: float) -> None:
    """Equal relative to the typical step of the entry: a step itself may pass through 0."""
    for a, b in zip(one, other, strict=True):
        scale = np.sqrt(np.mean(np.square(b), 0))
        assert np.max(np.abs(a - b) / np.maximum(np.abs(b), scale)) <= rtol


def both_on(one: Optimizer, other: Optimizer, gradients: PyTree) -> tuple[PyTree, PyTree]:
    """Updates of two optimizers at parameters that stay, and the paths of some that move.

    Those that move descend a noisy quadratic, each by the updates that it got.
    """
    last = gradients[-1]
    curvature = jnp.asarray(np.geomspace(0.1, 3, last[0].size).reshape(last.shape[1:]), last.dtype)
    optimizers = [optax.with_extra_args_support(x) for x in (one, other)]
    stay = jax.tree.map(lambda y: jnp.ones(y.shape[1:], y.dtype), gradients)

    def step(carry: PyTree, given: PyTree) -> tuple[PyTree, PyTree]:
        after, seen = [], []
        for optimizer, (state, moving) in zip(optimizers, carry, strict=True):
            gradient = [*given, curvature * moving + given[-1] / 10]
            updates: Any
            updates, state = optimizer.update(gradient, state, [*stay, moving])
            after.append((state, moving + updates[-1]))
            seen.append((updates[:-1], moving))
        return after, seen

    start = [(optimizer.init([*stay, stay[-1]]), stay[-1]) for optimizer in optimizers]
    return jax.jit(lambda s, g: jax.lax.scan(step, s, g)[1])(start, gradients)


def assert_same_rule(
    one: Optimizer,
    other: Optimizer,
    gradients: PyTree,
    rtol: float,
    drift: float,
    after: int = 500,
) -> None:
    """Every step equal to ``rtol``, and parameters after 500 steps to ``drift``."""
    (updates, path), (expected, reference) = both_on(one, other, gradients)
    assert_equal_rules(updates, expected, rtol)
    apart = np.linalg.norm(path[after] - reference[after]) / np.linalg.norm(reference[after])
    assert apart < drift


@pytest.mark.parametrize(
    "name",
    # Variants in float64 are slow tests; all are compared in float32.
    [pytest.param(n, marks=[pytest.mark.slow] if "," in n else []) for n in SAME],
)
def test_rule_equals_that_of_optax_in_float64(name: str, x64: None) -> None:
    ours, optaxs, _ = SAME[name]
    assert_same_rule(ours(), optaxs(), stream(0, jnp.float64), 1e-10, 1e-10)


@pytest.mark.parametrize("name", SAME)
def test_rule_equals_that_of_optax_in_float32_up_to_rounding(name: str) -> None:
    ours, optaxs, rtol = SAME[name]
    assert_same_rule(ours(), optaxs(), stream(1, jnp.float32), rtol, max(1e-4, rtol))


@pytest.mark.parametrize(("beta", "nesterov"), [(0.95, True), (0.8, False)])
def test_muon_is_that_of_optax_once_its_iteration_converges(
    beta: float, nesterov: bool, x64: None
) -> None:
    dimensions = optax.contrib.MuonDimensionNumbers()
    scale = optax.contrib.scale_by_muon(
        ns_coeffs=(1.875, -1.25, 0.375),
        ns_steps=20,
        beta=beta,
        nesterov=nesterov,
        weight_dimension_numbers=lambda params: jax.tree.map(lambda _: dimensions, params),
    )
    optaxs = optax.chain(scale, optax.scale_by_learning_rate(0.1))
    gradients = stream(0, jnp.float64, steps=300)[1:]
    # A polar factor at a constant rate is chaotic, whoever computes it: paths part by a factor of
    # 10 every 30 steps, measured, so that after 500 nothing is left of their rounding.
    ours = rules.muon(0.1, beta, nesterov=nesterov)
    assert_same_rule(ours, optaxs, gradients, 1e-10, 1e-10, after=100)


def test_ballistic_is_its_equation(x64: None) -> None:
    gradient = np.asarray(stream(2, jnp.float64)[0])
    s, steps = np.zeros(gradient.shape[1]), []
    for y in gradient:
        s = 0.98 * s + 0.02 * y**2
        steps.append(-0.1 * y / np.sqrt(s + 1e-3))
    ours = updates_on(rules.ballistic(0.1, b2=0.98, eps=1e-3), [jnp.asarray(gradient)])
    # A running mean and a running sum: the same up to rounding.
    np.testing.assert_allclose(ours[0], np.array(steps), rtol=1e-11)


@pytest.mark.parametrize("decay", [0.05, schedule])
def test_adam_toward_start_is_adam_and_a_pull(decay: optax.ScalarOrSchedule, x64: None) -> None:
    gradient = np.asarray(stream(7, jnp.float64, steps=400)[0])
    optimizer = rules.adam_toward_start(0.1, decay=decay)

    def step(carry: PyTree, y: jax.Array) -> tuple[PyTree, jax.Array]:
        x, state = carry
        update, state = optimizer.update(y, state, x)
        return (x + update, state), x

    start = jnp.linspace(-2, 2, gradient.shape[1])
    path = jax.lax.scan(step, (start, optimizer.init(start)), jnp.asarray(gradient))[1]
    x, m, v = np.array(start), *np.zeros((2, gradient.shape[1]))
    for t, y in enumerate(gradient):
        np.testing.assert_allclose(path[t], x, rtol=1e-10, atol=1e-12)
        m, v = 0.9 * m + 0.1 * y, 0.999 * v + 0.001 * y**2
        direction = m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        pull = np.asarray(decay(t) if callable(decay) else decay)
        x = x - 0.1 * (direction + pull * (x - np.asarray(start)))


def test_adam_at_the_ends_of_its_range(x64: None) -> None:
    # b = 0: sign descent. b = 1: nothing is forgotten, plain means (optax divides by 0 there).
    gradients = [jnp.asarray(np.random.default_rng(3).normal(size=(50, 4)))]
    signs = updates_on(rules.adam(0.1, b1=0.0, b2=0.0, eps=0.0), gradients)[0]
    # m + (y - m) is y up to a rounding of m, which may be much larger.
    np.testing.assert_allclose(signs, -0.1 * np.sign(gradients[0]), rtol=1e-12)
    means = updates_on(rules.adam(0.1, b1=1.0, b2=1.0, eps=0.0), gradients)[0]
    count = np.arange(1, 51)[:, None]
    mean = np.cumsum(gradients[0], 0) / count
    square = np.cumsum(np.square(gradients[0]), 0) / count
    np.testing.assert_allclose(means, -0.1 * mean / np.sqrt(square), rtol=1e-11, atol=1e-15)


@pytest.fixture(scope="module")
def digits() -> tuple[jax.Array, jax.Array]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)


def train_on(digits: tuple[jax.Array, jax.Array], optimizer: Optimizer) -> tuple[PyTree, jax.Array]:
    """An MLP of 64-32-10 after 300 steps on batches of 64, and its last losses."""
    images, labels = digits
    rng = np.random.default_rng(0)
    batches = jnp.asarray(rng.integers(len(labels), size=(300, 64)))
    sizes = (64, 32, 10)
    params = [
        {"w": jnp.asarray(rng.normal(size=(n, m)) / np.sqrt(n), jnp.float32), "b": jnp.zeros(m)}
        for n, m in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    extended = optax.with_extra_args_support(optimizer)

    def loss(params: PyTree, batch: jax.Array) -> jax.Array:
        first, second = params
        hidden = jnp.tanh(images[batch] @ first["w"] + first["b"][None])
        logits = hidden @ second["w"] + second["b"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

    def step(carry: PyTree, batch: jax.Array) -> tuple[PyTree, jax.Array]:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = extended.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.jit(lambda p: jax.lax.scan(step, (p, extended.init(p)), batches))(
        params
    )
    return params, losses[-30:]


@pytest.mark.parametrize(
    ("name", "arguments", "atol"),
    [
        ("sgd", {"learning_rate": 0.1}, 1e-6),
        pytest.param("rmsprop", {"learning_rate": 1e-3}, 1e-4, marks=pytest.mark.slow),
        ("adam", {"learning_rate": 1e-3}, 1e-4),
        ("adamw", {"learning_rate": 1e-3, "weight_decay": 0.1}, 1e-4),
    ],
)
def test_rule_trains_a_network_to_the_same_parameters(
    digits: tuple[jax.Array, jax.Array], name: str, arguments: dict[str, Any], atol: float
) -> None:
    entry: Any = CATALOGUE[name]
    ours, optaxs = entry.rule(**arguments), entry.peer.build(**arguments)
    # 300 steps of 1e-3 with a relative deviation of 1e-5 each (see ROUNDING) are 3e-6 if they all
    # went one way; the network feeds differences back, so allow 1e-4, a tenth of one step.
    trained, losses = train_on(digits, ours)
    expected, expected_losses = train_on(digits, optaxs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), trained, expected
    )
    np.testing.assert_allclose(losses, expected_losses, atol=1e-3)
    assert np.mean(losses) < 0.8  # it was trained at all: untrained it is log(10) = 2.3


def test_injected_numbers_are_those_of_optax(x64: None) -> None:
    gradients = stream(4, jnp.float64)
    hyperparameters = {"learning_rate": 0.2, "b1": 0.8, "b2": 0.97, "eps": 1e-6}
    ours = optax.inject_hyperparams(rules.adam)(**hyperparameters)
    optaxs = optax.inject_hyperparams(optax.adam)(**hyperparameters)
    assert_equal_rules(updates_on(ours, gradients), updates_on(optaxs, gradients), 1e-10)


def test_injected_schedules_are_followed(x64: None) -> None:
    # A discount that changes weights every observation by the discounts it went through since.
    # The schedules' values are exact in float32, in which optax computes them.
    b2s: Any = optax.piecewise_constant_schedule(0.5, {100: 1.5, 300: 1.25})
    rates: Any = optax.piecewise_constant_schedule(0.5, {200: 0.5})
    gradient = np.asarray(stream(5, jnp.float64)[0])
    optimizer = optax.inject_hyperparams(rules.adam)(rates, b2=b2s)
    ours = updates_on(optimizer, [jnp.asarray(gradient)])[0]
    weight_1 = weight_2 = 0.0
    sum_1, sum_2 = np.zeros((2, gradient.shape[1]))
    for t, y in enumerate(gradient):
        b2 = 0.5 if t < 100 else 0.75 if t < 300 else 0.9375
        assert b2 == float(b2s(t))
        weight_1, sum_1 = 0.9 * weight_1 + 1, 0.9 * sum_1 + y
        weight_2, sum_2 = b2 * weight_2 + 1, b2 * sum_2 + y**2
        step = -float(rates(t)) * (sum_1 / weight_1) / (np.sqrt(sum_2 / weight_2) + 1e-8)
        np.testing.assert_allclose(ours[t], step, rtol=1e-9, atol=1e-13)


def test_what_adam_believes_is_what_it_steps_on(x64: None) -> None:
    optimizer = rules.adam(0.1, eps=1e-3)
    params = jnp.zeros(5)
    update = jax.jit(optimizer.update)
    state = optimizer.init(params)
    for gradient in stream(6, jnp.float64, steps=3)[0][:, :5]:
        updates, state = update(gradient, state, params)
        belief = posterior(state)
        step = -0.1 * belief.gradient_mean / (jnp.sqrt(belief.curvature_mean) + 1e-3)
        np.testing.assert_allclose(updates, step, rtol=1e-13)
