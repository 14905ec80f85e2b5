"""Ten steps of every rule: updates and states, eager and jitted, and what is found in states."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import streams
from names import recordings, root
from recorder import Recorder, labelled
from rule_cases import optimizers

PyTree = Any

SOUGHT = (
    "missing",
    "clipped",
    "count",
    "probe",
    "belief",
    "previous_params",
    "start_params",
    "switch_probability",
    "reset_fraction",
    "surprise",
    "without_evidence",
    "decay_target",
    "inner_state",
    "prior_mean",
    "sample_size",
    "degrees_of_freedom",
    "noise_scale",
    "learning_rate",
)
"""Names that ``optax.tree.get`` is asked for."""

AFTER = 6
"""The state that is read is that after the step at which one entry is infinite."""

RECORDED = (
    "adam",
    "masked adam",
    "secant",
    "wiener",
    "hazard_filter, examples",
    "two_hypothesis of adam",
)
"""Optimizers that `record` is put around."""


def inputs(reading: str | None, dtype: str, every_step: bool) -> list[PyTree]:
    """What ``update`` gets at every step; a second sensor reads at the even ones, or at all."""
    steps: list[PyTree] = [{"gradient": g} for g in streams.gradients(dtype)]
    readings: dict[str, Any] = {
        "diagonal": ("curvature", streams.diagonals),
        "matrix": ("curvature", streams.matrices),
        "examples": ("per_example_grads", streams.example_gradients),
        "loss": ("target", streams.targets),
    }
    if reading is not None:
        name, make = readings[reading]
        for t, (step, value) in enumerate(zip(steps, make(dtype), strict=True)):
            if every_step or reading == "loss" or t % 2 == 0:
                step[name] = value
            elif name == "curvature":
                step[name] = None
    return steps


def take(optimizer: Any, state: PyTree, params: PyTree, given: PyTree) -> tuple[PyTree, PyTree]:
    """One update; a target becomes the value of a loss, and the loss itself."""
    extra = dict(given)
    gradient, target = extra.pop("gradient"), extra.pop("target", None)
    if target is not None:
        value_fn = functools.partial(streams.loss, target=target)
        extra |= {"value": value_fn(params), "value_fn": value_fn}
    return optimizer.update(gradient, state, params, **extra)


def follow(optimizer: Any, reading: str | None, dtype: str, jitted: bool) -> dict[str, list[Any]]:
    """The updates and the states of ten steps, along the parameters that they lead to."""
    step = functools.partial(take, optimizer)
    step = jax.jit(step) if jitted else step
    params = streams.params(dtype)
    state = optimizer.init(params)
    path: dict[str, list[Any]] = {"update": [], "state": [state]}
    for given in inputs(reading, dtype, every_step=jitted):
        updates, state = step(state, params, given)
        params = optax.apply_updates(params, updates)
        path["update"].append(updates)
        path["state"].append(state)
    return path


def eager(recorder: Recorder) -> None:
    """Updates and states, of variants only in float64, and what can be read off a state."""
    for name, (make, reading) in optimizers().items():
        path = recorder.item(f"rules/{name}/float64", _made, make, reading, "float64", False)
        if "," not in name:
            recorder.item(f"rules/{name}/float32", _made, make, reading, "float32", False)
        if path is None:
            continue
        state = path["state"][AFTER]
        recorder.item(f"found in states/{name}", found, state)
        recorder.item(f"bytes of states/{name}", sizes, state)
        recorder.item(f"posteriors/{name}", _posterior, state)
        if name.startswith("hazard_filter"):
            recorder.item(f"sampled parameters/{name}", _sampled, state)


def jitted(recorder: Recorder) -> None:
    """Updates and the last state of every rule in float64, one compiled step each."""

    def run(make: Callable[[], Any], reading: str | None) -> PyTree:
        path = _made(make, reading, "float64", True)
        return {"update": path["update"], "state": path["state"][-1]}

    for name, (make, reading) in optimizers().items():
        recorder.item(f"jitted/{name}", run, make, reading)


def _made(make: Callable[[], Any], reading: str | None, dtype: str, jitted: bool) -> PyTree:
    return follow(make(), reading, dtype, jitted)


def _posterior(state: PyTree) -> PyTree:
    return root.posterior(state)


def _sampled(state: PyTree) -> PyTree:
    return root.sample_params(state, jax.random.key(0))


def found(state: PyTree) -> PyTree:
    """How often ``optax.tree.get`` finds each name, and the values that it finds."""

    def values(name: str) -> PyTree:
        pairs = optax.tree.get_all_with_path(state, name)
        every = ["None" if value is None else value for _, value in pairs]
        return {"times": len(every), "values": every}

    return {name: values(name) for name in SOUGHT}


def sizes(state: PyTree) -> dict[str, int]:
    """Bytes of a state, and those without the counter of missing entries."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    counted = [x for path, x in leaves if getattr(path[-1], "name", None) != "missing"]
    return {
        "total": sum(jnp.asarray(x).nbytes for _, x in leaves),
        "without missing": sum(jnp.asarray(x).nbytes for x in counted),
    }


def datasets(recorder: Recorder) -> None:
    """What `record` keeps of some rules, as a Dataset and in the groups of arviz."""

    def run(make: Callable[[], Any], reading: str | None) -> PyTree:
        options: Any = {"capacity": 7, "key": jax.random.key(0)}
        optimizer = recordings.record(make(), coordinates=2, **options)
        path = follow(optimizer, reading, "float64", False)
        params = jax.tree.map(lambda x: x + 0.5, streams.params("float64"))
        data = recordings.to_dataset(path["state"][-1], params)
        groups = recordings.to_groups(data, num_draws=3, key=jax.random.key(1))
        labels = {group: labelled(part) for group, part in groups.items()}
        return {"update": path["update"], "dataset": labelled(data), "groups": labels}

    every = optimizers()
    for name in RECORDED:
        recorder.item(f"recordings of rules/{name}", run, *every[name])
