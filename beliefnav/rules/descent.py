"""Rules without curvature: they descend an average of the gradient, or its sign."""

from collections.abc import Callable
from typing import Any

import optax
from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import HALF_OPEN_UNIT, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.drift import Decay
from beliefnav.rules._beliefs import as_seen, divided, level
from beliefnav.rules._rule import Assumptions, rule

__all__ = ["lion", "momentum", "sgd", "sign_sgd", "signum"]

PyTree = Any


@rule(learning_rate=POSITIVE, momentum=HALF_OPEN_UNIT)
def sgd(
    learning_rate: optax.ScalarOrSchedule, momentum: ArrayLike | None = None, nesterov: bool = False
) -> Assumptions:
    r"""Stochastic gradient descent: $\Delta\theta = -\alpha y$, also with momentum.

    Assumes that the gradient is what was just seen, without noise and without memory, and that
    planning ahead is not worth it ($\gamma \to \infty$).

    With ``momentum`` $\mu$ it is the heavy ball, $t \leftarrow y + \mu t$, $\Delta\theta =
    -\alpha t$: the gradient drifts at discount $\mu$ (`beliefs.LocalLevel`), with a prior worth
    $1/(1-\mu)$ observations that it is 0, and the learning rate is $\alpha/(1-\mu)$. With
    ``nesterov`` part of it is transient, with a correlation of $\mu (1-\mu)$, and the step is taken
    on the forecast of the next gradient (`beliefs.Transient`).

    Memory: 1 tree of the parameters' size; 2 trees with ``nesterov``.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        momentum: $\mu$ in [0, 1); ``None``: no memory.
        nesterov: look ahead.

    Returns:
        The optimizer, equal to ``optax.sgd``.

    Raises:
        ValueError: ``nesterov`` without ``momentum``.

    Example:
        On the parabola $|\theta|^2/2$ a learning rate of 0.5 goes half of the way:

        >>> import jax.numpy as jnp, optax
        >>> from beliefnav import posterior, rules
        >>> params = jnp.array([4.0, -2.0])
        >>> optimizer = rules.sgd(0.5)
        >>> updates, state = optimizer.update(params, optimizer.init(params), params)
        >>> print(optax.apply_updates(params, updates), posterior(state).gradient_mean)
        [ 2. -1.] [ 4. -2.]

        With momentum the gradient is believed only after having been seen for some time:

        >>> optimizer = rules.sgd(0.1, momentum=0.5)
        >>> state = optimizer.init(params)
        >>> for _ in range(3):
        ...     updates, state = optimizer.update(jnp.ones(2), state, params)
        ...     print(posterior(state).gradient_mean)
        [0.5 0.5]
        [0.75 0.75]
        [0.875 0.875]
    """
    belief: beliefs.Belief = as_seen()
    if momentum is not None:
        learning_rate = divided(learning_rate, 1 - momentum)
        zero = beliefs.LocalLevel(momentum, prior_sample_size=beliefs.steady_sample_size(momentum))
        ahead = beliefs.Transient(momentum, momentum * (1 - momentum))
        belief = ahead if nesterov else beliefs.shared(zero)
    elif nesterov:
        raise ValueError("sgd: nesterov looks ahead on a momentum; give one.")
    return Assumptions(learning_rate, belief, control.myopic())


@rule(learning_rate=POSITIVE, decay=UNIT_INTERVAL)
def momentum(learning_rate: optax.ScalarOrSchedule, decay: ArrayLike = 0.9) -> Assumptions:
    r"""Gradient descent on a bias-corrected average: $\Delta\theta = -\alpha \hat m$.

    Assumes a gradient that drifts at discount $\beta$ and of which nothing is known at first. The
    heavy ball, ``sgd(momentum=)``, differs from it by its prior and the scale of its learning rate.

    Memory: 1 tree of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        decay: $\beta$ in [0, 1].

    Returns:
        The optimizer, equal to ``optax.ema(decay)`` times the learning rate.

    Example:
        What was seen a step ago counts half, so that the mean of 1 and 4 is 3:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.momentum(0.5, decay=0.5)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for gradient in (jnp.array([1.0, -2.0]), jnp.array([4.0, -2.0])):
        ...     updates, state = optimizer.update(gradient, state)
        >>> print(posterior(state).gradient_mean, updates)
        [ 3. -2.] [-1.5  1. ]
    """
    return Assumptions(learning_rate, level(decay), control.myopic())


