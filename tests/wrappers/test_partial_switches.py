"""Hypotheses about which layers start anew, against their recursion written out in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav.wrappers.partial_switches import layer_hypotheses, layer_masks

pytestmark = pytest.mark.usefixtures("dtype_promotion")
RATE, HAZARD, BATCH, TRIAL = 0.1, 0.01, 8, 3
HEAD = {"a": False, "b": True}
WHOLE = {"a": True, "b": True}


def optimizer() -> Any:
    return layer_hypotheses(optax.sgd(RATE), HAZARD, BATCH, TRIAL, masks=[WHOLE, HEAD])


def tree(a: float, b: float) -> Any:
    return {"a": jnp.float32(a), "b": jnp.float32(b)}


def loss_toward(a: float, b: float) -> Any:
    return lambda p: (p["a"] - a) ** 2 + (p["b"] - b) ** 2


def step(params: Any, state: Any, loss: Any, **extra: Any) -> Any:
    value, gradient = jax.value_and_grad(loss)(params)
    moved, state = optimizer().update(gradient, state, params, value=value, value_fn=loss, **extra)
    return optax.apply_updates(params, moved), state


def test_a_trial_is_a_forward_pass_over_hypotheses() -> None:
    state, params = optimizer().init(tree(0, 0)), tree(1, 2)
    places = np.array([[1.0, 2.0], [0.0, 0.0], [1.0, 0.0]])
    goal, logs = np.array([1.0, -1.0]), np.log([1 - HAZARD, HAZARD / 2, HAZARD / 2])
    state = state._replace(seen=jnp.int32(50), variance=jnp.float32(0.01))
    for _ in range(TRIAL):
        params, state = step(params, state, loss_toward(*goal))
        logs = logs - BATCH * ((places - goal) ** 2).sum(1)
        logs -= np.logaddexp.reduce(logs)
        places = places - RATE * 2 * (places - goal)
        np.testing.assert_allclose(state.log_weights, logs, rtol=1e-5, atol=1e-6)  # float32
        np.testing.assert_allclose([params["a"], params["b"]], places[logs.argmax()], rtol=1e-5)
    assert int(state.leader) == 2 and int(state.remaining) == 0 and int(state.trials) == 1


def test_what_is_not_surprising_is_the_optimizer() -> None:
    state, params = optimizer().init(tree(0, 0)), tree(1, 2)
    want = params
    for _ in range(15):
        params, state = step(params, state, loss_toward(3, 3))
        want = jax.tree.map(lambda p: p - RATE * 2 * (p - 3), want)
    np.testing.assert_allclose([params["a"], params["b"]], [want["a"], want["b"]], rtol=1e-5)
    assert int(state.trials) == 0


def test_a_task_that_is_told_does_not_go_on() -> None:
    params, state = step(tree(1, 2), optimizer().init(tree(0, 0)), loss_toward(1, 2), begins=True)
    assert int(state.leader) == 2 and float(state.switch_probability) == 1


def test_a_network_that_diverged_starts_anew_and_a_bad_batch_is_no_evidence() -> None:
    start = optimizer().init(tree(0, 0))
    params, state = step(tree(1e30, 1e30), start, loss_toward(1, 2))
    assert int(state.leader) == 1
    # One step of the gradient from 0; the subtraction of 1e30 from itself is exact.
    np.testing.assert_allclose(state.rivals["b"][1], 0.4, rtol=1e-6)
    assert np.isfinite([params["a"], params["b"]]).all()
    _, state = step(tree(1, 1), start, lambda p: p["a"] * jnp.nan)
    assert int(state.trials) == 0


def test_three_layers_have_five_masks() -> None:
    layers = [{"w": 0, "b": 0} for _ in range(3)]
    got = [[m["w"] for m in mask] for mask in layer_masks(layers)]
    one, two = (
        [[False, False, True], [True, False, False]],
        [[False, True, True], [True, True, False]],
    )
    assert got == [[True] * 3, *one, *two]
