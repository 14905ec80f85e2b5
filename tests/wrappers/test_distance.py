"""Distance adaptation and the rule that is made of it: Prodigy's estimate, and what it rests on."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import explain, optimum, posterior, rules
from beliefnav.wrappers.distance import DistanceState, distance_adaptation

# The code of optax, which is wrapped and compared with, promotes dtypes.
pytestmark = pytest.mark.usefixtures("dtype_promotion")
PyTree = Any

adapted: Any = distance_adaptation
free: Any = rules.learning_rate_free
moved: Any = optax.apply_updates
STEPS = 150
CURVATURES = {"w": 1 / np.arange(1.0, 13).reshape(3, 4), "b": np.array([3.0, 0.1])}
START = {"w": np.random.default_rng(0).normal(size=(3, 4)), "b": np.array([0.5, -1.5])}
NOISE = [
    {name: rng.normal(size=h.shape) for name, h in CURVATURES.items()}
    for rng in [np.random.default_rng(1)]
    for _ in range(STEPS)
]
ONE = {"w": 1.0, "b": 1.0}


def follow(
    optimizer: Any, units: dict[str, float] = ONE, loss: float = 1.0, steps: int = STEPS
) -> tuple[list[dict[str, np.ndarray]], Any]:
    """The path on a noisy quadratic in the units of `START`, and the last state.

    Args:
        optimizer: what steps.
        units: what the parameters of an array are multiplied by.
        loss: what the loss is multiplied by.
        steps: how many.
    """
    params = {name: jnp.asarray(units[name] * x) for name, x in START.items()}
    state, path, update = optimizer.init(params), [], jax.jit(optimizer.update)
    for noise in NOISE[:steps]:
        gradient = {
            name: loss * (h * params[name] / units[name] + np.sqrt(h) * noise[name]) / units[name]
            for name, h in CURVATURES.items()
        }
        updates, state = update(gradient, state, params)
        params = moved(params, updates)
        path.append({name: np.asarray(x) / units[name] for name, x in params.items()})
    return path, state


def difference(one: list[PyTree], other: list[PyTree]) -> float:
    """The largest difference of two paths."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def state_of(state: Any) -> Any:
    """The part of `distance_adaptation`."""
    parts = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, DistanceState))
    return next(x for x in parts if isinstance(x, DistanceState))


def descend(
    optimizer: Any, params: PyTree, gradient: Callable[..., Any], steps: int
) -> tuple[PyTree, Any, Any]:
    """The last parameters and state, and the distance after every step.

    Args:
        optimizer: what steps.
        params: the first ones.
        gradient: ``(params, key) -> gradient``.
        steps: how many.
    """

    def step(carry: Any, key: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(gradient(params, key), state, params)
        return (moved(params, updates), state), state_of(state).distance

    keys = jax.random.split(jax.random.key(0), steps)
    (params, state), seen = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), keys))(
        params
    )
    return params, state, seen


# --- the law ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("guess", [1e-6, 1e-2])
def test_around_the_sign_of_the_gradient_it_is_prodigy(guess: float) -> None:
    """To 1e-9: the weights of the first gradients are large numbers there, and small ones here."""
    sign = adapted(rules.adam(1.0, b1=0.0, b2=0.0, eps=0.0), guess, prior_scale=1.0)
    prodigy = optax.contrib.prodigy(betas=(0.0, 0.0), beta3=0.999**0.5, eps=0.0, estim_lr0=guess)
    (ours, state), (theirs, their_state) = follow(sign), follow(prodigy)
    assert difference(ours, theirs) < 1e-9
    np.testing.assert_allclose(state.distance, their_state.estim_lr, rtol=1e-9)
    assert difference(ours[-1:], ours[:1]) > 0.5  # and it went somewhere


