"""Iterate averaging: equal to a plain loop over the parameters seen, wherever it stands."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import gammaln

from beliefnav import (
    beliefs,
    explain,
    optimum,
    posterior,
    recording,
    rules,
    sample_params,
    wrappers,
)

# The code of optax, which is wrapped, promotes dtypes.
pytestmark = pytest.mark.usefixtures("dtype_promotion")
PyTree = Any

# What optax says of the types of states and updates is too wide to look into them.
averaging: Any = wrappers.iterate_averaging
two_hypothesis: Any = wrappers.two_hypothesis
PLAIN = beliefs.LocalLevel(1.0)


def tree(seed: int, dtype: Any = jnp.float32) -> PyTree:
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(4, 3)), dtype),
        "b": [jnp.asarray(rng.normal(size=3), dtype), None],
    }


def follow(optimizer: Any, params: PyTree, steps: int, state: Any = None, first: int = 0) -> Any:
    """The parameters after every step, and the last state, on random gradients."""
    update = jax.jit(optimizer.update)
    state, path = optimizer.init(params) if state is None else state, []
    for t in range(first, first + steps):
        gradient = jax.tree.map(lambda g, p: (g + p).astype(p.dtype), tree(100 + t), params)
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


def assert_close(got: PyTree, want: PyTree, rtol: float = 1e-6, atol: float = 1e-6) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=atol
        ),
        got,
        want,
    )


def assert_identical(got: PyTree, want: PyTree) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


# --- the law ------------------------------------------------------------------------------------

Weights = Callable[[np.ndarray], np.ndarray]


def polynomial(p: float) -> Weights:
    return lambda t: np.exp(gammaln(t + p) - gammaln(t))


MEMORIES: dict[str, tuple[Any, Weights]] = {
    "plain": (PLAIN, np.ones_like),
    "by default": (beliefs.PolynomialLevel(2.0), polynomial(2.0)),
    "polynomial": (beliefs.PolynomialLevel(7.5), polynomial(7.5)),
    "exponential": (beliefs.LocalLevel(0.9), lambda t: 0.9 ** (t[-1] - t)),
    "shared": (beliefs.shared(beliefs.LocalLevel(0.9)), lambda t: 0.9 ** (t[-1] - t)),
}


def weighted(path: list[PyTree], weights: np.ndarray) -> tuple[PyTree, PyTree]:
    """Mean and mean square around it, the slow way."""

    def mean(*leaves: Any) -> Any:
        return np.average(np.stack([np.asarray(x, np.float64) for x in leaves]), 0, weights)

    center = jax.tree.map(mean, *path)
    squares = [jax.tree.map(lambda x, m: (np.asarray(x) - m) ** 2, p, center) for p in path]
    return center, jax.tree.map(mean, *squares)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", MEMORIES)
def test_it_is_the_average_of_the_parameters_that_a_loop_sees(name: str, every: int) -> None:
    memory, weights = MEMORIES[name]
    optimizer = averaging(optax.adam(0.1), memory, every=every, variance=True)
    start = tree(0, jnp.float64)
    state = optimizer.init(start)
    assert_identical(optimum(state, start), start)
    params, path = start, []
    for t in range(1, 11):
        (params,), state = follow(optimizer, params, 1, state, t)
        path.append(params)
        steps = np.arange(1, t + 1)
        read = steps % every == 0
        if not read.any():
            # The memory has nothing yet, and gives back what it is given.
            assert_identical(optimum(state, params), params)
            continue
        seen = [p for p, r in zip(path, read, strict=True) if r]
        mean, variance = weighted(seen, weights(steps[read].astype(float)))
        # Float64 round-off of ten steps.
        assert_close(optimum(state, params), mean, 1e-12, 1e-12)
        assert_close(state.believed_optimum(params)[1], variance, 1e-10, 1e-14)


@pytest.mark.usefixtures("x64")
def test_an_exponential_average_from_the_first_parameters_is_that_of_optax() -> None:
    memory = beliefs.LocalLevel(0.9, prior_sample_size=10.0)
    start = tree(0, jnp.float64)
    path, state = follow(averaging(optax.sgd(0.1), memory), start, 8)
    want = start
    for params in path:
        want = optax.incremental_update(params, want, 0.1)
    assert_close(optimum(state, path[-1]), want, 1e-12, 1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "outer",
    [
        optax.scale(0.5),
        optax.add_decayed_weights(-0.1),
        optax.clip_by_global_norm(0.01),
        optax.keep_params_nonnegative(),
    ],
    ids=["scale", "decay", "clip", "project"],
)
def test_what_changes_the_step_afterwards_is_seen(outer: Any) -> None:
    optimizer = optax.chain(averaging(optax.sgd(0.1), PLAIN), outer)
    path, state = follow(optimizer, tree(0, jnp.float64), 6)
    assert_close(optimum(state, path[-1]), weighted(path, np.ones(6))[0], 1e-12, 1e-14)


@pytest.mark.usefixtures("x64")
def test_the_path_and_the_inner_state_are_those_of_the_optimizer() -> None:
    """To the last bit, so that training can be resumed without the average."""
    inner, start = optax.adamw(0.1), tree(0, jnp.float64)
    want, inner_state = follow(inner, start, 5)
    got, state = follow(averaging(inner, every=2, variance=True), start, 5)
    assert_identical(got, want)
    assert_identical(state.inner_state, inner_state)
    further, _ = follow(inner, want[-1], 3, inner_state, first=5)
    assert_identical(follow(inner, got[-1], 3, state.inner_state, first=5)[0], further)


@pytest.mark.usefixtures("x64")
def test_it_can_be_started_in_the_middle_of_a_run() -> None:
    inner = optax.adam(0.1)
    path, inner_state = follow(inner, tree(0, jnp.float64), 4)
    optimizer = averaging(inner, PLAIN)
    state = optimizer.init(path[-1])._replace(inner_state=inner_state)
    further, state = follow(optimizer, path[-1], 3, state, first=4)
    assert_close(optimum(state, further[-1]), weighted(further, np.ones(3))[0], 1e-12, 1e-14)


@pytest.mark.usefixtures("x64")
def test_the_average_is_the_posterior_mean_but_for_its_boundary() -> None:
    """The equation of the module: readings of the optimum, steps of gradient descent."""
    rng = np.random.default_rng(0)
    a, h, target = 0.3, 0.7, 1.5
    optimizer = averaging(optax.sgd(a), PLAIN)
    theta, readings = jnp.asarray(-4.0, float), []
    state, path = optimizer.init(theta), [theta]
    for _ in range(20):
        gradient = h * (theta - target) + rng.normal()
        readings.append(theta - gradient / h)
        updates, state = optimizer.update(gradient, state, theta)
        theta = theta + updates
        path.append(theta)
    # The readings are made at the parameters before the steps: without the last of the path.
    mean = (20 * optimum(state, theta) + path[0] - path[-1]) / 20
    boundary = (path[-1] - path[0]) / (a * h * 20)
    np.testing.assert_allclose(np.mean(readings), mean + boundary, rtol=1e-12)


# --- where it stands ----------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_under_accumulation_every_iterate_counts_once() -> None:
    inner, start = optax.adam(0.1), tree(0, jnp.float64)
    inside = averaging(optax.MultiSteps(inner, 3).gradient_transformation(), PLAIN, every=3)
    outside = optax.MultiSteps(averaging(inner, PLAIN), 3).gradient_transformation()
    for steps in (3, 9, 11):
        for optimizer in (inside, outside):
            path, state = follow(optimizer, start, steps)
            iterates = path[2::3]
            want = weighted(iterates, np.ones(len(iterates)))[0]
            assert_close(optimum(state, path[-1]), want, 1e-12, 1e-14)


def test_under_a_mask_the_other_parameters_are_what_they_are() -> None:
    start = tree(0)
    mask = {"w": True, "b": False}
    optimizer = optax.masked(averaging(optax.sgd(0.1), PLAIN), mask)
    path, state = follow(optimizer, start, 4)
    got, want = optimum(state, path[-1]), weighted(path, np.ones(4))[0]
    assert_close(got["w"], want["w"])
    assert_identical(got["b"], path[-1]["b"])


def test_the_parts_of_a_partition_have_averages_of_their_own() -> None:
    start = tree(0)
    parts: dict[Any, Any] = {
        "one": averaging(optax.sgd(0.1), PLAIN),
        "other": averaging(optax.adam(0.1), beliefs.LocalLevel(0.5)),
    }
    optimizer = optax.partition(parts, {"w": "one", "b": "other"})
    path, state = follow(optimizer, start, 4)
    got = optimum(state, path[-1])
    assert_close(got["w"], weighted(path, np.ones(4))[0]["w"])
    assert_close(got["b"], weighted(path, 0.5 ** np.arange(4)[::-1])[0]["b"])
    with pytest.raises(ValueError, match="Expected one belief about the optimum.*found 2"):
        sample_params(state, jax.random.key(0))
    # An optimizer without an average, and without any belief or with one about gradients.
    for plain in (optax.adam(0.1), rules.adam(0.1)):
        others: Any = parts | {"other": plain}
        optimizer = optax.partition(others, {"w": "one", "b": "other"})
        path, state = follow(optimizer, start, 4)
        got = optimum(state, path[-1])
        assert_close(got["w"], weighted(path, np.ones(4))[0]["w"])
        assert_identical(got["b"], path[-1]["b"])


def test_the_outer_belief_about_the_optimum_is_the_one_to_read() -> None:
    inner: Any = rules.hazard_filter(0.01, 0.5, examples=4)
    path, state = follow(averaging(inner, PLAIN), tree(0), 3)
    assert_close(optimum(state, path[-1]), weighted(path, np.ones(3))[0])
    # The filter goes to its own mean.
    assert_close(optimum(state.inner_state, path[-1]), path[-1])
    masked = optax.masked(inner, {"w": True, "b": False})
    path, state = follow(masked, tree(0), 3)
    assert_close(optimum(state, path[-1]), path[-1])


def test_what_believes_nothing_of_the_optimum_is_refused() -> None:
    params = tree(0)
    for plain in (rules.adam(0.1), optax.adam(0.1)):
        with pytest.raises(ValueError, match="nothing in the optimizer.*wrappers.iterate_averagin"):
            optimum(plain.init(params), params)
    state = averaging(optax.sgd(0.1)).init(params)
    others = {"v": params["w"], "b": params["b"]}  # equal shapes, in the same order
    told = r"they are {}, and the average is of 'b/0' \[3\], 'w' \[4, 3\]\."
    for wrong, given in (
        ({"w": params["w"]}, r"'w' \[4, 3\]"),
        (others, r"'b/0' \[3\], 'v' \[4, 3\]"),
        ({**params, "w": jnp.ones(3)}, r"'b/0' \[3\], 'w' \[3\]"),
    ):
        with pytest.raises(ValueError, match=told.format(given)):
            optimum(state, wrong)
    with pytest.raises(ValueError, match=r"they are \[2\], and the average is of \[3\]\."):
        optimum(averaging(optax.sgd(0.1)).init(jnp.ones(3)), jnp.ones(2))


def test_of_two_averages_of_the_same_parameters_one_is_chosen() -> None:
    """Inside of one another the outer one is read; in a chain none is."""
    other = beliefs.PolynomialLevel(2.0)
    nested = averaging(averaging(optax.sgd(0.1), PLAIN), other)
    chained = optax.chain(averaging(optax.sgd(0.1), PLAIN), averaging(optax.identity(), other))
    for optimizer in (nested, chained):
        path, state = follow(optimizer, tree(0), 4)
        steps = np.arange(1.0, 5.0)
        plain, memory = (weighted(path, w(steps))[0] for w in (np.ones_like, polynomial(2.0)))
        inner, outer = state if optimizer is chained else (state.inner_state, state)
        assert_close(optimum(inner, path[-1]), plain)
        assert_close(optimum(outer, path[-1]), memory)
    with pytest.raises(ValueError, match=r"2 parts of the.* say it of 'b/0'; pass .*state\[0\]"):
        optimum(state, path[-1])
    # One of them is about a part of the parameters.
    masked = optax.masked(averaging(optax.identity(), other), {"w": True, "b": False})
    path, state = follow(optax.chain(averaging(optax.sgd(0.1), PLAIN), masked), tree(0), 4)
    with pytest.raises(ValueError, match="2 parts of the optimizer state say it of 'w'"):
        optimum(state, path[-1])


def test_arguments_reach_the_optimizer_inside_or_are_ignored() -> None:
    params = tree(0)
    more = {"value": jnp.float32(1), "anything": tree(2)}
    plateau = averaging(optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)))
    _, state = plateau.update(tree(1), plateau.init(params), params, **more)
    assert float(optax.tree.get(state, "best_value")) == 1
    plain = averaging(optax.adam(0.1))
    state = plain.init(params)
    assert_identical(
        plain.update(tree(1), state, params, **more), plain.update(tree(1), state, params)
    )


def test_numbers_are_injected() -> None:
    make = optax.inject_hyperparams(averaging, static_args=("inner", "memory", "variance"))
    inner, start = optax.sgd(0.1), tree(0)
    path, state = follow(make(inner, memory=PLAIN, every=2), start, 6)
    assert_close(optimum(state, path[-1]), weighted(path[1::2], np.ones(3))[0])
    rate = averaging(optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), PLAIN)
    path, state = follow(rate, start, 6)
    assert_close(optimum(state, path[-1]), weighted(path, np.ones(6))[0])


# --- the contract of optax ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_parameters_have_a_float32_average(dtype: Any) -> None:
    optimizer = averaging(optax.sgd(0.1), PLAIN, variance=True)
    path, state = follow(optimizer, tree(0, dtype), 6)
    for leaf in jax.tree.leaves((state.average.mean, state.path_variance)):
        assert leaf.dtype == jnp.float32
    got = optimum(state, path[-1])
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    mean, variance = state.believed_optimum(path[-1])
    want = weighted(path, np.ones(6))
    # The parameters are numbers of half precision, their average one of float32.
    assert_close(mean, want[0], 1e-6, 1e-6)
    assert_close(variance, want[1], 1e-4, 1e-6)
    updates, _ = optimizer.update(tree(1, dtype), state, path[-1])
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


def signature(state: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.typeof(x).str_short() + str(x.weak_type), state)


EVERY: dict[str, Any] = {
    "always": averaging(optax.adam(0.1), variance=True),
    "third": averaging(optax.adam(0.1), beliefs.LocalLevel(0.9), every=3),
    "switching inside": averaging(two_hypothesis(optax.adam(0.1), 0.1, 1, value_fn=lambda p: 0.0)),
}
every_kind = pytest.mark.parametrize("optimizer", EVERY.values(), ids=EVERY)


@every_kind
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_its_state_keeps_its_signature_and_compiles_once(optimizer: Any, dtype: Any) -> None:
    update: Any = jax.jit(lambda *args: optimizer.update(*args))
    params, state = tree(0, dtype), optimizer.init(tree(0, dtype))
    before = signature(state)
    for t in range(4):
        updates, state = update(tree(t, dtype), state, params)
        assert signature(updates) == signature(params)
        assert signature(state) == before
    assert update._cache_size() == 1
    like = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    for told in (jax.eval_shape(optimizer.init, params), optimizer.init(like)):
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (told, state))
        assert shapes[0] == shapes[1]
    nothing = optimizer.init({})
    assert optimizer.update({}, nothing, {})[0] == {}
    assert optimum(nothing, {}) == {}


@every_kind
def test_it_scans_is_batched_and_donated(optimizer: Any) -> None:
    def step(carry: Any, _: None = None) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(jnp.sin, params), state, params)
        return (optax.apply_updates(params, updates), state), None

    def scanned(params: PyTree) -> Any:
        carry = jax.lax.scan(step, (params, optimizer.init(params)), None, 5)[0]
        return carry, optimum(carry[1], carry[0])

    want = jax.jit(scanned)(tree(1))
    both = jax.tree.map(lambda *x: jnp.stack(x), tree(0), tree(1))
    batched = jax.jit(jax.vmap(scanned))(both)
    assert_close(jax.tree.map(lambda x: x[1], batched), want)
    carry = tree(1), optimizer.init(tree(1))
    donating: Any = jax.jit(lambda carry: step(carry)[0], donate_argnums=0)
    for _ in range(5):
        carry = donating(carry)
    assert_close(carry, want[0])


@every_kind
def test_a_state_that_comes_back_from_a_file_as_numpy_goes_on(optimizer: Any) -> None:
    path, state = follow(optimizer, tree(0), 4)
    restored = jax.tree.map(np.asarray, state)
    numbers = jax.tree.map(np.asarray, path[-1])
    assert_identical(optimum(restored, numbers), optimum(state, path[-1]))
    gradient = jax.tree.map(np.asarray, tree(9))
    got = optimizer.update(gradient, restored, numbers)
    assert_identical(got, optimizer.update(tree(9), state, path[-1]))


@every_kind
def test_what_is_shaped_like_parameters_is_found_in_its_state(optimizer: Any) -> None:
    state = optimizer.init(tree(0))
    marked = optax.tree.map_params(
        optimizer, lambda x: str(x.shape), state, transform_non_params=lambda _: "other"
    )
    found = [x for x in jax.tree.leaves(marked) if x != "other"]
    wide = [x for x in jax.tree.leaves(state) if x.shape == (4, 3)]
    assert wide and found == ["(3,)", "(4, 3)"] * len(wide)


def test_python_numbers_are_parameters() -> None:
    optimizer = averaging(optax.sgd(0.5), PLAIN)
    params: Any = {"a": 1.0, "b": np.ones(2, np.float32)}
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert_close(optimum(state, params), {"a": 0.375, "b": np.full(2, 0.375)})


def test_a_belief_inside_is_read_and_recorded() -> None:
    watched = recording.record(averaging(rules.adam(0.1)), coordinates={"w": [0]}, capacity=4)
    path, state = follow(watched, tree(0), 4)
    assert recording.to_dataset(state, path[-1]).sizes["step"] == 4
    alone = follow(rules.adam(0.1), tree(0), 4)[1]
    assert_close(posterior(state).curvature_mean, posterior(alone).curvature_mean)
    assert_close(optimum(state, path[-1]), weighted(path, polynomial(2.0)(np.arange(1.0, 5)))[0])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("every", [1, 2])
def test_slopes_in_the_rate_reach_the_average(every: int) -> None:
    def loss(rate: Any) -> Any:
        optimizer = averaging(optax.sgd(rate), every=every, variance=True)
        params = jnp.linspace(0.5, 1.0, 3)
        state = optimizer.init(params)
        for _ in range(4):
            updates, state = optimizer.update(jnp.sin(params), state, params)
            params = params + updates
        mean, variance = state.believed_optimum(params)
        return jnp.sum(mean**2) + jnp.sum(variance)

    got = jax.jit(jax.grad(loss))(0.3)
    # Central differences with step h: error h^2 f''' + eps f / h ~ 1e-10.
    want = (loss(0.3 + 1e-5) - loss(0.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose(got, want, rtol=1e-8)


class Box(NamedTuple):
    """What a host keeps an array in."""

    value: Any


def test_a_state_is_read_where_a_host_keeps_its_arrays_in_boxes() -> None:
    for optimizer in (averaging(optax.sgd(0.1), PLAIN), rules.hazard_filter(0.01, 0.5, examples=4)):
        path, state = follow(optimizer, tree(0), 3)
        want = optimum(state, path[-1])
        boxed = jax.tree.map(Box, state)
        assert_identical(optimum(boxed, path[-1]), want)
        within = jax.tree.map(lambda p: (Box(p),), path[-1])
        assert_identical(jax.tree.leaves(optimum(boxed, within)), jax.tree.leaves(want))


# --- what is not finite -------------------------------------------------------------------------


def test_an_entry_that_is_not_finite_is_not_taken_in() -> None:
    optimizer = averaging(optax.identity(), PLAIN, variance=True)
    seen = jnp.array([[9.0, 9.0], [1.0, 1.0], [jnp.nan, 2.0], [jnp.inf, 3.0], [5.0, 4.0]])
    state = optimizer.init(seen[0])
    for params in seen:
        _, state = optimizer.update(jnp.zeros(2), state, params)
    # What is missing counts in the sample size: gains 1, 1/2, 1/3, 1/4.
    np.testing.assert_allclose(state.average.mean, [1 + (5 - 1) / 4, 2.5], rtol=1e-6)
    np.testing.assert_allclose(state.path_variance, [0.75 * 4**2 / 4, 1.25], rtol=1e-6)
    broken = jnp.array([jnp.nan, 4.0])
    assert np.all(np.isfinite(optimum(state, broken)))
    fresh = optimizer.init(jnp.full(2, jnp.nan))
    for params in seen[:2]:
        _, fresh = optimizer.update(jnp.zeros(2), fresh, params)
    np.testing.assert_allclose(fresh.average.mean, 1.0)


# --- tasks that switch --------------------------------------------------------------------------


def losses(value: float) -> dict[str, Any]:
    """Of a batch that is seen at loss ``value`` from here, and at 1 from the start."""
    return {"value": jnp.asarray(value), "value_fn": lambda _: jnp.asarray(1.0)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("memory", [PLAIN, beliefs.PolynomialLevel(2.0), beliefs.LocalLevel(0.8)])
def test_a_switch_reaches_the_average_inside_and_around(memory: Any) -> None:
    """A step that may be one of a new task, and, later, one that certainly is."""
    inner, start = optax.adam(0.1), tree(0, jnp.float64)
    around = two_hypothesis(averaging(inner, memory, variance=True), 0.25, 1)
    inside = averaging(two_hypothesis(inner, 0.25, 1), memory, variance=True)
    results = []
    for optimizer in (around, inside):
        params, state, steps = start, optimizer.init(start), []
        for t, value in enumerate((-5.0, -5.0, 0.9, -5.0, 90.0, -90.0, -90.0, -90.0)):
            updates, state = optimizer.update(tree(t, jnp.float64), state, params, **losses(value))
            params = optax.apply_updates(params, updates)
            own = state.inner_state if optimizer is around else state
            steps.append((params, own.average, own.path_variance, optimum(state, params)))
        results.append(steps)
    # The reset goes to the start up to a rounding of float32, in which the probabilities are.
    assert_close(results[0], results[1], 1e-5, 1e-6)
    # After the switch at the fifth step the start is all there is, and does not count.
    params, average, spread, best = results[1][4]
    assert_close(best, start, 1e-6, 1e-6)
    assert float(average.sample_size) == 0 and not any(map(np.any, jax.tree.leaves(spread)))
    path = [step[0] for step in results[1][5:]]
    steps = np.arange(1, 4)
    weights = {
        str(PLAIN): np.ones(3),
        str(beliefs.LocalLevel(0.8)): 0.8 ** (3 - steps),
        str(beliefs.PolynomialLevel(2.0)): steps * (steps + 1),
    }
    want = weighted(path, weights[str(memory)])[0]
    assert_close(results[1][-1][-1], want, 1e-6, 1e-6)


def test_a_switch_that_is_possible_takes_as_much_of_the_weight() -> None:
    optimizer = averaging(two_hypothesis(optax.sgd(0.1), 0.25, 1), PLAIN)
    params = tree(0)
    state = optimizer.init(params)
    sizes = []
    for t in range(3):
        updates, state = optimizer.update(tree(t), state, params, **losses(1.0))
        params = optax.apply_updates(params, updates)
        sizes.append(float(state.average.sample_size))
    np.testing.assert_allclose(sizes, [0, 0.75, 0.75 * 1.75], rtol=1e-6)


# --- draws and guards ---------------------------------------------------------------------------


def test_draws_come_from_the_average_and_the_spread_of_the_path() -> None:
    path, state = follow(averaging(optax.sgd(0.5), variance=True), tree(0), 6)
    keys = jax.random.split(jax.random.key(0), 4000)
    for scale in (1.0, 3.0, jax.tree.map(lambda p: 2.0, path[0])):
        draws = jax.vmap(lambda key, c=scale: sample_params(state, key, c))(keys)
        mean, variance = state.believed_optimum(None)
        for m, v, x in zip(*map(jax.tree.leaves, (mean, variance, draws)), strict=True):
            c = scale if isinstance(scale, float) else 2.0
            # Five standard errors of a mean and of a variance of 4,000 draws.
            assert np.abs((x.mean(0) - m) / np.sqrt(c * v)).max() < 5 / np.sqrt(4000)
            assert np.abs(x.var(0) / (c * v) - 1).max() < 5 * np.sqrt(2 / 4000)
    with pytest.raises(ValueError, match="the average holds no variance.*variance=True"):
        sample_params(averaging(optax.sgd(0.5)).init(path[0]), keys[0])
    fresh = averaging(optax.sgd(0.5), variance=True).init(path[0])
    assert_identical(sample_params(fresh, keys[0]), path[0])


RATE, BATCH, EXAMPLES = 0.05, 4, 1000


@pytest.mark.usefixtures("x64")
def test_the_spread_of_gradient_descent_is_what_the_docstring_says() -> None:
    """By its stationary equation, and by a run; the ratio to the posterior goes as 1 / (d C)."""
    h, noise = np.array([2.0, 1.0, 0.5, 2.0]), np.array([2.0, 1.0, 0.5, 8.0])
    d = np.array([1.0, 1.0, 1.0, 0.5])
    spread = RATE * d * noise / (BATCH * h * (2 - RATE * d * h))
    after = (1 - RATE * d * h) ** 2 * spread + (RATE * d) ** 2 * noise / BATCH
    np.testing.assert_allclose(after, spread, rtol=1e-12)
    ratio = 1 / (EXAMPLES * h) / spread
    # To first order in the rate: a d h / 2 is at most 0.05.
    np.testing.assert_allclose(ratio, 2 * BATCH / (RATE * d * EXAMPLES * noise), rtol=0.06)
    scale = optax.stateless(lambda g, _: jax.tree.map(lambda x: x * d, g))
    optimizer = averaging(optax.chain(scale, optax.sgd(RATE)), PLAIN, variance=True)
    steps = 40_000

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = carry
        gradient = h * params + jnp.sqrt(noise / BATCH) * jax.random.normal(key, (4,))
        updates, state = optimizer.update(gradient, state, params)
        return (params + updates, state), None

    start = jnp.zeros(4), optimizer.init(jnp.zeros(4))
    keys = jax.random.split(jax.random.key(1), steps)
    (_, state), _ = jax.lax.scan(step, start, keys)
    # The squares are correlated over 1 / (2 a d h) steps, 20 for the flattest: five standard errors
    # of 40,000 / 20 independent ones.
    assert np.abs(state.path_variance / spread - 1).max() < 5 * np.sqrt(2 * 20 / steps)
    # The average is nearer to the optimum, 0, than a single iterate by sqrt(2 / (a d h steps)).
    assert np.all(np.abs(state.average.mean) < 5 * np.sqrt(spread * 2 / (RATE * d * h * steps)))


def test_momentum_spreads_the_path_as_a_rate_that_is_larger() -> None:
    """The stationary covariance of heavy ball by its Lyapunov equation, for small rates."""
    a, h, mu, noise = 1e-4, 1.0, 0.9, 1.0
    # (theta, v) -> (theta - a v', v'), v' = mu v + h theta + noise.
    step = np.array([[1 - a * h, -a * mu], [h, mu]])
    push = np.array([-a, 1.0])
    kron = np.eye(4) - np.kron(step, step)
    covariance = np.linalg.solve(kron, (noise * np.outer(push, push)).ravel()).reshape(2, 2)
    np.testing.assert_allclose(covariance[0, 0], a / (1 - mu) * noise / (2 * h), rtol=1e-2)


def quotients_of_losses(start: float) -> np.ndarray:
    """Of averages of p = 0, 2, 8 to the last iterate, each at its best rate, by second moments."""
    h, rates = 1 / np.arange(1.0, 201.0), np.geomspace(0.02, 1.99, 60)[:, None]
    kept, noise = 1 - rates * h, rates**2 * h
    losses = []
    for power in (0.0, 2.0, 8.0):
        last = both = average = np.full((60, 200), start)  # s, Cov[iterate, average], its variance
        for t in range(1, 301):
            gain = (power + 1) / (t + power)
            last, before = kept**2 * last + noise, both
            average = (
                (1 - gain) ** 2 * average + 2 * gain * (1 - gain) * kept * before + gain**2 * last
            )
            both = (1 - gain) * kept * before + gain * last
        losses.append((average @ h).min() / (last @ h).min())
    return np.asarray(losses)


def test_the_default_memory_is_a_compromise() -> None:
    """The numbers of the docstring."""
    np.testing.assert_allclose(quotients_of_losses(1.0), [0.54, 0.60, 0.71], atol=0.006)
    np.testing.assert_allclose(quotients_of_losses(100.0), [1.2, 0.25, 0.31], atol=0.06)


def test_the_better_of_average_and_parameters_is_returned_where_a_loss_is_given() -> None:
    path, state = follow(averaging(optax.sgd(0.5), PLAIN), tree(0), 4)
    mean = optimum(state, path[-1])

    def distance(to: PyTree) -> Callable[[PyTree], Any]:
        return lambda p: sum(
            jnp.sum((x - y) ** 2) for x, y in zip(*map(jax.tree.leaves, (p, to)), strict=True)
        )

    assert_identical(optimum(state, path[-1], distance(mean)), mean)
    assert_identical(optimum(state, path[-1], distance(path[-1])), path[-1])

    def undefined_at(place: PyTree) -> Callable[[PyTree], Any]:
        return lambda p: jnp.where(p["w"][0, 0] == place["w"][0, 0], jnp.nan, 0.0)

    assert_identical(optimum(state, path[-1], undefined_at(mean)), path[-1])
    assert_identical(optimum(state, path[-1], undefined_at(path[-1])), mean)


# --- words and errors ---------------------------------------------------------------------------


def test_a_state_tells_what_to_train_with_only_where_its_losses_say_so() -> None:
    """Two memories around each other, losses that are finite, and something averaged."""
    optimizer = averaging(averaging(optax.sgd(0.1)), beliefs.PolynomialLevel(8.0))
    params = jnp.ones(2)
    state = optimizer.init(params)

    def told(value_fn: Any) -> dict[str, str]:
        return {f.subject: f.value for f in explain(state, params, value_fn).facts()}

    assert "to train with" not in told(jnp.sum)  # nothing was averaged yet
    for _ in range(20):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert told(lambda p: jnp.sum(p**2))["to train with"] == "a schedule"
    nothing = told(lambda p: jnp.nan * jnp.sum(p))
    assert nothing["to hand over"] == "not told" and "to train with" not in nothing
    with pytest.raises(ValueError, match="without params"):
        explain(state, None, jnp.sum)
    with pytest.raises(ValueError, match="nor a state with an average"):
        explain(optax.sgd(0.1).init(params), params, jnp.sum)
    with pytest.raises(ValueError, match=r"one number, got shape \(2,\)"):
        explain(state, params, lambda p: p)


def test_what_it_assumes_in_words() -> None:
    told = explain(averaging, rules.adam, 1e-3, every=10)
    facts = [(f.subject, f.value) for f in told.facts()]
    assert facts[:3] == [
        ("optimum", "memory 0.3333 of all steps"),
        ("optimum prior", "0 observations"),
        ("optimum reading", "1 of 10 steps"),
    ]
    assert told.facts()[4:] == explain(rules.adam, 1e-3).facts()
    assert explain(averaging, optax.sgd(0.1)).facts()[2].value == "every step"
    state: Any = told.optimizer().init(tree(0))
    assert float(state.next_gain) == 0 and int(state.averaged_calls) == 0


def test_its_state_says_what_it_holds() -> None:
    """In numbers, against the path; of averages inside of one another the outer one first."""
    inner = averaging(optax.sgd(0.1), PLAIN)
    path, state = follow(averaging(inner, beliefs.PolynomialLevel(2.0), variance=True), tree(0), 12)
    told = explain(state, path[-1])
    facts = {fact.subject: fact.value for fact in told.facts()[:4]}
    assert list(facts) == ["steps", "memory", "spread", "distance"]
    seen = weighted(path[:-1], polynomial(2.0)(np.arange(1.0, 12.0)))[1]
    mean = weighted(path, polynomial(2.0)(np.arange(1.0, 13.0)))[0]
    spread, distance = (
        np.sqrt(np.mean(np.concatenate([np.ravel(x) for x in jax.tree.leaves(squares)])))
        for squares in (seen, jax.tree.map(lambda m, p: (m - p) ** 2, mean, path[-1]))
    )
    assert facts["steps"] == "12" and facts["memory"] == "3.667 iterates"  # 11 / (2 + 1)
    got = [float(facts[name]) for name in ("spread", "distance")]
    np.testing.assert_allclose(got, [spread, distance], rtol=1e-3)  # four digits are said
    rest = [(fact.subject, fact.value) for fact in told.facts()[4:]]
    assert [name for name, _ in rest] == ["steps", "memory", "distance", "to hand over"]
    assert rest[1][1] == "11 iterates" and rest[-1][1] == "not told"
    # Without the parameters, and wherever it stands.
    alone = explain((optax.EmptyState(), state.inner_state))
    assert [fact.subject for fact in alone.facts()] == ["steps", "memory", "to hand over"]
    with pytest.raises(ValueError, match="nor a state with an average in it"):
        explain(optax.adam(0.1).init(tree(0)))


def test_losses_say_what_to_hand_over_and_what_would_have_been_better() -> None:
    """A path that travels, noise around the optimum, 0, and a noisy path that ends there."""
    long, short = beliefs.PolynomialLevel(2.0), beliefs.PolynomialLevel(8.0)
    noise = np.random.default_rng(0).normal(size=(60, 50))
    ramp = np.linspace(10, 5, 60)[:, None] * np.ones(50)

    def loss(params: jax.Array) -> Any:
        return jnp.sum(params**2) / 2

    for seen, handed, trained in (
        (ramp, "the parameters", "a schedule"),
        (noise, "memory 19.67", "an average"),
        (ramp - 5 + noise, "memory 6.556", "a schedule"),
    ):
        for first, second in ((long, short), (short, long)):
            optimizer = averaging(averaging(optax.identity(), first), second)
            state = optimizer.init(jnp.asarray(seen[0]))
            for params in map(jnp.asarray, seen):
                _, state = optimizer.update(jnp.zeros(50), state, params)
            params = jnp.asarray(seen[-1])
            told = explain(state, params, loss)
            facts = {fact.subject: fact.value for fact in told.facts()}
            assert (facts["to hand over"], facts["to train with"]) == (handed, trained)
            np.testing.assert_allclose(float(facts["loss of parameters"]), loss(params), rtol=1e-3)
            losses = [float(fact.value) for fact in told.facts() if fact.subject == "loss"]
            want = [loss(optimum(part, params)) for part in (state, state.inner_state)]
            np.testing.assert_allclose(losses, want, rtol=1e-3)
            assert max(map(len, str(told).split("\n"))) <= 100
    alone = explain(state.inner_state, params, loss)
    assert "to train with" not in [fact.subject for fact in alone.facts()]


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(TypeError, match="inner must be an optax optimizer, got 0.1"):
        averaging(0.1)
    with pytest.raises(TypeError, match="memory must be a belief about a level.*got 0.9"):
        averaging(optax.sgd(0.1), 0.9)
    for every in (0, -1, 1.5):
        with pytest.raises(ValueError, match="every must be a positive whole number"):
            averaging(optax.sgd(0.1), every=every)
    optimizer = averaging(optax.sgd(0.1))
    with pytest.raises(ValueError, match="Cannot update iterate_averaging without params"):
        optimizer.update(tree(0), optimizer.init(tree(0)))
    with pytest.raises(ValueError, match="'n' of dtype int32.*optax.masked"):
        optimizer.init({"n": jnp.ones(2, jnp.int32)})


# --- what was found by trying to break it -------------------------------------------------------


def test_an_average_of_many_steps_reads_one_in_a_hundred() -> None:
    """In float32 corrections of every step would be lost to rounding."""
    rng = np.random.default_rng(0)
    steps = 300_000
    path = 1 + 0.01 * np.arange(steps) / steps + 1e-3 * rng.normal(size=steps)

    def mean(every: int) -> float:
        optimizer = averaging(optax.identity(), PLAIN, every=every)

        def step(state: Any, params: jax.Array) -> tuple[Any, None]:
            return optimizer.update(jnp.zeros(()), state, params)[1], None

        values = jnp.asarray(path, jnp.float32)
        run = jax.jit(lambda x: jax.lax.scan(step, optimizer.init(x[0]), x)[0].average.mean)
        return float(run(values))

    # A hundredth of the steps knows the mean to 1e-3 / sqrt(3000).
    np.testing.assert_allclose(mean(100), path.mean(), atol=1e-4)
    assert abs(mean(1) - path.mean()) > 1e-3


def test_what_a_step_is_given_reaches_what_stands_inside_of_multi_steps() -> None:
    rule = rules.secant(0.1, curvature_noise_variance=1e-4)
    params = jnp.ones(2)

    def believed(optimizer: Any) -> Any:
        state = optimizer.init(params)
        for _ in range(4):
            _, state = optimizer.update(3 * params, state, params, curvature=3 * params)
        return posterior(state).curvature_mean

    want = believed(optax.MultiSteps(rule, 2).gradient_transformation())
    parts: Any
    for parts in (optax.MultiSteps(rule, 2), optax.MultiSteps(rule, 2).gradient_transformation()):
        np.testing.assert_array_equal(believed(averaging(parts, every=2)), want)
        recorded = recording.record(parts, coordinates={"": [0]}, capacity=4)
        np.testing.assert_array_equal(believed(recorded), want)


def test_one_switch_is_forgotten_once_in_parts_too() -> None:
    def losses(value: float) -> dict[str, Any]:
        at = jnp.zeros(2)
        return {
            "value": jnp.asarray(value),
            "value_fn": lambda p: jnp.where(jnp.all(p == at), 0.0, value),
        }

    def sizes(k: int) -> list[float]:
        hypothesis = wrappers.two_hypothesis(optax.sgd(0.1), 0.25, 1.0)
        inner: Any = optax.MultiSteps(hypothesis, k) if k > 1 else hypothesis
        optimizer = averaging(inner, PLAIN, every=k)
        params = jnp.zeros(2)
        state, found = optimizer.init(params), []
        for t in range(4 * k):
            updates, state = optimizer.update(jnp.ones(2), state, params, **losses(0.0))
            params = optax.apply_updates(params, updates)
            if t % k == k - 1:
                found.append(float(state.average.sample_size))
        return found

    np.testing.assert_allclose(sizes(3), sizes(1), rtol=1e-5)


def test_an_entry_that_was_never_taken_in_stays_as_it_is() -> None:
    params: Any = jnp.array([1.0, -jnp.inf, 3e20])
    optimizer = averaging(optax.sgd(0.1), variance=True)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jnp.array([1.0, 0.0, 0.0]), state, params)
        params = optax.apply_updates(params, updates)
    assert optimum(state, params)[1:].tolist() == params[1:].tolist()


@pytest.mark.parametrize("every", [np.int64(0), jnp.array(-1), np.float32(2.5), "2", None, np.inf])
def test_every_is_a_positive_whole_number_in_any_form(every: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="every must be a positive whole number"):
        averaging(optax.sgd(0.1), every=every)


def test_the_better_of_two_losses_is_one_that_is_finite() -> None:
    params = jnp.ones(2)
    state = averaging(optax.sgd(0.1)).init(params)
    _, state = averaging(optax.sgd(0.1)).update(params, state, params)
    mean = optimum(state, 2 * params)
    for ours, theirs in ((np.inf, np.inf), (-np.inf, 1.0), (np.nan, 1.0)):
        got = optimum(state, 3 * params, lambda p, a=ours, b=theirs: jnp.where(p[0] == 3, b, a))
        np.testing.assert_array_equal(got, 3 * params)
    assert mean.shape == (2,)
    with pytest.raises(ValueError, match="value_fn must return one number"):
        optimum(state, 3 * params, lambda p: p**2)


def test_the_scale_of_draws_fits_the_parameters() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}
    optimizer = averaging(optax.sgd(0.1), variance=True)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    key = jax.random.key(0)
    assert_identical(sample_params(state, key, 0.0), state.average.mean)
    drawn = sample_params(state, key, {"w": 1.0, "b": 0.0})
    np.testing.assert_array_equal(drawn["b"], state.average.mean["b"])
    with pytest.raises(ValueError, match="scale"):
        sample_params(state, key, -1.0)
    with pytest.raises(ValueError, match="sample_params: scale .* does not broadcast"):
        sample_params(state, key, jnp.ones(3))
