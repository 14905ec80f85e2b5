r"""A drift that is learned, entry by entry, from where parameters were sent and where they are.

A learner sends its parameters to $\theta_t$, and finds them at $\theta_t + d_t$: something that is
not under its control moved them,

$$ d_t = \Delta t \, (a \theta_t + b) + N(0, \sigma^2), \qquad
   a \sim N(0, \tau_a^2), \quad b \sim N(0, \tau_b^2), \quad
   1 / \sigma^2 \sim \Gamma(\nu_0/2, \nu_0 s_0^2/2), $$

for every entry by itself: decay ($a < 0$), growth, and a constant drift b. The learner's own step
is known and is not part of $d_t$.

The belief keeps what all readings say, each weighed by $\beta$ to the power of its age: the
triangle $R$ and the right side $z$ of their least-squares problem, the square S of what the fit
leaves, and the number of readings n. Rotations (Givens) take in a reading; unlike sums of squares,
they lose no digits where drift is large beside noise, or where parameters hardly move. With k the
number of coefficients, the posterior is

$$ s^2 = \frac{\nu_0 s_0^2 + S}{\nu}, \quad \nu = \nu_0 + \max(n - k, 0), \qquad
   C^{-1} = R^\top R / s^2 + \operatorname{diag}(\tau^{-2}), \quad m = C R^\top z / s^2 . $$

Exact: m and C given the noise, $\sigma = s$. Approximate: the noise is estimated from what the fit
leaves, which needs no prior of the coefficients, and is then taken as known. Where readings
outweigh the prior this is the normal-inverse-gamma posterior, a Student-t of $\nu$ degrees of
freedom. The conjugate prior, whose $\tau$ is in units of $\sigma$, is not used: what one learns of
the noise would then change what one believes of a direction that was never visited. Here such a
direction keeps its prior, $m = 0$ and $C = \tau^2$.

A reading is never taken for more accurate than a parameter can be written: what the fit leaves of
one counts as $\mathrm{ulp}(\theta_t)^2/12$ at least.

This is no `beliefnav.beliefs.Belief`. That contract is about gradients: its readings are gradients
at the present parameters, a displacement is something that it is told and never something that it
explains, and its posterior is of the landscape. The drift is none of the landscape. What the two
have in common, hyper-parameters as leaves, a filter and a NumPyro program of one definition, is
kept.

Reference:
    Bierman, "Factorization Methods for Discrete Sequential Estimation", 1977, for the square-root
    information filter. Gelman et al., "Bayesian Data Analysis", 3rd ed., 2013, chapter 14.
"""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
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

PyTree = Any

__all__ = ["DriftState", "ElementwiseDrift", "ElementwiseDriftPosterior"]


class DriftState(NamedTuple):
    r"""What readings of a drift say, before any prior.

    Attributes:
        drift_factor: $R$, of whose upper triangle the entries are trees like the parameters, row by
            row; of a coupled drift [param, coefficient, coefficient].
        drift_projection: $z$, likewise; of a coupled drift [param, coefficient].
        drift_residual: S, a tree like the parameters; of a coupled drift [param].
        drift_readings: n, likewise.
    """

    drift_factor: Any
    drift_projection: Any
    drift_residual: PyTree
    drift_readings: PyTree


class ElementwiseDriftPosterior(NamedTuple):
    """What is believed of a drift: trees like the parameters, ``None`` for what is known to be 0.

    Attributes:
        rate_mean: of a, per unit of time: minus the rate of a decay.
        rate_variance: its squared scale: Student-t with ``degrees_of_freedom``.
        offset_mean: of b.
        offset_variance: likewise.
        rate_offset_covariance: of the two.
        noise_variance: of a reading.
        degrees_of_freedom: of all of these.
        learned: the share of what the prior left open that readings have settled, in [0, 1]: 1 less
            the mean over a and b of posterior variance over prior variance. 0: as before.
    """

    rate_mean: PyTree
    rate_variance: PyTree
    offset_mean: PyTree
    offset_variance: PyTree
    rate_offset_covariance: PyTree
    noise_variance: PyTree
    degrees_of_freedom: PyTree
    learned: PyTree

    def drift(self, params: PyTree) -> PyTree:
        r"""$E[f(\theta)]$ at ``params``: the drift that an `beliefnav.Objective` may be given."""
        return _of_leaves(
            lambda x, a, b: (0 if a is None else a * x) + (0 if b is None else b),
            params,
            self.rate_mean,
            self.offset_mean,
        )

    def variance(self, params: PyTree) -> PyTree:
        r"""The squared scale of $f(\theta)$ at ``params``, without noise."""

        def leaf(x: Any, a: Any, b: Any, c: Any) -> Any:
            if a is None or b is None:
                return b if a is None else a * x**2
            return jnp.maximum(a * x**2 + 2 * c * x + b, 0)

        columns = self.rate_variance, self.offset_variance, self.rate_offset_covariance
        return _of_leaves(leaf, params, *columns)


