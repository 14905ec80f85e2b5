"""Results in files, each used again only by the code, the versions and the options that made it.

A result is kept with its key: the options, the versions of Python and of the packages, and the code
of every module of `PROJECT` that was loaded when it was kept. The code of a module is its syntax
tree without docstrings, so that neither a comment nor a new line makes a result unusable.

A result with another key is not used and not deleted; one line names the file and what differs. A
file that cannot be read is named, and its result is made again. A result that was read from a file
is said to be.

Example:
    >>> import tempfile
    >>> kept = Kept(Path(tempfile.mkdtemp()))
    >>> kept.measure("square", {"of": 3}, lambda: {"is": 3**2})
    {'is': 9}
    >>> kept.measure("square", {"of": 3}, lambda: {"is": "not computed again"})["is"]
    Read from a file: square.
    9
    >>> kept.measure("square", {"of": 4}, lambda: {"is": 4**2})["is"]  # doctest: +ELLIPSIS
    Not used: .../square....npz. This is because its options (of) differ; it stays there.
    16
"""

import ast
import functools
import hashlib
import importlib.util
import json
import platform
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from beliefnav._files import written_beside

PROJECT = ("beliefnav", "models", "experiments")
PACKAGES = "beliefnav jax jaxlib equinox optax numpyro arviz numpy scipy".split()
DAMAGED = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error),  # the file
    *(ValueError, KeyError, TypeError, AttributeError),  # what is in it
)
"""What may be raised where a file is not what was written."""

Result = Mapping[str, Any]


class Kept:
    """Results in a folder.

    A result is a mapping of names to arrays, and to whatever JSON can hold. What `get` and
    `measure` return was read from the file: arrays are those of NumPy, tuples are lists.

    Args:
        folder: where the files are; it is made when a result is kept.

    Attributes:
        read: names of the results that were used again.
    """

    def __init__(self, folder: Path) -> None:
        """Look at the code that is loaded, before any of it runs."""
        self.folder = folder
        self.read: list[str] = []
        loaded_code()  # files may change while the program runs

    def measure(self, name: str, options: Mapping[str, Any], compute: Callable[[], Result]) -> Any:
        """The result of this name and key, which is computed and kept unless it is there.

        Args:
            name: of the result; a slash in it makes a folder.
            options: all that the result depends on besides code and versions, as JSON can hold it.
            compute: computes the result.

        Returns:
            The result.
        """
        found = self.get(name, options)
        if found is not None:
            self.read.append(name)
            tqdm.write(f"Read from a file: {name}.")
            return found
        return _load(self.put(name, options, compute()))[1]

    def get(self, name: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of this name and key, or ``None``; results that are not used are named."""
        *folders, stem = name.split("/")
        for path in sorted(self.folder.joinpath(*folders).glob("*.npz")):
            if path.name.rsplit(".", 2)[0] != stem:
                continue
            try:
                key, result = _load(path)
                differs = _differences(key, _plain(options))
            except DAMAGED as error:
                tqdm.write(f"Cannot read {path}. This is because it is damaged ({error!r:.60}).")
                continue
            if not differs:
                return result
            tqdm.write(
                f"Not used: {path}. This is because its {' and its '.join(differs)} differ; it "
                "stays there."
            )
        return None

    def put(self, name: str, options: Mapping[str, Any], result: Result) -> Path:
        """Keep a result; the file that has it.

        Raises:
            TypeError: an entry is neither an array of numbers nor what JSON can hold.
        """
        key = {"options": _plain(options), "versions": versions(), "code": loaded_code()}
        arrays = {k: np.asarray(v) for k, v in result.items() if _is_array(v)}
        said = json.dumps([key, {k: v for k, v in result.items() if k not in arrays}])
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        path = self.folder / f"{name}.{digest}.npz"
        entries: Any = {f"result.{k}": v for k, v in arrays.items()}
        with written_beside(path) as unfinished:
            np.savez_compressed(unfinished, said=np.array(said), **entries)
        return path


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def loaded_code() -> dict[str, str]:
    """Module -> digest of its code, of every module of `PROJECT` that is loaded."""
    names = sorted(name for name in sys.modules if name.split(".")[0] in PROJECT)
    return {name: code for name in names if (code := code_of(name)) is not None}


@functools.cache  # of one program: what was loaded, whatever becomes of the file
def code_of(module: str) -> str | None:
    """The digest of the code of a module, loaded or not; ``None`` of one that is not there."""
    package, *rest = module.split(".")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent.joinpath(*rest)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return digest(path.read_text()) if path.is_file() else None


def digest(source: str) -> str:
    """A digest of code that neither comments nor docstrings nor its layout change."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_docstring(part)]  # pyright: ignore[reportAttributeAccessIssue]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def _is_docstring(node: ast.stmt) -> bool:
    """Whether a statement is a string, as docstrings of modules, functions and fields are."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _differences(key: Any, options: Mapping[str, Any]) -> list[str]:
    """In what a key differs from the present one, in words."""
    now = {
        "options": options,
        "versions": versions(),
        "code": {module: code_of(module) for module in key["code"]},
    }
    differs = []
    for part, present in now.items():
        names = [n for n in {**key[part], **present} if key[part].get(n) != present.get(n)]
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            differs.append(f"{part} ({', '.join(names[:3])}{more})")
    return differs


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a file gives them back."""
    return json.loads(json.dumps(options))


def _is_array(value: Any) -> bool:
    if not isinstance(value, np.ndarray | np.generic | jax.Array):
        return False
    if np.asarray(value).dtype.kind not in "biufcSU":
        raise TypeError(
            f"Cannot keep an array of {np.asarray(value).dtype}; keep numbers of a dtype that is "
            "NumPy's own, or what JSON can hold."
        )
    return True


def _load(path: Path) -> tuple[Any, dict[str, Any]]:
    """The key and the result of a file."""
    with path.open("rb") as file, np.load(file) as saved:
        key, said = json.loads(str(saved["said"]))
        names = (name for name in saved.files if name != "said")
        return key, said | {name.removeprefix("result."): saved[name] for name in names}
