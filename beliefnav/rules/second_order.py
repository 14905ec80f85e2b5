"""Rules that plan on a curvature of their own: learned from gradients, or read by a sensor."""

import optax
from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.objective import Objective
from beliefnav.rules._beliefs import as_seen, level
from beliefnav.rules._rule import Assumptions, rule

__all__ = ["newton", "secant", "sophia_like"]

ALONE = "What the steps of other parameters do to a gradient is noise to it."


@rule(
    learning_rate=POSITIVE,
    discount=POSITIVE,
    noise_variance=POSITIVE,
    gradient_variance=POSITIVE,
    curvature_variance=POSITIVE,
    gradient_drift=NON_NEGATIVE,
    curvature_discount=UNIT_INTERVAL,
    curvature_noise_variance=POSITIVE,
)
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
) -> Assumptions:
    r"""Plan on a curvature that is learned from how the gradient changes as one moves.

    Assumes an `beliefs.Secant` landscape, all of whose variances are in units of a noise variance
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
    ``curvature``, readings of a second sensor (`beliefnav.sensors`), if its noise is given;
    ``optax.MultiSteps`` passes on the reading of the last part of a batch alone.

    The noise is followed with the memory of the curvature, `beliefs.UnknownNoise`, and its prior
    has three degrees of freedom, the fewest whole number at which posterior variances are finite.
    With a ``noise_variance`` it is known; that takes one tree of memory less.

    The priors are in units of the noise, which is a statement about the landscape. The defaults are
    those of gradients of small batches in a network, where curvatures are far smaller than the
    noise: along 1,000 steps of Adam in a network of 16 hidden units on digits, 95 % of the 90 %
    intervals held the diagonal of the Hessian; with variances of 1e4 and 300 only 4 % did, and the
    root mean square error of the curvature was 23 times as large. Where the noise is small the
    defaults are wrong: on parabolas of curvature 1 and 10, seen through noise of the standard
    deviation 0.1, the curvatures lie 10 and 100 standard deviations out, and no interval holds
    them. There, state wide priors, and whether anything drifts: with variances of 1e4 and 3e3 and
    nothing that drifts, 85 % to 95 % of the intervals do, after 200 steps from 1 at a rate of 0.1.

    Memory: 7 trees of the parameters' size; 6 trees with a ``noise_variance``.

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

    Returns:
        The optimizer.

    Example:
        On a parabola with the curvatures 4 and 1, seen through noise of the standard deviation 0.1
        that nobody tells of; the priors are wide, and the curvature does not change:

        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.secant(
        ...     0.1,
        ...     gradient_variance=1e4,
        ...     gradient_drift=0.0,
        ...     curvature_variance=1e3,
        ...     curvature_discount=1.0,
        ... )
        >>> def step(carry, noise):
        ...     params, state = carry
        ...     gradient = jnp.array([4.0, 1.0]) * params + noise
        ...     updates, state = optimizer.update(gradient, state, params)
        ...     return (params + updates, state), None
        >>> params = jnp.array([3.0, -2.0])
        >>> noise = 0.1 * jax.random.normal(jax.random.key(0), (100, 2))
        >>> (params, state), _ = jax.lax.scan(step, (params, optimizer.init(params)), noise)
        >>> print([round(x, 1) for x in posterior(state).curvature_mean.tolist()])
        [4.0, 1.0]
    """
    landscape = beliefs.Secant(
        noise_variance=1.0,
        prior_gradient_variance=gradient_variance,
        prior_curvature_variance=curvature_variance,
        gradient_process_variance=gradient_drift,
        curvature_process_variance=curvature_variance * (1 - curvature_discount),
        curvature_autocorrelation=curvature_discount**0.5,
        curvature_noise_variance=curvature_noise_variance,
    )
    unknown = beliefs.UnknownNoise(
        landscape, prior_degrees_of_freedom=3.0, discount=curvature_discount
    )
    known = None if noise_variance is None else landscape.scaled(noise_variance)
    return Assumptions(
        learning_rate,
        known or beliefs.shared(unknown),
        control.cautious(control.horizon(Objective(discount=discount))),
        approximations=(ALONE,),
    )


