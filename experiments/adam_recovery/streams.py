r"""Streams simulated from the NumPyro landscape model, with numbers of its sites fixed.

For every coordinate the program of `models.landscape` is simulated with a noise variance $R$, a
variance $P$ of the signal and a curvature $h$ that are fixed, by fixing its sites
``signal_fraction``, ``relative_scale`` and ``initial_curvature``. Everything else, the path of the
gradient, the displacements and what is observed, it samples.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from beliefnav import beliefs
from models import landscape

AUTOCORRELATION = 0.9
"""Of the signal, from step to step."""


class Generator(NamedTuple):
    """Numbers of the coordinates of a stream, which the learner does not see.

    Attributes:
        noise: variance of the noise [param].
        signal: variance of the signal [param], apart from what the displacements add to it.
        curvature: curvature [param].
    """

    noise: Array
    signal: Array
    curvature: Array

    @property
    def signal_to_noise(self) -> Array:
        """Variance of the signal over that of the noise [param]."""
        return self.signal / self.noise

    def scaled(self, factor: float) -> "Generator":
        """The same coordinates with other sizes of noise and signal."""
        return self._replace(noise=self.noise * factor, signal=self.signal * factor)

    def belief(self, curvature_scale: float) -> beliefs.Secant:
        """The exact filter for these streams: it knows all numbers but the curvature.

        Args:
            curvature_scale: its prior standard deviation, the same for all coordinates.
        """
        rho = jnp.full_like(self.noise, AUTOCORRELATION)
        values = {
            "autocorrelation": rho,
            "process_variance": self.signal * (1 - rho**2),
            "noise_variance": self.noise,
            "curvature_scale": jnp.full_like(self.noise, curvature_scale),
        }
        return landscape.belief(values)


class Stream(NamedTuple):
    """What the learner sees: [step, param] each."""

    gradient: Array
    displacement: Array


def log_uniform(key: Array, num_params: int, center: Any, decades: float) -> Array:
    """Numbers [param] spread evenly over ``decades`` orders of magnitude around ``center``.

    One falls into each of ``num_params`` equal parts, in random order.
    """
    keys = jax.random.split(key)
    inside = jax.random.uniform(keys[0], (num_params,))
    shares = (jax.random.permutation(keys[1], num_params) + inside) / num_params
    return center * 10 ** (decades * (shares - 0.5))


@jax.jit(static_argnames=("num_params", "decades", "signal_decades"))
def low_signal(
    key: Array, num_params: int, ratio: Any, decades: float = 4.0, signal_decades: float = 2.0
) -> Generator:
    """Coordinates without curvature, whose noise and signal are sized independently.

    Args:
        key: random key.
        num_params: number of coordinates.
        ratio: of signal to noise variance, in the geometric mean.
        decades: orders of magnitude of the noise variance.
        signal_decades: orders of magnitude of the signal variance.

    Returns:
        The numbers of the generator.
    """
    keys = jax.random.split(key)
    noise = log_uniform(keys[0], num_params, 1.0, decades)
    signal = log_uniform(keys[1], num_params, ratio, signal_decades)
    return Generator(noise, signal, jnp.zeros(num_params))


@jax.jit(static_argnames=("num_params", "decades"))
def curved(key: Array, num_params: int, noise: Any, decades: float = 4.0) -> Generator:
    """Coordinates whose curvature and noise are sized independently; the signal is as the noise.

    Args:
        key: random key.
        num_params: number of coordinates.
        noise: variance of the noise, in the geometric mean; it spreads over two decades.
        decades: orders of magnitude of the curvature, around 1.

    Returns:
        The numbers of the generator.
    """
    keys = jax.random.split(key)
    curvature = log_uniform(keys[0], num_params, 1.0, decades)
    variance = log_uniform(keys[1], num_params, noise, 2.0)
    return Generator(variance, variance, curvature)


@jax.jit(static_argnames="num_steps")
def simulate(key: Array, generator: Generator, num_steps: int) -> Stream:
    """Run the program of the landscape; displacements are standard normal.

    Args:
        key: random key.
        generator: the numbers of the coordinates.
        num_steps: length of the stream.

    Returns:
        The stream.
    """
    from numpyro import handlers

    noise, signal, curvature = generator
    scale = jnp.sqrt(noise + signal)
    fixed: dict[str, Any] = {
        "autocorrelation": jnp.full_like(noise, AUTOCORRELATION),
        "signal_fraction": signal / (noise + signal),
        "relative_scale": scale,
        "relative_curvature": 1 / scale,  # of the prior of the curvature, which is fixed itself
        "initial_curvature": curvature,
    }
    program = handlers.substitute(handlers.seed(landscape.landscape, key), fixed)
    sites = handlers.trace(program).get_trace(num_steps=num_steps, num_params=len(noise))
    return Stream(sites["observation"]["value"], sites["displacement"]["value"])
