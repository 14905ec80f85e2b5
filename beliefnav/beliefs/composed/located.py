r"""Where the optimum is, from a belief about gradient and curvature.

On a quadratic the optimum is $\theta^* = \theta - g/h$ with the gradient $g$ at $\theta$ and the
curvature $h$. If both are Gaussian, with means $m, V$, and $h$ is known to be positive, the median
of the distance $\delta = \theta^* - \theta$ is

$$ \delta = -\frac{m}{V}, \qquad \mathrm{Var}[\delta] \approx
   \frac{\mathrm{Var}[g] + 2 \delta\, \mathrm{Cov}[g, h] + \delta^2\, \mathrm{Var}[h]}{V^2} , $$

since $P(-g/h \le x) = P(g + x h \ge 0)$, and $g + x h$ is Gaussian with the mean $m + x V$. The
ratio has no mean. Its variance is that of $(g + \delta h)/V$, the delta method; Fieller's interval
agrees with it where $V$ is many standard deviations from 0.

Around a `Secant` whose curvature and gradient do not drift this is what a learner can know of the
optimum from its own path: $y_t = h \theta_t - c + N(0, R)$ is linear-Gaussian in $(h, c)$ jointly,
and $\theta^* = c/h$. The posterior mean under a known $h$ is the average of the path and a boundary
term, which `beliefnav.wrappers.iterate_averaging` explains; here the boundary term is learned.

An approximation where the sign of $h$ is not resolved: hold the curvature as positive,
`beliefnav.beliefs.positive`, inside of this. Of 4,000 paths of 20 steps from 4 away ($h = 0.7$, a
rate of 0.3, a noise variance of 0.5, priors of variance 1e4 and 1) 90 % intervals hold the optimum
in 90 %; of paths that start at the optimum, and learn little about $h$, in 81 %.

Beyond the paper.

Reference:
    Fieller, "Some problems in interval estimation", Journal of the Royal Statistical Society B 16,
    1954.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

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
    Posterior,
    as_belief,
)

__all__ = ["Located", "LocatedState", "located"]

PyTree = Any

READ = ("gradient_mean", "gradient_variance", "curvature_mean", "curvature_variance")


class LocatedState(NamedTuple):
    """The state of a belief that is read as one about where the optimum is."""

    belief: Any

    def posterior(self) -> Posterior:
        """The posterior of the belief, and the distance to the optimum.

        Where the mean of the curvature is not positive, the distance is 0 and its variance
        infinite.
        """
        posterior = self.belief.posterior()
        believed = posterior._asdict()
        trees = (believed[name] for name in (*READ, "gradient_curvature_covariance"))
        distance, variance = _trees.unzip(_distance, (0, 0), *trees)
        return posterior._replace(distance_mean=distance, distance_variance=variance)


class Located(Belief):
    """A belief that says where the optimum is, made by `located`."""

    belief: BeliefLike

    def filter(self) -> Filter:
        """The filter of the belief, whose states are `LocatedState`."""
        return self._filter(as_belief(self.belief).filter())

    def shared_filter(self) -> Filter:
        """The shared filter of the belief, read in the same way."""
        return self._filter(as_belief(self.belief).shared_filter())

    def _filter(self, inner: Filter) -> Filter:
        def init(params: PyTree) -> LocatedState:
            state = inner.init(params)
            if not is_said(state, params, *READ):
                raise ValueError(
                    f"Cannot locate the optimum by {as_belief(self.belief).name}. This is because "
                    "its posterior has no mean or no variance of gradient or curvature; use a "
                    "belief about both, such as beliefs.positive(beliefs.Secant(...))."
                )
            return LocatedState(state)

        return reread(inner, LocatedState)._replace(init=init)

    @property
    def name(self) -> str:
        """Its own, and that of the belief."""
        return f"located({as_belief(self.belief).name})"

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Those of the belief, and what is made of them."""
        sentence = "The optimum is where the gradient would vanish if the curvature stayed."
        return (*as_belief(self.belief).facts(quantity, time), Fact("optimum", "located", sentence))

    def proper(self) -> bool:
        """As the belief."""
        return as_belief(self.belief).proper()

    def conjugate(self) -> Conjugate | None:
        """That of the belief: the density of what is seen is its own."""
        return as_belief(self.belief).conjugate()

    def shared_conjugate(self) -> Conjugate | None:
        """That of the belief."""
        return as_belief(self.belief).shared_conjugate()

    def program(self, stream: Stream) -> Any:
        """That of the belief: only what is read off it differs."""
        return as_belief(self.belief).program(stream)

    def positive_program(self, stream: Stream) -> Any:
        """That of the belief."""
        return as_belief(self.belief).positive_program(stream)


def located(belief: BeliefLike) -> Located:
    r"""Read off a belief about gradient and curvature where the optimum is (module docstring).

    Args:
        belief: one whose posterior has means and variances of gradient and curvature, such as
            ``beliefs.positive(beliefs.Secant(...))``.

    Returns:
        A belief whose posterior has `Posterior.distance_mean` and `Posterior.distance_variance`;
        `beliefnav.control.to_optimum` steps there, and ``posterior.optimum(params)`` says where.

    Raises:
        ValueError: at ``init``, the belief says nothing of one of them.

    Example:
        Ten gradients of a parabola with the curvature 2 and the optimum 3, without noise to speak
        of, on a path that was chosen by somebody else:

        >>> import jax.numpy as jnp
        >>> from beliefnav import beliefs
        >>> wide = {"prior_gradient_variance": 1e2, "prior_curvature_variance": 1e2}
        >>> belief = beliefs.located(beliefs.positive(beliefs.Secant(1e-4, **wide)))
        >>> filter_, params = belief.filter(), jnp.array([0.0])
        >>> state = filter_.init(params)
        >>> for _ in range(10):
        ...     predicted = filter_.predict(state, jnp.array([0.1]))
        ...     params = params + 0.1
        ...     state = filter_.update(predicted, 2 * (params - 3))
        >>> mean, variance = state.posterior().optimum(params)
        >>> round(mean.item(), 2), variance.item() < 0.01
        (3.0, True)
    """
    return Located(belief)


def _distance(
    g: Array, g_variance: Array, h: Array, h_variance: Array, covariance: Array | None
) -> tuple[Array, Array]:
    """Median and variance of $-g/h$, of one leaf."""
    curved = h > 0
    h = jnp.where(curved, h, 1)
    distance = jnp.where(curved, -g / h, 0)
    both = 0 if covariance is None else 2 * distance * covariance
    square = g_variance + both + distance**2 * h_variance
    return distance, jnp.where(curved, jnp.maximum(square, 0) / h**2, jnp.inf)
