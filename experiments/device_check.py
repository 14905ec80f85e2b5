"""Check every jitted entry point on the device that jax finds against float64 on the CPU.

Claim: in float32 on this device each entry point agrees with its float64 reference to within the
rounding of its arithmetic. It would be refuted by a relative error above the tolerance of a case.
The time is that of one compiled call whose inputs are on the device.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from tqdm import tqdm

from beliefnav import (
    Objective,
    beliefs,
    control,
    filters,
    inference,
    navigator,
    recording,
    rules,
    sensors,
    wrappers,
)
from beliefnav.control.gains.lq import diagonal_lq_policy
from beliefnav.control.gains.matrix import matrix_planning_gain, polar_factor, symmetric_power
from beliefnav.control.gains.set_point import matrix_anticipation
from beliefnav.inference.targets import density
from beliefnav.recording import from_arrays
from beliefnav.rules.catalogue import CATALOGUE
from experiments import report
from experiments.benchmarks.inference import prior
from experiments.options import Options
from experiments.timing import median_seconds


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Check every jitted entry point on the device that jax finds."""

    QUICK = {"size": 10_000}
    LEAST = {"size": 1000, "steps": 1, "repeats": 1}

    size: int = 1_000_000
    """Entries of the elementwise cases; streams of the filters get a thousandth."""
    steps: int = 100
    """Optimizer steps, and observations of a filter."""
    repeats: int = 10
    """Timed calls of each case."""


class Case(NamedTuple):
    """One entry point.

    Attributes:
        call: a function of the inputs, to be jitted.
        inputs: arrays, float64.
        tolerance: bound on the relative error of float32: the norm of the difference over the norm.
    """

    call: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    tolerance: float


def run(config: Config) -> report.Report:
    """Check and time."""
    claims, seconds = [], {}
    every = cases(config.size, config.steps, config.seed)
    for name, case in tqdm(every.items(), unit="case"):
        value, seconds[name] = _timed(case, config.repeats)
        claims.append(report.at_most(name, _error(value, _reference(case)), 0.0, case.tolerance))
    return report.Report(claims, {"milliseconds": {k: 1e3 * s for k, s in seconds.items()}})