@pytest.mark.usefixtures("x64")
def test_the_rule_is_what_is_written_in_its_docstring() -> None:
    """Slowly, in numpy; with the plain means of Adam, and weights t of the average."""
    path, state = follow(free(guess=1e-3))
    entries = np.concatenate([x.ravel() for x in START.values()])
    curvature = np.concatenate([x.ravel() for x in CURVATURES.values()])
    start, params = entries.copy(), entries.copy()
    distance = 1e-3 * np.sqrt(np.mean(entries**2))
    m = v = s = np.zeros_like(entries)
    progress, iterates, bounds = 0.0, [], [distance]
    for t, drawn in enumerate(NOISE, 1):
        noise = np.concatenate([x.ravel() for x in drawn.values()])
        g = curvature * params + np.sqrt(curvature) * noise
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        s = 0.999**0.5 * s + distance**2 * g
        progress = 0.999**0.5 * progress + distance**2 * g @ (start - params)
        step = m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t))
        params = params - distance * step
        bounds.append(progress / np.abs(s).sum())
        distance = max(bounds)
        iterates.append(params)
    got = np.concatenate([path[-1][name].ravel() for name in START])
    np.testing.assert_allclose(got, params, rtol=1e-9)
    np.testing.assert_allclose(state_of(state).distance, distance, rtol=1e-9)
    assert distance > 100 * bounds[0]
    mean = np.average(iterates, axis=0, weights=np.arange(1, STEPS + 1))
    params_now: Any = jax.tree.map(jnp.asarray, path[-1])
    handed = np.concatenate([optimum(state, params_now)[name].ravel() for name in START])
    np.testing.assert_allclose(handed, mean, rtol=1e-9)


@pytest.mark.parametrize("shape", [0.5, 3.0])
def test_the_distance_is_the_mode_of_the_posterior_under_a_prior_without_scale(
    shape: float,
) -> None:
    """On a grid: p(D) ~ D^(-a-1) from the guess on, times 1 where D is a bound or more."""
    grid = np.geomspace(1e-3, 1e3, 60_001)
    guess, bounds = 0.02, [-1.0, 0.01, 0.5, 0.3, 2.5, 1.0]
    density = np.where(grid >= guess, grid ** (-shape - 1), 0)
    for bound in bounds:
        density *= grid >= bound
    best = max(guess, *bounds)
    np.testing.assert_allclose(grid[density.argmax()], best, rtol=1e-3)
    steps = np.diff(grid)
    share = np.cumsum(density[:-1] * steps) / np.sum(density[:-1] * steps)
    beyond = (best / grid[-1]) ** shape  # of the tail that the grid lacks
    median = best * (1 - 0.5 * (1 - beyond)) ** (-1 / shape)
    np.testing.assert_allclose(grid[np.searchsorted(share, 0.5)], median, rtol=2e-3)


@pytest.mark.usefixtures("x64")
def test_on_a_convex_loss_without_noise_it_never_exceeds_the_true_distance() -> None:
    optimizer = free(prior_scale=1.0)
    _, _, seen = descend(optimizer, jnp.array([3.0, -1.0, 0.5]), lambda p, _: jnp.sign(p), 400)
    assert jnp.all(jnp.diff(seen) >= 0) and 0.3 < seen[-1] <= 3.0


# --- units --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("factor", [1e-2, 1e2, 1e4])
def test_the_unit_of_the_loss_changes_nothing(factor: float) -> None:
    one, other = (follow(free(), loss=f)[0] for f in (1.0, factor))
    assert difference(one, other) < 1e-9


@pytest.mark.usefixtures("x64")
def test_one_unit_of_all_parameters_changes_nothing() -> None:
    units = {"w": 10.0, "b": 10.0}
    one, other = (follow(free(), u)[0] for u in (ONE, units))
    assert difference(one, other) < 1e-9


