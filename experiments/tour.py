# %% [markdown]
# # A tour
#
# Derive an optimizer from assumptions, train, look inside, change an assumption, look again. This
# file is a script (`python -m experiments.tour`) and opens as a notebook; it takes a few seconds.
#
# The landscape is a quadratic that we know, so that beliefs can be compared with the truth: three
# directions of curvature 0.1, 1 and 10, a start at (1, 1, 1), a minimum at 0, and gradients with
# noise of variance 1e-4.

# %%
"""A tour: derive an optimizer, train, look inside, change an assumption, look again."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from beliefnav import beliefs, control, explain, navigator, posterior

CURVATURE = jnp.array([0.1, 1.0, 10.0])
NOISE_VARIANCE = 1e-4


def train(
    optimizer: optax.GradientTransformation, num_steps: int = 200
) -> tuple[Array, optax.OptState]:
    """The parameters after every step [step, 3], and the optimizer's state at the end."""

    def step(carry: Any, noise: Array) -> tuple[Any, Any]:
        params, state = carry
        updates, state = optimizer.update(CURVATURE * params + noise, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    noise = NOISE_VARIANCE**0.5 * jax.random.normal(jax.random.key(0), (num_steps, 3))
    start = jnp.ones(3)
    (_, state), path = jax.jit(jax.lax.scan, static_argnums=0)(
        step, (start, optimizer.init(start)), noise
    )
    return path, state


def steps_until_near(path: Array) -> int | None:
    """The number of steps after which all directions are within 0.1 of the minimum."""
    near = jnp.all(jnp.abs(path) < 0.1, axis=1)
    return int(jnp.argmax(near)) + 1 if jnp.any(near) else None


# %% [markdown]
# ## Assume little: gradient descent
#
# Belief: the gradient is what was just seen. Plan: the horizon is 0, so that only the present
# gradient is descended. The optimizer that follows is gradient descent. The steepest direction
# limits the learning rate, here to 0.1, and so the flattest direction is slow: 0.14 of its way is
# left after 200 steps (without noise it would be 0.99 to the power 200, which is 0.13).

# %%
descent = navigator(0.1, beliefs.LocalLevel(0.0), control.myopic())
descent_path, _ = train(descent)
print("left after 200 steps:", descent_path[-1])

# %% [markdown]
# ## Believe a curvature and plan ahead: Adam
#
# Belief: the gradient drifts under noise, so that it is remembered for 10 steps; its second moment
# is remembered for 1,000 steps and read as curvature. Plan: the horizon is unlimited. The optimizer
# that follows is Adam. `explain` reads the same assumptions off optax's Adam.

# %%
moments = beliefs.independent(
    gradient=beliefs.LocalLevel(0.9), curvature=beliefs.PrecisionWalk(0.999)
)
adam = navigator(0.05, moments, control.ballistic(eps=1e-8))
adam_path, adam_state = train(adam)
peer_path, _ = train(optax.adam(0.05))
print("largest difference from optax.adam:", jnp.max(jnp.abs(adam_path - peer_path)))
print(explain(optax.adam, 0.05))

# %% [markdown]
# ## Look inside
#
# All directions are now equally fast: they are within 0.1 of the minimum after 21 steps. But look
# at the belief. The steepest direction is 100 times as curved as the flattest one; Adam believes
# that it is 7,100 times as curved. Adam's $V$ is the mean square of the gradient, and the gradient
# is itself proportional to the curvature.

# %%
adam_belief = posterior(adam_state)
print("steps until near:", steps_until_near(adam_path))
print("believed curvature:", adam_belief.curvature_mean)
print("steepest / flattest:", adam_belief.curvature_mean[2] / adam_belief.curvature_mean[0])

# %% [markdown]
# ## Change the belief: curvature from displacements
#
# Belief: the gradient changes by the curvature times the displacement, and is seen through noise.
# Each step is then a measurement of the curvature. The plan stays; `control.cautious` adds what is
# not known about the curvature to the curvature that the plan reads.

# %%
secant = beliefs.Secant(
    noise_variance=NOISE_VARIANCE, prior_gradient_variance=100.0, prior_curvature_variance=100.0
)
learner = navigator(0.5, secant, control.cautious(control.ballistic()))
secant_path, secant_state = train(learner)

# %% [markdown]
# ## Look again
#
# All directions are within 0.1 of the minimum after 15 steps. The belief now is about the
# curvature, and it says how sure it is: 0.106 ± 0.004 for 0.1, 1.013 ± 0.007 for 1, and 10.005 ±
# 0.008 for 10. After 10 steps the flattest direction, whose gradient has hardly changed, is
# believed to be 0.092 ± 0.013.


# %%
def believed(state: optax.OptState) -> tuple[Array, Array]:
    """Mean and standard deviation of the curvature."""
    belief = posterior(state)
    return belief.curvature_mean, jnp.sqrt(belief.curvature_variance)


early_mean, early_deviation = believed(train(learner, 10)[1])
mean, deviation = believed(secant_state)
print("steps until near:", steps_until_near(secant_path))
print("after 10 steps:", early_mean, "±", early_deviation)
print("after 200 steps:", mean, "±", deviation)

# %% [markdown]
# ## Change the plan: follow it to its end
#
# The belief stays. The plan is not remade at each step but followed to the optimum that is
# believed: Newton's method, on a curvature that was learned from gradients alone. All directions
# are within 0.1 of the minimum after 5 steps.

# %%
newton_path, newton_state = train(navigator(1.0, secant, control.cautious(control.newton())))
print("steps until near:", steps_until_near(newton_path))
