r"""The planning gain: the optimal step on a local quadratic belief, in closed form.

Believe a gradient $m$ and a curvature $V$ at the present parameters, and act for a time $\Delta t$
on the policy that is optimal for the navigation objective. Per entry, with $x = \eta k V / G$,

$$ \Delta\theta = -\varphi m, \qquad
   \varphi = \Delta t \, \frac{\eta k}{G} \frac{E(\rho \Delta t)}{s(x)}, \qquad
   s(x) = \sqrt{\gamma^2/4 + x} + \gamma/2, \quad \rho = x / s(x), \quad E(z) = (1 - e^{-z})/z. $$

$\rho$ is the rate at which the closed loop approaches the believed optimum. Following it for
$\Delta t$ before looking again gives $E$ (exact hold); remaking the plan continuously, $E = 1$
(replanning, first order in $\rho \Delta t$). In between, $E(\rho\tau)$: each plan is followed for
$\tau < \Delta t$, and the next one starts from the same belief.

Derivation: the value function $\tfrac12 P \theta^2$ of the quadratic problem obeys
$\gamma P = k V - \eta P^2 / G$, so $\rho = \eta P / G = \sqrt{\gamma^2/4 + x} - \gamma/2$, which is
written as $x / s(x)$ because the difference loses all digits for small $x$ or large $\gamma$.

Reference:
    Vastola, Gershman, Rajan, arXiv:2510.26997: the infinite-horizon quadratic problem. The hold and
    the form that is stable in floating point go beyond it.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, is_number

__all__ = ["PlanningGain", "decay_fraction", "gain_at", "planning_gain", "relative_curvature"]


class PlanningGain(NamedTuple):
    r"""The result of `planning_gain`.

    Attributes:
        gain: $\varphi$.
        clipped: True where the curvature was below what the objective bounds, and was clipped.
    """

    gain: Array
    clipped: Array


def planning_gain(
    curvature: ArrayLike,
    *,
    rate: ArrayLike,
    gain: ArrayLike,
    discount: ArrayLike,
    time_step: ArrayLike = 1.0,
    metric: ArrayLike = 1.0,
    exact_hold: ArrayLike = False,
    margin: float = 1e-3,
) -> PlanningGain:
    r"""The gain $\varphi$ of the module docstring, elementwise.

    Smooth through $V = 0$ if $\gamma > 0$, where it is $\eta k \Delta t / (G \gamma)$: gradient
    descent. At $\gamma = 0$ it diverges like $V^{-1/2}$ as $V \to 0$: ballistic overshoot, cured
    only by a floor on $V$, which is a belief.

    At a saddle ($V < 0$) the plan moves away from the maximum, faster the longer it is held, down
    to $x = -\gamma^2/4$. Below that the discounted problem is unbounded: the curvature is clipped
    to $-(1-\epsilon) G \gamma^2 / (4 \eta k)$, and the result says where.

    Args:
        curvature: $V$.
        rate: $\eta > 0$.
        gain: $k > 0$.
        discount: $\gamma \ge 0$.
        time_step: $\Delta t > 0$, in the unit of time in which $\gamma$ is measured.
        metric: $G > 0$, diagonal: broadcasts against ``curvature``.
        exact_hold: follow the closed loop for ``time_step``; otherwise replan continuously. A
            number in [0, 1] lies between: the share of ``time_step`` for which a plan is followed.
        margin: $\epsilon$ in [0, 1] of the clip. Above 0 it keeps derivatives finite at the bound.

    Returns:
        The gain and where it was clipped, arrays of the broadcast shape.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """
    POSITIVE.check("planning_gain", "rate", rate)
    POSITIVE.check("planning_gain", "gain", gain)
    POSITIVE.check("planning_gain", "time_step", time_step)
    POSITIVE.check("planning_gain", "metric", metric)
    NON_NEGATIVE.check("planning_gain", "discount", discount)
    UNIT_INTERVAL.check("planning_gain", "exact_hold", exact_hold)
    UNIT_INTERVAL.check("planning_gain", "margin", margin)

    mobility = rate * gain / metric
    x, bound = relative_curvature(curvature, mobility, discount, margin)
    planned = gain_at(jnp.maximum(x, bound), mobility, discount, time_step, exact_hold)
    return PlanningGain(planned, jnp.asarray(x < bound))


def relative_curvature(
    curvature: ArrayLike, mobility: ArrayLike, discount: ArrayLike, margin: float
) -> tuple[Array, Any]:
    r"""$x$ at the mobility $\eta k / G$, and the bound below which `planning_gain` clips it."""
    v = jnp.asarray(curvature)
    x = v if is_number(mobility, 1) else jnp.asarray(mobility * v)
    return x, -(1 - margin) * (discount / 2) ** 2


def gain_at(
    x: Array,
    mobility: ArrayLike,
    discount: ArrayLike,
    time_step: ArrayLike,
    exact_hold: ArrayLike,
) -> Array:
    r"""$\varphi$ at an $x$ that is not below the bound, of numbers that were checked."""
    half_discount = discount / 2
    s = jnp.sqrt(half_discount**2 + x) + half_discount
    planned = jnp.asarray(time_step * mobility / s)
    if is_number(exact_hold, 0):
        return planned
    # s = 0 only at discount 0 without curvature, where the gain is infinite whatever the rate.
    share = float(exact_hold) if isinstance(exact_hold, bool) else exact_hold
    held = jnp.asarray(time_step * share)
    return planned * decay_fraction(held * x / jnp.where(s > 0, s, 1))


def decay_fraction(z: Array) -> Array:
    r"""$E(z) = (1 - e^{-z})/z$, smooth through 0.

    Near 0 the Taylor series, to an order at which value and derivatives are exact in float64;
    elsewhere ``expm1``, whose derivative loses digits only in proportion to $1/z$.
    """
    near = jnp.abs(z) < 0.1
    small = jnp.where(near, z, 0)
    series = jnp.ones_like(small)
    for n in range(11, 1, -1):
        series = 1 - small / n * series
    large = jnp.where(near, 1, z)
    return jnp.where(near, series, -jnp.expm1(-large) / large)
