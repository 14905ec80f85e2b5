r"""Weights of a network that something else lets decay, learned and countered.

Between the updates of Adam a process that nobody told it of takes a share of every weight, another
one in every layer, and disturbs all of them: $\theta \leftarrow (1 - \lambda) \theta + N(0,
\sigma^2)$. Adam alone cannot tell. `beliefnav.wrappers.uncontrolled.drift_countering` compares
where the weights are found with where Adam sent them, learns a rate for every weight, and makes up
for it. Adam that knows is told the rates and sends the weights to where the decay brings them to
its aim. Adam without the process shows what the decay costs.

The rates of a layer's weights are learned apart. Under the assumption that they are one, they are
put together afterwards: the mean weighed by precision, with its 95 % interval. The rate that is
true is that of the number that a weight is multiplied by in float32.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from beliefnav.beliefs.drift.elementwise import ElementwiseDrift, ElementwiseDriftPosterior
from beliefnav.wrappers.uncontrolled import drift_countering
from experiments import figures, report
from experiments.training import Problem, make_problem

ARMS = ("no decay", "knows", "learned", "plain")
COLOURS: dict[str, str] = dict(
    zip(ARMS, (figures.GREEN, figures.BLACK, figures.BLUE, figures.ORANGE), strict=True)
)
BELIEF = ElementwiseDrift()
QUANTILE = 1.96
"""Deviations to either side of a 95 % interval."""


class Setting(NamedTuple):
    """How much is trained."""

    steps: int = 2000
    """Updates."""
    seeds: int = 5
    """Networks of every kind."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers."""
    rates: tuple[float, ...] = (1e-2, 3e-3, 1e-3)
    """The share that the weights of every layer lose between two updates."""
    noise: float = 1e-4
    """Standard deviation of what disturbs every weight."""
    learning_rate: float = 1e-3
    """Of Adam."""
    batch_size: int = 64
    """Examples of an update."""
    reported: int = 40
    """Points of the curves."""


QUICK = Setting(steps=400, seeds=3, hidden=(32,), rates=(1e-2, 1e-3), reported=10)


class _Process(NamedTuple):
    """What moves weights besides an optimizer.

    Attributes:
        rates: the share that the weights of every layer lose between two updates [layer].
        told: the share that Adam is told of, and counters [layer].
        noise: standard deviation of what disturbs every weight.
    """

    rates: Array
    told: Array
    noise: Array


class _Trained(NamedTuple):
    """One run.

    Attributes:
        params: after the first updates, as many as are between two points.
        accuracy: of test examples [point].
        rate: of every layer [point, layer], learned so far; ``None`` if nothing is learned.
        deviation: likewise.
        learned: the mean share that is learned of a layer's weights [point, layer].
    """

    params: Any
    accuracy: Array
    rate: Array | None = None
    deviation: Array | None = None
    learned: Array | None = None


