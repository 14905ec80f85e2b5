"""When did tasks switch? Run lengths as they were believed then, switches as seen in hindsight."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from beliefnav.beliefs.contract import BeliefLike, RunLengthWeights
from beliefnav.filters.filtering import checked, scan, start
from beliefnav.recording import Recording

PyTree = Any


class ChangePoints(NamedTuple):
    """What `beliefnav.beliefs.RunLengths` believed after every observation of a recording.

    Attributes:
        run_length: probability of every run length from 0 on, [step, step].
        switch_probability: of a switch just before the observation [step]; that of run length 0,
            but for the first step, at which no task can end.
        hazard: probability of every hazard of the grid [step, grid]; 1 where it is known.
        dropped_mass: probability that was dropped up to here [step].
    """

    run_length: Array
    switch_probability: Array
    hazard: Array
    dropped_mass: Array


def change_points(belief: BeliefLike, gradient: PyTree, displacement: PyTree) -> ChangePoints:
    """The posterior over run lengths and the hazard after every observation of a recording.

    Args:
        belief: `beliefnav.beliefs.RunLengths`.
        gradient: tree of [step, ...]; NaN or infinite entries are missing.
        displacement: tree of [step, ...], how far the parameters moved after each observation.

    Returns:
        Arrays whose first axis is the step. Those of run lengths are quadratic in their number.

    Raises:
        ValueError: the belief keeps no run lengths; streams are empty, have no step axis, or do
            not match.
    """
    states = _weights(belief, gradient, displacement)
    num_steps = len(states.run_length)
    probability = jnp.exp(states.log_weights)
    length = jax.vmap(lambda r, p: jnp.zeros(num_steps, p.dtype).at[r].add(p))
    return ChangePoints(
        run_length=length(states.run_length, probability.sum(1)),
        switch_probability=states.switch_probability,
        hazard=probability.sum(2),
        dropped_mass=states.dropped_mass,
    )


def sample_switches(
    belief: BeliefLike, gradient: PyTree, displacement: PyTree, *, key: Array, num_draws: int
) -> tuple[Array, Array]:
    r"""Draw when tasks switched, given a whole recording, and the hazard.

    Backwards in time: the last task has lasted for a run length $r$ drawn from $w_T$; the one
    before it ended at $T - r - 1$, where its run length is drawn, and so on. The draws are
    independent, and exact if the run lengths are.

    Args:
        belief: `beliefnav.beliefs.RunLengths`.
        gradient: tree of [step, ...]; NaN or infinite entries are missing.
        displacement: tree of [step, ...], how far the parameters moved after each observation.
        key: random key.
        num_draws: number of draws.

    Returns:
        Whether the task switched just before each observation, bool [draw, step], never before the
        first; and the hazards [draw].

    Raises:
        ValueError: see `change_points`; ``num_draws`` is less than 1.

    Reference:
        Fearnhead and Liu (2007), "On-line inference for multiple changepoint problems", section 3.
    """
    if num_draws < 1:
        raise ValueError(f"sample_switches: num_draws must be at least 1, got {num_draws}.")
    states = _weights(belief, gradient, displacement)
    num_steps = len(states.run_length)

    def draw(key: Array) -> tuple[Array, Array]:
        of_grid, of_steps = jax.random.split(key)
        grid = jax.random.categorical(of_grid, jax.nn.logsumexp(states.log_weights[-1], axis=1))

        def back(end: Array, now: Any) -> tuple[Array, Array]:
            step, key, log_weights, run_length = now
            slot = jax.random.categorical(key, log_weights[grid])
            # A task ends at `end`: it began a run length before, and so ended the one before it.
            begin = jnp.where(step == end, step - run_length[slot], end + 1)
            return jnp.where(step == end, begin - 1, end), begin

        steps = jnp.arange(num_steps)
        keys = jax.random.split(of_steps, num_steps)
        xs = (steps, keys, states.log_weights, states.run_length)
        _, begins = lax.scan(back, jnp.asarray(num_steps - 1), xs, reverse=True)
        return jnp.zeros(num_steps, bool).at[begins].set(True).at[0].set(False), grid

    switches, grid = jax.vmap(draw)(jax.random.split(key, num_draws))
    return switches, states.hazards[0][grid]


def _weights(given: BeliefLike, gradient: PyTree, displacement: PyTree) -> RunLengthWeights:
    """The weights of run lengths after every observation [step, ...]."""
    belief, recording = checked(given, Recording(gradient, displacement))

    def read(state: Any, _: Any) -> RunLengthWeights:
        return belief.run_lengths(state)

    return scan(belief, start(belief, recording), read, recording, None)[1]
