"""Filter, smoother and parallel filter of the secant landscape against dynamax and cuthbert.

``python -m experiments.benchmarks filters``, with the extra ``benchmarks`` installed.

Two thousand parameters with a thousand observations each (in parallel over time, fifty with two
hundred), in float32; the peers' Kalman filters, made for one state of any dimension, are vmapped
over the parameters. All results are compared with those of the library in the same run before
anything is timed; the peers' methods take turns with ours. The bandwidth is that of a scaled copy
of a large array in the same run.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from beliefnav import beliefs, filters
from experiments import report
from experiments.options import Options
from experiments.timing import median_seconds

MODEL = beliefs.Secant(
    noise_variance=0.1,
    prior_gradient_variance=1.0,
    prior_curvature_variance=2.0,
    gradient_process_variance=0.01,
    curvature_process_variance=0.02,
    gradient_autocorrelation=0.99,
    curvature_autocorrelation=0.99,
)


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Options of the benchmark."""

    QUICK = {"num_params": 200, "num_steps": 200, "parallel_steps": 50, "repeats": 3}
    LEAST = {
        "num_params": 1,
        "num_steps": 2,
        "parallel_params": 1,
        "parallel_steps": 2,
        "repeats": 1,
    }

    num_params: int = 2000
    """Number of parameters."""
    num_steps: int = 1000
    """Number of observations of each."""
    parallel_params: int = 50
    """Number of parameters of the race in parallel over time."""
    parallel_steps: int = 200
    """Number of observations there: associative scans compile for minutes over longer ones."""
    repeats: int = 21
    """Timed runs of each method."""


def run(config: Config) -> report.Report:
    """Check, time, print."""
    try:
        import cuthbert  # noqa: F401

        _dynamax()
    except ImportError as error:
        sys.exit(
            f"filters: {error}. The peers are an extra: python -m pip install -e '.[benchmarks]'"
        )
    rng = np.random.default_rng(config.seed)
    shape = (config.num_steps, config.num_params)
    stream = jnp.asarray(rng.normal(size=shape), jnp.float32)
    moved = jnp.asarray(rng.normal(size=shape), jnp.float32)

    kinds: dict[str, dict[str, Callable[..., Any]]] = {
        "filter": {
            "beliefnav": ours(False),
            "dynamax": dynamax_filter,
            "cuthbert": cuthbert_filter,
        },
        "smoother": {
            "beliefnav": our_smoother,
            "dynamax": dynamax_smoother,
            "cuthbert": cuthbert_smoother,
        },
        "parallel_filter": {"beliefnav": ours(True), "cuthbert": cuthbert_parallel},
    }
    seconds = {}
    for kind, methods in kinds.items():
        part = (slice(None), slice(None))
        if kind == "parallel_filter":
            part = slice(config.parallel_steps), slice(config.parallel_params)
        seconds[kind] = race(kind, methods, config.repeats, stream[part], moved[part])
        print(kind, seconds[kind])
    bandwidth = copy_bandwidth(config.repeats)
    # A filter reads the stream and the displacements, and writes two means, two variances, a
    # covariance and a log density.
    floor = 8 * stream.nbytes / bandwidth
    ratios = {
        kind: {name: s / times["beliefnav"] for name, s in times.items() if name != "beliefnav"}
        for kind, times in seconds.items()
    }
    print(f"{'':<17}" + "".join(f"{name:>12}" for name in ("beliefnav", "dynamax", "cuthbert")))
    for kind, times in seconds.items():
        cells = [
            f"{1e3 * times[name]:9.1f} ms" if name in times else f"{'-':>12}"
            for name in ("beliefnav", "dynamax", "cuthbert")
        ]
        print(f"{kind:<17}{''.join(cells)}   ratio {min(ratios[kind].values()):.1f}")
    print(
        f"bandwidth {bandwidth / 1e9:.1f} GB/s: the filter takes "
        f"{seconds['filter']['beliefnav'] / floor:.1f} times as long as its data take to move"
    )
    faster = min(ratios["filter"].values())
    claims = [report.at_least("filter: faster than the faster peer", faster, 20)]
    results = {
        "milliseconds": {k: {n: 1e3 * s for n, s in t.items()} for k, t in seconds.items()},
        "times_as_long": ratios,
        "gigabytes_per_second": bandwidth / 1e9,
        "filter_over_bandwidth": seconds["filter"]["beliefnav"] / floor,
    }
    return report.Report(claims, results)


