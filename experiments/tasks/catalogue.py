"""The tasks of the bench, by name."""

from collections.abc import Callable

from experiments.tasks import images, sequences
from experiments.tasks.autoencoder import digits_autoencoder
from experiments.tasks.noisy_quadratic import noisy_quadratic
from experiments.tasks.task import Task

TASKS: dict[str, Callable[[], Task]] = {
    "noisy_quadratic": noisy_quadratic,
    "digits_mlp": images.digits_mlp,
    "digits_batch_norm": images.digits_batch_norm,
    "mnist1d_cnn": images.mnist1d_cnn,
    "fashion_cnn": images.fashion_cnn,
}

HELD_OUT: dict[str, Callable[[], Task]] = {
    "gru_mnist1d": sequences.gru_mnist1d,
    "text_transformer": sequences.text_transformer,
    "digits_autoencoder": digits_autoencoder,
}
"""Tasks on which nothing is chosen: what is to be a default was settled on the others before."""
