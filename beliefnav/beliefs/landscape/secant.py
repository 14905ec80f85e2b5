r"""Secant landscape: gradient and curvature, learned from how the gradient changes as one moves.

The latent state of every parameter is $(g_t, h_t)$. $y_t$ is observed at $\theta_t$, and the
displacement $\Delta\theta_t = \theta_{t+1} - \theta_t$ drives the state from $t$ to $t + 1$:

$$ g_{t+1} = \rho_g g_t + h_t \Delta\theta_t + N(0, q_g), \qquad
   h_{t+1} = \mu_h + \rho_h (h_t - \mu_h) + N(0, q_h), $$
$$ y_t = g_t + N(0, R), \qquad c_t = h_t + N(0, R_c) \;\; \text{(optional second sensor)}, $$
$$ g_0 \sim N(\mu_g, P_g), \qquad h_0 \sim N(\mu_h, P_h). $$

There is no transition before $y_0$. Given the displacements the model is linear-Gaussian, so that
an exact Kalman filter of two variables per parameter learns curvature from gradients alone: a
Bayesian secant method. What the stream says about $h$ grows with the distance travelled relative to
$\sqrt R$; where it says little, the posterior stays as wide as the prior.

The belief is diagonal: what the steps of other parameters do to a gradient, $\sum_{j \ne i} H_{ij}
\Delta\theta_j$, is not modelled but for $q_g$, and enters the curvature that is learned as if it
were one's own. On a separable loss there is no such thing. `beliefnav.sensors` makes sharper
sensors from a loss.

Beyond the paper. The filter keeps the covariance as $a = \mathrm{Var}[g]$, the regression
$c = \mathrm{Cov}[g, h] / a$ and what is left, $s = \mathrm{Var}[h] - c^2 a$, see
`beliefnav.beliefs.gaussian`. A reading of the gradient changes $a$ alone.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import FINITE, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, is_number
from beliefnav._format import known, memory, number
from beliefnav._trees import select
from beliefnav.beliefs import _linear_gaussian, _program, gaussian
from beliefnav.beliefs._linear_gaussian import Sensor
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, LinearForm, Posterior, Surprise
from beliefnav.beliefs.gaussian import Conditional, Gaussian

__all__ = ["Secant", "SecantInputs", "SecantPredicted", "SecantState"]

PyTree = Any


class SecantState(NamedTuple):
    """Gradient and curvature after an observation.

    Attributes:
        landscape: the Gaussian over (gradient, curvature), whose entries are trees like the
            parameters.
        started: whether anything was observed yet: no time passes before.
    """

    landscape: Gaussian
    started: Array

    def posterior(self) -> Posterior:
        """Means, variances and covariance of gradient and curvature."""
        return _linear_gaussian.per_leaf(_read, Posterior(0, 0, 0, 0, 0), self.landscape)


class SecantPredicted(NamedTuple):
    """Gradient and curvature before an observation."""

    landscape: Gaussian


class SecantInputs(NamedTuple):
    r"""A recording of one leaf, as the transition and the sensors of a step need it.

    Attributes:
        gradient: $y_t$ [step, ...].
        moved: $\Delta\theta_{t-1}$ [step, ...].
        curvature: $c_t$ [step, ...], or ``None``.
        started: [step], False at the first.
    """

    gradient: Array
    moved: Array
    curvature: Array | None
    started: Array


class Secant(Belief):
    r"""Secant landscape (equations in the module docstring).

    Gradients are per unit of parameter, curvatures per unit of parameter squared.

    Attributes:
        noise_variance: $R > 0$, of the observed gradient.
        prior_gradient_variance: $P_g > 0$.
        prior_curvature_variance: $P_h > 0$.
        prior_gradient_mean: $\mu_g$.
        prior_curvature_mean: $\mu_h$, which the curvature also returns to.
        gradient_process_variance: $q_g \ge 0$, per step.
        curvature_process_variance: $q_h \ge 0$, per step.
        gradient_autocorrelation: $\rho_g$ in [0, 1].
        curvature_autocorrelation: $\rho_h$ in [0, 1].
        curvature_noise_variance: $R_c > 0$, of the second sensor; ``None`` if there is none.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "noise_variance": POSITIVE,
        "prior_gradient_variance": POSITIVE,
        "prior_curvature_variance": POSITIVE,
        "prior_gradient_mean": FINITE,
        "prior_curvature_mean": FINITE,
        "gradient_process_variance": NON_NEGATIVE,
        "curvature_process_variance": NON_NEGATIVE,
        "gradient_autocorrelation": UNIT_INTERVAL,
        "curvature_autocorrelation": UNIT_INTERVAL,
        "curvature_noise_variance": POSITIVE,
    }

    noise_variance: ArrayLike
    prior_gradient_variance: ArrayLike
    prior_curvature_variance: ArrayLike
    prior_gradient_mean: ArrayLike = 0.0
    prior_curvature_mean: ArrayLike = 0.0
    gradient_process_variance: ArrayLike = 0.0
    curvature_process_variance: ArrayLike = 0.0
    gradient_autocorrelation: ArrayLike = 1.0
    curvature_autocorrelation: ArrayLike = 1.0
    curvature_noise_variance: ArrayLike | None = None

    def scaled(self, factor: ArrayLike) -> "Secant":
        """The same model with every variance multiplied by ``factor``."""
        sensor = self.curvature_noise_variance
        return dataclasses.replace(
            self,
            noise_variance=self.noise_variance * factor,
            prior_gradient_variance=self.prior_gradient_variance * factor,
            prior_curvature_variance=self.prior_curvature_variance * factor,
            gradient_process_variance=_program.scaled(self.gradient_process_variance, factor),
            curvature_process_variance=_program.scaled(self.curvature_process_variance, factor),
            curvature_noise_variance=None if sensor is None else sensor * factor,
        )

    def filter(self) -> Filter:
        """The exact online filter; its ``update`` reads ``curvature`` as the second sensor.

        A missing entry, of either sensor, is predicted only.

        Returns:
            A filter whose states are `SecantState`. Its ``predict`` raises a ``ValueError`` without
            a displacement, its ``update`` if it gets a ``curvature`` and there is no
            ``curvature_noise_variance``.
        """
        prior = self.prior()

        def init(params: PyTree) -> SecantState:
            return SecantState(_linear_gaussian.start(prior, params), jnp.zeros((), bool))

        def predict(state: SecantState, displacement: PyTree = None) -> SecantPredicted:
            _linear_gaussian.check_displacement("Secant", displacement)

            @functools.cache  # its numbers are the same for all arrays of one dtype
            def over(dtype: Any) -> Callable[[Array], Conditional]:
                return self._transition(state.started, dtype)

            def leaf(belief: Gaussian, moved: Array) -> Gaussian:
                dtype = belief.mean[0].dtype
                step = over(dtype)(_trees.wide(moved, dtype))
                return _linear_gaussian.cast(gaussian.predict(belief, step), dtype)

            landscape = _linear_gaussian.per_leaf(leaf, prior, state.landscape, displacement)
            return SecantPredicted(landscape)

        def read(predicted: SecantPredicted, gradient: PyTree, curvature: PyTree) -> Any:
            return self._sensors, predicted.landscape, gradient, curvature

        def update(
            predicted: SecantPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> SecantState:
            landscape = _linear_gaussian.update(*read(predicted, gradient, curvature))
            return SecantState(landscape, jnp.ones((), bool))

        def weigh(
            predicted: SecantPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[SecantState, Surprise]:
            landscape, surprise = _linear_gaussian.weigh(*read(predicted, gradient, curvature))
            return SecantState(landscape, jnp.ones((), bool)), surprise

        def diagnose(
            predicted: SecantPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            return _linear_gaussian.diagnose(*read(predicted, gradient, curvature))

        sensed = self.curvature_noise_variance is not None
        return Filter(
            init, predict, update, diagnose, weigh, uses_displacement=True, uses_curvature=sensed
        )

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Drift of the gradient; memory and prior of the curvature."""
        sentence = (
            f"Gradient and curvature are learned from how the {quantity} changes as one moves."
        )
        kept = memory(self.curvature_autocorrelation**2, time)
        constant = known(self.curvature_process_variance) == 0 and kept == "memory unlimited"
        changes = "It does not change." if constant else "It drifts, and returns to its prior."
        drift = f"drift {number(self.gradient_process_variance)} a {time}"
        return (
            Fact(quantity, drift, sentence),
            Fact("curvature", kept, changes),
            Fact(
                "curvature prior",
                f"variance {number(self.prior_curvature_variance)}",
                f"Its mean is {number(self.prior_curvature_mean)}.",
            ),
        )

    def linear_gaussian(self) -> LinearForm:
        """Itself, two variables for every parameter."""
        return LinearForm(self)

    def inputs(
        self,
        gradient: Array,
        displacement: Array | None,
        curvature: Array | None,
        context: Array | None = None,
    ) -> tuple[SecantInputs, Array]:
        """A recording of one leaf as `transition` and `sensors` need it; its last displacement."""
        assert displacement is not None
        moved = _program.moved(displacement, context)
        started = (jnp.arange(len(gradient)) > 0) | (context is not None)
        return SecantInputs(gradient, moved, curvature, started), displacement[-1]

    def prior(self) -> Gaussian:
        """The prior of $(g_0, h_0)$."""
        return gaussian.independent(
            (self.prior_gradient_mean, self.prior_curvature_mean),
            (self.prior_gradient_variance, self.prior_curvature_variance),
        )

    def transition(self, inputs: SecantInputs) -> Conditional:
        """The transition into a step of a recording."""
        return self._transition(inputs.started, inputs.moved.dtype)(inputs.moved)

    def sensors(self, inputs: SecantInputs) -> Sequence[Sensor]:
        """The observations at a step of a recording."""
        return self._sensors(inputs.gradient, inputs.curvature)

    def read(self, belief: Gaussian) -> Posterior:
        """The posterior, from the belief about one leaf."""
        return _read(belief)

    def _transition(self, started: Array, dtype: Any) -> Callable[[Array], Conditional]:
        """The transition over a displacement; no time passes before the first observation."""

        def once_started(value: ArrayLike, before: float) -> ArrayLike:
            if is_number(value, before):
                return value
            return jnp.where(started, value, before).astype(dtype)

        rho = once_started(self.curvature_autocorrelation, 1)
        mean = self.prior_curvature_mean
        drift = 0 if is_number(mean, 0) or is_number(rho, 1) else (1 - rho) * mean
        noise = gaussian.independent(
            (0, drift),
            (
                once_started(self.gradient_process_variance, 0),
                once_started(self.curvature_process_variance, 0),
            ),
        )
        rho_g = once_started(self.gradient_autocorrelation, 1)

        def over(moved: Array) -> Conditional:
            return Conditional(((rho_g, select(started, moved, 0)), (0, rho)), noise)

        return over

    def _sensors(self, gradient: Array, curvature: Array | None) -> list[Sensor]:
        sensors = [Sensor((1, 0), gradient, self.noise_variance)]
        if curvature is not None:
            if self.curvature_noise_variance is None:
                raise _program.unread(self.name)
            sensors.append(Sensor((0, 1), curvature, self.curvature_noise_variance))
        return sensors

    def program(self, stream: Stream) -> Any:
        r"""The joint program.

        Sites: ``gradient`` and ``curvature``, the latent paths [step, ...]; ``observation``; with a
        second sensor, ``curvature_observation``. A path without process noise is a deterministic
        site, and its start is sampled as ``initial_gradient`` or ``initial_curvature``.
        """
        return self._program(stream, positive=False)

    def positive_program(self, stream: Stream) -> Any:
        """The same, where prior and transitions of the curvature are Gaussians truncated at 0."""
        return self._program(stream, positive=True)

    def _program(self, stream: Stream, positive: bool) -> Any:
        import numpyro
        from numpyro import distributions as dist
        from numpyro.contrib.control_flow import scan

        displacement, second = stream.displacement, stream.curvature
        assert displacement is not None
        sensed = second is not None
        curvature_law = _positive_normal if positive else dist.Normal

        def start(name: str, law: Any) -> Any:
            return numpyro.sample(name, law.expand(stream.shape))

        mean = jnp.broadcast_to(self.prior_curvature_mean, stream.shape)
        g_scale, h_scale = (
            jnp.sqrt(v) for v in (self.prior_gradient_variance, self.prior_curvature_variance)
        )
        g_static = is_number(self.gradient_process_variance, 0)
        h_static = is_number(self.curvature_process_variance, 0)
        g_step, h_step = (
            jnp.sqrt(v) for v in (self.gradient_process_variance, self.curvature_process_variance)
        )
        g = jnp.broadcast_to(self.prior_gradient_mean, stream.shape)
        h = mean
        if g_static:
            g = start("initial_gradient", dist.Normal(self.prior_gradient_mean, g_scale))
        if h_static:
            h = start("initial_curvature", curvature_law(self.prior_curvature_mean, h_scale))

        def step(carry: Any, inputs: Any) -> Any:
            g, h = carry
            moved, started, y, seen, c, c_seen = inputs
            rho_g, rho_h = self.gradient_autocorrelation, self.curvature_autocorrelation
            g_next = jnp.where(started, rho_g * g + h * moved, g)
            h_next = jnp.where(started, mean + rho_h * (h - mean), h)
            if not g_static:
                scale = jnp.where(started, g_step, g_scale)
                g_next = numpyro.sample("gradient", dist.Normal(g_next, scale))
            if not h_static:
                scale = jnp.where(started, h_step, h_scale)
                h_next = numpyro.sample("curvature", curvature_law(h_next, scale))
            observed = _program.observe(dist.Normal(g_next, jnp.sqrt(self.noise_variance)), y, seen)
            if sensed:
                assert self.curvature_noise_variance is not None
                law = dist.Normal(h_next, jnp.sqrt(self.curvature_noise_variance)).mask(c_seen)
                observed = observed, numpyro.sample("curvature_observation", law, obs=c)
            return (g_next, h_next), ((g_next, h_next), observed)

        inputs, _ = self.inputs(jnp.zeros_like(displacement), displacement, None)
        readings = (second.values, second.seen) if sensed else (None, None)
        recorded = (stream.values, stream.seen, *readings)
        xs = (inputs.moved, inputs.started, *recorded)
        (gradients, curvatures), observed = scan(step, (g, h), xs)[1]
        if g_static:
            numpyro.deterministic("gradient", gradients)
        if h_static:
            numpyro.deterministic("curvature", curvatures)
        return observed


def _positive_normal(loc: ArrayLike, scale: ArrayLike) -> Any:
    from numpyro import distributions as dist

    zeros = jnp.zeros(jnp.broadcast_shapes(jnp.shape(loc), jnp.shape(scale)))
    return dist.TruncatedNormal(loc, scale, low=zeros)  # a scan does not stack a scalar bound


def _read(belief: Gaussian) -> Posterior:
    slope, (variance, rest) = belief.factor[0], belief.variances
    covariance = slope * variance
    return Posterior(
        gradient_mean=belief.mean[0],
        gradient_variance=variance,
        curvature_mean=belief.mean[1],
        curvature_variance=rest + slope * covariance,
        gradient_curvature_covariance=covariance,
    )
