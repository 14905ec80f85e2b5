r"""The landscape that an optimizer sees: latent gradient and curvature, with priors.

For every recorded coordinate, independently, a `beliefnav.beliefs.Secant` landscape of constant
curvature,

$$ g_{t+1} = \rho g_t + h \, \Delta\theta_t + N(0, q), \qquad y_t = g_t + N(0, R), $$

driven by the displacements $\Delta\theta_t = \theta_{t+1} - \theta_t$. The prior is on scale-free
quantities, in the units $u$ of the stream and $d$ of the displacements. The units belong to the
model and not to the data that it sees: `units` measures them on a recording, as root mean squares,
and what was fitted in them is simulated in them.

- $\sigma / u \sim \mathrm{LogNormal}(0, 1)$: the standard deviation of the stream;
- $\kappa \sim U(0, 1)$: the share of its variance that is signal, $P_g = \kappa \sigma^2$,
  $R = (1 - \kappa) \sigma^2$;
- $\rho \sim U(0, 1)$: the correlation of the signal from step to step, $q = P_g (1 - \rho^2)$;
- $\omega \sim \mathrm{HalfNormal}(1)$: what a typical step changes by curvature, in units of
  $\sigma$: $h \sim N(0, (\omega \sigma / d)^2)$. At 0 it is an Ornstein-Uhlenbeck gradient.

Where $\kappa$ is near 0 the stream says nothing of $\rho$, and its posterior stays the prior.

This one definition is simulated (`landscape` without a recording), fitted (`target`), filtered
(`belief`) and, with a policy, followed:

Example:
    From a stream file (see `beliefnav.recording`) to a posterior, and to an optimizer:

    >>> import jax
    >>> from beliefnav import control, inference, recording, navigator
    >>> from models import landscape
    >>> stream = recording.read_stream("runs/classify/stream.nc")  # doctest: +SKIP
    >>> fit = inference.numpyro_nuts(
    ...     landscape.target(stream), key=jax.random.key(0)
    ... )  # doctest: +SKIP
    >>> believed = landscape.belief(fit.posterior.median(("chain", "draw")))  # doctest: +SKIP
    >>> optimizer = navigator(0.01, believed, control.ballistic())  # doctest: +SKIP
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import beliefs, filters, inference
from beliefnav.inference import Target

if TYPE_CHECKING:
    import xarray as xr


def landscape(
    gradient: ArrayLike | None = None,
    displacement: ArrayLike | None = None,
    curvature: ArrayLike | None = None,
    *,
    num_steps: int | None = None,
    num_params: int | None = None,
    unit: ArrayLike = 1.0,
    step_unit: ArrayLike = 1.0,
    curvature_noise_variance: ArrayLike | None = None,
    integrate: bool = True,
) -> None:
    r"""The NumPyro program.

    Sites: ``autocorrelation`` ($\rho$), ``signal_fraction`` ($\kappa$), ``relative_scale``
    ($\sigma/u$) and ``relative_curvature`` ($\omega$), all [param]; deterministic ``stream_scale``
    ($\sigma$), ``process_variance`` ($q$), ``noise_variance`` ($R$) and ``curvature_scale``
    ($\omega\sigma/d$), all [param]; ``displacement`` [step, param], from $N(0, d^2)$ where it is
    not given; and, unless integrated out, ``gradient``, ``curvature``, ``observation`` and, with a
    second sensor, ``curvature_observation`` [step, param].

    Args:
        gradient: [step, param] a recorded stream to condition on; NaN or infinite entries are
            missing. ``None`` to simulate.
        displacement: [step, param] the displacement after each observation.
        curvature: [step, param] readings of a second sensor to condition on.
        num_steps: number of steps to simulate, if there is no displacement.
        num_params: number of coordinates to simulate, if there is no displacement.
        unit: $u$, a number or [param]; see `units`.
        step_unit: $d$, a number or [param].
        curvature_noise_variance: of the second sensor, if there is one.
        integrate: integrate the latent gradient and curvature out, exactly, by their filter, when
            conditioning.

    Raises:
        ValueError: there is a recorded gradient and no displacement, one of them is not
            [step, param], or there is nothing to say how much to simulate.
    """
    import numpyro
    from numpyro import distributions as dist

    if gradient is not None and displacement is None:
        raise ValueError("A recorded gradient needs the displacement recorded with it.")
    if displacement is None and (num_steps is None or num_params is None):
        raise ValueError(
            "Give a recorded gradient with its displacement, a displacement to simulate along, or "
            "num_steps and num_params."
        )
    gradient = None if gradient is None else _two_axes("gradient", gradient)
    if displacement is not None:
        displacement = _two_axes("displacement", displacement)
        num_steps, num_params = displacement.shape
    assert num_steps is not None and num_params is not None
    u, d = jnp.asarray(unit), jnp.asarray(step_unit)

    believed = hyperparameters(num_params, u, d, curvature_noise_variance)
    steps = dist.Normal(0, d).expand((num_steps, num_params)).to_event(2)
    moved = numpyro.sample("displacement", steps, obs=displacement)
    if gradient is not None and integrate:
        stream = filters.log_likelihood(believed, gradient, moved, curvature)
        numpyro.factor("stream", stream.sum())
    else:
        believed.numpyro_model(gradient, moved, curvature)


def hyperparameters(
    num_params: int,
    unit: ArrayLike,
    step_unit: ArrayLike,
    curvature_noise_variance: ArrayLike | None = None,
) -> beliefs.Secant:
    """The part of the program that samples the hyper-parameters, and the belief that they make.

    Args:
        num_params: number of coordinates.
        unit: $u$, a scalar or [param].
        step_unit: $d$, a scalar or [param].
        curvature_noise_variance: of the second sensor, if there is one.

    Returns:
        The belief.
    """
    import numpyro
    from numpyro import distributions as dist

    with numpyro.plate("param", num_params):
        autocorrelation = numpyro.sample("autocorrelation", dist.Uniform(0, 1))
        fraction = numpyro.sample("signal_fraction", dist.Uniform(0, 1))
        relative_scale = numpyro.sample("relative_scale", dist.LogNormal(0, 1))
        relative_curvature = numpyro.sample("relative_curvature", dist.HalfNormal(1))
        scale = numpyro.deterministic("stream_scale", relative_scale * unit)
        signal = fraction * scale**2
        process_variance = signal * (1 - autocorrelation**2)
        values = {
            "autocorrelation": autocorrelation,
            "process_variance": numpyro.deterministic("process_variance", process_variance),
            "noise_variance": numpyro.deterministic("noise_variance", (1 - fraction) * scale**2),
            "curvature_scale": numpyro.deterministic(
                "curvature_scale", relative_curvature * scale / step_unit
            ),
        }
    return belief(values, curvature_noise_variance)


def belief(
    values: Mapping[str, Any], curvature_noise_variance: ArrayLike | None = None
) -> beliefs.Secant:
    r"""The belief of given hyper-parameters, whose filter is the exact inference of `landscape`.

    Args:
        values: ``autocorrelation``, ``process_variance``, ``noise_variance`` and
            ``curvature_scale``, such as draws or a mean of the posterior; more is ignored.
        curvature_noise_variance: of a second sensor, if there is one.

    Returns:
        The belief, whose hyper-parameters have the shape of the values.
    """
    rho, q, noise, curvature_scale = (
        jnp.asarray(values[name])
        for name in ("autocorrelation", "process_variance", "noise_variance", "curvature_scale")
    )
    return beliefs.Secant(
        noise_variance=noise,
        prior_gradient_variance=q / (1 - rho**2),
        prior_curvature_variance=curvature_scale**2,
        gradient_process_variance=q,
        gradient_autocorrelation=rho,
        curvature_noise_variance=curvature_noise_variance,
    )


def _two_axes(name: str, values: ArrayLike) -> Array:
    array = jnp.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"{name} must be [step, param], got shape {array.shape}.")
    return array


def units(gradient: ArrayLike, displacement: ArrayLike) -> dict[str, Array]:
    """The units of a recording [step, param], as `landscape` takes them.

    Args:
        gradient: [step, param]; entries that are NaN or infinite are left out.
        displacement: [step, param].

    Returns:
        ``unit`` and ``step_unit`` [param], root mean squares.

    Example:
        One model, in the units of a recording, is fitted to it and simulated:

        >>> import functools, jax, numpy as np
        >>> from numpyro.infer import Predictive
        >>> from models import landscape
        >>> gradient, moved = 1e-4 * np.ones((2, 30, 1))
        >>> model = functools.partial(landscape.landscape, **landscape.units(gradient, moved))
        >>> draws = Predictive(model, num_samples=100)(jax.random.key(0), gradient, moved)
        >>> again = Predictive(model, draws)(jax.random.key(1), num_steps=30, num_params=1)
        >>> bool((again["stream_scale"] == draws["stream_scale"]).all())
        True
    """
    return {
        "unit": root_mean_square(_two_axes("gradient", gradient)),
        "step_unit": root_mean_square(_two_axes("displacement", displacement)),
    }


def root_mean_square(gradient: Array) -> Array:
    """Root mean square of the finite entries of every column [param]; 1 where they are all 0."""
    seen = jnp.isfinite(gradient)
    square = jnp.where(seen, gradient, 0) ** 2
    mean = square.sum(0) / jnp.maximum(seen.sum(0), 1)
    return jnp.where(mean > 0, jnp.sqrt(jnp.where(mean > 0, mean, 1)), 1)


def target(stream: "xr.Dataset", curvature_noise_variance: ArrayLike | None = None) -> Target:
    """The posterior of the hyper-parameters given a recorded stream, for `beliefnav.inference`.

    Args:
        stream: ``gradient`` and ``displacement`` of dimensions (step, param), as of a stream file;
            readings of a second sensor, if there are any, as ``curvature``.
        curvature_noise_variance: of the second sensor.

    Returns:
        What the samplers take.

    Raises:
        ValueError: see `beliefnav.inference.target`.
    """
    recorded = (stream[n].transpose("step", "param").values for n in ("gradient", "displacement"))
    measured = units(*recorded)

    def prior() -> beliefs.Secant:
        return hyperparameters(
            stream.sizes["param"],
            **measured,
            curvature_noise_variance=curvature_noise_variance,
        )

    return inference.target(prior, stream)
