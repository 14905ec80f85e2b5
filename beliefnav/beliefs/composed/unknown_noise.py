r"""Unknown noise: a Gaussian belief in units of a noise variance that is learned as well.

Let a linear-Gaussian model state all its variances in units of an unknown $\sigma^2$, one for every
parameter, with the conjugate prior $\sigma^2 \sim \mathrm{InvGamma}(\nu_0/2, \nu_0 s_0^2/2)$. Given
$\sigma^2$ the belief is the model's own; the means do not depend on it. With the innovation $e$ and
its predictive variance $S$ in units of $\sigma^2$, every reading does

$$ \nu \leftarrow \nu + 1, \qquad \nu s^2 \leftarrow \nu s^2 + e^2 / S, $$

and is predicted by a Student-t of $\nu$ degrees of freedom and squared scale $s^2 S$ (a joint one,
if there are two sensors). Posterior variances are $E[\sigma^2] = s^2 \nu/(\nu - 2)$ times those of
the model: infinite as long as $\nu \le 2$.

A noise that drifts is followed with a discount $\beta < 1$, $\nu \leftarrow \beta\nu$ before every
reading: an approximation, for which there is no joint program.

Reference:
    West and Harrison, "Bayesian Forecasting and Dynamic Models", 2nd ed., 1997, sections 4.5
    (unknown variance) and 10.8 (discounted variance learning).
"""

import math
from collections.abc import Callable, Collection
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import COUNT, NON_NEGATIVE, UNIT_INTERVAL, is_concrete, is_number
from beliefnav._format import memory
from beliefnav._trees import select
from beliefnav.beliefs import _discounting, _student
from beliefnav.beliefs._logarithms import log, log_sum, summed
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs.contract import (
    Belief,
    Conjugate,
    Fact,
    Filter,
    Info,
    LearnedNoise,
    LinearForm,
    Posterior,
    as_belief,
)

__all__ = [
    "UnknownNoise",
    "UnknownNoiseState",
    "count_readings",
    "few_readings",
    "in_units",
    "joint_log_density",
    "many_readings",
    "noise_variance",
    "predictive",
    "student_scale",
]

PyTree = Any


class UnknownNoiseState(NamedTuple):
    r"""The belief and the noise after an observation.

    Attributes:
        belief: the state of the model's filter, in units of the noise variance.
        noise_scale: $s^2$, a tree like the parameters.
        noise_degrees_of_freedom: $\nu$, in observations: a tree like the parameters, or one
            scalar for all.
    """

    belief: Any
    noise_scale: PyTree
    noise_degrees_of_freedom: PyTree

    def posterior(self) -> Posterior:
        """The model's posterior with its variances in absolute units."""
        return self.in_units(self.belief.posterior())

    def in_units(self, posterior: Posterior) -> Posterior:
        """One of the model with its variances in absolute units."""
        return in_units(posterior, self.noise_variance())

    def noise_variance(self) -> PyTree:
        r"""$E[\sigma^2] = s^2 \nu/(\nu - 2)$, infinite for $\nu \le 2$."""
        return noise_variance(self.noise_scale, self.noise_degrees_of_freedom)


def noise_variance(scale: PyTree, degrees: PyTree) -> PyTree:
    r"""$E[\sigma^2] = s^2 \nu/(\nu - 2)$, infinite for $\nu \le 2$."""
    finite = jax.tree.map(lambda n: n > 2, degrees)  # once, where one number serves all entries
    less = jax.tree.map(lambda f, n: select(f, n - 2, 1), finite, degrees)
    rest = jax.tree.map(lambda f, n: select(f, jnp.zeros_like(n), jnp.inf), finite, degrees)

    def leaf(scale: Array, degrees: Array, less: Array, rest: Array) -> Array:
        return _trees.wide(scale * degrees / less + rest, scale.dtype)

    of_all = (jax.tree.broadcast(x, scale) for x in (degrees, less, rest))
    return jax.tree.map(leaf, scale, *of_all)


