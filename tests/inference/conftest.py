"""Fits that several files look at: each costs a compilation."""

import jax
import pytest

from beliefnav import inference
from tests.inference import laws


@pytest.fixture(scope="session")
def fit() -> inference.Fit:
    """Draws of numpyro for three coordinates of one stream, each of its own truth."""
    target = inference.target(laws.prior, laws.streams(), separate="param")
    with jax.numpy_rank_promotion("allow"):
        return inference.numpyro_nuts(
            target,
            key=jax.random.key(0),
            num_warmup=300,
            num_samples=400,
            progress_bar=False,
        )