@pytest.mark.usefixtures("x64")
def test_units_of_layers_change_nothing_where_the_scale_of_each_is_given() -> None:
    """And do where it is not: one distance is believed of all parameters."""
    units = {"w": 10.0, "b": 1.0}
    scales = {"w": 0.5, "b": 2.0}
    scaled = {name: units[name] * scales[name] for name in units}
    one = follow(free(prior_scale=scales))[0]
    other = follow(free(prior_scale=scaled), units)[0]
    assert difference(one, other) < 1e-9
    one, other = (follow(free(), u)[0] for u in (ONE, units))
    assert difference(one, other) > 1e-2


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_on_a_constant_loss_nothing_moves(start: float) -> None:
    optimizer, params = free(), jnp.full(3, start)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jnp.zeros(3), state, params)
        assert not updates.any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    assert jnp.array_equal(optimum(state, params), params)


@pytest.mark.parametrize("first", [0.0, np.nan, np.inf, 1e30])
def test_a_first_gradient_that_says_nothing_delays_the_start(first: float) -> None:
    """And nothing else: Adam's bias correction counts it, which one step does not show."""
    optimizer, params = free(guess=0.01, prior_scale=1.0), jnp.ones(2)
    state = optimizer.init(params)
    updates, state = optimizer.update(jnp.full(2, first), state, params)
    assert not updates.any()
    for _ in range(100):
        updates, state = optimizer.update(params, state, params)
        params = moved(params, updates)
    assert np.isfinite(params).all() and 0.05 < state_of(state).distance <= 1


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_an_entry_that_is_not_finite_says_nothing_of_the_distance(entry: float) -> None:
    """Of two parameters one is never seen: the other goes as if it were alone."""
    alone, both = (adapted(rules.adam(1.0, eps=0.0), prior_scale=1.0) for _ in range(2))
    one, two = jnp.ones(1), jnp.ones(2)
    states = alone.init(one), both.init(two)
    for _ in range(50):
        step, first = alone.update(one, states[0], one)
        steps, second = both.update(jnp.array([one[0], entry]), states[1], two)
        states, one, two = (first, second), one + step, two + steps
    np.testing.assert_array_equal(two, [one[0], 1])
    assert one[0] < 0.99


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_parameter_is_enough(shape: tuple[int, ...]) -> None:
    start = jnp.full(shape, 2.0)
    params, state, _ = descend(free(), start, lambda p, _: p - 1, 400)
    np.testing.assert_allclose(optimum(state, params), 1, atol=0.05)


@pytest.mark.usefixtures("x64")
def test_frozen_parameters_are_not_there() -> None:
    """Neither under a mask nor as an empty place: the others go as if they were alone."""
    rule = free()
    params: Any = {"w": jnp.array([1.0, -2.0]), "still": jnp.array([100.0])}
    masked: Any = optax.masked(rule, {"w": True, "still": False})
    paths = []
    for optimizer, start in (
        (rule, {"w": params["w"]}),
        (rule, {"w": params["w"], "still": None}),
        (masked, params),
    ):
        here: Any = start
        state = optimizer.init(here)
        for _ in range(30):
            gradient = here | ({"still": jnp.zeros(1)} if here.get("still") is not None else {})
            updates, state = optimizer.update(gradient, state, here)
            here = moved(here, updates)
        paths.append(here["w"])
        assert jnp.array_equal(optimum(state, here)["w"], optimum(state, here)["w"])
    np.testing.assert_array_equal(paths[0], paths[1])
    np.testing.assert_array_equal(paths[0], paths[2])
    assert abs(paths[0][0] - 1) > 1e-2


@pytest.mark.usefixtures("x64")
def test_a_guess_may_be_too_small_but_not_too_large() -> None:
    """Six orders of magnitude are made up for in 60 steps; a distance is never taken back."""
    small, right = (state_of(follow(free(g))[1]) for g in (1e-6, 1e-2))
    assert 0.3 < small.distance / right.distance < 3
    large = state_of(follow(free(1e2, prior_scale=1.0))[1])
    assert large.distance == 1e2