def measured(setting: Setting, seed: int) -> dict[str, Any]:
    """Train networks of all kinds on the same batches, and read what is believed of the decay.

    Args:
        setting: how much.
        seed: of all that is drawn.

    Returns:
        ``accuracy`` of test examples in the end, {kind: [mean, low, high]} over seeds; ``layers``,
        for each: ``layer``, ``true``, ``mean``, ``low`` and ``high`` of the first seed,
        ``covered``, the share of seeds whose interval holds the true rate, and ``learned``, the
        share of its weights' directions that is; ``without_drift``, the largest
        difference between parameters of plain Adam and of one that counters, where nothing moves
        the weights besides, after the first updates (rounding, which two programs do not do
        alike, grows with all that follow);
        ``curves``, arrays for the figure.
    """
    problem = make_problem("digits", hidden=setting.hidden)
    keys = jax.random.split(jax.random.key(seed), setting.seeds)

    @partial(jax.jit, static_argnames="learns")
    def train(process: _Process, *, learns: bool = False) -> _Trained:
        return jax.vmap(lambda key: _trained(problem, setting, process, learns, key))(keys)

    rates, noise = jnp.array(setting.rates), jnp.array(setting.noise)
    decays, still = _Process(rates, 0 * rates, noise), _Process(0 * rates, 0 * rates, 0 * noise)
    runs = {
        "no decay": train(still._replace(noise=noise)),
        "knows": train(decays._replace(told=rates)),
        "learned": train(decays, learns=True),
        "plain": train(decays),
    }
    runs: dict[str, _Trained] = jax.tree.map(np.asarray, runs)
    one, other = (train(still, learns=learns).params for learns in (False, True))
    learned = runs["learned"]
    assert learned.rate is not None and learned.deviation is not None
    assert learned.learned is not None
    rows = []
    for i, given in enumerate(setting.rates):
        true = 1 - float(np.float32(1) - np.float32(given))
        mean, half = learned.rate[:, -1, i], QUANTILE * learned.deviation[:, -1, i]
        rows.append(
            {
                "layer": i + 1,
                "true": true,
                "mean": float(mean[0]),
                "low": float(mean[0] - half[0]),
                "high": float(mean[0] + half[0]),
                "covered": float(np.mean(np.abs(mean - true) <= half)),
                "learned": float(learned.learned[:, -1, i].mean()),
            }
        )
    return {
        "accuracy": {
            arm: report.interval(np.asarray(r.accuracy[:, -1])) for arm, r in runs.items()
        },
        "layers": rows,
        "without_drift": float(max(map(_distance, jax.tree.leaves(one), jax.tree.leaves(other)))),
        "curves": {
            "steps": _points(setting),
            "accuracy": {arm: r.accuracy for arm, r in runs.items()},
            "rate": learned.rate,
            "deviation": learned.deviation,
        },
    }


def _distance(one: Array, other: Array) -> Array:
    """The largest difference of two arrays."""
    return jnp.abs(one - other).max()


def _points(setting: Setting) -> np.ndarray:
    """The steps after which curves are read."""
    length = setting.steps // setting.reported
    return length * np.arange(1, setting.reported + 1)


def _trained(
    problem: Problem, setting: Setting, process: _Process, learns: bool, key: Array
) -> _Trained:
    """Train one network, by an Adam that learns what decays or by one that does not."""
    init_key, batch_key, noise_key = jax.random.split(key, 3)
    params = problem.make(init_key)
    kept, countered = _kept(params, process.rates), _kept(params, process.told)
    optimizer: Any = optax.adam(setting.learning_rate)
    if learns:
        optimizer = drift_countering(optimizer, BELIEF)

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        (params, state), (batch, key) = carry, inputs
        updates, state = optimizer.update(jax.grad(problem.loss)(params, batch), state, params)
        aim = optax.apply_updates(params, updates)
        sent = jax.tree.map(jnp.divide, aim, countered)
        noise = optax.tree.random_like(key, params)
        params = jax.tree.map(lambda p, k, e: k * p + process.noise * e, sent, kept, noise)
        return (params, state), None

    def point(carry: Any, inputs: Any) -> tuple[Any, tuple[Any, ...]]:
        carry, _ = lax.scan(step, carry, inputs)
        accuracy = problem.test_accuracy(carry[0])
        if not learns:
            return carry, (carry[0], accuracy)
        believed = BELIEF.posterior(carry[1].drift_belief)
        return carry, (carry[0], accuracy, *_of_layers(believed))

    shape = setting.reported, setting.steps // setting.reported
    count = shape[0] * shape[1]
    batches = problem.batches(jax.random.split(batch_key, count), setting.batch_size)
    inputs = batches.reshape(*shape, -1), jax.random.split(noise_key, shape)
    params, *points = lax.scan(point, (params, optimizer.init(params)), inputs)[1]
    return _Trained(jax.tree.map(lambda x: x[0], params), *points)


def _layers(tree: Any) -> list[Any]:
    """The parts of a network's parameters that have any, in order."""
    return [layer for layer in tree.layers if jax.tree.leaves(layer)]


