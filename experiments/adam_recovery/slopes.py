r"""How the size of a step goes with the generator's own numbers, measured and derived.

The step of a policy is $\Delta\theta = -\varphi(V) m$. What is measured is the least-squares slope,
over coordinates, of $\log(|\Delta\theta| / |m|)$ on the logarithm of a number of the generator that
the learner does not see. What is derived is the local exponent of the planning gain at that number,

$$ \frac{d \log \varphi}{d \log V} = a + (1 + a) \Bigl( \frac{z}{e^z - 1} - 1 \Bigr), \qquad
   a = -\frac{x}{2 s \sqrt{\gamma^2/4 + x}}, \quad z = \rho \Delta t, $$

with $x, s, \rho$ as in `beliefnav.control.planning_gain` and $\eta = k = 1$; with replanning it is
$a$.
Least squares averages local exponents, with weights that are largest in the middle.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav import Objective, Posterior, beliefs, control, filters
from experiments.adam_recovery.streams import (
    Generator,
    Stream,
    curved,
    low_signal,
    simulate,
)

POLICIES = {
    "ballistic": control.ballistic(),
    "newton": control.newton(),
    "gradient_descent": control.myopic(),
}
EXPECTED = {"ballistic": -0.5, "newton": -1.0, "gradient_descent": 0.0}
ADAM = beliefs.independent(gradient=beliefs.LocalLevel(0.9), curvature=beliefs.PrecisionWalk(0.999))
"""What Adam believes: its curvature is the mean square of the gradient."""
PRIOR_SCALE = 1e4
"""Prior standard deviation of a curvature, for all coordinates the same."""
LOW_RATIO, LOW_NOISE = 1e-5, 1e-6
"""Signal to noise where E[y^2] is the variance; noise at which a curvature is well known."""
DISCOUNTS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)
TIME_STEPS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


class Reading(NamedTuple):
    """A belief about streams at their end, and the number of the generator it should know.

    Attributes:
        truth: the generator's variance or curvature [param].
        posterior: what is believed.
    """

    truth: np.ndarray
    posterior: Posterior

    def log_gain(self, policy: control.Policy) -> np.ndarray:
        """Logarithm of |step| / |posterior mean| [param]."""
        return log_gain(policy, self.posterior)

    def slope(self, policy: control.Policy) -> float:
        """The measured slope."""
        return slopes(self.log_gain(policy), self.truth)[0]

    @property
    def tracking(self) -> float:
        """The slope of the logarithm of $V$: 1 where the belief tracks the number."""
        believed = np.asarray(self.posterior.curvature_mean, float)
        return slopes(np.log(np.abs(believed)), self.truth)[0]

    def derived(self, discount: float, time_step: float, exact_hold: bool) -> float:
        """The derived slope of `control.horizon`."""
        exponents = local_exponent(self.truth, discount, time_step, exact_hold)
        return average(exponents, np.log(self.truth))


@jax.jit(static_argnums=0)
def _step(policy: control.Policy, posterior: Posterior) -> Array:
    return policy.step(posterior, None)


def log_gain(policy: control.Policy, posterior: Posterior) -> np.ndarray:
    """Logarithm of |step| / |posterior mean| [param]."""
    step = np.abs(np.asarray(_step(policy, posterior), float))
    return np.log(step / np.abs(np.asarray(posterior.gradient_mean, float)))


def slopes(log_gain: np.ndarray, *numbers: np.ndarray) -> list[float]:
    """Least-squares slopes on the logarithms of numbers of the generator."""
    design = np.stack([np.ones(len(log_gain)), *(np.log(x) for x in numbers)], 1)
    return np.linalg.lstsq(design, log_gain)[0][1:].tolist()


def local_exponent(
    curvature: np.ndarray, discount: float, time_step: float, exact_hold: bool
) -> np.ndarray:
    r"""$d \log \varphi / d \log V$ of the planning gain at a curvature (module docstring)."""
    root = np.sqrt(discount**2 / 4 + curvature)
    s = root + discount / 2
    exponent = -curvature / (2 * s * root)
    if not exact_hold:
        return exponent
    z = time_step * curvature / s
    return exponent + (1 + exponent) * (z / np.expm1(np.minimum(z, 700)) - 1)


def average(exponents: np.ndarray, log_truth: np.ndarray) -> float:
    r"""Average local exponents with the weights of least squares.

    The slope of a curve over points $x_1 < ... < x_n$ is the average of its slopes between
    neighbours, with weights $(x_{i+1} - x_i) \sum_{j>i} (x_j - \bar x)$.
    """
    order = np.argsort(log_truth)
    x, y = log_truth[order], exponents[order]
    beyond = np.cumsum((x - x.mean())[::-1])[::-1][1:]
    weights = np.diff(x) * beyond
    return float(weights @ (y[1:] + y[:-1]) / 2 / weights.sum())


@jax.jit
def believe(belief: beliefs.Belief, stream: Stream) -> Posterior:
    """What a belief says at the end of a stream."""
    moved = stream.displacement if belief.filter().uses_displacement else None
    return filters.last_state(belief, stream.gradient, moved).posterior()


class FilterSlopes(NamedTuple):
    """Both readings of the filters.

    Attributes:
        variance: Adam's belief, against the noise variance.
        curvature: the secant belief, against the curvature.
    """

    variance: Reading
    curvature: Reading

    def by_regime(self) -> tuple[dict[str, float], dict[str, float]]:
        """Regime -> slope, of both readings."""
        variance, curvature = (
            {name: reading.slope(policy) for name, policy in POLICIES.items()} for reading in self
        )
        return variance, curvature


class Streams(NamedTuple):
    """What the filters read, and the generators.

    Attributes:
        flat: of low signal and no curvature.
        curved: of low noise.
        low: the generator of the first.
        other: the generator of the second.
    """

    flat: Stream
    curved: Stream
    low: Generator
    other: Generator


def simulate_both(key: Array, num_params: int, num_steps: int) -> Streams:
    """Streams of low signal, and streams of low noise."""
    keys = jax.random.split(key, 4)
    low, other = low_signal(keys[0], num_params, LOW_RATIO), curved(keys[2], num_params, LOW_NOISE)
    flat, bent = simulate(keys[1], low, num_steps), simulate(keys[3], other, num_steps)
    return Streams(flat, bent, low, other)


def read_filters(streams: Streams) -> FilterSlopes:
    """Filter streams of low signal with Adam's belief, and streams of low noise with a secant."""
    adam = believe(ADAM, streams.flat)
    secant = believe(streams.other.belief(PRIOR_SCALE), streams.curved)
    return FilterSlopes(
        Reading(np.asarray(streams.low.noise, float), adam),
        Reading(np.asarray(streams.other.curvature, float), secant),
    )