def cases(size: int, steps: int, seed: int) -> dict[str, Case]:
    """Every jitted entry point, with inputs of a given size."""
    rng = np.random.default_rng(seed)
    start, noise = rng.normal(size=size), rng.normal(size=(8, size))
    stream = np.cumsum(rng.normal(size=(steps, max(1, size // 1000))), 0)
    stream[rng.random(stream.shape) < 0.05] = np.nan
    displacement = np.full_like(stream, 0.1)
    curvature = rng.normal(size=size)
    hyper = np.array([0.9, 0.2, 1.0])
    objective = Objective(rate=0.5, gain=2.0, discount=3.0)

    def loss(params: Any) -> Any:
        return jnp.mean(params**2) / 2

    def read(reading: str | None, noise: Any) -> Any:
        """A positive curvature, with noise."""
        if reading == "matrix":
            return jnp.eye(noise.size) + jnp.outer(noise.ravel(), noise.ravel()) / noise.size
        return None if reading is None else 1 + noise**2

    def descend(
        optimizer: optax.GradientTransformation, reading: str | None = None
    ) -> Callable[..., Any]:
        extended = optax.with_extra_args_support(optimizer)

        def call(params: Any, noise: Any) -> Any:
            def step(carry: Any, i: Any) -> Any:
                params, state = carry
                gradient = params + noise[i % len(noise)]
                updates, state = extended.update(
                    gradient,
                    state,
                    params,
                    value=loss(params),
                    value_fn=loss,
                    curvature=read(reading, noise[i % len(noise)]),
                )
                return (optax.apply_updates(params, updates), state), None

            carry = (params, extended.init(params))
            return lax.scan(step, carry, jnp.arange(steps))[0][0]

        return call

    def recorded(params: Any, noise: Any) -> Any:
        optimizer = recording.record(
            rules.wiener(1e-2), coordinates={"": [0, len(params) - 1]}, capacity=8
        )
        state: Any = optimizer.init(params)
        _, state = optimizer.update(params + noise[0], state, params)
        return state.buffer[:3, 0]

    def likelihood(hyper: Any, stream: Any) -> Any:
        return filters.log_likelihood(beliefs.OrnsteinUhlenbeck(*hyper), stream).sum()

    def slopes(positions: Any, stream: Any) -> Any:
        like = from_arrays(np.indices(stream.shape)[0])  # of its shape; not what is filtered
        potential = density(inference.target(prior, like)).potential
        return jax.vmap(jax.grad(potential), (0, None))(positions, recording.Recording(stream))

    def gains(v: Any, exact_hold: bool) -> Any:
        return control.planning_gain(
            v, rate=0.5, gain=2.0, discount=3.0, exact_hold=exact_hold
        ).gain

    def filtered(belief: beliefs.Belief) -> Callable[..., Any]:
        return lambda y, d: filters.filter_recording(belief, y, d)[0]

    def planned_path(start: Any) -> Any:
        def plan(x: Any) -> Any:
            return control.least_action_path(
                Objective(discount=0.1),
                lambda x: (x[0] ** 2 - 1) ** 2 + x[1] ** 2 - x[0] / 2,
                x,
                duration=4.0,
                num_points=200,
                guess=control.straight_line(x, jnp.array([1.0, 0.0]), 200),
            ).params

        return jax.vmap(plan)(start)

    def policies(hessian: Any) -> Any:
        def solve(h: Any) -> Any:
            drifting = dataclasses.replace(objective, drift=lambda x: 0.5 * jnp.roll(x, 1) - x)
            policy = control.lq_policy(drifting, h, jnp.ones(len(h)))
            planned = matrix_planning_gain(h, rate=0.5, gain=2.0, discount=3.0)
            anticipated = matrix_anticipation(h, 0.3, discount=1.0).weight
            path = policy.path(jnp.zeros(len(h)), jnp.ones(1))
            return policy.quadratic, path, planned.gain, anticipated

        return jax.vmap(solve)(hessian)

    def roots(matrix: Any) -> Any:
        def both(m: Any) -> Any:
            return symmetric_power(m @ m.T, -0.25), polar_factor(m)

        return jax.vmap(both)(matrix)

    def diagonal_policy(curvature: Any) -> Any:
        drifting = dataclasses.replace(objective, drift=lambda x: -0.1 * x)
        policy = diagonal_lq_policy(
            drifting, jnp.abs(curvature), jnp.ones_like(curvature), gradient=curvature
        )
        return policy.path(jnp.zeros_like(curvature), jnp.ones(1))

    landscape = beliefs.Secant(
        noise_variance=1.0,
        prior_gradient_variance=1.0,
        prior_curvature_variance=2.0,
        gradient_process_variance=0.1,
        curvature_process_variance=0.01,
        curvature_autocorrelation=0.99,
    )

    def smoothed(parallel: bool) -> Callable[..., Any]:
        return lambda y, d: filters.smooth_recording(landscape, y, d, parallel=parallel)

    def sensed(params: Any) -> Any:
        def quartic(x: Any) -> Any:
            return jnp.sum(x**4 + x * jnp.roll(x, 1))

        key = jax.random.key(seed)
        near = sensors.paired_gradients(quartic, params, params + 0.5)
        gauss_newton = sensors.gauss_newton(
            lambda x: x[:, None] ** 3, lambda z: jnp.sum(z**2), params, key
        )
        # The signs depend on the precision; the readings compared are those that do not.
        signless = sensors.hutchinson(lambda x: jnp.sum(x**4), params, key)
        return signless, near, gauss_newton

    factors = rng.normal(size=(max(1, size // 10_000), 4, 4))
    starts = np.array([-0.6, 0.55]) + 0.1 * rng.normal(size=(max(1, size // 10_000), 2))
    horizon = navigator(
        1.0,
        beliefs.independent(
            gradient=beliefs.LocalLevel(0.9), curvature=beliefs.PrecisionWalk(0.99)
        ),
        control.horizon(objective, exact_hold=True),
    )
    tasks = beliefs.SwitchingOptimum(1.0, 1.0, 0.5, hazard=0.05)
    resetting = navigator(0.1, beliefs.TwoHypotheses(tasks), control.resetting(time_step=0.1))
    models = {
        "local level": beliefs.LocalLevel(0.9, noise_variance=1.0),
        "precision walk": beliefs.PrecisionWalk(0.99),
        "Ornstein-Uhlenbeck": beliefs.OrnsteinUhlenbeck(0.9, 0.2, 1.0),
        "wiener": beliefs.Wiener(0.9, 0.999),
        "transient": beliefs.Transient(0.9, 0.09, innovation_variance=1.0),
        "secant": landscape,
        "secant, noise unknown, positive": beliefs.positive(
            beliefs.UnknownNoise(landscape, 1.0, 3.0)
        ),
        "optimum": beliefs.Optimum(0.5, 1.0, 2.0, process_variance=0.1, autocorrelation=0.95),
        "run lengths": beliefs.RunLengths(
            dataclasses.replace(tasks, hazard=beliefs.HazardGrid.beta(1, 20, 4)), 8
        ),
        "two hypotheses": beliefs.TwoHypotheses(tasks),
        "run-length reset": beliefs.RunLengthReset(tasks),
    }
    optimizers = {
        "rules.sgd, nesterov": rules.sgd(1e-3, 0.9, nesterov=True),
        "wrappers.two_hypothesis": wrappers.two_hypothesis(optax.adam(1e-2), 0.01, examples=1),
        "wrappers.iterate_averaging": wrappers.iterate_averaging(optax.adam(1e-2), every=2),
        "navigator, horizon": horizon,
        "navigator, resetting": resetting,
    }
    few = start[:64].reshape(8, 8), noise[:, :64].reshape(8, 8, 8)  # of rules that couple entries
    return {
        **{
            f"rules.{name}, {steps} steps": Case(
                descend(entry.rule(**entry.arguments), entry.reading),
                (start, noise) if entry.elementwise else few,
                1e-3,
            )
            for name, entry in CATALOGUE.items()
        },
        **{
            f"{name}, {steps} steps": Case(descend(o), (start, noise), 1e-3)
            for name, o in optimizers.items()
        },
        "recording.record": Case(recorded, (start, noise), 1e-6),
        "planning_gain, replanning": Case(lambda v: gains(v, False), (curvature,), 1e-5),
        "planning_gain, exact hold": Case(lambda v: gains(v, True), (curvature,), 1e-5),
        "least_action_path, 200 points": Case(planned_path, (starts,), 1e-3),
        "lq_policy, matrix_planning_gain, matrix_anticipation": Case(
            policies, (factors @ factors.swapaxes(1, 2),), 1e-4
        ),
        "symmetric_power, polar_factor": Case(roots, (factors + 2 * np.eye(4),), 1e-3),
        "diagonal_lq_policy": Case(diagonal_policy, (curvature,), 1e-5),
        **{
            f"filter_recording, {name}": Case(filtered(b), (stream, displacement), 1e-4)
            for name, b in models.items()
        },
        "smooth_recording": Case(smoothed(False), (stream, displacement), 1e-3),
        "smooth_recording, parallel": Case(smoothed(True), (stream, displacement), 1e-3),
        "sensors": Case(sensed, (curvature,), 1e-3),
        "log_likelihood": Case(likelihood, (hyper, stream), 1e-4),
        "gradient of log_likelihood": Case(jax.grad(likelihood), (hyper, stream), 1e-3),
        "gradient of a posterior, 4 chains": Case(
            slopes, (rng.normal(size=(4, 3)), stream[:, :4]), 1e-3
        ),
    }


def _timed(case: Case, repeats: int) -> tuple[Any, float]:
    """The result on the device in float32, and the median seconds of a call."""
    inputs = [jax.device_put(x.astype(np.float32)) for x in case.inputs]
    call = partial(jax.jit(case.call), *inputs)
    return call(), median_seconds({"call": call}, repeats)["call"]


def _reference(case: Case) -> Any:
    """The result on the CPU in float64."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return jax.tree.map(np.asarray, jax.jit(case.call)(*case.inputs))


def _error(value: Any, reference: Any) -> float:
    """The largest relative error over the leaves; infinite where only one of them is finite."""
    errors = [0.0]
    for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(reference), strict=True):
        x, y = np.asarray(a, np.float64), np.asarray(b)
        same = np.isfinite(x) == np.isfinite(y)
        finite = np.isfinite(y) & same
        norm = np.linalg.norm(y[finite]) or 1.0
        error = np.linalg.norm(x[finite] - y[finite]) / norm
        errors.append(float(error) if same.all() else np.inf)
    return max(errors)
