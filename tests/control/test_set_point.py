"""Rates, weights and set-points of forecasts: against minimisers of the objective and integrals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from beliefnav import control
from beliefnav.control.gains.set_point import discounted_average, matrix_anticipation
from tests import oracles


def positive(seed: int, n: int, least: float = 0.3) -> np.ndarray:
    """A random symmetric positive definite matrix."""
    x = np.random.default_rng(seed).normal(size=(n, n))
    return x @ x.T + least * np.eye(n)


# --- the set-point of a task that may switch ----------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("discount", [0.3, 1.5])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_set_point_is_that_of_the_cheapest_linear_policy(n: int, discount: float):
    """Of all that see the optimum, which really jumps; metric and curvature do not commute."""
    hessian, metric = positive(n, n), positive(10 + n, n, 0.5)
    prior_mean = np.random.default_rng(n).normal(size=n)
    hazard, rate, gain = 0.4, 0.7, 1.3
    want = oracles.cheapest_follower(hessian, hazard, metric, rate, gain, discount, prior_mean)
    got = matrix_anticipation(
        hessian, hazard, rate=rate, gain=gain, discount=discount, metric=metric
    )
    # The minimiser is found to the square root of the rounding of the cost, or better.
    np.testing.assert_allclose(got.rate, want.rate, atol=1e-6)
    mean = np.random.default_rng(n + 1).normal(size=n)
    set_point = np.linalg.solve(want.rate, want.pull @ mean + want.offset)
    np.testing.assert_allclose(got.set_point(mean, prior_mean), set_point, atol=1e-6)
    theta = np.arange(1.0, n + 1)
    velocity = want.pull @ mean + want.offset - want.rate @ theta
    np.testing.assert_allclose(got.velocity(theta, mean, prior_mean), velocity, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_the_weight_of_a_number_is_that_of_the_cheapest_linear_policy():
    hazard, discount, h = np.meshgrid([0.1, 1.0, 4.0], [0.3, 1.5], [0.2, 3.0])
    got = control.anticipation(h, hazard, rate=0.7, gain=1.3, discount=discount, metric=1.9)
    one = np.eye(1)
    for index in np.ndindex(h.shape):
        switching, forgetting = float(hazard[index]), float(discount[index])
        want = oracles.cheapest_follower(
            h[index] * one, switching, 1.9 * one, 0.7, 1.3, forgetting, np.array([-0.8])
        )
        np.testing.assert_allclose(got.rate[index], want.rate[0, 0], atol=1e-6)
        np.testing.assert_allclose(got.weight[index], want.pull[0, 0] / got.rate[index], atol=1e-6)
        set_point = (2.5 * want.pull + want.offset) / want.rate
        np.testing.assert_allclose(got.set_point(2.5, -0.8)[index], set_point[0, 0], atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("hazard", "discount"), [(0.3, 1.3), (2.0, 0.4), (0.5, 0.0), (0.0, 1.0)])
def test_the_velocity_is_that_of_the_cheapest_path(hazard: float, discount: float):
    """Also without a discount, where the expected cost is infinite."""
    v, optimum, times = 0.8, 1.5, np.linspace(0, 60, 30_001)
    for theta, prior in ((-0.5, 0.7), (1.5, -1.0), (0.2, 0.2)):
        target = prior + np.exp(-hazard * times) * (optimum - prior)
        want = oracles.cheapest_velocity(v, theta, times, target, discount)
        got = control.anticipation(v, hazard, discount=discount).velocity(theta, optimum, prior)
        # Second order in the grid of 2e-3; the end is felt as e^{-50}.
        np.testing.assert_allclose(got, want, rtol=3e-5, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("discount", [0.0, 0.7])
def test_matrices_are_functions_of_the_pencil(discount: float):
    """By scipy's roots and solves; a flat direction too."""
    x = np.random.default_rng(0).normal(size=(4, 2))
    hessian, metric, hazard, one = x @ x.T, positive(1, 4), 0.6, np.eye(4)
    root = np.linalg.cholesky(metric)
    white = 0.9 * np.linalg.solve(root, np.linalg.solve(root, hessian).T)
    values, vectors = np.linalg.eigh(white)
    s = np.sqrt(discount**2 / 4 + np.where(values > 1e-12, values, 0)) + discount / 2
    back = np.linalg.inv(root.T) @ vectors
    d = back * s @ np.linalg.inv(back)
    got = matrix_anticipation(hessian, hazard, rate=1.8, gain=0.5, discount=discount, metric=metric)
    np.testing.assert_allclose(got.rate, d - discount * one, atol=1e-12)
    np.testing.assert_allclose(got.weight, np.linalg.solve(d + hazard * one, d), atol=1e-12)
    # gamma P = k H - eta P G^{-1} P with P = G A / eta.
    p = metric @ got.rate / 1.8
    riccati = 0.5 * hessian - 1.8 * p @ np.linalg.solve(metric, p)
    np.testing.assert_allclose(discount * p, riccati, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("hazard", [0.0, 0.6, np.inf])
@pytest.mark.parametrize("discount", [0.0, 1.3])
def test_matrices_of_diagonals_are_diagonal(hazard: float, discount: float):
    h, g = np.array([2.0, 0.0, 0.3, -1.0]), np.array([1.0, 0.5, 2.0, 3.0])
    constants = {"rate": 0.7, "gain": 1.3, "discount": discount}
    hazards = jnp.asarray(hazard)
    one = control.anticipation(h, hazards, metric=g, **constants)
    all_ = matrix_anticipation(np.diag(h), hazards, metric=np.diag(g), **constants)
    for diagonal, matrix in zip(one, all_, strict=False):
        np.testing.assert_allclose(np.diag(diagonal), matrix, atol=1e-14)
    theta, mean, prior = np.random.default_rng(0).normal(size=(3, 4))
    for got, want in (
        (all_.set_point(mean, prior), one.set_point(mean, prior)),
        (all_.velocity(theta, mean, prior), one.velocity(theta, mean, prior)),
        (all_.set_point(mean, 0.5), one.set_point(mean, 0.5)),
    ):
        np.testing.assert_allclose(got, want, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_limits_of_the_weight():
    curvature = np.array([0.0, 1e-30, -2.0, 3.0])
    weight = control.anticipation(curvature, 0.0).weight
    np.testing.assert_array_equal(weight, 1)
    np.testing.assert_allclose(
        control.anticipation(curvature, 0.5).weight, [0, 2e-15, 0, 3**0.5 / (3**0.5 + 0.5)]
    )
    certain = control.continuous_hazard(1.0)
    assert certain == np.inf
    for discount in (0.0, 1.0):
        np.testing.assert_array_equal(
            control.anticipation(curvature, certain, discount=discount).weight, 0
        )
    # Myopic: only the present counts, and the approach is that of gradient descent.
    got = control.anticipation(3.0, 0.5, discount=1e9)
    np.testing.assert_allclose(got.rate * 1e9, 3, rtol=1e-8)
    np.testing.assert_allclose(got.weight, 1, atol=1e-9)


def test_rates_keep_their_digits_in_float32():
    """Where the difference of root and discount would have none."""
    curvature, discount = np.array([1e-9, 1e-5, 1.0, 1e8]), np.float32(10.0)
    x, half = curvature.astype(np.float32).astype(np.float64), 5.0
    got = control.anticipation(curvature.astype(np.float32), 0.1, discount=discount)
    np.testing.assert_allclose(got.rate, x / (np.sqrt(half**2 + x) + half), rtol=5e-7)
    half_precision = control.anticipation(jnp.asarray(1.0, jnp.bfloat16), 0.1)
    assert half_precision.rate.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
def test_derivatives_are_right_and_never_nan():
    def outcome(h: Any, hazard: Any, discount: Any) -> Any:
        return control.anticipation(h, hazard, discount=discount).set_point(2.0, 1.0)

    def matrix_outcome(h: Any, hazard: Any, discount: Any) -> Any:
        plan = matrix_anticipation(h * jnp.eye(2), hazard, discount=discount)
        return plan.set_point(jnp.full(2, 2.0), 1.0)[0]

    for f in (jax.jit(outcome), jax.jit(matrix_outcome)):
        at, size, slopes = np.array([0.8, 0.4, 1.1]), 1e-6, jax.jit(jax.grad(f, (0, 1, 2)))
        for slope, e in zip(slopes(*at), np.eye(3), strict=True):
            want = (f(*(at + size * e)) - f(*(at - size * e))) / (2 * size)
            np.testing.assert_allclose(slope, want, rtol=1e-7)  # second order in the size
        for edge in np.ndindex(2, 2, 2):
            assert np.all(np.isfinite(slopes(*map(float, edge))))


@pytest.mark.usefixtures("x64")
def test_hazards_compose():
    """What is left after n steps is left after their time."""
    p = np.array([0.0, 1e-12, 0.3, 0.999])
    got = control.continuous_hazard(p, 0.25)
    np.testing.assert_allclose(np.exp(-got * 0.25 * 3), (1 - p) ** 3, rtol=1e-12)
    np.testing.assert_allclose(got[1], 4e-12, rtol=1e-11)
    assert got[0] == 0


# --- the set-point of any forecast --------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_points=st.sampled_from([1, 2, 5]),
    rates=st.lists(st.floats(0, 8), min_size=2, max_size=2),
)
def test_the_average_is_an_integral(seed: int, num_points: int, rates: list[float]):
    """With jumps, entry by entry, in float64 and in float32."""
    rng = np.random.default_rng(seed)
    steps = rng.exponential(size=num_points - 1) * (rng.random(num_points - 1) < 0.7)
    times = np.concatenate([[0.0], np.cumsum(steps)])
    path = rng.normal(size=(num_points, 2))
    want = oracles.discounted_integral(times, path, np.diag(rates))
    single = (jnp.asarray(x, jnp.float32) for x in (times, path, rates))
    np.testing.assert_allclose(_average(*single), want, atol=3e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(_average(times, path, np.array(rates)), want, atol=1e-11)


_average = jax.jit(discounted_average)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_the_average_of_a_decay_is_its_set_point(discount: float):
    hazard, mean, prior = 0.4, np.array([2.0, -1.0, 0.5]), np.array([0.3, 0.1, -0.7])
    times = np.linspace(0, 90, 30_001)
    path = prior + np.exp(-hazard * times)[:, None] * (mean - prior)
    plan = control.anticipation(np.array([0.4, 1.0, 3.0]), hazard, discount=discount)
    got = discounted_average(times, path, discount + plan.rate)
    # Second order in the grid of 3e-3.
    np.testing.assert_allclose(got, plan.set_point(mean, prior), atol=2e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [0.5, 3.0])
def test_the_average_of_tasks_of_any_length_is_their_laplace_transform(shape: float):
    r"""$x_s = P(T > s)$ has the set-point $1 - E[e^{-\rho T}]$; for $T$ known it is a step."""
    rho, tasks = 0.8, stats.gamma(shape, scale=1.7)
    # Fine where the survival function of short tasks has a root.
    times = np.concatenate([[0.0], np.geomspace(1e-12, 80, 20_000)])
    got = discounted_average(times, tasks.sf(times), rho)
    np.testing.assert_allclose(got, 1 - (1 + 1.7 * rho) ** -shape, atol=1e-6)
    got = discounted_average(jnp.array([0.0, 2, 2]), jnp.array([1.0, 1, 0]), rho)
    np.testing.assert_allclose(got, 1 - np.exp(-2 * rho), rtol=1e-14)


def test_the_average_is_safe_in_float32():
    times, path = np.array([[0, 1e-3, 1, 50], [2, -1, 3, 5]], np.float32)
    for rate, want in ((0.0, 5), (1e-30, 5), (1e30, 2), (3e38, 2)):
        np.testing.assert_allclose(
            discounted_average(times, path, np.float32(rate)), want, rtol=1e-6
        )
    # A rate so small that in the first interval e^{-z} rounds to 1.
    rate = 1e-5
    want = oracles.discounted_integral(times.astype(float), path[:, None], rate * np.eye(1))
    got = discounted_average(times, path, rate)
    np.testing.assert_allclose(got, want[0], rtol=3e-7)
    slope = jax.grad(lambda r: discounted_average(times, path, r))(0.0)
    # At 0 the slope is minus the time integral of what is missing to the last value.
    missing = np.diff(times) @ (path[-1] - (path[:-1] + path[1:]) / 2)
    np.testing.assert_allclose(slope, -missing, rtol=1e-6)


# --- errors -------------------------------------------------------------------------------------


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"curvature must be \[n, n\], got \(2, 3\)"):
        matrix_anticipation(np.ones((2, 3)), 0.1)
    with pytest.raises(ValueError, match=r"metric must have shape \(2, 2\) .* got \(3, 3\)"):
        matrix_anticipation(np.eye(2), 0.1, metric=np.eye(3))
    assert np.all(np.isnan(matrix_anticipation(np.eye(2), 0.1, metric=-np.eye(2)).rate))


def test_forecasts_that_do_not_fit_are_refused():
    for times in ([1.0, 2.0], [0.0, -1.0], [0.0, np.inf], [0.0, np.nan]):
        with pytest.raises(ValueError, match="average: times must be finite, start at 0"):
            discounted_average(np.array(times), np.ones(2), 1.0)
    for times, path in ((np.zeros(0), np.zeros(0)), (np.zeros(1), np.ones(2)), (0.0, 1.0)):
        with pytest.raises(ValueError, match=r"times must be \[time\] and path \[time, ...\]"):
            discounted_average(times, path, 1.0)
    with pytest.raises(ValueError, match=r"rate must broadcast to the shape \(3,\) .* got \(2,\)"):
        discounted_average(np.zeros(1), np.ones((1, 3)), np.ones(2))


@pytest.mark.parametrize("value", [-0.1, np.inf, np.nan])
def test_numbers_out_of_range_are_named(value: float):
    value = float(value)
    for make in (control.anticipation, matrix_anticipation):
        for name in ("hazard", "discount", "rate", "gain"):
            with pytest.raises(ValueError, match=f"{make.__name__}: {name} must be"):
                make(**({"curvature": jnp.eye(2), "hazard": 1.0} | {name: value}))
    with pytest.raises(ValueError, match="anticipation: metric must be"):
        control.anticipation(1.0, 0.1, metric=value)
    with pytest.raises(ValueError, match="discounted_average: rate must be"):
        discounted_average(np.zeros(1), np.ones(1), value)
    with pytest.raises(ValueError, match="continuous_hazard: probability must be"):
        control.continuous_hazard(value)
    with pytest.raises(ValueError, match="continuous_hazard: time_step must be"):
        control.continuous_hazard(0.1, value)
