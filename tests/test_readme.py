"""The README's example runs as it stands, and what it says of it is so."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_runs_and_is_adam() -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    params: Any = {"w": jnp.array([3.0, -2.0])}
    adam = optax.adam(1e-1, eps=1e-8)
    state = adam.init(params)
    for _ in range(100):
        updates, state = adam.update({"w": 2 * params["w"]}, state)
        params = optax.apply_updates(params, updates)
    # Float32 rounding of optax's 1 - b2**t, a relative 5e-5 at the first step.
    np.testing.assert_allclose(names["params"]["w"], params["w"], atol=1e-3)


def test_a_call_is_explained_and_built_again(capsys: pytest.CaptureFixture[str]) -> None:
    _, code, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    printed = " ".join(capsys.readouterr().out.split())
    for fact in ("memory 10 steps", "memory 1,000 steps", "0 observations", "69,314 steps"):
        assert fact in printed
    params: Any = jnp.array([3.0, -2.0])
    peer = optax.lion(1e-3, weight_decay=0.0)
    for optimizer in (names["optimizer"], peer):
        updates: Any = optimizer.update(params, optimizer.init(params), params)[0]
        np.testing.assert_allclose(updates, [-1e-3, 1e-3], rtol=1e-6)


def test_the_curvature_is_learned_from_gradients() -> None:
    _, _, code, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    smoothed, curvature = names["smoothed"], names["curvature"]
    deviation = np.sqrt(smoothed.curvature_variance[-1])
    # Three curvatures within four standard deviations; the steepest is known to a tenth.
    assert (np.abs(smoothed.curvature_mean[-1] - curvature) < 4 * deviation).all()
    assert deviation[2] < 1 < curvature[2] / 5
    believed = names["posterior"](names["state"]).curvature_mean
    assert believed[0] < believed[1] < believed[2]


def test_the_plan_escapes_and_the_rotation_traps() -> None:
    *_, code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    best = names["plan"](names["guesses"]).best
    # The global minimum, to what is left of the way after four units of time.
    np.testing.assert_allclose(best.params[-1], [1.0574, 0.0], atol=1e-2)
    # 4 / (4 + 100 - 10i) of -0.5i, in float32.
    np.testing.assert_allclose(names["policy"].equilibrium, [0.0018322, -0.0190546], atol=1e-6)


def test_figures_and_files_that_it_names_exist() -> None:
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (Path(__file__).parents[1] / path).exists(), path


@pytest.mark.usefixtures("rank_promotion")
def test_the_hyper_parameters_are_learned(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, _, code, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert "correlation" in capsys.readouterr().out
    low, high = names["fit"].posterior["correlation"].quantile([0.005, 0.995]).values
    assert low < 0.9 < high


def test_a_switch_that_nobody_tells_of_is_suspected(capsys: pytest.CaptureFixture[str]) -> None:
    *_, code, _, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(capsys.readouterr().out.split()) >= 5
    suspicion, params = names["suspicion"], names["params"]
    assert suspicion[50] > 0.99
    assert np.delete(suspicion, 50).max() < 0.5
    # The steepest weight is where the optimum was, then where it is.
    np.testing.assert_allclose(params[[49, 99], 0], [1.0, -1.0], atol=0.2)


def test_a_network_is_reset_when_its_task_switches() -> None:
    *_, code, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    suspicion = np.array(names["suspicion"])
    assert suspicion[400] > 0.99
    assert np.delete(suspicion, 400).max() < 0.5
