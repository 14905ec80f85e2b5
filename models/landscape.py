r"""The gradient of a landscape, correlated in time and seen through noise: priors and inference.

For every recorded coordinate, independently,

$$ g_t = \rho g_{t-1} + N(0, q), \qquad y_t = g_t + N(0, R), $$

an `beliefnav.ssm.OrnsteinUhlenbeck` gradient, with a prior on scale-free quantities: the stationary
standard deviation $\sigma$ of the stream in units of its root mean square $u$, the share $\kappa$
of its variance that is signal, and the correlation $\rho$ of the signal from step to step,

$$ \sigma / u \sim \mathrm{LogNormal}(0, 1), \quad \kappa \sim U(0, 1), \quad \rho \sim U(0, 1),
   \qquad q = \kappa \sigma^2 (1 - \rho^2), \quad R = (1 - \kappa) \sigma^2. $$

Where $\kappa$ is near 0 the stream says nothing of $\rho$, and its posterior stays the prior.

Example:
    From a stream file (see `beliefnav.inspection`) to a posterior:

    >>> import jax
    >>> from models import landscape
    >>> stream = landscape.read_stream("runs/classify/stream.nc")  # doctest: +SKIP
    >>> posterior, _ = landscape.infer(stream["gradient"].values, key=jax.random.key(0))
    ... # doctest: +SKIP
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from beliefnav import filters, ssm

if TYPE_CHECKING:
    import xarray as xr

HYPERPARAMETERS = (
    "autocorrelation",
    "signal_fraction",
    "stream_scale",
    "process_variance",
    "noise_variance",
)


def landscape(
    gradient: ArrayLike | None = None,
    *,
    num_steps: int | None = None,
    num_params: int | None = None,
    unit: ArrayLike | None = None,
    integrate: bool = True,
) -> None:
    r"""The NumPyro program.

    Sites: ``autocorrelation`` ($\rho$), ``signal_fraction`` ($\kappa$) and ``relative_scale``
    ($\sigma/u$), all [param]; deterministic ``stream_scale`` ($\sigma$), ``process_variance`` ($q$)
    and ``noise_variance`` ($R$), all [param]; and, unless integrated out, ``gradient`` and
    ``observation`` [step, param].

    Args:
        gradient: [step, param] a recorded stream to condition on; NaN or infinite entries are
            missing.
        num_steps: number of steps to simulate, instead of ``gradient``.
        num_params: number of coordinates to simulate.
        unit: $u$ [param]; the root mean square of ``gradient`` by default, 1 when simulating.
        integrate: integrate the latent gradient out, exactly, by its filter, when conditioning.

    Raises:
        ValueError: neither or both of ``gradient`` and ``num_steps``, or ``gradient`` is not
            [step, param].
    """
    import numpyro
    from numpyro import distributions as dist

    if gradient is not None:
        gradient = jnp.asarray(gradient)
        if gradient.ndim != 2:
            raise ValueError(f"gradient must be [step, param], got shape {gradient.shape}.")
        num_params = gradient.shape[1]
        unit = root_mean_square(gradient) if unit is None else unit
    elif num_params is None:
        raise ValueError("Give either a recorded gradient, or num_steps and num_params.")

    with numpyro.plate("param", num_params):
        autocorrelation = numpyro.sample("autocorrelation", dist.Uniform(0, 1))
        fraction = numpyro.sample("signal_fraction", dist.Uniform(0, 1))
        relative_scale = numpyro.sample("relative_scale", dist.LogNormal(0, 1))
    scale = numpyro.deterministic("stream_scale", relative_scale * (1 if unit is None else unit))
    belief = ssm.OrnsteinUhlenbeck(
        autocorrelation,
        numpyro.deterministic("process_variance", fraction * scale**2 * (1 - autocorrelation**2)),
        numpyro.deterministic("noise_variance", (1 - fraction) * scale**2),
    )
    if gradient is not None and integrate:
        numpyro.factor("stream", filters.log_likelihood(belief, gradient).sum())
    else:
        belief.numpyro_model(gradient, num_steps=num_steps, shape=(num_params,))


def root_mean_square(gradient: Array) -> Array:
    """Root mean square of the finite entries of every column [param]; 1 where they are all 0."""
    seen = jnp.isfinite(gradient)
    square = jnp.where(seen, gradient, 0) ** 2
    mean = square.sum(0) / jnp.maximum(seen.sum(0), 1)
    return jnp.where(mean > 0, jnp.sqrt(jnp.where(mean > 0, mean, 1)), 1)


def infer(
    gradient: ArrayLike,
    *,
    key: Array,
    num_warmup: int = 500,
    num_samples: int = 500,
    num_chains: int = 2,
    labels: Any = None,
    progress_bar: bool = True,
) -> tuple["xr.Dataset", "xr.Dataset"]:
    """Draw from the posterior of the hyper-parameters by NUTS, the latent gradient integrated out.

    Args:
        gradient: [step, param] a recorded stream; NaN or infinite entries are missing.
        key: random key.
        num_warmup: adaptation steps of a chain.
        num_samples: draws of a chain.
        num_chains: number of chains; they run side by side, vectorised.
        labels: names of the coordinates; their positions by default.
        progress_bar: show progress.

    Returns:
        The posterior, variables `HYPERPARAMETERS` of dimensions (chain, draw, param), and the
        sampler's statistics, of dimensions (chain, draw): ``diverging``, ``acceptance_rate``,
        ``tree_depth``, ``lp``.

    Raises:
        ValueError: see `landscape`.
    """
    import numpyro
    import xarray as xr

    gradient = jnp.asarray(gradient)
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(landscape, target_accept_prob=0.9),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=progress_bar,
    )
    fields = ("diverging", "accept_prob", "num_steps", "potential_energy")
    mcmc.run(key, gradient, extra_fields=fields)
    samples = mcmc.get_samples(group_by_chain=True)
    extra = mcmc.get_extra_fields(group_by_chain=True)
    chain, draw = np.arange(num_chains), np.arange(num_samples)
    param = np.arange(gradient.shape[1]) if labels is None else np.asarray(labels)
    posterior = xr.Dataset(
        {name: (("chain", "draw", "param"), np.asarray(samples[name])) for name in HYPERPARAMETERS},
        coords={"chain": chain, "draw": draw, "param": param},
    )
    statistics = {
        "diverging": extra["diverging"],
        "acceptance_rate": extra["accept_prob"],
        "tree_depth": np.ceil(np.log2(np.asarray(extra["num_steps"]) + 1)).astype(int),
        "lp": -extra["potential_energy"],
    }
    sample_stats = xr.Dataset(
        {name: (("chain", "draw"), np.asarray(value)) for name, value in statistics.items()},
        coords={"chain": chain, "draw": draw},
    )
    return posterior, sample_stats


def read_stream(path: str | Path) -> "xr.Dataset":
    """Read a stream file: ``gradient`` and ``displacement`` of dimensions (step, param).

    Args:
        path: a NetCDF file.

    Returns:
        The stream, in memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold a ``gradient`` of dimensions (step, param).
    """
    import xarray as xr

    if not Path(path).is_file():
        raise FileNotFoundError(
            f"No stream file at {path}. `python -m experiments classify` writes one; so does "
            "to_netcdf on the variables gradient and displacement of inspection.to_dataset(...)."
        )
    with xr.open_dataset(path) as stream:
        dims = stream["gradient"].dims if "gradient" in stream else None
        if dims != ("step", "param"):
            raise ValueError(
                f"{path} is not a stream file: it needs a variable 'gradient' of dimensions "
                f"('step', 'param'), found {dims or list(stream.data_vars)}."
            )
        return stream.load()


def simulate(
    belief: ssm.OrnsteinUhlenbeck, *, key: Array, num_steps: int, num_params: int
) -> Array:
    """A synthetic stream [step, param] from given hyper-parameters.

    Args:
        belief: the hyper-parameters, scalars or [param].
        key: random key.
        num_steps: number of steps.
        num_params: number of coordinates.

    Returns:
        The observed gradient [step, param].
    """
    from numpyro import handlers

    program = handlers.seed(belief.numpyro_model, key)
    return jax.jit(lambda: program(num_steps=num_steps, shape=(num_params,)))()
