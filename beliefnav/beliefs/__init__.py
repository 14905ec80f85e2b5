r"""What is believed about the landscape: state-space models of the gradient and its curvature.

A belief is an `equinox.Module` of hyper-parameters with two readings: ``filter()``, its online
inference on trees like the parameters, and ``numpyro_model(...)``, the same belief as a NumPyro
program. Hyper-parameters are leaves of a pytree: they can be differentiated, vmapped, injected by
optax and sampled by NUTS. Given as Python numbers they are checked at construction. All that the
library may ask of a belief is declared in `Belief`.

Example:
    Write your own belief. A belief is anything with a ``filter()``; its state is anything with a
    ``posterior()``. Here, a gradient whose posterior mean follows what is seen at a fixed gain (the
    steady state of a local level); a missing entry is not corrected.

    >>> from typing import Any, NamedTuple
    >>> import jax, jax.numpy as jnp, optax
    >>> from beliefnav import control, navigator, beliefs
    >>>
    >>> class FixedGain(NamedTuple):
    ...     gain: float
    ...
    ...     def filter(self):
    ...         def init(params):
    ...             return State(jax.tree.map(jnp.zeros_like, params))
    ...
    ...         def predict(state, displacement=None):
    ...             return state
    ...
    ...         def update(predicted, gradient, curvature=None):
    ...             error = jax.tree.map(
    ...                 lambda y, m: jnp.where(jnp.isfinite(y), y - m, 0), gradient, predicted.mean
    ...             )
    ...             mean = jax.tree.map(lambda m, e: m + self.gain * e, predicted.mean, error)
    ...             return State(mean)
    ...
    ...         return beliefs.Filter(init, predict, update)
    >>>
    >>> class State(NamedTuple):
    ...     mean: Any
    ...
    ...     def posterior(self):
    ...         return beliefs.Posterior(gradient_mean=self.mean)

    It is an optimizer like any other, under jit:

    >>> optimizer = navigator(0.1, FixedGain(0.5), control.myopic())
    >>> loss = lambda params: jnp.sum((params - 3.0) ** 2)
    >>> params = jnp.zeros(2)
    >>> @jax.jit
    ... def step(params, opt_state):
    ...     updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
    ...     return optax.apply_updates(params, updates), opt_state
    >>> opt_state = optimizer.init(params)
    >>> for _ in range(100):
    ...     params, opt_state = step(params, opt_state)
    >>> bool(jnp.allclose(params, 3.0, atol=1e-5))
    True

    What the others say of one gradient:

    >>> y = {"w": jnp.array([[3.0, -4.0]])}
    >>> def read(belief, curvature=None):
    ...     filter_ = belief.filter()
    ...     start = filter_.predict(filter_.init(y), jax.tree.map(jnp.zeros_like, y))
    ...     return filter_.update(start, y, curvature).posterior()
    >>> read(beliefs.UniformWalk(0.9)).curvature_mean["w"].tolist()  # the squared bound
    [[9.0, 16.0]]
    >>> walk = beliefs.PrecisionWalk(1.0, prior_second_moment=0.25, prior_degrees_of_freedom=1.0)
    >>> read(beliefs.accumulated(walk)).curvature_mean["w"].tolist()  # AdaGrad's sum
    [[9.25, 16.25]]
    >>> read(beliefs.WishartWalk(0.9)).curvature_mean.tolist()  # all pairs
    [[9.0, -12.0], [-12.0, 16.0]]
    >>> kronecker: beliefs.Kronecker = read(beliefs.KroneckerWalk()).curvature_mean["w"]
    >>> kronecker.left.tolist(), kronecker.right.tolist()  # of the row, of the columns
    ([[25.0]], [[9.0, -12.0], [-12.0, 16.0]])
    >>> ahead = read(beliefs.look_ahead(beliefs.LocalLevel(0.5))).gradient_mean["w"]
    >>> [round(float(m), 3) for m in ahead[0]]  # (1 + 1/3) y: NAdam's first step
    [4.0, -5.333]
    >>> level = beliefs.RetractedLevel(0.9, prior_level=1.0, margin=0.1)
    >>> reading = {"w": jnp.array([[2.1, 1.0]])}
    >>> sensed = read(beliefs.sensed(level), reading).curvature_mean["w"]
    >>> [round(float(h), 4) for h in sensed[0]]  # 1 + 1.1 (u + u^2/2), u = 0.1
    [1.1155, 1.0]
    >>> optimum = beliefs.FisherOptimum(hazard=0.0, examples=4, prior_variance=1.0)
    >>> one = jax.tree.map(jnp.ones_like, y)
    >>> read(optimum, one).distance_mean["w"].tolist()  # -y / (1 + 1/4)
    [[-2.4000000953674316, 3.200000047683716]]
    >>> beliefs.steady_sample_size(0.75)
    4.0
"""

