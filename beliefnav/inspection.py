r"""Recordings: what an optimizer saw, did and believed on a few coordinates, opened in arviz.

`record` wraps any optax optimizer and keeps the last ``capacity`` steps of a few coordinates inside
its state: bounded memory, no callbacks, so that it works inside jit, scan and vmap. `to_dataset`
labels the recording, `to_arviz` opens it in arviz.

A *stream file* is the NetCDF file of ``to_dataset(...)[["gradient", "displacement"]]``: two
variables of dimensions (step, param), with parameter names as labels. ``displacement[t]`` is
$\theta_{t+1} - \theta_t$, the step taken after ``gradient[t]`` was seen at $\theta_t$.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from beliefnav.ssm import Info, Posterior
from beliefnav.transform import gather, navigation_states, open_probes, path_name

if TYPE_CHECKING:
    import xarray as xr

PyTree = Any

_BELIEF_FIELDS = Posterior._fields + Info._fields
_VARIABLES = ("gradient", "displacement", *_BELIEF_FIELDS)
_SCALARS = ("switch_probability", "reset_fraction", "surprise")


class RecordState(NamedTuple):
    """State of `record`.

    Attributes:
        inner_state: the state of the recorded optimizer.
        recorded_steps: number of steps seen so far, int32; the last ``capacity`` of them are kept.
        coordinates: parameter path -> flat indices [k].
        previous_values: the recorded parameters at the last step, [param].
        buffer: ring buffer [variable, capacity, param]; step t stands in row t % capacity. The
            variables are ``gradient``, ``displacement`` and, where there is a belief, the fields of
            `Posterior` and `Info`.
        scalars: ring buffer [3, capacity] of ``switch_probability``, ``reset_fraction`` and
            ``surprise``, or [0, capacity] of an optimizer without them.
    """

    inner_state: Any
    recorded_steps: Array
    coordinates: Mapping[str, Array]
    previous_values: Array
    buffer: Array
    scalars: Array


def record(
    optimizer: optax.GradientTransformation,
    *,
    coordinates: int | Mapping[str, Any],
    capacity: int,
    key: Array | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Record what an optimizer sees, does and believes on a few coordinates.

    Always kept are the raw gradient, as it enters ``optimizer``, and the displacement of the
    parameters, as it really happened. Where the optimizer holds a belief (`navigator`, the
    `beliefnav.rules`, anywhere in a chain) its posterior and diagnostics are kept too; they refer
    to the gradient as the belief received it, which may have been clipped before. Of an optimizer
    that resets (`beliefnav.rules.hazard_filter`, `beliefnav.rules.two_hypothesis`) the scalars
    that say how much are kept, those of the outermost if there are several, or of the first.

    When ``capacity`` is exceeded the oldest steps are overwritten; ``recorded_steps`` and the
    labels of `to_dataset` tell how many there were.

    Args:
        optimizer: any optax optimizer.
        coordinates: how many entries of every parameter array to record, drawn at random without
            replacement (all of a smaller array); or which, as {path: flat indices}, where the path
            of ``params["layers"][0].weight`` is ``"layers/0/weight"``.
        capacity: number of steps to keep.
        key: random key for drawing coordinates.

    Returns:
        The optimizer, with the same updates; its ``update`` needs ``params``. What is recorded
        depends on the parameters, so ``optax.tree.map_params`` does not see through it: apply it
        to ``optimizer`` and the ``inner_state``.

    Raises:
        ValueError: ``coordinates`` or ``capacity`` is not positive, ``key`` is missing; at
            ``init``, a path is not among the parameters or an index outside of its array; at
            ``update``, ``params`` is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import inspection, rules
        >>> optimizer = inspection.record(
        ...     rules.adam(1e-3), coordinates=2, capacity=100, key=jax.random.key(0)
        ... )
        >>> params = {"weight": jnp.ones((3, 4)), "bias": jnp.zeros(3)}
        >>> state = optimizer.init(params)
        >>> _, state = optimizer.update(params, state, params)
        >>> dict(inspection.to_dataset(state, params).sizes)
        {'step': 1, 'param': 4}
    """
    if capacity < 1:
        raise ValueError(f"record: capacity must be at least 1 step, got {capacity}.")
    if isinstance(coordinates, int | np.integer):
        if coordinates < 1:
            raise ValueError(f"record: coordinates must be at least 1, got {coordinates}.")
        if key is None:
            raise ValueError("record: coordinates are drawn at random; give a key.")
    inner = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> Any:
        chosen = _choose(params, coordinates, key)
        inner_state = open_probes(inner.init(params), chosen)
        num_variables = len(_VARIABLES) if navigation_states(inner_state) else 2
        values = _flat(gather(params, chosen))
        return RecordState(
            inner_state=inner_state,
            recorded_steps=jnp.zeros((), jnp.int32),
            coordinates=chosen,
            previous_values=values,
            buffer=jnp.full((num_variables, capacity, values.size), jnp.nan, values.dtype),
            scalars=jnp.full((len(_read_scalars(inner_state)), capacity), jnp.nan),
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError(
                "Cannot record without params. This is because the displacement is measured on "
                "them; call update(gradient, state, params)."
            )
        step = state.recorded_steps
        values = _flat(gather(params, state.coordinates))
        gradient = _flat(gather(updates, state.coordinates))
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        unknown = jnp.full_like(gradient, jnp.nan)
        row = jnp.stack([gradient, unknown, *_believed(inner_state)])
        # Only now is it known how far the parameters moved after the last gradient. At the first
        # step this writes to a row that is not valid yet.
        moved = values - state.previous_values
        buffer = state.buffer.at[1, (step - 1) % capacity].set(moved)
        buffer = buffer.at[:, step % capacity].set(row)
        return updates, RecordState(
            inner_state,
            jnp.asarray(optax.safe_increment(step)),
            state.coordinates,
            values,
            buffer,
            state.scalars.at[:, step % capacity].set(_read_scalars(inner_state)),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def to_dataset(opt_state: PyTree, params: PyTree) -> "xr.Dataset":
    """The recording inside an optimizer state, oldest step first, with labels.

    Args:
        opt_state: state of an optimizer made by `record`, alone or inside a chain. Of a state
            batched by ``vmap``, take one element.
        params: the present parameters, to measure the last displacement; only their recorded
            entries are read.

    Returns:
        A Dataset of dimensions (step, param). Variables: ``gradient`` and ``displacement`` and, of
        `Posterior` and `Info`, the fields that the belief has. Of an optimizer that resets, also
        ``task_switch_probability``, ``task_reset_fraction`` and ``task_surprise``, of dimension
        (step). ``step`` counts from 0 at the first
        update; the attribute ``steps_overwritten`` tells how many were lost to ``capacity``.

    Raises:
        ValueError: there is no recording, or not exactly one, or it has seen no step, or it is
            batched.
    """
    import xarray as xr

    state = _recording(opt_state)
    if state.recorded_steps.ndim:
        raise ValueError(
            f"The recording is batched, of shape {state.recorded_steps.shape}. Take one element of "
            "state and parameters first: jax.tree.map(lambda x: x[0], opt_state)."
        )
    total = int(state.recorded_steps)
    if total == 0:
        raise ValueError("The recording is empty. Call the optimizer's update first.")
    capacity = state.buffer.shape[1]
    steps = np.arange(max(0, total - capacity), total)
    kept = np.asarray(state.buffer)[:, steps % capacity]
    values = dict(zip(_VARIABLES, kept, strict=False))  # without a belief, only the first two
    moved = _flat(gather(params, state.coordinates)) - state.previous_values
    values["displacement"][-1] = np.asarray(moved)
    for name in _BELIEF_FIELDS:
        if name in values and np.isnan(values[name]).all():
            del values[name]
    variables: dict[str, Any] = {name: (("step", "param"), x) for name, x in values.items()}
    for name, x in zip(_SCALARS, np.asarray(state.scalars), strict=False):
        variables[f"task_{name}"] = ("step", x[steps % capacity])
    return xr.Dataset(
        variables,
        coords={"step": steps, "param": _labels(state.coordinates, params)},
        attrs={"steps_overwritten": total - len(steps)},
    )


def to_arviz(
    opt_state: PyTree, params: PyTree, *, num_draws: int = 200, key: Array | None = None
) -> Any:
    """The recording as arviz opens it: InferenceData (arviz 0.x) or DataTree (arviz 1.x).

    Groups, all of dimensions (step, param):

    - ``observed_data``: ``gradient`` and ``displacement``;
    - ``filter_posterior``: draws of ``gradient``, of dimensions (chain, draw, step, param), from
      the Gaussian with the mean and variance believed after that step. They are independent from
      step to step: marginals of the filter, not paths. Absent where no gradient variance is
      believed;
    - ``filter_stats``: the other variables of `to_dataset`.

    Args:
        opt_state: as in `to_dataset`.
        params: as in `to_dataset`.
        num_draws: number of draws of ``filter_posterior``.
        key: random key of the draws; ``jax.random.key(0)`` if not given.

    Returns:
        The container of the installed arviz.

    Raises:
        ValueError: see `to_dataset`.
    """
    return to_container(to_groups(to_dataset(opt_state, params), num_draws=num_draws, key=key))


def to_groups(
    recording: "xr.Dataset", *, num_draws: int = 200, key: Array | None = None
) -> dict[str, "xr.Dataset"]:
    """The groups of `to_arviz`, to be joined with others before `to_container`.

    Args:
        recording: the result of `to_dataset`.
        num_draws: number of draws of ``filter_posterior``.
        key: random key of the draws; ``jax.random.key(0)`` if not given.

    Returns:
        Group name -> Dataset.
    """
    import xarray as xr

    groups = {"observed_data": recording[["gradient", "displacement"]]}
    stats = recording.drop_vars(["gradient", "displacement"])
    if stats.data_vars:
        groups["filter_stats"] = stats
    if "gradient_variance" in stats:
        key = jax.random.key(0) if key is None else key
        mean, variance = stats["gradient_mean"].values, stats["gradient_variance"].values
        noise = np.asarray(jax.random.normal(key, (1, num_draws, *mean.shape)))
        groups["filter_posterior"] = xr.Dataset(
            {"gradient": (("chain", "draw", "step", "param"), mean + np.sqrt(variance) * noise)},
            coords={"chain": [0], "draw": np.arange(num_draws), **recording.coords},
        )
    return groups


def to_container(groups: Mapping[str, "xr.Dataset"]) -> Any:
    """Datasets as the container of the installed arviz, which has ``to_netcdf``.

    Args:
        groups: group name -> Dataset.

    Returns:
        InferenceData with arviz 0.x, DataTree with arviz 1.x.
    """
    import arviz
    import xarray as xr

    datasets: dict[str, Any] = dict(groups)
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(**datasets)
    return xr.DataTree.from_dict(datasets)


def read_stream(path: str | Path) -> "xr.Dataset":
    """Read a stream file: ``gradient`` and ``displacement`` of dimensions (step, param).

    Args:
        path: a NetCDF file.

    Returns:
        The stream, in memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not NetCDF, or does not hold a ``gradient`` of dimensions (step, param).
    """
    import xarray as xr

    if not Path(path).is_file():
        raise FileNotFoundError(
            f"No stream file at {path}. `python -m experiments classify` writes one; so does "
            "to_netcdf on the variables gradient and displacement of inspection.to_dataset(...)."
        )
    try:
        stream = xr.load_dataset(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a stream file: it cannot be read as NetCDF.") from error
    if "gradient" not in stream:
        raise ValueError(
            f"{path} is not a stream file: it needs a variable 'gradient' of dimensions "
            f"('step', 'param'), found {list(stream.data_vars)}."
        )
    for name in ("gradient", "displacement"):
        if name in stream and set(stream[name].dims) != {"step", "param"}:
            raise ValueError(
                f"{path} is not a stream file: its {name} needs the dimensions ('step', 'param'), "
                f"found {stream[name].dims}."
            )
    return stream


def _choose(
    params: PyTree, coordinates: int | Mapping[str, Any], key: Array | None
) -> dict[str, Array]:
    """Parameter path -> flat indices to record."""
    leaves = {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
    if isinstance(coordinates, Mapping):
        return {path: _checked_indices(path, i, leaves) for path, i in coordinates.items()}
    assert key is not None
    return {
        path: _draw(jax.random.fold_in(key, i), leaf.size, min(coordinates, leaf.size))
        for i, (path, leaf) in enumerate(leaves.items())
        if leaf.size
    }


def _checked_indices(path: str, indices: Any, leaves: Mapping[str, Any]) -> Array:
    if path not in leaves:
        raise ValueError(f"record: no parameter {path!r}; there are: {', '.join(leaves)}.")
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
        fields = _flat(state.probe.readings)
        believed = fields if believed is None else jnp.where(jnp.isnan(believed), fields, believed)
    return [] if believed is None else list(believed)


def _read_scalars(inner_state: PyTree) -> Array:
    """What an optimizer that resets says of this step [3]; nothing of others [0]."""

    def outermost(name: str) -> Any:
        found = optax.tree.get_all_with_path(inner_state, name)
        return min(found, key=lambda pair: len(pair[0]))[1] if found else None

    values = [outermost(name) for name in _SCALARS]
    if any(x is None for x in values):
        return jnp.zeros(0)
    return jnp.stack([jnp.asarray(x, jnp.result_type(float)) for x in values])


def _flat(values: Mapping[str, Array]) -> Array:
    """Path -> [..., k] as one array [..., param]."""
    return jnp.concatenate(list(values.values()), -1) if values else jnp.zeros(0)


def _labels(coordinates: Mapping[str, Array], params: PyTree) -> list[str]:
    """A name like ``layers/0/weight[3,1]`` for every recorded entry."""
    shapes = {path_name(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}
    labels = []
    for path, indices in coordinates.items():
        for index in np.asarray(indices):
            position = ",".join(str(i) for i in np.unravel_index(index, shapes[path]))
            labels.append(f"{path}[{position}]" if position else path)
    return labels


def _recording(opt_state: PyTree) -> RecordState:
    """The one `RecordState` in an optimizer state."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, RecordState))
    states = [leaf for leaf in leaves if isinstance(leaf, RecordState)]
    if len(states) != 1:
        raise ValueError(
            f"Expected one recording in the optimizer state, found {len(states)}. Wrap one "
            "optimizer in beliefnav.inspection.record."
        )
    return states[0]
