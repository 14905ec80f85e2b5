"""Learners with known numbers, and how to record them on a small network.

A rate here multiplies a mean whose weights sum to one, and a decay is per unit of rate, as in
`beliefnav.inference.learners`: what optax's momentum calls 0.02 is a rate of 0.02 / (1 - b1).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from beliefnav import recording
from beliefnav._trees import named_leaves
from experiments.training import Problem, make_problem, train

if TYPE_CHECKING:
    import xarray as xr

BATCH = 64
"""Examples of a batch."""
WIDTH = 32
"""Width of the one hidden layer."""
EPS = 1e-7
"""Of all rules that take one."""
CLIP = 1.0
"""The norm that one learner clips at."""

Draw = Callable[[np.random.Generator], dict[str, float]]


class Kind(NamedTuple):
    """A rule of optax, its numbers, and what they are in the words of the inference.

    Attributes:
        build: ``numbers -> optimizer``; numbers may be traced.
        numbers: those of the learner that is recorded and inferred.
        draw: other numbers at random, for the baseline to be trained on.
        true: numbers -> those of them that the family has, by its names.
    """

    build: Callable[..., optax.GradientTransformation]
    numbers: Mapping[str, float]
    draw: Draw
    true: Callable[..., dict[str, float]]


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _memory(rng: np.random.Generator, low: float, high: float) -> float:
    """A discount whose memory is log-uniform."""
    return 1 - 1 / _between(rng, low, high)


def _adam(rng: np.random.Generator) -> dict[str, float]:
    return {
        "rate": _between(rng, 5e-4, 1e-2),
        "b1": _memory(rng, 3, 20),
        "b2": _memory(rng, 30, 1000),
    }


def _adamw(rng: np.random.Generator) -> dict[str, float]:
    return _adam(rng) | {"decay": _between(rng, 0.01, 0.3)}


def _momentum(rng: np.random.Generator) -> dict[str, float]:
    b1 = _memory(rng, 3, 20)
    return {"rate": _between(rng, 0.02, 0.3) * (1 - b1), "b1": b1}


def _lion(rng: np.random.Generator) -> dict[str, float]:
    return {
        "rate": _between(rng, 1e-4, 2e-3),
        "b1": _memory(rng, 3, 20),
        "b2": _memory(rng, 30, 200),
        "decay": _between(rng, 0.01, 0.3),
    }


def _rms(rng: np.random.Generator) -> dict[str, float]:
    return {"rate": _between(rng, 5e-4, 5e-3), "b2": _memory(rng, 5, 100)}


def _linear(**numbers: float) -> dict[str, float]:
    """Of rules without a second moment; what is not given is 0."""
    return {"b1": 0.0, "decay": 0.0} | numbers


def _normalised(rate: float, b1: float) -> dict[str, float]:
    return _linear(rate=rate / (1 - b1), b1=b1)


def _scaled(**numbers: float) -> dict[str, float]:
    """Of rules that divide by the root of a second moment."""
    return _linear(**numbers) | {"power": 0.5, "eps": EPS}


KINDS: dict[str, Kind] = {
    "adam": Kind(
        lambda rate, b1, b2: optax.adam(rate, b1, b2, EPS),
        {"rate": 2e-3, "b1": 0.85, "b2": 0.99},
        _adam,
        _scaled,
    ),
    "adamw": Kind(
        lambda rate, b1, b2, decay: optax.adamw(rate, b1, b2, EPS, weight_decay=decay),
        {"rate": 3e-3, "b1": 0.9, "b2": 0.98, "decay": 0.1},
        _adamw,
        _scaled,
    ),
    "nadam": Kind(
        lambda rate, b1, b2: optax.nadam(rate, b1, b2, EPS),
        {"rate": 2e-3, "b1": 0.9, "b2": 0.995},
        _adam,
        _scaled,
    ),
    "rmsprop": Kind(
        lambda rate, b2: optax.rmsprop(rate, b2, EPS),
        {"rate": 2e-3, "b2": 0.9},
        _rms,
        _scaled,
    ),
    "rmsprop, centred": Kind(
        lambda rate, b2: optax.rmsprop(rate, b2, EPS, centered=True),
        {"rate": 2e-3, "b2": 0.95},
        _rms,
        _scaled,
    ),
    "lion": Kind(
        lambda rate, b1, b2, decay: optax.lion(rate, b1, b2, weight_decay=decay),
        {"rate": 5e-4, "b1": 0.9, "b2": 0.98, "decay": 0.1},
        _lion,
        _linear,
    ),
    "sgd": Kind(
        lambda rate: optax.sgd(rate),
        {"rate": 0.1},
        lambda rng: {"rate": _between(rng, 0.02, 0.3)},
        _linear,
    ),
    "momentum": Kind(
        lambda rate, b1: optax.sgd(rate, b1),
        {"rate": 0.02, "b1": 0.8},
        _momentum,
        _normalised,
    ),
    "nesterov": Kind(
        lambda rate, b1: optax.sgd(rate, b1, nesterov=True),
        {"rate": 0.02, "b1": 0.85},
        _momentum,
        _normalised,
    ),
    "adagrad": Kind(
        lambda rate: optax.adagrad(rate),
        {"rate": 0.03},
        lambda rng: {"rate": _between(rng, 0.005, 0.1)},
        lambda rate: _scaled(rate=rate) | {"eps": 0.1 + 1e-7},
    ),
    "adamax": Kind(
        lambda rate, b1, b2: optax.adamax(rate, b1, b2),
        {"rate": 2e-3, "b1": 0.9, "b2": 0.98},
        _adam,
        lambda **numbers: _scaled(**numbers) | {"eps": 1e-8},
    ),
}
"""The catalogue; the baseline is trained to tell these names apart. The sum of adagrad begins at
0.1, which a sum from 0 with an eps of 0.1 inside the root does too. The largest gradient of adamax
forgets its eps, which the family has outside: a small one is below rounding."""


class Learner(NamedTuple):
    """A learner to be recorded.

    Attributes:
        kind: which of `KINDS` it is.
        build: makes it.
        true: parameter -> its number.
        rates: its rate at every step [step], if that is a path.
    """

    kind: str
    build: Callable[[], optax.GradientTransformation]
    true: Mapping[str, float]
    rates: np.ndarray | None = None


def learners(steps: int) -> dict[str, Learner]:
    """All that is inferred: the catalogue, Adam with a schedule, and Adam behind a clip."""
    found = {
        name: Learner(name, lambda kind=kind: kind.build(**kind.numbers), kind.true(**kind.numbers))
        for name, kind in KINDS.items()
    }
    adam = KINDS["adam"]
    b1, b2 = adam.numbers["b1"], adam.numbers["b2"]
    schedule = optax.cosine_decay_schedule(2e-3, steps, alpha=0.1)
    rates = np.array([schedule(t) for t in range(steps)], float)
    true = adam.true(**adam.numbers)
    found["adam, cosine"] = Learner(
        "adam",
        lambda: optax.adam(schedule, b1, b2, EPS),
        true | {"rate": float(rates.mean())},
        rates,
    )
    found["adam, clipped"] = Learner(
        "adam",
        lambda: optax.chain(optax.clip_by_global_norm(CLIP), adam.build(**adam.numbers)),
        true | {"clip": CLIP},
    )
    return found


def network() -> Problem:
    """The digits, and a perceptron with one hidden layer."""
    return make_problem("digits", hidden=(WIDTH,))


def record(
    problem: Problem,
    optimizer: optax.GradientTransformation,
    steps: int,
    coordinates: int,
    key: Array,
) -> "xr.Dataset":
    """Train a network in float32, and record some coordinates of every array.

    Args:
        problem: the data and the network.
        optimizer: the learner.
        steps: number of steps; all are recorded.
        coordinates: of every array, evenly spaced, the first entry among them.
        key: random key.

    Returns:
        The stream, with parameters and the norm of the whole gradient.
    """
    sizes = {name: x.size for name, x in named_leaves(jax.eval_shape(problem.make, key))}
    spaced = {
        n: np.unique(np.linspace(0, k - 1, min(coordinates, k)).astype(int))
        for n, k in sizes.items()
    }
    watched = recording.record(optimizer, coordinates=spaced, capacity=steps, norm=True)

    @jax.jit
    def run(key: Array) -> tuple[Any, Any]:
        params, examples = begin(problem, steps, key)
        return train(problem.loss, watched, (params, watched.init(params)), examples)[0]

    params, state = run(key)
    return recording.to_dataset(state, params)


def begin(problem: Problem, steps: int, key: Array) -> tuple[Any, Array]:
    """The first parameters, and the batches of all steps."""
    start, batches = jax.random.split(key)
    return problem.make(start), problem.batches(jax.random.split(batches, steps), BATCH)
