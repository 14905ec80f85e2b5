r"""From a recording of any learner to what it assumes.

Others classify rules from observables (Nayebi et al., "Identifying learning rules from neural
network observables", NeurIPS 2020), fit the coefficients of plasticity through trajectories (Mehta
et al., "Model based inference of synaptic plasticity rules", NeurIPS 2024), or invert optimal
agents (Wu, Schrater and Pitkow, "Inverse POMDP: inferring what you think from what you do",
arXiv:1805.09864, 2018; Kwon et al., "Inverse rational control with partially observable continuous
nonlinear dynamics", NeurIPS 2020). Here the parameters of the family are assumptions about a
landscape; they have a posterior and families an evidence, and what no data can tell is said: the
classes of the first have no numbers, the fits of the second no verdict, and the agents of the
others no rounding to be judged by.
"""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from beliefnav.inference.learners.family import Movement, Options
from beliefnav.inference.learners.intervals import Interval, Z, correction_variance, intervals
from beliefnav.inference.learners.judging import Judgement, Noise, execution_noise, judge
from beliefnav.inference.learners.movement import Seen, read
from beliefnav.inference.learners.searching import (
    MIN_PATH,
    NUM_WINDOWS,
    PRIOR,
    TOLD,
    Member,
    refitted,
    search,
    sharpen,
)
from beliefnav.inference.learners.signs import Signs, fit_signs

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Learner", "NONE", "NOISY", "OF", "Parameter", "UNTOLD", "infer"]

Floats = NDArray[np.float64]
OF, NOISY = "of the family", "of the family, with noise"
NONE, UNTOLD = "none of these", "not told"
MAX_PARAMS = 64
MAX_UNTOLD = 1e-4
"""The largest share of the movement that may be unexplained, for unknown reasons, where numbers
are told: of more, the fit may have made something of what it should not explain."""
LEAST = 1e-2
"""The least variance of a noisy step, beside that of the usual step of its coordinate."""


class Parameter(NamedTuple):
    """A number and how well it is known.

    Attributes:
        median: the most probable value.
        low: the 2.5 % point. Where the verdict is `UNTOLD`, because the parameters or the start of
            the recording are not known, a bound: so far the residual would reach if all of it went
            along with this number.
        high: the 97.5 % point, or the other bound.
        curved: whether these data tell it; if not, the interval is that of the prior, or wider
            than half of it, or no member of the family explains enough for numbers to mean
            anything.
    """

    median: float
    low: float
    high: float
    curved: bool


class Learner(NamedTuple):
    """What a learner assumes, as far as its recording tells.

    Attributes:
        verdict: `OF`, `NOISY`, `NONE` or `UNTOLD`.
        parameters: name -> number; ``rate`` multiplies a mean of weights that sum to one.
        options: name -> what fits best and all else that fits as well.
        rates: [step].
        unexplained: mean square of the residual over that of the displacement.
        rounding: the same of rounding, NaN if the parameters are not known.
        coordinates: labels of those that are not explained.
        steps: [first, last) of windows that are not explained.
        statements: on the input, and on what cannot be told.
        residual: [step, param], of what was used.
    """

    verdict: str
    parameters: dict[str, Parameter]
    options: dict[str, tuple[object, ...]]
    rates: Floats
    unexplained: float
    rounding: float
    coordinates: tuple[str, ...]
    steps: tuple[tuple[int, int], ...]
    statements: tuple[str, ...]
    residual: Floats


def infer(stream: "xr.Dataset", *, second: bool = True) -> Learner:
    """What a learner assumes, judged by the rounding of its own parameters.

    At most 1,000 steps of 64 coordinates are used, spread over all coordinates.

    Args:
        stream: ``gradient``, ``displacement`` and, if known, ``params`` (those before the step) of
            dimensions (step, param); ``gradient_norm`` (step), for clipping by global norm.
        second: where some coordinates are not explained, look whether they follow a second learner.

    Returns:
        The posterior around its mode, and a verdict.

    Raises:
        ValueError: the stream has another layout, no displacement, or lacks steps in between.
    """
    given = read(stream)
    if not given.usable:
        return _untold(given)
    columns = np.linspace(0, len(given.labels) - 1, min(MAX_PARAMS, len(given.labels))).astype(int)
    seen = _part(given, columns)
    total = (seen.seen * seen.displacement**2).sum()
    rounding = float((seen.seen * seen.variance).sum() / total)
    if seen.rounding_known and seen.displacement.shape[1] >= 2:
        args = seen.gradient, seen.displacement, seen.params, seen.variance, seen.seen
        signs = fit_signs(*args)
        if signs is not None:
            return _by_signs(seen, signs, rounding, float(total))
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        return _smooth(seen, rounding, float(total), second)


