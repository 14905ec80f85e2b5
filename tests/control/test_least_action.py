"""Paths of least action against direct minimisation, closed forms and their own laws."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from beliefnav import Objective, control
from beliefnav.control import PathStatus, least_action_path, multi_start
from beliefnav.control.paths.least_action import LeastActionPath, MultiStart
from tests import oracles

CONVERGED = PathStatus.CONVERGED
# Nearly all the time is that of compiling: leave out what makes programs fast, not right.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


# --- the double well ----------------------------------------------------------------------------

WELL = Objective(discount=0.1)
START, END = np.array([-0.6, 0.55]), np.array([1.0625, 0.0])
WELL_OPTIONS: dict[str, Any] = dict(duration=4.0, node=0.0)


def double_well(x: jax.Array) -> jax.Array:
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2 - x[0] / 2


def numpy_double_well(x: Any, v: Any) -> Any:
    loss = (x[..., 0] ** 2 - 1) ** 2 + x[..., 1] ** 2 - x[..., 0] / 2
    return (v[..., 0] ** 2 + v[..., 1] ** 2) / 2 + loss


@pytest.fixture(scope="module")
def wells() -> LeastActionPath:
    """Towards a given end from three starts, at three discounts, at once."""
    with jax.enable_x64(True):

        def plan(start: jax.Array, discount: jax.Array) -> LeastActionPath:
            objective = dataclasses.replace(WELL, discount=discount)
            return least_action_path(
                objective, double_well, start, END, num_points=50, **WELL_OPTIONS
            )

        starts = jnp.array([START, [0.3, 1.2], START])
        found = jit(jax.vmap(plan))(starts, jnp.array([0.1, 0.0, 1.5]))
        return jax.tree.map(np.asarray, found)


def test_to_a_given_end_it_is_the_direct_minimum(wells: LeastActionPath):
    for i, discount in enumerate((0.1, 0.0, 1.5)):
        path = np.asarray(wells.params[i])

        def cost(path: Any, discount: float = discount) -> Any:
            return oracles.path_action(numpy_double_well, path, 4.0, discount, node=0.0)

        want = oracles.least_action(cost, np.linspace(path[0], END, 50), slice(1, -1))
        # BFGS stops at a gradient of 1e-9 or at the rounding of the action; the action is flat.
        np.testing.assert_allclose(path, want, rtol=0, atol=1e-6)
        np.testing.assert_allclose(wells.action[i], cost(want), rtol=1e-12)
    np.testing.assert_array_equal(wells.params[:, -1], np.stack([END] * 3))
    np.testing.assert_array_equal(wells.params[:, 0], [START, [0.3, 1.2], START])


def test_published_double_well(wells: LeastActionPath):
    """The mean action to the digits known, in the few steps that Newton's method needs."""
    np.testing.assert_allclose(wells.action[0] / 4, 0.16957144, rtol=0, atol=1e-7)
    assert wells.status[0] == CONVERGED
    assert wells.num_steps[0] <= 15
    assert wells.gradient_norm[0] < 1e-9
    np.testing.assert_allclose(wells.times[0], np.linspace(0, 4, 50), rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_steps_do_not_grow_with_the_points(wells: LeastActionPath):
    """A property of Newton's method on a discretised problem: mesh independence."""

    @jit
    def plan(start: jax.Array) -> LeastActionPath:
        return least_action_path(WELL, double_well, start, END, num_points=3000, **WELL_OPTIONS)

    fine = plan(jnp.asarray(START))
    assert fine.status == CONVERGED
    assert fine.num_steps <= wells.num_steps[0] + 1
    # The left-point rule is of first order in the time step of 4 / 49.
    for component in range(2):
        at = np.interp(wells.times[0], fine.times, fine.params[:, component])
        np.testing.assert_allclose(wells.params[0, :, component], at, rtol=0, atol=0.05)


@pytest.mark.usefixtures("x64")
def test_a_discounted_path_with_a_terminal_value_is_a_linear_solve():
    r"""Three steps of h = 0.5 at discount 1.2 on a parabola, worth (x - 2)^2 at the end.

    The action is quadratic in the points, so that a linear solve minimises it.
    """
    h, discount, curvature = 0.5, 1.2, 3.0
    kept = np.exp(-discount * h * np.arange(4))

    def cost(x: Any) -> Any:
        path = np.concatenate([[1.0], x])
        kinetic = (np.diff(path) / h) ** 2 / 2
        running = h * np.sum(kept[:3] * (kinetic + curvature * path[:3] ** 2 / 2))
        return running + kept[3] * (path[3] - 2) ** 2

    # Differences of a quadratic by steps of 1 are its Hessian and its gradient at 0.
    unit, zero = np.eye(3), cost(np.zeros(3))
    hessian = np.array([[cost(a + b) - cost(a) - cost(b) + zero for a in unit] for b in unit])
    slope = np.array([(cost(a) - cost(-a)) / 2 for a in unit])
    want = np.linalg.solve(hessian, -slope)
    path = least_action_path(
        Objective(discount=discount),
        lambda x: curvature * x**2 / 2,
        jnp.asarray(1.0),
        duration=1.5,
        num_points=4,
        node=0.0,
        terminal_value=lambda x: (x - 2) ** 2,
    )
    assert path.status == CONVERGED
    np.testing.assert_allclose(path.params, [1.0, *want], rtol=1e-8)
    np.testing.assert_allclose(path.action, cost(want), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_free_end_is_at_rest_and_a_terminal_value_pulls_it():
    """The left-point rule makes transversality exact in the last interval: p = -e^{-gamma h} V'."""
    pull = np.array([0.0, 1.0, 4.0])

    def plan(weight: jax.Array) -> LeastActionPath:
        return least_action_path(
            WELL,
            double_well,
            START,
            terminal_value=lambda x: weight * jnp.sum((x - 1.5) ** 2) / 2,
            num_points=50,
            **WELL_OPTIONS,
        )

    got = jit(jax.vmap(plan))(pull)
    np.testing.assert_array_equal(got.status, CONVERGED)
    h = 4 / 49
    for weight, path, value in zip(pull, np.asarray(got.params), got.action, strict=True):
        last = (path[-1] - path[-2]) / h
        want = -math.exp(-0.1 * h) * weight * (path[-1] - 1.5)
        # Newton's last step squares an error of 1e-8; a difference quotient divides by h.
        np.testing.assert_allclose(last, want, rtol=0, atol=1e-10)

        def cost(path: Any, weight: float = weight) -> Any:
            worth = weight * ((path[..., -1, :] - 1.5) ** 2).sum(-1) / 2
            running = oracles.path_action(numpy_double_well, path, 4.0, 0.1, node=0.0)
            return running + math.exp(-0.1 * 4) * worth

        found = oracles.least_action(cost, np.tile(START, (50, 1)), slice(1, None))
        np.testing.assert_allclose(path, found, rtol=0, atol=1e-6)
        np.testing.assert_allclose(value, cost(found), rtol=1e-12)


# --- any objective ------------------------------------------------------------------------------

HERE = {"a": np.array([0.8]), "b": np.array(-0.5)}
THERE = {"a": np.array([-0.6]), "b": np.array(0.4)}
RATE, GAIN, DISCOUNTS = 0.7, 1.9, np.array([0.0, 1.0, 10.0])


def tree_loss(x: Any) -> jax.Array:
    a, b = x["a"][0], x["b"]
    return a**4 / 4 + (b - a) ** 2 / 2 + b


def tree_drift(x: Any) -> Any:
    a, b = x["a"], x["b"]
    return {"a": 0.2 * b**2 - 0.5 * a, "b": 0.4 * jnp.sin(a[0])}


def dense_metric(x: Any) -> jax.Array:
    a, b = x["a"][0], x["b"]
    off = 0.3 * jnp.sin(b)
    return jnp.array([[1 + a**2, off], [off, 2.0]])


def numpy_lagrangian(dense: bool, x: Any, v: Any) -> Any:
    a, b = x[..., 0], x[..., 1]
    u = v[..., 0] - 0.2 * b**2 + 0.5 * a
    w = v[..., 1] - 0.4 * np.sin(a)
    if dense:
        kinetic = (1 + a**2) * u**2 + 2 * 0.3 * np.sin(b) * u * w + 2 * w**2
    else:
        kinetic = 0.5 * u**2 + 3 * w**2
    return kinetic / (2 * RATE) + GAIN * (a**4 / 4 + (b - a) ** 2 / 2 + b)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dense", [False, True], ids=["diagonal tree", "dense field"])
def test_metric_drift_and_discount(dense: bool):
    """The path is a strict minimum of the oracle's action, judged in current values.

    The dense metric goes with a free end and the midpoint, the diagonal with a given end. Another
    two dense metrics are good at the start alone, which only the status can say.
    """
    node, end = (0.5, None) if dense else (0.2, THERE)
    num_points, duration = 15, 1.5

    def plan(discount: jax.Array, fall: jax.Array, skew: jax.Array) -> LeastActionPath:
        def spoiled(x: Any) -> jax.Array:
            away = x["a"][0] - HERE["a"][0]
            return dense_metric(x) + jnp.array([[-fall * away**2, skew * away], [0.0, 0.0]])

        metric = spoiled if dense else {"a": np.array([0.5]), "b": np.array(3.0)}
        objective = Objective(RATE, GAIN, discount, metric, tree_drift)
        return least_action_path(
            objective, tree_loss, HERE, end, duration=duration, num_points=num_points, node=node
        )

    fall, skew = np.array([[0.0, 0.0, 0.0, 30.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.1]])
    got = jit(jax.vmap(plan))(np.append(DISCOUNTS, [1.0, 1.0]), fall, skew)
    spoiled = PathStatus.METRIC_NOT_POSITIVE if dense else CONVERGED
    np.testing.assert_array_equal(got.status, [CONVERGED] * 3 + [spoiled] * 2)
    for i, discount in enumerate(DISCOUNTS):
        path = np.stack([got.params["a"][i, :, 0], got.params["b"][i]], 1)

        def cost(path: Any, discount: float = discount) -> Any:
            return oracles.path_action(
                lambda x, v: numpy_lagrangian(dense, x, v), path, duration, discount, node
            )

        weights = np.exp(-discount * np.linspace(0, duration, num_points))
        weights[0] = np.inf
        if end is not None:
            weights[-1] = np.inf
            np.testing.assert_array_equal(path[-1], [THERE["a"][0], THERE["b"]])
        gradient = oracles.path_gradient(cost, path)
        # Rounding of terms of order rate / time step squared.
        np.testing.assert_allclose(gradient / weights[:, None], 0, atol=1e-10)
        # The differences of the oracle's gradient are good to 1e-9.
        assert oracles.path_curvature(cost, path, weights)[0] > 1e-4
        np.testing.assert_allclose(got.action[i], cost(path), rtol=1e-12)
        free = np.isfinite(weights)
        assert got.gradient_norm[i] <= np.linalg.norm(gradient[free]) + 1e-10


# --- quadratic losses ---------------------------------------------------------------------------

LONG, CURVATURE = 30.0, 1.1
GRID = [(d, c) for d in DISCOUNTS for c in (0.0, 0.5, 1.0)]


@jit
@jax.vmap
def quadratic(discount: jax.Array, node: Any) -> LeastActionPath:
    objective = Objective(RATE, GAIN, discount)
    return least_action_path(
        objective,
        lambda x: CURVATURE * x**2 / 2,
        jnp.ones(()),
        duration=LONG,
        num_points=301,
        node=node,
    )


def decay(discount: float, node: float, h: float) -> float:
    r"""$\lambda$ of the solution $\lambda^i$ of the discretised Euler-Lagrange equation."""
    stiff, force, fall = 1 / (RATE * h), GAIN * CURVATURE * h, math.exp(-discount * h)
    place = np.array([node, 1 - node])  # powers of lambda 1, 0: (1 - c) + c lambda
    speed = np.array([1.0, -1.0])
    here = fall * ((1 - node) * force * place - stiff * speed)
    there = node * force * place + stiff * speed
    roots = np.roots(np.append(here, 0) + np.append(0, there))
    return float(np.abs(roots).min())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_horizon_follows_the_discrete_decay(dtype: str):
    """Also where e^{-gamma T} = e^{-300} is far below the smallest float32."""
    h = LONG / 300
    with jax.enable_x64(dtype == "float64"):
        discount, node = (jnp.asarray(x, dtype) for x in zip(*GRID, strict=True))
        got = quadratic(discount, node)
        assert got.params.dtype == got.action.dtype == got.times.dtype == dtype
        np.testing.assert_array_equal(got.status, CONVERGED)
        path, actions = np.asarray(got.params), np.asarray(got.action)
    # A few roundings of each number, times the condition of the problem.
    rtol = 1e-4 if dtype == "float32" else 1e-10
    for i, (d, c) in enumerate(GRID):
        root = decay(d, c, h)
        assert np.all(np.isfinite(path[i]))
        # The free end is felt as e^{-(gamma + 2 r)(T - t)}, at least e^{-2.6 (T - t)}.
        seen = 181
        want = root ** np.arange(seen)
        np.testing.assert_allclose(path[i, :seen], want, rtol=rtol, atol=1e-3 * rtol)
        whole = root ** np.arange(3000)[:, None]
        cost = oracles.path_action(
            lambda x, v: (v**2 / (2 * RATE) + GAIN * CURVATURE * x**2 / 2)[..., 0],
            whole,
            2999 * h,
            d,
            c,
        )
        np.testing.assert_allclose(actions[i], cost, rtol=rtol)
    # The grid's own rate goes to that of the continuous problem, in second order at the midpoint.
    for d in DISCOUNTS:
        rate = math.sqrt(d**2 / 4 + RATE * GAIN * CURVATURE) - d / 2
        errors = [-math.log(decay(d, 0.5, h)) / h - rate for h in (0.02, 0.01)]
        np.testing.assert_allclose(math.log2(errors[0] / errors[1]), 2, atol=0.05)


@pytest.mark.usefixtures("x64")
def test_free_end_is_felt_at_the_rate_of_both_solutions():
    r"""The first move, as the duration grows: as $e^{-(\gamma + 2r)T}$, not $\gamma + r$."""
    discount, rate, spacing = 0.5, (math.sqrt(17) - 1) / 4, 0.01

    def moved(duration: float) -> float:
        path = partial(
            least_action_path,
            Objective(discount=discount),
            lambda x: jnp.sum(x**2) / 2,
            duration=duration,
            num_points=1 + round(duration / spacing),
        )
        return float(jit(path)(jnp.ones(1)).params[1, 0])

    unlimited, *felt = (moved(duration) for duration in (16.0, 2.0, 4.0))
    measured = -math.log((felt[1] - unlimited) / (felt[0] - unlimited)) / 2
    # The grid is of second order; what is left at 2 of the square of the mode is e^{-4}/100.
    assert measured == pytest.approx(discount + 2 * rate, abs=0.01)
    assert measured > discount + rate + 0.5


# --- a terminal value is the rest of an infinite path -------------------------------------------

TARGET, LOWEST, SCALE, DISCOUNT = np.array([1.0, -0.5]), 0.8, 1.7, 0.9
ORIGIN = np.array([-0.4, 1.1])
TURN, SHRINK = 1.3, 0.6
DRIFTS = np.array([[[0, -TURN], [TURN, 0]], [[-SHRINK, 0], [0, -SHRINK]]])


def closed_form(case: int, times: Any) -> tuple[Any, Any]:
    """Place and velocity on the infinite path in the complex plane: a spiral, or a decay."""
    target, origin = (complex(*x) for x in (TARGET, ORIGIN))
    pull = RATE / SCALE * GAIN * CURVATURE
    if case == 0:
        rest = pull / (pull + TURN**2 - 1j * TURN * DISCOUNT) * target
        rate = math.sqrt(DISCOUNT**2 / 4 + pull) - DISCOUNT / 2 - 1j * TURN
    else:
        extra = SHRINK * (SHRINK + DISCOUNT)
        rest = pull / (pull + extra) * target
        rate = math.sqrt(DISCOUNT**2 / 4 + pull + extra) - DISCOUNT / 2
    away = (origin - rest) * np.exp(-rate * times)
    return rest + away, -rate * away


def infinite_action(case: int) -> float:
    """What the infinite path costs, by quadrature."""
    linear = (1j * TURN, -SHRINK)[case]

    def cost(t: float) -> float:
        z, v = closed_form(case, t)
        kinetic = SCALE * abs(v - linear * z) ** 2 / (2 * RATE)
        loss = CURVATURE * abs(z - complex(*TARGET)) ** 2 / 2 + LOWEST
        return math.exp(-DISCOUNT * t) * (kinetic + GAIN * loss)

    return integrate.quad(cost, 0, 60, limit=200, epsabs=1e-11)[0]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_with_its_value_as_the_end_a_path_begins_the_infinite_one():
    """Action and path do not depend on the duration, constant of the value included."""
    durations = np.array([1.0, 2.0, 8.0])

    def target_loss(x: jax.Array) -> jax.Array:
        return CURVATURE * jnp.sum((x - TARGET) ** 2) / 2 + LOWEST

    @jit
    def plan(drift: jax.Array, durations: jax.Array) -> Any:
        objective = Objective(RATE, GAIN, DISCOUNT, jnp.full(2, SCALE), lambda x: drift @ x)
        value = control.quadratic_value(objective, target_loss, jnp.asarray(TARGET))

        def to(duration: jax.Array) -> LeastActionPath:
            return least_action_path(
                objective,
                target_loss,
                jnp.asarray(ORIGIN),
                duration=duration,
                num_points=201,
                terminal_value=value,
            )

        return jax.vmap(to)(durations), value(jnp.asarray(ORIGIN))

    for case in range(2):
        got, value = plan(DRIFTS[case], durations)
        np.testing.assert_array_equal(got.status, CONVERGED)
        # The adaptive quadrature, and e^{-54} that it leaves out.
        np.testing.assert_allclose(value, infinite_action(case), rtol=1e-9)
        # The midpoint rule is of second order in time steps of 0.04 at most, with rates near one.
        np.testing.assert_allclose(got.action, np.full(3, value), rtol=1e-3)
        np.testing.assert_allclose(got.action[0], value, rtol=1e-5)
        want = closed_form(case, np.asarray(got.times))[0]
        np.testing.assert_allclose(got.params, np.stack([want.real, want.imag], -1), atol=1e-3)
        np.testing.assert_allclose(got.params[2, :26], got.params[0, ::8], atol=1e-3)


# --- status -------------------------------------------------------------------------------------

CASES: dict[str, tuple[float, ...]] = {
    # Curvature at 0, quartic, start, number of steps, where the derivative is undefined below.
    "bowl": (1.0, 0.0, 1.0, 100, -1e3),
    "few steps": (-1.0, 1.0, 0.1, 2, -1e3),
    "on top of the hill": (-1.0, 1.0, 0.0, 100, -1e3),
    "beside the top": (-1.0, 1.0, 1e-3, 100, -1e3),
    "concave": (-1.0, 0.0, 0.1, 100, -1e3),
    "nan": (math.nan, 0.0, 1.0, 100, -1e3),
    "nan derivative": (1.0, 0.0, 1.0, 100, 2.0),
    "nan derivative on the way": (1.0, 0.0, 1.0, 100, 0.5),
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, LeastActionPath]:
    """Paths of duration 10 to a free end, without discount."""
    with jax.enable_x64(True):

        @jit
        @jax.vmap
        def plan(case: jax.Array) -> LeastActionPath:
            curvature, quartic, start, max_steps, edge = case

            def loss(x: jax.Array) -> jax.Array:
                # Finite everywhere, but its derivative below the edge is 0 * nan.
                trap = 1e-12 * jnp.where(x > edge, jnp.sqrt(x - edge), 0.0)
                return curvature * x**2 / 2 + quartic * x**4 / 4 + trap

            steps: Any = max_steps
            return least_action_path(
                Objective(discount=0.0), loss, start, duration=10.0, num_points=31, max_steps=steps
            )

        found = jax.tree.map(np.asarray, plan(jnp.array(list(CASES.values()))))
        return {k: jax.tree.map(lambda x, i=i: x[i], found) for i, k in enumerate(CASES)}


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("bowl", PathStatus.CONVERGED),
        ("few steps", PathStatus.OUT_OF_STEPS),
        # Its gradient is zero, but its Hessian is not positive definite.
        ("on top of the hill", PathStatus.STALLED),
        ("beside the top", PathStatus.CONVERGED),
        ("concave", PathStatus.UNBOUNDED),
        ("nan", PathStatus.NOT_FINITE),
        ("nan derivative", PathStatus.NOT_FINITE),
        ("nan derivative on the way", PathStatus.NOT_FINITE),
    ],
)
def test_status(outcomes: dict[str, LeastActionPath], case: str, status: PathStatus):
    assert PathStatus(int(outcomes[case].status)) is status
    if status == PathStatus.OUT_OF_STEPS:
        assert outcomes[case].num_steps == 2


