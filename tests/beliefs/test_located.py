"""Where the optimum is, from gradient and curvature: regression on the path, ratios, averages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, control, navigator

CURVATURE, RATE, NOISE = 0.7, 0.3, 0.5
LANDSCAPE = beliefs.Secant(NOISE, prior_gradient_variance=1e4, prior_curvature_variance=1.0)


def paths(start: float, num_steps: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and gradients [step, path] of noisy gradient descent to 0."""
    rng = np.random.default_rng(0)
    params, seen = np.full((num_steps, size), start), np.empty((num_steps, size))
    for t in range(num_steps):
        seen[t] = CURVATURE * params[t] + np.sqrt(NOISE) * rng.normal(size=size)
        if t + 1 < num_steps:
            params[t + 1] = params[t] - RATE * seen[t]
    return params, seen


def believed(belief: Any, params: np.ndarray, gradients: np.ndarray) -> Any:
    """Mean and variance of the optimum after the last gradient."""
    filter_ = belief.filter()

    @jax.jit
    def run(params: Any, gradients: Any) -> Any:
        moves = jnp.diff(params, axis=0, prepend=params[:1])

        def step(state: Any, now: Any) -> Any:
            moved, gradient = now
            return filter_.update(filter_.predict(state, moved), gradient), None

        state = jax.lax.scan(step, filter_.init(params[0]), (moves, gradients))[0]
        return state.posterior().optimum(params[-1])

    return jax.tree.map(np.asarray, run(jnp.asarray(params), jnp.asarray(gradients)))


@pytest.mark.usefixtures("x64")
def test_the_optimum_is_that_of_a_regression_on_the_path():
    """y = g + h (theta - theta_1), with the priors of g and h; the variance by the delta method."""
    params, gradients = paths(-4.0, 20, 7)
    mean, variance = believed(beliefs.located(LANDSCAPE), params, gradients)
    for i in range(7):
        rows = np.stack([np.ones(20), params[:, i] - params[0, i]], 1)
        covariance = np.linalg.inv(np.diag([1e-4, 1.0]) + rows.T @ rows / NOISE)
        g, h = covariance @ (rows.T @ gradients[:, i] / NOISE)
        slope = np.array([-1 / h, g / h**2])  # of -g/h in g and h
        # Float64 round-off of 20 steps, against a prior that is 1e4 wide.
        np.testing.assert_allclose(mean[i], params[0, i] - g / h, rtol=1e-9)
        np.testing.assert_allclose(variance[i], slope @ covariance @ slope, rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_the_distance_is_the_median_of_the_ratio():
    belief = beliefs.located(LANDSCAPE)
    state: Any = belief.filter().init(jnp.zeros(()))
    for moved, y in ((0.0, 3.0), (1.0, 4.2), (-0.5, 3.3)):
        state = belief.filter().update(
            belief.filter().predict(state, jnp.asarray(moved)), jnp.asarray(y)
        )
    read = state.posterior()
    covariance = [[read.gradient_variance, read.gradient_curvature_covariance]]
    covariance += [[read.gradient_curvature_covariance, read.curvature_variance]]
    mean = np.array([read.gradient_mean, read.curvature_mean])
    draws = np.random.default_rng(1).multivariate_normal(mean, np.array(covariance), 400_000)
    # P(g + x h >= 0) is a half at the distance, whatever the sign of h. The standard error is 8e-4.
    share = np.mean(draws[:, 0] + float(read.distance_mean) * draws[:, 1] >= 0)
    np.testing.assert_allclose(share, 0.5, atol=4e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("num_steps", "start", "average", "known", "inferred"),
    [
        (20, -4.0, 0.97, 0.22, 0.29),
        (20, 0.0, 0.18, 0.22, 0.22),
        (200, -4.0, 0.118, 0.071, 0.072),
        (2000, -4.0, 0.0248, 0.0226, 0.0226),
    ],
)
def test_an_unknown_curvature_costs_little_where_the_start_is_far(
    num_steps: int, start: float, average: float, known: float, inferred: float
):
    """Root mean square errors of 2,000 paths: the average of the path, and two posteriors."""
    params, gradients = paths(start, num_steps, 2000)
    of_path = params.mean(0)
    of_known = (params - gradients / CURVATURE).mean(0)
    mean, _ = believed(beliefs.located(beliefs.positive(LANDSCAPE)), params, gradients)
    for got, want in ((of_path, average), (of_known, known), (mean, inferred)):
        # The relative standard error of a root mean square of 2,000 is 1.6 %, of heavy tails more.
        np.testing.assert_allclose(np.sqrt(np.mean(got**2)), want, rtol=0.06)


@pytest.mark.usefixtures("x64")
def test_a_known_curvature_and_a_flat_prior_are_the_average_and_a_boundary_term():
    """The posterior of `Optimum`, for a prior that is wide, and the identity for any weights."""
    params, gradients = paths(-4.0, 30, 3)
    belief = beliefs.Optimum(CURVATURE, NOISE, prior_variance=1e12)
    mean, variance = believed(belief, params, gradients)
    after = params[-1] - RATE * gradients[-1]
    boundary = (after - params[0]) / (RATE * CURVATURE * 30)
    np.testing.assert_allclose(mean, params.mean(0) + boundary, rtol=1e-9)
    np.testing.assert_allclose(variance, NOISE / CURVATURE**2 / 30, rtol=1e-9)
    # Readings of the optimum with weights of any kind, by parts.
    weights = np.random.default_rng(2).uniform(size=(30, 1))
    weights /= weights.sum()
    changes = (params[1:] * np.diff(weights, axis=0)).sum(0)
    ends = weights[-1] * after - weights[0] * params[0]
    identity = (weights * params).sum(0) + (ends - changes) / (RATE * CURVATURE)
    readings = (weights * (params - gradients / CURVATURE)).sum(0)
    np.testing.assert_allclose(readings, identity, rtol=1e-12)


def test_a_rule_steps_to_where_the_optimum_is():
    landscape = beliefs.Secant(1e-4, prior_gradient_variance=1e2, prior_curvature_variance=1e2)
    belief = beliefs.located(beliefs.positive(landscape))
    optimizer: Any = navigator(0.5, belief, control.to_optimum())
    curvature, optimum = jnp.array([0.5, 2.0]), jnp.array([3.0, -1.0])

    @jax.jit
    def train(params: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(curvature * (params - optimum), state, params)
            return (params + updates, state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=40)[0][0]

    np.testing.assert_allclose(train(jnp.zeros(2)), optimum, atol=0.02)


def test_a_curvature_that_is_not_positive_says_nothing_of_the_optimum():
    state = beliefs.located(LANDSCAPE).filter().init(jnp.ones(2))
    read = state.posterior()
    np.testing.assert_array_equal(read.distance_mean, 0)
    np.testing.assert_array_equal(read.distance_variance, jnp.inf)


@pytest.mark.parametrize("belief", [beliefs.LocalLevel(0.9), beliefs.PrecisionWalk(0.9)])
def test_what_does_not_say_enough_is_refused(belief: Any):
    with pytest.raises(ValueError, match=r"Cannot locate the optimum by \w+\. This is because"):
        beliefs.located(belief).filter().init(jnp.ones(2))
