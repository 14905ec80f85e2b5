"""Beliefs on streams of their own programs: what is said with probability 90 % is true so often.

Every stream has hyper-parameters of its own, drawn from the proper prior that its case states, and
a path drawn from the NumPyro program at these. For an exact belief the probability integral
transforms of the latent quantities after the last step, and of every observation given those
before, are uniform; a belief that is not exact has the coverage that its docstring states.

Reference:
    Dawid, "Statistical theory: the prequential approach", Journal of the Royal Statistical
    Society A 147, 1984; Rosenblatt, "Remarks on a multivariate transformation", Annals of
    Mathematical Statistics 23, 1952.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist
from numpyro import handlers
from scipy import stats

from beliefnav import beliefs
from beliefnav.beliefs.composed.positive import PositiveState
from beliefnav.beliefs.tasks.run_lengths import RunLengthsState
from beliefnav.beliefs.tasks.switching_optimum import SwitchingOptimum

STREAMS, STEPS = 200, 30
LEVEL = 0.9


def size(name: str) -> Any:
    """A positive number around 1, of its own for each stream."""
    return numpyro.sample(name, dist.LogNormal(0, 1))


def share(name: str, low: float = 0.0, high: float = 1.0) -> Any:
    """A number of an interval, likewise."""
    return numpyro.sample(name, dist.Uniform(low, high))


def number(name: str) -> Any:
    """A number around 0, likewise."""
    return numpyro.sample(name, dist.Normal(0, 1))


def local_level() -> beliefs.LocalLevel:
    return beliefs.LocalLevel(share("discount", 0.3), size("noise"), number("mean"), size("count"))


def ornstein_uhlenbeck() -> beliefs.OrnsteinUhlenbeck:
    return beliefs.OrnsteinUhlenbeck(share("correlation"), size("process"), size("noise"))


def level() -> beliefs.LocalLevel:
    return beliefs.LocalLevel(share("discount", 0.3), 1.0, 0.0, size("count"))


def transient() -> beliefs.Transient:
    return beliefs.Transient(share("discount", 0.5), share("phi", -0.4, 0.4), size("innovation"))


def optimum() -> beliefs.Optimum:
    return beliefs.Optimum(
        number("curvature"), size("noise"), size("prior"), number("mean"), size("q"), share("rho")
    )


def secant() -> beliefs.Secant:
    return beliefs.Secant(
        *(size("noise"), size("gradient"), size("curvature"), number("slope"), number("mean")),
        *(size("gradient_process"), 0.1 * size("curvature_process"), share("rho_g"), share("rho")),
    )


def sensed_secant() -> beliefs.Secant:
    return beliefs.Secant(
        *(size("noise"), size("gradient"), size("curvature"), number("slope"), number("mean")),
        *(0.0, 0.0, 1.0, 1.0, size("sensor")),
    )


def constant_secant() -> beliefs.Secant:
    return beliefs.Secant(size("noise"), size("gradient"), size("curvature"))


def fisher_optimum() -> beliefs.FisherOptimum:
    return beliefs.FisherOptimum(share("hazard", 0.01, 0.1), size("examples"), size("prior"))


def precision_walk() -> beliefs.PrecisionWalk:
    return beliefs.PrecisionWalk(share("discount", 0.3), size("moment"), 5 + size("degrees"))


def unknown(model: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: beliefs.UnknownNoise(model(), size("scale"), 5 + size("degrees"))


def tasks() -> SwitchingOptimum:
    return SwitchingOptimum(
        size("curvature"), size("noise"), 4 * size("prior"), share("hazard", 0.01, 0.1), 0.0
    )


GRADIENT = {"gradient": "gradient"}
DISTANCE = {"distance": "distance"}
BOTH = {"gradient": "gradient", "curvature": "curvature"}
EXACT: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "LocalLevel": (local_level, GRADIENT),
    "OrnsteinUhlenbeck": (ornstein_uhlenbeck, GRADIENT),
    "Transient": (transient, {}),
    "Optimum": (optimum, GRADIENT | DISTANCE),
    "Secant": (secant, BOTH),
    "Secant with a sensor": (sensed_secant, BOTH),
    "FisherOptimum": (fisher_optimum, DISTANCE),
    "PrecisionWalk": (precision_walk, {"precision": "curvature"}),
    "RunLengths": (lambda: beliefs.RunLengths(tasks(), STEPS), DISTANCE),
    "positive(Secant)": (lambda: beliefs.positive(constant_secant()), {"curvature": "curvature"}),
    "UnknownNoise(LocalLevel)": (unknown(level), GRADIENT),
    "UnknownNoise(Secant)": (unknown(secant), BOTH),
}
"""A proper prior, and the latent quantities: site of the program -> name of its posterior."""


class Seen(NamedTuple):
    """A belief beside the truth, an entry for every stream.

    Attributes:
        truth: site -> its value at the last step.
        state: of the filter after the last step.
        posterior: what the state says.
        info: diagnostics [stream, step].
        observation: [stream, step].
    """

    truth: dict[str, Any]
    state: Any
    posterior: beliefs.Posterior
    info: beliefs.Info
    observation: Any


def simulated(
    prior: Callable[[], Any],
    seed: int = 0,
    streams: int = STREAMS,
    believed: Callable[[Any], Any] = lambda belief: belief,
) -> Seen:
    """Streams of a program, and the belief after each; ``believed`` makes it another one."""

    def one(key: Any) -> Seen:
        of_prior, of_moves, of_readings, of_path = jax.random.split(key, 4)
        with handlers.seed(rng_seed=of_prior):
            belief = prior()
        filter_ = believed(belief).filter()
        moved = curvature = None
        if filter_.uses_displacement:
            moved = jax.random.normal(of_moves, (STEPS,))
        given: dict[str, Any] = {"displacement": moved} if filter_.uses_displacement else {}
        if isinstance(belief, beliefs.FisherOptimum):  # takes the readings as they are
            curvature = jnp.exp(jax.random.normal(of_readings, (STEPS,)))
            given["curvature"] = curvature
        if not given:
            given["num_steps"] = STEPS
        with handlers.seed(rng_seed=of_path), handlers.trace() as trace:
            belief.numpyro_model(**given)
        sites = {name: site["value"] for name, site in trace.items() if "value" in site}
        if filter_.uses_curvature and curvature is None:
            curvature = sites["curvature_observation"]
        if moved is not None and "optimum" in sites:
            sites["distance"] = sites["optimum"] - (jnp.cumsum(moved) - moved)
        last = {name: value[-1] for name, value in sites.items() if jnp.shape(value) == (STEPS,)}

        def step(state: Any, now: Any) -> Any:
            y, before, c = now
            predicted = filter_.predict(state, before)
            assert filter_.diagnose is not None
            return filter_.update(predicted, y, c), filter_.diagnose(predicted, y, c)

        before = None if moved is None else jnp.concatenate([jnp.zeros(1), moved[:-1]])
        observed = sites["observation"], before, curvature
        state, info = jax.lax.scan(step, filter_.init(jnp.zeros(())), observed)
        return Seen(last, state, state.posterior(), info, sites["observation"])

    # The own code of numpyro promotes.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        keys = jax.random.split(jax.random.key(seed), streams)
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))


def transform(seen: Seen, site: str, name: str) -> np.ndarray:
    """The posterior probability that a latent quantity is less than it is [stream]."""
    truth = seen.truth[site]
    if isinstance(seen.state, RunLengthsState):
        weights, tasks = np.exp(seen.state.log_weights).sum(1), seen.state.tasks
        apart = truth + seen.state.position  # from where the parameters were at first
        laws = stats.norm(tasks.mean, np.sqrt(tasks.variance))
        return np.sum(weights * laws.cdf(apart[:, None]), 1)
    if isinstance(seen.state, PositiveState):  # a Gaussian that is truncated at 0
        inner = seen.state.belief.posterior()
        mean, deviation = inner.curvature_mean, np.sqrt(inner.curvature_variance)
        return stats.truncnorm.cdf(truth, -mean / deviation, np.inf, mean, deviation)
    mean = getattr(seen.posterior, f"{name}_mean")
    if site == "precision":  # the mean of whose inverse is read as curvature
        degrees = seen.state.degrees_of_freedom
        return stats.gamma.cdf(truth, degrees / 2, scale=2 / (degrees * mean))
    deviation = np.sqrt(getattr(seen.posterior, f"{name}_variance"))
    if hasattr(seen.state, "noise_degrees_of_freedom"):
        degrees = seen.state.noise_degrees_of_freedom
        return stats.t.cdf(truth, degrees, mean, deviation * np.sqrt(1 - 2 / degrees))
    return stats.norm.cdf(truth, mean, deviation)


def predictive_transform(info: beliefs.Info) -> np.ndarray:
    """The same of every observation given those before; independent of each other."""
    if info.predictive_scale is None:  # one reading a step: its surprise is a squared normal
        return stats.norm.cdf(np.sign(info.innovation) * np.sqrt(info.surprise)).ravel()
    relative = info.innovation / info.predictive_scale
    if info.predictive_degrees_of_freedom is None:
        return stats.norm.cdf(relative).ravel()
    return stats.t.cdf(relative, info.predictive_degrees_of_freedom).ravel()


def assert_uniform(transform: np.ndarray, what: str) -> None:
    # Some fifty of these run: all pass at 99 of 100 seeds, where the law holds.
    assert stats.kstest(transform, "uniform").pvalue > 1e-4, what
    # Kolmogorov's distance hardly sees the ends: the share inside of 90 % intervals, likewise.
    inside = int(np.sum(np.abs(transform - 0.5) < LEVEL / 2))
    assert stats.binomtest(inside, len(transform), LEVEL).pvalue > 1e-4, f"{what}: {inside}"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", EXACT)
def test_an_exact_belief_is_calibrated(name: str):
    prior, latents = EXACT[name]
    seen = simulated(prior)
    for site, field in latents.items():
        assert_uniform(transform(seen, site, field), site)
    if name not in MIXED:
        assert_uniform(predictive_transform(seen.info), "observation")


MIXED = ("RunLengths", "positive(Secant)")
"""Beliefs whose predictive law is none that `beliefs.Info` could state."""


def sharper(belief: beliefs.OrnsteinUhlenbeck) -> beliefs.OrnsteinUhlenbeck:
    return dataclasses.replace(belief, noise_variance=belief.noise_variance / 4)


def still(belief: beliefs.Secant) -> beliefs.Secant:
    return dataclasses.replace(belief, gradient_process_variance=0.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("prior", "believed"), [(ornstein_uhlenbeck, sharper), (secant, still)], ids=["OU", "Secant"]
)
def test_a_belief_in_something_else_is_not_calibrated(prior: Any, believed: Any):
    seen = simulated(prior, believed=believed)
    with pytest.raises(AssertionError, match="gradient"):
        assert_uniform(transform(seen, "gradient", "gradient"), "gradient")
    with pytest.raises(AssertionError, match="observation"):
        assert_uniform(predictive_transform(seen.info), "observation")


APPROXIMATE: dict[str, tuple[Callable[[], Any], dict[str, str], float]] = {
    "TwoHypotheses": (lambda: beliefs.TwoHypotheses(tasks()), DISTANCE, 0.92),
    "RunLengthReset": (lambda: beliefs.RunLengthReset(tasks()), DISTANCE, 0.90),
    "RunLengths": (lambda: beliefs.RunLengths(tasks(), 4), DISTANCE, 0.89),
    "positive(Secant)": (lambda: beliefs.positive(secant()), BOTH, 0.89),
}
"""A proper prior, the latent quantities, and the share of 90 % intervals that hold the truth."""


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", APPROXIMATE)
def test_an_approximation_covers_as_often_as_it_states(name: str):
    prior, latents, stated = APPROXIMATE[name]
    seen = simulated(prior, seed=1, streams=2000)
    for site, field in latents.items():
        mean, variance = (
            getattr(seen.posterior, f"{field}_{what}") for what in ("mean", "variance")
        )
        half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance)
        inside = np.mean(np.abs(seen.truth[site] - mean) < half)
        # Three standard errors of a share of 2,000, and half of its last digit.
        np.testing.assert_allclose(inside, stated, atol=0.025, err_msg=site)
    said = f"{100 * stated:.0f} % of 90 % intervals"
    documented = {"positive(Secant)": inspect.getmodule(beliefs.positive)}
    text = inspect.getdoc(documented.get(name) or getattr(beliefs, name))
    assert text is not None and said in " ".join(text.split())
