r"""What sampling gives: draws with labels, whether they can be trusted, and their way to arviz."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav import filters
from beliefnav.beliefs import Belief
from beliefnav.inference.targets import Density, Target, Values, believe, hyperparameters, recording
from beliefnav.recording import Recording, to_container

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = [
    "EFFECTIVE_SAMPLES",
    "Fit",
    "R_HAT",
    "State",
    "diagnose",
    "labelled",
    "map_draws",
    "predict",
    "summary",
    "to_arviz",
    "to_groups",
    "with_verdict",
]

PyTree = Any

R_HAT = 1.01
EFFECTIVE_SAMPLES = 400
"""Thresholds of convergence of Vehtari et al., "Rank-normalization, folding, and localization: an
improved R-hat", Bayesian Analysis 2021."""


class State(NamedTuple):
    """Where a sampler stands, to go on from: the same for all of them.

    Attributes:
        position: site -> unconstrained values [(unit,) chain, ...].
        step_size: [(unit,) chain].
        inverse_mass_matrix: [(unit,) chain, dim], or [(unit,) chain, dim, dim] if dense.
    """

    position: Values
    step_size: Array
    inverse_mass_matrix: Array


class Fit(NamedTuple):
    """Draws from a posterior.

    Attributes:
        target: what was sampled.
        posterior: constrained values, of dimensions (chain, draw), the dimension taken apart if
            there is one, and those of the site. Of a sampler it has the attributes
            ``inference_library`` and ``sampling_time``, seconds with warm-up, without compilation.
        sample_stats: of the sampler, of dimensions (chain, draw) and the dimension taken apart; the
            diagnostics are its attributes too, and so go into files and containers.
        diagnostics: whether to trust it: ``converged``, and what that rests on, of the dimension
            taken apart.
        state: where the sampler stands.
    """

    target: Target
    posterior: "xr.Dataset"
    sample_stats: "xr.Dataset"
    diagnostics: "xr.Dataset"
    state: State

    @property
    def converged(self) -> bool:
        """Whether all of it converged."""
        return bool(self.diagnostics["converged"].all())


def summary(fit: Fit) -> "pd.DataFrame":
    """A table of the posterior, one row for each number, that says of each whether it converged.

    A number of a sampler converged if its own R-hat and effective sample sizes pass the thresholds
    of Vehtari et al. (2021), and no transition of its chains diverged; one that is computed from
    others and never varies has none. Laplace's approximation has one verdict for all numbers of a
    unit.

    Args:
        fit: draws from a posterior.

    Returns:
        Columns ``mean``, ``sd``, ``5%``, ``50%``, ``95%``, of a sampler ``r_hat``, ``ess_bulk`` and
        ``ess_tail``, and ``converged``.
    """
    import pandas as pd

    over = ("chain", "draw")
    tables = []
    chains = agreement(fit.posterior) if "r_hat" in fit.diagnostics else {}
    sites = hyperparameters(fit.target) if fit.target.integrate else list(fit.posterior)
    for name, draws in fit.posterior.data_vars.items():
        quantiles = draws.quantile([0.05, 0.5, 0.95], over)
        table = {"mean": draws.mean(over), "sd": draws.std(over)}
        table |= {f"{q:.0%}": quantiles.sel(quantile=q, drop=True) for q in (0.05, 0.5, 0.95)}
        if chains:
            table |= {column: values[name] for column, values in chains.items()}
            passed = agrees(table) & (fit.diagnostics["divergences"] == 0)
            fixed = (table["sd"] == 0) & (name not in sites)
            table["converged"] = passed | fixed
        else:
            table["converged"] = fit.diagnostics["converged"].broadcast_like(table["mean"])
        dims = table["mean"].dims
        columns = {name: x.transpose(*dims).values.ravel() for name, x in table.items()}
        rows = pd.DataFrame(columns)
        labels = table["mean"].to_series().index if table["mean"].ndim else [()]
        rows.index = [_label(str(name), label) for label in labels]
        tables.append(rows)
    return pd.concat(tables)


def _label(name: str, position: Any) -> str:
    """``name[a, b]``, or ``name`` of a scalar."""
    parts = position if isinstance(position, tuple) else (position,)
    return f"{name}[{', '.join(map(str, parts))}]" if parts else name


