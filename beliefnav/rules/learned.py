"""Rules that learn what others assume: how much of the gradient is signal, and the curvature."""

import optax
from jax.typing import ArrayLike

from beliefnav import control, ssm
from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.assumptions import Assumptions, rule
from beliefnav.objective import Objective
from beliefnav.rules._beliefs import MOMENT, never_clips

ALONE = "What the steps of other parameters do to a gradient is noise to it."


@rule
def wiener(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    count_missing: bool = True,
) -> Assumptions:
    r"""Adam on a shrunk mean: entries whose average does not stand out of its noise do not move.

    Assumes what `adam` assumes, except that the gradient has a zero-mean prior whose variance is
    estimated from its own stream, `ssm.Wiener`. As much memory as Adam.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1], the discount of the average.
        b2: $\beta_2$ in [0, 1], the discount of the second moment.
        eps: $\epsilon \ge 0$ outside the root, an approximation; see `control.ballistic`.
        eps_root: $\epsilon_r \ge 0$ inside the root, a curvature floor.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """
    UNIT_INTERVAL.check("wiener", "b1", b1)
    UNIT_INTERVAL.check("wiener", "b2", b2)
    POSITIVE.check("wiener", "learning_rate", learning_rate)
    return Assumptions(
        learning_rate,
        ssm.Wiener(b1, b2),
        never_clips(control.ballistic(eps, eps_root)),
        approximations=(MOMENT,),
        count_missing=count_missing,
    )


@rule
def secant(
    learning_rate: optax.ScalarOrSchedule,
    discount: ArrayLike = 0.1,
    *,
    noise_variance: ArrayLike | None = None,
    gradient_variance: ArrayLike = 1.0,
    curvature_variance: ArrayLike = 1.0,
    gradient_drift: ArrayLike = 0.01,
    curvature_discount: ArrayLike = 0.999,
    curvature_noise_variance: ArrayLike | None = None,
    count_missing: bool = True,
) -> Assumptions:
    r"""Plan on a curvature that is learned from how the gradient changes as one moves.

    Assumes an `ssm.Secant` landscape, all of whose variances are in units of a noise variance
    $\sigma^2$ that is unknown and learned for every entry, and a horizon $1/\gamma$, with the plan
    remade continuously (`control.planning_gain`) and cautiously (`control.cautious`):

    $$ \Delta\theta = -\alpha \, \frac{m}{s(\bar V)}, \qquad
       s(\bar V) = \sqrt{\gamma^2/4 + \bar V} + \gamma/2, \qquad
       \bar V = \sqrt{V^2 + \mathrm{Var}[h]}. $$

    Where $\bar V \ll \gamma^2$ it is gradient descent with the rate $\alpha/\gamma$, where
    $\bar V \gg \gamma^2$ ballistic, with the curvature where Adam has a second moment. The floor on
    the curvature is its posterior standard deviation.

    It measures how far the parameters moved, so that it is right under clipping, weight decay,
    masks, gradient accumulation and schedules; ``update`` needs ``params``. ``update`` also takes
    ``curvature``, readings of a second sensor (`beliefnav.sensors`), if its noise is given.

    The noise is followed with the memory of the curvature, `ssm.UnknownNoise`, and its prior has
    three degrees of freedom, the fewest whole number at which posterior variances are finite. With
    a ``noise_variance`` it is known; that takes one tree of memory less.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        discount: $\gamma > 0$.
        noise_variance: $\sigma^2 > 0$; ``None``: unknown.
        gradient_variance: prior variance of the gradient, in units of $\sigma^2$.
        curvature_variance: prior variance $P_h$ of the curvature, in units of $\sigma^2$.
        gradient_drift: $q_g \ge 0$, variance of what else moves the gradient in a step, in units of
            $\sigma^2$; the steps of other parameters, above all. 0.01 is a memory of some 10 steps.
        curvature_discount: $\beta$ in [0, 1], how much of the curvature persists in a step; it
            returns to its prior with $\rho_h = \sqrt\beta$.
        curvature_noise_variance: of readings of a second sensor, in units of $\sigma^2$.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """
    for name, value in (
        ("learning_rate", learning_rate),
        ("discount", discount),
        ("noise_variance", noise_variance),
        ("gradient_variance", gradient_variance),
        ("curvature_variance", curvature_variance),
        ("curvature_noise_variance", curvature_noise_variance),
    ):
        POSITIVE.check("secant", name, value)
    NON_NEGATIVE.check("secant", "gradient_drift", gradient_drift)
    UNIT_INTERVAL.check("secant", "curvature_discount", curvature_discount)
    landscape = ssm.Secant(
        noise_variance=1.0,
        prior_gradient_variance=gradient_variance,
        prior_curvature_variance=curvature_variance,
        gradient_process_variance=gradient_drift,
        curvature_process_variance=curvature_variance * (1 - curvature_discount),
        curvature_autocorrelation=curvature_discount**0.5,
        curvature_noise_variance=curvature_noise_variance,
    )
    unknown = ssm.UnknownNoise(landscape, prior_degrees_of_freedom=3.0, discount=curvature_discount)
    known = None if noise_variance is None else landscape.scaled(noise_variance)
    return Assumptions(
        learning_rate,
        known or ssm.shared(unknown),
        control.cautious(control.horizon(Objective(discount=discount))),
        approximations=(ALONE,),
        count_missing=count_missing,
    )
