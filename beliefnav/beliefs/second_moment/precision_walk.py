r"""Precision walk with discount: a gradient of zero mean whose size drifts.

$$ \phi_t = \phi_{t-1} \, \omega_t / \beta, \quad
   \omega_t \sim \mathrm{Beta}(\beta n_{t-1}/2, (1-\beta) n_{t-1}/2), \qquad
   y_t \sim N(0, 1/\phi_t). $$

Its exact filter keeps $\phi_t \sim \Gamma(n/2, S/2)$:

$$ n \leftarrow \beta n + 1, \qquad S \leftarrow \beta S + y^2, $$

and $S/n = 1/E[\phi]$ is the bias-corrected second moment of Adam. The state holds $S/n$.

A `PrecisionWalk` reads $V = S/n$ as the curvature, as Adam does; `accumulated` reads $V = S$, as
AdaGrad does. Without discounting that is the empirical Fisher information of all examples seen so
far: the curvature of the sum of their losses, which grows as long as one learns.

Read as curvature, either rests on an assumption about the loss: near an optimum of a log-likelihood
loss the mean square of a batch-mean gradient is the Fisher information over the batch size plus the
squared mean, so it is proportional to curvature. That is Adam's assumption, and the one made by
`PrecisionWalkState.posterior`. Away from an optimum, or of a model that does not fit, the mean
square is not the Fisher information, and need not be near any curvature (Kunstner, Hennig and
Balles). Aitchison derives the root of Adam without this assumption: there a gradient moves at
random because the other parameters do.

Reference:
    West and Harrison, "Bayesian Forecasting and Dynamic Models", 2nd ed., 1997, section 10.8
    (discounted variance learning, gamma-beta random walk).
    Kunstner, Hennig and Balles, "Limitations of the Empirical Fisher Approximation for Natural
    Gradient Descent", NeurIPS 2019, arXiv:1905.12558.
    Aitchison, "Bayesian filtering unifies adaptive and non-adaptive neural network optimization
    methods", NeurIPS 2020, arXiv:1807.07540.
"""

from collections.abc import Collection
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import COUNT, NON_NEGATIVE, UNIT_INTERVAL
from beliefnav._format import memory
from beliefnav.beliefs import _discounting, _program, _student
from beliefnav.beliefs._facts import prior
from beliefnav.beliefs._logarithms import log, log_square, log_sum, summed
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs._reread import reread
from beliefnav.beliefs.contract import Belief, Conjugate, Fact, Filter, Info, Posterior

__all__ = ["Accumulated", "AccumulatedState", "PrecisionWalk", "PrecisionWalkState", "accumulated"]

PyTree = Any


class PrecisionWalkState(NamedTuple):
    """The precision after an observation.

    Attributes:
        second_moment: $S/n$, a tree like the parameters.
        degrees_of_freedom: $n$, in observations: a tree like the parameters, or one scalar for all.
    """

    second_moment: PyTree
    degrees_of_freedom: PyTree

    def posterior(self) -> Posterior:
        r"""Curvature $V = S/n$, with the mean square deviation of $1/\phi$ from it.

        Under $\phi \sim \Gamma(n/2, S/2)$ that is $E[(1/\phi - S/n)^2] = 2 (S/n)^2 (n + 4) /
        ((n - 2)(n - 4))$ for $n > 4$, and infinite for fewer degrees of freedom.
        """

        def deviation(s: Array, n: Array) -> Array:
            finite = n > 4
            n = jnp.where(finite, n, 5)
            square = 2 * s**2 * (n + 4) / ((n - 2) * (n - 4))
            return jnp.where(finite, square, jnp.inf).astype(s.dtype)

        sizes = jax.tree.broadcast(self.degrees_of_freedom, self.second_moment)
        return Posterior(
            curvature_mean=self.second_moment,
            curvature_variance=jax.tree.map(deviation, self.second_moment, sizes),
        )


