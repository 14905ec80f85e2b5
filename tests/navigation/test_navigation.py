"""A belief and a policy make an optimizer that composes like any other of optax."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import Objective, beliefs, control, navigator, posterior, recording, rules
from beliefnav.drift import Decay
from beliefnav.navigation import scale_by_navigation
from tests.navigation.test_displacement import Odometer

PyTree = Any

local_level = beliefs.LocalLevel(0.9, noise_variance=2.0)
two_beliefs = beliefs.independent(
    gradient=beliefs.OrnsteinUhlenbeck(0.9, 0.1, 1.0), curvature=beliefs.PrecisionWalk(0.99)
)
plan = control.horizon(Objective(rate=0.1, discount=0.5))
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: rules.adam(0.1),
    "adam, counting": lambda: rules.adam.assumptions(0.1).optimizer(count_missing=True),
    "wiener": lambda: rules.wiener(0.1),
    "local level, myopic": lambda: navigator(0.1, local_level, control.myopic()),
    "two beliefs, horizon": lambda: navigator(1.0, two_beliefs, plan),
    "two beliefs, newton": lambda: navigator(0.1, two_beliefs, control.newton()),
    "odometer, myopic": lambda: navigator(0.1, Odometer(), control.myopic()),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
# What these tests are about does not look inside the belief: one of each kind of state.
some_optimizers = pytest.mark.parametrize(
    "name", ["adam", "two beliefs, horizon", "odometer, myopic"]
)


def tree(seed: int) -> PyTree:
    """Nested parameters with a scalar, in jax's default float; few shapes, so as to compile few."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.result_type(float))

    return {"layers": [{"w": draw(3, 2), "b": draw(3, 2)}, {"w": draw(3, 2)}], "scale": draw()}


