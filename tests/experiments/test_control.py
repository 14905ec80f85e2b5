"""The three experiments on control: what they claim, what they write, what they refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import double_well, geometry, horizons, report
from experiments.horizons import memory
from experiments.options import OptionError


def _metrics(module: Any, folder: Path, figures: set[str]) -> dict[str, Any]:
    """Run an experiment quickly; its metrics, after what all experiments have in common."""
    metrics = report.perform(module.run, module.Config(quick=True, out=folder))
    assert {path.name for path in folder.iterdir()} == figures | {"metrics.json"}
    for figure in figures:
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    # Times depend on what else the machine does: a benchmark, not a test.
    timed = ("seconds for", "growth of the time")
    assert not [name for name in report.failed(metrics) if not name.startswith(timed)]
    return metrics


@pytest.mark.slow
@pytest.mark.usefixtures("rank_promotion")
def test_double_well(tmp_path: Path) -> None:
    metrics = _metrics(double_well, tmp_path, {"double_well.png"})
    # The paper's action to its last digit.
    assert abs(metrics["action"] - 0.16957144) < 1e-7
    assert metrics["newton_iterations"] <= 15
    assert metrics["action_gradient_norm"] < 1e-9
    assert np.linalg.norm(np.subtract(metrics["free_end_point"], [1.0574, 0.0])) < 1e-2
    assert [row["points"] for row in metrics["scaling"]] == [100, 1_000, 10_000, 100_000]
    assert all(row["iterations"] <= 20 and row["seconds"] > 0 for row in metrics["scaling"])
    assert set(metrics["speedup_over_gradient_descent"]) == {"50"}
    # Gradient descent stops as soon as it is within 1e-6, and not before.
    assert all(0 < row["descent_excess"] <= 1e-6 for row in metrics["gradient_descent"])
    assert metrics["local_optima"] >= 2


@pytest.mark.slow
@pytest.mark.usefixtures("rank_promotion")
def test_horizons(tmp_path: Path) -> None:
    metrics = _metrics(horizons, tmp_path, {"horizons.png"})
    for discount, expected in (("0", 2.000), ("1", 2.527), ("10", 3.890)):
        assert abs(metrics["rate_ratio"][discount] - expected) < 1e-3
    assert metrics["path_error"]["own"] < 1e-3
    shares = metrics["past_velocity_share"]
    for loss in ("quadratic", "not quadratic"):
        assert max(shares["unlimited"][loss].values()) < 1e-6 < 0.3 < shares["heavy_ball"][loss]
    pooled = metrics["pooled_over_directions"]
    assert abs(pooled["descent, H^(-1/2)"] / pooled["plan, discount 0"] - 1) < 1e-3
    known = metrics["noise"]["known_curvature"]
    np.testing.assert_allclose(known["searched"], known["predicted"], atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_past_velocity_says_something_only_where_there_is_memory() -> None:
    """The statistic itself: on paths without memory nothing, on those with an inertia much."""
    begin = memory.starts("quadratic", 0)
    plain = memory.integrated("quadratic", lambda x: memory.random_diagonal(len(x)), begin, 20)
    assert memory.past_share("quadratic", plain) < 1e-20
    ball = memory.heavy_ball("quadratic", begin, 20, 0)
    assert memory.past_share("quadratic", ball) > 0.3
    # Memory is not invented by what the regression leaves out: with noise on the positions of a
    # descent the past velocity explains something, and the statistic says so.
    blurred = plain.position + 0.1 * np.random.default_rng(0).normal(size=plain.position.shape)
    assert memory.past_share("quadratic", plain._replace(position=blurred)) > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("rank_promotion")
def test_geometry(tmp_path: Path) -> None:
    metrics = _metrics(geometry, tmp_path, {"geometry.png", "geometry_beyond.png"})
    expected = {
        "metric_rates": [14.1421, 2.0],
        "rotation_equilibrium": [0.0, -0.0192308],
        "decay_equilibrium": [0.0, -0.0192308],
        "rotation_discounted": [0.0018322, -0.0190546],
        "decay_discounted": [0.0, -0.0175439],
        "decay_rates_discounted": 10.188779,
    }
    for key, value in expected.items():
        # As many digits as are given.
        np.testing.assert_allclose(
            metrics[key], value, atol=4e-5 if key == "metric_rates" else 1e-6
        )
    for row in metrics["overshoot"]:
        assert abs(row["measured"] / row["derived"] - 1) < 1e-6
    assert metrics["coordinates"]["natural gradient"] < 1e-6
    assert metrics["coordinates"]["plain gradient"] > 0.05


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (double_well.Config, {"grid": 2}, "grid must be at least 3"),
        (double_well.Config, {"guesses": 0}, "guesses must be at least 1"),
        (double_well.Config, {"discount": -1.0}, "discount must be at least 0"),
        (horizons.Config, {"points_per_time": 3}, "points_per_time must be at least 20"),
        (geometry.Config, {"points_per_time": 3}, "points_per_time must be at least 200"),
        (geometry.Config, {"components": 0}, "components must be in 1 ... 20"),
        (geometry.Config, {"digits": (3, 3)}, "digits must be two different ones"),
    ],
)
def test_bad_options_are_named(config: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        config(**options)