def test_a_path_beside_the_top_of_a_hill_leaves_it(outcomes: dict[str, LeastActionPath]):
    """Into the well at 1, and so at less cost than to stay, which costs nothing."""
    path = outcomes["beside the top"]
    assert abs(path.params[-1] - 1) < 0.1
    assert path.action < -1
    # But for 1e-12 times the root of a thousand, over a duration of ten.
    np.testing.assert_allclose(outcomes["on top of the hill"].action, 0, atol=1e-9)


# --- several optima -----------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_around_a_barrier_there_are_two_ways():
    """The barrier is centered above the straight line, so that below it is the shorter way."""
    s = np.linspace(0, 1, 31)

    def arc(height: float) -> np.ndarray:
        return np.stack([2 * s - 1, height * np.sin(np.pi * s)], 1)

    # Two guesses above, one below, and one that is none.
    guesses = np.stack([arc(0.9), arc(-0.9), arc(1.2), arc(np.nan)])

    def barrier(x: jax.Array) -> jax.Array:
        return 3 * jnp.exp(-(x[0] ** 2 + (x[1] - 0.15) ** 2) / 0.18)

    @jit
    def search(max_steps: Any) -> MultiStart:
        return multi_start(
            Objective(discount=0.2),
            barrier,
            np.array([-1.0, 0.0]),
            np.array([1.0, 0.0]),
            guesses=guesses,
            duration=2.0,
            max_steps=max_steps,
        )

    found = search(100)
    want = [CONVERGED, CONVERGED, CONVERGED, PathStatus.NOT_FINITE]
    np.testing.assert_array_equal(found.paths.status, want)
    np.testing.assert_array_equal(found.distinct, [True, True, False, False])
    above, below, again, _ = np.asarray(found.paths.params)
    assert above[15, 1] > 0.3 and below[15, 1] < -0.1
    # The tolerance of convergence is 1e-8, and the last step squares it.
    np.testing.assert_allclose(above, again, atol=1e-8)
    np.testing.assert_array_equal(found.best.params, below)
    assert found.best.action == found.paths.action[1] < found.paths.action[0]
    np.testing.assert_array_equal(found.best.times, found.paths.times[1])

    none = search(0)
    np.testing.assert_array_equal(
        none.paths.status, [PathStatus.OUT_OF_STEPS] * 3 + [PathStatus.NOT_FINITE]
    )
    assert not np.any(none.distinct)
    np.testing.assert_array_equal(none.best.params, none.paths.params[0])


