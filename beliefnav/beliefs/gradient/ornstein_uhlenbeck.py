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

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import HALF_OPEN_UNIT, NON_NEGATIVE, POSITIVE, checked, is_number
from beliefnav.beliefs import _program, gaussian
from beliefnav.beliefs._linear_gaussian import Sensor, normal_reading, reciprocal
from beliefnav.beliefs.contract import Filter, Info, Posterior
from beliefnav.beliefs.gaussian import Conditional, Gaussian

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


class OrnsteinUhlenbeckPredicted(NamedTuple):
    """The gradient before an observation; fields as in `OrnsteinUhlenbeckState`."""

    mean: PyTree
    variance: PyTree


@checked(autocorrelation=HALF_OPEN_UNIT, process_variance=POSITIVE, noise_variance=NON_NEGATIVE)
class OrnsteinUhlenbeck(NamedTuple):
    r"""Ornstein-Uhlenbeck gradient (equations in the module docstring).

    Attributes:
        autocorrelation: $\rho$ in [0, 1), the correlation of the gradient from one step to the
            next. For a random walk ($\rho = 1$), which has no stationary prior, see `LocalLevel`.
        process_variance: $q > 0$, in units of the squared gradient, per step.
        noise_variance: $R \ge 0$, in units of the squared gradient.

    Raises:
        ValueError: a Python number is out of its range; the error names it.
    """

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

    def filter(self, shared: bool = False) -> Filter:
        r"""The exact online filter.

        A missing entry is predicted only: its mean decays and its variance grows.

        Args:
            shared: keep one variance for all entries: half the memory. Exact while every entry is
                observed; after a missing entry, an approximation in which it counts as observed.

        Returns:
            A filter whose states are `OrnsteinUhlenbeckState`.
        """

        def init(params: PyTree) -> OrnsteinUhlenbeckState:
            like = _trees.scalar_like if shared else _trees.full_like
            return OrnsteinUhlenbeckState(
                _trees.full_like(params, 0), like(params, self.stationary_variance)
            )

        def predict(
            state: OrnsteinUhlenbeckState, displacement: PyTree = None
        ) -> OrnsteinUhlenbeckPredicted:
            del displacement
            decay, diffusion = self.autocorrelation**2, self.process_variance
            variance = jax.tree.map(
                lambda v: (decay * v + diffusion).astype(v.dtype), state.variance
            )
            return OrnsteinUhlenbeckPredicted(
                _trees.scale(state.mean, self.autocorrelation), variance
            )

        def update(
            predicted: OrnsteinUhlenbeckPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[OrnsteinUhlenbeckState, Info]:
            del curvature
            noise = self.noise_variance
            seen = _trees.observed(gradient)
            error = _trees.innovation(gradient, predicted.mean)
            gain = jax.tree.map(lambda v: v * reciprocal(v + noise), predicted.variance)
            variance = jax.tree.map(
                lambda v, k: (noise * k).astype(v.dtype), predicted.variance, gain
            )
            if not shared:
                variance = jax.tree.map(jnp.where, seen, variance, predicted.variance)
            log_density, surprise, scale = _trees.unzip(
                lambda e, v, o: normal_reading(e, v + noise, o),
                (0, 0, 0),
                error,
                jax.tree.broadcast(predicted.variance, error),
                seen,
            )
            info = Info(
                innovation=error,
                log_density=log_density,
                gain=_trees.where(seen, gain, 0),
                missing=jax.tree.map(jnp.logical_not, seen),
                surprise=surprise,
                predictive_scale=scale,
            )
            mean = _trees.correct(predicted.mean, gain, error)
            return OrnsteinUhlenbeckState(mean, variance), info

        return Filter(init, predict, update)

    def scaled(self, factor: ArrayLike) -> "OrnsteinUhlenbeck":
        """The same model with every variance multiplied by ``factor``."""
        return self._replace(
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

    def numpyro_model(
        self,
        gradient: ArrayLike | None = None,
        *,
        num_steps: int | None = None,
        shape: tuple[int, ...] = (),
    ) -> Array:
        r"""The same model as a NumPyro program, with sites ``gradient`` and ``observation``.

        Args:
            gradient: [step, ...] a recorded stream to condition on; NaN or infinite entries are
                missing.
            num_steps: number of steps to simulate, instead of ``gradient``.
            shape: shape of one simulated observation; hyper-parameters broadcast against it.

        Returns:
            The observations [step, ...].

        Raises:
            ValueError: both or neither of ``gradient`` and ``num_steps`` are given, or the noise
                variance is 0.
        """
        import numpyro
        from numpyro import distributions as dist
        from numpyro.contrib.control_flow import scan

        name = type(self).__name__
        stream = _program.stream(gradient, num_steps, shape, name)
        if is_number(self.noise_variance, 0):
            raise ValueError(f"{name}: the NumPyro program needs a positive noise_variance, got 0.")
        process_scale = jnp.sqrt(self.process_variance)
        noise_scale = jnp.sqrt(self.noise_variance)
        initial = dist.Normal(0, jnp.sqrt(self.stationary_variance)).expand(stream.shape)

        def step(g: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
            g = numpyro.sample("gradient", dist.Normal(self.autocorrelation * g, process_scale))
            return g, _program.observe(dist.Normal(g, noise_scale), *inputs)

        g = numpyro.sample("initial_gradient", initial)
        return scan(step, g, (stream.values, stream.seen))[1]
