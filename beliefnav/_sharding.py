"""Arrays of explicit meshes, whose shardings are part of their types, gathered and put back.

On a mesh of automatic axes the compiler gathers what an operation needs whole. On one of explicit
axes it refuses to choose, so that an operation which mixes the entries of an array says here what
it needs. Everywhere else nothing is done.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec

__all__ = ["entries_at", "gathered", "placed_like", "summed"]


def gathered(x: Array) -> Array:
    """An array whole on every device, as no reshape or decomposition of a sharded one is."""
    return jax.sharding.reshard(x, _whole(x)) if _is_sharded(x) else x


def placed_like(x: Array, like: Array) -> Array:
    """An array that is whole on every device, sharded as ``like`` is."""
    return jax.sharding.reshard(x, jax.typeof(like).sharding) if _is_sharded(like) else x


def entries_at(x: Array, indices: tuple[Array, ...]) -> Array:
    """A few entries of an array, on every device; the array itself is not gathered."""
    return x.at[indices].get(out_sharding=_whole(x)) if _is_sharded(x) else x[indices]


def summed(x: Array) -> Array:
    """The sum of the entries of an array, over all devices.

    Inside ``jax.shard_map`` nothing is done behind one's back, so that it is asked for.
    """
    total = jnp.sum(x)
    axes = tuple(jax.typeof(total).manual_axis_type.varying)
    return lax.psum(total, axes) if axes else total


def _is_sharded(x: Array) -> bool:
    """Whether the type of an array says that it is spread over devices."""
    return any(jax.typeof(x).sharding.spec)


def _whole(x: Array) -> NamedSharding:
    return NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec())
