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

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy import stats

from beliefnav.inference.learners.family import NAMES, Movement, Options, directions
from beliefnav.inference.learners.judging import Judgement, Noise, execution_noise, judge
from beliefnav.inference.learners.least_squares import Minimum, minimise
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
MEMORIES = (2.3, 4.6, 6.9)
"""Logs of memories of a second moment from which joint fits begin, beside the one found."""
DROP = 1.92
"""Nats below the mode down to which a profile lies in an interval of 95 %."""


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
    if not seen.rounding_known:
        seen, found = _own_rounding(seen, data, found[0])
    best, statements = found[0], list(seen.statements)
    causes = {} if seen.rounding_known else _causes(seen)
    said = judge(best.residual, seen.variance, seen.seen, causes, noisy=not seen.rounding_known)
    verdict, executed = OF if said.explained else NONE, None
    if verdict == NONE and seen.rounding_known:
        again = _with_noise(seen, data, found[0])
        left = again.found[0].residual
        noisy = judge(left, again.variance, seen.seen, _causes(seen), noisy=True)
        spread = float((again.variance * seen.seen).sum() / total)
        if noisy.explained and spread < 0.9:
            found, said, verdict = again.found, noisy, NOISY
            best, executed = found[0], again.numbers
        else:
            best = sharpen(best, data)
            said = judge(best.residual, seen.variance, seen.seen, {}, noisy=False)
            statements += _outside(noisy, spread)
    places = len(said.coordinates) / len(seen.labels) + len(said.windows) / 10
    told = verdict != NONE or (said.explained is False and 0 < places < 0.75)
    if verdict == NONE and not (seen.started and seen.rounding_known):
        verdict = UNTOLD
        statements.append("What is not explained may be what is not known of this recording.")
        told = False
    if verdict == OF and not seen.rounding_known:
        verdict = UNTOLD
    numbers = executed or _numbers(best, Noise(0.0, 0.0), seen)
    parameters = _parameters(numbers, seen, told)
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
    return Learner(
        verdict,
        parameters,
        _options(found if told else [best], best),
        best.rates,
        float((seen.seen * best.residual**2).sum() / total),
        rounding if seen.rounding_known else np.nan,
        coordinates,
        steps,
        tuple(statements),
        best.residual,
    )


def _own_rounding(seen: Seen, data: Movement, first: Member) -> tuple[Seen, list[Member]]:
    """Of parameters that were not recorded: rounding taken from what is left, by coordinate."""
    found = [first]
    for _ in range(2):
        square = (seen.seen * found[0].residual ** 2).sum(0) / np.maximum(seen.seen.sum(0), 1)
        seen = seen._replace(variance=np.broadcast_to(square, data.variance.shape) + 1e-300)
        data = data._replace(variance=jnp.asarray(seen.variance))
        found = search(data, norm=seen.norm is not None, params=False, robust=0)
    return seen, found


class _Executed(NamedTuple):
    """Members under noise of execution, the best first, and the joint fit of that one."""

    found: list[Member]
    noise: Noise
    variance: Floats
    numbers: "_Numbers"


def _with_noise(seen: Seen, data: Movement, first: Member) -> _Executed:
    """The members, searched again with the weights of noise of execution."""
    best, variance = first, seen.variance
    noise = execution_noise(best.residual, seen.displacement - best.residual, variance, seen.seen)
    found, numbers = [first], _numbers(first, noise, seen)
    for _ in range(3):
        step = seen.displacement - best.residual
        # Where steps cross 0 they would be known too well, and hide all but the nearest mode.
        floor = noise.absolute**2 + 1e-3 * noise.relative**2 * (step**2).mean(0)
        variance = seen.variance + noise.relative**2 * step**2 + floor
        weighted = data._replace(variance=jnp.asarray(variance))
        found = search(weighted, norm=seen.norm is not None, params=seen.rounding_known, robust=0)
        best = found[0]
        step = seen.displacement - best.residual
        noise = execution_noise(best.residual, step, seen.variance, seen.seen)
        numbers = _numbers(best, noise, seen)
        if not best.options.path:
            numbers, step, noise = execute(best, data, noise)
            best = best._replace(residual=seen.displacement - step)
        variance = seen.variance + noise.relative**2 * step**2 + noise.absolute**2
    return _Executed([best, *found[1:]], noise, variance, numbers)


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


class _Numbers(NamedTuple):
    """Name -> unconstrained mode and standard deviation; ``rate`` as it is, noises as logs."""

    middle: dict[str, float]
    spread: dict[str, float]


def _numbers(best: Member, noise: Noise, seen: Seen) -> _Numbers:
    """Laplace's approximation where the rate is projected out, in the scale of the residual."""
    free = np.array(best.options.free()) > 0
    scale = max(best.scale, 1.0)
    precision = np.array([PRIOR[n][1] ** -2.0 for n in NAMES])
    prior = np.diag(np.where(free, precision, 1))
    covariance = _inverse((best.information - prior) / scale + prior)
    own = scale / (best.precisions.sum() if best.options.path else best.precisions[0])
    rate = best.rate_slopes @ covariance @ best.rate_slopes + own
    middle = {"rate": float(best.rates.mean())}
    spread = {"rate": float(np.sqrt(max(rate, 0)))}
    for i in np.flatnonzero(free):
        middle[NAMES[i]] = float(best.position[i])
        spread[NAMES[i]] = float(np.sqrt(covariance[i, i]))
    for name, value in (("relative_noise", noise.relative), ("absolute_noise", noise.absolute)):
        if value:
            middle[name], spread[name] = float(np.log(value)), float((2 * seen.seen.sum()) ** -0.5)
    return _Numbers(middle, spread)


