"""Aitchison's belief: against the paper's recursion, its limits, and a belief of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beliefnav import control, filters, navigator, posterior
from beliefnav.beliefs import FisherOptimum
from beliefnav.beliefs.landscape.coupled_optimum import CoupledOptimum
from tests import oracles

ETA, SIGMA = 0.02, 0.5


def paper(y: np.ndarray, eta: float, sigma: float, examples: float) -> tuple[np.ndarray, ...]:
    """Variances and steps as the paper has them, to first order in the dynamics; no entry missing.

    Prior: transition by (1 - eta^2 / 2 sigma^2), and eta^2 more. Likelihood: precision g^2.
    """
    kept, variance, rows = 1 - eta**2 / (2 * sigma**2), np.full(y.shape[1:], sigma**2), []
    for g in examples * y:
        before = kept**2 * variance + eta**2
        variance = 1 / (1 / before + g**2)
        rows.append((variance, -variance * g))
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("examples", [1.0, 8.0])
def test_variance_and_step_are_those_of_the_paper(examples: float):
    y = np.random.default_rng(0).normal(size=(200, 5))
    want_variance, want_step = paper(y, ETA, SIGMA, examples)
    optimizer = navigator(1.0, CoupledOptimum(ETA**2, SIGMA**2, examples), control.to_optimum())
    params = jnp.zeros(5)
    state = optimizer.init(params)
    for t, gradient in enumerate(y):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        # The paper's drift is larger by its first order, the share eta^2 / 2 sigma^2 of it.
        share = ETA**2 / (2 * SIGMA**2)
        np.testing.assert_allclose(posterior(state).distance_variance, want_variance[t], rtol=share)
        np.testing.assert_allclose(jnp.asarray(updates), want_step[t], rtol=share)
    still = paper(y, 1e-12, SIGMA, examples)[0]  # a drift of none is another belief
    assert (posterior(state).distance_variance > 2 * still[-1]).all()


@pytest.mark.usefixtures("x64")
def test_the_dynamics_are_those_of_the_process_and_not_of_its_first_order():
    """A drift as large as the spread: the paper's first order would decay by 1/2, not e^(-1/2)."""
    filter_ = CoupledOptimum(1.0, 1.0, 1.0).filter()
    state = filter_.update(filter_.predict(filter_.init(jnp.zeros(1))), jnp.full(1, 3.0))
    variance = filter_.predict(state).distance_variance
    want = np.exp(-1.0) * 0.1 + 1 - np.exp(-1.0)
    np.testing.assert_allclose(variance, want, rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_where_data_say_much_the_step_is_that_of_a_root_and_where_little_of_descent():
    """Gradients of one size for as long as it takes; the exponent of the step in the size."""
    sizes, eta = np.array([1e-5, 1e-4, 0.5, 1.0, 2.0, 10.0]), 0.03
    gradient = jnp.broadcast_to(sizes, (20_000, 6))  # 18 times as many as sigma^2 / eta^2
    read = filters.last_state(CoupledOptimum(eta**2, 1.0, 1.0), gradient).posterior()
    steps = -np.asarray(read.distance_mean)
    # s^2 = eta / |g|, up to the next terms of the fixed point, and a tenth of them.
    for size, step in zip(sizes[2:], steps[2:], strict=True):
        assert step == pytest.approx(eta, rel=1.1 * eta * (size + 1 / size) / 2)
    # s^2 = sigma^2 up to sigma^4 g^2 / eta^2.
    np.testing.assert_allclose(steps[:2] / sizes[:2], 1.0, rtol=2e-5)
    slopes = np.diff(np.log(steps)) / np.diff(np.log(sizes))
    np.testing.assert_allclose(slopes[[0, 3]], [1.0, 0.0], atol=0.02)  # 0.03 * 0.5 / ln 2
    # At a variance that stays, the curvature is the square of the gradients in either limit.
    np.testing.assert_allclose(read.curvature_mean, sizes**2, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_noisy_gradients_settle_at_the_root_of_their_mean_square():
    """E[g^2] of other sizes than one: s^2 = eta / rms, for two laws of equal mean square."""
    rng = np.random.default_rng(1)
    laws = {"normal": rng.normal(size=(40_000, 20)), "laplace": rng.laplace(size=(40_000, 20))}
    eta = 0.003
    for values in laws.values():
        y = jnp.asarray(3.0 * values / np.sqrt(np.mean(values**2)))
        read, _ = filters.filter_recording(CoupledOptimum(eta**2, 1.0, 1.0), y)
        mean = float(read.distance_variance[2000:].mean())
        # The precision g^2 is noisy: relative variance of s^2 of about eta rms kurtosis / 2, 4 %.
        assert mean == pytest.approx(eta / 3.0, rel=0.05)
        assert float(read.curvature_mean[2000:].mean()) == pytest.approx(9.0, rel=0.15)


@pytest.mark.usefixtures("x64")
def test_the_variance_is_that_of_an_optimum_that_is_drawn_anew_now_and_then():
    y = jnp.asarray(oracles.random_stream(3, 30, 0.3)["matrix"]).reshape(30, 6)
    ours = CoupledOptimum(0.1, 0.7, 1.0)
    rho = np.exp(-0.1 / (2 * 0.7))
    theirs = FisherOptimum(1 - rho, 1.0, 0.7)
    read, _ = filters.filter_recording(ours, y)
    # A step to the mean after every observation keeps FisherOptimum's distance at that of ours.
    other, _ = filters.filter_recording(theirs, y, jnp.zeros_like(y))
    # Float64 round-off of 30 steps.
    np.testing.assert_allclose(read.distance_variance, other.distance_variance, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_missing_entry_is_predicted_only_and_zero_says_nothing():
    y = jnp.array([[1.0, 1.0], [jnp.nan, 0.0], [2.0, 2.0]])
    read, _ = filters.filter_recording(CoupledOptimum(0.1, 0.7, 1.0), y)
    assert read.distance_mean[1].tolist() == [0.0, 0.0]
    missing, zero = jax.tree.map(lambda x: x[2], (read.distance_variance,))[0]
    assert float(missing) == pytest.approx(float(zero), rel=1e-14)
