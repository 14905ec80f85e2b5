r"""Belief from whole recordings: filter, smoother, likelihood, posterior paths, forecasts.

A recording is a tree of streams [step, ...]. Time runs as in training: ``gradient[t]`` was observed
at $\theta_t$ and ``displacement[t]`` = $\theta_{t+1} - \theta_t$ drives the belief from $t$ to
$t + 1$. Whatever follows the step axis is batched: every entry has its own stream and posterior.

What only runs forwards (`filter_recording`, `log_likelihood`, `filter_chunks`, `forecast`) takes
any belief with a ``filter()``. What also looks back (`smooth_recording`, `smooth_chunks`,
`sample_paths`), and what runs in parallel over time, takes linear-Gaussian models:
`beliefnav.ssm.OrnsteinUhlenbeck`, `beliefnav.ssm.Secant`, `beliefnav.ssm.Optimum`, a
`beliefnav.ssm.LocalLevel` with a proper prior and a known noise; any of them with
`beliefnav.ssm.UnknownNoise`, and read as `beliefnav.ssm.positive`.
"""

from beliefnav.filters.recording import (
    Recording,
    filter_chunks,
    filter_recording,
    forecast,
    last_state,
    log_likelihood,
)
from beliefnav.filters.smoothing import Paths, sample_paths, smooth_chunks, smooth_recording

__all__ = [
    "Paths",
    "Recording",
    "filter_chunks",
    "filter_recording",
    "forecast",
    "last_state",
    "log_likelihood",
    "sample_paths",
    "smooth_chunks",
    "smooth_recording",
]
