"""Models fitted to streams, and how well they predict."""

import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax import Array
from scipy.special import logsumexp
from tqdm import tqdm

from beliefnav import beliefs, inference, recording
from beliefnav._files import written_beside
from experiments.gradient_noise.config import Config
from experiments.gradient_noise.streams import Stream
from models import gradient_noise

if TYPE_CHECKING:
    import xarray as xr

LEVEL = 0.9
"""Of central intervals."""
WARMUP = 100
FIXED: dict[str, Callable[[], beliefs.Belief]] = {
    "no memory": gradient_noise.white_noise,
    "level, Adam's 0.9": gradient_noise.fixed_local_level,
    "precision, Adam's 0.999": gradient_noise.fixed_precision_walk,
}
"""What the models are compared with."""


class Score(NamedTuple):
    """How a model predicts one step ahead.

    Attributes:
        held_out: [step] log predictive density of the steps that were not fitted, summed over
            coordinates and stages.
        intervals: fraction of held-out gradients inside their central interval of 90 %.
        ranks: of held-out gradients among replicates, in [0, 1].
        loo: log density of fitted steps, each left out, by importance sampling; NaN for a model
            without hyper-parameters.
        loo_error: its standard error.
        loo_unreliable: fraction of steps whose importance weights cannot be trusted.
    """

    held_out: np.ndarray
    intervals: float
    ranks: np.ndarray
    loo: float = float("nan")
    loo_error: float = float("nan")
    loo_unreliable: float = float("nan")

    @property
    def elpd(self) -> float:
        """Summed log predictive density held out in time."""
        return float(self.held_out.sum())


class Learned(NamedTuple):
    """What was learned of the hyper-parameters of a model: see `beliefnav.inference.Fit`."""

    posterior: "xr.Dataset"
    sample_stats: "xr.Dataset"
    diagnostics: "xr.Dataset"

    def converged(self, stage: str | None = None) -> bool:
        """Whether a stage converged, or all."""
        each = self.diagnostics["converged"]
        return bool(each.all() if stage is None else each.sel(stage=stage))


class Answer(NamedTuple):
    """What a stream says.

    Attributes:
        stream: the stream.
        fits: model -> its fit.
        scores: model -> how it predicts; those that are fixed too.
    """

    stream: Stream
    fits: dict[str, Learned]
    scores: dict[str, Score]


def ask(config: Config, streams: Sequence[Stream]) -> list[Answer]:
    """Fit all models to all streams, and let them predict.

    On a CPU two of them are fitted at a time, each in a process of its own.
    """
    tasks = [
        (config, stream, name)
        for stream in streams
        for name in (*reversed(gradient_noise.MODELS), *FIXED)  # those that take longest first
        if name != "secant" or (config.secant and "displacement" in stream.values)
    ]
    with tqdm(total=len(tasks), desc="beliefs") as bar:
        if jax.default_backend() == "cpu":
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(2, context) as pool:
                results = _collect(pool.map(learn, *zip(*tasks, strict=True)), bar)
        else:
            results = _collect(map(learn, *zip(*tasks, strict=True)), bar)
    answers = []
    for stream in streams:
        own = {name: r for (_, s, name), r in zip(tasks, results, strict=True) if s is stream}
        fits = {name: learned for name, (learned, _) in own.items() if learned is not None}
        answers.append(Answer(stream, fits, {name: score for name, (_, score) in own.items()}))
    return answers


def _collect(results: Iterable[Any], bar: Any) -> list[Any]:
    collected = []
    for result in results:
        collected.append(result)
        bar.update()
    return collected


def learn(config: Config, stream: Stream, name: str) -> tuple[Learned | None, Score]:
    """Fit one model, or take a fixed one, and let it predict."""
    key = jax.random.key(config.seed)
    if name in FIXED:
        return None, score(stream, FIXED[name], None, key)
    prior = gradient_noise.MODELS[name](stream.layers)
    fitted = fit(config, stream, prior)
    learned = Learned(fitted.posterior, fitted.sample_stats, fitted.diagnostics)
    groups = {"posterior": learned.posterior, "sample_stats": learned.sample_stats}
    path = config.folder / f"{stream.name}_{name.replace(' ', '_').lower()}.nc"
    container = recording.to_container(groups)
    with written_beside(path) as unfinished:
        container.to_netcdf(str(unfinished), engine="h5netcdf")
    return learned, score(stream, prior, learned.posterior, key)