@pytest.mark.usefixtures("x64")
def test_sparse_gradients_leave_the_distance_right() -> None:
    """Of 20 parameters each is seen at one step in 10; the optimum of all is at a distance of 2."""

    def gradient(params: Any, key: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key, 0.1, (20,)), params, 0)

    optimizer = free(prior_scale=1.0)
    params, state, seen = descend(optimizer, jnp.full(20, 2.0), gradient, 1000)
    assert 0.02 < seen[-1] <= 2
    assert jnp.square(optimum(state, params)).mean() < 0.25


def test_half_precision_is_adapted_in_float32() -> None:
    params = {"w": jnp.ones(4, jnp.bfloat16), "b": jnp.ones(2)}
    optimizer, updates = free(guess=1e-2), params
    state = optimizer.init(params)
    for _ in range(60):
        updates, state = optimizer.update(params, state, params)
        params = moved(params, updates)
    inner = state_of(state)
    assert updates["w"].dtype == jnp.bfloat16
    assert inner.weighted_gradient["w"].dtype == inner.distance.dtype == jnp.float32
    assert inner.distance > 0.1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: adapted(3.0), "inner must be an optax optimizer"),
        (lambda: adapted(optax.sgd(1.0), 0.0), "guess must be a positive"),
        (lambda: adapted(optax.sgd(1.0), discount=1.5), r"discount must be in \[0, 1\]"),
        (lambda: adapted(optax.sgd(1.0), prior_scale=-1.0), "prior_scale must be a positive"),
        (lambda: adapted(optax.sgd(1.0), lambda _: 1e-3), "guess must be a number"),
        (lambda: adapted(optax.sgd(1.0)).init(jnp.ones(2, int)), "of dtype int"),
        (
            lambda: adapted(optax.sgd(1.0), prior_scale={"v": 1.0}).init({"w": jnp.ones(2)}),
            "prior_scale must be like the parameters",
        ),
        (
            lambda: free().update(jnp.ones(2), free().init(jnp.ones(2))),
            "without params",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(call: Callable[[], Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        call()


@pytest.mark.parametrize("shape", [(3, 3), (2,)])
def test_a_scale_of_another_shape_is_refused_at_init(shape: tuple[int, ...]) -> None:
    optimizer = rules.learning_rate_free(prior_scale={"w": jnp.ones(shape)})
    with pytest.raises(ValueError, match=r"of the shape of its parameter, \(3,\); got"):
        optimizer.init({"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="guess must be one number"):
        rules.learning_rate_free(guess=jnp.array([1e-4, 1e-3]))


def test_steps_from_zeros_have_a_derivative() -> None:
    """The scale of zeros is 1, whatever is added to them: the derivative is that of one step."""
    optimizer = rules.learning_rate_free(eps_root=1e-8)

    def moved(params: jax.Array) -> jax.Array:
        state = optimizer.init(params)
        updates: Any = optimizer.update(params - 3, state, params)[0]
        return jnp.sum(params + updates)

    # The first step is the sign of the gradient, but for the floor, times 1e-4.
    np.testing.assert_allclose(jax.grad(moved)(jnp.zeros(2)), 1.0, rtol=1e-5)


def test_it_says_what_it_assumes_and_what_it_believes() -> None:
    facts = {fact.subject: fact.value for fact in explain(rules.learning_rate_free).facts()}
    assert facts["distance"] == "0.0001 or more" and facts["optimum"] == "memory 0.5 of all steps"
    told = explain(distance_adaptation, rules.adam, 1.0, guess=0.5, prior_scale=2.0)
    assert re.search(r"distance +0\.5 or more", str(told))
    optimizer = free()
    _, state = optimizer.update(jnp.array([4.0, -2.0]), optimizer.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_array_equal(posterior(state).gradient_mean, [4, -2])
    np.testing.assert_array_equal(optax.tree.get(state, "distance"), np.float32(1e-4))
