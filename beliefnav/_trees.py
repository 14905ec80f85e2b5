"""Trees of arrays that the filters are made of."""

import sys
from collections.abc import Callable, Container, Iterable
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

__all__ = [
    "aligned_leaves",
    "arrays",
    "boxed_as",
    "check_shapes",
    "copied",
    "correct",
    "filled",
    "fits",
    "fitted",
    "full_like",
    "innovation",
    "is_function",
    "is_observed",
    "listed",
    "named_leaves",
    "observed",
    "path_name",
    "scalar_like",
    "scale",
    "select",
    "spread",
    "square_innovation",
    "unboxed",
    "unzip",
    "where",
    "wide",
    "wide_dtype",
]

PyTree = Any


def arrays(tree: PyTree) -> PyTree:
    """A tree whose Python numbers and numpy arrays are arrays of jax; other leaves stay."""
    return jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, int | float | np.ndarray | np.generic) else x,
        tree,
    )


def is_function(value: Any) -> TypeGuard[Callable[..., Any]]:
    """Whether a value is a function, and no tree of numbers that may be called too.

    Such a tree is an `equinox.Module`. A function may be a tree as well, one that holds more than
    numbers: optimistix makes closures into trees.
    """
    leaves = jax.tree.leaves(value)
    return callable(value) and not (leaves and all(map(eqx.is_array_like, leaves)))


def wide_dtype(*values: Any) -> Any:
    """The common dtype of arrays or dtypes, at least float32.

    Memory that is wider than a gradient is meant, also where dtypes are not promoted silently.
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(jnp.float32, *values)


def full_like(params: PyTree, value: ArrayLike) -> PyTree:
    """A tree like ``params`` filled with ``value``, in at least float32.

    Half-precision parameters get float32 beliefs: a mean that moves by a thousandth of a gradient
    at a time stands still in bfloat16. Works on abstract leaves and keeps shardings.
    """
    return jax.tree.map(
        lambda p: jnp.full_like(p, value, dtype=wide_dtype(jnp.result_type(p))), params
    )


def scalar_like(params: PyTree, value: ArrayLike) -> Array:
    """``value`` as one scalar, in the widest dtype that `full_like` gives to ``params``."""
    return jnp.asarray(value, wide_dtype(*jax.tree.leaves(params)))


def select(mask: Array, x: Any, otherwise: Any) -> Array:
    """``jnp.where`` as one operation where shapes and dtypes allow it, and not as a jit.

    A step of a learner does this for every array of parameters; ``jnp.where`` would be traced as a
    program of its own each time. Of ``x`` and ``otherwise``, one may be a number.
    """
    like = otherwise if isinstance(x, int | float) else x
    if isinstance(like, int | float) or jnp.shape(mask) not in ((), jnp.shape(like)):
        return jnp.where(mask, x, otherwise)
    pair = (lax.full_like(like, v) if isinstance(v, int | float) else v for v in (x, otherwise))
    x, otherwise = pair
    if x.shape != otherwise.shape or x.dtype != otherwise.dtype:
        return jnp.where(mask, x, otherwise)
    return lax.select(mask, x, otherwise)


def is_observed(y: Any) -> Array:
    """Where an entry is a number whose square is one, in float32 at least; others are missing.

    A second moment, a surprise or a density of it would not be finite.
    """
    if not jnp.issubdtype(y.dtype, jnp.inexact):
        return jnp.isfinite(y)
    y = wide(y, wide_dtype(y.dtype))
    return lax.is_finite(y * y)


def wide(x: Array, dtype: Any) -> Array:
    """``x`` in another dtype; itself if it has that."""
    return x if x.dtype == dtype else x.astype(dtype)


def scale(tree: PyTree, factor: ArrayLike) -> PyTree:
    """``factor * tree`` in the tree's own dtypes."""
    return jax.tree.map(lambda x: wide(factor * x, x.dtype), tree)


def observed(gradient: PyTree) -> PyTree:
    """Where an entry is an observation."""
    return jax.tree.map(is_observed, gradient)


def innovation(gradient: PyTree, prediction: PyTree) -> PyTree:
    """Observation minus prediction, 0 where missing: a missing entry then corrects nothing.

    The entry is replaced before it is subtracted, so that derivatives stay finite too.
    """
    return jax.tree.map(
        lambda y, m: select(is_observed(y), wide(y, m.dtype), m) - m, gradient, prediction
    )


def square_innovation(gradient: PyTree, prediction: PyTree) -> PyTree:
    """Squared observation minus its prediction, 0 where missing."""

    def leaf(y: Array, s: Array) -> Array:
        seen = is_observed(y)
        y = select(seen, wide(y, s.dtype), s)  # whose derivative is finite; any number would do
        return select(seen, y * y, s) - s

    return jax.tree.map(leaf, gradient, prediction)


