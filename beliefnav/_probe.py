"""A window on a few entries of a belief, which a step looks into."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from beliefnav._sharding import entries_at
from beliefnav._trees import listed, named_leaves
from beliefnav.beliefs import Info, Posterior
from beliefnav.objective import is_like

__all__ = ["Probe", "gather", "read"]

PyTree = Any

FIELDS = tuple(Posterior()._asdict() | Info()._asdict())
"""What is read off a belief at every step."""


class Probe(NamedTuple):
    """A window on a few entries of a belief, opened by `beliefnav.recording.record`.

    It is data and no callback, so that it works wherever the state goes: under scan, vmap, inside
    ``optax.MultiSteps``.

    Attributes:
        coordinates: parameter path -> flat indices [k].
        readings: parameter path -> values [field, k] of the last step, one row for each of
            `FIELDS`; NaN where the belief has no such field.
    """

    coordinates: Mapping[str, Array]
    readings: Mapping[str, Array]


def gather(
    tree: PyTree, coordinates: Mapping[str, Array], required: str | None = None
) -> dict[str, Array]:
    """The entries of ``tree`` at ``coordinates``; NaN for paths that it does not have.

    Args:
        tree: a tree like the parameters, or a part of one, or ``None``.
        coordinates: parameter path -> flat indices [k].
        required: what the tree is, where it must have all paths.

    Returns:
        Parameter path -> values [k], in jax's default float.

    Raises:
        ValueError: a path is not there, and the tree is required to have it; names what there is.
    """
    leaves = dict(named_leaves(tree))
    if required and (absent := [path for path in coordinates if path not in leaves]):
        raise ValueError(
            f"Cannot record {required} at {absent[0]!r}. This is because there is no such path in "
            f"it; there are {listed(leaves)}. Give update trees of the structure of the "
            "parameters that init was given."
        )

    def values(path: str, indices: Array) -> Array:
        dtype = jnp.result_type(float)
        if path not in leaves:
            return jnp.full(indices.shape, jnp.nan, dtype)
        leaf = leaves[path]
        entries = entries_at(leaf, jnp.unravel_index(indices, leaf.shape)).astype(dtype)
        return jnp.broadcast_to(entries, indices.shape)  # the index of a scalar is empty

    return {path: values(path, indices) for path, indices in coordinates.items()}


def read(probe: Probe, like: PyTree, posterior: Posterior, info: Info) -> Probe:
    """A probe that has looked at one step, on trees like ``like``."""
    said = posterior._asdict() | info._asdict()
    fields = [gather(_entries(said[name], like), probe.coordinates) for name in FIELDS]
    readings = {path: jnp.stack([f[path] for f in fields]) for path in probe.coordinates}
    return Probe(probe.coordinates, readings)


def _entries(tree: PyTree, like: PyTree) -> PyTree:
    """A reading per parameter: a scalar is that of all; a matrix of curvature has none."""
    if is_like(tree, like):
        return tree
    if not isinstance(tree, Array) or tree.ndim:
        return None
    return jax.tree.map(lambda leaf: jnp.broadcast_to(tree, leaf.shape), like)
