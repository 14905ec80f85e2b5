r"""Learn curvature from gradients alone: what the belief knows, and what it knows that it does not.

Claim (beyond the paper): an exact filter of gradient and curvature, driven by the displacements of
the optimizer that it steers (`beliefnav.beliefs.Secant`), is calibrated. On diagonal quadratics
whose curvature is drawn from the belief's own prior, the 90 % interval of every curvature covers
88 to 92 % of the truths whatever the noise, and where the stream says nothing it stays the prior. A
second sensor makes the mean sharp. It would be refuted by intervals that cover more or less.

In a network nothing is claimed: neither is the Hessian diagonal, nor the noise Gaussian. There the
experiment reports, along a run of Adam and a run of `rules.secant` on digits, the rank correlation
of what is believed of every parameter's curvature, and of Adam's second moment, with the exact
diagonal of the Hessian at the end; over all parameters, and within each array, where the sizes of
the layers do not help.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from scipy import stats
from tqdm import tqdm

from beliefnav import Objective, beliefs, control, navigator, posterior, rules, sensors
from beliefnav.beliefs.contract import as_belief
from experiments import figures, report, training
from experiments.options import Options

NOISE_VARIANCES = (1e-4, 1e-2, 1.0, 1e4)
"""Of the gradient, where gradient and curvature have prior variance 1; the last hides them."""
LEVEL = 0.9
WIDTH = 32
"""Hidden units of the network: small enough for an exact Hessian."""


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Learn curvature from gradients alone, and check what is believed."""

    QUICK = {"network_steps": 333}
    LEAST = {"num_params": 1000, "num_steps": 1, "network_steps": 60, "batch_size": 1}

    num_params: int = 5000
    """Coordinates of the quadratic, each with a curvature of its own."""
    num_steps: int = 100
    """Steps on the quadratic."""
    network_steps: int = 1000
    """Steps on the digits."""
    batch_size: int = 64
    """Examples of a gradient."""


class Calibration(NamedTuple):
    """What is believed of the curvatures of a quadratic after a run, at one level of noise.

    Attributes:
        truth: the curvatures [param].
        mean: their posterior means [param].
        deviation: their posterior standard deviations [param].
    """

    truth: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @property
    def coverage(self) -> float:
        """The fraction of truths inside the central interval of probability `LEVEL`."""
        half = stats.norm.ppf((1 + LEVEL) / 2) * self.deviation
        return float(np.mean(np.abs(self.truth - self.mean) < half))


def run(config: Config) -> report.Report:
    """Run on quadratics and on a network, and draw."""
    calibrations = {
        noise: calibrate(config, noise, sensor=False)
        for noise in tqdm(NOISE_VARIANCES, desc="quadratics")
    }
    sharp = calibrate(config, 1.0, sensor=True)
    typical = float(np.sqrt(np.mean(sharp.truth**2)))
    sensor_error = float(np.sqrt(np.mean((sharp.mean - sharp.truth) ** 2))) / typical
    networks = {
        name: on_network(config, name, optimizer)
        for name, optimizer in (("adam", optax.adam(3e-3)), ("secant", rules.secant(0.03)))
    }
    correlations = {name: run_.correlations() for name, run_ in networks.items()}
    spread = {noise: c.deviation.mean() for noise, c in calibrations.items()}
    draw(calibrations, correlations, config.folder / "curvature.png")
    claims = [
        report.close(f"coverage at noise variance {noise:g}", c.coverage, LEVEL, 0.02)
        for noise, c in calibrations.items()
    ]
    hidden = spread[NOISE_VARIANCES[-1]]
    claims.append(report.at_least("hidden: posterior over prior sd", hidden, 0.99))
    claims.append(report.at_most("paired gradients: relative error", sensor_error, 0.05))
    results = {
        "coverage": {noise: c.coverage for noise, c in calibrations.items()},
        "posterior_over_prior": spread,
        "sensor_error": sensor_error,
        "rank_correlation": correlations,
        "coverage_in_network": {name: run_.coverage for name, run_ in networks.items()},
        "test_accuracy": {name: run_.accuracy for name, run_ in networks.items()},
    }
    return report.Report(claims, results)