def _part(given: Seen, columns: NDArray[np.int_]) -> Seen:
    def cut(a: Floats) -> Floats:
        return a[:, columns]

    return given._replace(
        gradient=cut(given.gradient),
        displacement=cut(given.displacement),
        params=cut(given.params),
        seen=cut(given.seen),
        variance=cut(given.variance),
        labels=[given.labels[i] for i in columns],
    )


def _data(seen: Seen) -> Movement:
    norm = np.ones(len(seen.gradient)) if seen.norm is None else np.maximum(seen.norm, 1e-100)
    arrays = seen.gradient, seen.displacement, seen.params, seen.seen, seen.variance, norm
    return Movement(*(jnp.asarray(a) for a in arrays))


def _smooth(seen: Seen, rounding: float, total: float, second: bool) -> Learner:
    data = _data(seen)
    found = search(data, norm=seen.norm is not None, params=seen.rounding_known)
    if not seen.rounding_known:
        seen, data, found = _own_rounding(seen, data, found[0])
    elif seen.started:
        steps = seen.displacement - found[0].residual
        more = correction_variance(found[0], steps, seen.precision)
        seen = seen._replace(variance=seen.variance + more)
        data = data._replace(variance=jnp.asarray(seen.variance))
    best, statements = found[0], list(seen.statements)
    causes = {} if seen.rounding_known else _causes(seen)
    said = judge(best.residual, seen.variance, seen.seen, causes, noisy=not seen.rounding_known)
    verdict, noise = OF if said.explained else NONE, Noise(0.0, 0.0)
    if verdict == NONE and seen.rounding_known and not seen.coarse:
        again = _with_noise(seen, data, best)
        left = again.found[0].residual
        variance = np.asarray(again.data.variance)
        noisy = judge(left, variance, seen.seen, _causes(seen), noisy=True)
        spread = float((variance * seen.seen).sum() / total)
        if noisy.explained and spread < 0.9:
            verdict, found, said, noise, data = NOISY, again.found, noisy, again.noise, again.data
            best = found[0]
        else:
            best = sharpen(best, data)
            said = judge(best.residual, seen.variance, seen.seen, {}, noisy=False)
            statements += _outside(noisy, spread)
    verdict, why, bounds = _doubted(verdict, seen)
    statements += why
    unexplained = float((seen.seen * best.residual**2).sum() / total)
    places = len(said.coordinates) / len(seen.labels) + len(said.windows) / NUM_WINDOWS
    told = verdict != NONE or 0 < places < 0.75
    if bounds and unexplained > MAX_UNTOLD:
        told = False
    parameters = _parameters(intervals(best, data, seen.precision, bounds=bounds), seen, told)
    if verdict == NOISY:
        parameters |= _noises(noise)
    coordinates = tuple(seen.labels[i] for i in said.coordinates)
    first = seen.first_step
    steps = tuple((first + a, first + b) for a, b in said.windows)
    if verdict == NONE and second and 2 <= len(coordinates) <= len(seen.labels) - 2:
        rest = np.array(said.coordinates)
        other = _smooth(_part(seen, rest), rounding, total, False)
        if other.verdict == OF:
            statements.append(
                f"Mixed: {len(rest)} of {len(seen.labels)} coordinates follow a second learner of "
                f"the family, with b1 {other.parameters['b1'].median:.4g} and mean rate "
                f"{other.parameters['rate'].median:.4g}; the numbers here are those of the others."
            )
    if verdict == NONE:
        statements.append(
            "Rules that couple entries (by matrices, trust ratios or a norm) need whole arrays, "
            "and clipping the norm of the whole gradient; entries alone do not tell them."
        )
    elif told and verdict != UNTOLD and best.options.path:
        statements.append(
            "The rate varies: a schedule does that, and so do a trust ratio and what cuts or "
            "normalises whole arrays; entries alone do not tell which."
        )
    return Learner(
        verdict,
        parameters,
        _options(found if told else [best], best),
        best.rates,
        unexplained,
        rounding if seen.rounding_known else np.nan,
        coordinates,
        steps,
        tuple(statements),
        best.residual,
    )


