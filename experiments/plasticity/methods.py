"""The methods, each as its paper has it, on Adam where the paper leaves the optimizer open.

A setting is ``name -> values``; the grid is their product, of twelve settings. Names and values are
also what the tuning may go beyond, where the best setting lies on an edge (`tuning`).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from beliefnav import beliefs, control, navigator, rules, sensors, wrappers
from beliefnav.wrappers.partial_switches import layer_hypotheses
from experiments.plasticity import surgery
from experiments.plasticity.network import (
    Network,
    Params,
    example_losses,
    loss,
    mean_square_gradient,
)

Settings = Mapping[str, Any]


class Observed(NamedTuple):
    """What a learner sees at a step.

    Attributes:
        network: the network that learns.
        value: the mean loss of the batch in nats.
        gradient: its gradient.
        inputs: [example, ...].
        targets: [example].
        units: what every hidden layer puts out, [example, ..., unit]; ``None`` of a network that
            does not say (`network.Network`).
        step: number of steps before this one.
        boundary: whether a task begins with this step, for those that are told.
        spare: an initial network of another draw.
        key: random key of the step.
    """

    network: Network
    value: Array
    gradient: Params
    inputs: Array
    targets: Array
    units: list[Array] | None
    step: Array
    boundary: Array
    spare: Params
    key: Array

    def loss(self, params: Params) -> Array:
        """The mean loss of the batch at other parameters."""
        return loss(self.network, params, self.inputs, self.targets)

    def squares(self, params: Params) -> Params:
        """The mean over examples of the squared gradient of each."""
        return mean_square_gradient(self.network, params, self.inputs, self.targets)


class Setup(NamedTuple):
    """What a learner may know from the start."""

    network: Network
    start: Params
    batch_size: int


class Learner(NamedTuple):
    """A learner at given settings: ``update(params, state, observed) -> (params, state)``."""

    state: Any
    update: Callable[[Params, Any, Observed], tuple[Params, Any]]


class Method(NamedTuple):
    """A method.

    Attributes:
        label: what it is called in figures and tables.
        make: ``(settings, setup) -> learner``.
        grid: the values that are tried, each sequence ascending.
        kind: "field", "ours", or "told" when tasks begin; "ablation" and "reference" of those that
            are run on random labels only.
        limits: name of a setting -> its least and its largest sensible value, which are no edges of
            the grid; by default 0 and infinity.
        quick: settings of a quick run; ``None`` if the method has no part in it.
        units: whether it needs to see hidden units.
    """

    label: str
    make: Callable[[Settings, Setup], Learner]
    grid: Mapping[str, Sequence[float]]
    kind: str = "field"
    limits: Mapping[str, tuple[float, float]] = {}
    quick: Mapping[str, float] | None = None
    units: bool = False

    def belongs(self, stream: str) -> bool:
        """Whether it is run on a stream."""
        return stream == "random_labels" or self.kind not in ("ablation", "reference")

    def settings(self) -> list[dict[str, float]]:
        """All settings of the grid."""
        products = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, values, strict=True)) for values in products]


def optimizer(opt: Any, start: Params) -> Learner:
    """A learner from an optax optimizer."""
    opt = optax.with_extra_args_support(opt)

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        updates, state = opt.update(
            seen.gradient, state, params, value=seen.value, value_fn=seen.loss
        )
        return optax.apply_updates(params, updates), state

    return Learner(opt.init(start), update)


def adam(settings: Settings, setup: Setup) -> Learner:
    """Adam."""
    return optimizer(optax.adam(settings["learning_rate"]), setup.start)


def adam_restarted(settings: Settings, setup: Setup) -> Learner:
    """Adam that begins anew, parameters and state, with every task."""
    learner = adam(settings, setup)

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        new, old = (setup.start, learner.state), (params, state)
        params, state = jax.tree.map(lambda a, b: jnp.where(seen.boundary, a, b), new, old)
        value, gradient = jax.value_and_grad(seen.loss)(params)
        return learner.update(params, state, seen._replace(value=value, gradient=gradient))

    return Learner(learner.state, update)


def l2_init(settings: Settings, setup: Setup) -> Learner:
    """Adam on the loss + strength * |params - initial ones|^2 (Kumar et al., 2023)."""
    strength, learner = settings["strength"], adam(settings, setup)

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        gradient = jax.tree.map(
            lambda g, p, t: g + 2 * strength * (p - t), seen.gradient, params, setup.start
        )
        return learner.update(params, state, seen._replace(gradient=gradient))

    return Learner(learner.state, update)


def shrink_and_perturb(settings: Settings, setup: Setup) -> Learner:
    """Shrink, and add a little of another initial network, at every step (Ash and Adams, 2020)."""
    keep, size, learner = 1 - settings["shrinkage"], settings["noise"], adam(settings, setup)

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        params, state = learner.update(params, state, seen)
        noise = setup.network.init(seen.key)
        return jax.tree.map(lambda p, e: keep * p + size * e, params, noise), state

    return Learner(learner.state, update)


def continual_backprop(settings: Settings, setup: Setup) -> Learner:
    """Replace the units that are of least use, a few at a time (Dohare et al., 2024)."""
    rate, replacement = settings["learning_rate"], settings["replacement_rate"]

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        moments, units = state
        params, moments = surgery.adam(rate, params, moments, seen.gradient)
        params, moments, units = surgery.continual_backprop(
            replacement, params, moments, units, seen.units or [], seen.key
        )
        return params, (moments, units)

    return Learner((surgery.moments(setup.start), surgery.units(setup.start)), update)


def redo(settings: Settings, setup: Setup) -> Learner:
    """Draw dormant units anew every 1,000 steps (Sokar et al., 2023)."""
    rate, threshold = settings["learning_rate"], settings["threshold"]

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        params, state = surgery.adam(rate, params, state, seen.gradient)
        now = (seen.step + 1) % 1000 == 0
        return surgery.redo(threshold, now, params, state, seen.units or [], seen.spare)

    return Learner(surgery.moments(setup.start), update)


def upgd(settings: Settings, setup: Setup) -> Learner:
    """Utility-based perturbed gradient descent (Elsayed and Mahmood, 2024), memory of 1,000 steps.

    Weights of little utility, which is -gradient * weight on average, get noise and learn faster.
    The largest utility of all is that before its correction for the start, as in the published
    code.
    """
    rate, noise, decay, memory = (
        *(settings[name] for name in ("learning_rate", "noise", "weight_decay")),
        0.999,
    )

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        utility, count = state
        count = count + 1
        utility = jax.tree.map(
            lambda u, g, p: memory * u - (1 - memory) * g * p, utility, seen.gradient, params
        )
        largest = jnp.max(jnp.stack([x.max() for x in jax.tree.leaves(utility)]))
        normal = optax.tree.random_like(seen.key, params)

        def step(p: Array, g: Array, u: Array, e: Array) -> Array:
            protected = jax.nn.sigmoid(u / (1 - memory**count) / largest)
            return (1 - rate * decay) * p - 2 * rate * (g + noise * e) * (1 - protected)

        return jax.tree.map(step, params, seen.gradient, utility, normal), (utility, count)

    return Learner((jax.tree.map(jnp.zeros_like, setup.start), jnp.zeros(())), update)


ASCENTS = 10
"""Steps of gradient ascent of Soft Reset a batch."""


def soft_reset(settings: Settings, setup: Setup) -> Learner:
    r"""Learn from every batch how far to drift to the start (Galashov et al., 2024).

    The optimum of an array drifts as $N(\gamma\theta + (1-\gamma)\theta_0, (1-\gamma^2)\sigma_0^2)$
    from a belief $N(\theta, s^2\sigma_0^2)$. Every $\gamma$ ascends the log-likelihood of the batch
    at a draw from where the optimum may be now, from $\gamma = 1$. Then a step of gradient descent
    begins at the drifted mean, its rate $\alpha(\gamma^2 + (1-\gamma^2)/s^2)$.
    """
    rate, drift_rate, width = (settings[n] for n in ("learning_rate", "drift_rate", "width"))
    scales = jax.tree.map(jnp.sqrt, beliefs.initial_variance(setup.start))

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        normal = optax.tree.random_like(seen.key, params)

        def drawn(d: Array, p: Array, start: Array, s: Array, e: Array) -> Array:
            spread = jnp.sqrt((d * width) ** 2 + 1 - d**2)
            return d * p + (1 - d) * start + s * spread * e

        def predicted(drifts: Any) -> Array:
            return seen.loss(jax.tree.map(drawn, drifts, params, setup.start, scales, normal))

        def ascend(_: Any, drifts: Any) -> Any:
            slopes = jax.grad(predicted)(drifts)
            return jax.tree.map(lambda d, g: jnp.clip(d - drift_rate * g, 0, 1), drifts, slopes)

        none = jax.tree.map(lambda p: jnp.ones((), p.dtype), params)
        drifts = jax.lax.fori_loop(0, ASCENTS, ascend, none)
        moved = jax.tree.map(lambda d, p, s: d * p + (1 - d) * s, drifts, params, setup.start)
        gradient = jax.grad(seen.loss)(moved)

        def step(d: Array, p: Array, g: Array) -> Array:
            return p - rate * (d**2 + (1 - d**2) / width**2) * g

        return jax.tree.map(step, drifts, moved, gradient), state

    return Learner((), update)


def hazard_filter(settings: Settings, setup: Setup) -> Learner:
    """`beliefnav.rules.hazard_filter`, its prior ``spread`` times the initial variance."""
    prior = prior_variance(settings, setup)
    opt = rules.hazard_filter(settings["hazard"], prior, examples=setup.batch_size)

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        updates, state = opt.update(seen.gradient, state, params, curvature=seen.squares(params))
        return optax.apply_updates(params, updates), state

    return Learner(opt.init(setup.start), update)


def prior_variance(settings: Settings, setup: Setup) -> Any:
    """``spread`` times the variance of the initial entries of each array."""
    return jax.tree.map(lambda v: settings["spread"] * v, beliefs.initial_variance(setup.start))


def two_hypothesis(settings: Settings, setup: Setup) -> Learner:
    """`beliefnav.wrappers.two_hypothesis` around Adam."""
    inner = optax.adam(settings["learning_rate"])
    wrapped = wrappers.two_hypothesis(inner, settings["hazard"], setup.batch_size)
    return optimizer(wrapped, setup.start)


def layers_on_trial(settings: Settings, setup: Setup) -> Learner:
    """`beliefnav.wrappers.partial_switches.layer_hypotheses` around Adam.

    It learns the hazard where that is no setting.
    """
    inner = optax.adam(settings["learning_rate"])
    wrapped = layer_hypotheses(inner, settings.get("hazard"), setup.batch_size)
    return optimizer(wrapped, setup.start)


def resetting(settings: Settings, setup: Setup) -> Learner:
    """`beliefnav.rules.resetting`, at a discount of 0.03."""
    opt = rules.resetting(settings["learning_rate"], settings["hazard"], discount=0.03)
    return optimizer(opt, setup.start)


def resetting_by_curvature(settings: Settings, setup: Setup) -> Learner:
    """The plan of `resetting` on a reading of the Gauss-Newton matrix, with Adam's memories."""

    def remembering(discount: float) -> beliefs.Belief:
        return beliefs.shared(beliefs.LocalLevel(discount))

    believed = beliefs.independent(
        gradient=remembering(0.9), curvature=beliefs.sensed(remembering(0.999))
    )
    opt: Any = navigator(
        settings["learning_rate"], believed, control.resetting(settings["hazard"], 0.03)
    )

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        curvature = sensors.gauss_newton(
            seen.network.forward,
            lambda outputs: jnp.mean(example_losses(outputs, seen.targets)),
            params,
            seen.key,
            seen.inputs,
        )
        updates, state = opt.update(seen.gradient, state, params, curvature=curvature)
        return optax.apply_updates(params, updates), state

    return Learner(opt.init(setup.start), update)


