"""Random walk with a transient: against the joint Gaussian, and against the ARIMA(1,1,1)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beliefnav import filters
from beliefnav.beliefs import Transient
from tests import oracles
from tests.beliefs import laws

THETA, PHI, SIGMA2 = 0.8, 0.3, 0.6
NUMBERS: dict[str, Any] = {
    "discount": THETA,
    "autocorrelation": PHI,
    "innovation_variance": SIGMA2,
}
STEADY, DIFFUSE = Transient(**NUMBERS), Transient(**NUMBERS, diffuse=True)
STATIONARY = SIGMA2 * oracles.transient_variances(THETA, PHI)[1] / (1 - PHI**2)
Y = np.random.default_rng(0).normal(0.5, 1.5, 12)


def forecasts(model: oracles.LinearModel) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and variance of the next gradient after each step, and the log likelihood."""
    read = oracles.joint(model)
    row, new = np.array([1.0, model.matrices[0][1, 1]]), model.noises[0].sum()
    variance = np.einsum("i,tij,j->t", row, read.filtered_covariance, row) + new
    return read.filtered_mean @ row, variance, float(read.log_likelihood)


@jax.jit
def filtered(model: Transient, y: Any) -> tuple[Any, Any, Any]:
    posterior, info = filters.filter_recording(model, y)
    return posterior.gradient_mean, posterior.gradient_variance, info


