"""metrics.json, and the verdict on claims."""

import dataclasses
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import device_check, report
from experiments.options import OptionError, Options
from experiments.report import Claim, Report


def test_claims_hold_up_to_their_tolerance() -> None:
    assert report.at_least("a", 0.95, 0.95).holds
    assert not report.at_least("a", 0.949, 0.95).holds
    assert report.at_least("a", 0.941, 0.95, 0.01).holds
    assert report.at_most("a", 0.959, 0.95, 0.01).holds
    assert not report.at_most("a", 0.951, 0.95).holds
    assert report.close("a", -0.01, 0.0, 0.01).holds
    assert not report.close("a", 0.011, 0.0, 0.01).holds
    assert not report.close("a", float("nan"), 0.0, 1.0).holds


def test_claims_print_their_relation() -> None:
    assert str(report.at_least("a", 0.2028, 0.01)) == "0.2028 ≥ 0.01"
    assert str(report.at_least("a", 0.94, 0.95, 0.02)) == "0.94 ≥ 0.95 - 0.02"
    assert str(report.at_most("a", 0.2, 0.1, 0.3)) == "0.2 ≤ 0.1 + 0.3"
    assert str(report.close("a", 0.50031, 0.5, 0.01)) == "0.5003 = 0.5 ± 0.01"


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Options of an experiment that does nothing."""

    QUICK = {"size": 10, "names": ("one",)}
    LEAST = {"size": 2}

    size: int = 1000
    names: tuple[str, ...] = ("one", "two")


def test_quick_runs_have_other_defaults_and_say_so() -> None:
    assert (Config().size, Config().names) == (1000, ("one", "two"))
    quick = Config(quick=True)
    assert (quick.size, quick.names) == (10, ("one",))
    for size in (5, 500, 1000):  # what is asked for, even if it is the default of other runs
        assert Config(quick=True, size=size).size == size
    assert Config(quick=True, names=("two",)).names == ("two",)
    again = dataclasses.replace(Config(quick=True, size=500), seed=1)
    assert again.size == 500 and pickle.loads(pickle.dumps(again)) == again
    with pytest.raises(OptionError, match="size must be at least 2, got 1"):
        Config(size=1)


def test_what_results_are_made_of_becomes_plain() -> None:
    claim = Claim("a", 1.0, "≥", 0.0)
    given = {
        "array": np.arange(4.0).reshape(2, 2),
        "scalar": jnp.float32(0.5),
        "tuple": (claim, Config(out=Path("x"))),
        0.3: None,
        (0.9, 10.0): [np.bool_(True), np.int64(3)],
    }
    made = report.plain(given)
    assert json.loads(json.dumps(made)) == made
    assert made["array"] == [[0.0, 1.0], [2.0, 3.0]] and made["scalar"] == 0.5
    assert made["tuple"][0] == claim._asdict() and made["tuple"][1]["out"] == "x"
    assert made["0.3"] is None and made["0.9, 10"] == [True, 3]


def test_lists_of_numbers_take_one_line_and_stay_what_they_are() -> None:
    given = {"a": [1, 2.5, None], "b": [[1, 2], [3]], "c": [{"d": ["x [ y", "z  w"]}], "e": []}
    text = report.dumps(given)
    assert json.loads(text) == given
    assert '"a": [1, 2.5, null]' in text and "[1, 2],\n" in text


def perform(folder: Path, *claims: Claim, **results: Any) -> dict[str, Any]:
    return report.perform(lambda _: Report(claims, results), Config(out=folder, seed=3), "command")


def test_metrics_carry_provenance_and_claims(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = report.close("A difference, of two", 0.5, 0.0, 0.1)
    metrics = perform(tmp_path, claim, extra=np.ones(2))
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert list(metrics["claims"]) == ["a_difference_of_two"]
    (said,) = metrics["claims"].values()
    assert said["says"] == "0.5 = 0 ± 0.1" and said["holds"] is False
    names = ["one", "two"]
    assert metrics["options"] == {"seed": 3, "quick": False, "size": 1000, "names": names}
    assert metrics["seeds"] == {"seed": 3} and metrics["extra"] == [1, 1]
    assert metrics["command"] == "command" and metrics["commit"] == report.commit()
    assert metrics["seconds"] >= 0 and metrics["date"].endswith("+00:00")
    assert "jax" in metrics["versions"] and metrics["device"]
    assert report.failed(metrics) == ["A difference, of two"]
    assert "FAILS  A difference, of two: 0.5 = 0 ± 0.1" in capsys.readouterr().out


def test_entries_that_would_hide_one_another_are_refused(tmp_path: Path) -> None:
    twice = report.at_least("one, two", 1, 0), report.at_least("one two", 1, 0)
    for claims, results in ((twice, {}), ((), {"claims": 1}), ((), {"seconds": 1})):
        with pytest.raises(ValueError, match="two claims have one key"):
            perform(tmp_path, *claims, **results)
    assert not list(tmp_path.iterdir())


def test_without_a_checkout_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "__file__", str(tmp_path / "experiments" / "report.py"))
    assert report.commit() is None


@pytest.mark.slow
def test_every_entry_point_agrees_with_float64(tmp_path: Path) -> None:
    config = device_check.Config(size=2000, steps=20, repeats=1, out=tmp_path)
    metrics = report.perform(device_check.run, config)
    assert len(metrics["claims"]) > 10
    assert not report.failed(metrics)


def test_keys_are_written_as_a_path_names_them() -> None:
    written = report.plain({6_000_000: 1, 1e-3: 2, ("adam", 10): 3, "a.b": 4})
    assert written == {"6000000": 1, "0.001": 2, "adam, 10": 3, "a.b": 4}
