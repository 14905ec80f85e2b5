"""What the program feeds in: ten steps of gradients on a small tree, from PCG64 with fixed seeds.

The tree has what trees of parameters have: a matrix, a vector, a scalar, an array without entries
and a ``None``, in a dict and a tuple. One entry of the gradients is NaN and one is infinite.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any

STEPS = 10
EXAMPLES = 4
SIZE = 10
"""Number of entries of the tree, raveled."""


def generator(seed: int) -> np.random.Generator:
    """The generator of a seed; the bit generator is named, so that it cannot change."""
    return np.random.Generator(np.random.PCG64(seed))


def tree(seed: int, dtype: str, leading: tuple[int, ...] = ()) -> PyTree:
    """A tree of normal numbers [*leading, ...]."""
    rng = generator(seed)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=(*leading, *shape)), dtype)

    return {"w": draw(3, 2), "pair": (draw(3), draw()), "none": None, "empty": draw(0)}


def params(dtype: str) -> PyTree:
    """Where parameters start."""
    return tree(1, dtype)


def gradients(dtype: str) -> list[PyTree]:
    """The gradient of every step, one entry NaN at step 3 and one infinite at step 5."""
    steps = [tree(100 + t, dtype) for t in range(STEPS)]
    steps[3]["w"] = steps[3]["w"].at[0, 1].set(jnp.nan)
    vector, scalar = steps[5]["pair"]
    steps[5]["pair"] = vector.at[2].set(jnp.inf), scalar
    return steps


def displacements(dtype: str) -> list[PyTree]:
    """How far the parameters moved before every step, the first time not at all."""
    steps = [jax.tree.map(lambda x: x / 4, tree(200 + t, dtype)) for t in range(STEPS)]
    return [jax.tree.map(jnp.zeros_like, steps[0]), *steps[1:]]


def diagonals(dtype: str) -> list[PyTree]:
    """Readings of the curvature of every parameter, most of them positive, one of them missing."""
    steps = [jax.tree.map(lambda x: 1 + x / 2, tree(300 + t, dtype)) for t in range(STEPS)]
    steps[4]["w"] = steps[4]["w"].at[2, 0].set(jnp.nan)
    return steps


def matrices(dtype: str) -> list[jax.Array]:
    """Readings of the matrix of curvature over all parameters, positive definite."""
    roots = [generator(400 + t).normal(size=(SIZE, SIZE)) / 4 for t in range(STEPS)]
    return [jnp.asarray(np.eye(SIZE) + root @ root.T, dtype) for root in roots]


def example_gradients(dtype: str) -> list[PyTree]:
    """Gradients of some examples [example, ...] at every step."""
    return [tree(500 + t, dtype, (EXAMPLES,)) for t in range(STEPS)]


def targets(dtype: str) -> list[PyTree]:
    """Where the loss of every step is lowest: near the start at first, far from it at the end."""
    start = params(dtype)
    near = [jax.tree.map(lambda x: x / 8, tree(600 + t, dtype)) for t in range(STEPS)]
    return [
        jax.tree.map(lambda p, d, t=t: p + d + (2 if t > 5 else 0), start, d)
        for t, d in enumerate(near)
    ]


def loss(params: PyTree, target: PyTree) -> jax.Array:
    """Half the squared distance from a target."""
    squares = jax.tree.map(lambda p, x: jnp.sum((p - x) ** 2) / 2, params, target)
    return sum(jax.tree.leaves(squares), jnp.zeros(()))


def recorded(seed: int, missing: bool, scale: float = 1.0) -> PyTree:
    """A recorded stream, a tree of [step, ...], in float64."""
    rng = generator(seed)
    stream = {name: scale * rng.normal(size=(STEPS, 2)) for name in ("w", "b")}
    if missing:
        stream["w"][2, 1], stream["b"][6, 0] = np.nan, np.inf
    return jax.tree.map(jnp.asarray, stream)
