"""Textbook implementations of rules that optax does not have, for comparison with ours.

Each is written as its source states it, with dense linear algebra, and shares no code with
`beliefnav.rules`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

__all__ = [
    "adam_toward_start",
    "average",
    "bayesian_learning_rule",
    "block_diagonal",
    "diagonal_swag",
    "exponential_average",
    "full_ballistic",
    "full_matrix_adagrad",
    "hazard_filter",
    "ivon",
    "l2_init",
    "lookahead",
    "muon",
    "natural_gradient",
    "newton",
    "orthogonalised",
    "plain_average",
    "polynomial_decay",
    "set_point",
    "shampoo",
    "sophia",
    "stochastic_weight_averaging",
    "von",
]

PyTree = Any
Optimizer = optax.GradientTransformationExtraArgs


def _rule(init: Any, update: Callable[..., tuple[PyTree, Any]]) -> Optimizer:
    """An optimizer of ``update(gradient, state, params, curvature) -> (step, state)``."""

    def run(
        updates: PyTree, state: Any, params: PyTree = None, *, curvature: Any = None, **_: Any
    ) -> tuple[PyTree, Any]:
        return update(updates, state, params, curvature)

    return optax.GradientTransformationExtraArgs(init, run)


def _stateless(step: Callable[[PyTree, PyTree, Any], PyTree]) -> Optimizer:
    return _rule(lambda params: (), lambda g, state, p, c: (step(g, p, c), state))


def _power(matrix: Array, exponent: float) -> Array:
    """A power of a positive semi-definite matrix; directions that vanish are left out."""
    values, vectors = jnp.linalg.eigh(matrix)
    kept = values > 1e-12 * values[-1]
    powers = jnp.where(kept, jnp.where(kept, values, 1) ** exponent, 0)
    return jnp.einsum("ij,j,kj->ik", vectors, powers, vectors)


def natural_gradient(learning_rate: float, metric: Callable[[PyTree], Array]) -> Optimizer:
    """The gradient, solved for the whole metric [n, n]."""

    def step(gradient: PyTree, params: PyTree, _: Any) -> PyTree:
        flat, unravel = ravel_pytree(gradient)
        return unravel(-learning_rate * jnp.linalg.solve(metric(params), flat))

    return _stateless(step)


def newton(learning_rate: float) -> Optimizer:
    """The Newton step in the directions in which the Hessian is positive."""

    def step(gradient: PyTree, _: PyTree, curvature: Array) -> PyTree:
        flat, unravel = ravel_pytree(gradient)
        return unravel(-learning_rate * _power(curvature, -1.0) @ flat)

    return _stateless(step)


def full_ballistic(learning_rate: float, b1: float, b2: float) -> Optimizer:
    """Adam with the matrix of all products of gradients in place of their squares, eps = 0."""

    def init(params: PyTree) -> Any:
        flat, _ = ravel_pytree(params)
        return jnp.zeros_like(flat), jnp.zeros((flat.size, flat.size), flat.dtype), 0

    def update(gradient: PyTree, state: Any, *_: Any) -> tuple[PyTree, Any]:
        flat, unravel = ravel_pytree(gradient)
        mean, square, t = state
        t = t + 1
        mean = b1 * mean + (1 - b1) * flat
        square = b2 * square + (1 - b2) * jnp.outer(flat, flat)
        root = _power(square / (1 - b2**t), -0.5)
        return unravel(-learning_rate * root @ (mean / (1 - b1**t))), (mean, square, t)

    return _rule(init, update)


def full_matrix_adagrad(learning_rate: float, eps: float) -> Optimizer:
    """Full-matrix AdaGrad of every array apart (Duchi et al., 2011)."""

    def init(params: PyTree) -> Any:
        return jax.tree.map(lambda p: eps * jnp.eye(p.size, dtype=p.dtype), params)

    def update(gradient: PyTree, state: Any, *_: Any) -> tuple[PyTree, Any]:
        state = jax.tree.map(lambda s, g: s + jnp.outer(g.ravel(), g.ravel()), state, gradient)
        step = jax.tree.map(
            lambda g, s: -learning_rate * (_power(s, -0.5) @ g.ravel()).reshape(g.shape),
            gradient,
            state,
        )
        return step, state

    return _rule(init, update)


def shampoo(learning_rate: float, eps: float = 1e-4) -> Optimizer:
    """Algorithm 1 of Gupta, Koren and Singer (2018)."""

    def init(params: PyTree) -> Any:
        left = jax.tree.map(lambda p: eps * jnp.eye(p.shape[0], dtype=p.dtype), params)
        right = jax.tree.map(lambda p: eps * jnp.eye(p.shape[1], dtype=p.dtype), params)
        return left, right

    def update(gradient: PyTree, state: Any, *_: Any) -> tuple[PyTree, Any]:
        left = jax.tree.map(lambda x, g: x + g @ g.T, state[0], gradient)
        right = jax.tree.map(lambda x, g: x + g.T @ g, state[1], gradient)
        step = jax.tree.map(
            lambda g, x, y: -learning_rate * _power(x, -0.25) @ g @ _power(y, -0.25),
            gradient,
            left,
            right,
        )
        return step, (left, right)

    return _rule(init, update)


def orthogonalised(learning_rate: float, beta: float = 0.95) -> Optimizer:
    """Nesterov's average, its singular values set to 1."""

    def step(m: Array) -> Array:
        u, _, vt = jnp.linalg.svd(m, full_matrices=False)
        return -learning_rate * u @ vt

    average = optax.scale_by_adam(b1=beta, b2=0.0, eps=0.0, nesterov=True)

    def update(gradient: PyTree, state: Any, *_: Any) -> tuple[PyTree, Any]:
        # Adam with b2 = 0 divides by |g|, which is multiplied back.
        scaled, state = average.update(gradient, state)
        mean = jax.tree.map(lambda s, g: s * jnp.abs(g), scaled, gradient)
        return jax.tree.map(step, mean), state

    return _rule(average.init, update)


