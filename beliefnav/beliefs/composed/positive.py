r"""Positive curvature: a belief read as if negative curvature were known to be impossible.

For a Gaussian belief about $(g, h)$ of mean $(m, V)$, $\sigma^2 = \mathrm{Var}[h]$ and
$c = \mathrm{Cov}[g, h]$, conditioned on $h > 0$, with $t = V/\sigma$ and
$\lambda = \varphi(t)/\Phi(t)$,

$$ V^+ = V + \sigma\lambda, \quad \mathrm{Var}^+[h] = \sigma^2 (1 - t\lambda - \lambda^2), \quad
   m^+ = m + \frac{c}{\sigma^2} (V^+ - V), \quad
   \mathrm{Var}^+[g] = \mathrm{Var}[g] - \frac{c^2}{\sigma^2}
   + \frac{c^2}{\sigma^4} \mathrm{Var}^+[h]. $$

$V^+ > 0$ always: a curvature that is not resolved is read as $0.8\,\sigma$, one that seems negative
as what the uncertainty leaves. It is a floor on the curvature that follows from the posterior.

For a curvature that stays constant this is exact: to truncate the prior of $h$ is to truncate its
posterior. For one that walks, only its present value is conditioned on, not its past, which is an
approximation. Measured against NUTS, on eight streams of 15 steps whose true curvature is 0, the
mean of the last curvature is off by 0.24 posterior standard deviations on average and 0.49 at most;
that of the Gaussian belief by 2.0 and 4.9. On streams of 30 steps of its own program, 89 % of 90 %
intervals for gradient and curvature hold them. The program is that of ``positive(Secant(...))``.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.scipy import stats
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav.beliefs._program import Stream
from beliefnav.beliefs._reread import reread
from beliefnav.beliefs._said import is_said
from beliefnav.beliefs.contract import (
    Belief,
    BeliefLike,
    Conjugate,
    Fact,
    Filter,
    LinearForm,
    Posterior,
    RunLengthWeights,
    as_belief,
)

__all__ = ["Positive", "PositiveState", "positive", "truncate"]

PyTree = Any


class PositiveState(NamedTuple):
    """The state of a belief whose curvature is read as positive."""

    belief: Any

    def posterior(self) -> Posterior:
        """The posterior of the belief, conditioned on a positive curvature."""
        return truncate(self.belief.posterior())


class Positive(Belief):
    """A belief whose curvature is read as positive, made by `positive`."""

    belief: BeliefLike

    def filter(self) -> Filter:
        """The filter of the belief, whose states are `PositiveState`."""
        return self._filter(as_belief(self.belief).filter())

    def shared_filter(self) -> Filter:
        """The shared filter of the belief, read in the same way."""
        return self._filter(as_belief(self.belief).shared_filter())

    @property
    def name(self) -> str:
        """Its own, and that of the belief."""
        return f"positive({as_belief(self.belief).name})"

    def _filter(self, inner: Filter) -> Filter:
        def init(params: PyTree) -> PositiveState:
            state = inner.init(params)
            if not is_said(state, params, "curvature_mean", "curvature_variance"):
                raise _no_spread(as_belief(self.belief).name)
            return PositiveState(state)

        # In which units the curvature is truncated matters: its noise is learned inside.
        return reread(inner, PositiveState)._replace(init=init, weigh=None)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Those of the belief, and that its curvature is positive."""
        sentence = "Negative curvature is known to be impossible."
        believed = as_belief(self.belief).facts(quantity, time)
        return (*believed, Fact("curvature sign", "positive", sentence))

    def proper(self) -> bool:
        """As the belief."""
        return as_belief(self.belief).proper()

    def scaled(self, factor: ArrayLike) -> "Positive":
        """The belief in other units, read as positive."""
        return Positive(as_belief(self.belief).scaled(factor))

    def linear_gaussian(self) -> LinearForm | None:
        """That of the belief, whose curvature is truncated when it is read."""
        form = as_belief(self.belief).linear_gaussian()
        return form and form._replace(positive=True)

    def shared_conjugate(self) -> Conjugate | None:
        """That of the belief."""
        return as_belief(self.belief).shared_conjugate()

    def conjugate(self) -> Conjugate | None:
        """That of the belief: the density of what is seen is its own."""
        return as_belief(self.belief).conjugate()

    def run_lengths(self, state: PositiveState) -> RunLengthWeights:
        """Those of the belief."""
        return as_belief(self.belief).run_lengths(state.belief)

    def program(self, stream: Stream) -> Any:
        """The program of a curvature whose prior and transitions are truncated at 0."""
        return as_belief(self.belief).positive_program(stream)

    def positive_program(self, stream: Stream) -> Any:
        """The same: to truncate twice is to truncate."""
        return self.program(stream)


