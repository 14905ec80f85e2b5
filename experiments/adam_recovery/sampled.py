"""The slopes again, with NUTS in place of the filter: every number of the model is learned.

The landscape model of `models.landscape` is fitted to each coordinate by itself, with the latent
path integrated out. The mean square of the gradient is then the squared scale of the stream; unlike
a second moment, the model also has the variance of the noise by itself.
"""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav import Posterior, beliefs, filters, inference, recording
from beliefnav._files import written_beside
from beliefnav.inference import Fit
from beliefnav.recording import Recording, from_arrays
from experiments.adam_recovery.config import Config
from experiments.adam_recovery.slopes import LOW_NOISE, LOW_RATIO, POLICIES, Reading
from experiments.adam_recovery.streams import Generator, Stream, curved, low_signal, simulate
from models import landscape

if TYPE_CHECKING:
    import xarray as xr

RATIOS = (LOW_RATIO, 0.1, 10.0)
"""Signal to noise of the coordinates without curvature; the first is that of the claim."""


class Sampled(NamedTuple):
    """What the samples say.

    Attributes:
        fit: the draws; its coordinates are one group for every ratio, and those with curvature.
        second_moment: ratio -> the squared scale of the stream, read against the noise variance.
        variance: ratio -> the noise variance of the model, read against that of the generator.
        curvature: the curvature, read against that of the generator.
    """

    fit: Fit
    second_moment: dict[float, Reading]
    variance: dict[float, Reading]
    curvature: Reading

    def by_regime(self) -> tuple[dict[str, float], dict[str, float]]:
        """Regime -> slope, for the variance and for the curvature."""
        variance, curvature = (
            {name: reading.slope(policy) for name, policy in POLICIES.items()}
            for reading in (self.second_moment[RATIOS[0]], self.curvature)
        )
        return variance, curvature

    def diagnostics(self) -> dict[str, float]:
        """Whether the chains can be trusted: the worst of all coordinates."""
        table = self.fit.diagnostics
        return {
            "max_r_hat": float(table["r_hat"].max()),
            "min_ess_bulk": float(table["ess_bulk"].min()),
            "min_ess_tail": float(table["ess_tail"].min()),
            "divergences": int(table["divergences"].sum()),
            "converged": float(table["converged"].mean()),
        }


def prior() -> beliefs.Secant:
    """The landscape model of one coordinate, in units of its stream and of its displacements."""
    believed = landscape.hyperparameters(1, 1.0, 1.0)
    return jax.tree.map(lambda x: x[0] if jnp.ndim(x) else x, believed)


def read_samples(config: Config, key: Array, progress_bar: bool = True) -> Sampled:
    """Simulate coordinates, fit the model to them, and let the policies step on the draws."""
    keys = jax.random.split(key, 4)
    count = config.sampled_params
    groups = [
        low_signal(k, count, ratio)
        for k, ratio in zip(jax.random.split(keys[0], len(RATIOS)), RATIOS, strict=True)
    ]
    groups.append(curved(keys[1], count, LOW_NOISE))
    generator = Generator(*(jnp.concatenate(parts) for parts in zip(*groups, strict=True)))
    stream = simulate(keys[2], generator, config.sampled_steps)
    unit = landscape.root_mean_square(stream.gradient)
    step_unit = landscape.root_mean_square(stream.displacement)
    fit = sample(config, standardised(stream, unit, step_unit), keys[3], progress_bar)
    write(config, fit)

    over = ("chain", "draw")
    draws = fit.posterior.isel(param=0)
    square = np.asarray(unit) ** 2
    moments = (draws["stream_scale"] ** 2).mean(over).values * square
    noise = draws["noise_variance"].mean(over).values * square
    mean, curvature = (x.mean((0, 1)) for x in last_means(fit))
    mean, curvature = mean * np.asarray(unit), curvature * np.asarray(unit / step_unit)

    def reading(group: int, truth: Array, value: np.ndarray) -> Reading:
        part = slice(group * count, (group + 1) * count)
        posterior = Posterior(gradient_mean=mean[part], curvature_mean=value[part])
        return Reading(np.asarray(truth, float)[part], jax.tree.map(jnp.asarray, posterior))

    return Sampled(
        fit=fit,
        second_moment={r: reading(i, generator.noise, moments) for i, r in enumerate(RATIOS)},
        variance={r: reading(i, generator.noise, noise) for i, r in enumerate(RATIOS)},
        curvature=reading(len(RATIOS), generator.curvature, curvature),
    )


def standardised(stream: Stream, unit: Array, step_unit: Array) -> "xr.Dataset":
    """A stream in units of its own size and of that of its displacements."""
    values = from_arrays(stream.gradient / unit, stream.displacement / step_unit)
    return values.rename(param="coordinate")  # the model has a "param" of its own


def sample(config: Config, values: "xr.Dataset", key: Array, progress_bar: bool) -> Fit:
    """The posterior of every coordinate, by NUTS."""
    return inference.numpyro_nuts(
        inference.target(prior, values, separate="coordinate"),
        key=key,
        num_warmup=config.num_warmup,
        num_samples=config.num_samples,
        target_acceptance=0.9,
        num_chains=config.num_chains,
        max_tree_depth=config.max_tree_depth,
        progress_bar=progress_bar,
    )


def last_means(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and curvature at the end, as every draw believes them [chain, draw, coordinate]."""

    def last(belief: beliefs.Belief, recording: Recording, key: Array) -> tuple[Array, Array]:
        del key
        posterior = filters.last_state(belief, *recording).posterior()
        return posterior.gradient_mean, posterior.curvature_mean

    return inference.map_draws(fit.target, fit.posterior, last)


def write(config: Config, fit: Fit) -> None:
    """Write the posterior as NetCDF."""
    groups = {
        "posterior": fit.posterior,
        "sample_stats": fit.sample_stats,
        "observed_data": fit.target.stream,
    }
    container = recording.to_container(groups)
    with written_beside(config.folder / "posterior.nc") as unfinished:
        container.to_netcdf(str(unfinished), engine="h5netcdf")
