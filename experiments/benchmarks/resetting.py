"""Cost of a step of ``wrappers.two_hypothesis`` and ``rules.hazard_filter`` against that of Adam.

``python -m experiments.benchmarks resetting``

One jitted training step of a multi-layer perceptron: loss, gradient, update, apply, with parameters
and state donated. To see whether there was a switch costs a forward pass at the initial parameters,
which is timed on its own: two hypotheses against the sum of Adam's step and that pass. The programs
take turns in random order; the second Adam shows how far two equal things differ in this run.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from beliefnav import rules, wrappers
from experiments import report
from experiments.options import Options
from experiments.plasticity.network import Network, loss, mean_square_gradient, perceptron
from experiments.timing import median_seconds


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Options of the benchmark."""

    QUICK = {"width": 64, "batch_sizes": (128,), "repeats": 5}
    LEAST = {"width": 1, "layers": 1, "batch_sizes": 1, "repeats": 1}

    width: int = 1024
    """Units of each layer, and inputs."""
    layers: int = 4
    """Layers of weights."""
    batch_sizes: tuple[int, ...] = (128, 256, 512)
    """Examples a step: what resetting adds is to the weights, and does not depend on them."""
    repeats: int = 61
    """Timed steps of each optimizer."""


def run(config: Config) -> report.Report:
    """Measure and print."""
    batches = {n: _compare(config, n) for n in config.batch_sizes}
    equals = [abs(table["adam again"]["times_adam"] - 1) for table in batches.values()]
    return report.Report([], {"batches_of": batches, "equals_differ_by": max(equals)})


def _compare(config: Config, examples: int) -> dict[str, dict[str, float]]:
    network = perceptron((config.width,), 10, (config.width,) * (config.layers - 1))
    key = jax.random.key(0)
    params = network.init(key)
    inputs = jax.random.normal(key, (examples, config.width))
    labels = jax.random.randint(key, (examples,), 0, 10)
    size = sum(p.size for p in jax.tree.leaves(params))
    device = jax.devices()[0].device_kind
    print(f"{size:,} parameters, batches of {examples}, jax {jax.__version__}, {device}")
    optimizers: dict[str, Any] = {
        "adam": optax.adam(1e-3),
        "adam again": optax.adam(1e-3),
        "two_hypothesis(adam)": wrappers.two_hypothesis(optax.adam(1e-3), 1e-3, examples),
        "hazard_filter, squares given": rules.hazard_filter(1e-3, examples=examples),
        "hazard_filter, batch": rules.hazard_filter(1e-3, examples=examples),
    }
    programs: dict[str, Callable[[], Any]] = {}
    for name, optimizer in optimizers.items():
        data = inputs, labels
        programs[name] = _stepper(optimizer, network, params, data, name.endswith("given"))
    forward = jax.jit(functools.partial(loss, network))
    programs["one forward pass"] = lambda: forward(params, inputs, labels)
    median = median_seconds(programs, config.repeats)
    print(f"{'program':<32}{'ms':>8}{'/ adam':>9}{'/ (adam + forward)':>20}")
    results = {}
    together = median["adam"] + median["one forward pass"]
    for name, value in median.items():
        print(f"{name:<32}{1e3 * value:8.2f}{value / median['adam']:9.3f}{value / together:20.3f}")
        over = {"times_adam": value / median["adam"], "times_adam_and_forward": value / together}
        results[name] = {"milliseconds": 1e3 * value} | over
    return results


def _stepper(
    optimizer: Any, network: Network, params: Any, data: tuple[Array, Array], squares: bool
) -> Any:
    """A program that takes one step at every call, with what it carries donated."""
    extended = optax.with_extra_args_support(optimizer)

    def step(params: Any, state: Any) -> Any:
        def objective(params: Any) -> Array:
            return loss(network, params, *data)

        value, gradient = jax.value_and_grad(objective)(params)
        extra: dict[str, Any] = {"value": value, "value_fn": objective}
        if squares:
            extra["curvature"] = mean_square_gradient(network, params, *data)
        updates, state = extended.update(gradient, state, params, **extra)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1))
    own = jax.tree.map(jnp.array, params)
    carried = [own, optimizer.init(own)]

    def call() -> Any:
        carried[:] = jitted(*carried)
        return carried

    return call
