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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from beliefnav.inference.fits import Fit, State, labelled, with_verdict
from beliefnav.inference.targets import Density, Target, density
from beliefnav.recording import Recording

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DECREMENT", "FLAT", "Mode", "PARETO_K", "laplace", "map_estimate", "newton"]

DECREMENT = 1e-2
"""The Newton decrement, in nats, up to which a mode is taken for one."""
PARETO_K = 0.7
"""The shape of the tail of importance weights from which on they cannot be repaired."""
FLAT = 1e-3
"""An eigenvalue below this is taken for flat; a proper prior has more."""


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
    """Where a minimiser stands: size of eigenvalues, eigenvectors of the Hessian, Newton's step."""

    position: Array
    potential: Array
    decrement: Array
    values: Array
    vectors: Array
    step: Array


def map_estimate(target: Target, *, key: Array, num_starts: int = 4, max_steps: int = 100) -> Mode:
    """The mode of a posterior in unconstrained coordinates, by Newton's method from several starts.

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
    values, _ = labelled(sampled, target, peak.position[None][..., None, :], {})  # one draw
    return Mode(values.isel(chain=0, draw=0, drop=True), _diagnostics(target, peak))


def laplace(
    target: Target,
    *,
    key: Array,
    num_draws: int = 1000,
    num_chains: int = 4,
    num_starts: int = 4,
    max_steps: int = 100,
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
    scaled = noise / jnp.sqrt(peak.values)[None]
    draws = peak.position[None] + jnp.einsum("...ij,n...j->n...i", peak.vectors, scaled)

    def log_weight(draw: Array, noise: Array, peak: _Peak, data: Any) -> Any:
        lp = -sampled.potential(draw, data)
        log_det = jnp.log(peak.values).sum() / 2
        own = log_det - noise.shape[-1] / 2 * math.log(2 * math.pi) - (noise**2).sum() / 2
        return lp, lp - own

    weigh = target.over_units(log_weight)
    lp, weights = jax.jit(
        lambda draws, noise, peak, data: lax.map(
            lambda now: weigh(*now, peak, data), (draws, noise), batch_size=32
        )
    )(draws, noise, peak, sampled.data)
    positions = draws[..., None, :]  # one chain
    statistics = {"lp": lp[..., None], "log_weight": weights[..., None]}
    posterior, sample_stats = labelled(sampled, target, positions, statistics)
    diagnostics = _diagnostics(target, peak)
    diagnostics["pareto_k"] = (target.unit_dims, _pareto_k(np.asarray(weights)).reshape(batch))
    diagnostics["converged"] = diagnostics["converged"] & (diagnostics["pareto_k"] < PARETO_K)
    order = jnp.moveaxis(draws[:num_chains], 0, -2)
    covariance = jnp.einsum("...ij,...j,...kj->...ik", peak.vectors, 1 / peak.values, peak.vectors)
    state = State(
        position=sampled.split(order),
        step_size=jnp.ones((*batch, num_chains), draws.dtype),
        inverse_mass_matrix=jnp.broadcast_to(
            covariance[..., None, :, :], (*batch, num_chains, *covariance.shape[-2:])
        ),
    )
    return Fit(target, posterior, with_verdict(sample_stats, diagnostics), diagnostics, state)


def _peaks(target: Target, sampled: Density, key: Array, num_starts: int, max_steps: int) -> _Peak:
    """The mode and the Hessian's eigenvalues and -vectors there, of every unit."""
    if num_starts < 1 or max_steps < 1:
        raise ValueError(
            f"num_starts and max_steps must be at least 1, got {num_starts} and {max_steps}."
        )
    dtype = jnp.result_type(float)
    others = jax.random.uniform(key, (num_starts - 1, sampled.size), dtype, -2, 2)
    starts = jnp.concatenate([jnp.zeros((1, sampled.size), dtype), others])

    def peak(data: Recording) -> _Peak:
        def potential(x: Array) -> Array:
            return sampled.potential(x, data)

        found = jax.vmap(lambda start: newton(potential, start, max_steps))(starts)
        return jax.tree.map(lambda x: x[jnp.argmin(found.potential)], found)

    return jax.jit(target.over_units(peak))(sampled.data)


def newton(potential: Callable[[Array], Array], start: Array, max_steps: int) -> _Peak:
    """Minimise by Newton steps of bounded length, on the absolute value of the Hessian.

    The Hessian is wanted at the end anyway, its eigenvalues are few, and the scale is known:
    unconstrained hyper-parameters are of order one, so a step of length one is a long one. A step
    that does not descend is taken back, and the next is a quarter as long.
    """

    def slopes(x: Array) -> tuple[Array, tuple[Array, Array]]:
        value, gradient = jax.value_and_grad(potential)(x)
        return gradient, (value, gradient)

    @jax.jit  # traced once
    def look(x: Array) -> _Peak:
        hessian, (value, gradient) = jax.jacfwd(slopes, has_aux=True)(x)
        values, vectors = jnp.linalg.eigh(hessian)
        size = jnp.maximum(jnp.abs(values), FLAT)
        slope = vectors.T @ gradient
        finite = jnp.isfinite(value) & jnp.isfinite(size).all() & jnp.isfinite(slope).all()
        decrement = jnp.where(finite & (values[0] > FLAT), (slope**2 / size).sum() / 2, jnp.inf)
        step = -vectors @ (slope / size)
        return _Peak(x, jnp.where(finite, value, jnp.inf), decrement, size, vectors, step)

    def go_on(carry: tuple[_Peak, Array, Array]) -> Array:
        peak, radius, count = carry
        return (peak.decrement > DECREMENT / 10) & (radius > 1e-4) & (count < max_steps)

    def body(carry: tuple[_Peak, Array, Array]) -> tuple[_Peak, Array, Array]:
        peak, radius, count = carry
        length = jnp.linalg.norm(peak.step)
        scale = jnp.minimum(1, radius / jnp.where(length > 0, length, 1))
        there = look(peak.position + peak.step * scale)
        better = there.potential < peak.potential
        peak = jax.tree.map(lambda new, old: jnp.where(better, new, old), there, peak)
        short = jnp.minimum(radius, length) / 4
        longer = jnp.where(count == 0, radius, jnp.minimum(2 * radius, 2.0))
        return peak, jnp.where(better, longer, short), count + 1

    # The first step has length 0: what is looked at is compiled once.
    like = jax.eval_shape(look, start)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    infinite = jnp.full_like(nothing.potential, jnp.inf)
    before = nothing._replace(position=start, potential=infinite, decrement=infinite)
    one = jnp.ones((), start.dtype)
    return lax.while_loop(go_on, body, (before, one, jnp.zeros((), int)))[0]


def _diagnostics(target: Target, peak: _Peak) -> "xr.Dataset":
    import xarray as xr

    dims = target.unit_dims
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
    shape = np.asarray(jax.jit(jax.vmap(lambda w: pareto_khat(w, tail="upper")))(weights))
    # Weights that are all equal, up to rounding, have no tail.
    return np.where(np.ptp(columns, axis=1) < 1e-2, 0.0, shape)