class Between(NamedTuple):
    """The slope of a plan between the regimes.

    Attributes:
        discount: of the plan.
        time_step: of the plan.
        exact_hold: whether it is held, or remade continuously.
        measured: slope for the variance and for the curvature.
        derived: the same, from the local exponents.
    """

    discount: float
    time_step: float
    exact_hold: bool
    measured: list[float]
    derived: list[float]

    @property
    def error(self) -> float:
        """The largest deviation."""
        return max(abs(m - d) for m, d in zip(self.measured, self.derived, strict=True))

    def error_from(self, other: "Between") -> float:
        """The largest deviation from what is derived for another plan."""
        return max(abs(m - d) for m, d in zip(self.measured, other.derived, strict=True))


def read_between(read: FilterSlopes) -> list[Between]:
    """Slopes as discount and time step vary; with replanning the time step does not matter."""
    held = [(g, dt) for g in DISCOUNTS for dt in TIME_STEPS]
    rows = []
    for exact_hold, settings in ((False, [(g, 1.0) for g in DISCOUNTS]), (True, held)):
        gains = [_log_gains(reading.posterior, settings, exact_hold) for reading in read]
        for i, (discount, time_step) in enumerate(settings):
            measured = [slopes(g[i], r.truth)[0] for g, r in zip(gains, read, strict=True)]
            derived = [r.derived(discount, time_step, exact_hold) for r in read]
            rows.append(Between(discount, time_step, exact_hold, measured, derived))
    return rows


