"""Rules for tasks that switch: the parameters are pulled to where they started."""

from typing import Any

import optax
from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, refuse_schedule
from beliefnav.drift import Decay
from beliefnav.rules._beliefs import APART, MOMENT, as_seen, moments
from beliefnav.rules._rule import Assumptions, rule
from beliefnav.rules.adaptive import adam

__all__ = ["adam_toward_start", "hazard_filter", "l2_init", "resetting"]

PyTree = Any


@rule(learning_rate=POSITIVE, strength=NON_NEGATIVE)
def l2_init(learning_rate: optax.ScalarOrSchedule, strength: ArrayLike = 1e-2) -> Assumptions:
    r"""Gradient descent on $L + \tfrac12 \ell \, |\theta - \theta_0|^2$: L2-Init.

    Assumes what `sgd` assumes, and a Gaussian prior around the initial parameters. For a strength
    that is derived see `resetting`.

    Memory: 2 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        strength: $\ell \ge 0$.

    Returns:
        The optimizer, equal to ``optax.sgd`` on the penalised loss.

    Reference:
        Kumar, Marklund and Van Roy, "Maintaining Plasticity in Continual Learning via Regenerative
        Regularization", 2023, arXiv:2308.11958 (whose coefficient is $\ell/2$).

    Example:
        Without a gradient, what moved away is pulled back to the start:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> start, params = jnp.array([1.0, 1.0]), jnp.array([5.0, 1.0])
        >>> optimizer = rules.l2_init(0.5, strength=0.25)
        >>> updates, state = optimizer.update(jnp.zeros(2), optimizer.init(start), params)
        >>> print(updates, posterior(state).gradient_mean)
        [-0.5 -0. ] [0. 0.]
    """
    policy = control.penalised(control.myopic(), strength)
    return Assumptions(learning_rate, as_seen(), policy)


@rule(
    learning_rate=POSITIVE,
    b1=UNIT_INTERVAL,
    b2=UNIT_INTERVAL,
    eps=NON_NEGATIVE,
    eps_root=NON_NEGATIVE,
    decay=NON_NEGATIVE,
)
def adam_toward_start(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    decay: optax.ScalarOrSchedule = 1e-2,
) -> Assumptions:
    r"""Adam, and weights that decay toward where they started, by $\alpha\lambda(\theta-\theta_0)$.

    Assumes what `adam` assumes, and a drift toward the initial parameters that the controller does
    not plan for.

    Memory: 3 trees of the parameters' size.

    Args:
        learning_rate: $\alpha > 0$, a number or a schedule.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps: $\epsilon \ge 0$ outside the root.
        eps_root: $\epsilon_r \ge 0$ inside the root: to differentiate through steps, above 0.
        decay: $\lambda$, a number or a schedule, per unit of learning rate.

    Returns:
        The optimizer.

    Example:
        Adam's step, and a share of the way back to the start:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> start, params = jnp.array([1.0, 1.0]), jnp.array([5.0, 1.0])
        >>> optimizer = rules.adam_toward_start(0.5, decay=0.25)
        >>> updates, state = optimizer.update(jnp.array([2.0, 2.0]), optimizer.init(start), params)
        >>> print(updates, posterior(state).curvature_mean)
        [-1.  -0.5] [4. 4.]
    """
    inner = adam.assumptions(learning_rate, b1, b2, eps, eps_root)
    return inner._replace(drift=Decay(decay, toward_start=True))


