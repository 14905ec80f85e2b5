r"""The navigation objective: what moving costs, and how far ahead it is worth looking.

A learning rule is the optimal policy of

$$ J = E \int_0^\infty \Bigl( \tfrac{1}{2\eta} (\dot\theta - f(\theta))^\top G(\theta)
       (\dot\theta - f(\theta)) + k \, \hat L_t(\theta) \Bigr) e^{-\gamma t} \, dt, $$

where $\hat L_t$ is the expected loss under the learner's belief at time $t$.

Reference:
    Vastola, Gershman, Rajan, "Gradient Descent as Loss Landscape Navigation", NeurIPS 2025,
    arXiv:2510.26997.
"""

from typing import Any, NamedTuple

from jax.typing import ArrayLike

from beliefnav._checks import NON_NEGATIVE, POSITIVE, checked


@checked(rate=POSITIVE, gain=POSITIVE, discount=NON_NEGATIVE)
class Objective(NamedTuple):
    r"""The constants and fields of the navigation objective $J$ (see the module docstring).

    Time is measured in the units of ``control.horizon``'s ``time_step``, most simply in steps.

    Attributes:
        rate: $\eta > 0$, the mobility: $1/\eta$ is the mass, the price of moving.
        gain: $k > 0$, the weight of the loss.
        discount: $\gamma \ge 0$ per unit time; $1/\gamma$ is the planning horizon. $\gamma \to
            \infty$ is myopic (gradient descent), $\gamma \to 0$ ballistic (the root in Adam).
        metric: $G(\theta)$, the geometry of parameter space: ``None`` (identity), a tree like the
            parameters (diagonal, positive), or a callable from parameters to a positive matrix.
        drift: $f(\theta)$, movement that is not under control: ``None`` or a callable from
            parameters to a velocity tree.

    Raises:
        ValueError: ``rate`` or ``gain`` is not positive, or ``discount`` is negative (checked when
            they are Python numbers).
    """

    rate: ArrayLike = 1.0
    gain: ArrayLike = 1.0
    discount: ArrayLike = 1.0
    metric: Any = None
    drift: Any = None
