"""The methods, each as its paper has it, on Adam where the paper leaves the optimizer open.

Every method chooses among six settings by its mean score over all tasks of a stream. A setting is
``name -> values``; the grid is their product.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from beliefnav import beliefs, rules, wrappers
from experiments.plasticity import surgery
from experiments.plasticity.network import Params, init, loss, mean_square_gradient

Settings = Mapping[str, Any]


class Seen(NamedTuple):
    """What a learner sees at a step.

    Attributes:
        value: the mean loss of the batch in nats.
        gradient: its gradient.
        inputs: [example, input].
        targets: [example].
        layers: the inputs [example, unit] of every layer.
        step: number of steps before this one.
        boundary: whether a task begins with this step, for those that are told.
        spare: an initial network, drawn once a task.
        key: random key of the step.
    """

    value: Array
    gradient: Params
    inputs: Array
    targets: Array
    layers: list[Array]
    step: Array
    boundary: Array
    spare: Params
    key: Array

    def loss(self, params: Params) -> Array:
        """The mean loss of the batch at other parameters."""
        return loss(params, self.inputs, self.targets)


class Learner(NamedTuple):
    """A learner at given settings: ``update(params, state, seen) -> (params, state)``."""

    state: Any
    update: Callable[[Params, Any, Seen], tuple[Params, Any]]


class Setup(NamedTuple):
    """What a learner may know from the start."""

    start: Params
    widths: tuple[int, ...]
    batch_size: int
    steps: int


class Method(NamedTuple):
    """A method.

    Attributes:
        label: what it is called in figures and tables.
        make: ``(settings, setup) -> learner``.
        grid: the settings that are tried.
        kind: "field", "told" (when tasks begin, or how long they are) or "ours"; "ablation" and
            "reference" for those that are run on random labels only.
        follows: the method whose settings an ablation takes over, instead of a grid.
        quick: settings for a quick run; ``None`` if it has no part in it.
    """

    label: str
    make: Callable[[Settings, Setup], Learner]
    grid: Mapping[str, tuple[float, ...]]
    kind: str = "field"
    follows: str | None = None
    quick: Mapping[str, float] | None = None

    def belongs(self, stream: str) -> bool:
        """Whether it is run on a stream."""
        return stream == "random_labels" or self.kind not in ("ablation", "reference")

    def settings(self) -> list[dict[str, float]]:
        """All settings of the grid."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


def optimizer(opt: Any, start: Params) -> Learner:
    """A learner from an optax optimizer."""
    opt = optax.with_extra_args_support(opt)

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        updates, state = opt.update(
            seen.gradient, state, params, value=seen.value, value_fn=seen.loss
        )
        return optax.apply_updates(params, updates), state

    return Learner(opt.init(start), update)


def reset_when(
    learner: Learner,
    when: Callable[[Seen], Array],
    start: Params | None = None,
) -> Learner:
    """Begin a step with a fresh state, and with the initial parameters if these are given."""

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        now = when(seen)
        state = _choose(now, learner.state, state)
        if start is None:
            return learner.update(params, state, seen)
        params = _choose(now, start, params)
        value, gradient = jax.value_and_grad(seen.loss)(params)
        return learner.update(params, state, seen._replace(value=value, gradient=gradient))

    return Learner(learner.state, update)


def sgd(settings: Settings, setup: Setup) -> Learner:
    """Gradient descent."""
    return optimizer(optax.sgd(settings["learning_rate"]), setup.start)


def adam(settings: Settings, setup: Setup) -> Learner:
    """Adam."""
    return optimizer(optax.adam(settings["learning_rate"]), setup.start)


def adamw(settings: Settings, setup: Setup) -> Learner:
    """Adam with weight decay."""
    decay = settings["weight_decay"]
    return optimizer(optax.adamw(settings["learning_rate"], weight_decay=decay), setup.start)


def adam_state_reset(settings: Settings, setup: Setup) -> Learner:
    """Adam whose state is reset when a task begins."""
    return reset_when(adam(settings, setup), lambda seen: seen.boundary)