def stack(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def assert_close(actual: PyTree, expected: PyTree, rtol: float = 1e-11) -> None:
    """Equal up to how XLA orders and fuses float64 operations."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-13), actual, expected
    )


def assert_identical(actual: PyTree, expected: PyTree) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def run(
    optimizer: optax.GradientTransformationExtraArgs, params: PyTree, gradients: list[PyTree]
) -> tuple[list[PyTree], PyTree]:
    """Updates of every step and the last state, in one jitted scan."""

    def step(carry: PyTree, gradient: PyTree) -> tuple[PyTree, PyTree]:
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), updates

    @jax.jit
    def scan(params: PyTree, gradients: PyTree) -> PyTree:
        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)

    (_, state), updates = scan(params, stack(gradients))
    return [jax.tree.map(lambda u: u[t], updates) for t in range(len(gradients))], state  # noqa: B023


def loop(
    optimizer: optax.GradientTransformationExtraArgs,
    update: Callable[..., Any],
    params: PyTree,
    gradients: list[PyTree],
) -> tuple[list[PyTree], PyTree]:
    """What `run` returns, one call of ``update`` after the other."""
    state, steps = optimizer.init(params), []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        steps.append(updates)
    return steps, state


@every_optimizer
def test_scan_does_what_jitted_steps_do(name: str, x64: None) -> None:
    optimizer, gradients = OPTIMIZERS[name](), [tree(t + 1) for t in range(3)]
    jitted = loop(optimizer, jax.jit(optimizer.update), tree(0), gradients)
    assert_close(run(optimizer, tree(0), gradients), jitted)


@some_optimizers
def test_jitted_steps_do_what_eager_steps_do(name: str, x64: None) -> None:
    optimizer, gradients = OPTIMIZERS[name](), [tree(t + 1) for t in range(3)]
    jitted = loop(optimizer, jax.jit(optimizer.update), tree(0), gradients)
    assert_close(jitted, loop(optimizer, optimizer.update, tree(0), gradients))


@some_optimizers
def test_vmapped_seeds_are_separate_runs(name: str, x64: None) -> None:
    optimizer = OPTIMIZERS[name]()
    params = [tree(0), tree(1)]
    streams = [[tree(2), tree(3)], [tree(4), tree(5)]]

    @jax.jit
    @jax.vmap
    def batched(params: PyTree, first: PyTree, second: PyTree) -> PyTree:
        _, state = optimizer.update(first, optimizer.init(params), params)
        return optimizer.update(second, state, params)

    @jax.jit
    def single(params: PyTree, first: PyTree, second: PyTree) -> PyTree:
        _, state = optimizer.update(first, optimizer.init(params), params)
        return optimizer.update(second, state, params)

    result = batched(stack(params), *(stack([s[t] for s in streams]) for t in range(2)))
    beliefs = jax.vmap(posterior)(result[1])
    for i in range(2):
        expected = single(params[i], *streams[i])
        assert_close(jax.tree.map(lambda x: x[i], result), expected)  # noqa: B023
        assert_close(jax.tree.map(lambda x: x[i], beliefs), posterior(expected[1]))  # noqa: B023


@pytest.mark.parametrize("learning_rate", [0.1, optax.linear_schedule(0.1, 0.02, 3)])
def test_injected_hyperparameters_are_those_of_the_plain_optimizer(
    learning_rate: optax.ScalarOrSchedule, x64: None
) -> None:
    gradients = [tree(t + 1) for t in range(4)]
    injected = optax.inject_hyperparams(navigator)(learning_rate, local_level, control.myopic())
    plain = navigator(learning_rate, local_level, control.myopic())
    steps, state = run(injected, tree(0), gradients)
    assert_close(steps, run(plain, tree(0), gradients)[0])
    assert set(state.hyperparams) == {"learning_rate"}
    assert_close(posterior(state), posterior(run(plain, tree(0), gradients)[1]))


def test_an_injected_learning_rate_can_be_set_without_recompilation(x64: None) -> None:
    optimizer = optax.inject_hyperparams(navigator)(0.1, local_level, control.myopic())
    update: Any = jax.jit(optimizer.update)
    state: Any = optimizer.init(tree(0))
    one, _ = update(tree(1), state, tree(0))
    state.hyperparams["learning_rate"] = jnp.asarray(0.3, jnp.float64)
    three, _ = update(tree(1), state, tree(0))
    assert_close(three, jax.tree.map(lambda u: 3 * u, one))
    assert update._cache_size() == 1


def test_a_schedule_multiplies_the_direction(x64: None) -> None:
    # Powers of two, which optax's float32 arithmetic of schedules holds exactly.
    schedule: Any = optax.piecewise_constant_schedule(0.5, {1: 0.5, 3: 0.5})
    gradients = [tree(t + 1) for t in range(5)]
    steps, _ = run(navigator(schedule, local_level, control.myopic()), tree(0), gradients)
    directions, _ = run(scale_by_navigation(local_level, control.myopic()), tree(0), gradients)
    for t, (step, direction) in enumerate(zip(steps, directions, strict=True)):
        assert_close(step, jax.tree.map(lambda d, t=t: -schedule(t) * d, direction))


@some_optimizers
def test_masked_navigates_the_selected_leaves_and_passes_the_others_through(
    name: str, x64: None
) -> None:
    mask = {"layers": [{"w": True, "b": False}, {"w": False}], "scale": True}
    gradients = [tree(t + 1) for t in range(3)]
    steps, _ = run(optax.masked(OPTIMIZERS[name](), mask), tree(0), gradients)

    def selected(t: PyTree) -> PyTree:
        return {"w": t["layers"][0]["w"], "scale": t["scale"]}

    alone, _ = run(OPTIMIZERS[name](), selected(tree(0)), [selected(g) for g in gradients])
    assert_close([selected(step) for step in steps], alone)
    for step, gradient in zip(steps, gradients, strict=True):
        assert_identical(step["layers"][0]["b"], gradient["layers"][0]["b"])
        assert_identical(step["layers"][1]["w"], gradient["layers"][1]["w"])


@some_optimizers
def test_partition_gives_every_label_its_own_optimizer(name: str, x64: None) -> None:
    labels = {"layers": [{"w": "one", "b": "two"}, {"w": "two"}], "scale": "one"}
    gradients = [tree(t + 1) for t in range(3)]
    both = optax.partition({"one": OPTIMIZERS[name](), "two": rules.rmsprop(0.2)}, labels)
    steps, _ = run(optax.with_extra_args_support(both), tree(0), gradients)

    def one(t: PyTree) -> PyTree:
        return [t["layers"][0]["w"], t["scale"]]

    def two(t: PyTree) -> PyTree:
        return [t["layers"][0]["b"], t["layers"][1]["w"]]

    alone, _ = run(OPTIMIZERS[name](), one(tree(0)), [one(g) for g in gradients])
    assert_close([one(step) for step in steps], alone)
    alone, _ = run(rules.rmsprop(0.2), two(tree(0)), [two(g) for g in gradients])
    assert_close([two(step) for step in steps], alone)


@some_optimizers
def test_multi_steps_sees_the_mean_gradient(name: str, x64: None) -> None:
    # optax accumulates in float32: numbers of few digits, whose means of two are exact there.
    gradients = [jax.tree.map(lambda y: jnp.round(1024 * y) / 1024, tree(t + 1)) for t in range(4)]
    every_two = optax.MultiSteps(OPTIMIZERS[name](), 2).gradient_transformation()
    steps, _ = run(optax.with_extra_args_support(every_two), tree(0), gradients)
    means = [jax.tree.map(lambda a, b: (a + b) / 2, gradients[t], gradients[t + 1]) for t in (0, 2)]
    alone, _ = run(OPTIMIZERS[name](), tree(0), means)
    assert_close([steps[1], steps[3]], alone)
    assert not any(np.any(leaf) for t in (0, 2) for leaf in jax.tree.leaves(steps[t]))


@some_optimizers
def test_none_leaves_are_no_parameters(name: str, x64: None) -> None:
    def with_none(t: PyTree) -> PyTree:
        return {"a": None, "b": t, "c": [None]}

    gradients = [tree(t + 1) for t in range(2)]
    steps, _ = run(OPTIMIZERS[name](), with_none(tree(0)), [with_none(g) for g in gradients])
    alone, _ = run(OPTIMIZERS[name](), tree(0), gradients)
    assert_close(steps, [with_none(u) for u in alone])


@some_optimizers
@pytest.mark.parametrize("empty", [{}, {"a": None, "b": ()}])
def test_a_tree_without_leaves_is_trained_to_itself(name: str, empty: PyTree) -> None:
    optimizer = OPTIMIZERS[name]()
    updates, state = jax.jit(optimizer.update)(empty, optimizer.init(empty), empty)
    assert updates == empty
    assert jax.tree.structure(state) == jax.tree.structure(optimizer.init(empty))


@some_optimizers
def test_an_array_without_entries_is_trained_to_itself(name: str) -> None:
    optimizer = OPTIMIZERS[name]()
    params = {"none": jnp.zeros((0, 3)), "one": jnp.ones(1)}
    updates, state = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    assert updates["none"].shape == (0, 3)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, optimizer.init(params))


WRAPPERS: dict[str, Callable[[optax.GradientTransformationExtraArgs], Any]] = {
    "chain": lambda o: optax.chain(optax.clip(100.0), o, optax.add_decayed_weights(0.1)),
    "masked": lambda o: optax.masked(o, jax.tree.map(lambda _: True, tree(0))),
    "multi steps": lambda o: optax.MultiSteps(o, 1).gradient_transformation(),
    "injected": lambda o: optax.inject_hyperparams(
        lambda scale: optax.chain(o, optax.scale(scale))
    )(2.0),
    "record": lambda o: recording.record(o, coordinates=2, capacity=4, key=jax.random.key(0)),
    "partition": lambda o: optax.partition(
        {"all": o, "none": optax.sgd(0.1)}, jax.tree.map(lambda _: "all", tree(0))
    ),
    "if finite": lambda o: optax.apply_if_finite(o, 3),
    "deep": lambda o: optax.chain(
        optax.clip(100.0),
        optax.MultiSteps(optax.chain(o, optax.scale(1.0)), 1),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["adam", "local level, myopic"])
def test_posterior_finds_the_belief_wherever_it_stands(wrapper: str, name: str, x64: None) -> None:
    # The parameters stay, so that wrappers which change the step show the belief the same stream.
    @functools.partial(jax.jit, static_argnums=0)
    def belief(optimizer: Any) -> beliefs.Posterior:
        state = optimizer.init(tree(0))
        for seed in (1, 2):
            _, state = optimizer.update(tree(seed), state, tree(0))
        return posterior(state)

    assert_close(belief(WRAPPERS[wrapper](OPTIMIZERS[name]())), belief(OPTIMIZERS[name]()))


def test_posterior_raises_unless_there_is_one_belief() -> None:
    params = tree(0)
    with pytest.raises(ValueError, match=r"found 0\. Build the optimizer with beliefnav"):
        posterior(optax.adam(0.1).init(params))
    two: Any = optax.chain(rules.adam(0.1), rules.sgd(0.1)).init(params)
    with pytest.raises(ValueError, match=r"found 2\. Pass the part of the state"):
        posterior(two)
    assert_identical(posterior(two[1]), posterior(rules.sgd(0.1).init(params)))


def test_structural_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match="belief must be one of beliefnav.beliefs.*got 3"):
        scale_by_navigation(3, control.myopic())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="policy must be a beliefnav.control.Policy, got 'myopic'"):
        scale_by_navigation(local_level, "myopic")  # type: ignore[arg-type]
    for learning_rate in (0.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="navigator: learning_rate must be a positive"):
            navigator(learning_rate, local_level, control.myopic())


# --- drifts that the plan does not know of ------------------------------------------------------

MASK = {"layers": [{"w": True, "b": False}, {"w": False}], "scale": True}


def as_drift(
    directions: PyTree, params: PyTree, start: PyTree, rate: float, strength: float, mask: PyTree
) -> PyTree:
    """Minus the rate times what the plan and the drift do together, by numpy."""
    return jax.tree.map(
        lambda d, p, s, m: -rate * (np.asarray(d) + strength * m * (np.asarray(p) - np.asarray(s))),
        directions,
        params,
        start,
        mask,
    )


@pytest.mark.parametrize("toward_start", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_decay_is_added_to_the_plan(toward_start: bool, masked: bool, x64: None) -> None:
    """Scaled by the rate, toward 0 or toward where the parameters started."""
    decay = Decay(0.3, (lambda params: MASK) if masked else None, toward_start=toward_start)
    optimizer = navigator(0.1, local_level, control.myopic(), decay)
    gradients = [tree(t + 1) for t in range(4)]
    steps, state = run(optimizer, tree(0), gradients)
    directions, _ = run(scale_by_navigation(local_level, control.myopic()), tree(0), gradients)
    mask = MASK if masked else jax.tree.map(lambda _: True, tree(0))
    start = tree(0) if toward_start else jax.tree.map(jnp.zeros_like, tree(0))
    params = tree(0)
    for step, direction in zip(steps, directions, strict=True):
        assert_close(step, as_drift(direction, params, start, 0.1, 0.3, mask))
        params = jax.tree.map(jnp.add, params, step)
    if toward_start:
        assert_identical(optax.tree.get(state, "decay_target"), tree(0))
    # The plan does not know of it.
    assert_close(posterior(state), posterior(run(plain_myopic(), tree(0), gradients)[1]))


def plain_myopic() -> optax.GradientTransformationExtraArgs:
    return navigator(0.1, local_level, control.myopic())


@pytest.mark.parametrize("toward_start", [False, True])
def test_a_decay_can_be_scheduled(toward_start: bool, x64: None) -> None:
    # Powers of two, which optax's float32 arithmetic of schedules holds exactly.
    schedule: Any = optax.piecewise_constant_schedule(0.5, {1: 0.5, 3: 0.0})
    optimizer = navigator(0.25, local_level, control.myopic(), Decay(schedule, None, toward_start))
    still = [jax.tree.map(jnp.zeros_like, tree(0))] * 5
    away = jax.tree.map(lambda p: p + 1, tree(0))
    state, update = optimizer.init(tree(0)), jax.jit(optimizer.update)
    for t, gradient in enumerate(still):
        step, state = update(gradient, state, away)
        moved = jax.tree.map(jnp.ones_like, away) if toward_start else away
        want = jax.tree.map(lambda x, t=t: -0.25 * schedule(t) * x, moved)
        assert_close(step, want, rtol=1e-6)


def test_a_decay_toward_the_start_is_an_optimizer_like_any_other() -> None:
    """Of half precision, of nothing, abstract, and with states that can be donated."""
    optimizer = navigator(0.1, local_level, control.myopic(), Decay(0.3, toward_start=True))
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": None, "c": ()}
    state: Any = optimizer.init(params)
    updates, state = jax.jit(optimizer.update)(params, state, params)
    assert updates["a"].dtype == jnp.bfloat16 and updates["b"] is None and updates["c"] == ()
    assert optax.tree.get(state, "decay_target")["a"].dtype == jnp.bfloat16
    shapes = jax.eval_shape(optimizer.init, params)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, state)
    optimizer.init(jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params))
    kept: Any = optimizer.init(params)
    assert optax.tree.get(kept, "decay_target")["a"] is not params["a"]
    with pytest.raises(ValueError, match="Cannot decay toward the initial parameters without para"):
        optimizer.update(params, kept)
    for strength in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="Decay: strength must be a non-negative"):
            Decay(strength)


def test_initial_parameters_are_kept_for_policies_that_ask(x64: None) -> None:
    """And for no other; they are those of `init`, whatever the parameters become."""
    belief = beliefs.independent(gradient=local_level, curvature=beliefs.PrecisionWalk(0.9))
    gradients = [tree(t + 1) for t in range(3)]
    _, state = run(navigator(0.1, belief, control.resetting(0.3)), tree(0), gradients)
    assert_identical(optax.tree.get(state, "start_params"), tree(0))
    _, state = run(navigator(0.1, belief, control.newton()), tree(0), gradients)
    assert optax.tree.get(state, "start_params") is None