class UnknownNoise(Belief):
    r"""Unknown noise (equations in the module docstring).

    Attributes:
        model: a Gaussian model, such as `OrnsteinUhlenbeck`, `Secant`, `Optimum` or a `LocalLevel`
            with a noise variance, all of whose variances are in units of $\sigma^2$. Most often its
            own noise variance is 1.
        prior_noise_scale: $s_0^2 \ge 0$, in units of the squared gradient.
        prior_degrees_of_freedom: $\nu_0 \ge 0$, in observations.
        discount: $\beta$ in [0, 1], of the degrees of freedom before every reading; 1 for a noise
            variance that does not change, where this belief is exact.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {
        "prior_noise_scale": NON_NEGATIVE,
        "prior_degrees_of_freedom": COUNT,
        "discount": UNIT_INTERVAL,
    }

    model: Any
    prior_noise_scale: ArrayLike = 0.0
    prior_degrees_of_freedom: ArrayLike = 0.0
    discount: ArrayLike = 1.0

    def filter(self) -> Filter:
        r"""The exact online filter, whose states are `UnknownNoiseState`.

        Where nothing is known about the noise yet ($\nu_0 = 0$ or $s_0 = 0$) the predictive
        density is improper, and counts as 0.

        Raises:
            ValueError: the filter of the model does not say how surprising a reading was.
        """
        return self._filter(shared=False)

    def shared_filter(self) -> Filter:
        """The filter with one number of degrees of freedom for all entries.

        As if each of them had been observed.
        """
        return self._filter(shared=True)

    def _filter(self, shared: bool) -> Filter:
        inner = as_belief(self.model).filter()
        if inner.weigh is None or inner.diagnose is None:
            raise ValueError(
                f"Cannot learn the noise of {as_belief(self.model).name}. This is because its "
                "filter does not say how surprising a reading is (Filter.weigh); for a LocalLevel, "
                "give a noise_variance of 1, and around a noise that is learned put "
                "beliefs.positive, not inside."
            )
        weigh_inner, diagnose_inner = inner.weigh, inner.diagnose

        def init(params: PyTree) -> UnknownNoiseState:
            like = _trees.scalar_like if shared else _trees.full_like
            return UnknownNoiseState(
                inner.init(params),
                _trees.full_like(params, self.prior_noise_scale),
                like(params, self.prior_degrees_of_freedom),
            )

        def predict(state: UnknownNoiseState, displacement: PyTree = None) -> UnknownNoiseState:
            degrees = state.noise_degrees_of_freedom
            if not is_number(self.discount, 1):
                degrees = _trees.scale(degrees, self.discount)
            belief = inner.predict(state.belief, displacement)
            return UnknownNoiseState(belief, state.noise_scale, degrees)

        def update(
            predicted: UnknownNoiseState, gradient: PyTree, curvature: PyTree = None
        ) -> UnknownNoiseState:
            belief, (square, count) = weigh_inner(predicted.belief, gradient, curvature)
            before = predicted.noise_degrees_of_freedom
            if shared:
                after = before + (2 if inner.uses_curvature and curvature is not None else 1)
            else:
                after = jax.tree.map(lambda n, k: n + k.astype(n.dtype), before, count)

            def leaf(s2: Array, e2: Array, k: Array, n_after: Array) -> Array:
                # A noise that overflows is capped: an infinite one would be one for ever.
                e2 = jnp.minimum(e2, jnp.finfo(s2.dtype).max / 2)
                learned = s2 + (e2 - _trees.wide(k, s2.dtype) * s2) / n_after
                return _trees.wide(learned, s2.dtype)

            positive = jax.tree.map(lambda n: select(n > 0, n, 1), after)
            sizes = jax.tree.broadcast(positive, predicted.noise_scale)
            scale = jax.tree.map(leaf, predicted.noise_scale, square, count, sizes)
            return UnknownNoiseState(belief, scale, after)

        def read(state: UnknownNoiseState, fields: Collection[str]) -> Posterior:
            believed = inner.posterior(state.belief, fields)._asdict()
            wanted = Posterior(**{name: believed[name] for name in fields})
            return state.in_units(wanted) if VARIANCES & set(fields) else wanted

        def diagnose(
            predicted: UnknownNoiseState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            info = diagnose_inner(predicted.belief, gradient, curvature)
            _, (square, count) = weigh_inner(predicted.belief, gradient, curvature)
            scale = predicted.noise_scale
            degrees = jax.tree.broadcast(predicted.noise_degrees_of_freedom, scale)

            def leaf(s2: Array, e2: Array, density: Array, k: Array, n: Array) -> Any:
                return predictive(s2, n, jnp.minimum(e2, jnp.finfo(s2.dtype).max), density, k)

            density, surprise = _trees.unzip(
                leaf, (0, 0), scale, square, info.log_density, count, degrees
            )
            return info._replace(
                log_density=density,
                surprise=surprise,
                predictive_scale=jax.tree.map(student_scale, info.predictive_scale, scale, degrees),
                predictive_degrees_of_freedom=jax.tree.map(
                    lambda s2, n: jnp.broadcast_to(n, s2.shape), scale, degrees
                ),
            )

        return inner._replace(
            init=init, predict=predict, update=update, diagnose=diagnose, weigh=None, read=read
        )

    @property
    def name(self) -> str:
        """Its own, and that of the model."""
        return f"UnknownNoise({as_belief(self.model).name})"

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Those of the model, and the memory of the noise."""
        sentence = "The noise of each entry is learned; variances are in units of it."
        believed = as_belief(self.model).facts(quantity, time)
        return (*believed, Fact("noise", memory(self.discount, time), sentence))

    def proper(self) -> bool:
        """Whether the priors of the noise and of the model are known to be proper."""
        priors = self.prior_noise_scale, self.prior_degrees_of_freedom
        known = all(is_concrete(prior) and bool(np.all(np.asarray(prior) > 0)) for prior in priors)
        return known and as_belief(self.model).proper()

    def linear_gaussian(self) -> LinearForm | None:
        """That of the model, in units of the noise."""
        form = as_belief(self.model).linear_gaussian()
        if form is None or form.noise is not None:
            return None

        def read(state: UnknownNoiseState) -> tuple[PyTree, PyTree]:
            return state.noise_scale, state.noise_degrees_of_freedom

        priors = self.prior_noise_scale, self.prior_degrees_of_freedom
        return form._replace(noise=LearnedNoise(self, read, *priors, self.discount))

    def conjugate(self) -> Conjugate | None:
        """Where the noise does not drift: the densities of all steps are those of one Student-t.

        Where it does, step by step, but with the logarithm of the noise.
        """
        if not is_number(self.discount, 1):
            return Conjugate(_LogarithmicNoise(self), summed)
        if not self.proper():
            return None
        self.filter()  # checks the model

        def join(gradient: Array, curvature: Any, surprise: Array, log_density: Array) -> Array:
            return joint_log_density(self, gradient, curvature, surprise, log_density)

        return Conjugate(as_belief(self.model), join)

    def shared_conjugate(self) -> Conjugate | None:
        """Where the noise drifts: the same, of the shared filter."""
        if is_number(self.discount, 1):
            return None
        return Conjugate(_LogarithmicNoise(self, shared=True), summed)

    def program(self, stream: Stream) -> Any:
        """The program of the model on a noise that is sampled, as the site ``noise_scale``."""
        return self._at_noise(stream).program(stream)

    def positive_program(self, stream: Stream) -> Any:
        """The same of a curvature that is known to be positive."""
        return self._at_noise(stream).positive_program(stream)

    def _at_noise(self, stream: Stream) -> Belief:
        import numpyro
        from numpyro import distributions as dist

        if not is_number(self.discount, 1):
            raise ValueError(
                "UnknownNoise: a drifting noise (discount below 1) is an approximation for which "
                "there is no joint program."
            )
        if _discounting.is_zero(self.prior_degrees_of_freedom) or _discounting.is_zero(
            self.prior_noise_scale
        ):
            raise ValueError(
                "UnknownNoise: the NumPyro program needs a positive prior_degrees_of_freedom and a "
                "positive prior_noise_scale."
            )
        half = self.prior_degrees_of_freedom / 2
        law = dist.InverseGamma(half, half * self.prior_noise_scale)
        shape = law.batch_shape if stream.values is None else stream.shape
        return as_belief(self.model).scaled(numpyro.sample("noise_scale", law.expand(shape)))


