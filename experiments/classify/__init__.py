r"""Train a network on real images with beliefs about its gradient, and open the posterior.

Claim (the paper's Fig. 2e-f): gradient descent, Adam and the ballistic rule, the same policy under
different assumptions, all learn to classify images; the ballistic rule does about as well as Adam
although it has no momentum and no bias correction. A belief that shrinks noisy averages (`wiener`)
is reported as it comes out. It would be refuted by a rule that fails to learn, or by a ballistic
rule that falls behind.

Every rule is an optax optimizer behind gradient clipping; an epoch is one jitted scan, seeds are
vmapped. A few coordinates are recorded while training; a state-space model of their gradient is
then fitted by NUTS. Written are a figure of losses and accuracies, a figure of the posterior,
``metrics.json``, the recorded stream and ``posterior.nc``, which ``arviz.from_netcdf`` opens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from tqdm import tqdm

from beliefnav import inference, recording
from beliefnav.rules._rule import Rule
from beliefnav.rules.catalogue import CATALOGUE
from experiments import data as data_sets
from experiments import figures, report
from experiments.command_line import check_at_least
from experiments.networks import NETWORKS, functional
from models import landscape

if TYPE_CHECKING:
    import xarray as xr

RULES: dict[str, Rule[...]] = {
    name: entry.rule
    for name, entry in CATALOGUE.items()
    if set(entry.arguments) == {"learning_rate"} and entry.reading is None
}
"""Those that need nothing but gradients and a learning rate."""
LEARNING_RATES = {"sgd": 0.1, "ballistic": 5e-4, "secant": 0.03}
"""Rule -> default learning rate, where it is not 1e-3; those of the paper where it has the rule."""
CLAIMED = ("sgd", "adam", "ballistic")
"""The rules that the paper compares."""

EPOCHS = {"digits": 40, "mnist1d": 40, "fashion_mnist": 3}
CLIP_NORM = 5.0
COORDINATES_PER_ARRAY = 4
CAPACITY = 1000


@dataclass(frozen=True)
class Config:
    """Train a network on real images with several learning rules, and open what they believe."""

    data: str = "digits"
    """Data set: digits, mnist1d or fashion_mnist."""
    network: str = "mlp"
    """Network: mlp or cnn."""
    rules: str = "sgd,adam,ballistic,wiener"
    """Learning rules, separated by commas: those of the catalogue that need only gradients."""
    epochs: int | None = None
    """Passes over the training data; 40, or 3 for fashion_mnist, by default."""
    batch_size: int = 128
    """Examples of a gradient."""
    learning_rates: str = ""
    """Learning rates that differ from the default, as in sgd=0.05,adam=3e-4."""
    seeds: int = 3
    """Number of initialisations, trained side by side."""
    seed: int = 0
    """The random seed of all of it."""
    out: Path = Path("runs/classify")
    """Folder to write to."""
    data_dir: Path | None = None
    """Folder of the fashion_mnist files, if they are not where Debian's package puts them."""
    quick: bool = False
    """One seed and short chains: well under a minute."""

    def __post_init__(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: says what is wrong, and which names there are.
        """
        data_sets.check_name(self.data)
        _check_known("network", self.network, NETWORKS)
        for name in self.rule_names:
            _check_known("rule", name, RULES)
        for name in self._given_rates():
            _check_known("rule", name, RULES)
        check_at_least(self, batch_size=1, seeds=1, epochs=1)

    @property
    def rule_names(self) -> list[str]:
        """The rules to run."""
        return [name.strip() for name in self.rules.split(",")]

    @property
    def num_seeds(self) -> int:
        """Number of initialisations of this run."""
        return 1 if self.quick else self.seeds

    @property
    def fitted_steps(self) -> int:
        """Number of last recorded steps that the landscape model is fitted to."""
        return 50 if self.quick else 200

    def learning_rate(self, rule: str) -> float:
        """The learning rate of a rule."""
        return self._given_rates().get(rule, LEARNING_RATES.get(rule, 1e-3))

    def _given_rates(self) -> dict[str, float]:
        pairs = [pair.split("=") for pair in self.learning_rates.split(",") if pair]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(
                f"learning_rates must look like sgd=0.05,adam=3e-4, got {self.learning_rates!r}."
            )
        return {name.strip(): float(value) for name, value in pairs}


class Problem(NamedTuple):
    """What all rules have in common.

    Attributes:
        data: the data, as device arrays.
        params: the initial weights of every seed, [seed, ...].
        logits: ``(params, inputs) -> logits`` of one network.
        accuracy: ``params -> [seed]``, the fraction of the test set that is classified correctly.
        num_epochs: passes over the training data.
        num_batches: gradients of an epoch.
    """

    data: data_sets.Data
    params: Any
    logits: Callable[[Any, Array], Array]
    accuracy: Callable[[Any], Array]
    num_epochs: int
    num_batches: int


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


def run(config: Config) -> None:
    """Train, infer, draw, write.

    Args:
        config: the options.

    Raises:
        FileNotFoundError: the data set is not there; the error says how to get it.
    """
    problem = make_problem(config)
    config.out.mkdir(parents=True, exist_ok=True)
    names = config.rule_names
    with tqdm(total=len(names) * problem.num_epochs, unit="epoch") as bar:
        trainings = {name: train(config, name, problem, bar) for name in names}

    believer = "wiener" if "wiener" in names else names[-1]
    groups = infer_landscape(config, trainings[believer].recording)
    recording.to_container(groups).to_netcdf(str(config.out / "posterior.nc"), engine="h5netcdf")
    figures.learning_curves(trainings, config.out / "classify.png")
    last = float(groups["observed_data"]["step"][-1])
    window = (last - config.fitted_steps + 1, last)
    figures.gradient_posterior(groups, believer, window, config.out / "posterior.png")
    report.write_metrics(
        config.out,
        seed=config.seed,
        quick=config.quick,
        claims=claims(config, trainings),
        results={
            "data": config.data,
            "network": config.network,
            "epochs": problem.num_epochs,
            "seeds": config.num_seeds,
            "rules": {
                name: {
                    "learning_rate": config.learning_rate(name),
                    "train_loss": training.train_loss.mean(0).tolist(),
                    "test_accuracy": training.test_accuracy.mean(0).tolist(),
                    "test_accuracy_std": training.test_accuracy.std(0).tolist(),
                    "seconds": training.seconds,
                }
                for name, training in trainings.items()
            },
        },
    )


def make_problem(config: Config) -> Problem:
    """Load the data and draw the initial weights.

    Args:
        config: the options.

    Returns:
        The problem that every rule is to solve.

    Raises:
        FileNotFoundError: the data set is not there; the error says how to get it.
    """
    arrays = data_sets.load(config.data, config.data_dir)
    data = jax.tree.map(jnp.asarray, arrays)

    init, logits = functional(
        lambda key: NETWORKS[config.network](arrays.input_shape, arrays.num_classes, key)
    )
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)

    @jax.jit
    @jax.vmap
    def accuracy(params: Any) -> Array:
        return (logits(params, data.test_inputs).argmax(-1) == data.test_labels).mean()

    return Problem(
        data=data,
        params=jax.jit(jax.vmap(init))(keys),
        logits=logits,
        accuracy=accuracy,
        num_epochs=config.epochs or EPOCHS[config.data],
        num_batches=max(1, len(arrays.train_labels) // config.batch_size),
    )


def train(config: Config, rule: str, problem: Problem, bar: Any) -> Training:
    """Train one network for every seed, side by side, with one rule.

    Args:
        config: the options.
        rule: name of the rule.
        problem: the data and the initial weights.
        bar: progress bar, moved by one every epoch.

    Returns:
        How it went.
    """
    started = time.perf_counter()
    optimizer = recording.record(
        optax.chain(optax.clip_by_global_norm(CLIP_NORM), RULES[rule](config.learning_rate(rule))),
        coordinates=COORDINATES_PER_ARRAY,
        capacity=min(CAPACITY, problem.num_epochs * problem.num_batches),
        key=jax.random.key(config.seed),
    )

    def loss(params: Any, inputs: Array, labels: Array) -> Array:
        logits = problem.logits(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def epoch(params: Any, opt_state: Any, batches: Array, data: data_sets.Data) -> Any:
        def step(carry: tuple[Any, Any], batch: Array) -> tuple[tuple[Any, Any], Array]:
            params, opt_state = carry
            inputs, labels = jnp.take(data.train_inputs, batch, 0), data.train_labels[batch]
            value, gradient = jax.value_and_grad(loss)(params, inputs, labels)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        carry, losses = lax.scan(step, (params, opt_state), batches)
        return *carry, losses.mean()

    run_epoch = jax.jit(jax.vmap(epoch, in_axes=(0, 0, 0, None)), donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, problem.params)
    opt_state = jax.jit(jax.vmap(optimizer.init))(params)
    rng = np.random.default_rng(config.seed)
    shape = (config.num_seeds, problem.num_batches, -1)
    losses, accuracies = [], []
    for _ in range(problem.num_epochs):
        orders = rng.permuted(
            np.tile(np.arange(len(problem.data.train_labels)), (shape[0], 1)), axis=1
        )
        batches = orders[:, : problem.num_batches * config.batch_size].reshape(shape)
        params, opt_state, loss_ = run_epoch(params, opt_state, batches, problem.data)
        losses.append(np.asarray(loss_))
        accuracies.append(np.asarray(problem.accuracy(params)))
        bar.set_description(f"{rule:>9}")
        bar.set_postfix(loss=f"{losses[-1].mean():.4f}", accuracy=f"{accuracies[-1].mean():.4f}")
        bar.update()
    first = jax.jit(lambda tree: jax.tree.map(lambda x: x[0], tree))
    return Training(
        np.stack(losses, 1),
        np.stack(accuracies, 1),
        time.perf_counter() - started,
        recording.to_dataset(*first((opt_state, params))),
    )


def infer_landscape(config: Config, recorded: "xr.Dataset") -> dict[str, "xr.Dataset"]:
    """Fit the landscape model to a few recorded streams; the groups of ``posterior.nc``."""
    stream = recorded[["gradient", "displacement"]]
    stream.to_netcdf(config.out / "stream.nc", engine="h5netcdf")
    draws = 50 if config.quick else 200
    fitted = recording.read_stream(config.out / "stream.nc").isel(
        step=slice(-config.fitted_steps, None), param=_livest(recorded)
    )
    print(f"NUTS over {fitted.sizes['param']} streams of {fitted.sizes['step']} gradients")
    fit = inference.numpyro_nuts(
        landscape.target(fitted),
        key=jax.random.key(config.seed),
        num_warmup=draws,
        num_samples=draws,
        num_chains=2,
        target_acceptance=0.9,
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


def _livest(dataset: "xr.Dataset", count: int = 4) -> list[int]:
    """Of every recorded array the coordinate with the largest gradients, at most ``count``."""
    power = (dataset["gradient"].values ** 2).mean(0)
    arrays: dict[str, int] = {}
    for i, label in enumerate(dataset["param"].values):
        array = label.split("[")[0]
        if power[i] > (power[arrays[array]] if array in arrays else 0):
            arrays[array] = i
    return list(arrays.values())[:count]


def _check_known(kind: str, name: str, known: Any) -> None:
    if name not in known:
        raise ValueError(f"Unknown {kind} {name!r}; known are: {', '.join(known)}.")