def positive(belief: BeliefLike) -> Positive:
    """Read a belief as if negative curvature were known to be impossible (module docstring).

    Args:
        belief: one whose posterior has a curvature mean and variance, such as `Secant`.

    Returns:
        A belief.

    Raises:
        ValueError: at ``init``, the belief has no curvature mean or no curvature variance.
    """
    return Positive(belief)


def truncate(posterior: Posterior) -> Posterior:
    """A Gaussian posterior of gradient and curvature, conditioned on a positive curvature.

    Args:
        posterior: with a curvature mean and variance; a variance of 0 is taken as certainty.

    Returns:
        The posterior; a curvature that is certain and negative becomes 0.

    Raises:
        ValueError: there is no curvature mean or no curvature variance.
    """
    if posterior.curvature_mean is None or posterior.curvature_variance is None:
        raise _no_spread("this belief")

    def leaf(h: Array, variance: Array, g: Any, g_variance: Any, covariance: Any) -> Any:
        mean, left = _truncated(h, variance)
        if covariance is None:
            return g, g_variance, mean, left * variance, None
        known = (variance > 0) & jnp.isfinite(variance)
        slope = jnp.where(known, covariance, 0) / jnp.where(known, variance, 1)
        if g_variance is not None:
            g_variance = g_variance - slope**2 * (1 - left) * jnp.where(known, variance, 0)
        g = None if g is None else g + slope * jnp.where(known, mean - h, 0)
        return g, g_variance, mean, left * variance, left * covariance

    trees = (
        posterior.gradient_mean,
        posterior.gradient_variance,
        posterior.gradient_curvature_covariance,
    )
    g, g_variance, covariance = (None if tree is None else 0 for tree in trees)
    like = (g, g_variance, 0, 0, covariance)
    g, g_variance, mean, variance, covariance = _trees.unzip(
        leaf, like, posterior.curvature_mean, posterior.curvature_variance, *trees
    )
    return posterior._replace(
        gradient_mean=g,
        gradient_variance=g_variance,
        curvature_mean=mean,
        curvature_variance=variance,
        gradient_curvature_covariance=covariance,
    )


def _no_spread(name: str) -> ValueError:
    return ValueError(
        f"Cannot read {name} as positive. This is because its posterior has no curvature mean or "
        "no curvature variance; use a belief about curvature, such as beliefs.Secant."
    )


def _truncated(mean: Array, variance: Array) -> tuple[Array, Array]:
    r"""The mean of a Gaussian truncated at 0, and the share of its variance that is left.

    Both are small differences of large numbers where $t$ is far below 0. There, with $x = -t$ and
    Laplace's continued fraction $f = 2/(x + 3/(x + 4/(x + \ldots)))$, nothing cancels:
    $t + \lambda = 1/(x + f) =: u$ and $1 - \lambda (t + \lambda) = u (f - u)$.
    """
    uncertain = variance > 0
    scale = jnp.sqrt(jnp.where(uncertain, variance, 1))
    t = mean / scale
    far = t < -3
    near = jnp.where(far, 0, t)
    hazard = jnp.exp(stats.norm.logpdf(near) - stats.norm.logcdf(near))
    x = jnp.where(far, -t, 3)
    tail = x
    for k in range(30, 2, -1):  # enough for eleven digits at 3, and more beyond
        tail = x + k / tail
    beyond = 1 / (x + 2 / tail)
    excess = jnp.where(far, beyond, near + hazard)
    left = jnp.where(far, beyond * (2 / tail - beyond), 1 - hazard * excess)
    return (
        jnp.where(uncertain, scale * excess, jnp.maximum(mean, 0)),
        jnp.where(uncertain, left, 0),
    )