class PrecisionWalk(Belief):
    r"""Precision walk with discount (equations in the module docstring).

    Attributes:
        discount: $\beta$ in [0, 1]; the memory is $1/(1-\beta)$ steps.
        prior_second_moment: $S_0/n_0$, in units of the squared gradient.
        prior_degrees_of_freedom: $n_0$, in observations. 0 is the improper prior of the
            bias-corrected second moment; $1/(1-\beta)$ with $S_0 = 0$ that of the uncorrected one.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "discount": UNIT_INTERVAL,
        "prior_second_moment": NON_NEGATIVE,
        "prior_degrees_of_freedom": COUNT,
    }

    discount: ArrayLike
    prior_second_moment: ArrayLike = 0.0
    prior_degrees_of_freedom: ArrayLike = 0.0

    def filter(self) -> Filter:
        r"""The exact online filter, whose states are `PrecisionWalkState`.

        A missing entry keeps its second moment, and its degrees of freedom decay.
        """
        return self._filter(shared=False)

    def shared_filter(self) -> Filter:
        """The filter with one number of degrees of freedom for all entries.

        Half the memory. Exact while every entry is observed; after a missing entry, an
        approximation in which it counts as observed.
        """
        return self._filter(shared=True)

    def _filter(self, shared: bool) -> Filter:
        def init(params: PyTree) -> PrecisionWalkState:
            like = _trees.scalar_like if shared else _trees.full_like
            return PrecisionWalkState(
                _trees.full_like(params, self.prior_second_moment),
                like(params, self.prior_degrees_of_freedom),
            )

        def predict(state: PrecisionWalkState, displacement: PyTree = None) -> PrecisionWalkState:
            del displacement
            return PrecisionWalkState(
                state.second_moment, _trees.scale(state.degrees_of_freedom, self.discount)
            )

        def degrees_after(predicted: PrecisionWalkState, gradient: PyTree) -> PyTree:
            seen = None if shared else _trees.observed(gradient)
            return _discounting.observe(predicted.degrees_of_freedom, seen)

        def update(
            predicted: PrecisionWalkState, gradient: PyTree, curvature: PyTree = None
        ) -> PrecisionWalkState:
            del curvature
            error = _trees.square_innovation(gradient, predicted.second_moment)
            degrees = degrees_after(predicted, gradient)
            gain = _discounting.mean_gain(degrees)
            return PrecisionWalkState(_trees.correct(predicted.second_moment, gain, error), degrees)

        def diagnose(
            predicted: PrecisionWalkState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            del curvature
            seen = _trees.observed(gradient)
            zero = jax.tree.map(jnp.zeros_like, predicted.second_moment)
            value = _trees.innovation(gradient, zero)
            gain = _discounting.mean_gain(degrees_after(predicted, gradient))
            sizes = jax.tree.broadcast(predicted.degrees_of_freedom, value)
            return Info(
                innovation=value,
                log_density=_log_density(predicted, value, seen),
                gain=_trees.where(seen, gain, 0),
                missing=jax.tree.map(jnp.logical_not, seen),
                predictive_scale=_scale(predicted, seen),
                predictive_degrees_of_freedom=jax.tree.map(
                    lambda n, s: jnp.broadcast_to(n, s.shape), sizes, value
                ),
            )

        def read(state: PrecisionWalkState, fields: Collection[str]) -> Posterior:
            if "curvature_variance" in fields:
                return state.posterior()
            return Posterior(curvature_mean=state.second_moment)

        return Filter(init, predict, update, diagnose, read=read)

    def conjugate(self) -> Conjugate:
        """Step by step, but with the logarithm of the second moment."""
        return Conjugate(_LogarithmicWalk(self), summed)

    def shared_conjugate(self) -> Conjugate:
        """The same of the shared filter."""
        return Conjugate(_LogarithmicWalk(self, shared=True), summed)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its memory and its prior."""
        sentence = f"The second moment of the {quantity}, which drifts, is read as curvature."
        return (
            Fact("curvature", memory(self.discount, time), sentence),
            prior("curvature", self.prior_degrees_of_freedom, self.prior_second_moment, time),
        )

    def program(self, stream: Stream) -> Array:
        r"""The joint program, with sites ``shock`` ($\omega$) and ``observation``.

        The precision itself is the deterministic site ``precision``. With $n_0, S_0 > 0$ it starts
        at $\phi_0 \sim \Gamma(n_0/2, S_0/2)$. With $n_0 = 0$ the program conditions on the first
        observation, $\phi_1 \sim \Gamma(1/2, y_1^2/2)$: the sites then start at the second step.
        NUTS over $\omega$ mixes well only for $\beta$ of 0.9 or less: above it the shocks crowd
        against 1.
        """
        import numpyro
        from numpyro import distributions as dist
        from numpyro.contrib.control_flow import scan

        name = self.name
        _discounting.check_program(name, self.discount)
        degrees = self.prior_degrees_of_freedom
        sizes = _discounting.sample_sizes(self.discount, degrees, stream.seen)

        if _discounting.is_zero(degrees):
            first = _discounting.first_observation(name, "prior_degrees_of_freedom", stream)
            initial = dist.Gamma(0.5, first**2 / 2)
            stream, sizes = stream.drop_first(), sizes[1:]
        elif _discounting.is_zero(self.prior_second_moment):
            raise ValueError(
                f"{name}: the NumPyro program needs a positive prior_second_moment. S_0 = 0 is an "
                "improper prior, of which only the filter makes sense."
            )
        else:
            shape_, rate = degrees / 2, degrees * self.prior_second_moment / 2
            initial = dist.Gamma(shape_, rate).expand(stream.shape)

        def step(precision: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, Any]:
            n, value, seen = inputs
            shock = dist.Beta(self.discount * n / 2, (1 - self.discount) * n / 2)
            precision = precision * numpyro.sample("shock", shock) / self.discount
            site = _program.observe(dist.Normal(0, 1 / jnp.sqrt(precision)), value, seen)
            return precision, (precision, site)

        precision = numpyro.sample("initial_precision", initial)
        precisions, observations = scan(step, precision, (sizes, stream.values, stream.seen))[1]
        numpyro.deterministic("precision", precisions)
        return observations


