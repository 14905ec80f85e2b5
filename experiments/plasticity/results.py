"""What is said of a method on a stream, kept in files so that a run that was cut off goes on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.kept import Kept
from experiments.plasticity.config import Config
from experiments.plasticity.methods import METHODS, Method
from experiments.plasticity.streams import Stream
from experiments.plasticity.training import Lives, live
from experiments.report import interval

SUSPICION = 0.5
"""Probability of a switch from which on it counts as an alarm."""
AT_ONCE = 20
"""Steps after a switch within which an alarm is not a false one."""


class Result(NamedTuple):
    """A method on a stream.

    Attributes:
        settings: those that were chosen.
        scores: of all settings that were tried, in the order of the grid.
        lives: of the final runs, [seed, ...].
    """

    settings: dict[str, float]
    scores: list[float]
    lives: Lives


def measure(
    kept: Kept,
    config: Config,
    name: str,
    stream: Stream,
    method_name: str,
    chosen: Mapping[str, Result],
) -> Result:
    """Choose the settings of a method and run it, or read what an earlier run has kept.

    Args:
        kept: results of this run and of earlier ones.
        config: the options.
        name: of the stream.
        stream: the stream.
        method_name: of the method.
        chosen: results of the methods before, whose settings an ablation takes over.
    """
    method = METHODS[method_name]
    seeds = config.seeds if name == "random_labels" else config.other_seeds
    leader = chosen.get(method.follows or "")
    options = {
        "device": jax.devices()[0].device_kind,
        "data_dir": None if config.data_dir is None else str(config.data_dir),
        "seed": config.seed,
        "seeds": seeds,
        "sweep_seeds": config.sweep_seeds,
        "stream": [x for x in stream if not callable(x)],
        "grid": dict(method.quick or {}) if config.quick else _grid(method, leader),
    }

    def compute() -> dict[str, Any]:
        key_sweep, key_final = jax.random.split(jax.random.key(config.seed))
        if config.quick:
            settings, scores = dict(method.quick or {}), []
        elif leader is not None:
            settings, scores = leader.settings, []
        else:
            settings, scores = _sweep(stream, method, config.sweep_seeds, key_sweep)
        grid = {k: np.array([v]) for k, v in settings.items()}
        lives = live(stream, method, grid, seeds, key_final)
        lives = Lives._make([*(x[0] for x in lives[:-1]), lives.seconds])
        return {"settings": settings, "scores": scores, **lives._asdict()}

    found = kept.measure(f"{name}/{method_name}", options, compute)
    return Result(found.pop("settings"), found.pop("scores"), Lives(**found))


def _grid(method: Method, leader: Result | None) -> Any:
    return {k: list(v) for k, v in method.grid.items()} if leader is None else leader.settings


def _sweep(
    stream: Stream, method: Method, seeds: int, key: jax.Array
) -> tuple[dict[str, float], list[float]]:
    """The settings of the best score, averaged over tasks and seeds, and all scores."""
    settings = method.settings()
    if len(settings) == 1:
        return settings[0], []
    grid = {k: np.array([s[k] for s in settings]) for k in method.grid}
    scores = live(stream, method, grid, seeds, key).online.mean((1, 2))
    worst = -np.inf if stream.classifies else np.inf
    ranked = np.where(np.isfinite(scores), scores, worst)
    best = int(ranked.argmax() if stream.classifies else ranked.argmin())
    return settings[best], scores.tolist()


def tenth(stream_length: int) -> int:
    """A tenth of the tasks, at least one."""
    return max(1, stream_length // 10)


def first(lives: Lives) -> np.ndarray:
    """Online score in the first tenth of the tasks [seed]."""
    return lives.online[:, : tenth(lives.online.shape[1])].mean(1)


def last(lives: Lives) -> np.ndarray:
    """Online score in the last tenth of the tasks [seed]."""
    return lives.online[:, -tenth(lives.online.shape[1]) :].mean(1)


def alarms(lives: Lives) -> dict[str, float | None]:
    """How soon switches are seen, and how often they are where there are none.

    ``None`` of what there was none of.
    """
    suspected = lives.switch_probability > SUSPICION  # [seed, task, step]
    switched = suspected[:, 1:, :AT_ONCE]
    seen = switched.any(-1)
    delays = switched.argmax(-1)[seen]
    elsewhere = np.concatenate([suspected[:, :1].ravel(), suspected[:, 1:, AT_ONCE:].ravel()])
    return {
        "detected": float(seen.mean()) if seen.size else None,
        "mean_delay_steps": float(delays.mean()) if delays.size else None,
        "false_alarms_per_1000_steps": 1000 * float(elsewhere.mean()),
    }


def metrics(result: Result) -> dict[str, Any]:
    """What metrics.json says of a method on a stream."""
    lives = result.lives
    number = tenth(lives.online.shape[1])
    said: dict[str, Any] = {
        "first": interval(first(lives)),
        "last": interval(last(lives)),
        "lifetime": interval(lives.online.mean(1)),
        "settings": result.settings,
        "end": interval(lives.end[:, -number:].mean(1)),
        "sweep_scores": result.scores,
        "online_by_task": lives.online.mean(0),
        "microseconds_per_step": 1e6 * lives.seconds,
    }
    for name in ("dead", "rank", "norm", "distance"):
        values = getattr(lives, name)
        said[name] = {"first_task": values[:, 0].mean(), "last": interval(values[:, -1])}
    if lives.switch_probability.any():
        said["alarms"] = alarms(lives)
        if lives.online.shape[1] > 1:
            for name in ("switch_probability", "reset_fraction"):
                after = getattr(lives, name)[:, 1:, :AT_ONCE]
                said[f"{name}_after_switch"] = after.mean((0, 1))
    return said
