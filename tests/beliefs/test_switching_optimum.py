"""Switching optimum: its best linear filter, and the program against what defines it."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density
from scipy import special, stats

from beliefnav import beliefs, filters
from beliefnav.beliefs import HazardGrid, Optimum, SwitchingOptimum
from tests import oracles

MODEL = SwitchingOptimum(
    curvature=np.array([1.7, -0.4]),
    noise_variance=np.array([0.3, 0.1]),
    prior_variance=np.array([2.0, 0.7]),
    hazard=0.3,
    prior_mean=np.array([-0.6, 1.0]),
)
GRID = HazardGrid(np.array([0.1, 0.5]), np.array([3.0, 1.0]))


# --- the best linear filter ---------------------------------------------------------------------


def test_linear_has_the_numbers_of_the_stationary_walk():
    got = dataclasses.replace(MODEL, hazard=0.25).linear()
    assert isinstance(got, Optimum)
    np.testing.assert_array_equal(got.autocorrelation, 0.75)
    np.testing.assert_allclose(got.process_variance, np.array([2.0, 0.7]) * (1 - 0.5625))
    for name in ("curvature", "noise_variance", "prior_variance", "prior_mean"):
        np.testing.assert_array_equal(getattr(got, name), getattr(MODEL, name))
    still = dataclasses.replace(MODEL, hazard=0).linear()
    np.testing.assert_array_equal(still.autocorrelation, 1)
    np.testing.assert_array_equal(still.process_variance, 0)


@pytest.mark.usefixtures("x64")
def test_linear_is_the_projection_on_what_was_observed():
    r"""Of $\theta^*_t$ on $y_{1:t}$, from second moments alone.

    Two steps share a task with probability $(1-p)^{|k|}$, and are independent otherwise.
    """
    y, d = oracles.switching_recording(MODEL, 0, 12)
    posterior, _ = filters.filter_recording(MODEL.linear(), jnp.asarray(y), jnp.asarray(d))
    steps, x = np.arange(12), oracles.positions(d)
    share = (1 - 0.3) ** np.abs(steps[:, None] - steps)
    for i in range(2):
        h, noise, v0, mu = (np.asarray(field)[i] for field in oracles.tasks(MODEL)[:4])
        for t in range(12):
            seen = np.flatnonzero(np.isfinite(y[: t + 1, i]))
            covariance = h**2 * v0 * share[np.ix_(seen, seen)] + noise * np.eye(len(seen))
            gain = np.linalg.solve(covariance, -h * v0 * share[seen, t])
            mean = mu + gain @ (y[seen, i] - h * (x[seen, i] - mu))
            error = v0 + gain @ (h * v0 * share[seen, t])
            got: Any = posterior.gradient_mean, posterior.gradient_variance
            # Float64 round-off of a 12 x 12 solve.
            np.testing.assert_allclose(got[0][t, i], h * (x[t, i] - mean), rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(got[1][t, i], h**2 * error, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("hazard", "noise", "error"), [(0.02, 1.0, 0.166), (0.1, 0.3, None)])
def test_long_run_error_is_the_analytic_one_and_less_than_of_any_other_hazard(
    hazard: float, noise: float, error: float | None
):
    """Of the filter that is linear() of the hazard assumed, on tasks that switch with the true."""
    model = SwitchingOptimum(1.0, noise, 1.0, hazard)

    @jax.jit
    def steady_variance(assumed: Any) -> Any:
        nothing = jnp.zeros(2000)
        belief = dataclasses.replace(model, hazard=assumed).linear()
        return filters.last_state(belief, nothing, nothing).posterior().gradient_variance

    def long_run_error(assumed: float) -> float:
        # The gain of one observation is K = V / R.
        gain = float(steady_variance(jnp.asarray(assumed))) / noise
        return oracles.steady_linear_error(gain, 1 - assumed, hazard, noise, 1.0)

    best = long_run_error(hazard)
    # The filter converges geometrically, to float64 round-off.
    np.testing.assert_allclose(best, steady_variance(jnp.asarray(hazard)), rtol=1e-10)
    if error is not None:
        assert round(best, 3) == error
    others = [long_run_error(hazard * factor) for factor in (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)]
    assert (np.diff([*others[:3], best]) < 0).all()
    assert (np.diff([best, *others[3:]]) > 0).all()


# --- the program --------------------------------------------------------------------------------


def simulated(model: SwitchingOptimum, displacement: Any, size: int, seed: int) -> dict[str, Any]:
    """Sites [draw, ...] of independent runs of the program."""

    def run(key: Any) -> Any:
        program = numpyro.handlers.seed(model.numpyro_model, key)
        sites = numpyro.handlers.trace(program).get_trace(displacement=displacement)
        return {name: site["value"] for name, site in sites.items() if "value" in site}

    keys = jax.random.split(jax.random.key(seed), size)
    return {k: np.asarray(v, np.float64) for k, v in jax.jit(jax.vmap(run))(keys).items()}


def assert_mean(values: Any, expected: Any) -> None:
    """Of independent draws [draw, ...]: within five standard errors, entry by entry."""
    error = values.std(0) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - expected) < 5 * error).all()


@pytest.mark.usefixtures("rank_promotion")
def test_simulated_tasks_are_those_of_the_definition():
    """Switches, where optima are drawn, how they are autocorrelated, and what is observed."""
    num_steps, size, p = 7, 4000, 0.3
    d = np.random.default_rng(1).normal(size=(num_steps, 2))
    sites = simulated(MODEL, d, size, 2)
    switch, optimum, y = (sites[k] for k in ("switch", "optimum", "observation"))
    np.testing.assert_array_equal(switch[:, 0], 0)
    assert set(np.unique(switch)) == {0, 1}
    assert_mean(switch[:, 1:], p)
    # Independent from step to step.
    assert_mean((switch[:, 1:-1] - p) * (switch[:, 2:] - p), 0)
    # The optimum moves when there is a switch, of all parameters, and only then.
    moved = np.diff(optimum, axis=1) != 0
    np.testing.assert_array_equal(moved, np.tile(switch[:, 1:, None] == 1, 2))
    centred = optimum - MODEL.prior_mean
    assert_mean(centred, 0)
    steps = np.arange(num_steps)
    share = (1 - p) ** np.abs(steps[:, None] - steps)
    for i, v0 in enumerate(np.asarray(MODEL.prior_variance)):
        assert_mean(centred[:, :, None, i] * centred[:, None, :, i], v0 * share)
    assert_mean(centred[:, :, 0] * centred[:, :, 1], 0)  # of different parameters
    gradient = np.asarray(MODEL.curvature) * (oracles.positions(d) - optimum)
    # Float32 round-off.
    np.testing.assert_allclose(sites["gradient"], gradient, rtol=1e-4, atol=1e-5)
    noise = (y - gradient) / np.sqrt(MODEL.noise_variance)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    drawn = centred[:, -1] / np.sqrt(MODEL.prior_variance)
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3


@pytest.mark.usefixtures("rank_promotion")
def test_simulated_hazards_are_drawn_from_the_grid_once():
    sites = simulated(dataclasses.replace(MODEL, hazard=GRID), np.zeros((6, 2)), 4000, 3)
    hazard = sites["hazard"]
    assert_mean(np.isclose(hazard, 0.5), 0.25)
    np.testing.assert_array_equal(np.isclose(hazard, 0.5) | np.isclose(hazard, 0.1), True)
    for value in (0.1, 0.5):
        assert_mean(sites["switch"][np.isclose(hazard, value), 1:], value)


@pytest.mark.usefixtures("x64", "rank_promotion")
@pytest.mark.parametrize("learned", [False, True], ids=["known", "grid"])
def test_density_of_the_program_is_the_model_written_out(learned: bool):
    y, d = oracles.switching_recording(MODEL, 4, 6)
    rng = np.random.default_rng(5)
    drawn = rng.normal(size=y.shape)
    switch = np.array([0, 1, 0, 0, 1, 0])
    model = dataclasses.replace(MODEL, hazard=GRID) if learned else MODEL
    latents: dict[str, Any] = {"switch": switch, "drawn_optimum": drawn}
    p, want = 0.3, 0.0
    if learned:
        latents["hazard_index"], p, want = 1, 0.5, np.log(1 / 4)
    want += special.xlogy(switch[1:], p).sum() + special.xlog1py(1 - switch[1:], -p).sum()
    mu, v0 = np.asarray(MODEL.prior_mean), np.asarray(MODEL.prior_variance)
    want += stats.norm.logpdf(drawn, mu, np.sqrt(v0)).sum()
    optimum = drawn[[0, 1, 1, 1, 4, 4]]
    gradient = MODEL.curvature * (oracles.positions(d) - optimum)
    scale = np.sqrt(MODEL.noise_variance)
    want += np.nansum(stats.norm.logpdf(np.where(np.isfinite(y), y, np.nan), gradient, scale))

    @jax.jit
    def run(latents: Any) -> Any:
        density, sites = log_density(model.numpyro_model, (y, d), {}, latents)
        kinds.update(
            {name: (site["type"], site.get("is_observed")) for name, site in sites.items()}
        )
        return density, {name: sites[name]["value"] for name in ("optimum", "gradient")}

    kinds: dict[str, Any] = {}
    got, values = run(jax.tree.map(jnp.asarray, latents))
    # Float64 round-off of a sum of 30 terms.
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(values["optimum"], optimum, rtol=1e-12)
    np.testing.assert_allclose(values["gradient"], gradient, rtol=1e-12)
    assert kinds["observation"] == ("sample", True)
    assert kinds["switch"] == kinds["drawn_optimum"] == ("sample", False)
    assert kinds["optimum"][0] == kinds["gradient"][0] == "deterministic"


@pytest.mark.usefixtures("x64", "rank_promotion")
def test_the_program_has_the_likelihood_of_the_filter():
    """Its density, integrated over optima and summed over switches, is what RunLengths says.

    By Monte Carlo: what is observed given draws of everything else.
    """
    y, d = oracles.switching_recording(MODEL, 6, 4)
    size = 20_000
    sites = simulated(MODEL, d, size, 7)
    terms = stats.norm.logpdf(
        np.where(np.isfinite(y), y, np.nan), sites["gradient"], np.sqrt(MODEL.noise_variance)
    )
    densities = np.exp(np.nansum(terms, axis=(1, 2)))
    belief = beliefs.RunLengths(MODEL, 4)
    want = np.exp(filters.log_likelihood(belief, jnp.asarray(y), jnp.asarray(d)))
    error = densities.std() / np.sqrt(size)
    assert error < 0.1 * want
    assert abs(densities.mean() - want) < 4 * error


@pytest.mark.usefixtures("rank_promotion")
def test_beliefs_about_a_model_have_its_program():
    """With whole numbers, and of one parameter."""
    model = SwitchingOptimum(1, 1, 1, 1, 0)
    filtered = (
        beliefs.RunLengths(model, 3),
        beliefs.TwoHypotheses(model),
        beliefs.RunLengthReset(model),
    )

    @jax.jit
    def run() -> Any:
        key, d = jax.random.key(8), jnp.zeros(5)
        programs = [model.numpyro_model, *(belief.numpyro_model for belief in filtered)]
        return [numpyro.handlers.seed(program, key)(displacement=d) for program in programs]

    want, *others = run()
    assert len(np.unique(want)) == 5
    for got in others:
        np.testing.assert_array_equal(got, want)


# --- errors -------------------------------------------------------------------------------------


def test_a_linear_filter_learns_no_hazard():
    with pytest.raises(ValueError, match="Cannot use SwitchingOptimum.linear with a HazardGrid"):
        dataclasses.replace(MODEL, hazard=GRID).linear()


def test_the_program_checks_what_it_is_given():
    with pytest.raises(ValueError, match="SwitchingOptimum: the NumPyro program needs a displacem"):
        MODEL.numpyro_model(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"displacement has shape \(3,\), but gradient .* \(2,\)"):
        MODEL.numpyro_model(np.zeros(2), np.zeros(3))
    simulate = partial(dataclasses.replace, MODEL, hazard=np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="SwitchingOptimum: the hazard is one number"):
        simulate().numpyro_model(displacement=np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"SwitchingOptimum: hazards must be in \[0, 1\]"):
        grid = HazardGrid(np.array([0.1, 1.2]))
        dataclasses.replace(MODEL, hazard=grid).numpyro_model(displacement=np.zeros((3, 2)))