def _doubted(verdict: str, seen: Seen) -> tuple[str, list[str], bool]:
    """A verdict that stands on what is known, why if it does not, and whether only bounds do."""
    if seen.coarse or not seen.rounding_known:
        return UNTOLD, [], True
    if verdict == OF or verdict == NOISY and seen.started:
        return verdict, [], False
    if not seen.started:
        said = "What is not explained may be what is not known of this recording."
        return UNTOLD, [said], True
    if len(seen.labels) < MIN_PATH:
        said = (
            f"Few: {len(seen.labels)} coordinates do not tell a rate that varies from another "
            f"rule; at least {MIN_PATH} do."
        )
        return UNTOLD, [said], True
    return verdict, [], False


def _own_rounding(seen: Seen, data: Movement, first: Member) -> tuple[Seen, Movement, list[Member]]:
    """Of parameters that were not recorded: rounding taken from what is left, by coordinate."""
    found = [first]
    for _ in range(2):
        square = (seen.seen * found[0].residual ** 2).sum(0) / np.maximum(seen.seen.sum(0), 1)
        seen = seen._replace(variance=np.broadcast_to(square, data.variance.shape) + 1e-300)
        data = data._replace(variance=jnp.asarray(seen.variance))
        found = search(data, norm=seen.norm is not None, params=False, robust=0)
    return seen, data, found


class _Executed(NamedTuple):
    """Members under noise of execution, the best first, that noise, and what they were fitted to.

    The variance of ``data`` is that of the noise, and larger where a step is small.
    """

    found: list[Member]
    noise: Noise
    data: Movement


def _with_noise(seen: Seen, data: Movement, first: Member) -> _Executed:
    r"""The members, searched again with the weights of noise of execution.

    $$ \Delta\theta = \mu (1 + \sigma z) + \tau z' + \text{rounding} : $$

    each step says how large its noise is. The weights are those of the last fit, and the rate does
    not stand in them: the likelihood has a mode of its own wherever a step crosses 0 next to a
    small displacement, and its curvature there says nothing of how far other modes are. For the
    same reason no step counts as known to less than a tenth of the usual noise, here and where
    the residual is judged.
    """
    found = [first]
    noise, weighted = Noise(0.0, 0.0), data
    for i in range(4):
        step = seen.displacement - found[0].residual
        noise = execution_noise(found[0].residual, step, seen.variance, seen.seen)
        square = step**2 + LEAST * (step**2).mean(0)
        variance = seen.variance + noise.relative**2 * square + noise.absolute**2
        weighted = data._replace(variance=jnp.asarray(variance))
        if i < 2:
            options = {"norm": seen.norm is not None, "params": seen.rounding_known}
            found = search(weighted, **options, robust=0)
        else:
            found = refitted(found, weighted)
    return _Executed(found, noise, weighted)


def _causes(seen: Seen) -> dict[str, Floats]:
    g = seen.gradient
    before = np.concatenate([np.zeros_like(g[:1]), g[:-1]])
    causes = {"the gradient": g, "the gradient before": before, "the sign": np.sign(g)}
    return causes | ({"the parameters": seen.params} if seen.rounding_known else {})


def _outside(said: Judgement, spread: float) -> list[str]:
    if spread >= 0.9:
        return [f"Noise of execution would have to be {spread:.0%} of the movement."]
    if said.patterns:
        return [f"What is left is no noise: it goes along with {', '.join(said.patterns)}."]
    return ["What is left is no noise: coordinates or windows differ in it."]


def _parameters(found: dict[str, Interval], seen: Seen, told: bool) -> dict[str, Parameter]:
    """Intervals, and whether these data tell a number: beside its prior, before any truth."""
    widest = {name: 0.5 * sd for name, (_, sd) in PRIOR.items()} | {"decay": 1.0, "eps": 1.0}
    result: dict[str, Parameter] = {}
    for name, interval in found.items():
        if name == "decay" and not seen.rounding_known:
            continue
        wide = interval.deviation
        ends: Floats = np.array(interval)
        curved = told and wide < (abs(interval.middle) / Z if name == "rate" else widest[name])
        if name in ("b1", "b2"):
            ends = -np.expm1(-ends)
        elif name in ("eps", "clip"):
            ends = np.exp(ends)
        median, low, high = map(float, ends)
        result[name] = Parameter(median, low, high, bool(curved))
    return result


