"""The tasks of the bench, by name."""

from collections.abc import Callable

from experiments.tasks import images
from experiments.tasks.noisy_quadratic import noisy_quadratic
from experiments.tasks.task import Task

TASKS: dict[str, Callable[[], Task]] = {
    "noisy_quadratic": noisy_quadratic,
    "digits_mlp": images.digits_mlp,
    "digits_batch_norm": images.digits_batch_norm,
    "mnist1d_cnn": images.mnist1d_cnn,
    "fashion_cnn": images.fashion_cnn,
}
