"""What a belief is told besides the gradient: how far the parameters moved, a second sensor."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import beliefs, control, navigator, scale_by_navigation

PyTree = Any


class Odometer(NamedTuple):
    """A belief in what was just seen, which also keeps all that it was told."""

    def filter(self) -> beliefs.Filter:
        def zeros(params: PyTree) -> PyTree:
            return jax.tree.map(
                lambda p: jnp.zeros_like(p, jnp.promote_types(p.dtype, jnp.float32)), params
            )

        def like(tree: PyTree, other: PyTree) -> PyTree:
            return jax.tree.map(lambda x, o: x.astype(o.dtype), tree, other)

        def init(params: PyTree) -> OdometerState:
            return OdometerState(zeros(params), zeros(params), zeros(params))

        def predict(state: OdometerState, displacement: PyTree = None) -> OdometerPredicted:
            return OdometerPredicted(like(displacement, state.gradient), state.sensor)

        def update(
            predicted: OdometerPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> "OdometerState":
            moved, sensor = predicted
            sensor = sensor if curvature is None else like(curvature, sensor)
            return OdometerState(like(gradient, moved), moved, sensor)

        def diagnose(
            predicted: OdometerPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> beliefs.Info:
            return beliefs.Info(innovation=like(gradient, predicted.displacement))

        return beliefs.Filter(
            init, predict, update, diagnose, uses_displacement=True, uses_curvature=True
        )


class OdometerState(NamedTuple):
    gradient: PyTree
    displacement: PyTree
    sensor: PyTree

    def posterior(self) -> beliefs.Posterior:
        return beliefs.Posterior(gradient_mean=self.gradient)


class OdometerPredicted(NamedTuple):
    displacement: PyTree
    sensor: PyTree


def told(state: PyTree) -> Any:
    """The displacement that the belief inside an optimizer state was told at the last update."""
    return optax.tree.get(state, "displacement")


def tree(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.asarray(rng.normal(size=3))}


def assert_identical(actual: PyTree, expected: PyTree) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


navigation = scale_by_navigation(Odometer(), control.myopic())
CHAINS = {
    "alone": navigator(0.1, Odometer(), control.myopic()),
    "clipped before": optax.chain(
        optax.clip_by_global_norm(0.5), navigation, optax.scale_by_learning_rate(0.1)
    ),
    "clipped after": optax.chain(
        navigation, optax.clip_by_global_norm(0.05), optax.scale_by_learning_rate(0.1)
    ),
    "weight decay": optax.chain(
        navigation,
        optax.add_decayed_weights(0.3, mask={"w": True, "b": False}),
        optax.scale_by_learning_rate(optax.linear_schedule(0.1, 0.0, 20)),
    ),
    "momentum after": optax.chain(navigation, optax.trace(0.9), optax.scale(-0.1)),
    "injected": optax.inject_hyperparams(navigator)(0.1, Odometer(), control.myopic()),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("jitted", [False, True])
def test_displacement_is_how_far_the_parameters_really_moved(name: str, jitted: bool) -> None:
    # Exact: both sides are the same difference of the same floats.
    optimizer = CHAINS[name]
    update = jax.jit(optimizer.update) if jitted else optimizer.update
    params = previous = tree(0)
    state = optimizer.init(params)
    for t in range(5):
        updates, state = update(tree(t + 1), state, params)
        assert_identical(told(state), jax.tree.map(jnp.subtract, params, previous))
        params, previous = optax.apply_updates(params, updates), params
    assert float(optax.tree.norm(told(state))) > 0


def test_displacement_includes_moves_that_the_optimizer_did_not_make() -> None:
    optimizer = CHAINS["alone"]
    params = tree(0)
    _, state = optimizer.update(tree(1), optimizer.init(params), params)
    elsewhere = tree(2)
    _, state = optimizer.update(tree(3), state, elsewhere)
    assert_identical(told(state), jax.tree.map(jnp.subtract, elsewhere, params))


def test_displacement_under_a_mask_is_that_of_the_selected_leaves() -> None:
    optimizer = optax.masked(CHAINS["alone"], {"w": True, "b": False})
    params = tree(0)
    updates, state = optimizer.update(tree(1), optimizer.init(params), params)
    moved = optax.apply_updates(params, updates)
    _, state = optimizer.update(tree(2), state, moved)
    assert isinstance(told(state)["b"], optax.MaskedNode)
    difference: Any = jax.tree.map(jnp.subtract, moved, params)
    assert_identical(told(state)["w"], difference["w"])


def test_displacement_under_multi_steps_is_from_one_real_step_to_the_next() -> None:
    optimizer = optax.MultiSteps(CHAINS["alone"], every_k_schedule=3).gradient_transformation()
    update = jax.jit(optimizer.update)
    params = tree(0)
    state = optimizer.init(params)
    seen_at: list[PyTree] = []
    for t in range(9):
        if t % 3 == 2:
            seen_at.append(params)
        updates, state = update(tree(t + 1), state, params)
        if t % 3 == 2:
            previous = seen_at[-2] if len(seen_at) > 1 else seen_at[-1]
            assert_identical(told(state), jax.tree.map(jnp.subtract, seen_at[-1], previous))
        params = optax.apply_updates(params, updates)
    assert len(seen_at) == 3


def test_a_displacement_given_by_the_user_is_told_and_the_parameters_still_kept() -> None:
    optimizer = optax.chain(optax.clip(1.0), CHAINS["alone"])
    params, given, elsewhere = tree(0), tree(7), tree(8)
    state = optimizer.init(params)
    _, state = optimizer.update(tree(1), state, params, displacement=given)
    assert_identical(told(state), given)
    _, state = optimizer.update(tree(2), state, elsewhere)
    assert_identical(told(state), jax.tree.map(jnp.subtract, elsewhere, params))


def test_curvature_reaches_the_belief_through_a_chain() -> None:
    optimizer = optax.chain(optax.clip(1.0), CHAINS["alone"], optax.scale(2.0))
    params, sensor = tree(0), tree(9)
    _, state = optimizer.update(tree(1), optimizer.init(params), params, curvature=sensor)
    assert_identical(optax.tree.get(state, "sensor"), sensor)


@pytest.mark.parametrize("given", [None, "displacement"])
def test_a_belief_about_movement_asks_for_params(given: str | None) -> None:
    optimizer = CHAINS["alone"]
    state = optimizer.init(tree(0))
    extra = {given: tree(1)} if given else {}
    with pytest.raises(ValueError, match=r"Odometer without params.*update\(gradient, state, par"):
        optimizer.update(tree(1), state, **extra)


def test_parameters_are_kept_only_for_a_belief_that_asks_how_far_they_moved() -> None:
    belief = beliefs.LocalLevel(0.9)
    transform: Any = scale_by_navigation(belief, control.myopic())
    _, state = transform.update(tree(1), transform.init(tree(0)), tree(0))
    assert state.previous_params is None
    joined = beliefs.independent(gradient=Odometer(), curvature=beliefs.PrecisionWalk(0.9))
    transform = scale_by_navigation(joined, control.myopic())
    _, state = transform.update(tree(1), transform.init(tree(0)), tree(2))
    assert_identical(state.previous_params, tree(2))
    assert_identical(told(state), jax.tree.map(jnp.subtract, tree(2), tree(0)))