@rule(learning_rate=POSITIVE)
def sign_sgd(learning_rate: optax.ScalarOrSchedule) -> Assumptions:
    r"""Sign descent: $\Delta\theta = -\alpha \, \mathrm{sign}(y)$.

    Assumes that the gradient is what was just seen, and undiscounted planning on a second moment
    without memory, $y / \sqrt{y^2}$.

    Memory: 1 tree of the parameters' size.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.

    Returns:
        The optimizer, equal to ``optax.sign_sgd``.

    Example:
        The step has one size, whatever the gradient:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.sign_sgd(0.5)
        >>> updates, state = optimizer.update(jnp.array([8.0, -0.25]), optimizer.init(jnp.zeros(2)))
        >>> print(updates, posterior(state).gradient_mean)
        [-0.5  0.5] [ 8.   -0.25]
    """
    return Assumptions(learning_rate, as_seen(), control.sign())


@rule(learning_rate=POSITIVE, beta=UNIT_INTERVAL)
def signum(learning_rate: optax.ScalarOrSchedule, beta: ArrayLike = 0.9) -> Assumptions:
    r"""Sign descent on an average: $\Delta\theta = -\alpha \, \mathrm{sign}(m)$.

    Assumes what `momentum` assumes of the gradient, and what `sign_sgd` does of the plan. Of the
    prior it only matters that its mean is 0.

    Memory: 1 tree of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        beta: $\beta$ in [0, 1].

    Returns:
        The optimizer, equal to ``optax.signum``.

    Example:
        One large gradient turns the average of the first entry, not that of the second:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.signum(0.5, beta=0.5)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for gradient in (jnp.array([2.0, 2.0]), jnp.array([-4.0, -0.25])):
        ...     updates, state = optimizer.update(gradient, state)
        >>> print(updates, posterior(state).gradient_mean)
        [ 0.5 -0.5] [-2.   0.5]
    """
    return Assumptions(learning_rate, level(beta), control.sign())


@rule(learning_rate=POSITIVE, b1=UNIT_INTERVAL, b2=UNIT_INTERVAL, weight_decay=NON_NEGATIVE)
def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    *,
    weight_decay: optax.ScalarOrSchedule = 1e-3,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> Assumptions:
    r"""Lion: $\Delta\theta = -\alpha (\mathrm{sign}(\beta_1 m_- + (1-\beta_1) y) + \lambda\theta)$.

    Here $m_-$ is the average of discount $\beta_2$ before $y$. The mix of two discounts is the
    forecast of a gradient of which one part stays and another, of correlation
    $\beta_2 - \beta_1$, passes (`beliefs.Transient`): the belief of Nesterov's momentum, which has
    $\beta_1 = \beta_2^2$. The plan is that of `sign_sgd`, and the weights decay as in `adamw`.

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1]; it and $\beta_2$ may not be 0 and 1.
        b2: $\beta_2$ in [0, 1].
        weight_decay: $\lambda$, a number or a schedule, per unit of learning rate.
        mask: tree of booleans, or a callable from parameters to one: which of them decay.

    Returns:
        The optimizer, equal to ``optax.lion``.

    Raises:
        ValueError: of ``b1`` and ``b2`` one is 0 and the other is 1.

    Example:
        The sign of the forecast is taken; where it is 0, only the weight decays:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> params = jnp.array([4.0, 4.0])
        >>> optimizer = rules.lion(0.5, b1=0.5, b2=0.75, weight_decay=0.25)
        >>> updates, state = optimizer.update(jnp.array([8.0, 0.0]), optimizer.init(params), params)
        >>> print(updates, posterior(state).gradient_mean)
        [-1.  -0.5] [4. 0.]
    """
    if isinstance(b1, int | float) and isinstance(b2, int | float) and {b1, b2} == {0, 1}:
        raise ValueError(f"lion: b1 and b2 must not be 0 and 1, got {b1!r} and {b2!r}.")
    return Assumptions(
        learning_rate,
        beliefs.Transient(discount=b2, autocorrelation=(1 - b1) - (1 - b2)),
        control.sign(),
        Decay(weight_decay, mask),
    )
