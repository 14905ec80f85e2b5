r"""Policies that act on a forecast of the optimum, as `beliefnav.control.gains.set_point` derives.

With the believed gradient $g$ and curvature $V$, the plan remade continuously, and time in units in
which $\eta k = 1$:

| policy | forecast | velocity |
|---|---|---|
| `resetting` | decays to $\mu_0$ | $-(g + \lambda r (\theta - \mu_0)) / (\gamma + r + \lambda)$ |
| `anticipating` | any | minus the discounted integral of the gradient expected |

Negative curvature is read as 0, and counted as clipped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import FINITE, NON_NEGATIVE, is_number
from beliefnav._format import number
from beliefnav.beliefs import Posterior
from beliefnav.control._arrays import check_like, floating, per_parameter
from beliefnav.control.gains.set_point import (
    check_plan,
    continuous_hazard,
    discounted_average,
    rates,
    shares,
)
from beliefnav.control.policies.contract import MEANS, Plan, Policy, required
from beliefnav.control.policies.pulled import given, negative
from beliefnav.objective import is_like

__all__ = ["anticipating", "resetting"]

PyTree = Any
Forecast = Callable[[Posterior, PyTree, PyTree], tuple[ArrayLike, PyTree]]


def resetting(
    hazard: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    *,
    prior_mean: PyTree = 0.0,
    time_step: ArrayLike = 1.0,
) -> Policy:
    r"""Plan for an optimum that is drawn anew, in the first place around the initial parameters.

    The optimum switches at the rate $\lambda$ to one of mean $\mu_0$, so that its forecast decays
    from what is believed now to $\mu_0$. With the believed gradient $g$ and curvature $V$,

    $$ \dot\theta = -r (\theta - \bar x) = -\frac{g + \lambda r (\theta - \mu_0)}{s + \lambda},
       \qquad r = V / s, \qquad s = \sqrt{\gamma^2/4 + V} + \gamma/2, $$

    with time in units in which $\eta k = 1$. It has the equilibrium of descent on
    $L + \tfrac12 \ell (\theta - \mu_0)^2$ with $\ell = V\lambda/(\gamma + r)$: an L2-Init whose
    strength is derived, and reset is more what is less curved.

    Args:
        hazard: $\lambda \ge 0$, switches per unit of time. ``None``: what the belief says,
            the `continuous_hazard` of its ``hazard``; of one that is being learned that is the
            mean, which is exact as it becomes known.
        discount: $\gamma \ge 0$.
        prior_mean: $\mu_0$ relative to the initial parameters: a number, or a tree like them. It
            is not read off the belief: give both the same.
        time_step: $\Delta t > 0$, the time between observations, in which the belief's hazard is
            the probability of a switch: the learning rate. Not used if ``hazard`` is given.

    Returns:
        The policy; its learning rate is the time step.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it. When
            it is used, ``prior_mean`` does not fit the parameters, or nobody says what the hazard
            is.
    """
    owner = "resetting"
    _check_switching(owner, hazard, discount, prior_mean, time_step)

    def step(posterior: Posterior, params: PyTree, start: PyTree) -> PyTree:
        mean = required(posterior, "gradient_mean", owner)
        curvature = required(posterior, "curvature_mean", owner)
        moved = _moved(owner, params, start, prior_mean)
        switches = _hazard(owner, hazard, posterior, time_step)

        def leaf(m: Array, v: Array, moved: Array) -> Array:
            r, s = rates(v, discount)
            _, shrinkage, gain = shares(s, switches)
            return shrinkage * r * moved + gain * m

        return jax.tree.map(leaf, mean, curvature, moved)

    plan = Plan(discount, remarks=(_drawn_anew(hazard, prior_mean),))
    return Policy(step, negative, plan, uses_start=True, reads=(*MEANS, "hazard"))


def anticipating(forecast: Forecast, discount: ArrayLike = 1.0) -> Policy:
    r"""Plan for an optimum that will move, as any forecast says.

    The gradient that is expected at the present parameters a time $\tau$ later is
    $g_\tau = V (\theta - x_\tau)$, and

    $$ \dot\theta = -r (\theta - \bar x) = -\int_0^\infty e^{-(\gamma + r) \tau} g_\tau \, d\tau,
       \qquad r = \sqrt{\gamma^2/4 + V} - \gamma/2, $$

    with time in units in which $\eta k = 1$: the plan of `horizon`, on the `discounted_average`
    of what the gradient will be. It is `resetting` where the forecast decays to the prior mean,
    and the plan without a forecast where it rests. Where nothing is curved or discounted there is
    no step.

    Args:
        forecast: ``(posterior, params, start) -> (times, gradients)``: points in time [time] as in
            `discounted_average`, and a tree of [time, ...] of the mean gradient that is expected
            then if the parameters stay. ``start`` are the initial parameters.
        discount: $\gamma \ge 0$.

    Returns:
        The policy; its learning rate is the time step.

    Raises:
        ValueError: ``discount`` is out of its range; when it is used, the forecast
            does not fit the parameters or itself.

    Example:
        The task is known to end in 5 units of time; the next optimum is drawn around the start.

        >>> import jax.numpy as jnp
        >>> from beliefnav import Posterior, control
        >>> def known_end(posterior, params, start):
        ...     now = posterior.gradient_mean
        ...     then = posterior.curvature_mean * (params - start)
        ...     return jnp.array([0.0, 5.0, 5.0]), jnp.stack([now, now, then])
        >>> belief = Posterior(gradient_mean=jnp.ones(2), curvature_mean=jnp.array([0.01, 1.0]))
        >>> policy = control.anticipating(known_end, discount=0.1)
        >>> direction = policy.step(belief, jnp.zeros(2), jnp.zeros(2))
        >>> [round(x, 3) for x in direction.tolist()]  # (1 - exp(-5 s)) / s
        [3.428, 0.946]
    """
    NON_NEGATIVE.check("anticipating", "discount", discount)

    def step(posterior: Posterior, params: PyTree, start: PyTree) -> PyTree:
        mean = required(posterior, "gradient_mean", "anticipating")
        curvature = required(posterior, "curvature_mean", "anticipating")
        times, gradients = forecast(posterior, given(params, "anticipating"), start)
        owner, name = "control.anticipating", "the gradients of forecast"
        check_like(owner, name, gradients, mean, jnp.shape(times))

        def leaf(path: Array, v: Array) -> Array:
            _, s = rates(v, discount)
            _, _, gain = shares(s, 0.0)
            return gain * discounted_average(times, path, s)

        return jax.tree.map(leaf, gradients, curvature)

    remark = "The optimum moves as a forecast says; the plan is made on its discounted average."
    return Policy(step, negative, Plan(discount, remarks=(remark,)), uses_start=True)


def _check_switching(
    owner: str,
    hazard: ArrayLike | None,
    discount: ArrayLike,
    prior_mean: PyTree,
    time_step: ArrayLike,
) -> None:
    check_plan(owner, hazard, discount, time_step=time_step)
    FINITE.check(owner, "prior_mean", prior_mean)


def _hazard(
    owner: str, hazard: ArrayLike | None, posterior: Posterior, time_step: ArrayLike
) -> ArrayLike:
    r"""$\lambda$, of the belief unless it is given."""
    if hazard is not None:
        return hazard
    believed = posterior.hazard
    if believed is None:
        raise ValueError(
            f"Cannot use control.{owner} without a hazard with a belief that has none. This is "
            "because how much is reset depends on how often tasks switch; give hazard=, or use a "
            "belief in change points."
        )
    return continuous_hazard(believed, time_step)


def _moved(owner: str, params: PyTree, start: PyTree, prior_mean: PyTree) -> PyTree:
    r"""$\theta - \mu_0$ in float32 or wider."""
    given(params, owner)
    if is_like(prior_mean, 0.0):
        prior_mean = jax.tree.map(lambda _: prior_mean, params)
    else:
        prior_mean = per_parameter(f"control.{owner}", "prior_mean", prior_mean, params)
    return jax.tree.map(
        lambda x, start, prior: floating(x) - floating(start) - prior, params, start, prior_mean
    )


def _drawn_anew(hazard: ArrayLike | None, prior_mean: PyTree) -> str:
    around = "the initial parameters"
    if not is_number(prior_mean, 0):
        around = "a point that is given relative to " + around
    if hazard is None:
        return f"The optimum is drawn anew around {around} as often as the belief says."
    return f"The optimum is drawn anew around {around} {number(hazard)} times per unit of time."
