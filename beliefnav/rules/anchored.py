"""Rules that know where the parameters started, or that weights decay."""

import optax
from jax.typing import ArrayLike

from beliefnav import control
from beliefnav._checks import NON_NEGATIVE, POSITIVE
from beliefnav.assumptions import Assumptions, rule
from beliefnav.rules._beliefs import APART, MOMENT, as_seen, moments
from beliefnav.rules.adaptive import adam
from beliefnav.transform import Decay


@rule
def l2_init(
    learning_rate: optax.ScalarOrSchedule,
    strength: ArrayLike = 1e-2,
    *,
    count_missing: bool = True,
) -> Assumptions:
    r"""Gradient descent on $L + \tfrac12 \ell \, |\theta - \theta_0|^2$: L2-Init.

    Assumes what `sgd` assumes, and a Gaussian prior around the initial parameters. For a strength
    that is derived see `resetting`.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        strength: $\ell \ge 0$.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer, equal to ``optax.sgd`` on the penalised loss.

    Raises:
        ValueError: a Python number is out of its range; the error names it.

    Reference:
        Kumar, Marklund and Van Roy, "Maintaining Plasticity in Continual Learning via Regenerative
        Regularization", 2023, arXiv:2308.11958 (whose coefficient is $\ell/2$).
    """
    POSITIVE.check("l2_init", "learning_rate", learning_rate)
    NON_NEGATIVE.check("l2_init", "strength", strength)
    policy = control.penalised(control.myopic(), strength)
    return Assumptions(learning_rate, as_seen(), policy, count_missing=count_missing)


@rule
def adam_toward_start(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    *,
    decay: optax.ScalarOrSchedule = 1e-2,
    count_missing: bool = True,
) -> Assumptions:
    r"""Adam, and weights that decay toward where they started, by $\alpha\lambda(\theta-\theta_0)$.

    Assumes what `adam` assumes, and a drift toward the initial parameters that the controller does
    not plan for.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root.
        decay: $\lambda$, a number or a schedule, per unit of learning rate.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """
    NON_NEGATIVE.check("adam_toward_start", "decay", decay)
    inner = adam.assumptions(learning_rate, b1, b2, eps, count_missing=count_missing)
    return inner._replace(drift=Decay(decay, toward_start=True))


@rule
def resetting(
    learning_rate: optax.ScalarOrSchedule,
    hazard: ArrayLike = 1e-3,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    discount: ArrayLike = 0.1,
    *,
    count_missing: bool = True,
) -> Assumptions:
    r"""Plan for an optimum that may be drawn anew: weights are reset the more, the flatter.

    Assumes Adam's beliefs, a plan of horizon $1/\gamma$, and optima that switch at the rate
    $\lambda$ to new ones around the initial parameters (`control.resetting`). Without a hazard it
    is Adam at $\gamma = 0$ and gradient descent at large $\gamma$.

    Args:
        learning_rate: $\alpha = \Delta t > 0$, a number or a schedule.
        hazard: $\lambda \ge 0$, switches per unit of time, in which $\eta k = 1$.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        discount: $\gamma \ge 0$.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """
    POSITIVE.check("resetting", "learning_rate", learning_rate)
    return Assumptions(
        learning_rate,
        moments("resetting", b1, b2),
        control.resetting(hazard, discount),
        approximations=(APART, MOMENT),
        count_missing=count_missing,
    )


@rule
def countering(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: ArrayLike = 1e-2,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps_root: ArrayLike = 0.0,
    *,
    count_missing: bool = True,
) -> Assumptions:
    r"""Adam that plans for the decay of weights: it holds against it where the loss is curved.

    Assumes what `adamw` assumes, except that the controller knows of the drift
    (`control.countering`).

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        weight_decay: $\lambda > 0$, per unit of learning rate.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps_root: $\epsilon_r \ge 0$ inside the root, a curvature floor.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """
    POSITIVE.check("countering", "learning_rate", learning_rate)
    POSITIVE.check("countering", "weight_decay", weight_decay)
    return Assumptions(
        learning_rate,
        moments("countering", b1, b2),
        control.countering(weight_decay, eps_root=eps_root),
        approximations=(APART, MOMENT),
        count_missing=count_missing,
    )
