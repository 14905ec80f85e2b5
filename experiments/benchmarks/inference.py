"""Effective samples a second of NUTS with the latent path integrated out against NUTS over it.

``python -m experiments.benchmarks inference``

Both sample the same posterior of an Ornstein-Uhlenbeck gradient: correlation, signal to noise and
noise, in one run, from a recording of 500 steps; each repetition draws a recording of its own. The
rate is that of the hyper-parameter that is worst off, in bulk effective samples (arviz). The mass
matrix is dense where the latents are integrated out, and diagonal over the latents, of which there
are as many as steps. The time is that of warm-up and draws; with compilation it is in a column of
its own.
"""

import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpyro
from jax import Array
from numpyro import distributions as dist
from tqdm import tqdm

from beliefnav import beliefs, inference
from beliefnav.recording import from_arrays
from experiments import report
from experiments.options import Options

SITES = ["correlation", "signal_to_noise", "noise_variance"]


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Options of the benchmark."""

    QUICK = {"num_steps": 100, "num_warmup": 100, "num_samples": 100, "repeats": 1}
    LEAST = {
        "num_steps": inference.MIN_STEPS,
        "num_warmup": 1,
        "num_samples": 4,
        "num_chains": 2,
        "repeats": 1,
    }

    num_steps: int = 500
    """Steps of the recording."""
    num_warmup: int = 500
    """Adaptation steps of a chain."""
    num_samples: int = 1000
    """Draws of a chain."""
    num_chains: int = 4
    """Chains, side by side."""
    repeats: int = 4
    """Recordings."""


def prior() -> beliefs.OrnsteinUhlenbeck:
    """Correlation, signal to noise and noise of the gradient."""
    correlation: Any = numpyro.sample("correlation", dist.Uniform(0, 1))
    signal: Any = numpyro.sample("signal_to_noise", dist.LogNormal(0, 1))
    noise: Any = numpyro.sample("noise_variance", dist.LogNormal(0, 1))
    return beliefs.OrnsteinUhlenbeck(correlation, signal * noise * (1 - correlation**2), noise)


def run(config: Config) -> report.Report:
    """Sample both ways with numpyro, and the first with blackjax too, and print the rates."""
    print(f"{'':<28}{'seconds':>9}{'with compiling':>16}{'least ESS':>11}{'ESS/s':>9}{'r-hat':>8}")
    keys = jax.random.split(jax.random.key(config.seed), config.repeats)
    rates = [_rates(config, key) for key in tqdm(keys, desc="recordings", leave=False)]
    ratios = {
        name: [of[name] / of["over the latents, numpyro"] for of in rates] for name in rates[0]
    }
    for name, of in ratios.items():
        print(f"{name}: {min(of):.1f} to {max(of):.1f} times as many effective samples a second")
    results = {
        "effective_samples_per_second": {
            name: float(np.median([of[name] for of in rates])) for name in rates[0]
        },
        "times_over_the_latents": {
            name: {"least": min(of), "largest": max(of)} for name, of in ratios.items()
        },
    }
    return report.Report([], results)


def _rates(config: Config, key: Array) -> dict[str, float]:
    """Effective samples a second of each sampler, from one recording."""
    import arviz

    truth = beliefs.OrnsteinUhlenbeck(0.9, process_variance=0.19, noise_variance=1.0)
    keys = jax.random.split(key)
    _, recording = inference.simulate(lambda: truth, key=keys[0], num_steps=config.num_steps)
    stream = from_arrays(recording.gradient)
    rates = {}
    for name, sampler, integrate in (
        ("integrated out, numpyro", inference.numpyro_nuts, True),
        ("integrated out, blackjax", inference.blackjax_nuts, True),
        ("over the latents, numpyro", inference.numpyro_nuts, False),
    ):
        target = inference.target(prior, stream, integrate=integrate)

        started = time.perf_counter()
        fit = sampler(
            target,
            key=keys[1],
            num_warmup=config.num_warmup,
            num_samples=config.num_samples,
            num_chains=config.num_chains,
            dense_mass=integrate,
        )
        everything = time.perf_counter() - started
        seconds = fit.posterior.attrs["sampling_time"]
        ess: Any = arviz.ess(fit.posterior[SITES], method="bulk")
        least = min(float(ess[site]) for site in SITES)
        rates[name] = least / seconds
        tqdm.write(
            f"{name:<28}{seconds:>9.1f}{everything:>16.1f}{least:>11.0f}{rates[name]:>9.1f}"
            f"{float(fit.diagnostics['r_hat']):>8.3f}"
        )
    return rates
