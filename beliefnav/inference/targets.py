r"""What is sampled: a prior over beliefs, a recorded stream, and the density they make.

A *prior* is a NumPyro program without arguments that samples hyper-parameters and returns a belief
of `beliefnav.beliefs` made of them. With $\psi$ for what it samples and $x$ for the latent path,

$$ p(\psi \mid y_{1:T}) \propto p(\psi) \prod_t p(y_t \mid y_{1:t-1}, \psi), \qquad
   p(y_{1:T} \mid \psi) = \int p(y_{1:T}, x_{1:T} \mid \psi) \, dx, $$

where the filter of the belief does the integral exactly, one step at a time.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav import filters
from beliefnav.beliefs._program import unread
from beliefnav.beliefs.contract import Belief, Filter, as_belief
from beliefnav.inference import _sensitivity
from beliefnav.recording import Recording
from beliefnav.recording.dataset import check_layout, to_arrays

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Density",
    "MIN_STEPS",
    "Target",
    "Values",
    "believe",
    "density",
    "hyperparameters",
    "informative",
    "recording",
    "simulate",
    "target",
]

Values = dict[str, Array]

MIN_STEPS = 20
"""Fewer observations say nothing about a memory."""


class Target(NamedTuple):
    """A posterior to be sampled, made by `target`.

    Attributes:
        prior: the program of the hyper-parameters, which returns a belief.
        stream: a Dataset with ``gradient`` of dimensions (step, ...) and, if they were recorded,
            ``displacement`` and ``curvature`` of the same.
        separate: the dimension along which every entry has a posterior of its own, or ``None``.
        integrate: whether the latent path is integrated out, or sampled as well.
    """

    prior: Callable[[], Belief]
    stream: "xr.Dataset"
    separate: str | None
    integrate: bool

    @property
    def unit_dims(self) -> tuple[str, ...]:
        """The dimension that is taken apart, if there is one."""
        return () if self.separate is None else (self.separate,)

    @property
    def unit_shape(self) -> tuple[int, ...]:
        """How many units there are, if they are separate."""
        return tuple(self.stream.sizes[dim] for dim in self.unit_dims)

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the recording of one unit."""
        others = (str(dim) for dim in self.stream["gradient"].dims)
        return ("step", *(dim for dim in others if dim not in ("step", self.separate)))

    def over_units(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of what one unit has, for all of them: vmapped if they are separate."""
        return function if self.separate is None else jax.vmap(function)


def target(
    prior: Callable[[], Belief],
    stream: "xr.Dataset",
    *,
    separate: str | None = None,
    integrate: bool = True,
) -> Target:
    """A prior over beliefs and a recorded stream.

    Without ``separate`` there is one posterior: the prior's belief is about observations of the
    shape of ``gradient`` without its step, and may share hyper-parameters among them (a
    hierarchy). With ``separate="param"``, say, every coordinate has a posterior of its own, and
    the prior is about one of them; they are sampled side by side, vmapped, each with its own
    adaptation.

    Args:
        prior: a NumPyro program without arguments that returns a belief of `beliefnav.beliefs`.
        stream: such as a stream file, see `beliefnav.recording`, or the result of `stream`.
            Entries of ``gradient`` that are not finite are missing.
        separate: the dimension of ``stream`` to take apart.
        integrate: integrate the latent path out, exactly, by the filter. ``False`` samples it too,
            by the belief's own program, as a check.

    Returns:
        What the samplers take.

    Raises:
        ValueError: the stream has no gradient, another layout, fewer than 20 steps or coordinates
            that say nothing (see `informative`); ``separate`` is not one of its dimensions; the
            belief needs displacements that are not there or not finite; a site or a plate of the
            prior has a name under which the draws could not be kept.
        TypeError: the stream is no Dataset.
    """
    import xarray as xr

    if not isinstance(stream, xr.Dataset):
        raise TypeError(
            f"Cannot infer from a stream of type {type(stream).__name__}. This is because it needs "
            "labels; give recording.from_arrays(gradient) of an array [step, ...]."
        )
    check_layout(stream)
    if stream.sizes["step"] < MIN_STEPS:
        raise ValueError(
            f"The stream has {stream.sizes['step']} steps; inference needs at least {MIN_STEPS}."
        )
    others = [str(dim) for dim in stream["gradient"].dims if dim != "step"]
    if separate is not None and separate not in others:
        raise ValueError(
            f"separate={separate!r} is not a dimension of the gradient other than step; there are: "
            f"{', '.join(map(repr, others)) or 'none'}."
        )
    says = informative(stream)
    if not says.all():
        silent = says.where(~says, drop=True) if says.ndim else says
        names = [str(name) for name in silent.coords[others[0]].values] if says.ndim == 1 else []
        where = f" in {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else ""
        raise ValueError(
            f"The gradient is constant, never observed or mostly 0{where} ({int((~says).sum())} of "
            f"{says.size} coordinates), which says nothing about a belief. Leave them out; "
            "inference.informative(stream) tells which to keep."
        )
    name, filter_, sites = _filter_of(prior)
    _check_names(sites, stream)
    if "curvature" in stream and not filter_.uses_curvature:
        raise unread(name)
    if filter_.uses_displacement:
        if "displacement" not in stream:
            raise ValueError(
                "Cannot infer this belief from a stream without displacement. This is because its "
                "prediction depends on how far the parameters moved."
            )
        # The last displacement leads nowhere that is observed.
        if not np.isfinite(stream["displacement"].isel(step=slice(-1))).all():
            raise ValueError("The displacement has entries that are not finite.")
    return Target(prior, stream, separate, integrate)


def informative(stream: "xr.Dataset") -> "xr.DataArray":
    """Which coordinates of a stream say something about a belief that has a density.

    They have at least two different observed gradients, and no more than half of those observed are
    exactly 0. Whoever believes in a density gives exact zeros, as of dead units and border pixels,
    no probability: it rises without bound as the memory falls, whatever the other steps say.

    Args:
        stream: as in `target`.

    Returns:
        True or False for every coordinate, without the dimension step.
    """
    gradient = stream["gradient"].where(np.isfinite(stream["gradient"]))
    varies = gradient.max("step") > gradient.min("step")
    return varies & ((gradient == 0).sum("step") <= gradient.notnull().sum("step") / 2)


class Density(NamedTuple):
    """The density of one unit: of all, or of one entry of the dimension taken apart.

    A position is all unconstrained values in one array, as samplers are fastest with.

    Attributes:
        data: the recording; if units are separate, all arrays have them as their first axis.
        like: site -> shape and dtype of its unconstrained value.
        potential: ``(position [dim], recording of a unit)`` -> minus the log density.
        constrain: ``(position [dim], recording of a unit)`` -> all sites, those that are computed
            from others too.
        dims: site -> the names of its dimensions.
    """

    data: Recording
    like: dict[str, jax.ShapeDtypeStruct]
    potential: Callable[[Array, Recording], Array]
    constrain: Callable[[Array, Recording], Values]
    dims: dict[str, tuple[str, ...]]

    @property
    def size(self) -> int:
        """The number of unconstrained values."""
        return sum(math.prod(like.shape) for like in self.like.values())

    def join(self, values: Values) -> Array:
        """The position [..., dim] of unconstrained values [..., *shape]."""
        parts = [
            jnp.reshape(values[name], (*values[name].shape[: -like.ndim or None], -1))
            for name, like in self.like.items()
        ]
        return jnp.concatenate(parts, -1)

    def split(self, position: Array) -> Values:
        """The unconstrained values [..., *shape] of a position [..., dim]."""
        return _split(self.like, position)


def density(target: Target) -> Density:
    """What samplers need to know of a target.

    Raises:
        ValueError: there is nothing to sample.
    """
    from numpyro import handlers
    from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

    data = recording(target)
    unit = data if target.separate is None else jax.tree.map(lambda x: x[0], data)

    def program(recording: Recording) -> None:
        _program(target, recording)

    # Where latents are integrated out the prior has all sites there are.
    sites: Any = (lambda _: target.prior()) if target.integrate else program
    trace, shapes = _look(sites, unit)
    if not any(site["type"] == "sample" for site in trace.values()):
        raise ValueError(
            "Cannot infer with a prior that samples nothing. This is because the belief that it "
            "returns has no unknown hyper-parameter; sample one with numpyro.sample."
        )

    def unconstrain(recording: Recording) -> Values:
        seeded = handlers.seed(sites, jax.random.key(0))
        found = handlers.trace(seeded).get_trace(recording)
        values = {name: found[name]["value"] for name in trace if trace[name]["type"] == "sample"}
        return unconstrain_fn(seeded, (recording,), {}, values)

    like = jax.eval_shape(unconstrain, unit)

    def constrain(position: Array, recording: Recording) -> Values:
        values = _split(like, position)
        return constrain_fn(sites, (recording,), {}, values, return_deterministic=True)

    @jax.jit  # traced once, however often a sampler mentions it
    def potential(position: Array, recording: Recording) -> Any:
        return potential_energy(program, (recording,), {}, _split(like, position))

    return Density(
        data=data,
        like=like,
        potential=potential,
        constrain=constrain,
        dims={
            name: _dims(site, shapes[name].shape, unit.gradient.shape, target.dims)
            for name, site in trace.items()
        },
    )


def _split(like: dict[str, jax.ShapeDtypeStruct], position: Array) -> Values:
    ends = np.cumsum([math.prod(x.shape) for x in like.values()])
    parts = jnp.split(position, ends[:-1], axis=-1)
    return {
        name: part.reshape(*position.shape[:-1], *like[name].shape)
        for name, part in zip(like, parts, strict=True)
    }


def recording(target: Target) -> Recording:
    """The arrays of a target, [step, ...], or [unit, step, ...] if units are separate."""
    return to_arrays(target.stream, (*target.unit_dims, *target.dims))


def hyperparameters(target: Target) -> list[str]:
    """The sites that the prior samples."""
    trace, _ = _look(target.prior)
    return [name for name, site in trace.items() if site["type"] == "sample"]


def believe(belief: Belief, recording: Recording) -> Recording:
    """The part of a recording that a belief reads.

    Raises:
        ValueError: there are readings of a second sensor that it does not read.
    """
    filter_ = belief.filter()
    if recording.curvature is not None and not filter_.uses_curvature:
        raise unread(belief.name)
    return recording if filter_.uses_displacement else recording._replace(displacement=None)


def simulate(
    prior: Callable[[], Belief],
    *,
    key: Array,
    num_steps: int | None = None,
    displacement: Any = None,
    shape: tuple[int, ...] = (),
) -> tuple[Values, Recording]:
    """Draw hyper-parameters from a prior, and a recording from the belief that they make.

    Args:
        prior: as in `target`.
        key: random key.
        num_steps: number of steps, for a belief that does not use displacements.
        displacement: [step, ...] otherwise.
        shape: shape of one observation, where there is no displacement.

    Returns:
        Site -> value, and the recording.

    Raises:
        ValueError: ``num_steps`` or ``displacement`` is missing, or the belief has no proper
            program.
    """
    from numpyro import handlers

    keys = jax.random.split(key)
    with handlers.trace() as trace, handlers.seed(rng_seed=keys[0]):
        belief = as_belief(prior())
    values = {n: s["value"] for n, s in trace.items() if s["type"] in ("sample", "deterministic")}
    program = handlers.seed(belief.numpyro_model, keys[1])
    if belief.filter().uses_displacement:
        if displacement is None:
            raise ValueError(f"simulate: {belief.name} needs a displacement [step, ...].")
        observed = program(displacement=displacement)
    elif num_steps is None:
        raise ValueError(f"simulate: {belief.name} needs num_steps.")
    else:
        observed = program(num_steps=num_steps, shape=shape)
    gradient, curvature = observed if isinstance(observed, tuple) else (observed, None)
    return values, Recording(gradient, displacement, curvature)


def _program(target: Target, recording: Recording) -> None:
    """The NumPyro program of hyper-parameters and stream."""
    import numpyro

    belief = as_belief(target.prior())
    used = believe(belief, recording)
    if target.integrate:
        streams = target.stream["gradient"].size // target.stream.sizes["step"]
        if _sensitivity.is_faster(belief, streams):
            log_likelihood = _sensitivity.log_likelihood(belief, used)
        else:
            log_likelihood = filters.log_likelihood(belief, *used).sum()
        numpyro.factor("log_likelihood", log_likelihood)
    else:
        named = {name: part for name, part in used._asdict().items() if part is not None}
        belief.numpyro_model(named.pop("gradient"), **named)


def _look(
    program: Callable[..., Any], *args: Any
) -> tuple[dict[str, Any], dict[str, jax.ShapeDtypeStruct]]:
    """The sites of a program that are not observed, and their shapes; nothing is computed."""
    from numpyro import handlers

    trace: dict[str, Any] = {}

    def run(*args: Any) -> Values:
        found = handlers.trace(handlers.seed(program, jax.random.key(0))).get_trace(*args)
        for name, site in found.items():
            sampled = site["type"] == "sample" and not site["is_observed"]
            if sampled or site["type"] == "deterministic":
                trace[name] = site
        return {name: site["value"] for name, site in trace.items()}

    shapes = jax.eval_shape(run, *args)
    return trace, shapes


def _check_names(sites: dict[str, Any], stream: "xr.Dataset") -> None:
    """Raise unless the draws of all sites can be kept under their names, beside their labels.

    Raises:
        ValueError: a site or a plate has a name that is taken, or one with a slash; it names it.
    """
    taken = {"chain", "draw", "log_likelihood", *map(str, stream.dims)}
    plates = {f.name: f.size for site in sites.values() for f in site["cond_indep_stack"]}
    for kind, name, clash in (
        *(("site", name, name in taken) for name in sites),
        *(
            ("plate", name, name in taken and size != stream.sizes.get(name))
            for name, size in plates.items()
        ),
    ):
        if clash or "/" in name:
            raise ValueError(
                f"Cannot keep draws of the {kind} {name!r} of the prior. This is because the name "
                "is that of a dimension of the draws or of the stream, or has a '/', which "
                "Datasets and files do not take; rename it."
            )


def _filter_of(prior: Callable[[], Any]) -> tuple[str, Filter, dict[str, Any]]:
    """The name of the belief that a prior returns, its filter, and the sites of the prior."""
    found = []

    def program() -> None:
        given = prior()
        try:
            belief = as_belief(given)
        except TypeError as error:
            raise ValueError(
                "A prior is a NumPyro program that returns a belief, such as "
                f"beliefs.OrnsteinUhlenbeck; this one returned {given!r}."
            ) from error
        found.append((belief.name, belief.filter()))

    sites, _ = _look(program)
    return (*found[0], sites)


def _dims(
    site: dict[str, Any],
    value_shape: tuple[int, ...],
    shape: tuple[int, ...],
    names: tuple[str, ...],
) -> tuple[str, ...]:
    """Names of the dimensions of a site: of its plates; of the stream, if it has its shape."""
    if value_shape == shape:
        return names
    dims = [f"{site['name']}_dim_{i}" for i in range(len(value_shape))]
    event_dims = site["fn"].event_dim if site["type"] == "sample" else 0
    for frame in site["cond_indep_stack"]:
        axis = len(dims) - event_dims + frame.dim
        if 0 <= axis < len(dims) and value_shape[axis] == frame.size:
            dims[axis] = frame.name
    return tuple(dims)
