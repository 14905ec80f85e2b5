"""The laws of the contract, each over every belief; `table.md` says which hold, and where not why.

A cell of the table is ``exact``: the law holds up to rounding; ``limit``: it holds in a limit that
the cell names; ``refuses``: it is refused, with a message that the cell matches; ``otherwise``: it
does not hold, by what the belief means, which is tested as well; ``elsewhere``: a test that the
cell names holds it.
"""

import dataclasses
import functools
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import log_density
from scipy.special import logsumexp

from beliefnav import beliefs, filters, inference
from beliefnav._checks import Checked
from beliefnav.beliefs import Belief, Info
from beliefnav.inference.targets import density as density_of
from beliefnav.recording import Recording, from_arrays
from tests.contract import catalogue, table
from tests.contract.catalogue import build, read_by, stream

ROOT = Path(__file__).parents[2]
NUM_STEPS = 20  # the fewest that inference takes

# --- what the laws have in common ---------------------------------------------------------------


def moved(recording: Recording) -> Any:
    """The displacement that led to each step."""
    d = recording.displacement
    return None if d is None else jnp.concatenate([jnp.zeros_like(d[:1]), d[:-1]])


def steps(belief: Belief, recording: Recording, predictions: int = 1) -> list[Any]:
    """(predicted, state, info) of every step, one at a time and not compiled."""
    filter_ = belief.filter()
    y, d, c = recording.gradient, moved(recording), recording.curvature
    state, result = filter_.init(y[0]), []
    for t in range(len(y)):
        predicted = state
        for _ in range(predictions):
            predicted = filter_.predict(predicted, None if d is None else d[t])
        seen = predicted, y[t], None if c is None else c[t]
        state = filter_.update(*seen)
        info = Info() if filter_.diagnose is None else filter_.diagnose(*seen)
        result.append((predicted, state, info))
    return result


def read(name: str, num_steps: int = NUM_STEPS) -> Recording:
    return read_by(name, stream(num_steps))


def total(log_densities: Any) -> Any:
    return sum((jnp.sum(x) for x in jax.tree.leaves(log_densities)), 0.0)


def summary(posterior: Any, density: Any) -> Any:
    """One number of all that is believed at the end, for derivatives."""
    means = posterior.gradient_mean, posterior.curvature_mean, posterior.distance_mean
    return total(means) + total(density)


def at_the_end(belief: Belief, recording: Recording) -> tuple[Any, Any]:
    """The last posterior, and the log density of all steps, one at a time."""
    run = steps(belief, recording)
    return run[-1][1].posterior(), total([info.log_density for *_, info in run])


@functools.cache
def one_by_one(name: str) -> tuple[Any, Any]:
    """The same of a belief of the catalogue."""
    return at_the_end(build(name), read(name))


def near(got: Any, want: Any, rtol: float, atol: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want)


# Float64 round-off of 20 steps of sums of order 1 to 100.
close = functools.partial(near, rtol=1e-9, atol=1e-10)


# --- the laws -----------------------------------------------------------------------------------


def records(tree: Any) -> list[Any]:
    """The records with ranges that a belief is made of."""
    inner = [getattr(tree, f.name) for f in dataclasses.fields(tree)]
    return [tree] + [r for x in inner if isinstance(x, Checked) for r in records(x)]


def rebuilt(name: str) -> None:
    """A belief is rebuilt from anything in the place of its numbers, and pickled."""
    belief = build(name)
    emptied = jax.tree.map(lambda _: False, belief)
    assert type(emptied) is type(belief)
    assert not any(jax.tree.leaves(emptied))
    some, rest = eqx.partition(belief, lambda x: isinstance(x, float))
    for same in (eqx.combine(some, rest), pickle.loads(pickle.dumps(belief))):
        assert jax.tree.structure(same) == jax.tree.structure(belief)
        assert jax.tree.leaves(same) == jax.tree.leaves(belief)
    for record in records(belief):
        assert dataclasses.replace(record) is not record


STEP = 1e-5


