r"""Random walk with a transient: a gradient of which one part stays and the other passes.

$$ y_t = g_t + e_t, \qquad g_t = g_{t-1} + N(0, q_g), \qquad e_t = \phi e_{t-1} + N(0, q_e). $$

There is no other noise: the gradient of the present batch is known, and what is not is how much of
it will still be there at the next step. Its reduced form is an ARIMA(1,1,1) with autoregression
$\phi$, moving average $\theta$ and innovation variance $\sigma^2$, for

$$ q_g = \sigma^2 \Bigl( \frac{1-\theta}{1-\phi} \Bigr)^2, \qquad
   q_e = \theta \sigma^2 - \phi q_g. $$

The posterior is one-dimensional, since $g = y - e$. With the variance $P$ of $e$ in units of
$\sigma^2$, the exact filter keeps the forecast $f$ of the next gradient:

$$ S = (1-\phi)^2 P + q_g + q_e, \quad K = (q_e - \phi (1-\phi) P) / S, \qquad
   P \leftarrow \phi^2 P + q_e - K^2 S, $$
$$ f \leftarrow y - \phi (y_{-} - f) - (1-\phi) K (y - f), $$

with $y_-$ the gradient before. In the steady state $S = 1$, $K = (\theta-\phi)/(1-\phi)$ and

$$ f = \bigl( 1 - \beta_1 \bigr) y + \beta_1 \bar m, \qquad \beta_1 = \theta - \phi, $$

with $\bar m$ the average with discount $\theta$ of the gradients before $y$. That is Lion's mix of
two discounts, and with $\beta_1 = \theta^2$ Nesterov's look-ahead $\theta m + (1-\theta) y$: both
are the optimal forecast of the next gradient of this process.

This represents the two rules and predicts nothing about them. The two numbers $\theta$ and $\phi$
of the process stand for the two coefficients of such a rule, whatever these are: Lion's discounts
$\beta_2$ and $\beta_1$ are $\theta = \beta_2$ and $\phi = \beta_2 - \beta_1$. The process has no
displacement either. It does not know where a step leads, so that Nesterov's gradient at the place
ahead does not follow from it.

Beyond the paper. Muth's classical case $\phi = 0$ is a random walk in white noise.

Reference:
    Box and Jenkins, "Time Series Analysis: Forecasting and Control", 1970, section 5 (forecasts of
    ARIMA processes).
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import POSITIVE, UNIT_INTERVAL, Range
from beliefnav._format import memory, number, reciprocal
from beliefnav.beliefs import _program
from beliefnav.beliefs._facts import prior
from beliefnav.beliefs._linear_gaussian import normal_reading
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, Posterior

__all__ = ["Transient", "TransientState"]

PyTree = Any

_CORRELATION = Range(lambda x: -1 < x < 1, "strictly between -1 and 1")


class TransientState(NamedTuple):
    r"""The gradient after an observation.

    Attributes:
        forecast: $f$, the mean of the next gradient, a tree like the parameters.
        observed: $y$, a tree like the parameters.
        transient_variance: $P$, a scalar, in units of $\sigma^2$.
        forecast_variance: of the next gradient, a scalar; ``None`` where $\sigma^2$ is unknown.
        started: whether anything is known yet.
    """

    forecast: PyTree
    observed: PyTree
    transient_variance: Array
    forecast_variance: Array | None
    started: Array

    def posterior(self) -> Posterior:
        """The gradient at the next step: its forecast and, where known, its variance."""
        if self.forecast_variance is None:
            return Posterior(gradient_mean=self.forecast)
        variance = jnp.where(self.started, self.forecast_variance, jnp.inf)
        return Posterior(
            gradient_mean=self.forecast,
            gradient_variance=jax.tree.map(
                lambda f: jnp.broadcast_to(variance, f.shape).astype(f.dtype), self.forecast
            ),
        )


class Transient(Belief):
    r"""Random walk with a transient (equations in the module docstring).

    Attributes:
        discount: $\theta$ in [0, 1], of the average that the forecast returns to.
        autocorrelation: $\phi$ in (-1, 1), of the transient from one step to the next, at most
            $\theta$.
        innovation_variance: $\sigma^2 > 0$, of a forecast in the steady state. ``None``: unknown;
            the forecast does not depend on it.
        diffuse: start from no knowledge of the walk, which makes forecasts unbiased from the first
            on; otherwise as if in the steady state after gradients of 0.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "discount": UNIT_INTERVAL,
        "autocorrelation": _CORRELATION,
        "innovation_variance": POSITIVE,
    }

    discount: ArrayLike
    autocorrelation: ArrayLike
    innovation_variance: ArrayLike | None = None
    diffuse: bool = False

    def filter(self) -> Filter:
        r"""The exact online filter; $P$ is one scalar for all entries.

        A missing entry is forecast twice. Its variance is kept as if it had been seen, an
        approximation.

        Returns:
            A filter whose states are `TransientState`.

        Raises:
            ValueError: the autocorrelation is larger than the discount.
        """
        theta, phi = self.discount, self.autocorrelation
        if isinstance(theta, int | float) and isinstance(phi, int | float) and phi - theta > 1e-12:
            raise ValueError(
                f"Transient: autocorrelation must be at most the discount {theta}, got {phi}. What "
                "passes would stay longer than what stays."
            )
        correction = 1 - jnp.asarray(phi)

        def init(params: PyTree) -> TransientState:
            _, _, steady = self._variances()
            spread = jnp.where(self.diffuse, self._stationary, steady)
            return TransientState(
                _trees.full_like(params, 0),
                _trees.full_like(params, 0),
                _trees.scalar_like(params, spread),
                self._in_units(params, 1.0),
                jnp.logical_not(self.diffuse),
            )

        def predict(state: TransientState, displacement: PyTree = None) -> TransientState:
            del displacement
            return state

        def update(
            predicted: TransientState, gradient: PyTree, curvature: PyTree = None
        ) -> TransientState:
            del curvature
            started, before = predicted.started, predicted.transient_variance
            level, passing, _ = self._variances()
            variance = correction**2 * before + level + passing
            gain = (passing - phi * correction * before) / variance
            # phi^2 P + q_e - K^2 S, in which nothing cancels.
            kept = level * (phi**2 * before + passing) + passing * before
            after = kept / variance
            after = jnp.where(started, after, self._stationary).astype(before.dtype)
            error = _trees.innovation(gradient, predicted.forecast)

            def forecast(f: Array, y: Array, e: Array) -> Array:
                pulled = f + e - phi * (y - f) - correction * gain * e
                return jnp.where(started, pulled, e).astype(f.dtype)

            return TransientState(
                jax.tree.map(forecast, predicted.forecast, predicted.observed, error),
                jax.tree.map(jnp.add, predicted.forecast, error),
                after,
                self._in_units(after, correction**2 * after + level + passing),
                jnp.ones((), bool),
            )

        def diagnose(predicted: TransientState, gradient: PyTree, curvature: PyTree = None) -> Info:
            del curvature
            seen = _trees.observed(gradient)
            error = _trees.innovation(gradient, predicted.forecast)
            missing = jax.tree.map(jnp.logical_not, seen)
            return Info(innovation=error, missing=missing, **self._reading(predicted, error, seen))

        return Filter(init, predict, update, diagnose)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory, and its prior."""
        sentence = (
            f"One part of the {quantity} stays, another passes; the step is taken on the forecast "
            f"of the next. What passes keeps {number(self.autocorrelation)} of itself a {time}."
        )
        size = 0 if self.diffuse else reciprocal(1 - self.discount)
        return (
            Fact(quantity, memory(self.discount, time), sentence),
            prior(quantity, size, 0, time),
        )

    def proper(self) -> bool:
        """Whether the walk starts in its steady state."""
        return not self.diffuse

    def _reading(self, predicted: TransientState, error: PyTree, seen: PyTree) -> dict[str, PyTree]:
        """Log density, surprise and scale, where the variance is known and the prior proper."""
        variance, started = predicted.forecast_variance, predicted.started
        if variance is None:
            return {}

        def leaf(e: Array, o: Array) -> tuple[Array, Array, Array]:
            density, surprise, scale = normal_reading(e, variance, o & started)
            return density, surprise, jnp.where(o & ~started, jnp.inf, scale)

        names = ("log_density", "surprise", "predictive_scale")
        return dict(zip(names, _trees.unzip(leaf, (0, 0, 0), error, seen), strict=True))

    def _variances(self) -> tuple[Array, Array, Array]:
        r"""$q_g$, $q_e$ and the steady $P$, in units of $\sigma^2$."""
        theta, phi = jnp.asarray(self.discount), jnp.asarray(self.autocorrelation)
        level = ((1 - theta) / (1 - phi)) ** 2
        passing = (theta - phi) * (1 - theta * phi) / (1 - phi) ** 2  # theta - phi q_g
        return level, passing, (theta - phi) * (1 - theta) / (1 - phi) ** 3

    @property
    def _stationary(self) -> Array:
        """The variance of a transient of which nothing is known."""
        return self._variances()[1] / (1 - jnp.asarray(self.autocorrelation) ** 2)

    def _in_units(self, like: PyTree, variance: ArrayLike) -> Array | None:
        if self.innovation_variance is None:
            return None
        return _trees.scalar_like(like, jnp.asarray(self.innovation_variance) * variance)

    def program(self, stream: Stream) -> Array:
        r"""The joint program, with sites ``transient`` and ``observation``.

        The walk is $g_t = y_t - e_t$. A diffuse prior is conditioned on the first observation; the
        sites then start at the second step. The stream has no missing entries.
        """
        import numpyro
        from numpyro import distributions as dist
        from numpyro.contrib.control_flow import scan

        name = self.name
        if self.innovation_variance is None:
            raise ValueError(f"{name}: the NumPyro program needs an innovation_variance.")
        _program.check_complete(name, stream)
        sigma = jnp.sqrt(self.innovation_variance)
        level, passing, steady = self._variances()
        before, spread = jnp.zeros(stream.shape), steady
        if self.diffuse:
            if stream.values is None:
                raise ValueError(f"{name}: cannot simulate from a diffuse prior.")
            before, spread, stream = stream.values[0], self._stationary, stream.drop_first()
        start = dist.Normal(0, sigma * jnp.sqrt(spread)).expand(stream.shape)

        def step(carry: Any, value: Any) -> Any:
            y, e = carry
            passed = self.autocorrelation * e
            after = numpyro.sample("transient", dist.Normal(passed, sigma * jnp.sqrt(passing)))
            law = dist.Normal(y - e + after, sigma * jnp.sqrt(level))
            y = numpyro.sample("observation", law, obs=value)
            return (y, after), y

        carry = before, numpyro.sample("initial_transient", start)
        return scan(step, carry, stream.values, length=stream.num_steps)[1]
