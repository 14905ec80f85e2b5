r"""Train a network on real images with beliefs about its gradient, and open the posterior.

A demonstration, and no comparison of rules: every rule has one learning rate, which is not tuned.

Claim: gradient descent, Adam and the ballistic rule, the same policy under different assumptions,
all learn to classify images: on the digits each has a test accuracy of at least 95 %. A rule with
less would refute it. That the ballistic rule does about as well as Adam, although it has no
momentum and no bias correction, is claimed on ``fashion_mnist`` alone. A belief that shrinks noisy
averages (`wiener`) and the rule without a learning rate, at the average that it hands over, are
reported as they come out.

Every rule is an optax optimizer behind gradient clipping; an epoch is one jitted scan, seeds are
vmapped. A few coordinates are recorded while training; a state-space model of their gradient is
then fitted by NUTS. Written are a figure of losses and accuracies, a figure of the posterior,
``metrics.json``, the recorded stream and ``posterior.nc``, which ``arviz.from_netcdf`` opens.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from tqdm import tqdm

from beliefnav import inference, optimum, recording
from beliefnav._files import written_beside
from beliefnav.rules._rule import Rule
from beliefnav.rules.catalogue import CATALOGUE
from experiments import report
from experiments.classify import drawing
from experiments.data import DATA_SETS, Data
from experiments.networks import NETWORKS
from experiments.options import OptionError, Options, check_known
from experiments.training import Problem, make_problem
from experiments.training import train as train_on
from models import landscape

if TYPE_CHECKING:
    import xarray as xr

RULES: dict[str, Rule[...]] = {
    name: entry.rule
    for name, entry in CATALOGUE.items()
    if set(entry.arguments) in ({"learning_rate"}, {"guess"}) and entry.reading is None
}
"""Those that need nothing but gradients, and at most a learning rate."""
FREE = frozenset(name for name in RULES if "learning_rate" not in CATALOGUE[name].arguments)
"""Those without one; they hand over an average."""
LEARNING_RATES = {"sgd": 0.1, "ballistic": 5e-4, "secant": 0.03}
"""Rule -> default learning rate, where it is not 1e-3; those of the paper where it has the rule."""
CLAIMED = ("sgd", "adam", "ballistic")
"""The rules that the paper compares."""

EPOCHS = {"digits": 40, "mnist1d": 40, "fashion_mnist": 3}
CLIP_NORM = 5.0
COORDINATES_PER_ARRAY = 4
CAPACITY = 1000


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Train a network on real images with several learning rules, and open what they believe."""

    QUICK = {"seeds": 1, "draws": 40, "max_tree_depth": 4, "fitted_steps": 50}
    LEAST = {
        "batch_size": 1,
        "seeds": 1,
        "epochs": 1,
        "learning_rates": 0.0,
        "draws": 4,
        "max_tree_depth": 1,
        "fitted_steps": inference.MIN_STEPS,
    }

    data: str = "digits"
    """Data set: digits, mnist1d or fashion_mnist."""
    network: str = "mlp"
    """Network: mlp or cnn."""
    rules: tuple[str, ...] = (*CLAIMED, "wiener", *FREE)
    """Learning rules: those of the catalogue that need only gradients."""
    epochs: int | None = None
    """Passes over the training data; 40, or 3 for fashion_mnist, by default."""
    batch_size: int = 128
    """Examples of a gradient."""
    learning_rates: dict[str, float] = field(default_factory=dict)
    """Learning rates that differ from the default, as in: sgd 0.05 adam 3e-4."""
    seeds: int = 3
    """Number of initialisations, trained side by side."""
    fitted_steps: int = 200
    """Number of last recorded steps that the landscape model is fitted to."""
    draws: int = 200
    """Draws of each of two chains of NUTS, after as many steps of warm-up."""
    max_tree_depth: int = 10
    """Largest depth of a tree of NUTS."""
    data_dir: Path | None = None
    """Folder of the fashion_mnist files, if they are not where Debian's package puts them."""

    def check(self) -> None:
        """Raise an `OptionError` on a name that is not known."""
        check_known("data set", [self.data], DATA_SETS)
        check_known("network", [self.network], NETWORKS)
        check_known("rule", self.rules, RULES)
        check_known("rule in learning_rates", self.learning_rates, self.rules)
        if given := FREE & self.learning_rates.keys():
            raise OptionError(f"{', '.join(given)} has no learning rate; leave it out.")

    @property
    def num_epochs(self) -> int:
        """Passes over the training data."""
        return self.epochs or EPOCHS[self.data]

    def learning_rate(self, rule: str) -> float | None:
        """The learning rate of a rule; ``None`` of one that has none."""
        if rule in FREE:
            return None
        return self.learning_rates.get(rule, LEARNING_RATES.get(rule, 1e-3))


