r"""Sweep one family of learning rules from Adam to momentum, and from ballistic to Newton.

Claim: learning rules are points of a space whose axes are assumptions, so that one optimizer
(`beliefnav.rules.family`) moves between them. Three ends train as the rules that they are named
after, and a path is one compilation, since assumptions are numbers that are vmapped. Three paths,
on a small network for the digits:

- the discount $\gamma$ from 0.001 (Adam) to 1,000 (momentum: gradient descent on the average of
  the gradients), for every learning rate;
- the time step $\Delta t$ from a ballistic step to Newton's on the second moment, with the plan
  followed (exact hold) and remade (replanning);
- the weight of the prior from bias-corrected to uncorrected averages, early and late in training.

It would be refuted by an end that differs from the rule that it is named after. The paper treats
the ends; what the paths between them do to the loss goes beyond it, and is reported: learning rates
and the discount are chosen with one half of the seeds, and the other half says what they reach.
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
NEWTON_RATE = 1e-5
"""Share of a Newton step at the end of the path to Newton: a whole one diverges."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Sweep one family of learning rules from Adam to momentum, and to Newton."""

    QUICK = {"points": 7, "learning_rates": 6, "steps": 200, "seeds": 2}
    LEAST = {"points": 3, "learning_rates": 2, "steps": EARLY, "batch_size": 1, "seeds": 2}

    points: int = 13
    """Points of a path."""
    learning_rates: int = 11
    """Learning rates, from 1e-4 to 10, of the path of discounts."""
    steps: int = 600
    """Steps of training."""
    batch_size: int = 64
    """Examples of a gradient, drawn with replacement."""
    seeds: int = 10
    """Networks with their batches; one half chooses rates and a discount, the other is reported."""