@rule(
    learning_rate=POSITIVE,
    hazard=NON_NEGATIVE,
    b1=UNIT_INTERVAL,
    b2=UNIT_INTERVAL,
    discount=NON_NEGATIVE,
)
def resetting(
    learning_rate: optax.ScalarOrSchedule,
    hazard: ArrayLike = 1e-3,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    discount: ArrayLike = 0.1,
) -> Assumptions:
    r"""Plan for an optimum that may be drawn anew: weights are reset the more, the flatter.

    Assumes Adam's beliefs, a plan of horizon $1/\gamma$, and optima that switch at the rate
    $\lambda$ to new ones around the initial parameters (`control.resetting`). Without a hazard it
    is Adam at $\gamma = 0$ and gradient descent at large $\gamma$.

    The plan needs a curvature, which a squared gradient is not: in a network that fits its task it
    vanishes, and nothing holds. On 40 tasks of random labels (digits, 800 steps each, a learning
    rate and a discount of 0.03, 2 seeds) the online accuracy in the last 3 tasks is 0.45 and 0.15
    with a hazard of 0.3, and 0.13 with 0.2. The same plan on a reading of the Gauss-Newton matrix
    (`beliefnav.sensors.gauss_newton` in a `beliefs.sensed` curvature) has 0.66 and 0.62 with a
    hazard of 0.06.

    Memory: 3 trees of the parameters' size.

    Args:
        learning_rate: $\alpha = \Delta t > 0$, a number or a schedule.
        hazard: $\lambda \ge 0$, switches per unit of time, in which $\eta k = 1$.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        discount: $\gamma \ge 0$.

    Returns:
        The optimizer.

    Example:
        Without a hazard the first step is Adam's; with one, the flatter parameter stays closer to
        the start:

        >>> import jax.numpy as jnp
        >>> from beliefnav import posterior, rules
        >>> params = jnp.zeros(2)
        >>> for hazard in (0.0, 1.0):
        ...     optimizer = rules.resetting(0.5, hazard, discount=0.0)
        ...     state = optimizer.init(params)
        ...     updates, state = optimizer.update(jnp.array([0.25, 1.0]), state, params)
        ...     print(updates, posterior(state).curvature_mean)
        [-0.5 -0.5] [0.0625 1.    ]
        [-0.1  -0.25] [0.0625 1.    ]
    """
    return Assumptions(
        learning_rate,
        moments(b1, b2),
        control.resetting(hazard, discount),
        approximations=(APART, MOMENT),
    )