def map_draws(
    target: Target,
    posterior: "xr.Dataset",
    function: Callable[[Belief, Recording, Array], PyTree],
    *,
    key: Array | None = None,
    progress_bar: bool = False,
) -> PyTree:
    """Apply a function to the belief of every draw, and the recording.

    Args:
        target: whose prior makes the belief, and whose stream is the recording; it need not be
            the stream that the draws were conditioned on.
        posterior: draws, of dimensions (chain, draw, ...).
        function: ``(belief, recording, key) -> tree`` of one draw and, if they are separate, of
            one unit.
        key: random key; ``jax.random.key(0)`` by default.
        progress_bar: show progress.

    Returns:
        A tree of numpy arrays [chain, draw, (unit,) ...].
    """
    from numpyro import handlers
    from tqdm import tqdm

    data = recording(target)
    sampled = hyperparameters(target)
    leading = ("chain", "draw", *target.unit_dims)
    draws = {name: posterior[name].transpose(*leading, ...).values for name in sampled}
    num_chains, num_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    total = num_chains * num_draws
    flat = {name: x.reshape(total, *x.shape[2:]) for name, x in draws.items()}
    key = jax.random.key(0) if key is None else key
    keys = jax.random.split(key, (total, *target.unit_shape))

    def one(values: Values, key: Array, data: Recording) -> PyTree:
        prior = handlers.substitute(handlers.seed(target.prior, jax.random.key(0)), values)
        belief: Any = prior()
        return function(belief, believe(belief, data), key)

    every = jax.vmap(target.over_units(one), in_axes=(0, 0, None))
    run = jax.jit(lambda values, keys: every(values, keys, data))
    size = min(total, 64)
    results = []
    with tqdm(total=total, desc="draws", disable=not progress_bar) as bar:
        for start in range(0, total, size):
            # The last part is filled up from before, so that all compile once.
            part = np.minimum(np.arange(start, start + size), total - 1)
            result = run({name: x[part] for name, x in flat.items()}, keys[part])
            count = min(size, total - start)
            results.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], result))
            bar.update(count)

    def join(*parts: np.ndarray) -> np.ndarray:
        array = np.concatenate(parts)
        return array.reshape(num_chains, num_draws, *array.shape[1:])

    return jax.tree.map(join, *results)


def predict(
    target: Target,
    posterior: "xr.Dataset",
    *,
    key: Array,
    progress_bar: bool = False,
) -> dict[str, "xr.Dataset"]:
    r"""One step ahead: the density of every observation given those before it, and replicates.

    For every draw $\psi$ the filter gives $p(y_t \mid y_{1:t-1}, \psi)$, of which are taken the log
    density at what was observed, and one draw. Where an observation is missing the density is 0
    and the replicate NaN. A mixture, as over run lengths, has no single scale to draw with, and so
    no replicates; where all coordinates are observed as one, the density has no dimension for them.

    Leaving one observation out by importance sampling (``arviz.loo``) takes its influence on
    $\psi$ away, not that on the later latent states. arviz 1.x needs missing observations taken
    out first: stack the dimensions but chain and draw, and select.

    Args:
        target: whose stream is predicted; it may go on where the stream of the draws ended.
        posterior: draws, of dimensions (chain, draw, ...).
        key: random key of the replicates.
        progress_bar: show progress.

    Returns:
        The groups ``log_likelihood`` and, if there are replicates, ``posterior_predictive``, each
        with a ``gradient`` of dimensions (chain, draw, step, ...).

    Raises:
        ValueError: the belief has no predictive density.
    """
    import xarray as xr

    def function(belief: Belief, recording: Recording, key: Array) -> dict[str, Array]:
        _, info = filters.filter_recording(belief, *recording)
        if info.log_density is None:
            raise ValueError(f"{belief.name} has no predictive density.")
        groups = {"log_likelihood": info.log_density}
        if info.predictive_scale is not None:
            y = recording.gradient
            noise = _draw(key, info.predictive_degrees_of_freedom, y)
            # Where nothing was predicted, because the prior is improper, nothing is replicated.
            proper = jnp.isfinite(y) & jnp.isfinite(info.predictive_scale)
            scale = jnp.where(proper, info.predictive_scale, 0)
            replicate = jnp.where(proper, y - info.innovation + scale * noise, jnp.nan)
            groups["posterior_predictive"] = replicate
        return groups

    results = map_draws(target, posterior, function, key=key, progress_bar=progress_bar)
    coords: dict[Any, Any] = {name: posterior[name] for name in ("chain", "draw")}
    coords |= dict(target.stream["gradient"].coords)

    def label(values: np.ndarray) -> "xr.Dataset":
        dims = ("chain", "draw", *target.unit_dims, *target.dims)[: values.ndim]
        own = {name: coord for name, coord in coords.items() if set(coord.dims) <= set(dims)}
        order = [dim for dim in target.stream["gradient"].dims if dim in dims]
        data = xr.Dataset({"gradient": (dims, values)}, own)
        return data.transpose("chain", "draw", *order)

    return {group: label(values) for group, values in results.items()}


def _draw(key: Array, degrees: Array | None, like: Array) -> Array:
    """Standard draws of a Student-t or, without degrees of freedom, of a Gaussian.

    By Bailey's polar method (Mathematics of Computation 62, 1994), which rejects nothing.
    """
    if degrees is None:
        return jax.random.normal(key, like.shape, like.dtype)
    degrees = jnp.where(degrees > 0, degrees, 1)
    tiny = jnp.finfo(like.dtype).tiny
    u, turn = jax.random.uniform(key, (2, *like.shape), like.dtype, tiny)
    length = jnp.sqrt(degrees * jnp.expm1(-2 / degrees * jnp.log(u)))
    return length * jnp.cos(2 * math.pi * turn)


