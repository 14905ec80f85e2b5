"""Receding horizons against the landscape's global minimum and the exact closed loop."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from beliefnav import Objective
from beliefnav.beliefs import Posterior
from beliefnav.control import (
    PathStatus,
    Policy,
    follow,
    local_quadratic,
    lq_policy,
    matrix_horizon,
    myopic,
    navigate,
    navigate_locally,
    quadratic_value,
    straight_line,
)
from tests import oracles

# --- planning whole paths -----------------------------------------------------------------------


def double_well(x: Any) -> Any:
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2 - x[0] / 2


def well(near: float) -> float:
    """Where along the first axis the minimum next to a point is."""
    roots = np.roots([4.0, 0.0, -4.0, -0.5]).real
    return roots[np.argmin(np.abs(roots - near))]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_navigation_goes_where_the_first_guess_points():
    """Across the barrier to the global minimum, or to the minimum of the basin that it is in."""
    objective, start = Objective(discount=0.1), jnp.array([-0.6, 0.55])
    ends = jnp.array([[1.0, 0.0], [-1.0, 0.0]])

    @jax.jit
    @jax.vmap
    def go(end: Any) -> Any:
        return navigate(
            objective,
            double_well,
            start,
            lookahead=4.0,
            num_points=50,
            hold=5,
            num_plans=30,
            guess=straight_line(start, end, 50),
        )

    got = go(ends)
    np.testing.assert_array_equal(got.status, PathStatus.CONVERGED)
    assert got.params.shape == (2, 151, 2)
    np.testing.assert_allclose(got.times[0], np.arange(151) * 4 / 49, rtol=1e-12)
    np.testing.assert_array_equal(got.params[:, 0], np.stack([start, start]))
    # The free end of each plan is felt as e^{-(gamma + 2 r) T}, and twelve units of time are left
    # to come to rest, at rates of at least 1.3.
    want = [[well(1.05), 0.0], [well(-0.95), 0.0]]
    np.testing.assert_allclose(got.params[:, -1], want, atol=1e-4)
    # The barrier is crossed once, and the other basin is never left.
    across = np.asarray(got.params[..., 0] > 0)
    assert np.sum(np.diff(across[0].astype(int)) != 0) == 1 and not np.any(across[1])
    # A plan costs less the nearer it begins to the minimum, and Newton's method is warm by then.
    assert np.all(got.planned_action[:, 0] > got.planned_action[:, -1])
    assert np.all(got.num_steps[:, -1] < got.num_steps[:, 0])


HESSIAN = np.array([[1.0, 0.3], [0.3, 0.5]])
CENTER = np.array([0.5, -0.4])
DRIFT = np.array([[-0.1, 0.4], [-0.3, 0.1]])
METRIC = np.array([[1.2, 0.4], [0.4, 0.9]])
START = {"a": np.array([1.5]), "b": np.array(1.0)}


def flat(tree: Any) -> Any:
    """[..., 2]"""
    return jnp.concatenate([tree["a"], tree["b"][..., None]], -1)


def tree(x: Any) -> Any:
    return {"a": x[..., :1], "b": x[..., 1]}


def quadratic(params: Any) -> Any:
    d = flat(params) - CENTER
    return 0.2 + d @ HESSIAN @ d / 2


QUADRATIC = Objective(
    rate=1.1,
    gain=1.3,
    discount=0.7,
    metric=lambda params: METRIC,
    drift=lambda params: tree(DRIFT @ flat(params)),
)


def exact_path(times: Any) -> Any:
    """[time, 2] of the optimal policy, from the start."""
    zero = np.zeros(2)
    lq = oracles.lq_solution(HESSIAN, CENTER, zero, METRIC, DRIFT, zero, 1.1, 1.3, 0.7)
    generator = np.block([[lq.closed_loop, lq.offset[:, None]], [np.zeros(3)]])
    start = np.append(flat(START), 1.0)
    return np.stack([linalg.expm(t * generator) @ start for t in times])[:, :2]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_terminal_value_makes_a_short_look_ahead_that_of_the_stationary_policy():
    """On a quadratic with a drift, to the square of the time step; without it, it is not."""
    value = jax.jit(lambda: quadratic_value(QUADRATIC, quadratic, tree(jnp.asarray(CENTER))))()

    @jax.jit
    def go(value: Any, worth: Any, lookahead: Any) -> Any:
        return navigate(
            QUADRATIC,
            quadratic,
            START,
            lookahead=lookahead,
            num_points=17,
            hold=8,
            num_plans=5,
            terminal_value=lambda params: worth * value(params),
        )

    def error(lookahead: float, worth: float) -> float:
        taken = go(value, worth, lookahead)
        assert taken.params["a"].shape == (41, 1)
        assert taken.params["b"].shape == taken.times.shape == (41,)
        np.testing.assert_array_equal(taken.status, PathStatus.CONVERGED)
        np.testing.assert_allclose(taken.times, np.arange(41) * lookahead / 16, rtol=1e-12)
        return np.abs(flat(taken.params) - exact_path(taken.times))[taken.times <= 2].max()

    finer, coarser = error(0.8, 1.0), error(1.6, 1.0)
    assert finer < 1e-3
    np.testing.assert_allclose(coarser / finer, 4, atol=0.3)
    assert error(0.8, 0.0) > 0.1


@pytest.mark.parametrize("hold", [0, 10])
def test_hold_must_fit_into_a_plan(hold: int):
    with pytest.raises(ValueError, match=rf"navigate: hold must be in 1 .* = 9, got {hold}"):
        navigate(
            Objective(),
            double_well,
            jnp.ones(2),
            lookahead=1,
            num_points=10,
            hold=hold,
            num_plans=1,
        )


def test_there_must_be_a_plan():
    with pytest.raises(ValueError, match="navigate: num_plans must be at least 1, got 0"):
        navigate(
            Objective(), double_well, jnp.ones(2), lookahead=1, num_points=10, hold=1, num_plans=0
        )
    with pytest.raises(ValueError, match="duration must be"):
        navigate(
            Objective(), double_well, jnp.ones(2), lookahead=-1, num_points=9, hold=1, num_plans=1
        )


# --- steps on a local belief --------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_local_quadratic_is_the_gradient_and_the_hessian_of_the_raveled_tree():
    params = {"a": np.array([0.3, -0.7]), "b": np.array(1.1)}

    def loss(p: Any) -> Any:
        return jnp.sum(p["a"] ** 3) * p["b"] + p["b"] ** 2

    got = jax.jit(lambda p: local_quadratic(loss, p))(params)
    # f = (x^3 + y^3) z + z^2
    x, y, z = 0.3, -0.7, 1.1
    np.testing.assert_allclose(got.gradient_mean["a"], [3 * x**2 * z, 3 * y**2 * z], rtol=1e-14)
    np.testing.assert_allclose(got.gradient_mean["b"], x**3 + y**3 + 2 * z, rtol=1e-14)
    hessian = [
        [6 * x * z, 0, 3 * x**2],
        [0, 6 * y * z, 3 * y**2],
        [3 * x**2, 3 * y**2, 2],
    ]
    np.testing.assert_allclose(got.curvature_mean, hessian, rtol=1e-14, atol=1e-15)
    assert got.gradient_variance is None and got.curvature_variance is None


@pytest.mark.usefixtures("x64")
def test_float64_scalars_keep_their_digits():
    """Python numbers and what JAX makes of them, whose type is weak, are float64 here."""
    scalars = {"numpy": np.float64(1.1), "python": 1.1, "jax": jnp.array(1.1)}

    @jax.jit
    def look() -> Any:
        return {name: local_quadratic(lambda x: x**3, x) for name, x in scalars.items()}

    for name, got in look().items():
        assert got.curvature_mean.dtype == jnp.float64, name
        np.testing.assert_allclose(got.curvature_mean, [[6 * 1.1]], rtol=1e-15)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("drift", [False, True])
def test_held_steps_on_a_quadratic_are_the_exact_closed_loop(drift: bool):
    """The local quadratic is then the loss wherever one looks, and no plan is ever revised."""
    objective = QUADRATIC if drift else dataclasses.replace(QUADRATIC, drift=None)
    policy = matrix_horizon(objective, 0.4, exact_hold=True)

    @jax.jit
    def go() -> Any:
        return navigate_locally(
            policy, lambda params, step: local_quadratic(quadratic, params), START, num_steps=10
        )

    got = go()
    assert got["a"].shape == (11, 1) and got["b"].shape == (11,)
    zero = np.zeros(2)
    matrix = DRIFT if drift else 0 * DRIFT
    lq = oracles.lq_solution(HESSIAN, CENTER, zero, METRIC, matrix, zero, 1.1, 1.3, 0.7)
    generator = np.block([[lq.closed_loop, lq.offset[:, None]], [np.zeros(3)]])
    start = np.append(flat(START), 1.0)
    want = np.stack([linalg.expm(0.4 * i * generator) @ start for i in range(11)])[:, :2]
    np.testing.assert_allclose(flat(got), want, atol=1e-11)  # roundings of ten steps


def test_belief_may_be_drawn_anew_at_every_step():
    """Noise of the step's own number, which the belief is told."""
    keys = jax.random.split(jax.random.key(0), 6)

    def believe(params: Any, step: Any) -> Posterior:
        return Posterior(gradient_mean=params + jax.random.normal(keys[step], (3,)))

    descend = Policy(lambda posterior, params: 0.5 * posterior.gradient_mean)
    got = navigate_locally(descend, believe, np.ones(3, np.float32), num_steps=6)
    assert got.shape == (7, 3) and got.dtype == jnp.float32
    x = np.ones(3)
    for step in range(6):
        np.testing.assert_allclose(got[step], x, rtol=1e-5, atol=1e-6)  # float32
        x = x - 0.5 * (x + np.asarray(jax.random.normal(keys[step], (3,))))
    np.testing.assert_allclose(got[6], x, rtol=1e-5, atol=1e-6)


