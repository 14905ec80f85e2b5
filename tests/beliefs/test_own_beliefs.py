"""Beliefs of one's own, with nothing registered and no file of the library touched.

A local linear trend declares all that may be asked. A running mean has a filter alone: optimizers
and recordings take it, and what else is asked is refused by what it would have to declare.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro import distributions as dist
from numpyro.contrib.control_flow import scan

from beliefnav import atlas, beliefs, control, filters, inference, navigator, posterior, recording
from beliefnav.atlas.problems import quadratic
from beliefnav.atlas.table import exact
from beliefnav.beliefs import Fact, Filter, Info, LinearForm, Posterior, Sensor, Surprise, gaussian
from beliefnav.inference.targets import density


def is_gaussian(x: Any) -> bool:
    return isinstance(x, gaussian.Gaussian)


def on(f: Any, tree: Any, *rest: Any) -> Any:
    """Map over Gaussians, one for every array of parameters."""
    return jax.tree.map(f, tree, *rest, is_leaf=is_gaussian)


class TrendState(NamedTuple):
    trends: Any

    def posterior(self) -> Posterior:
        return Posterior(
            gradient_mean=on(lambda b: b.mean[0], self.trends),
            gradient_variance=on(lambda b: b.variances[0], self.trends),
        )


class Trend(beliefs.Belief):
    """A gradient that drifts along a slope, which drifts as well."""

    noise_variance: Any
    level_variance: Any = 0.1
    slope_variance: Any = 0.01
    prior_variance: Any = 1.0

    def prior(self) -> gaussian.Gaussian:
        return gaussian.independent((0.0, 0.0), (self.prior_variance, self.prior_variance))

    def transition(self, inputs: Any = None) -> gaussian.Conditional:
        drift = gaussian.independent((0, 0), (self.level_variance, self.slope_variance))
        return gaussian.Conditional(((1, 1), (0, 1)), drift)

    def inputs(self, gradient: Any, displacement: Any, curvature: Any, context: Any = None) -> Any:
        return gradient, None

    def sensors(self, inputs: Any) -> list[Sensor]:
        return [Sensor((1, 0), inputs, self.noise_variance)]

    def read(self, belief: gaussian.Gaussian) -> Posterior:
        return Posterior(gradient_mean=belief.mean[0], gradient_variance=belief.variances[0])

    def linear_gaussian(self) -> LinearForm:
        return LinearForm(self)

    def facts(self, quantity: str = "gradient", time: str = "step") -> tuple[Fact, ...]:
        return (Fact(quantity, f"a slope that drifts a {time}", f"The {quantity} has a trend."),)

    def filter(self) -> Filter:
        def init(params: Any) -> TrendState:
            def leaf(p: Any) -> gaussian.Gaussian:
                return jax.tree.map(lambda x: jnp.full_like(p, x), self.prior())

            return TrendState(jax.tree.map(leaf, params))

        def predict(state: TrendState, displacement: Any = None) -> TrendState:
            return TrendState(on(lambda b: gaussian.predict(b, self.transition()), state.trends))

        def meet(belief: gaussian.Gaussian, y: Any) -> Any:
            return gaussian.condition(belief, *self.sensors(y)[0].filled())

        def update(predicted: TrendState, gradient: Any, curvature: Any = None) -> TrendState:
            return TrendState(on(lambda b, y: meet(b, y)[0], predicted.trends, gradient))

        def diagnose(predicted: TrendState, gradient: Any, curvature: Any = None) -> Info:
            def log_density(b: gaussian.Gaussian, y: Any) -> Any:
                return jnp.where(jnp.isfinite(y), meet(b, y)[1].log_density(), 0)

            return Info(log_density=on(log_density, predicted.trends, gradient))

        return Filter(init, predict, update, diagnose)

    def program(self, stream: Any) -> Any:
        scales = [jnp.sqrt(v) for v in (self.level_variance, self.slope_variance)]
        prior = dist.Normal(0, jnp.sqrt(self.prior_variance)).expand(stream.shape)

        def step(carry: Any, now: Any) -> Any:
            level, slope = carry
            value, seen = now
            level = numpyro.sample("gradient", dist.Normal(level + slope, scales[0]))
            slope = numpyro.sample("slope", dist.Normal(slope, scales[1]))
            law = dist.Normal(level, jnp.sqrt(self.noise_variance)).mask(seen)
            return (level, slope), numpyro.sample("observation", law, obs=value)

        start = numpyro.sample("initial_gradient", prior), numpyro.sample("initial_slope", prior)
        return scan(step, start, (stream.values, stream.seen))[1]


TREND = Trend(0.5)
Y = np.cumsum(np.random.default_rng(0).normal(size=(25, 3)), 0)
Y[7, 1] = np.nan


def joint(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Smoothed means and variances of the levels of one stream, and its log likelihood, densely."""
    size = len(y)
    # Level t: initial level, t + 1 times the initial slope, and what all drifts before add up to.
    ones = np.tril(np.ones((size, size)))
    later = np.tril(np.arange(size)[:, None] - np.arange(size)[None, :])
    steps = np.arange(1, size + 1)
    levels = np.ones((size, size)) + np.outer(steps, steps)
    levels = levels + 0.1 * ones @ ones.T + 0.01 * later @ later.T
    seen = np.isfinite(y)
    total = levels[np.ix_(seen, seen)] + 0.5 * np.eye(seen.sum())
    weights = np.linalg.solve(total, levels[seen]).T
    mean, variance = weights @ y[seen], np.diag(levels - weights @ levels[seen])
    square = y[seen] @ np.linalg.solve(total, y[seen])
    log_det = np.linalg.slogdet(2 * np.pi * total)[1]
    return mean, variance, -(square + log_det) / 2


