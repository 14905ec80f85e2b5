r"""Rules of variational inference, whose curvature is read by a second sensor.

Variational inference looks for the Gaussian $N(\theta, \Sigma)$ over parameters that is nearest to
the Bayesian posterior. Its natural-gradient updates are Newton steps on a belief: the mean moves by
the believed Newton step, the precision is the believed curvature. What makes them Bayesian is where
gradient and curvature are looked at: at parameters drawn from the Gaussian
(`beliefnav.sensors.perturbed`).

Khan and Rue derive these rules, and many others of this library (RMSprop and Adam among them), from
one natural-gradient step on a variational objective, without a plan and without a belief that is
filtered. A rule that both accounts have is no evidence for one against the other.

Reference:
    Khan and Rue, "The Bayesian Learning Rule", JMLR 24 (2023), arXiv:2107.04562.
"""

import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import FINITE, LEFT_OPEN_UNIT, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.rules._beliefs import as_seen, level
from beliefnav.rules._rule import Assumptions, rule

__all__ = ["bayesian_learning_rule", "ivon", "von"]

UPHILL = "Where the precision is not positive, the plan stays, and the rule would go uphill."


@rule(learning_rate=POSITIVE, b2=UNIT_INTERVAL, prior_precision=NON_NEGATIVE, hess_init=FINITE)
def von(
    learning_rate: optax.ScalarOrSchedule,
    b2: ArrayLike = 0.999,
    prior_precision: ArrayLike = 1e-4,
    hess_init: ArrayLike = 1.0,
) -> Assumptions:
    r"""Variational online Newton, with a diagonal Gaussian.

    $$ h \leftarrow \beta_2 h + (1-\beta_2) c, \qquad
       \Delta\theta = -\alpha \frac{y + \delta\theta}{h + \delta} $$

    with a reading $c$ of the curvature. Assumes that the gradient is what was just seen, a
    curvature that drifts, a known prior $N(0, 1/\delta)$, and Newton's plan, which stays where
    noise has made $h + \delta$ negative (the rule itself goes uphill there; see `ivon`).

    ``update`` takes the reading as ``curvature=``, see `beliefnav.sensors.perturbed`;
    ``optax.MultiSteps`` passes on that of the last part of a batch alone.

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b2: $\beta_2$ in [0, 1].
        prior_precision: $\delta \ge 0$, in units of the curvature of the mean loss.
        hess_init: $h_0$, worth $1/(1-\beta_2)$ readings.

    Returns:
        The optimizer.

    Reference:
        Khan et al., "Fast and Scalable Bayesian Deep Learning by Weight-Perturbation in Adam",
        ICML 2018, arXiv:1806.04854, equation (8), where one number is the rate of both.

    Example:
        Half of what is believed of the curvature is its prior, 1, half a reading of 3; the prior of
        the parameters adds 2 to it, and $2 \theta$ to the gradient:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> params = jnp.array([1.0, -1.0])
        >>> optimizer = rules.von(0.5, b2=0.5, prior_precision=2.0)
        >>> gradient, reading = jnp.array([2.0, 0.0]), jnp.array([3.0, 3.0])
        >>> updates, state = optimizer.update(
        ...     gradient, optimizer.init(params), params, curvature=reading
        ... )
        >>> print(updates, posterior(state).curvature_mean)
        [-0.5   0.25] [2. 2.]
    """
    curvature = beliefs.LocalLevel(
        b2, prior_mean=hess_init, prior_sample_size=beliefs.steady_sample_size(b2)
    )
    return Assumptions(
        learning_rate,
        beliefs.independent(
            gradient=as_seen(), curvature=beliefs.sensed(beliefs.shared(curvature))
        ),
        control.penalised(control.newton(), prior_precision, around_start=False),
        approximations=(UPHILL,),
    )