def race(
    kind: str,
    methods: dict[str, Callable[..., Any]],
    repeats: int,
    stream: Array,
    moved: Array,
) -> dict[str, float]:
    """Median seconds of each method, which take turns; all must give the first's results."""
    compiled = {name: jax.jit(method) for name, method in methods.items()}
    results = {}
    for name, method in tqdm(compiled.items(), desc=f"{kind}: compiling", leave=False):
        results[name] = jax.block_until_ready(method(stream, moved))
    reference = moments(results["beliefnav"])
    for name, result in results.items():
        for field, want, got in zip(("mean", "variance"), reference, moments(result), strict=True):
            # float32, over a thousand steps
            np.testing.assert_allclose(got, want, rtol=2e-2, atol=2e-3, err_msg=f"{name} {field}")
    del results
    programs = {name: partial(method, stream, moved) for name, method in compiled.items()}
    return median_seconds(programs, repeats, kind)


def copy_bandwidth(repeats: int) -> float:
    """Bytes a second that a large array is read and written with."""
    carried = [jnp.ones(50_000_000, jnp.float32)]
    scale = jax.jit(lambda x: 2 * x, donate_argnums=0)

    def copy() -> Any:
        carried[0] = scale(carried[0])
        return carried[0]

    return 2 * carried[0].nbytes / median_seconds({"copy": copy}, repeats)["copy"]


def ours(parallel: bool) -> Callable[..., Any]:
    """The filtered posterior, covariance included, and the log likelihood."""

    def method(stream: Array, moved: Array) -> Any:
        posterior, info = filters.filter_recording(MODEL, stream, moved, parallel=parallel)
        return posterior, info.log_density

    return method


def our_smoother(stream: Array, moved: Array) -> Any:
    """The smoothed posterior, covariance included."""
    return filters.smooth_recording(MODEL, stream, moved), None