def penalised(settings: Settings, setup: Setup, target: Params) -> Learner:
    """Adam on the loss + strength * |params - target|^2."""
    strength = settings["strength"]

    def pull(params: Params) -> Any:
        return jax.tree.map(lambda p, t: 2 * strength * (p - t), params, target)

    learner = adam(settings, setup)

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        gradient = jax.tree.map(jnp.add, seen.gradient, pull(params))
        return learner.update(params, state, seen._replace(gradient=gradient))

    return Learner(learner.state, update)


def l2(settings: Settings, setup: Setup) -> Learner:
    """A penalty on the distance from 0."""
    return penalised(settings, setup, jax.tree.map(jnp.zeros_like, setup.start))


def l2_init(settings: Settings, setup: Setup) -> Learner:
    """A penalty on the distance from the initial parameters (Kumar et al., 2023)."""
    return penalised(settings, setup, setup.start)


def shrink_and_perturb(settings: Settings, setup: Setup) -> Learner:
    """Shrink, and add a hundredth of an initial network, at every step (Ash and Adams, 2020)."""
    shrink, learner = 1 - settings["shrinkage"], adam(settings, setup)

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        params, state = learner.update(params, state, seen)
        noise = init(setup.widths, seen.key)
        return jax.tree.map(lambda p, e: shrink * p + 1e-2 * e, params, noise), state

    return Learner(learner.state, update)


def continual_backprop(settings: Settings, setup: Setup) -> Learner:
    """Replace the units that are of least use, a few at a time (Dohare et al., 2024)."""
    rate, replacement = settings["learning_rate"], settings["replacement_rate"]

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        moments, units = state
        params, moments = surgery.adam(rate, params, moments, seen.gradient)
        params, moments, units = surgery.continual_backprop(
            replacement, params, moments, units, seen.layers, seen.key
        )
        return params, (moments, units)

    return Learner((surgery.moments(setup.start), surgery.units(setup.start)), update)


def redo(settings: Settings, setup: Setup) -> Learner:
    """Draw dormant units anew every 1,000 steps (Sokar et al., 2023)."""
    rate, threshold = settings["learning_rate"], settings["threshold"]

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        params, state = surgery.adam(rate, params, state, seen.gradient)
        now = (seen.step + 1) % 1000 == 0
        return surgery.redo(threshold, now, params, state, seen.layers, seen.spare)

    return Learner(surgery.moments(setup.start), update)


def soft_reset(settings: Settings, setup: Setup) -> Learner:
    """Learn from every batch how far to drift to the start (Galashov et al., 2024), in short.

    One draw and one step of gradient ascent a batch for the drift of each layer, from none.
    """
    rate, drift_rate, width = settings["learning_rate"], settings["drift_rate"], 0.5
    scales = jax.tree.map(jnp.sqrt, beliefs.initial_variance(setup.start))

    def spread(drifts: Array, f: Callable[..., Array], *trees: Any) -> Any:
        layers = zip(drifts, *trees, strict=True)
        return tuple(jax.tree.map(lambda *x, d=d: f(d, *x), *rest) for d, *rest in layers)

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        noise = optax.tree.random_like(seen.key, params)

        def drawn(d: Array, p: Array, start: Array, s: Array, e: Array) -> Array:
            return d * p + (1 - d) * start + s * jnp.sqrt((d * width) ** 2 + 1 - d**2) * e

        def predicted(drifts: Array) -> Array:
            return seen.loss(spread(drifts, drawn, params, setup.start, scales, noise))

        drifts = jnp.full(len(params), 1.0)
        slope = jax.grad(predicted)(drifts)
        drifts = jnp.clip(drifts - drift_rate * slope, 0, 1)
        moved = spread(drifts, lambda d, p, s: d * p + (1 - d) * s, params, setup.start)
        gradient = jax.grad(seen.loss)(moved)

        def step(d: Array, p: Array, g: Array) -> Array:
            return p - rate * (d**2 + (1 - d**2) / width**2) * g

        return spread(drifts, step, moved, gradient), state

    return Learner((), update)


