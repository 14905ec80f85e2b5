"""What an optimizer believes, read off its state: posterior, optimum, draws of parameters."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import NON_NEGATIVE
from beliefnav._trees import arrays, filled, named_leaves, spread, unboxed
from beliefnav.beliefs.contract import Posterior
from beliefnav.navigation import NavigationState, is_navigation

PyTree = Any

__all__ = ["OptimumState", "navigation_states", "optimum", "posterior", "sample_params"]


@runtime_checkable
class OptimumState(Protocol):
    """A part of the state of an optimizer that may believe where the optimum is."""

    def believed_optimum(self, params: PyTree) -> tuple[PyTree, PyTree] | None:
        """Mean and variance of the optimum, of the parameters that this part is about.

        Args:
            params: all present parameters; ``None``: use those of the updates so far alone.

        Returns:
            Two trees, the second ``None`` where there is no variance; ``None`` if nothing is
            believed of where the optimum is.
        """
        ...


def navigation_states(opt_state: PyTree) -> list[NavigationState]:
    """All `NavigationState` in an optimizer state, in the order of its leaves."""
    leaves = jax.tree.leaves(opt_state, is_leaf=is_navigation)
    return [leaf for leaf in leaves if is_navigation(leaf)]


def posterior(opt_state: PyTree) -> Posterior:
    """Read the belief inside the state of an optimizer, wherever it stands in a chain.

    For a state batched by ``vmap``, vmap this function too.

    Args:
        opt_state: the state of any optimizer that contains one `scale_by_navigation`, also in the
            boxes of flax, as ``nnx.Optimizer(...).opt_state``.

    Returns:
        The posterior after the last update, of bare arrays.

    Raises:
        ValueError: the state contains no belief, or more than one.
    """
    return _only_navigation(opt_state).belief.posterior()


def optimum(
    opt_state: PyTree, params: PyTree, value_fn: Callable[[PyTree], Any] | None = None
) -> PyTree:
    r"""Where an optimizer believes the optimum to be: the parameters to evaluate.

    The average of `beliefnav.wrappers.iterate_averaging`, or the posterior mean of a belief about
    the optimum, such as that of `beliefnav.rules.hazard_filter`; where one stands inside of the
    other, the outer one: ``optimum(state.inner_state, params)`` is the inner one. Parameters that
    neither is about, as under a mask, are returned as they are; so are all of them where nothing
    has been averaged yet. For a state batched by ``vmap``, vmap this function too.

    Args:
        opt_state: the state of an optimizer.
        params: the present parameters, after the last step.
        value_fn: a loss as a function of parameters, as of held-out data. Given one, the better of
            optimum and parameters is returned; a mean whose loss is not finite is never the better.

    Returns:
        A tree like the parameters, of their dtypes.

    Raises:
        ValueError: nothing in the state believes where the optimum is, or two parts of it, such as
            two averages in a chain, do so of the same parameters; the parameters are not like those
            that it is about; or ``value_fn`` returns more than one number.

    Example:
        Some arrays are averaged, and the others stay as they are.

        >>> import jax.numpy as jnp, optax
        >>> from beliefnav import optimum, wrappers
        >>> averaged = wrappers.iterate_averaging(optax.sgd(0.5))
        >>> optimizer = optax.masked(averaged, {"w": True, "scale": False})
        >>> params = {"w": jnp.array([4.0]), "scale": jnp.array([1.0])}
        >>> state = optimizer.init(params)
        >>> for _ in range(2):
        ...     gradient = {"w": params["w"], "scale": jnp.zeros(1)}
        ...     updates, state = optimizer.update(gradient, state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> {name: float(x[0]) for name, x in optimum(state, params).items()}  # of 2 and 1, 1 to 3
        {'scale': 1.0, 'w': 1.25}
    """
    params = arrays(params)
    mean = params
    told = jax.tree.map(lambda _: 0, params)
    for mean_of_part, _ in _optima(opt_state, params):
        counts = filled(jax.tree.map(lambda _: 1, mean_of_part), jax.tree.map(lambda _: 0, told))
        told = jax.tree.map(lambda n, one: n + one, told, counts)
        mean = filled(mean_of_part, mean)
    for name, count in named_leaves(told):
        if count > 1:
            raise ValueError(
                f"Cannot say where the optimum is. This is because {count} parts of the optimizer "
                f"state say it of {repr(name) if name else 'the same parameters'}; pass the part "
                "that holds the one you want, as in optimum(state[0], params) of a chain."
            )
    mean = jax.tree.map(lambda m, p: m.astype(p.dtype), mean, params)
    if value_fn is None:
        return mean
    ours, theirs = (jnp.asarray(value_fn(x)) for x in (mean, params))
    if ours.shape:
        raise ValueError(f"optimum: value_fn must return one number, got shape {ours.shape}.")
    better = jnp.isfinite(ours) & ((ours <= theirs) | ~jnp.isfinite(theirs))
    return jax.tree.map(lambda m, p: jnp.where(better, m, p), mean, params)


def sample_params(opt_state: PyTree, key: Array, scale: PyTree | ArrayLike = 1.0) -> PyTree:
    r"""Draw parameters from the belief about the optimum that an optimizer holds.

    From $N(m, c v)$, independently per entry. Predictions averaged over such draws take into
    account what the optimizer does not know. For a state batched by ``vmap``, vmap this function
    too.

    Draws are uncertainty of weights. For probabilities of a network on inputs like those of
    training a temperature on the logits at the mean is as good, with one pass; on shifted inputs it
    differs (``experiments/certainty``).

    Of `beliefnav.wrappers.iterate_averaging`, $m$ is the average and $v$ the spread of the path
    around it, both up to the last update. That is no posterior variance: its docstring derives the
    multiple $c$ that makes it one, and says where no one number does.

    Args:
        opt_state: the state of an optimizer that contains one belief about the optimum, such as
            `beliefnav.rules.hazard_filter`, or an average that holds a variance.
        key: a random key.
        scale: $c \ge 0$, a number, or a tree of them like the parameters; 0 gives the mean.

    Returns:
        A tree like the parameters, of their dtypes; of an average, of its own, float32 or wider.

    Raises:
        ValueError: the state contains no belief about the optimum, more than one belief, or an
            average without a variance; ``scale`` is negative, or does not fit the parameters.
    """
    opt_state = unboxed(opt_state)
    optima = _optima(opt_state, None)
    if len(optima) > 1:
        raise ValueError(
            f"Expected one belief about the optimum in the optimizer state, found {len(optima)}. "
            "Pass the part of the state that holds the one you want."
        )
    ((mean, variance),) = optima
    if variance is None:
        raise ValueError(
            "Cannot draw parameters. This is because the average holds no variance; build it with "
            "wrappers.iterate_averaging(..., variance=True)."
        )
    (state,) = _optimum_states(opt_state)
    like = state.previous_params if isinstance(state, NavigationState) else mean
    noise = optax.tree.random_like(key, mean)
    NON_NEGATIVE.check_leaves("sample_params", "scale", scale)
    scales = spread("sample_params", "scale", scale, mean)

    def leaf(p: Array, m: Array, v: Array, e: Array, c: Array) -> Array:
        return (m + jnp.where(c > 0, jnp.sqrt(c * v), 0) * e).astype(p.dtype)

    return jax.tree.map(leaf, like, mean, variance, noise, scales)


def _optimum_states(opt_state: PyTree) -> list[OptimumState]:
    """The parts of a state that believe where the optimum is, the outer ones."""

    def is_part(x: Any) -> bool:
        return isinstance(x, OptimumState)

    parts = jax.tree.leaves(opt_state, is_leaf=is_part)
    return [x for x in parts if is_part(x) and x.believed_optimum(None) is not None]


def _optima(opt_state: PyTree, params: PyTree) -> list[tuple[PyTree, PyTree]]:
    """Mean and variance that each of them believes.

    Raises:
        ValueError: there is none.
    """
    states = _optimum_states(opt_state)
    if not states:
        raise ValueError(
            "Cannot say where the optimum is. This is because nothing in the optimizer state "
            "believes it; wrap the optimizer in wrappers.iterate_averaging, or use a belief about "
            "the optimum, such as beliefs.Optimum or that of rules.hazard_filter."
        )
    return [x for state in states if (x := state.believed_optimum(params)) is not None]


def _only_navigation(opt_state: PyTree) -> NavigationState:
    """The one belief inside an optimizer state."""
    states = navigation_states(unboxed(opt_state))
    if len(states) != 1:
        raise ValueError(
            f"Expected one belief in the optimizer state, found {len(states)}. "
            + (
                "Build the optimizer with beliefnav.navigator or beliefnav.rules."
                if not states
                else "Pass the part of the state that holds the one you want."
            )
        )
    return states[0]
