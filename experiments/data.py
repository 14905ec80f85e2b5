"""Real images and signals, as standardised arrays."""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.options import check_known

IDX_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""


class Data(NamedTuple):
    """A classification problem.

    Attributes:
        train_inputs: [example, ...] float32, of mean 0 and variance 1 over all entries.
        train_labels: [example] int32.
        test_inputs: [example, ...] float32, standardised as the training inputs.
        test_labels: [example] int32.
    """

    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.train_inputs.shape[1:]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1


def load(name: str, folder: Path | None = None) -> Data:
    """Load a data set by name.

    Args:
        name: one of `DATA_SETS`.
        folder: where the files of ``fashion_mnist`` are; Debian's place by default.

    Returns:
        The data.

    Raises:
        ValueError: the name is not known; the error lists the known ones.
        FileNotFoundError: files are missing; the error says how to get them.
    """
    check_known("data set", [name], DATA_SETS)
    if name == "digits":
        return _digits()
    if name == "mnist1d":
        return _mnist1d()
    return _fashion_mnist(IDX_FOLDER if folder is None else folder)


DATA_SETS = ("digits", "mnist1d", "fashion_mnist")


def _digits() -> Data:
    """8x8 images of digits, which come with scikit-learn: 1,437 to train, 360 to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    images, labels = digits.images, digits.target
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    return _standardise(images[train], labels[train], images[test], labels[test])


def _mnist1d() -> Data:
    """Signals of length 40, generated on the spot: 4,000 to train, 1,000 to test."""
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    return _standardise(data["x"], data["y"], data["x_test"], data["y_test"])


def _fashion_mnist(folder: Path) -> Data:
    """28x28 images of clothes: 60,000 to train, 10,000 to test."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return _standardise(*(_read_idx(folder, f"{name}-ubyte") for name in names))


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an IDX file of bytes, compressed or not."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                content = file.read()
            dimensions = np.frombuffer(content, ">i4", count=content[3], offset=4)
            values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
            return values.reshape(dimensions)
    raise FileNotFoundError(
        f"Fashion-MNIST: no file {name}.gz in {folder}. Install Debian's package "
        "dataset-fashion-mnist (apt-get install dataset-fashion-mnist), or pass --data-dir with a "
        "folder that holds the four IDX files."
    )


def _standardise(
    train_inputs: np.ndarray,
    train_labels: np.ndarray,
    test_inputs: np.ndarray,
    test_labels: np.ndarray,
) -> Data:
    mean, scale = train_inputs.mean(), train_inputs.std()
    return Data(
        ((train_inputs - mean) / scale).astype(np.float32),
        train_labels.astype(np.int32),
        ((test_inputs - mean) / scale).astype(np.float32),
        test_labels.astype(np.int32),
    )
