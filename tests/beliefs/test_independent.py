"""Two beliefs side by side: each is what it is alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, control, filters, navigator
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


def test_a_belief_in_the_place_of_the_other_is_refused():
    """The roles are by name: a belief about curvature alone says nothing about the gradient."""
    swapped = beliefs.independent(gradient=CURVATURE, curvature=GRADIENT)
    message = "Cannot take the gradient from PrecisionWalk.*no gradient_mean.*give one.*curvature="
    for start in (lambda: swapped.filter().init(jnp.ones(3)), lambda: navigator_of(swapped)):
        with pytest.raises(ValueError, match=message):
            start()
    twice = beliefs.independent(gradient=GRADIENT, curvature=beliefs.shared(GRADIENT))
    with pytest.raises(ValueError, match=r"curvature from shared\(LocalLevel\).*beliefs.sensed"):
        filters.filter_recording(twice, jnp.ones((2, 3)))


def navigator_of(belief: Any) -> Any:
    params: Any = {"a": jnp.ones(3), "b": None}
    return navigator(0.1, belief, control.myopic()).init(params)


def test_of_no_parameters_nothing_is_missing():
    """As where a mask leaves none; and one belief may say what only the other is asked."""
    swapped = beliefs.independent(gradient=CURVATURE, curvature=GRADIENT)
    for none in (None, {}, {"a": None}):
        assert swapped.filter().init(none) is not None
    secant = beliefs.Secant(1.0, 1.0, 1.0, prior_curvature_mean=3.0)
    both = beliefs.independent(gradient=secant, curvature=CURVATURE).filter()
    assert both.init(jnp.ones(3)).posterior().curvature_mean[0] == 0
    alone = beliefs.independent(gradient=GRADIENT, curvature=secant).filter()
    assert alone.init(jnp.ones(3)).posterior().curvature_mean[0] == 3


def test_abstract_parameters_are_believed_in():
    """Shapes alone, as optimizers are initialised with."""
    shapes = {"a": jax.ShapeDtypeStruct((3,), jnp.float32)}
    state = jax.eval_shape(
        beliefs.independent(gradient=GRADIENT, curvature=CURVATURE).filter().init, shapes
    )
    assert jax.tree.leaves(state)


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
