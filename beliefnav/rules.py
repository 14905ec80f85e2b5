r"""Known learning rules as assumptions: each is a belief and a policy, joined by `navigator`.

| rule | belief about the gradient | belief about the curvature | policy |
|---|---|---|---|
| `sgd` | what was just seen | none | myopic |
| `ballistic` | what was just seen | precision walk from 0 | ballistic |
| `rmsprop` | what was just seen | precision walk from ``initial_scale`` | ballistic |
| `adam` | diffuse local level | improper precision walk | ballistic |
| `adamw` | as `adam`, and a weight decay that is not planned for | | |
| `wiener` | empirical-Bayes Wiener average | its second moment | ballistic |
| `secant` | secant landscape, its noise unknown | the same | cautious finite horizon |

Names and defaults of arguments are those of optax where optax has the rule. All are ordinary optax
optimizers; `beliefnav.posterior` reads what they believe. They keep what they believe, so that
those that see the gradient as it is (`sgd`, `rmsprop`) hold one tree more than in optax.

An entry of the gradient that is NaN or infinite is not observed. Its means stay (those of a belief
in "what was just seen" return to 0: no step), and one sample size for all entries is kept, as if it
had been seen: afterwards its bias correction is an approximation.
"""

from collections.abc import Callable
from typing import Any

import optax
from jax.typing import ArrayLike

from beliefnav import control, ssm
from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.objective import Objective
from beliefnav.transform import navigator, scale_by_navigation

PyTree = Any


def sgd(
    learning_rate: optax.ScalarOrSchedule, *, count_missing: bool = True
) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic gradient descent: $\Delta\theta = -\alpha y$.

    Assumes that the gradient is what was just seen, without noise and without memory, and that
    planning ahead is not worth it ($\gamma \to \infty$).

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer, equal to ``optax.sgd(learning_rate)``.

    Raises:
        ValueError: ``learning_rate`` is a Python number that is not positive.
    """
    return navigator(learning_rate, _as_seen(), control.myopic(), count_missing=count_missing)


def ballistic(
    learning_rate: optax.ScalarOrSchedule,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    *,
    count_missing: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""The ballistic rule of the paper: $\Delta\theta = -\alpha y / \sqrt{s + \epsilon}$.

    Here $s \leftarrow \beta_2 s + (1 - \beta_2) y^2$ from $s = 0$, uncorrected. That is RMSprop
    with $\epsilon$ inside the root, and this is a name for it: ``rmsprop(learning_rate, decay=b2,
    eps=eps)``.

    Assumes undiscounted planning ($\gamma = 0$) on a curvature read off the second moment of the
    gradient, with a prior worth $1/(1-\beta_2)$ observations that it is zero; $\epsilon$ is a
    curvature floor.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        b2: $\beta_2$ in [0, 1], the discount of the second moment.
        eps: $\epsilon \ge 0$, in units of the squared gradient.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer.

    Raises:
        ValueError: a Python number is out of its range; the error names it.

    Reference:
        Vastola, Gershman, Rajan, arXiv:2510.26997, the ballistic limit of the quadratic problem and
        its experiment on images (Fig. 2e-f).
    """
    UNIT_INTERVAL.check("ballistic", "b2", b2)
    return rmsprop(learning_rate, decay=b2, eps=eps, count_missing=count_missing)