def calibrate(config: Config, noise_variance: float, sensor: bool) -> Calibration:
    """Draw a quadratic from the belief's prior, walk on it by the belief, and read the belief."""
    belief = beliefs.Secant(
        noise_variance=noise_variance,
        prior_gradient_variance=1.0,
        prior_curvature_variance=1.0,
        curvature_noise_variance=1e-3 if sensor else None,
    )
    policy = control.cautious(control.horizon(Objective(discount=1.0)))
    optimizer = navigator(0.05, belief, policy)
    keys = jax.random.split(jax.random.key(config.seed), 3)
    curvature = jax.random.normal(keys[0], (config.num_params,))
    slope = jax.random.normal(keys[1], (config.num_params,))

    def loss(params: Array, noise: Array) -> Array:
        return jnp.sum(params * (curvature * params / 2 + slope + noise))

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        params, previous, opt_state = carry
        noise = jnp.sqrt(noise_variance) * jax.random.normal(key, params.shape)
        gradient = jax.grad(loss)(params, noise)
        extra: dict[str, Any] = {}
        if sensor:
            extra["curvature"] = sensors.paired_gradients(loss, params, previous, noise)
        updates, opt_state = optimizer.update(gradient, opt_state, params, **extra)
        return (optax.apply_updates(params, updates), params, opt_state), None

    @jax.jit
    def walk(keys: Array) -> Any:
        params = jnp.zeros(config.num_params)
        start = (params, params, optimizer.init(params))
        believed = posterior(lax.scan(step, start, keys)[0][2])
        return believed.curvature_mean, jnp.sqrt(believed.curvature_variance)

    mean, deviation = walk(jax.random.split(keys[2], config.num_steps))
    return Calibration(np.asarray(curvature), np.asarray(mean), np.asarray(deviation))


class NetworkRun(NamedTuple):
    """Beliefs about the curvature of a network at the end of a run, and the truth.

    Attributes:
        exact: the diagonal of the Hessian of the training loss, a tree.
        believed: name -> a tree.
        coverage: name of a secant belief -> the fraction of the exact entries inside its central
            interval of probability `LEVEL`.
        accuracy: fraction of the test set that is classified correctly.
    """

    exact: Any
    believed: dict[str, Any]
    coverage: dict[str, float]
    accuracy: float

    def correlations(self) -> dict[str, dict[str, float]]:
        """Name -> Spearman's rank correlation with the truth, over all and within arrays."""
        exact = [np.asarray(x).ravel() for x in jax.tree.leaves(self.exact)]
        result = {}
        for name, tree in self.believed.items():
            values = [np.asarray(x).ravel() for x in jax.tree.leaves(tree)]
            within = [spearman(x, y) for x, y in zip(values, exact, strict=True)]
            result[name] = {
                "all": spearman(np.concatenate(values), np.concatenate(exact)),
                "within": float(np.average(within, weights=[len(x) for x in exact])),
            }
        return result


def on_network(config: Config, name: str, optimizer: optax.GradientTransformation) -> NetworkRun:
    """Train on digits; hold the beliefs along the way, and compare them with the truth at the end.

    The noise of each sensor, in units of that of the gradient, is measured before on a few batches.
    """
    problem = training.make_problem(hidden=(WIDTH,))
    keys = jax.random.split(jax.random.key(config.seed), 4)
    params = problem.make(keys[0])

    def read_sensors(params: Any, previous: Any, batch: Array, key: Array) -> dict[str, Any]:
        inputs, labels = problem.data.train_inputs[batch], problem.data.train_labels[batch]
        return {
            "paired gradients": sensors.paired_gradients(problem.loss, params, previous, batch),
            "Hutchinson sensor": sensors.hutchinson(problem.loss, params, key, batch),
            "Gauss-Newton sensor": sensors.gauss_newton(
                lambda p: problem.logits(p, inputs),
                lambda z: training.mean_cross_entropy(z, labels),
                params,
                key,
            ),
        }

    shape = config.network_steps, config.batch_size
    indices = jax.random.randint(keys[1], shape, 0, problem.num_train)
    step_keys = jax.random.split(keys[2], config.network_steps)

    @jax.jit
    def pilot(params: Any) -> Any:
        near = jax.tree.map(lambda p: p + 1e-3 * jnp.sign(p), params)

        def readings(now: Any) -> Any:
            batch, key = now
            return jax.grad(problem.loss)(near, batch), read_sensors(near, params, batch, key)

        gradients, read = lax.map(readings, (indices[:20], step_keys[:20]))
        spread = jax.tree.map(lambda x: jnp.var(x, 0).mean(), (gradients, read))
        return {name: mean_leaf(tree) / mean_leaf(spread[0]) for name, tree in spread[1].items()}

    ratios = pilot(params)
    noises = {"secant, gradients alone": None} | {f"secant + {k}": v for k, v in ratios.items()}
    filters = {
        name: as_belief(
            rules.secant.assumptions(1.0, curvature_noise_variance=noise).belief
        ).filter()
        for name, noise in noises.items()
    }

    def watch(watched: Any, params: Any, gradient: Any, now: Any) -> Any:
        previous, states, averages = watched
        read = read_sensors(params, previous, *now)
        moved = jax.tree.map(jnp.subtract, params, previous)
        states = {
            name: filter_.update(
                filter_.predict(states[name], moved), gradient, read.get(name.split(" + ")[-1])
            )
            for name, filter_ in filters.items()
        }
        seen = {"second moment of Adam": jax.tree.map(jnp.square, gradient)}
        seen |= {average_of(name): tree for name, tree in read.items()}
        averages = jax.tree.map(lambda a, x: 0.999 * a + 0.001 * jnp.nan_to_num(x), averages, seen)
        return params, states, averages

    def loss(params: Any, now: Any) -> Array:
        return problem.loss(params, now[0])

    train = jax.jit(lambda carry, part: training.train(loss, optimizer, carry, part, watch)[0])
    zeros = jax.tree.map(jnp.zeros_like, params)
    states = {name: filter_.init(params) for name, filter_ in filters.items()}
    averages = dict.fromkeys(("second moment of Adam", *map(average_of, ratios)), zeros)
    carry = params, optimizer.init(params), (params, states, averages)
    chunks = 10
    for part in tqdm(np.array_split(np.arange(config.network_steps), chunks), f"digits, {name}"):
        carry = train(carry, (indices[part], step_keys[part]))
    params, _, (_, states, averages) = carry
    posteriors = {name: state.posterior() for name, state in states.items()}
    believed = {name: of.curvature_mean for name, of in posteriors.items()}
    exact = hessian_diagonal(problem.training_loss, params)
    covered = {name: coverage(of, exact) for name, of in posteriors.items()}
    return NetworkRun(exact, believed | averages, covered, float(problem.test_accuracy(params)))


