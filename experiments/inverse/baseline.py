r"""A classifier of rules by summary statistics, after Nayebi et al. (2020).

They take the mean, the median, the norm and the like of weights, activations and changes of
activity, over training, and train linear machines and random forests to name the rule that made
them. Here the observables are the weights, their gradients and their displacements, of whole
arrays, so that the classifier sees more than the inference does, which sees a few coordinates.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from tqdm import tqdm

from experiments.inverse.catalogue import Kind, Learner, begin
from experiments.training import Problem

PARTS = 10
"""Parts of training over which statistics are averaged."""
TRAINED = 0.75
"""Share of the runs that a classifier is trained on."""


class Classified(NamedTuple):
    """What the baseline says.

    Attributes:
        said: classifier -> learner -> name.
        accuracy: classifier -> share of other runs of the same kinds that are named rightly.
        shuffled: classifier -> the same where the names were shuffled before training.
    """

    said: dict[str, dict[str, str]]
    accuracy: dict[str, float]
    shuffled: dict[str, float]


def statistics(x: Array) -> Array:
    """Mean, mean size, median, third quartile, norm, skewness and kurtosis of rows [..., 7]."""
    mean, deviation = x.mean(-1), x.std(-1) + 1e-30
    z = (x - mean[..., None]) / deviation[..., None]
    median, third = jnp.quantile(x, jnp.array([0.5, 0.75]), axis=-1)
    size, norm = jnp.abs(x).mean(-1), jnp.linalg.norm(x, axis=-1)
    return jnp.stack([mean, size, median, third, norm, (z**3).mean(-1), (z**4).mean(-1)], -1)


@jax.jit
def features(runs: Any) -> Array:
    """Statistics of all arrays [run, step, ...], averaged over parts of training [run, feature]."""

    def of_run(run: Any) -> Array:
        rows = [x.reshape(len(x), -1) for x in jax.tree.leaves(run)]
        seen = jnp.stack([statistics(x) for x in rows], 1)
        return jnp.stack([part.mean(0) for part in jnp.array_split(seen, PARTS)]).ravel()

    return lax.map(of_run, runs)


def observe(problem: Problem, optimizer: Any, steps: int, key: Array) -> Any:
    """Train a network: parameters, gradients and displacements of all steps, [step, ...]."""
    params, examples = begin(problem, steps, key)

    def step(carry: Any, batch: Array) -> tuple[Any, Any]:
        params, state = carry
        gradient = jax.grad(problem.loss)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), (params, gradient, updates)

    return lax.scan(step, (params, optimizer.init(params)), examples)[1]


def measure(
    problem: Problem,
    kinds: Mapping[str, Kind],
    learners: Mapping[str, Learner],
    steps: int,
    runs: int,
    seed: int,
) -> dict[str, Any]:
    """Features of learners, and of runs of every kind with numbers at random.

    Args:
        problem: the data and the network.
        kinds: what is to be told apart.
        learners: what is to be named.
        steps: of every run.
        runs: of every kind.
        seed: of numbers and networks.

    Returns:
        ``features`` [run, feature] with ``names`` [run], and ``asked`` [learner, feature].
    """
    rng, found, names, asked = np.random.default_rng(seed), [], [], dict[str, np.ndarray]()
    for i, (name, kind) in enumerate(tqdm(kinds.items(), desc="baseline")):
        drawn = [*(kind.draw(rng) for _ in range(runs)), kind.numbers]
        numbers = {key: jnp.array([d[key] for d in drawn]) for key in kind.numbers}
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed + 1), i), runs)
        keys = jnp.concatenate([keys, jax.random.key(seed)[None]])

        def run(numbers: Any, key: Array, kind: Kind = kind) -> Any:
            return observe(problem, kind.build(**numbers), steps, key)

        *given, asked[name] = np.asarray(features(jax.jit(jax.vmap(run))(numbers, keys)))
        found += given
        names += [name] * runs
    for name, learner in learners.items():
        if name not in asked:
            run = jax.jit(functools.partial(observe, problem, learner.build(), steps))
            one = jax.tree.map(lambda x: x[None], run(jax.random.key(seed)))
            asked[name] = np.asarray(features(one))[0]
    return {
        "features": np.stack(found),
        "names": np.array(names),
        "asked": np.stack([asked[name] for name in learners]),
    }


def classify(measured: Mapping[str, Any], learners: Mapping[str, Learner], seed: int) -> Classified:
    """Train both classifiers on three quarters of the runs, and ask them of the rest."""
    given, names = compressed(measured["features"]), np.asarray(measured["names"])
    asked = compressed(measured["asked"])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    count = round(TRAINED * len(names))
    fitted, rest = order[:count], order[count:]
    mixed = rng.permutation(names[fitted])
    said, accuracy, shuffled = {}, {}, {}
    for name in ("random forest", "linear machine"):
        machine = _machine(name, seed).fit(given[fitted], names[fitted])
        said[name] = dict(zip(learners, map(str, machine.predict(asked)), strict=True))
        accuracy[name] = float((machine.predict(given[rest]) == names[rest]).mean())
        control = _machine(name, seed).fit(given[fitted], mixed)
        shuffled[name] = float((control.predict(given[rest]) == names[rest]).mean())
    return Classified(said, accuracy, shuffled)


def compressed(values: np.ndarray) -> np.ndarray:
    """Statistics span many sizes: a logarithm with a sign."""
    return np.arcsinh(np.nan_to_num(np.asarray(values, float), posinf=0, neginf=0) * 1e6)


def _machine(name: str, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if name == "random forest":
        return RandomForestClassifier(300, random_state=seed)
    return make_pipeline(StandardScaler(), LinearSVC(max_iter=20_000, random_state=seed))
