"""Which member of the family a learner is: many starts, and options compared by their evidence."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from beliefnav.inference.learners.family import NAMES, Movement, Options, projected
from beliefnav.inference.learners.least_squares import Minimum, minimise

__all__ = [
    "MIN_PATH",
    "Member",
    "NUM_WINDOWS",
    "PRIOR",
    "TOLD",
    "cells",
    "held",
    "ranked",
    "refitted",
    "search",
    "sharpen",
    "weights_of",
    "windows",
]

Floats = NDArray[np.float64]

PRIOR = {
    "b1": (2.0, 3.0),
    "b2": (4.0, 3.0),
    "power": (0.5, 1.0),
    "eps": (-18.0, 9.0),
    "decay": (0.0, 1e3),
    "clip": (0.0, 5.0),
}
"""Mean and standard deviation, of logs of memories, of the power, of logs of eps and clip."""
NUM_SMALL, NUM_POLISHED = 12, 6
MIN_PATH = 4
"""Fewer coordinates do not tell a rate at every step."""
NUM_WINDOWS = 10
"""Parts of a recording, of equal length, that are weighed and judged one by one."""


class Member(NamedTuple):
    """A member of the family, fitted.

    Attributes:
        options: which it is.
        position: its numbers, see `beliefnav.inference.learners.family.NAMES`.
        information: how curved the log density is there, in units of the noise of ``scale``.
        rates: [step].
        precisions: [step], of the rates, in the same units.
        rate_slopes: of the mean rate with the numbers.
        residual: [step, param].
        scale: mean square of the residual in units of its variance, by the weights of the fit.
        evidence: Bayesian information criterion with an unknown scale, as a log density.
    """

    options: Options
    position: Floats
    information: Floats
    rates: Floats
    precisions: Floats
    rate_slopes: Floats
    residual: Floats
    scale: float
    evidence: float


def _prior() -> tuple[Array, Array]:
    centre = jnp.array([PRIOR[n][0] for n in NAMES])
    return centre, jnp.array([PRIOR[n][1] ** -2.0 for n in NAMES])


@partial(jax.jit, static_argnames="num_steps")
def _fit(
    starts: Array, options: Options, free: Array, data: Movement, weight: Array, num_steps: int
) -> Minimum:
    """Members side by side, each from its start."""

    def one(start: Array, options: Options, free: Array, weight: Array) -> Minimum:
        logs = -jnp.log(jnp.where(weight > 0, weight, 1))

        def moments(x: Array) -> tuple[Array, Array]:
            return projected(x, options, data, weight)[0], logs

        seen = (weight > 0).astype(weight.dtype)
        return minimise(moments, data.displacement, seen, start, free, _prior(), num_steps)

    return jax.vmap(one)(starts, options, free, weight)


@jax.jit
def _misfit(starts: Array, options: Options, data: Movement, weight: Array) -> Array:
    def one(start: Array, options: Options) -> Array:
        step, _, _ = projected(start, options, data, weight)
        return (weight * (data.displacement - step) ** 2).sum()

    return jax.vmap(one)(starts, options)


@jax.jit
def _look(positions: Array, options: Options, data: Movement, weight: Array) -> tuple[Array, ...]:
    def one(x: Array, options: Options, weight: Array) -> tuple[Array, ...]:
        step, rate, precision = projected(x, options, data, weight)

        def mean_rate(x: Array) -> Array:
            return projected(x, options, data, weight)[1].mean()

        slopes = jax.jacfwd(mean_rate)(x)
        return data.displacement - step, rate, precision, slopes

    return jax.vmap(one)(positions, options, weight)


TOLD = 3.0
"""Nats of evidence below which a difference is none."""


def ranked(members: list[Member]) -> list[Member]:
    """By evidence; of those that are as good as the best, the plainest first."""
    top = max(m.evidence for m in members)

    def key(member: Member) -> tuple[bool, float, float]:
        o = member.options
        behind = member.evidence < top - TOLD
        odd = sum(map(float, o)) + 0.5 - 1.5 * float(o.corrected) + 0.1 * float(o.inside)
        return behind, 0.0 if behind else odd, -member.evidence

    return sorted(members, key=key)


def _stack(options: Sequence[Options]) -> Options:
    return Options(*(jnp.array([float(o[i]) for o in options]) for i in range(len(Options()))))


def members(*, path: bool) -> list[Options]:
    """The members that are tried first, without variants of eps and decay."""
    moments = [
        {},
        {"average": 1.0},
        {"average": 1.0, "centred": 1.0},
        {"average": 1.0, "total": 1.0},
        {"average": 1.0, "largest": 1.0},
    ]
    every = []
    for second in moments:
        for corrected in (1.0, 0.0):
            for ahead in (0.0, 1.0):
                for inside in (0.0, 1.0) if second else (0.0,):
                    for p in (0.0, 1.0) if path else (0.0,):
                        every.append(
                            Options(
                                corrected=corrected,
                                look_ahead=ahead,
                                inside=inside,
                                path=p,
                                **second,
                            )
                        )
    return every


def variants(best: Options, *, norm: bool, params: bool) -> list[Options]:
    """Members that differ from one in a single option."""
    flips = ["to_start", "in_gradient"] if params else []
    flips += ["look_ahead", "corrected"]
    if best.average:
        flips += ["centred"] if not (best.total or best.largest) else []
        flips += ["inside"]
    if norm:
        flips += ["clipped"]
    flips += ["path"] if best.path else []
    own = best._asdict()
    several = [best._replace(**{n: 1 - float(own[n])}) for n in flips]
    if best.average:
        kept = ("path", "clipped", "look_ahead", "corrected")
        plain = Options(**{n: float(own[n]) for n in kept})
        several += [plain, plain._replace(path=0.0)]
    if best.average and not best.horizon:
        several.append(best._replace(horizon=1.0, inside=0.0))
    return [o._replace(horizon=0.0) if o.inside and o.horizon else o for o in several]


def windows(num_steps: int) -> list[NDArray[np.int_]]:
    """The steps of every window."""
    return np.array_split(np.arange(num_steps), min(NUM_WINDOWS, num_steps))


def cells(residual: Floats, variance: Floats, seen: Floats) -> Floats:
    """Mean square of a residual in units of its variance [window, param], of ten windows."""
    square = seen * residual**2 / variance
    total = np.stack([square[w].sum(0) for w in windows(len(square))])
    count = np.stack([seen[w].sum(0) for w in windows(len(square))])
    return total / np.maximum(count, 1)


def spread(values: Floats, num_steps: int) -> Floats:
    """Values of cells [window, param], for every step of their window."""
    parts = zip(values, windows(num_steps), strict=True)
    return np.concatenate([np.repeat(v[None], len(w), 0) for v, w in parts])


def weights_of(residual: Floats, variance: Floats, seen: Floats) -> Floats:
    """One over the variance [step, param], less where a cell of a residual exceeds it."""
    scale = np.maximum(spread(cells(residual, variance, seen), len(residual)), 1)
    return seen / (variance * scale)


def held(starts: Floats, options: Options, free: Floats, data: Movement, weight: Floats) -> Floats:
    """The best potentials [start] of a member where some of its numbers stay as they start.

    Args:
        starts: [start, number], at most `NUM_POLISHED`.
        options: the member.
        free: [start, number] of 0 and 1; at 0 a number is held.
        data: what it is fitted to.
        weight: [step, param].
    """
    count = len(starts)
    more = np.zeros(NUM_POLISHED, int)
    more[:count] = np.arange(count)
    weights = jnp.repeat(jnp.asarray(weight)[None], NUM_POLISHED, 0)
    stacked = _stack([options] * NUM_POLISHED)
    arguments = jnp.asarray(starts[more]), stacked, jnp.asarray(free[more]), data, weights
    return np.asarray(_fit(*arguments, 12).potential)[:count]


def _evidence(
    options: Options,
    residual: Floats,
    variance: Floats,
    seen: Floats,
    fit: tuple[Floats, Floats],
) -> float:
    """BIC with a scale that is unknown and at least that of rounding; a path pays for its steps."""
    rates, precisions = fit
    count = seen.sum()
    scale = max(float((seen * residual**2 / variance).sum() / count), 1.0)
    score = -count / 2 * np.log(scale) - 0.5 * (seen * residual**2 / variance).sum() / scale
    score -= sum(options.free()) / 2 * np.log(count)
    if options.path:
        walk = np.mean(np.diff(rates) ** 2)
        score -= 0.5 * np.log1p(walk * precisions / scale).sum() + len(rates) / 2
    else:
        score -= np.log(count) / 2
    return float(score)


def _polish(
    start: Floats,
    options: list[Options],
    data: Movement,
    base: Floats,
    robust: int,
    known: Floats | None = None,
) -> list[Member]:
    """Fit members to all entries, with weights that fall where the residual is large.

    The first weights are equal for all entries of a coordinate, or those of a known residual.
    """
    seen, total = np.asarray(data.seen), len(options)
    filled = options + [options[0]] * (NUM_POLISHED - total)
    x = np.concatenate([start, np.repeat(start[:1], NUM_POLISHED - total, 0)])
    free = jnp.array([o.free() for o in filled])
    stacked = _stack(filled)
    size = np.sqrt((seen * data.displacement**2).sum(0) / np.maximum(seen.sum(0), 1))
    first = 1e-2 * size**2 / base + 1 if robust else np.ones_like(base)
    if known is not None:
        first = np.maximum(spread(cells(known, base, seen), len(base)), 1)
    scale = np.repeat(first[None], NUM_POLISHED, 0)
    weight = jnp.asarray(seen / (base * scale))
    found = _fit(jnp.asarray(x), stacked, free, data, weight, 12)
    for _ in range(robust):
        left = np.asarray(_look(found.position, stacked, data, weight)[0])
        scale = np.stack([np.maximum(spread(cells(r, base, seen), len(r)), 1) for r in left])
        weight = jnp.asarray(seen / (base * scale))
        found = _fit(found.position, stacked, free, data, weight, 12)
    x = np.asarray(found.position)
    parts = [np.asarray(a) for a in _look(jnp.asarray(x), stacked, data, weight)]
    result = []
    for i, option in enumerate(options):
        residual, rates, precisions, slopes = (part[i] for part in parts)
        robust_scale = seen * residual**2 / (base * scale[i])
        cell_evidence = -0.5 * (seen * np.log(scale[i])).sum() - 0.5 * robust_scale.sum()
        evidence = _evidence(option, residual, base, seen, (rates, precisions))
        if robust:
            evidence += cell_evidence - _plain(residual, base, seen)
        result.append(
            Member(
                option,
                x[i],
                np.asarray(found.information[i]),
                rates,
                precisions,
                slopes,
                residual,
                float(robust_scale.sum() / seen.sum()),
                evidence,
            )
        )
    return result


def _plain(residual: Floats, variance: Floats, seen: Floats) -> float:
    square = (seen * residual**2 / variance).sum()
    scale = max(square / seen.sum(), 1.0)
    return float(-seen.sum() / 2 * np.log(scale) - square / scale / 2)


def search(data: Movement, *, norm: bool, params: bool, robust: int = 4) -> list[Member]:
    """All members that come near, the best first.

    Args:
        data: what the learner did, in float64.
        norm: whether the norm of the whole gradient is known.
        params: whether the parameters are known.
        robust: how often the weights of cells are made anew.

    Returns:
        Fitted members, by evidence.
    """
    base = np.asarray(data.variance)
    num_steps, num_params = base.shape
    few = np.linspace(0, num_params - 1, min(NUM_SMALL, num_params)).astype(int)
    early = slice(0, 300)
    small = jax.tree.map(lambda a: a[early] if a.ndim == 1 else a[early][:, few], data)
    size = jnp.sqrt((small.seen * small.displacement**2).mean(0))
    weight = small.seen / (small.variance + (1e-3 * size) ** 2)
    core = members(path=num_params >= MIN_PATH)
    grid, which = [], []
    typical = float(np.log(np.mean(np.asarray(small.gradient) ** 2) + 1e-30))
    for i, option in enumerate(core):
        eps = (-18.0, typical / 2 if not option.inside else typical) if option.average else (-18.0,)
        for b1 in (0.0, 2.3, 4.6):
            for b2 in (2.3, 4.6, 6.9) if option.free()[1] else (4.6,):
                for e in eps:
                    grid.append([b1, b2, 0.5, e, 0.0, 0.0])
                    which.append(i)
    starts, which = np.array(grid), np.array(which)
    tried = _stack([core[i] for i in which])
    misfits = np.asarray(_misfit(jnp.asarray(starts), tried, small, weight))
    misfits = np.where(np.isfinite(misfits), misfits, np.inf)
    chosen = [np.flatnonzero(which == i)[np.argmin(misfits[which == i])] for i in range(len(core))]
    free = jnp.array([o.free() for o in core])
    weights = jnp.repeat(weight[None], len(core), 0)
    found = _fit(jnp.asarray(starts[chosen]), _stack(core), free, small, weights, 15)
    seen, variance = np.asarray(small.seen), np.asarray(1 / jnp.where(weight > 0, weight, 1))
    looked = _look(found.position, _stack(core), small, weights)
    residuals, rates, precisions, _ = (np.asarray(a) for a in looked)
    scores = np.array(
        [
            _evidence(o, residuals[i], variance, seen, (rates[i], precisions[i]))
            for i, o in enumerate(core)
        ]
    )
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf))[:NUM_POLISHED]
    best = _polish(np.asarray(found.position)[order], [core[i] for i in order], data, base, robust)
    best = ranked(best)
    for _ in range(4):
        others = [
            o
            for o in variants(best[0].options, norm=norm, params=params)
            if o not in [m.options for m in best]
        ]
        before = best[0]
        for i in range(0, len(others), NUM_POLISHED):
            part = others[i : i + NUM_POLISHED]
            begin = np.repeat(before.position[None], len(part), 0)
            for row, option in zip(begin, part, strict=True):
                if option.clipped and not before.options.clipped:
                    row[5] = float(np.log(np.median(np.asarray(data.norm))))
            best += _polish(begin, part, data, base, robust)
        best = ranked(best)
        if best[0].options == before.options:
            break
    return best


def refitted(members: list[Member], data: Movement) -> list[Member]:
    """The first of some members fitted on, to other weights."""
    few = members[:NUM_POLISHED]
    starts = np.stack([m.position for m in few])
    options, base = [m.options for m in few], np.asarray(data.variance)
    return ranked(_polish(starts, options, data, base, 0))


def sharpen(member: Member, data: Movement) -> Member:
    """A member fitted on, with weights that already leave out where it does not hold."""
    base = np.asarray(data.variance)
    start = member.position[None]
    return _polish(start, [member.options], data, base, 8, member.residual)[0]
