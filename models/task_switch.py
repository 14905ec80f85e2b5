r"""A sequence of tasks: how often they switch, how far apart they are, and how noisy they look.

An optimum $\theta^*_t$ is seen through gradients of a loss of known curvature $h$,
$y_t = h (\theta_t - \theta^*_t) + N(0, R)$, and moves around the initial parameters:

| model | the optimum | best filter |
|---|---|---|
| `switching` | is drawn anew from $N(0, v_0)$ with probability $p$ a step | run lengths |
| `drifting` | decays by $\rho = 1 - p$ a step, $q = v_0 (1 - \rho^2)$ | linear |

Both have the same mean and autocovariance, hence the same linear filter; what tells them apart is
whether the optimum moves at once or all the time. Priors:

$$ p \sim \mathrm{Beta}(1, 20), \qquad \log v_0 \sim N(0, 2^2), \qquad \log R \sim N(0, 2^2), $$

in units of the stream: give it in some in which both variances are within a few orders of 1. Where
tasks switched, and where the optimum was, are integrated out exactly by the filter (the forward
recursion over run lengths), so that NUTS sees three smooth hyper-parameters.

Example:
    >>> import jax, jax.numpy as jnp
    >>> from beliefnav import inference
    >>> from models import task_switch
    >>> prior = task_switch.switching(num_steps=50)
    >>> values, recording = inference.simulate(
    ...     prior, key=jax.random.key(0), displacement=jnp.zeros(50)
    ... )
    >>> sorted(values), recording.gradient.shape
    (['hazard', 'noise_variance', 'prior_variance'], (50,))
"""

from collections.abc import Callable
from typing import Any

from jax import Array
from jax.typing import ArrayLike

from beliefnav import beliefs

Prior = Callable[[], beliefs.Belief]


def switching(num_steps: int, curvature: ArrayLike = 1.0) -> Prior:
    """Prior over `beliefnav.beliefs.SwitchingOptimum`, with all run lengths kept.

    Args:
        num_steps: of the stream, so that its likelihood is exact; with fewer, run lengths are
            pruned to so many, and long streams cost less.
        curvature: of the loss, known.

    Returns:
        A program that returns a `beliefnav.beliefs.RunLengths`. Sites: ``hazard``,
        ``prior_variance``, ``noise_variance``.
    """

    def prior() -> beliefs.RunLengths:
        hazard, prior_variance, noise_variance = hyperparameters()
        model = beliefs.SwitchingOptimum(curvature, noise_variance, prior_variance, hazard)
        return beliefs.RunLengths(model, num_steps)

    return prior


def drifting(curvature: ArrayLike = 1.0) -> Prior:
    """Prior over the Ornstein-Uhlenbeck counterpart, `beliefnav.beliefs.Optimum`.

    Args:
        curvature: of the loss, known.

    Returns:
        A program. Sites as those of `switching`; its hazard is the rate of decay.
    """

    def prior() -> beliefs.Optimum:
        hazard, prior_variance, noise_variance = hyperparameters()
        return beliefs.SwitchingOptimum(curvature, noise_variance, prior_variance, hazard).linear()

    return prior


def hyperparameters() -> tuple[Array, Array, Array]:
    """Draw the hazard, the prior variance and the noise variance.

    Returns:
        Three scalars, at sites of these names.
    """
    import numpyro
    from numpyro import distributions as dist

    hazard: Any = numpyro.sample("hazard", dist.Beta(1.0, 20.0))
    prior_variance: Any = numpyro.sample("prior_variance", dist.LogNormal(0.0, 2.0))
    noise_variance: Any = numpyro.sample("noise_variance", dist.LogNormal(0.0, 2.0))
    return hazard, prior_variance, noise_variance