@functools.cache
def traced(name: str) -> Any:
    """Summary, its slopes, posterior and density, of four beliefs; and a direction of all numbers.

    The belief, one whose numbers are nine tenths, and one to each side in the direction.
    """
    recording = read(name)
    floats, rest = catalogue.float_leaves(build(name))
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda x: x * rng.uniform(0.5, 1), floats)
    beliefs_ = jax.tree.map(
        lambda x, v: jnp.stack([x, 0.9 * x, x + STEP * v, x - STEP * v]), floats, direction
    )

    def run(floats: Belief) -> Any:
        posterior, info = filters.filter_recording(eqx.combine(floats, rest), *recording)
        last = jax.tree.map(lambda x: x[-1], posterior)
        density = total(info.log_density)
        return summary(last, density), (last, density)

    axes = jax.tree.map(lambda _: 0, floats)
    slopes = jax.vmap(jax.value_and_grad(run, has_aux=True), in_axes=(axes,))
    return jax.jit(slopes)(beliefs_), direction


def as_argument(name: str) -> None:
    """Compiled with the belief as an argument and mapped over, a recording is its steps."""
    ((values, got), _), _ = traced(name)
    other = jax.tree.map(lambda x: 0.9 * x if isinstance(x, float) else x, build(name))
    for i, want in enumerate((one_by_one(name), at_the_end(other, read(name)))):
        # Float64 round-off of 20 steps, in another order.
        near(jax.tree.map(lambda x, i=i: x[i], got), want, rtol=1e-12, atol=1e-12)
    assert abs(values[0] - values[1]) > 1e-3


def slopes(name: str) -> None:
    """The derivative in the numbers of the belief is that of its values, which are its steps'."""
    ((values, _), gradient), direction = traced(name)
    want = (values[2] - values[3]) / (2 * STEP)
    got = sum(v * g[0] for v, g in zip(*map(jax.tree.leaves, (direction, gradient)), strict=True))
    # Central differences: error h^2 f''' + eps f / h ~ 1e-8, relative to O(1).
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    assert abs(want) > 1e-3


def any_tree(
    name: str,
    belief: Belief | None = None,
    reading: Callable[[Any], Any] = lambda y: jax.tree.map(abs, y),
) -> None:
    """Half precision in float32, ``None`` as no parameter, no leaves as nothing, abstract init."""
    with jax.enable_x64(False):
        belief = build(name) if belief is None else belief
        filter_ = belief.filter()

        def believe(belief: Belief, y: Any) -> Any:
            filter_ = belief.filter()
            state, info = filter_.init(y), Info()
            moves, reads = catalogue.needs(name)
            d = jax.tree.map(lambda x: x / 4, y) if moves else None
            c = reading(y) if reads else None
            lost = jax.tree.map(lambda x: jnp.where(x == 1.25, jnp.nan, x).astype(x.dtype), y)
            for seen in (y, lost):
                now = filter_.predict(state, d), seen, c
                state = filter_.update(*now)
                info = Info() if filter_.diagnose is None else filter_.diagnose(*now)
            return state, state.posterior(), info

        # All are exact in half precision; the square of the second is too large for float16.
        single: Any = {
            "a": jnp.asarray([[0.5, 300.0, 1.25]], jnp.float32),
            "b": [None, jnp.float32(-0.75)],
        }
        want = believe(belief, single)
        wide = set(map(jnp.dtype, (jnp.float32, jnp.int32, bool)))
        assert {x.dtype for x in jax.tree.leaves(want)} <= wide
        half: Any = jax.tree.map(lambda x: x.astype(jnp.float16), single)
        for same in (half, jax.tree.map(lambda x: x.astype(jnp.bfloat16), single)):
            got = believe(belief, same)
            assert {x.dtype for x in jax.tree.leaves(got[:2])} <= wide
            jax.tree.map(np.testing.assert_array_equal, got, want)
        # Nor is what is believed of an entry in the dtype of the numbers of the belief.
        floats, rest = eqx.partition(belief, lambda x: isinstance(x, float))
        numbers = jax.tree.map(jnp.float16, floats)
        with jax.numpy_dtype_promotion("standard"):
            leaves = jax.tree.leaves(jax.eval_shape(believe, eqx.combine(numbers, rest), half)[:2])
        assert {x.dtype for x in leaves if x.shape[-2:] == (1, 3)} <= wide
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), half)
        shapes = functools.partial(jax.tree.map, lambda x: (jnp.shape(x), x.dtype))
        assert shapes(filter_.init(half)) == shapes(want[0])
        assert shapes(jax.eval_shape(filter_.init, half)) == shapes(want[0])
        assert shapes(filter_.init(like)) == shapes(want[0])
        nothing = jax.eval_shape(believe, belief, {})
        assert all(x.size <= 1 for x in jax.tree.leaves(nothing[1]))


