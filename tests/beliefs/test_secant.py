"""Secant landscape: filter and program against a textbook Kalman filter and written-out laws."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from beliefnav import beliefs, filters
from beliefnav.beliefs import Posterior, Secant
from beliefnav.recording import Recording
from tests import oracles
from tests.beliefs import laws

MODEL = Secant(
    noise_variance=0.3,
    prior_gradient_variance=2.0,
    prior_curvature_variance=1.5,
    prior_gradient_mean=0.4,
    prior_curvature_mean=-0.7,
    gradient_process_variance=0.05,
    curvature_process_variance=0.02,
    gradient_autocorrelation=0.95,
    curvature_autocorrelation=0.9,
    curvature_noise_variance=0.5,
)
STATIC = Secant(0.3, 2.0, 1.5)


def recording(seed: int, missing: float = 0.3) -> Recording:
    """Gradients and readings of a second sensor [20, 6], both with holes, and displacements."""
    y, c = (oracles.random_stream(seed + i, 20, missing)["matrix"] for i in (0, 1000))
    d = oracles.random_stream(seed + 2000, 20, missing=0.0)["matrix"]
    return jax.tree.map(lambda x: jnp.asarray(x).reshape(20, 6), Recording(y, d, c))


@jax.jit
def filtered(model: Secant, y: Any, d: Any, c: Any = None) -> Any:
    return filters.filter_recording(model, y, d, c)


def assert_is_the_oracle(got: Any, want: oracles.Secant, y: Any) -> None:
    posterior, info = got
    np.testing.assert_array_equal(info.missing, ~np.isfinite(y))
    read = dict(zip(posterior._fields[:5], posterior, strict=False)) | {
        "log_density": info.log_density,
        "surprise": info.surprise,
    }
    for name, value in read.items():
        expected = getattr(want, name)
        # Float64 round-off of 20 steps relative to the largest: nothing cancels at any noise.
        scale = 1e-10 * np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=scale, err_msg=name)


# --- the filter ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("second_sensor", [False, True])
def test_filter_is_a_kalman_filter(second_sensor: bool):
    rng = np.random.default_rng(0)
    y, d, c = recording(0)
    c = c if second_sensor else None
    for noise in (1e-8, 1e-6, 1e-4, 1e-2, 1.0, 1e2):
        model = Secant(
            noise_variance=noise,
            prior_gradient_variance=rng.gamma(2),
            prior_curvature_variance=rng.gamma(2),
            prior_gradient_mean=rng.normal(),
            prior_curvature_mean=rng.normal(),
            gradient_process_variance=rng.choice([0.0, 0.1]) * rng.gamma(2),
            curvature_process_variance=rng.choice([0.0, 0.1]) * rng.gamma(2),
            gradient_autocorrelation=rng.choice([1.0, rng.random()]),
            curvature_autocorrelation=rng.choice([1.0, rng.random()]),
            curvature_noise_variance=rng.gamma(2) if second_sensor else None,
        )
        got = filtered(jax.tree.map(jnp.asarray, model), y, d, c)
        assert_is_the_oracle(got, oracles.secant(model, y, d, c), y)


@pytest.mark.usefixtures("x64")
def test_what_is_known_while_tracing_changes_nothing():
    """Numbers 0 and 1 take shortcuts in the algebra."""
    y, d, _ = recording(1)
    got = filters.filter_recording(STATIC, y, d)
    assert_is_the_oracle(got, oracles.secant(STATIC, y, d), y)


@pytest.mark.usefixtures("x64")
def test_no_time_passes_before_the_first_observation():
    """The prior is that of the first gradient, whatever the process noise."""
    y, d = jnp.asarray([1.3, -0.2]), jnp.asarray([0.5, 0.0])
    model = dataclasses.replace(
        MODEL, gradient_process_variance=3.0, curvature_process_variance=4.0
    )
    first = jax.tree.map(lambda x: x[0], filters.filter_recording(model, y, d)[0])
    gain = 2.0 / (2.0 + 0.3)
    want = Posterior(0.4 + gain * (1.3 - 0.4), 2.0 * 0.3 / (2.0 + 0.3), -0.7, 1.5, 0.0)
    np.testing.assert_allclose(first[:5], want[:5], rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_displacement_shifted_by_one_is_another_belief():
    """The classic error: at small noise, what is learned depends on which step is which."""
    _, d, _ = recording(3)
    h, start = 2.0, 0.3
    y = start + h * jnp.concatenate([jnp.zeros((1, 6)), jnp.cumsum(d, 0)[:-1]])
    model = jax.tree.map(jnp.asarray, dataclasses.replace(STATIC, noise_variance=1e-6))
    right = filtered(model, y, d)[0].curvature_mean
    # Exact readings, of which the prior keeps R / (travelled^2 P_h) < 1e-5 after five steps.
    np.testing.assert_allclose(right[5:], h, rtol=1e-4)
    for shift in (-1, 1):
        wrong = filtered(model, y, jnp.roll(d, shift, 0))[0].curvature_mean
        assert np.all(np.abs(wrong - right)[5:].mean(0) > 0.1)


@pytest.mark.usefixtures("x64")
def test_where_nothing_moves_nothing_is_learned_of_the_curvature():
    y, _, _ = recording(4)
    model = dataclasses.replace(
        STATIC,
        prior_curvature_mean=0.7,
        gradient_process_variance=0.1,
        gradient_autocorrelation=0.9,
    )
    posterior, _ = filtered(jax.tree.map(jnp.asarray, model), y, jnp.zeros_like(y))
    np.testing.assert_array_equal(posterior.curvature_mean, 0.7)
    np.testing.assert_array_equal(posterior.gradient_curvature_covariance, 0)
    # A product and a quotient by the same number, 20 times.
    np.testing.assert_allclose(posterior.curvature_variance, 1.5, rtol=20 * 2.3e-16)


@pytest.mark.usefixtures("x64")
def test_second_sensor_is_read_where_it_is_given():
    y, d, c = recording(5, missing=0.0)
    model = jax.tree.map(jnp.asarray, MODEL)
    without, blind, with_ = (filtered(model, y, d, x) for x in (None, jnp.full_like(y, jnp.nan), c))
    # Equal up to how XLA fuses float64.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), without, blind)
    # At the first step, two independent scalars.
    gain = 1.5 / (1.5 + 0.5)
    np.testing.assert_allclose(with_[0].curvature_mean[0], -0.7 + gain * (c[0] + 0.7), rtol=1e-13)
    np.testing.assert_array_equal(with_[0].gradient_mean[0], without[0].gradient_mean[0])
    assert np.all(with_[0].curvature_variance < without[0].curvature_variance)
    # Diagnostics are those of the gradient.
    np.testing.assert_array_equal(with_[1].missing, False)
    np.testing.assert_allclose(with_[1].innovation[0], y[0] - 0.4, rtol=1e-13)


def test_a_missing_entry_is_predicted_only_and_disturbs_no_other():
    filter_ = MODEL.filter()
    y, c = jnp.asarray([0.5, jnp.nan, -jnp.inf, 1.0]), jnp.asarray([jnp.inf, 0.3, jnp.nan, 0.2])
    predicted = filter_.predict(filter_.init(y), jnp.ones(4))
    update = jax.jit(lambda *seen: laws.observe(filter_, *seen))
    state, info = update(predicted, y, c)
    complete, _ = update(predicted, jnp.where(jnp.isfinite(y), y, 9.0), c)
    for leaf, other in zip(*map(jax.tree.leaves, (state, complete)), strict=True):
        if leaf.ndim:
            assert np.all(np.isfinite(leaf))
            np.testing.assert_array_equal(leaf[jnp.array([0, 3])], other[jnp.array([0, 3])])
    jax.tree.map(
        lambda leaf, before: np.testing.assert_array_equal(leaf[2], before[2]),
        state.landscape,
        predicted.landscape,
    )
    np.testing.assert_array_equal(info.missing, [False, True, True, False])
    for field in (info.innovation, info.gain):
        np.testing.assert_array_equal(field == 0, [False, True, True, False])
    # The density is that of both sensors: the second was read in the second entry.
    np.testing.assert_array_equal(info.log_density == 0, [False, False, True, False])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_derivatives_of_the_likelihood_are_those_of_the_oracle():
    y, d, c = (x[:10, :2] for x in recording(6))
    y = y.at[0].set(jnp.nan)
    names = [f.name for f in dataclasses.fields(Secant)]

    @jax.jit
    @jax.grad
    def slopes(hyper: list[Any], y: Any) -> Any:
        model = Secant(**dict(zip(names, hyper, strict=True)))
        return filters.log_likelihood(model, y, d, c).sum()

    def exact(hyper: np.ndarray) -> float:
        model = Secant(**dict(zip(names, hyper.tolist(), strict=True)))
        return oracles.secant(model, y, d, c).log_density.sum()

    point, h = np.array(jax.tree.leaves(MODEL)), 1e-5
    want = [(exact(point + h * e) - exact(point - h * e)) / (2 * h) for e in np.eye(len(point))]
    # Central differences with step h: error h^2 f''' + eps f / h ~ 1e-9, relative to O(10).
    np.testing.assert_allclose(
        slopes(list(map(jnp.asarray, jax.tree.leaves(MODEL))), y), want, rtol=1e-7, atol=1e-7
    )


def test_intervals_cover_the_truth_at_every_noise():
    """Landscapes drawn from the prior: nine in ten truths lie in the ninety per cent interval."""
    num_steps, size = 30, 6000
    rng = np.random.default_rng(6)
    levels = np.array([1e-4, 1e-2, 1.0])
    noise = np.broadcast_to(levels[:, None], (3, size))
    model = dataclasses.replace(MODEL, noise_variance=noise, curvature_noise_variance=None)
    shape = noise.shape
    g = 0.4 + np.sqrt(2.0) * rng.normal(size=shape)
    h = -0.7 + np.sqrt(1.5) * rng.normal(size=shape)
    d = rng.normal(size=(num_steps, *shape))
    y = []
    for t in range(num_steps):
        if t > 0:
            g = 0.95 * g + h * d[t - 1] + np.sqrt(0.05) * rng.normal(size=shape)
            h = -0.7 + 0.9 * (h + 0.7) + np.sqrt(0.02) * rng.normal(size=shape)
        y.append(g + np.sqrt(noise) * rng.normal(size=shape))
    posterior, _ = filtered(jax.tree.map(jnp.asarray, model), jnp.asarray(y), jnp.asarray(d))
    last = jax.tree.map(lambda x: np.asarray(x[-1]), posterior)
    for truth, mean, variance in (
        (g, last.gradient_mean, last.gradient_variance),
        (h, last.curvature_mean, last.curvature_variance),
    ):
        covered = np.abs(truth - mean) < stats.norm.ppf(0.95) * np.sqrt(variance)
        # The standard error of a share of 0.9 among 6,000 is 0.0039: five of them.
        np.testing.assert_allclose(covered.mean(1), 0.9, atol=0.02)


# --- the program --------------------------------------------------------------------------------


def written_out(model: Secant, g: Any, h: Any, y: Any, d: Any, c: Any, positive: bool) -> float:
    """The joint log density of latent paths and observations, term by term."""

    def normal(x: Any, mean: Any, variance: Any) -> float:
        return stats.norm.logpdf(x, mean, np.sqrt(variance)).sum()

    def curvature(x: Any, mean: Any, variance: Any) -> float:
        if not positive:
            return normal(x, mean, variance)
        scale = np.sqrt(variance)
        return stats.truncnorm.logpdf(x, -mean / scale, np.inf, mean, scale).sum()

    mu = model.prior_curvature_mean
    total = normal(g[0], model.prior_gradient_mean, model.prior_gradient_variance)
    total += curvature(h[0], mu, model.prior_curvature_variance)
    for t in range(1, len(y)):
        if model.gradient_process_variance:
            mean = model.gradient_autocorrelation * g[t - 1] + h[t - 1] * d[t - 1]
            total += normal(g[t], mean, model.gradient_process_variance)
        if model.curvature_process_variance:
            mean = mu + model.curvature_autocorrelation * (h[t - 1] - mu)
            total += curvature(h[t], mean, model.curvature_process_variance)
    total += sum(normal(y[*i], g[*i], model.noise_variance) for i in np.argwhere(np.isfinite(y)))
    if c is not None:
        noise = model.curvature_noise_variance
        total += sum(normal(c[*i], h[*i], noise) for i in np.argwhere(np.isfinite(c)))
    return total


@pytest.mark.usefixtures("x64", "rank_promotion")
@pytest.mark.parametrize(
    ("g_walks", "h_walks", "positive", "second_sensor"),
    [
        (True, True, False, True),
        pytest.param(False, False, False, False, marks=pytest.mark.slow),
        pytest.param(True, False, True, False, marks=pytest.mark.slow),
        pytest.param(False, True, True, True, marks=pytest.mark.slow),
    ],
)
def test_density_of_the_program_is_the_model_written_out(
    g_walks: bool, h_walks: bool, positive: bool, second_sensor: bool
):
    rng = np.random.default_rng(7)
    y, d, c = (np.asarray(x[:5, :3]) for x in recording(7))
    model = dataclasses.replace(
        MODEL,
        gradient_process_variance=0.05 if g_walks else 0.0,
        curvature_process_variance=0.02 if h_walks else 0.0,
    )
    g, h = rng.normal(size=y.shape), np.abs(rng.normal(size=y.shape))
    for t in range(1, len(y)):
        if not g_walks:
            g[t] = 0.95 * g[t - 1] + h[t - 1] * d[t - 1]
        if not h_walks:
            h[t] = -0.7 + 0.9 * (h[t - 1] + 0.7)
    latents = {"gradient": g} if g_walks else {"initial_gradient": g[0]}
    latents |= {"curvature": h} if h_walks else {"initial_curvature": h[0]}
    sensed = c if second_sensor else None
    got, sites = log_density(
        (beliefs.positive(model) if positive else model).numpyro_model,
        (y, d, sensed),
        {},
        jax.tree.map(jnp.asarray, latents),
    )
    # Float64 round-off of a sum of 50 terms.
    np.testing.assert_allclose(got, written_out(model, g, h, y, d, sensed, positive), rtol=1e-12)
    for name, walks, path in (("gradient", g_walks, g), ("curvature", h_walks, h)):
        assert sites[name]["type"] == ("sample" if walks else "deterministic")
        np.testing.assert_allclose(sites[name]["value"], path, rtol=1e-12)
    assert ("curvature_observation" in sites) == second_sensor


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
def test_simulated_moments():
    size, d = 20_000, np.array([0.5, -1.0, 2.0, 0.0])
    moved = np.repeat(d[:, None], size, 1)
    program = numpyro.handlers.seed(MODEL.numpyro_model, jax.random.key(8))
    sites = numpyro.handlers.trace(program).get_trace(displacement=moved)
    shapes = {k: v["value"].shape for k, v in sites.items() if v["type"] == "sample"}
    names = ("gradient", "curvature", "observation", "curvature_observation")
    assert {k: v for k, v in shapes.items() if k in names} == dict.fromkeys(names, (4, size))
    draws = np.concatenate([sites[name]["value"] for name in names])

    hyper = vars(MODEL)
    nothing = np.full(4, np.nan)
    exact = oracles.joint(oracles.secant_model(nothing, d, None, **hyper))
    latent = exact.smoothed_covariance.transpose(1, 0, 3, 2).reshape(8, 8)
    noise = np.diag(np.repeat([0.3, 0.5], 4))
    covariance = np.block([[latent, latent], [latent, latent + noise]])
    mean = np.tile(exact.smoothed_mean.T.ravel(), 2)
    # Second moments of Gaussians: variance (C_ii C_jj + C_ij^2) / size. Five standard errors, for
    # 136 + 16 comparisons: a chance of 1e-4 that a right program fails for a fresh seed.
    centred = draws - mean[:, None]
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / size)
    assert np.max(np.abs(centred @ centred.T / size - covariance) / error) < 5
    assert np.max(np.abs(centred.mean(1)) / np.sqrt(np.diag(covariance) / size)) < 5


@pytest.mark.slow
@pytest.mark.usefixtures("rank_promotion")
def test_simulated_positive_curvature_is_positive_and_a_truncated_walk():
    size = 20_000
    model = dataclasses.replace(MODEL, curvature_noise_variance=None)
    program = numpyro.handlers.seed(beliefs.positive(model).numpyro_model, jax.random.key(9))
    sites = numpyro.handlers.trace(program).get_trace(displacement=np.zeros((2, size)))
    h = np.asarray(sites["curvature"]["value"], np.float64)
    assert "curvature_observation" not in sites
    scale = np.sqrt(0.02)
    mean = -0.7 + 0.9 * (h[0] + 0.7)
    starts = stats.truncnorm.cdf(h[0], 0.7 / np.sqrt(1.5), np.inf, -0.7, np.sqrt(1.5))
    steps = stats.truncnorm.cdf(h[1], -mean / scale, np.inf, mean, scale)
    # Uniform if right, but for float32; a right program fails for a fresh seed by 2e-4.
    assert h.min() > 0
    assert all(stats.kstest(u, "uniform").pvalue > 1e-4 for u in (starts, steps))


# --- errors -------------------------------------------------------------------------------------


def test_a_second_sensor_needs_its_noise():
    filter_ = STATIC.filter()
    predicted = filter_.predict(filter_.init(jnp.ones(2)), jnp.zeros(2))
    with pytest.raises(ValueError, match="curvature= .* curvature_noise_variance"):
        filter_.update(predicted, jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="Cannot use curvature= .* curvature_noise_variance"):
        STATIC.numpyro_model(np.zeros(2), np.zeros(2), np.zeros(2))


def test_prediction_needs_a_displacement():
    filter_ = STATIC.filter()
    with pytest.raises(ValueError, match="Secant: predict needs the displacement"):
        filter_.predict(filter_.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="Secant without displacement="):
        filters.filter_recording(STATIC, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="Secant: the NumPyro program needs a displacement"):
        STATIC.numpyro_model(np.zeros(3))


def test_program_needs_streams_that_fit():
    with pytest.raises(ValueError, match=r"displacement has shape \(3,\), but gradient .* \(2,\)"):
        STATIC.numpyro_model(np.zeros(2), np.zeros(3))
