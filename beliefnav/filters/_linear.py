"""Linear-Gaussian models over the recorded stream of one leaf, by scans or in parallel over time.

In parallel, a step and what is read after it is a link of a chain; the filter is all prefixes of
the chain, the smoother all suffixes of the chain of backward conditionals (associative scans).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from beliefnav._trees import unzip
from beliefnav.beliefs import gaussian
from beliefnav.beliefs._linear_gaussian import cast, condition, diagnostics_of, full
from beliefnav.beliefs.composed.positive import truncate
from beliefnav.beliefs.composed.unknown_noise import (
    count_readings,
    in_units,
    noise_variance,
    predictive,
    student_scale,
)
from beliefnav.beliefs.contract import (
    Belief,
    Info,
    LearnedNoise,
    LinearForm,
    LinearGaussian,
    Posterior,
)
from beliefnav.beliefs.gaussian import Conditional, Gaussian, Link

PyTree = Any


def linear_form(belief: Belief, purpose: str) -> LinearForm:
    """A belief taken apart.

    Raises:
        ValueError: the belief is not linear-Gaussian; it names what would have to be declared.
    """
    form = belief.linear_gaussian()
    if form is None:
        raise ValueError(
            f"Cannot {purpose} with {belief.name}. This is because it declares no linear-Gaussian "
            "model (linear_gaussian()), as beliefs.OrnsteinUhlenbeck or beliefs.Secant do."
        )
    return form


def prepare(
    model: LinearGaussian, y: Array, moved: Any, sensed: Any, context: Any = None
) -> tuple[Gaussian, Any, Any]:
    """The prior of one leaf as arrays, the inputs of every step, and the context after them."""
    prior = full(model.prior(), y[0])
    return prior, *model.inputs(y.astype(prior.mean[0].dtype), moved, sensed, context)


def filter_sequential(
    model: LinearGaussian, belief: Gaussian, inputs: Any
) -> tuple[Gaussian, Gaussian]:
    """The last filtered belief, and all of them [step, ...]."""

    def step(belief: Gaussian, now: Any) -> tuple[Gaussian, Gaussian]:
        predicted = gaussian.predict(belief, model.transition(now))
        belief = cast(condition(predicted, model.sensors(now))[0], belief.mean[0].dtype)
        return belief, belief

    return lax.scan(step, belief, inputs)


def smooth_sequential(
    model: LinearGaussian, filtered: Gaussian, inputs: Any, after: tuple[Gaussian, Any] | None
) -> Gaussian:
    """Smoothed beliefs [step, ...].

    ``after``: the smoothed belief and the inputs of the step after the last, ``None`` if there is
    none.
    """
    if after is None:
        last = jax.tree.map(lambda x: x[-1], filtered)
        now = jax.tree.map(lambda x: x[-1], inputs)
        filtered, inputs = jax.tree.map(lambda x: x[:-1], (filtered, inputs))
    else:
        last, now = after

    def step(carry: Any, back: Any) -> Any:
        later, now = carry
        belief, inputs = back
        _, backward = gaussian.reverse(belief, model.transition(now))
        belief = cast(gaussian.predict(later, backward), later.mean[0].dtype)
        return (belief, inputs), belief

    smoothed = lax.scan(step, (last, now), (filtered, inputs), reverse=True)[1]
    if after is not None:
        return smoothed
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), smoothed, last)


def draw_sequential(
    model: LinearGaussian, filtered: Gaussian, inputs: Any, key: Array, scale: Array
) -> tuple[Array, ...]:
    """One path [step, ...] of every state variable; ``scale`` multiplies standard deviations."""
    like = filtered.mean[0]
    keys = jax.random.split(key, len(filtered.mean))
    noise = tuple(scale * jax.random.normal(k, like.shape, like.dtype) for k in keys)
    last = gaussian.draw(tuple(e[-1] for e in noise), jax.tree.map(lambda x: x[-1], filtered))

    def step(later: Any, back: Any) -> Any:
        belief, now, noise = back
        _, backward = gaussian.reverse(belief, model.transition(now))
        drawn = gaussian.draw(noise, gaussian.affine(backward, later))
        drawn = tuple(x.astype(like.dtype) for x in drawn)
        return drawn, drawn

    earlier = jax.tree.map(lambda x: x[:-1], (filtered, noise))
    now = jax.tree.map(lambda x: x[1:], inputs)
    path = lax.scan(step, last, (earlier[0], now, earlier[1]), reverse=True)[1]
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), path, last)


def filter_in_parallel(model: LinearGaussian, prior: Gaussian, inputs: Any) -> Gaussian:
    """All filtered beliefs [step, ...]."""
    dtype, shape = prior.mean[0].dtype, prior.mean[0].shape

    def element(now: Any, first: Any) -> Link:
        step = model.transition(now)
        start = gaussian.predict(prior, step)
        here = Conditional(tuple(tuple(0.0 for _ in row) for row in step.matrix), start)
        step, here = (_dense(s, shape, dtype) for s in (step, here))
        step = jax.tree.map(lambda x, y: jnp.where(first, x, y), here, step)
        readings = [sensor.filled() for sensor in model.sensors(now)]
        return _dense(gaussian.link(step, readings), shape, dtype)

    first = jnp.arange(len(jax.tree.leaves(inputs)[0])) == 0
    links = jax.vmap(element)(inputs, first)

    def chain(one: Link, other: Link) -> Link:
        joined = gaussian.chain(one, other)
        return _dense(joined, one.step.noise.mean[0].shape, dtype)

    return _prefixes(chain, links).step.noise


def diagnose_in_parallel(
    model: LinearGaussian, prior: Gaussian, filtered: Gaussian, inputs: Any
) -> Info:
    """The diagnostics of every step, from the belief after the one before."""
    before = jax.tree.map(lambda p, x: jnp.concatenate([p[None], x[:-1]]), prior, filtered)

    def step(belief: Gaussian, now: Any) -> Info:
        predicted = gaussian.predict(belief, model.transition(now))
        return diagnostics_of(condition(predicted, model.sensors(now))[1])

    return jax.vmap(step)(before, inputs)


def smooth_in_parallel(model: LinearGaussian, filtered: Gaussian, inputs: Any) -> Gaussian:
    """Smoothed beliefs [step, ...]."""
    shape, dtype = filtered.mean[0].shape, filtered.mean[0].dtype

    def backward(belief: Gaussian, now: Any) -> Conditional:
        return _dense(gaussian.reverse(belief, model.transition(now))[1], shape[1:], dtype)

    earlier = jax.tree.map(lambda x: x[:-1], filtered)
    back = jax.vmap(backward)(earlier, jax.tree.map(lambda x: x[1:], inputs))
    last = jax.tree.map(lambda x: x[-1:], filtered)
    d = len(last.mean)
    end = _dense(Conditional(((0.0,) * d,) * d, last), (1, *shape[1:]), dtype)
    back = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), back, end)

    def compose(later: Conditional, earlier: Conditional) -> Conditional:
        composed = gaussian.compose(later, earlier)
        return _dense(composed, later.noise.mean[0].shape, dtype)

    # From the end: the later of two comes first.
    suffixes = _prefixes(compose, jax.tree.map(lambda x: x[::-1], back))
    return jax.tree.map(lambda x: x[::-1], suffixes.noise)


def filter_parallel(
    belief: Belief, gradient: PyTree, displacement: PyTree, curvature: PyTree
) -> tuple[Posterior, Info]:
    """`beliefnav.filters.filter_recording` in parallel over time."""
    form = linear_form(belief, "filter in parallel")
    model, noise = form.model, form.noise

    def leaf(y: Array, moved: Any, sensed: Any) -> tuple[Posterior, Info]:
        prior, inputs, _ = prepare(model, y, moved, sensed)
        filtered = filter_in_parallel(model, prior, inputs)
        info = diagnose_in_parallel(model, prior, filtered, inputs)
        posterior = model.read(filtered)
        if noise is not None:
            count = count_readings(y, sensed)
            posterior, info = _learn_noise(noise, posterior, info, count)
        return truncate(posterior) if form.positive else posterior, info

    return unzip(leaf, None, gradient, displacement, curvature)


def _learn_noise(
    noise: LearnedNoise, posterior: Posterior, info: Info, count: Array
) -> tuple[Posterior, Info]:
    """What `UnknownNoise` makes of a filtered recording [step, ...] of one leaf."""

    def recur(one: Any, other: Any) -> Any:
        """X <- a x + b, one after the other."""
        return one[0] * other[0], other[0] * one[1] + other[1]

    dtype = info.surprise.dtype
    start = jnp.full_like(info.surprise[:1], noise.prior_degrees_of_freedom)
    total_start = start * noise.prior_scale
    discounts = jnp.full_like(info.surprise, noise.discount)

    def accumulate(start: Array, terms: Array) -> tuple[Any, Any]:
        decay, total = lax.associative_scan(recur, (discounts, terms.astype(dtype)))
        after = decay * start + total
        return noise.discount * jnp.concatenate([start, after[:-1]]), after

    before, after = accumulate(start, count)
    total_before, total_after = accumulate(total_start, info.surprise)
    assert info.log_density is not None
    scale_before = jnp.where(before > 0, total_before / jnp.where(before > 0, before, 1), 0)
    log_density, surprise = predictive(
        scale_before,
        before,
        info.surprise,
        info.log_density,
        count,
    )
    scale = jnp.where(after > 0, total_after / jnp.where(after > 0, after, 1), 0)
    info = info._replace(
        log_density=log_density,
        surprise=surprise,
        predictive_scale=student_scale(info.predictive_scale, scale_before, before),
        predictive_degrees_of_freedom=before,
    )
    return in_units(posterior, noise_variance(scale, after)), info


def _prefixes(combine: Callable[[Any, Any], Any], elements: Any) -> Any:
    r"""All prefixes of a sequence under an associative operation, in $\log_2 T$ rounds.

    Every round doubles the reach (Kogge and Stone). That is more work than that of
    ``lax.associative_scan``, which combines at ever new shapes; but the combination is compiled
    once, and not $2 \log_2 T$ times, which for these would take minutes.
    """
    steps = jnp.arange(len(jax.tree.leaves(elements)[0]))

    def double(elements: Any, reach: Array) -> tuple[Any, None]:
        earlier = jax.tree.map(lambda x: jnp.roll(x, reach, 0), elements)
        combined = combine(earlier, elements)

        def choose(new: Array, old: Array) -> Array:
            far = (steps >= reach).reshape(-1, *[1] * (old.ndim - 1))
            return jnp.where(far, new, old)

        return jax.tree.map(choose, combined, elements), None

    return lax.scan(double, elements, 2 ** jnp.arange((len(steps) - 1).bit_length()))[0]


def _dense(tree: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """All entries as arrays of one shape and dtype, as an associative scan needs them."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, dtype), shape), tree)
