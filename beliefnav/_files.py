"""Files that are there as a whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_writable", "written_beside"]


def check_writable(path: Path) -> None:
    """Raise unless a file can be written there; its folder is made where it is missing.

    Args:
        path: the file.

    Raises:
        OSError: there is a folder of that name, or nothing can be written into the folder of it.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of another at the end.

    A writer that fails or is interrupted leaves the old file as it is. A program that holds the old
    file open, such as a notebook, keeps reading the old file.

    Args:
        path: the file to write. Its folder is made where it is missing.

    Yields:
        A path of the same name in a folder of its own, beside ``path``.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with written_beside(folder / "numbers.txt") as unfinished:
        ...     _ = unfinished.write_text("1 2 3")
        ...     (folder / "numbers.txt").exists()
        False
        >>> (folder / "numbers.txt").read_text()
        '1 2 3'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)
