"""Rates from curvature and noise: what they come to where curvature and noise are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.no_rate import controls
from experiments.tasks.noisy_quadratic import STEPS, noisy_quadratic


@pytest.mark.parametrize("make", [controls.schaul, controls.li_tai_e])
def test_a_control_learns_the_noisy_quadratic(make: Any) -> None:
    """The loss falls to less than a third; no parameter is lost."""
    task, optimizer = noisy_quadratic(), optax.with_extra_args_support(make())

    def step(carry: Any, key: Any) -> Any:
        params, state = carry

        def loss(params: Any) -> Any:
            return task.loss(params, key)

        updates, state = optimizer.update(jax.grad(loss)(params), state, params, value_fn=loss)
        return (optax.apply_updates(params, updates), state), None

    start = task.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), STEPS)
    run = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), keys)[0][0])
    before, after = (float(task.score(p, "test").nats) for p in (start, run(start)))
    assert np.isfinite(after) and after < before / 3


def test_the_curvature_of_a_parabola_is_measured_exactly() -> None:
    """Without noise the rate is 1 / h, so that the first step that is taken is Newton's."""
    curvature = jnp.array([0.5, 4.0])

    def loss(params: Any) -> Any:
        return jnp.sum(curvature * params**2) / 2

    optimizer, params = controls.schaul(), jnp.array([1.0, -2.0])
    state: Any = optimizer.init(params)
    updates: Any = params
    for t in range(controls.FIRST + 1):
        gradient = jax.grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params, value_fn=loss)
        assert updates.any() == (t == controls.FIRST)
    np.testing.assert_allclose(state.curvature, curvature, rtol=1e-5)
    # The second moment was taken to be SLOW times too large; the eleventh batch is in it already.
    assert np.all(np.abs(updates) < np.abs(params)) and np.all(updates * params < 0)


@pytest.mark.parametrize("make", [controls.schaul, controls.li_tai_e])
def test_what_is_missing_is_named(make: Any) -> None:
    optimizer = make()
    with pytest.raises(TypeError, match="params"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
