"""Rules that read curvature off the squares of the gradient, and plan without discounting on it."""

from collections.abc import Callable
from typing import Any

import optax
from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.drift import Decay
from beliefnav.rules._beliefs import APART, LOOK_AHEAD, MOMENT, as_seen, level, moments, never_clips
from beliefnav.rules._rule import Assumptions, rule

__all__ = [
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ballistic",
    "countering",
    "nadam",
    "nadamw",
    "rmsprop",
    "wiener",
]

PyTree = Any


@rule(learning_rate=POSITIVE, decay=UNIT_INTERVAL, eps=NON_NEGATIVE, initial_scale=NON_NEGATIVE)
def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    initial_scale: ArrayLike = 0.0,
    eps_in_sqrt: bool = True,
    *,
    bias_correction: bool = False,
) -> Assumptions:
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

    Returns:
        The optimizer, equal to ``optax.rmsprop`` without centring and momentum.

    Raises:
        ValueError: ``initial_scale`` together with ``bias_correction``, a prior and none.
    """
    if bias_correction and isinstance(initial_scale, int | float) and initial_scale != 0:
        raise ValueError(
            "rmsprop: cannot use initial_scale with bias_correction. This is because bias "
            "correction is the absence of a prior, and initial_scale is one."
        )
    if bias_correction:
        curvature = beliefs.PrecisionWalk(decay)
    else:
        curvature = beliefs.PrecisionWalk(decay, initial_scale, beliefs.steady_sample_size(decay))
    policy = control.ballistic(eps_root=eps) if eps_in_sqrt else control.ballistic(eps=eps)
    belief = beliefs.independent(gradient=as_seen(), curvature=beliefs.shared(curvature))
    return Assumptions(learning_rate, belief, never_clips(policy), approximations=(APART, MOMENT))


@rule(learning_rate=POSITIVE, b2=UNIT_INTERVAL, eps=NON_NEGATIVE)
def ballistic(
    learning_rate: optax.ScalarOrSchedule, b2: ArrayLike = 0.999, eps: ArrayLike = 1e-8
) -> Assumptions:
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

    Returns:
        The optimizer.

    Reference:
        Vastola, Gershman, Rajan, arXiv:2510.26997, the ballistic limit of the quadratic problem and
        its experiment on images (Fig. 2e-f).
    """
    return rmsprop.assumptions(learning_rate, decay=b2, eps=eps)


@rule(learning_rate=POSITIVE, initial_accumulator_value=NON_NEGATIVE, eps=NON_NEGATIVE)
def adagrad(
    learning_rate: optax.ScalarOrSchedule,
    initial_accumulator_value: ArrayLike = 0.1,
    eps: ArrayLike = 1e-7,
) -> Assumptions:
    r"""AdaGrad: $\Delta\theta = -\alpha y / \sqrt{S + \epsilon}$, $S$ the sum of all $y^2$.

    Assumes a precision that does not drift ($\beta_2 = 1$), whose squares are read as a sum
    (`beliefs.accumulated`): the curvature of all losses met so far, which grows as long as one
    learns. The steps of `rmsprop` with as long a memory are larger by $\sqrt{n}$.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        initial_accumulator_value: $S_0 \ge 0$, in units of the squared gradient.
        eps: $\epsilon \ge 0$, a curvature floor.

    Returns:
        The optimizer, equal to ``optax.adagrad``.
    """
    walk = beliefs.PrecisionWalk(1.0, initial_accumulator_value, prior_degrees_of_freedom=1.0)
    return Assumptions(
        learning_rate,
        beliefs.independent(
            gradient=as_seen(), curvature=beliefs.shared(beliefs.accumulated(walk))
        ),
        never_clips(control.ballistic(eps_root=eps)),
        approximations=(APART, MOMENT),
    )


@rule(
    learning_rate=POSITIVE,
    b1=UNIT_INTERVAL,
    b2=UNIT_INTERVAL,
    eps=NON_NEGATIVE,
    eps_root=NON_NEGATIVE,
)
def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
) -> Assumptions:
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

    Returns:
        The optimizer, equal to ``optax.adam``.
    """
    policy = never_clips(control.ballistic(eps, eps_root))
    return Assumptions(learning_rate, moments(b1, b2), policy, approximations=(APART, MOMENT))


@rule(**adam.ranges, weight_decay=NON_NEGATIVE)
def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> Assumptions:
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

    Returns:
        The optimizer, equal to ``optax.adamw``.
    """
    inner = adam.assumptions(learning_rate, b1, b2, eps, eps_root)
    return inner._replace(drift=Decay(weight_decay, mask))


