r"""Local level with polynomial memory: a level that drifts less and less.

$$ g_t = g_{t-1} + N(0, R W_t), \quad W_t = C_{t-1} \frac{p}{t-1}, \qquad y_t = g_t + N(0, R), $$

where $R C_t$ is the posterior variance after $y_t$: the local level with the discount
$\beta_t = (t-1)/(t-1+p)$ at step $t = 1, 2, \ldots$ In terms of the sample size $n = 1/C$ its exact
filter is

$$ n \leftarrow \beta_t n + 1, \qquad m \leftarrow m + (y - m) / n, $$

from $n_0 = 0$. While nothing is missing, $n_t = (t+p)/(p+1)$, the gain is $(p+1)/(t+p)$, the drift
has the variance $R\, p(p+1) / ((t-1)(t-1+p))$, nearly $R\, p(p+1)/t^2$, and the mean has the
weights $w_s \propto \Gamma(s+p)/\Gamma(s) \approx s^p$: the plain average at $p = 0$, the last
observation as $p \to \infty$. The last $t/(p+1)$ observations are what it remembers, whatever $t$.

Reference:
    Shamir and Zhang, "Stochastic gradient descent for non-smooth optimization", ICML 2013
    (polynomial-decay averaging; the same gain). Lacoste-Julien, Schmidt and Bach,
    arXiv:1212.2002 ($p = 1$, weights proportional to the step). Karras et al., "Analyzing and
    improving the training dynamics of diffusion models", CVPR 2024 (power functions $s^p$ as
    averages of weights of networks). That the gain is Kalman's is derived here.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import FINITE, NON_NEGATIVE, POSITIVE, is_number
from beliefnav._format import known, number, reciprocal
from beliefnav.beliefs import _discounting
from beliefnav.beliefs._facts import prior
from beliefnav.beliefs._linear_gaussian import Sensor
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, LinearForm, Posterior, Surprise
from beliefnav.beliefs.gaussian import Conditional, Gaussian
from beliefnav.beliefs.gradient.local_level import LocalLevel, LocalLevelState, walk

__all__ = ["PolynomialLevel", "PolynomialLevelState"]

PyTree = Any


class PolynomialLevelState(NamedTuple):
    """The level after an observation.

    Attributes:
        mean: $m$, a tree like the parameters.
        sample_size: $n$, in observations: a tree like the parameters, or one scalar for all.
        noise_variance: $R$, or ``None`` where unknown.
        steps: number of steps since the start, int32.
    """

    mean: PyTree
    sample_size: PyTree
    noise_variance: Array | None
    steps: Array

    def posterior(self) -> Posterior:
        r"""Gradient mean $m$ and, where $R$ is known, gradient variance $R/n$."""
        return self.level().posterior()

    def level(self) -> LocalLevelState:
        """The same without the clock."""
        return LocalLevelState(self.mean, self.sample_size, self.noise_variance)


class PolynomialLevel(Belief):
    r"""Local level with polynomial memory (equations in the module docstring).

    Attributes:
        power: $p \ge 0$; the memory is the share $1/(p+1)$ of all steps.
        noise_variance: $R > 0$, in units of the squared gradient. ``None``: unknown. The mean does
            not depend on it; without it there is no posterior variance and no predictive density.
        prior_mean: $m_0$.
        prior_steps: $t_0 \ge 0$: the first observation is that of step $t_0 + 1$, after $t_0$ steps
            that all saw $m_0$, so that $n_0 = (t_0+p)/(p+1)$. 0 is diffuse.

    Raises:
        ValueError: a Python number is out of its range; the error names it.

    Example:
        >>> import jax.numpy as jnp
        >>> from beliefnav import beliefs, filters
        >>> y = jnp.array([3.0, 0.0, 6.0])
        >>> for power in (0.0, 1.0):  # weights 1, 1, 1 and 1, 2, 3
        ...     print(filters.last_state(beliefs.PolynomialLevel(power), y).mean)
        3.0
        3.5
    """

    ranges: ClassVar = {
        "power": NON_NEGATIVE,
        "noise_variance": POSITIVE,
        "prior_mean": FINITE,
        "prior_steps": NON_NEGATIVE,
    }

    power: ArrayLike
    noise_variance: ArrayLike | None = None
    prior_mean: ArrayLike = 0.0
    prior_steps: ArrayLike = 0.0

    def filter(self) -> Filter:
        r"""The exact online filter, whose states are `PolynomialLevelState`.

        A missing entry keeps its mean, which is its prediction; time goes on, and its sample size
        decays.
        """
        return self._filter(self._level().filter())

    def shared_filter(self) -> Filter:
        """The filter with one sample size for all entries.

        Half the memory. Exact while every entry is observed; after a missing entry, an
        approximation in which it counts as observed.
        """
        return self._filter(self._level().shared_filter())

    def _filter(self, inner: Filter) -> Filter:
        """A filter of a level that does not forget, whose predictions forget by the clock."""

        def init(params: PyTree) -> PolynomialLevelState:
            return PolynomialLevelState(*inner.init(params), steps=jnp.zeros((), jnp.int32))

        def predict(
            state: PolynomialLevelState, displacement: PyTree = None
        ) -> PolynomialLevelState:
            del displacement
            dtype = _trees.wide_dtype(*jax.tree.leaves(state.sample_size))
            discount = self._discount(jnp.asarray(state.steps).astype(dtype) + self.prior_steps)
            return state._replace(
                sample_size=_trees.scale(state.sample_size, discount),
                steps=optax.safe_increment(state.steps),
            )

        def update(
            predicted: PolynomialLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> PolynomialLevelState:
            level = inner.update(predicted.level(), gradient, curvature)
            return PolynomialLevelState(*level, steps=predicted.steps)

        def weigh(
            predicted: PolynomialLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[PolynomialLevelState, Surprise]:
            assert inner.weigh is not None
            level, surprise = inner.weigh(predicted.level(), gradient, curvature)
            return PolynomialLevelState(*level, steps=predicted.steps), surprise

        def diagnose(
            predicted: PolynomialLevelState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            assert inner.diagnose is not None
            return inner.diagnose(predicted.level(), gradient, curvature)

        def read(state: PolynomialLevelState, fields: Collection[str]) -> Posterior:
            return inner.posterior(state.level(), fields)

        return Filter(init, predict, update, diagnose, inner.weigh and weigh, read)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory and its prior."""
        share = number(reciprocal(1 + self.power))
        memory = "unlimited" if known(self.power) == 0 else f"{share} of all {time}s"
        sentence = f"The {quantity} drifts less and less, and is seen through noise."
        return (
            Fact(quantity, f"memory {memory}", sentence),
            prior(quantity, self._prior_sample_size(), self.prior_mean, time),
        )

    def averages(self) -> bool:
        """Yes."""
        return True

    def proper(self) -> bool:
        """Whether the prior is known not to be diffuse."""
        return self._level().proper()

    def scaled(self, factor: ArrayLike) -> "PolynomialLevel":
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
        """A recording of one leaf with the variances of its drift; then clock and sample size.

        Raises:
            ValueError: the noise variance is unknown, or the level does not drift.
        """
        del displacement, curvature
        self._check_drift()
        seen = _trees.is_observed(gradient)
        before, size = context or (self.prior_steps, self._prior_sample_size())
        ages: Any = jnp.arange(len(gradient), dtype=jnp.result_type(float)) + before
        sizes = _discounting.sample_sizes(lambda t: self._discount(t + before), size, seen)
        drift: Any = self._known_noise() * self._drift(ages, sizes)
        drift = drift.astype(_trees.wide_dtype(gradient.dtype))
        after = self._discount(ages[-1]) * sizes[-1] + seen[-1].astype(sizes.dtype)
        return (gradient, drift), (before + len(gradient), after)

    def prior(self) -> Gaussian:
        """The prior, one step before the first observation.

        Raises:
            ValueError: the noise variance is unknown, or the prior is improper.
        """
        if _discounting.is_zero(self.prior_steps):
            raise ValueError(
                "Cannot look back over a recording with an improper PolynomialLevel. Give positive "
                "prior_steps, or drop the first observation and start from it: prior_mean=y, "
                "prior_steps=1."
            )
        self._known_noise()
        return self._level().prior()

    def transition(self, inputs: tuple[Array, Array]) -> Conditional:
        """The transition into a step of a recording."""
        return self._level().transition(inputs)

    def sensors(self, inputs: tuple[Array, Array]) -> Sequence[Sensor]:
        """The observation at a step of a recording."""
        return self._level().sensors(inputs)

    def read(self, belief: Gaussian) -> Posterior:
        """The posterior, from the belief about one leaf."""
        return self._level().read(belief)

    def program(self, stream: Stream) -> Array:
        r"""The joint program, with sites ``gradient`` and ``observation``.

        With $t_0 > 0$ the level starts at $g_0 \sim N(m_0, R/n_0)$. With $t_0 = 0$ the program
        conditions on the first observation, $g_1 \sim N(y_1, R)$: the sites then start at the
        second step.
        """
        self._check_drift()
        noise_variance = self._known_noise()
        ages: Any = jnp.arange(stream.num_steps, dtype=jnp.result_type(float)) + self.prior_steps
        size = self._prior_sample_size()
        sizes = _discounting.sample_sizes(
            lambda t: self._discount(t + self.prior_steps), size, stream.seen
        )
        if improper := _discounting.is_zero(self.prior_steps):
            first = _discounting.first_observation(self.name, "prior_steps", stream)
            stream, sizes, ages, start = stream.drop_first(), sizes[1:], ages[1:], (first, 1.0)
        else:
            start = self.prior_mean, size
        drift = jnp.sqrt(self._drift(ages, sizes))
        return walk(start, noise_variance, drift, stream, conditioned=improper)

    def _level(self) -> LocalLevel:
        """The level before the first step, which does not forget."""
        return LocalLevel(1.0, self.noise_variance, self.prior_mean, self._prior_sample_size())

    def _prior_sample_size(self) -> ArrayLike:
        r"""$n_0$."""
        if is_number(self.prior_steps, 0):
            return 0.0
        size: Any = (self.prior_steps + self.power) / (self.power + 1)
        if isinstance(size, int | float):
            return size
        return jnp.where(jnp.asarray(self.prior_steps) > 0, size, 0)

    def _discount(self, steps: Any) -> Array:
        r"""$\beta$ of the step after so many; 1 where both $p$ and they are 0."""
        total = steps + self.power
        return jnp.where(total > 0, steps / jnp.where(total > 0, total, 1), 1)

    def _drift(self, steps: Any, sizes: Array) -> Array:
        r"""$W$ of the step after so many [step], from the sample sizes [step, ...] then."""
        return self.power / (steps.reshape(-1, *(1,) * (sizes.ndim - 1)) * sizes)

    def _known_noise(self) -> ArrayLike:
        if self.noise_variance is None:
            raise ValueError("PolynomialLevel: its noise_variance is unknown; give it.")
        return self.noise_variance

    def _check_drift(self) -> None:
        if is_number(self.power, 0):
            raise ValueError(
                "PolynomialLevel: the NumPyro program needs power > 0. At 0 the random walk is "
                "degenerate; only the filter is defined there."
            )
