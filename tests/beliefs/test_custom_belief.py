"""A belief of one's own is anything with a ``filter()``, and goes wherever a model goes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import beliefs, control, filters, navigator
from beliefnav.beliefs.contract import as_belief


class Sign(NamedTuple):
    """Believes the discounted mean of the signs of a gradient."""

    discount: float

    def filter(self) -> beliefs.Filter:
        def init(params: Any) -> "SignState":
            return SignState(jax.tree.map(jnp.zeros_like, params))

        def predict(state: "SignState", displacement: Any = None) -> "SignPredicted":
            del displacement
            return SignPredicted(jax.tree.map(lambda m: self.discount * m, state.mean))

        def update(predicted: "SignPredicted", gradient: Any, curvature: Any = None) -> Any:
            del curvature
            seen = jax.tree.map(lambda y: jnp.nan_to_num(jnp.sign(y)), gradient)
            mean = jax.tree.map(lambda m, y: m + (1 - self.discount) * y, predicted.mean, seen)
            return SignState(mean)

        def diagnose(predicted: "SignPredicted", gradient: Any, curvature: Any = None) -> Any:
            del predicted, curvature
            return beliefs.Info(
                innovation=jax.tree.map(lambda y: jnp.nan_to_num(jnp.sign(y)), gradient)
            )

        return beliefs.Filter(init, predict, update, diagnose)


class SignState(NamedTuple):
    mean: Any

    def posterior(self) -> beliefs.Posterior:
        return beliefs.Posterior(gradient_mean=self.mean)


class SignPredicted(NamedTuple):
    mean: Any


Y = np.array([[1.0, -3.0], [2.0, np.nan], [-0.5, -0.1]])
# By hand, at discount 1/2: m <- m / 2 + sign / 2.
MEANS = np.array([[0.5, -0.5], [0.75, -0.25], [-0.125, -0.625]])


def test_anything_with_a_filter_is_a_belief():
    level, filter_ = beliefs.LocalLevel(0.5), Sign(0.5).filter()
    assert as_belief(level) is level
    for given in (Sign(0.5), filter_):
        held = as_belief(given)
        assert held.name == type(given).__name__
        assert not held.filter().uses_displacement
    for given in (jnp.sign, Sign, 3):
        with pytest.raises(TypeError, match="must be one of beliefnav.beliefs or anything with a"):
            as_belief(given)


def test_it_filters_recordings():
    posterior, info = filters.filter_recording(Sign(0.5), jnp.asarray(Y))
    np.testing.assert_array_equal(posterior.gradient_mean, MEANS)
    np.testing.assert_array_equal(info.innovation, [[1, -1], [1, 0], [-1, -1]])
    assert info.log_density is None


def test_without_a_predictive_density_it_has_no_likelihood():
    with pytest.raises(ValueError, match="Sign has no predictive density"):
        filters.log_likelihood(Sign(0.5), jnp.asarray(Y))


def test_it_joins_with_a_model():
    belief = beliefs.independent(gradient=Sign(0.5), curvature=beliefs.PrecisionWalk(1.0))
    posterior = filters.filter_recording(belief, jnp.asarray(Y))[0]
    np.testing.assert_array_equal(posterior.gradient_mean, MEANS)
    # Float32 round-off of three terms.
    np.testing.assert_allclose(posterior.curvature_mean[-1], np.nanmean(Y**2, 0), rtol=1e-6)


def test_it_makes_an_optimizer():
    optimizer = navigator(0.1, Sign(0.5), control.myopic())
    params: Any = {"a": jnp.zeros(2)}
    state = optimizer.init(params)
    for row in Y:
        updates, state = optimizer.update({"a": jnp.asarray(row)}, state, params)
        params = optax.apply_updates(params, updates)
    # Float32 round-off of three steps.
    np.testing.assert_allclose(params["a"], -0.1 * MEANS.sum(0), rtol=1e-6)