def test_steps_must_be_and_beliefs_must_suffice():
    def believe(params: Any, step: Any) -> Posterior:
        return Posterior()

    with pytest.raises(ValueError, match="navigate_locally: num_steps must be at least 1, got 0"):
        navigate_locally(myopic(), believe, jnp.ones(2), num_steps=0)
    with pytest.raises(ValueError, match="control.myopic with a belief that has no gradient_mean"):
        navigate_locally(myopic(), believe, jnp.ones(2), num_steps=1)


# --- following a policy -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_following_the_policy_is_its_path():
    times = np.array([0.0, 0.5, 2.0, 6.0])

    @jax.jit
    def go() -> Any:
        policy = lq_policy(QUADRATIC, HESSIAN, tree(jnp.asarray(CENTER)))
        return follow(policy.velocity, START, times, rtol=1e-9, atol=1e-10)

    got = go()
    assert got.succeeded
    assert got.params["a"].shape == (4, 1) and got.params["b"].shape == (4,)
    # Some tens of steps of the relative tolerance.
    np.testing.assert_allclose(flat(got.params), exact_path(times), atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_times_that_are_not_reached_are_infinite():
    """Begun at the first time, whatever it is: an oscillation that takes many steps."""
    times = jnp.array([3.0, 3.1, 1000.0])

    def go(max_steps: int) -> Any:
        return follow(
            lambda x: jnp.stack([-x[1], x[0]]), jnp.array([1.0, 0.0]), times, max_steps=max_steps
        )

    short = go(100)
    assert not short.succeeded
    np.testing.assert_allclose(short.params[1], [np.cos(0.1), np.sin(0.1)], atol=1e-6)
    assert np.all(np.isinf(short.params[2]))


def test_integers_are_followed_in_floating_point():
    got = follow(lambda x: -x, 2, np.array([0.0, 1.0], np.float32))
    assert got.params.dtype == jnp.float32
    np.testing.assert_allclose(got.params[1], 2 * np.exp(-1), rtol=1e-5)  # the default tolerance


def test_tolerances_and_times_are_checked():
    for name in ("rtol", "atol"):
        tolerance: dict[str, Any] = {name: 0.0}
        with pytest.raises(ValueError, match=f"follow: {name} must be"):
            follow(lambda x: -x, jnp.ones(1), np.arange(3.0), **tolerance)
    for times in (np.array([0.0]), np.array(1.0), np.ones((2, 2))):
        with pytest.raises(ValueError, match=r"follow: times must be \[time\] with at least 2"):
            follow(lambda x: -x, jnp.ones(1), times)
