"""What wrappers that start an optimizer anew share: the start, the loss, what a reset leaves."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav._checks import POSITIVE, UNIT_INTERVAL, is_concrete, refuse_schedule
from beliefnav._trees import check_shapes, copied, fitted, is_function, named_leaves
from beliefnav.navigation import is_navigation
from beliefnav.wrappers.contract import Forgetting

__all__ = [
    "check_arguments",
    "check_losses",
    "check_params",
    "chosen_by",
    "quiet",
    "scalar",
    "shown_as",
    "start_of",
    "started_anew",
    "stays",
    "told",
    "where_chosen",
]

PyTree = Any
_SCHEDULES = (
    optax.ScaleByScheduleState,
    optax.InjectHyperparamsState,
    optax.InjectStatefulHyperparamsState,
)


# --- arguments ----------------------------------------------------------------------------------


def check_arguments(place: str, hazard: Any, examples: Any) -> None:
    """Raise unless the hazard is in [0, 1] and the number of examples positive.

    ``place`` is the wrapper, with its module below `beliefnav.wrappers`.
    """
    refuse_schedule(f"wrappers.{place}", "hazard", hazard)
    owner = place.rpartition(".")[2]
    UNIT_INTERVAL.check_annotated(owner, "hazard", hazard, float)
    POSITIVE.check_annotated(owner, "examples", examples, float)


def check_params(owner: str, params: PyTree) -> None:
    """Raise where ``update`` got no parameters."""
    if params is None:
        raise ValueError(
            f"Cannot update {owner} without params. This is because it resets them; call "
            "update(gradient, state, params, value=..., value_fn=...)."
        )


def check_losses(owner: str, value: Any, value_fn: Any, remedy: str) -> None:
    """Raise unless ``update`` got the loss of the batch and a function of parameters for it."""
    if value is None or value_fn is None:
        given = (("value", value), ("value_fn", value_fn))
        missing = " and ".join(name for name, x in given if x is None)
        raise TypeError(
            f"{owner}: update needs {missing}. Give value=, the mean loss of the batch in nats, "
            "and value_fn=, the same as a function of parameters: whether the task has switched is "
            f"seen from the loss at other parameters. {remedy}"
        )
    if not callable(value_fn):
        raise TypeError(
            f"{owner}: value_fn must be a function from parameters to the mean loss of the batch, "
            f"got {value_fn!r}."
        )


def told(task_begins: ArrayLike | None) -> Array:
    """Whether it is said that a task begins; who says nothing says no."""
    return jnp.asarray(False if task_begins is None else task_begins, bool)


def scalar(owner: str, name: str, x: Any) -> Array:
    """A mean loss in float32, or an error that says what was given instead."""
    got = "a " + type(x).__name__ if isinstance(x, tuple) else f"the shape {jnp.shape(x)}"
    if got != "the shape ()":
        raise ValueError(
            f"{owner}: {name} must be a scalar, the mean loss of the batch, got {got}."
        )
    return jnp.asarray(x, jnp.float32)


# --- the start ----------------------------------------------------------------------------------


def start_of(owner: str, prior_mean: PyTree, params: PyTree) -> PyTree:
    """The parameters that a task starts from, in arrays of their own.

    Raises:
        ValueError: the prior mean is not like the parameters, or the start is known not to be
            finite; the error names the array.
    """
    if prior_mean is None:
        _check_finite(owner, "the parameters at init", params)
        return copied(params)
    given = fitted(owner, "prior_mean", prior_mean, params)
    check_shapes(owner, "prior_mean", given, params)
    start = jax.tree.map(lambda p, m: jnp.array(m, p.dtype), params, given)
    _check_finite(owner, "prior_mean", start)
    return start


def _check_finite(owner: str, name: str, start: PyTree) -> None:
    for path, x in named_leaves(start):
        known = isinstance(x, jax.Array) and is_concrete(x) and x.is_fully_addressable
        if not (known and jnp.issubdtype(x.dtype, jnp.inexact)):
            continue
        with jax.ensure_compile_time_eval():
            finite = bool(jnp.isfinite(x).all())
        if not finite:
            raise ValueError(
                f"Cannot use {owner} with a start that is not finite. This is because a reset goes "
                f"there, and {name} has such an entry in {path!r}; give prior_mean=, the "
                "parameters that training started from."
            )


def chosen_by(owner: str, mask: PyTree | Callable[[PyTree], PyTree], params: PyTree) -> PyTree:
    """Which arrays start anew, as a tree of booleans like the parameters."""
    return fitted(owner, "mask", mask(params) if is_function(mask) else mask, params)


def where_chosen(mask: PyTree, new: PyTree, old: PyTree) -> PyTree:
    """The arrays of one tree that a mask of booleans chooses, and the others of another."""
    return jax.tree.map(lambda m, n, o: n if m else o, mask, new, old)


# --- the state of the optimizer -----------------------------------------------------------------


def quiet(state: PyTree) -> PyTree:
    """A state without what its beliefs show of a step, which is no part of a belief.

    A record asks for that after the state was made, of the state and not of a fresh one.
    """

    def node(x: Any) -> Any:
        return x._replace(missing=None, clipped=None, probe=None) if is_navigation(x) else x

    return jax.tree.map(node, state, is_leaf=is_navigation)


def shown_as(state: PyTree, like: PyTree) -> PyTree:
    """A quiet state that shows what another one of the same optimizer shows."""

    def node(x: Any, other: Any) -> Any:
        if not is_navigation(x):
            return x
        return x._replace(missing=other.missing, clipped=other.clipped, probe=other.probe)

    return jax.tree.map(node, state, like, is_leaf=is_navigation)


def stays(path: tuple[Any, ...], x: Any) -> bool:
    """Random keys, and hyper-parameters that were injected: they belong to no task."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or any(
        isinstance(part, jax.tree_util.GetAttrKey) and part.name == "hyperparams" for part in path
    )


