r"""Intervals under noise of execution: how often they hold the truth, and where nothing is told.

Twenty weights follow a quadratic loss whose optimum is drawn anew every 50 steps, by noisy
gradients, and every step is off by a share of itself and a little more. The rule is known and its
numbers are not: `beliefnav.inference.learners.fit_rule` returns the mode and the covariance of
their posterior. With the truth $x$ among $k$ numbers,

$$ (\hat x - x)^\top \Sigma^{-1} (\hat x - x) \sim \chi^2_k $$

if the posterior is right, so that one of ten such distances exceeds the 90 % point: all numbers of
a fit are judged at once, and fits are independent of one another.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from scipy import stats

from beliefnav.inference.learners.ruled import Fit, Start, fit_rule, unconstrained
from beliefnav.wrappers import two_hypothesis

STEPS, WEIGHTS, TASK = 300, 20, 50
CURVATURE = np.geomspace(0.05, 1.0, WEIGHTS)
GRADIENT_NOISE = 0.3
EXAMPLES = 1.0
BESIDES = 0.01
"""Standard deviation of what a step is off by besides its own share, per unit of that share."""
LEVEL = 0.9
ENDS = (10, 100, 1000)
"""Memories of the second moment, in steps, of which it is asked whether they are told."""
TOLD = 4.0
"""A memory is told if the ends of its interval differ by less than this factor."""

Numbers = Mapping[str, Any]


class Rule(NamedTuple):
    """A learner whose numbers are to be inferred.

    Attributes:
        build: numbers, and what a batch says of each step -> optimizer.
        true: its numbers.
        start: where the fit begins, and on which scale.
    """

    build: Callable[[Numbers, Array], optax.GradientTransformation]
    true: Mapping[str, float]
    start: Mapping[str, Start]


def _adamw(numbers: Numbers, evidence: Array) -> optax.GradientTransformation:
    del evidence
    n = numbers
    return optax.adamw(n["rate"], n["b1"], n["b2"], weight_decay=n["decay"])


def _momentum(numbers: Numbers, evidence: Array) -> optax.GradientTransformation:
    del evidence
    return optax.sgd(numbers["rate"], numbers["b1"])


def _two_hypothesis(numbers: Numbers, evidence: Array) -> optax.GradientTransformation:
    """The wrapper, with the difference of the losses at every step as it was recorded."""
    inner = optax.sgd(numbers["rate"], numbers["b1"])
    rule = two_hypothesis(inner, numbers["hazard"], EXAMPLES)

    def init(params: Any) -> tuple[Any, Array]:
        return rule.init(params), jnp.zeros((), jnp.int32)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        inside, count = state
        value = evidence[count]
        updates, inside = rule.update(
            updates, inside, params, value=value, value_fn=lambda _: jnp.zeros_like(value)
        )
        return updates, (inside, count + 1)

    return optax.GradientTransformation(init, update)


_RATE, _MEMORY = Start(0.01, "positive"), Start(0.8, "memory")
RULES: dict[str, Rule] = {
    "adamw": Rule(
        _adamw,
        {"rate": 0.03, "b1": 0.9, "b2": 0.95, "decay": 0.2},
        {"rate": _RATE, "b1": _MEMORY, "b2": Start(0.9, "memory"), "decay": Start(0.0, "real")},
    ),
    "momentum": Rule(_momentum, {"rate": 0.05, "b1": 0.9}, {"rate": _RATE, "b1": _MEMORY}),
    "two_hypothesis": Rule(
        _two_hypothesis,
        {"rate": 0.05, "b1": 0.9, "hazard": 0.05},
        {"rate": _RATE, "b1": _MEMORY, "hazard": Start(0.01, "unit")},
    ),
}


def simulate(
    rule: Rule, numbers: Numbers, noise: Array, key: Array
) -> tuple[Array, Array, Array, Array]:
    """A learner at work, in float32.

    Returns:
        Gradients, displacements and parameters before the step, each [step, weight], and how much
        larger the loss is at the parameters than at the first ones [step].
    """
    h = jnp.asarray(CURVATURE, jnp.float32)
    start_key, optima_key, key = jax.random.split(key, 3)
    params = jax.random.normal(start_key, (WEIGHTS,), jnp.float32)
    optima = jax.random.normal(optima_key, (-(-STEPS // TASK), WEIGHTS), jnp.float32)
    optima = jnp.repeat(optima, TASK, 0)[:STEPS]
    first, rule_state = params, rule.build(numbers, jnp.zeros(STEPS, jnp.float32)).init(params)

    def step(carry: Any, now: tuple[Array, Array]) -> tuple[Any, tuple[Array, Array, Array, Array]]:
        params, state = carry
        optimum, key = now
        noises = jax.random.normal(key, (3, WEIGHTS), jnp.float32)
        gradient = h * (params - optimum) + GRADIENT_NOISE * jnp.sqrt(h) * noises[0]
        more = (h * ((params - optimum) ** 2 - (first - optimum) ** 2)).sum() / 2
        # Whichever step it counts, the difference of this one is what it finds.
        optimizer = rule.build(numbers, jnp.full(STEPS, more))
        updates: Any
        updates, state = optimizer.update(gradient, state, params)
        after = params + updates * (1 + noise * noises[1]) + noise * BESIDES * noises[2]
        return (after, state), (gradient, after - params, params, more)

    return lax.scan(step, (params, rule_state), (optima, jax.random.split(key, STEPS)))[1]


@functools.cache
def programs(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Many recordings of a rule, and many fits, compiled once for all numbers and noises."""
    rule = RULES[name]

    def one(gradient: Array, displacement: Array, params: Array, evidence: Array) -> Fit:
        def build(numbers: Numbers) -> optax.GradientTransformation:
            return rule.build(numbers, evidence)

        return fit_rule(build, rule.start, gradient, displacement, params)

    several = jax.vmap(functools.partial(simulate, rule), in_axes=(None, None, 0))
    return jax.jit(several), jax.jit(jax.vmap(one))


