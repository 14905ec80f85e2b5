r"""The noisy quadratic by exact second moments: what rates and averages come to, without sampling.

$$ L(\theta) = \tfrac12 \sum_i h_i (\theta_i - \theta^*_i)^2, \qquad
   y_{it} = h_i (\theta_{it} - \theta^*_i) + N(0, R_i), \qquad
   \theta_{i,0} - \theta^*_i \sim N(0, v_i) $$

Descent at rates $a_t$, and an average of its iterates with gains $g_t$:

$$ \theta_t = \theta_{t-1} - a_t y_t, \qquad \bar\theta_t = \bar\theta_{t-1} + g_t (\theta_t -
   \bar\theta_{t-1}) . $$

With $f = 1 - a_t h$, and positions counted from $\theta^*$, the second moments $s = E\theta^2$,
$c = E\theta\bar\theta$, $u = E\bar\theta^2$ of a coordinate go on as

$$ s' = f^2 s + a_t^2 R, \qquad c' = (1 - g_t) f c + g_t s', \qquad
   u' = (1 - g_t)^2 u + 2 g_t (1 - g_t) f c + g_t^2 s' , $$

and the expected loss is $\tfrac12 \sum h s$, or $\tfrac12 \sum h u$ of the average. Rates and gains
are optimised by the gradient of that. All of it is float64.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy import optimize
from tqdm import tqdm

POWERS = (0, 1, 2, 4, 8)
"""Of the polynomial averages."""
RATES = np.geomspace(2e-3, 1.999, 500)
"""Rates that are tried, 1.4 % apart, in units of one over the largest curvature: 2 diverges."""


class Quadratic(NamedTuple):
    """A noisy quadratic, [coordinate] each.

    Attributes:
        curvature: h.
        noise: variance R of a gradient.
        start: variance v of the distance to the optimum at the start.
    """

    curvature: np.ndarray
    noise: np.ndarray
    start: np.ndarray


def standard(size: int = 200) -> Quadratic:
    """Curvatures 1/i, noise of the same variance, and a start of variance 1."""
    curvature = 1 / np.arange(1.0, size + 1)
    return Quadratic(curvature, curvature, np.ones(size))


# --- rates and gains ----------------------------------------------------------------------------


def schedules(steps: int) -> dict[str, np.ndarray]:
    """The rate of every step as a share of the largest, by name.

    The inverse square root has a twentieth of the steps to itself before it falls; warm-up, stable,
    decay is without warm-up and falls in the last fifth.
    """
    t = np.arange(steps)
    return {
        "constant": np.ones(steps),
        "inverse_sqrt": 1 / np.sqrt(1 + 20 * t / steps),
        "wsd": np.minimum(1, (steps - t) / (0.2 * steps)),
        "cosine": (1 + np.cos(np.pi * t / steps)) / 2,
        "linear": 1 - t / steps,
    }


def polynomial(steps: int, power: float) -> np.ndarray:
    """Gains (p + 1) / (t + p) of a polynomial average, of which the first is 1."""
    return (power + 1) / (np.arange(1, steps + 1) + power)


# --- moments ------------------------------------------------------------------------------------


def losses(problem: Quadratic, rates: Any, gains: Any) -> tuple[Array, Array]:
    """Expected losses of the last iterate and of the average, given rates and gains [step]."""
    h, noise, start = problem

    def step(moments: tuple[Array, Array, Array], now: tuple[Array, Array]) -> tuple[Any, None]:
        s, c, u = moments
        rate, gain = now
        kept, rest = 1 - rate * h, 1 - gain
        s = kept**2 * s + rate**2 * noise
        u = rest**2 * u + 2 * gain * rest * kept * c + gain**2 * s
        return (s, rest * kept * c + gain * s, u), None

    (s, _, u), _ = lax.scan(step, (start, start, start), (rates, gains))
    return jnp.sum(h * s) / 2, jnp.sum(h * u) / 2


_AVERAGES = jax.vmap(losses, (None, None, 0), (None, 0))
_SWEEP = jax.jit(jax.vmap(jax.vmap(_AVERAGES, (None, 0, None)), (None, 0, None)))


class Swept(NamedTuple):
    """Losses for every schedule and rate; infinite where they diverge.

    Attributes:
        rates: the largest rate of a schedule [rate].
        last: of the last iterate [schedule, rate].
        average: [schedule, rate, power].
    """

    rates: np.ndarray
    last: np.ndarray
    average: np.ndarray


def sweep(
    problem: Quadratic, shapes: Any, powers: Any = POWERS, relative_rates: np.ndarray = RATES
) -> Swept:
    """Losses of schedules [schedule, step] at all rates, and of their averages."""
    shapes = np.asarray(shapes)
    rates = relative_rates / problem.curvature.max()
    gains = np.stack([polynomial(shapes.shape[1], p) for p in powers])
    with jax.enable_x64(True):
        found = _SWEEP(problem, rates[None, :, None] * shapes[:, None], gains)
    last, average = (np.where(np.isfinite(x), x, np.inf) for x in found)
    return Swept(rates, last, average)


# --- the best there is --------------------------------------------------------------------------


class Best(NamedTuple):
    """Rates and gains [step] that were optimised, and their loss."""

    loss: float
    rates: np.ndarray
    gains: np.ndarray


def best_schedule(problem: Quadratic, steps: int) -> Best:
    """The best of all schedules of the last iterate, by L-BFGS on the logarithms of the rates.

    It starts from the best constant and linear ones and from one over the steps, and takes the best
    end.
    """
    shapes = np.stack([schedules(steps)[name] for name in ("constant", "linear")])
    swept = sweep(problem, shapes, (0,), RATES[::8])
    hyperbola = steps / (5 * np.arange(2, steps + 2) * problem.curvature.max())
    starts = *(swept.rates[swept.last.argmin(1)][:, None] * shapes), hyperbola
    found = [_minimise(_SCHEDULE, problem, np.log(start), 200) for start in starts]
    loss, logarithms = min(found, key=lambda pair: pair[0])
    return Best(loss, np.exp(logarithms), np.ones(steps))


def best_together(problem: Quadratic, steps: int, iterations: int = 1000) -> Best:
    """The best rates and gains together, by L-BFGS from rising rates and a plain average.

    It is a local optimum: starts from constant rates end up to 0.5 % higher on the standard one.
    """
    rates = np.linspace(1, 2, steps) / problem.curvature.max()
    start = np.concatenate([rates, polynomial(steps, 0)])
    bounds = [(0, None)] * steps + [(0, 1)] * steps
    with tqdm(total=iterations, desc="rates and gains together", unit="iteration") as bar:
        loss, x = _minimise(_TOGETHER, problem, start, iterations, bounds, bar)
    return Best(loss, x[:steps], x[steps:])


def _log_loss_of_schedule(logarithms: Array, problem: Quadratic) -> Array:
    """A logarithm has one scale for all problems."""
    return jnp.log(losses(problem, jnp.exp(logarithms), jnp.ones_like(logarithms))[0])


def _log_loss_together(rates_and_gains: Array, problem: Quadratic) -> Array:
    return jnp.log(losses(problem, *jnp.split(rates_and_gains, 2))[1])


_SCHEDULE = jax.jit(jax.value_and_grad(_log_loss_of_schedule))
_TOGETHER = jax.jit(jax.value_and_grad(_log_loss_together))


def _minimise(
    value_and_slope: Any,
    problem: Quadratic,
    start: np.ndarray,
    iterations: int,
    bounds: Any = None,
    bar: Any = None,
) -> tuple[float, np.ndarray]:
    """The lowest loss that the search saw, and where; it may end where iterates diverge."""
    best = np.inf, start

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        value, slope = value_and_slope(x, problem)
        if value < best[0]:  # not where it is NaN
            best = float(value), x.copy()
        return float(value), np.asarray(slope)

    with jax.enable_x64(True):
        options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-12, "maxcor": 20}
        optimize.minimize(
            evaluate,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options=options,
            callback=None if bar is None else lambda _: bar.update(),
        )
    return float(np.exp(best[0])), best[1]


def kalman(problem: Quadratic, steps: int) -> float:
    """The loss of the posterior mean of a learner who knows every curvature, noise and start.

    A gradient is a reading of the optimum with variance $R/h^2$.
    """
    h, noise, start = problem
    return float(np.sum(h / (1 / start + steps * h**2 / noise)) / 2)