def moments(result: Any) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances [variable, step, param] of a result of any method."""
    if isinstance(result[0], beliefs.Posterior):
        read = result[0]
        means = [read.gradient_mean, read.curvature_mean]
        variances = [read.gradient_variance, read.curvature_variance]
        return np.stack(means), np.stack(variances)
    means, covariances = (np.asarray(x) for x in result[:2])
    variances = np.diagonal(covariances, axis1=-2, axis2=-1)
    return np.moveaxis(means, (0, 2), (2, 0)), np.moveaxis(variances, (0, 2), (2, 0))


def transition(moved: Array) -> tuple[Array, Array]:
    """The matrices of the transitions into every step but the first, and their noise variances.

    For one parameter. Both peers index a transition by the step that it leads to.
    """
    one, zero = jnp.ones_like(moved), jnp.zeros_like(moved)
    moved = jnp.roll(moved, 1)
    rho_g, rho_h = MODEL.gradient_autocorrelation, MODEL.curvature_autocorrelation
    matrices = jnp.stack(
        [jnp.stack([rho_g * one, moved], -1), jnp.stack([zero, rho_h * one], -1)], -2
    )
    noise = jnp.asarray([MODEL.gradient_process_variance, MODEL.curvature_process_variance])
    return matrices, noise


def _dynamax() -> Any:
    """The module of dynamax: an extra of its own, which is not there when types are checked."""
    return importlib.import_module("dynamax.linear_gaussian_ssm.inference")


def _dynamax_params(moved: Array) -> Any:
    inference = _dynamax()
    matrices, noise = transition(moved)
    prior = jnp.asarray([MODEL.prior_gradient_variance, MODEL.prior_curvature_variance])
    return inference.ParamsLGSSM(
        initial=inference.ParamsLGSSMInitial(mean=jnp.zeros(2), cov=jnp.diag(prior)),
        dynamics=inference.ParamsLGSSMDynamics(
            weights=matrices,
            bias=jnp.zeros(2),
            input_weights=jnp.zeros((2, 0)),
            cov=jnp.diag(noise),
        ),
        emissions=inference.ParamsLGSSMEmissions(
            weights=jnp.asarray([[1.0, 0.0]]),
            bias=jnp.zeros(1),
            input_weights=jnp.zeros((1, 0)),
            cov=jnp.asarray([[MODEL.noise_variance]]),
        ),
    )


def _over_params(one: Callable[[Array, Array], Any]) -> Callable[..., Any]:
    """Vmap a method of one parameter: means and covariances [param, step, ...]."""
    return jax.vmap(one, in_axes=1)


@_over_params
def dynamax_filter(stream: Array, moved: Array) -> tuple[Array, ...]:
    """The filter of dynamax."""
    result = _dynamax().lgssm_filter(_dynamax_params(moved), stream[:, None])
    return result.filtered_means, result.filtered_covariances, result.marginal_loglik


@_over_params
def dynamax_smoother(stream: Array, moved: Array) -> tuple[Array, Array]:
    """The smoother of dynamax."""
    result = _dynamax().lgssm_smoother(_dynamax_params(moved), stream[:, None])
    return result.smoothed_means, result.smoothed_covariances


def _cuthbert(stream: Array, moved: Array, parallel: bool) -> tuple[Any, Any, Any]:
    """The model inputs, the dynamics and the filtered states of cuthbert, for one parameter."""
    import cuthbert
    from cuthbert.gaussian import kalman

    matrices, noise = transition(moved)
    # No time passes before the first observation.
    matrices = matrices.at[0].set(jnp.eye(2))
    roots = jnp.diag(jnp.sqrt(noise)) * jnp.ones((len(stream), 1, 1))
    roots = roots.at[0].set(0)
    inputs = (matrices, roots, stream)
    prior = jnp.asarray([MODEL.prior_gradient_variance, MODEL.prior_curvature_variance])

    def dynamics(model_inputs: Any) -> Any:
        return model_inputs[0], jnp.zeros(2), model_inputs[1]

    def observation(model_inputs: Any) -> Any:
        root = jnp.sqrt(jnp.asarray([[MODEL.noise_variance]]))
        return jnp.asarray([[1.0, 0.0]]), jnp.zeros(1), root, model_inputs[2][None]

    method = kalman.build_filter(jnp.zeros(2), jnp.diag(jnp.sqrt(prior)), dynamics, observation)
    states = cuthbert.filter(method, inputs, method.init_prepare(), parallel=parallel)
    return inputs, dynamics, states


def _of_roots(states: Any) -> tuple[Array, Array]:
    roots = states.chol_cov[1:]
    return states.mean[1:], roots @ jnp.swapaxes(roots, -1, -2)


@_over_params
def cuthbert_filter(stream: Array, moved: Array) -> tuple[Array, Array]:
    """The filter of cuthbert."""
    return _of_roots(_cuthbert(stream, moved, False)[2])


@_over_params
def cuthbert_parallel(stream: Array, moved: Array) -> tuple[Array, Array]:
    """The filter of cuthbert, in parallel over time."""
    return _of_roots(_cuthbert(stream, moved, True)[2])


@_over_params
def cuthbert_smoother(stream: Array, moved: Array) -> tuple[Array, Array]:
    """The smoother of cuthbert."""
    import cuthbert
    from cuthbert.gaussian import kalman

    inputs, dynamics, states = _cuthbert(stream, moved, False)
    smoother = kalman.build_smoother(dynamics)
    return _of_roots(cuthbert.smoother(smoother, states, inputs))