def oracle(settings: Settings, setup: Setup) -> Learner:
    """Adam that begins anew with every task."""
    return reset_when(adam(settings, setup), lambda seen: seen.boundary, setup.start)


def periodic(settings: Settings, setup: Setup) -> Learner:
    """Adam that begins anew every so often, in units of the length of a task."""
    period = jnp.round(settings["period"] * setup.steps).astype(jnp.int32)
    return reset_when(
        adam(settings, setup), lambda seen: (seen.step % period == 0) & (seen.step > 0), setup.start
    )


def random_resets(settings: Settings, setup: Setup) -> Learner:
    """Adam that begins anew at random times, as often as there are tasks."""
    return reset_when(
        adam(settings, setup),
        lambda seen: jax.random.bernoulli(seen.key, 1 / setup.steps),
        setup.start,
    )


def hazard_filter(settings: Settings, setup: Setup) -> Learner:
    """`beliefnav.rules.hazard_filter`, with the gradients of examples."""
    opt = hazard_optimizer(settings, setup)

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        squares = mean_square_gradient(params, seen.inputs, seen.targets)
        updates, state = opt.update(seen.gradient, state, params, curvature=squares)
        return optax.apply_updates(params, updates), state

    return Learner(opt.init(setup.start), update)


def hazard_filter_batch(settings: Settings, setup: Setup) -> Learner:
    """The same, with the squared gradient of the batch for the squares of examples."""
    return optimizer(hazard_optimizer(settings, setup), setup.start)


def hazard_optimizer(settings: Settings, setup: Setup) -> Any:
    """`beliefnav.rules.hazard_filter`, its prior ``spread`` times the initial variance."""
    prior = prior_variance(settings, setup)
    return rules.hazard_filter(settings["hazard"], prior, examples=setup.batch_size)


def prior_variance(settings: Settings, setup: Setup) -> Any:
    """``spread`` times the variance of the initial entries of each array."""
    return jax.tree.map(lambda v: settings["spread"] * v, beliefs.initial_variance(setup.start))


def two_hypothesis(settings: Settings, setup: Setup) -> Learner:
    """`beliefnav.wrappers.two_hypothesis` around Adam."""
    inner = optax.adam(settings["learning_rate"])
    return optimizer(
        wrappers.two_hypothesis(inner, settings["hazard"], setup.batch_size), setup.start
    )


def part_of_filter(
    settings: Settings, setup: Setup, *, mean: bool, variance: bool, zero: bool = False
) -> Learner:
    """The hazard filter written out, with or without the pull of its mean and of its variance."""
    variances = prior_variance(settings, setup)
    prior = jax.tree.map(lambda v, p: v * jnp.ones_like(p), variances, setup.start)
    target = jax.tree.map(jnp.zeros_like, setup.start) if zero else setup.start
    pull, widening = (settings["hazard"] * on for on in (mean, variance))

    def update(params: Params, state: Any, seen: Seen) -> tuple[Params, Any]:
        squares = mean_square_gradient(params, seen.inputs, seen.targets)
        keep, wide, b = 1 - pull, (1 - widening) ** 2, setup.batch_size
        pulled = jax.tree.map(lambda p, t: t + keep * (p - t), params, target)
        v = jax.tree.map(lambda v, v0: wide * v + (1 - wide) * v0, state, prior)
        v = jax.tree.map(lambda v, h: 1 / (1 / v + b * h), v, squares)

        def step(m: Array, p: Array, v: Array, g: Array, h: Array) -> Array:
            return m - v * b * (g + h * (m - p))

        return jax.tree.map(step, pulled, params, v, seen.gradient, squares), v

    return Learner(prior, update)


def variance_only(settings: Settings, setup: Setup) -> Learner:
    """Forgets, but does not pull."""
    return part_of_filter(settings, setup, mean=False, variance=True)


def mean_only(settings: Settings, setup: Setup) -> Learner:
    """Pulls, but does not forget."""
    return part_of_filter(settings, setup, mean=True, variance=False)


