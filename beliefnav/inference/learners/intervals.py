r"""How well the numbers of a member are known: errors of three kinds, and profiles.

With $e$ the residual, $w$ the weights of a fit, $J$ the slopes of its steps and $H = J^\top W J$
plus the precision of the prior, each entry of the recording moves the numbers by $H^{-1} J_i w_i
e_i$. A deviation is the larger of that of the model, from $H^{-1}$, and of the sum of squares of
what the entries did (White, "Maximum likelihood estimation of misspecified models", Econometrica
50, 1982), which asks the variance of nobody. What the learner itself rounds adds to it: a discount
that stands in float32 is off by half a spacing, and where it corrects for the prior,
$1 - \beta^t$ is off by that over $1 - \beta$.

An interval ends where the profile, the best potential with one number held, has risen as far as
such a deviation says; it is found by steps along the signed root of that rise, which is a straight
line where the posterior is Gaussian. Where a number makes no difference the profile does not rise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy import stats

from beliefnav.inference.learners.family import NAMES, Movement, Options, projected
from beliefnav.inference.learners.searching import PRIOR, Member, held, weights_of

__all__ = ["Interval", "Z", "correction_variance", "intervals"]

Floats = NDArray[np.float64]

Z = float(stats.norm.isf(0.025))
ROUNDS = 5
"""How often the ends of an interval are moved."""
FAR = 4.0
"""Deviations of the prior beyond which nothing is looked for."""


class Interval(NamedTuple):
    """A number on the scale of its fit.

    Attributes:
        middle: the mode.
        low: the 2.5 % point.
        high: the 97.5 % point.
    """

    middle: float
    low: float
    high: float

    @property
    def deviation(self) -> float:
        """That of a Gaussian with an interval as wide."""
        return (self.high - self.low) / (2 * Z)


@jax.jit
def _slopes(x: Array, options: Options, data: Movement, weight: Array) -> tuple[Array, ...]:
    """Steps [step, param], their slopes [step, param, number], and those of rates to entries."""

    def steps(x: Array) -> Array:
        return projected(x, options, data, weight)[0]

    mean, rates, along = projected(x, options, data, weight)
    rate = jnp.where(rates == 0, 1, rates)[:, None]
    share = options.path / len(rates) + 1 - options.path
    direct = share * weight * (mean / rate) / jnp.where(along > 0, along, 1)[:, None]
    return mean, jax.jacfwd(steps)(x), direct


def intervals(
    best: Member, data: Movement, precision: float, *, bounds: bool = False
) -> dict[str, Interval]:
    """The intervals of the numbers that a member has, and of its mean rate.

    Args:
        best: the member.
        data: what it was fitted to, in float64.
        precision: relative spacing of the numbers that the learner works with.
        bounds: the residual is of unknown origin: the interval is what it comes to if all of the
            residual went along with a number.

    Returns:
        Name -> interval, on the scales of `beliefnav.inference.learners.family.NAMES`.
    """
    weight = weights_of(best.residual, np.asarray(data.variance), np.asarray(data.seen))
    arguments = jnp.asarray(best.position), best.options, data, jnp.asarray(weight)
    mean, slopes, direct = (np.asarray(a) for a in _slopes(*arguments))
    free = np.array(best.options.free()) > 0
    prior = np.array([PRIOR[n][1] ** -2.0 for n in NAMES])
    flat = slopes.reshape(-1, len(NAMES)) * free
    information = (flat.T * weight.ravel()) @ flat + np.diag(np.where(free, prior, 1))
    covariance = _inverse(information)
    along = best.rate_slopes * free

    def moved(error: Floats) -> Floats:
        """What errors of entries do to the numbers and the mean rate, [step * param, number]."""
        numbers = (flat * (weight * error).ravel()[:, None]) @ covariance
        rate = numbers @ along + (direct * error).ravel()
        return np.concatenate([numbers, rate[:, None]], 1)

    known = np.where(weight > 0, weight, np.inf) ** -0.5
    rate_variance = along @ covariance @ along + ((direct * known) ** 2).sum()
    model = np.sqrt([*np.diag(covariance), rate_variance])
    if bounds:
        total = model * max(np.sqrt((weight * best.residual**2).sum()) / Z, 1.0)
    else:
        scale = np.sqrt(max(best.scale, 1.0))
        total = np.maximum(scale * model, np.sqrt((moved(best.residual) ** 2).sum(0)))
        for error in _arithmetic(best, mean, data, precision):
            total = np.hypot(total, np.abs(moved(error).sum(0)))
        memories = np.exp(best.position[[NAMES.index("b1"), NAMES.index("b2")]])
        total[[0, 1]] = np.hypot(total[[0, 1]], precision / 2 * memories)
    found = _profiles(best, data, weight, covariance, total[:-1] / model[:-1])
    rate = float(best.rates.mean())
    half = float(Z * total[-1])
    return {"rate": Interval(rate, rate - half, rate + half)} | found


def correction_variance(best: Member, steps: Floats, precision: float) -> Floats:
    r"""What rounding $1 - \beta^t$ at every step does to steps [step, param], as a variance.

    It is half a spacing of numbers below 1 over $1 - \beta^t$: at first much more than the rounding
    of a parameter that is small.
    """
    t, variance = np.arange(1, len(steps) + 1)[:, None], np.zeros_like(steps)
    for power, log_discount in _corrections(best):
        left = -np.expm1(t * log_discount)
        variance = variance + (power * precision / 2 * steps / left) ** 2
    return variance


def _corrections(best: Member) -> list[tuple[float, float]]:
    """Of every average whose prior is corrected for: its power in a step, the log discount."""
    options = best.options
    if not options.corrected:
        return []
    averaged = options.average and not (options.total or options.largest)
    powers = 1.0, float(best.position[2]) if averaged else 0.0
    discounts = (max(-np.expm1(-best.position[i]), 1e-300) for i in (0, 1))
    return [(power, float(np.log(b))) for power, b in zip(powers, discounts, strict=True)]


def _arithmetic(best: Member, mean: Floats, data: Movement, precision: float) -> list[Floats]:
    """What half a spacing of the discounts does to steps, where the prior is corrected for."""
    options, errors = best.options, list[Floats]()
    if not options.in_gradient:
        away = np.asarray(data.params - options.to_start * data.params[0])
        mean = mean + best.rates[:, None] * best.position[NAMES.index("decay")] * away
    t = np.arange(1, len(mean) + 1)[:, None]
    for power, log_discount in _corrections(best):
        error = -t * np.exp(t * log_discount) / np.expm1(t * log_discount)
        errors.append(power * precision / 2 * error * mean)
    return errors


def _profiles(
    best: Member, data: Movement, weight: Floats, covariance: Floats, ratio: Floats
) -> dict[str, Interval]:
    """Where profiles have risen as far as a deviation of so many times the model's says."""
    count, free = len(NAMES), np.array(best.options.free())
    far = FAR * np.array([PRIOR[n][1] for n in NAMES])
    shift = np.minimum(Z * ratio * np.sqrt(np.diag(covariance)), far)
    follow = covariance / np.diag(covariance)  # how the others go along, a column for each
    others = free[None] * (1 - np.eye(count))
    level = float(held(best.position[None], best.options, free[None], data, weight)[0])
    ends = {}
    for side in (-1.0, 1.0):
        length = shift.copy()
        done = free == 0
        for _ in range(ROUNDS):
            starts = best.position + side * (follow * length).T
            rise = held(starts, best.options, others, data, weight) - level
            root = np.sqrt(2 * np.maximum(np.nan_to_num(rise, posinf=1e9), 1e-12)) / ratio
            done |= (np.abs(root / Z - 1) < 0.1) | ((length >= far) & (root < Z))
            if done.all():
                break
            length = np.where(done, length, np.minimum(length * np.clip(Z / root, 0.25, 4), far))
        ends[side] = best.position + side * length
    return {
        name: Interval(*map(float, (best.position[i], ends[-1.0][i], ends[1.0][i])))
        for i, name in enumerate(NAMES)
        if free[i]
    }


def _inverse(matrix: Floats) -> Floats:
    units = np.sqrt(np.diag(matrix))
    return np.linalg.inv(matrix / units[:, None] / units) / units[:, None] / units
