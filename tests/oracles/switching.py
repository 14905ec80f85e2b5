"""Optima that switch: all patterns of switches, summed out."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from tests.oracles.gradient import _log_density
from tests.oracles.streams import Floats


def _log_sum(x: Any, axis: int | None = None) -> Any:
    """The logarithm of a sum of exponentials."""
    return special.logsumexp(x, axis=axis)


class Tasks(NamedTuple):
    """Hyper-parameters of a switching optimum: [param], and hazards and their odds [grid]."""

    curvature: Floats
    noise_variance: Floats
    prior_variance: Floats
    prior_mean: Floats
    hazards: Floats
    weights: Floats


def tasks(model: Any) -> Tasks:
    """The hyper-parameters that a model names."""
    hazards = getattr(model.hazard, "hazards", [model.hazard])
    weights = getattr(model.hazard, "weights", [1.0])
    named = model.curvature, model.noise_variance, model.prior_variance, model.prior_mean
    return Tasks(*(np.asarray(x, np.float64) for x in (*named, hazards, weights)))


class Segments(NamedTuple):
    """What a task that lasted from one step to another one would have shown, [begin, end, ...]."""

    mean: Floats
    variance: Floats
    log_density: Floats


class Switching(NamedTuple):
    """What is believed after every observation of a switching optimum, arrays [step, ...]."""

    mean: Floats  # of the optimum less the initial parameters
    variance: Floats
    log_density: Floats
    switch_probability: Floats
    hazard: Floats  # [step, grid]
    run_length: Floats  # [step, run length]
    dropped_mass: Floats


class Patterns(NamedTuple):
    """The posterior over all patterns of switches, given the whole stream."""

    switches: NDArray[np.bool_]  # [pattern, step], never at the first
    probability: Floats  # [pattern, grid]


def positions(displacement: Floats) -> Floats:
    """Where the parameters are at each step [step, ...], from where they began."""
    return np.concatenate([np.zeros_like(displacement[:1]), np.cumsum(displacement, 0)[:-1]])


def segments(model: Tasks, y: Floats, displacement: Floats) -> Segments:
    """Every task there may have been, by conditioning one draw of its optimum on all it showed."""
    num_steps, num_params = y.shape
    x = positions(displacement)
    mean, variance = np.full((2, num_steps, num_steps, num_params), np.nan)
    log_density = np.full((num_steps, num_steps), np.nan)
    for begin in range(num_steps):
        for end in range(begin, num_steps):
            task = slice(begin, end + 1)
            log_density[begin, end] = 0
            for i, (h, noise, v, mu) in enumerate(zip(*model[:4], strict=True)):
                seen = np.isfinite(y[task, i])
                error = y[task, i][seen] - h * (x[task, i][seen] - mu)
                precision = 1 / v + h**2 * seen.sum() / noise
                mean[begin, end, i] = mu - h * error.sum() / noise / precision
                variance[begin, end, i] = 1 / precision
                covariance = v * h**2 + noise * np.eye(seen.sum())
                log_density[begin, end] += _log_density(error, covariance)
    return Segments(mean, variance, log_density)


def switch_patterns(model: Tasks, y: Floats, displacement: Floats) -> tuple[Switching, Patterns]:
    """What is believed after each step, by summing over all patterns of switches until there."""
    num_steps = len(y)
    tasks = segments(model, y, displacement)
    prior = np.log(model.weights / model.weights.sum())
    rows: list[Any] = []
    evidence, patterns = 0.0, Patterns(np.zeros((1, 0), bool), np.ones((1, 1)))
    for t in range(num_steps):
        # Bit j of its number tells whether a pattern has a switch before step j + 1.
        later = (np.arange(2**t)[:, None] >> np.arange(t)) % 2 == 1
        switches = np.concatenate([np.zeros((2**t, 1), bool), later], 1)
        begins = np.maximum.accumulate(switches * np.arange(t + 1), 1)
        ends = np.concatenate([later, np.ones((2**t, 1), bool)], 1)
        shown = np.where(ends, tasks.log_density[begins, np.arange(t + 1)], 0).sum(1)
        count = later.sum(1)[:, None]
        # A hazard of 0 or 1 makes patterns impossible: 0 log 0 = 0.
        odds = special.xlogy(count, model.hazards) + special.xlog1py(t - count, -model.hazards)
        joint = prior + odds + shown[:, None]
        total = _log_sum(joint)
        probability = np.exp(joint - total)
        each, last = probability.sum(1), begins[:, -1]
        mean = each @ tasks.mean[last, t]
        spread = (tasks.mean[last, t] - mean) ** 2
        lengths = np.bincount(t - last, each, minlength=num_steps)
        rows.append(
            (
                mean,
                each @ (tasks.variance[last, t] + spread),
                total - evidence,
                each @ switches[:, -1],
                probability.sum(0),
                lengths,
                0.0,
            )
        )
        evidence = total
        patterns = Patterns(switches, probability)
    return Switching(*map(np.array, zip(*rows, strict=True))), patterns


def kept_run_lengths(model: Tasks, y: Floats, displacement: Floats, capacity: int) -> Switching:
    """Bayesian online change-point detection that forgets all but the likeliest run lengths."""
    num_steps, x = len(y), positions(displacement)
    new = model.prior_mean, model.prior_variance
    with np.errstate(divide="ignore"):  # a hazard of 0 or 1
        log_hazards, log_stays = np.log(model.hazards), np.log1p(-model.hazards)
    # Run length -> mean, variance, log weights [grid]: at first, a task of which nothing was seen.
    kept: dict[int, Any] = {-1: (*new, np.log(model.weights / model.weights.sum()))}
    dropped, rows = 0.0, []

    def log_sum(weights: Any, axis: int | None = None) -> Any:
        return special.logsumexp(list(weights), axis=axis)

    for t in range(num_steps):
        if t > 0:
            total = log_sum((w for _, _, w in kept.values()), axis=0)
            kept = {r: (m, v, w + log_stays) for r, (m, v, w) in kept.items()}
            kept[-1] = (*new, total + log_hazards)
        seen = np.isfinite(y[t])
        conditioned = {}
        for r, (m, v, w) in kept.items():
            h, noise = model.curvature[seen], model.noise_variance[seen]
            error = y[t][seen] - h * (x[t] - m)[seen]
            scale = np.sqrt(h**2 * v[seen] + noise)
            w = w + stats.norm.logpdf(error, scale=scale).sum()
            m, v = m.copy(), v.copy()
            m[seen] -= v[seen] * h * error / scale**2
            v[seen] *= noise / scale**2
            conditioned[r + 1] = m, v, w
        evidence = log_sum(w for _, _, w in conditioned.values())
        each = {r: log_sum(w) - evidence for r, (_, _, w) in conditioned.items()}
        of_hazards = log_sum((w for _, _, w in conditioned.values()), axis=0)
        if len(each) > capacity:
            lost = min(each, key=lambda r: each[r])
            del conditioned[lost]
            dropped += np.exp(each[lost])
        # The others of the same hazard get what is dropped, if there are any.
        left = log_sum((w for _, _, w in conditioned.values()), axis=0)
        alive = left > -np.inf
        rest = special.logsumexp(of_hazards[alive])
        gain = np.where(alive, of_hazards - rest - np.where(alive, left, 0), 0)
        kept = {r: (m, v, w + gain) for r, (m, v, w) in conditioned.items()}
        probability = np.zeros(num_steps)
        for r, (_, _, w) in kept.items():
            probability[r] = np.exp(log_sum(w))
        mean = sum(probability[r] * m for r, (m, _, _) in kept.items())
        variance = sum(probability[r] * (v + (m - mean) ** 2) for r, (m, v, _) in kept.items())
        hazard = np.exp(log_sum((w for _, _, w in kept.values()), axis=0))
        switched = np.exp(each[0]) if t > 0 else 0.0
        rows.append((mean, variance, evidence, switched, hazard, probability, dropped))
    return Switching(*map(np.array, zip(*rows, strict=True)))


def one_task(model: Tasks, y: Floats, displacement: Floats, reset: bool) -> Switching:
    r"""One Gaussian kept: the moments of two hypotheses or, to ``reset``, one that forgets.

    With densities and not their logarithms, as the equations have them.
    """
    h, noise, v0, mu, hazards, odds = model
    x, probability = positions(displacement), odds / odds.sum()
    m, v, rows = mu, v0, []
    for t in range(len(y)):
        seen = np.isfinite(y[t])
        value = np.where(seen, y[t], 0)

        def density(m: Floats, v: Floats, at: int = t, y: Floats = value, seen: Any = seen) -> Any:
            terms = stats.norm.pdf(y, h * (x[at] - m), np.sqrt(h**2 * v + noise))
            return np.where(seen, terms, 1).prod()

        def posterior(
            m: Floats, v: Floats, at: int = t, y: Floats = value, seen: Any = seen
        ) -> tuple[Floats, Floats]:
            precision = 1 / v + seen * h**2 / noise
            return (m / v + seen * h * (h * x[at] - y) / noise) / precision, 1 / precision

        p = hazards if t > 0 else 0 * hazards
        both = (1 - p) * density(m, v) + p * density(mu, v0)
        evidence = probability @ both
        pi = probability @ p * density(mu, v0) / evidence
        probability = probability * both / evidence
        (m1, v1), (m0, v0_) = posterior(m, v), posterior(mu, v0)
        nu = 1 - pi
        if not reset:
            m, v = nu * m1 + pi * m0, nu * v1 + pi * v0_ + pi * nu * (m1 - m0) ** 2
        elif nu > 0.5:
            m, v = posterior(nu * m + (1 - nu) * mu, nu**2 * v + (1 - nu**2) * v0)
        else:
            m, v = m0, v0_
        rows.append((m, v, np.log(evidence), pi, probability, np.nan, 0.0))
    return Switching(*map(np.array, zip(*rows, strict=True)))


def steady_linear_error(
    gain: float, autocorrelation: float, hazard: float, noise: float, variance: float
) -> float:
    r"""Long-run mean square error of $m_t = K \sum_j a^j z_{t-j}$, $a = \rho (1 - K)$.

    $z$ is the switching optimum, of autocovariance $v_0 (1 - p)^{|k|}$, seen with noise.
    """
    a, rho = autocorrelation * (1 - gain), 1 - hazard
    # sum_ij a^(i+j) rho^|i-j| = (1 + a rho) / ((1 - a^2) (1 - a rho)).
    square = variance * (1 + a * rho) / ((1 - a**2) * (1 - a * rho)) + noise / (1 - a**2)
    return gain**2 * square - 2 * gain * variance / (1 - a * rho) + variance


def switching_streams(
    seed: int, num_steps: int, num_streams: int, hazard: float, noise: float, variance: float
) -> tuple[Floats, Floats]:
    """Optima of mean zero that switch, and gradients $-\\theta^* + N(0, R)$: [step, stream]."""
    rng = np.random.default_rng(seed)
    shape = num_steps, num_streams
    switches = rng.random(shape) < hazard
    drawn = rng.normal(0, np.sqrt(variance), shape)
    begins = np.maximum.accumulate(switches * np.arange(num_steps)[:, None], 0)
    optimum = np.take_along_axis(drawn, begins, 0)
    return optimum, rng.normal(-optimum, np.sqrt(noise))


def switching_recording(model: Any, seed: int, num_steps: int) -> tuple[Floats, Floats]:
    """Gradients [step, param] of tasks that switch often, with holes, and displacements."""
    h, noise, v0, mu = tasks(model)[:4]
    rng = np.random.default_rng(seed)
    shape = num_steps, len(h)
    displacement = rng.normal(0, 0.5, shape)
    begins = np.maximum.accumulate((rng.random(num_steps) < 0.25) * np.arange(num_steps))
    optimum = rng.normal(mu, np.sqrt(v0), shape)[begins]
    y = rng.normal(h * (positions(displacement) - optimum), np.sqrt(noise))
    y = np.where(rng.random(shape) < 0.2, rng.choice([np.nan, np.inf, -np.inf], shape), y)
    y[num_steps // 2] = np.nan  # one step without anything
    return y, displacement


def two_hypotheses(
    seen: Floats,
    hazard: float,
    noise: float,
    prior: float,
    *,
    variances: bool,
    first: bool,
) -> tuple[Floats, Floats]:
    """One weight at each step: the mean of its optimum, and the probability of a switch.

    One Gaussian is kept of an optimum that is drawn anew from N(0, prior) and seen through noise.

    Args:
        seen: readings of the optimum [step].
        hazard: probability of a switch per step.
        noise: variance of a reading.
        prior: variance of the optimum of a new task.
        variances: whether the two likelihoods have the variances of both beliefs; otherwise they
            are taken at the two means.
        first: whether a new task learns from its first reading, and the spread between the two
            means is kept; otherwise means and variances are mixed.
    """
    mean, variance, means, probabilities = 0.0, prior, [], []
    for t, z in enumerate(seen):
        odds = np.log(hazard) - np.log1p(-hazard)
        for sign, center, own in ((1, 0.0, prior), (-1, mean, variance)):
            width = noise + own if variances else noise
            odds += sign * (-((z - center) ** 2) / (2 * width) - np.log(width) / 2)
        switched = float(special.expit(odds)) if t or not first else 0.0
        gain = variance / (variance + noise)
        learned, left = mean + gain * (z - mean), gain * noise
        anew, fresh = 0.0, prior
        if first:
            anew, fresh = prior / (prior + noise) * z, prior * noise / (prior + noise)
        mean = (1 - switched) * learned + switched * anew
        variance = (1 - switched) * left + switched * fresh
        if first:
            variance += switched * (1 - switched) * (learned - anew) ** 2
        means.append(mean)
        probabilities.append(switched)
    return np.array(means), np.array(probabilities)