class _LogarithmicNoise(Belief):
    r"""A drifting noise for likelihoods: it keeps $\log s^2$, so that small numbers stay numbers.

    While nothing surprises, as zeros after zeros, $s^2$ falls as $\beta^t$. The square of an
    innovation still has to be a number: in float32 one below 1e-19 is taken for 0.
    """

    noise: UnknownNoise
    shared: bool = False

    def filter(self) -> Filter:
        inner = as_belief(self.noise.model).filter()
        plain = self.noise._filter(self.shared)

        def init(params: PyTree) -> UnknownNoiseState:
            start = plain.init(params)
            return start._replace(noise_scale=jax.tree.map(log, start.noise_scale))

        def update(
            predicted: UnknownNoiseState, gradient: PyTree, curvature: PyTree = None
        ) -> UnknownNoiseState:
            assert inner.weigh is not None
            belief, (square, count) = inner.weigh(predicted.belief, gradient, curvature)
            before = predicted.noise_degrees_of_freedom
            if self.shared:
                after = before + (2 if inner.uses_curvature and curvature is not None else 1)
            else:
                after = jax.tree.map(lambda n, k: n + k.astype(n.dtype), before, count)

            def leaf(log_s2: Array, e2: Array, k: Array, n: Array) -> Array:
                n = jnp.where(n > 0, n, 1)
                kept = log_s2 + log(n - k.astype(n.dtype))
                learned = log_sum(kept, log(e2)) - jnp.log(n)
                return jnp.where(k > 0, learned, log_s2).astype(log_s2.dtype)

            sizes = jax.tree.broadcast(after, predicted.noise_scale)
            scale = jax.tree.map(leaf, predicted.noise_scale, square, count, sizes)
            return UnknownNoiseState(belief, scale, after)

        def diagnose(
            predicted: UnknownNoiseState, gradient: PyTree, curvature: PyTree = None
        ) -> Info:
            assert inner.weigh is not None and inner.diagnose is not None
            given = predicted.belief, gradient, curvature
            _, (square, count) = inner.weigh(*given)
            unit = inner.diagnose(*given).log_density

            def leaf(log_s2: Array, e2: Array, density: Array, k: Array, n: Array) -> Array:
                proper = (n > 0) & (log_s2 > -jnp.inf) & (k > 0)
                n, log_s2 = jnp.where(proper, n, 1), jnp.where(proper, log_s2, 0)
                k = k.astype(n.dtype)
                density = density + (e2 + k * math.log(2 * math.pi)) / 2
                density += few_readings(n, k) - k * (jnp.log(math.pi * n) + log_s2) / 2
                density -= (n + k) * jax.nn.softplus(log(e2) - log_s2 - jnp.log(n)) / 2
                return jnp.where(proper, density, 0)

            sizes = jax.tree.broadcast(predicted.noise_degrees_of_freedom, unit)
            density = jax.tree.map(leaf, predicted.noise_scale, square, unit, count, sizes)
            return Info(log_density=density, surprise=jax.tree.map(jnp.zeros_like, density))

        return inner._replace(
            init=init,
            predict=plain.predict,
            update=update,
            diagnose=diagnose,
            weigh=None,
            read=lambda state, fields: inner.posterior(state.belief, fields),
        )


