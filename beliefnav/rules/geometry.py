"""Rules with geometry: a metric on parameters, or a curvature that couples them."""

from typing import Any

import optax
from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.rules._beliefs import APART, LOOK_AHEAD, MOMENT, level
from beliefnav.rules._rule import Assumptions, rule

__all__ = ["full_ballistic", "muon", "natural_gradient", "shampoo"]

PyTree = Any


@rule(learning_rate=POSITIVE, b1=UNIT_INTERVAL)
def natural_gradient(
    learning_rate: optax.ScalarOrSchedule, metric: Any, b1: ArrayLike = 0.0
) -> Assumptions:
    r"""Natural gradient descent: $\Delta\theta = -\alpha G(\theta)^{-1} m$.

    Assumes that moving costs what it changes of the model's predictions: the metric is the Fisher
    information. Planning ahead is not worth it, whatever the curvature. `beliefnav.sensors` has
    Fisher matrices: ``fisher`` (exact, for small models), ``fisher_diagonal`` and
    ``fisher_kronecker``.

    Memory: 1 tree of the parameters' size.

    Args:
        learning_rate: $\alpha = \eta k \Delta t / \gamma > 0$, a number or a schedule.
        metric: $G$, see `control.myopic`; most often a callable from parameters to the Fisher
            information, with a multiple of the identity added where that may be singular.
        b1: $\beta_1$ in [0, 1], the discount of a bias-corrected average of the gradient.

    Returns:
        The optimizer. Its ``update`` needs ``params`` if the metric is a callable.

    Reference:
        Amari, "Natural gradient works efficiently in learning", Neural Computation 10 (1998).

    Example:
        The Fisher information of a linear regression is its Hessian, so that a step of 1 solves it:

        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import posterior, rules, sensors
        >>> x, y = jnp.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), jnp.array([6.0, -1.0, 2.0])
        >>> half_squares = lambda errors: jnp.sum(errors**2) / 2
        >>> predict = lambda weights: (x @ weights)[:, None]
        >>> fisher = lambda weights: sensors.fisher(predict, half_squares, weights)
        >>> optimizer = rules.natural_gradient(1.0, fisher)
        >>> weights = jnp.zeros(2)
        >>> gradient = jax.grad(lambda weights: half_squares(x @ weights - y))(weights)
        >>> updates, state = optimizer.update(gradient, optimizer.init(weights), weights)
        >>> print([round(x, 3) for x in updates.tolist()], posterior(state).gradient_mean)
        [3.0, -1.0] [-14.  -1.]
    """
    policy = control.myopic(metric)
    return Assumptions(learning_rate, level(b1), policy)


@rule(
    learning_rate=POSITIVE,
    b1=UNIT_INTERVAL,
    b2=UNIT_INTERVAL,
    eps=NON_NEGATIVE,
    eps_root=NON_NEGATIVE,
)
def full_ballistic(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.0,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 0.0,
    eps_root: ArrayLike = 0.0,
) -> Assumptions:
    r"""Full-matrix Adam: $\Delta\theta = -\alpha (V^{1/2} + \epsilon I)^{-1} m$.

    $V$ is the bias-corrected, discounted mean of $y y^\top$ over all parameters. Assumes what
    `adam` assumes, with matrices for numbers; by default, without memory of the gradient. For small
    problems: a matrix over the n raveled parameters is decomposed at every step.

    Memory: 1 tree of the parameters' size, and a matrix [n, n].

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1]; 0: the gradient as it is.
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root. With 0, directions of which nothing was seen do not
            move; otherwise $1/\epsilon$ amplifies in them what rounding leaves of the mean.
        eps_root: $\epsilon_r \ge 0$ inside the root, a curvature floor.

    Returns:
        The optimizer.

    Reference:
        Duchi, Hazan and Singer, "Adaptive Subgradient Methods", JMLR 12 (2011), section 1.1, with
        sums for means.

    Example:
        The first step has the length of the learning rate, whatever that of the gradient:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.full_ballistic(0.5)
        >>> updates, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(jnp.zeros(2)))
        >>> print([round(x, 3) for x in updates.tolist()])
        [-0.3, -0.4]
        >>> print(posterior(state).curvature_mean)
        [[ 9. 12.]
         [12. 16.]]
    """
    return Assumptions(
        learning_rate,
        beliefs.independent(gradient=level(b1), curvature=beliefs.WishartWalk(b2)),
        control.matrix_ballistic(eps, eps_root),
        approximations=(APART, MOMENT),
    )


