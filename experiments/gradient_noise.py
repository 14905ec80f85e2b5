r"""Ask recorded gradients which memory they have, in Adam's units, and train with it.

Beyond the paper. A network is trained with Adam, and raw gradients of a few coordinates of every
layer are recorded. Four state-space models are fitted to them by NUTS with the latent path
integrated out, per layer and stage of training (`models.gradient_noise`), and say which $\beta_1$
and $\beta_2$ the gradients ask for, with which uncertainty. The last fifth of each stage is held
out and predicted one step ahead. Then the networks are trained again with the implied memories.

Claims: a memory that was learned predicts held-out gradients at least as well as that of Adam's
defaults, and at least as well as no memory; it would be refuted by a fitted model that does worse.
That training with the implied memories helps is not claimed: what came out is reported.

An entry of a gradient that is exactly zero (an unused pixel, a unit that is off for the whole
batch) has no density under any of these models and counts as missing; coordinates where more than
a tenth is missing are left out. ``--stream FILE`` asks a recording of your own, see
`beliefnav.inspection`; nothing is trained then. Coordinates are grouped by the array that they
belong to, and the recording is divided into stages of equal length.

Written are four figures, ``metrics.json``, the recorded streams, and one file of posteriors for
each stream and model. A fit whose chains do not agree is marked in the table and in
``metrics.json``.
"""

import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from tqdm import tqdm

from beliefnav import filters, inference, inspection, ssm
from experiments import data as data_sets
from experiments import figures, report
from experiments.networks import mlp
from models import gradient_noise

if TYPE_CHECKING:
    import xarray as xr

HIDDEN = (128, 64)
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
RECORDED_RATE = 1e-3
HELD_OUT = 0.2
"""The last part of each stage, predicted and not fitted."""
MISSING = 0.1
"""Coordinates with more missing entries than this are left out."""
STAGES = ("early", "middle", "late")
MIN_COORDINATES = 4
"""Layers with fewer coordinates are left out."""
LEVEL = 0.9
WARMUP = 100
FIXED: dict[str, Callable[[], ssm.Belief]] = {
    "no memory": gradient_noise.white_noise,
    "level, Adam's 0.9": gradient_noise.fixed_local_level,
    "precision, Adam's 0.999": gradient_noise.fixed_precision_walk,
}
"""What the models are compared with."""
ADAM = {"implied_beta1": 0.9, "implied_beta2": 0.999}