def with_an_entry(name: str, value: float) -> list[Any]:
    """The steps of a recording whose second entry has ``value`` at the third step."""
    belief = build(name)
    y, d, c = read(name, 4)
    at = 2, 1
    c = None if c is None else c.at[at].set(value)
    return steps(belief, Recording(y.at[at].set(value), d, c))


def others(name: str) -> None:
    """What is missing, or infinite, says nothing of the other entries."""
    want = jax.tree.leaves(with_an_entry(name, 0.3)[-1][1].posterior())
    for value in (np.nan, np.inf):
        got = jax.tree.leaves(with_an_entry(name, value)[-1][1].posterior())
        for one, other in zip(got, want, strict=True):
            apart = one[..., [0, 2]] if one.ndim == 1 else one
            np.testing.assert_array_equal(apart, other[..., [0, 2]] if other.ndim == 1 else other)


def missing(name: str) -> None:
    """The belief about a missing entry stays as predicted."""
    lost, infinite = (with_an_entry(name, value) for value in (np.nan, np.inf))
    jax.tree.map(np.testing.assert_array_equal, lost[-1][1], infinite[-1][1])
    predicted, state, _ = lost[2]
    before, after = (
        dict(jax.tree_util.tree_leaves_with_path(belief)) for belief in (predicted, state)
    )
    # A wrapper may predict what it holds, and not itself.
    both = [
        (p, s)
        for inner, p in before.items()
        for outer, s in after.items()
        if outer[-len(inner) :] == inner
    ]
    assert both
    for p, s in both:
        np.testing.assert_array_equal(*(x[..., 1] if x.ndim else x for x in (p, s)))
    if jax.tree.structure(predicted) == jax.tree.structure(state):
        reads = predicted.posterior(), state.posterior()
        entry = jax.tree.map(lambda x: x[..., 1] if x.ndim else x, reads)
        jax.tree.map(np.testing.assert_array_equal, *entry)


def predictions(name: str) -> None:
    """To skip a prediction, or to do it twice, changes what is believed, or cannot be done."""
    belief = build(name)
    recording = read(name, 3)
    run = steps(belief, recording)
    want = jax.tree.leaves(run[-1][1].posterior())
    for number in (0, 2):
        try:
            got = steps(belief, recording, number)[-1][1].posterior()
        except (AttributeError, ValueError):  # a predicted belief has other fields, or more slots
            predicted, state, _ = run[-1]
            assert jax.tree.structure(predicted) != jax.tree.structure(state)
            continue
        differ = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(got), want, strict=True)]
        assert max(differ) > 1e-4


def likelihood(name: str) -> None:
    """The likelihood is the product of the predictive densities of the steps."""
    belief = build(name)
    close(total(filters.log_likelihood(belief, *read(name))), one_by_one(name)[1])


def in_parallel(name: str) -> None:
    """In parallel over time, posterior and likelihood are the same."""
    belief = build(name)
    recording = read(name)

    @jax.jit
    def run() -> Any:
        posterior, info = filters.filter_recording(belief, *recording, parallel=True)
        return jax.tree.map(lambda x: x[-1], posterior), total(info.log_density)

    close(run(), one_by_one(name))


def target(name: str) -> None:
    """Inference sees the likelihood of the filter, of all that was recorded."""
    belief = build(name)
    y, d, c = (None if x is None else np.asarray(x) for x in read(name))
    data = from_arrays(y, displacement=d, curvature=c)

    def prior() -> Belief:
        numpyro.sample("unused", numpyro.distributions.Normal(0, 1))
        return belief

    density = density_of(inference.target(prior, data))
    got = -density.potential(jnp.zeros(1), density.data) + np.log(2 * np.pi) / 2
    close(got, one_by_one(name)[1])


