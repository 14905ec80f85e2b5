r"""Recorded streams, asked how often their tasks switched and how far apart they were.

Streams are simulated from `beliefnav.beliefs.SwitchingOptimum` and each is given to NUTS alone (to
Laplace's approximation in a quick run), with the priors of `models.task_switch`; when tasks
switched is integrated out. Of the first stream the
switches are then drawn too, every draw of the hyper-parameters with a draw of the switches.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from scipy import stats

from beliefnav import beliefs, filters, inference
from beliefnav._files import written_beside
from beliefnav.recording import Recording, from_arrays
from experiments import report
from experiments.task_switch.config import Config
from models import task_switch

if TYPE_CHECKING:
    import xarray as xr

TRUTH = {"hazard": 0.05, "prior_variance": 4.0, "noise_variance": 1.0}
LEVEL = 0.01
"""Of the test whether as few intervals as were found hold the truth, if 90 % do on average."""
WARMUP = 100
"""Steps of a chain before its draws; it starts from Laplace's approximation."""
DRAWS = 200
"""Of the hyper-parameters for which switches are drawn."""


class Inferred(NamedTuple):
    """What the streams say.

    Attributes:
        fit: draws for every stream.
        inside: hyper-parameter -> number of streams whose 90 % interval holds the truth.
        optimum: of the first stream, the true one [step].
        switched: of the first stream, when it did [step].
        run_length: of the first stream, as believed at every step [step, length].
        switches: when it switched, and its run length, drawn in hindsight, (chain, draw, step).
    """

    fit: inference.Fit
    inside: dict[str, int]
    optimum: np.ndarray
    switched: np.ndarray
    run_length: np.ndarray
    switches: "xr.Dataset"


def infer(config: Config) -> Inferred:
    """Simulate streams and sample their posteriors."""
    streams, steps = config.streams, config.stream_steps
    paths = [simulate(key, steps) for key in jax.random.split(jax.random.key(config.seed), streams)]
    gradient = np.stack([path["observation"]["value"] for path in paths], 1)
    stream = from_arrays(gradient, np.zeros_like(gradient))
    target = inference.target(task_switch.switching(steps), stream, separate="param")
    key, chains = jax.random.key(config.seed + 1), config.num_chains
    fit = inference.laplace(target, key=key, num_draws=2 * config.num_samples, num_chains=chains)
    if not config.quick:
        fit = inference.numpyro_nuts(
            target,
            key=key,
            num_warmup=WARMUP,
            num_samples=config.num_samples,
            num_chains=chains,
            start=fit.state,
        )
    low, high = np.moveaxis(intervals(fit), -1, 0)
    inside = {
        name: int(((low[i] < truth) & (truth < high[i])).sum())
        for i, (name, truth) in enumerate(TRUTH.items())
    }
    run_length, switches = hindsight(fit, jax.random.key(config.seed + 2))
    with written_beside(config.folder / "posterior.nc") as unfinished:
        inference.to_arviz(fit).to_netcdf(str(unfinished), engine="h5netcdf")
    with written_beside(config.folder / "switches.nc") as unfinished:
        switches.to_netcdf(unfinished, engine="h5netcdf")
    first = paths[0]
    return Inferred(
        fit=fit,
        inside=inside,
        optimum=np.asarray(first["optimum"]["value"]),
        switched=np.asarray(first["switch"]["value"]) == 1,
        run_length=run_length,
        switches=switches,
    )


def simulate(key: jax.Array, steps: int) -> Any:
    """All sites of one stream."""
    truth = {name: jnp.asarray(value) for name, value in TRUTH.items()}
    model = beliefs.SwitchingOptimum(curvature=1.0, **truth)
    program = handlers.trace(handlers.seed(model.numpyro_model, key))
    return program.get_trace(displacement=jnp.zeros(steps))


def intervals(fit: inference.Fit) -> np.ndarray:
    """Central 90 % intervals [site, param, 2], sites in the order of `TRUTH`."""
    bounds = fit.posterior[list(TRUTH)].quantile([0.05, 0.95], ("chain", "draw"))
    return np.stack([bounds[name].transpose("param", "quantile").values for name in TRUTH])


def hindsight(fit: inference.Fit, key: jax.Array) -> tuple[np.ndarray, "xr.Dataset"]:
    """Run lengths of the first stream as believed at the time, and its switches in hindsight."""
    import xarray as xr

    target = fit.target._replace(stream=fit.target.stream.isel(param=[0]))
    thin = max(1, fit.posterior.sizes["draw"] * fit.posterior.sizes["chain"] // DRAWS)
    posterior = fit.posterior.isel(param=[0], draw=slice(None, None, thin))

    def read(belief: Any, recording: Recording, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        stream = recording.gradient, recording.displacement
        switches, _ = filters.sample_switches(belief, *stream, key=key, num_draws=1)
        return filters.change_points(belief, *stream).run_length, switches[0]

    run_length, switch = inference.map_draws(target, posterior, read, key=key)
    switch = switch[:, :, 0]
    steps = np.arange(switch.shape[-1])
    dims = ("chain", "draw", "step")
    coords = {"chain": posterior["chain"].values, "draw": posterior["draw"].values, "step": steps}
    dataset = xr.Dataset(
        {"switch": (dims, switch), "run_length": (dims, run_lengths(switch))}, coords
    )
    return run_length.mean((0, 1, 2)), dataset


def run_lengths(switched: np.ndarray) -> np.ndarray:
    """Steps since the last switch, or since the start [..., step]."""
    steps = np.arange(switched.shape[-1])
    return steps - np.maximum.accumulate(np.where(switched, steps, 0), -1)


def claims(inferred: Inferred) -> list[report.Claim]:
    """That no fewer intervals hold the truth than chance allows, if 90 % do on average."""
    return [
        report.at_least(
            f"{name}: chance that so few of the 90 % intervals hold the truth", chance, LEVEL
        )
        for name, chance in chances(inferred).items()
        if name != "noise_variance"
    ]


def chances(inferred: Inferred) -> dict[str, float]:
    """Hyper-parameter -> the chance that no more intervals hold the truth than were found to."""
    streams = inferred.fit.posterior.sizes["param"]
    return {name: float(stats.binom.cdf(n, streams, 0.9)) for name, n in inferred.inside.items()}


def power(streams: int, coverage: float) -> float:
    """The chance that intervals which hold the truth this often on average are refuted."""
    counts = np.arange(streams + 1)
    refuted = counts[stats.binom.cdf(counts, streams, 0.9) < LEVEL]
    return float(stats.binom.cdf(refuted.max(), streams, coverage)) if len(refuted) else 0.0


def metrics(inferred: Inferred) -> dict[str, Any]:
    """What goes into metrics.json."""
    diagnostics = inferred.fit.diagnostics
    worst = {"r_hat": np.max, "ess_bulk": np.min, "divergences": np.sum}
    return {
        "inference": {
            "streams": inferred.fit.posterior.sizes["param"],
            "inside_90_interval": inferred.inside,
            "chance_of_so_few": chances(inferred),
            "power_against_coverage": {
                c: power(inferred.fit.posterior.sizes["param"], c) for c in (0.5, 0.7)
            },
            "worst_of_chains": {
                name: float(reduce(diagnostics[name]))
                for name, reduce in worst.items()
                if name in diagnostics
            },
        }
    }
