"""Laws that more than one belief obeys."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import log_density

from beliefnav import filters
from beliefnav.beliefs import Belief, Filter, Info
from tests import oracles


def observe(filter_: Filter, *seen: Any) -> tuple[Any, Info]:
    """The state after an observation of a prediction, and what it did."""
    info = Info() if filter_.diagnose is None else filter_.diagnose(*seen)
    return filter_.update(*seen), info


def log_joint(program: Callable[..., Any], latents: Any, *streams: Any) -> Any:
    """The log density of a program at its latents, compiled as one, the streams known."""
    return jax.jit(lambda latents: log_density(program, streams, {}, latents)[0])(latents)


def assert_filter_is_exact(model: Belief, oracle: Callable[[np.ndarray], oracles.Gaussian]) -> None:
    """The filter of a Gaussian gradient is the conditioned joint Gaussian, entry by entry."""
    recorded = oracles.random_stream(seed=0, num_steps=15)
    posterior, info = filters.filter_recording(model, recorded)
    assert posterior.curvature_mean is None

    def check(y: Any, mean: Any, variance: Any, density: Any, missing: Any) -> None:
        # Float64 round-off of a 16 x 16 solve.
        want = oracles.per_entry(lambda x: oracle(x).filtered, y)
        np.testing.assert_allclose(np.stack([mean, variance]), want, rtol=1e-10, atol=1e-10)
        want = oracles.per_entry(lambda x: oracle(x).log_likelihood, y)
        np.testing.assert_allclose(density.sum(0), want, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(missing, ~np.isfinite(y))

    read = posterior.gradient_mean, posterior.gradient_variance, info.log_density, info.missing
    jax.tree.map(check, recorded, *read)


def assert_any_tree_is_believed(
    belief: Belief, reading: Callable[[Any], Any] = lambda params: None
) -> None:
    """Half precision in float32, ``None`` as no parameter, no leaves as nothing, init in abstract.

    ``reading`` makes the second sensor's reading of the gradient.
    """
    filter_ = belief.filter()

    @jax.jit
    def believe(y: Any) -> Any:
        state = filter_.init(y)
        for _ in range(2):
            state = filter_.update(filter_.predict(state), y, reading(y))
        return state, state.posterior()

    y = {"a": jnp.asarray([[0.5, -2.0, 1.25]], jnp.bfloat16), "b": [None, jnp.bfloat16(0.75)]}
    half, single = (
        believe(jax.tree.map(lambda x, d=d: x.astype(d), y)) for d in ("bfloat16", "float32")
    )
    jax.tree.map(np.testing.assert_array_equal, half, single)
    dtypes = {x.dtype for x in jax.tree.leaves(half)}
    assert dtypes <= {jnp.dtype(jnp.float32), jnp.dtype(bool)}

    def shapes(tree: Any) -> Any:
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), y)
    want = shapes(filter_.init(y))
    assert shapes(filter_.init(abstract)) == want
    assert shapes(jax.eval_shape(filter_.init, abstract)) == want
    assert want == shapes(half[0])
    nothing = believe({})[0]
    assert all(np.size(x) <= 1 for x in jax.tree.leaves(nothing))