def adam_toward_start(learning_rate: float, decay: float) -> Optimizer:
    """Adam, and a step that closes a share of the distance to the initial parameters."""
    adam = optax.adam(learning_rate)

    def update(gradient: PyTree, state: Any, params: PyTree, _: Any) -> tuple[PyTree, Any]:
        start, inner = state
        step, inner = adam.update(gradient, inner)
        pulled = jax.tree.map(lambda p, q: -learning_rate * decay * (p - q), params, start)
        return jax.tree.map(jnp.add, step, pulled), (start, inner)

    return _rule(lambda params: (params, adam.init(params)), update)


def l2_init(learning_rate: float, strength: float) -> Optimizer:
    """Gradient descent on the loss with a quadratic penalty around the initial parameters."""
    sgd = optax.sgd(learning_rate)

    def update(gradient: PyTree, state: Any, params: PyTree, _: Any) -> tuple[PyTree, Any]:
        start, inner = state
        full = jax.tree.map(lambda g, p, q: g + strength * (p - q), gradient, params, start)
        step, inner = sgd.update(full, inner)
        return step, (start, inner)

    return _rule(lambda params: (params, sgd.init(params)), update)


def set_point(
    learning_rate: float, hazard: float, discount: float, b1: float = 0.9, b2: float = 0.999
) -> Optimizer:
    r"""Approach a shrunk optimum $m$ at the rate $r$: $-r [\theta - \theta_0 - w (m - \theta_0)]$.

    Gradient and curvature are Adam's moments.
    """
    moments: Any = optax.scale_by_adam(b1, b2)

    def init(params: PyTree) -> Any:
        return params, moments.init(params)

    def update(gradient: PyTree, state: Any, params: PyTree, _: Any) -> tuple[PyTree, Any]:
        start, inner = state
        _, inner = moments.update(gradient, inner)
        t = inner.count

        def leaf(p: Array, q: Array, mu: Array, nu: Array) -> Array:
            g, h = mu / (1 - b1**t), nu / (1 - b2**t)
            rate = jnp.sqrt(discount**2 / 4 + h) - discount / 2
            weight = (discount + rate) / (discount + rate + hazard)
            believed = p - g / h
            return -learning_rate * rate * (p - q - weight * (believed - q))

        return jax.tree.map(leaf, params, start, inner.mu, inner.nu), (start, inner)

    return _rule(init, update)


def von(
    learning_rate: float, b2: float, prior_precision: float, hess_init: float = 1.0
) -> Optimizer:
    """Variational online Newton, equation (8) of Khan et al. (2018), with two rates."""
    delta = prior_precision

    def init(params: PyTree) -> Any:
        return jax.tree.map(lambda p: jnp.full_like(p, hess_init), params)

    def update(gradient: PyTree, h: Any, params: PyTree, reading: Any) -> tuple[PyTree, Any]:
        h = jax.tree.map(lambda h, c: b2 * h + (1 - b2) * c, h, reading)

        def step(g: Array, p: Array, h: Array) -> Array:
            return -learning_rate * (g + delta * p) / (h + delta)

        return jax.tree.map(step, gradient, params, h), h

    return _rule(init, update)