@rule(learning_rate=POSITIVE, eps=NON_NEGATIVE, b1=UNIT_INTERVAL, b2=UNIT_INTERVAL)
def shampoo(
    learning_rate: optax.ScalarOrSchedule,
    eps: ArrayLike = 1e-4,
    b1: ArrayLike = 0.0,
    b2: ArrayLike = 1.0,
) -> Assumptions:
    r"""Shampoo: $\Delta\theta = -\alpha L^{-1/4} M R^{-1/4}$.

    $L = \epsilon I + \sum Y Y^\top$ and $R = \epsilon I + \sum Y^\top Y$ (`beliefs.KroneckerWalk`).
    Assumes undiscounted planning on the curvature $L^{1/2} \otimes R^{1/2}$, in place of the sum of
    all $y y^\top$ of an array, which for gradients of rank one it bounds from above.

    Memory: 1 tree of the parameters' size, and for each array the two matrices of its sides.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        eps: $\epsilon \ge 0$, what is believed of either factor at first.
        b1: $\beta_1$ in [0, 1], the discount of a bias-corrected average of the gradient.
        b2: $\beta_2$ in [0, 1], the discount of the sums; 1: nothing is forgotten.

    Returns:
        The optimizer.

    Reference:
        Gupta, Koren and Singer, arXiv:1802.09568, algorithm 1.

    Example:
        The rows of this gradient are at right angles. The first step keeps their directions, and
        the left factor of the curvature holds their squared lengths:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.shampoo(0.5, eps=0.0)
        >>> state = optimizer.init(jnp.zeros((2, 2)))
        >>> updates, state = optimizer.update(jnp.array([[3.0, 4.0], [-8.0, 6.0]]), state)
        >>> print([[round(x, 3) for x in row] for row in updates.tolist()])
        [[-0.3, -0.4], [0.4, -0.3]]
        >>> print(posterior(state).curvature_mean.left)
        [[ 25.   0.]
         [  0. 100.]]
    """
    factored = (
        "The matrix of second moments is replaced by the product of those of rows and columns."
    )
    return Assumptions(
        learning_rate,
        beliefs.independent(gradient=level(b1), curvature=beliefs.KroneckerWalk(b2, eps)),
        control.matrix_ballistic(),
        approximations=(APART, MOMENT, factored),
    )


@rule(learning_rate=POSITIVE, beta=UNIT_INTERVAL)
def muon(
    learning_rate: optax.ScalarOrSchedule, beta: ArrayLike = 0.95, *, nesterov: bool = True
) -> Assumptions:
    r"""Muon: $\Delta\theta = -\alpha \, U V^\top$, the polar factor of the mean $U \Sigma V^\top$.

    Assumes undiscounted planning on a one-sided curvature that is read off the mean of the gradient
    itself, $(M M^\top)^{-1/2} M$: `sign_sgd` with matrices for numbers. The factor is exact, by a
    singular value decomposition; the Newton-Schulz iteration with which Muon is known approaches
    it only roughly. A vector is one column, and becomes its direction.

    Memory: 2 trees of the parameters' size; 1 tree without ``nesterov``.

    Args:
        learning_rate: $\alpha = \sqrt{\eta k} \Delta t > 0$, a number or a schedule.
        beta: $\beta$ in [0, 1], the discount of the average.
        nesterov: take the average as it is expected to be at the next step, see `nadam`.

    Returns:
        The optimizer, equal to ``optax.contrib.muon`` for matrices, up to its factor for their
        shape, once its iteration converges.

    Reference:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.

    Example:
        The step keeps the directions of rows at right angles, whatever their lengths:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> optimizer = rules.muon(0.5, nesterov=False)
        >>> state = optimizer.init(jnp.zeros((2, 2)))
        >>> updates, state = optimizer.update(jnp.array([[3.0, 4.0], [-8.0, 6.0]]), state)
        >>> print([[round(x, 3) for x in row] for row in updates.tolist()])
        [[-0.3, -0.4], [0.4, -0.3]]
        >>> print(posterior(state).gradient_mean)
        [[ 3.  4.]
         [-8.  6.]]
    """
    belief = beliefs.LocalLevel(beta)
    return Assumptions(
        learning_rate,
        beliefs.shared(beliefs.look_ahead(belief) if nesterov else belief),
        control.polar(),
        approximations=(LOOK_AHEAD,) if nesterov else (),
    )
