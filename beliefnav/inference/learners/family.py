r"""A family of elementwise learners, whose numbers and options are assumptions.

With $y_t = g_t \min(1, c/\lVert g_t\rVert)$, a learner of the family moves

$$ \Delta\theta_t = -r_t \Big( \frac{u_t}{D_t} + \lambda(\theta_t - \theta_*) \Big), \qquad
   u_t = \frac{m_t}{1-\beta_1^t} \;\text{or, looking ahead,}\;
   \frac{\beta_1 m_t}{1-\beta_1^{t+1}} + \frac{(1-\beta_1) y_t}{1-\beta_1^t}, $$

with $m_t = \beta_1 m_{t-1} + (1-\beta_1) y_t$ and a power of a second moment $V_t$: an average of
memory $1/(1-\beta_2)$, the same less the square of the mean, a sum, or the largest one;

$$ D = V^p + \epsilon, \qquad (V + \epsilon)^p, \qquad (V + \epsilon^2)^p + \epsilon , $$

the last being the plan whose horizon is $\sqrt{}$-discounted. Without correction for the prior the
divisors $1-\beta^t$ are 1. The rate is linear in all of it: it is a constant, or a path with a
value a step, and its best value is a quotient of sums (variable projection).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

__all__ = ["NAMES", "Movement", "Options", "directions", "projected"]

NAMES = ("b1", "b2", "power", "eps", "decay", "clip")
"""The numbers that are not the rate, in the order of a position: the logs of the memories
1/(1 - beta), the power, the log of eps, the decay, the log of the norm that is clipped at."""


class Movement(NamedTuple):
    """What a learner saw and did, without gaps.

    Attributes:
        gradient: [step, param].
        displacement: [step, param].
        params: [step, param], before the step.
        seen: [step, param], 1 where the displacement is known, else 0.
        variance: [step, param], of what rounding does to the displacement.
        norm: [step], of the whole gradient; 1 if it is not known.
    """

    gradient: Array
    displacement: Array
    params: Array
    seen: Array
    variance: Array
    norm: Array


class Options(NamedTuple):
    """Which member of the family, as numbers 0 and 1 that may be batched.

    Attributes:
        average: whether there is a second moment at all.
        total: it is a sum.
        largest: it is the largest.
        centred: the square of the mean is taken off.
        corrected: averages are corrected for a prior at 0.
        look_ahead: the mean looks ahead.
        inside: eps stands with V.
        horizon: eps is a discount.
        path: the rate is a path.
        to_start: what decays goes to the start, not to 0.
        in_gradient: what decays is a part of the gradient.
        clipped: whether the norm is clipped.
    """

    average: float | Array = 0.0
    total: float | Array = 0.0
    largest: float | Array = 0.0
    centred: float | Array = 0.0
    corrected: float | Array = 1.0
    look_ahead: float | Array = 0.0
    inside: float | Array = 0.0
    horizon: float | Array = 0.0
    path: float | Array = 0.0
    to_start: float | Array = 0.0
    in_gradient: float | Array = 0.0
    clipped: float | Array = 0.0

    def free(self) -> list[float]:
        """Which numbers a member has, 0 or 1 for each of `NAMES`."""
        scaled = float(self.average)
        return [1.0, scaled * (1 - float(self.total)), scaled, scaled, 1.0, float(self.clipped)]


def directions(position: Array, options: Options, data: Movement) -> Array:
    """The step per unit of rate, upwards [step, param]."""
    log_mean, log_second, power, log_eps, decay, log_clip = position
    b1, b2 = 1 - jnp.exp(-log_mean), 1 - jnp.exp(-log_second)
    eps = jnp.exp(log_eps)
    o = options
    shift = o.to_start * data.params[0]
    tiny = 1e-100

    def step(carry: tuple[Array, ...], now: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        m, a, v, p1, p2 = carry
        g, theta, norm = now
        y = g * (1 + o.clipped * (jnp.minimum(1, jnp.exp(log_clip) / norm) - 1))
        y = y + o.in_gradient * decay * (theta - shift)
        square = y * y
        m = b1 * m + (1 - b1) * y
        a = b2 * a + (1 - b2) * y
        averaged = b2 * v + (1 - b2) * square
        v = (
            (1 - o.total - o.largest) * averaged
            + o.total * (v + square)
            + o.largest * jnp.maximum(b2 * b2 * v, square)
        )
        p1, ahead, p2 = p1 * b1, p1 * b1 * b1, p2 * b2
        c1, c1_ahead = 1 - o.corrected * p1, 1 - o.corrected * ahead
        c2 = 1 - o.corrected * (1 - o.total - o.largest) * p2
        u = (1 - o.look_ahead) * m / c1
        u = u + o.look_ahead * (b1 * m / c1_ahead + (1 - b1) * y / c1)
        second = jnp.maximum(v / c2 - o.centred * (a / c2) ** 2, 0)
        second = second + o.inside * eps + o.horizon * eps * eps
        scale = jnp.exp(power * jnp.log(second + tiny)) + (1 - o.inside) * eps
        scale = jnp.where(o.average > 0, scale, 1.0)
        return (m, a, v, p1, p2), u / scale + (1 - o.in_gradient) * decay * (theta - shift)

    zero, one = jnp.zeros_like(data.gradient[0]), jnp.ones((), data.gradient.dtype)
    carry = (zero, zero, zero, one, one)
    return lax.scan(step, carry, (data.gradient, data.params, data.norm))[1]


def projected(
    position: Array, options: Options, data: Movement, weight: Array
) -> tuple[Array, Array, Array]:
    """The steps with the best rates [step, param], those rates [step], and their precisions."""
    u = directions(position, options, data)
    along = (weight * u * u).sum(1)
    done = -(weight * u * data.displacement).sum(1)
    path = options.path
    along = path * along + (1 - path) * along.sum()
    done = path * done + (1 - path) * done.sum()
    rate = done / jnp.where(along > 0, along, 1)
    return -rate[:, None] * u, rate, along