def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    initial_scale: ArrayLike = 0.0,
    eps_in_sqrt: bool = True,
    *,
    bias_correction: bool = False,
    count_missing: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""RMSprop: $\Delta\theta = -\alpha y / \sqrt{s + \epsilon}$, $s$ a moving average of $y^2$.

    Assumes what `ballistic` assumes. The prior of the second moment is worth $1/(1-\beta)$
    observations of ``initial_scale`` or, with ``bias_correction``, nothing. With $\epsilon$ outside
    the root it is no floor on the curvature but an approximation.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        decay: $\beta$ in [0, 1].
        eps: $\epsilon \ge 0$.
        initial_scale: $s_0 \ge 0$, in units of the squared gradient.
        eps_in_sqrt: whether $\epsilon$ stands inside the root.
        bias_correction: start from the improper prior instead.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer, equal to ``optax.rmsprop`` without centring and momentum.

    Raises:
        ValueError: a Python number is out of its range; the error names it. Also ``initial_scale``
            together with ``bias_correction``, a prior and none.
    """
    UNIT_INTERVAL.check("rmsprop", "decay", decay)
    NON_NEGATIVE.check("rmsprop", "eps", eps)
    NON_NEGATIVE.check("rmsprop", "initial_scale", initial_scale)
    if bias_correction and isinstance(initial_scale, int | float) and initial_scale != 0:
        raise ValueError(
            "rmsprop: cannot use initial_scale with bias_correction. This is because bias "
            "correction is the absence of a prior, and initial_scale is one."
        )
    if bias_correction:
        curvature = ssm.PrecisionWalk(decay)
    else:
        curvature = ssm.PrecisionWalk(decay, initial_scale, ssm.steady_sample_size(decay))
    policy = control.ballistic(eps_root=eps) if eps_in_sqrt else control.ballistic(eps=eps)
    belief = ssm.independent(gradient=_as_seen(), curvature=curvature.filter(shared=True))
    return navigator(learning_rate, belief, _never_clips(policy), count_missing=count_missing)


def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    count_missing: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam: $\Delta\theta = -\alpha \hat m / (\sqrt{\hat v + \epsilon_r} + \epsilon)$.

    Assumes a gradient that drifts at discount $\beta_1$ and a precision that drifts at discount
    $\beta_2$, each believed of the same observations as if the other did not exist and each with an
    improper prior (that is the bias correction), and undiscounted planning ($\gamma = 0$) on the
    second moment read as curvature.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root, an approximation; see `control.ballistic`.
        eps_root: $\epsilon_r \ge 0$ inside the root, a curvature floor.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer, equal to ``optax.adam``.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """
    belief, policy = _adam_assumptions("adam", b1, b2, eps, eps_root)
    return navigator(learning_rate, belief, policy, count_missing=count_missing)


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    count_missing: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""AdamW: Adam, and weights that decay by $\alpha \lambda \theta$ a step.

    Assumes what `adam` assumes, and a drift $f = -j\theta$ that the controller does not plan for:
    the movement is the sum of both, so that the weights settle short of the optimum. A controller
    aware of the drift would counter it.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root.
        eps_root: $\epsilon_r \ge 0$ inside the root.
        weight_decay: $\lambda$, a number or a schedule, per unit of learning rate.
        mask: tree of booleans, or a callable from parameters to one: which of them decay.
        count_missing: see `scale_by_navigation`.

    Returns:
        The optimizer, equal to ``optax.adamw``.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """
    POSITIVE.check("adamw", "learning_rate", learning_rate)
    NON_NEGATIVE.check("adamw", "weight_decay", weight_decay)
    belief, policy = _adam_assumptions("adamw", b1, b2, eps, eps_root)
    return optax.chain(
        scale_by_navigation(belief, policy, count_missing=count_missing),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def wiener(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    count_missing: bool = True,
) -> optax.GradientTransformationExtraArgs:
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
    policy = _never_clips(control.ballistic(eps, eps_root))
    return navigator(learning_rate, ssm.Wiener(b1, b2), policy, count_missing=count_missing)


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
) -> optax.GradientTransformationExtraArgs:
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
    belief = (
        ssm.UnknownNoise(
            landscape, prior_degrees_of_freedom=3.0, discount=curvature_discount
        ).filter(shared=True)
        if noise_variance is None
        else landscape.scaled(noise_variance)
    )
    policy = control.cautious(control.horizon(Objective(discount=discount)))
    return navigator(learning_rate, belief, policy, count_missing=count_missing)


def _as_seen() -> ssm.Filter:
    """The gradient is what was just seen: no correlation, no noise; a missing one is 0."""
    return ssm.OrnsteinUhlenbeck(
        autocorrelation=0.0, process_variance=1.0, noise_variance=0.0
    ).filter(shared=True)


def _adam_assumptions(
    owner: str, b1: ArrayLike, b2: ArrayLike, eps: ArrayLike, eps_root: ArrayLike
) -> tuple[ssm.Belief, control.Policy]:
    UNIT_INTERVAL.check(owner, "b1", b1)
    UNIT_INTERVAL.check(owner, "b2", b2)
    belief = ssm.independent(
        gradient=ssm.LocalLevel(b1).filter(shared=True),
        curvature=ssm.PrecisionWalk(b2).filter(shared=True),
    )
    return belief, _never_clips(control.ballistic(eps, eps_root))


def _never_clips(policy: control.Policy) -> control.Policy:
    """Tell that there is nothing to count: a second moment read as curvature is not negative."""
    return policy._replace(clipped=None)
