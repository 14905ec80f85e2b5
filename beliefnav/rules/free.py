"""The rule of which a person chooses nothing: its rate is a belief, and it averages."""

from typing import Any

from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import POSITIVE, UNIT_INTERVAL
from beliefnav.rules._beliefs import APART, MOMENT, moments, never_clips
from beliefnav.rules._rule import Around, Assumptions, rule
from beliefnav.wrappers.averaging import iterate_averaging
from beliefnav.wrappers.distance import distance_adaptation

__all__ = ["learning_rate_free"]

PyTree = Any

MEMORY = beliefs.PolynomialLevel(1.0)
"""Weights near $t$, of the last half of the path: the start is forgotten, and noise is averaged."""


@rule(b1=UNIT_INTERVAL, b2=UNIT_INTERVAL, guess=POSITIVE)
def learning_rate_free(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    guess: ArrayLike = 1e-4,
    prior_scale: PyTree = None,
    memory: beliefs.Belief = MEMORY,
) -> Assumptions:
    r"""Adam without a learning rate, and the average of its iterates: the rule to try first.

    $$ \theta \leftarrow \theta - \hat D \, r \, \hat m / \sqrt{\hat v} , \qquad
       \hat D = \max_t \frac{N_t}{\sum_i r_i |s_{t,i}|} , \quad
       s_t = \beta s_{t-1} + \hat D_t^2 g_t , \quad
       N_t = \beta N_{t-1} + \hat D_t^2 \langle g_t, \theta_0 - \theta_t \rangle , \quad
       \beta = \sqrt{\beta_2} . $$

    ``beliefnav.optimum(state, params)`` is what to evaluate; the parameters are where gradients are
    taken.

    Assumes what `adam` assumes, with no floor on the curvature, and that the optimum is as far from
    the initial parameters as is possible at least, in units of the price of moving
    (`beliefnav.wrappers.distance`: $\hat D$ is the mode of the posterior of that distance under a
    prior without a scale, on a convex loss; Prodigy's estimate). The iterates are readings of the
    optimum, which are averaged with weights near t.

    Memory: 5 trees of the parameters' size.

    Args:
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        guess: $D_0 > 0$, the least distance that is believed possible, in units of ``prior_scale``.
        prior_scale: $r > 0$, a number, or a tree like the parameters, in which one value may stand
            for all arrays below its path. Default: the root of the mean square of all initial
            parameters, and 1 where they are all 0.
        memory: of the average; see `beliefnav.wrappers.iterate_averaging`.

    Returns:
        The optimizer.

    Reference:
        Mishchenko and Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", ICML
        2024.

    Example:
        The same call, whatever the scale of loss and optimum:

        >>> import jax, jax.numpy as jnp, optax
        >>> from beliefnav import optimum, rules
        >>> optimizer = rules.learning_rate_free()
        >>> for scale in (1.0, 1e3):
        ...     params = jnp.zeros(2)
        ...     state = optimizer.init(params)
        ...     for key in jax.random.split(jax.random.key(0), 1000):
        ...         gradient = params - scale * (1 + jax.random.normal(key, (2,)))
        ...         updates, state = optimizer.update(gradient, state, params)
        ...         params = optax.apply_updates(params, updates)
        ...     print(jnp.abs(optimum(state, params) / scale - 1).max() < 0.15)
        True
        True
    """
    return Assumptions(
        1.0,
        moments(b1, b2),
        never_clips(control.ballistic()),
        approximations=(APART, MOMENT),
        around=(
            Around(
                distance_adaptation,
                {"guess": guess, "prior_scale": prior_scale, "discount": b2**0.5},
            ),
            Around(iterate_averaging, {"memory": memory}),
        ),
    )
