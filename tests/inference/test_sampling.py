"""Both no-U-turn samplers against integrals over a grid, and going on from where one stood."""

import functools
from collections.abc import Callable
from typing import Any

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist

from beliefnav import beliefs, inference
from beliefnav.inference.fits import State
from beliefnav.recording import from_arrays
from tests import oracles
from tests.inference import laws

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rank_promotion")]

SAMPLERS: Any = [inference.numpyro_nuts, inference.blackjax_nuts]
NAMES = ("correlation", "signal_to_noise")
TARGET = inference.target(laws.prior, laws.streams(), separate="param")

# A posterior in one dimension, where chains cost little.
Y = np.random.default_rng(5).normal(2.0, 1.5, 40)
DISCOUNT, NOISE, SIZE = 0.9, 1.7, 0.8


def level() -> beliefs.LocalLevel:
    mean = numpyro.sample("mean", dist.Normal(0, 3))
    return beliefs.LocalLevel(DISCOUNT, NOISE, mean, SIZE)


LEVEL = inference.target(level, from_arrays(Y))


def level_posterior() -> tuple[float, float]:
    """Mean and standard deviation, of a straight line through a Gaussian: exact."""
    unit = NOISE * (oracles.local_level_covariance(np.ones(40, bool), DISCOUNT, SIZE)[1:, 1:])
    weight = np.linalg.solve(unit + NOISE * np.eye(40), np.ones(40))
    precision = weight.sum() + 1 / 9
    return float(weight @ Y / precision), float(precision**-0.5)


def draw(run: Callable[..., inference.Fit], seed: int, **how: Any) -> inference.Fit:
    how = {"target": LEVEL, "num_warmup": 50, "num_samples": 30, "num_chains": 2} | how
    return run(key=jax.random.key(seed), progress_bar=False, **how)


@pytest.fixture(scope="session")
def other() -> inference.Fit:
    """As ``fit``, of blackjax, with a dense mass matrix."""
    with jax.numpy_rank_promotion("allow"):
        return inference.blackjax_nuts(
            TARGET,
            key=jax.random.key(1),
            num_warmup=300,
            num_samples=400,
            dense_mass=True,
            progress_bar=False,
        )


@pytest.fixture(params=["fit", "other"], ids=["numpyro", "blackjax"])
def drawn(request: pytest.FixtureRequest) -> inference.Fit:
    return request.getfixturevalue(request.param)


# --- what is drawn ------------------------------------------------------------------------------


def test_draws_are_from_the_posterior_of_each_coordinate(drawn: inference.Fit) -> None:
    for label in laws.LABELS:
        draws: Any = drawn.posterior.sel(param=label)
        means, deviations = laws.moments(label)
        values = laws.functions(*(draws[name].values for name in NAMES))
        for i, (value, mean, deviation) in enumerate(zip(values, means, deviations, strict=True)):
            size = float(arviz.ess(value))
            assert size > 200, f"{i} of {label}: too few to say anything"
            # 15 expectations within four standard errors: 1e-3 to fail, if they are right.
            assert abs(value.mean() - mean) < 4 * deviation / np.sqrt(size), f"{i} of {label}"


def test_what_is_computed_from_sites_is_of_the_same_draw(drawn: inference.Fit) -> None:
    found = drawn.posterior
    want = found["signal_to_noise"] * (1 - found["correlation"] ** 2)
    # Float32; 1 - correlation^2 cancels near 1.
    np.testing.assert_allclose(found["process_variance"], want, rtol=1e-3)


def test_coordinates_keep_their_labels(drawn: inference.Fit) -> None:
    assert drawn.posterior["param"].values.tolist() == laws.LABELS
    median: Any = drawn.posterior.median(("chain", "draw"))
    correlation, ratio = (dict(zip(laws.LABELS, median[n].values, strict=True)) for n in NAMES)
    assert correlation["fast"] < correlation["loud"] < correlation["slow"]
    assert ratio["loud"] > 10 * max(ratio["fast"], ratio["slow"])
    for name in NAMES:
        assert drawn.posterior[name].dims == ("chain", "draw", "param")
        assert (drawn.posterior[name].min() > 0).all()
    assert float(drawn.posterior["correlation"].max()) <= 1


