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

    Memory: 2 trees of the parameters' size.

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

    Example:
        With the default prior the curvature is believed to be small at first, and the first step
        is long; without a prior it is Adam's:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> for bias_correction in (False, True):
        ...     optimizer = rules.rmsprop(0.5, decay=0.75, bias_correction=bias_correction)
        ...     state = optimizer.init(jnp.zeros(2))
        ...     updates, state = optimizer.update(jnp.array([4.0, -2.0]), state)
        ...     print(updates, posterior(state).curvature_mean)
        [-1.  1.] [4. 1.]
        [-0.5  0.5] [16.  4.]
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

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        b2: $\beta_2$ in [0, 1], the discount of the second moment.
        eps: $\epsilon \ge 0$, in units of the squared gradient.

    Returns:
        The optimizer.

    Reference:
        Vastola, Gershman, Rajan, arXiv:2510.26997, the ballistic limit of the quadratic problem and
        its experiment on images (Fig. 2e-f).

    Example:
        A quarter of the squared gradient is believed, so that the step is twice as long:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.ballistic(0.5, b2=0.75)
        >>> updates, state = optimizer.update(jnp.array([4.0, -2.0]), optimizer.init(jnp.zeros(2)))
        >>> print(updates, posterior(state).curvature_mean)
        [-1.  1.] [4. 1.]
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

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        initial_accumulator_value: $S_0 \ge 0$, in units of the squared gradient.
        eps: $\epsilon \ge 0$, a curvature floor.

    Returns:
        The optimizer, equal to ``optax.adagrad``.

    Example:
        The sum of squares is $3^2 + 4^2 = 5^2$, so that the second step is 4/5 of the first:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.adagrad(0.5, initial_accumulator_value=0.0)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for gradient in (jnp.array([3.0, -6.0]), jnp.array([4.0, -8.0])):
        ...     updates, state = optimizer.update(gradient, state)
        >>> print([round(x, 3) for x in updates.tolist()])
        [-0.4, 0.4]
        >>> print([round(x, 3) for x in posterior(state).curvature_mean.tolist()])
        [25.0, 100.0]
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

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root, an approximation; see `control.ballistic`.
        eps_root: $\epsilon_r \ge 0$ inside the root, a curvature floor.

    Returns:
        The optimizer, equal to ``optax.adam``.

    Example:
        Gradients of 1 and 4 have the mean 3 and the mean square 11 where the first counts half:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.adam(0.1, b1=0.5, b2=0.5)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for gradient in (jnp.array([1.0, -2.0]), jnp.array([4.0, -2.0])):
        ...     updates, state = optimizer.update(gradient, state)
        >>> print(posterior(state).gradient_mean, posterior(state).curvature_mean)
        [ 3. -2.] [11.  4.]
        >>> print([round(x, 4) for x in updates.tolist()], round(-0.1 * 3 / 11**0.5, 4))
        [-0.0905, 0.1] -0.0905
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

    Memory: 2 trees of the parameters' size.

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

    Example:
        Where there is no gradient the weight decays, and the belief knows nothing of it:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> params = jnp.array([4.0, -4.0])
        >>> optimizer = rules.adamw(0.5, weight_decay=0.125)
        >>> updates, state = optimizer.update(jnp.array([2.0, 0.0]), optimizer.init(params), params)
        >>> print(updates, posterior(state).gradient_mean)
        [-0.75  0.25] [2. 0.]
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

    Memory: 3 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root.
        eps_root: $\epsilon_r \ge 0$ inside the root.

    Returns:
        The optimizer, equal to ``optax.nadam``.

    Example:
        At first the weights of what is seen and of what is expected, 1 and 1/3, exceed 1:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.nadam(0.5, b1=0.5)
        >>> updates, state = optimizer.update(jnp.array([3.0, -6.0]), optimizer.init(jnp.zeros(2)))
        >>> print(posterior(state).gradient_mean, [round(x, 4) for x in updates.tolist()])
        [ 4. -8.] [-0.6667, 0.6667]
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

    Memory: 3 trees of the parameters' size.

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

    Example:
        Weights decay, and biases do not:

        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> params = {"weight": jnp.array([4.0, -4.0]), "bias": jnp.array([4.0, -4.0])}
        >>> optimizer = rules.nadamw(0.5, weight_decay=0.125, mask={"weight": True, "bias": False})
        >>> gradients = jax.tree.map(jnp.zeros_like, params)
        >>> updates, state = optimizer.update(gradients, optimizer.init(params), params)
        >>> print(updates["weight"], jnp.abs(updates["bias"]))
        [-0.25  0.25] [0. 0.]
        >>> print(posterior(state).curvature_mean["weight"])
        [0. 0.]
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

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$, added to the size of every gradient.

    Returns:
        The optimizer, equal to ``optax.adamax``.

    Example:
        A gradient of 4 is remembered as a bound of 2, whose square is the curvature:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.adamax(0.5, b1=0.0, b2=0.5)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for gradient in (jnp.array([1.0, 4.0]), jnp.array([2.0, 1.0])):
        ...     updates, state = optimizer.update(gradient, state)
        >>> print(updates, posterior(state).curvature_mean)
        [-0.5  -0.25] [4. 4.]
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

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1], the discount of the average.
        b2: $\beta_2$ in [0, 1], the discount of the second moment.
        eps: $\epsilon \ge 0$ outside the root, an approximation; see `control.ballistic`.
        eps_root: $\epsilon_r \ge 0$ inside the root, a curvature floor.

    Returns:
        The optimizer.

    Example:
        Two gradients that agree are believed; two that cancel are noise, and nothing moves:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.wiener(0.5, b1=1.0, b2=1.0)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for gradient in (jnp.array([2.0, 2.0]), jnp.array([2.0, -2.0])):
        ...     updates, state = optimizer.update(gradient, state)
        >>> print(posterior(state).gradient_mean, updates)
        [2. 0.] [-0.5 -0. ]
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

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        weight_decay: $\lambda > 0$, per unit of learning rate.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps_root: $\epsilon_r \ge 0$ inside the root, a curvature floor.

    Returns:
        The optimizer.

    Example:
        Two gradients cancel. Where the loss is flat the weight decays as in AdamW, and where it is
        curved it decays more slowly:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> params = jnp.array([1.0, 1.0])
        >>> optimizer = rules.countering(0.5, weight_decay=0.75, b1=1.0, b2=1.0)
        >>> state = optimizer.init(params)
        >>> for gradient in (jnp.array([0.0, 1.0]), jnp.array([0.0, -1.0])):
        ...     updates, state = optimizer.update(gradient, state, params)
        >>> print(updates, posterior(state).curvature_mean)
        [-0.375 -0.225] [0. 1.]
    """
    return Assumptions(
        learning_rate,
        moments(b1, b2),
        control.countering(weight_decay, eps_root=eps_root),
        approximations=(APART, MOMENT),
    )