def part_of_filter(
    settings: Settings, setup: Setup, *, mean: bool, variance: bool, zero: bool = False
) -> Learner:
    """The hazard filter written out, with or without the pull of its mean and of its variance."""
    variances = prior_variance(settings, setup)
    prior = jax.tree.map(lambda v, p: v * jnp.ones_like(p), variances, setup.start)
    target = jax.tree.map(jnp.zeros_like, setup.start) if zero else setup.start
    pull, widening = (settings["hazard"] * on for on in (mean, variance))

    def update(params: Params, state: Any, seen: Observed) -> tuple[Params, Any]:
        keep, wide, b = 1 - pull, (1 - widening) ** 2, setup.batch_size
        pulled = jax.tree.map(lambda p, t: t + keep * (p - t), params, target)
        v = jax.tree.map(lambda v, v0: wide * v + (1 - wide) * v0, state, prior)
        squares = seen.squares(params)
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


TWELVE = (1e-4, 2e-4, 3e-4, 6e-4, 1e-3, 2e-3, 3e-3, 6e-3, 1e-2, 2e-2, 3e-2, 6e-2)
RATES = {"learning_rate": (1e-3, 3e-3, 1e-2)}
HAZARDS = {"hazard": (1e-4, 3e-4, 1e-3, 3e-3), "spread": (1.0, 4.0, 16.0)}
PROBABILITY = {"hazard": (1e-9, 0.5)}

