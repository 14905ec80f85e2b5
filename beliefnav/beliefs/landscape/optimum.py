r"""Optimum: where the loss is lowest, on a landscape of known curvature.

The latent state of every parameter is its optimum $\theta^*_t$, which drifts around a mean near the
initial parameters $\theta_0$:

$$ \theta^*_{t+1} = \theta_0 + \mu + \rho (\theta^*_t - \theta_0 - \mu) + N(0, q), \qquad
   y_t = h (\theta_t - \theta^*_t) + N(0, R), \qquad \theta^*_0 \sim N(\theta_0 + \mu, v_0). $$

There is no transition before $y_0$. The observation has the row $-h$, so that $h = 0$, a parameter
of which nothing can be learned, is harmless. The stationary walk has $q = v_0 (1 - \rho^2)$; it is
the best linear belief about an optimum that is drawn anew with probability $1 - \rho$ a step.

The filter keeps the distance $\delta_t = \theta^*_t - \theta_t$ of the optimum from where the
parameters are, so that no digits are lost to where that is:
$\delta_{t+1} = \rho \delta_t + (1 - \rho)(\mu - (\theta_t - \theta_0)) - \Delta\theta_t + N(0, q)$.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import FINITE, NON_NEGATIVE, POSITIVE, UNIT_INTERVAL, is_number
from beliefnav.beliefs import _linear_gaussian, _program, gaussian
from beliefnav.beliefs._linear_gaussian import Sensor
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import Belief, Filter, Info, LinearForm, Posterior, Surprise
from beliefnav.beliefs.gaussian import Conditional, Gaussian

__all__ = ["Optimum", "OptimumInputs", "OptimumPredicted", "OptimumState"]

PyTree = Any


class OptimumState(NamedTuple):
    r"""The optimum after an observation.

    Attributes:
        distance: the Gaussian over $\theta^* - \theta$, whose entries are trees like the
            parameters.
        position: $\theta - \theta_0$, a tree like the parameters.
        known_curvature: $h$.
        started: whether anything was observed yet: no time passes before.
    """

    distance: Gaussian
    position: PyTree
    known_curvature: Array
    started: Array

    def posterior(self) -> Posterior:
        r"""Gradient $-h\delta$, the curvature $h$, which is certain, and the distance $\delta$."""
        return _linear_gaussian.per_leaf(
            lambda belief: _read(belief, self.known_curvature),
            Posterior(0, 0, 0, 0, distance_mean=0, distance_variance=0),
            self.distance,
        )


class OptimumPredicted(NamedTuple):
    """The optimum before an observation; fields as in `OptimumState`."""

    distance: Gaussian
    position: PyTree


class OptimumInputs(NamedTuple):
    r"""A recording of one leaf, as the transition and the sensors of a step need it.

    Attributes:
        gradient: $y_t$ [step, ...].
        moved: $\Delta\theta_{t-1}$ [step, ...].
        position: $\theta_{t-1} - \theta_0$ [step, ...].
        started: [step], False at the first.
    """

    gradient: Array
    moved: Array
    position: Array
    started: Array


class Optimum(Belief):
    r"""Drifting optimum (equations in the module docstring).

    Attributes:
        curvature: $h$, known.
        noise_variance: $R > 0$, in units of the squared gradient.
        prior_variance: $v_0 > 0$, in units of the squared parameter.
        prior_mean: $\mu$, relative to the initial parameters.
        process_variance: $q \ge 0$, in units of the squared parameter, per step.
        autocorrelation: $\rho$ in [0, 1].

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "curvature": FINITE,
        "noise_variance": POSITIVE,
        "prior_variance": POSITIVE,
        "prior_mean": FINITE,
        "process_variance": NON_NEGATIVE,
        "autocorrelation": UNIT_INTERVAL,
    }

    curvature: ArrayLike
    noise_variance: ArrayLike
    prior_variance: ArrayLike
    prior_mean: ArrayLike = 0.0
    process_variance: ArrayLike = 0.0
    autocorrelation: ArrayLike = 1.0

    def scaled(self, factor: ArrayLike) -> "Optimum":
        """The same model with every variance multiplied by ``factor``."""
        return dataclasses.replace(
            self,
            noise_variance=self.noise_variance * factor,
            prior_variance=self.prior_variance * factor,
            process_variance=_program.scaled(self.process_variance, factor),
        )

    def filter(self) -> Filter:
        """The exact online filter.

        A missing entry is predicted only.

        Returns:
            A filter whose states are `OptimumState`. Its ``predict`` raises a ``ValueError``
            without a displacement.
        """
        prior = self.prior()

        def init(params: PyTree) -> OptimumState:
            return OptimumState(
                _linear_gaussian.start(prior, params),
                _trees.full_like(params, 0),
                jnp.asarray(self.curvature, jnp.result_type(float)),
                jnp.zeros((), bool),
            )

        def predict(state: OptimumState, displacement: PyTree = None) -> OptimumPredicted:
            _linear_gaussian.check_displacement("Optimum", displacement)

            def leaf(belief: Gaussian, position: Array, moved: Array) -> tuple[Gaussian, Array]:
                moved = moved.astype(position.dtype)
                step = self._transition(position, moved, state.started)
                belief = gaussian.predict(belief, step)
                return _linear_gaussian.cast(belief, position.dtype), position + moved

            trees = state.distance, state.position, displacement
            return OptimumPredicted(*_linear_gaussian.per_leaf(leaf, (prior, 0), *trees))

        def state_after(predicted: OptimumPredicted, distance: Gaussian) -> OptimumState:
            curvature = jnp.asarray(self.curvature, jnp.result_type(float))
            return OptimumState(distance, predicted.position, curvature, jnp.ones((), bool))

        def update(
            predicted: OptimumPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> OptimumState:
            del curvature
            distance = _linear_gaussian.update(self._sensors, predicted.distance, gradient)
            return state_after(predicted, distance)

        def weigh(
            predicted: OptimumPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[OptimumState, Surprise]:
            del curvature
            trees = predicted.distance, gradient
            distance, surprise = _linear_gaussian.weigh(self._sensors, *trees)
            return state_after(predicted, distance), surprise

        def diagnose(
            predicted: OptimumPredicted, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            del curvature
            return _linear_gaussian.diagnose(self._sensors, predicted.distance, gradient)

        return Filter(init, predict, update, diagnose, weigh, uses_displacement=True)

    def linear_gaussian(self) -> LinearForm:
        """Itself, one variable for every parameter."""
        return LinearForm(self)

    def inputs(
        self,
        gradient: Array,
        displacement: Array | None,
        curvature: Array | None,
        context: tuple[Array, Array] | None = None,
    ) -> tuple[OptimumInputs, tuple[Array, Array]]:
        """A recording of one leaf as `transition` and `sensors` need it; where and how it ended."""
        assert displacement is not None
        del curvature
        displacement = displacement.astype(_trees.wide_dtype(displacement.dtype))
        still = jnp.zeros_like(displacement[0])
        last, start = (still, still) if context is None else context
        moved = _program.moved(displacement, last)
        position = start[None] + jnp.cumsum(moved, 0)
        started = (jnp.arange(len(gradient)) > 0) | (context is not None)
        inputs = OptimumInputs(gradient, moved, position - moved, started)
        return inputs, (displacement[-1], position[-1])

    def prior(self) -> Gaussian:
        r"""The prior of $\delta_0$."""
        return gaussian.independent((self.prior_mean,), (self.prior_variance,))

    def transition(self, inputs: OptimumInputs) -> Conditional:
        """The transition into a step of a recording."""
        return self._transition(inputs.position, inputs.moved, inputs.started)

    def sensors(self, inputs: OptimumInputs) -> Sequence[Sensor]:
        """The observation at a step of a recording."""
        return self._sensors(inputs.gradient)

    def read(self, belief: Gaussian) -> Posterior:
        """The posterior, from the belief about one leaf."""
        return _read(belief, self.curvature)

    def _transition(self, position: Array, moved: Array, started: Array) -> Conditional:
        rho = jnp.where(started, self.autocorrelation, 1)
        diffusion = jnp.where(started, self.process_variance, 0)
        pull = (1 - rho) * (self.prior_mean - position)
        return Conditional(((rho,),), gaussian.independent((pull - moved,), (diffusion,)))

    def _sensors(self, gradient: Array) -> list[Sensor]:
        return [Sensor((jnp.negative(self.curvature),), gradient, self.noise_variance)]

    def program(self, stream: Stream) -> Array:
        r"""The joint program.

        Sites: ``optimum``, the path of $\theta^*_t - \theta_0$ [step, ...], ``gradient``
        (deterministic) and ``observation``. Without process noise the path is deterministic, and
        its start is sampled as ``initial_optimum``.
        """
        import numpyro
        from numpyro import distributions as dist
        from numpyro.contrib.control_flow import scan

        displacement = stream.displacement
        assert displacement is not None
        start_scale, scale = jnp.sqrt(self.prior_variance), jnp.sqrt(self.process_variance)
        static = is_number(self.process_variance, 0)
        mean = jnp.broadcast_to(self.prior_mean, stream.shape)
        start = dist.Normal(mean, start_scale)
        optimum = numpyro.sample("initial_optimum", start) if static else mean
        inputs, _ = self.inputs(jnp.zeros_like(displacement), displacement, None)

        def step(optimum: Any, now: Any) -> Any:
            position, started, value, seen = now
            drifted = mean + self.autocorrelation * (optimum - mean)
            optimum = jnp.where(started, drifted, optimum)
            if not static:
                law = dist.Normal(optimum, jnp.where(started, scale, start_scale))
                optimum = numpyro.sample("optimum", law)
            gradient = self.curvature * (position - optimum)
            law = dist.Normal(gradient, jnp.sqrt(self.noise_variance))
            return optimum, (optimum, gradient, _program.observe(law, value, seen))

        xs = (inputs.position + inputs.moved, inputs.started, stream.values, stream.seen)
        path, gradients, observed = scan(step, optimum, xs)[1]
        if static:
            numpyro.deterministic("optimum", path)
        numpyro.deterministic("gradient", gradients)
        return observed


def _read(belief: Gaussian, curvature: ArrayLike) -> Posterior:
    distance, variance = belief.mean[0], belief.variances[0]
    curvature = jnp.broadcast_to(curvature, jnp.shape(distance)).astype(jnp.result_type(distance))
    return Posterior(
        gradient_mean=-curvature * distance,
        gradient_variance=curvature**2 * variance,
        curvature_mean=curvature,
        curvature_variance=jnp.zeros_like(curvature),
        distance_mean=distance,
        distance_variance=variance,
    )
