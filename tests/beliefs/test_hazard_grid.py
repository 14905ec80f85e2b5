"""Priors over the hazard: means of parts of a Beta distribution, equal steps of the logarithm."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from beliefnav import beliefs, filters
from beliefnav.beliefs import HazardGrid, RunLengths, SwitchingOptimum

MODEL = SwitchingOptimum(1.0, 0.5, 1.0, 0.1)


def believed(grid: Any) -> Any:
    """What a filter makes of it: hazards and their probabilities."""
    state = (
        beliefs.TwoHypotheses(dataclasses.replace(MODEL, hazard=grid)).filter().init(jnp.zeros(2))
    )
    hazard = state.hazard_belief
    return np.asarray(hazard.hazards), np.exp(hazard.log_weights)


# --- grids --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("switches", "stays"), [(1.0, 50.0), (0.5, 3.0), (4.0, 2.0)])
def test_beta_holds_the_means_of_parts_of_equal_probability(switches: float, stays: float):
    grid = HazardGrid.beta(switches, stays, size=8)
    law: Any = stats.beta(switches, stays)
    for k, hazard in enumerate(np.asarray(grid.hazards)):
        low, high = law.ppf([k / 8, (k + 1) / 8])
        mean = integrate.quad(lambda x: x * law.pdf(x), low, high)[0] * 8
        # Float32; quadrature of a density that is infinite at 0.
        np.testing.assert_allclose(hazard, mean, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(grid.weights), 1 / 8)


@pytest.mark.usefixtures("x64")
def test_beta_has_its_mean_and_in_the_limit_its_variance():
    law: Any = stats.beta(1.0, 30.0)
    short = []
    for size in (1, 4, 16, 64):
        hazards, probability = believed(HazardGrid.beta(1.0, 30.0, size))
        assert hazards.shape == (size,) and (np.diff(hazards) > 0).all()
        mean = hazards @ probability
        # The parts add up to the whole: float64 round-off of the incomplete beta function.
        np.testing.assert_allclose(mean, law.mean(), rtol=1e-10)
        short.append(law.var() - (hazards - mean) ** 2 @ probability)
    # What varies within the parts is lost: all of it, then ever less.
    np.testing.assert_allclose(short[0], law.var(), rtol=1e-9)
    assert (np.array(short) > 0).all()
    assert (np.array(short[1:]) < np.array(short[:-1]) / 3).all()


def test_log_uniform_steps_by_one_factor():
    grid = HazardGrid.log_uniform(1e-4, 1.0, size=9)
    # Float32 round-off.
    np.testing.assert_allclose(grid.hazards, 10.0 ** np.linspace(-4, 0, 9), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(grid.weights), 1 / 9)
    np.testing.assert_allclose(HazardGrid.log_uniform(0.2, 0.2, 1).hazards, [0.2], rtol=1e-6)
    assert np.shape(HazardGrid.log_uniform(0.01, 0.1).hazards) == (64,)


def test_ends_of_a_fine_grid_are_hazards():
    """In order, and in float32, of which the highest may round to 1, and no higher."""
    for grid in (
        HazardGrid.log_uniform(1e-6, 1.0, 1000),
        HazardGrid.beta(1.0, 1e6, 1000),
        HazardGrid.beta(0.1, 0.1),
    ):
        hazards, probability = np.asarray(grid.hazards), believed(grid)[1]
        assert hazards[0] >= 0 and hazards[-1] <= 1 and (np.diff(hazards) >= 0).all()
        # Float32 round-off of a sum of a thousand.
        np.testing.assert_allclose(probability.sum(), 1, rtol=1e-4)


def test_weights_have_any_unit_and_are_equal_if_none():
    hazards = np.array([0.1, 0.2, 0.4])
    # Float32 round-off.
    np.testing.assert_allclose(believed(HazardGrid(hazards))[1], 1 / 3, rtol=1e-6)
    for weights in (np.array([2, 1, 5]), [20.0, 10.0, 50.0], jnp.array([0.2, 0.1, 0.5])):
        got = believed(HazardGrid(hazards, np.asarray(weights)))
        np.testing.assert_allclose(got[1], [0.25, 0.125, 0.625], rtol=1e-6)
        np.testing.assert_allclose(got[0], hazards, rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("belief", [beliefs.TwoHypotheses, beliefs.RunLengthReset])
def test_a_grid_of_one_point_is_a_number(belief: Any):
    rng = np.random.default_rng(0)
    y, d = (jnp.asarray(rng.normal(size=8)) for _ in range(2))

    @jax.jit
    def run() -> Any:
        points = (
            MODEL,
            dataclasses.replace(MODEL, hazard=HazardGrid(jnp.array([0.1]), jnp.array([7.0]))),
        )
        return [filters.filter_recording(belief(model), y, d) for model in points]

    number, grid = run()
    # Float64 round-off.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), number, grid)


def test_the_true_hazard_is_learned():
    """From many switches of many streams; the posterior over the grid then is on the truth."""
    rng = np.random.default_rng(1)
    num_steps, size, p = 60, 30, 0.2
    switches = rng.random((size, num_steps)) < p
    begins = np.maximum.accumulate(switches * np.arange(num_steps), 1)
    optimum = np.take_along_axis(rng.normal(size=(size, num_steps)), begins, 1)
    y = jnp.asarray(rng.normal(-optimum, 0.1), jnp.float32)
    grid = HazardGrid(jnp.array([0.05, 0.2, 0.6]))
    belief = RunLengths(SwitchingOptimum(1.0, 0.01, 1.0, grid), 15)

    @jax.jit
    @jax.vmap
    def learn(y: Any) -> Any:
        return filters.change_points(belief, y, jnp.zeros_like(y)).hazard[-1]

    hazard = np.asarray(learn(y))
    np.testing.assert_allclose(hazard.sum(1), 1, rtol=1e-4)  # float32
    # Streams are independent, so their evidence adds; the prior is the same and uniform.
    together = np.log(np.maximum(hazard, 1e-30)).sum(0)
    # 60 * 30 steps at 0.2 or 0.05: the two differ by 0.07 nats a step or more.
    assert together[1] - together[0] > 50
    assert together[1] - together[2] > 50


# --- errors -------------------------------------------------------------------------------------

GRIDS: dict[str, Any] = {
    "empty": (HazardGrid(np.zeros(0)), r"hazards \[grid\] and as many weights.*\(0,\)"),
    "scalar": (HazardGrid(0.1), r"hazards \[grid\] and as many weights.*\(\)"),
    "table": (HazardGrid(np.full((2, 2), 0.1)), r"hazards \[grid\].*\(2, 2\)"),
    "weights": (HazardGrid(np.full(2, 0.1), np.ones(3)), r"as many weights.*\(2,\) and \(3,\)"),
    "one weight": (HazardGrid(np.full(2, 0.1), 1.0), r"as many weights.*\(2,\) and \(\)"),
    "negative": (HazardGrid(np.array([0.1, -0.1])), r"hazards must be in \[0, 1\], got \[.*-0\.1"),
    "above": (HazardGrid(np.array([1.5])), r"hazards must be in \[0, 1\], got \[1\.5\]"),
    "nan": (HazardGrid(np.array([np.nan])), r"hazards must be in \[0, 1\]"),
    "no weight": (HazardGrid(np.full(2, 0.1), np.array([1.0, 0.0])), "weights must be positive"),
    "infinite": (HazardGrid(np.full(2, 0.1), np.array([1.0, np.inf])), "weights must be positive"),
}


@pytest.mark.parametrize("name", GRIDS)
def test_an_improper_grid_is_refused_by_name(name: str):
    grid, message = GRIDS[name]
    for belief in (
        beliefs.TwoHypotheses(dataclasses.replace(MODEL, hazard=grid)),
        RunLengths(dataclasses.replace(MODEL, hazard=grid), 3),
    ):
        with pytest.raises(ValueError, match=f"{type(belief).__name__}: .*{message}"):
            belief.filter().init(jnp.zeros(2))


@pytest.mark.parametrize(
    ("switches", "stays", "size", "message"),
    [
        (0.0, 1.0, 4, "switches must be a positive"),
        (1.0, -1.0, 4, "stays must be a positive"),
        (1.0, np.inf, 4, "stays must be a positive, finite"),
        (1.0, 1.0, 0, "size must be at least 1, got 0"),
    ],
)
def test_beta_names_what_is_wrong(switches: float, stays: float, size: int, message: str):
    with pytest.raises(ValueError, match=f"HazardGrid.beta: {message}"):
        HazardGrid.beta(switches, stays, size)


@pytest.mark.parametrize(
    ("low", "high", "size"),
    [(0.0, 0.1, 4), (0.2, 0.1, 4), (0.1, 1.1, 4), (0.1, 0.2, 0), (np.nan, 0.1, 4)],
)
def test_log_uniform_names_what_is_wrong(low: float, high: float, size: int):
    with pytest.raises(ValueError, match="0 < low <= high <= 1 .*got low="):
        HazardGrid.log_uniform(low, high, size)
