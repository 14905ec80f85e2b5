"""Settings are chosen by halving, for one stream or for all.

Twelve settings are tried on the first quarter of the tasks. Where the best of them lies on an edge
of what was tried, settings beyond the edge are tried too, in three rounds at most. The four best
are tried on other seeds; the best one, by all these seeds, is chosen. None of these seeds is one of
those that decide in the end.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from experiments.plasticity.methods import Method

ROUNDS = 3
"""Rounds of settings beyond an edge."""
LEFT = 4
"""Settings that are tried on other seeds."""
FLAT = 0.001
"""Share of a loss that does not count: on an edge the best setting must gain more than this."""

Setting = Mapping[str, float]


class Tuned(NamedTuple):
    """What the tuning of a method on a stream came to.

    Attributes:
        settings: the chosen ones.
        tried: every setting of the first rung.
        losses: of these [setting], mean over seeds; less is better, infinity has diverged.
        edges: names of settings whose chosen value is at an edge of what was tried, and which.
    """

    settings: dict[str, float]
    tried: list[dict[str, float]]
    losses: list[float]
    edges: dict[str, str]


def tune(method: Method, loss: Callable[[Setting, int], Sequence[float] | np.ndarray]) -> Tuned:
    """Choose settings.

    Args:
        method: whose grid is tried.
        loss: ``(setting, rung) -> losses`` of the seeds of rung 0 or 1.
    """
    tried = method.settings()
    first = [_finite(loss(setting, 0)) for setting in tried]
    for _ in range(ROUNDS):
        new = _beyond(tried, first, tried[_best(first)], method.limits)
        tried += new
        first += [_finite(loss(setting, 0)) for setting in new]
        if not new:
            break
    if len(tried) == 1:
        return Tuned(tried[0], tried, [float(first[0].mean())], {})
    left = np.argsort([x.mean() for x in first], kind="stable")[:LEFT]
    pooled = [np.concatenate([first[i], _finite(loss(tried[i], 1))]) for i in left]
    chosen = tried[left[_best(pooled)]]
    edges = {name: end for name, (end, _) in _ends(tried, first, chosen, method.limits).items()}
    return Tuned(chosen, tried, [float(x.mean()) for x in first], edges)


def _beyond(
    tried: Sequence[dict[str, float]],
    losses: Sequence[np.ndarray],
    best: Setting,
    limits: Mapping[str, tuple[float, float]],
) -> list[dict[str, float]]:
    """New settings one step beyond the edges that the best setting lies on.

    The step is the ratio of the outermost two values.
    """
    more = {name: value for name, (_, value) in _ends(tried, losses, best, limits).items()}
    values = [(v, more[k]) if k in more else (v,) for k, v in best.items()]
    made = [dict(zip(best, chosen, strict=True)) for chosen in product(*values)]
    return [setting for setting in made if setting not in tried]


def for_all(tuned: Sequence[Tuned]) -> dict[str, float]:
    """The setting with the least regret, in sum over streams, of those tried on every stream."""
    common = [s for s in tuned[0].tried if all(s in t.tried for t in tuned)]
    losses = np.array([[t.losses[t.tried.index(s)] for s in common] for t in tuned])
    regret = np.sum(losses - losses.min(1, keepdims=True), 0)
    return common[int(np.argmin(np.where(np.isnan(regret), np.inf, regret)))]


def _ends(
    tried: Sequence[dict[str, float]],
    losses: Sequence[np.ndarray],
    chosen: Setting,
    limits: Mapping[str, tuple[float, float]],
) -> dict[str, tuple[str, float]]:
    """Names of settings on an edge -> which edge, and the next value beyond it.

    A direction in which the loss is flat has no edge.
    """
    means = [float(x.mean()) for x in losses]
    found = {}
    for name, value in chosen.items():
        values = sorted({setting[name] for setting in tried})
        low, high = limits.get(name, (0.0, np.inf))
        if len(values) < 2 or value <= low or value >= high:
            continue
        if value not in (values[0], values[-1]):
            continue
        end, inside = ("largest", values[-2]) if value == values[-1] else ("smallest", values[1])
        neighbour = {**chosen, name: inside}
        if neighbour in tried:
            here, there = (means[tried.index({**s})] for s in (chosen, neighbour))
            if not there - here > FLAT * abs(here):
                continue
        found[name] = end, float(np.clip(float(f"{value**2 / inside:.3g}"), low, high))
    return found


def _finite(losses: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(losses), losses, np.inf)


def _best(losses: Sequence[np.ndarray]) -> int:
    return int(np.argmin([x.mean() for x in losses]))
