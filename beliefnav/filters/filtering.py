r"""A belief filtered over a whole recorded stream."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from beliefnav._trees import unzip
from beliefnav.beliefs._program import unread
from beliefnav.beliefs.contract import (
    Belief,
    BeliefLike,
    Conjugate,
    Info,
    Posterior,
    _program,
    as_belief,
)
from beliefnav.filters import _linear
from beliefnav.recording import Recording

__all__ = [
    "checked",
    "filter_chunks",
    "filter_recording",
    "forecast",
    "last_state",
    "log_likelihood",
    "scan",
    "start",
]

PyTree = Any


def filter_recording(
    belief: BeliefLike,
    gradient: PyTree,
    displacement: PyTree = None,
    curvature: PyTree = None,
    *,
    parallel: bool = False,
) -> tuple[Posterior, Info]:
    r"""The posterior after every observation of a recorded stream.

    The last displacement, after which nothing was observed, is not used.

    Args:
        belief: a model of `beliefnav.beliefs`, or anything with a ``filter()``.
        gradient: tree of [step, ...]; NaN or infinite entries are missing.
        displacement: tree of [step, ...], or ``None`` if the belief does not use it.
        curvature: tree of [step, ...], readings of a second sensor; NaN entries are missing.
        parallel: over time, by an associative scan, for linear-Gaussian models. The same posterior;
            on a GPU, faster for few long streams; on a CPU, more work for nothing.

    Returns:
        The posterior and the diagnostics of every step, trees of [step, ...].

    Raises:
        ValueError: the belief uses displacements and none were given; streams are empty, have no
            step axis, or do not match; ``parallel`` with a belief that is not linear-Gaussian.
    """
    belief, recording = checked(belief, Recording(gradient, displacement, curvature))
    if parallel:
        return _linear.filter_parallel(belief, *recording)
    return scan(belief, start(belief, recording), _believed, recording, None)[1]


def log_likelihood(
    belief: BeliefLike,
    gradient: PyTree,
    displacement: PyTree = None,
    curvature: PyTree = None,
    *,
    parallel: bool = False,
) -> PyTree:
    r"""The log marginal likelihood of a recorded stream, $\sum_t \log p(y_t \mid y_{1:t-1})$.

    The latent path is integrated out exactly by the filter. Differentiable in the hyper-parameters
    of ``belief``.

    Args:
        belief: as in `filter_recording`.
        gradient: as in `filter_recording`.
        displacement: as in `filter_recording`.
        curvature: as in `filter_recording`.
        parallel: as in `filter_recording`.

    Returns:
        A tree of [...]: one log likelihood for every entry; a scalar if the belief is about all of
        them together. Where the prior is improper it sums from the second observation.

    Raises:
        ValueError: the belief has no predictive density, or see `filter_recording`.
    """
    belief, recording = checked(belief, Recording(gradient, displacement, curvature))
    conjugate = None if parallel else belief.conjugate()
    if conjugate is not None:
        return _joint(conjugate, recording)
    if parallel:
        log_density = _linear.filter_parallel(belief, *recording)[1].log_density
    else:
        initial = start(belief, recording)
        log_density = scan(belief, initial, lambda _, i: i().log_density, recording, None)[1]
    if log_density is None:
        raise ValueError(
            f"{belief.name} has no predictive density, hence no likelihood. This is because its "
            "filter declares no diagnose with a log_density; for a LocalLevel, give its "
            "noise_variance."
        )
    return jax.tree.map(lambda x: x.sum(0), log_density)


def _joint(conjugate: Conjugate, recording: Recording) -> PyTree:
    """The joint density of all readings, to which those of one step after the other multiply.

    One density of all steps, at the end, costs half of what one at every step does.
    """

    def read(_: Any, diagnose: Callable[[], Info]) -> tuple[PyTree, PyTree]:
        info = diagnose()
        return info.surprise, info.log_density

    initial = start(conjugate.belief, recording)
    surprise, log_density = scan(conjugate.belief, initial, read, recording, None)[1]

    def leaf(y: Any, c: Any, surprise: jax.Array, log_density: jax.Array) -> jax.Array:
        return conjugate.join(y, c, surprise.sum(0), log_density.sum(0))

    trees = recording.gradient, recording.curvature, surprise, log_density
    return unzip(leaf, 0, *trees)


def last_state(
    belief: BeliefLike, gradient: PyTree, displacement: PyTree = None, curvature: PyTree = None
) -> Any:
    """The state of the belief's filter after a whole recording, to go on from or to `forecast`.

    Args:
        belief: as in `filter_recording`.
        gradient: as in `filter_recording`.
        displacement: as in `filter_recording`.
        curvature: as in `filter_recording`.

    Returns:
        The state.

    Raises:
        ValueError: see `filter_recording`.
    """
    belief, recording = checked(belief, Recording(gradient, displacement, curvature))
    return scan(belief, start(belief, recording), lambda *_: None, recording, None)[0]


def filter_chunks(
    belief: BeliefLike, chunks: Iterable[Recording]
) -> Iterator[tuple[Posterior, Info]]:
    """`filter_recording` for a stream that is longer than memory, one part after the other.

    Args:
        belief: as in `filter_recording`.
        chunks: the parts of one recording, in order. Parts of equal length compile once.

    Yields:
        The posterior and the diagnostics of every part, equal to those of the whole.

    Raises:
        ValueError: see `filter_recording`.
    """
    held = as_belief(belief)

    @jax.jit
    def run(state: Any, chunk: Recording, before: PyTree) -> tuple[Any, Any]:
        return scan(held, state, _believed, chunk, before)

    state, before = None, None
    for chunk in chunks:
        _, chunk = checked(held, chunk)
        state = start(held, chunk) if state is None else state
        state, result = run(state, chunk, before)
        before = jax.tree.map(lambda d: d[-1], chunk.displacement)
        yield result


def forecast(
    belief: BeliefLike,
    state: Any,
    *,
    num_steps: int | None = None,
    displacement: PyTree = None,
) -> Posterior:
    r"""What is believed of the gradient and curvature some steps ahead, with no more observations.

    Args:
        belief: a model of `beliefnav.beliefs`, or anything with a ``filter()``.
        state: of its filter, from `last_state` or from an optimizer.
        num_steps: number of steps ahead, for a belief that does not use displacements.
        displacement: tree of [step, ...], otherwise: the first is the step taken since the last
            observation, the others are planned.

    Returns:
        The posterior 1, 2, ... steps ahead, trees of [step, ...].

    Raises:
        ValueError: ``num_steps`` or ``displacement`` is missing or not positive.
    """
    belief = as_belief(belief)
    filter_ = belief.filter()
    if filter_.uses_displacement != (displacement is not None):
        raise ValueError(
            f"forecast: {belief.name} "
            + (
                "needs displacement=, the steps since the last observation and onwards."
                if filter_.uses_displacement
                else "does not use displacements; give num_steps=."
            )
        )
    if displacement is not None:
        num_steps = min((len(d) for d in jax.tree.leaves(displacement)), default=0)
    if num_steps is None or num_steps < 1:
        raise ValueError(f"forecast: num_steps must be at least 1, got {num_steps!r}.")
    read = state.posterior()
    like = next(field for field in read if field is not None)
    nothing = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), like)

    def step(state: Any, moved: PyTree) -> tuple[Any, Posterior]:
        state = filter_.update(filter_.predict(state, moved), nothing)
        return state, state.posterior()

    return lax.scan(step, state, displacement, length=num_steps)[1]


def checked(given: Any, recording: Recording) -> tuple[Belief, Recording]:
    """The belief, and the recording as arrays.

    Raises:
        TypeError: it is no belief.
        ValueError: the recording does not fit the belief or itself.
    """
    belief = as_belief(given)
    filter_ = belief.filter()
    if filter_.uses_displacement and recording.displacement is None:
        raise ValueError(
            f"Cannot filter a recording with {belief.name} without displacement=. This is because "
            "its prediction depends on how far the parameters moved."
        )
    if recording.curvature is not None and not filter_.uses_curvature:
        raise unread(belief.name)
    gradient, displacement, curvature = jax.tree.map(jnp.asarray, recording)
    shapes = jax.tree.map(jnp.shape, gradient)
    lengths = {len(y) if y.ndim else None for y in jax.tree.leaves(gradient)}
    if not lengths or None in lengths or len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            "A recorded gradient needs streams [step, ...] of one length of at least 1, got shapes "
            f"{shapes}."
        )
    for field, tree in (("displacement", displacement), ("curvature", curvature)):
        if tree is not None and jax.tree.map(jnp.shape, tree) != shapes:
            raise ValueError(
                f"{field} must be recorded like the gradient, of shapes {shapes}, got "
                f"{jax.tree.map(jnp.shape, tree)}."
            )
    return belief, Recording(gradient, displacement, curvature)


def start(belief: Belief, recording: Recording) -> Any:
    """The state before the recording."""
    return belief.filter().init(jax.tree.map(lambda y: y[0], recording.gradient))


def _believed(state: Any, diagnose: Callable[[], Info]) -> tuple[Posterior, Info]:
    """Read the posterior and all diagnostics."""
    return state.posterior(), diagnose()


def scan(
    belief: Belief,
    state: Any,
    read: Callable[[Any, Callable[[], Info]], PyTree],
    recording: Recording,
    before: PyTree,
) -> tuple[Any, PyTree]:
    """The last state, and ``read(state, diagnose)`` after every observation, trees of [step, ...].

    ``before`` is the displacement that led to the first observation, ``None`` if none did.
    """
    filter_ = belief.filter()
    trees = (recording.displacement,) if before is None else (recording.displacement, before)
    moved = jax.tree.map(_program.moved, *trees)

    def step(state: Any, inputs: tuple[PyTree, PyTree, PyTree]) -> tuple[Any, PyTree]:
        observation, moved, sensed = inputs
        seen = filter_.predict(state, moved), observation, sensed

        def diagnose() -> Info:
            return Info() if filter_.diagnose is None else filter_.diagnose(*seen)

        state = filter_.update(*seen)
        return state, read(state, diagnose)

    # Derivatives keep the states alone and compute the rest again: half the time and memory.
    step = jax.checkpoint(step, prevent_cse=False)
    return lax.scan(step, state, (recording.gradient, moved, recording.curvature))
