"""Networks of the bench whose probabilities are asked for, and inputs that are not as in training.

The tasks of the bench say how wrong parameters are. What draws of parameters are compared by is the
mean of their probabilities, so that the logits are needed too. Parameters, batches and losses are
those of the bench.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jax import Array
from scipy import ndimage

from experiments import data as data_sets
from experiments.networks import functional, mlp
from experiments.tasks import images
from experiments.tasks.images import Convolutional, Part
from experiments.tasks.task import Task

SCORED = {"validation": 500, "test": 1000}
"""Split -> the most of its examples that are scored, the first ones."""
NOISE = 0.5
"""Standard deviation of the noise of noisy inputs, where that of all clean inputs is 1."""
ANGLE = 30.0
"""By which images are rotated, in degrees."""
DISPLACEMENT = 5
"""By which signals of length 40 are displaced, in entries."""
INPUTS = ("clean", "noisy", "moved")
"""As in training, with noise, and rotated (images) or displaced (signals)."""


class Stateless(eqx.Module):
    """A convolutional network without batch normalisation: it has no statistics to hand on."""

    network: Convolutional

    def __call__(self, x: Array) -> Array:
        """Logits of one input."""
        return self.network(x, eqx.nn.State(self.network))[0]


def _convolutional(*widths: int) -> Callable[..., eqx.Module]:
    return lambda *given: Stateless(Convolutional(*given, widths=widths))


class _Described(NamedTuple):
    data: str
    sizes: tuple[int, int, int]
    network: Callable[..., Any]
    steps: int


BATCH = 64
_DESCRIBED = {
    "digits_mlp": _Described("digits", (1150, 287, 360), mlp, 1000),
    "mnist1d_cnn": _Described("mnist1d", (3200, 800, 1000), _convolutional(25, 25, 25), 1500),
    "fashion_cnn": _Described("fashion_mnist", (12000, 2000, 4000), _convolutional(8, 16), 600),
}
NAMES = tuple(_DESCRIBED)


class Classifier(NamedTuple):
    """A task of the bench, and what it is made of.

    Attributes:
        task: the task.
        logits: ``(params, inputs) -> logits`` [example, class].
        parts: split -> its examples, of those in `SCORED`.
        examples: number of examples to train on.
    """

    task: Task
    logits: Callable[[Any, Any], Array]
    parts: dict[str, Part]
    examples: int


def load(name: str) -> Classifier:
    """A classifier of the bench, by the name of its task.

    Raises:
        FileNotFoundError: its data are not there; the error says how to get them.
    """
    described = _DESCRIBED[name]
    data = data_sets.load(described.data)
    parts = images.split(data, *described.sizes)
    task = images.classification(parts, described.network, described.steps, BATCH)
    _, logits = functional(lambda key: described.network(data.input_shape, data.num_classes, key))
    scored = {split: Part(*(x[:most] for x in parts[split])) for split, most in SCORED.items()}
    return Classifier(task, logits, scored, described.sizes[0])


def shifted(inputs: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """All of `INPUTS`, made of clean ones [example, ...]."""
    clean = np.asarray(inputs)
    noise = np.random.default_rng(seed).normal(0, NOISE, clean.shape)
    if clean.ndim == 3:
        moved = ndimage.rotate(
            clean, ANGLE, axes=(1, 2), reshape=False, order=1, cval=float(clean.min())
        )
    else:
        moved = np.roll(clean, DISPLACEMENT, axis=1)
    found = (clean, clean + noise, moved)
    return {name: x.astype(np.float32) for name, x in zip(INPUTS, found, strict=True)}
