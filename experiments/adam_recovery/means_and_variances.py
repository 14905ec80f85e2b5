r"""Plan on the mean of the curvature, or average plans over it? On quadratics and on a network.

Three policies on the same belief: `beliefnav.control.horizon`, which is certainty-equivalent and
plans on $\varphi(E[V])$; ``averaged(horizon)``, $E[\varphi(V)]$; ``cautious(horizon)``, which plans
on $\sqrt{E[V^2]}$. Since $\varphi$ is convex and falling, cautious steps are the smallest and
averaged steps the largest.

On quadratics the curvature is log-normal with mean 1, the gradient at the start is standard normal,
and each policy pays what the objective says: the price of its steps and the loss, discounted. The
belief is a secant with the right mean and variance, read as positive. Costs are compared with that
of a learner who is told the curvature.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from tqdm import tqdm

from beliefnav import Objective, beliefs, control, navigator, rules
from experiments.adam_recovery.config import Config
from experiments.training import make_problem, train

PLANS = ("certainty-equivalent", "averaged", "cautious")
DISPERSIONS = (0.1, 0.25, 0.5, 1.0)
"""Coefficients of variation of the curvature."""
CERTAIN = 1e-8
"""Variance of a curvature that is known."""
DISCOUNT, TIME_STEP, MOVES = 0.1, 1.0, 50
NOISES = (1e-4, 1e-2, 1.0)
"""Of a reading, in units of the variance of the gradient at the start."""
HIDDEN, BATCH_SIZE = (32,), 64
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


def make_policy(index: Any, exact_hold: bool) -> control.Policy:
    """The policy at an index of `PLANS`, which may be traced: all of them compile once."""
    plan = control.horizon(Objective(discount=DISCOUNT), TIME_STEP, exact_hold=exact_hold)
    steps = [policy.step for policy in (plan, control.averaged(plan), control.cautious(plan))]
    return control.Policy(lambda posterior, params: lax.switch(index, steps, posterior, params))


class Costs(NamedTuple):
    """What the policies pay on quadratics, beyond a learner who is told the curvature.

    Attributes:
        dispersions: coefficients of variation of the curvature.
        noises: variances of a reading.
        excess: plan -> relative excess of the mean cost [dispersion, noise].
        versus: plan -> the mean difference to the certainty-equivalent one, in the same unit
            [dispersion, noise].
        error: plan -> its standard error [dispersion, noise].
        cheaper: plan -> fraction of problems on which it pays less than the certainty-equivalent
            one [dispersion, noise].
    """

    dispersions: Sequence[float]
    noises: Sequence[float]
    excess: dict[str, np.ndarray]
    versus: dict[str, np.ndarray]
    error: dict[str, np.ndarray]
    cheaper: dict[str, np.ndarray]


def on_quadratics(key: Array, num_problems: int, quick: bool = False) -> Costs:
    """Follow every policy on the same quadratics, with the same noise."""

    @jax.jit
    def cost(index: Any, told: Any, dispersion: Any, noise: Any) -> Array:
        spread = jnp.sqrt(jnp.log1p(dispersion**2))
        keys = jax.random.split(key, 3)
        curvature = jnp.exp(spread * jax.random.normal(keys[0], (num_problems,)) - spread**2 / 2)
        gradient = jax.random.normal(keys[1], (num_problems,))
        secant = beliefs.Secant(
            noise_variance=noise,
            prior_gradient_variance=jnp.ones(()),
            prior_curvature_mean=jnp.where(told, curvature, 1),
            prior_curvature_variance=jnp.where(told, CERTAIN, dispersion**2),
        )
        optimizer = navigator(1.0, beliefs.positive(secant), make_policy(index, exact_hold=True))
        return follow(optimizer, curvature, gradient, noise, keys[2])

    dispersions = DISPERSIONS[2:] if quick else DISPERSIONS
    tables = Costs(
        dispersions,
        NOISES,
        *({name: np.zeros((len(dispersions), len(NOISES))) for name in PLANS} for _ in range(4)),
    )
    for i, dispersion in enumerate(tqdm(dispersions, desc="quadratics")):
        for j, noise in enumerate(NOISES):
            best = np.asarray(cost(0, True, dispersion, noise), float)
            each = {
                name: np.asarray(cost(k, False, dispersion, noise), float)
                for k, name in enumerate(PLANS)
            }
            for name, paid in each.items():
                versus = (paid - each[PLANS[0]]) / best.mean()
                tables.excess[name][i, j] = paid.mean() / best.mean() - 1
                tables.versus[name][i, j] = versus.mean()
                tables.error[name][i, j] = versus.std() / np.sqrt(num_problems)
                tables.cheaper[name][i, j] = np.mean(paid < each[PLANS[0]])
    return tables


def follow(optimizer: Any, curvature: Array, gradient: Array, noise: Any, key: Array) -> Array:
    """Discounted price of the steps and loss above its minimum [problem].

    Args:
        optimizer: of parameters that start at 0.
        curvature: of the quadratics [problem].
        gradient: at the start [problem].
        noise: variance of a reading of the gradient.
        key: random key of the readings.
    """

    def step(carry: Any, now: Any) -> tuple[Any, Array]:
        params, state = carry
        time, key = now
        reading = gradient + curvature * params
        reading += jnp.sqrt(noise) * jax.random.normal(key, params.shape)
        update, state = optimizer.update(reading, state, params)
        params += update
        loss = (gradient + curvature * params) ** 2 / (2 * curvature)
        paid = update**2 / (2 * TIME_STEP) + TIME_STEP * loss
        return (params, state), jnp.exp(-DISCOUNT * time) * paid

    params = jnp.zeros_like(gradient)
    times = TIME_STEP * jnp.arange(MOVES)
    inputs = times, jax.random.split(key, MOVES)
    return lax.scan(step, (params, optimizer.init(params)), inputs)[1].sum(0)


class Trained(NamedTuple):
    """How a rule trains a network.

    Attributes:
        loss: training loss at the end, in nats [learning_rate, seed].
        accuracy: fraction of the test set that is classified correctly [learning_rate, seed].
    """

    loss: np.ndarray
    accuracy: np.ndarray

    @property
    def best(self) -> int:
        """Which learning rate has the smallest mean training loss; NaN is larger than any."""
        return int(np.argmin(np.nan_to_num(self.loss.mean(1), nan=np.inf)))


def on_network(config: Config) -> dict[str, Trained]:
    """Train on digits with every plan, for all learning rates and seeds side by side."""
    problem = make_problem(hidden=HIDDEN)

    def one(index: Array, learning_rate: Array, key: Array) -> tuple[Array, Array]:
        policy = make_policy(index, exact_hold=False)
        optimizer = rules.secant.assumptions(learning_rate)._replace(policy=policy).optimizer()
        keys = jax.random.split(key)
        params = problem.make(keys[0])
        batches = problem.batches(jax.random.split(keys[1], config.network_steps), BATCH_SIZE)
        start = params, optimizer.init(params)
        params = train(problem.loss, optimizer, start, batches)[0][0]
        return problem.training_loss(params), problem.test_accuracy(params)

    rates = jnp.asarray(LEARNING_RATES)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    every = jax.jit(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)))
    return {
        name: Trained(*map(np.asarray, every(i, rates, keys)))
        for i, name in enumerate(tqdm(PLANS, desc="networks"))
    }