class Swept(NamedTuple):
    """How networks trained, for every seed and every point of a path [seed, point].

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
    train, seeds = trainer(config), jnp.arange(config.seeds)

    def family(values: dict[str, Array]) -> optax.GradientTransformation:
        return optax.inject_hyperparams(rules.family)(**values)

    one: Any = jax.jit(jax.vmap(lambda values, seed: train(family(values), seed), (0, None)))

    def sweep(values: dict[str, Array], size: int) -> Swept:
        each = zip(*(one(values, seed) for seed in seeds), strict=True)
        return Swept(*(np.stack(arrays)[:, :size] for arrays in each))

    ends = grid(learning_rate=RATE, discount=[0.0, 1e4])
    newton = grid(learning_rate=NEWTON_RATE * 1e5, time_step=1e5, exact_hold=1.0, eps_root=FLOOR)
    every = paths | {"ends": ends, "newton": newton}
    swept = {
        name: sweep(values, len(every[name]["learning_rate"]))
        for name, values in tqdm(pad(every).items(), desc="paths", unit="path")
    }
    step = optax.chain(newton_on_the_second_moment(), optax.sgd(NEWTON_RATE))
    share = f"{NEWTON_RATE:g} of a Newton step on the second moment"
    named = {
        "discount 0 / adam": (swept["ends"], 0, optax.adam(RATE, eps=0.0, eps_root=1e-16)),
        "discount 10,000 / momentum": (swept["ends"], 1, rules.momentum(RATE)),
        f"time step 100,000, held / {share}": (swept["newton"], 0, step),
    }
    claims = []
    for name, (along, point, rule) in named.items():
        early, late, _ = jax.jit(jax.vmap(lambda seed, rule=rule: train(rule, seed)))(seeds)
        first, final = along.early[:, point] / early, along.late[:, point] / late
        farthest = first[jnp.abs(first - 1).argmax()]
        title = f"end at {name}: training loss after {EARLY} steps, farthest seed"
        claims.append(report.close(title, farthest, 1, 1e-3))
        # By then float32 has rounded differently for long enough to part single networks.
        title = f"end at {name}: training loss at the end, median of the seeds"
        claims.append(report.close(title, jnp.median(final), 1, 1e-2))
    chosen = best(swept["discount"], discounts, learning_rates)
    ratio = chosen[-1]["learning_rate"] / chosen[0]["learning_rate"]
    claims += [
        report.close("compilations of all paths", one._cache_size(), 1, 0),
        report.at_least("best learning rate, momentum / adam", ratio, 10),
    ]
    file = config.folder / "interpolation.png"
    draw(swept, discounts, learning_rates, time_steps, weights, file)
    walked = {name: values | _over_seeds(swept[name]) for name, values in paths.items()}
    said = {"paths": walked, "best": chosen, "lowest": lowest(chosen)}
    return report.Report(claims, said | {"hold": _turn(swept["hold"], time_steps)})


def newton_on_the_second_moment() -> optax.GradientTransformation:
    r"""The textbook rule at the end of the held plan: $\hat m / (\hat v + \epsilon_r)$.

    The averages are those of Adam with its default memories, corrected for their bias.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        mean, square, count = state
        count = count + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, updates)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, square, updates)

        def step(m: Array, v: Array) -> Array:
            return m / (1 - 0.9**count) / (v / (1 - 0.999**count) + FLOOR)

        return jax.tree.map(step, mean, square), (mean, square, count)

    def init(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros, jnp.zeros((), jnp.int32)

    return optax.GradientTransformation(init, update)


def _over_seeds(swept: Swept) -> dict[str, np.ndarray]:
    """Medians over the seeds [point]."""
    return {name: np.median(values, 0) for name, values in swept._asdict().items()}


def lowest(chosen: list[dict[str, Any]]) -> dict[str, Any]:
    """The discount that one half of the seeds chooses, beside both ends on the other half."""
    row = min(chosen, key=lambda row: row["loss_that_chose"])
    losses = np.array(row["losses"])
    return row | {
        "below_adam": int(np.sum(losses < chosen[0]["losses"])),
        "below_momentum": int(np.sum(losses < chosen[-1]["losses"])),
        "of": len(losses),
    }


def _turn(swept: Swept, time_steps: np.ndarray) -> dict[str, Any]:
    """Plan -> median training loss at the shortest and the longest step, and where it is lowest."""
    losses = np.nan_to_num(np.median(swept.late, 0), nan=np.inf).reshape(2, -1)
    return {
        name: {
            "shortest": row[0],
            "lowest": row.min(),
            "lowest_at": time_steps[row.argmin()],
            "longest": row[-1],
        }
        for name, row in zip(("replanned", "held"), losses, strict=True)
    }


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


def trainer(config: Config) -> Callable[[Any, Any], tuple[Array, Array, Array]]:
    """A function of an optimizer and a seed that trains a network, to what `Swept` holds."""
    problem = make_problem(hidden=HIDDEN)
    shape = config.steps, config.batch_size

    def run(optimizer: Any, seed: Any) -> tuple[Array, Array, Array]:
        key_init, key_batches = jax.random.split(jax.random.key(config.seed + seed))
        batches = jax.random.randint(key_batches, shape, 0, problem.num_train)
        params = problem.make(key_init)
        start = params, optimizer.init(params)
        early, _ = train(problem.loss, optimizer, start, batches[:EARLY])
        late, _ = train(problem.loss, optimizer, early, batches[EARLY:])
        losses = problem.training_loss(early[0]), problem.training_loss(late[0])
        return *losses, problem.test_accuracy(late[0])

    return run


def best(swept: Swept, discounts: np.ndarray, learning_rates: np.ndarray) -> list[dict[str, Any]]:
    """For every discount the learning rate of the lowest training loss, and what it reaches.

    The first half of the seeds chooses, by the median; the others say what is reached.
    """
    shape = len(swept.late), len(learning_rates), len(discounts)
    losses, accuracies = swept.late.reshape(shape), swept.accuracy.reshape(shape)
    half = len(losses) // 2
    choosing = np.nan_to_num(np.median(losses[:half], 0), nan=np.inf)
    return [
        {
            "discount": float(d),
            "learning_rate": float(learning_rates[i]),
            "loss_that_chose": float(choosing[i, j]),
            "training_loss": float(np.median(losses[half:, i, j])),
            "losses": losses[half:, i, j].tolist(),
            "test_accuracy": float(np.mean(accuracies[half:, i, j])),
        }
        for j, (d, i) in enumerate(zip(discounts, choosing.argmin(0), strict=True))
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
        discounts: of the path from Adam to momentum.
        learning_rates: of the same.
        time_steps: of the path to Newton.
        weights: of the path of priors.
        path: PNG file to write.
    """
    from matplotlib.colors import LogNorm

    late = {name: np.median(along.late, 0) for name, along in swept.items()}
    losses = late["discount"].reshape(len(learning_rates), len(discounts))
    shown = np.clip(np.nan_to_num(losses, nan=10.0), 1e-4, 10)
    with figures.page(path, 1, 3, width=1.15 * figures.WIDTH) as (left, middle, right):
        mesh = left.pcolormesh(discounts, learning_rates, shown, norm=LogNorm(), shading="nearest")
        best_rates = learning_rates[shown.argmin(0)]
        left.plot(discounts, best_rates, "o-", color="w", mec="k", ms=4, lw=1)
        left.set(xscale="log", yscale="log", xlabel="discount γ", ylabel="learning rate")
        left.set_title("Adam (γ → 0) to momentum (γ → ∞)\ncircles: best learning rate")
        left.figure.colorbar(mesh, ax=left, label="final training loss (nats)")
        plans = (("replanned", figures.RED, "-"), ("held", figures.BLUE, "--"))
        for row, (name, color, style) in zip(late["hold"].reshape(2, -1), plans, strict=True):
            values = np.clip(np.nan_to_num(row, nan=1e3), 0, 1e3)
            middle.plot(time_steps, values, style, color=color, label=name)
        middle.set(xscale="log", yscale="log", xlabel="time step Δt")
        middle.set_ylabel("final training loss (nats), up to 1,000")
        middle.set_title("ballistic (Δt → 0) to Newton (Δt → ∞)")
        middle.legend(title="plan")
        for name, values, color in (
            (f"after {EARLY} steps", np.median(swept["prior"].early, 0), figures.ORANGE),
            ("at the end", late["prior"], figures.BLACK),
        ):
            right.plot(weights, values / values[0], color=color, label=name)
        right.set(yscale="log", xlabel="weight of the prior")
        right.set_ylabel("training loss / that of weight 0")
        right.set_title("bias-corrected (0) to uncorrected (1)")
        right.legend()
