r"""Rates from curvature and noise, as others derived them: controls of a rule without a rate.

Both follow from a quadratic of which every parameter knows its own part,
$L = \tfrac12 \sum_i h_i (\theta_i - \theta^*_i)^2$, whose gradients have the noise variance
$\sigma_i^2$: the rate that takes the most off the expected loss at one step is, for each parameter,

$$ \frac{(E g)^2}{h \, E g^2} \qquad \text{(Schaul, Zhang and LeCun)} , $$

and the one that controls the diffusion which gradient descent with a largest rate $\eta$ is close
to is $\eta \min(1, (E g)^2 / (h \eta \sigma^2))$ (Li, Tai and E). Without noise the first is 1/h,
and the second is $\eta$, which a person chooses.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

__all__ = ["li_tai_e", "schaul"]

FIRST = 10
"""Batches that are looked at before the first step."""
SLOW = 2.0
"""How many times too large the first second moment is taken to be."""


class SchaulState(NamedTuple):
    """Of `schaul`: for every parameter a memory in batches and four means over it.

    Attributes:
        count: batches seen.
        memory: tau, a tree like the parameters, as are the others.
        gradient: mean gradient.
        square: mean of its squares.
        curvature: mean size of the curvature.
        curvature_square: mean of its squares.
    """

    count: Array
    memory: Any
    gradient: Any
    square: Any
    curvature: Any
    curvature_square: Any


class _Seen(NamedTuple):
    """The same for one array, without the count, and the step."""

    memory: Array
    gradient: Array
    square: Array
    curvature: Array
    curvature_square: Array
    step: Array


def schaul() -> optax.GradientTransformationExtraArgs:
    r"""Descend at a rate for each parameter, of which nothing is chosen: vSGD-fd.

    $$ \theta \leftarrow \theta - \frac{\bar h}{\overline{h^2}} \frac{\bar g^2}{\overline{g^2}} g ,
       \qquad h = \frac{|g(\theta + \bar g) - g(\theta)|}{|\bar g|} , \qquad
       \tau \leftarrow \Bigl(1 - \frac{\bar g^2}{\overline{g^2}}\Bigr) \tau + 1 , $$

    means with the gain $1/\tau$, per parameter; an outlier, two standard deviations from a mean,
    lengthens the memory by 1 before it is taken in. ``update`` needs ``value_fn``, the loss of the
    same batch as a function of parameters, and costs one more gradient.

    Simplified: the gradient of a batch stands for that of an example, which leaves the rate of the
    paper for batches as it is, and the batches that the means begin with are the first ten of the
    stream, at which nothing moves.

    Reference:
        Schaul, Zhang and LeCun, "No more pesky learning rates", ICML 2013 (rate and memory). Schaul
        and LeCun, "Adaptive learning rates and parallelization for stochastic, sparse, non-smooth
        gradients", ICLR 2013 (finite differences, outliers).
    """

    def init(params: Any) -> SchaulState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SchaulState(jnp.zeros((), jnp.int32), zeros, zeros, zeros, zeros, zeros)

    def update(
        updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        del extra
        if params is None or value_fn is None:
            raise TypeError(
                "Cannot update schaul without params and value_fn. This is because it measures the "
                "curvature of the loss of the batch; call update(gradient, state, params, "
                "value_fn=)."
            )
        count = optax.safe_increment(state.count)
        starts = count <= FIRST
        mean = jax.tree.map(
            lambda m, g: jnp.where(starts, m + (g - m) / count, m), state.gradient, updates
        )
        there = jax.grad(value_fn)(jax.tree.map(jnp.add, params, mean))

        def leaf(
            t: Array, m: Array, q: Array, h: Array, w: Array, g: Array, d: Array, g2: Array
        ) -> _Seen:
            curvature = jnp.where(d != 0, jnp.abs(g2 - g) / jnp.where(d != 0, jnp.abs(d), 1), h)
            far = (jnp.square(g - m) > 4 * (q - m * m)) | (
                jnp.square(curvature - h) > 4 * (w - h * h)
            )
            t = jnp.where(starts, count.astype(t.dtype), t + far)
            m, q, h, w = (
                x + (y - x) / t for x, y in ((m, g), (q, g * g), (h, curvature), (w, curvature**2))
            )
            q = jnp.where(count == FIRST, SLOW * q, q)
            share = m * m / jnp.where(q > 0, q, 1)
            step = -g * share * h / jnp.where(w > 0, w, 1)
            return _Seen((1 - share) * t + 1, m, q, h, w, jnp.where(count > FIRST, step, 0))

        seen = jax.tree.map(leaf, *state[1:], updates, mean, there)
        *held, step = jax.tree.transpose(
            jax.tree.structure(updates), jax.tree.structure(_Seen(*range(6))), seen
        )
        return step, SchaulState(count, *held)

    return optax.GradientTransformationExtraArgs(init, update)


LARGEST = 0.1
"""The largest rate of `li_tai_e`, at which gradient descent on small networks is stable."""
MEMORY = (0.9, 0.999)
"""The shortest and the longest memory of its means."""


class LiTaiEState(NamedTuple):
    """Of `li_tai_e`: for every parameter the share of the largest rate, and means.

    Attributes:
        count: batches seen.
        share: u, a tree like the parameters, as are the others.
        memory: discount of the means.
        gradient: mean gradient.
        params: mean parameters.
        square: variance of the gradient.
        params_square: variance of the parameters.
        product: covariance of the two.
    """

    count: Array
    share: Any
    memory: Any
    gradient: Any
    params: Any
    square: Any
    params_square: Any
    product: Any


class _Controlled(NamedTuple):
    """The same for one array, without the count, and the step."""

    share: Array
    memory: Array
    gradient: Array
    params: Array
    square: Array
    params_square: Array
    product: Array
    step: Array


def li_tai_e() -> optax.GradientTransformation:
    r"""cSGD: gradient descent whose rate is controlled below a largest one, here 0.1.

    $$ \theta \leftarrow \theta - \eta u g , \qquad
       u^* = \min\Bigl(1, \frac{\bar g^2}{h \eta \sigma^2}\Bigr) , \quad
       u^* = 1 \text{ where } h \le 0 , $$

    with h the slope of a regression of the gradient on the parameters along the path, $\sigma^2$
    the variance of the gradient, and u a moving average of $u^*$. The memory of all means is the
    longer, the larger the share of the noise in $\overline{g^2}$.

    Simplified: means begin with the first batch instead of 0, and variances are followed instead of
    differences of means of squares, which cancel.

    Reference:
        Li, Tai and E, "Stochastic modified equations and adaptive stochastic gradient algorithms",
        ICML 2017, section 4.1.
    """

    def init(params: Any) -> LiTaiEState:
        zeros, ones = (jax.tree.map(f, params) for f in (jnp.zeros_like, jnp.ones_like))
        memory = jax.tree.map(lambda x: MEMORY[0] * x, ones)
        count = jnp.zeros((), jnp.int32)
        return LiTaiEState(count, ones, memory, *(zeros for _ in range(5)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise TypeError(
                "Cannot update li_tai_e without params. This is because it regresses the gradient "
                "on them; call update(gradient, state, params)."
            )

        def leaf(
            u: Array,
            b: Array,
            m: Array,
            x: Array,
            v: Array,
            vx: Array,
            c: Array,
            g: Array,
            p: Array,
        ) -> _Controlled:
            step = -LARGEST * u * g
            gain = jnp.where(state.count == 0, 1, 1 - b)
            dg, dp = g - m, p - x
            v, vx, c = (
                (1 - gain) * (old + gain * new)
                for old, new in ((v, dg * dg), (vx, dp * dp), (c, dg * dp))
            )
            m, x = m + gain * dg, x + gain * dp
            slope = c / jnp.where(vx > 0, vx, 1)
            noise = LARGEST * slope * v
            best = jnp.where(noise > 0, m * m / jnp.where(noise > 0, noise, 1), 1)
            u = b * u + (1 - b) * jnp.minimum(best, 1)
            shortest, longest = MEMORY
            total = v + m * m
            b = shortest + (longest - shortest) * v / jnp.where(total > 0, total, 1)
            return _Controlled(u, b, m, x, v, vx, c, step)

        seen = jax.tree.map(leaf, *state[1:], updates, params)
        *held, step = jax.tree.transpose(
            jax.tree.structure(updates), jax.tree.structure(_Controlled(*range(8))), seen
        )
        return step, LiTaiEState(optax.safe_increment(state.count), *held)

    return optax.GradientTransformation(init, update)