@dataclass(frozen=True)
class Config:
    """Which memory recorded gradients ask for, in Adam's units."""

    data: str = "digits,fashion_mnist"
    """Data sets to train on, separated by commas: digits, mnist1d, fashion_mnist."""
    stream: Path | None = None
    """A stream file to ask instead."""
    stage_steps: int = 1000
    """Steps of a stage; there are three, with as many steps between two of them."""
    coordinates: int = 20
    """Coordinates of a layer."""
    batch_size: int = 64
    """Examples of a gradient, drawn with replacement."""
    num_samples: int = 1000
    """Draws of a chain."""
    num_chains: int = 2
    """Chains of NUTS."""
    seeds: int = 3
    """Networks that are trained again for every setting."""
    seed: int = 0
    """The random seed of all of it."""
    out: Path = Path("runs/gradient_noise")
    """Folder to write to."""
    data_dir: Path | None = None
    """Folder of the fashion_mnist files, if they are not where Debian's package puts them."""
    quick: bool = False
    """Digits alone, short stages, few coordinates, Laplace's approximation instead of NUTS."""

    def __post_init__(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: says what is wrong, and which names there are.
        """
        for name in self.data.split(","):
            data_sets.check_name(name)
        for name, least in (
            ("stage_steps", 2 * inference.MIN_STEPS),
            ("coordinates", MIN_COORDINATES),
            ("batch_size", 1),
            ("num_samples", 20),
            ("num_chains", 1),
            ("seeds", 1),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")

    @property
    def names(self) -> list[str]:
        """The data sets of this run."""
        return ["digits"] if self.quick else self.data.split(",")

    @property
    def steps(self) -> int:
        """Steps of a stage of this run."""
        return min(self.stage_steps, 200) if self.quick else self.stage_steps

    @property
    def per_layer(self) -> int:
        """Coordinates of a layer of this run."""
        return min(self.coordinates, 6) if self.quick else self.coordinates


class Stream(NamedTuple):
    """A recording that is ready to be asked.

    Attributes:
        name: of the data set or the file.
        values: standardised, of dimensions (step, param, stage).
        layers: of the coordinates.
        left_out: layer -> how many of its coordinates were not used.
    """

    name: str
    values: "xr.Dataset"
    layers: gradient_noise.Layers
    left_out: dict[str, int]

    @property
    def num_fitted(self) -> int:
        """Steps of a stage that are fitted."""
        return round(self.values.sizes["step"] * (1 - HELD_OUT))


class Score(NamedTuple):
    """How a model predicts one step ahead.

    Attributes:
        held_out: [step] log predictive density of the steps that were not fitted, summed over
            coordinates and stages.
        intervals: fraction of held-out gradients inside their central interval of 90 %.
        ranks: of held-out gradients among replicates, in [0, 1].
        loo: log density of fitted steps, each left out, by importance sampling; NaN for a model
            without hyper-parameters.
        loo_error: its standard error.
        loo_unreliable: fraction of steps whose importance weights cannot be trusted.
    """

    held_out: np.ndarray
    intervals: float
    ranks: np.ndarray
    loo: float = float("nan")
    loo_error: float = float("nan")
    loo_unreliable: float = float("nan")

    @property
    def elpd(self) -> float:
        """Summed log predictive density held out in time."""
        return float(self.held_out.sum())


class Learned(NamedTuple):
    """What was learned of the hyper-parameters of a model: see `beliefnav.inference.Fit`."""

    posterior: "xr.Dataset"
    sample_stats: "xr.Dataset"
    diagnostics: "xr.Dataset"

    @property
    def converged(self) -> bool:
        """Whether all stages converged."""
        return bool(self.diagnostics["converged"].all())


class Answer(NamedTuple):
    """What a stream says.

    Attributes:
        stream: the stream.
        fits: model -> its fit.
        scores: model -> how it predicts; those that are fixed too.
    """

    stream: Stream
    fits: dict[str, Learned]
    scores: dict[str, Score]


def run(config: Config) -> None:
    """Record or read, fit, predict, train again, draw, write."""
    config.out.mkdir(parents=True, exist_ok=True)
    problems = {}
    if config.stream is None:
        problems = {name: make_problem(name, config.data_dir) for name in config.names}
    streams = read(config) if config.stream is not None else record(config, problems)
    answers = ask(config, streams)
    for answer in answers:
        print_table(answer)
    retrained = {
        answer.stream.name: train_again(config, problems[answer.stream.name], answer)
        for answer in answers
        if answer.stream.name in problems
    }
    figures_of(config, answers, retrained)
    report.write_metrics(
        config.out,
        seed=config.seed,
        quick=config.quick,
        claims=[claim for answer in answers for claim in claims(config, answer)],
        results=metrics(answers, retrained),
    )


# --- streams --------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """A data set, and a network to be trained on it.

    Attributes:
        data: as device arrays; the last tenth of the training examples validates.
        make: ``key -> params``.
        logits: ``(params, inputs) -> logits``.
    """

    data: data_sets.Data
    make: Callable[[Array], Any]
    logits: Callable[[Any, Array], Array]

    @property
    def num_train(self) -> int:
        """Number of examples to train on."""
        return len(self.data.train_labels) * 9 // 10

    def loss(self, params: Any, key: Array, batch_size: int) -> Array:
        """Mean cross-entropy of a random batch, in nats."""
        batch = jax.random.randint(key, (batch_size,), 0, self.num_train)
        logits = self.logits(params, jnp.take(self.data.train_inputs, batch, 0))
        labels = self.data.train_labels[batch]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def accuracies(self, params: Any) -> tuple[Array, Array]:
        """Fractions of the validation and of the test examples that are classified correctly."""
        inputs, labels = jnp.asarray(self.data.train_inputs), jnp.asarray(self.data.train_labels)
        start = self.num_train
        validation = self.logits(params, inputs[start:]).argmax(-1) == labels[start:]
        test = self.logits(params, jnp.asarray(self.data.test_inputs)).argmax(-1)
        test = test == jnp.asarray(self.data.test_labels)
        return validation.mean(), test.mean()


def make_problem(name: str, folder: Path | None) -> Problem:
    """Load a data set, and describe the network for it."""
    arrays = data_sets.load(name, folder)

    def network(key: Array) -> eqx.nn.Sequential:
        return mlp(arrays.input_shape, arrays.num_classes, key, HIDDEN)

    abstract = eqx.filter_eval_shape(network, jax.random.key(0))
    static = eqx.filter(abstract, lambda x: not isinstance(x, jax.ShapeDtypeStruct))

    def logits(params: Any, inputs: Array) -> Array:
        return jax.vmap(eqx.combine(params, static))(inputs)

    return Problem(
        jax.tree.map(jnp.asarray, arrays),
        lambda key: eqx.filter(network(key), eqx.is_inexact_array),
        logits,
    )


def record(config: Config, problems: dict[str, Problem]) -> list[Stream]:
    """Train with Adam, recording weights of every layer."""
    streams = []
    for name, problem in problems.items():
        # As many again, for those that are nearly always zero.
        recording = train_and_record(config, name, problem, 2 * config.per_layer)
        path = config.out / f"stream_{name}.nc"
        recording[["gradient", "displacement"]].to_netcdf(path, engine="h5netcdf")
        streams.append(prepare(config, name, recording, len(STAGES)))
    return streams


def train_and_record(config: Config, name: str, problem: Problem, coordinates: int) -> "xr.Dataset":
    """Train a network and return what was recorded of its weight matrices."""
    num_steps = (2 * len(STAGES) - 1) * config.steps
    keys = jax.random.split(jax.random.key(config.seed), 3)
    optimizer = inspection.record(
        optax.adam(RECORDED_RATE), coordinates=coordinates, capacity=num_steps, key=keys[1]
    )

    @jax.jit
    def start(key: Array) -> tuple[Any, Any]:
        params = problem.make(key)
        return params, optimizer.init(params)

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        params, opt_state = carry
        gradient = jax.grad(problem.loss)(params, key, config.batch_size)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    advance = jax.jit(lambda carry, keys: lax.scan(step, carry, keys)[0])
    carry = start(keys[0])
    parts = jax.random.split(keys[2], (2 * len(STAGES) - 1, config.steps))
    for part in tqdm(parts, desc=f"Adam on {name}"):
        carry = advance(carry, part)
    recording = inspection.to_dataset(carry[1], carry[0])
    weights = ["weight" in str(label) for label in recording["param"].values]
    return recording.isel(param=weights)


def read(config: Config) -> list[Stream]:
    """A stream file of the user's."""
    assert config.stream is not None
    try:
        recording = inspection.read_stream(config.stream)
        num_steps = recording.sizes["step"]
        num_stages = min(len(STAGES), max(1, num_steps // (2 * inference.MIN_STEPS)))
        return [prepare(config, config.stream.stem, recording, num_stages)]
    except ValueError as error:
        sys.exit(f"gradient_noise: {config.stream}: {error}")


def prepare(config: Config, name: str, recording: "xr.Dataset", num_stages: int) -> Stream:
    """Take stages and coordinates out of a recording, and standardise them.

    Raises:
        ValueError: there are too few steps, or no layer has enough coordinates that say anything.
    """
    import xarray as xr

    total = recording.sizes["step"]
    if total < inference.MIN_STEPS:
        raise ValueError(f"{total} steps are too few; at least {inference.MIN_STEPS} are needed.")
    length = min(config.steps, total // num_stages)
    starts = np.linspace(0, total - length, num_stages).astype(int)
    names = [n for n in ("gradient", "displacement") if n in recording]
    parts = [
        recording[names].isel(step=slice(s, s + length)).assign_coords(step=np.arange(length))
        for s in starts
    ]
    stage_names = STAGES if num_stages == len(STAGES) else tuple(map(str, range(num_stages)))
    values = xr.concat(parts, xr.IndexVariable("stage", list(stage_names)))
    gradient = values["gradient"]
    if not np.isfinite(gradient).any():
        raise ValueError("no gradient is finite.")
    if not inference.informative(recording).any():
        raise ValueError("every coordinate is constant.")
    values["gradient"] = gradient.where(np.isfinite(gradient) & (gradient != 0))
    fitted = values.isel(step=slice(0, round(length * (1 - HELD_OUT))))
    seen = fitted["gradient"].notnull().mean("step") >= 1 - MISSING
    good = (seen & inference.informative(fitted)).all("stage").values
    layers = gradient_noise.Layers.of(recording["param"].values)
    chosen: list[int] = []
    left_out = {}
    for i, layer in enumerate(layers.names):
        live = np.flatnonzero((layers.position == i) & good)
        taken = live[: config.per_layer] if len(live) >= MIN_COORDINATES else live[:0]
        chosen += taken.tolist()
        left_out[layer] = int((layers.position == i).sum()) - len(taken)
    if not chosen:
        raise ValueError(
            f"no layer has {MIN_COORDINATES} coordinates whose gradient varies in every stage and "
            f"is missing or zero in at most {MISSING:.0%} of the steps; of {len(good)} coordinates "
            f"{int(good.sum())} do."
        )
    unit_steps = slice(0, fitted.sizes["step"])
    values = gradient_noise.standardised(values.isel(param=chosen), unit_steps)
    kept = gradient_noise.Layers.of(values["param"].values)
    values = values.assign_coords(layer=("layer", list(kept.names)))
    return Stream(name, values.transpose("step", "param", "stage", ...), kept, left_out)


# --- beliefs --------------------------------------------------------------------------------------


def ask(config: Config, streams: Sequence[Stream]) -> list[Answer]:
    """Fit all models to all streams, and let them predict.

    On a CPU two of them are fitted at a time, each in a process of its own.
    """
    tasks = [
        (config, stream, name)
        for stream in streams
        for name in (*reversed(gradient_noise.MODELS), *FIXED)  # those that take longest first
        if name != "secant" or "displacement" in stream.values
    ]
    with tqdm(total=len(tasks), desc="beliefs") as bar:
        if jax.default_backend() == "cpu":
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(2, context) as pool:
                results = _collect(pool.map(learn, *zip(*tasks, strict=True)), bar)
        else:
            results = _collect(map(learn, *zip(*tasks, strict=True)), bar)
    answers = []
    for stream in streams:
        own = {name: r for (_, s, name), r in zip(tasks, results, strict=True) if s is stream}
        fits = {name: learned for name, (learned, _) in own.items() if learned is not None}
        answers.append(Answer(stream, fits, {name: score for name, (_, score) in own.items()}))
    return answers


def _collect(results: Iterable[Any], bar: Any) -> list[Any]:
    collected = []
    for result in results:
        collected.append(result)
        bar.update()
    return collected


def learn(config: Config, stream: Stream, name: str) -> tuple[Learned | None, Score]:
    """Fit one model, or take a fixed one, and let it predict."""
    key = jax.random.key(config.seed)
    if name in FIXED:
        return None, score(stream, FIXED[name], None, key)
    prior = gradient_noise.MODELS[name](stream.layers)
    fitted = fit(config, stream, prior)
    learned = Learned(fitted.posterior, fitted.sample_stats, fitted.diagnostics)
    groups = {"posterior": learned.posterior, "sample_stats": learned.sample_stats}
    path = config.out / f"{stream.name}_{name.replace(' ', '_').lower()}.nc"
    container = inspection.to_container(groups | {"convergence": learned.diagnostics})
    container.to_netcdf(str(path), engine="h5netcdf")
    return learned, score(stream, prior, learned.posterior, key)


def fit(config: Config, stream: Stream, prior: gradient_noise.Prior) -> inference.Fit:
    """The posterior given the fitted part of every stage: NUTS, started from Laplace's."""
    fitted = stream.values.isel(step=slice(0, stream.num_fitted))
    target = inference.target(prior, fitted, separate="stage")
    keys = jax.random.split(jax.random.key(config.seed))
    approximate = inference.laplace(
        target,
        key=keys[0],
        num_draws=200 if config.quick else 500,
        num_chains=config.num_chains,
        num_starts=1 if config.quick else 2,
    )
    if config.quick:
        return approximate
    return inference.numpyro_nuts(
        target,
        key=keys[1],
        start=approximate.state,
        num_warmup=WARMUP,
        num_samples=config.num_samples,
        num_chains=config.num_chains,
        dense_mass=True,
        max_tree_depth=6,
        progress_bar=False,  # of two at a time
    )


def score(
    stream: Stream,
    prior: gradient_noise.Prior,
    posterior: "xr.Dataset | None",
    key: Array,
) -> Score:
    """Predict every step from those before it, with the draws of a posterior or a fixed belief."""
    import xarray as xr

    target = inference.target(prior, stream.values, separate="stage")
    fixed = posterior is None
    if posterior is None:  # replicates of a fixed belief need draws too, of nothing
        posterior = xr.Dataset(coords={"chain": [0], "draw": np.arange(50)})
    step = max(1, posterior.sizes["chain"] * posterior.sizes["draw"] // 200)
    groups = inference.predict(target, posterior.isel(draw=slice(None, None, step)), key=key)
    log_density = groups["log_likelihood"]["gradient"]
    # Of each stage the draws are its own: average over them, then sum over stages.
    by_stage = log_density.sum("param").stack(sample=("chain", "draw"))
    held = by_stage.isel(step=slice(stream.num_fitted, None))
    held_out = _log_mean_exp(held.transpose("sample", "step", "stage").values).sum(-1)
    replicates = groups["posterior_predictive"]["gradient"].stack(sample=("chain", "draw"))
    late = slice(stream.num_fitted, None)
    replicates = replicates.isel(step=late).transpose("sample", "step", "param", "stage").values
    observed = stream.values["gradient"].isel(step=late).transpose("step", "param", "stage").values
    seen = np.isfinite(observed)
    ranks = (replicates < observed).mean(0)[seen]
    inside = np.abs(ranks - 0.5) < LEVEL / 2
    if fixed:
        return Score(held_out, float(inside.mean()), ranks)
    fitted = by_stage.isel(step=slice(0, stream.num_fitted)).transpose("stage", "step", "sample")
    loo, error, unreliable = leave_one_out(fitted.values.reshape(-1, fitted.sizes["sample"]))
    return Score(held_out, float(inside.mean()), ranks, loo, error, unreliable)


def leave_one_out(log_likelihood: np.ndarray) -> tuple[float, float, float]:
    """PSIS-LOO of [observation, draw]: its sum, standard error, and share of bad weights."""
    import arviz
    import xarray as xr

    values = xr.DataArray(log_likelihood[None], dims=("chain", "where", "draw"))
    values = values.transpose("chain", "draw", "where").assign_coords(
        chain=[0], draw=np.arange(values.sizes["draw"])
    )
    groups = {
        "posterior": xr.Dataset({"unused": values.isel(where=0, drop=True)}),
        "log_likelihood": xr.Dataset({"gradient": values}),
    }
    container = inspection.to_container(groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unreliable weights, which are counted instead
        result: Any = arviz.loo(container, var_name="gradient", pointwise=True, reff=1.0)
    total = result.elpd if hasattr(result, "elpd") else result.elpd_loo  # arviz 1.x, 0.x
    return float(total), float(result.se), float((result.pareto_k.values > 0.7).mean())


def _log_mean_exp(values: np.ndarray) -> np.ndarray:
    largest = values.max(0)
    return largest + np.log(np.exp(values - largest).mean(0))


# --- answers --------------------------------------------------------------------------------------


def interval(fit: Learned, name: str) -> dict[str, dict[str, list[float]]]:
    """Layer -> stage -> median and central 90 % interval of a site [layer]."""
    quantiles = fit.posterior[name].quantile([0.5, 0.05, 0.95], ("chain", "draw"))
    return {
        str(layer): {
            str(stage): quantiles.sel(stage=stage).isel(layer=i).values.tolist()
            for stage in fit.posterior["stage"].values
        }
        for i, layer in enumerate(fit.posterior["layer"].values)
    }


def settings(answer: Answer) -> dict[str, dict[str, tuple[float, float]]]:
    """Setting -> layer -> the two memories to train with."""

    def medians(model: str, name: str) -> dict[str, float]:
        """Layer -> median over draws and stages, of the length of the memory."""
        draws = answer.fits[model].posterior[name]
        middle = draws.median(("chain", "draw", "stage"))
        return dict(zip(answer.stream.layers.names, middle.values.tolist(), strict=True))

    def common(memories: dict[str, float]) -> dict[str, float]:
        return dict.fromkeys(memories, float(np.median(list(memories.values()))))

    beta1 = medians("Ornstein-Uhlenbeck", "implied_beta1")
    level = medians("local level", "implied_beta1")
    beta2 = medians("precision walk", "implied_beta2")

    def pairs(one: dict[str, float], other: dict[str, float]) -> dict[str, tuple[float, float]]:
        return {layer: (one[layer], other[layer]) for layer in one}

    return {
        "Adam's 0.9, 0.999": dict.fromkeys(beta1, (0.9, 0.999)),
        "implied": pairs(common(beta1), common(beta2)),
        "implied by layer": pairs(beta1, beta2),
        "implied first, 0.999": {layer: (b, 0.999) for layer, b in common(beta1).items()},
        "implied by the level, 0.999": {layer: (b, 0.999) for layer, b in common(level).items()},
    }


class Retrained(NamedTuple):
    """How a setting trained.

    Attributes:
        memories: layer -> the two memories.
        validation: learning rate -> mean accuracy over seeds.
        test: learning rate -> accuracies [seed].
    """

    memories: dict[str, tuple[float, float]]
    validation: dict[float, float]
    test: dict[float, np.ndarray]

    @property
    def learning_rate(self) -> float:
        """That of the best validation accuracy."""
        return max(self.validation, key=lambda rate: self.validation[rate])

    @property
    def accuracy(self) -> float:
        """Mean test accuracy at that learning rate."""
        return float(self.test[self.learning_rate].mean())


def train_again(config: Config, problem: Problem, answer: Answer) -> dict[str, Retrained]:
    """Train networks with every setting, for all learning rates and seeds side by side."""
    num_steps = 3 * config.steps
    num_seeds = 1 if config.quick else config.seeds
    params = jax.eval_shape(problem.make, jax.random.key(0))
    paths = jax.tree.leaves_with_path(params)
    layers = [inspection.path_name(path).rsplit("/", 1)[0] for path, _ in paths]
    labels = jax.tree.unflatten(jax.tree.structure(params), layers)

    def train(
        memories: dict[str, tuple[float, float]], learning_rate: Array, key: Array
    ) -> tuple[Array, Array]:
        optimizer = optax.partition(
            {
                layer.rsplit("/", 1)[0]: optax.adam(learning_rate, b1, b2)
                for layer, (b1, b2) in memories.items()
            },
            lambda _: labels,
        )
        key_init, key_batches = jax.random.split(key)
        params = problem.make(key_init)

        def step(carry: Any, key: Array) -> tuple[Any, None]:
            params, opt_state = carry
            gradient = jax.grad(problem.loss)(params, key, config.batch_size)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        start = (params, optimizer.init(params))
        keys = jax.random.split(key_batches, num_steps)
        return problem.accuracies(lax.scan(step, start, keys)[0][0])

    keys = jax.random.split(jax.random.key(config.seed + 1), num_seeds)
    results = {}
    known = settings(answer)
    run_all = jax.jit(jax.vmap(jax.vmap(train, (None, None, 0)), (None, 0, None)))
    for name, memories in tqdm(known.items(), desc=f"again on {answer.stream.name}"):
        validation, test = run_all(memories, jnp.asarray(LEARNING_RATES), keys)
        results[name] = Retrained(
            memories,
            dict(zip(LEARNING_RATES, np.asarray(validation.mean(1)).tolist(), strict=True)),
            dict(zip(LEARNING_RATES, np.asarray(test), strict=True)),
        )
    return results


def claims(config: Config, answer: Answer) -> list[report.Claim]:
    """A memory that was learned predicts no worse than one that was not, or than none."""
    stream, scores = answer.stream, answer.scores
    held = stream.values["gradient"].isel(step=slice(stream.num_fitted, None))
    count = int(np.isfinite(held).sum())
    result = []
    for learned, fixed in (
        ("local level", "level, Adam's 0.9"),
        ("precision walk", "precision, Adam's 0.999"),
        ("Ornstein-Uhlenbeck", "no memory"),
    ):
        gain = (scores[learned].elpd - scores[fixed].elpd) / count
        name = f"{stream.name}: {learned} over {fixed}, nats a held-out gradient"
        result.append(report.at_least(name, gain, 0.0, 0.01 if config.quick else 0.002))
    return result


def metrics(
    answers: Sequence[Answer], retrained: dict[str, dict[str, Retrained]]
) -> dict[str, Any]:
    """What goes into ``metrics.json``; if there are several data sets, names begin with theirs."""
    several = len(answers) > 1
    result: dict[str, Any] = {
        name: {}
        for name in (
            "implied_beta1",
            "implied_beta1_local_level",
            "implied_beta2",
            "signal_to_noise",
            "elpd",
            "loo",
            "coverage_90",
            "converged",
            "left_out",
            "retrained",
        )
    }
    for answer in answers:
        prefix = f"{answer.stream.name}: " if several else ""
        for field, model, site in (
            ("implied_beta1", "Ornstein-Uhlenbeck", "implied_beta1"),
            ("implied_beta1_local_level", "local level", "implied_beta1"),
            ("implied_beta2", "precision walk", "implied_beta2"),
            ("signal_to_noise", "Ornstein-Uhlenbeck", "signal_to_noise_ratio"),
        ):
            rows = interval(answer.fits[model], site)
            result[field] |= {f"{prefix}{layer}": row for layer, row in rows.items()}
        for model, score in answer.scores.items():
            result["elpd"][f"{prefix}{model}"] = score.elpd
            result["coverage_90"][f"{prefix}{model}"] = score.intervals
            if model in answer.fits:
                result["loo"][f"{prefix}{model}"] = {
                    "elpd": score.loo,
                    "standard_error": score.loo_error,
                    "unreliable": score.loo_unreliable,
                }
        for model, fit in answer.fits.items():
            table = fit.diagnostics
            result["converged"][f"{prefix}{model}"] = {
                str(stage): {
                    name: table[name].sel(stage=stage).values.item() for name in table.data_vars
                }
                for stage in table["stage"].values
            }
        result["left_out"] |= {f"{prefix}{n}": k for n, k in answer.stream.left_out.items()}
        for setting, outcome in retrained.get(answer.stream.name, {}).items():
            result["retrained"][f"{prefix}{setting}"] = outcome.accuracy
            result.setdefault("retraining", {})[f"{prefix}{setting}"] = {
                "memories": outcome.memories,
                "learning_rate": outcome.learning_rate,
                "test": {str(rate): x.tolist() for rate, x in outcome.test.items()},
            }
    return result


def print_table(answer: Answer) -> None:
    """What the layers ask for, and how models predict; a mark where chains do not agree."""
    stream, fits = answer.stream, answer.fits
    left_out = sum(stream.left_out.values())
    print(
        f"\n{stream.name}: {stream.values.sizes['param']} coordinates, {left_out} left out; median "
        "[90 %]; * did not converge"
    )
    columns = (
        ("Ornstein-Uhlenbeck", "implied_beta1", "beta1 (OU)"),
        ("local level", "implied_beta1", "beta1 (level)"),
        ("precision walk", "implied_beta2", "beta2"),
        ("Ornstein-Uhlenbeck", "signal_to_noise_ratio", "signal to noise"),
    )
    print(f"{'':<28}" + "".join(f"{title:>26}" for _, _, title in columns))
    cells = [interval(fits[model], site) for model, site, _ in columns]
    for layer in stream.layers.names:
        for stage in map(str, stream.values["stage"].values):
            row = f"{layer:<20}{stage:<8}"
            for (model, _, _), cell in zip(columns, cells, strict=True):
                low_high = "{:.4f} [{:.4f}, {:.4f}]".format(*cell[layer][stage])
                row += f"{low_high + mark(fits[model], stage):>26}"
            print(row)
    base = answer.scores["no memory"].elpd
    print(f"\n{'':<28}{'elpd - no memory':>18}{'LOO (se)':>24}{'90 % covers':>14}")
    for model, score in answer.scores.items():
        loo = "" if np.isnan(score.loo) else f"{score.loo:.0f} ({score.loo_error:.0f})"
        bad = model in fits and not fits[model].converged
        print(
            f"{model + (' *' if bad else ''):<28}{score.elpd - base:>18.0f}{loo:>24}"
            f"{score.intervals:>14.3f}"
        )


def mark(fit: Learned, stage: str) -> str:
    """A star if a stage did not converge."""
    return " " if bool(fit.diagnostics["converged"].sel(stage=stage)) else "*"


# --- figures --------------------------------------------------------------------------------------


def figures_of(
    config: Config, answers: Sequence[Answer], retrained: dict[str, dict[str, Retrained]]
) -> None:
    """Draw all figures."""
    draw_memories(answers, config.out / "memory.png")
    draw_streams(answers, config.out / "stream.png")
    draw_calibration(answers, config.out / "predictive.png")
    draw_comparison(answers, retrained, config.out / "comparison.png")


def draw_memories(answers: Sequence[Answer], path: Path) -> None:
    """Posteriors of the implied memories, of every layer and stage."""
    plt = figures.pyplot()
    panels = (
        ("Ornstein-Uhlenbeck", "implied_beta1", "from the Ornstein-Uhlenbeck gradient"),
        ("local level", "implied_beta1", "from the local level"),
        ("precision walk", "implied_beta2", "from the precision walk"),
    )
    figure, grid = plt.subplots(
        len(answers),
        len(panels),
        figsize=(figures.WIDTH, 2.9 * len(answers) + 0.5),
        layout="constrained",
        squeeze=False,
    )
    colours = (figures.BLUE, figures.ORANGE, figures.GREEN)
    for answer, row in zip(answers, grid, strict=True):
        stages = answer.stream.values["stage"].values
        for axes, (model, site, title) in zip(row, panels, strict=True):
            fit = answer.fits[model]
            for j, stage in enumerate(stages):
                draws = fit.posterior[site].sel(stage=stage)
                draws = draws.stack(sample=("chain", "draw")).transpose("layer", "sample").values
                steps = 1 / np.maximum(1 - draws, 1e-7)
                trusted = bool(fit.diagnostics["converged"].sel(stage=stage))
                low, median, high = np.quantile(steps, (0.05, 0.5, 0.95), axis=1)
                y = np.arange(len(median)) + 0.22 * (j - (len(stages) - 1) / 2)
                axes.errorbar(
                    median,
                    y,
                    xerr=(median - low, high - median),
                    fmt="o" if trusted else "x",
                    color=colours[j % len(colours)],
                    ms=5,
                    capsize=2,
                    label=str(stage),
                )
            default = 1 / (1 - ADAM[site])
            axes.axvline(default, color="0.4", ls="--", lw=1)
            axes.set(xscale="log", xlim=(0.9, 3e4), title=title)
            axes.set_yticks(range(len(answer.stream.layers.names)), answer.stream.layers.names)
            axes.invert_yaxis()
            symbol = r"\beta_1" if site.endswith("1") else r"\beta_2"
            axes.set_xlabel(rf"memory $1/(1 - {symbol})$ in steps", fontsize=9)
            axes.title.set_fontsize(9)
        row[0].set_ylabel(answer.stream.name)
        for axes in row[1:]:
            axes.set_yticklabels([])
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside upper center", fontsize=8)
    figure.supxlabel(
        "Median and 90 % interval; a cross where chains do not agree. Dashed: Adam's default.",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_streams(answers: Sequence[Answer], path: Path) -> None:
    """What is believed of one raw stream, at the posterior median of the hyper-parameters."""
    plt = figures.pyplot()
    answer = answers[0]
    stages = answer.stream.values["stage"].values
    figure, grid = plt.subplots(
        len(stages),
        1,
        figsize=(figures.WIDTH, 2.1 * len(stages)),
        layout="constrained",
        squeeze=False,
    )
    posterior = answer.fits["Ornstein-Uhlenbeck"].posterior
    typical = posterior.median(("chain", "draw"))
    column = int(answer.stream.layers.position.max() > 0) and int(
        np.flatnonzero(answer.stream.layers.position == answer.stream.layers.position.max())[0]
    )
    layer = int(answer.stream.layers.position[column])
    for axes, stage in zip(grid[:, 0], stages, strict=True):
        cell = typical.sel(stage=stage).isel(layer=layer)
        rho = gradient_noise.memory_of(float(cell["correlation"]))
        signal = float(cell["signal_to_noise_ratio"])
        belief = ssm.UnknownNoise(ssm.OrnsteinUhlenbeck(rho, signal * (1 - rho**2), 1.0), 1.0, 1.0)
        y = answer.stream.values["gradient"].sel(stage=stage).isel(param=column).values
        believed, _ = filters.filter_recording(belief, jnp.asarray(y, jnp.float32))
        shown = slice(0, min(300, len(y)))
        mean = np.asarray(believed.gradient_mean)[shown]
        sd = np.sqrt(np.asarray(believed.gradient_variance))[shown]
        steps = np.arange(len(mean))
        axes.plot(steps, y[shown], ".", ms=3, color="0.6", label="gradient of a batch")
        axes.plot(steps, mean, color=figures.BLUE, lw=1.2, label="filtered mean")
        axes.fill_between(
            steps,
            mean - 2 * sd,
            mean + 2 * sd,
            color=figures.BLUE,
            alpha=0.25,
            lw=0,
            label="± 2 sd",
        )
        largest = np.nanquantile(np.abs(y[shown]), 0.99) * 1.2
        axes.set(ylim=(-largest, largest), ylabel=str(stage))
    grid[0, 0].legend(ncols=3, fontsize=8, loc="upper right")
    label = answer.stream.values["param"].values[column]
    grid[0, 0].set_title(f"{answer.stream.name}, {label}, in units of its root mean square")
    grid[-1, 0].set_xlabel("step of the stage")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_calibration(answers: Sequence[Answer], path: Path) -> None:
    """Where held-out gradients fall among replicates: flat if the predictive is right."""
    plt = figures.pyplot()
    models = list(answers[0].fits)
    figure, grid = plt.subplots(
        len(answers),
        len(models),
        figsize=(figures.WIDTH, 2.2 * len(answers) + 0.4),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for answer, row in zip(answers, grid, strict=True):
        for axes, model in zip(row, models, strict=True):
            axes.hist(
                answer.scores[model].ranks, 20, (0, 1), density=True, color=figures.SKY, ec="w"
            )
            axes.axhline(1, color="k", lw=0.8)
            axes.set_title(
                f"{model}\n90 % covers {100 * answer.scores[model].intervals:.1f} %", fontsize=8
            )
        row[0].set_ylabel(answer.stream.name)
    figure.supxlabel("rank of a held-out gradient among replicates one step ahead", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_comparison(
    answers: Sequence[Answer], retrained: dict[str, dict[str, Retrained]], path: Path
) -> None:
    """Held-out log predictive density of every model, and accuracies of training again."""
    plt = figures.pyplot()
    columns = 2 if retrained else 1
    figure, grid = plt.subplots(
        len(answers),
        columns,
        figsize=(figures.WIDTH, 2.7 * len(answers) + 0.3),
        layout="constrained",
        squeeze=False,
    )
    for answer, row in zip(answers, grid, strict=True):
        left = row[0]
        base = answer.scores["no memory"]
        names = [name for name in answer.scores if name != "no memory"]
        late = answer.stream.values["gradient"].isel(step=slice(answer.stream.num_fitted, None))
        count = int(np.isfinite(late).sum())
        gains, errors = [], []
        for name in names:
            difference = answer.scores[name].held_out - base.held_out
            gains.append(difference.sum() / count)
            errors.append(np.std(difference) * np.sqrt(len(difference)) / count)
        positions = np.arange(len(names))[::-1]
        colours = [figures.BLUE if name in answer.fits else "0.6" for name in names]
        left.barh(positions, gains, 0.6, xerr=errors, color=colours, ecolor="k", capsize=2)
        left.set_yticks(positions, names)
        left.axvline(0, color="k", lw=0.8)
        left.set_title(answer.stream.name, fontsize=9)
        left.set_xlabel("log predictive density over no memory,\nnats a held-out gradient (± se)")
        if not retrained:
            continue
        right = row[1]
        for j, (setting, outcome) in enumerate(retrained[answer.stream.name].items()):
            rates = list(outcome.test)
            values = np.stack([outcome.test[rate] for rate in rates])
            colour = (figures.BLACK, figures.BLUE, figures.GREEN, figures.ORANGE, figures.PURPLE)[
                j % 5
            ]
            right.plot(rates, values.mean(1), "o-", color=colour, label=setting, ms=4)
            right.fill_between(rates, values.min(1), values.max(1), color=colour, alpha=0.15, lw=0)
        right.set(xscale="log", xlabel="learning rate", ylabel="test accuracy")
        right.set_xticks(LEARNING_RATES, [f"{rate:g}" for rate in LEARNING_RATES])
        right.minorticks_off()
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)
    plt.close(figure)
