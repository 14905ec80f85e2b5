r"""What is believed about the landscape: state-space models of the gradient and its curvature.

A model is a NamedTuple of hyper-parameters with two readings: ``filter()``, its exact online
inference on trees like the parameters, and ``numpyro_model(...)``, the same model as a NumPyro
program. Hyper-parameters are leaves of a pytree: they can be differentiated, vmapped, injected by
optax and sampled by NUTS. Given as Python numbers they are checked at construction.

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
    ...             return Predicted(state.mean)
    ...
    ...         def update(predicted, gradient, curvature=None):
    ...             error = jax.tree.map(
    ...                 lambda y, m: jnp.where(jnp.isfinite(y), y - m, 0), gradient, predicted.mean
    ...             )
    ...             mean = jax.tree.map(lambda m, e: m + self.gain * e, predicted.mean, error)
    ...             return State(mean), beliefs.Info(innovation=error)
    ...
    ...         return beliefs.Filter(init, predict, update)
    >>>
    >>> class State(NamedTuple):
    ...     mean: Any
    ...
    ...     def posterior(self):
    ...         return beliefs.Posterior(gradient_mean=self.mean)
    >>>
    >>> class Predicted(NamedTuple):
    ...     mean: Any

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
"""

from beliefnav.beliefs._discounting import steady_sample_size
from beliefnav.beliefs._linear_gaussian import LinearGaussian
from beliefnav.beliefs.composed.independent import (
    Independent,
    IndependentPredicted,
    IndependentState,
    independent,
)
from beliefnav.beliefs.composed.look_ahead import LookAhead, LookAheadState, look_ahead
from beliefnav.beliefs.composed.positive import Positive, PositiveState, positive
from beliefnav.beliefs.composed.sensed import Sensed, SensedPredicted, SensedState, sensed
from beliefnav.beliefs.composed.shared import Shared, shared
from beliefnav.beliefs.composed.unknown_noise import (
    UnknownNoise,
    UnknownNoisePredicted,
    UnknownNoiseState,
)
from beliefnav.beliefs.contract import Belief, Filter, Info, Posterior, State, TaskPosterior
from beliefnav.beliefs.gradient.local_level import LocalLevel, LocalLevelPredicted, LocalLevelState
from beliefnav.beliefs.gradient.ornstein_uhlenbeck import (
    OrnsteinUhlenbeck,
    OrnsteinUhlenbeckPredicted,
    OrnsteinUhlenbeckState,
)
from beliefnav.beliefs.gradient.retracted_level import (
    RetractedLevel,
    RetractedLevelPredicted,
    RetractedLevelState,
)
from beliefnav.beliefs.gradient.transient import Transient, TransientPredicted, TransientState
from beliefnav.beliefs.gradient.wiener import Wiener, WienerPredicted, WienerState
from beliefnav.beliefs.landscape.fisher_optimum import (
    FisherOptimum,
    FisherOptimumPredicted,
    FisherOptimumState,
    initial_variance,
)
from beliefnav.beliefs.landscape.optimum import Optimum, OptimumPredicted, OptimumState
from beliefnav.beliefs.landscape.secant import Secant, SecantPredicted, SecantState
from beliefnav.beliefs.second_moment.kronecker_walk import (
    Kronecker,
    KroneckerWalk,
    KroneckerWalkPredicted,
    KroneckerWalkState,
)
from beliefnav.beliefs.second_moment.precision_walk import (
    Accumulated,
    AccumulatedState,
    PrecisionWalk,
    PrecisionWalkPredicted,
    PrecisionWalkState,
    accumulated,
)
from beliefnav.beliefs.second_moment.uniform_walk import (
    UniformWalk,
    UniformWalkPredicted,
    UniformWalkState,
)
from beliefnav.beliefs.second_moment.wishart_walk import (
    WishartWalk,
    WishartWalkPredicted,
    WishartWalkState,
)
from beliefnav.beliefs.tasks.hazard_grid import HazardGrid
from beliefnav.beliefs.tasks.one_gaussian import (
    OneTaskPredicted,
    OneTaskState,
    RunLengthReset,
    TwoHypotheses,
)
from beliefnav.beliefs.tasks.run_lengths import RunLengths, RunLengthsPredicted, RunLengthsState
from beliefnav.beliefs.tasks.switching_optimum import SwitchingOptimum

__all__ = [
    "OneTaskPredicted",
    "OneTaskState",
    "RunLengthReset",
    "RunLengths",
    "RunLengthsPredicted",
    "RunLengthsState",
    "TwoHypotheses",
    "Accumulated",
    "AccumulatedState",
    "LookAhead",
    "LookAheadState",
    "Belief",
    "Filter",
    "FisherOptimum",
    "FisherOptimumPredicted",
    "FisherOptimumState",
    "HazardGrid",
    "Independent",
    "IndependentPredicted",
    "IndependentState",
    "Info",
    "Kronecker",
    "KroneckerWalk",
    "KroneckerWalkPredicted",
    "KroneckerWalkState",
    "LinearGaussian",
    "LocalLevel",
    "LocalLevelPredicted",
    "LocalLevelState",
    "Optimum",
    "OptimumPredicted",
    "OptimumState",
    "OrnsteinUhlenbeck",
    "OrnsteinUhlenbeckPredicted",
    "OrnsteinUhlenbeckState",
    "Positive",
    "RetractedLevel",
    "RetractedLevelPredicted",
    "RetractedLevelState",
    "PositiveState",
    "Posterior",
    "PrecisionWalk",
    "PrecisionWalkPredicted",
    "PrecisionWalkState",
    "Secant",
    "SecantPredicted",
    "SecantState",
    "Sensed",
    "SensedPredicted",
    "SensedState",
    "Shared",
    "State",
    "SwitchingOptimum",
    "TaskPosterior",
    "Transient",
    "TransientPredicted",
    "TransientState",
    "UniformWalk",
    "UniformWalkPredicted",
    "UniformWalkState",
    "UnknownNoise",
    "UnknownNoisePredicted",
    "UnknownNoiseState",
    "Wiener",
    "WienerPredicted",
    "WienerState",
    "WishartWalk",
    "WishartWalkPredicted",
    "WishartWalkState",
    "accumulated",
    "look_ahead",
    "independent",
    "initial_variance",
    "positive",
    "sensed",
    "shared",
    "steady_sample_size",
]