def ivon(
    learning_rate: float, b2: float, prior_precision: float, b1: float = 0.9, hess_init: float = 1.0
) -> Optimizer:
    """IVON, algorithm 1 of Shen et al. (2024), its rate as it is and the reading given."""
    delta = prior_precision

    def init(params: PyTree) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, jax.tree.map(lambda p: jnp.full_like(p, hess_init), params), 0

    def update(gradient: PyTree, state: Any, params: PyTree, reading: Any) -> tuple[PyTree, Any]:
        mean, h, t = state
        t = t + 1
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, mean, gradient)

        def average(h: Array, c: Array) -> Array:
            return b2 * h + (1 - b2) * c + (1 - b2) ** 2 * (h - c) ** 2 / (h + delta) / 2

        h = jax.tree.map(average, h, reading)
        step = jax.tree.map(
            lambda m, p, h: -learning_rate * (m / (1 - b1**t) + delta * p) / (h + delta),
            mean,
            params,
            h,
        )
        return step, (mean, h, t)

    return _rule(init, update)


def bayesian_learning_rule(learning_rate: float, prior_precision: float) -> Optimizer:
    """Mean and precision of a Gaussian, equation (12) of Khan and Rue (2023)."""
    rate, delta = learning_rate, prior_precision

    def init(params: PyTree) -> Any:
        flat, _ = ravel_pytree(params)
        return delta * jnp.eye(flat.size, dtype=flat.dtype)

    def update(
        gradient: PyTree, precision: Any, params: PyTree, hessian: Any
    ) -> tuple[PyTree, Any]:
        flat, unravel = ravel_pytree(gradient)
        place, _ = ravel_pytree(params)
        precision = (1 - rate) * precision + rate * (hessian + delta * jnp.eye(flat.size))
        step = -rate * jnp.linalg.solve(precision, flat + delta * place)
        return unravel(step), precision

    return _rule(init, update)


def hazard_filter(hazard: float, prior_variance: float, examples: int) -> Optimizer:
    """Mean and variance of every parameter, written out; the square of the gradient is all it has.

    The gradient at the mean is taken from that at the parameters, one step before.
    """
    variance = prior_variance

    def init(params: PyTree) -> Any:
        return params, params, jax.tree.map(lambda p: jnp.full_like(p, variance), params)

    def update(gradient: PyTree, state: Any, params: PyTree, _: Any) -> tuple[PyTree, Any]:
        start, mean, v = state
        keep = 1 - hazard
        mean = jax.tree.map(lambda m, s: s + keep * (m - s), mean, start)
        v = jax.tree.map(lambda v: keep**2 * v + (1 - keep**2) * variance, v)
        v = jax.tree.map(lambda v, g: 1 / (1 / v + (examples * g) ** 2), v, gradient)

        def corrected(m: Array, p: Array, v: Array, g: Array) -> Array:
            return m - v * examples * (g + examples * g**2 * (m - p))

        mean = jax.tree.map(corrected, mean, params, v, gradient)
        return jax.tree.map(jnp.subtract, mean, params), (start, mean, v)

    return _rule(init, update)


def muon(learning_rate: float, **options: Any) -> optax.GradientTransformation:
    """Muon of optax without average, shape factor and weight decay."""

    def matrices(params: PyTree) -> PyTree:
        return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), params)

    return optax.chain(
        optax.contrib.scale_by_muon(
            beta=0.0, nesterov=False, weight_dimension_numbers=matrices, **options
        ),
        optax.scale_by_learning_rate(learning_rate),
    )


def sophia(learning_rate: float) -> optax.GradientTransformation:
    """Sophia of optax without weight decay, on the curvature that is given at every step."""
    given = _rule(lambda params: optax.EmptyState(), lambda g, state, p, c: (c, state))
    return optax.contrib.sophia(
        learning_rate, weight_decay=0.0, gamma=1.0, update_interval=1, hessian_diagonal_fn=given
    )


def block_diagonal(blocks: list[tuple[Array, Array]]) -> Array:
    """The matrix over raveled parameters whose blocks are Kronecker products."""
    return jax.scipy.linalg.block_diag(*(jnp.kron(left, right) for left, right in blocks))