METHODS: dict[str, Method] = {
    "adam": Method("Adam", adam, {"learning_rate": TWELVE}),
    "adam_restarted": Method(
        "told: Adam begins anew with every task",
        adam_restarted,
        {"learning_rate": TWELVE},
        "told",
        quick={"learning_rate": 3e-3},
    ),
    "l2_init": Method("L2-Init", l2_init, {**RATES, "strength": (1e-5, 1e-4, 1e-3, 1e-2)}),
    "shrink_and_perturb": Method(
        "shrink and perturb",
        shrink_and_perturb,
        {
            "learning_rate": (1e-3, 3e-3),
            "shrinkage": (1e-5, 1e-4, 1e-3),
            "noise": (1e-3, 1e-2),
        },
    ),
    "continual_backprop": Method(
        "continual backprop",
        continual_backprop,
        {**RATES, "replacement_rate": (1e-6, 1e-5, 1e-4, 1e-3)},
        units=True,
    ),
    "redo": Method(
        "ReDo",
        redo,
        {**RATES, "threshold": (0.0, 0.01, 0.03, 0.1)},
        units=True,
    ),
    "upgd": Method(
        "UPGD",
        upgd,
        {
            "learning_rate": (0.03, 0.1, 0.3),
            "noise": (1e-3, 1e-2),
            "weight_decay": (1e-4, 1e-3),
        },
    ),
    "soft_reset": Method(
        "Soft Reset",
        soft_reset,
        {"learning_rate": (0.03, 0.1), "drift_rate": (1e-3, 1e-2, 0.1), "width": (0.3, 0.9)},
        limits={"width": (0.0, 1.0)},
    ),
    "hazard_filter": Method(
        "hazard filter",
        hazard_filter,
        HAZARDS,
        "ours",
        limits=PROBABILITY,
        quick={"hazard": 6e-4, "spread": 4.0},
    ),
    "two_hypothesis": Method(
        "two hypotheses around Adam",
        two_hypothesis,
        {**RATES, "hazard": (1e-6, 1e-4, 1e-2, 0.1)},
        "ours",
        limits=PROBABILITY,
    ),
    "layer_hypotheses": Method(
        "layers on trial around Adam",
        layers_on_trial,
        {**RATES, "hazard": (1e-6, 1e-4, 1e-3, 1e-2)},
        "ours",
        limits=PROBABILITY,
        quick={"learning_rate": 3e-3, "hazard": 1e-2},
    ),
    "layer_hypotheses_learned": Method(
        "layers on trial, hazard learned", layers_on_trial, {"learning_rate": TWELVE}, "ours"
    ),
    "resetting": Method(
        "resetting plan on squared gradients",
        resetting,
        {"learning_rate": (0.01, 0.03, 0.1), "hazard": (0.03, 0.1, 0.3, 1.0)},
        "ours",
    ),
    "resetting_by_curvature": Method(
        "resetting plan on Gauss-Newton readings",
        resetting_by_curvature,
        {"learning_rate": (0.01, 0.03, 0.1), "hazard": (0.01, 0.03, 0.1, 0.3)},
        "ours",
    ),
    "adam_3e-3": Method(
        "Adam at a learning rate of 3e-3",
        adam,
        {"learning_rate": (3e-3,)},
        "reference",
        quick={"learning_rate": 3e-3},
    ),
    "variance_only": Method(
        "hazard filter that forgets, without the pull", variance_only, HAZARDS, "ablation"
    ),
    "mean_only": Method(
        "hazard filter with the pull, that does not forget", mean_only, HAZARDS, "ablation"
    ),
    "to_zero": Method("hazard filter with a pull to zero", to_zero, HAZARDS, "ablation"),
    "no_hazard": Method(
        "hazard filter with a hazard of 0",
        no_hazard,
        {"spread": tuple(4.0**k / 64 for k in range(12))},
        "ablation",
    ),
}
"""Name -> method."""