@pytest.mark.usefixtures("x64")
def test_filter_in_the_steady_state_equals_the_conditioned_joint_gaussian():
    mean, variance, info = filtered(STEADY, jnp.asarray(Y))
    want = forecasts(oracles.transient_model(Y, **NUMBERS))
    # Float64 round-off of a 24 x 24 solve.
    np.testing.assert_allclose(mean, want[0], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(variance, want[1], rtol=1e-10)
    np.testing.assert_allclose(variance, SIGMA2, rtol=1e-12)
    np.testing.assert_allclose(info.log_density.sum(), want[2], rtol=1e-10)
    before = np.concatenate([[0.0], want[0][:-1]])
    np.testing.assert_allclose(info.innovation, Y - before, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(info.predictive_scale, np.sqrt(SIGMA2), rtol=1e-10)
    np.testing.assert_allclose(info.surprise, (Y - before) ** 2 / SIGMA2, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_diffuse_filter_is_conditioned_on_the_first_gradient():
    mean, variance, info = filtered(DIFFUSE, jnp.asarray(Y))
    given_first = oracles.transient_model(
        Y[1:], **NUMBERS, before=Y[0], transient_variance=STATIONARY
    )
    want = forecasts(given_first)
    np.testing.assert_allclose(mean[0], Y[0], rtol=1e-14)  # what passes has mean 0
    np.testing.assert_allclose(mean[1:], want[0], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(variance[1:], want[1], rtol=1e-10)
    np.testing.assert_allclose(info.log_density.sum(), want[2], rtol=1e-10)
    assert info.log_density[0] == info.surprise[0] == 0
    assert info.predictive_scale[0] == np.inf
    # That is the limit of a walk that may start anywhere: first order in 1 / its variance.
    wide = oracles.transient_model(Y, **NUMBERS, transient_variance=STATIONARY, walk_variance=1e7)
    np.testing.assert_allclose(mean, forecasts(wide)[0], atol=1e-5)
    # Forgetting where it started, it becomes the steady filter.
    np.testing.assert_allclose(variance[-1], SIGMA2, rtol=THETA ** (2 * 9))


@jax.jit
def _filtered(theta: Any, phi: Any, variance: Any, diffuse: Any, y: Any) -> Any:
    model = Transient(theta, phi, variance, diffuse)
    posterior, info = filters.filter_recording(model, y)
    return posterior.gradient_mean, posterior.gradient_variance, info.log_density.sum()


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(
    theta=st.floats(0.05, 0.95),
    share=st.floats(-0.9, 0.95),
    variance=st.floats(1e-2, 1e2),
    y=st.lists(st.floats(-10, 10), min_size=6, max_size=6),
    diffuse=st.booleans(),
)
def test_filter_equals_the_oracle_for_any_numbers(
    theta: float, share: float, variance: float, y: list[float], diffuse: bool
):
    """All hyper-parameters are traced, down to whether the prior is diffuse."""
    phi = theta * share if share > 0 else share
    with jax.enable_x64(True):
        got = _filtered(*(jnp.asarray(x) for x in (theta, phi, variance, diffuse, y)))
    numbers: dict[str, Any] = {
        "discount": theta,
        "autocorrelation": phi,
        "innovation_variance": variance,
    }
    stream = np.array(y)
    if diffuse:
        spread = variance * oracles.transient_variances(theta, phi)[1] / (1 - phi**2)
        model = oracles.transient_model(
            stream[1:], **numbers, before=stream[0], transient_variance=spread
        )
        got = (got[0][1:], got[1][1:], got[2])
    else:
        model = oracles.transient_model(stream, **numbers)
    want = forecasts(model)
    # The noise-free readings are solved for with a condition of at most 1 / q_g ~ 1e5.
    np.testing.assert_allclose(got[0], want[0], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-7)
    np.testing.assert_allclose(got[2], want[2], rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("theta", "phi"), [(0.9, 0.3), (0.5, -0.4), (0.7, 0.7), (1.0, 0.6), (0.0, 0.0), (0.3, 0.0)]
)
def test_steady_forecast_is_that_of_the_arima(theta: float, phi: float):
    r"""$(1 - \phi B) (1 - B) y_t = (1 - \theta B) \epsilon_t$, from zeros; also at the edges."""
    y = np.random.default_rng(1).normal(size=40)
    forecast, before, want = 0.0, 0.0, []
    for value in y:
        forecast, before = (
            value + phi * (value - before) - theta * (value - forecast),
            value,
        )
        want.append(forecast)
    got = filtered(Transient(theta, phi, 1.0), jnp.asarray(y))[0]
    # Float64 roundings of 40 steps.
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.99), (0.81, 0.9), (0.2, 0.9)])
def test_steady_forecast_is_a_mix_of_two_discounts(b1: float, b2: float):
    """Lion's interpolation of the gradient and the average before it; Nesterov's at b1 = b2^2."""
    y = np.random.default_rng(2).normal(size=(40, 2))
    before = np.concatenate(
        [[np.zeros(2)], (1 - b2) * oracles.per_entry(lambda x: oracles.discounted(x, b2), y)]
    )
    model = Transient(b2, b2 - b1, 1.0)
    got = filtered(model, jnp.asarray(y))[0]
    np.testing.assert_allclose(got, (1 - b1) * y + b1 * before[:-1], rtol=1e-11, atol=1e-12)
    if b1 == pytest.approx(b2**2):
        nesterov = b2 * before[1:] + (1 - b2) * y
        np.testing.assert_allclose(got, nesterov, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_diffuse_forecasts_are_unbiased_from_the_first_on():
    """A constant gradient is forecast as itself, and any forecast moves along with the gradient."""
    y = jnp.asarray(Y)
    np.testing.assert_allclose(filtered(DIFFUSE, np.full(12, 1.7))[0], 1.7, rtol=1e-13)
    moved = filtered(DIFFUSE, y + 5)[0] - filtered(DIFFUSE, y)[0]
    np.testing.assert_allclose(moved, 5, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_missing_entry_is_forecast_twice():
    """Exactly, until the next observation; the other entries do not notice."""
    y = np.repeat(Y[:, None], 2, 1)
    y[8:10, 0] = [np.nan, np.inf]
    mean, _, info = filtered(STEADY, jnp.asarray(y))
    want = forecasts(oracles.transient_model(y[:, 0], **NUMBERS))[0]
    np.testing.assert_allclose(mean[:10, 0], want[:10], rtol=1e-10, atol=1e-11)
    np.testing.assert_array_equal(mean[:, 1], filtered(STEADY, jnp.asarray(Y))[0])
    np.testing.assert_array_equal(info.missing, ~np.isfinite(y))
    for field in (info.innovation, info.log_density, info.surprise, info.predictive_scale):
        np.testing.assert_array_equal(field[~np.isfinite(y)], 0)
    assert np.all(np.isfinite(mean))


def test_variances_stay_exact_in_single_precision():
    """Where the walk is slow its variance is a small difference, taken before it is computed."""
    theta, phi = 1 - 2.0**-10, 0.25  # exact in float32
    filter_ = Transient(theta, phi, 1.0, diffuse=True).filter()

    @jax.jit
    def run() -> Any:
        def step(state: Any, _: Any) -> Any:
            state = filter_.update(filter_.predict(state), jnp.ones(1))
            return state, state.transient_variance

        return jax.lax.scan(step, filter_.init(jnp.ones(1)), None, length=20_000)[1]

    got = np.asarray(run())
    assert got.dtype == np.float32
    level, passing = oracles.transient_variances(theta, phi)
    p, want = passing / (1 - phi**2), []
    want.append(p)
    for _ in range(19_999):
        predicted = np.array([[phi**2 * p + passing, passing - phi * (1 - phi) * p], [0, 0]])
        variance = (1 - phi) ** 2 * p + level + passing
        p = predicted[0, 0] - predicted[0, 1] ** 2 / variance
        want.append(p)
    # Some 6e-8 of rounding at each step, forgotten at the rate 1 - theta^2 = 1 / 512.
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_unknown_innovations_leave_the_forecast_and_take_away_the_density():
    unknown = Transient(THETA, PHI)
    posterior, info = filters.filter_recording(unknown, jnp.asarray(Y, jnp.float32))
    np.testing.assert_array_equal(
        posterior.gradient_mean, filtered(STEADY, jnp.asarray(Y, jnp.float32))[0]
    )
    assert posterior.gradient_variance is None
    assert info.log_density is None and info.predictive_scale is None


def test_before_anything_is_seen_a_diffuse_belief_is_infinitely_wide():
    params = {"a": jnp.ones(2)}
    for model, variance in ((DIFFUSE, np.inf), (STEADY, np.float32(SIGMA2))):
        posterior = model.filter().init(params).posterior()
        np.testing.assert_array_equal(posterior.gradient_mean["a"], 0)
        np.testing.assert_array_equal(posterior.gradient_variance["a"], variance)


# --- the program --------------------------------------------------------------------------------


def path_law(y: np.ndarray, e: np.ndarray, before: float, spread: float) -> tuple[float, float]:
    """Log p(e | y) of a path of transients, and log p(y), from the joint of both.

    Both are linear in what is new at each step and in the transient before the first.
    """
    n = len(y)
    level, passing = (SIGMA2 * x for x in oracles.transient_variances(THETA, PHI))
    transient, total = np.zeros((n + 1, 2 * n + 1)), np.zeros((n, 2 * n + 1))
    transient[0, 0] = 1
    for t in range(n):
        transient[t + 1] = PHI * transient[t]
        transient[t + 1, 1 + t] = 1
        total[t] = transient[t + 1] - transient[0]
        total[t, 1 + n : 2 + n + t] = 1
    both = np.concatenate([transient, total])
    noise = np.diag([spread] + n * [passing] + n * [level])
    covariance = both @ noise @ both.T
    gain, rest = oracles.regression(covariance, n + 1)

    def density(error: np.ndarray, covariance: np.ndarray) -> float:
        whitened = np.linalg.solve(np.linalg.cholesky(covariance), error)
        return -(whitened @ whitened + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2

    return density(e - gain @ (y - before), rest), density(y - before, covariance[n + 1 :, n + 1 :])


@pytest.mark.usefixtures("x64", "rank_promotion")
@pytest.mark.parametrize("diffuse", [False, True])
def test_program_over_posterior_of_the_path_is_the_likelihood(diffuse: bool):
    """Log p(y, e) - log p(e | y) = log p(y) at any path e: the transient is integrated out."""
    model = DIFFUSE if diffuse else STEADY
    y = np.random.default_rng(3).normal(0.5, 1.5, (9, 2))
    path = np.random.default_rng(4).normal(size=(9 if diffuse else 10, 2))
    params = {"initial_transient": jnp.asarray(path[0]), "transient": jnp.asarray(path[1:])}
    joint = laws.log_joint(model.numpyro_model, params, y)
    if diffuse:
        laws_ = [path_law(y[1:, i], path[:, i], y[0, i], STATIONARY) for i in range(2)]
    else:
        steady = -oracles.transient_model(y[:, 0], **NUMBERS).covariance[0, 1] / PHI
        laws_ = [path_law(y[:, i], path[:, i], 0.0, steady) for i in range(2)]
    marginal = joint - sum(conditional for conditional, _ in laws_)
    # Float64 round-off of densities of order 1e2.
    np.testing.assert_allclose(marginal, sum(total for _, total in laws_), rtol=1e-10)
    np.testing.assert_allclose(
        marginal, filters.log_likelihood(model, jnp.asarray(y)).sum(), rtol=1e-10
    )


def test_program_refuses_what_it_cannot_simulate_or_condition_on():
    with pytest.raises(ValueError, match="Transient: the NumPyro program needs an innovation_var"):
        Transient(THETA, PHI).numpyro_model(Y)
    with pytest.raises(ValueError, match="Transient: cannot simulate from a diffuse prior"):
        DIFFUSE.numpyro_model(num_steps=3)
    with pytest.raises(ValueError, match="Transient: .*without missing entries"):
        STEADY.numpyro_model(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="Transient: give either"):
        STEADY.numpyro_model()


# --- errors -------------------------------------------------------------------------------------


def test_what_passes_must_not_stay_longer_than_what_stays():
    with pytest.raises(ValueError, match="autocorrelation must be at most the discount 0.5"):
        Transient(0.5, 0.6).filter()