def _beside(inner: Any, start: Callable[[PyTree], Any], take: Callable[..., Any]) -> Optimizer:
    """An optimizer, and a memory of its iterates: ``take(memory, iterate, t) -> memory``."""

    def init(params: PyTree) -> Any:
        return inner.init(params), start(params), 0

    def update(gradient: PyTree, state: Any, params: PyTree, _: Any) -> tuple[PyTree, Any]:
        inside, memory, t = state
        step, inside = inner.update(gradient, inside, params)
        iterate = jax.tree.map(jnp.add, params, step)
        return step, (inside, take(memory, iterate, t + 1), t + 1)

    return _rule(init, update)


def average(state: Any, params: PyTree) -> PyTree:
    """What the optimizers with a memory say to evaluate."""
    _, memory, _ = state
    return memory[0] if isinstance(memory, tuple) else memory


def plain_average(inner: Any) -> Optimizer:
    """The sum of all iterates over their number."""

    def take(memory: Any, iterate: PyTree, t: Array) -> Any:
        total = jax.tree.map(jnp.add, memory[1], iterate)
        return jax.tree.map(lambda s: s / t, total), total

    return _beside(inner, lambda params: (params, jax.tree.map(jnp.zeros_like, params)), take)


def polynomial_decay(inner: Any, power: float) -> Optimizer:
    """Polynomial-decay averaging of Shamir and Zhang (2013), whose eta is the power."""

    def take(mean: PyTree, iterate: PyTree, t: Array) -> PyTree:
        share = (power + 1) / (t + power)
        return jax.tree.map(lambda m, x: (1 - share) * m + share * x, mean, iterate)

    return _beside(inner, lambda params: params, take)


def exponential_average(inner: Any, decay: float, debias: bool) -> Optimizer:
    """An exponential average of the weights by optax, from 0 and corrected, or from the start."""
    average = optax.ema(decay)

    def corrected(memory: Any, iterate: PyTree, _: Array) -> Any:
        return average.update(iterate, memory[1])

    def followed(mean: PyTree, iterate: PyTree, _: Array) -> PyTree:
        return optax.incremental_update(iterate, mean, 1 - decay)

    if debias:
        return _beside(inner, lambda params: (params, average.init(params)), corrected)
    return _beside(inner, lambda params: params, followed)


def stochastic_weight_averaging(inner: Any, cycle: int) -> Optimizer:
    """Algorithm 1 of Izmailov et al. (2018) from the first step on; before, the iterates."""

    def take(memory: Any, iterate: PyTree, t: Array) -> Any:
        _, mean = memory
        models = t // cycle - 1
        now = t % cycle == 0

        def leaf(m: Array, x: Array) -> Array:
            return jnp.where(now, (m * models + x) / (models + 1), m)

        mean = jax.tree.map(leaf, mean, iterate)
        shown = jax.tree.map(lambda m, x: jnp.where(t < cycle, x, m), mean, iterate)
        return shown, mean

    return _beside(inner, lambda params: (params, params), take)


def diagonal_swag(inner: Any, cycle: int) -> Optimizer:
    """Algorithm 1 of Maddox et al. (2019) without its matrix D, from the first step on."""

    def take(memory: Any, iterate: PyTree, t: Array) -> Any:
        _, mean, square = memory
        n, now = t // cycle - 1, t % cycle == 0

        def leaf(m: Array, x: Array) -> Array:
            return jnp.where(now, (n * m + x) / (n + 1), m)

        mean = jax.tree.map(leaf, mean, iterate)
        square = jax.tree.map(lambda s, x: leaf(s, x**2), square, iterate)
        return jax.tree.map(lambda m, s: s - m**2, mean, square), mean, square

    def start(params: PyTree) -> Any:
        return (jax.tree.map(jnp.zeros_like, params),) * 3

    return _beside(inner, start, take)


def lookahead(inner: Any, period: int, step_size: float) -> Optimizer:
    """The fast weights of optax's lookahead are the parameters, its slow ones the memory."""
    pair = optax.LookaheadParams
    both: Any = optax.lookahead(inner, period, step_size)

    def init(params: PyTree) -> Any:
        return both.init(pair(params, params)), params, 0

    def update(gradient: PyTree, state: Any, params: PyTree, _: Any) -> tuple[PyTree, Any]:
        inside, slow, t = state
        step, inside = both.update(gradient, inside, pair(params, slow))
        return step.fast, (inside, jax.tree.map(jnp.add, slow, step.slow), t + 1)

    return _rule(init, update)