def to_zero(settings: Settings, setup: Setup) -> Learner:
    """Pulls to 0."""
    return part_of_filter(settings, setup, mean=True, variance=True, zero=True)


def no_hazard(settings: Settings, setup: Setup) -> Learner:
    """Expects no switches."""
    return hazard_filter({**settings, "hazard": 0.0}, setup)


RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TWO, THREE = (1e-3, 3e-3), (1e-3, 3e-3, 1e-2)
METHODS: dict[str, Method] = {
    "sgd": Method("SGD", sgd, {"learning_rate": (3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.4)}),
    "adam": Method("Adam", adam, {"learning_rate": RATES}),
    "adam_3e-3": Method(
        "Adam at a learning rate of 3e-3",
        adam,
        {"learning_rate": (3e-3,)},
        "reference",
        quick={"learning_rate": 3e-3},
    ),
    "adamw": Method("AdamW", adamw, {"learning_rate": TWO, "weight_decay": (0.01, 0.1, 1.0)}),
    "l2": Method("L2", l2, {"learning_rate": TWO, "strength": (1e-4, 1e-3, 1e-2)}),
    "l2_init": Method("L2-Init", l2_init, {"learning_rate": TWO, "strength": (1e-3, 3e-3, 1e-2)}),
    "shrink_and_perturb": Method(
        "shrink and perturb",
        shrink_and_perturb,
        {"learning_rate": TWO, "shrinkage": (1e-4, 3e-4, 1e-3)},
    ),
    "continual_backprop": Method(
        "continual backprop",
        continual_backprop,
        {"learning_rate": TWO, "replacement_rate": (1e-5, 1e-4, 1e-3)},
    ),
    "redo": Method("ReDo", redo, {"learning_rate": TWO, "threshold": (0.0, 0.03, 0.1)}),
    "soft_reset": Method(
        "Soft Reset (in short)",
        soft_reset,
        {"learning_rate": (0.03, 0.1), "drift_rate": (1e-3, 1e-2, 0.1)},
    ),
    "adam_state_reset": Method(
        "told: Adam's state reset with each task",
        adam_state_reset,
        {"learning_rate": RATES},
        "told",
    ),
    "oracle": Method(
        "told: all reset with each task (oracle)",
        oracle,
        {"learning_rate": RATES},
        "told",
        quick={"learning_rate": 3e-3},
    ),
    "periodic": Method(
        "told the length: all reset periodically",
        periodic,
        {"learning_rate": TWO, "period": (0.3, 0.6, 1.6)},
        "told",
    ),
    "random_resets": Method(
        "told the length: all reset at random times",
        random_resets,
        {"learning_rate": RATES},
        "told",
    ),
    "hazard_filter": Method(
        "hazard filter",
        hazard_filter,
        {"hazard": (3e-4, 1e-3, 3e-3), "spread": (1.0, 4.0)},
        "ours",
        quick={"hazard": 1e-3, "spread": 4.0},
    ),
    "hazard_filter_batch": Method(
        "hazard filter, squared gradient of the batch",
        hazard_filter_batch,
        {"hazard": (3e-4, 1e-3, 3e-3), "spread": (1.0, 4.0)},
        "ours",
    ),
    "two_hypothesis": Method(
        "two hypotheses around Adam",
        two_hypothesis,
        {"learning_rate": THREE, "hazard": (1e-4, 1e-3)},
        "ours",
        quick={"learning_rate": 3e-3, "hazard": 1e-3},
    ),
    "variance_only": Method(
        "hazard filter that forgets, without the pull",
        variance_only,
        {},
        "ablation",
        "hazard_filter",
    ),
    "mean_only": Method(
        "hazard filter with the pull, that does not forget",
        mean_only,
        {},
        "ablation",
        "hazard_filter",
    ),
    "to_zero": Method(
        "hazard filter with a pull to zero", to_zero, {}, "ablation", "hazard_filter"
    ),
    "no_hazard": Method(
        "hazard filter with a hazard of 0", no_hazard, {}, "ablation", "hazard_filter"
    ),
}


def _choose(now: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(now, a, b), new, old)
