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
    >>> from beliefnav import control, navigator, ssm
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
    ...             return State(mean), ssm.Info(innovation=error)
    ...
    ...         return ssm.Filter(init, predict, update)
    >>>
    >>> class State(NamedTuple):
    ...     mean: Any
    ...
    ...     def posterior(self):
    ...         return ssm.Posterior(gradient_mean=self.mean)
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

from beliefnav.ssm._contracts import Belief, Filter, Info, Posterior, State, TaskPosterior
from beliefnav.ssm._discounting import steady_sample_size
from beliefnav.ssm._linear_gaussian import LinearGaussian
from beliefnav.ssm.accumulated import Accumulated, AccumulatedState, accumulated
from beliefnav.ssm.anticipated import Anticipated, AnticipatedState, anticipated
from beliefnav.ssm.fisher_optimum import (
    FisherOptimum,
    FisherOptimumPredicted,
    FisherOptimumState,
    initial_variance,
)
from beliefnav.ssm.hazard_grid import HazardGrid
from beliefnav.ssm.independent import (
    Independent,
    IndependentPredicted,
    IndependentState,
    independent,
)
from beliefnav.ssm.kronecker_walk import (
    Kronecker,
    KroneckerWalk,
    KroneckerWalkPredicted,
    KroneckerWalkState,
)
from beliefnav.ssm.local_level import LocalLevel, LocalLevelPredicted, LocalLevelState
from beliefnav.ssm.optimum import Optimum, OptimumPredicted, OptimumState
from beliefnav.ssm.ornstein_uhlenbeck import (
    OrnsteinUhlenbeck,
    OrnsteinUhlenbeckPredicted,
    OrnsteinUhlenbeckState,
)
from beliefnav.ssm.positive import Positive, PositiveState, positive
from beliefnav.ssm.positive_level import (
    PositiveLevel,
    PositiveLevelPredicted,
    PositiveLevelState,
)
from beliefnav.ssm.precision_walk import (
    PrecisionWalk,
    PrecisionWalkPredicted,
    PrecisionWalkState,
)
from beliefnav.ssm.secant import Secant, SecantPredicted, SecantState
from beliefnav.ssm.sensed import Sensed, SensedPredicted, SensedState, sensed
from beliefnav.ssm.shared import Shared, shared
from beliefnav.ssm.switching_optimum import SwitchingOptimum
from beliefnav.ssm.transient import Transient, TransientPredicted, TransientState
from beliefnav.ssm.uniform_walk import UniformWalk, UniformWalkPredicted, UniformWalkState
from beliefnav.ssm.unknown_noise import (
    UnknownNoise,
    UnknownNoisePredicted,
    UnknownNoiseState,
)
from beliefnav.ssm.wiener import Wiener, WienerPredicted, WienerState
from beliefnav.ssm.wishart_walk import WishartWalk, WishartWalkPredicted, WishartWalkState

__all__ = [
    "Accumulated",
    "AccumulatedState",
    "Anticipated",
    "AnticipatedState",
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
    "PositiveLevel",
    "PositiveLevelPredicted",
    "PositiveLevelState",
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
    "anticipated",
    "independent",
    "initial_variance",
    "positive",
    "sensed",
    "shared",
    "steady_sample_size",
]
