"""The landscape model: program, filter, policy and step are readings of one definition."""

import functools
from typing import Any

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density

from beliefnav import Objective, beliefs, control, filters, inference, navigator, posterior
from beliefnav.recording import from_arrays
from models import landscape

pytestmark = pytest.mark.usefixtures("rank_promotion")

TRUTH = {
    "autocorrelation": np.array([0.9, 0.97]),
    "process_variance": np.array([1.0, 0.01]) * 1e-4,
    "noise_variance": np.array([2.0, 0.1]) * 1e-4,
    "curvature_scale": np.array([0.5, 0.02]),
}
VALUES: dict[str, Any] = {
    "autocorrelation": np.array([0.8, 0.3]),
    "signal_fraction": np.array([0.5, 0.2]),
    "relative_scale": np.array([1.2, 0.7]),
    "relative_curvature": np.array([0.4, 1.1]),
}


def simulate(
    values: Any, key: Any, num_steps: int, step_size: float, **sensor: Any
) -> tuple[Any, ...]:
    """Latent curvature [param], observations and displacements [step, param] of the program."""
    moved = step_size * jax.random.normal(key, (num_steps, 2))
    program = handlers.seed(landscape.belief(values, **sensor).numpyro_model, key)
    trace = handlers.trace(program).get_trace(displacement=moved)
    return trace["initial_curvature"]["value"], trace["observation"]["value"], moved


@pytest.mark.slow
def test_nuts_recovers_the_parameters_of_a_synthetic_stream() -> None:
    _, stream, moved = simulate(TRUTH, jax.random.key(1), 250, 0.02)
    stream = stream.at[10:20, 1].set(jnp.nan)
    fit = inference.numpyro_nuts(
        landscape.target(from_arrays(stream, moved)),
        key=jax.random.key(2),
        num_warmup=300,
        num_samples=400,
        num_chains=2,
        target_acceptance=0.9,
        progress_bar=False,
    )
    draws = fit.posterior
    assert int(fit.diagnostics["divergences"]) == 0
    rhat: Any = arviz.rhat(draws)
    for name, expected in TRUTH.items():
        assert float(rhat[name].max()) < 1.02
        if name == "curvature_scale":
            continue  # of one curvature each, its scale is only known to within a factor
        values = draws[name].values.reshape(-1, 2)
        transform = jax.scipy.special.logit if name == "autocorrelation" else jnp.log
        mean, sd = transform(values).mean(0), transform(values).std(0)
        # Six quantities within four posterior standard deviations: 4e-4 to fail if calibrated.
        assert (jnp.abs(transform(expected) - mean) < 4 * sd).all(), name
    # And the data spoke: a uniform correlation has a standard deviation of 0.29.
    assert (draws["autocorrelation"].std(("chain", "draw")).values < 0.15).all()


def test_program_filter_policy_and_step_are_one_definition(x64: None) -> None:
    program = handlers.substitute(handlers.seed(landscape.landscape, jax.random.key(3)), VALUES)
    trace = handlers.trace(program).get_trace(num_steps=40, num_params=2)
    site = {name: entry["value"] for name, entry in trace.items()}
    believed = landscape.belief(site)
    filtered, _ = filters.filter_recording(believed, site["observation"], site["displacement"])
    smoothed = filters.smooth_recording(believed, site["observation"], site["displacement"])
    # The program's own latents are draws of the smoother's posterior: within 5 sd.
    for latent, field in (("gradient", "gradient"), ("curvature", "curvature")):
        mean = getattr(smoothed, f"{field}_mean")
        sd = np.sqrt(getattr(smoothed, f"{field}_variance"))
        assert (np.abs(site[latent] - mean) < 5 * sd).all()

    policy = control.cautious(control.horizon(Objective(discount=0.5)))
    optimizer = navigator(0.1, believed, policy)

    def step(carry: Any, now: Any) -> Any:
        params, state = carry
        gradient, moved = now
        update, state = optimizer.update(gradient, state, params)
        return (params + moved, state), (update, posterior(state))

    start = jnp.zeros(2)
    inputs = site["observation"], site["displacement"]
    updates, online = jax.lax.scan(step, (start, optimizer.init(start)), inputs)[1]
    # The same filter online: float64 round-off, of parameters that are differenced.
    for a, b in zip(online[:5], filtered[:5], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)
    rms = np.sqrt(filtered.curvature_mean**2 + filtered.curvature_variance)
    s = np.sqrt(0.5**2 / 4 + rms) + 0.25
    np.testing.assert_allclose(updates, -0.1 * filtered.gradient_mean / s, rtol=1e-8)