@rule(learning_rate=POSITIVE, time_step=POSITIVE, discount=POSITIVE)
def newton(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    time_step: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    *,
    diagonal: bool = False,
) -> Assumptions:
    r"""Newton's method: $\Delta\theta = -\alpha V^{-1} y$, on a curvature that is sensed.

    Assumes that gradient and curvature are what was just seen, and a plan that is followed to its
    end. Where the curvature is not positive there is no end: that direction stays. With a finite
    ``time_step`` the plan, of horizon $1/\gamma$, is followed for that long (exact hold): a saddle
    is then left downhill, at $V = 0$ it is gradient descent, and steps never pass Newton's.

    ``update`` takes the Hessian as ``curvature=``: a matrix [n, n] over the raveled parameters
    (`beliefnav.sensors.hessian`), or, with ``diagonal``, a tree like them. At a step without a
    reading say ``curvature=None``: the last one is used. ``optax.MultiSteps`` passes on the reading
    of the last part of a batch alone.

    Memory: 1 tree of the parameters' size, and a matrix [n, n]; 2 trees with ``diagonal``.

    Args:
        learning_rate: $\alpha > 0$, the share of the way to go, a number or a schedule.
        time_step: $\Delta t > 0$; ``None``: infinite.
        discount: $\gamma > 0$, for a finite time step, in units in which $\eta k = 1$.
        diagonal: sense the diagonal only.

    Returns:
        The optimizer.

    Example:
        One step to the minimum of a parabola, whose Hessian is measured:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import posterior, rules, sensors
        >>> loss = lambda params: 2 * params[0] ** 2 + (params[1] - params[0] - 3.0) ** 2 / 2
        >>> params = jnp.array([1.0, 1.0])
        >>> optimizer = rules.newton()
        >>> updates, state = optimizer.update(
        ...     jax.grad(loss)(params),
        ...     optimizer.init(params),
        ...     params,
        ...     curvature=sensors.hessian(loss, params),
        ... )
        >>> params = optax.apply_updates(params, updates)
        >>> bool(jnp.allclose(params, jnp.array([0.0, 3.0]), atol=1e-5))
        True
        >>> print(posterior(state).curvature_mean)
        [[ 5. -1.]
         [-1.  1.]]
    """
    if time_step is None:
        policy = control.newton() if diagonal else control.matrix_newton()
    else:
        plan = control.horizon if diagonal else control.matrix_horizon
        policy = plan(Objective(discount=discount), time_step, exact_hold=True)
    curvature = beliefs.sensed(level(0.0), dense=not diagonal, required=True)
    return Assumptions(
        learning_rate, beliefs.independent(gradient=as_seen(), curvature=curvature), policy
    )


@rule(
    learning_rate=POSITIVE,
    b1=UNIT_INTERVAL,
    b2=UNIT_INTERVAL,
    time_step=POSITIVE,
    discount=POSITIVE,
)
def sophia_like(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.965,
    b2: ArrayLike = 0.99,
    time_step: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
) -> Assumptions:
    r"""Newton where curved, gradient descent where flat: $\Delta\theta = -\alpha \varphi(V) m$.

    Assumes a gradient that drifts at discount $\beta_1$, a diagonal of the Hessian that drifts at
    discount $\beta_2$ and is read by a sensor, given as ``update(curvature=)`` at the steps at
    which there is a reading, and a plan that is followed for $\Delta t$ (exact hold). Sophia, on
    the same belief, cuts Newton's step off at a fixed size; here it saturates by itself, and a
    saddle is left downhill. ``optax.MultiSteps`` passes on the reading of the last part of a batch
    alone.

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1], per reading.
        time_step: $\Delta t > 0$, in units in which $\eta k = 1$.
        discount: $\gamma > 0$.

    Returns:
        The optimizer.

    Reference:
        Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer", ICLR 2024, algorithm 3.

    Example:
        A curvature of 0 and one of 8 are read, and kept at a step without a reading:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.sophia_like(0.5)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for curvature in (jnp.array([0.0, 8.0]), None):
        ...     gradient = jnp.array([1.0, 1.0])
        ...     updates, state = optimizer.update(gradient, state, curvature=curvature)
        ...     print(posterior(state).curvature_mean, [round(x, 3) for x in updates.tolist()])
        [0. 8.] [-0.5, -0.057]
        [0. 8.] [-0.5, -0.057]
    """
    return Assumptions(
        learning_rate,
        beliefs.independent(gradient=level(b1), curvature=beliefs.sensed(level(b2))),
        control.horizon(Objective(discount=discount), time_step, exact_hold=True),
    )
