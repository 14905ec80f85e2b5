"""Unknown noise: a filter in learned units, against the unit integrated out numerically."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from beliefnav import filters
from beliefnav.beliefs import (
    LocalLevel,
    Optimum,
    OrnsteinUhlenbeck,
    PrecisionWalk,
    Secant,
    UnknownNoise,
    Wiener,
    shared,
)
from beliefnav.recording import Recording
from tests import oracles
from tests.beliefs import laws

SECANT = Secant(
    noise_variance=1.0,
    prior_gradient_variance=2.0,
    prior_curvature_variance=1.5,
    gradient_process_variance=0.05,
    curvature_process_variance=0.02,
    gradient_autocorrelation=0.95,
    curvature_autocorrelation=0.9,
    curvature_noise_variance=0.5,
)
OU = OrnsteinUhlenbeck(0.8, 0.3, 1.0)
LEVEL = LocalLevel(0.8, noise_variance=1.0, prior_mean=0.4, prior_sample_size=1.5)
NU, S2 = 2.5, 0.7


def recording(seed: int) -> Recording:
    """Gradients and readings of a second sensor [12, 3], both with holes, and displacements."""
    y, c = (oracles.random_stream(seed + i, 12)["matrix"] for i in (0, 1000))
    d = oracles.random_stream(seed + 2000, 12, missing=0.0)["matrix"]
    return jax.tree.map(lambda x: jnp.asarray(x[:, :, 0]), Recording(y, d, c))


@jax.jit
def learned(belief: UnknownNoise, recording: Recording) -> Any:
    """Posterior, diagnostics, and mean of the noise variance, of every step."""
    filter_ = belief.filter()
    y, d, c = recording
    moved = None if d is None else jnp.concatenate([jnp.zeros_like(d[:1]), d[:-1]])

    def step(state: Any, now: Any) -> Any:
        y, moved, c = now
        state, info = laws.observe(filter_, filter_.predict(state, moved), y, c)
        return state, (state.posterior(), info, state.noise_variance())

    return jax.lax.scan(step, filter_.init(y[0]), (y, moved, c))[1]


def arrays(belief: UnknownNoise) -> UnknownNoise:
    return jax.tree.map(jnp.asarray, belief)


# --- against the integral -----------------------------------------------------------------------


def stream_model(model: Any, y: Any, d: Any, c: Any) -> oracles.LinearModel:
    if isinstance(model, Secant):
        return oracles.secant_model(y, d, c, **vars(model))
    if isinstance(model, Optimum):
        return oracles.optimum_model(y, d, **vars(model))
    if isinstance(model, OrnsteinUhlenbeck):
        return oracles.ornstein_uhlenbeck_model(y, **vars(model))
    return oracles.local_level_model(y, **vars(model))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [SECANT, OU, LEVEL], ids=lambda m: type(m).__name__)
def test_belief_is_the_integral_over_the_unknown_unit(model: Any):
    y, d, c = recording(0)
    seen = recording(0) if model is SECANT else Recording(y)
    posterior, info, noise = learned(arrays(UnknownNoise(model, S2, NU)), seen)
    for entry, num_steps in ((0, 1), (0, 6), (1, 12), (2, 12)):
        streams = (np.asarray(x)[:num_steps, entry] for x in (y, d, c))
        want = oracles.unknown_noise(stream_model(model, *streams), NU, S2)
        at = (num_steps - 1, entry)
        # The accuracy of the quadrature.
        got = info.log_density[:num_steps, entry].sum()
        np.testing.assert_allclose(got, want.log_likelihood, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(noise[at], want.noise_variance, rtol=1e-8)
        mean = want.posterior.filtered_mean[-1]
        covariance = want.posterior.filtered_covariance[-1]
        np.testing.assert_allclose(posterior.gradient_mean[at], mean[0], rtol=1e-8)
        np.testing.assert_allclose(posterior.gradient_variance[at], covariance[0, 0], rtol=1e-8)
        if model is SECANT:
            got = [x[at] for x in posterior[2:5]]
            want_ = [mean[1], covariance[1, 1], covariance[0, 1]]
            np.testing.assert_allclose(got, want_, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_an_improper_level_is_conditioned_on_its_first_observation():
    """A flat prior of the level says nothing of the noise, and neither does the first reading."""
    y = jnp.asarray(np.random.default_rng(1).normal(size=(12, 3))).at[5, 1].set(jnp.nan)
    level = LocalLevel(0.8, noise_variance=1.0)
    posterior, info, noise = learned(arrays(UnknownNoise(level, S2, NU)), Recording(y))
    np.testing.assert_array_equal(info.log_density[0], 0)
    for entry in range(3):
        x = np.asarray(y)[:, entry]
        rest = oracles.local_level_model(
            x[1:], discount=0.8, noise_variance=1.0, prior_mean=x[0], prior_sample_size=1.0
        )
        want = oracles.unknown_noise(rest, NU, S2)
        covariance = want.posterior.filtered_covariance[-1, 0, 0]
        got = info.log_density[:, entry].sum()
        np.testing.assert_allclose(got, want.log_likelihood, rtol=1e-8)
        np.testing.assert_allclose(noise[-1, entry], want.noise_variance, rtol=1e-8)
        np.testing.assert_allclose(posterior.gradient_variance[-1, entry], covariance, rtol=1e-8)


# --- the likelihood of a whole recording --------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [SECANT, OU, LEVEL], ids=lambda m: type(m).__name__)
def test_likelihood_is_one_student_t_of_all_readings(model: Any):
    """Of the steps one after the other, of their sums at the end, and of the oracle."""
    y, d, c = recording(4)
    seen = recording(4) if model is SECANT else Recording(y)
    belief = UnknownNoise(model, S2, NU)
    got = filters.log_likelihood(belief, *seen)
    steps = filters.filter_recording(belief, *seen)[1].log_density
    # Float64 round-off of 24 terms.
    np.testing.assert_allclose(got, steps.sum(0), rtol=1e-11)
    for entry in range(3):
        unit = oracles.joint(stream_model(model, *(np.asarray(x)[:, entry] for x in (y, d, c))))
        want = oracles.student_log_likelihood(unit, S2, NU)
        # The solve of the joint Gaussian.
        np.testing.assert_allclose(got[entry], want, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_derivatives_of_the_likelihood_are_those_of_its_steps():
    y, d, c = recording(5)

    def one(hyper: Any) -> jax.Array:
        return filters.log_likelihood(belief(hyper), y, d, c).sum()

    def steps(hyper: Any) -> jax.Array:
        return filters.filter_recording(belief(hyper), y, d, c)[1].log_density.sum()

    def belief(hyper: Any) -> UnknownNoise:
        curvature, process, scale, degrees = hyper
        model = dataclasses.replace(
            SECANT, prior_curvature_variance=curvature, gradient_process_variance=process
        )
        return UnknownNoise(model, scale, degrees)

    hyper = jnp.asarray([1.5, 0.05, S2, NU])
    got, want = (jax.jit(jax.grad(f))(hyper) for f in (one, steps))
    # Float64 round-off.
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("traced", [False, True], ids=["known", "traced"])
@pytest.mark.parametrize(
    "belief",
    [
        UnknownNoise(OU),
        UnknownNoise(OU, S2, 0.0),
        UnknownNoise(OU, 0.0, NU),
        UnknownNoise(OU, S2, NU, discount=0.9),
        UnknownNoise(dataclasses.replace(LEVEL, prior_sample_size=0.0), S2, NU),
        UnknownNoise(OU, S2, np.array([0.0, NU, NU])),
        UnknownNoise(OU, np.array([0.0, S2, S2]), NU),
        UnknownNoise(
            dataclasses.replace(LEVEL, prior_sample_size=np.array([0.0, 1.5, 1.5])), S2, NU
        ),
    ],
    ids=[
        "nothing known",
        "no degrees",
        "no scale",
        "drift",
        "diffuse",
        "no degrees in one entry",
        "no scale in one entry",
        "diffuse in one entry",
    ],
)
def test_likelihood_under_an_improper_prior_is_of_what_was_predicted(
    belief: UnknownNoise, traced: bool
):
    """The first observation of an entry that nothing was known of is conditioned on."""
    y = recording(6).gradient
    steps = filters.filter_recording(belief, y)[1].log_density.sum(0)

    def likelihood(belief_: UnknownNoise) -> jax.Array:
        # Whether the noise drifts is known, as it is where other hyper-parameters are learned.
        return filters.log_likelihood(dataclasses.replace(belief_, discount=belief.discount), y)

    got = jax.jit(likelihood)(arrays(belief)) if traced else likelihood(belief)
    # Float64 round-off.
    np.testing.assert_allclose(got, steps, rtol=1e-10)


# --- laws ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("prior", [(0.0, 3.0), (S2, NU)])
def test_the_belief_scales_with_the_stream(prior: tuple[float, float]):
    scale, degrees = prior
    y, d, c = recording(2)
    one = learned(arrays(UnknownNoise(SECANT, scale, degrees)), Recording(y, d, c))
    many = Recording(100 * y, d, 100 * c)
    other = learned(arrays(UnknownNoise(SECANT, 1e4 * scale, degrees)), many)
    powers = [1, 2, 1, 2, 2]
    for a, b, power in zip(one[0][:5], other[0][:5], powers, strict=True):
        np.testing.assert_allclose(b, 100.0**power * a, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(other[2], 1e4 * one[2], rtol=1e-10)
    # Means do not depend on what is believed of the noise.
    nothing = learned(arrays(UnknownNoise(SECANT, 5.0, 0.3, 0.5)), Recording(y, d, c))
    for field in ("gradient_mean", "curvature_mean"):
        np.testing.assert_array_equal(getattr(one[0], field), getattr(nothing[0], field))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("two_sensors", [False, True])
def test_one_number_of_degrees_of_freedom_counts_every_sensor(two_sensors: bool):
    """Where all entries are observed, sharing the number changes nothing but its shape."""
    rng = np.random.default_rng(0)
    belief = UnknownNoise(SECANT, S2, NU)
    y, c = jnp.asarray(rng.normal(size=(2, 5, 3)))
    one, each = belief.shared_filter(), belief.filter()
    states = one.init(y[0]), each.init(y[0])
    for t in range(len(y)):
        readings, moved = (y[t], c[t] if two_sensors else None), jnp.full(3, 0.1)
        states = tuple(
            f.update(f.predict(s, moved), *readings)
            for f, s in zip((one, each), states, strict=True)
        )
        shared_state, state = states
        want = NU + (t + 1) * (2 if two_sensors else 1)
        assert shared_state.noise_degrees_of_freedom == want
        np.testing.assert_allclose(state.noise_degrees_of_freedom, want, rtol=1e-14)
        # The same numbers in another order: roundings of float64.
        np.testing.assert_allclose(shared_state.noise_scale, state.noise_scale, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_the_likelihood_of_a_shared_drifting_noise_counts_every_sensor():
    """Where all entries are observed, it is that of a noise that counts for each entry."""
    rng = np.random.default_rng(1)
    recorded = jnp.asarray(rng.normal(size=(3, 5, 3)))
    belief = UnknownNoise(SECANT, S2, NU, 0.9)
    want = filters.log_likelihood(belief, *recorded)
    np.testing.assert_allclose(filters.log_likelihood(shared(belief), *recorded), want, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_discounting_forgets_by_the_recursion():
    y, d, c = recording(3)
    y = y.at[6:].multiply(30.0)
    beta = 0.7
    _, info, noise = learned(arrays(UnknownNoise(SECANT, S2, NU, beta)), Recording(y, d, c))
    inner = oracles.secant(SECANT, y, d, c)
    degrees, total = np.full(3, NU), np.full(3, NU * S2)
    for t in range(12):
        degrees, total = beta * degrees, beta * total
        before = degrees, total / degrees
        degrees, total = degrees + inner.seen[t], total + inner.surprise[t]
        with np.errstate(divide="ignore"):
            want = np.where(degrees > 2, total / (degrees - 2), np.inf)
        np.testing.assert_allclose(noise[t], want, rtol=1e-10)
        # One reading is Student-t: its scale is that of the Gaussian times the noise's.
        single = (inner.seen[t] == 1) & np.isfinite(y[t])
        for i in np.flatnonzero(single):
            e = float(info.innovation[t, i])
            s = e**2 / inner.surprise[t, i]
            scale = np.sqrt(s * before[1][i])
            law = stats.t.logpdf(e, before[0][i], scale=scale)
            np.testing.assert_allclose(info.log_density[t, i], law, rtol=1e-9)
            want = inner.surprise[t, i] / before[1][i]
            np.testing.assert_allclose(info.surprise[t, i], want, rtol=1e-9)
    assert np.any(inner.seen == 1)
    exact = learned(arrays(UnknownNoise(SECANT, S2, NU)), Recording(y, d, c))[2]
    assert np.all(noise[-1] > exact[-1])  # the loud half weighs more


@pytest.mark.parametrize("prior", [(0.0, 0.0), (0.0, 3.0), (S2, 0.0)])
@pytest.mark.parametrize("stream", ["zeros", "holes"])
def test_improper_priors_are_never_nan(prior: tuple[float, float], stream: str):
    with jax.enable_x64(True):
        y, d, c = recording(5)
    y, d, c = (jnp.asarray(x, jnp.float32) for x in (y, d, c))
    y, c = (jnp.zeros_like(y), jnp.zeros_like(c)) if stream == "zeros" else (y, c)
    posterior, info, noise = learned(arrays(UnknownNoise(SECANT, *prior)), Recording(y, d, c))
    for leaf in jax.tree.leaves((posterior, info, noise)):
        assert not np.any(np.isnan(leaf))
    seen = np.cumsum(np.isfinite(y) | np.isfinite(c), 0)
    first = seen <= 1
    np.testing.assert_array_equal(np.asarray(info.log_density)[first], 0)
    np.testing.assert_array_equal(np.asarray(info.surprise)[first], 0)
    for field in (posterior.gradient_mean, posterior.curvature_mean):
        assert np.all(np.isfinite(field))
    if stream == "zeros":
        expected = 0 if prior[0] == 0 or prior[1] == 0 else prior[0]
        np.testing.assert_array_equal(noise[-1], expected)
    else:
        assert np.all(np.isfinite(noise[-1])) and np.all(noise[-1] > 0)


def test_a_gradient_whose_square_overflows_does_not_poison_the_noise():
    y = jnp.ones((12, 3)).at[4, 0].set(1e25)
    nothing = jnp.full_like(y, jnp.nan)
    belief = arrays(UnknownNoise(SECANT, S2, 3.0, 0.9))
    posterior, info, noise = learned(belief, Recording(y, jnp.zeros_like(y), nothing))
    for leaf in jax.tree.leaves((posterior, info, noise)):
        assert not np.any(np.isnan(leaf))


# --- the program --------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_density_of_the_program_of_a_static_landscape_is_the_model_written_out():
    y, d, _ = (np.asarray(x[:5]) for x in recording(6))
    model = Secant(1.0, 2.0, 1.5, 0.4, -0.7)
    sigma2 = np.array([0.3, 1.0, 4.0])
    g, h = np.random.default_rng(6).normal(size=(2, 3))
    position = np.concatenate([np.zeros((1, 3)), np.cumsum(d, 0)[:-1]])
    want = stats.invgamma.logpdf(sigma2, NU / 2, scale=NU * S2 / 2).sum()
    want += stats.norm.logpdf(g, 0.4, np.sqrt(2.0 * sigma2)).sum()
    want += stats.norm.logpdf(h, -0.7, np.sqrt(1.5 * sigma2)).sum()
    finite = np.where(np.isfinite(y), y, np.nan)
    want += np.nansum(stats.norm.logpdf(finite, g + h * position, np.sqrt(sigma2)))
    latents = {"noise_scale": sigma2, "initial_gradient": g, "initial_curvature": h}
    got = laws.log_joint(UnknownNoise(model, S2, NU).numpyro_model, latents, y, d)
    # Float64 round-off of a sum of 20 terms.
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "rank_promotion")
def test_density_of_the_program_of_a_walk_is_the_model_written_out():
    y = np.asarray(recording(7)[0][:4])
    sigma2 = np.array([0.3, 1.0, 4.0])
    g = np.random.default_rng(7).normal(size=(5, 3))
    want = stats.invgamma.logpdf(sigma2, NU / 2, scale=NU * S2 / 2).sum()
    want += stats.norm.logpdf(g[0], 0, np.sqrt(0.3 * sigma2 / (1 - 0.8**2))).sum()
    want += stats.norm.logpdf(g[1:], 0.8 * g[:-1], np.sqrt(0.3 * sigma2)).sum()
    finite = np.where(np.isfinite(y), y, np.nan)
    want += np.nansum(stats.norm.logpdf(finite, g[1:], np.sqrt(sigma2)))
    latents = {"noise_scale": sigma2, "initial_gradient": g[0], "gradient": g[1:]}
    got = laws.log_joint(UnknownNoise(OU, S2, NU).numpyro_model, latents, y)
    # Float64 round-off of a sum of 30 terms.
    np.testing.assert_allclose(got, want, rtol=1e-12)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [PrecisionWalk(0.9), Wiener(0.9, 0.9)])
def test_models_that_have_no_scale_are_refused(model: Any):
    with pytest.raises(ValueError, match="Cannot learn the noise of .*Filter.weigh"):
        UnknownNoise(model).filter()


def test_a_level_without_a_density_is_refused():
    with pytest.raises(ValueError, match="noise of LocalLevel.*give a noise_variance of 1"):
        UnknownNoise(LocalLevel(0.9)).filter()


@pytest.mark.parametrize(
    ("belief", "match"),
    [
        (UnknownNoise(OU, 1.0, 3.0, 0.9), "discount below 1"),
        (UnknownNoise(OU, 0.0, 3.0), "positive prior_degrees_of_freedom and"),
        (UnknownNoise(OU, 1.0, 0.0), "positive prior_degrees_of_freedom and"),
    ],
)
def test_program_needs_a_proper_prior_and_noise_that_stays(belief: UnknownNoise, match: str):
    with pytest.raises(ValueError, match=f"UnknownNoise: .*{match}"):
        belief.numpyro_model(np.zeros(3))


def test_the_likelihood_of_a_drifting_noise_is_right_in_float32_on_zeros():
    """After some steps the noise has no number in float32; the likelihood has."""
    y = np.zeros(400)
    y[:5] = 1e-3

    def of(dtype: Any) -> Any:
        def log_likelihood(discount: Any) -> Any:
            model = OrnsteinUhlenbeck(0.9, 0.1, 1.0)
            return filters.log_likelihood(
                UnknownNoise(model, 1e-4, 1.0, discount), jnp.asarray(y, dtype)
            )

        both = jax.jit(jax.vmap(jax.value_and_grad(log_likelihood)))
        return both(jnp.array([0.8, 0.9, 0.99], dtype))

    low = of(np.float32)
    with jax.enable_x64(True):
        want = of(np.float64)
    for one, other in zip(low, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("around", [lambda b: b, shared], ids=["each", "shared"])
def test_the_likelihood_of_a_drifting_noise_is_that_of_the_steps(around: Any):
    """With missing entries, and a prior that is improper or not."""
    y = oracles.random_stream(seed=5, num_steps=30, missing=0.2)["matrix"]
    for priors in ((0.7, 5.0), (0.0, 0.0)):
        belief = around(UnknownNoise(OrnsteinUhlenbeck(0.8, 0.3, 1.0), *priors, discount=0.9))
        want = filters.filter_recording(belief, y)[1].log_density.sum(0)
        np.testing.assert_allclose(filters.log_likelihood(belief, y), want, rtol=1e-10)
