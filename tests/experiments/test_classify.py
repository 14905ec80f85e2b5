"""The main job, from the command line to arviz."""

import json
import subprocess
import sys

import arviz
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from experiments import classify, data, networks, report
from experiments.options import OptionError


def _group(container, name: str) -> xr.Dataset:
    group = container[name]
    return group.dataset if isinstance(group, xr.DataTree) else group


@pytest.mark.slow
def test_quick_run_writes_all_of_its_contract(tmp_path) -> None:
    command = [sys.executable, "-m", "experiments", "classify", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["options"]["quick"] is True and metrics["seeds"] == {"seed": 0, "seeds": 1}
    epochs = classify.Config().num_epochs
    for result in metrics["rules"].values():
        for field in ("train_loss", "test_accuracy", "test_accuracy_std"):
            assert len(result[field]) == epochs
        assert result["train_loss"][-1] < 0.2 * result["train_loss"][0]
        assert result["seconds"] > 0
    assert list(metrics["rules"]) == list(classify.Config().rules)
    assert len(metrics["claims"]) == 3
    assert not report.failed(metrics)
    for figure in ("classify.png", "posterior.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")

    container = arviz.from_netcdf(str(tmp_path / "posterior.nc"))
    assert _group(container, "posterior")["autocorrelation"].dims == ("chain", "draw", "param")
    assert _group(container, "filter_posterior")["gradient"].dims == (
        "chain",
        "draw",
        "step",
        "param",
    )
    assert {"gradient"} == set(_group(container, "observed_data").data_vars)
    assert {"displacement"} == set(_group(container, "constant_data").data_vars)
    assert "gradient_mean" in _group(container, "filter_stats")
    assert arviz.summary(_group(container, "posterior")).shape[0] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "imagenet"], "digits, mnist1d, fashion_mnist"),
        (["--network", "transformer"], "mlp, cnn"),
        (["--rules", "sgd", "newton"], "known are: sgd, momentum, sign_sgd"),
        (["--learning-rates", "adam"], "--learning-rates"),
        (["--learning-rates", "learning_rate_free", "0.1"], "has no learning rate"),
        (["--data", "fashion_mnist", "--data-dir", "/nonexistent"], "dataset-fashion-mnist"),
    ],
)
def test_bad_options_say_what_is_known(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "experiments", "classify", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0
    text = (result.stderr + result.stdout).replace("│", " ")  # tyro frames its errors
    assert message in " ".join(text.split())
    assert "Traceback" not in result.stderr


def test_config_from_python_is_checked_too() -> None:
    with pytest.raises(OptionError, match="digits, mnist1d, fashion_mnist"):
        classify.Config(data="cifar")
    with pytest.raises(OptionError, match="batch_size"):
        classify.Config(batch_size=0)
    assert classify.Config(learning_rates={"adam": 0.01}).learning_rate("adam") == 0.01
    assert classify.Config().learning_rate("sgd") == 0.1
    assert classify.Config().learning_rate("learning_rate_free") is None


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_data_are_standardised_and_split(name: str) -> None:
    loaded = data.load(name)
    np.testing.assert_allclose(loaded.train_inputs.mean(), 0, atol=1e-4)
    np.testing.assert_allclose(loaded.train_inputs.std(), 1, atol=1e-4)
    assert loaded.num_classes == 10
    assert len(loaded.train_inputs) == len(loaded.train_labels)
    assert set(loaded.test_labels.tolist()) == set(range(10))
    rows = {row.tobytes() for row in loaded.train_inputs}
    assert sum(row.tobytes() in rows for row in loaded.test_inputs) == 0


def test_idx_files_are_read(tmp_path) -> None:
    rng = np.random.default_rng(0)
    expected = {}
    for part, count in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        header = np.array([count, 28, 28], ">i4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(
            b"\x00\x00\x08\x03" + header + images.tobytes()
        )
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(
            b"\x00\x00\x08\x01" + header[:4] + labels.tobytes()
        )
        expected[part] = images, labels
    loaded = data.load("fashion_mnist", tmp_path)
    images, labels = expected["train"]
    standardised = (images - images.mean()) / images.std()
    np.testing.assert_allclose(loaded.train_inputs, standardised, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(loaded.train_labels, labels)
    assert loaded.test_inputs.shape == (10, 28, 28)


@pytest.mark.parametrize("network", list(networks.NETWORKS))
@pytest.mark.parametrize(
    ("shape", "hidden"), [((8, 8), (64, 128)), ((40,), (64, 128)), ((28, 28), (256, 512))]
)
def test_networks_fit_their_inputs(
    network: str, shape: tuple[int, ...], hidden: tuple[int, int]
) -> None:
    make = networks.NETWORKS[network]
    module = eqx.filter_eval_shape(make, shape, 10, jax.random.key(0))
    assert eqx.filter_eval_shape(lambda m, x: m(x), module, jnp.zeros(shape)).shape == (10,)
    widths = [layer.bias.size for layer in module.layers if hasattr(layer, "bias")]
    full = shape == (28, 28)
    if network == "mlp":
        assert widths == [hidden[1], hidden[0], 10]
    else:
        assert widths == ([64, 64, 128, 128, 256, 10] if full else [16, 16, 32, 32, 64, 10])
