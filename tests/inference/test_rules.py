"""The posterior of the numbers of a known rule: its evidence, and its draws."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from beliefnav.inference.learners.ruled import Fit, Start, fit_rule, fit_values, sample_rule

pytestmark = pytest.mark.usefixtures("rank_promotion")
STEPS, PARAMS = 120, 6


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


class Recorded(NamedTuple):
    gradient: Any
    displacement: Any
    params: Any


def fitted(build: Any, start: Mapping[str, Start], data: Recorded, *rest: Any, **more: Any) -> Fit:
    """`fit_rule`, compiled."""
    return jax.jit(lambda *data: fit_rule(build, start, *data, **more))(*data, *rest)


def recorded(optimizer: optax.GradientTransformation, share: float, absolute: float) -> Recorded:
    """A learner on noise around a slope, whose steps are off by a share and by a constant."""
    noise = jnp.asarray(np.random.default_rng(3).normal(size=(STEPS, 3, PARAMS)))

    def step(carry: Any, noise: Any) -> tuple[Any, Recorded]:
        theta, state = carry
        gradient = noise[0] + 0.5 * theta
        step, state = optimizer.update(gradient, state, theta)
        moved = step * (1 + share * noise[1]) + absolute * noise[2]
        return (theta + moved, state), Recorded(gradient, moved, theta)

    theta = jnp.linspace(-1, 1, PARAMS)
    return lax.scan(step, (theta, optimizer.init(theta)), noise)[1]


def momentum(numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    return optax.sgd(numbers["rate"], numbers["b1"])


def descent(numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    return optax.sgd(numbers["rate"])


def gaussian(x: Any, sd: float) -> Any:
    """The log density of zero-mean noise."""
    return -((x / sd) ** 2 + np.log(2 * np.pi * sd**2)) / 2


@pytest.mark.parametrize(
    ("scale", "noise", "message"),
    [
        ("real", "relative", "Cannot fit the noise 'relative'"),
        ("real", ("shared",), r"Cannot fit the noise \('shared',\)"),
        ("log", (), "Cannot fit on the scales {'rate': 'log'}"),
    ],
)
def test_a_noise_or_a_scale_that_is_none_is_refused(scale: str, noise: Any, message: str):
    ones = jnp.ones((2, 1))
    with pytest.raises(ValueError, match=message):
        fit_rule(descent, {"rate": Start(0.1, scale)}, ones, ones, ones, noise=noise)


def test_values_at_the_mode_are_the_numbers_of_the_rule():
    start = {"rate": Start(0.1, "positive"), "b1": Start(0.5, "memory")}
    fit = fitted(momentum, start, recorded(optax.sgd(0.05, 0.9), 0.01, 1e-4))
    values = fit_values(fit, start)
    assert list(values) == ["rate", "b1"]
    # 720 steps of 1 % noise: a few in ten thousand.
    np.testing.assert_allclose([*values.values()], [0.05, 0.9], rtol=5e-3)


def test_evidence_of_a_linear_rule_is_the_exact_gaussian_one():
    """Its posterior is Gaussian: Laplace is exact, as are the joint density and an integral."""
    sd, prior = 0.02, Start(0.05, "real", 0.1)
    data = recorded(optax.sgd(0.1), 0.0, sd)
    rounding = jnp.full((STEPS, PARAMS), sd**2)
    fit = fitted(descent, {"rate": prior}, data, rounding, noise=())
    g, d = np.asarray(data.gradient).ravel(), np.asarray(data.displacement).ravel()
    covariance = sd**2 * np.eye(g.size) + prior.spread**2 * np.outer(g, g)
    left = d + prior.value * g
    joint = -np.linalg.slogdet(2 * np.pi * covariance)[1] / 2
    joint -= left @ np.linalg.solve(covariance, left) / 2
    np.testing.assert_allclose(fit.log_evidence, joint, rtol=1e-9)

    grid = np.linspace(0.09, 0.11, 2001)  # the posterior deviation is 0.02 / sqrt(720) = 0.0007
    log_density = gaussian(d[None] + grid[:, None] * g[None], sd).sum(1)
    log_density += gaussian(grid - prior.value, prior.spread)
    peak = log_density.max()
    integral = peak + np.log(np.trapezoid(np.exp(log_density - peak), grid))
    np.testing.assert_allclose(fit.log_evidence, integral, rtol=1e-9)
    np.testing.assert_allclose(fit.covariance[0, 0] ** 0.5, sd / np.sqrt((g**2).sum()), rtol=1e-3)


def test_evidence_prefers_the_rule_that_was_recorded():
    """Each of two rules on the recordings of both; a memory that is not needed costs some nats."""
    rate, b1 = Start(0.05, "positive", 2.0), Start(0.5, "memory", 2.0)
    for rule, nats in ((optax.sgd(0.1), 1.0), (optax.sgd(0.1, 0.9), 100.0)):
        data = recorded(rule, 0.1, 1e-3)
        plain = fitted(descent, {"rate": rate}, data)
        remembers = fitted(momentum, {"rate": rate, "b1": b1}, data)
        assert plain.converged
        gain = float(remembers.log_evidence - plain.log_evidence)
        assert (gain if nats == 100.0 else -gain) > nats


@pytest.mark.slow
def test_draws_agree_with_the_mode_where_the_posterior_is_nearly_gaussian():
    """Means within a third of a deviation and deviations within a fifth, of 2,000 draws.

    Of effective samples there are at least 400: means are then known to a twentieth of a deviation,
    deviations to 4 %; the rest is what Laplace leaves out.
    """
    start = {"rate": Start(0.05, "positive"), "b1": Start(0.5, "memory")}
    data = recorded(optax.sgd(0.1, 0.9), 0.1, 0.01)
    fit = fitted(momentum, start, data)
    with jax.numpy_rank_promotion("allow"):  # numpyro promotes ranks
        draws = sample_rule(momentum, start, *data, key=jax.random.key(0))
    assert draws.converged
    p = draws.posterior
    position = np.stack([np.log(p["rate"]), -np.log1p(-p["b1"]), np.log(p["relative_noise"])])
    deviations = np.sqrt(np.diag(fit.covariance))[:3]
    means = np.asarray(fit.position)[:3]
    assert (np.abs(position.mean((1, 2)) - means) < deviations / 3).all()
    np.testing.assert_allclose(position.std((1, 2)), deviations, rtol=0.2)
    np.testing.assert_allclose(p["b1"].mean(), 0.9, atol=4 * float(p["b1"].std()))
