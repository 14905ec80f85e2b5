"""The planning gain against a Riccati solver, a direct minimiser and its own limits."""

import decimal
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav.control import planning_gain
from tests import oracles


def random_problems(seed: int, size: int) -> dict[str, Any]:
    """Problems of order one, a third of them at a saddle above the bound."""
    rng = np.random.default_rng(seed)

    def positive() -> np.ndarray:
        return np.exp(rng.uniform(-1.5, 1.5, size))

    rate, gain, discount, time_step, metric = (positive() for _ in range(5))
    bound = -metric * discount**2 / (4 * rate * gain)
    curvature = np.where(np.arange(size) % 3 == 0, bound * rng.uniform(0, 0.95, size), positive())
    return {
        "curvature": curvature,
        "rate": rate,
        "gain": gain,
        "discount": discount,
        "time_step": time_step,
        "metric": metric,
    }


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_gain_equals_the_riccati_solution(exact_hold: bool):
    problems = random_problems(seed=0, size=120)
    curvature, others = problems["curvature"], dict(problems)
    del others["curvature"]
    got = planning_gain(curvature, **others, exact_hold=exact_hold)
    want = [
        oracles.planning_gain(
            **{k: float(v[i]) for k, v in problems.items()}, exact_hold=exact_hold
        )
        for i in range(120)
    ]
    assert not np.any(got.clipped)
    # The Riccati solver loses digits towards the bound, where its eigenvalues meet.
    np.testing.assert_allclose(got.gain, want, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
@pytest.mark.parametrize("curvature", [0.0, 2.0])
def test_gain_equals_the_riccati_solution_at_the_edges(curvature: float, exact_hold: bool):
    discount = 0.0 if curvature else 1.3
    args: dict[str, Any] = dict(rate=0.7, gain=1.9, discount=discount, time_step=0.8, metric=1.4)
    got = planning_gain(curvature, **args, exact_hold=exact_hold).gain
    want = oracles.planning_gain(curvature, **args, exact_hold=exact_hold)
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("curvature", [1.0, 0.0, -0.1])
def test_held_plan_is_the_path_that_minimises_the_objective(curvature: float):
    args: dict[str, Any] = dict(rate=1.3, gain=0.7, discount=1.1, metric=0.9)
    times = np.linspace(0, 40, 40_001)
    path = oracles.planned_path(curvature, **args, times=times)
    held = times[[200, 1000, 3000]]
    got = planning_gain(curvature, time_step=held, **args, exact_hold=True).gain
    # Second order in the grid of 1e-3; the free end at 40 is felt as e^{-40 (gamma + 2 rho)}.
    np.testing.assert_allclose(got, -path[[200, 1000, 3000]], rtol=1e-6)
    # Replanning is the initial velocity of that path, to first order in the time held.
    velocity = planning_gain(curvature, time_step=1.0, **args).gain
    np.testing.assert_allclose(velocity, -(4 * path[1] - path[2]) / (2 * times[1]), rtol=1e-5)


# --- limits -------------------------------------------------------------------------------------


def order(errors: Any) -> np.ndarray:
    """Decades that an error falls by for a decade of the small parameter."""
    return np.log10(np.abs(errors[:-1] / errors[1:]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("curvature", [-2.0, 0.5, 3.0])
def test_myopic_limit(curvature: float):
    """Replanning, discount -> inf at rate gain dt / discount = lr: lr / G, second order."""
    lr, gain, metric, time_step = 0.3, 1.7, 0.8, 0.6
    discount = 10.0 ** np.arange(1, 5)
    # At a fixed mobility the learning rate falls with the horizon; the gain over it goes to 1 / G.
    mobility = 2.0
    got = planning_gain(
        curvature,
        rate=mobility / gain,
        gain=gain,
        discount=discount,
        time_step=lr * discount / mobility,
        metric=metric,
    ).gain
    error = got - lr / metric
    np.testing.assert_allclose(order(error)[1:], 2, atol=0.01)
    # Along dt fixed and rate growing with the discount it is first order.
    got = planning_gain(
        curvature,
        rate=lr * discount / (gain * time_step),
        gain=gain,
        discount=discount * 10,
        time_step=time_step * 10,
        metric=metric,
    ).gain
    np.testing.assert_allclose(order(got - lr / metric)[2:], 1, atol=0.02)


@pytest.mark.usefixtures("x64")
def test_ballistic_row():
    """Replanning at discount 0 with sqrt(rate gain) dt = lr: lr (G V)^{-1/2}, exactly."""
    curvature, metric = np.array([0.1, 1.0, 30.0]), np.array([2.0, 0.5, 1.0])
    rate, gain, time_step = 0.7, 1.9, 0.4
    args: dict[str, Any] = dict(rate=rate, gain=gain, time_step=time_step, metric=metric)
    lr = np.sqrt(rate * gain) * time_step
    limit = lr / np.sqrt(metric * curvature)
    np.testing.assert_allclose(
        planning_gain(curvature, discount=0.0, **args).gain, limit, rtol=1e-14
    )
    # First order in the discount on the way there.
    near = [planning_gain(curvature, discount=d, **args).gain - limit for d in (1e-3, 1e-4, 1e-5)]
    np.testing.assert_allclose(order(np.array(near)), 1, atol=0.01)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("discount", [0.0, 1.3])
def test_newton_limit(discount: float):
    """Exact hold, dt -> inf, V > 0: 1 / V, exponentially at the rate rho of the closed loop."""
    curvature, time_step = 0.8, np.array([2.0, 4.0, 6.0])
    args: dict[str, Any] = dict(rate=0.7, gain=1.9, discount=discount, metric=1.4, exact_hold=True)
    error = 1 / curvature - planning_gain(curvature, time_step=time_step, **args).gain
    rho = np.sqrt(discount**2 / 4 + 0.7 * 1.9 * curvature / 1.4) - discount / 2
    np.testing.assert_allclose(np.log(error[:-1] / error[1:]), 2 * rho, rtol=1e-10)
    limit = planning_gain(curvature, time_step=1e9, **args).gain
    np.testing.assert_allclose(limit, 1 / curvature, rtol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_without_curvature_it_is_gradient_descent(exact_hold: bool):
    rate, gain, discount, time_step, metric = 0.7, 1.9, 1.3, 0.8, 1.4
    args: dict[str, Any] = dict(rate=rate, gain=gain, discount=discount, time_step=time_step)
    got = planning_gain(0.0, **args, metric=metric, exact_hold=exact_hold)
    np.testing.assert_allclose(got.gain, rate * gain * time_step / (metric * discount), rtol=1e-15)
    assert not got.clipped


@pytest.mark.usefixtures("x64")
def test_held_ballistic_plan_saturates_and_never_passes_newton():
    """Exact hold at discount 0: (1 - e^{-lr sqrt(V / G)}) / V for every dt."""
    curvature, metric = np.array([1e-6, 0.1, 1.0, 30.0, 1e4]), 1.4
    for time_step in (1e-3, 0.4, 20.0):
        lr = np.sqrt(0.7 * 1.9) * time_step
        got = planning_gain(
            curvature,
            rate=0.7,
            gain=1.9,
            discount=0.0,
            time_step=time_step,
            metric=metric,
            exact_hold=True,
        ).gain
        want = -np.expm1(-lr * np.sqrt(curvature / metric)) / curvature
        # expm1 and the series each round a few times.
        np.testing.assert_allclose(got, want, rtol=1e-14)
        assert np.all(got <= (1 + 1e-15) / curvature)


@pytest.mark.usefixtures("x64")
def test_hold_and_replanning_agree_to_first_order():
    time_step = np.array([1e-1, 1e-2, 1e-3])
    args: dict[str, Any] = dict(rate=0.7, gain=1.9, discount=1.3, time_step=time_step)
    ratio = planning_gain(0.8, **args, exact_hold=True).gain / planning_gain(0.8, **args).gain
    np.testing.assert_allclose(order(ratio - 1)[1:], 1, atol=0.02)
    # E(z) = 1 - z / 2 + ...
    rho = np.sqrt(1.3**2 / 4 + 0.7 * 1.9 * 0.8) - 1.3 / 2
    np.testing.assert_allclose((ratio[-1] - 1) / time_step[-1], -rho / 2, rtol=1e-3)


@pytest.mark.usefixtures("x64")
def test_at_a_saddle_the_held_step_grows_exponentially():
    """The step is (e^{|rho| dt} - 1) / |V|, away from the maximum."""
    curvature, time_step = -0.2, np.array([0.05, 1.0, 5.0, 30.0])
    args: dict[str, Any] = dict(rate=0.7, gain=1.9, discount=1.3, metric=1.0)
    rho = 1.3 / 2 - np.sqrt(1.3**2 / 4 + 0.7 * 1.9 * curvature)
    got = planning_gain(curvature, time_step=time_step, **args, exact_hold=True)
    np.testing.assert_allclose(got.gain, np.expm1(rho * time_step) / -curvature, rtol=1e-13)
    assert np.all(got.gain > 0) and not np.any(got.clipped)


@pytest.mark.usefixtures("x64")
def test_between_holding_and_replanning_plans_are_held_for_a_share_of_the_time():
    """Ten plans of a tenth of the time each, made on one belief, add up."""
    curvature = np.array([[-0.2, 0.0, 1e-9, 0.3, 4.0]])
    args: dict[str, Any] = dict(rate=0.7, gain=1.9, discount=1.3, metric=1.4)
    shares = np.array([0.0, 1e-12, 0.1, 0.5, 1.0])[:, None]
    got = planning_gain(curvature, time_step=2.0, exact_hold=shares, **args).gain
    held, replanned = (
        planning_gain(curvature, time_step=2.0, exact_hold=x, **args).gain for x in (True, False)
    )
    np.testing.assert_allclose(got[:1], replanned, rtol=1e-15)
    np.testing.assert_allclose(got[1:2], replanned, rtol=1e-11)
    np.testing.assert_allclose(got[-1:], held, rtol=1e-15)
    for share, gain in zip(shares[2:, 0], got[2:], strict=True):
        short = planning_gain(curvature, time_step=share * 2.0, exact_hold=True, **args).gain
        np.testing.assert_allclose(gain[None], short / share, rtol=1e-14)
    # Longer plans step less where they approach an optimum, and more where they leave a saddle.
    assert np.all(np.sign(np.diff(got[1:, [0, 3, 4]], axis=0)) == [1, -1, -1])
    # It can be traced and differentiated.
    h, x = 1e-6, 0.4

    def total(share: Any) -> Any:
        return planning_gain(curvature, time_step=2.0, exact_hold=share, **args).gain.sum()

    want = (total(x + h) - total(x - h)) / (2 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(x), want, rtol=1e-7)
    with pytest.raises(ValueError, match="planning_gain: exact_hold must be in"):
        total(1.5)


# --- smoothness and precision -------------------------------------------------------------------


def precise_gain(v: Decimal, discount: Decimal, time_step: Decimal, exact_hold: bool) -> Decimal:
    """The gain at mobility 1 from its textbook form, in fifty digits."""
    root = (discount**2 / 4 + v).sqrt()
    if v == 0:
        return time_step / discount
    rho = root - discount / 2
    if exact_hold:
        return (1 - (-rho * time_step).exp()) / v
    return time_step * rho / v


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
@pytest.mark.parametrize("time_step", [1.0, 7.0])
def test_value_and_two_derivatives_are_smooth_through_zero(exact_hold: bool, time_step: float):
    def gain(v: Any) -> jax.Array:
        return planning_gain(
            v, rate=1.0, gain=1.0, discount=2.0, time_step=time_step, exact_hold=exact_hold
        ).gain

    derivatives = [jax.jit(jax.vmap(f)) for f in (gain, jax.grad(gain), jax.grad(jax.grad(gain)))]
    points = np.array([-0.5, -0.03, -1e-4, -1e-9, 0.0, 1e-9, 1e-4, 0.03, 0.3, 2.0])
    got = np.stack([f(jnp.asarray(points)) for f in derivatives])
    with decimal.localcontext(decimal.Context(prec=80)):
        # Central differences with h = 1e-20: errors of 1e-40, and 80 - 40 digits left.
        h = Decimal("1e-20")
        want = []
        for point in points:
            v = Decimal(float(point))
            low, mid, high = (
                precise_gain(x, Decimal(2), Decimal(time_step), exact_hold)
                for x in (v - h, v, v + h)
            )
            want.append([mid, (high - low) / (2 * h), (high - 2 * mid + low) / h**2])
        want = np.array(want, dtype=float).T
    # Value: a few roundings. Derivatives: expm1 near the end of the series at |z| = 0.1 loses a
    # factor 1/z for each.
    np.testing.assert_allclose(got[0], want[0], rtol=1e-14)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-13)
    np.testing.assert_allclose(got[2], want[2], rtol=1e-12)


@pytest.mark.parametrize("exact_hold", [False, True])
def test_float32_keeps_five_digits(exact_hold: bool):
    """Also where sqrt(gamma^2 / 4 + x) - gamma / 2 has none left."""
    curvature, discount = (
        x.ravel()
        for x in np.meshgrid([-1e-9, 1e-12, 1e-6, 1e-3, 0.3, 1.0, 100.0], [1e-3, 1.0, 100.0, 1e4])
    )
    # float32 represents the inputs of both exactly.
    curvature, discount = curvature.astype(np.float32), discount.astype(np.float32)
    args: dict[str, Any] = dict(rate=0.75, gain=1.5, time_step=0.5, exact_hold=exact_hold)

    single = planning_gain(jnp.asarray(curvature), discount=jnp.asarray(discount), **args).gain
    assert single.dtype == jnp.float32
    with jax.enable_x64(True):
        exact = planning_gain(
            jnp.asarray(curvature, jnp.float64), discount=jnp.asarray(discount, jnp.float64), **args
        ).gain
        assert exact.dtype == jnp.float64
        np.testing.assert_allclose(np.asarray(single, np.float64), exact, rtol=1e-5)
    # The extreme one against digits that no float lost.
    i = int(np.flatnonzero((curvature == np.float32(1e-6)) & (discount == 1e4))[0])
    with decimal.localcontext(decimal.Context(prec=50)):
        x = Decimal(0.75 * 1.5) * Decimal(float(curvature[i]))
        rho = (Decimal(10_000) ** 2 / 4 + x).sqrt() - 5000
        want = float(Decimal(0.75 * 1.5) * Decimal("0.5") * rho / x)
    np.testing.assert_allclose(single[i], want, rtol=1e-5)


# --- the clip -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_unbounded_saddles_are_clipped_and_reported(exact_hold: bool):
    args: dict[str, Any] = dict(
        rate=0.7, gain=1.9, discount=1.3, time_step=0.8, metric=1.4, exact_hold=exact_hold
    )
    bound = -1.4 * 1.3**2 / (4 * 0.7 * 1.9)
    margin = 0.05
    fractions = np.array([0.0, 0.9, 0.949, 0.951, 1.0, 1.1, 1e6])
    got = planning_gain(fractions * bound, **args, margin=margin)
    np.testing.assert_array_equal(got.clipped, fractions > 1 - margin)
    at_bound = oracles.planning_gain((1 - margin) * bound, **args)
    np.testing.assert_allclose(got.gain[got.clipped], at_bound, rtol=1e-9)
    assert np.all(np.diff(got.gain) >= 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exact_hold", [False, True])
def test_derivatives_are_finite_at_and_below_the_bound(exact_hold: bool):
    def gain(v: Any, discount: Any) -> jax.Array:
        return planning_gain(v, rate=1.0, gain=1.0, discount=discount, exact_hold=exact_hold).gain

    for v in (-0.99, -0.999, -1.0, -5.0):
        slopes = jax.grad(gain, argnums=(0, 1))(v, 2.0)
        assert np.all(np.isfinite(slopes))
        # Below the bound the curvature no longer matters.
        assert (slopes[0] == 0) == (v < -0.999)


def test_margin_zero_clips_at_the_bound_itself():
    got = planning_gain(np.array([-1.0, -1.1]), rate=1.0, gain=1.0, discount=2.0, margin=0.0)
    np.testing.assert_array_equal(got.clipped, [False, True])
    np.testing.assert_allclose(got.gain, 1.0)


def test_metric_and_curvature_broadcast():
    got = planning_gain(jnp.ones((1, 3)), rate=1.0, gain=1.0, discount=1.0, metric=jnp.ones((2, 1)))
    assert got.gain.shape == got.clipped.shape == (2, 3)


BAD = [
    ("rate", 0.0),
    ("rate", -1),
    ("gain", 0.0),
    ("gain", np.inf),
    ("time_step", 0.0),
    ("time_step", np.nan),
    ("metric", -1.0),
    ("discount", -0.1),
    ("margin", -0.1),
    ("margin", 1.1),
    ("exact_hold", -0.5),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_numbers_out_of_range_are_named(name: str, value: float):
    args: dict[str, Any] = {"rate": 1.0, "gain": 1.0, "discount": 1.0} | {name: value}
    with pytest.raises(ValueError, match=f"planning_gain: {name} must be"):
        planning_gain(1.0, **args)
