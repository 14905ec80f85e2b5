r"""Looking back over a recording: smoothed beliefs and posterior paths, of linear-Gaussian models.

With the filtered belief $N(m_t, P_t)$ after $t$ observations and the transition $A, Q$ into the
next step, the state given its successor is

$$ x_t \mid x_{t+1}, y_{1:t} \sim N\big(m_t + G (x_{t+1} - A m_t - b), \; P_t - G A P_t\big),
   \qquad G = P_t A^\top (A P_t A^\top + Q)^{-1}. $$

Pushing the smoothed belief through it, from the last step to the first, is Rauch-Tung-Striebel
smoothing; drawing from it, backward sampling.

Reference:
    Särkkä and Svensson, "Bayesian Filtering and Smoothing", 2nd ed., 2023, chapters 12 and 15.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from beliefnav._checks import is_number
from beliefnav._trees import aligned_leaves, unzip
from beliefnav.beliefs.composed.positive import truncate
from beliefnav.beliefs.composed.unknown_noise import in_units, noise_variance
from beliefnav.beliefs.contract import BeliefLike, LinearForm, Posterior, as_belief
from beliefnav.beliefs.gaussian import Gaussian
from beliefnav.filters import _linear
from beliefnav.filters._linear import linear_form
from beliefnav.filters.filtering import checked, last_state
from beliefnav.recording import Recording

PyTree = Any


class Paths(NamedTuple):
    """Paths drawn from the posterior, trees of [sample, step, ...].

    Attributes:
        gradient: of the latent gradient.
        curvature: of the latent curvature; ``None`` if the belief has none that is uncertain.
    """

    gradient: PyTree
    curvature: PyTree


def smooth_recording(
    belief: BeliefLike,
    gradient: PyTree,
    displacement: PyTree = None,
    curvature: PyTree = None,
    *,
    parallel: bool = False,
) -> Posterior:
    r"""What is believed about every step after the whole recording was seen.

    Args:
        belief: a linear-Gaussian model, see `beliefnav.filters`.
        gradient: tree of [step, ...]; NaN or infinite entries are missing.
        displacement: tree of [step, ...], or ``None`` if the belief does not use it.
        curvature: tree of [step, ...], readings of a second sensor; NaN entries are missing.
        parallel: over time, by associative scans; see `filter_recording`.

    Returns:
        The posterior of every step, trees of [step, ...].

    Raises:
        ValueError: the belief is not linear-Gaussian, its prior is improper, the noise that it
            learns drifts, or see `filter_recording`.
    """
    belief = as_belief(belief)
    parts = linear_form(belief, "smooth a recording")
    _, recording = checked(belief, Recording(gradient, displacement, curvature))
    noise = _noise_variance(parts, recording)

    def leaf(y: Array, moved: Any, sensed: Any, scale: Any) -> Posterior:
        prior, inputs, _ = _linear.prepare(parts.model, y, moved, sensed)
        if parallel:
            filtered = _linear.filter_in_parallel(parts.model, prior, inputs)
            smoothed = _linear.smooth_in_parallel(parts.model, filtered, inputs)
        else:
            _, filtered = _linear.filter_sequential(parts.model, prior, inputs)
            smoothed = _linear.smooth_sequential(parts.model, filtered, inputs, None)
        return _read(parts, smoothed, scale)

    return unzip(leaf, None, *recording, noise)


def smooth_chunks(belief: BeliefLike, chunks: Sequence[Recording]) -> Iterator[Posterior]:
    """`smooth_recording` for a stream that is longer than memory, from its end to its start.

    Every part is read twice: forwards, keeping the belief at its start, then backwards.

    Args:
        belief: as in `smooth_recording`; its noise variance is known.
        chunks: the parts of one recording, in order. Parts of equal length compile once.

    Yields:
        The posterior of every part, **last part first**, equal to that of the whole.

    Raises:
        ValueError: see `smooth_recording`.
    """
    belief = as_belief(belief)
    parts = linear_form(belief, "smooth chunks")
    if parts.noise is not None:
        raise ValueError(
            "Cannot smooth chunks with UnknownNoise. This is because the noise is known only at "
            "the end; filter first and smooth with its model, scaled() by the noise variance."
        )
    model = parts.model

    def prepare(leaf: Any, start: Any) -> tuple[Gaussian, Any, Any]:
        belief, context = start
        y, moved, sensed = leaf
        prior, inputs, context = _linear.prepare(model, y, moved, sensed, context)
        return prior if belief is None else belief, inputs, context

    @jax.jit
    def forward(leaves: Any, starts: Any) -> Any:
        ends = []
        for leaf, start in zip(leaves, starts, strict=True):
            belief, inputs, context = prepare(leaf, start)
            ends.append((_linear.filter_sequential(model, belief, inputs)[0], context))
        return ends

    @jax.jit
    def backward(leaves: Any, starts: Any, afters: Any) -> Any:
        results = []
        for leaf, start, after in zip(leaves, starts, afters, strict=True):
            belief, inputs, _ = prepare(leaf, start)
            _, filtered = _linear.filter_sequential(model, belief, inputs)
            smoothed = _linear.smooth_sequential(model, filtered, inputs, after)
            first = jax.tree.map(lambda x: x[0], (smoothed, inputs))
            results.append((_read(parts, smoothed, None), first))
        return results

    starts: list[Any] = []
    state: Any = None
    for chunk in chunks:
        entries, _ = aligned_leaves(*checked(belief, chunk)[1])
        state = [(None, None)] * len(entries) if state is None else state
        starts.append(state)
        state = forward(entries, state)
    afters: Any = None
    for chunk, start in zip(reversed(chunks), reversed(starts), strict=True):
        entries, treedef = aligned_leaves(*checked(belief, chunk)[1])
        results = backward(entries, start, [None] * len(entries) if afters is None else afters)
        afters = [after for _, after in results]
        reads = [read for read, _ in results]
        yield jax.tree.map(lambda *xs, t=treedef: t.unflatten(xs), *reads)


def sample_paths(
    belief: BeliefLike,
    gradient: PyTree,
    displacement: PyTree = None,
    curvature: PyTree = None,
    *,
    key: Array,
    num_samples: int,
) -> Paths:
    """Draw whole paths of gradient and curvature from their posterior given a whole recording.

    Args:
        belief: a linear-Gaussian model, see `beliefnav.filters`, not read as positive.
        gradient: as in `smooth_recording`.
        displacement: as in `smooth_recording`.
        curvature: as in `smooth_recording`.
        key: random key.
        num_samples: number of paths.

    Returns:
        The paths, trees of [sample, step, ...].

    Raises:
        ValueError: ``num_samples`` is not positive, the belief is read as positive, or see
            `smooth_recording`.
    """
    belief = as_belief(belief)
    parts = linear_form(belief, "sample paths")
    if parts.positive:
        raise ValueError(
            "Cannot sample paths with a belief that is read as positive. This is because only its "
            "moments are; sample from the belief inside."
        )
    if num_samples < 1:
        raise ValueError(f"sample_paths: num_samples must be at least 1, got {num_samples!r}.")
    _, recording = checked(belief, Recording(gradient, displacement, curvature))
    noise = _noise_posterior(parts, recording)
    keys = iter(jax.random.split(key, len(jax.tree.leaves(recording.gradient))))

    def leaf(y: Array, moved: Any, sensed: Any, half: Any, total: Any) -> Paths:
        prior, inputs, _ = _linear.prepare(parts.model, y, moved, sensed)
        _, filtered = _linear.filter_sequential(parts.model, prior, inputs)

        def path(key: Array) -> Paths:
            key, other = jax.random.split(key)
            scale = jnp.ones(y.shape[1:], prior.mean[0].dtype)
            if half is not None:
                # sigma^2 ~ InvGamma(nu / 2, nu s^2 / 2)
                scale = jnp.sqrt(total / jax.random.gamma(other, half)).astype(scale.dtype)
            drawn = _linear.draw_sequential(
                parts.model, filtered, inputs, key, jnp.broadcast_to(scale, y.shape)
            )
            state = Gaussian(drawn, filtered.factor, filtered.variances)
            read = parts.model.read(state)
            return Paths(read.gradient_mean, drawn[1] if len(drawn) > 1 else None)

        return jax.vmap(path)(jax.random.split(next(keys), num_samples))

    return unzip(leaf, None, *recording, *noise)


def _read(parts: LinearForm, belief: Gaussian, scale: Array | None) -> Posterior:
    posterior = parts.model.read(belief)
    if scale is not None:
        posterior = in_units(posterior, jnp.broadcast_to(scale, belief.mean[0].shape))
    return truncate(posterior) if parts.positive else posterior


def _learned(parts: LinearForm, recording: Recording) -> tuple[PyTree, PyTree]:
    """The scale and the degrees of freedom of the noise after the whole recording."""
    noise = parts.noise
    assert noise is not None
    if not is_number(noise.discount, 1):
        raise ValueError(
            "Cannot look back over a recording with a noise that drifts (UnknownNoise with a "
            "discount below 1). This is because there is no joint model of it."
        )
    return noise.read(last_state(noise.belief, *recording))


def _noise_variance(parts: LinearForm, recording: Recording) -> PyTree:
    """The posterior mean of the noise variance after the whole recording, or ``None``."""
    if parts.noise is None:
        return None
    return jax.tree.map(lambda v: v[None], noise_variance(*_learned(parts, recording)))


def _noise_posterior(parts: LinearForm, recording: Recording) -> tuple[PyTree, PyTree]:
    """Shape and rate of the posterior of the noise variance, or ``None``."""
    if parts.noise is None:
        return None, None
    scale, degrees = _learned(parts, recording)
    half = jax.tree.map(lambda n: n / 2, degrees)
    return half, jax.tree.map(jnp.multiply, half, scale)