def correct(mean: PyTree, gain: PyTree, error: PyTree) -> PyTree:
    """``mean + gain * error`` in the mean's own dtypes; ``gain`` may be one scalar for all."""
    gain = jax.tree.broadcast(gain, mean)
    return jax.tree.map(lambda m, k, e: wide(m + k * e, m.dtype), mean, gain, error)


def where(mask: PyTree, tree: PyTree, otherwise: ArrayLike) -> PyTree:
    """``tree`` where ``mask``, else ``otherwise``; ``tree`` may be one scalar for all."""
    return jax.tree.map(
        lambda o, x: jnp.where(o, x, otherwise), mask, jax.tree.broadcast(tree, mask)
    )


def aligned_leaves(tree: PyTree, *rest: PyTree) -> tuple[list[tuple[Any, ...]], Any]:
    """The leaves of trees of one structure side by side, and the structure.

    A tree that is ``None`` has ``None`` beside every leaf.
    """
    leaves, treedef = jax.tree.flatten(tree)
    columns = [
        [None] * len(leaves) if other is None else treedef.flatten_up_to(other) for other in rest
    ]
    return list(zip(leaves, *columns, strict=True)), treedef


def unzip(f: Callable[..., Any], like: Any, tree: PyTree, *rest: PyTree) -> Any:
    """Map a function of leaves that returns a structure of leaves; a structure of trees comes out.

    Args:
        f: ``(leaf, *leaves) -> structure``.
        like: anything of the structure that ``f`` returns; it decides for a tree without leaves.
        tree: the tree whose leaves are mapped.
        *rest: trees of the same structure, or ``None``, which every leaf then gets.

    Returns:
        The structure of ``f``, of trees.
    """
    entries, treedef = aligned_leaves(tree, *rest)
    results = [f(*entry) for entry in entries]
    if not results:
        return jax.tree.map(lambda _: treedef.unflatten([]), like)
    return jax.tree.map(lambda *values: treedef.unflatten(values), *results)


def spread(owner: str, name: str, value: PyTree, like: PyTree) -> PyTree:
    """A number, an array or a tree as a tree like the parameters, in the dtypes of ``like``.

    Where ``like`` has no parameter, as under a mask, that of the tree is not used.

    Raises:
        ValueError: it does not fit the parameters; names the owner, the value and the shapes.
    """

    def leaf(x: Array, value: Any) -> Any:
        if not fits(jnp.shape(value), x.shape):
            raise ValueError(
                f"{owner}: {name} of shape {jnp.shape(value)} does not broadcast to a parameter of "
                f"shape {x.shape}."
            )
        if not jnp.ndim(value):
            return jnp.full_like(x, value)  # sharded as the parameter is
        return jnp.zeros_like(x) + jnp.broadcast_to(jnp.asarray(value).astype(x.dtype), x.shape)

    return jax.tree.map(leaf, like, fitted(owner, name, value, like))


def fitted(owner: str, name: str, tree: PyTree, like: PyTree) -> PyTree:
    """A tree with one value for every parameter, from one that has them under the same paths.

    A value may stand for all parameters below its path: one number is a tree, too. Where ``like``
    has no parameter, as under a mask, the values of the tree are left out.

    Args:
        owner: what asks, for the message.
        name: the name of the tree, for the message.
        tree: the values.
        like: a tree like the parameters, in boxes or not.

    Returns:
        The values in a tree of the structure of ``like``.

    Raises:
        ValueError: a parameter has no value, or a value no parameter; names it.
    """
    if not jax.tree.leaves(like):  # optax looks at states of no parameters
        return like
    if jax.tree.structure(tree) == jax.tree.structure(0):
        return jax.tree.map(lambda _: tree, like)
    values = {_names(path): x for path, x in jax.tree.leaves_with_path(unboxed(tree))}
    places = jax.tree.leaves_with_path(unboxed(like), is_leaf=_is_empty)
    found = [None if _is_empty(x) else _above(_names(path), values) for path, x in places]
    lacking = [p for (p, x), v in zip(places, found, strict=True) if v is None and not _is_empty(x)]
    left_out = {_names(path) for path, x in places if _is_empty(x)}
    used = {*found, *(path[:n] for path in left_out for n in range(len(path)))}
    spare = [v for v in values if v not in used and _above(v, left_out) is None]
    if lacking or spare:
        fault = f"nothing for {path_name(lacking[0])!r}" if lacking else f"{'/'.join(spare[0])!r}"
        paths = listed(n for n, _ in named_leaves(like))
        raise ValueError(
            f"{owner}: {name} must be like the parameters. This is because it has {fault}, and "
            f"they are {paths or 'one array'}. Give one value for all, or a tree of them at these "
            "paths."
        )
    return jax.tree.structure(like, is_leaf=_is_empty).unflatten(
        x if v is None else values[v] for (_, x), v in zip(places, found, strict=True)
    )