# --- derivatives --------------------------------------------------------------------------------


def small_path(
    start: jax.Array, end: jax.Array, discount: jax.Array, rate: jax.Array, tilt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    path = least_action_path(
        Objective(rate=rate, discount=discount),
        lambda x: (x[0] ** 2 - 1) ** 2 + x[1] ** 2 - tilt * x[0],
        start,
        end,
        duration=2.0,
        num_points=6,
    )
    return path.params, path.action


SMALL: Any = (START, END, 0.3, 0.8, 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_first_derivatives():
    """Of the action, forwards and backwards, that of its explicit terms: the envelope theorem."""
    tangents: Any = (np.array([0.3, -0.2]), np.array([-0.1, 0.4]), 0.7, -0.3, 0.6)

    @jit
    def derivatives(*args: Any) -> Any:
        primal, linear = jax.linearize(small_path, *args)
        of_action = (jnp.zeros_like(primal[0]), jnp.ones(()))
        return primal, linear(*tangents), jax.linear_transpose(linear, *args)(of_action)

    (path, _), (path_dot, action_dot), gradient = derivatives(*map(jnp.asarray, SMALL))

    def cost(path: Any, discount: Any, rate: Any, tilt: Any) -> Any:
        def lagrangian(x: Any, v: Any) -> Any:
            loss = (x[..., 0] ** 2 - 1) ** 2 + x[..., 1] ** 2 - tilt * x[..., 0]
            return (v**2).sum(-1) / (2 * rate) + loss

        return oracles.path_action(lagrangian, path, 2.0, discount)

    by_point = oracles.path_gradient(lambda p: cost(p, *SMALL[2:]), np.asarray(path))
    explicit = [cost(path, *(np.array(SMALL[2:]) + 1e-30j * e)).imag / 1e-30 for e in np.eye(3)]
    want = [by_point[0], by_point[-1], *explicit]
    for got, value in zip(gradient, want, strict=True):
        # The path is stationary up to its last Newton step, the square of 1e-8 at most.
        np.testing.assert_allclose(got, value, rtol=1e-10)
    total = sum(np.sum(g * t) for g, t in zip(want, tangents, strict=True))
    np.testing.assert_allclose(action_dot, total, rtol=1e-10)

    # That of the path keeps the action stationary: its gradient does not change along it.
    def moved(step: float) -> np.ndarray:
        later = [np.asarray(x) + step * np.asarray(t) for x, t in zip(SMALL, tangents, strict=True)]
        along = np.asarray(path) + step * np.asarray(path_dot)
        return oracles.path_gradient(lambda p: cost(p, *later[2:]), along)[1:-1]

    # Central differences of step 1e-5 are good to its square.
    np.testing.assert_allclose((moved(1e-5) - moved(-1e-5)) / 2e-5, 0, atol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_second_derivatives():
    """Both modes over both modes agree, and with differences of the first derivative."""
    tangents: Any = (np.array([0.3, -0.2]), np.array([-0.1, 0.4]), 0.7, -0.3, 0.6)
    weights = np.random.default_rng(0).normal(size=(6, 2))

    def along(step: jax.Array) -> jax.Array:
        path, cost = small_path(*(x + step * t for x, t in zip(SMALL, tangents, strict=True)))
        return jnp.sum(weights * path) + 0.7 * cost

    def forward(f: Any) -> Any:
        return lambda step: jax.jvp(f, (step,), (jnp.ones(()),))[1]

    @jit
    def slopes(step: jax.Array) -> jax.Array:
        return jnp.stack([forward(along)(step), jax.grad(along)(step)])

    @jit
    def curvatures(step: jax.Array) -> jax.Array:
        modes = (forward, jax.grad)
        return jnp.stack([outer(inner(along))(step) for outer in modes for inner in modes])

    h = 1e-5
    change = (slopes(jnp.asarray(h)) - slopes(jnp.asarray(-h))) / (2 * h)
    got = curvatures(jnp.zeros(()))
    # Newton's last step, the square of 1e-8 at most; the differences are good to h^2.
    np.testing.assert_allclose(got, np.full(4, got[0]), rtol=1e-9)
    np.testing.assert_allclose(change, np.full(2, got[0]), rtol=1e-7)
    assert abs(got[0]) > 1e-2


# --- bad input ----------------------------------------------------------------------------------

PLAIN: dict[str, Any] = dict(duration=1.0, num_points=5)


def norm(x: Any) -> Any:
    return jnp.sum(x**2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration": 0.0}, "least_action_path: duration must be a positive, finite number, got 0"),
        ({"duration": -1}, "least_action_path: duration must be a positive, finite number, got -1"),
        ({"duration": math.nan}, "least_action_path: duration must be a positive"),
        ({"num_points": 2}, "least_action_path: num_points must be at least 3, got 2"),
        ({"node": 1.5}, r"least_action_path: node must be in \[0, 1\], got 1.5"),
        ({"node": -0.1}, r"least_action_path: node must be in \[0, 1\], got -0.1"),
        ({"max_steps": -1}, "least_action_path: max_steps must be a non-negative number, got -1"),
        ({"end": np.ones(3)}, r"path: end must fit the parameters: expected shapes \(2,\), got"),
        ({"end": [np.ones(2)]}, r"least_action_path: end must fit the parameters"),
        ({"end": np.ones(())}, r"least_action_path: end must fit the parameters"),
        ({"guess": np.ones((4, 2))}, r"path: guess must fit the parameters: .* \(5, 2\), got"),
        ({"guess": np.ones(2)}, r"least_action_path: guess must fit the parameters"),
        ({"guess": {"x": np.ones((5, 2))}}, r"least_action_path: guess must fit the parameters"),
        ({"end": np.ones(2), "terminal_value": norm}, "cannot use an end with a terminal_value"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        least_action_path(Objective(), norm, np.ones(2), **(PLAIN | options))


SKEW = np.array([[1.0, 0.5], [0.0, 1.0]])
INDEFINITE = np.array([[1.0, 2.0], [2.0, 1.0]])


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda x: SKEW, "path: the metric is not symmetric: G - G\\^T reaches 0.5"),
        (lambda x: INDEFINITE, "path: the metric is not positive definite: its lowest eigenvalue"),
        (lambda x: np.full((2, 2), np.nan), "least_action_path: the metric is not symmetric"),
        (np.array([1.0, 0.0]), "least_action_path: a diagonal metric must be positive"),
        (lambda x: -x, "least_action_path: a diagonal metric must be positive"),
        (np.ones(3), r"The metric must be None, a tree like the parameters .* \[2, 2\]"),
    ],
)
def test_bad_metric_at_the_start(metric: Any, message: str):
    with pytest.raises(ValueError, match=message):
        least_action_path(Objective(metric=metric), norm, np.ones(2), **PLAIN)


def test_bad_drift_at_the_start():
    with pytest.raises(ValueError, match="The drift must be a tree like the parameters"):
        least_action_path(Objective(drift=lambda x: x[:1]), norm, np.ones(2), **PLAIN)


def test_bad_guesses():
    with pytest.raises(ValueError, match="least_action_path: guess must fit the parameters"):
        multi_start(Objective(), norm, np.ones(2), guesses=np.ones((3, 5, 4)), duration=1.0)
    uneven = {"a": np.ones((3, 5)), "b": np.ones((3, 4))}
    with pytest.raises(ValueError, match="multi_start: every array of a path must have time"):
        multi_start(
            Objective(), lambda x: x["a"], {"a": 1.0, "b": 1.0}, guesses=uneven, duration=1.0
        )


def test_straight_line():
    got = control.straight_line({"x": np.zeros(2)}, {"x": np.array([1.0, -2.0])}, 3)
    np.testing.assert_array_equal(got["x"], [[0, 0], [0.5, -1], [1, -2]])
    with pytest.raises(ValueError, match="straight_line: end must fit the parameters"):
        control.straight_line(np.zeros(2), np.zeros(3), 3)
