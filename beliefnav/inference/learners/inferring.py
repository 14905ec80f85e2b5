r"""From a recording of any learner to what it assumes.

Others classify rules from observables (Nayebi et al., "Identifying learning rules from neural
network observables", NeurIPS 2020), fit the coefficients of plasticity through trajectories (Mehta
et al., "Model based inference of synaptic plasticity rules", NeurIPS 2024), or invert optimal
agents (Wu, Schrater and Pitkow, "Inverse POMDP", 2018; Kwon et al., "Inverse rational control with
partially observable continuous nonlinear dynamics", NeurIPS 2020). Here the parameters of the
family are assumptions about a landscape; they have a posterior and families an evidence, and what
no data can tell is said: the classes of the first have no numbers, the fits of the second no
verdict, and the agents of the others no rounding to be judged by.
"""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from beliefnav.inference.learners.family import NAMES, Movement, Options
from beliefnav.inference.learners.judging import Judgement, Noise, execution_noise, judge
from beliefnav.inference.learners.movement import Seen, read
from beliefnav.inference.learners.searching import PRIOR, TOLD, Member, search, sharpen
from beliefnav.inference.learners.signs import Signs, fit_signs

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Learner", "NONE", "NOISY", "OF", "Parameter", "UNTOLD", "infer"]

Floats = NDArray[np.float64]
OF, NOISY = "of the family", "of the family, with noise"
NONE, UNTOLD = "none of these", "not told"
MAX_STEPS, MAX_PARAMS = 1000, 64