@rule(hazard=UNIT_INTERVAL, examples=POSITIVE, prior_mean_rate=UNIT_INTERVAL)
def hazard_filter(
    hazard: ArrayLike | beliefs.HazardGrid = 1e-3,
    prior_variance: PyTree = None,
    *,
    examples: ArrayLike,
    learn_variance: bool = False,
    prior_mean: PyTree = None,
    prior_mean_rate: ArrayLike = 0.0,
) -> Assumptions:
    r"""Go to where the optimum is believed to be, if it is drawn anew now and then.

    $$ m \leftarrow \theta_0 + (1-p)(m - \theta_0), \quad
       v \leftarrow (1-p)^2 v + (1 - (1-p)^2) v_0, \qquad
       \tfrac1v \leftarrow \tfrac1v + \sum_i g_i^2, \quad m \leftarrow m - v \sum_i g_i,
       \quad \theta = m $$

    Assumes optima that are drawn anew around the initial parameters with the hazard $p$ a step, and
    gradients $g_i$ of the negative log-likelihood of examples (`beliefs.FisherOptimum`), and takes
    Newton's plan. There is no learning rate: a parameter of which little was seen, or long ago,
    takes long steps. Without a hazard they shrink as $1/t$; a learner of a stream of tasks then
    learns less and less.

    ``update`` takes the mean gradient of the batch, and ``per_example_grads`` of all or some of its
    examples [example, ...]. Without these $\sum_i g_i^2$ is taken to be $(\sum_i g_i)^2$, whose
    expectation is too large by $B(B-1)$ times the squared mean of a gradient: not at an optimum,
    but far from it, where steps are then too short. So it is for an entry of which the given
    examples say nothing. A reading of the mean square by other means goes into ``curvature``; where
    that is negative or not finite nothing is learned. Under ``optax.MultiSteps`` ``examples``
    counts those of all parts of a batch, and the gradients of examples are those of the last part.

    Nothing but ``examples`` has to be given: the hazard is then 1e-3, and the prior variance that
    of the initial arrays. Both are fixed by default, and can be learned by evidence
    (`beliefs.FisherOptimum`), for which the loss must be in nats. What is learned is right on the
    model, whose parameters are independent of each other: on a noisy quadratic of 200 curvatures
    1/i, from a prior variance of a hundredth of the truth, the loss after 300 steps is 0.32 with a
    variance that is learned and 1.77 with the wrong one, against 0.32 with the right one (20 seeds;
    a hazard of 1e-3). In a network many parameters answer for the same error. The evidence takes
    each of their answers for its own, so that a learned prior variance grows. On digits whose
    labels are drawn anew every 800 steps it costs the ability to learn: the accuracy on new batches
    in the fourth and fifth task is 0.31, against 0.68 with a fixed variance of 4 times the initial
    one (1 seed).

    `beliefnav.sample_params` draws parameters from the belief. ``optax.tree.get(state, name)``
    reads the scalars of `beliefs.FisherOptimumState`: ``switch_probability`` and ``reset_fraction``
    (both $p$, unless the hazard is learned) and ``surprise``.

    **What is left to choose.** $p = 1/(\text{steps a task})$ is right for optima that share
    nothing, and 7 to 20 times too large for networks whose tasks share something. Begin with a
    hazard of 6e-4 and a prior of 4 times the initial variance,
    ``jax.tree.map(lambda v: 4 * v, beliefs.initial_variance(params))``: with the initial variance
    itself (at 1e-3) random labels have 0.47 instead of 0.68, and the ordinary task 0.952 instead
    of 0.972 (1 seed). A larger hazard costs where tasks share much; a smaller one costs plasticity
    on long streams whose tasks share nothing. The table has the online accuracy on digits (the
    fraction correct on a batch before it is learned) in the last 3 tasks, and on the one ordinary
    task in all of it (gradients of examples, 4 times the initial variance; 40 tasks of random
    labels of 800 steps, both of 2 seeds where there are two numbers, else 12 tasks and 1 seed; 10
    tasks of 445 steps of the others, 1 seed; 1,780 steps of the ordinary task, 1 seed):

    | hazard | random labels | two classes swap | permuted pixels | one ordinary task |
    |---|---|---|---|---|
    | 1e-4 | 0.19 | 0.991 | 0.945 | 0.979 |
    | 3e-4 | 0.53, 0.41 | 0.989 | 0.951 | 0.979 |
    | 6e-4 | 0.69, 0.70 | 0.986 | 0.946 | 0.975 |
    | 1e-3 | 0.68, 0.65 | 0.980 | 0.942 | 0.972 |
    | 3e-3 | 0.49 | 0.963 | 0.926 | 0.953 |

    A hazard could also be learned by descending the loss of the next batch, with the derivative of
    the filter for the logarithm of the hazard. Such a prototype (AdaGrad on that logarithm, rates
    of 0.1 to 1, from hazards of 1e-5 to 1e-3) comes within 0.008 of the best of the table where
    tasks share something, from any start and at any rate: 0.991 or 0.992, 0.943 to 0.949, and 0.979
    or 0.980.
    On 40 tasks of random labels it settles at 2e-4, a third of what is best there, and ends at 0.28
    to 0.53 (2 seeds). Plasticity pays many tasks later, which the loss of the next batch does not
    show. The hazard is therefore given.

    `beliefnav.wrappers.two_hypothesis` around this rule with a hazard of 1e-6 keeps the pull small
    while a task lasts, and resets when it ends. It has 0.57 on random labels (0.99 at the end of
    a task, against 0.91 with a hazard of 1e-3 alone; 12 tasks, 1 seed), and 0.92 where two classes
    swap or pixels are permuted: it throws away what tasks share. If tasks share nothing and what
    counts is the end of a task, wrap; else do not. `beliefnav.wrappers` compares what there is
    for tasks that switch.

    **Around it.** ``optax.inject_hyperparams`` gives the hazard a schedule, and ``optax.masked`` or
    ``optax.partition`` leaves arrays to other rules. Clip and decay behind this rule: what a step
    really was is measured, so that the belief stays right. A gradient that is clipped in front of
    it is no longer that of a likelihood.

    **A task that is known to begin.** With ``update(..., task_begins=True)``, a boolean that may be
    traced, the task begins with this batch. The parameters go to the start, the variances to those
    of the prior, and nothing is learned from the batch, whose gradient is of parameters of another
    task. A variance, a hazard or a start that is learned stays.

    **A network that diverged.** This rule sees no loss. An entry of a gradient that is not finite
    is missing, so that its parameter is only pulled by the hazard; parameters stay finite. A
    network whose loss is not finite, and whose gradient is not either, so returns to the start at
    the rate $p$ a step: at 1e-3 half of the way takes 693 steps. A
    `beliefnav.wrappers.two_hypothesis` with a hazard of 0 around it resets at once.

    **Batches of unequal size.** ``update(..., examples=n)`` is the number of examples of this
    batch. The gradient is then their mean, and ``curvature`` the mean of their squared gradients;
    ``per_example_grads`` without those of padded examples, which would count as gradients of zero.
    Without ``examples=`` the same comes of gradients that are divided by ``examples`` in every
    batch: divide the sums over the examples that are there, and give padded ones a gradient of
    zero. Tokens are examples where the loss is a mean over tokens, whose gradients are then taken
    to be independent. Where those of a sequence say the same, take a sequence for an example, and
    its loss for the sum over its tokens.

    Memory: 4 trees of the parameters' size.

    Args:
        hazard: $p$ in [0, 1], per step; or a `beliefs.HazardGrid`, to learn it from readings of the
            curvature (``per_example_grads`` or ``curvature``); without these it stays as it was.
            The evidence multiplies over all entries and takes those of a network for independent,
            so that it may find switches where there are none. On ordinary digits the hazard falls
            to 3e-5 a step; on digits with random labels it rises to 0.13, and the accuracy stays at
            0.12 (1 seed each). For networks give a number.
        prior_variance: $v_0 > 0$, a number, an array or a tree like the parameters, in which one
            value may stand for all arrays below its path. Default: the variance of the entries of
            each initial array (`beliefs.initial_variance`, which says what of arrays whose entries
            are all the same).
        examples: $B > 0$, the number of examples that a gradient is the mean of.
        learn_variance: whether the prior variance is learned, one number for each array, with
            ``prior_variance`` as its start. In ``jax.shard_map`` each device would learn a prior
            variance and a hazard of its own: learn them outside of it.
        prior_mean: $\theta_0$, a tree like the parameters. Default: the parameters at ``init``.
            After a resume from parameters alone give the initial ones, which nothing else tells:
            ``init`` would take what is learned for the start. The state keeps the start:
            ``previous_params`` minus ``position`` (``optax.tree.get``), so that a resume from
            parameters and state needs nothing.
        prior_mean_rate: $\kappa$ in [0, 1]: the start follows the belief by
            $\kappa p (m - \theta_0)$ a step, with a memory of $1/\kappa$ tasks of the mean
            length $1/p$. At 0 it stays. A rate of 0.03 makes up for a hazard that is too large, and
            not for one that is too small: in the last 3 of 40 tasks of random labels it has 0.71
            and 0.72 at 1e-3 (with 0: 0.68 and 0.65), 0.68 and 0.67 at 6e-4 (0.69 and 0.70), 0.46
            and 0.36 at 3e-4 (0.53 and 0.41; 2 seeds). With 0.3 the start becomes one that cannot
            learn: 0.31 and 0.19 at 1e-3. On permuted pixels, permuted labels and two classes that
            swap names 0.03 differs from 0 by 0.002 at most.

    Returns:
        The optimizer.

    Raises:
        ValueError: ``prior_variance`` is not positive; at ``init``, it or ``prior_mean`` does not
            fit the parameters; at ``update``, ``params`` is missing or ``per_example_grads`` do not
            fit the gradient. The error names it.
        TypeError: ``hazard`` is a schedule; ``optax.inject_hyperparams`` takes those.

    Reference:
        The diagonal extended Kalman filter with the empirical Fisher information as curvature;
        Ollivier (2018), "Online natural gradient as a Kalman filter", theorem 2, for a hazard of 0.

    Example:
        Two tasks, one after the other, and nobody says when:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import rules, sample_params
        >>> loss = lambda weights, x, y: (x @ weights - y) ** 2 / 2  # of one example, in nats
        >>> optimizer = rules.hazard_filter(0.001, prior_variance=1.0, examples=8)
        >>> @jax.jit
        ... def step(weights, state, x, y):
        ...     grads = jax.vmap(jax.grad(loss), (None, 0, 0))(weights, x, y)
        ...     updates, state = optimizer.update(
        ...         grads.mean(0), state, weights, per_example_grads=grads
        ...     )
        ...     return optax.apply_updates(weights, updates), state
        >>> weights = jnp.zeros(2)
        >>> state = optimizer.init(weights)
        >>> for truth in (jnp.array([1.0, -1.0]), jnp.array([-1.0, 1.0])):
        ...     for key in jax.random.split(jax.random.key(0), 1000):
        ...         x, noise = jnp.split(jax.random.normal(key, (8, 3)), [2], axis=1)
        ...         weights, state = step(weights, state, x, x @ truth + noise[:, 0])
        ...     print(bool(jnp.all(jnp.abs(weights - truth) < 0.2)))
        True
        True
        >>> sample_params(state, jax.random.key(1)).shape
        (2,)
    """
    refuse_schedule("rules.hazard_filter", "hazard", hazard)
    POSITIVE.check_leaves("hazard_filter", "prior_variance", prior_variance)
    if not isinstance(learn_variance, bool):
        raise TypeError(
            f"hazard_filter: learn_variance must be True or False, got {learn_variance!r}."
        )
    return Assumptions(
        1.0,
        beliefs.FisherOptimum(
            hazard, examples, prior_variance, learn_variance, prior_mean, prior_mean_rate
        ),
        control.to_optimum(),
        approximations=(
            "The loss is a negative log-likelihood, and its curvature is taken for the variance of "
            "the gradient of one example, as it is on average where the model is right.",
            "Parameters are believed to be independent of each other.",
            "Optima that are drawn anew are followed by the best linear filter of them.",
        ),
    )
