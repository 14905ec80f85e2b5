r"""A drift that couples parameters, learned from where they were sent and where they are.

`beliefnav.beliefs.drift.elementwise` has the model of one entry and its posterior. Here the drift
is any linear one,

$$ d_t = \Delta t \, (A \theta_t + a) + N(0, \operatorname{diag}(\sigma_i^2)), \qquad
   A_{ij} \sim N(0, \tau_a^2), \quad a_i \sim N(0, \tau_b^2) , $$

over all n parameters. Each row of $(A, a)$ is a regression of its own on $(\theta, 1)$ with n + 1
coefficients, so that an entry of the displacement may be missing. Where none is, all rows have one
triangle: a matrix-normal belief. Memory is of the order of $n^3$: it is for few parameters.

The policy that is optimal if the mean is the truth (certainty equivalence) is that of
`beliefnav.control.lq_policy` with the drift of the posterior:

Example:
    Nobody says that the parameters rotate; parameters that are moved about show it.

    >>> import jax, jax.numpy as jnp
    >>> from beliefnav import Objective, control
    >>> from beliefnav.beliefs.drift.coupled import CoupledDrift
    >>> belief, time_step = CoupledDrift(), 0.1
    >>> params = jnp.array([1.0, 0.5])
    >>> state = belief.init(params)
    >>> for key in jax.random.split(jax.random.key(0), 50):
    ...     sent = params + jax.random.normal(key, (2,))
    ...     moved = time_step * 2.0 * jnp.array([-sent[1], sent[0]])
    ...     state = belief.update(state, sent, moved, time_step)
    >>> believed = belief.posterior(state)
    >>> [[round(x, 2) + 0.0 for x in row] for row in believed.matrix_mean.tolist()]
    [[0.0, -2.0], [2.0, 0.0]]
    >>> objective = Objective(discount=0.0, drift=believed.drift)
    >>> minimum = jnp.array([0.0, -0.5])
    >>> policy = control.lq_policy(objective, jnp.diag(jnp.array([1.0, 2.0])), minimum)
    >>> [round(x, 3) + 0.0 for x in policy.equilibrium.tolist()]
    [0.0, -0.167]
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from beliefnav import _trees
from beliefnav._checks import Checked
from beliefnav.beliefs.contract import Fact
from beliefnav.beliefs.drift._shared import (
    RANGES,
    drift_facts,
    noise_estimate,
    noise_site,
    observe,
    reading_noise,
)
from beliefnav.beliefs.drift.elementwise import DriftState

PyTree = Any

__all__ = ["CoupledDrift", "CoupledDriftPosterior"]


class CoupledDriftPosterior(NamedTuple):
    """What is believed of a coupled drift of n parameters, raveled.

    Attributes:
        matrix_mean: of A [n, n], per unit of time.
        offset_mean: of a [n]; ``None`` if it is known to be 0.
        covariance: of every row of (A, a) [n, n + 1, n + 1], or of A alone [n, n, n]: squared
            scales of a Student-t with ``degrees_of_freedom``.
        noise_variance: of a reading of every parameter [n].
        degrees_of_freedom: [n].
        relative_covariance: ``covariance`` in units of the prior's scales.
    """

    matrix_mean: Array
    offset_mean: Array | None
    covariance: Array
    noise_variance: Array
    degrees_of_freedom: Array
    relative_covariance: Array

    def drift(self, params: PyTree) -> PyTree:
        r"""$E[f(\theta)]$ at ``params``: the drift that an `beliefnav.Objective` may be given."""
        flat, unravel = ravel_pytree(params)
        moved = self.matrix_mean @ flat
        return unravel(moved if self.offset_mean is None else moved + self.offset_mean)

    def variance(self, params: PyTree) -> PyTree:
        r"""The squared scale of $f(\theta)$ at ``params``, without noise."""
        flat, unravel = ravel_pytree(params)
        row = flat if self.offset_mean is None else jnp.append(flat, jnp.ones((), flat.dtype))
        return unravel(jnp.einsum("j,ijk,k->i", row, self.covariance, row))

    def learned(self) -> tuple[Array, Array]:
        """Which directions readings have told of, and how much of each.

        Returns:
            For every parameter's row, ascending: the share of the prior's variance that is gone
            along a direction [n, direction], in [0, 1], where 0 is a direction along which the
            belief is still the prior; and the directions themselves [n, direction, coefficient],
            unit vectors over the parameters and, last, the offset, in units of the prior's scales.
        """
        left, vectors = jnp.linalg.eigh(self.relative_covariance)
        return jnp.clip(1 - left[:, ::-1], 0, 1), jnp.swapaxes(vectors[:, :, ::-1], 1, 2)


class CoupledDrift(Checked):
    r"""A linear drift of few parameters; the module explains the model.

    Attributes:
        rate_scale: $\tau_a$, how large an entry of A may be, per unit of time.
        offset_scale: $\tau_b$, how large a constant drift may be; ``None``: 0, there is none.
        noise_scale: $s_0$, as in `beliefnav.beliefs.drift.elementwise.ElementwiseDrift`, as are the
            others.
        noise_degrees_of_freedom: $\nu_0$.
        discount: $\beta$.

    Raises:
        ValueError: a number is out of its range.
    """

    ranges: ClassVar = RANGES

    rate_scale: ArrayLike = 10.0
    offset_scale: ArrayLike | None = 10.0
    noise_scale: ArrayLike | None = None
    noise_degrees_of_freedom: ArrayLike = 1.0
    discount: ArrayLike = 1.0

    def init(self, params: PyTree) -> DriftState:
        """Nothing is seen yet; float32 or wider."""
        flat = ravel_pytree(params)[0]
        n, k = len(flat), len(flat) + (self.offset_scale is not None)
        dtype = _trees.wide_dtype(flat)
        shapes = (n, k, k), (n, k), (n,), (n,)
        return DriftState(*(jnp.zeros(shape, dtype) for shape in shapes))

    def update(
        self, state: DriftState, sent: PyTree, moved: PyTree, time_step: ArrayLike = 1.0
    ) -> DriftState:
        r"""Take in where the parameters were sent, and how far from there they are now.

        Args:
            state: the belief.
            sent: $\theta_t$, a tree like the parameters. If an entry is NaN or infinite, nothing is
                observed: every row is a regression on all parameters.
            moved: $d_t$, likewise; an entry that is NaN or infinite is not observed.
            time_step: $\Delta t > 0$.

        Returns:
            The belief afterwards.
        """
        flat, (d, _) = ravel_pytree(sent)[0], ravel_pytree(moved)
        dtype = state.drift_residual.dtype
        share = jnp.asarray(self.discount, dtype)
        seen = jnp.all(_trees.is_observed(flat)) & _trees.is_observed(d)
        least = jnp.where(seen, reading_noise(flat, dtype), 0)
        row = self._row(flat.astype(dtype)) * time_step

        def one(factor: Array, projection: Array, seen: Array, d: Array) -> Array:
            table = jnp.block([[factor, projection[:, None]], [row, d]])
            aged = table.at[:-1].multiply(jnp.sqrt(share))
            return jnp.linalg.qr(aged.at[-1].set(jnp.where(seen, aged[-1], 0)), mode="r")

        rotated = jax.vmap(one)(
            state.drift_factor, state.drift_projection, seen, jnp.where(seen, d, 0).astype(dtype)
        )
        return DriftState(
            rotated[:, :-1, :-1],
            rotated[:, :-1, -1],
            share * state.drift_residual + jnp.maximum(rotated[:, -1, -1] ** 2, least),
            share * state.drift_readings + seen.astype(dtype),
        )

    def posterior(self, state: DriftState) -> CoupledDriftPosterior:
        """Read the belief."""
        n, k = state.drift_projection.shape
        dtype = state.drift_residual.dtype
        scales = jnp.full(k, self.rate_scale, dtype)
        if self.offset_scale is not None:
            scales = scales.at[-1].set(self.offset_scale)
        variance, degrees = noise_estimate(self, state.drift_residual, state.drift_readings, k)

        def one(factor: Array, projection: Array, variance: Array) -> tuple[Array, Array]:
            # In units of the prior, whose rows then are multiples of the identity.
            rows = jnp.concatenate(
                [factor * scales[None], jnp.sqrt(variance) * jnp.eye(k, dtype=dtype)]
            )
            q, r = jnp.linalg.qr(rows)
            root = jax.scipy.linalg.solve_triangular(r, jnp.eye(k, dtype=dtype))
            mean = scales * (root @ (q[:k].T @ projection))
            return mean, variance * root @ root.T

        mean, relative = jax.vmap(one)(state.drift_factor, state.drift_projection, variance)
        return CoupledDriftPosterior(
            matrix_mean=mean[:, :n],
            offset_mean=mean[:, n] if k > n else None,
            covariance=relative * jnp.outer(scales, scales)[None],
            noise_variance=variance,
            degrees_of_freedom=degrees,
            relative_covariance=relative,
        )

    def numpyro_model(
        self, sent: ArrayLike, moved: ArrayLike | None = None, time_step: ArrayLike = 1.0
    ) -> None:
        r"""The same belief as a NumPyro program, for n raveled parameters and all their steps.

        Sites: ``matrix`` [n, n], ``offset`` [n] if there is one; ``noise_variance`` [n],
        deterministic if it is known; ``observation`` [step, n]. Rounding is no part of it.

        Args:
            sent: $\theta_t$ [step, n].
            moved: $d_t$ [step, n]; NaN or infinite entries are missing; ``None`` to simulate.
            time_step: $\Delta t > 0$.

        Raises:
            ValueError: the readings are discounted, which no program of one drift does.
        """
        import numpyro
        from numpyro import distributions as dist

        x = jnp.asarray(sent)
        n = x.shape[1]
        variance = noise_site(self, (n,), x.dtype)
        prior = dist.Normal(0, jnp.broadcast_to(jnp.asarray(self.rate_scale), (n, n)))
        matrix: Any = numpyro.sample("matrix", prior.to_event())
        drift = x @ matrix.T
        if self.offset_scale is not None:
            prior = dist.Normal(0, jnp.broadcast_to(jnp.asarray(self.offset_scale), (n,)))
            offset: Any = numpyro.sample("offset", prior.to_event())
            drift = drift + offset[None]
        observe(drift * time_step, variance, moved)

    def facts(self) -> tuple[Fact, ...]:
        """What it assumes, in words."""
        return drift_facts(self)

    def _row(self, flat: Array) -> Array:
        """The regressors at parameters: those, and 1 for the offset; 0 where not finite."""
        flat = jnp.where(_trees.is_observed(flat), flat, 0)
        if self.offset_scale is None:
            return flat
        return jnp.append(flat, jnp.ones((), flat.dtype))
