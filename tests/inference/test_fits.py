"""Draws keep their labels on the way to predictions, to tables and to arviz."""

from pathlib import Path
from typing import Any

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import xarray as xr
from numpyro import distributions as dist
from scipy import stats

from beliefnav import beliefs, filters, inference, recording
from beliefnav.inference.fits import State, diagnose
from beliefnav.inference.targets import density
from beliefnav.recording import from_arrays
from tests.inference import laws

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rank_promotion")]

TARGET = inference.target(laws.prior, laws.streams(), separate="param")


def group(container: Any, name: str) -> Any:
    """A group as a Dataset, in either major of arviz."""
    found = container[name]
    return found.to_dataset() if isinstance(found, xr.DataTree) else found


def names(container: Any) -> set[str]:
    groups = container.groups
    found: Any = groups() if callable(groups) else groups
    return {name.strip("/") for name in found} - {""}


def draws(num_chains: int, num_draws: int, labels: Any = None, seed: int = 0) -> xr.Dataset:
    """Draws of the sites of `laws.prior`, from nowhere."""
    rng = np.random.default_rng(seed)
    shape = (num_chains, num_draws) + (() if labels is None else (len(labels),))
    dims = ("chain", "draw") + (() if labels is None else ("param",))
    coords: Any = {"chain": np.arange(num_chains), "draw": np.arange(num_draws)}
    coords |= {} if labels is None else {"param": labels}
    return xr.Dataset(
        {
            "correlation": (dims, rng.uniform(0.05, 0.95, shape)),
            "signal_to_noise": (dims, rng.lognormal(0, 1, shape)),
        },
        coords,
    )


# --- the belief of every draw -------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sizes", [(2, 5), (3, 43)], ids=["one part", "a last part"])
def test_functions_see_the_belief_of_their_draw(sizes: tuple[int, int]) -> None:
    posterior = draws(*sizes, labels=laws.LABELS)

    def function(belief: Any, recording: recording.Recording, key: Any) -> Any:
        del key
        return {"belief": tuple(jax.tree.leaves(belief)), "last": recording.gradient[-1]}

    # The order of dimensions is that of the labels, not of the axes.
    for given in (posterior, posterior.transpose("param", "draw", "chain")):
        found = inference.map_draws(TARGET, given, function)
        correlation, process, noise = found["belief"]
        assert correlation.shape == (*sizes, 3)
        np.testing.assert_array_equal(correlation, posterior["correlation"])
        want = posterior["signal_to_noise"] * (1 - posterior["correlation"] ** 2)
        np.testing.assert_allclose(process, want, rtol=1e-14)
        np.testing.assert_array_equal(noise, np.ones((*sizes, 3)))
        last = laws.streams()["gradient"].values[-1]
        np.testing.assert_array_equal(found["last"], np.broadcast_to(last, (*sizes, 3)))


def test_every_draw_has_a_key_of_its_own() -> None:
    def function(belief: Any, recording: Any, key: Any) -> Any:
        return jax.random.uniform(key)

    posterior = draws(2, 50, labels=laws.LABELS)
    one, again, other = (
        inference.map_draws(TARGET, posterior, function, key=jax.random.key(seed))
        for seed in (0, 0, 1)
    )
    assert len(np.unique(one)) == one.size == 300
    np.testing.assert_array_equal(one, again)
    assert not np.isin(one, other).any()


def test_one_posterior_sees_all_coordinates() -> None:
    target = inference.target(laws.prior, laws.streams())

    def function(belief: Any, recording: recording.Recording, key: Any) -> Any:
        return belief.autocorrelation, recording.gradient

    posterior = draws(1, 3)
    correlation, gradient = inference.map_draws(target, posterior, function)
    np.testing.assert_allclose(correlation, posterior["correlation"], rtol=1e-6)
    want = np.broadcast_to(laws.streams()["gradient"], (1, 3, laws.NUM_STEPS, 3))
    np.testing.assert_allclose(gradient, want, rtol=1e-6)