@jax.jit
def _commanded(x: Array, rate: Array, options: Options, data: Movement, floor: Array) -> Any:
    """Steps that are commanded, and logs of the variance of what happens."""
    mean = -rate * x[0] * directions(x[1:-2], options, data)
    relative, absolute = jnp.exp(2 * x[-2:])
    return mean, jnp.log(data.variance + relative * mean**2 + absolute + floor)


@jax.jit
def _executed(
    starts: Array,
    floor: Array,
    free: Array,
    prior: tuple[Array, Array],
    rate: Array,
    options: Options,
    data: Movement,
) -> Minimum:
    """Joint fits side by side; compiled once, whatever the member."""

    def moments(x: Array) -> tuple[Array, Array]:
        return _commanded(x, rate, options, data, floor)

    def fit(x: Array) -> Minimum:
        return minimise(moments, data.displacement, data.seen, x, free, prior, 15)

    return jax.vmap(fit)(starts)


def execute(best: Member, data: Movement, noise: Noise) -> tuple[_Numbers, Floats, Noise]:
    r"""The numbers of a member, its constant rate and the noises of its execution, jointly.

    $$ \Delta\theta = \mu (1 + \sigma z) + \tau z' + \text{rounding} : $$

    the step itself says how large the noise is, so that the rate stands in the variance too.

    Returns:
        The numbers, the steps that were commanded [step, param], and the noise.
    """
    rate, centre = float(best.rates[0]), [PRIOR[n][0] for n in NAMES]
    precision = [PRIOR[n][1] ** -2.0 for n in NAMES]
    size = float(jnp.sqrt(jnp.mean(data.displacement**2)))
    logs = np.log([max(noise.relative, 1e-6), max(noise.absolute, 1e-6 * size)])
    start = jnp.array([1.0, *best.position, *logs])
    prior = jnp.array([1.0, *centre, *logs]), jnp.array([1e-4, *precision, 1e-2, 1e-2])
    free = jnp.array([1.0, *best.options.free(), 1.0, 1.0])

    options = Options(*(jnp.asarray(float(o)) for o in best.options))
    member = prior, jnp.asarray(rate), options, data  # all arrays: nothing is compiled anew
    # Steps that cross 0 make many narrow modes: they are let in bit by bit, from several memories.
    points = jnp.stack([start, *(start.at[2].set(m) if free[2] else start for m in MEMORIES)])
    for share in (0.1, 1e-2, 1e-3, 1e-4, 0.0, 0.0):
        floor = jnp.asarray((share * noise.relative * size) ** 2)
        all_found = _executed(points, floor, free, *member)
        points = all_found.position
    found = jax.tree.map(lambda a: a[jnp.argmin(all_found.potential)], all_found)
    position, covariance = np.asarray(found.position), _inverse(np.asarray(found.information))
    names = ("rate", *NAMES, "relative_noise", "absolute_noise")
    units = np.array([rate, *np.ones(len(names) - 1)])
    kept = [i for i in range(len(names)) if free[i] > 0]
    numbers = _Numbers(
        {names[i]: float(units[i] * position[i]) for i in kept},
        {names[i]: float(abs(units[i]) * np.sqrt(covariance[i, i])) for i in kept},
    )
    if free[2]:
        # Other modes are as good: the profile over memories says how far, and not the curvature.
        grid = jnp.linspace(1.0, 9.0, 33)
        held = jax.vmap(lambda memory: found.position.at[2].set(memory))(grid)
        profile = _executed(held, jnp.zeros(()), free.at[2].set(0), *member)
        near = np.asarray(grid)[np.asarray(profile.potential - found.potential) < DROP]
        widest = max(abs(near - position[2]), default=0.0)
        numbers.spread["b2"] = max(numbers.spread["b2"], float(widest) / 1.96)
    return (
        numbers,
        np.asarray(_commanded(found.position, *member[1:], jnp.zeros(()))[0]),
        Noise(*np.exp(position[-2:]).tolist()),
    )


def _inverse(matrix: Floats) -> Floats:
    units = np.sqrt(np.diag(matrix))
    return np.linalg.inv(matrix / units[:, None] / units) / units[:, None] / units


def _parameters(numbers: _Numbers, seen: Seen, told: bool) -> dict[str, Parameter]:
    """Intervals, and whether these data tell a number: beside its prior, before any truth."""
    z = stats.norm.isf(0.025)
    widest = {name: 0.5 * sd for name, (_, sd) in PRIOR.items()}
    widest |= {"decay": 1.0, "eps": 1.0, "relative_noise": 1.0, "absolute_noise": 1.0}
    result: dict[str, Parameter] = {}
    for name, middle in numbers.middle.items():
        if name == "decay" and not seen.rounding_known:
            continue
        sd = numbers.spread[name]
        ends: Floats = np.array([middle, middle - z * sd, middle + z * sd])
        curved = told and sd < (abs(middle) / z if name == "rate" else widest[name])
        if name in ("b1", "b2"):
            ends = -np.expm1(-ends)
        elif name in ("eps", "clip", "relative_noise", "absolute_noise"):
            ends = np.exp(ends)
        median, low, high = map(float, ends)
        result[name] = Parameter(median, low, high, bool(curved))
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
    half = float(z * np.sqrt(1 / (seen.seen / seen.variance).sum()))
    spread = float(z * found.decay_sd)
    parameters = {
        "rate": _around(mean, half, True),
        "b1": _between(*map(float, found.b1)),
        "b2": _between(*map(float, found.b2)),
        "decay": _around(found.decay, spread, bool(spread < 1)),
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