@pytest.mark.usefixtures("x64")
def test_a_trend_is_filtered_smoothed_and_weighed_as_its_joint_gaussian():
    filtered, _ = filters.filter_recording(TREND, jnp.asarray(Y))
    for parallel in (False, True):
        smoothed = filters.smooth_recording(TREND, jnp.asarray(Y), parallel=parallel)
        likelihood = filters.log_likelihood(TREND, jnp.asarray(Y), parallel=parallel)
        for i in range(3):
            mean, variance, log_density = joint(Y[:, i])
            # Float64 round-off of a 25 x 25 solve.
            np.testing.assert_allclose(smoothed.gradient_mean[:, i], mean, rtol=1e-9)
            np.testing.assert_allclose(smoothed.gradient_variance[:, i], variance, rtol=1e-9)
            np.testing.assert_allclose(likelihood[i], log_density, rtol=1e-10)
            for t in (0, 7, 24):
                mean, variance, _ = joint(Y[: t + 1, i])
                np.testing.assert_allclose(filtered.gradient_mean[t, i], mean[t], rtol=1e-9)
                np.testing.assert_allclose(filtered.gradient_variance[t, i], variance[t], rtol=1e-9)


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_a_trend_is_simulated_as_its_joint_gaussian():
    draws = 4000
    _, recorded = inference.simulate(
        lambda: TREND, key=jax.random.key(0), num_steps=4, shape=(draws,)
    )
    got = np.cov(np.asarray(recorded.gradient))
    eye, size = np.eye(4), np.arange(4)
    ones, later = np.tril(np.ones((4, 4))), np.tril(size[:, None] - size[None, :])
    want = 1 + np.outer(size + 1, size + 1) + 0.1 * ones @ ones.T + 0.01 * later @ later.T
    want = want + 0.5 * eye
    # Four standard errors of a covariance from 4,000 draws.
    scale = np.sqrt((want**2 + np.outer(np.diag(want), np.diag(want))) / draws)
    assert np.all(np.abs(got - want) < 4 * scale)