def coverage(posterior: beliefs.Posterior, exact: Any) -> float:
    """The fraction of the exact curvatures inside the central interval of probability `LEVEL`."""
    flat = (posterior.curvature_mean, posterior.curvature_variance, exact)
    mean, variance, truth = (np.asarray(ravel_pytree(tree)[0]) for tree in flat)
    half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance)
    return float(np.mean(np.abs(mean - truth) < half))


def average_of(sensor: str) -> str:
    """What the average of the readings of a sensor is called."""
    return f"plain average of {'the ' * sensor.endswith('sensor')}{sensor}"


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation."""
    result: Any = stats.spearmanr(x, y)
    return float(result.statistic)


def mean_leaf(tree: Any) -> Array:
    """Mean of the scalars of a tree."""
    return jnp.stack(jax.tree.leaves(tree)).mean()


def hessian_diagonal(loss: Callable[[Any], Array], params: Any) -> Any:
    """The exact diagonal, one Hessian-vector product for each parameter."""
    flat, unravel = ravel_pytree(params)

    def entry(i: Array) -> Array:
        direction = jnp.zeros_like(flat).at[i].set(1)
        slope = jax.grad(lambda x: loss(unravel(x)))
        return jax.jvp(slope, (flat,), (direction,))[1][i]

    diagonal = jax.jit(lambda: lax.map(entry, jnp.arange(flat.size), batch_size=64))()
    return unravel(diagonal)


def draw(
    calibrations: dict[float, Calibration],
    correlations: dict[str, dict[str, dict[str, float]]],
    path: Path,
) -> None:
    """Believed against true curvature for every level of noise, and the rank correlations."""
    options = {"sharex": "row", "sharey": "row", "height_ratios": (1, 1.1)}
    with figures.page(path, 2, len(calibrations), 6.4, **options) as axes:
        for panel, (noise, c) in zip(axes[0], calibrations.items(), strict=True):
            shown = np.argsort(c.truth)[:: max(1, len(c.truth) // 60)]
            half = stats.norm.ppf((1 + LEVEL) / 2) * c.deviation[shown]
            style = {"fmt": "o", "ms": 2.5, "lw": 0.8, "color": figures.BLUE}
            panel.errorbar(c.truth[shown], c.mean[shown], half, **style)
            panel.plot([-3, 3], [-3, 3], color="0.5", lw=0.8, zorder=0)
            panel.set(xlabel="true curvature", xlim=(-3.2, 3.2), ylim=(-3.6, 3.6))
            panel.set_title(
                f"noise variance {noise:g}\ncovers {100 * c.coverage:.1f} %", fontsize=9
            )
        axes[0, 0].set_ylabel("believed, with 90 % interval")
        grid, figure = axes[1, 0].get_gridspec(), axes[1, 0].figure
        for panel in axes[1]:
            panel.remove()
        draw_correlations(correlations, figure.add_subplot(grid[1, :]))


def draw_correlations(correlations: dict[str, dict[str, dict[str, float]]], axes: Any) -> None:
    """The rank correlations of both runs."""
    names = list(next(iter(correlations.values())))
    positions = np.arange(len(names))[::-1]
    for offset, (run_, colour) in enumerate(
        zip(correlations, (figures.ORANGE, figures.SKY), strict=True)
    ):
        y = positions + 0.2 - 0.4 * offset
        values = [correlations[run_][name] for name in names]
        axes.barh(y, [v["all"] for v in values], 0.36, color=colour, label=f"steps of {run_}")
        label = "" if offset else "within arrays"
        axes.plot([v["within"] for v in values], y, "D", color="k", ms=4, label=label)
    axes.set_yticks(positions, names)
    axes.axvline(0, color="k", lw=0.8)
    axes.set(xlabel="rank correlation with the exact diagonal of the Hessian, digits")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