def test_whose_draws_they_are_and_how_long_they_took(
    fit: inference.Fit, other: inference.Fit
) -> None:
    for drawn, name in ((fit, "numpyro"), (other, "blackjax")):
        assert drawn.posterior.attrs["inference_library"] == name
        assert drawn.posterior.attrs["sampling_time"] > 0


def test_statistics_of_the_sampler(drawn: inference.Fit) -> None:
    stats = drawn.sample_stats
    for name, values in stats.items():
        assert values.dims == ("chain", "draw", "param"), name
        assert np.isfinite(values).all(), name
    assert stats["diverging"].dtype == bool
    assert (stats["n_steps"] >= 1).all()
    assert (stats["n_steps"] < 2 ** stats["tree_depth"]).all()
    assert (stats["acceptance_rate"] >= 0).all()
    assert (stats["acceptance_rate"] <= 1 + 1e-5).all()  # a mean in float32
    # Adapted to 0.8 on average, step size by step size.
    assert 0.6 < float(stats["acceptance_rate"].mean()) < 0.98
    # Each chain of each coordinate has its own step size, which it keeps.
    steps = stats["step_size"]
    assert (steps == steps.isel(draw=0)).all()
    np.testing.assert_allclose(
        steps.isel(draw=-1).transpose("param", "chain"), drawn.state.step_size, rtol=1e-6
    )
    assert len(np.unique(steps.isel(draw=-1))) == 12


def test_log_density_is_that_of_the_draw(drawn: inference.Fit) -> None:
    streams = laws.streams()
    for label in laws.LABELS:
        at: Any = {"param": label, "chain": 1, "draw": 7}
        values = [float(drawn.posterior[name].sel(at)) for name in NAMES]
        z = np.array([np.log(values[0] / (1 - values[0])), np.log(values[1])])
        want = laws.log_joint(z, streams["gradient"].sel(param=label).values)
        # A sum of 60 terms in float32, of which the correlation came back to us rounded.
        np.testing.assert_allclose(drawn.sample_stats["lp"].sel(at), want, rtol=1e-3, atol=1e-2)


def test_state_is_the_last_draw(drawn: inference.Fit) -> None:
    last: Any = drawn.posterior.isel(draw=-1).transpose("param", "chain")
    z = {name: np.asarray(x, np.float64) for name, x in drawn.state.position.items()}
    assert set(z) == set(NAMES)
    np.testing.assert_allclose(np.exp(z["signal_to_noise"]), last["signal_to_noise"], rtol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-z["correlation"])), last["correlation"], rtol=1e-5)
    assert drawn.state.step_size.shape == (3, 4)


def test_mass_matrix_has_the_form_asked_for(fit: inference.Fit, other: inference.Fit) -> None:
    assert fit.state.inverse_mass_matrix.shape == (3, 4, 2)
    dense = np.asarray(other.state.inverse_mass_matrix)
    assert dense.shape == (3, 4, 2, 2)
    np.testing.assert_allclose(dense, np.swapaxes(dense, -1, -2), rtol=1e-4)
    assert (np.linalg.eigvalsh(dense) > 0).all()
    # What was adapted to is the scale of the posterior, that of neither sampler's default of one.
    z = np.log(np.asarray(other.posterior["signal_to_noise"].transpose("param", "chain", "draw")))
    average = dense[..., 1, 1].mean(1)  # sites in alphabetical order
    np.testing.assert_allclose(np.log(average / z.var((1, 2))), 0, atol=0.7)