def count_readings(gradient: Array, curvature: Array | None) -> Array:
    """How many readings there are of each entry."""
    seen = _trees.is_observed(gradient).astype(int)
    return seen if curvature is None else seen + _trees.is_observed(curvature).astype(int)


def few_readings(degrees: Array, count: Array) -> Array:
    r"""$\log\Gamma((\nu + k)/2) - \log\Gamma(\nu/2)$ for up to two readings."""
    ratio = jnp.where(count == 2, jnp.log(degrees / 2), _student.log_gamma_half_step(degrees / 2))
    return jnp.where(count == 0, 0, ratio)


def many_readings(degrees: Array, count: Array) -> Array:
    """The same for any number, accurate if they are many or the degrees few."""
    return gammaln((degrees + count) / 2) - gammaln(degrees / 2)


def predictive(
    scale: Array,
    degrees: Array,
    surprise: Array,
    log_density: Array,
    count: Array,
    log_gamma_ratio: Callable[[Array, Array], Array] = few_readings,
) -> tuple[Array, Array]:
    r"""The log density of a Student-t, and the surprise, from those of a Gaussian of unit noise.

    Args:
        scale: $s^2$ before the readings.
        degrees: $\nu$ before the readings.
        surprise: $\sum e^2/S$ over the readings of this step, in units of $\sigma^2$.
        log_density: $-\frac12 \sum (e^2/S + \log 2 \pi S)$.
        count: number of readings $k$.
        log_gamma_ratio: $\log\Gamma((\nu + k)/2) - \log\Gamma(\nu/2)$ as a function of $\nu, k$.

    Returns:
        Both; 0 where there is no reading or the prior is improper.
    """
    proper = (degrees > 0) & (scale > 0) & (count > 0)
    n, s2 = jnp.where(proper, degrees, 1), jnp.where(proper, scale, 1)
    count = jnp.asarray(count).astype(n.dtype)
    relative = surprise / s2  # and not over n s2, which may overflow
    density = log_density + (surprise + count * math.log(2 * math.pi)) / 2
    density += log_gamma_ratio(n, count)
    density -= (count * jnp.log(math.pi * n) + count * jnp.log(s2)) / 2
    density -= (n + count) * jnp.log1p(relative / n) / 2
    return jnp.where(proper, density, 0), jnp.where(proper, relative, 0)


