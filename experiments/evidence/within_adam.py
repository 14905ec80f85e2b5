r"""Inside one rule: does the belief that predicts better train better?

Adam has two memories, $\beta_1$ of the mean and $\beta_2$ of the mean square. At every pair of a
grid its belief is scored on the same recorded gradients, those of Adam with its defaults, and Adam
is trained with the rate that is best on the validation split. The normative reading of Adam, that
its numbers are beliefs about gradients, expects pairs that predict better to end with less error.

The rank correlation is over the pairs of the grid. Its interval is over seeds: networks that are
recorded and networks that are trained are both drawn again with replacement. How well the results
of half of the seeds agree with those of the other half bounds what any score could reach.
"""

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats
from tqdm import tqdm

from beliefnav import rules
from experiments.evidence import scores
from experiments.evidence.compared import TRIMMED, complete, mean_seen
from experiments.evidence.config import Config
from experiments.evidence.said import moments
from experiments.evidence.streams import STAGES, Stream, recorded
from experiments.kept import Kept
from experiments.tasks import measuring
from experiments.tasks.catalogue import TASKS
from experiments.tasks.measuring import Setup
from experiments.tasks.rules import Rule
from experiments.tasks.task import Task

B1 = (0.0, 0.6, 0.8, 0.9, 0.97)
B2 = (0.8, 0.9, 0.97, 0.99, 0.999)
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
KINDS = ("both", "location", "scale")
"""Scores of the pair, of the mean alone and of the mean square alone."""
RESULTS = ("test error", "test nats", "train nats")
GRID = tuple(itertools.product(B1, B2))


class Trained(NamedTuple):
    """What came of training at every pair.

    Attributes:
        rates: the chosen ones [pair].
        results: each of `RESULTS` -> [pair, network].
    """

    rates: np.ndarray
    results: dict[str, np.ndarray]


class Within(NamedTuple):
    """One task.

    Attributes:
        scores: each of `KINDS` -> [pair, network], in nats a reading.
        trained: what came of training.
    """

    scores: dict[str, np.ndarray]
    trained: Trained


def measure(config: Config, kept: Kept) -> dict[str, Within]:
    """Record, score and train on every task."""
    found = {}
    for name in config.tasks:
        task = TASKS[name]()
        stream = recorded(
            kept,
            name,
            task,
            config.recorded_steps,
            config.coordinates,
            config.recordings,
            config.seed,
        )
        task = task._replace(steps=min(task.steps, config.steps))
        found[name] = Within(score(stream), train(config, kept, name, task))
    return found


def score(stream: Stream) -> dict[str, np.ndarray]:
    """Each of `KINDS` -> trimmed mean over coordinates, mean over stages [pair, network]."""
    means, sizes = moments(stream, np.array(B1), np.array(B2))
    places = np.array([(i, j) for i in range(len(B1)) for j in range(len(B2))])
    parts: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for number in range(len(STAGES)):
        cut = stream.stage(number)
        y, m, v = (x[..., cut, :].astype(float) for x in (stream.gradient, means, sizes))
        among = complete(stream, number)
        of_mean, of_size = scores.location(y, m), scores.scale(y, v)  # [memory, network, ...]
        pairs = [scores.both(y, m[i], v[j]) for i, j in places]
        for kind, found in (
            ("both", np.stack([_trimmed(x, among) for x in pairs])),
            ("location", np.stack([_trimmed(x, among) for x in of_mean])[places[:, 0]]),
            ("scale", np.stack([_trimmed(x, among) for x in of_size])[places[:, 1]]),
        ):
            parts[kind].append(found)
    return {kind: np.mean(found, 0) for kind, found in parts.items()}


def _trimmed(x: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Scores [network, step, coordinate] as one of every network."""
    means = mean_seen(x)
    return np.array(
        [stats.trim_mean(row[kept], TRIMMED) for row, kept in zip(means, among, strict=True)]
    )


def train(config: Config, kept: Kept, name: str, task: Task) -> Trained:
    """Choose a rate for every pair on the validation split, and train other networks with it."""
    setup = Setup(Rule(lambda row: rules.adam(row[0], row[1], row[2]), ()), "number")
    key_tuning, key_final = jax.random.split(jax.random.key(config.seed))
    options: dict[str, Any] = {"task": name, "steps": task.steps, "seed": config.seed}

    def run(what: str, rows: Any, key: Any, networks: int, splits: tuple[str, ...]) -> Any:
        keys, rows = jax.random.split(key, networks), [list(map(float, row)) for row in rows]
        return kept.measure(
            f"{name}/{what}",
            options | {"rows": rows, "networks": networks},
            lambda: measuring.train(task, setup, rows, keys, splits),
        )

    chosen = []
    for b1 in tqdm(B1, desc=f"{name}, rates", unit="b1"):
        rows = [(rate, b1, b2) for b2 in B2 for rate in RATES]
        tuned = run(f"rates {b1:g}", rows, key_tuning, config.tuning_seeds, ("validation",))
        for j in range(len(B2)):
            part = slice(j * len(RATES), (j + 1) * len(RATES))
            chosen.append(RATES[measuring.choose({k: v[part] for k, v in tuned.items()}, [0])[0]])
    rows = [(rate, *pair) for rate, pair in zip(chosen, GRID, strict=True)]
    final: dict[str, list[np.ndarray]] = {result: [] for result in RESULTS}
    for i in tqdm(range(len(B1)), desc=f"{name}, training", unit="b1"):
        part = rows[i * len(B2) : (i + 1) * len(B2)]
        found = run(f"chosen {B1[i]:g}", part, key_final, config.seeds, ("train", "test"))
        for result in RESULTS:
            final[result].append(found[result][:, :, 0])
    return Trained(np.array(chosen), {k: np.concatenate(v) for k, v in final.items()})


# --- correlations -------------------------------------------------------------------------------


def correlation(score: np.ndarray, result: np.ndarray) -> float:
    """Rank correlation of a score with how little of a result there is, both [pair]."""
    if np.ptp(score) == 0 or np.ptp(result) == 0:
        return 0.0  # nothing is told apart
    found: Any = stats.spearmanr(score, -result)
    return float(found.statistic)


def interval(found: list[tuple[np.ndarray, np.ndarray]], resamples: int, seed: int) -> list[float]:
    """Mean correlation over tasks, with the central 95 % of it when networks are drawn again.

    Args:
        found: of every task a score and a result [pair, network].
        resamples: how often they are drawn.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)

    def drawn(x: np.ndarray) -> np.ndarray:
        return x[:, rng.integers(x.shape[1], size=x.shape[1])].mean(1)

    draws = [
        np.mean([correlation(drawn(score), drawn(result)) for score, result in found])
        for _ in range(resamples)
    ]
    value = np.mean([correlation(score.mean(1), result.mean(1)) for score, result in found])
    return [float(value), *map(float, np.quantile(draws, (0.025, 0.975)))]


def agreement(result: np.ndarray) -> float:
    """Rank correlation of a result [pair, network] between halves of the networks, on average."""
    count = result.shape[1]
    halves = itertools.combinations(range(count), count // 2)
    values = []
    for half in halves:
        rest = [i for i in range(count) if i not in half]
        values.append(correlation(-result[:, list(half)].mean(1), result[:, rest].mean(1)))
    return float(np.mean(values))
