r"""Sweep one family of learning rules from Adam to gradient descent, and from ballistic to Newton.

Claim: learning rules are points of a space whose axes are assumptions, so that one optimizer
(`beliefnav.rules.family`) moves between them. Its ends are the named rules; between them the loss
changes without a jump; and a path is one compilation, since assumptions are numbers that are
vmapped. Three paths, on a small network for the digits:

- the discount $\gamma$ from 0.001 (Adam) to 1,000 (gradient descent), for every learning rate;
- the time step $\Delta t$ from a ballistic step to Newton's on the second moment, with the plan
  followed (exact hold) and remade (replanning);
- the weight of the prior from bias-corrected to uncorrected averages, early and late in training.

It would be refuted by an end that differs from the rule that it is named after. The paper treats
the ends; the paths between them go beyond it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from beliefnav import rules
from experiments import figures, report
from experiments.options import Options
from experiments.training import make_problem, train

HIDDEN = (32,)
EARLY = 30
"""Steps after which the loss is looked at the first time."""
FLOOR = 1e-6
"""Curvature floor of the path to Newton: the second moment is no curvature where it vanishes."""
RATE = 0.01
"""Learning rate of the path of priors, and of the ends."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Sweep one family of learning rules from Adam to gradient descent and to Newton."""

    QUICK = {"points": 7, "learning_rates": 6, "steps": 200}
    LEAST = {"points": 3, "learning_rates": 2, "steps": EARLY, "batch_size": 1}

    points: int = 13
    """Points of a path."""
    learning_rates: int = 11
    """Learning rates, from 1e-4 to 10, of the path of discounts."""
    steps: int = 600
    """Steps of training."""
    batch_size: int = 64
    """Examples of a gradient, drawn with replacement."""


class Swept(NamedTuple):
    """How networks trained, one for every point of a path.

    Attributes:
        early: mean training loss after `EARLY` steps, in nats.
        late: the same at the end.
        accuracy: fraction of the test set that is classified correctly.
    """

    early: np.ndarray
    late: np.ndarray
    accuracy: np.ndarray


def run(config: Config) -> report.Report:
    """Sweep the paths, and draw them."""
    count = config.points
    discounts, learning_rates = np.logspace(-3, 3, count), np.logspace(-4, 1, config.learning_rates)
    time_steps, weights = np.logspace(-3, 2, count), np.linspace(0, 1, count)
    paths = {
        "discount": grid(learning_rate=learning_rates, discount=discounts),
        "hold": grid(exact_hold=np.array([0.0, 1.0]), time_step=time_steps, eps_root=FLOOR),
        "prior": grid(learning_rate=RATE, prior_weight=weights),
    }
    paths["hold"]["learning_rate"] = paths["hold"]["time_step"]
    train = trainer(config)

    def family(values: dict[str, Array]) -> optax.GradientTransformation:
        return optax.inject_hyperparams(rules.family)(**values)

    sweep: Any = jax.jit(jax.vmap(lambda values: train(family(values))))
    swept = {}
    for name, values in tqdm(pad(paths).items(), desc="paths", unit="path"):
        size = len(paths[name]["learning_rate"])
        swept[name] = Swept(*(np.asarray(x)[:size] for x in sweep(values)))
    adam, descent = (
        Swept(*map(np.asarray, jax.jit(lambda o=o: train(o))()))
        for o in (optax.adam(RATE, eps=0.0, eps_root=1e-16), rules.momentum(RATE))
    )
    ends = pad(paths | {"ends": grid(learning_rate=RATE, discount=[0.0, 1e4])})["ends"]
    losses = np.asarray(sweep(ends)[1])[:2]
    chosen = best(swept["discount"], discounts, learning_rates)
    ratio = chosen[-1]["learning_rate"] / chosen[0]["learning_rate"]
    claims = [
        report.close("end at discount 0 / adam: training loss", losses[0] / adam.late, 1, 1e-3),
        report.close(
            "end at discount 10,000 / momentum: training loss", losses[1] / descent.late, 1, 1e-3
        ),
        report.close("compilations of all paths", sweep._cache_size(), 1, 0),
        report.at_least("best learning rate, gradient descent / adam", ratio, 10),
    ]
    file = config.folder / "interpolation.png"
    draw(swept, discounts, learning_rates, time_steps, weights, file)
    walked = {name: paths[name] | s._asdict() for name, s in swept.items()}
    lowest = min(chosen, key=lambda row: row["training_loss"])
    return report.Report(claims, {"paths": walked, "best": chosen, "lowest": lowest})


def grid(**axes: Any) -> dict[str, np.ndarray]:
    """All combinations of the values of the axes, as flat arrays."""
    meshes = np.meshgrid(*(np.atleast_1d(axis) for axis in axes.values()), indexing="ij")
    return {name: mesh.ravel() for name, mesh in zip(axes, meshes, strict=True)}