class Training(NamedTuple):
    """How one rule did.

    Attributes:
        train_loss: [seed, epoch] mean loss over the epoch, in nats.
        test_accuracy: [seed, epoch] fraction.
        seconds: wall-clock time, compilation included.
        recording: what the first seed's optimizer saw and believed.
    """

    train_loss: np.ndarray
    test_accuracy: np.ndarray
    seconds: float
    recording: "xr.Dataset"


def run(config: Config) -> report.Report:
    """Train, infer, draw."""
    problem = make_problem(config.data, config.network, folder=config.data_dir)
    steps = config.num_epochs * max(1, problem.num_train // config.batch_size)
    if steps < inference.MIN_STEPS:
        raise OptionError(
            f"Cannot fit a model to {steps} steps. This is because it needs at least "
            f"{inference.MIN_STEPS}; give more --epochs or a smaller --batch-size."
        )
    with tqdm(total=len(config.rules) * config.num_epochs, unit="epoch") as bar:
        trainings = {name: train(config, name, problem, bar) for name in config.rules}

    believer = "wiener" if "wiener" in trainings else config.rules[-1]
    drawing.draw_learning(trainings, config.folder / "classify.png")
    groups = infer_landscape(config, trainings[believer].recording)
    if groups is None:
        print(
            f"No posterior of {believer}. This is because its last {config.fitted_steps} gradients "
            "are mostly 0; give fewer --epochs, or --rules with one that leaves something to learn."
        )
    else:
        container = recording.to_container(groups)
        with written_beside(config.folder / "posterior.nc") as unfinished:
            container.to_netcdf(str(unfinished), engine="h5netcdf")
        last = float(groups["observed_data"]["step"][-1])
        window = (last - config.fitted_steps + 1, last)
        drawing.draw_posterior(groups, believer, window, config.folder / "posterior.png")
    rules = {
        name: {
            "learning_rate": config.learning_rate(name),
            "train_loss": training.train_loss.mean(0),
            "test_accuracy": training.test_accuracy.mean(0),
            "test_accuracy_std": training.test_accuracy.std(0),
            "seconds": training.seconds,
        }
        for name, training in trainings.items()
    }
    seconds = sum(training.seconds for training in trainings.values())
    return report.Report(claims(config, trainings), {"rules": rules, "training_seconds": seconds})


def train(config: Config, rule: str, problem: Problem, bar: Any) -> Training:
    """Train one network for every seed, side by side, with one rule.

    Args:
        config: the options.
        rule: name of the rule.
        problem: the data and the network.
        bar: progress bar, moved by one every epoch.

    Returns:
        How it went.
    """
    started = time.perf_counter()
    num_batches = max(1, problem.num_train // config.batch_size)
    rate: Any = config.learning_rate(rule)
    inner = RULES[rule]() if rate is None else RULES[rule](rate)
    optimizer = recording.record(
        optax.chain(optax.clip_by_global_norm(CLIP_NORM), inner),
        coordinates=COORDINATES_PER_ARRAY,
        capacity=min(CAPACITY, config.num_epochs * num_batches),
        key=jax.random.key(config.seed),
    )

    def epoch(params: Any, opt_state: Any, batches: Any, data: Data) -> Any:
        here = problem._replace(data=data)  # an argument: no constant of the program
        (params, opt_state), losses = train_on(here.loss, optimizer, (params, opt_state), batches)
        handed = optimum(opt_state, params) if rule in FREE else params
        return params, opt_state, losses.mean(), here.test_accuracy(handed)

    run_epoch = jax.jit(jax.vmap(epoch, in_axes=(0, 0, 0, None)), donate_argnums=(0, 1))
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    params = jax.jit(jax.vmap(problem.make))(keys)
    opt_state = jax.jit(jax.vmap(optimizer.init))(params)
    rng = np.random.default_rng(config.seed)
    examples = np.tile(np.arange(problem.num_train), (config.seeds, 1))
    used = num_batches * config.batch_size
    losses, accuracies = [], []
    for _ in range(config.num_epochs):
        batches = rng.permuted(examples, axis=1)[:, :used].reshape(config.seeds, num_batches, -1)
        params, opt_state, loss, accuracy = run_epoch(params, opt_state, batches, problem.data)
        losses.append(np.asarray(loss))
        accuracies.append(np.asarray(accuracy))
        bar.set_description(f"{rule:>18}")
        bar.set_postfix(loss=f"{losses[-1].mean():.4f}", accuracy=f"{accuracies[-1].mean():.4f}")
        bar.update()
    first = jax.jit(lambda tree: jax.tree.map(lambda x: x[0], tree))
    return Training(
        np.stack(losses, 1),
        np.stack(accuracies, 1),
        time.perf_counter() - started,
        recording.to_dataset(*first((opt_state, params))),
    )


def infer_landscape(config: Config, recorded: "xr.Dataset") -> "dict[str, xr.Dataset] | None":
    """Fit the landscape model to a few recorded streams; the groups of ``posterior.nc``.

    ``None`` where all gradients are mostly 0: the network has learned its examples by heart.
    """
    stream = recorded[["gradient", "displacement", "params"]]
    with written_beside(config.folder / "stream.nc") as unfinished:
        stream.to_netcdf(unfinished, engine="h5netcdf")
    fitted = recording.read_stream(config.folder / "stream.nc").isel(
        step=slice(-config.fitted_steps, None)
    )
    chosen = _livest(recorded, inference.informative(fitted).values)
    if not chosen:
        return None
    fitted = fitted.isel(param=chosen)
    print(f"NUTS over {fitted.sizes['param']} streams of {fitted.sizes['step']} gradients")
    fit = inference.numpyro_nuts(
        landscape.target(fitted),
        key=jax.random.key(config.seed),
        num_warmup=config.draws,
        num_samples=config.draws,
        num_chains=2,
        target_acceptance=0.9,
        max_tree_depth=config.max_tree_depth,
    )
    groups = {"posterior": fit.posterior, "sample_stats": fit.sample_stats}
    return groups | recording.to_groups(recorded, num_draws=100)


def claims(config: Config, trainings: dict[str, Training]) -> list[report.Claim]:
    """What this run claims; only for the data sets of which something is expected."""
    accuracy = {name: training.test_accuracy.mean(0) for name, training in trainings.items()}
    if config.data == "digits":
        tolerance = 0.02 if config.quick else 0.0
        return [
            report.at_least(f"{name}: test accuracy", accuracy[name][-1], 0.95, tolerance)
            for name in CLAIMED
            if name in accuracy
        ]
    if config.data == "fashion_mnist" and set(CLAIMED) <= set(accuracy):
        difference = accuracy["ballistic"][-1] - accuracy["adam"][-1]
        return [
            report.close("ballistic - adam: test accuracy", difference, 0.0, 0.01),
            *(
                report.at_least(
                    f"{name}: test accuracy, against the first epoch of sgd",
                    accuracy[name][-1],
                    float(accuracy["sgd"][0]),
                )
                for name in ("adam", "ballistic")
            ),
        ]
    return []


def _livest(dataset: "xr.Dataset", says: np.ndarray, count: int = 4) -> list[int]:
    """Of every array the coordinate with the largest gradients that says something, or fewer."""
    power = np.where(says, (dataset["gradient"].values ** 2).mean(0), 0.0)
    arrays: dict[str, int] = {}
    for i, label in enumerate(dataset["param"].values):
        array = label.split("[")[0]
        if power[i] > (power[arrays[array]] if array in arrays else 0):
            arrays[array] = i
    return list(arrays.values())[:count]
