"""Cost of a step of rules of this library against ``optax.adam``: time, memory.

``python -m experiments.benchmarks optimizer_step``

One jitted update + apply over ten million float32 parameters in one leaf and in 200, with and
without donating parameters and state (donated, nothing is allocated, and every pass over memory
shows). The optimizers take turns in random order, so that what else the machine does hits all
alike; the second ``optax.adam`` shows how far two equal things differ in this run.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import optax

from beliefnav import rules
from experiments import report
from experiments.options import Options
from experiments.timing import median_seconds


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Options of the benchmark."""

    QUICK = {"num_params": 100_000, "leaves": (1,), "repeats": 5}
    LEAST = {"num_params": 1000, "leaves": 1, "repeats": 1}

    num_params: int = 10_000_000
    """Number of float32 parameters."""
    leaves: tuple[int, ...] = (1, 200)
    """Numbers of arrays that they are spread over."""
    repeats: int = 41
    """Timed steps of each optimizer."""


def measure(
    num_params: int, leaves: int, repeats: int, donate: bool
) -> dict[str, tuple[float, int]]:
    """Median seconds of a step, and bytes of optimizer state, of each optimizer."""
    optimizers: dict[str, optax.GradientTransformation] = {
        "optax.adam": optax.adam(1e-3),
        "optax.adam again": optax.adam(1e-3),
    }
    for name, assumptions in {
        "rules.adam": rules.adam.assumptions(1e-3),
        "rules.wiener": rules.wiener.assumptions(1e-3),
        "rules.secant, noise known": rules.secant.assumptions(1e-3, noise_variance=1.0),
        "rules.secant": rules.secant.assumptions(1e-3),
        "rules.learning_rate_free": rules.learning_rate_free.assumptions(),
    }.items():
        optimizers[name] = assumptions.optimizer()
        optimizers[f"{name}, counting"] = assumptions.optimizer(count_missing=True)
    keys = jax.random.split(jax.random.key(0), leaves)
    gradient = [jax.random.normal(key, (num_params // leaves,)) for key in keys]

    programs, memory = {}, {}
    for name, optimizer in optimizers.items():
        params = jax.tree.map(lambda g: g * 0, gradient)
        carried = [params, optimizer.init(params)]
        memory[name] = sum(x.nbytes for x in jax.tree.leaves(carried[1]))
        programs[name] = _stepper(optimizer, gradient, carried, donate)
    seconds = median_seconds(programs, repeats, f"{leaves} leaves")
    return {name: (seconds[name], memory[name]) for name in optimizers}


def _stepper(optimizer: Any, gradient: Any, carried: list[Any], donate: bool) -> Any:
    """A program that takes one step at every call."""

    def step(gradient: Any, params: Any, state: Any) -> Any:
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(1, 2) if donate else ())

    def call() -> Any:
        carried[:] = jitted(gradient, *carried)
        return carried

    return call


def run(config: Config) -> report.Report:
    """Measure and print."""
    print(
        f"{config.num_params:,} parameters, jax {jax.__version__}, {jax.devices()[0].device_kind}"
    )
    print(f"{'leaves':>6}  {'donated':<8}{'optimizer':<36}{'ms':>8}{'ratio':>8}{'state, MB':>12}")
    steps: dict[str, Any] = {}
    for leaves, donate in itertools.product(config.leaves, (False, True)):
        table = steps.setdefault("donated" if donate else "not donated", {})[leaves] = {}
        results = measure(config.num_params, leaves, config.repeats, donate)
        reference = results["optax.adam"][0]
        for name, (seconds, size) in results.items():
            print(
                f"{leaves:>6}  {str(donate):<8}{name:<36}"
                f"{1e3 * seconds:8.2f}{seconds / reference:8.3f}{size / 1e6:12.3f}"
            )
            measured = {"milliseconds": 1e3 * seconds, "times_optax_adam": seconds / reference}
            table[name] = measured | {"state_megabytes": size / 1e6}
    equals = [
        abs(table["optax.adam again"]["times_optax_adam"] - 1)
        for tables in steps.values()
        for table in tables.values()
    ]
    return report.Report([], steps | {"equals_differ_by": max(equals)})
