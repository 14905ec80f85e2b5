"""Receding horizons against the exact closed loop."""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from beliefnav import Objective
from beliefnav.beliefs import Posterior
from beliefnav.control import (
    Policy,
    follow,
    lq_policy,
    matrix_horizon,
    myopic,
    navigate_locally,
)
from tests import oracles

# --- steps on a local belief ---------------------------------------------------------------------

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


def exact_path(times: Any, drift: Any = DRIFT) -> Any:
    """[time, 2] of the optimal policy, from the start."""
    zero = np.zeros(2)
    lq = oracles.lq_solution(HESSIAN, CENTER, zero, METRIC, drift, zero, 1.1, 1.3, 0.7)
    generator = np.block([[lq.closed_loop, lq.offset[:, None]], [np.zeros(3)]])
    start = np.append(flat(START), 1.0)
    return np.stack([linalg.expm(t * generator) @ start for t in times])[:, :2]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("drift", [False, True])
def test_held_steps_on_a_quadratic_are_the_exact_closed_loop(drift: bool):
    """The local quadratic is then the loss wherever one looks, and no plan is ever revised."""
    objective = QUADRATIC if drift else dataclasses.replace(QUADRATIC, drift=None)
    policy = matrix_horizon(objective, 0.4, exact_hold=True)

    def believe(params: Any, step: Any) -> Posterior:
        return Posterior(jax.grad(quadratic)(params), curvature_mean=HESSIAN)

    got = jax.jit(lambda: navigate_locally(policy, believe, START, num_steps=10))()
    assert got["a"].shape == (11, 1) and got["b"].shape == (11,)
    want = exact_path(0.4 * np.arange(11), DRIFT if drift else 0 * DRIFT)
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


def test_without_diffrax_it_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match=r"Cannot follow.*do pip install 'beliefnav\[paths\]'"):
        follow(lambda x: -x, jnp.ones(1), jnp.array([0.0, 1.0]))