# --- one step ahead -----------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_densities_of_the_steps_multiply_to_the_likelihood() -> None:
    streams = laws.streams()
    posterior = draws(2, 3, labels=laws.LABELS)
    found = inference.predict(TARGET, posterior, key=jax.random.key(0))
    assert set(found) == {"log_likelihood", "posterior_predictive"}
    for values in found.values():
        assert values["gradient"].dims == ("chain", "draw", "step", "param")
        assert values["param"].values.tolist() == laws.LABELS
        np.testing.assert_array_equal(values["step"], streams["step"])
    density = found["log_likelihood"]["gradient"]
    seen = np.isfinite(streams["gradient"])
    np.testing.assert_array_equal(density.where(~seen, 0.0), 0)
    for label in laws.LABELS:
        for chain, draw in ((0, 0), (1, 2)):
            at: Any = {"param": label, "chain": chain, "draw": draw}
            correlation = float(posterior["correlation"].sel(at))
            process = float(posterior["signal_to_noise"].sel(at)) * (1 - correlation**2)
            belief = beliefs.OrnsteinUhlenbeck(correlation, process, 1.0)
            y = jnp.asarray(streams["gradient"].sel(param=label).values)
            want = filters.log_likelihood(belief, y)
            # Float64 round-off.
            np.testing.assert_allclose(density.sel(at).sum("step"), want, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("learned", [False, True], ids=["gaussian", "student"])
def test_replicates_have_the_predictive_law(learned: bool) -> None:
    y = np.random.default_rng(2).normal(size=25)
    y[4] = np.nan

    def prior() -> Any:
        correlation = numpyro.sample("correlation", dist.Uniform(0, 1))
        belief = beliefs.OrnsteinUhlenbeck(correlation, 0.5, 1.0)
        return beliefs.UnknownNoise(belief, 0.7, 1.5) if learned else belief

    number = 4000
    posterior = draws(2, number // 2)
    posterior["correlation"] = xr.full_like(posterior["correlation"], 0.7)
    target = inference.target(prior, from_arrays(y))
    found = inference.predict(target, posterior, key=jax.random.key(1))
    replicates = found["posterior_predictive"]["gradient"].values.reshape(number, 25)
    np.testing.assert_array_equal(np.isnan(replicates), np.broadcast_to(np.isnan(y), (number, 25)))
    known = beliefs.OrnsteinUhlenbeck(0.7, 0.5, 1.0)
    belief: Any = beliefs.UnknownNoise(known, 0.7, 1.5) if learned else known
    info = filters.filter_recording(belief, jnp.asarray(y))[1]
    for t in np.flatnonzero(np.isfinite(y)):
        centre, scale = y[t] - info.innovation[t], info.predictive_scale[t]
        law = (
            stats.t(info.predictive_degrees_of_freedom[t], centre, scale)
            if learned
            else stats.norm(centre, scale)
        )
        # 24 tests, of which one is below this by chance in one of 400 runs.
        assert stats.kstest(replicates[:, t], law.cdf).pvalue > 1e-4, t


@pytest.mark.usefixtures("x64")
def test_nothing_is_replicated_where_nothing_is_predicted() -> None:
    y = np.random.default_rng(2).normal(size=(25, 2))
    y[:2, 1] = np.nan

    def prior() -> beliefs.LocalLevel:
        return beliefs.LocalLevel(numpyro.sample("correlation", dist.Uniform(0, 1)), 1.0)

    target = inference.target(prior, from_arrays(y), separate="param")
    found = inference.predict(target, draws(1, 4, labels=[0, 1]), key=jax.random.key(1))
    empty = np.isnan(found["posterior_predictive"]["gradient"].values[0, 0])
    want = np.zeros((25, 2), bool)
    want[0, 0] = want[:3, 1] = True
    np.testing.assert_array_equal(empty, want)
    np.testing.assert_array_equal(found["log_likelihood"]["gradient"].values[0, 0] == 0, want)


@pytest.mark.usefixtures("x64")
def test_a_longer_stream_is_predicted_as_it_goes_on() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=(2 * laws.NUM_STEPS, 3))
    y[: laws.NUM_STEPS] = laws.streams()["gradient"]
    longer = TARGET._replace(stream=from_arrays(y, labels=laws.LABELS))
    posterior = draws(1, 4, labels=laws.LABELS)
    short, long = (
        inference.predict(t, posterior, key=jax.random.key(0))["log_likelihood"]["gradient"]
        for t in (TARGET, longer)
    )
    assert long.sizes["step"] == 120
    first = long.isel(step=slice(laws.NUM_STEPS))
    np.testing.assert_allclose(first, short, rtol=1e-12, atol=1e-14)
    assert (long.isel(step=slice(laws.NUM_STEPS, None)) != 0).all()


def test_only_a_density_can_be_predicted() -> None:
    def prior() -> beliefs.LocalLevel:
        return beliefs.LocalLevel(numpyro.sample("correlation", dist.Uniform(0, 1)))

    target = inference.target(prior, laws.streams(), separate="param")
    with pytest.raises(ValueError, match="LocalLevel has no predictive density"):
        inference.predict(target, draws(1, 4, labels=laws.LABELS), key=jax.random.key(0))


# --- whether to trust it ------------------------------------------------------------------------


def diagnosed(posterior: xr.Dataset, diverging: Any, separate: bool = True) -> xr.Dataset:
    target = TARGET if separate else inference.target(laws.prior, laws.streams())
    stats = xr.Dataset({"diverging": (posterior["correlation"].dims, diverging)}, posterior.coords)
    return diagnose(density(target), target, posterior, stats)


def test_a_number_whose_chains_disagree_did_not_converge_nor_its_unit(
    fit: inference.Fit,
) -> None:
    posterior = draws(4, 500, labels=laws.LABELS)
    posterior["correlation"].loc[{"param": "fast", "chain": 2}] *= 0.05
    diverging = np.zeros((4, 500, 3), bool)
    found = diagnosed(posterior, diverging)
    assert found["converged"].values.tolist() == [True, False, True]
    assert found["param"].values.tolist() == laws.LABELS
    table: Any = inference.summary(fit._replace(posterior=posterior, diagnostics=found))
    assert not fit._replace(diagnostics=found).converged
    assert table.index[~table["converged"]].tolist() == ["correlation[fast]"]
    assert (table["r_hat"] > 1.01).tolist() == (~table["converged"]).tolist()
    assert table["ess_bulk"].min() == found["ess_bulk"].min()
    # A divergence of one unit is one of that unit alone.
    diverging[1, 7, 2] = True
    posterior = draws(4, 500, labels=laws.LABELS)
    found = diagnosed(posterior, diverging)
    table = inference.summary(fit._replace(posterior=posterior, diagnostics=found))
    last = laws.LABELS[2]
    assert table.index[~table["converged"]].tolist() == [
        f"correlation[{last}]",
        f"signal_to_noise[{last}]",
    ]
    assert found["divergences"].values.tolist() == [0, 0, 1]
    assert found["converged"].values.tolist() == [True, True, False]


def test_too_few_draws_one_chain_and_one_that_stands_still_did_not_converge() -> None:
    few = diagnosed(draws(4, 30), np.zeros((4, 30), bool), separate=False)
    assert float(few["ess_bulk"]) < 400
    assert not few["converged"]
    # A chain cannot be compared with itself, however long.
    one = diagnosed(draws(1, 2000), np.zeros((1, 2000), bool), separate=False)
    assert not one["converged"]
    still = draws(4, 500)
    still["signal_to_noise"][:] = 1.5
    assert not diagnosed(still, np.zeros((4, 500), bool), separate=False)["converged"]
    assert diagnosed(draws(4, 500), np.zeros((4, 500), bool), separate=False)["converged"]


def test_summary_is_of_the_draws(fit: inference.Fit) -> None:
    table = inference.summary(fit)
    verdict = ["r_hat", "ess_bulk", "ess_tail", "converged"]
    assert table.columns.tolist() == ["mean", "sd", "5%", "50%", "95%", *verdict]
    assert len(table) == 9
    for name in ("correlation", "signal_to_noise", "process_variance"):
        for label in laws.LABELS:
            values = fit.posterior[name].sel(param=label).values
            row: Any = table.loc[f"{name}[{label}]"]
            want = [values.mean(), values.std(), *np.quantile(values, [0.05, 0.5, 0.95])]
            np.testing.assert_allclose(row.iloc[:5].astype(float), want, rtol=1e-5)
            r_hat: Any = arviz.rhat(values)  # of an array [chain, draw]
            assert row["r_hat"] == pytest.approx(float(r_hat), rel=1e-6)
            trusted = row["r_hat"] < 1.01 and min(row["ess_bulk"], row["ess_tail"]) >= 400
            diverged = fit.diagnostics["divergences"].sel(param=label) > 0
            assert row["converged"] == (trusted and not diverged)


def test_summary_of_scalars_has_their_names() -> None:
    target = inference.target(laws.prior, laws.streams())
    posterior = draws(2, 10)
    found = diagnosed(posterior, np.zeros((2, 10), bool), separate=False)
    state = State({}, jnp.ones(2), jnp.ones((2, 2)))
    fit = inference.Fit(target, posterior, posterior, found, state)
    assert inference.summary(fit).index.tolist() == ["correlation", "signal_to_noise"]


# --- plates -------------------------------------------------------------------------------------


def test_plates_name_the_dimensions_and_streams_their_labels() -> None:
    gradient = np.random.default_rng(4).normal(size=(30, 2, 3))
    labels = {"layer": ["in", "out"], "param": list("abc")}
    stream = xr.Dataset({"gradient": (("step", "layer", "param"), gradient)}, labels)

    def prior() -> beliefs.OrnsteinUhlenbeck:
        centre = numpyro.sample("centre", dist.Normal(0, 1))
        with numpyro.plate("kind", 2):
            numpyro.sample("weights", dist.Dirichlet(jnp.ones(4)))
        with numpyro.plate("layer", 2, dim=-2), numpyro.plate("param", 3, dim=-1):
            ratio = numpyro.sample("ratio", dist.LogNormal(centre, 1))
            numpyro.deterministic("doubled", 2 * ratio)
        return beliefs.OrnsteinUhlenbeck(0.5, ratio, 1.0)

    fit = inference.laplace(inference.target(prior, stream), key=jax.random.key(0), num_draws=20)
    assert fit.posterior["centre"].dims == ("chain", "draw")
    for name in ("ratio", "doubled"):
        assert fit.posterior[name].dims == ("chain", "draw", "layer", "param")
    assert fit.posterior["weights"].dims == ("chain", "draw", "kind", "weights_dim_1")
    assert fit.posterior.sizes["weights_dim_1"] == 4
    for name, values in labels.items():
        assert fit.posterior[name].values.tolist() == values
    # arviz.plot_rank asks for labels of every dimension.
    assert set(fit.posterior.coords) == set(fit.posterior.dims)
    assert fit.posterior["kind"].values.tolist() == [0, 1]
    np.testing.assert_allclose(fit.posterior["doubled"], 2 * fit.posterior["ratio"], rtol=1e-6)
    np.testing.assert_allclose(fit.posterior["weights"].sum("weights_dim_1"), 1, rtol=1e-5)
    found = inference.predict(fit.target, fit.posterior, key=jax.random.key(0))
    assert found["log_likelihood"]["gradient"].dims == ("chain", "draw", "step", "layer", "param")
    index = inference.summary(fit).index
    assert "ratio[out, b]" in index
    assert "centre" in index


# --- arviz --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(fit: inference.Fit) -> Any:
    with jax.numpy_rank_promotion("allow"):
        return inference.to_arviz(fit, key=jax.random.key(9))


def test_arviz_opens_all_groups(fit: inference.Fit, opened: Any) -> None:
    assert names(opened) == {
        "posterior",
        "sample_stats",
        "observed_data",
        "log_likelihood",
        "posterior_predictive",
    }
    for name, values in (
        ("posterior", fit.posterior),
        ("sample_stats", fit.sample_stats),
    ):
        xr.testing.assert_equal(group(opened, name), values)
    for name, verdict in fit.diagnostics.items():
        np.testing.assert_array_equal(group(opened, "sample_stats").attrs[str(name)], verdict)
    assert group(opened, "sample_stats")["diverging"].dims == ("chain", "draw", "param")
    observed = group(opened, "observed_data")["gradient"]
    np.testing.assert_array_equal(observed, laws.streams()["gradient"])
    assert group(opened, "posterior_predictive")["gradient"].dims == (
        "chain",
        "draw",
        "step",
        "param",
    )
    again = inference.to_groups(fit, key=jax.random.key(9))
    for name in ("log_likelihood", "posterior_predictive"):
        xr.testing.assert_equal(group(opened, name), again[name])


def test_arviz_reads_back_what_it_wrote(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "fit.nc"
    opened.to_netcdf(str(path), engine="h5netcdf")
    read: Any = arviz.from_netcdf(str(path), engine="h5netcdf")
    for name in names(opened):
        xr.testing.assert_equal(group(read, name).load(), group(opened, name))


# A few observations have much to say, which arviz announces: they are left out here.
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
@pytest.mark.parametrize("labels", [["fast", "loud"], laws.LABELS], ids=["complete", "missing"])
def test_arviz_leaves_one_out(opened: Any, labels: list[str]) -> None:
    observed = group(opened, "observed_data")["gradient"].sel(param=labels)
    seen = np.isfinite(observed.transpose("step", "param").values)
    densities = group(opened, "log_likelihood")["gradient"].sel(param=labels)
    densities = densities.transpose("chain", "draw", "step", "param").values[..., seen]
    groups = {
        "posterior": group(opened, "posterior").sel(param=labels),
        "log_likelihood": xr.Dataset({"gradient": (("chain", "draw", "where"), densities)}),
    }
    found: Any = arviz.loo(recording.to_container(groups), var_name="gradient", pointwise=True)
    points = found["elpd_i"] if hasattr(found, "elpd_i") else found["loo_i"]
    total = float(found.elpd_loo if hasattr(found, "elpd_loo") else found.elpd)
    assert total == pytest.approx(float(points.sum()), rel=1e-5)
    expected = np.stack([laws.leave_one_out(label) for label in labels], 1)[seen]
    trusted = found["pareto_k"].values < 0.5
    assert trusted.sum() > 50 * len(labels)
    # An average of 1600 weights whose logarithms differ by some tenths.
    np.testing.assert_allclose(points.values[trusted], expected[trusted], atol=0.05)


# --- arviz, on a fit that costs nothing ----------------------------------------------------------


@pytest.fixture(scope="module")
def two_fits() -> list[Any]:
    """Of a belief that was given displacements, by Laplace's approximation."""
    rng = np.random.default_rng(0)
    stream = from_arrays(rng.normal(size=(40, 2)), rng.normal(size=(40, 2)), labels=["a", "b"])

    def prior() -> beliefs.Secant:
        return beliefs.Secant(numpyro.sample("noise", dist.LogNormal(0, 1)), 1.0, 1.0)

    with jax.numpy_rank_promotion("allow"):
        target = inference.target(prior, stream, separate="param")
        fits = (inference.laplace(target, key=jax.random.key(i), num_draws=50) for i in (0, 1))
        return [inference.to_arviz(fit) for fit in fits]


OLD = arviz.__version__.startswith("0.")


@pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword")  # arviz 0.23 uses them
def test_fits_are_joined_and_become_tables(two_fits: list[Any]) -> None:
    """By functions of arviz 0.x, or of xarray, which arviz 1.x leaves that to."""
    if OLD:
        joined: Any = arviz.concat(*two_fits, dim="chain", reset_dim=True)
        table = two_fits[0].to_dataframe()
    else:
        parts = [group(fit, "posterior") for fit in two_fits]
        joined = {"posterior": xr.concat(parts, "chain")}
        table = group(two_fits[0], "posterior").to_dataframe()
    assert dict(group(joined, "posterior").sizes) == {"chain": 2, "draw": 50, "param": 2}
    assert len(table) in (50, 100)


@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")  # arviz 0.23 does
def test_arviz_draws_predictions_beside_what_was_observed(two_fits: list[Any]) -> None:
    """What the belief was given is no observation: nothing replicates it."""
    import matplotlib

    matplotlib.use("agg")
    assert set(group(two_fits[0], "observed_data")) == {"gradient"}
    assert set(group(two_fits[0], "constant_data")) == {"displacement"}
    if OLD:
        arviz.plot_ppc(two_fits[0], num_pp_samples=5)
    else:
        plots: Any = arviz
        plots.plot_ppc_dist(two_fits[0], num_samples=5)
        plots.plot_loo_pit(two_fits[0])
