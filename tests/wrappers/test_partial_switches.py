"""Hypotheses about which layers start anew, against their recursion written out in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import explain, posterior, recording, rules
from beliefnav.wrappers import partial_switches

pytestmark = pytest.mark.usefixtures("dtype_promotion")
# What optax says of the types of states and updates is too wide to look into them.
layer_hypotheses: Any = partial_switches.layer_hypotheses
RATE, HAZARD, BATCH, TRIAL = 0.1, 0.01, 8, 3
HEAD = {"a": False, "b": True}
WHOLE = {"a": True, "b": True}


def optimizer(hazard: float | None = HAZARD) -> Any:
    return layer_hypotheses(optax.sgd(RATE), hazard, BATCH, TRIAL, masks=[WHOLE, HEAD])


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
    params, state = step(
        tree(1, 2), optimizer().init(tree(0, 0)), loss_toward(1, 2), task_begins=True
    )
    assert int(state.leader) == 2 and float(state.switch_probability) == 1


def test_a_network_that_diverged_starts_anew_and_a_bad_batch_is_no_evidence() -> None:
    start = optimizer().init(tree(0, 0))
    # The square of 1e20 is more than float32 holds.
    params, state = step(tree(1e20, 1e20), start, loss_toward(1, 2))
    assert int(state.leader) == 1 and int(state.trials) == 1
    assert float(state.switch_probability) == 1 and float(state.reset_fraction) == 1
    # Of 1e20 the update leaves nothing, and nothing of one step from 0 to 0.4 either.
    np.testing.assert_array_equal([params["a"], params["b"]], 0)
    _, state = step(tree(1, 1), start, lambda p: p["a"] * jnp.nan)
    assert int(state.trials) == 0 and int(state.seen) == 0


def test_a_batch_on_which_no_possible_hypothesis_has_a_loss_is_no_evidence() -> None:
    """Where it is told that the task does not go on, its loss does not count."""
    learner, params = optimizer(), tree(1, 2)
    told: dict[str, Any] = {"value": 1.0, "task_begins": True}
    told["value_fn"] = lambda p: jnp.where(p["b"] == 0, jnp.nan, p["b"])
    _, state = learner.update(tree(0, 0), learner.init(tree(0, 0)), params, **told)
    np.testing.assert_allclose(jnp.exp(state.log_weights), [0, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("diverged", [False, True])
def test_without_a_hazard_a_trial_that_begins_is_one_of_the_masks(
    diverged: bool, double: bool
) -> None:
    with jax.enable_x64(double):
        learner = layer_hypotheses(optax.sgd(RATE), 0.0, BATCH, TRIAL, masks=[WHOLE, HEAD])
        params = tree(1e20, 1e20) if diverged else tree(1, 2)
        state, loss = learner.init(tree(0, 0)), loss_toward(1, 0)
        value, gradient = jax.value_and_grad(loss)(params)
        told = {"value": value, "value_fn": loss, "task_begins": not diverged}
        _, state = learner.update(gradient, state, params, **told)
        # All anew has a loss of 1; the head alone has the square of 1e20, or 0.
        want = [0, -np.inf] if diverged else [-np.log1p(np.exp(8)), -np.log1p(np.exp(-8))]
        np.testing.assert_allclose(state.log_weights, [-np.inf, *want], rtol=1e-5, atol=1e-6)
        assert int(state.leader) == (1 if diverged else 2)
        # Outside of a trial a step is one of float32 too, or a scan would not take it.
        carried = state._replace(remaining=jnp.int32(0))
        _, after = learner.update(gradient, carried, params, value=1.0, value_fn=loss)
        assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)


def test_gradients_in_half_precision_move_parameters_in_single_precision() -> None:
    params, loss = tree(1, 2), loss_toward(1, 0)
    state, gradient = optimizer().init(tree(0, 0)), {"a": jnp.bfloat16(0), "b": jnp.bfloat16(4)}
    for begins, want in ((False, -4 * RATE), (True, -2.0)):
        told = {"value": loss(params), "value_fn": loss, "task_begins": begins}
        moved, _ = optimizer().update(gradient, state, params, **told)
        assert moved["b"].dtype == jnp.float32
        np.testing.assert_allclose(moved["b"], want, rtol=2**-8)  # bfloat16


def test_three_layers_have_five_masks() -> None:
    layers = [{"w": 0, "b": 0} for _ in range(3)]
    got = [[m["w"] for m in mask] for mask in partial_switches.layer_masks(layers)]
    one, two = (
        [[False, False, True], [True, False, False]],
        [[False, True, True], [True, True, False]],
    )
    assert got == [[True] * 3, *one, *two]


# --- the whole recursion --------------------------------------------------------------------------


def oracle(
    goals: np.ndarray, examples: np.ndarray, learned: bool = False, begins: Any = ()
) -> dict[str, np.ndarray]:
    """Gradient descent from 0 with the hypotheses that nothing, all or the head starts anew."""
    fixed, held = np.array([1 - HAZARD, HAZARD / 2, HAZARD / 2]), np.zeros(3)
    params, level, variance, seen, remaining = np.zeros(2), 0.0, 0.0, 0, 0
    places, logs, leader = np.zeros((3, 2)), np.zeros(3), 0
    names = ("params", "leader", "switch_probability", "switches")
    path: dict[str, list[Any]] = {name: [] for name in names}
    for t, (goal, count) in enumerate(zip(goals, examples, strict=True)):
        loss = ((params - goal) ** 2).sum()
        surprise = min(count * max(loss - level, 0), (loss - level) ** 2 / (2 * variance or 1e-38))
        prior = (np.array([99, 0.5, 0.5]) + held) / (100 + held.sum()) if learned else fixed
        odds = (1 - prior[0]) / prior[0]
        told, step = t in begins, [1, 0, 0]
        if told or (not remaining and seen >= 10 and np.log(odds) + surprise > 0):
            step = np.exp(logs - np.logaddexp.reduce(logs)) if remaining else step
            places = np.array([params, [0.0, 0.0], [params[0], 0.0]])
            logs, remaining = np.log(prior) + [-np.inf if told else 0, 0, 0], TRIAL
        probability = 0.0
        if remaining:
            logs = logs - count * ((places - goal) ** 2).sum(1)
            places = places - RATE * 2 * (places - goal)
            leader, level, variance, seen = int(logs.argmax()), 0.0, 0.0, 0
            params, remaining = places[leader], remaining - 1
            weights = np.exp(logs - np.logaddexp.reduce(logs))
            probability, step = 1 - weights[0], step if remaining else weights
        else:
            gain = 1 / (min(seen, 4 * TRIAL - 1) + 1)
            variance = (1 - gain) * (variance + gain * (loss - level) ** 2)
            level, seen = level + gain * (loss - level), seen + 1
            params = params - RATE * 2 * (params - goal)
        held = held + step
        for name, x in zip(path, (params, leader, probability, held), strict=True):
            path[name].append(x)
    return {name: np.array(x) for name, x in path.items()}


def stream(seed: int, steps: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Goals whose head changes its sign in the middle, and the sizes of batches."""
    rng = np.random.default_rng(seed)
    sign = np.where(np.arange(steps) < steps // 2, 1, -1)
    goals = np.stack([np.full(steps, 3.0), 3.0 * sign], 1) + rng.normal(0, 0.3, (steps, 2))
    return goals, rng.integers(2, BATCH, steps)


def weak_stream(seed: int, steps: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Goals of which one or both change signs every 20 steps, and batches that say little."""
    rng = np.random.default_rng(seed)
    sign = np.repeat(rng.choice([-1, 1], steps // 20), 20)
    both = np.repeat(rng.choice([-1, 1], steps // 20, p=[0.3, 0.7]), 20)
    goals = 3.0 * np.stack([both, sign], 1) + rng.normal(0, 0.5, (steps, 2))
    return goals, rng.uniform(0.1, 0.4, steps)


def train(
    goals: Any, examples: Any, begins: Any = None, dtype: Any = jnp.float32, learner: Any = None
) -> Any:
    """Parameters, leaders, probabilities and counts after every step."""
    learner = optimizer() if learner is None else learner
    start = jax.tree.map(lambda x: x.astype(dtype), tree(0, 0))

    def one(carry: Any, inputs: Any) -> Any:
        params, state = carry
        goal, count, told = inputs
        loss = loss_toward(*goal.astype(dtype))
        value, gradient = jax.value_and_grad(loss)(params)
        extra = {"value": value, "value_fn": loss, "examples": count, "task_begins": told}
        moved, state = learner.update(gradient, state, params, **extra)
        params: Any = optax.apply_updates(params, moved)
        own = optax.tree.get(state, "LayerHypothesesState")
        place = jnp.stack([params["a"], params["b"]])
        return (params, state), (place, own.leader, own.switch_probability, own.switches)

    begins = jnp.zeros(examples.shape, bool) if begins is None else begins
    return jax.lax.scan(one, (start, learner.init(start)), (goals, examples, begins))


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_path_is_that_of_its_recursion(seed: int, learned: bool) -> None:
    goals, examples = stream(seed)
    learner = optimizer(None if learned else HAZARD)
    run = jax.jit(lambda *x: train(*x, learner=learner))
    _, got = run(jnp.asarray(goals, jnp.float32), jnp.asarray(examples, jnp.float32))
    want = oracle(goals, examples, learned)
    # The head is found at the switch, and nothing before.
    assert (want["leader"][:30] == 0).all() and want["leader"][-1] == 2
    np.testing.assert_allclose(want["switches"][-1], [59, 0, 1], atol=1e-3)
    for x, name in zip(got, want, strict=True):
        # Float32; a probability is of log weights of up to 100 nats.
        np.testing.assert_allclose(x, want[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_what_is_learned_of_hazards_decides_where_evidence_is_weak() -> None:
    goals, examples = weak_stream(37)
    cut = (100, 101)  # the second task is told to begin while the first is on trial
    want = oracle(goals, examples, True, cut)
    doubtful = (want["switch_probability"] > 0.1) & (want["switch_probability"] < 0.9)
    fixed = oracle(goals, examples, False, cut)["switch_probability"]
    # The stream is one where it matters, and where both masks are found.
    assert doubtful.sum() > 5 and ((fixed > 0) != (want["switch_probability"] > 0)).any()
    assert want["switches"][-1].sum() == pytest.approx(200) and (want["switches"][-1] > 1).all()
    run = jax.jit(lambda *x: train(*x, learner=optimizer(None)))
    given = (jnp.asarray(x, jnp.float32) for x in (goals, examples))
    _, got = run(*given, jnp.isin(jnp.arange(200), jnp.array(cut)))
    for x, name in zip(got, want, strict=True):
        # Float32, over 200 steps.
        np.testing.assert_allclose(x, want[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_counts_of_switches_stay_where_float32_can_add_one() -> None:
    learner, params, loss = optimizer(None), tree(1, 2), loss_toward(1, 2)
    full = jnp.array([2.0**23 - 4.0, 1.0, 2.0])
    state = learner.init(params)._replace(switches=full)
    _, state = learner.update(tree(0, 0), state, params, value=loss(params), value_fn=loss)
    # One more step makes 2^23, of which half is kept.
    np.testing.assert_array_equal(state.switches, (full + jnp.array([1, 0, 0])) / 2)


@pytest.mark.parametrize("masks", [1, 10])
def test_a_switch_at_every_step_is_a_hazard_too(masks: int) -> None:
    """Ten tenths in float32 are more than 1, of which there is no logit."""
    learner = layer_hypotheses(optax.sgd(RATE), 1.0, BATCH, TRIAL, masks=masks * [WHOLE])
    params, loss = tree(1, 2), loss_toward(0, 0)
    state = learner.init(tree(0, 0))._replace(seen=jnp.int32(50), variance=jnp.float32(1))
    _, state = learner.update(tree(0, 0), state, params, value=loss(params), value_fn=loss)
    assert int(state.trials) == 1 and float(state.switch_probability) == 1
    # The same loss under all masks leaves them equally likely.
    np.testing.assert_allclose(jnp.exp(state.log_weights[1:]), 1 / masks, rtol=1e-6)


def test_seeds_are_mapped_over() -> None:
    goals, examples = (np.stack(x) for x in zip(stream(0), stream(1), strict=True))
    given = jnp.asarray(goals, jnp.float32), jnp.asarray(examples, jnp.float32)
    both = jax.jit(jax.vmap(lambda *x: train(*x)[1]))(*given)
    apart = jax.jit(lambda *x: jax.lax.map(lambda one: train(*one)[1], x))(*given)
    # The same operations in another order of fusion.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), both, apart)


def test_half_precision_has_the_path_of_its_recursion_as_far_as_it_holds_it() -> None:
    goals, examples = stream(0)
    learner = layer_hypotheses(rules.sgd(RATE), HAZARD, BATCH, TRIAL, masks=[WHOLE, HEAD])
    given = jnp.asarray(goals, jnp.bfloat16), jnp.asarray(examples, jnp.float32)
    run = jax.jit(lambda *x: train(*x, dtype=jnp.bfloat16, learner=learner))
    (params, state), got = run(*given)
    want = oracle(goals, examples)
    assert {x.dtype for x in jax.tree.leaves((params, state.rivals))} == {jnp.dtype("bfloat16")}
    assert int(state.leader) == 2 and int(state.trials) == 1
    # The spacing of bfloat16 between 2 and 4 is 1/64; gradients and parameters are rounded.
    np.testing.assert_allclose(got[0].astype(jnp.float32), want["params"], atol=0.12)


# --- what is asked of an optimizer ----------------------------------------------------------------


def test_it_says_what_it_assumes() -> None:
    told = explain(layer_hypotheses, rules.adam, 1e-3, hazard=1e-3, examples=32, masks=[HEAD])
    facts = [(fact.subject, fact.value) for fact in told.facts()]
    assert facts[:5] == [
        ("task length", "1,000 steps"),
        ("layers anew", "1 given"),
        ("trial", "20 steps"),
        ("evidence", "32 examples a batch"),
        ("task prior", "the initial parameters"),
    ]
    assert told.facts()[-len(explain(rules.adam, 1e-3).facts()) :] == (
        explain(rules.adam, 1e-3).facts()
    )
    assert max(len(line) for line in str(told).splitlines()) <= 100
    given = explain(layer_hypotheses, optax.sgd(1), hazard=0, examples=1, prior_mean=0.0, trial=1)
    told = dict(fact[:2] for fact in given.facts())
    assert told["task length"] == "unlimited" and told["task prior"] == "given"
    assert told["layers anew"] == "all; last and first layers" and told["trial"] == "1 step"
    given = explain(layer_hypotheses, optax.sgd(1), hazard=None, examples=1)
    length = given.facts()[0]
    assert length.value == "learned" and "1% a step at first, worth 100 steps" in length.sentence
    with pytest.raises(ValueError, match="layer_hypotheses: trial must be"):
        explain(layer_hypotheses, optax.sgd(1), hazard=0, examples=1, trial=0)


def test_it_is_recorded_and_its_belief_is_that_of_the_leader() -> None:
    inner = rules.adam(RATE)
    learner = layer_hypotheses(inner, HAZARD, BATCH, TRIAL, masks=[WHOLE, HEAD])
    watched = recording.record(learner, coordinates=1, capacity=60, key=jax.random.key(0))
    given = tuple(jnp.asarray(x, jnp.float32) for x in stream(0))
    (plain, own), _ = jax.jit(lambda *x: train(*x, learner=learner))(*given)
    (params, state), (_, leader, probability, _) = jax.jit(lambda *x: train(*x, learner=watched))(
        *given
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), params, plain)
    recorded = recording.to_dataset(state, params)
    np.testing.assert_array_equal(recorded["task_switch_probability"], probability)
    # One of two entries starts anew at the step where the head takes the lead.
    leader = np.asarray(leader)
    took = (np.diff(leader, prepend=0) != 0) & (leader == 2)
    assert took.sum() == 1
    np.testing.assert_array_equal(recorded["task_reset_fraction"][took], 0.5)
    assert float(recorded["task_surprise"][took][0]) > np.log(1 / HAZARD - 1)
    assert np.isfinite(recorded["gradient_mean"]).all()
    for read in posterior(own), posterior(state):
        assert read.gradient_mean["a"].shape == ()
    # Names are found once.
    assert optax.tree.get(own, "missing") is None and optax.tree.get(state, "missing") == 0


def test_it_starts_where_it_is_told_and_refuses_what_is_no_start() -> None:
    learner = layer_hypotheses(optax.sgd(RATE), HAZARD, BATCH, masks=[WHOLE], prior_mean=tree(5, 6))
    params, loss = tree(1, 2), loss_toward(5, 6)
    value, gradient = jax.value_and_grad(loss)(params)
    told = {"value": value, "value_fn": loss, "task_begins": True}
    moved, _ = learner.update(gradient, learner.init(params), params, **told)
    assert optax.apply_updates(params, moved) == tree(5, 6)  # where the gradient is 0
    for bad, message in (({"a": 1.0}, "must be like the param"), (tree(0, np.nan), "not finite")):
        with pytest.raises(ValueError, match=message):
            layer_hypotheses(optax.sgd(RATE), HAZARD, BATCH, prior_mean=bad).init(params)
    with pytest.raises(ValueError, match="without masks"):
        layer_hypotheses(optax.sgd(RATE), HAZARD, BATCH, masks=[])
    with pytest.raises(TypeError, match="layer_hypotheses: update needs value_fn"):
        learner.update(gradient, learner.init(params), params, value=1.0)
    with pytest.raises(ValueError, match="Cannot give per_example_grads to layer_hypotheses"):
        learner.update(gradient, learner.init(params), params, per_example_grads=gradient, **told)
    with pytest.raises(ValueError, match="layer_hypotheses: value must be a scalar"):
        learner.update(gradient, learner.init(params), params, value=jnp.ones(2), value_fn=loss)


@pytest.mark.parametrize("restart", [True, False])
def test_all_anew_starts_counters_but_a_schedule_where_it_is_to_go_on(restart: bool) -> None:
    inner = optax.adam(optax.linear_schedule(RATE, 0.0, 100))
    learner = layer_hypotheses(inner, HAZARD, BATCH, masks=[WHOLE, HEAD], restart_schedule=restart)
    params, state = tree(0, 0), learner.init(tree(0, 0))
    for t in range(4):
        # The loss is lower where all is as at the start, or where the head is.
        for whole in (True, False):
            near = loss_toward(0, 0) if whole else lambda p: p["b"] ** 2 - p["a"]
            told = {"value": near(params), "value_fn": near, "task_begins": t == 3}
            moved, after = learner.update(tree(-1, -1), state, params, **told)
            if t == 3:
                adam, schedule = after.inner_state[0], after.inner_state[-1]
                assert int(after.leader) == (1 if whole else 2)
                assert (int(adam.count), int(schedule.count)) == (
                    (1, 1 if restart else 4) if whole else (4, 4)
                )
        params, state = optax.apply_updates(params, moved), after


def test_keys_and_injected_numbers_belong_to_no_task() -> None:
    noisy = optax.add_noise(0.1, 0.5, key=jax.random.key(3))
    inner = optax.chain(noisy, optax.inject_hyperparams(optax.sgd)(learning_rate=RATE))
    learner = layer_hypotheses(inner, HAZARD, BATCH, masks=[WHOLE])
    params, state = tree(1, 2), learner.init(tree(0, 0))
    state.inner_state[1].hyperparams["learning_rate"] = jnp.float32(0.0)
    loss = loss_toward(0, 0)
    told = {"value": loss(params), "value_fn": loss, "task_begins": True}
    moved, after = jax.jit(lambda s: learner.update(params, s, params, **told))(state)
    # What was set holds under every hypothesis: nothing is learned from the start on.
    assert optax.apply_updates(params, moved) == tree(0, 0)
    assert float(after.inner_state[1].hyperparams["learning_rate"]) == 0
    old, new = (jax.random.key_data(s.inner_state[0].rng_key) for s in (state, after))
    assert not np.array_equal(old, new)
    mapped: Any = optax.tree.map_params(learner, lambda x: x + 1, state)
    np.testing.assert_array_equal(mapped.rivals["a"], state.rivals["a"] + 1)
    np.testing.assert_array_equal(mapped.level, state.level)
    shapes = jax.eval_shape(learner.init, params)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, state)


def test_its_memory_is_what_it_says() -> None:
    """In trees of the parameters' size, as told for Adam and five masks, and for one."""
    layers = {f"layer {n}": {"w": jnp.ones((64, 64)), "b": jnp.ones(64)} for n in range(4)}
    size = sum(x.size for x in jax.tree.leaves(layers))
    for masks, trees in ((None, 18), ([True], 6)):
        state = layer_hypotheses(optax.adam(0.1), HAZARD, BATCH, masks=masks).init(layers)
        assert sum(x.size for x in jax.tree.leaves(state)) // size == trees
