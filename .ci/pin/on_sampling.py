"""Hyper-parameters from a stream: a chain of NUTS, Laplace's approximation; and stream files."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro
import streams
from names import beliefs, inference, recordings
from numpyro import distributions as dist
from recorder import Recorder, labelled

PyTree = Any
STEPS = 40


@functools.cache
def stream() -> Any:
    """A stream of three coordinates, with missing entries."""
    rng = streams.generator(21)
    level = np.cumsum(rng.normal(size=(STEPS, 3)) / 2, 0)
    gradient = level + rng.normal(size=(STEPS, 3))
    gradient[3, 0], gradient[20, 1] = np.nan, np.inf
    displacement, curvature = rng.normal(size=(2, STEPS, 3))
    labels = ["first", "second", "third"]
    return recordings.from_arrays(gradient, displacement, curvature, labels)


def prior() -> Any:
    """Over the correlation and the size of an Ornstein-Uhlenbeck gradient, one for all."""
    correlation = numpyro.sample("correlation", dist.Uniform(0, 1))
    ratio = numpyro.sample("signal_to_noise", dist.LogNormal(0, 2))
    return beliefs.OrnsteinUhlenbeck(correlation, ratio * (1 - correlation**2), 1.0)


def secant_prior() -> Any:
    """Over the noise and the prior of a secant landscape, for each coordinate."""
    noise = numpyro.sample("noise", dist.LogNormal(0, 1))
    curvature = numpyro.sample("curvature_variance", dist.LogNormal(0, 1))
    return beliefs.Secant(noise, 2.0, curvature, gradient_process_variance=0.1)


def described(fit: Any) -> PyTree:
    """A fit, without how long it took."""
    parts = {name: getattr(fit, name) for name in ("posterior", "sample_stats", "diagnostics")}
    return {name: labelled(part) for name, part in parts.items()} | {"state": fit.state}


def chain() -> PyTree:
    """One chain of 20 draws."""
    target = inference.target(prior, stream().drop_vars("curvature"))
    fit = inference.numpyro_nuts(
        target,
        key=jax.random.key(9),
        num_warmup=20,
        num_samples=20,
        num_chains=1,
        progress_bar=False,
    )
    return described(fit)


def approximated() -> PyTree:
    """Laplace's approximation, of every coordinate by itself."""
    target = inference.target(secant_prior, stream().drop_vars("curvature"), separate="param")
    fit = inference.laplace(target, key=jax.random.key(10), num_draws=20, num_starts=2)
    return described(fit)


def compiled(recorder: Recorder) -> None:
    """What is sampled in compiled loops, and so equal up to rounding only."""
    recorder.item("numpyro_nuts", chain)
    recorder.item("laplace", approximated)


def files(recorder: Recorder) -> None:
    """A stream as a Dataset, and what is read from the file that it is written to."""
    recorder.item("stream", lambda: labelled(stream()))
    recorder.item("informative", lambda: np.asarray(inference.informative(stream())))
    recorder.item("stream file", _read_again)


def _read_again() -> PyTree:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.nc"
        stream()[["gradient", "displacement"]].to_netcdf(path)
        return labelled(recordings.read_stream(path))
