r"""Belief from whole recordings: filter, smoother, likelihood, posterior paths, forecasts.

A recording is a tree of streams [step, ...]. Time runs as in training: ``gradient[t]`` was observed
at $\theta_t$ and ``displacement[t]`` = $\theta_{t+1} - \theta_t$ drives the belief from $t$ to
$t + 1$. Whatever follows the step axis is batched: every entry has its own stream and posterior.

What only runs forwards (`filter_recording`, `log_likelihood`, `filter_chunks`, `forecast`) takes
any belief with a ``filter()``. What also looks back (`smooth_recording`, `smooth_chunks`,
`sample_paths`), and what runs in parallel over time, takes linear-Gaussian models:
`beliefnav.beliefs.OrnsteinUhlenbeck`, `beliefnav.beliefs.Secant`, `beliefnav.beliefs.Optimum`, a
`beliefnav.beliefs.LocalLevel` with a proper prior and a known noise; any of them with
`beliefnav.beliefs.UnknownNoise`, and read as `beliefnav.beliefs.positive`.

Tasks that may switch (`beliefnav.beliefs.SwitchingOptimum`) have filters of their own, which run
online and over recordings as the others do. All parameters switch together, and what is seen on one
is evidence for the others; for parameters with tasks of their own, vmap.

| filter | keeps | exact |
|---|---|---|
| `beliefs.RunLengths` | a Gaussian for every run length (online change-point detection) | yes |
| `beliefs.TwoHypotheses` | the Gaussian with the moments of both | for one step |
| `beliefs.RunLengthReset` | one Gaussian, forgetting in doubt | no |
| `SwitchingOptimum.linear` | the Gaussian of the best linear filter | among those |

Their states have a scalar ``switch_probability``. `change_points` and `sample_switches` tell when
tasks switched in a recording.

Example:
    A stream that is longer than memory, forwards and backwards, and what is to come:

    >>> import jax, jax.numpy as jnp
    >>> from beliefnav import beliefs, filters
    >>> from beliefnav.recording import Recording
    >>> belief = beliefs.OrnsteinUhlenbeck(0.9, process_variance=0.2, noise_variance=1.0)
    >>> y = jnp.sin(jnp.arange(12.0))
    >>> chunks = [Recording(y[:6]), Recording(y[6:])]
    >>> last = [posterior for posterior, _ in filters.filter_chunks(belief, chunks)][-1]
    >>> smoothed = next(filters.smooth_chunks(belief, chunks))  # the last part comes first
    >>> bool(jnp.isclose(smoothed.gradient_mean[-1], last.gradient_mean[-1]))
    True
    >>> ahead = filters.forecast(belief, filters.last_state(belief, y), num_steps=2).gradient_mean
    >>> bool(jnp.allclose(ahead, last.gradient_mean[-1] * jnp.array([0.9, 0.81])))
    True
    >>> key = jax.random.key(0)
    >>> filters.sample_paths(belief, y, key=key, num_samples=5).gradient.shape
    (5, 12)
"""

from beliefnav.filters.filtering import (
    filter_chunks,
    filter_recording,
    forecast,
    last_state,
    log_likelihood,
)
from beliefnav.filters.smoothing import sample_paths, smooth_chunks, smooth_recording
from beliefnav.filters.switches import change_points, sample_switches

__all__ = [
    "change_points",
    "filter_chunks",
    "filter_recording",
    "forecast",
    "last_state",
    "log_likelihood",
    "sample_paths",
    "sample_switches",
    "smooth_chunks",
    "smooth_recording",
]
