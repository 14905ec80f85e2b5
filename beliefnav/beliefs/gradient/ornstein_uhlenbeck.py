r"""Ornstein-Uhlenbeck gradient: correlated in time, pulled to zero, seen through noise.

$$ g_t = \rho g_{t-1} + N(0, q), \qquad y_t = g_t + N(0, R), \qquad
   g_0 \sim N(0, q / (1 - \rho^2)). $$

Its exact filter is scalar Kalman filtering of every entry:

$$ m \leftarrow \rho m, \; v \leftarrow \rho^2 v + q; \qquad
   K = v / (v + R), \; m \leftarrow m + K (y - m), \; v \leftarrow R K. $$

The prior pulls the mean to zero, so the posterior mean is a shrunk (Wiener) average: at the steady
gain $K$ it forgets by $\rho (1 - K)$ a step and passes a constant gradient with the gain
$K / (1 - \rho (1 - K)) < 1$. Without correlation and noise ($\rho = 0$, $R = 0$) the belief is what
was just seen: that of plain gradient descent.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import HALF_OPEN_UNIT, NON_NEGATIVE, POSITIVE, is_number
from beliefnav._format import known, memory
from beliefnav.beliefs import _program, gaussian
from beliefnav.beliefs._linear_gaussian import Sensor, normal_reading, reciprocal
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, LinearForm, Posterior, Surprise
from beliefnav.beliefs.gaussian import Conditional, Gaussian

__all__ = ["OrnsteinUhlenbeck", "OrnsteinUhlenbeckState"]

PyTree = Any


class OrnsteinUhlenbeckState(NamedTuple):
    """The gradient after an observation.

    Attributes:
        mean: $m$, a tree like the parameters.
        variance: $v$, a tree like the parameters, or one scalar for all.
    """

    mean: PyTree
    variance: PyTree

    def posterior(self) -> Posterior:
        """Gradient mean $m$ and gradient variance $v$."""
        variance = jax.tree.map(
            lambda m, v: jnp.broadcast_to(v, m.shape).astype(m.dtype),
            self.mean,
            jax.tree.broadcast(self.variance, self.mean),
        )
        return Posterior(gradient_mean=self.mean, gradient_variance=variance)


class OrnsteinUhlenbeck(Belief):
    r"""Ornstein-Uhlenbeck gradient (equations in the module docstring).

    Attributes:
        autocorrelation: $\rho$ in [0, 1), the correlation of the gradient from one step to the
            next. For a random walk ($\rho = 1$), which has no stationary prior, see `LocalLevel`.
        process_variance: $q > 0$, in units of the squared gradient, per step.
        noise_variance: $R \ge 0$, in units of the squared gradient.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "autocorrelation": HALF_OPEN_UNIT,
        "process_variance": POSITIVE,
        "noise_variance": NON_NEGATIVE,
    }

    autocorrelation: ArrayLike
    process_variance: ArrayLike
    noise_variance: ArrayLike

    @property
    def stationary_variance(self) -> ArrayLike:
        r"""$q / (1 - \rho^2)$, the prior variance of the gradient."""
        return self.process_variance / (1 - self.autocorrelation**2)

    @property
    def steady_gain(self) -> Array:
        r"""The gain $K$ that the filter settles at.

        $K = v/(v + R)$, where the predicted variance solves $v = \rho^2 R v/(v + R) + q$. The
        memory of the filter is then $\rho (1 - K)$, which is what $\beta_1$ is to Adam.
        """
        total = jnp.asarray(self.process_variance) + self.noise_variance
        # The gain has no unit; in this one nothing over- or underflows.
        q = jnp.asarray(self.process_variance) / total
        noise = jnp.asarray(self.noise_variance) / total
        half = (q - noise * (1 - jnp.asarray(self.autocorrelation) ** 2)) / 2
        root = jnp.sqrt(half**2 + q * noise)
        # Of the two forms of the root the one that does not subtract.
        variance = jnp.where(half > 0, half + root, q * noise / jnp.maximum(root - half, root))
        return variance / (variance + noise)

    def filter(self) -> Filter:
        r"""The exact online filter, whose states are `OrnsteinUhlenbeckState`.

        A missing entry is predicted only: its mean decays and its variance grows.
        """
        return self._filter(shared=False)

    def shared_filter(self) -> Filter:
        """The filter with one variance for all entries.

        Half the memory. Exact while every entry is observed; after a missing entry, an
        approximation in which it counts as observed.
        """
        return self._filter(shared=True)

    def _filter(self, shared: bool) -> Filter:
        noise = self.noise_variance

        def init(params: PyTree) -> OrnsteinUhlenbeckState:
            like = _trees.scalar_like if shared else _trees.full_like
            return OrnsteinUhlenbeckState(
                _trees.full_like(params, 0), like(params, self.stationary_variance)
            )

        def predict(
            state: OrnsteinUhlenbeckState, displacement: PyTree = None
        ) -> OrnsteinUhlenbeckState:
            del displacement
            decay, diffusion = self.autocorrelation**2, self.process_variance
            variance = jax.tree.map(
                lambda v: (decay * v + diffusion).astype(v.dtype), state.variance
            )
            return OrnsteinUhlenbeckState(_trees.scale(state.mean, self.autocorrelation), variance)

        def gains(predicted: OrnsteinUhlenbeckState) -> PyTree:
            return jax.tree.map(lambda v: v * reciprocal(v + noise), predicted.variance)

        def update(
            predicted: OrnsteinUhlenbeckState, gradient: PyTree, curvature: PyTree = None
        ) -> OrnsteinUhlenbeckState:
            del curvature
            error = _trees.innovation(gradient, predicted.mean)
            gain = gains(predicted)
            variance = jax.tree.map(
                lambda v, k: (noise * k).astype(v.dtype), predicted.variance, gain
            )
            if not shared:
                seen = _trees.observed(gradient)
                variance = jax.tree.map(jnp.where, seen, variance, predicted.variance)
            return OrnsteinUhlenbeckState(_trees.correct(predicted.mean, gain, error), variance)

        def weigh(
            predicted: OrnsteinUhlenbeckState, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[OrnsteinUhlenbeckState, Surprise]:
            def leaf(e: Array, v: Array, o: Array) -> tuple[Array, Array]:
                return jnp.where(o, e**2 * reciprocal(v + noise), 0), o.astype(int)

            error = _trees.innovation(gradient, predicted.mean)
            variance = jax.tree.broadcast(predicted.variance, error)
            surprise = _trees.unzip(leaf, (0, 0), error, variance, _trees.observed(gradient))
            return update(predicted, gradient, curvature), Surprise(*surprise)

        def diagnose(
            predicted: OrnsteinUhlenbeckState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            del curvature
            seen = _trees.observed(gradient)
            error = _trees.innovation(gradient, predicted.mean)
            log_density, surprise, scale = _trees.unzip(
                lambda e, v, o: normal_reading(e, v + noise, o),
                (0, 0, 0),
                error,
                jax.tree.broadcast(predicted.variance, error),
                seen,
            )
            return Info(
                innovation=error,
                log_density=log_density,
                gain=_trees.where(seen, gains(predicted), 0),
                missing=jax.tree.map(jnp.logical_not, seen),
                surprise=surprise,
                predictive_scale=scale,
            )

        def read(state: OrnsteinUhlenbeckState, fields: Collection[str]) -> Posterior:
            if "gradient_variance" in fields:
                return state.posterior()
            return Posterior(gradient_mean=state.mean)

        return Filter(init, predict, update, diagnose, weigh, read)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory."""
        if known(self.autocorrelation) == 0 == known(self.noise_variance):
            sentence = f"The {quantity} is what was just seen, without noise or memory."
            return (Fact(quantity, "as seen", sentence),)
        sentence = f"The {quantity} returns to 0 and is seen through noise: its average is shrunk."
        kept = self.autocorrelation * (1 - self.steady_gain)
        return (Fact(quantity, memory(kept, time), sentence),)

    def linear_gaussian(self) -> LinearForm:
        """Itself, one variable for every parameter."""
        return LinearForm(self)

    def scaled(self, factor: ArrayLike) -> "OrnsteinUhlenbeck":
        """The same model with every variance multiplied by ``factor``."""
        return dataclasses.replace(
            self,
            process_variance=self.process_variance * factor,
            noise_variance=self.noise_variance * factor,
        )

    def inputs(
        self, gradient: Array, displacement: Any, curvature: Any, context: None = None
    ) -> tuple[Array, None]:
        """A recording of one leaf as `sensors` needs it: the gradient itself.

        Raises:
            ValueError: the noise variance is 0.
        """
        del displacement, curvature, context
        if is_number(self.noise_variance, 0):
            raise ValueError(
                "Cannot look back over a recording without noise: OrnsteinUhlenbeck has a "
                "noise_variance of 0, so every gradient is what was seen. Give a positive one."
            )
        return gradient, None

    def prior(self) -> Gaussian:
        """The stationary prior, one step before the first observation."""
        return gaussian.independent((0.0,), (self.stationary_variance,))

    def transition(self, inputs: Array) -> Conditional:
        """The transition into a step."""
        del inputs
        noise = gaussian.independent((0,), (self.process_variance,))
        return Conditional(((self.autocorrelation,),), noise)

    def sensors(self, inputs: Array) -> Sequence[Sensor]:
        """The observation at a step of a recording."""
        return [Sensor((1,), inputs, self.noise_variance)]

    def read(self, belief: Gaussian) -> Posterior:
        """The posterior, from the belief about one leaf."""
        return Posterior(gradient_mean=belief.mean[0], gradient_variance=belief.variances[0])

    def program(self, stream: Stream) -> Array:
        """The joint program, with sites ``gradient`` and ``observation``.

        Hyper-parameters broadcast against the shape of one observation.
        """
        import numpyro
        from numpyro import distributions as dist
        from numpyro.contrib.control_flow import scan

        if is_number(self.noise_variance, 0):
            raise ValueError(
                f"{self.name}: the NumPyro program needs a positive noise_variance, got 0."
            )
        process_scale = jnp.sqrt(self.process_variance)
        noise_scale = jnp.sqrt(self.noise_variance)
        initial = dist.Normal(0, jnp.sqrt(self.stationary_variance)).expand(stream.shape)

        def step(g: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
            g = numpyro.sample("gradient", dist.Normal(self.autocorrelation * g, process_scale))
            return g, _program.observe(dist.Normal(g, noise_scale), *inputs)

        g = numpyro.sample("initial_gradient", initial)
        return scan(step, g, (stream.values, stream.seen))[1]
