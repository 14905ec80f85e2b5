"""Optimum with a curvature that is read: filter and program against the joint Gaussian."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from scipy import stats

from beliefnav import beliefs, rules
from beliefnav.beliefs import FisherOptimum, SwitchingOptimum, initial_variance
from tests.beliefs import laws

HAZARD = 0.2
MODEL = FisherOptimum(hazard=HAZARD, examples=8, prior_variance=1.5)
STEPS = 12


def recording(seed: int) -> tuple[Any, Any, Any]:
    """Gradients [step, 2] with holes, positive readings of the curvature, and displacements."""
    rng = np.random.default_rng(seed)
    y, moved = rng.normal(size=(2, STEPS, 2))
    y[rng.random(y.shape) < 0.3] = np.nan
    return y, rng.gamma(2.0, size=y.shape), moved


def run(model: FisherOptimum, y: Any, h: Any, moved: Any) -> list[Any]:
    """Mean and variance of the optimum, relative to the start, after every step; last state, info.

    The parameters start at 3, to see that it does not matter.
    """
    filter_ = model.filter()
    params = np.full(y.shape[1:], 3.0)
    state = filter_.init(params)

    @jax.jit
    def step(state: Any, moved: Any, *seen: Any) -> Any:
        return laws.observe(filter_, filter_.predict(state, moved), *seen)

    before = np.concatenate([np.zeros_like(moved[:1]), moved[:-1]])
    rows = []
    for t in range(len(y)):
        params = params + before[t]
        state, info = step(state, before[t], y[t], None if h is None else h[t])
        mean, variance = state.posterior().optimum(params)
        rows.append((mean - 3.0, variance, info.log_density, state, info))
    return rows


def conditioned(model: FisherOptimum, y: Any, h: Any, position: Any) -> tuple[Any, ...]:
    """The last optimum and the log density of all of a stream [step], from the joint Gaussian."""
    steps, hazard = np.arange(len(y)), np.asarray(model.hazard, float)
    prior = float(model.prior_variance) * (1 - hazard) ** np.abs(steps[:, None] - steps)
    seen = np.isfinite(y)
    rows = -np.diag(h)[seen]
    noise = np.diag(h / model.examples)[np.ix_(seen, seen)]
    covariance = rows @ prior @ rows.T + noise
    error = (y - h * position)[seen]
    gain = prior[-1] @ rows.T @ np.linalg.inv(covariance)
    law: Any = stats.multivariate_normal
    density = law(cov=covariance).logpdf(error) if seen.any() else 0.0
    return gain @ error, prior[-1, -1] - gain @ rows @ prior[:, -1], density


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("hazard", [0.0, 0.2, 1.0])
def test_filter_is_the_joint_gaussian_conditioned(hazard: float) -> None:
    model = dataclasses.replace(MODEL, hazard=hazard)
    y, h, moved = recording(0)
    position = np.concatenate([np.zeros((1, 2)), np.cumsum(moved, 0)[:-1]])
    found = run(model, y, h, moved)
    for entry in range(2):
        for t in (0, 4, STEPS - 1):
            stream = (x[: t + 1, entry] for x in (y, h, position))
            mean, variance, density = conditioned(model, *stream)
            got = [float(x[entry]) for x in found[t][:2]]
            # Float64 round-off of a 12 x 12 inverse; at hazard 0 the prior has rank one.
            np.testing.assert_allclose(got, [mean, variance], rtol=1e-9, atol=1e-9)
            total = sum(float(row[2][entry]) for row in found[: t + 1])
            np.testing.assert_allclose(total, density, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_program_has_the_density_of_the_joint_gaussian(rank_promotion: None) -> None:
    y, h, moved = recording(1)
    position = np.concatenate([np.zeros((1, 2)), np.cumsum(moved, 0)[:-1]])
    path = np.random.default_rng(2).normal(size=y.shape)
    got = laws.log_joint(MODEL.numpyro_model, {"optimum": path}, y, moved, h)
    want = 0.0
    steps = np.arange(STEPS)
    prior = MODEL.prior_variance * (1 - HAZARD) ** np.abs(steps[:, None] - steps)
    for i in range(2):
        law: Any = stats.multivariate_normal
        want += law(cov=prior).logpdf(path[:, i])
        slope = h[:, i] * (position[:, i] - path[:, i])
        densities = stats.norm.logpdf(y[:, i], slope, np.sqrt(h[:, i] / MODEL.examples))
        want += np.nansum(densities)
    np.testing.assert_allclose(float(got), want, rtol=1e-10)


def test_program_simulates_and_says_what_it_needs(rank_promotion: None) -> None:
    moved = jnp.zeros((5, 3))
    with numpyro.handlers.seed(rng_seed=0):
        assert MODEL.numpyro_model(displacement=moved, curvature=jnp.ones((5, 3))).shape == (5, 3)
    with pytest.raises(ValueError, match=r"curvature of the shape of the displacement, \(5, 3\)"):
        MODEL.numpyro_model(displacement=moved)
    with pytest.raises(ValueError, match="needs a prior_variance"):
        FisherOptimum(0.1, 8).numpyro_model(displacement=moved, curvature=moved)


def test_posterior_is_where_the_optimum_is_and_no_precision_in_the_place_of_a_curvature() -> None:
    y, h, moved = recording(3)
    mean, variance, _, state, _ = run(MODEL, y, h, moved)[-1]
    position = moved[:-1].sum(0)
    posterior = state.posterior()
    # Float32: a difference of numbers of the order of 3.
    np.testing.assert_allclose(posterior.distance_variance, variance, rtol=1e-6)
    np.testing.assert_allclose(posterior.distance_mean, mean - position, rtol=1e-4, atol=1e-5)
    assert all(field is None for field in posterior[:5])


def test_without_a_reading_the_square_of_the_batch_is_the_curvature() -> None:
    y, _, moved = recording(4)
    alone, read = run(MODEL, y, None, moved)[-1], run(MODEL, y, 8 * y**2, moved)[-1]
    jax.tree.map(np.testing.assert_array_equal, alone[3:], read[3:])


@pytest.mark.usefixtures("x64")
def test_the_estimate_without_a_reading_is_biased_by_the_squared_mean_as_stated() -> None:
    """In a million batches of 4, where a gradient has the mean 0.5 and the variance 1."""
    batch, mean = 4, 0.5
    gradients = mean + np.random.default_rng(0).normal(size=(1_000_000, batch))
    estimate = batch * gradients.mean(1) ** 2
    exact = (gradients**2).mean(1)
    # Five standard errors of the difference.
    error = 5 * np.std(estimate - exact) / 1000
    assert abs(estimate.mean() - exact.mean() - (batch - 1) * mean**2) < error


def test_a_reading_of_nothing_beside_a_gradient_is_no_reading() -> None:
    filter_ = MODEL.filter()
    predicted = filter_.predict(filter_.init(jnp.zeros(3)), jnp.zeros(3))
    y = jnp.array([0.5, 0.5, 0.0])
    state, info = laws.observe(filter_, predicted, y, jnp.array([0.0, 2.0, 0.0]))
    alone = filter_.update(predicted, y)
    assert state.distance_mean[0] == alone.distance_mean[0] != 0
    assert info.missing.tolist() == [False, False, True]


@pytest.mark.parametrize("size", [1e15, 1e17, 3e17, 1e18, 3e18, 1e19, 3e38, 1e-25])
def test_sizes_that_overflow_leave_a_finite_belief(size: float) -> None:
    filter_ = FisherOptimum(0.1, 32, 0.5).filter()
    state = filter_.init(jnp.zeros(2))
    for _ in range(3):
        predicted = filter_.predict(state, state.distance_mean)
        state, info = laws.observe(filter_, predicted, jnp.array([size, 0.1]))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, state.posterior())))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(info))


@pytest.mark.parametrize("reading", [-1.0, np.nan, np.inf])
def test_a_reading_that_is_no_fisher_information_leaves_the_entry_predicted(reading: float) -> None:
    filter_ = MODEL.filter()
    start = filter_.init(jnp.zeros(2))
    state = filter_.update(filter_.predict(start, jnp.zeros(2)), jnp.ones(2), jnp.ones(2))
    predicted = filter_.predict(state, jnp.ones(2))
    state, info = laws.observe(filter_, predicted, jnp.ones(2), jnp.array([reading, 1.0]))
    assert info.missing.tolist() == [True, False]
    assert float(info.log_density[0]) == float(info.surprise[0]) == 0
    assert state.distance_mean[0] == predicted.distance_mean[0]
    assert state.distance_variance[0] == predicted.distance_variance[0]
    assert state.surprise == info.surprise[1]  # of what was seen


@pytest.mark.usefixtures("x64")
def test_surprise_is_one_where_the_belief_is_right() -> None:
    """On a thousand parameters with optima from the prior and gradients from the model."""
    rng = np.random.default_rng(0)
    h = rng.gamma(2.0, size=1000)
    optimum = np.sqrt(1.5) * rng.normal(size=1000)
    y = -h * optimum + np.sqrt(h / 8) * rng.normal(size=1000)
    state = run(MODEL, y[None], h[None], np.zeros((1, 1000)))[-1][3]
    # Five standard deviations of the mean of a thousand chi-squares.
    assert abs(float(state.surprise) - 1) < 5 * np.sqrt(2 / 1000)


# --- the prior ----------------------------------------------------------------------------------


def test_the_prior_is_as_wide_as_the_initial_parameters() -> None:
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=(64, 32)), jnp.float32) / 8
    params = {
        "layer": {"weight": weight, "bias": jnp.zeros(64)},
        "norm": {"scale": jnp.ones(16), "shift": jnp.zeros(16)},
        "half": jnp.full((2, 4), 0.25, jnp.bfloat16),
    }
    variance = initial_variance(params)
    np.testing.assert_allclose(variance["layer"]["weight"], np.var(weight), rtol=1e-5)
    np.testing.assert_array_equal(variance["layer"]["bias"], variance["layer"]["weight"])
    assert [float(x) for x in variance["norm"].values()] == [1 / 16, 1 / 16]
    assert float(variance["half"]) == 1 / 4
    state = FisherOptimum(0.1, 8).filter().init(params)
    got = jax.tree.map(lambda v: v.max(), state.distance_variance)
    jax.tree.map(np.testing.assert_array_equal, got, variance)
    # A parameter that starts at a constant learns.
    filter_ = FisherOptimum(0.1, 8).filter()
    still = jax.tree.map(jnp.zeros_like, params)
    state = filter_.update(filter_.predict(state, still), params)
    assert np.all(np.asarray(state.distance_mean["norm"]["scale"]) < 0)


def test_without_evidence_the_belief_goes_back_to_its_prior() -> None:
    filter_ = FisherOptimum(0.1, 8).filter()
    params = {"w": jnp.array([1.0, 3.0]), "b": jnp.array([2.0])}
    moved = jax.tree.map(jnp.ones_like, params)
    state = filter_.update(filter_.predict(filter_.init(params), moved), params)
    nothing = jax.tree.map(lambda p: jnp.nan * p, params)
    still = jax.tree.map(jnp.zeros_like, params)
    step = jax.jit(lambda state: filter_.update(filter_.predict(state, still), nothing))
    for _ in range(300):
        state = step(state)
    mean, variance = state.posterior().optimum(jax.tree.map(jnp.add, params, moved))
    jax.tree.map(lambda m, p: np.testing.assert_allclose(m, p, rtol=1e-5), mean, params)
    prior = initial_variance(params)
    jax.tree.map(lambda v, v0: np.testing.assert_allclose(v, v0, rtol=1e-5), variance, prior)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: FisherOptimum(1.5, 8), r"hazard must be in \[0, 1\], got 1.5"),
        (lambda: FisherOptimum(0.1, 0), "examples must be a positive, finite number, got 0"),
        (lambda: FisherOptimum(0.1, 8, 0.0), "prior_variance must be a positive, finite number"),
        (lambda: FisherOptimum(0.1, 8, {"w": jnp.ones(2), "b": -1.0}), "prior_variance must be"),
        (lambda: FisherOptimum(0.1, 8, {"w": jnp.ones(2), "b": jnp.nan}), "prior_variance must be"),
        (lambda: FisherOptimum(0.1, 8, {"w": 1.0}), "prior_variance must be like the parame"),
        (lambda: FisherOptimum(0.1, 8, {"w": jnp.ones(3), "b": 1.0}), r"shape \(3,\) does not"),
    ],
)
def test_hyper_parameters_that_cannot_be_are_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model().filter().init({"w": jnp.ones(2), "b": jnp.ones(1)})


def test_arrays_are_checked_where_all_is_traced() -> None:
    """Their values are known, though what is done to them would not be."""
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}
    for prior in (jnp.float32(0.5), {"w": jnp.ones(2), "b": jnp.ones(1)}):
        state = jax.jit(lambda p, v=prior: FisherOptimum(0.1, 8, v).filter().init(p))(params)
        want = FisherOptimum(0.1, 8, prior).filter().init(params)
        jax.tree.map(np.testing.assert_array_equal, state, want)
    tasks = SwitchingOptimum(jnp.float32(1.0), 1.0, 1.0, 0.01)
    jax.eval_shape(beliefs.TwoHypotheses(tasks).filter().init, params)


def test_predict_needs_a_displacement() -> None:
    filter_ = MODEL.filter()
    with pytest.raises(ValueError, match="predict needs the displacement"):
        filter_.predict(filter_.init(jnp.zeros(2)))


# --- batches of unequal size, and where optima are drawn anew ------------------------------------


@pytest.mark.usefixtures("x64")
def test_a_padded_batch_whose_sums_are_divided_by_the_full_size_is_its_examples() -> None:
    """5 examples of 8: zeros in place of the other 3, against a filter that is told of 5."""
    rng = np.random.default_rng(5)
    before = MODEL.filter()
    state = before.update(before.predict(before.init(jnp.zeros(2)), jnp.zeros(2)), jnp.ones(2))
    predicted = before.predict(state, jnp.full(2, 0.3))
    grads = np.concatenate([rng.normal(size=(5, 2)), np.zeros((3, 2))])
    padded = before.update(predicted, grads.mean(0), (grads**2).mean(0))
    told = dataclasses.replace(MODEL, examples=5).filter()
    exact = told.update(predicted, grads[:5].mean(0), (grads[:5] ** 2).mean(0))
    for got, want in zip(jax.tree.leaves(padded), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)  # float64 round-off of one update


@pytest.mark.usefixtures("x64")
def test_a_prior_mean_is_where_optima_are_drawn_anew() -> None:
    """From parameters at 3 and a prior mean of 1: the joint Gaussian, moved by the first mean."""
    y, h, moved = recording(6)
    y = np.where(np.isfinite(y), y, 0.2)
    model = dataclasses.replace(MODEL, prior_mean=jnp.ones(2))
    filter_ = model.filter()
    state, params = filter_.init(jnp.full(2, 3.0)), np.full(2, 3.0)
    mean, variance = np.full(2, 3.0), np.full(2, 1.5)  # the textbook Kalman filter
    for t in range(STEPS):
        params = params + moved[t]
        state = filter_.update(filter_.predict(state, moved[t]), y[t], h[t])
        mean = 1.0 + (1 - HAZARD) * (mean - 1.0)
        variance = (1 - HAZARD) ** 2 * variance + (1 - (1 - HAZARD) ** 2) * 1.5
        gain = -h[t] * variance / (h[t] ** 2 * variance + h[t] / 8)
        mean = mean + gain * (y[t] - h[t] * (params - mean))
        variance = (1 + gain * h[t]) * variance
        got = state.posterior().optimum(params)
        # Float64 round-off of 12 steps.
        np.testing.assert_allclose(got, (mean, variance), rtol=1e-10)


def test_the_prior_mean_at_the_parameters_is_the_default() -> None:
    y, h, moved = recording(7)
    want = run(MODEL, y, h, moved)[-1][3]
    got = run(dataclasses.replace(MODEL, prior_mean=jnp.full(2, 3.0)), y, h, moved)[-1][3]
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_without_a_prior_variance_that_of_the_prior_mean_is_taken() -> None:
    initial, trained = jnp.array([1.0, -1.0]), jnp.array([9.0, -9.0])
    state = FisherOptimum(0.1, 8, prior_mean=initial).filter().init(trained)
    np.testing.assert_array_equal(state.distance_variance, jnp.ones(2))
    np.testing.assert_array_equal(state.position, trained - initial)
    assert not np.any(np.asarray(state.distance_mean))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"w": jnp.ones(3)}, r"prior_mean must be like the parameters, got the shape \(3,\)"),
        ({"v": jnp.ones(2)}, "prior_mean must be like the parameters"),
        ({"w": jnp.array([1.0, jnp.inf])}, "prior_mean must be a finite number"),
    ],
)
def test_a_prior_mean_that_does_not_fit_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FisherOptimum(0.1, 8, prior_mean=given).filter().init({"w": jnp.ones(2)})


@pytest.mark.usefixtures("x64")
def test_a_prior_mean_follows_the_belief_at_its_rate() -> None:
    """Against the textbook Kalman filter, around a mean that is moved by hand after each step."""
    y, h, moved = recording(8)
    y, rate = np.where(np.isfinite(y), y, 0.2), 0.3
    filter_ = dataclasses.replace(MODEL, prior_mean_rate=rate).filter()
    state, params = filter_.init(jnp.full(2, 3.0)), np.full(2, 3.0)
    start, mean, variance = np.full(2, 3.0), np.full(2, 3.0), np.full(2, 1.5)
    for t in range(STEPS):
        params = params + moved[t]
        state = filter_.update(filter_.predict(state, moved[t]), y[t], h[t])
        mean = start + (1 - HAZARD) * (mean - start)
        variance = (1 - HAZARD) ** 2 * variance + (1 - (1 - HAZARD) ** 2) * 1.5
        gain = -h[t] * variance / (h[t] ** 2 * variance + h[t] / 8)
        mean = mean + gain * (y[t] - h[t] * (params - mean))
        variance = (1 + gain * h[t]) * variance
        start = start + rate * HAZARD * (mean - start)
        # Float64 round-off of 12 steps.
        np.testing.assert_allclose(params - state.position, start, rtol=1e-10)
        np.testing.assert_allclose(state.posterior().optimum(params), (mean, variance), rtol=1e-10)


def test_a_prior_mean_of_its_own_has_no_program_and_no_grid() -> None:
    moved = jnp.zeros((2, 2))
    for model in (
        dataclasses.replace(MODEL, prior_mean=jnp.ones(2)),
        dataclasses.replace(MODEL, prior_mean_rate=0.1),
    ):
        with pytest.raises(ValueError, match="the program has no prior mean of its own"):
            model.numpyro_model(displacement=moved, curvature=jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="Cannot use prior_mean_rate with a HazardGrid"):
        FisherOptimum(beliefs.HazardGrid(jnp.array([0.1])), 8, prior_mean_rate=0.1).filter()


def test_a_grid_can_be_learned_where_the_other_numbers_are_injected() -> None:
    grid = beliefs.HazardGrid(jnp.array([0.1, 0.2]))
    optimizer: Any = optax.inject_hyperparams(rules.hazard_filter)(grid, examples=8.0)
    plain, params = rules.hazard_filter(grid, examples=8.0), jnp.array([1.0, 3.0])
    reading = {"curvature": jnp.ones(2)}
    got = jax.jit(optimizer.update)(jnp.ones(2), optimizer.init(params), params, **reading)[0]
    want = jax.jit(plain.update)(jnp.ones(2), plain.init(params), params, **reading)[0]
    np.testing.assert_allclose(got, want, rtol=1e-6)  # float32: constants are folded otherwise


@pytest.mark.parametrize(
    "learned",
    [
        {"hazard": beliefs.HazardGrid(jnp.array([0.1, 0.5]))},
        {"learn_variance": True},
        {"prior_mean_rate": 0.5},
    ],
)
def test_of_a_batch_with_which_a_task_is_told_to_begin_nothing_is_learned(learned: Any) -> None:
    """Not of the hazard, the prior variance or the start: its gradient is of another task."""
    optimizer: Any = rules.hazard_filter(**({"hazard": 0.1, "examples": 8} | learned))
    params, reading = jnp.array([1.0, 3.0]), {"curvature": jnp.ones(2)}
    _, state = optimizer.update(jnp.ones(2), optimizer.init(params), params, **reading)
    one, other = (
        optimizer.update(jnp.full(2, y), state, params, task_begins=True, **reading)
        for y in (-50.0, 0.1)
    )
    np.testing.assert_array_equal(one[0], other[0])
    told = [x[1][0].belief._replace(surprise=None) for x in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *told)
