"""Recordings as labelled Datasets, and the files that hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav._probe import FIELDS, gather
from beliefnav._trees import named_leaves, unboxed
from beliefnav.recording.in_memory import Recording
from beliefnav.recording.recorder import SCALARS, VARIABLES, RecordState, flat

if TYPE_CHECKING:
    import xarray as xr

PyTree = Any

__all__ = ["read_stream", "to_dataset"]

ALONGSIDE = ("displacement", "curvature", "params")
"""What a stream may have beside its gradient, of the same dimensions."""


def to_dataset(opt_state: PyTree, params: PyTree) -> "xr.Dataset":
    """The recording inside an optimizer state, oldest step first, with labels.

    Args:
        opt_state: state of an optimizer made by `record`, alone or inside a chain. Of a state
            batched by ``vmap``, take one element.
        params: the present parameters, to measure the last displacement; only their recorded
            entries are read.

    Returns:
        A Dataset of dimensions (step, param). Variables: ``gradient``, ``displacement`` and
        ``params`` and, of `Posterior` and `Info`, the fields that the belief has. Of an optimizer
        that resets, also ``task_switch_probability``, ``task_reset_fraction`` and
        ``task_surprise``, of dimension (step); where the norm was asked for, ``gradient_norm`` of
        dimension (step). ``step`` counts from 0 at the first update; the attribute
        ``steps_overwritten`` tells how many were lost to ``capacity``.

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
    values = dict(zip(VARIABLES, kept, strict=False))  # without a belief, only the first three
    now = flat(gather(params, state.coordinates, "the parameters"))
    moved = now - state.previous_values
    values["displacement"][-1] = np.asarray(moved)
    for name in FIELDS:
        if name in values and np.isnan(values[name]).all():
            del values[name]
    variables: dict[str, Any] = {name: (("step", "param"), x) for name, x in values.items()}
    scalars = () if state.scalars is None else np.asarray(state.scalars)
    for name, x in zip(SCALARS, scalars, strict=False):
        variables[f"task_{name}"] = ("step", x[steps % capacity])
    if state.norms is not None:
        variables["gradient_norm"] = ("step", np.asarray(state.norms)[steps % capacity])
    return xr.Dataset(
        variables,
        coords={"step": steps, "param": _labels(state.coordinates, params)},
        attrs={"steps_overwritten": total - len(steps)},
    )


def read_stream(path: str | Path) -> "xr.Dataset":
    """Read a stream file.

    Args:
        path: a NetCDF file with a ``gradient`` of dimensions (step, param). Others may be there:
            ``displacement``, ``params`` and ``curvature`` of the same, ``gradient_norm`` of (step).

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
            "to_netcdf on recording.to_dataset(...)[['gradient', 'displacement', 'params']]."
        )
    try:
        stream = xr.load_dataset(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a stream file: it cannot be read as NetCDF.") from error
    try:
        check_layout(stream, ("step", "param"))
    except ValueError as error:
        raise ValueError(f"{path} is not a stream file. {error}") from error
    return stream


def from_arrays(
    gradient: Any,
    displacement: Any = None,
    curvature: Any = None,
    labels: Any = None,
    params: Any = None,
    gradient_norm: Any = None,
) -> "xr.Dataset":
    """A recording in memory as a labelled Dataset, such as `beliefnav.inference.target` takes.

    Args:
        gradient: [step] or [step, param].
        displacement: as ``gradient``: the displacement after each observation.
        curvature: as ``gradient``: readings of a second sensor.
        labels: [param] names of the coordinates; their positions by default.
        params: as ``gradient``: the parameters at which it was taken.
        gradient_norm: [step] the norm of the whole gradient.

    Returns:
        A Dataset of dimensions (step, param).

    Raises:
        ValueError: the arrays are not of that shape, or differ in it.
    """
    import xarray as xr

    given = {"gradient": gradient, "displacement": displacement, "params": params}
    given |= {"curvature": curvature}
    arrays = {name: np.asarray(value) for name, value in given.items() if value is not None}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or arrays["gradient"].ndim not in (1, 2):
        raise ValueError(f"A stream has arrays [step] or [step, param] of one shape, got {shapes}.")
    dims = ("step", "param")[: arrays["gradient"].ndim]
    coords: dict[str, Any] = {"step": np.arange(len(arrays["gradient"]))}
    if len(dims) == 2:
        coords["param"] = np.arange(arrays["gradient"].shape[1]) if labels is None else labels
    variables: dict[str, Any] = {name: (dims, array) for name, array in arrays.items()}
    if gradient_norm is not None:
        if np.shape(gradient_norm) != (length := arrays["gradient"].shape[:1]):
            raise ValueError(
                f"The norm of a gradient has one value a step, {length}, got "
                f"{np.shape(gradient_norm)}."
            )
        variables["gradient_norm"] = ("step", np.asarray(gradient_norm))
    return xr.Dataset(variables, coords)


def to_arrays(stream: "xr.Dataset", dims: tuple[str, ...]) -> Recording:
    """What a belief filters of a labelled Dataset, in memory.

    Args:
        stream: the Dataset, see `check_layout`.
        dims: the order of the dimensions.

    Returns:
        Arrays in jax's default float.
    """

    def read(name: str) -> Any:
        if name not in stream:
            return None
        return jnp.asarray(stream[name].transpose(*dims).values, jnp.result_type(float))

    return Recording(read("gradient"), read("displacement"), read("curvature"))


def check_layout(stream: "xr.Dataset", dims: tuple[str, ...] | None = None) -> None:
    """Raise unless a Dataset is laid out as a stream.

    Args:
        stream: the Dataset.
        dims: those that the gradient must have, in any order; ``None``: any with a step.

    Raises:
        ValueError: it has no ``gradient``, that has no step, or the other variables differ.
    """
    if "gradient" not in stream:
        raise ValueError(
            f"The stream has no variable 'gradient'; it has: {', '.join(map(str, stream)) or '-'}."
        )
    found = stream["gradient"].dims
    if "step" not in found or (dims is not None and set(found) != set(dims)):
        raise ValueError(
            f"The gradient of a stream has dimensions ('step', 'param'), found {found}."
        )
    expected: dict[str, tuple[Any, ...]] = dict.fromkeys(ALONGSIDE, found)
    expected["gradient_norm"] = ("step",)
    for name, own in expected.items():
        if name in stream and set(stream[name].dims) != set(own):
            of = "the dimensions of its gradient" if name in ALONGSIDE else "one value a step"
            raise ValueError(f"The {name} of a stream has {of}, {own}, found {stream[name].dims}.")


def _labels(coordinates: Mapping[str, Array], params: PyTree) -> list[str]:
    """A name like ``layers/0/weight[3,1]`` for every recorded entry."""
    shapes = {name: leaf.shape for name, leaf in named_leaves(params)}
    labels = []
    for path, indices in coordinates.items():
        for index in np.asarray(indices):
            position = ",".join(str(i) for i in np.unravel_index(index, shapes[path]))
            labels.append(f"{path}[{position}]" if position else path)
    return labels


def _recording(opt_state: PyTree) -> RecordState:
    """The one `RecordState` in an optimizer state."""
    leaves = jax.tree.leaves(unboxed(opt_state), is_leaf=lambda x: isinstance(x, RecordState))
    states = [leaf for leaf in leaves if isinstance(leaf, RecordState)]
    if len(states) != 1:
        raise ValueError(
            f"Expected one recording in the optimizer state, found {len(states)}. Wrap one "
            "optimizer in beliefnav.recording.record."
        )
    return states[0]