def _log_gains(
    posterior: Posterior, settings: list[tuple[float, float]], exact_hold: bool
) -> np.ndarray:
    """Logarithms of |step| / |posterior mean| [setting, param] of finite horizons."""

    @jax.jit
    @jax.vmap
    def step(discount: Array, time_step: Array) -> Array:
        policy = control.horizon(Objective(discount=discount), time_step, exact_hold=exact_hold)
        return policy.step(posterior, None)

    steps = np.abs(np.asarray(step(*(jnp.array(x) for x in zip(*settings, strict=True))), float))
    return np.log(steps / np.abs(np.asarray(posterior.gradient_mean, float)))


class Failure(NamedTuple):
    """Where the second moment stops being the variance.

    Attributes:
        ratios: signal to noise variance, in the geometric mean over coordinates [level].
        measured: slope of the ballistic step on the noise variance [level].
        derived: slope of $(R + P)^{-1/2}$ on it [level].
    """

    ratios: np.ndarray
    measured: np.ndarray
    derived: np.ndarray

    def within(self, tolerance: float) -> float:
        """The largest ratio up to which the slope stays within a tolerance of -1/2."""
        inside = np.abs(self.measured + 0.5) <= tolerance
        count = len(inside) if inside.all() else int(np.argmin(inside))
        return float(self.ratios[count - 1]) if count else 0.0


def read_ratios(key: Array, ratios: np.ndarray, num_params: int, num_steps: int) -> Failure:
    """The ballistic slope of Adam's belief as the signal grows."""
    measured, derived = [], []
    for each, ratio in zip(jax.random.split(key, len(ratios)), ratios, strict=True):
        keys = jax.random.split(each)
        generator = low_signal(keys[0], num_params, float(ratio))
        noise, total = np.asarray(generator.noise), np.asarray(generator.noise + generator.signal)
        posterior = believe(ADAM, simulate(keys[1], generator, num_steps))
        measured.append(Reading(noise, posterior).slope(POLICIES["ballistic"]))
        derived += slopes(-np.log(total) / 2, noise)
    return Failure(ratios, np.array(measured), np.array(derived))


class Observed(NamedTuple):
    """Slopes on both numbers of the generator as the landscape comes to be fully observed.

    Attributes:
        noise: variance of the noise in the geometric mean [level].
        secant: slopes of the cautious ballistic step of the secant belief on (variance, curvature)
            [level, 2].
        adam: the same of Adam's belief, ballistic [level, 2].
        uncertainty: posterior standard deviation of the curvature over its size, median [level].
    """

    noise: np.ndarray
    secant: np.ndarray
    adam: np.ndarray
    uncertainty: np.ndarray


def read_observed(key: Array, noise: np.ndarray, num_params: int, num_steps: int) -> Observed:
    """Take the noise away from landscapes whose noise and curvature vary independently."""
    keys = jax.random.split(key)
    base = curved(keys[0], num_params, 1.0, decades=2.0)
    cautious = control.cautious(POLICIES["ballistic"])

    def level(factor: float) -> tuple[list[float], list[float], float]:
        generator = base.scaled(factor)
        stream = simulate(keys[1], generator, num_steps)
        numbers = np.asarray(generator.noise, float), np.asarray(generator.curvature, float)
        secant = believe(generator.belief(PRIOR_SCALE), stream)
        adam = believe(ADAM, stream)
        deviation = np.sqrt(np.asarray(secant.curvature_variance)) / numbers[1]
        return (
            slopes(log_gain(cautious, secant), *numbers),
            slopes(log_gain(POLICIES["ballistic"], adam), *numbers),
            float(np.median(deviation)),
        )

    secant, adam, uncertainty = zip(*(level(float(x)) for x in noise), strict=True)
    return Observed(noise, np.array(secant), np.array(adam), np.array(uncertainty))
