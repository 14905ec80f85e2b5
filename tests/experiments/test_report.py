"""metrics.json and the verdict on claims."""

import json

import pytest

from experiments import device_check, report


def test_claims_hold_up_to_their_tolerance() -> None:
    assert report.at_least("a", 0.95, 0.95).holds
    assert not report.at_least("a", 0.949, 0.95).holds
    assert report.at_least("a", 0.941, 0.95, 0.01).holds
    assert report.close("a", -0.01, 0.0, 0.01).holds
    assert not report.close("a", float("nan"), 0.0, 1.0).holds


def test_metrics_carry_provenance_and_claims(tmp_path, capsys: pytest.CaptureFixture) -> None:
    claim = report.close("difference", 0.5, 0.0, 0.1)
    report.write_metrics(tmp_path, seed=3, quick=False, claims=[claim], results={"extra": 1})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["claims"] == [claim._asdict()]
    assert (metrics["seed"], metrics["quick"], metrics["extra"]) == (3, False, 1)
    assert "jax" in metrics["versions"] and metrics["device"]
    assert "FAILS  difference" in capsys.readouterr().out


@pytest.mark.slow
def test_every_entry_point_agrees_with_float64(tmp_path) -> None:
    device_check.run(device_check.Config(size=2000, steps=20, repeats=1, out=tmp_path))
    claims = json.loads((tmp_path / "metrics.json").read_text())["claims"]
    assert len(claims) > 10
    assert all(claim["holds"] for claim in claims), claims
