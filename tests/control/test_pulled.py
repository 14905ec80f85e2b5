"""Policies that know of a drift or a penalty: against minimisers of the objective."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import Objective, control
from beliefnav.beliefs import Kronecker, Posterior
from beliefnav.control.gains.lq import diagonal_lq_policy
from tests import oracles
from tests.control.laws import assert_settles_near_the_start, flat

M = {"a": np.array([1.0, -2.0, 0.5]), "b": [np.array(3.0), None]}
V = {"a": np.array([4.0, 0.25, 0.0]), "b": [np.array(9.0), None]}
THETA = {"a": np.array([0.4, -1.0, 2.0]), "b": [np.array(-0.3), None]}
START = {"a": np.array([-0.5, 0.7, 1.0]), "b": [np.array(0.2), None]}
POSTERIOR = Posterior(gradient_mean=M, curvature_mean=V)


ENTRIES = list(zip(*map(flat, (M, V, THETA, START)), strict=True))

# --- countering a decay -------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("decay", "discount"), [(0.3, 0.0), (0.3, 1.3), (2.0, 0.5)])
def test_countering_is_the_lq_policy_of_a_decay(decay: float, discount: float):
    """By a Riccati solver, entry by entry."""
    got = flat(control.countering(decay, discount).step(POSTERIOR, THETA))
    one = np.eye(1)
    for step, (m, v, theta, _) in zip(got, ENTRIES, strict=True):
        lq = oracles.lq_solution(
            v * one, theta * one[0], m * one[0], one, -decay * one, 0 * one[0], 1.0, 1.0, discount
        )
        want = lq.closed_loop @ [theta] + lq.offset
        np.testing.assert_allclose(-step, want[0], rtol=1e-9)
    # And by the library's own closed form, which knows drifts in general.
    objective = Objective(discount=discount, drift=lambda p: jax.tree.map(lambda x: -decay * x, p))
    policy = diagonal_lq_policy(objective, V, THETA, M)
    np.testing.assert_allclose(-got, flat(policy.velocity(THETA)), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_countering_takes_the_first_step_of_the_cheapest_path():
    r"""Of $\int e^{-\gamma t} [(\dot\theta + j\theta)^2 + V (\theta - \theta^*)^2] / 2$."""
    decay, discount, v, optimum, theta = 0.4, 1.1, 0.8, 1.5, -0.5
    times = np.linspace(0, 30, 20_001)
    one = np.eye(1)
    path = oracles.lq_path(
        np.array([theta]), v * one, np.array([optimum]), np.zeros(1), one, -decay * one,
        np.zeros(1), 1.0, 1.0, discount, times,
    )[:, 0]  # fmt: skip
    velocity = (4 * path[1] - path[2] - 3 * path[0]) / (2 * times[1])
    posterior = Posterior(jnp.asarray(v * (theta - optimum)), None, jnp.asarray(v))
    got = control.countering(decay, discount).step(posterior, jnp.asarray(theta))
    # Second order in the grid of 1.5e-3.
    np.testing.assert_allclose(-got, velocity, rtol=1e-5)
    # It rests where decay and loss balance.
    rest = v * optimum / (v + decay * (decay + discount))
    there = Posterior(jnp.asarray(v * (rest - optimum)), None, jnp.asarray(v))
    np.testing.assert_allclose(
        control.countering(decay, discount).step(there, jnp.asarray(rest)), 0, atol=1e-15
    )


@pytest.mark.usefixtures("x64")
def test_countering_without_decay_is_the_plan_without_drift():
    posterior = POSTERIOR._replace(curvature_mean=jax.tree.map(lambda v: v + 0.1, V))
    for discount in (0.0, 1.3):
        got = control.countering(1e-12, discount).step(posterior, THETA)
        want = control.horizon(Objective(discount=discount)).step(posterior, THETA)
        # First order in the decay.
        np.testing.assert_allclose(flat(got), flat(want), rtol=1e-10)
    floor = control.countering(0.5, 1.3, eps_root=0.1).step(POSTERIOR, THETA)
    np.testing.assert_allclose(
        flat(floor), flat(control.countering(0.5, 1.3).step(posterior, THETA)), rtol=1e-14
    )


def test_negative_curvature_is_read_as_zero_and_counted():
    policy = control.countering(0.3)
    posterior = Posterior(jnp.ones(3), None, jnp.asarray([-2.0, 0.0, 1.0]))
    got = policy.step(posterior, jnp.ones(3))
    assert got[0] == got[1] and np.all(np.isfinite(got))
    assert policy.clipped is not None
    np.testing.assert_array_equal(policy.clipped(posterior, None), [True, False, False])


# --- a known penalty ----------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("around_start", [True, False])
def test_penalised_newton_minimises_loss_and_penalty(around_start: bool):
    strength = 0.6
    m, v, theta, start = map(flat, (M, V, THETA, START))
    center = start if around_start else 0
    places = (THETA, START) if around_start else (THETA,)
    policy = control.penalised(control.newton(), strength, around_start=around_start)
    assert policy.uses_start == around_start
    got = flat(policy.step(POSTERIOR, *places))
    np.testing.assert_allclose(got, (m + strength * (theta - center)) / (v + strength), rtol=1e-13)
    # The gradient of everything is 0 after the step.
    np.testing.assert_allclose(m - v * got + strength * (theta - got - center), 0, atol=1e-13)
    # With a matrix of curvature, the minimiser solves a system.
    x = np.random.default_rng(0).normal(size=(4, 4))
    policy = control.penalised(control.matrix_newton(), strength, around_start=around_start)
    got = flat(policy.step(Posterior(gradient_mean=M, curvature_mean=x @ x.T), *places))
    want = np.linalg.solve(x @ x.T + strength * np.eye(4), m + strength * (theta - center))
    np.testing.assert_allclose(got, want, rtol=1e-11)


@pytest.mark.usefixtures("x64")
def test_penalties_add_and_pass_the_start_on():
    once = control.penalised(control.newton(), 0.5)
    twice = control.penalised(once, 0.1, around_start=False)
    assert twice.uses_start
    m, v, theta, start = map(flat, (M, V, THETA, START))
    want = (m + 0.5 * (theta - start) + 0.1 * theta) / (v + 0.6)
    np.testing.assert_allclose(flat(twice.step(POSTERIOR, THETA, START)), want, rtol=1e-13)
    resetting = control.penalised(control.resetting(0.3), 0.1, around_start=False)
    assert resetting.uses_start
    stiff = Posterior(
        jax.tree.map(lambda m, x: m + 0.1 * x, M, THETA), None, jax.tree.map(lambda v: v + 0.1, V)
    )
    np.testing.assert_allclose(
        flat(resetting.step(POSTERIOR, THETA, START)),
        flat(control.resetting(0.3).step(stiff, THETA, START)),
        rtol=1e-13,
    )
    # A belief without curvature stays one; the penalty is felt in the gradient.
    plain = control.penalised(control.myopic(), 0.5)
    got = plain.step(Posterior(gradient_mean=M), THETA, START)
    np.testing.assert_allclose(flat(got), m + 0.5 * (theta - start), rtol=1e-14)
    assert plain.clipped is None


def test_penalised_counts_what_is_still_clipped():
    policy = control.penalised(control.newton(), 1.0)
    posterior = Posterior(jnp.ones(3), None, jnp.asarray([-2.0, -0.5, 1.0]))
    assert policy.clipped is not None
    np.testing.assert_array_equal(policy.clipped(posterior, jnp.ones(3)), [True, False, False])
    got = policy.step(posterior, jnp.ones(3), jnp.ones(3))
    np.testing.assert_allclose(got, [0, 2, 0.5], rtol=1e-6)


# --- in an optimizer ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_optimizers_keep_the_start_and_settle_near_it(dtype: str):
    """The stronger the penalty, the nearer."""
    strengths = np.array([0.5, 2.0])

    def make(strength: Any) -> control.Policy:
        return control.penalised(control.newton(), strength)

    # Converged to 0.7^60; bfloat16 stops where a step is less than half its spacing of 2^-7.
    atol = 1e-5 if dtype == "float32" else 0.05
    assert_settles_near_the_start(make, strengths, strengths, dtype, atol)


def test_no_parameters_get_no_step():
    nothing = Posterior(gradient_mean={"a": None}, curvature_mean={"a": None})
    empty = {"a": None}
    assert control.penalised(control.newton(), 0.1).step(nothing, empty, empty) == empty
    assert control.countering(0.1).step(nothing, empty) == empty


# --- errors -------------------------------------------------------------------------------------


def test_where_the_parameters_are_must_be_given():
    for policy, name in (
        (control.countering(0.1), "countering"),
        (control.penalised(control.newton(), 0.1), "penalised"),
    ):
        places = (None, START)[: 2 if policy.uses_start else 1]
        with pytest.raises(ValueError, match=f"control.{name} without params"):
            policy.step(POSTERIOR, *places)
        with pytest.raises(ValueError, match=f"control.{name} with a belief .* no gradient_mean"):
            policy.step(Posterior(curvature_mean=V), THETA, *places[1:])


def test_beliefs_that_do_not_fit_are_refused():
    gradient = Posterior(gradient_mean=M)
    with pytest.raises(ValueError, match="control.countering with a belief .* no curvature_mean"):
        control.countering(0.1).step(gradient, THETA)
    product = Posterior(
        gradient_mean=jnp.ones((2, 2)), curvature_mean=Kronecker(jnp.eye(2), jnp.eye(2))
    )
    policy = control.penalised(control.matrix_ballistic(), 0.1)
    with pytest.raises(ValueError, match="control.penalised with a Kronecker product"):
        policy.step(product, jnp.ones((2, 2)), jnp.ones((2, 2)))


@pytest.mark.parametrize("value", [-0.1, np.inf, np.nan])
def test_numbers_out_of_range_are_named(value: float):
    for name in ("decay", "discount", "eps_root"):
        with pytest.raises(ValueError, match=f"countering: {name} must be"):
            control.countering(**({"decay": 1.0} | {name: value}))
    with pytest.raises(ValueError, match="penalised: strength must be"):
        control.penalised(control.newton(), value)
    with pytest.raises(ValueError, match="countering: decay must be"):
        control.countering(0.0)
