"""What users of `two_hypothesis` tell it: a task that begins, fewer examples, what a switch keeps.

Its recursion is tested in tests/rules/test_switching.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, logit

from beliefnav import rules, wrappers
from beliefnav.wrappers.partial_switches import layer_hypotheses

pytestmark = pytest.mark.usefixtures("dtype_promotion")
PyTree = Any
two_hypothesis: Any = wrappers.two_hypothesis
HEAD = {"body": False, "head": True}
HAZARD, BATCH = 0.01, 8


def tree(body: float, head: float) -> PyTree:
    return {"body": jnp.float32(body), "head": jnp.float32(head)}


def run(optimizer: Any, start: PyTree, steps: int, switch: int, at: PyTree = None) -> list[Any]:
    """States of steps at constant gradients of 1; the task begins with step ``switch``."""
    params, state, states = start if at is None else at, optimizer.init(start), []
    for t in range(steps):
        gradient = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(
            gradient, state, params, value=1.0, value_fn=lambda _: 1.0, task_begins=t == switch
        )
        params = optax.apply_updates(params, updates)
        states.append((params, state))
    return states


# --- a task that is known to begin ----------------------------------------------------------------


@pytest.mark.parametrize("hazard", [0.0, HAZARD])
def test_a_task_that_is_told_to_begin_begins_at_the_start_with_a_fresh_state(hazard: float) -> None:
    inner = optax.adagrad(0.1)  # whose accumulators do not start at 0
    optimizer, start = two_hypothesis(inner, hazard, BATCH), tree(0.3, -0.7)
    update = jax.jit(
        lambda g, s, p, told: optimizer.update(
            g, s, p, value=1.0, value_fn=lambda _: 5.0, task_begins=told
        )
    )
    params, state = tree(4.0, 5.0), optimizer.init(start)
    _, other = update(params, state, params, False)
    # The loss is lower than at the start: by itself it would say that the task goes on.
    assert float(other.switch_probability) <= HAZARD
    updates, state = update(params, other, params, True)
    assert float(state.switch_probability) == float(state.reset_fraction) == 1
    jax.tree.map(np.testing.assert_array_equal, state.inner_state, inner.init(start))
    there = optax.apply_updates(params, updates)
    # Two roundings of a float32 that is 15 times as large as the start.
    jax.tree.map(lambda x, s: np.testing.assert_allclose(x, s, atol=1e-6), there, start)


@pytest.mark.usefixtures("x64")
def test_parameters_in_double_precision_are_reset_in_it() -> None:
    optimizer, start = two_hypothesis(optax.sgd(0.1), 0.0, BATCH), {"w": jnp.float64(1 / 3)}
    params = {"w": jnp.float64(np.pi)}
    told = {"value": 1.0, "value_fn": lambda _: 1.0, "task_begins": True}
    updates, _ = optimizer.update(params, optimizer.init(start), params, **told)
    there: Any = optax.apply_updates(params, updates)
    np.testing.assert_allclose(there["w"], start["w"], rtol=1e-15)  # two roundings


def test_nothing_said_of_a_task_is_that_none_begins() -> None:
    """As in a loop that passes on what it may not have."""
    start, loss = tree(0.3, -0.7), {"value": 1.0, "value_fn": lambda _: 1.0}
    for optimizer in (
        two_hypothesis(optax.adam(0.1), HAZARD, BATCH),
        layer_hypotheses(optax.adam(0.1), HAZARD, BATCH),
    ):
        state = optimizer.init(start)
        for told in (None, False):
            got = optimizer.update(start, state, start, task_begins=told, **loss)
            want = optimizer.update(start, state, start, **loss)
            jax.tree.map(np.testing.assert_array_equal, got, want)


def test_it_passes_a_chain() -> None:
    optimizer = optax.chain(two_hypothesis(optax.sgd(0.1), 0.0, BATCH), optax.identity())
    start, params = tree(0, 0), tree(1, 2)
    told = {"value": 1.0, "value_fn": lambda _: 1.0, "task_begins": True}
    updates, _ = optimizer.update(params, optimizer.init(start), params, **told)
    assert optax.apply_updates(params, updates) == start


# --- a network that diverged ----------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("hazard", [0.0, HAZARD])
def test_a_network_that_diverged_is_reset_whatever_the_hazard(bad: float, hazard: float) -> None:
    inner = optax.chain(optax.trace(0.5), optax.sgd(0.1))
    optimizer, start = two_hypothesis(inner, hazard, BATCH), tree(0.3, -0.7)

    @jax.jit
    def update(params: PyTree, state: Any, loss: Any) -> Any:
        gradient = jax.tree.map(lambda p: p * loss, params)
        updates, state = optimizer.update(
            gradient, state, params, value=loss, value_fn=lambda _: 2.0
        )
        return optax.apply_updates(params, updates), state

    params, state = update(tree(3e9, 1.0), optimizer.init(start), bad)
    assert float(state.switch_probability) == 1 and float(state.surprise) == np.inf
    jax.tree.map(np.testing.assert_array_equal, state.inner_state, inner.init(start))
    assert int(state.without_evidence) == 0
    # The spacing of float32 at 3e9 is 256, so that 0.3 is missed; the next step is from there.
    assert float(params["body"]) == 0
    after, state = update(params, state, 1.0)
    pi = expit(logit(hazard) - BATCH)
    np.testing.assert_allclose(float(state.switch_probability), pi, rtol=1e-5)
    for name in ("body", "head"):
        want = start[name] - (1 - pi) * 0.1 * params[name]
        np.testing.assert_allclose(float(after[name]), float(want), rtol=1e-6)


def test_a_start_that_is_not_finite_is_refused() -> None:
    optimizer = two_hypothesis(optax.sgd(0.1), HAZARD, BATCH)
    with pytest.raises(ValueError, match=r"start that is not finite.*at init has.*'head'.*prior_m"):
        optimizer.init(tree(0, np.nan))
    with pytest.raises(ValueError, match="prior_mean has such an entry in 'body'"):
        two_hypothesis(optax.sgd(0.1), HAZARD, BATCH, tree(np.inf, 0)).init(tree(0, 0))
    # What is traced is not known.
    assert np.isnan(jax.jit(optimizer.init)(tree(0, np.nan)).prior_mean["head"])


# --- the number of examples of a batch ------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 20.0])
def test_a_batch_weighs_as_much_as_it_has_examples(count: float) -> None:
    optimizer, params = two_hypothesis(optax.sgd(0.1), HAZARD, BATCH), tree(1, 2)
    for told, weight in ({"examples": count}, count), ({}, BATCH):
        _, state = optimizer.update(
            params, optimizer.init(params), params, value=1.2, value_fn=lambda _: 1.0, **told
        )
        want = expit(logit(HAZARD) + weight * 0.2)
        np.testing.assert_allclose(float(state.switch_probability), want, rtol=1e-5)


# --- what a switch keeps --------------------------------------------------------------------------


def test_a_mask_may_keep_the_state_of_what_it_leaves_out() -> None:
    inner: Any = optax.adam(0.1)
    kept = run(two_hypothesis(inner, 0.0, BATCH, mask=HEAD, keep_state=True), tree(0, 0), 6, 3)
    usual = run(two_hypothesis(inner, 0.0, BATCH, mask=HEAD), tree(0, 0), 6, 3)
    for states, body in (kept, 6), (usual, 2):
        moments, _ = states[-1][1].inner_state
        # n steps with gradients of 1, from 0.
        for name, n in ("head", 2), ("body", body):
            np.testing.assert_allclose(float(moments.mu[name]), 1 - 0.9**n, rtol=1e-5)
            np.testing.assert_allclose(float(moments.nu[name]), 1 - 0.999**n, rtol=1e-4)
        # The counter stands beside both, and starts anew only if both do.
        assert int(moments.count) == body
    assert float(kept[3][0]["head"]) == 0


def test_a_partition_gives_every_part_its_own_counter() -> None:
    parts: Any = {"a": optax.adam(0.1), "b": optax.adam(optax.constant_schedule(0.1))}
    inner = optax.partition(parts, {"body": "a", "head": "b"})
    told = {"mask": HEAD, "keep_state": True}
    _, state = run(two_hypothesis(inner, 0.0, BATCH, **told), tree(0, 0), 6, 3)[-1]
    counts = {
        name: [int(x) for x in jax.tree.leaves(part) if x.dtype == jnp.int32]
        for name, part in state.inner_state.inner_states.items()
    }
    assert counts == {"a": [6], "b": [2, 2]}


@pytest.mark.parametrize("restart", [True, False])
def test_a_schedule_may_run_over_all_tasks(restart: bool) -> None:
    rate = optax.linear_schedule(1.0, 0.0, 10)
    optimizers = {
        "chained": optax.adam(rate),
        "injected": optax.inject_hyperparams(optax.adam)(rate),
        "ours": rules.adam(rate),
    }
    for name, inner in optimizers.items():
        optimizer = two_hypothesis(inner, 0.0, BATCH, restart_schedule=restart)
        path = run(optimizer, tree(0, 0), 6, 3)
        last, before = (float(path[t][0]["head"]) for t in (5, 4))
        # Of constant gradients a step of Adam is the rate: the second of a task, or the sixth.
        np.testing.assert_allclose(before - last, 0.9 if restart else 0.5, rtol=1e-4, err_msg=name)
        assert float(path[3][0]["head"]) == 0
        moments = path[5][1].inner_state
        if name == "chained":
            assert int(moments[0].count) == 2  # that of Adam starts anew either way


# --- names ----------------------------------------------------------------------------------------


def test_the_scalars_are_found_where_the_inner_optimizer_has_the_same_names() -> None:
    inner = rules.hazard_filter(0.2, 1.0, examples=BATCH)
    state = two_hypothesis(inner, HAZARD, BATCH).init(tree(0, 0))
    with pytest.raises(KeyError, match="multiple values"):
        optax.tree.get(state, "switch_probability")
    assert optax.tree.get((None, state), "TwoHypothesisState").switch_probability == 0
