"""The tasks of the bench, by name."""

from collections.abc import Callable, Iterable

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


def available(names: Iterable[str], most_steps: int) -> dict[str, Task]:
    """Tasks by name, held out ones too; one whose data are missing is left out, and said so.

    Args:
        names: of `TASKS` and `HELD_OUT`.
        most_steps: of a task; a longer one is cut short.
    """
    tasks = {}
    for name in names:
        try:
            task = (TASKS | HELD_OUT)[name]()
        except FileNotFoundError as error:
            print(f"Left out: {name}. {error}")
            continue
        tasks[name] = task._replace(steps=min(task.steps, most_steps))
    return tasks