class ElementwiseDrift(Checked):
    r"""A drift of every entry by itself; the module explains the model.

    Attributes:
        rate_scale: $\tau_a$, how large a rate may be per unit of time; ``None``: 0, there is none.
        offset_scale: $\tau_b$, how large a constant drift may be; ``None``: 0, there is none.
        noise_scale: $s_0$, the noise of a reading before any was seen, in units of the parameters.
            ``None``: the spacing of numbers at 1 in the dtype of the belief, as if nothing but
            rounding disturbed.
        noise_degrees_of_freedom: $\nu_0$, how many readings that is worth. Infinite: it is known.
        discount: $\beta$, of what earlier readings say; 1 for a drift that is always the same.

    Raises:
        ValueError: a number is out of its range, or nothing drifts.

    Example:
        Two weights, one of which loses 1 % between steps:

        >>> import jax.numpy as jnp
        >>> from beliefnav.beliefs.drift.elementwise import ElementwiseDrift
        >>> belief = ElementwiseDrift()
        >>> sent = jnp.array([0.5, -0.3])
        >>> state = belief.init(sent)
        >>> for _ in range(10):
        ...     found = sent * jnp.array([0.99, 1.0])
        ...     state = belief.update(state, sent, found - sent)
        >>> [f"{rate:.4f}" for rate in belief.posterior(state).rate_mean.tolist()]
        ['-0.0100', '0.0000']
    """

    ranges: ClassVar = RANGES

    rate_scale: ArrayLike | None = 0.01
    offset_scale: ArrayLike | None = None
    noise_scale: ArrayLike | None = None
    noise_degrees_of_freedom: ArrayLike = 1.0
    discount: ArrayLike = 1.0

    def __check_init__(self) -> None:
        """Raise if nothing drifts."""
        if self.rate_scale is None and self.offset_scale is None:
            raise ValueError(
                "ElementwiseDrift: rate_scale and offset_scale are both None, so that nothing "
                "drifts; give one of them."
            )

    def _there(self, rate: Any, offset: Any) -> list[Any]:
        """What is said of rate and offset, as far as they are there."""
        return [
            value
            for value, scale in ((rate, self.rate_scale), (offset, self.offset_scale))
            if scale is not None
        ]

    def _said(self) -> ElementwiseDriftPosterior:
        """A posterior with a number in every field that is not ``None``."""
        rate, offset = (
            None if scale is None else 0.0 for scale in (self.rate_scale, self.offset_scale)
        )
        both = None if rate is None or offset is None else 0.0
        return ElementwiseDriftPosterior(rate, rate, offset, offset, both, 0.0, 0.0, 0.0)

    def init(self, params: PyTree) -> DriftState:
        """Nothing is seen yet; float32 or, for float64 parameters, float64."""
        k = len(self._there(0, 0))
        factor, projection, (residual, readings) = (
            tuple(_trees.full_like(params, 0) for _ in range(n)) for n in (k * (k + 1) // 2, k, 2)
        )
        return DriftState(factor, projection, residual, readings)

    def update(
        self, state: DriftState, sent: PyTree, moved: PyTree, time_step: ArrayLike = 1.0
    ) -> DriftState:
        r"""Take in where the parameters were sent, and how far from there they are now.

        Args:
            state: the belief.
            sent: $\theta_t$, a tree like the parameters, in their dtype.
            moved: $d_t$, likewise. An entry is not observed that is NaN or infinite here or in
                ``sent``: it only ages.
            time_step: $\Delta t > 0$.

        Returns:
            The belief afterwards.
        """
        k = len(state.drift_projection)

        def leaf(residual: Array, readings: Array, x: Array, d: Array, *rest: Array) -> Any:
            dtype = residual.dtype
            share, step = (jnp.asarray(v, dtype) for v in (self.discount, time_step))
            seen = _trees.is_observed(x) & _trees.is_observed(d)
            least = _trees.select(seen, reading_noise(x, dtype), 0)
            x, d = (_trees.select(seen, _trees.wide(v, dtype), 0) for v in (x, d))
            seen = seen.astype(dtype)
            row = self._there(step * x, step * seen)
            aged = [jnp.sqrt(share) * v for v in rest]
            factor, projection, left = _rotated(aged[:-k], aged[-k:], row, d)
            residual = share * residual + jnp.maximum(left * left, least)
            readings = share * readings + seen
            return DriftState(tuple(factor), tuple(projection), residual, readings)

        return _trees.unzip(
            leaf,
            state,
            state.drift_residual,
            state.drift_readings,
            sent,
            moved,
            *state.drift_factor,
            *state.drift_projection,
        )

    def posterior(self, state: DriftState) -> ElementwiseDriftPosterior:
        """Read the belief."""
        scales = self._there(self.rate_scale, self.offset_scale)
        k = len(scales)

        def leaf(residual: Array, readings: Array, *rest: Array) -> Any:
            taus = [jnp.asarray(scale, residual.dtype) for scale in scales]
            variance, degrees = noise_estimate(self, residual, readings, k)
            factor, projection = list(rest[:-k]), list(rest[-k:])
            zero = jnp.zeros_like(residual)
            for j, tau in enumerate(taus):
                prior = [jnp.sqrt(variance) / tau if i == j else zero for i in range(k)]
                factor, projection, _ = _rotated(factor, projection, prior, zero)
            if k == 1:
                means = [projection[0] / factor[0]]
                variances, covariance = [variance / factor[0] ** 2], None
            else:
                r11, r12, r22 = factor
                last = projection[1] / r22
                means = [(projection[0] - r12 * last) / r11, last]
                # Of the inverse triangle, whose rows are those of a root of the covariance.
                cross = -r12 / r11 / r22
                variances = [variance * (1 / r11**2 + cross**2), variance / r22**2]
                covariance = variance * cross / r22
            shares = [1 - v / tau**2 for v, tau in zip(variances, taus, strict=True)]
            learned = jnp.clip(sum(shares) / k, 0, 1)
            of = iter(zip(means, variances, strict=True))
            rate, offset = (
                (None, None) if scale is None else next(of)
                for scale in (self.rate_scale, self.offset_scale)
            )
            values = *rate, *offset, covariance, variance, degrees, learned
            return ElementwiseDriftPosterior(*values)

        return _trees.unzip(
            leaf,
            self._said(),
            state.drift_residual,
            state.drift_readings,
            *state.drift_factor,
            *state.drift_projection,
        )

    def numpyro_model(
        self, sent: ArrayLike, moved: ArrayLike | None = None, time_step: ArrayLike = 1.0
    ) -> None:
        r"""The same belief as a NumPyro program, for one array of parameters and all its steps.

        Sites: ``rate`` and ``offset`` [...], as far as they are there; ``noise_variance`` [...],
        deterministic if it is known; ``observation`` [step, ...]. Rounding is no part of it.

        Args:
            sent: $\theta_t$ [step, ...].
            moved: $d_t$ [step, ...]; NaN or infinite entries are missing; ``None`` to simulate.
            time_step: $\Delta t > 0$.

        Raises:
            ValueError: the readings are discounted, which no program of one drift does.
        """
        import numpyro
        from numpyro import distributions as dist

        x = jnp.asarray(sent)
        shape = x.shape[1:]
        variance = noise_site(self, shape, x.dtype)
        drift = jnp.zeros_like(x)
        for name, scale, column in (
            ("rate", self.rate_scale, x),
            ("offset", self.offset_scale, jnp.ones_like(x)),
        ):
            if scale is not None:
                prior = dist.Normal(0, jnp.broadcast_to(jnp.asarray(scale), shape))
                drift = drift + numpyro.sample(name, prior.to_event()) * column
        observe(drift * time_step, variance, moved)

    def facts(self) -> tuple[Fact, ...]:
        """What it assumes, in words."""
        return drift_facts(self)


def _rotated(
    factor: list[Array], projection: list[Array], row: list[Array], value: Array
) -> tuple[list[Array], list[Array], Array]:
    """Rotate one row into a triangle (Givens), and what is left of its value."""
    factor, projection, row = list(factor), list(projection), list(row)
    k, start = len(row), 0
    for i in range(k):
        r, x = factor[start], row[i]
        nothing = (r == 0) & (x == 0)  # where a root has no derivative
        base = _trees.select(nothing, 1, r)
        length = jnp.hypot(base, x)
        c, s = base / length, x / length
        for j in range(i, k):
            f, v = factor[start + j - i], row[j]
            factor[start + j - i], row[j] = c * f + s * v, c * v - s * f
        p = projection[i]
        projection[i], value = c * p + s * value, c * value - s * p
        start += k - i
    return factor, projection, value


def _of_leaves(leaf: Any, params: PyTree, *trees: PyTree) -> PyTree:
    """A function of the leaves of parameters and of trees like them, or of ``None``."""
    columns, treedef = _trees.aligned_leaves(params, *trees)
    return treedef.unflatten([leaf(*column) for column in columns])
