"""The experiment on the memory of gradients: what it writes, and which streams it refuses."""

from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pytest

from beliefnav.recording import from_arrays
from experiments import gradient_noise, report
from experiments.gradient_noise import streams, training
from experiments.options import OptionError
from experiments.training import make_problem


@pytest.mark.slow
def test_quick_run_writes_all_of_its_contract(tmp_path: Path) -> None:
    metrics = report.perform(gradient_noise.run, gradient_noise.Config(quick=True, out=tmp_path))
    assert not report.failed(metrics)
    assert len(metrics["claims"]) == 3
    found = metrics["streams"]["digits"]
    for field in ("implied_beta1", "implied_beta2"):
        assert len(found[field]) == 3
        for stages in found[field].values():
            assert list(stages) == list(gradient_noise.STAGES)
            for median, low, high in stages.values():
                assert 0 < low < median < high < 1
    models = {"local level", "Ornstein-Uhlenbeck", "precision walk"}
    assert models == set(found["converged"]) == set(found["loo"])
    assert models < set(found["elpd"])
    assert all(0.8 < accuracy <= 1 for accuracy in found["retrained"].values())
    for figure in ("memory", "stream", "predictive", "comparison"):
        assert (tmp_path / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    assert arviz.from_netcdf(str(tmp_path / "digits_local_level.nc")) is not None


@pytest.mark.slow
def test_layers_that_were_not_asked_are_trained_with_the_memories_of_adam() -> None:
    config = gradient_noise.Config(quick=True, stage_steps=40)
    problem = make_problem(hidden=training.HIDDEN, validation=0.1)
    everywhere = {f"layers/{i}/weight": (0.9, 0.999) for i in (1, 3, 5)}
    first = {"layers/1/weight": (0.9, 0.999)}
    settings = {"everywhere": everywhere, "first": first}
    results = training.train_again(config, "digits", problem, settings)
    for rate, accuracies in results["everywhere"].test.items():
        assert 0.2 < float(accuracies.mean()) <= 1
        np.testing.assert_allclose(results["first"].test[rate], accuracies, atol=0.01)


def write(path: Path, gradient: Any, name: str = "gradient", dims: Any = ("step", "param")) -> Path:
    stream = from_arrays(gradient).rename({"gradient": name})
    stream = stream.rename(dict(zip(("step", "param"), dims, strict=True)))
    stream.to_netcdf(path, engine="h5netcdf")
    return path


RANDOM = np.random.default_rng(0).normal(size=(60, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": RANDOM, "name": "loss"}, "no variable 'gradient'"),
        (
            {"gradient": RANDOM, "dims": ("time", "param")},
            r"has dimensions \('step', 'param'\)",
        ),
        ({"gradient": RANDOM[:19]}, "19 steps are too few; at least 20"),
        ({"gradient": np.ones((60, 5))}, "every coordinate is constant"),
        ({"gradient": np.zeros((60, 5))}, "every coordinate is constant"),
        ({"gradient": np.full((60, 5), np.nan)}, "no gradient is finite"),
        ({"gradient": RANDOM[:, :3]}, "no layer has 4 coordinates"),
    ],
)
def test_streams_that_cannot_be_asked_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "stream.nc", **options)
    with pytest.raises(OptionError, match=message) as error:
        gradient_noise.run(gradient_noise.Config(stream=path, out=tmp_path))
    assert "stream.nc" in str(error.value)


def test_files_that_are_no_streams_are_refused(tmp_path: Path) -> None:
    (tmp_path / "stream.nc").write_text("not a stream")
    with pytest.raises(OptionError, match="cannot be read as NetCDF"):
        gradient_noise.run(gradient_noise.Config(stream=tmp_path / "stream.nc", out=tmp_path))
    with pytest.raises(FileNotFoundError, match="No stream file"):
        gradient_noise.run(gradient_noise.Config(stream=tmp_path / "none.nc", out=tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ("digits", "imagenet")}, "Unknown data set 'imagenet'"),
        ({"stage_steps": 30}, "stage_steps must be at least 40"),
        ({"coordinates": 2}, "coordinates must be at least 4"),
        ({"num_chains": 0}, "num_chains must be at least 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        gradient_noise.Config(**options)


def test_zeros_count_as_missing_and_silent_coordinates_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(1)
    gradient = rng.normal(size=(300, 12))
    gradient[:, 0] = 0.0  # an unused pixel
    gradient[rng.uniform(size=300) < 0.5, 1] = 0.0  # a unit that is off half of the time
    gradient[5, 2] = 0.0
    labels = [f"a[{i}]" for i in range(6)] + [f"b[{i}]" for i in range(3)] + ["c"] * 3
    labels[9:] = [f"c[{i}]" for i in range(3)]
    recording = from_arrays(gradient, labels=labels)
    config = gradient_noise.Config(coordinates=4, stage_steps=100)
    stream = streams.prepare(config, "file", recording, 3)
    assert stream.values["param"].values.tolist() == ["a[2]", "a[3]", "a[4]", "a[5]"]
    assert stream.left_out == {
        "a": {streams.SILENT: ["a[0]", "a[1]"]},
        "b": {streams.FEW: ["b[0]", "b[1]", "b[2]"]},
        "c": {streams.FEW: ["c[0]", "c[1]", "c[2]"]},
    }
    assert "a: left out 2 coordinates (constant, or missing or zero" in capsys.readouterr().out
    assert dict(stream.values.sizes) == {"step": 100, "param": 4, "stage": 3, "layer": 1}
    assert int(stream.values["gradient"].isnull().sum()) == 1
    assert stream.held_out == slice(80, None)
    assert stream.num_held_out == 4 * 20 * 3
