"""What a run writes down: named items, each a set of leaves that are arrays or texts.

A leaf is known by the names of the fields on the way to it, never by the names of classes, so that
a state may become another class without becoming another state.
"""

import pickle
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from names import Absent

PyTree = Any


class Leaf(NamedTuple):
    """An array as bytes, or a text, whose dtype is then ``"text"``."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Recorder:
    """Collects the items of a run; what fails is an item too.

    Attributes:
        items: item -> leaf path -> leaf.
    """

    def __init__(self) -> None:
        """Start without items."""
        self.items: dict[str, dict[str, Leaf]] = {}
        self._began = time.monotonic()

    def item(self, name: str, make: Callable[..., PyTree], *arguments: Any) -> Any:
        """Record the leaves of the tree that ``make(*arguments)`` returns, or how it fails.

        Returns:
            The tree, or ``None`` if it failed.
        """
        if name in self.items:
            raise ValueError(f"There are two items {name!r}; give one another name.")
        try:
            tree = make(*arguments)
            self.items[name] = flattened(tree)
            return tree
        except Absent:
            self.items[name] = {"absent": text("absent")}
        except Exception as error:
            self.items[name] = {"error": text(f"{type(error).__name__}: {error}")}
        return None

    def report(self, section: str) -> None:
        """Say on standard error how far the run is."""
        failed = sum("error" in leaves for leaves in self.items.values())
        seconds = time.monotonic() - self._began
        print(
            f"  {section}: {len(self.items)} items, {failed} of them errors, after {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )

    def save(self, path: Path) -> None:
        """Write all items into one file, as plain tuples that need no module to be read."""
        plain = {n: {p: tuple(x) for p, x in leaves.items()} for n, leaves in self.items.items()}
        path.write_bytes(pickle.dumps(plain))


def load(path: Path) -> dict[str, dict[str, Leaf]]:
    """The items that `Recorder.save` wrote."""
    plain = pickle.loads(path.read_bytes())
    return {n: {p: Leaf(*x) for p, x in leaves.items()} for n, leaves in plain.items()}


def flattened(tree: PyTree) -> dict[str, Leaf]:
    """Leaf path -> leaf; paths are of fields, keys and positions, as in ``state/3/mean/w``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): _leaf(x) for p, x in leaves}


def text(words: str) -> Leaf:
    """A text without the addresses of objects, which no two runs share."""
    return Leaf("text", (), re.sub(r" at 0x[0-9a-f]+", "", words).encode())


def _leaf(x: Any) -> Leaf:
    if isinstance(x, str):
        return text(x)
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    array = np.asarray(x)
    if array.dtype.kind in "OUS":
        return text(repr(array.tolist()))
    return Leaf(str(array.dtype), array.shape, array.tobytes())


def labelled(data: Any) -> PyTree:
    """An xarray Dataset as a tree: the values and dimensions of variables and coordinates.

    Attributes that tell how long something took are left out.
    """

    def described(values: Any) -> PyTree:
        return {"dims": repr(values.dims), "values": np.asarray(values.values)}

    attributes = {str(k): repr(v) for k, v in data.attrs.items() if "time" not in str(k)}
    return {
        "order": repr([str(name) for name in data.data_vars]),
        "sizes": repr(dict(data.sizes)),
        "variables": {str(name): described(v) for name, v in data.data_vars.items()},
        "coords": {str(name): described(v) for name, v in data.coords.items()},
        "attrs": attributes,
        "nbytes": data.nbytes,
    }
