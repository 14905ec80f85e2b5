"""Positive level: the published update, positivity, and the geodesic that it approximates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav.beliefs import RetractedLevel
from tests.beliefs import laws


@jax.jit
def step(model: RetractedLevel, reading: Any) -> Any:
    """One reading [...], at the prior."""
    filter_ = model.filter()
    state, info = laws.observe(filter_, filter_.predict(filter_.init(reading)), reading)
    return state.posterior().gradient_mean, info


@pytest.mark.usefixtures("x64")
def test_update_is_that_of_ivon():
    r"""Shen et al.: $h \leftarrow \beta h + (1-\beta) c + (1-\beta)^2 (h-c)^2 / (2 (h+\delta))$."""
    rng = np.random.default_rng(0)
    readings = rng.normal(1.0, 3.0, (30, 4))
    model, beta, delta = RetractedLevel(0.9, 0.7, 0.05), 0.9, 0.05
    filter_ = model.filter()

    @jax.jit
    def run(readings: Any) -> Any:
        def step(state: Any, c: Any) -> Any:
            state = filter_.update(filter_.predict(state), c)
            return state, state.level

        return jax.lax.scan(step, filter_.init(readings[0]), readings)[1]

    h, want = np.full(4, 0.7), []
    for c in readings:
        h = beta * h + (1 - beta) * c + (1 - beta) ** 2 * (h - c) ** 2 / (2 * (h + delta))
        want.append(h)
    np.testing.assert_allclose(run(readings), want, rtol=1e-12)
    # A plain average of the same readings is not always positive.
    assert np.min(want) > 0 and readings.min() < -5


@pytest.mark.usefixtures("x64")
def test_what_is_added_to_the_margin_is_at_least_halved_whatever_is_read():
    """And it is half of what it was where the reading is 1 / (1 - beta) below."""
    readings = np.concatenate([-np.logspace(-3, 9, 400), np.linspace(-12, 12, 401)])
    for margin in (0.0, 0.3):
        got = np.asarray(step(RetractedLevel(0.9, 1.0, margin), jnp.asarray(readings))[0])
        share = (got + margin) / (1 + margin)
        assert np.all(share >= 0.5 - 1e-15)
        lowest = step(RetractedLevel(0.9, 1.0, margin), jnp.asarray(1 - 10 * (1 + margin)))[0]
        np.testing.assert_allclose(lowest + margin, (1 + margin) / 2, rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_it_is_a_geodesic_step_to_second_order_and_an_average_to_first():
    u = np.array([1e-1, 1e-2, 1e-3])
    reading = 1 + u * 1.3 / 0.1  # u = (1 - beta) (c - h) / (h + delta)
    got = np.asarray(step(RetractedLevel(0.9, 1.0, 0.3), jnp.asarray(reading))[0])
    geodesic, average = 1.3 * np.exp(u) - 0.3, 0.9 + 0.1 * reading
    orders = [np.log10(np.abs(e[:-1] / e[1:])) for e in (got - geodesic, got - average)]
    np.testing.assert_allclose(orders[0], 3, atol=0.02)
    np.testing.assert_allclose(orders[1], 2, atol=0.02)


@pytest.mark.usefixtures("x64")
def test_units_and_the_origin_do_not_matter():
    c = jnp.asarray([-3.0, 0.5, 4.0])
    want = step(RetractedLevel(0.8, 1.0, 0.25), c)[0]
    scaled = step(RetractedLevel(0.8, 8.0, 2.0), 8 * c)[0]
    np.testing.assert_array_equal(scaled, 8 * want)  # powers of two are exact
    moved = step(RetractedLevel(0.8, 0.75, 0.5), c - 0.25)[0]
    np.testing.assert_allclose(moved, want - 0.25, rtol=1e-14)


def test_missing_readings_change_nothing():
    got, info = step(RetractedLevel(0.9, 0.7), jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 0.7, 2.0]))
    np.testing.assert_array_equal(got[:4], np.float32(0.7))
    assert got[4] > 0.7
    np.testing.assert_array_equal(info.missing, [True, True, True, False, False])
    np.testing.assert_array_equal(info.innovation[:4], 0)


def test_readings_of_any_size_leave_a_number():
    """A level that overflows is capped, and readings bring it down again."""
    filter_ = RetractedLevel(0.5, 1e-3).filter()

    @jax.jit
    def run(first: Any) -> Any:
        def step(state: Any, c: Any) -> Any:
            state = filter_.update(filter_.predict(state), c)
            return state, state.level

        readings = jnp.concatenate([first[None], jnp.ones((300, first.size))])
        return jax.lax.scan(step, filter_.init(first), readings)[1]

    levels = run(jnp.asarray([1e30, -1e30, 3e38, -3e38, 1e-38, 0.0]))
    assert np.all(np.isfinite(levels))
    # At least the factor 5/8 a step, from 3e38 to 1.
    np.testing.assert_allclose(levels[-1], 1, rtol=1e-5)
    huge = jnp.asarray([1e-38, 1e38], jnp.float32)
    for prior in (1e-38, 1e38):
        assert np.all(np.isfinite(step(RetractedLevel(0.9, prior), huge)[0]))


def test_derivatives_are_finite():
    c = jnp.asarray([jnp.nan, -5.0, 0.7, 9.0])

    def total(beta: Any, h: Any, delta: Any, c: Any) -> Any:
        return step(RetractedLevel(beta, h, delta), c)[0].sum()

    slopes = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(0.9, 0.7, 0.1, c)
    assert all(np.all(np.isfinite(x)) for x in slopes)
    assert slopes[3][0] == 0


@pytest.mark.parametrize(("start", "margin"), [(0.0, 0.0), (-1.0, 0.5), (-0.5, 0.5)])
def test_a_prior_that_is_not_positive_is_refused(start: float, margin: float):
    with pytest.raises(ValueError, match=r"RetractedLevel: prior_level \+ margin must be a posit"):
        RetractedLevel(0.9, start, margin).filter()