@rule(
    learning_rate=POSITIVE,
    b1=UNIT_INTERVAL,
    b2=UNIT_INTERVAL,
    prior_precision=POSITIVE,
    hess_init=POSITIVE,
)
def ivon(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99999,
    prior_precision: ArrayLike = 1e-4,
    hess_init: ArrayLike = 1.0,
) -> Assumptions:
    r"""Improved variational online Newton (IVON), with a diagonal Gaussian.

    $$ \Delta\theta = -\alpha \frac{\hat m + \delta\theta}{h + \delta}, $$

    with the bias-corrected average $\hat m$ of gradients at perturbed parameters and an average
    $h$ of readings of the curvature that keeps $h + \delta$ positive (`beliefs.RetractedLevel`).
    Assumes a gradient that drifts, a curvature that drifts and is positive, a known prior
    $N(0, 1/\delta)$, and Newton's plan.

    ``update`` takes the reading as ``curvature=``; ``optax.MultiSteps`` passes on that of the last
    part of a batch alone.

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        prior_precision: $\delta > 0$, in units of the curvature of the mean loss: IVON's weight
            decay.
        hess_init: $h_0$.

    Returns:
        The optimizer.

    Reference:
        Shen et al., "Variational Learning is Effective for Large Deep Networks", ICML 2024,
        arXiv:2402.17641, algorithm 1. Implementations often multiply the learning rate by
        $h_0 + \delta$; here it is as given.

    Example:
        The Gaussian over parameters has the variance $1 / (N (h + \delta))$ for N examples:

        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import posterior, rules, sensors
        >>> loss = lambda params: jnp.sum(params**2)  # the mean loss of 100 examples
        >>> optimizer = rules.ivon(0.1, b2=0.99, prior_precision=1e-2)
        >>> params = jnp.ones(3)
        >>> state = optimizer.init(params)
        >>> @jax.jit
        ... def step(params, state, key):
        ...     scale = (100 * (posterior(state).curvature_mean + 1e-2)) ** -0.5
        ...     gradient, curvature = sensors.perturbed(loss, params, scale, key)
        ...     update, state = optimizer.update(gradient, state, params, curvature=curvature)
        ...     return params + update, state
        >>> for key in jax.random.split(jax.random.key(0), 100):
        ...     params, state = step(params, state, key)
        >>> bool(jnp.all(jnp.abs(params) < 0.1))
        True
    """
    retracted = "The average of the curvature is kept positive by a step to second order."
    return Assumptions(
        learning_rate,
        beliefs.independent(
            gradient=level(b1),
            curvature=beliefs.sensed(beliefs.RetractedLevel(b2, hess_init, margin=prior_precision)),
        ),
        control.penalised(control.newton(), prior_precision, around_start=False),
        approximations=(retracted,),
    )


@rule(learning_rate=LEFT_OPEN_UNIT, prior_precision=NON_NEGATIVE)
def bayesian_learning_rule(
    learning_rate: float | Array, prior_precision: ArrayLike = 1e-4
) -> Assumptions:
    r"""The Bayesian learning rule for a Gaussian with a full covariance.

    $$ S \leftarrow (1-\rho) S + \rho (H + \delta I), \qquad
       \Delta\theta = -\rho S^{-1} (y + \delta\theta), $$

    $S$ the precision of the mean loss, $S_0 = \delta I$. Assumes a matrix of curvature that drifts
    as fast as one steps, a known prior $N(0, I/\delta)$, and Newton's plan, which stays in the
    directions in which $S$ is not positive (the rule itself goes uphill there). At $\rho = 1$ it is
    Newton's method, and on a quadratic loss the posterior after one step.

    ``update`` takes the Hessian [n, n] as ``curvature=``; with `beliefnav.sensors.hessian` at the
    mean itself it is the Laplace approximation that follows. ``optax.MultiSteps`` passes on the
    reading of the last part of a batch alone.

    Memory: 1 tree of the parameters' size, and a matrix [n, n].

    Args:
        learning_rate: $\rho$ in (0, 1], a number: the rate of mean and precision.
        prior_precision: $\delta \ge 0$, in units of the curvature of the mean loss.

    Returns:
        The optimizer.

    Reference:
        Khan and Rue, "The Bayesian Learning Rule", JMLR 24 (2023), arXiv:2107.04562, equation (12).

    Example:
        A loss $3 \theta^2/2 - 8 \theta$ and a prior of precision 1 have a posterior of the mean
        8 / (3 + 1):

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> params = jnp.zeros(1)
        >>> optimizer = rules.bayesian_learning_rule(1.0, prior_precision=1.0)
        >>> updates, state = optimizer.update(
        ...     3 * params - 8, optimizer.init(params), params, curvature=jnp.array([[3.0]])
        ... )
        >>> print(updates, posterior(state).curvature_mean)
        [2.] [[3.]]
    """
    curvature = beliefs.LocalLevel(1 - learning_rate, prior_sample_size=1 / learning_rate)
    return Assumptions(
        learning_rate,
        beliefs.independent(
            gradient=as_seen(), curvature=beliefs.sensed(beliefs.shared(curvature), dense=True)
        ),
        control.penalised(control.matrix_newton(), prior_precision, around_start=False),
        approximations=(UPHILL,),
    )