def fit(
    name: str, noise: float, fits: int, key: Array, numbers: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """Fit many recordings of a rule at once.

    Args:
        name: of the rule.
        noise: of execution.
        fits: how many.
        key: random key.
        numbers: of the rule, in place of its own.

    Returns:
        ``error`` [fit, number], of the mode on the scale of the fit, ``covariance`` [fit, number,
        number] and ``converged`` [fit]; the last two numbers are the noises.
    """
    record, infer = programs(name)
    true = {**RULES[name].true, **(numbers or {})}
    given = {n: jnp.float32(x) for n, x in true.items()}
    recorded = record(given, jnp.float32(noise), jax.random.split(key, fits))
    with jax.enable_x64(True):
        found = infer(*(jnp.asarray(np.asarray(x), float) for x in recorded))
    return {
        "error": np.asarray(found.position) - position(name, true, noise),
        "covariance": np.asarray(found.covariance),
        "converged": np.asarray(found.converged),
    }


def position(name: str, true: Mapping[str, float], noise: float) -> np.ndarray:
    """The truth on the scale of the fit: logs of what is positive, of memories, and of odds."""
    start = RULES[name].start
    numbers = [unconstrained(true[number], s.transform) for number, s in start.items()]
    return np.array([*map(float, numbers), np.log(noise), np.log(BESIDES * noise)])


def names(name: str) -> tuple[str, ...]:
    """What is inferred, in order."""
    return (*RULES[name].start, "relative noise", "absolute noise")


def covered(found: Mapping[str, Any], scale: float = 1.0) -> dict[str, Any]:
    """How often the region of 90 % holds the truth, and intervals do.

    Args:
        found: of `fit`.
        scale: factor of all standard deviations; other than 1 for a control.

    Returns:
        ``joint``, the share of fits whose region does; ``p``, of a two-sided binomial test of that;
        ``parameters``, the share of each number; ``widths``, the mean half width of its interval.
    """
    error = np.asarray(found["error"])
    covariance = np.asarray(found["covariance"]) * scale**2
    distance = np.einsum("fi,fi->f", error, np.linalg.solve(covariance, error[..., None])[..., 0])
    inside = distance <= stats.chi2.ppf(LEVEL, error.shape[1])
    half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return {
        "joint": float(inside.mean()),
        "p": float(stats.binomtest(int(inside.sum()), len(inside), LEVEL).pvalue),
        "parameters": (np.abs(error) <= half).mean(0).tolist(),
        "widths": half.mean(0).tolist(),
        "converged": float(np.mean(found["converged"])),
    }


def measure(name: str, noises: tuple[float, ...], fits: int, seed: int) -> dict[str, Any]:
    """A rule at all noises.

    Returns:
        Noise -> `covered`, with ``narrow``, the same of half the width.
    """
    measured = {}
    for j, noise in enumerate(noises):
        key = jax.random.fold_in(jax.random.key(seed), 100 * list(RULES).index(name) + j)
        found = fit(name, noise, fits, key)
        said = covered(found)
        for part in ("parameters", "widths"):
            said[part] = dict(zip(names(name), said[part], strict=True))
        measured[f"{noise:g}"] = said | {
            "narrow": {k: covered(found, 0.5)[k] for k in ("joint", "p")}
        }
    return measured


def ends(noises: tuple[float, ...], fits: int, seed: int) -> dict[str, dict[str, float]]:
    """Memory of the second moment of AdamW -> noise -> the factor between the ends of its interval.

    Of the median of some fits; a memory is told where that is less than `TOLD`.
    """
    which, found = list(RULES["adamw"].start).index("b2"), {}
    for i, memory in enumerate(ENDS):
        for j, noise in enumerate(noises):
            key = jax.random.fold_in(jax.random.key(seed), 1000 + 100 * i + j)
            covariance = fit("adamw", noise, fits, key, {"b2": 1 - 1 / memory})["covariance"]
            deviation = np.median(np.sqrt(covariance[:, which, which]))
            factor = float(np.exp(2 * stats.norm.ppf((1 + LEVEL) / 2) * deviation))
            found.setdefault(f"{memory}", {})[f"{noise:g}"] = factor
    return found