def end_of_smoothing(name: str) -> None:
    """What looks back over a recording ends where the filter does."""
    belief = build(name)
    smoothed = jax.jit(lambda y: filters.smooth_recording(belief, *y))(read(name))
    close(jax.tree.map(lambda x: x[-1], smoothed), one_by_one(name)[0])


def evidence(belief: Belief, recording: Recording) -> Any:
    """The density of the readings by the program, its latents integrated out.

    Those that are Gaussian given the others as such, switches by summing over all, a noise on a
    grid that is fine and wide enough.
    """
    y, d, c = recording
    given = {"displacement": d, "curvature": c}
    named = {k: v for k, v in given.items() if v is not None}
    with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
        belief.numpyro_model(y, **named)
    sites = {
        name: site["value"]
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    switches = sites.pop("switch", None)
    noise = sites.pop("noise_scale", None)
    start, unravel = ravel_pytree(sites)

    def given_the_rest(fixed: Any) -> Any:
        def log_joint(x: Any) -> Any:
            return log_density(belief.numpyro_model, (y,), named, unravel(x) | fixed)[0]

        slope, curvature = jax.grad(log_joint)(start), -jax.hessian(log_joint)(start)
        half = slope @ jnp.linalg.solve(curvature, slope) / 2
        size = len(start) / 2 * np.log(2 * np.pi) - jnp.linalg.slogdet(curvature)[1] / 2
        return log_joint(start) + half + size

    if noise is not None:
        log_noise = jnp.linspace(-9, 16, 400)
        at = {"noise_scale": jnp.exp(log_noise)}
        heights = jax.jit(jax.vmap(given_the_rest))(at) + log_noise
        return logsumexp(heights) + np.log(log_noise[1] - log_noise[0])
    if switches is not None:
        every = (jnp.arange(2 ** len(switches))[:, None] >> jnp.arange(len(switches))) & 1
        every = every.astype(switches.dtype)
        return logsumexp(jax.jit(jax.vmap(given_the_rest))({"switch": every}))
    return jax.jit(given_the_rest)({})


def program(name: str, belief: Belief | None = None, steepness: float = 0) -> None:
    """The program, its latents integrated out, has the likelihood of the filter.

    ``steepness`` is added to the curvature that is recorded, and what follows to the gradient.
    """
    belief = build(name) if belief is None else belief
    y, d, c = stream(4, ())
    y = y + steepness * jnp.cumsum(moved(Recording(y, d, c)))
    recording = read_by(name, Recording(y, d, c + steepness))
    got = evidence(belief, recording)
    # The noise on a grid: the trapezoidal rule of an analytic bump; otherwise a solve.
    near(got, total(filters.log_likelihood(belief, *recording)), 1e-7, 1e-7)


LAWS: dict[str, Callable[[str], None]] = {
    "rebuilt": rebuilt,
    "argument": as_argument,
    "slopes": slopes,
    "tree": any_tree,
    "others": others,
    "missing": missing,
    "predict": predictions,
    "likelihood": likelihood,
    "parallel": in_parallel,
    "target": target,
    "smoother": end_of_smoothing,
    "program": program,
}
OF_NUMPYRO = ("target", "program")
"""Its own code promotes ranks and dtypes."""


# --- limits -------------------------------------------------------------------------------------


def without_switches(name: str) -> None:
    """Where tasks never switch, one Gaussian is all there is."""
    belief = build(name)
    where = (lambda b: b.hazard) if name == "FisherOptimum" else (lambda b: b.model.hazard)
    program(name, eqx.tree_at(where, belief, 0.0))


def far_from_zero(name: str) -> None:
    """A curvature that lies 60 standard deviations above 0 is not changed by being positive."""
    belief = build(name)

    def far(tree: Any) -> Any:
        return dataclasses.replace(tree, prior_curvature_mean=60.0) if is_secant(tree) else tree

    def is_secant(tree: Any) -> bool:
        return isinstance(tree, beliefs.Secant)

    program(name, jax.tree.map(far, belief, is_leaf=is_secant), steepness=60.0)


LIMITS: dict[str, Callable[[str], None]] = {
    "no switch": without_switches,
    "far from 0": far_from_zero,
}


# --- the table ----------------------------------------------------------------------------------


def test_the_table_has_a_cell_for_every_belief_and_law_and_no_other():
    taken = [name for name in catalogue.attempts() if name not in table.REFUSED]
    names = [*catalogue.ALONE, *taken, *catalogue.DEEPER]
    assert [*table.CELLS] == [(name, law) for name in names for law in LAWS]


@pytest.mark.parametrize("name", dict(table.CELLS.keys()))
def test_filters_say_what_they_read(name: str):
    filter_ = build(name).filter()
    assert (filter_.uses_displacement, filter_.uses_curvature) == catalogue.needs(name)


@pytest.mark.parametrize(("name", "law"), table.CELLS)
def test_law(name: str, law: str, request: pytest.FixtureRequest):
    kind, text = table.CELLS[name, law]
    if law in OF_NUMPYRO:
        request.getfixturevalue("rank_promotion")
    with jax.enable_x64(True):
        match kind:
            case "exact":
                LAWS[law](name)
            case "refuses":
                with pytest.raises(ValueError, match=text):
                    LAWS[law](name)
            case "otherwise":
                with pytest.raises(AssertionError):
                    LAWS[law](name)
            case "limit":
                LIMITS[text](name)
                with pytest.raises(AssertionError):
                    LAWS[law](name)
            case "elsewhere":
                path, test = text.split("::")
                assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE)
            case _:
                raise AssertionError(f"{kind} is no word of the table")


