"""Streams of one entry, and what is drawn."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def random_stream(seed: int, num_steps: int, missing: float = 0.3) -> dict[str, Any]:
    """A tree of recorded gradients with NaN and infinite entries."""
    rng = np.random.default_rng(seed)

    def leaf(*shape: int) -> Floats:
        values = rng.normal(0.3, 1.5, (num_steps, *shape))
        holes = rng.random(values.shape) < missing
        return np.where(holes, rng.choice([np.nan, np.inf, -np.inf], values.shape), values)

    return {"matrix": leaf(3, 2), "nested": [leaf()]}


def per_entry(oracle: Callable[[Floats], Any], recorded: Any) -> Floats:
    """``oracle`` of each entry's stream: [step, ...] -> [its own shape, ...]."""
    return np.apply_along_axis(oracle, 0, np.asarray(recorded, np.float64))


def discounted(values: Floats, discount: float, prior: float = 0.0) -> Floats:
    r"""$\beta^t x_0 + \sum_{k \le t} \beta^{t-k} x_k$ for every t, summed out."""
    num_steps = len(values)
    return np.array(
        [
            prior * discount ** (t + 1) + sum(values[k] * discount ** (t - k) for k in range(t + 1))
            for t in range(num_steps)
        ]
    )


def nuts(program: Callable[..., Any], gradient: Any, seed: int, num_samples: int) -> dict[str, Any]:
    """Draws [chain, draw, ...] of the latents of a NumPyro program, one chain by NUTS."""
    import jax
    from numpyro import infer

    mcmc = infer.MCMC(
        infer.NUTS(program, target_accept_prob=0.9),
        num_warmup=400,
        num_samples=num_samples,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), gradient)
    return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}


def standard_errors(draws: Floats, mean: Floats) -> Floats:
    """Distance of the average of draws [chain, draw, ...] from a mean, in its standard errors."""
    from numpyro.diagnostics import effective_sample_size

    size = effective_sample_size(draws)
    assert np.all(size > 400), f"too few effective draws to say anything: {size}"
    return np.abs(draws.mean((0, 1)) - mean) / (draws.std((0, 1)) / np.sqrt(size))
