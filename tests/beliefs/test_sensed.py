"""Sensed curvature: a belief about the readings, and about nothing else."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, filters
from beliefnav.beliefs import LocalLevel, sensed
from tests import oracles
from tests.beliefs import laws
from tests.contract.test_beliefs import any_tree

MODEL = LocalLevel(0.7, 0.6, 1.5, 1.7)
READINGS = np.random.default_rng(0).normal(1.0, 0.8, (9, 2))
READ_AT = np.array([0, 2, 3, 7])
SPARSE = np.where(np.isin(np.arange(9), READ_AT)[:, None], READINGS, np.nan)
SPARSE[3, 1] = np.inf  # one entry alone is missing


@jax.jit
def believe(model: Any, curvature: Any) -> Any:
    gradient = 100 * jnp.cos(jnp.arange(curvature.size)).reshape(curvature.shape)
    return filters.filter_recording(sensed(model), gradient, curvature=curvature)


@pytest.mark.usefixtures("x64")
def test_time_is_counted_in_readings():
    """Between readings nothing changes; a missing entry of a reading is an observation missed."""
    posterior, info = believe(MODEL, jnp.asarray(SPARSE))
    exact = oracles.per_entry(
        lambda c: oracles.local_level(c, 0.7, 0.6, 1.5, 1.7).filtered, SPARSE[READ_AT]
    )
    np.testing.assert_allclose(posterior.curvature_mean[READ_AT], exact[0], rtol=1e-11)
    np.testing.assert_allclose(posterior.curvature_variance[READ_AT], exact[1], rtol=1e-11)
    for field in (posterior.curvature_mean, posterior.curvature_variance):
        held = field[READ_AT[np.searchsorted(READ_AT, np.arange(9), side="right") - 1]]
        np.testing.assert_array_equal(field, held)
    assert posterior.gradient_mean is None and posterior.gradient_variance is None
    np.testing.assert_array_equal(info.log_density[~np.isfinite(SPARSE)], 0)
    np.testing.assert_array_equal(info.missing, ~np.isfinite(SPARSE))


def test_without_readings_the_prior_stays():
    gradient = jnp.asarray(READINGS, jnp.float32)
    filter_ = sensed(MODEL).filter()
    start = filter_.init(gradient)
    state, info = laws.observe(filter_, filter_.predict(start), gradient)
    jax.tree.map(np.testing.assert_array_equal, state, start)
    assert info == beliefs.Info()
    # So does it where a reading comes and says nothing.
    state = filter_.update(filter_.predict(start), gradient, jnp.full_like(gradient, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, state, start)


@pytest.mark.usefixtures("x64")
def test_matrices_are_read_entry_by_entry():
    params = {"a": jnp.ones(2), "b": jnp.ones((1, 1)), "c": None}
    hessians = np.random.default_rng(1).normal(size=(4, 3, 3))
    filter_ = sensed(LocalLevel(0.8), dense=True).filter()

    @jax.jit
    def run(readings: Any) -> Any:
        def step(state: Any, reading: Any) -> Any:
            return filter_.update(filter_.predict(state), params, reading), None

        return jax.lax.scan(step, filter_.init(params), readings)[0].posterior()

    weights = 0.8 ** np.arange(3, -1, -1)
    want = np.einsum("t,tij->ij", weights, hessians) / weights.sum()
    np.testing.assert_allclose(run(hessians).curvature_mean, want, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_joined_to_a_belief_about_the_gradient_each_sees_its_own():
    both = beliefs.independent(gradient=LocalLevel(0.9, 1.0), curvature=sensed(MODEL))
    gradient = jnp.asarray(np.random.default_rng(2).normal(size=(9, 2)))
    got = filters.filter_recording(both, gradient, curvature=jnp.asarray(SPARSE))[0]
    level = filters.filter_recording(LocalLevel(0.9, 1.0), gradient)[0]
    np.testing.assert_allclose(got.gradient_mean, level.gradient_mean, rtol=1e-13)
    curvature = believe(MODEL, jnp.asarray(SPARSE))[0]
    np.testing.assert_allclose(got.curvature_mean, curvature.curvature_mean, rtol=1e-13)
    np.testing.assert_allclose(got.curvature_variance, curvature.curvature_variance, rtol=1e-13)


def test_any_tree_of_matrices():
    def square(params: Any) -> Any:
        leaves = [jnp.ravel(x) for x in jax.tree.leaves(params)]
        flat = jnp.concatenate(leaves) if leaves else jnp.zeros(0)
        flat = jnp.clip(flat, -2, 2)  # its products are exact in half precision
        return flat[:, None] * flat[None, :]

    any_tree("sensed(LocalLevel)", sensed(MODEL, dense=True), square)


@pytest.mark.parametrize(
    "belief",
    [beliefs.Optimum(1.0, 1.0, 1.0), beliefs.Secant(1.0, 1.0, 1.0)],
    ids=["optimum", "secant"],
)
def test_beliefs_about_displacements_are_refused(belief: Any):
    with pytest.raises(ValueError, match="Cannot hold .* about readings.* how far the parameters"):
        sensed(belief)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("belief", "name"),
    [
        (beliefs.PrecisionWalk(0.9), "PrecisionWalk"),
        (beliefs.shared(beliefs.PrecisionWalk(0.9)), r"shared\(PrecisionWalk\)"),
        (beliefs.WishartWalk(0.9), "WishartWalk"),
    ],
    ids=["walk", "shared", "matrix"],
)
def test_a_belief_that_has_no_use_for_readings_is_refused(belief: Any, name: str, dense: bool):
    """It would be fed, and nothing would ever be read off it."""
    with pytest.raises(ValueError, match=f"Cannot hold {name} about readings.*no gradient_mean"):
        sensed(belief, dense=dense).filter().init({"a": jnp.ones(3)})
    assert sensed(belief, dense=dense).filter().init({}) is not None


def test_a_dense_reading_of_another_shape_is_refused() -> None:
    filter_ = sensed(LocalLevel(0.9), dense=True).filter()
    params = jnp.ones(3)
    predicted = filter_.predict(filter_.init(params))
    with pytest.raises(ValueError, match=r"\[\(3, 3\)\], got \[\(3,\)\]"):
        filter_.update(predicted, params, params)
    diagonal = sensed(LocalLevel(0.9)).filter()
    with pytest.raises(ValueError, match=r"\[\(3,\)\], got \[\(3, 3\)\]"):
        diagonal.update(diagonal.predict(diagonal.init(params)), params, jnp.eye(3))
