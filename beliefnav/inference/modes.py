r"""The fast path: the mode of a posterior, and the Gaussian around it.

In unconstrained coordinates $z$, with $U$ minus the log density there (the Jacobian of the
transformation included), the mode is $\hat z = \arg\min U$ and Laplace's approximation

$$ q(z) = N\big(\hat z, (\nabla^2 U(\hat z))^{-1}\big), \qquad
   \log p(y) \approx -U(\hat z) + \tfrac{d}{2} \log 2\pi - \tfrac12 \log \det \nabla^2 U(\hat z). $$

How good it is, is measured and not assumed: by the shape $k$ of the tail of the importance weights
$p/q$, which up to 0.7 can be repaired by weighting.

Reference:
    Tierney and Kadane, JASA 1986; Vehtari et al., "Pareto smoothed importance sampling", JMLR 2024.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from beliefnav.filters import Recording
from beliefnav.inference.fits import Fit, State, labelled
from beliefnav.inference.targets import Density, Target, Values, density

if TYPE_CHECKING:
    import xarray as xr

DECREMENT = 1e-2
"""The Newton decrement, in nats, up to which a mode is taken for one."""
PARETO_K = 0.7


class Mode(NamedTuple):
    """The most probable hyper-parameters.

    Attributes:
        values: constrained values, of the dimension taken apart and those of the sites.
        diagnostics: ``converged``, ``newton_decrement`` (by how many nats a Newton step would
            still improve), ``lp`` and ``log_evidence``, of the dimension taken apart.
    """

    values: "xr.Dataset"
    diagnostics: "xr.Dataset"


class _Peak(NamedTuple):
    position: Array
    potential: Array
    decrement: Array
    values: Array
    vectors: Array


def map_estimate(target: Target, *, key: Array, num_starts: int = 4, max_steps: int = 200) -> Mode:
    """The mode of a posterior in unconstrained coordinates, by BFGS from several starts.

    Args:
        target: the posterior, made by `beliefnav.inference.target`.
        key: random key of the starts.
        num_starts: number of starts: the origin, and others uniform in [-2, 2]; the best is kept.
        max_steps: of the minimiser.

    Returns:
        The mode, and whether it is one.

    Raises:
        ValueError: a number is not positive.
    """
    sampled = density(target)
    peak = _peaks(target, sampled, key, num_starts, max_steps)
    values, _ = _labelled(target, sampled, peak.position[None][..., None, :], {})  # one draw
    return Mode(values.isel(chain=0, draw=0, drop=True), _diagnostics(target, peak))


def laplace(
    target: Target,
    *,
    key: Array,
    num_draws: int = 1000,
    num_chains: int = 4,
    num_starts: int = 4,
    max_steps: int = 200,
) -> Fit:
    """Draw from the Gaussian approximation of a posterior around its mode.

    Args:
        target: the posterior, made by `beliefnav.inference.target`.
        key: random key.
        num_draws: number of draws, of one chain: they are independent.
        num_chains: number of chains of the ``state`` that NUTS may start from.
        num_starts: as in `map_estimate`.
        max_steps: as in `map_estimate`.

    Returns:
        The draws. ``diagnostics`` are those of `map_estimate` and ``pareto_k``; ``sample_stats``
        has ``lp`` and ``log_weight``, the log of $p/q$.

    Raises:
        ValueError: a number is not positive.
    """
    if num_draws < 20 or num_chains < 1:
        raise ValueError(
            f"laplace needs num_draws >= 20 and num_chains >= 1, got {num_draws} and {num_chains}."
        )
    sampled = density(target)
    peak = _peaks(target, sampled, key, num_starts, max_steps)
    batch = peak.position.shape[:-1]
    noise = jax.random.normal(jax.random.fold_in(key, 1), (num_draws, *peak.position.shape))
    scaled = noise / jnp.sqrt(peak.values)
    draws = peak.position + jnp.einsum("...ij,n...j->n...i", peak.vectors, scaled)

    unravel = _unravel(sampled)

    def log_weight(draw: Array, noise: Array, peak: _Peak, data: Recording) -> Any:
        lp = -sampled.potential(unravel(draw), data)
        log_det = jnp.log(peak.values).sum() / 2
        own = log_det - noise.shape[-1] / 2 * math.log(2 * math.pi) - (noise**2).sum() / 2
        return lp, lp - own

    weigh = log_weight if target.separate is None else jax.vmap(log_weight)
    lp, weights = jax.jit(
        lambda draws, noise, peak, data: lax.map(
            lambda now: weigh(*now, peak, data), (draws, noise), batch_size=32
        )
    )(draws, noise, peak, sampled.data)
    positions = draws[..., None, :]  # one chain
    statistics = {"lp": lp[..., None], "log_weight": weights[..., None]}
    posterior, sample_stats = _labelled(target, sampled, positions, statistics)
    diagnostics = _diagnostics(target, peak)
    shape = np.asarray(_pareto_k(np.asarray(weights)))
    diagnostics["pareto_k"] = (diagnostics["converged"].dims, shape.reshape(batch))
    diagnostics["converged"] = diagnostics["converged"] & (diagnostics["pareto_k"] < PARETO_K)
    order = jnp.moveaxis(draws[:num_chains], 0, -2)
    covariance = jnp.einsum("...ij,...j,...kj->...ik", peak.vectors, 1 / peak.values, peak.vectors)
    state = State(
        position=_split(sampled, order),
        step_size=jnp.ones((*batch, num_chains), draws.dtype),
        inverse_mass_matrix=jnp.broadcast_to(
            covariance[..., None, :, :], (*batch, num_chains, *covariance.shape[-2:])
        ),
    )
    return Fit(target, posterior, sample_stats, diagnostics, state)


def _unravel(sampled: Density) -> Any:
    return ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sampled.like))[1]


def _split(sampled: Density, positions: Array) -> Values:
    """Flat positions [..., dim] as sites [..., *shape]."""
    unravel = _unravel(sampled)
    for _ in range(positions.ndim - 1):
        unravel = jax.vmap(unravel)
    return unravel(positions)


def _labelled(
    target: Target, sampled: Density, positions: Array, statistics: dict[str, Array]
) -> Any:
    return labelled(sampled, target, _split(sampled, positions), statistics)


def _peaks(target: Target, sampled: Density, key: Array, num_starts: int, max_steps: int) -> _Peak:
    """The mode and the Hessian's eigenvalues and -vectors there, of every unit."""
    import optimistix

    if num_starts < 1 or max_steps < 1:
        raise ValueError(
            f"num_starts and max_steps must be at least 1, got {num_starts} and {max_steps}."
        )
    unravel = _unravel(sampled)
    dim = sum(math.prod(like.shape) for like in sampled.like.values())
    dtype = jnp.result_type(float)
    others = jax.random.uniform(key, (num_starts - 1, dim), dtype, -2, 2)
    starts = jnp.concatenate([jnp.zeros((1, dim), dtype), others])
    solver = optimistix.BFGS(rtol=1e-5, atol=1e-5)

    def peak(data: Recording) -> _Peak:
        def potential(x: Array, _: Any) -> Array:
            value = sampled.potential(unravel(x), data)
            return jnp.where(jnp.isfinite(value), value, jnp.finfo(value.dtype).max / 1e6)

        def descend(start: Array) -> tuple[Array, Array]:
            found = optimistix.minimise(
                potential, solver, start, None, max_steps=max_steps, throw=False
            ).value
            return found, potential(found, None)

        found, height = jax.vmap(descend)(starts)
        position = found[jnp.argmin(height)]
        gradient = jax.grad(potential)(position, None)
        values, vectors = jnp.linalg.eigh(jax.hessian(potential)(position, None))
        floor = 1e-3  # flatter than any proper prior: only to have a Gaussian at all
        slope = vectors.T @ gradient
        decrement = (slope**2 / jnp.maximum(values, floor)).sum() / 2
        decrement = jnp.where(values[0] > floor, decrement, jnp.inf)
        return _Peak(position, height.min(), decrement, jnp.maximum(values, floor), vectors)

    return jax.jit(peak if target.separate is None else jax.vmap(peak))(sampled.data)


def _diagnostics(target: Target, peak: _Peak) -> "xr.Dataset":
    import xarray as xr

    dims = () if target.separate is None else (target.separate,)
    dim = peak.position.shape[-1]
    evidence = -peak.potential + dim / 2 * math.log(2 * math.pi) - jnp.log(peak.values).sum(-1) / 2
    values = {
        "converged": peak.decrement < DECREMENT,
        "newton_decrement": peak.decrement,
        "lp": -peak.potential,
        "log_evidence": evidence,
    }
    coords = {d: target.stream[d] for d in dims if d in target.stream.coords}
    return xr.Dataset({name: (dims, np.asarray(x)) for name, x in values.items()}, coords)


def _pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """The shape of the upper tail of importance weights [draw, (unit)]."""
    from blackjax.diagnostics import pareto_khat

    columns = log_weights.reshape(len(log_weights), -1).T
    weights = jnp.exp(columns - columns.max(1, keepdims=True))
    return np.asarray(jax.jit(jax.vmap(lambda w: pareto_khat(w, tail="upper")))(weights))
