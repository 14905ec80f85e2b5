"""Another library's square-root Kalman filter of the same secant model, and who is right."""

import functools
from typing import Any

import cuthbert
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cuthbert.gaussian import kalman

from beliefnav import filters
from beliefnav.beliefs import Secant
from tests import oracles

HYPER = {
    "noise_variance": 0.05,
    "prior_gradient_variance": 2.0,
    "prior_curvature_variance": 1.5,
    "prior_gradient_mean": 0.3,
    "prior_curvature_mean": -0.4,
    "gradient_process_variance": 0.1,
    "curvature_process_variance": 0.2,
    "gradient_autocorrelation": 0.9,
    "curvature_autocorrelation": 0.8,
    "curvature_noise_variance": 0.3,
}
# A third of the time to compile what runs for a moment.
jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0},
)


@pytest.mark.usefixtures("x64")
def test_cuthbert_filters_the_same_model():
    """Missing are readings of either sensor, and of both.

    Its k-th input is the transition into step k and the reading there: none leads to the first.
    """
    rng = np.random.default_rng(0)
    moved = rng.normal(0, 0.8, 9)
    y, c = rng.normal(0.3, 1.0, (2, 9))
    y[[1, 4]] = np.nan
    c[[0, 4, 5]] = np.nan
    model = oracles.secant_model(y, moved, c, **HYPER)
    joint = oracles.joint(model)

    def into_each(first: Any, others: Any) -> jax.Array:
        return jnp.asarray(np.concatenate([np.asarray(first)[None], others]))

    inputs = (
        into_each(np.eye(2), model.matrices),
        into_each(np.zeros(2), model.offsets),
        into_each(np.zeros((2, 2)), np.sqrt(model.noises)),
        jnp.asarray(np.stack([y, c], 1)),
    )
    scales = np.sqrt([HYPER["noise_variance"], HYPER["curvature_noise_variance"]])

    def dynamics(model_inputs: Any) -> Any:
        return model_inputs[:3]

    def observation(model_inputs: Any) -> Any:
        return jnp.eye(2), jnp.zeros(2), jnp.diag(jnp.asarray(scales)), model_inputs[3]

    @jit
    def run(inputs: Any) -> Any:
        mean, root = jnp.asarray(model.mean), jnp.asarray(np.sqrt(model.covariance))
        theirs = kalman.build_filter(mean, root, dynamics, observation)
        states = cuthbert.filter(theirs, inputs, theirs.init_prepare())
        return states.mean, states.chol_cov, states.log_normalizing_constant[-1]

    mean, root, log_likelihood = (np.asarray(x) for x in run(inputs))
    covariance = root @ root.swapaxes(1, 2)
    streams = (jnp.asarray(x) for x in (y, moved, c))
    ours, info = jit(lambda *x: filters.filter_recording(Secant(**HYPER), *x))(*streams)
    for got_mean, variances, shared, density in (
        (mean[1:], np.diagonal(covariance[1:], 0, 1, 2), covariance[1:, 0, 1], log_likelihood),
        (
            np.stack([ours.gradient_mean, ours.curvature_mean], 1),
            np.stack([ours.gradient_variance, ours.curvature_variance], 1),
            ours.gradient_curvature_covariance,
            info.log_density.sum(),
        ),
    ):
        # Float64 round-off.
        close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
        close(got_mean, joint.filtered_mean)
        close(variances, np.diagonal(joint.filtered_covariance, 0, 1, 2))
        close(shared, joint.filtered_covariance[:, 0, 1])
        close(density, joint.log_likelihood)
