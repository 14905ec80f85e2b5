r"""A classifier of rules by summary statistics, after Nayebi et al. (2020).

They take the mean, the median, the norm and the like of weights, activations and changes of
activity, over training, and train linear machines and random forests to name the rule that made
them. Here the observables are the weights, their gradients and their displacements, of whole
arrays, so that the classifier sees more than the inference does, which sees a few coordinates.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from tqdm import tqdm

from experiments.inverse.learners import KINDS, Learner, begin
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
    """Mean, mean size, median, third quartile, norm, skewness and kurtosis of an array [7]."""
    x = x.ravel()
    mean, deviation = x.mean(), x.std() + 1e-30
    z = (x - mean) / deviation
    quartiles = jnp.quantile(x, jnp.array([0.5, 0.75]))
    several = [mean, jnp.abs(x).mean(), *quartiles, jnp.linalg.norm(x), (z**3).mean()]
    return jnp.stack([*several, (z**4).mean()])


def observe(problem: Problem, optimizer: Any, steps: int, key: Array) -> Array:
    """Train a network; statistics of its arrays, averaged over parts of training [feature]."""
    params, examples = begin(problem, steps, key)

    def step(carry: Any, batch: Array) -> tuple[Any, Array]:
        params, state = carry
        gradient = jax.grad(problem.loss)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        trees = (params, gradient, updates)
        seen = jnp.stack([statistics(x) for tree in trees for x in jax.tree.leaves(tree)])
        return (optax.apply_updates(params, updates), state), seen

    _, seen = lax.scan(step, (params, optimizer.init(params)), examples)
    parts = jnp.array_split(seen, PARTS)
    return jnp.stack([part.mean(0) for part in parts]).ravel()


def measure(
    problem: Problem, learners: Mapping[str, Learner], steps: int, runs: int, seed: int
) -> dict[str, Any]:
    """Features of learners, and of runs of every kind with numbers at random.

    Args:
        problem: the data and the network.
        learners: what is to be named.
        steps: of every run.
        runs: of every kind.
        seed: of numbers and networks.

    Returns:
        ``features`` [run, feature] with ``names`` [run], and ``asked`` [learner, feature].
    """
    rng, features, names = np.random.default_rng(seed), [], []
    for i, (name, kind) in enumerate(tqdm(KINDS.items(), desc="baseline")):
        drawn = [kind.draw(rng) for _ in range(runs)]
        numbers = {key: jnp.array([d[key] for d in drawn]) for key in drawn[0]}
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed + 1), i), runs)

        def run(numbers: Any, key: Array, kind: Any = kind) -> Array:
            return observe(problem, kind.build(**numbers), steps, key)

        features.append(np.asarray(jax.jit(jax.vmap(run))(numbers, keys)))
        names += [name] * runs
    asked = [
        jax.jit(lambda key, made=x.build: observe(problem, made(), steps, key))(
            jax.random.key(seed)
        )
        for x in learners.values()
    ]
    return {
        "features": np.concatenate(features),
        "names": np.array(names),
        "asked": np.stack([np.asarray(x) for x in asked]),
    }


def classify(measured: Mapping[str, Any], learners: Mapping[str, Learner], seed: int) -> Classified:
    """Train both classifiers on three quarters of the runs, and ask them of the rest."""
    features, names = compressed(measured["features"]), np.asarray(measured["names"])
    asked = compressed(measured["asked"])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    count = round(TRAINED * len(names))
    fitted, rest = order[:count], order[count:]
    mixed = rng.permutation(names[fitted])
    said, accuracy, shuffled = {}, {}, {}
    for name in ("random forest", "linear machine"):
        machine = _machine(name, seed).fit(features[fitted], names[fitted])
        said[name] = dict(zip(learners, map(str, machine.predict(asked)), strict=True))
        accuracy[name] = float((machine.predict(features[rest]) == names[rest]).mean())
        control = _machine(name, seed).fit(features[fitted], mixed)
        shuffled[name] = float((control.predict(features[rest]) == names[rest]).mean())
    return Classified(said, accuracy, shuffled)


def compressed(features: np.ndarray) -> np.ndarray:
    """Statistics span many sizes: a logarithm with a sign."""
    return np.arcsinh(np.nan_to_num(np.asarray(features, float), posinf=0, neginf=0) * 1e6)


def _machine(name: str, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if name == "random forest":
        return RandomForestClassifier(300, random_state=seed)
    return make_pipeline(StandardScaler(), LinearSVC(max_iter=20_000, random_state=seed))
