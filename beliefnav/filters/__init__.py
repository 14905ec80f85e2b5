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

Tasks that may switch (`beliefnav.ssm.SwitchingOptimum`) have filters of their own, which run online
and over recordings as the others do. All parameters switch together, and what is seen on one is
evidence for the others; for parameters with tasks of their own, vmap.

| filter | keeps | exact |
|---|---|---|
| `RunLengths` | a Gaussian for every run length (Bayesian online change-point detection) | yes |
| `TwoHypotheses` | the Gaussian with the moments of both | for one step |
| `RunLengthReset` | one Gaussian, forgetting in doubt | no |
| `beliefnav.ssm.SwitchingOptimum.linear` | the Gaussian of the best linear filter | among those |

Their states have a scalar ``switch_probability``. `change_points` and `sample_switches` tell when
tasks switched in a recording.
"""

from beliefnav.filters.change_points import ChangePoints, change_points, sample_switches
from beliefnav.filters.recording import (
    Recording,
    filter_chunks,
    filter_recording,
    forecast,
    last_state,
    log_likelihood,
)
from beliefnav.filters.run_lengths import RunLengths, RunLengthsPredicted, RunLengthsState
from beliefnav.filters.smoothing import Paths, sample_paths, smooth_chunks, smooth_recording
from beliefnav.filters.two_hypotheses import (
    OneTaskPredicted,
    OneTaskState,
    RunLengthReset,
    TwoHypotheses,
)

__all__ = [
    "ChangePoints",
    "OneTaskPredicted",
    "OneTaskState",
    "Paths",
    "Recording",
    "RunLengthReset",
    "RunLengths",
    "RunLengthsPredicted",
    "RunLengthsState",
    "TwoHypotheses",
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
