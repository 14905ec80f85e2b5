"""The rule of which a person chooses nothing: its rate is a belief, and it averages."""

from typing import Any

from jax.typing import ArrayLike

from beliefnav import beliefs, control
from beliefnav._checks import NON_NEGATIVE, POSITIVE, UNIT_INTERVAL
from beliefnav.rules._beliefs import APART, MOMENT, moments, never_clips
from beliefnav.rules._rule import Around, Assumptions, rule
from beliefnav.wrappers.averaging import iterate_averaging
from beliefnav.wrappers.distance import distance_adaptation

__all__ = ["learning_rate_free"]

PyTree = Any

MEMORY = beliefs.PolynomialLevel(1.0)
"""Weights near $t$, of the last half of the path: the start is forgotten, and noise is averaged."""


@rule(guess=POSITIVE, b1=UNIT_INTERVAL, b2=UNIT_INTERVAL, eps_root=NON_NEGATIVE)
def learning_rate_free(
    guess: ArrayLike = 1e-4,
    prior_scale: PyTree = None,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps_root: ArrayLike = 0.0,
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

    **When it is right.** Nothing is chosen: a loss in another unit, or parameters that are all in
    another, give the same path. It is for networks and for losses that are nearly convex where the
    start is drawn at the scale that is learned at. The first steps look for the distance: on 200
    curvatures 1/i half of it was found after 76 steps, and from a guess of 1e-6 after 119 (means of
    16 seeds). A run should be long beside that.

    **When it is not.** The distance never falls: a ``guess`` that is too large stays, and so does
    what an early, misleading gradient made of it. One distance is believed of all parameters:
    arrays in units of their own want a ``prior_scale``, such as the roots of
    ``beliefs.initial_variance(params)``. On a loss without a minimum the distance grows as long as
    one learns. In fine-tuning the root mean square of the parameters says little of how far they
    have to go. Where gradients are noisy from the first step on and a run takes a few hundred
    steps, a tuned rate is better: on these curvatures the loss after 300 steps was 0.35, and 0.42
    from a guess of 1e-6, where the last iterate of tuned Adam has 0.31.

    **What it costs.** A step, update and apply, takes 1.9 times as long as one of ``optax.adam``,
    and 5 times as long where parameters and state are donated, on 10 million parameters and two
    processor cores (``experiments.benchmarks``); beside a gradient that is less. Devices exchange
    two sums a step.

    **Numbers.** In float32 gradients must lie between 1e-18 and 1e19. A first step, ``guess`` times
    the scale, that is below the resolution of every parameter moves none, and the distance cannot
    grow: parameters in bfloat16 that are all of the order of 1 need a ``guess`` of 1e-2, or float32
    copies.

    Memory: 5 trees of the parameters' size.

    Args:
        guess: $D_0 > 0$, the least distance that is believed possible, in units of ``prior_scale``.
        prior_scale: $r > 0$, a number, or a tree like the parameters, in which one value may stand
            for all arrays below its path. Default: the root of the mean square of all initial
            parameters, and 1 where they are all 0.
        b1: $\beta_1$ in [0, 1].
        b2: $\beta_2$ in [0, 1].
        eps_root: $\epsilon_r \ge 0$, a curvature floor: to differentiate through steps, above 0.
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
        never_clips(control.ballistic(eps_root=eps_root)),
        approximations=(APART, MOMENT),
        around=(
            Around(
                distance_adaptation,
                {"guess": guess, "prior_scale": prior_scale, "discount": b2**0.5},
            ),
            Around(iterate_averaging, {"memory": memory}),
        ),
    )