def fit(config: Config, stream: Stream, prior: gradient_noise.Prior) -> inference.Fit:
    """The posterior given the fitted part of every stage: NUTS, started from Laplace's."""
    target = inference.target(prior, stream.fitted, separate="stage")
    keys = jax.random.split(jax.random.key(config.seed))
    approximate = inference.laplace(
        target,
        key=keys[0],
        num_draws=200 if config.quick else 500,
        num_chains=config.num_chains,
        num_starts=1 if config.quick else 2,
    )
    if config.quick:
        return approximate
    return inference.numpyro_nuts(
        target,
        key=keys[1],
        start=approximate.state,
        num_warmup=WARMUP,
        num_samples=config.num_samples,
        num_chains=config.num_chains,
        dense_mass=True,
        max_tree_depth=6,
        progress_bar=False,  # of two at a time
    )


def score(
    stream: Stream,
    prior: gradient_noise.Prior,
    posterior: "xr.Dataset | None",
    key: Array,
) -> Score:
    """Predict every step from those before it, with the draws of a posterior or a fixed belief."""
    import xarray as xr

    target = inference.target(prior, stream.values, separate="stage")
    fixed = posterior is None
    if posterior is None:  # replicates of a fixed belief need draws too, of nothing
        posterior = xr.Dataset(coords={"chain": [0], "draw": np.arange(50)})
    step = max(1, posterior.sizes["chain"] * posterior.sizes["draw"] // 200)
    groups = inference.predict(target, posterior.isel(draw=slice(None, None, step)), key=key)
    log_density = groups["log_likelihood"]["gradient"]
    # Of each stage the draws are its own: average over them, then sum over stages.
    by_stage = log_density.sum("param").stack(sample=("chain", "draw"))
    held = by_stage.isel(step=stream.held_out).transpose("step", "stage", "sample").values
    held_out = (logsumexp(held, -1) - np.log(held.shape[-1])).sum(-1)
    replicates = groups["posterior_predictive"]["gradient"].stack(sample=("chain", "draw"))
    dims = ("step", "param", "stage")
    replicates = replicates.isel(step=stream.held_out).transpose("sample", *dims).values
    observed = stream.values["gradient"].isel(step=stream.held_out).transpose(*dims).values
    seen = np.isfinite(observed)
    ranks = (replicates < observed).mean(0)[seen]
    inside = np.abs(ranks - 0.5) < LEVEL / 2
    if fixed:
        return Score(held_out, float(inside.mean()), ranks)
    fitted = by_stage.isel(step=slice(0, stream.held_out.start)).transpose(
        "sample", "stage", "step"
    )
    loo, error, unreliable = leave_one_out(fitted.values.reshape(fitted.sizes["sample"], -1))
    return Score(held_out, float(inside.mean()), ranks, loo, error, unreliable)


def leave_one_out(log_likelihood: np.ndarray) -> tuple[float, float, float]:
    """PSIS-LOO of [draw, observation]: its sum, standard error, and share of bad weights."""
    import arviz
    import xarray as xr

    coords = {"chain": [0], "draw": np.arange(len(log_likelihood))}
    values = xr.DataArray(log_likelihood[None], coords, ("chain", "draw", "where"))
    groups = {
        "posterior": xr.Dataset({"unused": values.isel(where=0, drop=True)}),
        "log_likelihood": xr.Dataset({"gradient": values}),
    }
    container = recording.to_container(groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unreliable weights, which are counted instead
        result: Any = arviz.loo(container, var_name="gradient", pointwise=True, reff=1.0)
    total = result.elpd if hasattr(result, "elpd") else result.elpd_loo  # arviz 1.x, 0.x
    return float(total), float(result.se), float((result.pareto_k.values > 0.7).mean())
