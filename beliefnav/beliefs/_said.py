"""Whether a belief believes anything of what it is held about, seen when it starts."""

from typing import Any

import jax

__all__ = ["is_said"]

PyTree = Any


def is_said(state: Any, params: PyTree, *fields: str) -> bool:
    """Whether the posterior of a state has all fields; of no parameters everything is said.

    Args:
        state: of the belief at its start; it is read in the abstract.
        params: those that it started with.
        *fields: of `beliefnav.beliefs.Posterior`.
    """
    said = jax.eval_shape(lambda state: state.posterior(), state)._asdict()
    return all(said[field] is not None for field in fields) or not jax.tree.leaves(params)