@pytest.mark.usefixtures("x64", "rank_promotion")
@pytest.mark.parametrize("integrate", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_nuts_sees_the_density_of_a_trend(integrate: bool):
    """With the path integrated out its density is prior times likelihood; with it, both run."""

    def prior() -> Trend:
        noise = numpyro.sample("noise", dist.LogNormal(0, 1))
        return Trend(noise)

    target = inference.target(prior, recording.from_arrays(Y[:, 0]), integrate=integrate)
    if integrate:
        sampled = density(target)
        position = sampled.join({"noise": jnp.log(0.5)})
        want = joint(Y[:, 0])[2] - np.log(0.5) ** 2 / 2 - np.log(2 * np.pi) / 2
        # Float64 round-off of a 25 x 25 solve; the unconstrained value is the logarithm.
        np.testing.assert_allclose(-sampled.potential(position, sampled.data), want, rtol=1e-10)
    fit = inference.numpyro_nuts(
        target,
        key=jax.random.key(0),
        num_warmup=50,
        num_samples=50,
        num_chains=1,
        progress_bar=False,
    )
    assert fit.posterior["noise"].shape == (1, 50)
    assert fit.posterior["noise"].std() > 0


def test_a_trend_is_an_optimizer_and_is_recorded_and_explained():
    optimizer = recording.record(
        navigator(0.1, TREND, control.myopic()), coordinates={"w": [0, 2]}, capacity=30
    )
    params: Any = {"w": jnp.zeros(3)}
    state = optimizer.init(params)
    for row in Y:
        updates, state = optimizer.update({"w": jnp.asarray(row, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
    want = filters.filter_recording(TREND, jnp.asarray(Y, jnp.float32))[0]
    data = recording.to_dataset(state, params)
    # Float32 round-off of 25 steps.
    np.testing.assert_allclose(data["gradient_mean"], want.gradient_mean[:, [0, 2]], rtol=1e-4)
    np.testing.assert_allclose(
        posterior(state).gradient_variance["w"], want.gradient_variance[-1], rtol=1e-4
    )
    said = str(beliefnav_assumptions(0.1))
    assert "a slope that drifts a step" in said
    assert "curvature" in said


def beliefnav_assumptions(learning_rate: float) -> Any:
    from beliefnav.rules._rule import Assumptions

    return Assumptions(learning_rate, TREND, control.myopic())


def matrix_kalman_filter(learning_rate: float) -> optax.GradientTransformation:
    """Descent on the level of a trend, filtered by matrices of numpy: the peer of a row."""
    transition, drift = np.array([[1.0, 1.0], [0.0, 1.0]]), np.diag([0.1, 0.01])

    def init(params: Any) -> Any:
        return np.eye(2), jax.tree.map(lambda p: jnp.zeros((2, *p.shape)), params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        covariance, means = state
        covariance = transition @ covariance @ transition.T + drift
        gain = covariance[:, 0] / (covariance[0, 0] + 0.5)
        covariance = covariance - jnp.outer(gain, covariance[0])

        def leaf(mean: Any, y: Any) -> Any:
            mean = jnp.tensordot(transition, mean, 1)
            return mean + jnp.tensordot(gain, y - mean[0], 0)

        means = jax.tree.map(leaf, means, updates)
        return jax.tree.map(lambda m: -learning_rate * m[0], means), (covariance, means)

    return optax.GradientTransformation(init, update)


@pytest.mark.usefixtures("x64")
def test_a_trend_has_a_row_of_the_atlas():
    peer: Any = matrix_kalman_filter(0.02)
    row = exact("trend", "a Kalman filter of matrices", beliefnav_assumptions(0.02), peer)
    measured = atlas.measure(row, [quadratic(30)])
    assert measured.holds and measured.verdict == "exact" and measured.deviation < 1e-12
    # The row could have failed: with another noise it does.
    other = beliefnav_assumptions(0.02)._replace(belief=Trend(0.6))
    assert not atlas.measure(exact("trend", "the same", other, peer), [quadratic(30)]).holds


# --- a filter alone -----------------------------------------------------------------------------


class MeanState(NamedTuple):
    mean: Any
    count: Any

    def posterior(self) -> Posterior:
        return Posterior(gradient_mean=self.mean)


class RunningMean(NamedTuple):
    """The mean of all gradients."""

    def filter(self) -> Filter:
        def init(params: Any) -> MeanState:
            return MeanState(jax.tree.map(jnp.zeros_like, params), jnp.zeros(()))

        def predict(state: MeanState, displacement: Any = None) -> MeanState:
            return state

        def update(predicted: MeanState, gradient: Any, curvature: Any = None) -> MeanState:
            count = predicted.count + 1
            return MeanState(
                jax.tree.map(lambda m, y: m + (y - m) / count, predicted.mean, gradient), count
            )

        return Filter(init, predict, update)


@pytest.mark.parametrize("given", [RunningMean(), RunningMean().filter()], ids=["own", "filter"])
def test_a_filter_alone_is_an_optimizer_and_is_recorded(given: Any):
    optimizer = recording.record(
        navigator(1.0, given, control.myopic()), coordinates={"w": [1]}, capacity=5
    )
    params: Any = {"w": jnp.zeros(2)}
    state = optimizer.init(params)
    for y in (1.0, 2.0, 6.0):
        _, state = optimizer.update({"w": jnp.array([0.0, y])}, state, params)
    data = recording.to_dataset(state, params)
    np.testing.assert_allclose(data["gradient_mean"][:, 0], [1.0, 1.5, 3.0], rtol=1e-6)


REFUSED: dict[str, tuple[Any, str]] = {
    "smoothing": (
        lambda b, y: filters.smooth_recording(b, y),
        r"Cannot smooth a recording with RunningMean.*linear_gaussian\(\)",
    ),
    "parallel": (
        lambda b, y: filters.filter_recording(b, y, parallel=True),
        r"Cannot filter in parallel with RunningMean.*linear_gaussian\(\)",
    ),
    "likelihood": (
        lambda b, y: filters.log_likelihood(b, y),
        r"RunningMean has no predictive density.*declares no diagnose",
    ),
    "simulation": (
        lambda b, y: inference.simulate(lambda: b, key=jax.random.key(0), num_steps=3),
        r"Cannot simulate or sample the latents of RunningMean.*program\(stream\)",
    ),
    "noise": (
        lambda b, y: beliefs.UnknownNoise(b).filter(),
        r"Cannot learn the noise of RunningMean.*Filter\.weigh",
    ),
    "sharing": (
        lambda b, y: beliefs.shared(b).filter(),
        r"Cannot keep one sample size.*RunningMean.*shared_filter\(\)",
    ),
    "switches": (
        lambda b, y: filters.change_points(b, y, y),
        r"Cannot find switches with RunningMean.*run_lengths\(state\)",
    ),
    "curvature": (
        lambda b, y: filters.filter_recording(b, y, curvature=y),
        r"Cannot use curvature= with this RunningMean",
    ),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_a_filter_alone_refuses_what_it_does_not_declare(asked: str):
    ask, message = REFUSED[asked]
    with pytest.raises(ValueError, match=message):
        ask(RunningMean(), jnp.asarray(Y[:, :1]))


def test_what_weighs_its_readings_has_its_noise_learned():
    """The same running mean, once it says how surprising a reading is: unit noise, flat prior."""

    class Weighed(beliefs.Belief):
        def filter(self) -> Filter:
            plain = RunningMean().filter()

            def weigh(predicted: MeanState, gradient: Any, curvature: Any = None) -> Any:
                proper = predicted.count > 0
                variance = 1 + 1 / jnp.where(proper, predicted.count, 1)
                square = jnp.where(proper, (gradient - predicted.mean) ** 2 / variance, 0)
                count = jnp.full(gradient.shape, proper, int)
                return plain.update(predicted, gradient), Surprise(square, count)

            def diagnose(*seen: Any) -> Info:
                return Info()

            return plain._replace(weigh=weigh, diagnose=diagnose)

    y = jnp.asarray(Y[:, 0], jnp.float32)
    state = filters.last_state(beliefs.UnknownNoise(Weighed()), y)
    # nu s^2 is the sum of squares around the mean, of nu = n - 1 degrees of freedom.
    np.testing.assert_allclose(state.noise_degrees_of_freedom, len(Y) - 1)
    np.testing.assert_allclose(state.noise_scale, np.var(Y[:, 0], ddof=1), rtol=1e-5)