def test_enough_draws_converge_and_few_do_not(drawn: inference.Fit) -> None:
    table = drawn.diagnostics
    assert table["converged"].dims == ("param",)
    enough = (
        (table["r_hat"] < 1.01)
        & (np.minimum(table["ess_bulk"], table["ess_tail"]) >= 400)
        & (table["divergences"] == 0)
    )
    np.testing.assert_array_equal(table["converged"], enough)
    # The worst over sites, of the numbers that arviz gives for the draws as they are.
    rhat: Any = arviz.rhat(drawn.posterior[list(NAMES)])
    worst = np.maximum(*(rhat[name].values for name in NAMES))
    np.testing.assert_allclose(table["r_hat"], worst, rtol=1e-6)
    for method in ("bulk", "tail"):
        size: Any = arviz.ess(drawn.posterior[list(NAMES)], method=method)
        worst = np.minimum(*(size[name].values for name in NAMES))
        np.testing.assert_allclose(table[f"ess_{method}"], worst, rtol=1e-6)
    np.testing.assert_array_equal(
        table["divergences"], drawn.sample_stats["diverging"].sum(("chain", "draw"))
    )


# --- keys, starts and numbers -------------------------------------------------------------------


@functools.cache
def first(run: Any) -> inference.Fit:
    with jax.numpy_rank_promotion("allow"):
        return draw(run, 5)


@pytest.mark.parametrize("run", SAMPLERS)
def test_draws_are_a_function_of_the_key(run: Any) -> None:
    again = draw(run, 5)
    np.testing.assert_array_equal(again.posterior["mean"], first(run).posterior["mean"])
    np.testing.assert_array_equal(again.state.step_size, first(run).state.step_size)
    # Chains differ, and 60 draws are too few.
    one, other = again.posterior["mean"].values
    assert not np.isin(one, other).any()
    assert not again.converged


@pytest.mark.parametrize("run", SAMPLERS)
def test_a_warm_start_goes_on_from_the_last_position(run: Any) -> None:
    state = first(run).state
    tiny = state._replace(step_size=state.step_size * 1e-6)
    then = draw(run, 6, start=tiny, num_warmup=0, max_tree_depth=1)
    # One leapfrog of a millionth of a step leads nowhere, and the step is kept.
    np.testing.assert_allclose(then.posterior["mean"].T, [state.position["mean"]] * 30, atol=1e-3)
    np.testing.assert_array_equal(then.state.step_size, tiny.step_size)
    np.testing.assert_array_equal(then.state.inverse_mass_matrix, state.inverse_mass_matrix)
    # Another key than the first.
    assert not np.isin(then.posterior["mean"], first(run).posterior["mean"].isel(draw=0)).any()


@pytest.mark.parametrize(
    ("run", "dense"),
    [(inference.numpyro_nuts, True), (inference.blackjax_nuts, False)],
    ids=["numpyro", "blackjax"],
)
def test_a_start_may_come_from_laplace(run: Any, dense: bool) -> None:
    """Here the posterior is a Gaussian: its covariance is all there is to adapt."""
    near = inference.laplace(LEVEL, key=jax.random.key(7), num_chains=4)
    start = near.state
    assert start.inverse_mass_matrix.shape == (4, 1, 1)
    fit = draw(run, 8, start=start, num_warmup=0, num_samples=400, num_chains=4, dense_mass=dense)
    kept = np.reshape(start.inverse_mass_matrix, (4, 1, 1) if dense else (4, 1))
    np.testing.assert_array_equal(fit.state.inverse_mass_matrix, kept)
    np.testing.assert_array_equal(fit.state.step_size, start.step_size)
    mean, deviation = level_posterior()
    ess: Any = arviz.ess(fit.posterior)
    size = float(ess["mean"])
    assert size > 200
    # Within four standard errors; the standard error of a log deviation is sqrt(1 / 2n).
    assert abs(float(fit.posterior["mean"].mean()) - mean) < 4 * deviation / np.sqrt(size)
    assert abs(np.log(float(fit.posterior["mean"].std()) / deviation)) < 4 / np.sqrt(2 * size)
    # Where it started: the first draws of Laplace, one for a chain.
    begun = near.posterior["mean"].values[0, :4]
    np.testing.assert_allclose(start.position["mean"], begun, rtol=1e-5)


