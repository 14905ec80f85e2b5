"""Recordings as the installed arviz opens them."""

from pathlib import Path
from typing import Any

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beliefnav import beliefs, control, navigator, recording, rules

local_level = beliefs.LocalLevel(0.8, noise_variance=2.0)
params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}


def recorded(optimizer: Any, num_steps: int = 6) -> Any:
    optimizer = recording.record(optimizer, coordinates={"w": [0, 4]}, capacity=5)
    update = jax.jit(optimizer.update)
    state = optimizer.init(params)
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        gradient = {"w": jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)}
        _, state = update(gradient, state, params)
    return state


@pytest.fixture(scope="module")
def state() -> Any:
    return recorded(navigator(0.1, local_level, control.myopic()))


def group(container: Any, name: str) -> Any:
    """A group as a Dataset, in either major of arviz."""
    return container[name].dataset if hasattr(container[name], "dataset") else container[name]


def names(container: Any) -> set[str]:
    groups = container.groups
    found: Any = groups() if callable(groups) else groups
    return {name.strip("/") for name in found} - {""}


def test_groups_hold_what_was_seen_and_believed(state: Any) -> None:
    data = recording.to_dataset(state, params)
    opened = recording.to_arviz(state, params)
    assert names(opened) == {"observed_data", "constant_data", "filter_posterior", "filter_stats"}
    assert set(group(opened, "observed_data")) == {"gradient"}
    assert set(group(opened, "filter_stats")) == set(data) - {"gradient", "displacement", "params"}
    assert set(group(opened, "constant_data")) == {"displacement", "params"}
    for name in ("observed_data", "constant_data", "filter_stats"):
        for variable, values in group(opened, name).items():
            assert values.dims == ("step", "param")
            np.testing.assert_array_equal(values, data[variable])
    draws = group(opened, "filter_posterior").gradient
    assert draws.dims == ("chain", "draw", "step", "param")
    assert dict(draws.sizes) == {"chain": 1, "draw": 200, "step": 5, "param": 2}
    np.testing.assert_array_equal(draws.step, [1, 2, 3, 4, 5])
    assert draws.param.values.tolist() == ["w[0,0]", "w[1,1]"]


def test_the_container_is_that_of_the_installed_major(state: Any) -> None:
    import xarray as xr

    opened = recording.to_arviz(state, params)
    if arviz.__version__.startswith("0."):
        assert isinstance(opened, arviz.InferenceData)
    else:
        assert isinstance(opened, xr.DataTree)


def test_draws_are_from_the_believed_gaussian(state: Any) -> None:
    data = recording.to_dataset(state, params)
    count = 4000
    opened = recording.to_arviz(state, params, num_draws=count, key=jax.random.key(1))
    draws = group(opened, "filter_posterior").gradient.values[0]
    mean, sd = data.gradient_mean.values, np.sqrt(data.gradient_variance.values)
    # Ten cells, five standard errors: 1 / sqrt(n) of the mean, 1 / sqrt(2 n) of the deviation.
    assert np.max(np.abs(draws.mean(0) - mean) / sd) < 5 / np.sqrt(count)
    assert np.max(np.abs(draws.std(0) / sd - 1)) < 5 / np.sqrt(2 * count)
    # Marginals, not paths: independent from step to step.
    noise = ((draws - mean) / sd)[:, :, 0]
    correlation = np.corrcoef(noise.T) - np.eye(noise.shape[1])
    assert np.max(np.abs(correlation)) < 5 / np.sqrt(count)


def test_draws_are_decided_by_the_key(state: Any) -> None:
    def draw(**options: Any) -> np.ndarray:
        opened = recording.to_arviz(state, params, num_draws=3, **options)
        return group(opened, "filter_posterior").gradient.values

    np.testing.assert_array_equal(draw(), draw(key=jax.random.key(0)))
    assert not np.any(draw() == draw(key=jax.random.key(1)))


def test_a_belief_without_gradient_variance_has_no_draws() -> None:
    opened = recording.to_arviz(recorded(rules.adam(0.1)), params)
    assert names(opened) == {"observed_data", "constant_data", "filter_stats"}


def test_an_optimizer_without_belief_has_observations_only() -> None:
    import optax

    opened = recording.to_arviz(recorded(optax.adam(0.1)), params)
    assert names(opened) == {"observed_data", "constant_data"}


def test_round_trip_through_a_file(state: Any, tmp_path: Path) -> None:
    opened = recording.to_arviz(state, params)
    path = str(tmp_path / "recording.nc")
    opened.to_netcdf(path, engine="h5netcdf")
    loaded: Any = arviz.from_netcdf(path)
    assert names(loaded) == names(opened)
    for name in names(opened):
        assert group(loaded, name).equals(group(opened, name))
        assert group(loaded, name).param.values.tolist() == ["w[0,0]", "w[1,1]"]
    assert group(loaded, "observed_data").attrs["steps_overwritten"] == 1
    loaded.close()


def test_arviz_summarises_the_draws(state: Any) -> None:
    data = recording.to_dataset(state, params)
    opened = recording.to_arviz(state, params, num_draws=500)
    table: Any = arviz.summary(group(opened, "filter_posterior"), kind="stats", round_to=6)
    assert len(table) == data.gradient.size
    # Five standard errors of 500 draws, and the six digits of the table.
    bound = 5 * np.sqrt(data.gradient_variance.values / 500).ravel() + 1e-6
    assert np.all(np.abs(table["mean"].to_numpy(float) - data.gradient_mean.values.ravel()) < bound)