GRID = beliefs.HazardGrid(np.array([0.02, 0.1, 0.4]), np.array([3.0, 1.0, 2.0]))
OTHERWISE: dict[str, Belief] = {
    "Transient": beliefs.Transient(0.9, 0.3, 0.7, diffuse=True),
    "UnknownNoise(Secant)": beliefs.UnknownNoise(catalogue.ALONE["Secant"], 1.0, 3.0, 0.9),
    **{
        kind.__name__: kind(dataclasses.replace(catalogue.TASKS, hazard=GRID))
        for kind in (beliefs.TwoHypotheses, beliefs.RunLengthReset)
    },
    "RunLengths": beliefs.RunLengths(dataclasses.replace(catalogue.TASKS, hazard=GRID), 4),
}
"""Beliefs of the catalogue with numbers that it has another way for."""


@pytest.mark.parametrize("name", OTHERWISE)
def test_any_tree_is_believed_also_otherwise(name: str):
    any_tree(name, OTHERWISE[name])


@pytest.mark.parametrize(
    "name", [name for name in dict(table.CELLS.keys()) if name.startswith("shared(")]
)
def test_a_shared_belief_is_exact_with_complete_observations_and_smaller(name: str):
    alone = name.removeprefix("shared(").removesuffix(")")
    with jax.enable_x64(True):
        # Float64 round-off of 20 steps.
        near(one_by_one(name), one_by_one(alone), rtol=1e-12, atol=1e-12)
        params = {"a": jnp.zeros(6), "b": jnp.zeros(1)}
        states = (jax.eval_shape(build(x).filter().init, params) for x in (name, alone))
        one, each = (sum(x.size for x in jax.tree.leaves(state)) for state in states)
    # One number in the place of seven, at least.
    assert one <= each - 6


@pytest.mark.parametrize("name", table.REFUSED)
def test_what_no_wrapper_takes_is_refused(name: str):
    assert name in [*catalogue.attempts()]
    with pytest.raises(ValueError, match=table.REFUSED[name].text):
        catalogue.build.__wrapped__(name).filter().init(jnp.ones(3))


def test_what_a_person_may_write_is_not_refused_again():
    """Readings reach inference, wrappers look back and simulate, beliefs are arguments."""
    two = "shared(UnknownNoise(Secant))"
    held = [("positive(Secant)", "target"), (two, "target"), ("FisherOptimum", "target")]
    held += [(two, "smoother"), (two, "program"), ("RunLengths", "argument")]
    held += [("sensed(LocalLevel)", "argument"), ("sensed(LocalLevel)", "slopes")]
    assert all(table.CELLS[cell].kind == "exact" for cell in held)