def _kept(params: Any, rates: Array) -> Any:
    """What every array of parameters is multiplied by between two updates."""
    factors = [
        jax.tree.map(lambda x, rate=rate: jnp.asarray(1 - rate, x.dtype), layer)
        for layer, rate in zip(_layers(params), [*rates], strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(factors))


def _of_layers(believed: ElementwiseDriftPosterior) -> tuple[Array, Array, Array]:
    """The rate of decay of every layer, its deviation, and the share learned of its weights.

    Of one rate, what all weights say is the product of their likelihoods: their posteriors without
    the prior, whose share of what is believed is 1 less ``learned``.
    """
    means, variances, shares = (
        [jnp.concatenate([x.ravel() for x in jax.tree.leaves(layer)]) for layer in _layers(tree)]
        for tree in (believed.rate_mean, believed.rate_variance, believed.learned)
    )
    precisions = [jnp.sum(s / v) for s, v in zip(shares, variances, strict=True)]
    weighed = [jnp.sum(m / v) for m, v in zip(means, variances, strict=True)]
    rates = [-w / p for w, p in zip(weighed, precisions, strict=True)]
    deviations = [1 / jnp.sqrt(p) for p in precisions]
    return jnp.stack(rates), jnp.stack(deviations), jnp.stack([s.mean() for s in shares])


def claims(found: dict[str, Any]) -> list[report.Claim]:
    """What a run claims, of a quick one too."""
    accuracy = {arm: mean for arm, (mean, *_) in found["accuracy"].items()}
    errors = [abs(row["mean"] / row["true"] - 1) for row in found["layers"]]
    covered = np.mean([row["covered"] for row in found["layers"]])
    return [
        report.at_least(
            "decay on digits: accuracy of learned over plain",
            accuracy["learned"] - accuracy["plain"],
            0.02,
        ),
        report.close(
            "decay on digits: accuracy of learned, as of the one that knows",
            accuracy["learned"],
            accuracy["knows"],
            0.01,
        ),
        report.at_most("decay on digits: relative error of a layer's rate", max(errors), 0.05),
        report.at_least("decay on digits: 95 % intervals that hold the true rate", covered, 0.75),
        report.at_most(
            "decay on digits: first difference to plain Adam where nothing decays",
            found["without_drift"],
            1e-4,
        ),
    ]


def draw(path: Path, found: dict[str, Any]) -> None:
    """Accuracy over steps, and the rate of every layer as it is learned."""
    curves = found["curves"]
    steps = curves["steps"]
    with figures.page(path, 1, 2, 3.8) as (left, right):
        for arm in ARMS:
            figures.band(left, steps, curves["accuracy"][arm], color=COLOURS[arm], label=arm)
        left.set(xlabel="update", ylabel="accuracy of test examples", title="Digits")
        left.legend(title="band: range of seeds", title_fontsize=8)
        for i, row in enumerate(found["layers"]):
            colour, true = figures.CYCLE[i], row["true"]
            mean, half = curves["rate"][0, :, i], QUANTILE * curves["deviation"][0, :, i]
            label = f"layer {row['layer']}, {true:.3g} a step"
            right.plot(steps, 100 * (mean / true - 1), color=colour, label=label)
            low, high = (100 * ((mean + sign * half) / true - 1) for sign in (-1, 1))
            right.fill_between(steps, low, high, color=colour, alpha=0.25, lw=0)
        right.axhline(0, color="0.5", lw=0.8)
        right.set(xlabel="update", ylabel="learned rate over true rate, less 1 (%)")
        right.set_title("Learned decay of one network")
        right.legend(title="band: 95 % interval", title_fontsize=8)
        figures.note(
            left,
            "knows, learned: Adam that counters the decay, told of it or not. plain: Adam that "
            "does neither. no decay: plain Adam\nwhere weights are disturbed and do not decay. The "
            "curves of all but plain lie on each other.",
        )