@pytest.mark.parametrize("run", SAMPLERS)
def test_a_start_is_adapted_again_if_asked_to(run: Any) -> None:
    state = first(run).state
    wrong = state._replace(
        step_size=state.step_size * 100, inverse_mass_matrix=state.inverse_mass_matrix * 100
    )
    fit = draw(run, 10, start=wrong, num_warmup=200)
    # The posterior's variance, as estimated from a window of some 50 draws.
    _, deviation = level_posterior()
    found = np.asarray(fit.state.inverse_mass_matrix)
    np.testing.assert_allclose(np.log(found / deviation**2), 0, atol=1)
    # In one dimension NUTS accepts 0.8 at about 1 to 2.5 units of that scale.
    assert (np.asarray(fit.state.step_size) < 5).all()
    assert (np.asarray(fit.state.step_size) > 0.2).all()


@pytest.mark.parametrize("run", SAMPLERS)
@pytest.mark.parametrize(
    "number", [{"num_warmup": -1}, {"num_samples": 0}, {"num_chains": 0}], ids=str
)
def test_numbers_of_draws_are_checked(run: Any, number: Any) -> None:
    numbers = {"num_warmup": 50, "num_samples": 30, "num_chains": 2} | number
    found = "{num_warmup}, {num_samples} and {num_chains}".format(**numbers)
    with pytest.raises(ValueError, match=f"needs num_warmup >= 0, .*, got {found}"):
        draw(run, 0, **number)


@pytest.mark.parametrize("run", SAMPLERS)
def test_a_start_must_fit(run: Any, fit: inference.Fit) -> None:
    with pytest.raises(ValueError, match=r"start does not fit the target: .*\(3, 4\).*'mean'"):
        draw(run, 0, start=fit.state, num_chains=4)
    with pytest.raises(ValueError, match=r"start does not fit the target: .*\(3, 2\)"):
        draw(run, 0, target=TARGET, start=fit.state, num_chains=2)
    one = inference.target(laws.prior, laws.streams().isel(param=0))
    with pytest.raises(ValueError, match="separate units, chains, and the site itself"):
        draw(run, 0, target=one, start=fit.state, num_chains=4)


# --- starts where there is no density -----------------------------------------------------------


def rooted() -> beliefs.OrnsteinUhlenbeck:
    """A noise variance that is NaN for half of where chains may start."""
    return beliefs.OrnsteinUhlenbeck(0.9, 1.0, jnp.sqrt(numpyro.sample("x", dist.Normal(1, 1))))


@pytest.mark.parametrize("run", SAMPLERS)
def test_a_chain_that_starts_where_there_is_no_density_starts_again(run: Any) -> None:
    """There it would stay for good: every move looks as bad."""
    target = inference.target(rooted, laws.streams().isel(param=0))
    fit = run(target, key=jax.random.key(0), num_warmup=100, num_samples=100, progress_bar=False)
    draws = fit.posterior["x"].values
    assert (draws > 0).all()
    assert all(len(np.unique(chain)) > 20 for chain in draws)


@pytest.mark.parametrize("run", SAMPLERS)
def test_a_start_without_density_is_refused_by_its_coordinate_and_values(run: Any) -> None:
    target = inference.target(rooted, laws.streams(), separate="param")
    position = jnp.ones((3, 2)).at[1, 1].set(-2.0)
    start = State({"x": position}, jnp.ones((3, 2)), jnp.ones((3, 2, 1)))
    options = {"num_warmup": 0, "num_samples": 5, "num_chains": 2, "progress_bar": False}
    with pytest.raises(ValueError, match=r"param 'fast', chain 1 \(1 of 6 chains\).*x = -2\.0"):
        run(target, key=jax.random.key(0), start=start, **options)


@pytest.mark.parametrize("run", SAMPLERS)
def test_a_prior_without_any_density_is_refused(run: Any) -> None:
    def nowhere() -> beliefs.OrnsteinUhlenbeck:
        x = numpyro.sample("x", dist.Normal(0, 1))
        return beliefs.OrnsteinUhlenbeck(0.9, 1.0, jnp.sqrt(-1 - x**2))

    target = inference.target(nowhere, laws.streams().isel(param=0))
    options = {"num_warmup": 5, "num_samples": 5, "num_chains": 2, "progress_bar": False}
    with pytest.raises(ValueError, match=r"chain 0 \(2 of 2 chains\)"):
        run(target, key=jax.random.key(0), **options)
