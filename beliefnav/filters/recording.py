r"""A belief filtered over a whole recorded stream."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from beliefnav.ssm import Belief, Info, Posterior

PyTree = Any


def filter_recording(
    belief: Belief, gradient: PyTree, displacement: PyTree = None
) -> tuple[Posterior, Info]:
    r"""The posterior after every observation of a recorded stream, by one scan.

    Time runs as in training: ``gradient[t]`` was observed at $\theta_t$ and ``displacement[t]`` =
    $\theta_{t+1} - \theta_t$ drives the belief from $t$ to $t + 1$. The last displacement, after
    which nothing was observed, is not used.

    Args:
        belief: a model of `beliefnav.ssm`, or anything with a ``filter()``.
        gradient: tree of [step, ...]; NaN or infinite entries are missing.
        displacement: tree of [step, ...], or ``None`` if the belief does not use it.

    Returns:
        The posterior and the diagnostics of every step, trees of [step, ...].

    Raises:
        ValueError: the belief uses displacements and none were given.
    """
    return _scan(belief, gradient, displacement, lambda state, info: (state.posterior(), info))


def log_likelihood(belief: Belief, gradient: PyTree, displacement: PyTree = None) -> PyTree:
    r"""The log marginal likelihood of a recorded stream, $\sum_t \log p(y_t \mid y_{1:t-1})$.

    The latent path is integrated out exactly by the filter. Differentiable in the hyper-parameters
    of ``belief``.

    Args:
        belief: as in `filter_recording`.
        gradient: as in `filter_recording`.
        displacement: as in `filter_recording`.

    Returns:
        A tree of [...]: one log likelihood for every entry. Where the prior is improper it sums
        from the second observation.

    Raises:
        ValueError: the belief has no predictive density, or see `filter_recording`.
    """
    log_density = _scan(belief, gradient, displacement, lambda _, info: info.log_density)
    if log_density is None:
        raise ValueError(
            f"{type(belief).__name__} has no predictive density, hence no likelihood. For a "
            "LocalLevel, give its noise_variance."
        )
    return jax.tree.map(lambda x: x.sum(0), log_density)


def _scan(
    belief: Belief,
    gradient: PyTree,
    displacement: PyTree,
    read: Callable[[Any, Info], PyTree],
) -> PyTree:
    """What ``read(state, info)`` returns after every observation, trees of [step, ...]."""
    filter_ = belief.filter()
    if filter_.uses_displacement and displacement is None:
        raise ValueError(
            f"Cannot filter a recording with {type(belief).__name__} without displacement=. This "
            "is because its prediction depends on how far the parameters moved."
        )
    before = jax.tree.map(lambda d: jnp.concatenate([jnp.zeros_like(d[:1]), d[:-1]]), displacement)

    def step(state: Any, inputs: tuple[PyTree, PyTree]) -> tuple[Any, PyTree]:
        observation, moved = inputs
        state, info = filter_.update(filter_.predict(state, moved), observation)
        return state, read(state, info)

    first = jax.tree.map(lambda y: y[0], gradient)
    # A step of a filter on a few streams is cheaper than an iteration of a loop.
    return lax.scan(step, filter_.init(first), (gradient, before), unroll=4)[1]
