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
that of the Gaussian belief by 2.0 and 4.9. The program is ``Secant.numpyro_model(positive=True)``.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.scipy import stats

from beliefnav import _trees
from beliefnav.beliefs.contract import Belief, Filter, Info, Posterior

PyTree = Any


class PositiveState(NamedTuple):
    """The state of a belief whose curvature is read as positive."""

    belief: Any

    def posterior(self) -> Posterior:
        """The posterior of the belief, conditioned on a positive curvature."""
        return truncate(self.belief.posterior())


class Positive(NamedTuple):
    """A belief whose curvature is read as positive, made by `positive`."""

    belief: Belief

    def filter(self) -> Filter:
        """The filter of the belief, whose states are `PositiveState`."""
        inner = self.belief.filter()

        def init(params: PyTree) -> PositiveState:
            return PositiveState(inner.init(params))

        def predict(state: PositiveState, displacement: PyTree = None) -> Any:
            return inner.predict(state.belief, displacement)

        def update(
            predicted: Any, gradient: PyTree, curvature: PyTree = None
        ) -> tuple[PositiveState, Info]:
            state, info = inner.update(predicted, gradient, curvature)
            return PositiveState(state), info

        return Filter(init, predict, update, inner.uses_displacement)


def positive(belief: Belief) -> Positive:
    """Read a belief as if negative curvature were known to be impossible (module docstring).

    Args:
        belief: one whose posterior has a curvature mean and variance, such as `Secant`.

    Returns:
        A belief.
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
        raise ValueError(
            "Cannot read this belief as positive. This is because its posterior has no curvature "
            "mean or no curvature variance; use a belief about curvature, such as beliefs.Secant."
        )

    def leaf(h: Array, variance: Array, g: Any, g_variance: Any, covariance: Any) -> Posterior:
        mean, left = _truncated(h, variance)
        if covariance is None:
            return Posterior(g, g_variance, mean, left * variance)
        known = (variance > 0) & jnp.isfinite(variance)
        slope = jnp.where(known, covariance, 0) / jnp.where(known, variance, 1)
        if g_variance is not None:
            g_variance = g_variance - slope**2 * (1 - left) * jnp.where(known, variance, 0)
        g = None if g is None else g + slope * jnp.where(known, mean - h, 0)
        return Posterior(g, g_variance, mean, left * variance, left * covariance)

    like = Posterior(*(None if field is None else 0 for field in posterior))
    return _trees.unzip(
        leaf,
        like,
        posterior.curvature_mean,
        posterior.curvature_variance,
        posterior.gradient_mean,
        posterior.gradient_variance,
        posterior.gradient_curvature_covariance,
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
