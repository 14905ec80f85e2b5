"""What an optimizer saw, did and believed at a few coordinates, kept inside its state."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from beliefnav._probe import FIELDS, gather
from beliefnav._trees import arrays, listed, named_leaves
from beliefnav.navigation import forwarding, open_probes
from beliefnav.reading import navigation_states

PyTree = Any

__all__ = ["SCALARS", "VARIABLES", "RecordState", "flat", "record"]

OBSERVED = ("gradient", "displacement", "params")
VARIABLES = (*OBSERVED, *FIELDS)
SCALARS = ("switch_probability", "reset_fraction", "surprise")


class RecordState(NamedTuple):
    """State of `record`.

    Attributes:
        inner_state: the state of the recorded optimizer.
        recorded_steps: number of steps seen so far, int32; the last ``capacity`` of them are kept.
        coordinates: parameter path -> flat indices [k].
        previous_values: the recorded parameters at the last step, [param].
        buffer: ring buffer [variable, capacity, param]; step t stands in row t % capacity. The
            variables are ``gradient``, ``displacement``, ``params`` and, where there is a belief,
            the fields of `Posterior` and `Info`.
        scalars: ring buffer [3, capacity] of ``switch_probability``, ``reset_fraction`` and
            ``surprise``; ``None`` of an optimizer without them.
        norms: ring buffer [capacity] of the global norm of the gradient; ``None`` unless asked for.
    """

    inner_state: Any
    recorded_steps: Array
    coordinates: Mapping[str, Array]
    previous_values: Array
    buffer: Array
    scalars: Array | None
    norms: Array | None = None


def record(
    optimizer: optax.GradientTransformation,
    *,
    coordinates: int | Mapping[str, Any] | Literal["all"],
    capacity: int,
    key: Array | None = None,
    norm: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Record what an optimizer sees, does and believes on a few coordinates.

    Always kept are the raw gradient, as it enters ``optimizer``, the parameters at which it was
    taken, and their displacement, as it really happened: the difference of the parameters in the
    precision that they have, so that its rounding is that of the parameters. Where the optimizer
    holds a belief (`navigator`, the `beliefnav.rules`, anywhere in a chain) its posterior and
    diagnostics are kept too; they refer to the gradient as the belief received it, which may have
    been clipped before. Of an optimizer that resets (`beliefnav.rules.hazard_filter`,
    `beliefnav.wrappers.two_hypothesis`) the scalars that say how much are kept, those of the
    outermost if there are several, or of the first.

    Where there is a belief, which of the recorded entries were missing is a variable of its own,
    and the inner state counts all that were: ``optax.tree.get(state, "missing")`` is the number at
    the last step, and ``"clipped"`` that of the curvatures that the policy clipped, whether or not
    the optimizer counts by itself.

    Recorded entries of sharded arrays are on every device, on meshes of automatic and of explicit
    axes; the arrays stay where they are.

    When ``capacity`` is exceeded the oldest steps are overwritten; ``recorded_steps`` and the
    labels of `to_dataset` tell how many there were.

    Args:
        optimizer: any optax optimizer.
        coordinates: how many entries of every parameter array to record, drawn at random without
            replacement (all of a smaller array); or which, as {path: flat indices}, where the path
            of ``params["layers"][0].weight`` is ``"layers/0/weight"``; or ``"all"`` of them, in
            their order, which tells apart rules that look at whole arrays.
        capacity: number of steps to keep.
        key: random key for drawing coordinates.
        norm: whether to keep, at every step, the Euclidean norm of the whole gradient, of recorded
            entries and of all others, which is what clipping by global norm looks at. It is NaN
            where an entry is missing.

    Returns:
        The optimizer, with the same updates; its ``update`` needs ``params``. What is recorded
        depends on the parameters, so ``optax.tree.map_params`` does not see through it: apply it
        to ``optimizer`` and the ``inner_state``.

    Raises:
        ValueError: ``coordinates`` or ``capacity`` is not positive, ``key`` is missing; at
            ``init``, a path is not among the parameters or an index outside of its array; at
            ``update``, ``params`` is missing; at both, ``jax_debug_nans`` is on.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import recording, rules
        >>> optimizer = recording.record(
        ...     rules.adam(1e-3), coordinates=2, capacity=100, key=jax.random.key(0)
        ... )
        >>> params = {"weight": jnp.ones((3, 4)), "bias": jnp.zeros(3)}
        >>> state = optimizer.init(params)
        >>> _, state = optimizer.update(params, state, params)
        >>> dict(recording.to_dataset(state, params).sizes)
        {'step': 1, 'param': 4}
        >>> opened = recording.to_arviz(state, params)  # InferenceData, or a DataTree
    """
    if capacity < 1:
        raise ValueError(f"record: capacity must be at least 1 step, got {capacity}.")
    if isinstance(coordinates, int | np.integer):
        if coordinates < 1:
            raise ValueError(f"record: coordinates must be at least 1, got {coordinates}.")
        if key is None:
            raise ValueError("record: coordinates are drawn at random; give a key.")
    elif not (
        isinstance(coordinates, Mapping) or isinstance(coordinates, str) and coordinates == "all"
    ):
        raise ValueError(
            "record: coordinates must be a number, a mapping of paths to flat indices, or 'all', "
            f"got {coordinates!r}."
        )
    inner = forwarding(optimizer)

    def init(params: PyTree) -> Any:
        _check_debugging()
        params = arrays(params)
        chosen = _choose(params, coordinates, key)
        inner_state = open_probes(inner.init(params), chosen)
        num_variables = len(VARIABLES if navigation_states(inner_state) else OBSERVED)
        values = flat(gather(params, chosen, "the parameters"))
        return RecordState(
            inner_state=inner_state,
            recorded_steps=jnp.zeros((), jnp.int32),
            coordinates=chosen,
            previous_values=values,
            buffer=jnp.full((num_variables, capacity, values.size), jnp.nan, values.dtype),
            scalars=None
            if _read_scalars(inner_state) is None
            else jnp.full((len(SCALARS), capacity), jnp.nan),
            norms=jnp.full(capacity, jnp.nan) if norm else None,
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError(
                "Cannot record without params. This is because the displacement is measured on "
                "them; call update(gradient, state, params)."
            )
        _check_debugging()
        updates, params = arrays(updates), arrays(params)
        # What was restored from a file may be arrays of numpy.
        step, buffer, scalars, norms = arrays(
            (state.recorded_steps, state.buffer, state.scalars, state.norms)
        )
        values = flat(gather(params, state.coordinates, "the parameters"))
        gradient = flat(gather(updates, state.coordinates, "the gradient"))
        if norms is not None:
            norms = norms.at[step % capacity].set(optax.tree.norm(updates))
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        unknown = jnp.full_like(gradient, jnp.nan)
        row = jnp.stack([gradient, unknown, values, *_believed(inner_state)])
        # Only now is it known how far the parameters moved after the last gradient. At the first
        # step this writes to a row that is not valid yet.
        moved = values - state.previous_values
        buffer = buffer.at[1, (step - 1) % capacity].set(moved)
        buffer = buffer.at[:, step % capacity].set(row)
        if scalars is not None:
            scalars = scalars.at[:, step % capacity].set(_read_scalars(inner_state))
        return updates, RecordState(
            inner_state,
            jnp.asarray(optax.safe_increment(step)),
            state.coordinates,
            values,
            buffer,
            scalars,
            norms,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _check_debugging() -> None:
    """Raise under ``jax_debug_nans``, which stops at the first NaN that is meant."""
    if jax.config.jax_debug_nans:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            "Cannot record under jax_debug_nans. This is because a recording has NaN where nothing "
            "is known; do look for NaNs in the optimizer itself, without record."
        )


def _choose(
    params: PyTree, coordinates: int | Mapping[str, Any] | Literal["all"], key: Array | None
) -> dict[str, Array]:
    """Parameter path -> flat indices to record, in the order of jax, which sorts where it rebuilds.

    Any other would be another one before and after a step that is compiled.
    """
    leaves = dict(named_leaves(params))
    if isinstance(coordinates, Mapping):
        chosen = {path: _checked_indices(path, i, leaves) for path, i in coordinates.items()}
    elif coordinates == "all":
        chosen = {path: jnp.arange(x.size, dtype=jnp.int32) for path, x in leaves.items() if x.size}
    else:
        assert key is not None
        chosen = {
            path: _draw(jax.random.fold_in(key, i), leaf.size, min(coordinates, leaf.size))
            for i, (path, leaf) in enumerate(leaves.items())
            if leaf.size
        }
    return dict(sorted(chosen.items()))


def _checked_indices(path: str, indices: Any, leaves: Mapping[str, Any]) -> Array:
    if path not in leaves:
        raise ValueError(f"record: no parameter {path!r}; there are: {listed(leaves)}.")
    indices = np.atleast_1d(np.asarray(indices, np.int32))
    size = leaves[path].size
    if ((indices < 0) | (indices >= size)).any():
        raise ValueError(
            f"record: flat indices of {path!r} must be in [0, {size}), got {indices.tolist()}."
        )
    return jnp.asarray(indices)


def _draw(key: Array, size: int, count: int) -> Array:
    """``count`` different indices below ``size``: one from each of ``count`` equal strata.

    A draw without replacement that does not permute an array of millions.
    """
    edges = jnp.asarray(np.arange(count + 1) * size // count, jnp.int32)
    return jax.random.randint(key, (count,), edges[:-1], edges[1:], jnp.int32)


def _believed(inner_state: PyTree) -> list[Array]:
    """What the probes read at this step; of several beliefs, each where it has something to say."""
    believed = None
    for state in navigation_states(inner_state):
        assert state.probe is not None
        fields = flat(state.probe.readings)
        believed = fields if believed is None else jnp.where(jnp.isnan(believed), fields, believed)
    return [] if believed is None else list(believed)


def _read_scalars(inner_state: PyTree) -> Array | None:
    """What an optimizer that resets says of this step [3]; ``None`` of others."""

    def outermost(name: str) -> Any:
        found = optax.tree.get_all_with_path(inner_state, name)
        return min(found, key=lambda pair: len(pair[0]))[1] if found else None

    values = [outermost(name) for name in SCALARS]
    if any(x is None for x in values):
        return None
    return jnp.stack([jnp.asarray(x, jnp.result_type(float)) for x in values])


def flat(values: Mapping[str, Array]) -> Array:
    """Path -> [..., k] as one array [..., param]."""
    return jnp.concatenate(list(values.values()), -1) if values else jnp.zeros(0)
