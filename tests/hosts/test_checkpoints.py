"""A run that is written to a file and read back goes on as if it had not been, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from beliefnav import recording
from tests.hosts.hosts import NNX, layer, loss
from tests.hosts.test_hosts import SHAPES, Optimizer, nothing, plain

PyTree = Any

STATES: dict[str, Callable[[], Optimizer]] = {
    **SHAPES,
    "record": lambda: recording.record(
        SHAPES["secant"](), coordinates=2, capacity=3, key=jax.random.key(0)
    ),
}


def by_orbax(tree: PyTree, like: PyTree, path: Path) -> PyTree:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, like)


def by_flax(tree: PyTree, like: PyTree, path: Path) -> PyTree:
    """Arrays come back as those of numpy."""
    path.write_bytes(flax.serialization.to_bytes(tree))
    return flax.serialization.from_bytes(like, path.read_bytes())


def by_equinox(tree: PyTree, like: PyTree, path: Path) -> PyTree:
    eqx.tree_serialise_leaves(path, tree)
    return eqx.tree_deserialise_leaves(path, like)


def assert_equal(got: PyTree, want: PyTree) -> None:
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(x, y)


def params_of(seed: int) -> PyTree:
    return {"first": layer(seed), "second": layer(seed + 1)}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("kept", [by_orbax, by_flax, by_equinox])
def test_a_run_goes_on_where_it_stopped(
    kept: Callable[..., PyTree], kind: str, tmp_path: Path
) -> None:
    init, step = plain(STATES[kind], nothing)
    params = params_of(0)
    run = params, init(params)

    def go_on(params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        return step(jax.grad(loss)(params), state, params)

    for _ in range(3):
        run = go_on(*run)
    other = params_of(5)
    read = kept(run, (other, init(other)), tmp_path / "run")
    assert jax.tree.structure(read) == jax.tree.structure(run)
    for _ in range(3):
        assert_equal(read, run)
        run, read = go_on(*run), go_on(*read)
    assert_equal(read, run)


def test_a_run_of_flax_nnx_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Its state is read back into that of another model, whose optimizer has taken no step."""

    @nnx.jit
    def step(model: NNX, host: nnx.Optimizer) -> None:
        host.update(model, nnx.grad(lambda model: loss(nnx.state(model, nnx.Param)))(model))

    def start(seed: int) -> tuple[NNX, nnx.Optimizer]:
        model = NNX(nnx.Rngs(seed))
        return model, nnx.Optimizer(model, STATES["record"](), wrt=nnx.Param)

    run, read = start(0), start(1)
    for _ in range(3):
        step(*run)
    state = by_orbax(nnx.state(run), jax.eval_shape(lambda: nnx.state(read)), tmp_path / "run")
    nnx.update(read, state)
    for _ in range(3):
        step(*run)
        step(*read)
        assert_equal(nnx.state(read), nnx.state(run))
