"""Drifting optimum: filter and program against a scalar Kalman filter on where the optimum is."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from beliefnav import control, filters, navigator
from beliefnav.beliefs import Optimum
from tests import oracles

MODEL = Optimum(
    curvature=1.7,
    noise_variance=0.3,
    prior_variance=2.0,
    prior_mean=-0.6,
    process_variance=0.1,
    autocorrelation=0.8,
)


def recording(seed: int) -> tuple[jax.Array, jax.Array]:
    """Gradients [20, 6] with holes, and displacements."""
    y, d = (oracles.random_stream(seed + i, 20, m)["matrix"] for i, m in ((0, 0.3), (2000, 0.0)))
    return jnp.asarray(y).reshape(20, 6), jnp.asarray(d).reshape(20, 6)


def kalman(model: Optimum, y: Any, d: Any) -> tuple[Any, Any, Any, Any]:
    r"""Position, mean and variance of $\theta^* - \theta_0$, and log densities, all [step, ...]."""
    h, noise, rho = model.curvature, model.noise_variance, model.autocorrelation
    y, d = np.asarray(y), np.asarray(d)
    position = np.concatenate([np.zeros_like(d[:1]), np.cumsum(d, 0)[:-1]])
    m = np.full(y.shape[1:], model.prior_mean)
    v = np.full(y.shape[1:], model.prior_variance)
    rows = []
    for t in range(len(y)):
        if t > 0:
            m = model.prior_mean + rho * (m - model.prior_mean)
            v = rho**2 * v + model.process_variance
        seen = np.isfinite(y[t])
        s = h**2 * v + noise
        error = np.where(seen, y[t], 0) - h * (position[t] - m)
        density = np.where(seen, stats.norm.logpdf(error, scale=np.sqrt(s)), 0)
        m = m - np.where(seen, h * v / s * error, 0)
        v = np.where(seen, v * noise / s, v)
        rows.append((position[t], m, v, density))
    position, m, v, density = map(np.stack, zip(*rows, strict=True))
    return position, m, v, density


@jax.jit
def filtered(model: Optimum, y: Any, d: Any) -> Any:
    return filters.filter_recording(model, y, d)


# --- the filter ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_filter_is_a_kalman_filter_of_the_absolute_optimum():
    y, d = recording(0)
    for model in (
        MODEL,
        Optimum(-0.4, 1e-8, 3.0),
        dataclasses.replace(MODEL, autocorrelation=0.0),
        dataclasses.replace(MODEL, process_variance=0.0, autocorrelation=1.0, prior_mean=5.0),
    ):
        posterior, info = filtered(jax.tree.map(jnp.asarray, model), y, d)
        position, m, v, density = kalman(model, y, d)
        h = model.curvature
        # Float64 round-off of 20 steps.
        gradient = h * (position - m)
        np.testing.assert_allclose(posterior.gradient_mean, gradient, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(posterior.gradient_variance, h**2 * v, rtol=1e-10)
        np.testing.assert_array_equal(posterior.curvature_mean, h)
        np.testing.assert_array_equal(posterior.curvature_variance, 0)
        assert posterior.gradient_curvature_covariance is None
        np.testing.assert_allclose(info.log_density, density, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(info.missing, ~np.isfinite(y))


@pytest.mark.usefixtures("x64")
def test_online_loop_on_a_tree_tells_where_the_optimum_is():
    y, d = recording(1)
    origin = 1e6 * jnp.arange(6.0)  # far away: no digits are lost to where that is
    position, m, v, _ = kalman(MODEL, y, d)

    def tree(x: Any) -> Any:
        return {"a": x[:4].reshape(2, 2), "b": [x[4:]]}

    filter_ = MODEL.filter()
    assert filter_.uses_displacement
    update = jax.jit(lambda s, moved, y: filter_.update(filter_.predict(s, moved), y))
    state = filter_.init(tree(origin))
    moved = tree(jnp.zeros(6))
    for t in range(6):
        state = update(state, moved, tree(y[t]))
        moved = tree(d[t])
        params = tree(origin + position[t])
        for part in (lambda x: x["a"].ravel(), lambda x: x["b"][0]):
            index = slice(None, 4) if part(params).size == 4 else slice(4, None)
            mean, variance = map(part, state.posterior().optimum(params))
            gradient = part(state.posterior().gradient_mean)
            # Rounding of the position, 1e6 * 1e-16, in the sum alone.
            np.testing.assert_allclose(mean - origin[index], m[t, index], atol=3e-9)
            np.testing.assert_allclose(variance, v[t, index], rtol=1e-12)
            want = MODEL.curvature * (position - m)[t, index]
            np.testing.assert_allclose(gradient, want, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_no_time_passes_before_the_first_observation():
    y, d = recording(2)
    posterior, _ = filtered(jax.tree.map(jnp.asarray, MODEL), y.at[0].set(0.9), d)
    gain = 1.7 * 2.0 / (1.7**2 * 2.0 + 0.3)
    mean = -0.6 - gain * (0.9 - 1.7 * 0.6)
    np.testing.assert_allclose(posterior.gradient_mean[0], -1.7 * mean, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_flat_parameters_are_harmless():
    """Nothing can be learned where h = 0: what is believed of the optimum is its prior."""
    y, d = recording(3)
    model = Optimum(0.0, 0.3, 2.0, prior_mean=-0.6)
    state: Any = jax.jit(lambda: filters.last_state(model, y, d))()
    posterior, position = state.posterior(), jnp.cumsum(d, 0)[-2]
    np.testing.assert_array_equal(posterior.gradient_mean, 0)
    np.testing.assert_array_equal(posterior.gradient_variance, 0)
    mean, variance = state.posterior().optimum(position)
    # The distance is a sum of 19 displacements.
    np.testing.assert_allclose(mean, -0.6, rtol=1e-13)
    np.testing.assert_array_equal(variance, 2.0)


@pytest.mark.usefixtures("x64")
def test_the_belief_returns_to_its_prior_when_nothing_is_seen():
    y, d = recording(4)
    y = y.at[1:].set(jnp.nan).at[0].set(3.0)
    stationary = dataclasses.replace(MODEL, process_variance=2.0 * (1 - 0.8**2))
    posterior, _ = filtered(jax.tree.map(jnp.asarray, stationary), y, d)
    position = np.concatenate([np.zeros((1, 6)), np.cumsum(d, 0)[:-1]])
    variance = posterior.gradient_variance / 1.7**2
    mean = position - posterior.gradient_mean / 1.7
    decay = 0.8 ** np.arange(20)[:, None]
    np.testing.assert_allclose(mean + 0.6, (mean[0] + 0.6)[None] * decay, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(2.0 - variance, (2.0 - variance[0])[None] * decay**2, rtol=1e-11)


# --- the program --------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64", "rank_promotion")
@pytest.mark.parametrize("walks", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_density_of_the_program_is_the_model_written_out(walks: bool):
    rng = np.random.default_rng(5)
    y, d = (np.asarray(x[:5, :3]) for x in recording(5))
    model = MODEL if walks else dataclasses.replace(MODEL, process_variance=0.0)
    path = rng.normal(size=y.shape)
    want = stats.norm.logpdf(path[0], -0.6, np.sqrt(2.0)).sum()
    for t in range(1, 5):
        mean = -0.6 + 0.8 * (path[t - 1] + 0.6)
        if walks:
            want += stats.norm.logpdf(path[t], mean, np.sqrt(0.1)).sum()
        else:
            path[t] = mean
    position = np.concatenate([np.zeros((1, 3)), np.cumsum(d, 0)[:-1]])
    gradient = 1.7 * (position - path)
    want += np.nansum(stats.norm.logpdf(np.where(np.isfinite(y), y, np.nan), gradient, 0.3**0.5))
    latents = {"optimum": path} if walks else {"initial_optimum": path[0]}
    got, sites = log_density(model.numpyro_model, (y, d), {}, jax.tree.map(jnp.asarray, latents))
    # Float64 round-off of a sum of 30 terms.
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(sites["optimum"]["value"], path, rtol=1e-12)
    np.testing.assert_allclose(sites["gradient"]["value"], gradient, rtol=1e-12)
    assert sites["optimum"]["type"] == ("sample" if walks else "deterministic")


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
def test_simulated_moments():
    size, d = 20_000, np.array([0.5, -1.0, 2.0, 0.0])
    program = numpyro.handlers.seed(MODEL.numpyro_model, jax.random.key(6))
    y = np.asarray(program(displacement=np.repeat(d[:, None], size, 1)))
    assert y.shape == (4, size)
    model = oracles.optimum_model(np.full(4, np.nan), d, **vars(MODEL))
    prior = oracles.joint(model)
    position = np.concatenate([[0], np.cumsum(d)[:-1]])
    mean = 1.7 * (position - prior.smoothed_mean[:, 0])
    covariance = 1.7**2 * prior.smoothed_covariance[:, 0, :, 0] + 0.3 * np.eye(4)
    centred = y - mean[:, None]
    # Second moments of Gaussians: variance (C_ii C_jj + C_ij^2) / size. Five standard errors, for
    # 10 + 4 comparisons: a chance of 1e-5 that a right program fails for a fresh seed.
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / size)
    assert np.max(np.abs(centred @ centred.T / size - covariance) / error) < 5
    assert np.max(np.abs(centred.mean(1)) / np.sqrt(np.diag(covariance) / size)) < 5


# --- errors -------------------------------------------------------------------------------------


def test_prediction_needs_a_displacement():
    filter_ = MODEL.filter()
    with pytest.raises(ValueError, match="Optimum: predict needs the displacement"):
        filter_.predict(filter_.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="Optimum: the NumPyro program needs a displacement"):
        MODEL.numpyro_model(np.zeros(3))
    with pytest.raises(ValueError, match=r"displacement has shape \(3,\), but gradient .* \(2,\)"):
        MODEL.numpyro_model(np.zeros(2), np.zeros(3))


# --- followed at once ---------------------------------------------------------------------------


def followed(belief: Any, gradients: Any) -> np.ndarray:
    """The steps [step, ...] of who goes to where the optimum is believed to be."""
    optimizer: Any = navigator(1.0, belief, control.to_optimum())

    def step(carry: Any, gradient: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (params + updates, state), updates

    start = jnp.zeros(jnp.shape(gradients)[1:])
    run = jax.jit(lambda y: jax.lax.scan(step, (start, optimizer.init(start)), y)[1])
    return np.asarray(run(jnp.asarray(gradients)))


@pytest.mark.usefixtures("x64", "dtype_promotion")
def test_followed_at_once_it_is_robbins_monro():
    """The rate falls as 1 / (h n + R / (h v0)), from the certainty of the prior to 1 / (h n)."""
    h, noise, variance = 0.7, 0.5, 2.0
    y = np.random.default_rng(8).normal(size=(50, 4))
    rates = 1 / (h * np.arange(1, 51) + noise / (h * variance))
    steps = followed(Optimum(h, noise, variance), y)
    np.testing.assert_allclose(steps, -rates[:, None] * y, rtol=1e-10)
    peer = optax.sgd(lambda count: 1 / (h * (count + 1) + noise / (h * variance)))
    state: Any = peer.init(jnp.zeros(4))
    for i in range(3):
        update: Any = peer.update(jnp.asarray(y[i]), state)
        want, state = update
        np.testing.assert_allclose(steps[i], want, rtol=1e-6)  # optax counts in float32


@pytest.mark.usefixtures("x64")
def test_an_optimum_that_drifts_is_followed_at_a_rate_that_ends_constant():
    h, noise, drift = 0.7, 0.5, 0.02
    y = np.random.default_rng(9).normal(size=(400, 2))
    rates = -followed(Optimum(h, noise, 2.0, process_variance=drift), y) / y
    # The stationary variance before a reading solves P^2 = q (P + R / h^2).
    reading = noise / h**2
    before = (drift + np.sqrt(drift**2 + 4 * drift * reading)) / 2
    np.testing.assert_allclose(rates[-1], before / (before + reading) / h, rtol=1e-6)
    assert np.all(np.diff(rates[:, 0]) < 1e-12)
