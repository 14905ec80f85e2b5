"""A target is its prior times the likelihood, in unconstrained coordinates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import xarray as xr
from numpyro import distributions as dist
from scipy import special, stats

from beliefnav import beliefs, filters, inference
from beliefnav.inference.targets import density
from beliefnav.recording import from_arrays
from tests import oracles
from tests.inference import laws

pytestmark = pytest.mark.usefixtures("rank_promotion")

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(30, 3))
D = RNG.normal(size=(30, 3))
C = RNG.normal(size=(30, 3))


def secant() -> beliefs.Secant:
    noise = numpyro.sample("noise_variance", dist.LogNormal(0.5, 1.5))
    scale = numpyro.sample("curvature_scale", dist.HalfNormal(2.0))
    return beliefs.Secant(noise, 1.3, scale**2, curvature_noise_variance=0.4)


def fixed() -> beliefs.Secant:
    return beliefs.Secant(1.0, 1.0, 1.0)


# --- the density --------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_potential_is_prior_times_likelihood_and_jacobian() -> None:
    streams = laws.streams()
    sampled = density(inference.target(laws.prior, streams, separate="param"))
    rng = np.random.default_rng(1)
    for unit in range(3):
        z = rng.normal(size=2)
        position = {"correlation": jnp.asarray(z[0]), "signal_to_noise": jnp.asarray(z[1])}
        flat = sampled.join(position)
        data = jax.tree.map(lambda x, unit=unit: x[unit], sampled.data)
        want = laws.log_joint(z, streams["gradient"].values[:, unit])
        # Float64 round-off of a 60 x 60 solve.
        np.testing.assert_allclose(-sampled.potential(flat, data), want, rtol=1e-9)
        found = sampled.constrain(flat, data)
        ratio, correlation = np.exp(z[1]), special.expit(z[0])
        assert set(found) == {"correlation", "signal_to_noise", "process_variance"}
        np.testing.assert_allclose(found["correlation"], correlation, rtol=1e-12)
        np.testing.assert_allclose(found["signal_to_noise"], ratio, rtol=1e-12)
        np.testing.assert_allclose(
            found["process_variance"], ratio * (1 - correlation**2), rtol=1e-12
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("order", [("step", "param"), ("param", "step")], ids=str)
def test_units_are_apart(order: tuple[str, str]) -> None:
    """Each has the potential it has alone, however the axes of the stream are ordered."""
    gradient, curvature = Y.copy(), C.copy()
    gradient[4, 0], gradient[9:12, 1], curvature[5, 2] = np.nan, np.inf, np.nan
    moved = D.copy()
    moved[-1] = np.nan  # after which nothing was observed
    stream = from_arrays(gradient, moved, curvature, labels=list("abc"))
    together = density(inference.target(secant, stream.transpose(*order), separate="param"))
    position = {"noise_variance": jnp.asarray(-0.3), "curvature_scale": jnp.asarray(0.6)}
    noise, scale = np.exp(-0.3), np.exp(0.6)
    log_prior = stats.norm.logpdf(-0.3, 0.5, 1.5) + stats.halfnorm.logpdf(scale, scale=2) + 0.6
    potentials = []
    for unit in range(3):
        data = jax.tree.map(lambda x, unit=unit: x[unit], together.data)
        potentials.append(together.potential(together.join(position), data))
        model = oracles.secant_model(
            gradient[:, unit],
            moved[:, unit],
            curvature[:, unit],
            noise_variance=noise,
            prior_gradient_variance=1.3,
            prior_curvature_variance=scale**2,
            curvature_noise_variance=0.4,
        )
        want = oracles.joint(model).log_likelihood + log_prior
        # Float64 round-off of a 60 x 60 solve.
        np.testing.assert_allclose(-potentials[-1], want, rtol=1e-9)
        alone = density(inference.target(secant, stream.isel(param=unit)))
        np.testing.assert_allclose(
            alone.potential(alone.join(position), alone.data), potentials[-1], rtol=1e-12
        )
    # Under one set of hyper-parameters for all, all likelihoods count and the prior once.
    joint = density(inference.target(secant, stream.transpose(*order)))
    want = np.sum(potentials) + 2 * log_prior
    np.testing.assert_allclose(joint.potential(joint.join(position), joint.data), want, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_without_integration_it_is_the_joint_density_of_the_program() -> None:
    """Latents next to hyper-parameters: y given x given the two, term by term."""
    y = Y[:, 0].copy()
    y[7] = np.nan
    target = inference.target(laws.prior, from_arrays(y), integrate=False)
    sampled = density(target)
    rng = np.random.default_rng(2)
    like = {name: x.shape for name, x in sampled.like.items()}
    assert like == {
        "correlation": (),
        "signal_to_noise": (),
        "initial_gradient": (),
        "gradient": (30,),
    }
    position = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in like.items()}
    z = {name: np.asarray(x) for name, x in position.items()}
    flat = sampled.join(position)
    correlation, ratio = special.expit(z["correlation"]), np.exp(z["signal_to_noise"])
    path = np.append(z["initial_gradient"], z["gradient"])
    step = np.sqrt(ratio * (1 - correlation**2))
    want = stats.logistic.logpdf(z["correlation"]) + stats.norm.logpdf(np.log(ratio), scale=2)
    want += stats.norm.logpdf(path[0], scale=np.sqrt(ratio))
    want += stats.norm.logpdf(path[1:], correlation * path[:-1], step).sum()
    want += np.nansum(stats.norm.logpdf(y, path[1:], 1.0))
    np.testing.assert_allclose(-sampled.potential(flat, sampled.data), want, rtol=1e-12)
    assert sampled.dims["gradient"] == ("step",)
    found = sampled.constrain(flat, sampled.data)
    np.testing.assert_allclose(found["gradient"], z["gradient"], rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("integrate", [True, False], ids=["integrated", "sampled"])
def test_moves_that_are_not_used_do_not_matter_and_readings_are_not_lost(integrate: bool) -> None:
    def potential(*others: Any) -> Any:
        stream = from_arrays(Y[:, 0], *others)
        sampled = density(inference.target(laws.prior, stream, integrate=integrate))
        position = {name: jnp.full(x.shape, 0.3) for name, x in sampled.like.items()}
        return sampled.potential(sampled.join(position), sampled.data)

    np.testing.assert_array_equal(potential(D[:, 0]), potential())
    with pytest.raises(ValueError, match="Cannot use curvature= .* no part of it reads a second"):
        potential(D[:, 0], C[:, 0])


@pytest.mark.usefixtures("x64")
def test_a_hierarchy_shares_and_splits_what_its_plates_say() -> None:
    """Observations [layer, param], a ratio for each layer, a correlation for each param."""
    gradient = RNG.normal(size=(25, 2, 3))
    stream = xr.Dataset({"gradient": (("step", "layer", "param"), gradient)})

    def prior() -> beliefs.OrnsteinUhlenbeck:
        centre = numpyro.sample("centre", dist.Normal(0, 1))
        with numpyro.plate("layer", 2, dim=-2):
            ratio = numpyro.sample("ratio", dist.LogNormal(centre, 1))
        with numpyro.plate("param", 3, dim=-1):
            correlation = numpyro.sample("correlation", dist.Uniform(0, 1))
        return beliefs.OrnsteinUhlenbeck(correlation, ratio * (1 - correlation**2), 1.0)

    sampled = density(inference.target(prior, stream))
    assert sampled.dims["centre"] == ()
    assert sampled.dims["ratio"][0] == "layer"
    assert sampled.dims["correlation"] == ("param",)
    rng = np.random.default_rng(3)
    position = {name: jnp.asarray(rng.normal(size=x.shape)) for name, x in sampled.like.items()}
    z = {name: np.asarray(x) for name, x in position.items()}
    flat = sampled.join(position)
    want = stats.norm.logpdf(z["centre"]) + stats.norm.logpdf(z["ratio"], z["centre"]).sum()
    want += stats.logistic.logpdf(z["correlation"]).sum()
    for layer in range(2):
        for param in range(3):
            correlation = special.expit(z["correlation"][param])
            ratio = np.exp(z["ratio"][layer, 0])
            want += oracles.ornstein_uhlenbeck(
                gradient[:, layer, param], correlation, ratio * (1 - correlation**2), 1.0
            ).log_likelihood
    np.testing.assert_allclose(-sampled.potential(flat, sampled.data), want, rtol=1e-9)


# --- the stream ---------------------------------------------------------------------------------


def test_stream_labels_its_arrays() -> None:
    one = from_arrays(Y, D, C, labels=list("abc"))
    assert set(one) == {"gradient", "displacement", "curvature"}
    for name, values in (("gradient", Y), ("displacement", D), ("curvature", C)):
        assert one[name].dims == ("step", "param")
        np.testing.assert_array_equal(one[name], values)
    assert one["param"].values.tolist() == ["a", "b", "c"]
    assert from_arrays(Y)["param"].values.tolist() == [0, 1, 2]
    assert from_arrays(Y[:, 0])["gradient"].dims == ("step",)


@pytest.mark.parametrize(
    "arrays",
    [(Y, D[:, 0]), (Y, D, C[:-1]), (Y[0, 0],), (np.zeros((3, 2, 1)),)],
    ids=["fewer axes", "shorter", "scalar", "more axes"],
)
def test_arrays_of_a_stream_have_one_shape(arrays: Any) -> None:
    with pytest.raises(ValueError, match=r"\[step\] or \[step, param\] of one shape, got"):
        from_arrays(*arrays)


def test_informative_are_those_with_different_observations_that_are_not_mostly_zeros() -> None:
    y = Y[:, :1] * np.ones(7)
    y[:, 1] = 2.0
    y[:, 2] = np.nan
    y[1:, 3] = np.inf
    y[2:, 4] = np.nan
    y[: len(y) // 2, 5] = 0
    y[: len(y) // 2 + 1, 6] = 0
    stream = from_arrays(y, labels=list("abcdefg"))
    says = inference.informative(stream)
    assert says.dims == ("param",)
    np.testing.assert_array_equal(says, [True, False, False, False, True, True, False])
    kept = stream.isel(param=says.values)
    assert kept["param"].values.tolist() == ["a", "e", "f"]
    inference.target(laws.prior, kept, separate="param")


# --- what does not fit --------------------------------------------------------------------------


def without(stream: xr.Dataset, **values: Any) -> xr.Dataset:
    """A stream with other values in some columns of its gradient."""
    gradient = stream["gradient"].copy()
    for label, value in values.items():
        gradient.loc[{"param": label}] = value
    return stream.assign(gradient=gradient)


LABELLED = from_arrays(Y, D, labels=list("abc"))


@pytest.mark.parametrize(
    ("stream", "match"),
    [
        (LABELLED.drop_vars("gradient"), "no variable 'gradient'; it has: displacement"),
        (LABELLED.rename(step="time"), r"dimensions \('step', 'param'\), found \('time', 'param'"),
        (
            LABELLED.assign(displacement=LABELLED["displacement"].isel(param=0, drop=True)),
            r"displacement of a stream has the dimensions of its gradient.*found \('step',\)",
        ),
        (LABELLED.isel(step=slice(19)), "has 19 steps; inference needs at least 20"),
        (
            without(LABELLED, b=1.0),
            r"constant, never observed or mostly 0 in b \(1 of 3 coordinates\)",
        ),
        (without(LABELLED, a=np.nan, c=0.0), r"mostly 0 in a, c \(2 of 3 coordinates\)"),
        (without(LABELLED, a=np.nan, b=0.0, c=0.0), r"in a, b, c \(3 of 3 coordinates\)"),
        (
            LABELLED.isel(param=0).fillna(0) * 0,
            r"constant, never observed or mostly 0 \(1 of 1 coord",
        ),
        (
            without(LABELLED, b=1.0).drop_vars("param"),
            r"constant, never observed or mostly 0.*\(1 of 3 coordinates\)",
        ),
    ],
    ids=[
        "no gradient",
        "no step",
        "other dimensions",
        "short",
        "constant",
        "unobserved",
        "nothing",
        "one",
        "no labels",
    ],
)
def test_streams_that_say_nothing_are_refused(stream: xr.Dataset, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        inference.target(laws.prior, stream)


def test_a_silent_stream_of_many_coordinates_is_named_in_short() -> None:
    stream = from_arrays(np.zeros((30, 9)))
    with pytest.raises(ValueError, match=r"in 0, 1, 2, 3, 4, \.\.\. \(9 of 9 coordinates\)"):
        inference.target(laws.prior, stream)


@pytest.mark.parametrize("separate", ["step", "layer"])
def test_only_a_dimension_of_the_gradient_can_be_taken_apart(separate: str) -> None:
    with pytest.raises(ValueError, match=f"separate='{separate}' is not .* there are: 'param'"):
        inference.target(laws.prior, LABELLED, separate=separate)
    with pytest.raises(ValueError, match=f"separate='{separate}' is not .* there are: none"):
        inference.target(laws.prior, LABELLED.isel(param=0), separate=separate)


def test_a_belief_about_motion_needs_the_displacement() -> None:
    with pytest.raises(ValueError, match="stream without displacement. This is because"):
        inference.target(fixed, LABELLED.drop_vars("displacement"))


@pytest.mark.parametrize("order", [("step", "param"), ("param", "step")], ids=str)
def test_every_displacement_but_the_last_must_be_finite(order: tuple[str, str]) -> None:
    for step, param in ((0, 0), (28, 2)):
        moved = D.copy()
        moved[step, param] = np.nan
        stream = from_arrays(Y, moved).transpose(*order)
        with pytest.raises(ValueError, match="displacement has entries that are not finite"):
            inference.target(fixed, stream)
        inference.target(laws.prior, stream)  # which does not use it
    moved = D.copy()
    moved[-1] = np.nan
    inference.target(fixed, from_arrays(Y, moved).transpose(*order))


@pytest.mark.parametrize("returned", [None, 3.0, {"noise_variance": 1.0}], ids=str)
def test_a_prior_returns_a_belief(returned: Any) -> None:
    with pytest.raises(ValueError, match="prior is a NumPyro program that returns a belief"):
        inference.target(lambda: returned, LABELLED)


NO_PROGRAM = r"Cannot simulate or sample the latents of Filter.*program\(stream\)"


def test_a_belief_without_a_program_cannot_be_sampled_with_its_latents() -> None:
    """Only its filter is known, which is enough to integrate them out."""
    belief = laws.prior

    def prior() -> Any:
        return belief().filter()

    target = inference.target(prior, LABELLED, integrate=False)
    with pytest.raises(
        ValueError, match=r"Cannot simulate or sample the latents of Filter.*program\(stream\)"
    ):
        density(target)
    assert set(density(target._replace(integrate=True)).like) == {"correlation", "signal_to_noise"}
    with pytest.raises(
        ValueError, match=r"Cannot simulate or sample the latents of Filter.*program\(stream\)"
    ):
        inference.simulate(prior, key=jax.random.key(0), num_steps=5)


# --- simulation ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_simulated_streams_have_the_covariance_of_the_model() -> None:
    number = 20_000
    _, recording = inference.simulate(
        lambda: beliefs.OrnsteinUhlenbeck(0.8, 0.3, 0.7),
        key=jax.random.key(0),
        num_steps=4,
        shape=(number,),
    )
    assert recording.gradient.shape == (4, number)
    want = oracles.ornstein_uhlenbeck_covariance(4, 0.8, 0.3) + 0.7 * np.eye(4)
    # Standard error of a covariance: at most sqrt(2) times the variance over sqrt(number).
    error = np.sqrt(2 / number) * want[0, 0]
    np.testing.assert_allclose(np.cov(recording.gradient), want, atol=5 * error)


def test_simulation_is_of_the_hyper_parameters_that_it_reports() -> None:
    keys = jax.random.split(jax.random.key(1), 2000)
    values, recording = jax.jit(
        jax.vmap(lambda key: inference.simulate(laws.prior, key=key, num_steps=3))
    )(keys)
    assert stats.kstest(values["correlation"], "uniform").pvalue > 0.01
    assert stats.kstest(np.log(values["signal_to_noise"]) / 2, "norm").pvalue > 0.01
    np.testing.assert_allclose(
        values["process_variance"],
        values["signal_to_noise"] * (1 - values["correlation"] ** 2),
        rtol=1e-5,  # float32
    )
    # A stationary gradient of variance signal_to_noise, seen through noise of variance 1.
    scale = np.sqrt(values["signal_to_noise"] + 1)
    for y in np.asarray(recording.gradient).T:
        assert stats.kstest(y / scale, "norm").pvalue > 0.01


def test_simulation_along_a_displacement_returns_it_and_the_second_sensor() -> None:
    values, recording = inference.simulate(secant, key=jax.random.key(2), displacement=D)
    assert set(values) == {"noise_variance", "curvature_scale"}
    np.testing.assert_array_equal(recording.displacement, D)
    assert recording.gradient.shape == recording.curvature.shape == D.shape
    again = inference.simulate(secant, key=jax.random.key(2), displacement=D)
    jax.tree.map(np.testing.assert_array_equal, again, (values, recording))
    other = inference.simulate(secant, key=jax.random.key(3), displacement=D)[1]
    assert not np.allclose(other.gradient, recording.gradient)
    density_ = filters.log_likelihood(fixed(), recording.gradient, recording.displacement)
    assert np.isfinite(density_).all()


def test_simulation_needs_a_length() -> None:
    with pytest.raises(ValueError, match="simulate: OrnsteinUhlenbeck needs num_steps"):
        inference.simulate(laws.prior, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"simulate: Secant needs a displacement \[step, ...\]"):
        inference.simulate(fixed, key=jax.random.key(0), num_steps=5)


# --- names under which draws cannot be kept -----------------------------------------------------


@pytest.mark.parametrize("name", ["draw", "chain", "step", "param", "log_likelihood", "layer/rate"])
def test_a_site_whose_draws_could_not_be_kept_is_refused(name: str) -> None:
    """Before anything is sampled: a Dataset, a file or a DataTree would refuse them afterwards."""

    def prior() -> beliefs.LocalLevel:
        return beliefs.LocalLevel(0.9, numpyro.sample(name, dist.LogNormal(0, 1)))

    with pytest.raises(ValueError, match=f"draws of the site '{name}'.*rename it"):
        inference.target(prior, laws.streams(), separate="param" if name != "param" else None)


@pytest.mark.parametrize(
    ("name", "size"), [("draw", 3), ("chain", 3), ("step", 3), ("param", 2), ("a/b", 3)]
)
def test_a_plate_whose_name_is_taken_is_refused(name: str, size: int) -> None:
    def prior() -> beliefs.LocalLevel:
        with numpyro.plate(name, size):
            noise = numpyro.sample("noise", dist.LogNormal(0, 1))
        return beliefs.LocalLevel(0.9, jnp.mean(noise))

    with pytest.raises(ValueError, match=f"draws of the plate '{name}'"):
        inference.target(prior, laws.streams())


def test_a_plate_over_the_coordinates_of_the_stream_is_theirs() -> None:
    def prior() -> beliefs.LocalLevel:
        with numpyro.plate("param", 3):
            return beliefs.LocalLevel(0.9, numpyro.sample("noise", dist.LogNormal(0, 1)))

    sampled = density(inference.target(prior, laws.streams()))
    assert sampled.dims["noise"] == ("param",)


def test_a_prior_that_samples_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a prior that samples nothing"):
        density(inference.target(lambda: beliefs.LocalLevel(0.9, 1.0), laws.streams()))


def test_an_array_in_the_place_of_a_stream_is_refused_in_a_line() -> None:
    with pytest.raises(
        TypeError, match=r"^Cannot infer from a stream of type ndarray.*from_arrays"
    ):
        inference.target(laws.prior, np.zeros((30, 2)))  # pyright: ignore[reportArgumentType]
