r"""Empirical-Bayes Wiener average: an Ornstein-Uhlenbeck gradient that learns its own variances.

Of the observations $y$ of one entry keep two discounted means, $\hat m$ of $y$ with weights
$\beta^k$ and $\hat v$ of $y^2$ with weights $\beta_2^k$. The noise of the mean and the variance of
the signal are then estimated by

$$ s^2 = \max(\hat v - \hat m^2, 0) / (n_{\mathrm{eff}} - 1), \qquad
   \tau^2 = \max(\hat m^2 - s^2, 0), \qquad
   n_{\mathrm{eff}} = (\textstyle\sum w)^2 / \sum w^2, $$

and the posterior mean of a gradient with the prior $N(0, \tau^2)$, seen as $\hat m$ with variance
$s^2$, is

$$ m = \frac{\tau^2}{\tau^2 + s^2} \hat m . $$

On a constant gradient $E[\hat v - \hat m^2]$ is the noise variance times $1 - 1/n_{\mathrm{eff}}$,
so that $s^2$ is not biased but for its floor at 0. With $n_{\mathrm{eff}} = 1$, at the first
observation or without a memory, noise cannot be told from signal, and $s^2 = 0$.

Since $\tau^2 + s^2 = \max(\hat m^2, s^2)$, this is the positive-part James-Stein factor
$\max(0, 1 - s^2/\hat m^2)$: an entry whose average does not stand out of its noise is not moved.

An approximation: the variances are estimated from the observations that they are then used on, and
plugged in. There is no joint program, only a filter, and no variance is claimed: that of the
posterior at the estimates, $\tau^2 s^2/(\tau^2 + s^2)$, is 0 for every entry that is not moved, and
does not say how little the estimates themselves are known.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import UNIT_INTERVAL
from beliefnav._format import memory
from beliefnav.beliefs._facts import prior
from beliefnav.beliefs.contract import Belief, Fact, Filter, Info, Posterior

__all__ = ["Wiener", "WienerState"]

PyTree = Any


class WienerState(NamedTuple):
    r"""The averages after an observation.

    Attributes:
        average: $\hat m$, a tree like the parameters.
        second_moment: $\hat v$, a tree like the parameters.
        weight_sum: $\sum w$ of the average, a scalar.
        squared_weight_sum: $\sum w^2$ of the average, a scalar.
        degrees_of_freedom: $\sum w$ of the second moment, a scalar.
    """

    average: PyTree
    second_moment: PyTree
    weight_sum: Array
    squared_weight_sum: Array
    degrees_of_freedom: Array

    def posterior(self) -> Posterior:
        r"""The shrunk gradient mean, without a variance; curvature mean $\hat v$, as in Adam."""
        # Both sums are at least 1 once something was seen, and 0 before.
        effective_size = jnp.maximum(self.weight_sum, 1) ** 2
        effective_size /= jnp.maximum(self.squared_weight_sum, 1)
        several = effective_size > 1
        others = jnp.where(several, effective_size - 1, 1)

        def mean(average: Array, second_moment: Array) -> Array:
            power = average**2
            noise = jnp.where(several, jnp.maximum(second_moment - power, 0) / others, 0)
            factor = jnp.where(power > noise, 1 - noise / jnp.where(power > 0, power, 1), 0)
            return (factor * average).astype(average.dtype)

        return Posterior(
            gradient_mean=jax.tree.map(mean, self.average, self.second_moment),
            curvature_mean=self.second_moment,
        )


class Wiener(Belief):
    r"""Empirical-Bayes Wiener average (equations in the module docstring).

    Attributes:
        discount: $\beta$ of the average, in [0, 1].
        curvature_discount: $\beta_2$ of the second moment, in [0, 1].

    Raises:
        ValueError: a number is out of its range, as far as it is known; the error names it.
    """

    ranges: ClassVar = {"discount": UNIT_INTERVAL, "curvature_discount": UNIT_INTERVAL}

    discount: ArrayLike
    curvature_discount: ArrayLike

    def filter(self) -> Filter:
        """The online filter, whose states are `WienerState`; as much memory as Adam.

        The weights are shared by all entries. A missing entry keeps its averages, an approximation
        in which it counts as observed.
        """

        def init(params: PyTree) -> WienerState:
            averages = (_trees.full_like(params, 0) for _ in range(2))
            weights = (_trees.scalar_like(params, 0) for _ in range(3))
            return WienerState(*averages, *weights)

        def predict(state: WienerState, displacement: PyTree = None) -> WienerState:
            del displacement
            return WienerState(
                state.average,
                state.second_moment,
                _trees.scale(state.weight_sum, self.discount),
                _trees.scale(state.squared_weight_sum, self.discount**2),
                _trees.scale(state.degrees_of_freedom, self.curvature_discount),
            )

        def update(
            predicted: WienerState, gradient: PyTree, curvature: PyTree = None
        ) -> WienerState:
            del curvature
            error = _trees.innovation(gradient, predicted.average)
            square_error = _trees.square_innovation(gradient, predicted.second_moment)
            weight_sum = predicted.weight_sum + 1
            degrees_of_freedom = predicted.degrees_of_freedom + 1
            return WienerState(
                _trees.correct(predicted.average, 1 / weight_sum, error),
                _trees.correct(predicted.second_moment, 1 / degrees_of_freedom, square_error),
                weight_sum,
                predicted.squared_weight_sum + 1,
                degrees_of_freedom,
            )

        def diagnose(predicted: WienerState, gradient: PyTree, curvature: PyTree = None) -> Info:
            del curvature
            seen = _trees.observed(gradient)
            return Info(
                innovation=_trees.innovation(gradient, predicted.average),
                gain=_trees.where(seen, 1 / (predicted.weight_sum + 1), 0),
                missing=jax.tree.map(jnp.logical_not, seen),
            )

        return Filter(init, predict, update, diagnose)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        """Its two memories, and its prior."""
        shrunk = (
            f"The {quantity} is 0 unless its average stands out of its noise, learned for each "
            "entry."
        )
        moment = f"The second moment of the {quantity} is read as curvature."
        return (
            Fact(quantity, memory(self.discount, time), shrunk),
            Fact("curvature", memory(self.curvature_discount, time), moment),
            prior("", 0, 0, time),
        )
