r"""How gradients remember: hierarchical beliefs about streams, layer by layer.

A stream of standardised gradients [step, param] comes from coordinates that belong to layers. The
coordinates of a layer share their memory, as they do in Adam; layers are pooled partially. On an
unbounded scale the hyper-parameter $x_l$ of layer $l$ is

$$ x_l \sim N(c, 1), \qquad c \sim p(c). $$

How much layers differ is not learned: three of them say next to nothing about it, and a spread that
may vanish makes a funnel of the posterior.

| model | hyper-parameters $x$ | what it is to Adam |
|---|---|---|
| `local_level` | logit of the discount $\beta$ | $\beta_1 = \beta$ |
| `ornstein_uhlenbeck` | logit of $\rho$, log of signal to noise | $\beta_1 = \rho(1 - K)$ |
| `precision_walk` | logit of the discount $\beta$ | $\beta_2 = \beta$ |
| `secant` | those of `ornstein_uhlenbeck`, log of $\omega$ | |

$K$ is the steady gain of the filter, and $\omega$ what a typical step changes of the gradient by
curvature, in units of its noise. A logit of a memory is the log of its length: $\beta/(1 - \beta)$
steps. Priors of $c$: for memories $N(\log 30, 2.5^2)$, from forgetting at once to thousands of
steps; for the logs of signal to noise (variances) and of $\omega$, $N(\log 0.1, 2^2)$.

The variance of the noise is each coordinate's own. In all but the precision walk, which follows it,
it is integrated out with the latent path: $\sigma^2 \sim \mathrm{InvGamma}(\frac12, \frac12)$ in
units of the stream's own mean square.

`white_noise` has no memory at all; `fixed_local_level` and `fixed_precision_walk` have that of
Adam's defaults: what the others are compared with.

Example:
    >>> import jax
    >>> from beliefnav import inference
    >>> from models import gradient_noise
    >>> layers = gradient_noise.Layers.of(["a/weight[0]", "a/weight[1]", "b/weight[7]"])
    >>> layers.names, layers.position.tolist()
    (('a/weight', 'b/weight'), [0, 0, 1])
    >>> prior = gradient_noise.ornstein_uhlenbeck(layers)
    >>> values, recording = inference.simulate(
    ...     prior, key=jax.random.key(0), num_steps=50, shape=(3,)
    ... )  # doctest: +SKIP
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from beliefnav import beliefs

if TYPE_CHECKING:
    import xarray as xr

Prior = Callable[[], beliefs.Belief]

MEMORY = (float(np.log(30)), 2.5)
"""Mean and standard deviation of the logit of a memory."""
RATIO = (float(np.log(0.1)), 2.0)
"""Mean and standard deviation of the log of a signal over the noise."""


class Layers(NamedTuple):
    """Which coordinate belongs to which layer.

    Attributes:
        names: of the layers.
        position: [param] where each coordinate's layer stands in ``names``.
    """

    names: tuple[str, ...]
    position: np.ndarray

    @classmethod
    def of(cls, labels: Iterable[Any]) -> "Layers":
        """The arrays that labels such as ``layers/1/weight[3,4]`` of a stream file name."""
        arrays = [str(label).split("[")[0] for label in labels]
        names = tuple(dict.fromkeys(arrays))
        return cls(names, np.array([names.index(array) for array in arrays]))


def local_level(layers: Layers) -> Prior:
    """Prior over `beliefnav.beliefs.LocalLevel` with noise of unknown variance.

    Args:
        layers: of the coordinates.

    Returns:
        A program. Sites: those of `pooled` for ``memory``; deterministic ``implied_beta1`` [layer].
    """

    def prior() -> beliefs.UnknownNoise:
        memory = memory_of(pooled("memory", MEMORY, layers))
        _report(layers, implied_beta1=memory)
        return _level(memory[layers.position])

    return prior


def ornstein_uhlenbeck(layers: Layers) -> Prior:
    """Prior over `beliefnav.beliefs.OrnsteinUhlenbeck` with noise of unknown variance.

    Args:
        layers: of the coordinates.

    Returns:
        A program. Sites: those of `pooled` for ``correlation`` and ``signal_to_noise``;
        deterministic ``implied_beta1`` and ``signal_to_noise_ratio`` [layer].
    """

    def prior() -> beliefs.UnknownNoise:
        rho = memory_of(pooled("correlation", MEMORY, layers))
        signal = jnp.exp(pooled("signal_to_noise", RATIO, layers))
        process_variance = signal * (1 - rho**2)
        typical = beliefs.OrnsteinUhlenbeck(rho, process_variance, 1.0)
        implied = rho * (1 - typical.steady_gain)
        _report(layers, implied_beta1=implied, signal_to_noise_ratio=signal)
        own = layers.position
        return _noisy(beliefs.OrnsteinUhlenbeck(rho[own], process_variance[own], 1.0))

    return prior


def precision_walk(layers: Layers) -> Prior:
    """Prior over `beliefnav.beliefs.PrecisionWalk`.

    Args:
        layers: of the coordinates.

    Returns:
        A program. Sites: those of `pooled` for ``memory``; deterministic ``implied_beta2`` [layer].
    """

    def prior() -> beliefs.PrecisionWalk:
        memory = memory_of(pooled("memory", MEMORY, layers))
        _report(layers, implied_beta2=memory)
        return _walk(memory[layers.position])

    return prior


def secant(layers: Layers) -> Prior:
    """Prior over `beliefnav.beliefs.Secant`, of constant curvature and noise of unknown variance.

    Args:
        layers: of the coordinates.

    Returns:
        A program. Sites: those of `pooled` for ``correlation``, ``signal_to_noise`` and
        ``relative_curvature``, the log of omega. Its stream needs standardised displacements.
    """

    def prior() -> beliefs.UnknownNoise:
        rho = memory_of(pooled("correlation", MEMORY, layers))[layers.position]
        signal = jnp.exp(pooled("signal_to_noise", RATIO, layers))[layers.position]
        curvature = jnp.exp(pooled("relative_curvature", RATIO, layers))[layers.position]
        return _noisy(
            beliefs.Secant(
                noise_variance=1.0,
                prior_gradient_variance=signal,
                prior_curvature_variance=curvature**2,
                gradient_process_variance=signal * (1 - rho**2),
                gradient_autocorrelation=rho,
            )
        )

    return prior


MODELS: dict[str, Callable[[Layers], Prior]] = {
    "local level": local_level,
    "Ornstein-Uhlenbeck": ornstein_uhlenbeck,
    "precision walk": precision_walk,
    "secant": secant,
}


def white_noise() -> beliefs.Belief:
    """The belief that gradients have no memory: noise of unknown variance around zero."""
    return _noisy(beliefs.OrnsteinUhlenbeck(0.0, 1e-9, 1.0))


def fixed_local_level() -> beliefs.Belief:
    """The local level with the memory of Adam's first moment."""
    return _level(0.9)


