r"""Simulated readings of which it is known how much better the right belief predicts.

Scores of two Gaussian errors differ by the logarithm of the ratio of their standard deviations,
whatever the Student-t recipe, which knows no unit. That holds if the errors are hardly correlated
in time, so that earlier errors do not tell the scale of the next. So differences follow from
variances alone, by formulas that have nothing to do with the filters or the scores:

- *location*: a level that walks at random with variance $q$ a step under noise of variance 1; the
  discount $\beta$ that is right for it, and none (the last reading). With the gain $k = 1 - \beta$
  the error of the forecast has the variance $1 + (k^2 + q) / (k (2 - k))$.
- *scale*: readings of two sizes that alternate by blocks, and their true squares against one size.
  With one size the log density is lower by the Kullback-Leibler divergence of the recipe's two
  densities, which has no closed form: here the true sizes must only win against every memory.
- *curvature*: changes $c = h \Delta\theta + \epsilon$ with curvatures $h$ that are known, and
  $k = 0$: $\tfrac12 \log(1 + h^2)$ nats on average over coordinates.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from beliefnav import beliefs, filters
from experiments.evidence import scores

RIGHT, WRONG = 0.8, 0.0
MEMORIES = (0.8, 0.9, 0.97, 0.99, 0.999)


class Control(NamedTuple):
    """A difference of two scores on simulated readings, in nats.

    Attributes:
        measured: mean over coordinates.
        standard_error: of it, from the spread over coordinates.
        expected: from variances alone; ``None`` if only its sign is known.
    """

    measured: float
    standard_error: float
    expected: float | None


def simulate(seed: int, steps: int = 600, coordinates: int = 400) -> dict[str, Control]:
    """Part -> how much better the right belief predicts."""
    rng = np.random.default_rng(seed)
    shape = (steps, coordinates)
    return {"location": _location(rng, shape), "scale": _scale(rng, shape)} | {
        "curvature": _curvature(rng, shape)
    }


def error_variance(discount: float, drift: float) -> float:
    r"""Variance of $y$ minus its forecast by an average of discount $\beta$, noise 1, drift $q$."""
    gain = 1 - discount
    return 1 + (gain**2 + drift) / (gain * (2 - gain))


def _control(more: np.ndarray, expected: np.ndarray | float | None) -> Control:
    """Of differences [step, coordinate], and of what is expected of a coordinate."""
    means = np.nanmean(more, 0)
    off = means - (0.0 if expected is None else expected)
    error = float(off.std(ddof=1) / np.sqrt(len(off)))
    return Control(
        float(means.mean()), error, None if expected is None else float(np.mean(expected))
    )


def _location(rng: np.random.Generator, shape: tuple[int, int]) -> Control:
    drift = (1 - RIGHT) ** 2 / RIGHT
    y = np.cumsum(np.sqrt(drift) * rng.normal(size=shape), 0) + rng.normal(size=shape)
    found = []
    for discount in (RIGHT, WRONG):
        level = beliefs.shared(beliefs.LocalLevel(discount))
        mean = np.asarray(filters.filter_recording(level, jnp.asarray(y))[0].gradient_mean, float)
        before = np.concatenate([np.full_like(mean[:1], np.nan), mean[:-1]])
        found.append(scores.location(y, before))
    ratio = error_variance(WRONG, drift) / error_variance(RIGHT, drift)
    return _control(found[0] - found[1], np.log(ratio) / 2)


def _scale(rng: np.random.Generator, shape: tuple[int, int]) -> Control:
    size = np.where(np.arange(shape[0]) // 50 % 2, 1.0, 9.0)[:, None] * np.ones(shape)
    y = np.sqrt(size) * rng.normal(size=shape)
    rivals = []
    for discount in MEMORIES:
        walk = beliefs.shared(beliefs.PrecisionWalk(discount))
        found = filters.filter_recording(walk, jnp.asarray(y))[0].curvature_mean
        before = np.concatenate([np.ones_like(y[:1]), np.asarray(found, float)[:-1]])
        rivals.append(scores.scale(y, before))
    best = max(rivals, key=np.nanmean)
    return _control(scores.scale(y, size) - best, None)


def _curvature(rng: np.random.Generator, shape: tuple[int, int]) -> Control:
    value = np.exp(rng.normal(size=shape[1])) * np.ones(shape)
    moved = rng.normal(size=shape)
    change = value * moved + rng.normal(size=shape)
    every = np.ones(shape[1], bool)
    right, none = (scores.curvature(change, v, moved, every) for v in (value, 0 * value))
    return _control(right - none, np.log1p(value[0] ** 2) / 2)