def to_groups(fit: Fit, *, key: Array | None = None) -> dict[str, "xr.Dataset"]:
    """The groups of `to_arviz`, to be joined with others.

    Args:
        fit: draws from a posterior.
        key: random key of the replicates; ``jax.random.key(0)`` by default.

    Returns:
        Group name -> Dataset.
    """
    key = jax.random.key(0) if key is None else key
    given = [name for name in ("displacement", "curvature") if name in fit.target.stream]
    groups = {
        "posterior": fit.posterior,
        "sample_stats": fit.sample_stats,
        "observed_data": fit.target.stream[["gradient"]],
        **predict(fit.target, fit.posterior, key=key),
    }
    return groups | ({"constant_data": fit.target.stream[given]} if given else {})


def to_arviz(fit: Fit, *, key: Array | None = None) -> Any:
    """A fit as arviz opens it: InferenceData (arviz 0.x) or DataTree (arviz 1.x).

    Groups: ``posterior`` (constrained values), ``sample_stats`` (``diverging`` among them; its
    attributes say of each unit whether it converged), ``log_likelihood`` and
    ``posterior_predictive`` of the gradient (one step ahead, see `predict`), ``observed_data`` (the
    gradient) and ``constant_data`` (what the belief was given besides: displacements, readings of a
    second sensor).

    Args:
        fit: draws from a posterior.
        key: random key of the replicates; ``jax.random.key(0)`` by default.

    Returns:
        The container of the installed arviz.
    """
    return to_container(to_groups(fit, key=key))


def labelled(
    density: Density,
    target: Target,
    positions: Array,
    statistics: Mapping[str, Array],
) -> tuple["xr.Dataset", "xr.Dataset"]:
    """Posterior and sample_stats, from positions [draw, (unit,) chain, dim]."""
    import xarray as xr

    units = target.unit_dims

    def order(x: Array) -> Array:  # [chain, draw, (unit,) ...]
        return jnp.moveaxis(x, 1 + len(units), 0)

    positions = order(positions)
    constrain = target.over_units(density.constrain)
    for _ in range(2):
        constrain = jax.vmap(constrain, in_axes=(0, None))
    values = jax.jit(constrain)(positions, density.data)
    leading = ("chain", "draw", *units)
    num_chains, num_draws = positions.shape[:2]
    coords: dict[str, Any] = {"chain": np.arange(num_chains), "draw": np.arange(num_draws)}
    known: Any = target.stream.coords
    dims = {dim for name in values for dim in density.dims[name]} | set(units)
    coords |= {str(dim): known[dim] for dim in dims if dim in known}
    for name, value in values.items():  # arviz asks for the labels of plates too
        sizes = zip(density.dims[name], value.shape[len(leading) :], strict=True)
        coords = {dim: np.arange(size) for dim, size in sizes} | coords
    posterior = xr.Dataset(
        {
            name: ((*leading, *density.dims[name]), np.asarray(value))
            for name, value in values.items()
        },
        coords,
    )
    own = {name: coords[name] for name in leading if name in coords}
    sample_stats = xr.Dataset(
        {name: (leading, np.asarray(order(value))) for name, value in statistics.items()}, own
    )
    return posterior, sample_stats


def diagnose(
    density: Density, target: Target, posterior: "xr.Dataset", sample_stats: "xr.Dataset"
) -> "xr.Dataset":
    """Whether chains agree: the worst over all sites, for every unit."""
    import xarray as xr

    def worst(table: Any, largest: bool) -> Any:
        fields = []
        for values in table.data_vars.values():
            # NaN, where nothing moved or there is one chain, is the worst there is.
            values = values.fillna(np.inf if largest else 0.0)
            others = [dim for dim in values.dims if dim not in target.unit_dims]
            fields.append(values.max(others) if largest else values.min(others))
        joined = xr.concat(fields, "site")
        return joined.max("site") if largest else joined.min("site")

    tables = agreement(posterior[list(density.like)])
    result = {name: worst(table, name == "r_hat") for name, table in tables.items()}
    result["divergences"] = sample_stats["diverging"].sum(("chain", "draw"))
    result["converged"] = agrees(result) & (result["divergences"] == 0)
    return xr.Dataset(result)


def with_verdict(sample_stats: "xr.Dataset", diagnostics: "xr.Dataset") -> "xr.Dataset":
    """Statistics whose attributes are the diagnostics, as numbers that a file can hold."""
    verdict = {name: np.asarray(x, np.float64).tolist() for name, x in diagnostics.items()}
    return sample_stats.assign_attrs(verdict)


def agreement(draws: "xr.Dataset") -> dict[str, Any]:
    """R-hat and effective sample sizes of every number."""
    import arviz

    with np.errstate(divide="ignore", invalid="ignore"):  # of chains that stand still
        return {
            "r_hat": arviz.rhat(draws),
            "ess_bulk": arviz.ess(draws, method="bulk"),
            "ess_tail": arviz.ess(draws, method="tail"),
        }


def agrees(table: Mapping[str, Any]) -> Any:
    """Whether they pass the thresholds; what is NaN does not."""
    return (
        (table["r_hat"] < R_HAT)
        & (table["ess_bulk"] >= EFFECTIVE_SAMPLES)
        & (table["ess_tail"] >= EFFECTIVE_SAMPLES)
    )
