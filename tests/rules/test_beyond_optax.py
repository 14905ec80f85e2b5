"""Rules that optax does not have, against plain numpy, and the family between those it has."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import posterior, rules
from tests import oracles
from tests.rules.test_rules import stream, updates_on

pytestmark = pytest.mark.usefixtures("x64")


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# --- variational inference ----------------------------------------------------------------------

STIFFNESS = np.geomspace(0.3, 3, 6)
CENTER = np.linspace(-1, 1, 6)
NUM_EXAMPLES = 50.0


def slope(theta: Any) -> Any:
    return STIFFNESS * (theta - CENTER) + theta**3


def bend(theta: Any) -> Any:
    return STIFFNESS + 3 * theta**2


def means_of(
    optimizer: Any, prior_precision: float, start: Any, noise: Any, reading: Callable[..., Any]
) -> Any:
    """Means [step, ...], looking at draws from the Gaussian that the optimizer believes in."""

    def step(carry: Any, epsilon: Any) -> Any:
        mean, state = carry
        precision = NUM_EXAMPLES * (posterior(state).curvature_mean + prior_precision)
        theta = mean + epsilon / jnp.sqrt(precision)
        y = slope(theta)
        seen = reading(theta, y, (theta - mean) * precision)
        updates, state = optimizer.update(y, state, mean, curvature=seen)
        return (mean + updates, state), mean + updates

    start = jnp.asarray(start)
    return jax.jit(lambda s, e: jax.lax.scan(step, s, e)[1])(
        (start, optimizer.init(start)), jnp.asarray(noise)
    )


def test_von_is_equation_8_of_khan_et_al() -> None:
    rate, prior_precision, start, noise = 0.1, 0.05, draws(0, 6), draws(1, 200, 6)
    optimizer = rules.von(rate, b2=1 - rate, prior_precision=prior_precision)
    ours = means_of(optimizer, prior_precision, start, noise, lambda theta, y, pull: bend(theta))
    want = oracles.von(slope, bend, start, noise, rate, prior_precision, NUM_EXAMPLES)
    np.testing.assert_allclose(ours, want, rtol=1e-10, atol=1e-12)


def test_ivon_is_algorithm_1_of_shen_et_al() -> None:
    numbers: Any = {"b1": 0.9, "b2": 0.98, "hess_init": 0.7}
    start, noise = draws(2, 6), draws(3, 300, 6)
    optimizer = rules.ivon(0.05, prior_precision=0.02, **numbers)
    ours = means_of(optimizer, 0.02, start, noise, lambda theta, y, pull: y * pull)
    want = oracles.ivon(
        slope, start, noise, 0.05, weight_decay=0.02, num_examples=NUM_EXAMPLES, **numbers
    )
    np.testing.assert_allclose(ours, want, rtol=1e-9, atol=1e-11)


# --- matrices -----------------------------------------------------------------------------------


def symmetric(size: int, *, lowest: float) -> np.ndarray:
    """A symmetric matrix with one eigenvalue ``lowest`` and others from 0.2 to 10."""
    basis, _ = np.linalg.qr(draws(size, size, size))
    values = np.append(np.geomspace(0.2, 10, size - 1), lowest)
    return basis @ np.diag(values) @ basis.T


def ravelled(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_newton_solves() -> None:
    params = {"a": jnp.asarray(draws(4, 2)), "b": jnp.asarray(draws(5, 2, 2))}
    gradient = {"a": jnp.asarray(draws(6, 2)), "b": jnp.asarray(draws(7, 2, 2))}
    hessian = symmetric(6, lowest=0.1)
    optimizer = rules.newton(0.7)
    state = optimizer.init(params)
    updates, state = optimizer.update(gradient, state, params, curvature=jnp.asarray(hessian))
    want = -0.7 * np.linalg.solve(hessian, ravelled(gradient))
    np.testing.assert_allclose(ravelled(updates), want, rtol=1e-10)
    again, state = optimizer.update(gradient, state, params, curvature=None)  # that of before
    np.testing.assert_allclose(ravelled(again), want, rtol=1e-10)


def test_newton_stays_where_there_is_no_optimum_and_leaves_a_saddle_when_held() -> None:
    hessian, gradient = symmetric(5, lowest=-0.5), draws(8, 5)
    values, vectors = np.linalg.eigh(hessian)
    assert values[0] < 0 < values[1]
    steps = {}
    plans = {"end": rules.newton.assumptions(), "held": rules.newton.assumptions(0.2, 1.0)}
    for name, assumptions in plans.items():
        optimizer, params = assumptions.optimizer(count_missing=True), jnp.zeros(5)
        updates, state = optimizer.update(
            jnp.asarray(gradient), optimizer.init(params), params, curvature=jnp.asarray(hessian)
        )
        steps[name] = vectors.T @ np.asarray(updates)
        assert int(optax.tree.get(state, "clipped")) == 1
    force = vectors.T @ gradient
    np.testing.assert_allclose(steps["end"][1:], -force[1:] / values[1:], rtol=1e-10)
    np.testing.assert_allclose(steps["end"][0], 0, atol=1e-14)
    assert np.all(steps["held"] * force < 0)
    assert np.all(np.abs(steps["held"][1:]) <= np.abs(force[1:] / values[1:]))


def test_newton_on_the_diagonal_divides() -> None:
    gradient, curvature = jnp.asarray(draws(9, 4)), jnp.asarray([2.0, 0.5, -1.0, 0.0])
    optimizer = rules.newton(diagonal=True)
    params = jnp.zeros(4)
    updates: Any = optimizer.update(gradient, optimizer.init(params), params, curvature=curvature)[
        0
    ]
    np.testing.assert_allclose(updates, -gradient * jnp.asarray([0.5, 2, 0, 0]), rtol=1e-12)


def test_bayesian_learning_rule_is_its_equation_and_finds_the_posterior_in_one_step() -> None:
    rate, delta, hessian = 0.3, 0.2, symmetric(5, lowest=0.1)
    x, start, center = draws(10, 5), draws(10, 5), draws(11, 5)
    optimizer: Any = rules.bayesian_learning_rule(rate, delta)
    state, s = optimizer.init(jnp.asarray(x)), delta * np.eye(5)
    for t in range(6):
        read = (1 + t / 5) * hessian
        y = read @ (x - center)
        updates, state = optimizer.update(
            jnp.asarray(y), state, jnp.asarray(x), curvature=jnp.asarray(read)
        )
        s = (1 - rate) * s + rate * (read + delta * np.eye(5))
        np.testing.assert_allclose(updates, -rate * np.linalg.solve(s, y + delta * x), rtol=1e-9)
        believed = np.asarray(posterior(state).curvature_mean) + delta * np.eye(5)
        np.testing.assert_allclose(believed, s, rtol=1e-10, atol=1e-12)
        x = x + np.asarray(updates)
    once: Any = rules.bayesian_learning_rule(1.0, delta)
    y = jnp.asarray(hessian @ (start - center))
    updates, _ = once.update(y, once.init(y), jnp.asarray(start), curvature=jnp.asarray(hessian))
    mean = np.linalg.solve(hessian + delta * np.eye(5), hessian @ center)
    np.testing.assert_allclose(start + np.asarray(updates), mean, rtol=1e-9)


@pytest.mark.parametrize(("b1", "b2", "eps"), [(0.0, 1.0, 1e-4), (0.9, 0.95, 1e-2)])
def test_shampoo_is_algorithm_1_of_gupta_et_al(b1: float, b2: float, eps: float) -> None:
    gradients = draws(12, 30, 4, 3) + 0.3
    vectors = draws(13, 30, 4)
    ours = updates_on(
        rules.shampoo(0.1, eps, b1, b2), [jnp.asarray(gradients), jnp.asarray(vectors)]
    )
    want = -0.1 * oracles.shampoo(gradients, eps, b1, b2)
    np.testing.assert_allclose(ours[0], want, rtol=1e-8, atol=1e-10)
    columns = -0.1 * oracles.shampoo(vectors[:, :, None], eps, b1, b2)
    np.testing.assert_allclose(ours[1], columns[..., 0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("b1", "b2", "eps", "eps_root"),
    [(0.0, 0.999, 0.0, 0.0), (0.9, 0.9, 1e-3, 0.0), (0.5, 0.95, 0.0, 1e-2)],
)
def test_full_ballistic_is_its_equation(b1: float, b2: float, eps: float, eps_root: float) -> None:
    # From the first step on, at which only one direction was seen.
    gradients = draws(14, 30, 5) * np.geomspace(0.3, 3, 5) + 0.2
    optimizer = rules.full_ballistic(0.1, b1, b2, eps, eps_root)
    ours = updates_on(optimizer, [jnp.asarray(gradients[:, :2]), jnp.asarray(gradients[:, 2:])])
    want = -0.1 * oracles.full_ballistic(gradients, b1, b2, eps, eps_root)
    np.testing.assert_allclose(np.concatenate(ours, 1), want, rtol=1e-7, atol=1e-9)


def test_full_ballistic_does_not_amplify_rounding_where_nothing_was_seen() -> None:
    y = jnp.asarray(draws(15, 20, 9), jnp.float32)
    steps = np.asarray(updates_on(rules.full_ballistic(1.0), [y])[0])
    # y^T V^-1 y <= n for V the mean of n products, so that a step is at most sqrt(n) long.
    assert np.all(np.linalg.norm(steps, axis=1) <= np.sqrt(1 + np.arange(20)) * 1.01)


# --- the family ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("dtype_promotion")
def test_family_becomes_gradient_descent_at_the_rate_of_one_over_the_discount() -> None:
    gradients = [y / 10 for y in stream(8, jnp.float64, steps=60)]
    average = optax.chain(optax.ema(0.9), optax.scale_by_learning_rate(0.1))
    want = updates_on(average, gradients)
    injected = optax.inject_hyperparams(rules.family)
    discounts = np.geomspace(1e3, 1e6, 4)

    def apart(discount: jax.Array) -> jax.Array:
        ours = updates_on(injected(0.1, discount=discount), gradients)
        return jnp.sqrt(sum(jnp.sum((a - b) ** 2) for a, b in zip(ours, want, strict=True)))

    deviations = np.asarray(jax.vmap(apart)(jnp.asarray(discounts)))
    orders = np.diff(np.log(deviations)) / np.diff(np.log(discounts))
    np.testing.assert_allclose(orders, -1, atol=0.02)


def test_family_held_for_long_is_newton_on_the_second_moment() -> None:
    gradient = np.asarray(stream(9, jnp.float64, steps=60)[0])
    held = rules.family(1e6, b1=0.8, b2=0.97, exact_hold=1.0, time_step=1e6, discount=0.5)
    ours = updates_on(held, [jnp.asarray(gradient)])[0]
    ages = np.arange(60)[:, None] - np.arange(60)
    w1, w2 = (np.where(ages >= 0, b ** np.maximum(ages, 0), 0) for b in (0.8, 0.97))
    mean = w1 @ gradient / w1.sum(1)[:, None]
    square = w2 @ gradient**2 / w2.sum(1)[:, None]
    np.testing.assert_allclose(ours, -mean / square, rtol=1e-9, atol=1e-12)


def test_prior_weight_is_a_path_from_adam_to_adam_without_bias_correction() -> None:
    gradient = np.asarray(stream(10, jnp.float64, steps=40)[0])
    for weight in (0.0, 0.3, 1.0):
        ours = updates_on(
            rules.family(0.1, 0.8, 0.9, 1e-12, prior_weight=weight), [jnp.asarray(gradient)]
        )[0]
        m, v, n1, n2 = 0.0, 0.0, weight / 0.2, weight / 0.1
        for t, y in enumerate(gradient):
            m, v, n1, n2 = 0.8 * m + y, 0.9 * v + y**2, 0.8 * n1 + 1, 0.9 * n2 + 1
            want = -0.1 * (m / n1) / np.sqrt(v / n2 + 1e-12)
            np.testing.assert_allclose(ours[t], want, rtol=1e-10, atol=1e-13)
