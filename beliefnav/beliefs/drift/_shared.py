"""What beliefs about a drift share: ranges, the noise of a reading, their programs and facts."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import LEFT_OPEN_UNIT, POSITIVE, Range, is_number
from beliefnav._format import memory, number
from beliefnav.beliefs.contract import Fact

__all__ = [
    "RANGES",
    "drift_facts",
    "noise_estimate",
    "noise_site",
    "observe",
    "reading_noise",
]

RANGES = {
    "rate_scale": POSITIVE,
    "offset_scale": POSITIVE,
    "noise_scale": POSITIVE,
    "noise_degrees_of_freedom": Range(lambda x: x > 0, "a positive number"),
    "discount": LEFT_OPEN_UNIT,
}


def noise_estimate(
    belief: Any, residual: Array, readings: Array, coefficients: int
) -> tuple[Array, Array]:
    r"""$s^2$ and $\nu$, from what the fit of so many coefficients leaves."""
    dtype = residual.dtype
    scale = jnp.finfo(dtype).eps if belief.noise_scale is None else belief.noise_scale
    prior = jnp.asarray(belief.noise_degrees_of_freedom, dtype)
    more = jnp.maximum(readings - coefficients, 0)
    # In this order infinite degrees of freedom mean what they say.
    variance = (jnp.asarray(scale, dtype) ** 2 + residual / prior) / (1 + more / prior)
    return variance, prior + more


def reading_noise(x: Array, dtype: Any) -> Array:
    """The variance of rounding a parameter in its own dtype, in the dtype of a belief."""
    spacing = jnp.spacing(jnp.abs(jnp.where(jnp.isfinite(x), x, 0)))
    return _trees.wide(spacing, dtype) ** 2 / 12


def noise_site(belief: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The noise variance of a program [...]."""
    import numpyro
    from numpyro import distributions as dist

    if not is_number(belief.discount, 1):
        raise ValueError(
            f"Cannot write {type(belief).__name__} with a discount as a NumPyro program. This is "
            "because a drift whose readings age is not one drift; set discount=1.0."
        )
    scale = jnp.finfo(dtype).eps if belief.noise_scale is None else belief.noise_scale
    square = jnp.broadcast_to(jnp.asarray(scale, dtype) ** 2, shape)
    if is_number(belief.noise_degrees_of_freedom, math.inf):
        return numpyro.deterministic("noise_variance", square)
    half = jnp.asarray(belief.noise_degrees_of_freedom, dtype) / 2
    prior = dist.InverseGamma(jnp.broadcast_to(half, shape), half * square)
    return numpyro.sample("noise_variance", prior.to_event())


def observe(drift: Array, variance: Array, moved: ArrayLike | None) -> None:
    """The observation of a program: a drift [step, ...] and noise."""
    import numpyro
    from numpyro import distributions as dist

    given = None if moved is None else jnp.asarray(moved)
    seen = jnp.ones_like(drift, bool) if given is None else _trees.is_observed(given)
    value = None if given is None else jnp.where(seen, given, 0)
    noise = dist.Normal(drift, jnp.broadcast_to(jnp.sqrt(variance), drift.shape))
    numpyro.sample("observation", noise.mask(seen), obs=value)


def drift_facts(belief: Any) -> tuple[Fact, ...]:
    """What a belief about a drift assumes, in words."""

    def fact(subject: str, scale: Any, sentence: str) -> Fact:
        return Fact(subject, "none" if scale is None else f"within {number(scale)}", sentence)

    noise = "rounding" if belief.noise_scale is None else number(belief.noise_scale)
    return (
        fact("drift rate", belief.rate_scale, "What moves in proportion to the parameters."),
        fact("drift offset", belief.offset_scale, "What moves wherever the parameters are."),
        Fact("drift noise", f"{noise} at first", "Learned from what the drift does not explain."),
        Fact("drift memory", memory(belief.discount), "Earlier readings of the drift fade."),
    )
