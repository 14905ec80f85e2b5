"""`rules.wiener` against its definition, written out with all its weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, posterior, rules
from tests.rules.test_rules import updates_on


def shrunk(stream: np.ndarray, b1: float, b2: float) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and second moment after the last row of [step, ...]."""
    ages = np.arange(len(stream))[::-1]
    w, w2 = b1**ages, b2**ages
    average = np.tensordot(w, stream, 1) / w.sum()
    second_moment = np.tensordot(w2, stream**2, 1) / w2.sum()
    effective_size = w.sum() ** 2 / (w**2).sum()
    excess = np.maximum(second_moment - average**2, 0)
    noise = excess / (effective_size - 1) if effective_size > 1 else 0 * excess  # s2
    signal = np.maximum(average**2 - noise, 0)  # tau2
    with np.errstate(invalid="ignore"):
        factor = np.where(signal > 0, signal / (signal + noise), 0)
    return factor * average, second_moment


def noisy_stream(seed: int, steps: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, 12)) + np.linspace(-2, 2, 12)


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.5, 0.9), (1.0, 1.0), (0.0, 0.5)])
def test_wiener_is_its_definition(b1: float, b2: float, x64: None) -> None:
    stream = noisy_stream(0)
    updates = updates_on(rules.wiener(0.1, b1, b2, 1e-3, 1e-2), [jnp.asarray(stream)])[0]
    for t in range(len(stream)):
        mean, second_moment = shrunk(stream[: t + 1], b1, b2)
        expected = -0.1 * mean / (np.sqrt(second_moment + 1e-2) + 1e-3)
        # Near the threshold the factor is a difference of nearly equal squares, of size 1.
        np.testing.assert_allclose(updates[t], expected, rtol=1e-10, atol=1e-14)


def test_the_belief_is_the_shrunk_mean_without_a_variance(x64: None) -> None:
    stream = noisy_stream(1)
    optimizer = rules.wiener(0.1, 0.9, 0.99)
    params = jnp.zeros(12)

    def step(state: Any, gradient: jax.Array) -> tuple[Any, beliefs.Posterior]:
        _, state = optimizer.update(gradient, state, params)
        return state, posterior(state)

    believed = jax.lax.scan(step, optimizer.init(params), jnp.asarray(stream))[1]
    assert believed.gradient_variance is None
    for t in range(len(stream)):
        mean, second_moment = shrunk(stream[: t + 1], 0.9, 0.99)
        np.testing.assert_allclose(believed.gradient_mean[t], mean, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(believed.curvature_mean[t], second_moment, rtol=1e-11)


def test_wiener_on_a_constant_stream_is_adam(x64: None) -> None:
    # Without noise nothing is shrunk. v - m^2 is 0 up to rounding, relative to m^2.
    stream = [jnp.broadcast_to(jnp.asarray([-3.0, 1e-4, 0.7, 0.0]), (200, 4))]
    np.testing.assert_allclose(
        updates_on(rules.wiener(0.1), stream)[0], updates_on(rules.adam(0.1), stream)[0], rtol=1e-12
    )


def test_wiener_stands_still_on_a_stream_that_averages_to_zero() -> None:
    # The first observation has no noise to stand out of: a full step. After it the average of an
    # alternating stream is below its noise at every step, and the shrinkage to zero is exact.
    size = jnp.asarray([1e-3, 1.0, 50.0])
    signs = jnp.where(jnp.arange(300) % 2 == 0, 1.0, -1.0)
    updates = updates_on(rules.wiener(0.1), [signs[:, None] * size[None]])[0]
    np.testing.assert_allclose(updates[0], -0.1, rtol=1e-4)  # eps = 1e-8 of 1e-3
    np.testing.assert_array_equal(updates[1:], 0.0)


def test_wiener_moves_less_than_adam_and_never_the_other_way(x64: None) -> None:
    stream = [jnp.asarray(noisy_stream(2, 500))]
    ours, adams = updates_on(rules.wiener(0.1), stream)[0], updates_on(rules.adam(0.1), stream)[0]
    assert np.all(np.abs(ours) <= np.abs(adams) * (1 + 1e-12))
    assert np.all(ours * adams >= 0)
    assert 0 < np.mean(np.asarray(ours) == 0) < 1