from beliefnav.beliefs import gaussian
from beliefnav.beliefs._discounting import steady_sample_size
from beliefnav.beliefs.composed.independent import independent
from beliefnav.beliefs.composed.located import located
from beliefnav.beliefs.composed.look_ahead import look_ahead
from beliefnav.beliefs.composed.positive import positive
from beliefnav.beliefs.composed.sensed import sensed
from beliefnav.beliefs.composed.shared import shared
from beliefnav.beliefs.composed.unknown_noise import UnknownNoise
from beliefnav.beliefs.contract import (
    Belief,
    Fact,
    Filter,
    Info,
    LinearForm,
    Posterior,
    Sensor,
    Surprise,
)
from beliefnav.beliefs.gradient.local_level import LocalLevel
from beliefnav.beliefs.gradient.ornstein_uhlenbeck import OrnsteinUhlenbeck
from beliefnav.beliefs.gradient.polynomial_level import PolynomialLevel
from beliefnav.beliefs.gradient.retracted_level import RetractedLevel
from beliefnav.beliefs.gradient.transient import Transient
from beliefnav.beliefs.gradient.wiener import Wiener
from beliefnav.beliefs.landscape.fisher_optimum import FisherOptimum, initial_variance
from beliefnav.beliefs.landscape.optimum import Optimum
from beliefnav.beliefs.landscape.secant import Secant
from beliefnav.beliefs.second_moment.kronecker_walk import Kronecker, KroneckerWalk
from beliefnav.beliefs.second_moment.precision_walk import PrecisionWalk, accumulated
from beliefnav.beliefs.second_moment.uniform_walk import UniformWalk
from beliefnav.beliefs.second_moment.wishart_walk import WishartWalk
from beliefnav.beliefs.tasks.hazard_grid import HazardGrid
from beliefnav.beliefs.tasks.one_gaussian import RunLengthReset, TwoHypotheses
from beliefnav.beliefs.tasks.run_lengths import RunLengths
from beliefnav.beliefs.tasks.switching_optimum import SwitchingOptimum

__all__ = [
    "Belief",
    "Fact",
    "Filter",
    "FisherOptimum",
    "HazardGrid",
    "Info",
    "Kronecker",
    "LinearForm",
    "KroneckerWalk",
    "LocalLevel",
    "Optimum",
    "OrnsteinUhlenbeck",
    "PolynomialLevel",
    "Posterior",
    "PrecisionWalk",
    "RetractedLevel",
    "RunLengthReset",
    "RunLengths",
    "Secant",
    "Sensor",
    "Surprise",
    "SwitchingOptimum",
    "Transient",
    "TwoHypotheses",
    "UniformWalk",
    "UnknownNoise",
    "Wiener",
    "WishartWalk",
    "accumulated",
    "gaussian",
    "independent",
    "initial_variance",
    "located",
    "look_ahead",
    "positive",
    "sensed",
    "shared",
    "steady_sample_size",
]