def pad(paths: dict[str, dict[str, Any]]) -> dict[str, dict[str, Array]]:
    """Paths of one length and with all assumptions, so that one compilation serves them all."""
    default = {
        "discount": 0.0,
        "eps_root": 1e-16,
        "exact_hold": 0.0,
        "prior_weight": 0.0,
        "time_step": 1.0,
    }
    longest = max(len(values["learning_rate"]) for values in paths.values())

    def filled(values: dict[str, Any]) -> dict[str, Array]:
        size = len(values["learning_rate"])
        full = {k: np.full(size, v) for k, v in default.items()} | values
        padded = {k: np.pad(v, (0, longest - size), "edge") for k, v in full.items()}
        return {k: jnp.asarray(v, jnp.float32) for k, v in padded.items()}

    return {name: filled(values) for name, values in paths.items()}


def trainer(config: Config) -> Callable[[Any], tuple[Array, Array, Array]]:
    """A function that trains a network with an optimizer, and returns what `Swept` holds."""
    problem = make_problem(hidden=HIDDEN)
    key_init, key_batches = jax.random.split(jax.random.key(config.seed))
    shape = config.steps, config.batch_size
    batches = jax.random.randint(key_batches, shape, 0, problem.num_train)
    params = problem.make(key_init)

    def run(optimizer: Any) -> tuple[Array, Array, Array]:
        start = params, optimizer.init(params)
        early, _ = train(problem.loss, optimizer, start, batches[:EARLY])
        late, _ = train(problem.loss, optimizer, early, batches[EARLY:])
        losses = problem.training_loss(early[0]), problem.training_loss(late[0])
        return *losses, problem.test_accuracy(late[0])

    return run


def best(swept: Swept, discounts: np.ndarray, learning_rates: np.ndarray) -> list[dict[str, float]]:
    """The learning rate of the lowest training loss for every discount, and what it reaches."""
    shape = len(learning_rates), len(discounts)
    losses, accuracies = swept.late.reshape(shape), swept.accuracy.reshape(shape)
    chosen = np.nanargmin(losses, 0)
    return [
        {
            "discount": float(d),
            "learning_rate": float(learning_rates[i]),
            "training_loss": float(losses[i, j]),
            "test_accuracy": float(accuracies[i, j]),
        }
        for j, (d, i) in enumerate(zip(discounts, chosen, strict=True))
    ]


def draw(
    swept: dict[str, Swept],
    discounts: np.ndarray,
    learning_rates: np.ndarray,
    time_steps: np.ndarray,
    weights: np.ndarray,
    path: Path,
) -> None:
    """Draw the three paths.

    Args:
        swept: path -> how its networks trained.
        discounts: of the path from Adam to gradient descent.
        learning_rates: of the same.
        time_steps: of the path to Newton.
        weights: of the path of priors.
        path: PNG file to write.
    """
    from matplotlib.colors import LogNorm

    losses = swept["discount"].late.reshape(len(learning_rates), len(discounts))
    shown = np.clip(np.nan_to_num(losses, nan=10.0), 1e-4, 10)
    with figures.page(path, 1, 3, width=1.15 * figures.WIDTH) as (left, middle, right):
        mesh = left.pcolormesh(discounts, learning_rates, shown, norm=LogNorm(), shading="nearest")
        best_rates = learning_rates[shown.argmin(0)]
        left.plot(discounts, best_rates, "o-", color="w", mec="k", ms=4, lw=1)
        left.set(xscale="log", yscale="log", xlabel="discount γ", ylabel="learning rate")
        left.set_title("Adam (γ → 0) to gradient descent (γ → ∞)\ncircles: best learning rate")
        left.figure.colorbar(mesh, ax=left, label="final training loss (nats)")
        plans = (("replanned", figures.RED, "-"), ("held", figures.BLUE, "--"))
        for row, (name, color, style) in zip(swept["hold"].late.reshape(2, -1), plans, strict=True):
            values = np.clip(np.nan_to_num(row, nan=1e3), 0, 1e3)
            middle.plot(time_steps, values, style, color=color, label=name)
        middle.set(xscale="log", yscale="log", xlabel="time step Δt")
        middle.set_ylabel("final training loss (nats), up to 1,000")
        middle.set_title("ballistic (Δt → 0) to Newton (Δt → ∞)")
        middle.legend(title="plan")
        for name, values, color in (
            (f"after {EARLY} steps", swept["prior"].early, figures.ORANGE),
            ("at the end", swept["prior"].late, figures.BLACK),
        ):
            right.plot(weights, values / values[0], color=color, label=name)
        right.set(yscale="log", xlabel="weight of the prior")
        right.set_ylabel("training loss / that of weight 0")
        right.set_title("bias-corrected (0) to uncorrected (1)")
        right.legend()
