r"""Acting on a forecast of the optimum: weight resetting, and what it is a case of.

The loss is quadratic with curvature $H$ around an optimum that will move: as far as one can tell
now, $E \theta^*_{t+\tau} = x_\tau$. Moving costs what `beliefnav.Objective` says. The policy that
is optimal for it approaches a *set-point* instead of where the optimum is believed to be,

$$ \dot\theta = -A (\theta - \bar x), \qquad
   \bar x = (A + \gamma I) \int_0^\infty e^{-(A + \gamma I) \tau} x_\tau \, d\tau, $$

with the rate of approach $A = \eta G^{-1} P$, $\gamma P = k H - \eta P G^{-1} P$, of a plan that
knows of no movement. If all matrices are diagonal, so is $A$, with the entries

$$ r = \sqrt{\gamma^2/4 + x} - \gamma/2 = x / s, \qquad s = \gamma + r = \sqrt{\gamma^2/4 + x} +
   \gamma/2, \qquad x = \eta k h / G . $$

If tasks switch at the rate $\lambda$ and optima are drawn around $\mu_0$, the forecast decays from
what is believed now, $m$, to that, $x_\tau = \mu_0 + e^{-\lambda \tau} (m - \mu_0)$, and

$$ \bar x = \mu_0 + W (m - \mu_0), \qquad W = (A + (\gamma + \lambda) I)^{-1} (A + \gamma I),
   \qquad w = \frac{\gamma + r}{\gamma + r + \lambda} : $$

what is curved less is reset more. No line of code says so: it follows.

`anticipation` and `matrix_anticipation` are the rate and the weight, `discounted_average` the
set-point of any forecast. Negative curvature is read as 0. The policies that follow are in
`beliefnav.control.policies.switching`.

Reference:
    Vastola, Gershman, Rajan, arXiv:2510.26997, on continual learning, for the idea. The forecast of
    any kind, metric, coupling and the discount in $w$ go beyond it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, is_concrete
from beliefnav.control._arrays import floating
from beliefnav.control.gains.matrix import rounding, symmetric_function
from beliefnav.control.gains.scalar import decay_fraction

__all__ = [
    "Anticipation",
    "MatrixAnticipation",
    "anticipation",
    "check_plan",
    "continuous_hazard",
    "discounted_average",
    "matrix_anticipation",
    "rates",
    "shares",
]


class Anticipation(NamedTuple):
    r"""The result of `anticipation`; all its arrays are of the broadcast shape.

    Attributes:
        rate: $r$, of the approach to the set-point.
        weight: $w$ in [0, 1], of the believed mean in the set-point; the rest is the prior's.
    """

    rate: Array
    weight: Array

    def set_point(self, mean: ArrayLike, prior_mean: ArrayLike) -> Array:
        r"""$\bar x = \mu_0 + w (m - \mu_0)$.

        Args:
            mean: $m$, where the optimum is believed to be now.
            prior_mean: $\mu_0$, around which the next one is drawn.

        Returns:
            The set-point.
        """
        prior_mean = jnp.asarray(prior_mean)
        return prior_mean + self.weight * (jnp.asarray(mean) - prior_mean)

    def velocity(self, params: ArrayLike, mean: ArrayLike, prior_mean: ArrayLike) -> Array:
        r"""$\dot\theta = -r (\theta - \bar x)$ at $\theta$ = ``params``; else as `set_point`."""
        return -self.rate * (jnp.asarray(params) - self.set_point(mean, prior_mean))


class MatrixAnticipation(NamedTuple):
    r"""The result of `matrix_anticipation`, over n parameters.

    Attributes:
        rate: $A$ [n, n], of the approach to the set-point.
        weight: $W$ [n, n], of the believed mean in the set-point.
    """

    rate: Array
    weight: Array

    def set_point(self, mean: ArrayLike, prior_mean: ArrayLike) -> Array:
        r"""$\bar x = \mu_0 + W (m - \mu_0)$.

        Args:
            mean: $m$ [n], where the optimum is believed to be now.
            prior_mean: $\mu_0$, [n] or a number, around which the next one is drawn.

        Returns:
            The set-point [n].
        """
        prior_mean = jnp.asarray(prior_mean)
        return prior_mean + self.weight @ (jnp.asarray(mean) - prior_mean)

    def velocity(self, params: ArrayLike, mean: ArrayLike, prior_mean: ArrayLike) -> Array:
        r"""$\dot\theta = -A (\theta - \bar x)$ [n] at $\theta$ = ``params``; else `set_point`."""
        return -self.rate @ (jnp.asarray(params) - self.set_point(mean, prior_mean))


def anticipation(
    curvature: ArrayLike,
    hazard: ArrayLike,
    *,
    rate: ArrayLike = 1.0,
    gain: ArrayLike = 1.0,
    discount: ArrayLike = 0.0,
    metric: ArrayLike = 1.0,
) -> Anticipation:
    r"""How to act if the optimum may be drawn anew: $r$ and $w$ of the module docstring, per entry.

    Where nothing is curved or discounted ($\gamma + r = 0$) nothing is approached, and the weight
    is 0; that is 1 if there is no hazard either. An infinite hazard has weight 0.

    Args:
        curvature: $h$; negative values are read as 0.
        hazard: $\lambda \ge 0$, switches per unit of time, see `continuous_hazard`.
        rate: $\eta > 0$.
        gain: $k > 0$.
        discount: $\gamma \ge 0$.
        metric: $G > 0$, diagonal: broadcasts against ``curvature``.

    Returns:
        The rate and weight.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import control
        >>> plan = control.anticipation(jnp.array([0.1, 10.0]), hazard=0.5, discount=1.0)
        >>> set_point = plan.set_point(mean=3.0, prior_mean=1.0)
        >>> [round(x, 2) for x in set_point.tolist()]  # where it is flat, nearer to 1
        [2.37, 2.76]
    """
    check_plan("anticipation", hazard, discount, rate=rate, gain=gain)
    POSITIVE.check("anticipation", "metric", metric)
    mobility = jnp.asarray(rate) * gain / jnp.asarray(metric)
    r, s = rates(mobility * floating(curvature), discount)
    weight, *_ = shares(s, hazard)
    return Anticipation(*jnp.broadcast_arrays(r, weight))


def matrix_anticipation(
    curvature: ArrayLike,
    hazard: ArrayLike,
    *,
    rate: ArrayLike = 1.0,
    gain: ArrayLike = 1.0,
    discount: ArrayLike = 0.0,
    metric: ArrayLike | None = None,
) -> MatrixAnticipation:
    r"""`anticipation` with coupled parameters: $A$ and $W$ of the module docstring.

    With $G = L L^\top$ they are functions of the symmetric matrix
    $\eta k L^{-1} H L^{-\top}$, in the coordinates $L^\top \theta$. Its eigenvalues that are
    negative, or 0 up to their rounding, are read as 0. Computed in float32 or wider.

    Args:
        curvature: $H$ [n, n], symmetric; only its symmetric part is used.
        hazard: $\lambda \ge 0$, a scalar: see `anticipation`, as are the others.
        rate: $\eta > 0$.
        gain: $k > 0$.
        discount: $\gamma \ge 0$.
        metric: $G$ [n, n], symmetric positive definite; the identity by default.

    Returns:
        The matrices, NaN if the metric is not positive definite.

    Raises:
        ValueError: a number is out of its range, or the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav.control.gains.set_point import matrix_anticipation
        >>> plan = matrix_anticipation(jnp.array([[2.0, 1.0], [1.0, 2.0]]), hazard=1.0)
        >>> flat, curved = jnp.array([1.0, -1.0]), jnp.array([1.0, 1.0])  # curvatures 1 and 3
        >>> [round(float(x @ plan.weight @ x) / 2, 2) for x in (flat, curved)]
        [0.5, 0.63]
    """
    owner = "matrix_anticipation"
    check_plan(owner, hazard, discount, rate=rate, gain=gain)
    h = floating(curvature)
    if h.ndim != 2 or h.shape[0] != h.shape[1]:
        raise ValueError(f"{owner}: curvature must be [n, n], got {h.shape}.")
    root = jnp.eye(len(h), dtype=h.dtype)
    if metric is not None:
        if jnp.shape(metric) != h.shape:
            raise ValueError(
                f"{owner}: metric must have shape {h.shape} to fit curvature, got "
                f"{jnp.shape(metric)}."
            )
        root = jnp.linalg.cholesky(floating(metric))
    left = solve_triangular(root, h / 2 + h.T / 2, lower=True)
    white = jnp.asarray(rate) * gain * solve_triangular(root, left.T, lower=True)

    def similar(function: Callable[[Array], Array]) -> Array:
        return solve_triangular(
            root, symmetric_function(function, white) @ root.T, lower=True, trans=1
        )

    return MatrixAnticipation(
        rate=similar(lambda x: rates(_seen(x), discount)[0]),
        weight=similar(lambda x: shares(rates(_seen(x), discount)[1], hazard)[0]),
    )


def continuous_hazard(probability: ArrayLike, time_step: ArrayLike = 1.0) -> Array:
    r"""$\lambda = -\ln(1 - p) / \Delta t$, the rate of switches of a probability $p$ a step.

    Args:
        probability: $p$ in [0, 1]; certainty is an infinite rate.
        time_step: $\Delta t > 0$, the duration of a step.

    Returns:
        $\lambda$, of the broadcast shape.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """
    UNIT_INTERVAL.check("continuous_hazard", "probability", probability)
    POSITIVE.check("continuous_hazard", "time_step", time_step)
    return -jnp.log1p(-floating(probability)) / time_step


def discounted_average(times: ArrayLike, path: ArrayLike, rate: ArrayLike) -> Array:
    r"""The set-point $s \int_0^\infty e^{-s \tau} x_\tau \, d\tau$ of a forecast, $s = \gamma + r$.

    Exact for a forecast that is straight between points in time and rests after the last:

    $$ \bar x = x_0 + \sum_i e^{-s t_i} E(s (t_{i+1} - t_i)) (x_{i+1} - x_i), \qquad
       E(z) = (1 - e^{-z}) / z , $$

    the integral by parts. For $s = 0$ it is the last value.

    Args:
        times: $t_i$ [time] from now on: the first is 0, none is smaller than the one before. The
            same time twice is a jump.
        path: $x_i$ [time, ...].
        rate: $s \ge 0$, finite; broadcasts to [...].

    Returns:
        The average [...].

    Raises:
        ValueError: the shapes do not fit, the times (as far as they are known) are not as they
            should be, or ``rate`` is out of its range.
    """
    NON_NEGATIVE.check("discounted_average", "rate", rate)
    times, path = _points(times, path)
    try:
        rate = jnp.broadcast_to(floating(rate), path.shape[1:])[None]
    except ValueError as error:
        raise ValueError(
            f"discounted_average: rate must broadcast to the shape {path.shape[1:]} of a point of "
            f"the path, got {jnp.shape(rate)}."
        ) from error
    times = times.reshape(-1, *(1,) * (path.ndim - 1))
    share = jnp.exp(-rate * times[:-1]) * decay_fraction(rate * jnp.diff(times, axis=0))
    return path[0] + jnp.sum(share * jnp.diff(path, axis=0), axis=0)


def _points(times: ArrayLike, path: ArrayLike) -> tuple[Array, Array]:
    """The times [time] and path [time, ...] of a forecast, in float32 or wider."""
    shape = jnp.shape(times)
    if len(shape) != 1 or shape == (0,) or jnp.shape(path)[:1] != shape:
        raise ValueError(
            "discounted_average: times must be [time] and path [time, ...], of one length of at "
            f"least 1, got {shape} and {jnp.shape(path)}."
        )
    if is_concrete(times):
        known = np.asarray(times, np.float64)
        if not (known[0] == 0 and np.all(np.diff(known) >= 0) and np.isfinite(known[-1])):
            raise ValueError(
                "discounted_average: times must be finite, start at 0 (now) and not decrease, got "
                f"{known}."
            )
    return floating(times), floating(path)


# --- for beliefnav.control.policies.switching ---------------------------------------------------


def rates(x: Array, discount: ArrayLike) -> tuple[Array, Array]:
    r"""$r$ and $s = \gamma + r$ of $x$, which is read as 0 where it is negative.

    Finite with its derivatives also at $\gamma = x = 0$, where the true derivatives are infinite.
    """
    x, half = jnp.where(x < 0, 0, x), jnp.asarray(discount) / 2
    square = half**2 + x
    root = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    s = root + half
    return x / jnp.where(s > 0, s, 1), s


def shares(s: Array, hazard: ArrayLike) -> tuple[Array, Array, Array]:
    r"""$w = s / (s + \lambda)$, $1 - w$ and $w / s$, none by a difference.

    At $s = \lambda = 0$ they are 1, 0 and, since there is no plan, 0.
    """
    certain = jnp.isinf(hazard)
    hazard = jnp.where(certain, 1, hazard)
    planned = s + hazard > 0
    total = jnp.where(planned, s + hazard, 1)
    weight = jnp.where(certain, 0, jnp.where(planned, s / total, 1))
    shrinkage = jnp.where(certain, 1, hazard / total)
    return weight, shrinkage, jnp.where(planned & ~certain, 1 / total, 0)


def _seen(eigenvalues: Array) -> Array:
    """Eigenvalues without those that are 0 up to rounding: their roots would not be."""
    return jnp.where(eigenvalues > rounding(eigenvalues), eigenvalues, 0)


def check_plan(
    owner: str, hazard: ArrayLike | None, discount: ArrayLike, **positive: ArrayLike
) -> None:
    """Raise unless the numbers that are known are in their ranges."""
    NON_NEGATIVE.check(owner, "hazard", hazard)
    NON_NEGATIVE.check(owner, "discount", discount)
    for name, value in positive.items():
        POSITIVE.check(owner, name, value)
