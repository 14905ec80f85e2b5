"""The landscape model recovers what made a stream, and its program is one with its filter."""

from typing import Any

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro import handlers
from numpyro.infer.util import log_density

from beliefnav import filters, ssm
from models import landscape

pytestmark = pytest.mark.usefixtures("rank_promotion")


@pytest.mark.slow
def test_nuts_recovers_the_parameters_of_a_synthetic_stream() -> None:
    truth = {
        "autocorrelation": np.array([0.9, 0.97]),
        "process_variance": np.array([1.0, 0.01]) * 1e-4,
        "noise_variance": np.array([2.0, 0.1]) * 1e-4,
    }
    belief = ssm.OrnsteinUhlenbeck(**{k: jnp.asarray(v) for k, v in truth.items()})
    stream = landscape.simulate(belief, key=jax.random.key(1), num_steps=250, num_params=2)
    stream = stream.at[10:20, 1].set(jnp.nan)
    posterior, stats = landscape.infer(
        stream, key=jax.random.key(2), num_warmup=300, num_samples=400, progress_bar=False
    )
    assert int(stats["diverging"].sum()) == 0
    rhat: Any = arviz.rhat(posterior)
    for name, expected in truth.items():
        assert float(rhat[name].max()) < 1.02
        draws = posterior[name].values.reshape(-1, 2)
        transform = jax.scipy.special.logit if name == "autocorrelation" else jnp.log
        mean, sd = transform(draws).mean(0), transform(draws).std(0)
        # Six quantities within four posterior standard deviations: 4e-4 to fail if calibrated.
        assert (jnp.abs(transform(expected) - mean) < 4 * sd).all(), name
    # And the data spoke: a uniform correlation has a standard deviation of 0.29.
    assert (posterior["autocorrelation"].std(("chain", "draw")).values < 0.12).all()


def test_integrating_out_is_the_filter_likelihood_plus_the_prior(x64: None) -> None:
    stream = jax.random.normal(jax.random.key(0), (20, 2))
    values = {
        "autocorrelation": jnp.array([0.8, 0.3]),
        "signal_fraction": jnp.array([0.5, 0.2]),
        "relative_scale": jnp.array([1.2, 0.7]),
    }
    joint = log_density(landscape.landscape, (stream,), {}, values)[0]
    scale = values["relative_scale"] * np.sqrt(np.mean(np.asarray(stream) ** 2, 0))
    share, rho = values["signal_fraction"], values["autocorrelation"]
    belief = ssm.OrnsteinUhlenbeck(rho, share * scale**2 * (1 - rho**2), (1 - share) * scale**2)
    z = np.log(np.asarray(values["relative_scale"]))
    log_prior = np.sum(-z - 0.5 * z**2 - 0.5 * np.log(2 * np.pi))
    expected = float(filters.log_likelihood(belief, stream).sum()) + log_prior
    np.testing.assert_allclose(float(joint), expected, rtol=1e-10)


def test_posterior_does_not_depend_on_the_unit_of_the_gradient(x64: None) -> None:
    stream = jax.random.normal(jax.random.key(0), (20, 1))
    values = {
        "autocorrelation": jnp.array([0.8]),
        "signal_fraction": jnp.array([0.5]),
        "relative_scale": jnp.array([1.2]),
    }
    other = values | {"signal_fraction": jnp.array([0.3])}
    difference = [
        float(
            log_density(landscape.landscape, (c * stream,), {}, values)[0]
            - log_density(landscape.landscape, (c * stream,), {}, other)[0]
        )
        for c in (1.0, 1e-6)
    ]
    np.testing.assert_allclose(difference[0], difference[1], rtol=1e-9)


def test_simulates_from_the_prior() -> None:
    program = handlers.seed(landscape.landscape, jax.random.key(0))
    trace = handlers.trace(program).get_trace(num_steps=7, num_params=3)
    assert trace["observation"]["value"].shape == (7, 3)
    assert trace["gradient"]["value"].shape == (7, 3)


def test_root_mean_square_ignores_missing_entries() -> None:
    stream = jnp.array([[3.0, 0.0, jnp.nan], [jnp.inf, 0.0, jnp.nan], [4.0, 0.0, jnp.nan]])
    np.testing.assert_allclose(
        landscape.root_mean_square(stream), [np.sqrt(12.5), 1.0, 1.0], rtol=1e-6
    )


def test_errors_say_what_is_wrong(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"\[step, param\]"):
        landscape.infer(jnp.zeros(5), key=jax.random.key(0), progress_bar=False)
    with pytest.raises(ValueError, match="num_steps and num_params"):
        handlers.seed(landscape.landscape, jax.random.key(0))()
    with pytest.raises(FileNotFoundError, match="experiments classify"):
        landscape.read_stream(tmp_path / "none.nc")
    xr.Dataset({"gradient": ("time", np.zeros(3))}).to_netcdf(
        tmp_path / "bad.nc", engine="h5netcdf"
    )
    with pytest.raises(ValueError, match="not a stream file"):
        landscape.read_stream(tmp_path / "bad.nc")