@pytest.mark.parametrize("name", [n for n, law in table.CELLS if law == "smoother" and "(" in n])
def test_a_belief_around_others_is_named_with_all_of_them(name: str):
    """As a person writes it; where a refusal names it, it names those that lack something."""
    inside = name.split("(")[-1].rstrip(")")
    places = {"gradient": ("gradient={}", "curvature=PrecisionWalk")}
    places["curvature"] = ("gradient=LocalLevel", "curvature={}")
    want = inside
    for wrapper in reversed(name.split("(")[:-1]):
        both = ", ".join(places.get(wrapper, ("{}",))).format(want)
        want = f"{'independent' if wrapper in places else wrapper}({both})"
    assert build(name).name == want
    if table.CELLS[name, "smoother"].kind == "refuses":
        with pytest.raises(ValueError, match=re.escape(f"with {want}. ")):
            LAWS["smoother"](name)


# --- ranges -------------------------------------------------------------------------------------

OWNERS = {
    type(record).__name__: record
    for name in [*catalogue.ALONE, "UnknownNoise(LocalLevel)"]
    for record in records(build(name))
}


def test_the_table_has_every_declared_range_and_no_other():
    declared = {(owner, field) for owner, record in OWNERS.items() for field in record.ranges}
    # RunLengths(model, inf) overflows instead of being named; test_run_lengths.py has the others.
    assert {*table.RANGES} == declared - {("RunLengths", "capacity")}
    for owner, record in OWNERS.items():
        free = {f.name for f in dataclasses.fields(record)} - set(record.ranges)
        # What has no range is a belief, a flag, or a tree that is checked where its parameters are.
        assert free <= {"model", "diffuse", "learn_variance", "prior_variance", "prior_mean"}, owner


@pytest.mark.parametrize(("owner", "field"), table.RANGES)
def test_numbers_out_of_range_are_named(owner: str, field: str):
    low, high = table.RANGES[owner, field][1:-1].split(", ")
    closed = table.RANGES[owner, field][0] == "[", table.RANGES[owner, field][-1] == "]"
    bad, good = [np.nan], []
    for end, includes, outwards in zip((low, high), closed, (-np.inf, np.inf), strict=True):
        (good if includes else bad).append(float(end))
        if includes:
            bad.extend({float(np.nextafter(float(end), outwards))} - {np.inf})
        else:
            good.append(float(np.nextafter(float(end), -outwards)))
    record = OWNERS[owner]
    for value in bad:
        with pytest.raises(ValueError, match=f"^{owner}: {field} must be"):
            dataclasses.replace(record, **{field: value})
        with pytest.raises(ValueError, match=f"^{owner}: {field} must be"):
            type(record)(**vars(record) | {field: value})
        # Whatever rebuilds the record as a tree is not a person.
        eqx.tree_at(lambda r: getattr(r, field), record, value, is_leaf=lambda x: x is None)
    for value in good:
        dataclasses.replace(record, **{field: value})


# --- programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        name
        for (name, law), cell in table.CELLS.items()
        if law == "program"
        and cell.kind != "refuses"
        and not build(name).filter().uses_displacement
    ],
)
def test_program_needs_either_a_recording_or_a_length(name: str):
    belief = build(name)
    for given in ({}, {"gradient": np.zeros(3), "num_steps": 3}):
        match = f"^{re.escape(belief.name)}: give either .*gradient.*num_steps"
        with pytest.raises(ValueError, match=match):
            belief.numpyro_model(**given)


@pytest.mark.usefixtures("rank_promotion")
@pytest.mark.parametrize("name", ["positive(Secant)", "shared(UnknownNoise(Secant))"])
def test_both_sensors_are_simulated(name: str):
    _, drawn = inference.simulate(
        lambda: build(name), key=jax.random.key(0), displacement=jnp.ones((4, 2))
    )
    assert drawn.gradient.shape == drawn.curvature.shape == (4, 2)
    assert np.isfinite(drawn.curvature).all()