def joint_log_density(
    belief: UnknownNoise,
    gradient: Array,
    curvature: Array | None,
    surprise: Array,
    log_density: Array,
) -> Array:
    """The log density of all readings of a leaf, of a belief whose noise does not drift.

    Args:
        belief: the belief.
        gradient: [step, ...].
        curvature: [step, ...], or ``None``.
        surprise: [...] the sum over all readings, in units of the noise variance.
        log_density: [...] the sum over all readings, at unit noise variance.

    Returns:
        [...] the log density, of one Student-t: what those of one step after the other multiply to.
    """
    # Counted when it runs, even where the recording is a constant: XLA would take minutes.
    count = count_readings(*lax.optimization_barrier((gradient, curvature))).sum(0)
    scale, degrees = (
        jnp.broadcast_to(x, surprise.shape)
        for x in (belief.prior_noise_scale, belief.prior_degrees_of_freedom)
    )
    return predictive(scale, degrees, surprise, log_density, count, many_readings)[0]


def student_scale(scale: Array, noise_scale: Array, degrees: Array) -> Array:
    r"""$s \sqrt S$ from $\sqrt S$, infinite where the prior is improper and 0 where missing."""
    proper = (degrees > 0) & (noise_scale > 0)
    learned = scale * jnp.sqrt(jnp.where(proper, noise_scale, 1))
    return jnp.where(proper | (scale == 0), learned, jnp.inf)


VARIANCES = {
    "gradient_variance",
    "curvature_variance",
    "gradient_curvature_covariance",
    "distance_variance",
}


def in_units(posterior: Posterior, variance: PyTree) -> Posterior:
    """A posterior whose variances are in units of ``variance``, in absolute units."""

    def times(tree: PyTree) -> PyTree:
        if tree is None:
            return None
        # Nothing times an infinite uncertainty is nothing: what is certain stays certain.
        return jax.tree.map(lambda v, s: select(v != 0, v * s, v), tree, variance)

    believed = posterior._asdict()
    return posterior._replace(**{name: times(believed[name]) for name in VARIANCES})