def check_shapes(owner: str, name: str, tree: PyTree, like: PyTree) -> None:
    """Raise unless the values of a tree have the shapes of the parameters, one by one."""
    for (path, p), x in zip(named_leaves(like), jax.tree.leaves(tree), strict=True):
        if jnp.shape(x) != jnp.shape(p):
            raise ValueError(
                f"{owner}: {name} must be like the parameters, got the shape {jnp.shape(x)} for "
                f"parameter {path!r} of shape {jnp.shape(p)}."
            )


def _above(path: tuple[str, ...], paths: Container[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The path itself, or the one nearest above it, if it is one of ``paths``."""
    heads = (path[:n] for n in range(len(path), -1, -1))
    return next((head for head in heads if head in paths), None)


def filled(part: PyTree, whole: PyTree) -> PyTree:
    """``part``, and ``whole`` in the places that a mask leaves out of it, where it has them."""
    same = boxed_as(part, whole)
    if same is not None:
        return same
    places, treedef = jax.tree.flatten(part, is_leaf=_is_empty)
    values = treedef.flatten_up_to(whole)
    pairs = zip(places, values, strict=True)
    return treedef.unflatten(v if _is_empty(x) else x for x, v in pairs)


def boxed_as(tree: PyTree, like: PyTree) -> PyTree:
    """The arrays of a tree in the nodes of another, such as the boxes of a host for parameters.

    Returns:
        A tree of the structure of ``like``; ``None`` if its arrays are not as many, of one shape,
        or have other names.
    """
    leaves, (others, treedef) = jax.tree.leaves(tree), jax.tree.flatten(like)
    if [*map(jnp.shape, leaves)] != [*map(jnp.shape, others)]:
        return None
    names = zip(_outside(unboxed(tree)), _outside(unboxed(like)), strict=True)
    if any(p[: len(q)] != q[: len(p)] for p, q in names):
        return None
    return treedef.unflatten(leaves)


def _outside(tree: PyTree) -> list[tuple[str, ...]]:
    """The path of every leaf, without the end that is that of all: the way into a box."""
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]

    def way_into_a_box(n: int) -> bool:
        ends = [path[-n:] for path in paths]
        return ends.count(ends[0]) == len(ends) and not any(
            isinstance(key, jax.tree_util.DictKey) for key in ends[0]
        )

    depth = min(map(len, paths), default=0)
    inside = next((n for n in range(depth, 0, -1) if way_into_a_box(n)), 0)
    return [_names(path[: len(path) - inside]) for path in paths]


def _is_empty(node: Any) -> bool:
    """A node without parameters: ``None``, or the placeholder of a mask."""
    return node is None or (isinstance(node, tuple) and not node)


def fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of a shape may stand for one of another, without making that larger."""
    try:
        return jnp.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def unboxed(tree: PyTree) -> PyTree:
    """A tree without the boxes that flax puts around arrays to say more of them.

    A box is a node of the tree, which flax opens or not as it pleases: it is no part of the path
    that a person knows a parameter under, nor a layer of its own.
    """

    def opened(node: Any) -> Any:
        if not _is_box(node):
            return node
        (inside,) = jax.tree.leaves(node, is_leaf=lambda x: x is not node)
        return unboxed(inside)

    return jax.tree.map(opened, tree, is_leaf=_is_box)


BOXES = (("flax.nnx", "Variable"), ("flax.core.meta", "AxisMetadata"))
"""Modules and classes, which are there if someone else has imported them."""


def _is_box(node: Any) -> bool:
    loaded = ((sys.modules.get(module), name) for module, name in BOXES)
    return any(isinstance(node, vars(module).get(name, ())) for module, name in loaded if module)


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a tree and their names, from which boxes are left out."""
    return [(path_name(path), x) for path, x in jax.tree.leaves_with_path(unboxed(tree))]


def path_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf: its path in the parameters, as in ``layers/0/weight``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(path_name((key,)) for key in path)


def listed(names: Iterable[str], at_most: int = 8) -> str:
    """Some names in one line of a message, and how many more there are."""
    shown = list(names)
    more = f" and {len(shown) - at_most} more" * (len(shown) > at_most)
    return ", ".join(shown[:at_most]) + more


def copied(params: PyTree) -> PyTree:
    """``params`` in buffers of its own, so that parameters and state can both be donated."""
    return jax.tree.map(
        lambda p: p if isinstance(p, jax.ShapeDtypeStruct) else jnp.array(p), params
    )
