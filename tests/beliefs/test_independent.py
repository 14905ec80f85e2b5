"""Two beliefs side by side: each is what it is alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, filters
from tests import oracles

GRADIENT = beliefs.LocalLevel(0.9, noise_variance=0.5)
CURVATURE = beliefs.PrecisionWalk(0.95)


@pytest.mark.usefixtures("x64")
def test_each_belief_is_what_it_is_alone():
    y = jnp.asarray(oracles.random_stream(seed=0, num_steps=12)["matrix"])
    joined = beliefs.independent(gradient=GRADIENT, curvature=CURVATURE)
    posterior, info = filters.filter_recording(joined, y)
    one, one_info = filters.filter_recording(GRADIENT, y)
    other, _ = filters.filter_recording(CURVATURE, y)
    want = beliefs.Posterior(*one[:2], *other[2:4])

    # The same operations, compiled together or apart: float64 round-off.
    def close(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b, rtol=1e-12)

    jax.tree.map(close, (posterior, info), (want, one_info))
    assert all(x is not None for x in posterior[:4])
    assert posterior.gradient_curvature_covariance is None


def test_filters_can_be_joined_and_keep_their_memory():
    params = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(5)}
    one, other = beliefs.LocalLevel(0.9).shared_filter(), CURVATURE.shared_filter()
    state = beliefs.independent(gradient=one, curvature=other).filter().init(params)
    assert sum(x.size for x in jax.tree.leaves(state)) == 2 * (11 + 1)


def test_the_other_fields_of_each_are_not_taken():
    """The roles are by name: a curvature belief alone says nothing about the gradient."""
    y = jnp.ones((2, 3))
    swapped = beliefs.independent(gradient=CURVATURE, curvature=GRADIENT)
    assert filters.filter_recording(swapped, y)[0] == beliefs.Posterior()


class Spy(NamedTuple):
    """A belief whose gradient mean is the sum of displacements and of the second sensor."""

    uses_displacement: bool

    def filter(self) -> beliefs.Filter:
        def predict(state: "SpyState", displacement: Any = None) -> "SpyState":
            return state if displacement is None else SpyState(state.total + displacement)

        def update(predicted: "SpyState", gradient: Any, curvature: Any = None) -> Any:
            del gradient
            total = predicted.total if curvature is None else predicted.total + curvature
            return SpyState(total)

        uses = self.uses_displacement
        return beliefs.Filter(SpyState, predict, update, uses_displacement=uses)


class SpyState(NamedTuple):
    total: Any

    def posterior(self) -> beliefs.Posterior:
        return beliefs.Posterior(gradient_mean=self.total, curvature_mean=-self.total)


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("other", [False, True])
def test_displacement_and_second_sensor_reach_both(one: bool, other: bool):
    filter_ = beliefs.independent(gradient=Spy(one), curvature=Spy(other)).filter()
    assert filter_.uses_displacement == (one or other)
    predicted = filter_.predict(filter_.init(jnp.asarray(1.0)), jnp.asarray(10.0))
    state = filter_.update(predicted, jnp.asarray(0.0), jnp.asarray(100.0))
    posterior = state.posterior()
    assert (posterior.gradient_mean, posterior.curvature_mean) == (111, -111)


def test_roles_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        beliefs.independent(GRADIENT, CURVATURE)  # pyright: ignore[reportCallIssue]