@rule(**adam.ranges)
def nadam(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
) -> Assumptions:
    r"""NAdam: Adam on the gradient as it is expected to be at the next step.

    Assumes what `adam` assumes, except that the mean is an `beliefs.look_ahead` one: in the steady
    state the forecast of a gradient of which one part passes, as in ``sgd(nesterov=True)``. Its
    bias correction is an approximation.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root.
        eps_root: $\epsilon_r \ge 0$ inside the root.

    Returns:
        The optimizer, equal to ``optax.nadam``.
    """
    inner = adam.assumptions(learning_rate, b1, b2, eps, eps_root)
    gradient = beliefs.shared(beliefs.look_ahead(beliefs.LocalLevel(b1)))
    curvature = beliefs.shared(beliefs.PrecisionWalk(b2))
    return inner._replace(
        belief=beliefs.independent(gradient=gradient, curvature=curvature),
        approximations=(*inner.approximations, LOOK_AHEAD),
    )


@rule(**nadam.ranges, weight_decay=NON_NEGATIVE)
def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule = 1e-4,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> Assumptions:
    r"""NAdamW: NAdam, and weights that decay by $\alpha \lambda \theta$ a step.

    Assumes what `nadam` assumes, and the drift of `adamw`.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root.
        eps_root: $\epsilon_r \ge 0$ inside the root.
        weight_decay: $\lambda$, a number or a schedule, per unit of learning rate.
        mask: tree of booleans, or a callable from parameters to one: which of them decay.

    Returns:
        The optimizer, equal to ``optax.nadamw``.
    """
    inner = nadam.assumptions(learning_rate, b1, b2, eps, eps_root)
    return inner._replace(drift=Decay(weight_decay, mask))


@rule(learning_rate=POSITIVE, b1=UNIT_INTERVAL, b2=UNIT_INTERVAL, eps=NON_NEGATIVE)
def adamax(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
) -> Assumptions:
    r"""AdaMax: $\Delta\theta = -\alpha \hat m / u$, $u \leftarrow \max(\beta_2 u, |y| + \epsilon)$.

    Assumes what `adam` assumes, except that the size of the gradient is that of uniform noise up to
    a bound (`beliefs.UniformWalk`), whose square is read as curvature.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$, added to the size of every gradient.

    Returns:
        The optimizer, equal to ``optax.adamax``.
    """
    return Assumptions(
        learning_rate,
        beliefs.independent(gradient=level(b1), curvature=beliefs.UniformWalk(b2, eps)),
        never_clips(control.ballistic()),
        approximations=(APART, MOMENT),
    )


@rule(**adam.ranges)
def wiener(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
) -> Assumptions:
    r"""Adam on a shrunk mean: entries whose average does not stand out of its noise do not move.

    Assumes what `adam` assumes, except that the gradient has a zero-mean prior whose variance is
    estimated from its own stream, `beliefs.Wiener`. As much memory as Adam.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1], the discount of the average.
        b2: $\beta_2$ in [0, 1], the discount of the second moment.
        eps: $\epsilon \ge 0$ outside the root, an approximation; see `control.ballistic`.
        eps_root: $\epsilon_r \ge 0$ inside the root, a curvature floor.

    Returns:
        The optimizer.
    """
    return Assumptions(
        learning_rate,
        beliefs.Wiener(b1, b2),
        never_clips(control.ballistic(eps, eps_root)),
        approximations=(MOMENT,),
    )


@rule(
    learning_rate=POSITIVE,
    weight_decay=POSITIVE,
    b1=UNIT_INTERVAL,
    b2=UNIT_INTERVAL,
    eps_root=NON_NEGATIVE,
)
def countering(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: ArrayLike = 1e-2,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps_root: ArrayLike = 0.0,
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

    Returns:
        The optimizer.
    """
    return Assumptions(
        learning_rate,
        moments(b1, b2),
        control.countering(weight_decay, eps_root=eps_root),
        approximations=(APART, MOMENT),
    )
