"""How long compiled programs take, beside one another in one run."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

WARM_UP = 3
"""Calls that are not counted: they compile, and fill caches."""


def median_seconds(
    programs: Mapping[str, Callable[[], Any]], repeats: int, label: str = ""
) -> dict[str, float]:
    """Median seconds of a call of each program.

    They take turns in random order, so that what else the machine does hits all alike.

    Args:
        programs: name -> a call without arguments.
        repeats: number of calls that count.
        label: of the progress bar.

    Returns:
        Name -> seconds.
    """
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for i in tqdm(range(repeats + WARM_UP), desc=label, leave=False):
        for name in rng.permutation(list(programs)):
            start = time.perf_counter()
            jax.block_until_ready(programs[name]())
            if i >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}