def _noises(noise: Noise) -> dict[str, Parameter]:
    """Those noises that are there, with the log-normal intervals of their moments."""
    given = {
        "relative_noise": (noise.relative, noise.relative_sd),
        "absolute_noise": (noise.absolute, noise.absolute_sd),
    }
    result: dict[str, Parameter] = {}
    for name, (value, sd) in given.items():
        if value:
            half = np.exp(min(Z * sd, 100.0))
            result[name] = Parameter(value, value / half, value * half, sd < 1 / Z / 2)
    return result


def _words(options: Options) -> dict[str, object]:
    """The options in words."""
    o = options
    kinds = {"sum": o.total, "largest": o.largest, "centred": o.centred, "average": o.average}
    second = next((name for name, has in kinds.items() if has), "none")
    decay = "gradient" if o.in_gradient else "step"
    return {
        "second_moment": second,
        "corrected": bool(o.corrected),
        "look_ahead": bool(o.look_ahead),
        "eps_at": "horizon" if o.horizon else "inside" if o.inside else "outside",
        "rate": "path" if o.path else "constant",
        "decay_to": "start" if o.to_start else "zero",
        "decay_in": decay,
        "clipped": bool(o.clipped),
        "sign": False,
    }


def _options(found: list[Member], best: Member) -> dict[str, tuple[object, ...]]:
    """What the best has, and what others have that are as good."""
    near = [_words(m.options) for m in found if m.evidence > best.evidence - TOLD]
    own = _words(best.options)
    return {
        name: (value, *dict.fromkeys(w[name] for w in near if w[name] != value))
        for name, value in own.items()
    }


def _around(middle: float, half: float, curved: bool) -> Parameter:
    return Parameter(middle, middle - half, middle + half, curved)


def _between(ends: tuple[float, float], told: bool) -> Parameter:
    """A memory that is known as an interval; curved if that is short beside its distance to 1."""
    low, high = map(float, ends)
    return Parameter((low + high) / 2, low, high, bool(told and high - low < (1 - high) + 0.05))


def _by_signs(seen: Seen, found: Signs, rounding: float, total: float) -> Learner:
    judged = judge(found.residual, seen.variance, seen.seen, {}, noisy=False)
    statements = list(seen.statements)
    fits = found.mistakes <= max(1, 1e-3 * found.told)
    if not fits:
        statements.append(
            f"The moves are all of one size, but no two memories explain {found.mistakes} of "
            f"{found.told} signs."
        )
    verdict = OF if fits and judged.explained else NONE
    if seen.coarse or not seen.started:
        verdict, why, _ = _doubted(verdict, seen)
        statements += why
    told = verdict != UNTOLD
    # A start that is not known costs the memories; size and decay are of single steps.
    sizes = told or judged.explained and not seen.coarse
    half, spread = Z * found.rate_sd, Z * found.decay_sd
    parameters = {
        "rate": _around(float(found.rates.mean()), half, sizes),
        "b1": _between(found.b1, told),
        "b2": _between(found.b2, told),
        "decay": _around(found.decay, spread, bool(sizes and spread < 1)),
    }
    options: dict[str, tuple[object, ...]] = {
        "sign": (True,),
        "rate": ("path" if found.path else "constant",),
        "one_memory": (True, False) if found.equal else (False,),
    }
    return Learner(
        verdict,
        parameters,
        options,
        found.rates,
        float((seen.seen * found.residual**2).sum() / total),
        rounding,
        tuple(seen.labels[i] for i in judged.coordinates),
        tuple((seen.first_step + a, seen.first_step + b) for a, b in judged.windows),
        tuple(statements),
        found.residual,
    )


def _untold(seen: Seen) -> Learner:
    nothing = np.zeros(len(seen.gradient))
    return Learner(
        UNTOLD, {}, {}, nothing, np.nan, np.nan, (), (), seen.statements, seen.displacement
    )
