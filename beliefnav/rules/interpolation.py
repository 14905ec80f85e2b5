"""One optimizer between many: its assumptions are numbers that can be moved."""

import optax
from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import HALF_OPEN_UNIT, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.objective import Objective
from beliefnav.rules._beliefs import APART, MOMENT, divided, never_clips
from beliefnav.rules._rule import Assumptions, rule

__all__ = ["family"]


@rule(
    learning_rate=POSITIVE,
    b1=HALF_OPEN_UNIT,
    b2=HALF_OPEN_UNIT,
    eps_root=NON_NEGATIVE,
    discount=NON_NEGATIVE,
    time_step=POSITIVE,
    exact_hold=UNIT_INTERVAL,
    prior_weight=UNIT_INTERVAL,
)
def family(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps_root: ArrayLike = 1e-16,
    *,
    discount: ArrayLike = 0.0,
    time_step: ArrayLike = 1.0,
    exact_hold: ArrayLike = 0.0,
    prior_weight: ArrayLike = 0.0,
) -> Assumptions:
    r"""Between gradient descent, Adam and Newton: $\Delta\theta = -\alpha \varphi m / \Delta t$.

    Adam's beliefs and the `control.planning_gain` $\varphi$ of a finite horizon, with the mobility
    $\eta k = 1 + \gamma$, so that both ends have a limit:

    | | rule |
    |---|---|
    | ``discount=0`` | Adam |
    | ... ``prior_weight=1`` | Adam without bias correction |
    | ... ``b1=0, prior_weight=1`` | RMSprop |
    | ``discount`` large | gradient descent on a bias-corrected average |
    | ``exact_hold=1``, ``time_step`` large, $\alpha = \Delta t$ | Newton on the second moment |

    All arguments can be injected (``optax.inject_hyperparams``), so that a path between rules is
    one optimizer, swept under ``vmap`` in one compilation.

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1).
        b2: $\beta_2$ in [0, 1).
        eps_root: $\epsilon_r \ge 0$, a curvature floor.
        discount: $\gamma \ge 0$.
        time_step: $\Delta t > 0$; it matters only with ``exact_hold``.
        exact_hold: in [0, 1], from replanning to holding, see `control.planning_gain`.
        prior_weight: in [0, 1], of the priors that gradient and second moment are 0, as a share of
            $1/(1-\beta)$ observations.

    Returns:
        The optimizer.

    Example:
        Twenty rules from Adam to gradient descent, on one parabola:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import rules
        >>> family = optax.inject_hyperparams(rules.family)
        >>> def train(discount):
        ...     optimizer = family(0.01, discount=discount)
        ...     def step(carry, _):
        ...         params, state = carry
        ...         update, state = optimizer.update(params, state, params)
        ...         return (params + update, state), None
        ...     start = jnp.ones(2), optimizer.init(jnp.ones(2))
        ...     return jax.lax.scan(step, start, None, 10)[0][0]
        >>> reached = jax.jit(jax.vmap(train))(jnp.logspace(-2, 2, 20))
        >>> reached.shape
        (20, 2)
        >>> [round(x, 4) for x in reached[0].tolist()]  # 0.9003 with Adam
        [0.9004, 0.9004]
    """

    def size(discount: ArrayLike) -> ArrayLike:
        if isinstance(discount, int | float):
            return prior_weight / (1 - discount)
        return prior_weight * beliefs.steady_sample_size(discount)

    gradient = beliefs.LocalLevel(b1, prior_sample_size=size(b1))
    curvature = beliefs.PrecisionWalk(b2, prior_degrees_of_freedom=size(b2))
    objective = Objective(rate=1 + discount, discount=discount)
    policy = control.horizon(objective, time_step, exact_hold=exact_hold, eps_root=eps_root)
    return Assumptions(
        divided(learning_rate, time_step),
        beliefs.independent(gradient=beliefs.shared(gradient), curvature=beliefs.shared(curvature)),
        never_clips(policy),
        approximations=(APART, MOMENT),
    )