def test_integrating_out_is_the_filter_likelihood_plus_the_prior(x64: None) -> None:
    stream = jax.random.normal(jax.random.key(0), (20, 2))
    moved = jax.random.normal(jax.random.key(1), (20, 2)) * jnp.array([0.1, 3.0])
    measured = landscape.units(stream, moved)
    joint = log_density(landscape.landscape, (stream, moved), measured, VALUES)[0]
    d = np.sqrt(np.mean(np.asarray(moved) ** 2, 0))
    scale = VALUES["relative_scale"] * np.sqrt(np.mean(np.asarray(stream) ** 2, 0))
    share, rho = VALUES["signal_fraction"], VALUES["autocorrelation"]
    belief = beliefs.Secant(
        noise_variance=(1 - share) * scale**2,
        prior_gradient_variance=share * scale**2,
        prior_curvature_variance=(VALUES["relative_curvature"] * scale / d) ** 2,
        gradient_process_variance=share * scale**2 * (1 - rho**2),
        gradient_autocorrelation=rho,
    )
    z, omega = np.log(np.asarray(VALUES["relative_scale"])), VALUES["relative_curvature"]
    log_prior = np.sum(-z - 0.5 * z**2 - 0.5 * np.log(2 * np.pi))
    log_prior += np.sum(-0.5 * omega**2 + 0.5 * np.log(2 / np.pi))
    log_prior += np.sum(-0.5 * (moved / d) ** 2 - np.log(d) - 0.5 * np.log(2 * np.pi))
    expected = float(filters.log_likelihood(belief, stream, moved).sum()) + log_prior
    np.testing.assert_allclose(float(joint), expected, rtol=1e-10)


def test_posterior_does_not_depend_on_the_units(x64: None) -> None:
    stream = jax.random.normal(jax.random.key(0), (20, 2))
    moved = jax.random.normal(jax.random.key(1), (20, 2))
    other = VALUES | {"signal_fraction": jnp.array([0.3, 0.6])}
    difference = []
    for c, k in ((1.0, 1.0), (1e-6, 1.0), (1.0, 1e-4)):
        recorded = c * stream, k * moved
        measured = landscape.units(*recorded)
        joint, another = (
            log_density(landscape.landscape, recorded, measured, values)[0]
            for values in (VALUES, other)
        )
        difference.append(float(joint - another))
    np.testing.assert_allclose(difference, difference[0], rtol=1e-8)


def test_without_curvature_it_is_an_ornstein_uhlenbeck_gradient(x64: None) -> None:
    _, stream, moved = simulate(TRUTH, jax.random.key(0), 30, 0.02)
    flat = landscape.belief(TRUTH | {"curvature_scale": np.full(2, 1e-12)})
    names = ("autocorrelation", "process_variance", "noise_variance")
    ornstein = beliefs.OrnsteinUhlenbeck(*(jnp.asarray(TRUTH[name]) for name in names))
    np.testing.assert_allclose(
        filters.log_likelihood(flat, stream, moved),
        filters.log_likelihood(ornstein, stream),
        rtol=1e-10,
    )


def test_simulates_from_the_prior() -> None:
    program = handlers.seed(landscape.landscape, jax.random.key(0))
    trace = handlers.trace(program).get_trace(
        num_steps=7, num_params=3, curvature_noise_variance=0.1
    )
    sites = ("observation", "curvature_observation", "gradient", "curvature", "displacement")
    for name in sites:
        assert trace[name]["value"].shape == (7, 3), name


def test_what_was_fitted_in_units_is_simulated_in_them() -> None:
    """Draws that a conditioned model makes are those of the same model without a recording."""
    stream = 2e-4 * jax.random.normal(jax.random.key(0), (400, 2))
    moved = 1e-2 * jax.random.normal(jax.random.key(1), (400, 2))
    model = functools.partial(landscape.landscape, **landscape.units(stream, moved))
    draws = Predictive(model, num_samples=50)(jax.random.key(2), stream, moved)
    again = Predictive(model, draws)(jax.random.key(3), num_steps=400, num_params=2)
    for name in ("stream_scale", "noise_variance", "process_variance", "curvature_scale"):
        np.testing.assert_array_equal(again[name], draws[name])
    # At the units themselves what is simulated has the size of what was recorded.
    values = {"relative_scale": np.ones((1, 2)), "relative_curvature": np.full((1, 2), 1e-6)}
    same = Predictive(model, values)(jax.random.key(4), num_steps=400, num_params=2)
    sizes = np.sqrt((same["observation"] ** 2).mean((0, 1)))
    # Correlated for some of the prior's draws: a root mean square of 400 is within a factor of 2.
    assert (np.abs(np.log(sizes / 2e-4)) < np.log(2)).all()
    assert np.std(same["displacement"]) == pytest.approx(1e-2, rel=0.1)


def test_root_mean_square_ignores_missing_entries() -> None:
    stream = jnp.array([[3.0, 0.0, jnp.nan], [jnp.inf, 0.0, jnp.nan], [4.0, 0.0, jnp.nan]])
    np.testing.assert_allclose(
        landscape.root_mean_square(stream), [np.sqrt(12.5), 1.0, 1.0], rtol=1e-6
    )


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"gradient must be \[step, param\]"):
        landscape.landscape(jnp.zeros(5), jnp.zeros(5))
    with pytest.raises(ValueError, match=r"displacement must be \[step, param\]"):
        landscape.landscape(displacement=jnp.zeros(5))
    with pytest.raises(ValueError, match="needs the displacement"):
        landscape.landscape(jnp.zeros((5, 2)))
    with pytest.raises(ValueError, match="num_steps and num_params"):
        landscape.landscape()