def started_anew(
    inner: optax.GradientTransformation,
    state: PyTree,
    fresh: PyTree,
    mask: PyTree,
    restart_schedule: bool,
    probability: Array,
    certain: Array,
) -> PyTree:
    """The state of an optimizer that starts anew with a probability, where a mask says so.

    That is the mean of the two states, or that of the likelier where there is no mean, as of a
    counter. Arrays that the mask leaves out stay. What belongs to no array, such as a counter,
    starts anew if all arrays do that it stands beside: those of the smallest part of the state that
    has any.

    Args:
        inner: the optimizer.
        state: its state as it goes on.
        fresh: its state at the start.
        mask: a tree of booleans like the parameters.
        restart_schedule: whether schedules begin again with the counters.
        probability: of the fresh state, a scalar.
        certain: whether it is the fresh state to the last digit, a boolean scalar.

    Returns:
        A state that shows what ``state`` shows.
    """

    def leaf(path: tuple[Any, ...], x: Array, new: Array, anew: bool) -> Array:
        if not anew or stays(path, x):
            return x
        likelier = jnp.where(probability > 0.5, new, x)
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return likelier
        # In this form what does not change stays, to the last digit.
        mean = x + probability.astype(x.dtype) * (new - x)
        return jnp.where(jnp.isfinite(mean) & ~certain, mean, likelier)

    def special(x: Any) -> bool:
        return isinstance(x, Forgetting) or (not restart_schedule and isinstance(x, _SCHEDULES))

    def node(path: tuple[Any, ...], x: Any, new: Any, anew: Any) -> Any:
        if not special(x):
            return leaf(path, x, new, anew)
        if isinstance(x, optax.ScaleByScheduleState):
            return x
        inside = mixed(x.inner_state, new.inner_state, anew.inner_state)
        if isinstance(x, Forgetting):
            x = x.forgotten(probability, new)
        return x._replace(inner_state=inside)

    def mixed(x: PyTree, new: PyTree, anew: PyTree) -> PyTree:
        return jax.tree.map_with_path(node, x, new, anew, is_leaf=special)

    old = quiet(state)
    return shown_as(mixed(old, quiet(fresh), _which(inner, old, mask)), state)


_NOT_OF_ARRAYS = "not of the parameters"


def _which(inner: optax.GradientTransformation, state: PyTree, mask: PyTree) -> PyTree:
    """Which leaves of a state start anew, as a tree of booleans like it."""
    if all(jax.tree.leaves(mask)):
        return jax.tree.map(lambda _: True, state)
    marked = optax.tree.map_params(
        optax.GradientTransformation(lambda params: quiet(inner.init(params)), inner.update),
        lambda x, m: x if _is_masked(x) else m,
        state,
        mask,
        transform_non_params=lambda _: _NOT_OF_ARRAYS,
        is_leaf=_is_masked,
    )
    of_arrays = [
        (path, anew)
        for path, anew in jax.tree.leaves_with_path(marked)
        if anew is not _NOT_OF_ARRAYS
    ]

    def among(path: tuple[Any, ...], anew: Any) -> bool:
        if anew is not _NOT_OF_ARRAYS:
            return anew
        parts = (path[:n] for n in range(len(path), -1, -1))
        beside = ([m for p, m in of_arrays if p[: len(part)] == part] for part in parts)
        return all(next((found for found in beside if found), jax.tree.leaves(mask)))

    return jax.tree.map_with_path(among, marked)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
