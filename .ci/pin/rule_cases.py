"""Every rule with arguments for a demonstration, and the readings that it needs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import streams
from names import beliefs, rules, wrappers

PyTree = Any


class Case(NamedTuple):
    """A call of a rule.

    Attributes:
        rule: its name.
        arguments: its positional arguments.
        options: its keyword arguments.
        reading: what ``update`` gets besides the gradient: nothing, a ``"diagonal"``, a
            ``"matrix"``, ``"examples"`` or a ``"loss"``.
    """

    rule: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = {}
    reading: str | None = None

    def optimizer(self) -> Any:
        """The optimizer."""
        return getattr(rules, self.rule)(*self.arguments, **self.options)

    def assumptions(self) -> Any:
        """What the optimizer is built from."""
        return getattr(rules, self.rule).assumptions(*self.arguments, **self.options)


def metric(params: PyTree) -> PyTree:
    """A diagonal metric that depends on where it is."""
    return jax.tree.map(lambda x: 1 + x**2 / 10, params)


def _matrix_metric(params: PyTree) -> jax.Array:
    root = streams.generator(7).normal(size=(streams.SIZE, streams.SIZE)) / 4
    return jnp.asarray(np.eye(streams.SIZE) + root @ root.T, jax.tree.leaves(params)[0].dtype)


def _kronecker_metric(params: PyTree) -> PyTree:
    """A Kronecker product for every array."""

    def leaf(x: jax.Array) -> Any:
        rows, columns = x.shape if x.ndim == 2 else (x.size, 1)
        sides = (jnp.eye(n, dtype=x.dtype) + 0.1 for n in (rows, columns))
        return beliefs.Kronecker(*sides)

    return jax.tree.map(leaf, params)


def _halving(count: Any) -> Any:
    return 0.1 * 0.5 ** (count // 4)


DECAYING = {"w": True, "pair": (False, True), "none": None, "empty": True}

CASES: dict[str, Case] = {
    "sgd": Case("sgd", (0.1,)),
    "sgd, momentum": Case("sgd", (0.1,), {"momentum": 0.9}),
    "sgd, nesterov": Case("sgd", (0.1,), {"momentum": 0.9, "nesterov": True}),
    "sgd, schedule": Case("sgd", (_halving,), {"momentum": 0.5}),
    "momentum": Case("momentum", (0.1,)),
    "sign_sgd": Case("sign_sgd", (0.01,)),
    "signum": Case("signum", (0.01,)),
    "lion": Case("lion", (0.01,)),
    "lion, mask": Case("lion", (0.01,), {"weight_decay": 0.1, "mask": DECAYING}),
    "rmsprop": Case("rmsprop", (0.03,)),
    "rmsprop, eps outside": Case("rmsprop", (0.03, 0.95, 1e-3, 0.5, False)),
    "rmsprop, corrected": Case("rmsprop", (0.03,), {"bias_correction": True}),
    "ballistic": Case("ballistic", (0.03,)),
    "adagrad": Case("adagrad", (0.5,)),
    "adam": Case("adam", (0.1,)),
    "adam, schedule": Case("adam", (_halving, 0.8, 0.95, 1e-4, 1e-3)),
    "adamw": Case("adamw", (0.1,), {"weight_decay": 0.05, "mask": DECAYING}),
    "adamax": Case("adamax", (0.1,)),
    "nadam": Case("nadam", (0.1,)),
    "nadamw": Case("nadamw", (0.1,), {"weight_decay": _halving}),
    "wiener": Case("wiener", (0.1,)),
    "secant": Case("secant", (0.1,)),
    "secant, known noise": Case("secant", (0.1, 0.5), {"noise_variance": 0.7}),
    "secant, sensed": Case("secant", (0.1,), {"curvature_noise_variance": 0.5}, "diagonal"),
    "l2_init": Case("l2_init", (0.1, 0.05)),
    "adam_toward_start": Case("adam_toward_start", (0.1,), {"decay": 0.05}),
    "resetting": Case("resetting", (0.1,), {"hazard": 0.05}),
    "countering": Case("countering", (0.1,), {"weight_decay": 0.05}),
    "family": Case("family", (0.1,), {"discount": 0.5}),
    "family, held": Case(
        "family",
        (0.1, 0.8, 0.9),
        {"discount": 0.2, "time_step": 0.7, "exact_hold": 0.4, "prior_weight": 0.3},
    ),
    "natural_gradient": Case("natural_gradient", (0.1, metric)),
    "natural_gradient, matrix": Case("natural_gradient", (0.1, _matrix_metric, 0.9)),
    "natural_gradient, Kronecker": Case("natural_gradient", (0.1, _kronecker_metric)),
    "newton": Case("newton", (0.3,), {}, "matrix"),
    "newton, held": Case("newton", (0.3, 1.0), {}, "matrix"),
    "newton, diagonal": Case("newton", (0.3,), {"diagonal": True}, "diagonal"),
    "newton, diagonal, held": Case("newton", (0.3, 1.0), {"diagonal": True}, "diagonal"),
    "sophia_like": Case("sophia_like", (0.3,), {}, "diagonal"),
    "von": Case("von", (0.3,), {"b2": 0.9}, "diagonal"),
    "ivon": Case("ivon", (0.3,), {"b2": 0.9}, "diagonal"),
    "bayesian_learning_rule": Case("bayesian_learning_rule", (0.1,), {}, "matrix"),
    "full_ballistic": Case("full_ballistic", (0.03,), {"b1": 0.9, "eps": 0.01}),
    "shampoo": Case("shampoo", (0.3,), {"b1": 0.9, "b2": 0.95}),
    "muon": Case("muon", (0.01,)),
    "muon, as seen so far": Case("muon", (0.01, 0.9), {"nesterov": False}),
    "hazard_filter": Case("hazard_filter", (0.05,), {"examples": 8}),
    "hazard_filter, prior": Case("hazard_filter", (0.05, 0.7), {"examples": 8}, "diagonal"),
    "hazard_filter, examples": Case("hazard_filter", (0.05,), {"examples": 8}, "examples"),
}

COMBINED: dict[str, tuple[Callable[[], Any], str | None]] = {
    "masked adam": (lambda: optax.masked(CASES["adam"].optimizer(), DECAYING), None),
    "masked secant": (lambda: optax.masked(CASES["secant"].optimizer(), DECAYING), None),
    "masked hazard_filter": (
        lambda: optax.masked(CASES["hazard_filter"].optimizer(), DECAYING),
        "examples",
    ),
    "injected adam": (lambda: optax.inject_hyperparams(rules.adam)(0.1, b1=0.8), None),
    "adam, two steps in one": (lambda: optax.MultiSteps(rules.adam(0.1), 2), None),
    "two_hypothesis of adam": (lambda: wrappers.two_hypothesis(rules.adam(0.1), 0.05, 8), "loss"),
    "two_hypothesis of optax.adam, mask": (
        lambda: wrappers.two_hypothesis(optax.adam(0.1), 0.05, 8, mask=DECAYING),
        "loss",
    ),
    "two_hypothesis of secant, prior mean": (
        lambda: wrappers.two_hypothesis(
            rules.secant(0.1), 0.05, 8, jax.tree.map(jnp.zeros_like, streams.params("float64"))
        ),
        "loss",
    ),
}
"""Optimizers around rules: how to make them, and what they read."""


def optimizers() -> dict[str, tuple[Callable[[], Any], str | None]]:
    """All of them: name -> how to make it, and what it reads."""
    return {name: (case.optimizer, case.reading) for name, case in CASES.items()} | COMBINED