def fixed_precision_walk() -> beliefs.Belief:
    """The precision walk with the memory of Adam's second moment."""
    return _walk(0.999)


def pooled(name: str, prior: tuple[float, float], layers: Layers) -> Array:
    r"""A hyper-parameter of every layer on an unbounded scale, pooled between layers.

    Sites: ``{name}_center``, a scalar, and ``{name}`` [layer].

    Args:
        name: of the hyper-parameter.
        prior: mean and standard deviation of the center.
        layers: of the coordinates.

    Returns:
        The hyper-parameters [layer].
    """
    import numpyro
    from numpyro import distributions as dist

    center: Any = numpyro.sample(f"{name}_center", dist.Normal(*prior))
    with numpyro.plate("layer", len(layers.names)):
        return jnp.asarray(numpyro.sample(name, dist.Normal(center, 1.0)))


def memory_of(logit: Any) -> Any:
    """A memory from its logit, short of 0 and 1 (as float32 has them), where models degenerate."""
    return jax.nn.sigmoid(jnp.clip(logit, -12.0, 12.0))


def _report(layers: Layers, **values: Array) -> None:
    """Deterministic sites [layer]."""
    import numpyro

    with numpyro.plate("layer", len(layers.names)):
        for name, value in values.items():
            numpyro.deterministic(name, value)


def standardised(stream: "xr.Dataset", unit_steps: slice | None = None) -> "xr.Dataset":
    """Gradients and displacements of every coordinate in units of their root mean square.

    Args:
        stream: of dimensions (step, ...); entries that are not finite are left out.
        unit_steps: positions of the steps that the units are measured on; all by default.

    Returns:
        The stream with both variables in these units, and the units as ``gradient_unit`` and
        ``displacement_unit``.
    """
    result = stream.copy()
    for name in ("gradient", "displacement"):
        if name not in stream:
            continue
        values = stream[name].where(np.isfinite(stream[name]))
        part = values if unit_steps is None else values.isel(step=unit_steps)
        unit: Any = (part.astype(float) ** 2).mean("step") ** 0.5
        unit = unit.where(unit > 0, 1.0)
        result[name] = (stream[name] / unit).astype(stream[name].dtype)
        result[f"{name}_unit"] = unit
    return result


def _noisy(model: Any) -> beliefs.UnknownNoise:
    return beliefs.UnknownNoise(model, prior_noise_scale=1.0, prior_degrees_of_freedom=1.0)


def _level(discount: Any) -> beliefs.UnknownNoise:
    return _noisy(beliefs.LocalLevel(discount, noise_variance=1.0, prior_sample_size=1.0))


def _walk(discount: Any) -> beliefs.PrecisionWalk:
    return beliefs.PrecisionWalk(discount, prior_second_moment=1.0, prior_degrees_of_freedom=1.0)
