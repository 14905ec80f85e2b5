r"""Optimum of one parameter that moves because all other parameters do: Aitchison's belief.

Where the loss couples parameters, the best value $\theta^*$ of one of them depends on where the
others are, and moves as they learn. That is believed of every parameter apart from the others, as
an Ornstein-Uhlenbeck process whose steps have the variance $\eta^2$ and whose stationary variance
is $\sigma^2$. What is seen is the gradient $y$ of the mean loss of $B$ examples, a negative
log-likelihood in nats, whose precision about $\theta^*$ is taken to be the square of the sum:

$$ \rho = e^{-\eta^2/2\sigma^2}, \qquad s^2 \leftarrow \rho^2 s^2 + (1-\rho^2) \sigma^2, \qquad
   \tfrac{1}{s^2} \leftarrow \tfrac{1}{s^2} + (B y)^2, \qquad
   \theta \leftarrow \theta - s^2 B y. $$

The parameters are taken to be at the mean of the belief, so that the distance that is expected
before an observation is 0: the optimizer that goes there (`beliefnav.control.to_optimum`) keeps
them there, but for the pull $(1-\rho)\theta$ to 0, a weight decay that is left to
`beliefnav.drift`.

**What it predicts.** Of many gradients with the mean square $\Lambda = E[(By)^2]$ the variance
settles where $1/s^2 - 1/(\rho^2 s^2 + (1-\rho^2)\sigma^2) = \Lambda$. Where the data say much,
$\Lambda \eta^2 \ll 1 \ll \Lambda \sigma^4/\eta^2$, that is $s^2 = \eta / \sqrt{\Lambda}$: the steps
of RMSprop with the learning rate $\eta$. Where they say little it is $s^2 = \sigma^2$: gradient
descent. The left side, for the present $s^2$, is what the belief says of the mean square; over $B$
it is read as curvature, `beliefnav.beliefs.Posterior.curvature_mean`. The root comes from a filter
of a moving optimum, and in `beliefnav.control.ballistic` from a path that coasts. The two
derivations give one rule, and the size of its steps does not say which of the two holds.

The recursion of the variance is that of `beliefnav.beliefs.FisherOptimum` with
``hazard`` $1 - \rho$, ``prior_variance`` $\sigma^2$ and no readings of the curvature. What differs
is where the optimum returns to, 0 or the initial parameters, and how small the hazard is.

Reference:
    Aitchison, "Bayesian filtering unifies adaptive and non-adaptive neural network optimization
    methods", NeurIPS 2020, arXiv:1807.07540 (the filter AdaBayes, and its steady state). The paper
    has the first order $\rho = 1 - \eta^2/2\sigma^2$ and $\eta^2$ in place of
    $(1-\rho^2)\sigma^2$; its program has the exponential.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import POSITIVE
from beliefnav._format import counted, number
from beliefnav.beliefs.contract import Belief, Fact, Filter, Posterior

__all__ = ["CoupledOptimum", "CoupledOptimumState"]

PyTree = Any


class CoupledOptimumState(NamedTuple):
    r"""The optimum after an observation, or before the next.

    Attributes:
        distance_mean: the mean of $\theta^* - \theta$, a tree like the parameters; 0 before an
            observation.
        distance_variance: $s^2$, a tree like the parameters.
        stationary_curvature: the curvature at which $s^2$ would stay, a tree like the parameters.
    """

    distance_mean: PyTree
    distance_variance: PyTree
    stationary_curvature: PyTree

    def posterior(self) -> Posterior:
        """How far the optimum is, with its variance, and the curvature that was learned."""
        return Posterior(
            curvature_mean=self.stationary_curvature,
            distance_mean=self.distance_mean,
            distance_variance=self.distance_variance,
        )


class CoupledOptimum(Belief):
    r"""Optimum that the other parameters move (equations in the module docstring).

    Attributes:
        drift_variance: $\eta^2 > 0$, in units of the squared parameter, per step; its root is the
            learning rate of RMSprop in the limit of much data.
        prior_variance: $\sigma^2 > 0$, in units of the squared parameter; times ``examples`` it is
            the learning rate of gradient descent in the limit of little data.
        examples: $B > 0$, the number of examples whose mean gradient is seen at a step.

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.

    Example:
        Of gradients of size 4 the step is the learning rate, 0.01, and the curvature their square:

        >>> import jax, jax.numpy as jnp
        >>> from beliefnav import control, navigator, posterior
        >>> from beliefnav.beliefs.landscape.coupled_optimum import CoupledOptimum
        >>> optimizer = navigator(1.0, CoupledOptimum(1e-4, 1.0, 1.0), control.to_optimum())
        >>> params, gradient = jnp.zeros(1), jnp.array([4.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(gradient, state, params)
        >>> print(round(float(updates[0]), 3), round(float(posterior(state).curvature_mean[0]), 1))
        -0.01 16.0
    """

    ranges: ClassVar = {
        "drift_variance": POSITIVE,
        "prior_variance": POSITIVE,
        "examples": POSITIVE,
    }

    drift_variance: ArrayLike
    prior_variance: ArrayLike
    examples: ArrayLike

    @property
    def innovation_share(self) -> Array:
        r"""$1 - \rho^2$, the share of the stationary variance that is new at every step."""
        return -jnp.expm1(-jnp.asarray(self.drift_variance) / self.prior_variance)

    def filter(self) -> Filter:
        """The exact online filter, whose states are `CoupledOptimumState`.

        A missing entry is predicted only.
        """

        def forward(v: Array) -> Array:
            return (v + self.innovation_share * (self.prior_variance - v)).astype(v.dtype)

        def stationary(v: Array) -> Array:
            # 1/v - 1/forward(v), without the difference of what may be close.
            grown = self.innovation_share * (self.prior_variance - v)
            return (grown / (v * (v + grown)) / self.examples).astype(v.dtype)

        def state_of(distance: PyTree, variance: PyTree) -> CoupledOptimumState:
            return CoupledOptimumState(distance, variance, jax.tree.map(stationary, variance))

        def init(params: PyTree) -> CoupledOptimumState:
            variance = _trees.full_like(params, self.prior_variance)
            return state_of(_trees.full_like(params, 0), variance)

        def predict(state: CoupledOptimumState, displacement: PyTree = None) -> CoupledOptimumState:
            del displacement
            still = jax.tree.map(jnp.zeros_like, state.distance_mean)
            return state_of(still, jax.tree.map(forward, state.distance_variance))

        def update(
            predicted: CoupledOptimumState, gradient: PyTree, curvature: PyTree = None
        ) -> CoupledOptimumState:
            del curvature

            def leaf(v: Array, y: Array) -> tuple[Array, Array]:
                total = jnp.where(_trees.is_observed(y), y, 0).astype(v.dtype) * self.examples
                # In the inverse of v (B y)^2, whose products of small numbers do not underflow.
                after = v / (1 + (jnp.sqrt(v) * total) ** 2)
                return (-after * total).astype(v.dtype), after.astype(v.dtype)

            return state_of(*_trees.unzip(leaf, (0, 0), predicted.distance_variance, gradient))

        return Filter(init, predict, update)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """How fast the other parameters move the optimum, its prior, and its curvature."""
        del quantity
        memory = 2 * self.prior_variance / self.drift_variance
        return (
            Fact(
                "optimum",
                f"variance {number(self.drift_variance)} a {time}",
                "The other parameters move it; the parameters are where it is expected.",
            ),
            Fact(
                "optimum prior",
                f"variance {number(self.prior_variance)}",
                f"Around 0, to which it returns in {counted(memory, time)}.",
            ),
            Fact("curvature", "learned", "The variance of the optimum would stay at it."),
        )
