"""Beliefs from whole recordings: filters, smoothers, likelihoods, paths; and NumPyro programs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import belief_cases as cases
import jax
import jax.numpy as jnp
import numpyro
import streams
from names import beliefs, filters, inference, positive_program, recordings
from numpyro import handlers
from recorder import Recorder

PyTree = Any
Hyper = Mapping[str, Any]


class Case(NamedTuple):
    """A belief as a function of some of its hyper-parameters.

    Attributes:
        make: from hyper-parameters to the belief.
        hyper: those with respect to which the likelihood is differentiated.
        moved: whether it uses displacements.
        sensed: whether it is given readings of the curvature.
        linear: whether it is linear-Gaussian, so that one can look back and run in parallel.
        paths: whether paths can be drawn.
        chunks: whether chunks can be smoothed.
        wide: whether it is given two arrays, and not one, as is what is believed of all together.
    """

    make: Callable[..., Any]
    hyper: Hyper = {}
    moved: bool = False
    sensed: bool = False
    linear: bool = False
    paths: bool = False
    chunks: bool = False
    wide: bool = False


SECANT = {
    "noise_variance": 0.3,
    "prior_curvature_variance": 1.5,
    "gradient_process_variance": 0.05,
    "curvature_process_variance": 0.1,
    "curvature_autocorrelation": 0.9,
}
BOTH = SECANT | {"curvature_noise_variance": 0.4}
OPTIMUM = {"prior_mean": 0.2, "process_variance": 0.05, "autocorrelation": 0.9}


def unknown_secant(prior_noise_scale: Any, **values: Any) -> Any:
    """A secant landscape whose noise is unknown."""
    return cases.unknown(cases.secant(**values), prior_noise_scale=prior_noise_scale)


CASES: dict[str, Case] = {
    "OrnsteinUhlenbeck": Case(
        lambda **h: beliefs.OrnsteinUhlenbeck(**h),
        {"autocorrelation": 0.8, "process_variance": 0.3, "noise_variance": 0.5},
        linear=True,
        paths=True,
        chunks=True,
        wide=True,
    ),
    "LocalLevel": Case(
        lambda **h: beliefs.LocalLevel(**h),
        {"discount": 0.8, "noise_variance": 0.5, "prior_mean": 0.2, "prior_sample_size": 1.5},
        linear=True,
        paths=True,
        chunks=True,
    ),
    "Secant": Case(cases.secant, SECANT, moved=True, linear=True, paths=True, chunks=True),
    "Secant, second sensor": Case(
        cases.secant, BOTH, moved=True, sensed=True, linear=True, paths=True, chunks=True
    ),
    "Optimum": Case(cases.optimum, OPTIMUM, moved=True, linear=True, paths=True, chunks=True),
    "UnknownNoise(OrnsteinUhlenbeck)": Case(
        lambda **h: cases.unknown(cases.ornstein_uhlenbeck(1.0), **h),
        {"prior_noise_scale": 0.6, "prior_degrees_of_freedom": 3.0},
        linear=True,
        paths=True,
    ),
    "UnknownNoise(Secant, second sensor)": Case(
        unknown_secant,
        {"prior_noise_scale": 0.6, "noise_variance": 0.3, "curvature_noise_variance": 0.4},
        moved=True,
        sensed=True,
        linear=True,
        paths=True,
    ),
    "positive(Secant)": Case(
        lambda **h: beliefs.positive(cases.secant(**h)),
        SECANT,
        moved=True,
        linear=True,
        chunks=True,
    ),
    "positive(UnknownNoise(Secant))": Case(
        lambda **h: beliefs.positive(unknown_secant(**h)),
        {"prior_noise_scale": 0.6, "noise_variance": 0.3},
        moved=True,
        linear=True,
    ),
    "UnknownNoise(LocalLevel), drifting": Case(
        lambda **h: cases.unknown(cases.local_level(), **h), {"discount": 0.9}
    ),
    "LocalLevel, diffuse": Case(lambda **h: beliefs.LocalLevel(**h), {"discount": 0.8}),
    "Transient": Case(lambda **h: cases.transient(diffuse=True, **h), {"innovation_variance": 0.7}),
    "PrecisionWalk": Case(
        lambda **h: beliefs.PrecisionWalk(**h),
        {"discount": 0.9, "prior_second_moment": 0.7, "prior_degrees_of_freedom": 3.0},
    ),
    "Wiener": Case(lambda: beliefs.Wiener(0.9, 0.95)),
    "shared(LocalLevel)": Case(
        lambda **h: beliefs.shared(cases.local_level(**h)), {"noise_variance": 0.5}
    ),
    "independent(LocalLevel, PrecisionWalk)": Case(
        lambda **h: beliefs.independent(
            gradient=cases.local_level(**h), curvature=cases.precision_walk()
        ),
        {"prior_mean": 0.2},
    ),
    "FisherOptimum": Case(
        lambda **h: beliefs.FisherOptimum(examples=4, **h),
        {"hazard": 0.05, "prior_variance": 0.8},
        moved=True,
        sensed=True,
    ),
    "RunLengths": Case(
        lambda **h: beliefs.RunLengths(cases.switching(**h), 5),
        {"hazard": 0.1},
        moved=True,
        wide=True,
    ),
    "TwoHypotheses": Case(
        lambda **h: beliefs.TwoHypotheses(cases.switching(**h)),
        {"hazard": 0.1},
        moved=True,
        wide=True,
    ),
    "RunLengthReset": Case(
        lambda **h: beliefs.RunLengthReset(cases.switching(**h)),
        {"hazard": 0.1},
        moved=True,
        wide=True,
    ),
}


def recording(case: Case) -> dict[str, PyTree]:
    """What a belief is given: with missing entries, and of the curvature as well."""
    given = {"gradient": streams.recorded(11, missing=True)}
    if case.moved:
        given["displacement"] = streams.recorded(12, missing=False, scale=0.4)
    if case.sensed:
        sensed = jax.tree.map(lambda x: 1 + jnp.abs(x), streams.recorded(13, missing=False))
        sensed["w"] = sensed["w"].at[4:7, 0].set(jnp.nan)
        given["curvature"] = sensed
    return given if case.wide else {name: {"w": x["w"]} for name, x in given.items()}


def likelihood(case: Case, parallel: bool) -> PyTree:
    """The log likelihood, and the slopes of its sum."""
    given = recording(case)

    def total(hyper: Hyper) -> tuple[Any, PyTree]:
        found = filters.log_likelihood(case.make(**hyper), **given, parallel=parallel)
        return sum((x.sum() for x in jax.tree.leaves(found)), jnp.zeros(())), found

    slopes, found = jax.grad(total, has_aux=True)(dict(case.hyper))
    return {"log_likelihood": found, "slopes": slopes}


def filtered(case: Case, parallel: bool) -> PyTree:
    """The posterior and the diagnostics of every step."""
    posterior, info = filters.filter_recording(
        case.make(**case.hyper), **recording(case), parallel=parallel
    )
    return {"posterior": posterior, "info": info}


def smoothed(case: Case, parallel: bool) -> PyTree:
    """The posterior of every step, in hindsight."""
    return filters.smooth_recording(case.make(**case.hyper), **recording(case), parallel=parallel)


def ahead(case: Case) -> PyTree:
    """The last state, and what is forecast from it."""
    belief = case.make(**case.hyper)
    state = filters.last_state(belief, **recording(case))
    steps: dict[str, Any] = {"num_steps": 3}
    if case.moved:
        moves = jax.tree.map(lambda x: x[:3], streams.recorded(14, missing=False))
        steps = {"displacement": moves if case.wide else {"w": moves["w"]}}
    return {"state": state, "forecast": filters.forecast(belief, state, **steps)}


def drawn(case: Case) -> PyTree:
    """Three paths under a fixed key."""
    belief = case.make(**case.hyper)
    return filters.sample_paths(belief, **recording(case), key=jax.random.key(5), num_samples=3)


def in_chunks(case: Case, name: str) -> PyTree:
    """Two halves of a recording, filtered or smoothed one after the other."""
    whole = recordings.Recording(**recording(case))
    parts = [jax.tree.map(lambda x, s=s: x[s], whole) for s in (slice(5), slice(5, None))]
    return list(getattr(filters, name)(case.make(**case.hyper), parts))


def switches() -> PyTree:
    """When tasks switched in a recording, and draws of it, with a hazard that is learned."""
    belief = beliefs.RunLengths(cases.switching(cases.grid()), 5)
    given = recording(Case(cases.switching, moved=True, wide=True))
    draws = filters.sample_switches(belief, **given, key=jax.random.key(6), num_draws=4)
    return {"change_points": filters.change_points(belief, **given), "sample_switches": draws}


def eager(recorder: Recorder) -> None:
    """All of it that a belief can do."""
    for name, case in CASES.items():
        for parallel in (False, True)[: 2 if case.linear else 1]:
            way = "parallel" if parallel else "sequential"
            if not (parallel and name.startswith("positive")):  # the likelihood of what is inside
                recorder.item(f"log_likelihood/{name}/{way}", likelihood, case, parallel)
            recorder.item(f"filter_recording/{name}/{way}", filtered, case, parallel)
            if case.linear:
                recorder.item(f"smooth_recording/{name}/{way}", smoothed, case, parallel)
        recorder.item(f"forecast/{name}", ahead, case)
        recorder.item(f"filter_chunks/{name}", in_chunks, case, "filter_chunks")
        if case.paths:
            recorder.item(f"sample_paths/{name}", drawn, case)
        if case.chunks:
            recorder.item(f"smooth_chunks/{name}", in_chunks, case, "smooth_chunks")
    recorder.item("change points", switches)


PROGRAMS: dict[str, tuple[Callable[[], Any], str | None]] = {
    "LocalLevel": (cases.local_level, None),
    "LocalLevel, diffuse": (lambda: beliefs.LocalLevel(0.8, 0.5), None),
    "OrnsteinUhlenbeck": (cases.ornstein_uhlenbeck, None),
    "Transient": (lambda: cases.transient(innovation_variance=0.7), None),
    "PrecisionWalk": (cases.precision_walk, None),
    "UnknownNoise(OrnsteinUhlenbeck)": (
        lambda: cases.unknown(cases.ornstein_uhlenbeck(1.0)),
        None,
    ),
    "Secant": (cases.secant, "displacement"),
    "Secant, constant curvature": (cases.still_secant, "displacement"),
    "Secant, positive": (cases.secant, "displacement"),
    "Secant, second sensor": (cases.both, "curvature"),
    "Optimum": (cases.optimum, "displacement"),
    "Optimum, constant": (lambda: beliefs.Optimum(1.7, 0.4, 0.8), "displacement"),
    "UnknownNoise(Optimum)": (lambda: cases.unknown(cases.optimum()), "displacement"),
    "FisherOptimum": (cases.fisher_optimum, "curvature"),
    "SwitchingOptimum": (cases.switching, "displacement"),
    "SwitchingOptimum, hazard learned": (
        lambda: cases.switching(cases.grid()),
        "displacement",
    ),
    "RunLengths": (lambda: beliefs.RunLengths(cases.switching(), 4), "displacement"),
    "TwoHypotheses": (lambda: beliefs.TwoHypotheses(cases.switching()), "displacement"),
    "RunLengthReset": (lambda: beliefs.RunLengthReset(cases.switching()), "displacement"),
}
"""NumPyro programs: how to make the belief, and what is given besides the gradient."""


def programs(recorder: Recorder) -> None:
    """Every program under a fixed seed, conditioned on a stream and simulated."""
    for name, program in PROGRAMS.items():
        complete = name.startswith("Transient")  # its program takes no missing entries
        recorder.item(f"programs/{name}", sites, *program, complete, name.endswith("positive"))
        if not name.startswith("SwitchingOptimum"):  # which has no filter
            recorder.item(f"simulate/{name}", simulated, *program)


def sites(make: Callable[[], Any], besides: str | None, complete: bool, positive: bool) -> PyTree:
    """The sites of a program that is given a stream: values, and their log densities."""
    given = _given(besides)
    if not complete:
        given["gradient"] = given["gradient"].at[3].set(jnp.nan)
    program = positive_program(make()) if positive else make().numpyro_model
    trace = handlers.trace(handlers.seed(program, jax.random.key(7))).get_trace(**given)
    found: dict[str, Any] = {}
    for name, site in trace.items():
        if site["type"] in ("sample", "deterministic"):
            found[name] = {"value": site["value"], "type": site["type"]}
        if site["type"] == "sample":
            found[name] |= {"log_density": site["fn"].log_prob(site["value"])}
    return found


def simulated(make: Callable[[], Any], besides: str | None) -> PyTree:
    """A recording drawn from a prior over one hyper-parameter, or from the belief itself."""

    def prior() -> Any:
        numpyro.sample("other", numpyro.distributions.Normal(0.0, 1.0))
        return make()

    moved = {"num_steps": streams.STEPS} if besides is None else _displacement()
    values, recording = inference.simulate(prior, key=jax.random.key(8), **moved)
    return {"values": values, "recording": recording}


def _displacement() -> dict[str, Any]:
    return {"displacement": streams.recorded(12, missing=False, scale=0.4)["w"]}


def _given(besides: str | None) -> dict[str, Any]:
    given = {"gradient": streams.recorded(11, missing=False)["w"]}
    if besides is not None:
        given |= _displacement()
    if besides == "curvature":
        given["curvature"] = 1 + jnp.abs(streams.recorded(13, missing=False)["w"])
    return given
