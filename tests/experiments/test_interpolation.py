"""The family is swept over what it says, and its ends are the rules they are named after."""

from pathlib import Path

import numpy as np
import pytest

from experiments import interpolation, report


def test_a_grid_has_every_combination_once() -> None:
    grid = interpolation.grid(learning_rate=[0.1, 1.0], discount=[1.0, 2.0, 3.0], eps_root=0.5)
    pairs = set(zip(grid["learning_rate"], grid["discount"], strict=True))
    assert len(pairs) == len(grid["discount"]) == 6
    assert set(grid["eps_root"]) == {0.5}


def test_padded_paths_have_one_shape_and_keep_their_values() -> None:
    paths = {
        "short": interpolation.grid(learning_rate=0.1, discount=[1.0, 2.0]),
        "long": interpolation.grid(learning_rate=[0.1, 0.2, 0.3]),
    }
    padded = interpolation.pad(paths)
    assert {v.shape for path in padded.values() for v in path.values()} == {(3,)}
    assert padded["short"].keys() == padded["long"].keys()
    np.testing.assert_array_equal(padded["short"]["discount"][:2], [1.0, 2.0])
    np.testing.assert_array_equal(padded["long"]["discount"], 0.0)  # what is not swept is Adam's


def test_one_half_of_the_seeds_chooses_and_the_other_is_reported() -> None:
    chooses = np.array([[0.5, np.nan], [0.2, 0.3], [0.9, 0.1]])  # [learning rate, discount]
    reported = np.array([[0.1, 0.1], [0.6, 0.1], [0.1, 0.7]])
    losses = np.stack([chooses.ravel(), reported.ravel()])
    swept = interpolation.Swept(losses, losses, 1 - losses)
    found = interpolation.best(swept, np.array([1.0, 2.0]), np.array([0.1, 0.2, 0.3]))
    assert [b["learning_rate"] for b in found] == [0.2, 0.3]
    assert [b["loss_that_chose"] for b in found] == [0.2, 0.1]
    assert [b["training_loss"] for b in found] == [0.6, 0.7]
    low = interpolation.lowest(found)
    assert (low["discount"], low["below_adam"], low["below_momentum"]) == (2.0, 0, 0)


@pytest.mark.slow
def test_the_quick_run_holds_its_claims(tmp_path: Path) -> None:
    metrics = report.perform(interpolation.run, interpolation.Config(quick=True, out=tmp_path))
    assert len(metrics["claims"]) == 8
    assert not report.failed(metrics)
    assert (tmp_path / "interpolation.png").stat().st_size > 10_000