class _LogarithmicState(NamedTuple):
    r"""$\log S/n$ and $n$ of a precision walk."""

    log_second_moment: PyTree
    degrees_of_freedom: PyTree

    def posterior(self) -> Posterior:
        return Posterior(curvature_mean=jax.tree.map(jnp.exp, self.log_second_moment))


class _LogarithmicWalk(Belief):
    r"""A precision walk for likelihoods: it keeps $\log S/n$, so that small numbers stay numbers.

    While $y = 0$, as the gradients of dead units are for hundreds of steps, $S$ falls as $\beta^t$,
    in float32 below the smallest number there is; the density of the next $y$ depends on it.
    """

    walk: PrecisionWalk
    shared: bool = False

    def filter(self) -> Filter:
        walk = self.walk._filter(self.shared)

        def init(params: PyTree) -> _LogarithmicState:
            start = walk.init(params)
            return _LogarithmicState(
                jax.tree.map(log, start.second_moment), start.degrees_of_freedom
            )

        def predict(state: _LogarithmicState, displacement: PyTree = None) -> _LogarithmicState:
            del displacement
            degrees = _trees.scale(state.degrees_of_freedom, self.walk.discount)
            return state._replace(degrees_of_freedom=degrees)

        def update(
            predicted: _LogarithmicState, gradient: PyTree, curvature: PyTree = None
        ) -> _LogarithmicState:
            del curvature
            before, seen = predicted.degrees_of_freedom, _trees.observed(gradient)
            after = _discounting.observe(before, None if self.shared else seen)

            def leaf(log_s: Array, y: Array, o: Array, n: Array, n_after: Array) -> Array:
                square = log_square(jnp.where(o, y, 0).astype(log_s.dtype))
                moment = log_sum(log_s + log(n), square) - jnp.log(jnp.where(o, n_after, 1))
                return jnp.where(o, moment, log_s)

            sizes = (jax.tree.broadcast(n, gradient) for n in (before, after))
            moment = jax.tree.map(leaf, predicted.log_second_moment, gradient, seen, *sizes)
            return _LogarithmicState(moment, after)

        def diagnose(
            predicted: _LogarithmicState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            del curvature

            def leaf(log_s: Array, y: Array, n: Array) -> Array:
                seen = _trees.is_observed(y)
                proper = seen & (n > 0) & (log_s > -jnp.inf)
                n, log_s = jnp.where(proper, n, 1), jnp.where(proper, log_s, 0)
                square = log_square(jnp.where(seen, y, 0).astype(log_s.dtype))
                density = _student.log_density_of_logs(square, n, log_s)
                return jnp.where(proper, density, 0)

            sizes = jax.tree.broadcast(predicted.degrees_of_freedom, gradient)
            density = jax.tree.map(leaf, predicted.log_second_moment, gradient, sizes)
            return Info(log_density=density, surprise=jax.tree.map(jnp.zeros_like, density))

        return Filter(init, predict, update, diagnose)


def _log_density(predicted: PrecisionWalkState, value: PyTree, seen: PyTree) -> PyTree:
    r"""$\log t_{\beta n}(y; 0, S/n)$ where that is proper."""

    def leaf(y: Array, s: Array, n: Array, o: Array) -> Array:
        proper = o & (n > 0) & (s > 0)
        n, s = jnp.where(proper, n, 1), jnp.where(proper, s, 1)
        return jnp.where(proper, _student.log_density(y, n, jnp.sqrt(s)), 0)

    sizes = jax.tree.broadcast(predicted.degrees_of_freedom, value)
    return jax.tree.map(leaf, value, predicted.second_moment, sizes, seen)


def _scale(predicted: PrecisionWalkState, seen: PyTree) -> PyTree:
    r"""$\sqrt{S/n}$, infinite where the prior is improper."""

    def leaf(s: Array, n: Array, o: Array) -> Array:
        proper = (n > 0) & (s > 0)
        scale = jnp.where(proper, jnp.sqrt(jnp.where(proper, s, 1)), jnp.inf)
        return jnp.where(o, scale, 0)

    sizes = jax.tree.broadcast(predicted.degrees_of_freedom, predicted.second_moment)
    return jax.tree.map(leaf, predicted.second_moment, sizes, seen)


class AccumulatedState(NamedTuple):
    """The state of a precision walk whose squares are read as a sum."""

    precision: PrecisionWalkState

    def posterior(self) -> Posterior:
        r"""Curvature $V = S$, and $n^2$ times the variance of the mean."""
        mean = self.precision.posterior()
        sizes = jax.tree.broadcast(self.precision.degrees_of_freedom, mean.curvature_mean)
        return Posterior(
            curvature_mean=jax.tree.map(lambda s, n: s * n, mean.curvature_mean, sizes),
            curvature_variance=jax.tree.map(
                lambda v, n: jnp.where(jnp.isinf(v), v, v * n**2), mean.curvature_variance, sizes
            ),
        )


class Accumulated(Belief):
    """A precision walk whose squares are read as a sum, made by `accumulated`."""

    belief: PrecisionWalk

    def filter(self) -> Filter:
        """The filter of the precision walk, whose states are `AccumulatedState`."""
        return reread(self.belief.filter(), AccumulatedState)

    def shared_filter(self) -> Filter:
        """The shared filter of the precision walk, read in the same way."""
        return reread(self.belief.shared_filter(), AccumulatedState)

    @property
    def name(self) -> str:
        """Its own, and that of the walk."""
        return f"accumulated({self.belief.name})"

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Those of the precision walk, but for how it is read."""
        moment, *rest = self.belief.facts(quantity, time)
        sentence = (
            f"The sum of all squared {quantity}s is read as curvature: that of all losses so far."
        )
        return (moment._replace(sentence=sentence), *rest)

    def conjugate(self) -> Conjugate:
        """That of the precision walk."""
        return self.belief.conjugate()

    def shared_conjugate(self) -> Conjugate:
        """That of the precision walk."""
        return self.belief.shared_conjugate()

    def program(self, stream: Stream) -> Array:
        """That of the precision walk: only what is read off it differs."""
        return self.belief.program(stream)


def accumulated(belief: PrecisionWalk) -> Accumulated:
    """Read the second moment of a precision walk as a sum, $V = S$.

    Args:
        belief: a precision walk; with ``discount=1`` nothing is forgotten.

    Returns:
        A belief.
    """
    return Accumulated(belief)
