"""Cost of a step inside ``wrappers.iterate_averaging`` against a step without it: time, memory.

``python -m experiments.benchmarks averaging``

One jitted update + apply of Adam over float32 parameters in 16 arrays, with parameters and state
donated or not, on a gradient that is given: nothing but passes over memory. In a training step the
gradient comes on top, so that these ratios are the largest there are. The programs take turns in
random order; the second Adam shows how far two equal things differ in this run.
"""

import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from beliefnav import beliefs, wrappers
from experiments import report
from experiments.options import Options
from experiments.timing import median_seconds


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Options of the benchmark."""

    QUICK = {"num_params": (100_000,), "repeats": 5}
    LEAST = {"num_params": 1000, "leaves": 1, "repeats": 1}

    num_params: tuple[int, ...] = (6_000_000, 16_000_000)
    """Numbers of float32 parameters."""
    leaves: int = 16
    """Number of arrays that they are spread over."""
    donate: tuple[bool, ...] = (True, False)
    """Whether parameters and state are worked on in place."""
    repeats: int = 41
    """Timed rounds; each is ten steps of every optimizer, so that one of ten is in each."""


STEPS = 10


def run(config: Config) -> report.Report:
    """Measure and print."""
    results: dict[str, Any] = {
        "donated" if donate else "not donated": {
            n: _compare(config, n, donate) for n in config.num_params
        }
        for donate in config.donate
    }
    equals = [
        abs(table["adam again"]["times_adam"] - 1)
        for tables in results.values()
        for table in tables.values()
    ]
    return report.Report([], results | {"equals_differ_by": max(equals)})


def _compare(config: Config, num_params: int, donate: bool) -> dict[str, dict[str, float]]:
    inner = optax.adam(1e-3)
    optimizers: dict[str, Any] = {
        "adam": inner,
        "adam again": optax.adam(1e-3),
        "average": wrappers.iterate_averaging(inner),
        "exponential average": wrappers.iterate_averaging(inner, beliefs.LocalLevel(0.999)),
        "average and variance": wrappers.iterate_averaging(inner, variance=True),
        "average of 1 in 10": wrappers.iterate_averaging(inner, every=10),
        "average and variance of 1 in 10": wrappers.iterate_averaging(
            inner, every=10, variance=True
        ),
    }
    keys = jax.random.split(jax.random.key(0), config.leaves)
    gradient = [jax.random.normal(key, (num_params // config.leaves,)) for key in keys]
    load, device = np.round(os.getloadavg(), 1), jax.devices()[0].device_kind
    how = "donated" if donate else "not donated"
    print(f"{num_params:,} parameters, {how}, jax {jax.__version__}, {device}, load {load}")
    programs, memory = {}, {}
    for name, optimizer in optimizers.items():
        programs[name], memory[name] = _stepper(optimizer, gradient, donate)
    seconds = median_seconds(programs, config.repeats, f"{num_params:,}")
    print(f"{'optimizer':<36}{'ms':>8}{'/ adam':>9}{'state, MB':>12}")
    results = {}
    for name, value in seconds.items():
        step, ratio = value / STEPS, value / seconds["adam"]
        print(f"{name:<36}{1e3 * step:8.2f}{ratio:9.3f}{memory[name] / 1e6:12.3f}")
        measured = {"milliseconds": 1e3 * step, "times_adam": ratio}
        results[name] = measured | {"state_megabytes": memory[name] / 1e6}
    return results


def _stepper(optimizer: Any, gradient: Any, donate: bool) -> tuple[Any, int]:
    """A program that takes ten steps at every call, and the bytes of the state."""

    def step(gradient: Any, params: Any, state: Any) -> Any:
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(1, 2) if donate else ())
    params = jax.tree.map(jnp.zeros_like, gradient)
    carried = [params, optimizer.init(params)]
    size = sum(x.nbytes for x in jax.tree.leaves(carried[1]))

    def call() -> Any:
        for _ in range(STEPS):
            carried[:] = jitted(gradient, *carried)
        return carried

    return call, size
