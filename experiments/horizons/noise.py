r"""Where a past displacement comes in: through what the learner does not know.

*Noise.* An optimum walks at random, $\theta^*_{t+1} = \theta^*_t + N(0, q)$, on a quadratic of
known curvature $h$, and a gradient is read through noise, $y_t = h(\theta_t - \theta^*_t) +
N(0, R)$. That is a linear-quadratic Gaussian (LQG) problem: the optimal policy is the plan for a
known optimum, $\Delta\theta = -K(\theta - \theta^*)$, applied to the mean of the Kalman filter.
With the filter's gain $G$,

$$ \Delta\theta_t = (1 - G)(1 - K) \, \Delta\theta_{t-1} - \frac{KG}{h} \, y_t : $$

the coefficient of the past displacement, given $\theta_t$ and $y_t$, is the memory $1 - G$ of the
filter times the part $1 - K$ of the way that a step leaves. It vanishes with the noise, at which
$G = 1$. Three numbers are compared with it, none of which knows it: the coefficient of the cheapest
linear recursion $\Delta\theta_t = -a y_t + b \Delta\theta_{t-1}$, found by search on its exact
long-run cost (`experiments.lqg`); that of a regression on steps of `beliefnav.navigator`; and the
$G$ and $K$ of a solver of Riccati equations.

*Unknown curvature.* Quadratics have curvatures drawn from a log-normal, of which the learner is not
told. Its second displacement is regressed on the present reading (odd powers up to the fifth) and
on its first displacement, over all problems: the learner is the same in all, so that a policy
without memory would leave the first displacement nothing to explain. A learner that is told that
the curvature is 1, where it is, is the control.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from beliefnav import Objective, beliefs, control, navigator
from experiments import lqg

CURVATURE, TIME_STEP, PROCESS = 1.0, 0.3, 0.01
"""$h$, the time between two steps, and the variance $q$ of the walk of the optimum."""
NOISES = tuple(float(x) for x in 10.0 ** np.arange(-6, 3))
"""$R$, in units of $h^2$."""
BURN_IN = 300
DISPERSION = 0.5
"""Standard deviation of the unknown curvature, over its mean 1."""
CERTAIN = 1e-10
"""Variance of a curvature that is known."""


class Coefficients(NamedTuple):
    """Partial coefficients of the past displacement, given position and reading [noise].

    Attributes:
        memory: $1 - G$ of the filter.
        predicted: $(1 - G)(1 - K)$, with the $K$ of the cheapest plan in discrete time.
        searched: $b$ of the cheapest linear recursion.
        predicted_of_navigator: $(1 - G)(1 - K)$, with the $K$ of `beliefnav.control.horizon`.
        regressed: on steps of `beliefnav.navigator`.
    """

    memory: np.ndarray
    predicted: np.ndarray
    searched: np.ndarray
    predicted_of_navigator: np.ndarray
    regressed: np.ndarray


def with_known_curvature(steps: int, seed: int) -> Coefficients:
    """All coefficients, for every noise of `NOISES`."""
    problems = [lqg.Problem(CURVATURE, r, PROCESS, 1.0, TIME_STEP) for r in NOISES]
    memory = np.array([1 - lqg.filter_gain(problem) for problem in problems])
    best, _ = lqg.planned(problems[0])  # the noise is no matter of the plan
    planned = control.planning_gain(
        CURVATURE, rate=1.0, gain=1.0, discount=0.0, time_step=TIME_STEP
    )
    followed = jax.jit(jax.vmap(lambda r, key: _regressed(r, key, steps)))
    keys = jax.random.split(jax.random.key(seed), len(NOISES))
    return Coefficients(
        memory,
        memory * (1 - best),
        np.array([lqg.cheapest(problem)[1] for problem in problems]),
        memory * (1 - float(planned.gain) * CURVATURE),
        np.asarray(followed(jnp.asarray(NOISES), keys)),
    )


def _regressed(noise: Array, key: Array, steps: int) -> Array:
    """The coefficient of the past displacement in a regression on a navigator's steps."""
    belief = beliefs.Optimum(CURVATURE, noise, 1.0, process_variance=PROCESS)
    optimizer = navigator(1.0, belief, control.horizon(Objective(discount=0.0), TIME_STEP))

    def step(carry: Any, now: Array) -> tuple[Any, tuple[Array, Array, Array]]:
        params, optimum, state = carry
        y = CURVATURE * (params - optimum) + jnp.sqrt(noise) * now[:1]
        update: Any
        update, state = optimizer.update(y, state, params)
        optimum = optimum + jnp.sqrt(PROCESS) * now[1:]
        return (params + update, optimum, state), (params, y, update)

    start = jnp.zeros(1)
    draws = jax.random.normal(key, (steps, 2))
    _, seen = lax.scan(step, (start, start, optimizer.init(start)), draws)
    params, y, moved = (x[BURN_IN:, 0] for x in seen)
    design = jnp.stack([params[1:], y[1:], moved[:-1]], 1)
    return jnp.linalg.lstsq(design, moved[1:])[0][2]


class Unknown(NamedTuple):
    """The second displacement of a learner on quadratics, for every noise.

    Attributes:
        coefficient: of the first displacement, given the reading [noise].
        share: of the variance that only the first displacement explains [noise].
    """

    coefficient: np.ndarray
    share: np.ndarray


def second_moves(problems: int, seed: int) -> dict[str, Unknown]:
    """Of a learner that is not told the curvature, and of one that is."""

    def moves(noise: Array, dispersion: Array) -> tuple[Array, Array, Array]:
        keys = jax.random.split(jax.random.key(seed), 4)
        spread = jnp.sqrt(jnp.log1p(dispersion**2))
        curvature = jnp.exp(spread * jax.random.normal(keys[0], (problems,)) - spread**2 / 2)
        gradient = jax.random.normal(keys[1], (problems,))
        belief = beliefs.positive(
            beliefs.Secant(
                noise_variance=noise,
                prior_gradient_variance=jnp.ones(()),
                prior_curvature_mean=jnp.ones(()),
                prior_curvature_variance=jnp.maximum(dispersion**2, CERTAIN),
            )
        )
        optimizer = navigator(1.0, belief, control.horizon(Objective(discount=0.0), TIME_STEP))
        start = jnp.zeros(problems)
        state, params, y = optimizer.init(start), start, start
        moved: list[Any] = []
        for key in keys[2:]:
            y = (
                gradient
                + curvature * params
                + jnp.sqrt(noise) * jax.random.normal(key, (problems,))
            )
            update: Any
            update, state = optimizer.update(y, state, params)
            params = params + update
            moved.append(update)
        return y, moved[0], moved[1]

    run = jax.jit(moves)
    said = {}
    for name, dispersion in (("unknown curvature", DISPERSION), ("known curvature", 0.0)):
        pairs = [regression(*map(np.asarray, run(r, dispersion))) for r in NOISES]
        said[name] = Unknown(*map(np.array, zip(*pairs, strict=True)))
    return said


def regression(reading: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The coefficient of the first displacement in the second, and its share of the variance."""
    given = np.stack([reading, reading**3, reading**5], 1)
    left_second, left_first = (x - given @ np.linalg.lstsq(given, x)[0] for x in (second, first))
    coefficient = left_first @ left_second / (left_first @ left_first)
    return float(coefficient), float(coefficient * (left_first @ left_second) / (second @ second))
