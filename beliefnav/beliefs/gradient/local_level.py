r"""Local level with discount: a gradient that drifts as fast as it is forgotten.

$$ g_t = g_{t-1} + N(0, R W_t), \quad W_t = C_{t-1} (1 - \beta) / \beta, \qquad
   y_t = g_t + N(0, R), $$

where $R C_t$ is the posterior variance after $y_t$. In terms of the sample size $n = 1/C$ its exact
filter is

$$ n \leftarrow \beta n + 1, \qquad m \leftarrow m + (y - m) / n. $$

The diffuse prior $n_0 = 0$ gives the bias-corrected moving average of Adam; $n_0 = 1/(1-\beta)$
with $m_0 = 0$ gives the uncorrected one. Bias correction is a prior.

Reference:
    West and Harrison, "Bayesian Forecasting and Dynamic Models", 2nd ed., 1997, chapters 2 and 6
    (discount factors).
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import COUNT, FINITE, POSITIVE, UNIT_INTERVAL, is_concrete
from beliefnav._format import memory
from beliefnav.beliefs import _discounting, _program, gaussian
from beliefnav.beliefs._facts import prior
from beliefnav.beliefs._linear_gaussian import Sensor, normal_reading, reciprocal
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, LinearForm, Posterior, Surprise
from beliefnav.beliefs.gaussian import Conditional, Gaussian

__all__ = ["LocalLevel", "LocalLevelState", "walk"]

PyTree = Any


class LocalLevelState(NamedTuple):
    """The level after an observation.

    Attributes:
        mean: $m$, a tree like the parameters.
        sample_size: $n$, in observations: a tree like the parameters, or one scalar for all.
        noise_variance: $R$, or ``None`` where unknown.
    """

    mean: PyTree
    sample_size: PyTree
    noise_variance: Array | None

    def posterior(self) -> Posterior:
        r"""Gradient mean $m$ and, where $R$ is known, gradient variance $R/n$."""
        if self.noise_variance is None:
            return Posterior(gradient_mean=self.mean)
        return Posterior(
            gradient_mean=self.mean,
            gradient_variance=jax.tree.map(
                lambda m, n: jnp.broadcast_to(self.noise_variance / n, m.shape).astype(m.dtype),
                self.mean,
                jax.tree.broadcast(self.sample_size, self.mean),
            ),
        )


class LocalLevel(Belief):
    r"""Local level with discount (equations in the module docstring).

    Attributes:
        discount: $\beta$ in [0, 1]; the memory is $1/(1-\beta)$ steps.
        noise_variance: $R > 0$, in units of the squared gradient. ``None``: unknown. The mean does
            not depend on it; without it there is no posterior variance and no predictive density.
        prior_mean: $m_0$.
        prior_sample_size: $n_0$, in observations. 0 is diffuse.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "discount": UNIT_INTERVAL,
        "noise_variance": POSITIVE,
        "prior_mean": FINITE,
        "prior_sample_size": COUNT,
    }

    discount: ArrayLike
    noise_variance: ArrayLike | None = None
    prior_mean: ArrayLike = 0.0
    prior_sample_size: ArrayLike = 0.0

    def filter(self) -> Filter:
        r"""The exact online filter, whose states are `LocalLevelState`.

        A missing entry keeps its mean, which is its prediction, and its sample size decays.
        """
        return self._filter(shared=False)

    def shared_filter(self) -> Filter:
        """The filter with one sample size for all entries.

        Half the memory. Exact while every entry is observed; after a missing entry, an
        approximation in which it counts as observed.
        """
        return self._filter(shared=True)

    def _filter(self, shared: bool) -> Filter:
        def init(params: PyTree) -> LocalLevelState:
            like = _trees.scalar_like if shared else _trees.full_like
            noise_variance = self.noise_variance
            if noise_variance is not None:
                noise_variance = _trees.scalar_like(params, noise_variance)
            return LocalLevelState(
                _trees.full_like(params, self.prior_mean),
                like(params, self.prior_sample_size),
                noise_variance,
            )

        def predict(state: LocalLevelState, displacement: PyTree = None) -> LocalLevelState:
            del displacement
            return state._replace(sample_size=_trees.scale(state.sample_size, self.discount))

        def correct(predicted: LocalLevelState, gradient: PyTree) -> tuple[PyTree, PyTree, PyTree]:
            """The error, the new sample size and the gain."""
            error = _trees.innovation(gradient, predicted.mean)
            seen = None if shared else _trees.observed(gradient)
            sample_size = _discounting.observe(predicted.sample_size, seen)
            return error, sample_size, _discounting.mean_gain(sample_size)

        def update(
            predicted: LocalLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> LocalLevelState:
            del curvature
            error, sample_size, gain = correct(predicted, gradient)
            mean = _trees.correct(predicted.mean, gain, error)
            return LocalLevelState(mean, sample_size, predicted.noise_variance)

        def weigh(
            predicted: LocalLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[LocalLevelState, Surprise]:
            state = update(predicted, gradient, curvature)
            error = _trees.innovation(gradient, predicted.mean)
            return state, self._surprise(predicted, error, _trees.observed(gradient))

        def diagnose(
            predicted: LocalLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            del curvature
            seen = _trees.observed(gradient)
            error, _, gain = correct(predicted, gradient)
            log_density, surprise, scale = self._reading(predicted, error, seen)
            return Info(
                innovation=error,
                log_density=log_density,
                gain=_trees.where(seen, gain, 0),
                missing=jax.tree.map(jnp.logical_not, seen),
                surprise=surprise,
                predictive_scale=scale,
            )

        known = self.noise_variance is not None

        def read(state: LocalLevelState, fields: Collection[str]) -> Posterior:
            if "gradient_variance" in fields:
                return state.posterior()
            return Posterior(gradient_mean=state.mean)

        return Filter(init, predict, update, diagnose, weigh if known else None, read)

    def _surprise(self, predicted: LocalLevelState, error: PyTree, seen: PyTree) -> Surprise:
        r"""$e^2/S$ and whether it was predicted: a diffuse level predicts nothing."""
        noise_variance = predicted.noise_variance
        assert noise_variance is not None

        def leaf(e: Array, n: Array, o: Array) -> tuple[Array, Array]:
            proper = n > 0
            variance = noise_variance * (1 + 1 / jnp.where(proper, n, 1))
            counts = o & proper
            return jnp.where(counts, e**2 * reciprocal(variance), 0), counts.astype(int)

        sizes = jax.tree.broadcast(predicted.sample_size, error)
        return Surprise(*_trees.unzip(leaf, (0, 0), error, sizes, seen))

    def _reading(self, predicted: LocalLevelState, error: PyTree, seen: PyTree) -> Any:
        r"""Log density, surprise and scale of $N(y; m, R (1 + 1/\beta n))$.

        Where that is improper, the first two are 0, and the scale is infinite.
        """
        noise_variance = predicted.noise_variance
        if noise_variance is None:
            return None, None, None

        def leaf(e: Array, n: Array, o: Array) -> tuple[Array, Array, Array]:
            proper = n > 0
            variance = noise_variance * (1 + 1 / jnp.where(proper, n, 1))
            log_density, surprise, scale = normal_reading(e, variance, o & proper)
            return log_density, surprise, jnp.where(o & ~proper, jnp.inf, scale)

        sizes = jax.tree.broadcast(predicted.sample_size, error)
        return _trees.unzip(leaf, (0, 0, 0), error, sizes, seen)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory and its prior."""
        sentence = f"The {quantity} drifts as fast as it is forgotten; it is seen through noise."
        return (
            Fact(quantity, memory(self.discount, time), sentence),
            prior(quantity, self.prior_sample_size, self.prior_mean, time),
        )

    def averages(self) -> bool:
        """Yes."""
        return True

    def proper(self) -> bool:
        """Whether the prior is known not to be diffuse."""
        size = self.prior_sample_size
        return is_concrete(size) and bool(np.all(np.asarray(size) > 0))

    def scaled(self, factor: ArrayLike) -> "LocalLevel":
        """The same model with every variance multiplied by ``factor``.

        Raises:
            ValueError: the noise variance is unknown.
        """
        return dataclasses.replace(self, noise_variance=self._known_noise() * factor)

    def linear_gaussian(self) -> LinearForm:
        """Itself, one variable for every parameter."""
        return LinearForm(self)

    def inputs(
        self, gradient: Array, displacement: Any, curvature: Any, context: Any = None
    ) -> tuple[tuple[Array, Array], Any]:
        """A recording of one leaf with the variances of its drift; then the sample size after it.

        Raises:
            ValueError: the noise variance is unknown, or the random walk is degenerate.
        """
        del displacement, curvature
        _discounting.check_program(type(self).__name__, self.discount)
        seen = _trees.is_observed(gradient)
        before = self.prior_sample_size if context is None else context
        sizes = _discounting.sample_sizes(self.discount, before, seen)
        drift: Any = self._known_noise() * ((1 - self.discount) / (self.discount * sizes))
        drift = drift.astype(_trees.wide_dtype(gradient.dtype))
        return (gradient, drift), self.discount * sizes[-1] + seen[-1].astype(sizes.dtype)

    def prior(self) -> Gaussian:
        """The prior, one step before the first observation.

        Raises:
            ValueError: the noise variance is unknown, or the prior is improper.
        """
        if _discounting.is_zero(self.prior_sample_size):
            raise ValueError(
                "Cannot look back over a recording with an improper LocalLevel. Give a positive "
                "prior_sample_size, or drop the first observation and start from it: prior_mean=y, "
                "prior_sample_size=1."
            )
        variance = self._known_noise() / self.prior_sample_size
        return gaussian.independent((self.prior_mean,), (variance,))

    def transition(self, inputs: tuple[Array, Array]) -> Conditional:
        """The transition into a step of a recording."""
        return Conditional(((1,),), gaussian.independent((0,), (inputs[1],)))

    def sensors(self, inputs: tuple[Array, Array]) -> Sequence[Sensor]:
        """The observation at a step of a recording."""
        return [Sensor((1,), inputs[0], self._known_noise())]

    def read(self, belief: Gaussian) -> Posterior:
        """The posterior, from the belief about one leaf."""
        return Posterior(gradient_mean=belief.mean[0], gradient_variance=belief.variances[0])

    def _known_noise(self) -> ArrayLike:
        if self.noise_variance is None:
            raise ValueError("LocalLevel: its noise_variance is unknown; give it.")
        return self.noise_variance

    def program(self, stream: Stream) -> Array:
        r"""The joint program, with sites ``gradient`` and ``observation``.

        With $n_0 > 0$ the level starts at $g_0 \sim N(m_0, R/n_0)$. With $n_0 = 0$ the program
        conditions on the first observation, $g_1 \sim N(y_1, R)$: the sites then start at the
        second step.
        """
        name = self.name
        _discounting.check_program(name, self.discount)
        if self.noise_variance is None:
            raise ValueError(f"{name}: the NumPyro program needs a noise_variance.")
        sizes = _discounting.sample_sizes(self.discount, self.prior_sample_size, stream.seen)
        if improper := _discounting.is_zero(self.prior_sample_size):
            first = _discounting.first_observation(name, "prior_sample_size", stream)
            stream, sizes, start = stream.drop_first(), sizes[1:], (first, 1.0)
        else:
            start = self.prior_mean, self.prior_sample_size
        drift = jnp.sqrt((1 - self.discount) / (self.discount * sizes))
        return walk(start, self.noise_variance, drift, stream, conditioned=improper)


def walk(
    start: tuple[Any, Any],
    noise_variance: ArrayLike,
    drift: Array,
    stream: Stream,
    *,
    conditioned: bool,
) -> Array:
    """A random walk that is seen through noise, with sites ``gradient`` and ``observation``.

    Args:
        start: the mean of the level before the first step, and its sample size.
        noise_variance: $R$.
        drift: standard deviations of the steps of the walk, in units of that of the noise.
        stream: what is seen.
        conditioned: whether ``start`` is an observation, an array, of sample size 1.

    Returns:
        The observations [step, ...].
    """
    import numpyro
    from numpyro import distributions as dist
    from numpyro.contrib.control_flow import scan

    noise_scale = jnp.sqrt(noise_variance)
    mean, size = start
    if conditioned:
        initial = dist.Normal(mean, noise_scale)
    else:
        initial = dist.Normal(mean, noise_scale / jnp.sqrt(size)).expand(stream.shape)

    def step(level: Any, inputs: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        drift, value, seen = inputs
        level = numpyro.sample("gradient", dist.Normal(level, drift))
        return level, _program.observe(dist.Normal(level, noise_scale), value, seen)

    level = numpyro.sample("initial_gradient", initial)
    return scan(step, level, (noise_scale * drift, stream.values, stream.seen))[1]