class Parameter(NamedTuple):
    """A number and how well it is known.

    Attributes:
        median: the most probable value.
        low: the 2.5 % point.
        high: the 97.5 % point.
        curved: whether these data tell it; if not, the interval is that of the prior, or wider
            than half of it.
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
        ValueError: the stream has another layout, or no displacement.
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
    rows = slice(0, MAX_STEPS)

    def cut(a: Floats) -> Floats:
        return a[rows][:, columns]

    return given._replace(
        gradient=cut(given.gradient),
        displacement=cut(given.displacement),
        params=cut(given.params),
        seen=cut(given.seen),
        variance=cut(given.variance),
        norm=None if given.norm is None else given.norm[rows],
        labels=[given.labels[i] for i in columns],
    )


def _data(seen: Seen) -> Movement:
    norm = np.ones(len(seen.gradient)) if seen.norm is None else seen.norm
    arrays = seen.gradient, seen.displacement, seen.params, seen.seen, seen.variance, norm
    return Movement(*(jnp.asarray(a) for a in arrays))


def _smooth(seen: Seen, rounding: float, total: float, second: bool) -> Learner:
    data = _data(seen)
    found = search(data, norm=seen.norm is not None, params=seen.rounding_known)
    best, noise, statements = found[0], Noise(0.0, 0.0), list(seen.statements)
    said = judge(best.residual, seen.variance, seen.seen, {}, noisy=False)
    verdict = OF if said.explained and seen.rounding_known else NONE
    if verdict == NONE:
        several, noise, variance = _with_noise(seen, data, found[0])
        noisy = judge(several[0].residual, variance, seen.seen, _causes(seen), noisy=True)
        spread = float((variance * seen.seen).sum() / total)
        if noisy.explained and spread < 0.9:
            found, said, verdict = several, noisy, NOISY if seen.rounding_known else UNTOLD
            best = found[0]
        else:
            best = sharpen(best, data)
            said = judge(best.residual, seen.variance, seen.seen, {}, noisy=False)
            noise = Noise(0.0, 0.0)
            statements += _outside(noisy, spread)
    told = _parameters(best, seen, verdict, noise)
    options = _options(found, best) if verdict != NONE else _options([best], best)
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
    unexplained = float((seen.seen * best.residual**2).sum() / total)
    return Learner(
        verdict,
        told,
        options,
        best.rates,
        unexplained,
        rounding if seen.rounding_known else np.nan,
        coordinates,
        steps,
        tuple(statements),
        best.residual,
    )


def _with_noise(seen: Seen, data: Movement, first: Member) -> tuple[list[Member], Noise, Floats]:
    """The members, searched again with the weights of noise of execution."""
    found, noise, variance = [first], Noise(0.0, 0.0), seen.variance
    for _ in range(3):
        step = seen.displacement - found[0].residual
        noise = execution_noise(found[0].residual, step, seen.variance, seen.seen)
        variance = seen.variance + noise.relative**2 * step**2 + noise.absolute**2
        weighted = data._replace(variance=jnp.asarray(variance))
        found = search(weighted, norm=seen.norm is not None, params=seen.rounding_known, robust=0)
    return found, noise, variance


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


def _parameters(best: Member, seen: Seen, verdict: str, noise: Noise) -> dict[str, Parameter]:
    """Intervals of Laplace's approximation, in the scale of the noise."""
    free = np.array(best.options.free()) > 0
    scale = max(best.ratio, 1.0)
    precision = np.array([PRIOR[n][1] ** -2.0 for n in NAMES])
    information = (best.information - np.diag(np.where(free, precision, 1))) / scale
    full = information + np.diag(np.where(free, precision, 1))
    units = np.sqrt(np.diag(full))
    covariance = np.linalg.inv(full / units[:, None] / units) / units[:, None] / units
    z = stats.norm.isf(0.025)
    result: dict[str, Parameter] = {}
    known = verdict != UNTOLD or not seen.rounding_known
    for i, name in enumerate(NAMES):
        if not free[i] or (name == "decay" and not seen.rounding_known):
            continue
        sd = float(np.sqrt(covariance[i, i]))
        middle = float(best.position[i])
        curved = known and sd < (0.5 if name != "decay" else 1e-3) * PRIOR[name][1]
        if name == "eps":
            curved = curved and sd < 1.0
        ends = np.array([middle, middle - z * sd, middle + z * sd])
        if name in ("b1", "b2"):
            ends = 1 - np.exp(-ends)
        elif name in ("eps", "clip"):
            ends = np.exp(ends)
        result[name] = Parameter(*map(float, ends), bool(curved))
    variance = best.rate_slopes @ covariance @ best.rate_slopes
    own = scale / (best.precisions.sum() if best.options.path else best.precisions[0])
    mean = float(best.rates.mean())
    half = z * float(np.sqrt(max(variance + own, 0)))
    curved = known and half < abs(mean)
    result = {"rate": Parameter(mean, mean - half, mean + half, bool(curved))} | result
    count = seen.seen.sum()
    error = z / np.sqrt(2 * count)
    for name, value in (("relative_noise", noise.relative), ("absolute_noise", noise.absolute)):
        if value:
            result[name] = Parameter(value, value * (1 - error), value * (1 + error), True)
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


def _between(low: float, high: float) -> Parameter:
    """A memory that is known as an interval; curved if that is short beside its distance to 1."""
    return Parameter((low + high) / 2, low, high, bool(high - low < (1 - high) + 0.05))


def _by_signs(seen: Seen, found: Signs, rounding: float, total: float) -> Learner:
    judged = judge(found.residual, seen.variance, seen.seen, {}, noisy=False)
    statements = list(seen.statements)
    fits = found.mistakes <= max(1, 1e-3 * found.told)
    if not fits:
        statements.append(
            f"The moves are all of one size, but no two memories explain {found.mistakes} of "
            f"{found.told} signs."
        )
    z = stats.norm.isf(0.025)
    mean = float(found.rates.mean())
    half = z * float(np.sqrt(1 / (seen.seen / seen.variance).sum()))
    spread = z * found.decay_sd
    parameters = {
        "rate": Parameter(mean, mean - half, mean + half, True),
        "b1": _between(*found.b1),
        "b2": _between(*found.b2),
        "decay": Parameter(
            found.decay, found.decay - spread, found.decay + spread, bool(spread < 1)
        ),
    }
    options: dict[str, tuple[object, ...]] = {
        "sign": (True,),
        "rate": ("path" if found.path else "constant",),
        "one_memory": (True, False) if found.equal else (False,),
    }
    return Learner(
        OF if fits and judged.explained else NONE,
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
