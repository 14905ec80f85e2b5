"""Policies that act on a forecast of the optimum: against minimisers and formulas with inverses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import Objective, beliefs, control, filters
from beliefnav.beliefs import Posterior
from tests import oracles
from tests.control.laws import assert_settles_near_the_start, flat

G = {"a": np.array([1.0, -2.0, 0.5]), "b": [np.array(3.0), None]}
V = {"a": np.array([4.0, 0.25, 0.0]), "b": [np.array(9.0), None]}
THETA = {"a": np.array([0.4, -1.0, 2.0]), "b": [np.array(-0.3), None]}
START = {"a": np.array([-0.5, 0.7, 1.0]), "b": [np.array(0.2), None]}
PRIOR = {"a": np.array([0.3, -0.1, 0.8]), "b": [np.array(1.1), None]}
POSTERIOR = Posterior(gradient_mean=G, curvature_mean=V)


# --- tasks that switch --------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("hazard", "discount"), [(0.3, 1.3), (2.0, 0.4), (0.5, 0.0), (0.0, 1.0)])
def test_resetting_takes_the_first_step_of_the_cheapest_path(hazard: float, discount: float):
    policy = control.resetting(hazard, discount)
    v, optimum, times = 0.8, 1.5, np.linspace(0, 60, 30_001)
    for theta, start in ((-0.5, 0.7), (1.5, -1.0), (0.2, 0.2)):
        posterior = Posterior(jnp.asarray(v * (theta - optimum)), None, jnp.asarray(v))
        got = policy.step(posterior, jnp.asarray(theta), jnp.asarray(start))
        target = start + np.exp(-hazard * times) * (optimum - start)
        want = oracles.cheapest_velocity(v, theta, times, target, discount)
        # Second order in the grid of 2e-3; the end is felt as e^{-50}.
        np.testing.assert_allclose(-got, want, rtol=3e-5, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_resetting_is_a_weighted_mean_of_two_plans():
    r"""$w m + (1-w) V (\theta - \theta_0)$ over $\gamma + r$, and its rest that of L2-Init."""
    hazard, discount = 0.7, 1.3
    policy = control.resetting(hazard, discount)
    m, v, theta, start = map(flat, (G, V, THETA, START))
    s = np.sqrt(discount**2 / 4 + v) + discount / 2
    w = s / (s + hazard)
    got = flat(policy.step(POSTERIOR, THETA, START))
    np.testing.assert_allclose(got, (w * m + (1 - w) * v * (theta - start)) / s, rtol=1e-13)
    # At rest, h (x - x*) + l (x - start) = 0 with l = h hazard / (discount + r).
    v, optimum, start = 0.8, 1.5, -0.4
    s = np.sqrt(discount**2 / 4 + v) + discount / 2
    rest = (v * optimum + v * hazard / s * start) / (v + v * hazard / s)
    posterior = Posterior(jnp.asarray(v * (rest - optimum)), None, jnp.asarray(v))
    np.testing.assert_allclose(
        policy.step(posterior, jnp.asarray(rest), jnp.asarray(start)), 0, atol=1e-15
    )


@pytest.mark.usefixtures("x64")
def test_resetting_without_curvature_or_discount():
    """A flat direction is left by m / hazard, the limit; without hazards there is no plan."""
    v = jnp.asarray([0.0, 1e-30, -1.0])
    posterior = Posterior(jnp.full(3, 2.0), None, v)
    got = control.resetting(0.5, 0.0).step(posterior, jnp.ones(3), jnp.zeros(3))
    np.testing.assert_allclose(got, 4, rtol=1e-12)
    got = control.resetting(0.0, 0.0).step(posterior, jnp.ones(3), jnp.zeros(3))
    np.testing.assert_allclose(got, [0, 2e15, 0], rtol=1e-12)
    # Without hazards it is the plan without resets.
    plain = control.horizon(Objective(discount=1.3)).step(POSTERIOR, THETA)
    got = control.resetting(0.0, 1.3).step(POSTERIOR, THETA, START)
    np.testing.assert_allclose(flat(got), flat(plain), rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_the_hazard_may_be_that_of_the_belief():
    p, time_step = 0.2, 0.5
    belief = POSTERIOR._replace(hazard=jnp.asarray(p))
    got = control.resetting(time_step=time_step).step(belief, THETA, START)
    want = control.resetting(-np.log(1 - p) / time_step).step(POSTERIOR, THETA, START)
    np.testing.assert_allclose(flat(got), flat(want), rtol=1e-13)
    # What is given is not overruled.
    got = control.resetting(0.3, time_step=time_step).step(belief, THETA, START)
    np.testing.assert_array_equal(
        flat(got), flat(control.resetting(0.3).step(POSTERIOR, THETA, START))
    )
    # A switch that is certain: only the prior mean counts.
    belief = POSTERIOR._replace(hazard=jnp.ones(()))
    v = flat(V)
    r = v / (np.sqrt(1 / 4 + v) + 1 / 2)
    got = flat(control.resetting().step(belief, THETA, START))
    np.testing.assert_allclose(got, r * (flat(THETA) - flat(START)), rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_the_prior_mean_is_relative_to_the_start():
    def shifted(prior: Any) -> Any:
        return jax.tree.map(jnp.add, START, prior)

    half = jax.tree.map(lambda x: jnp.full_like(x, 0.5), THETA)
    for prior, tree in ((0.5, half), (jnp.asarray(0.5), half), (PRIOR, PRIOR)):
        got = control.resetting(0.7, prior_mean=prior).step(POSTERIOR, THETA, START)
        want = control.resetting(0.7).step(POSTERIOR, THETA, shifted(tree))
        np.testing.assert_allclose(flat(got), flat(want), rtol=1e-13)
    # Parameters that are one array have an array for a tree.
    v, theta, start, prior = (jnp.asarray(flat(x)) for x in (V, THETA, START, PRIOR))
    posterior = Posterior(jnp.ones(4), None, v)
    got = control.resetting(0.7, prior_mean=prior).step(posterior, theta, start)
    np.testing.assert_allclose(
        got, control.resetting(0.7).step(posterior, theta, start + prior), rtol=1e-13
    )


# --- any forecast -------------------------------------------------------------------------------


def relaxing(hazard: Any, times: np.ndarray) -> Any:
    """The forecast of a task that may switch to one around the start."""

    def forecast(posterior: Posterior, params: Any, start: Any) -> Any:
        def leaf(m: Any, v: Any, theta: Any, start: Any) -> Any:
            left = jnp.exp(-hazard * times).reshape(-1, *(1,) * jnp.ndim(m))
            return (1 - left) * (v * (theta - start))[None] + left * m[None]

        mean, curvature = posterior.gradient_mean, posterior.curvature_mean
        return times, jax.tree.map(leaf, mean, curvature, params, start)

    return forecast


@pytest.mark.usefixtures("x64")
def test_anticipating_a_switch_is_resetting():
    times = np.linspace(0, 90, 30_001)
    for discount in (0.2, 1.3):
        policy = control.anticipating(relaxing(0.4, times), discount)
        want = control.resetting(0.4, discount).step(POSTERIOR, THETA, START)
        # Second order in the grid of 3e-3; the most where the gain is.
        np.testing.assert_allclose(
            flat(policy.step(POSTERIOR, THETA, START)), flat(want), rtol=1e-5
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("discount", [0.0, 0.6])
def test_anticipating_is_the_first_step_of_the_cheapest_path(discount: float):
    """A target that moves on a parabola for a while, and rests."""
    v, theta, times = 0.8, -0.5, np.linspace(0, 60, 30_001)
    target = 1.5 - 0.3 * np.minimum(times, 4) * (3 - np.minimum(times, 4))
    want = oracles.cheapest_velocity(v, theta, times, target, discount)

    def forecast(posterior: Posterior, params: Any, start: Any) -> Any:
        del start
        return times, posterior.curvature_mean * (params - target)

    posterior = Posterior(jnp.asarray(v * (theta - target[0])), None, jnp.asarray(v))
    policy = control.anticipating(forecast, discount)
    got = policy.step(posterior, jnp.asarray(theta), jnp.asarray(0.0))
    np.testing.assert_allclose(-got, want, rtol=1e-5)  # second order in the grid of 2e-3


@pytest.mark.usefixtures("x64")
def test_anticipating_takes_the_forecast_of_a_belief():
    """An Ornstein-Uhlenbeck gradient is expected to vanish at the rate of its memory."""
    belief = beliefs.OrnsteinUhlenbeck(0.9, 0.3, 1.0)
    filter_ = belief.filter()
    state = filter_.init(jnp.zeros(2))
    state = filter_.update(filter_.predict(state), jnp.asarray([1.0, -2.0]))
    now = state.posterior()._replace(curvature_mean=jnp.asarray([0.3, 2.0]))

    def forecast(posterior: Posterior, params: Any, start: Any) -> Any:
        del params, start
        ahead = filters.forecast(belief, state, num_steps=400).gradient_mean
        times = jnp.arange(401) / 10  # ten observations a unit of time
        return times, jnp.concatenate([posterior.gradient_mean[None], ahead])

    got = control.anticipating(forecast, 0.7).step(now, jnp.zeros(2), jnp.zeros(2))
    s = np.sqrt(0.7**2 / 4 + np.array([0.3, 2.0])) + 0.7 / 2
    # Summed by hand: a decay by 0.9 a step, straight in between.
    share = (1 - np.exp(-s / 10)) / (s / 10)
    weight = 1 - 0.1 * share / (1 - 0.9 * np.exp(-s / 10))
    np.testing.assert_allclose(got, weight * np.asarray(now.gradient_mean) / s, rtol=1e-9)


def test_anticipating_nothing_new_is_the_plan_of_the_present():
    def rest(posterior: Posterior, params: Any, start: Any) -> Any:
        del params, start
        return jnp.zeros(1), jax.tree.map(lambda m: m[None], posterior.gradient_mean)

    got = control.anticipating(rest, 1.3).step(POSTERIOR, THETA, START)
    want = control.horizon(Objective(discount=1.3)).step(POSTERIOR, THETA)
    np.testing.assert_allclose(flat(got), flat(want), rtol=1e-6)
    # Nothing curved or discounted: there is no plan.
    got = control.anticipating(rest, 0.0).step(POSTERIOR, THETA, START)
    assert got["a"][2] == 0 and np.all(np.isfinite(flat(got)))


# --- all of them --------------------------------------------------------------------------------


POLICIES = {
    "resetting": control.resetting,
    "anticipating": lambda hazard: control.anticipating(relaxing(hazard, np.linspace(0, 20, 2001))),
}


@pytest.mark.parametrize("name", POLICIES)
def test_negative_curvature_is_read_as_zero_and_counted(name: str):
    policy = POLICIES[name](0.3)
    posterior = Posterior(jnp.ones(3), None, jnp.asarray([-2.0, 0.0, 1.0]))
    got = policy.step(posterior, jnp.ones(3), jnp.ones(3))
    assert got[0] == got[1] and np.all(np.isfinite(got))
    assert policy.clipped is not None
    np.testing.assert_array_equal(policy.clipped(posterior, None), [True, False, False])


@pytest.mark.usefixtures("x64")
def test_steps_are_differentiable():
    """In all there is, also where nothing is curved."""

    @jax.jit
    def total(hazard: Any, discount: Any, prior: Any, v: Any) -> Any:
        posterior = Posterior(jnp.ones(2), None, v)
        step = control.resetting(hazard, discount, prior_mean=prior).step(
            posterior, jnp.ones(2), jnp.zeros(2)
        )
        return jnp.sum(step)

    slopes = jax.jit(jax.grad(total, (0, 1, 2, 3)))
    at, size = np.array([0.4, 1.1, 0.3]), 1e-6
    got = slopes(*at, jnp.full(2, 0.8))  # eigenvalues meet
    for i, e in enumerate(np.eye(3)):
        change = total(*(at + size * e), jnp.full(2, 0.8)) - total(
            *(at - size * e), jnp.full(2, 0.8)
        )
        np.testing.assert_allclose(got[i], change / (2 * size), rtol=1e-7)
    up, down = (total(*at, jnp.asarray([0.8 + d, 0.8])) for d in (size, -size))
    np.testing.assert_allclose(got[3], (up - down) / (2 * size), rtol=1e-7)
    for hazard, discount in np.ndindex(2, 2):
        edge = slopes(np.float64(hazard), np.float64(discount), 0.3, jnp.zeros(2))
        assert np.all(np.isfinite(flat(edge)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", POLICIES)
def test_optimizers_keep_the_start_and_settle_near_it(name: str, dtype: str):
    """The higher the hazard, the nearer."""
    hazards = np.array([0.5, 2.0])
    penalties = hazards / (np.sqrt(1 / 4 + 1) + 1 / 2)
    # Converged to 0.7^60, a grid of 1e-2 for the forecast; bfloat16 stops where a step is less
    # than half its spacing of 2^-7.
    exact = 1e-5 if name != "anticipating" else 1e-4
    atol = exact if dtype == "float32" else 0.05
    assert_settles_near_the_start(POLICIES[name], hazards, penalties, dtype, atol)


def test_half_precision_does_not_round_the_prior_mean():
    one = jnp.asarray(1.0, jnp.bfloat16)
    posterior = Posterior(jnp.zeros(()), None, jnp.ones(()))
    got = control.resetting(1e6, prior_mean=1e-4).step(posterior, one, one)
    np.testing.assert_allclose(got, -1e-4 / (np.sqrt(1 / 4 + 1) + 1 / 2), rtol=1e-5)


@pytest.mark.parametrize("name", POLICIES)
def test_no_parameters_get_no_step(name: str):
    nothing = Posterior(gradient_mean={"a": None}, curvature_mean={"a": None})
    assert POLICIES[name](0.1).step(nothing, {"a": None}, {"a": None}) == {"a": None}


def test_plans_say_what_they_assume():
    def remarks(policy: control.Policy) -> str:
        assert policy.plan is not None
        return " ".join(policy.plan.remarks)

    assert "around the initial parameters 0.3 times" in remarks(control.resetting(0.3))
    assert "as often as the belief says" in remarks(control.resetting())
    assert "relative to the initial" in remarks(control.resetting(0.3, prior_mean=PRIOR))
    assert "forecast" in remarks(POLICIES["anticipating"](0.3))


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_needed_must_be_given(name: str):
    policy = POLICIES[name](0.1)
    with pytest.raises(ValueError, match=f"control.{name} without params"):
        policy.step(POSTERIOR, None, START)
    for field in ("gradient_mean", "curvature_mean"):
        with pytest.raises(ValueError, match=f"control.{name} with a belief that has no {field}"):
            policy.step(POSTERIOR._replace(**{field: None}), THETA, START)


def test_somebody_must_say_what_the_hazard_is():
    with pytest.raises(ValueError, match=r"resetting without a hazard .* give hazard="):
        control.resetting().step(POSTERIOR, THETA, START)


@pytest.mark.parametrize("prior", [np.zeros(4), {"a": np.zeros(3)}, {**PRIOR, "a": np.zeros(2)}])
def test_a_prior_mean_that_does_not_fit_is_refused(prior: Any):
    message = r"prior_mean must (fit .* expected shapes .*\(3,\).* got|be like the parameters)"
    with pytest.raises(ValueError, match=message):
        control.resetting(0.1, prior_mean=prior).step(POSTERIOR, THETA, START)


def test_forecasts_that_do_not_fit_are_refused():
    for gradients in (G, np.ones(2), {"a": np.ones((2, 3)), "b": [np.ones(3), None]}):
        policy = control.anticipating(lambda *_, wrong=gradients: (np.arange(2.0), wrong))
        with pytest.raises(ValueError, match=r"gradients of forecast must fit .*\(2, 3\).* got"):
            policy.step(POSTERIOR, THETA, START)


@pytest.mark.parametrize("value", [-0.1, np.inf, np.nan])
def test_numbers_out_of_range_are_named(value: float):
    value = float(value)
    for name in ("hazard", "discount", "time_step"):
        with pytest.raises(ValueError, match=f"resetting: {name} must be"):
            control.resetting(**({"hazard": 1.0} | {name: value}))
    if not np.isfinite(value):
        with pytest.raises(ValueError, match="resetting: prior_mean must be"):
            control.resetting(0.1, prior_mean=value)
    with pytest.raises(ValueError, match="resetting: time_step must be"):
        control.resetting(time_step=0.0)
    with pytest.raises(ValueError, match="anticipating: discount must be"):
        control.anticipating(relaxing(0.1, np.zeros(1)), value)
