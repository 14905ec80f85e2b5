"""The experiment on beliefs about curvature: what it claims, what it writes, what it refuses."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from beliefnav.beliefs import Posterior
from experiments import curvature, report
from experiments.options import OptionError


@pytest.mark.slow
def test_quick_run_holds_its_claims(tmp_path: Path) -> None:
    metrics = report.perform(curvature.run, curvature.Config(quick=True, out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"curvature.png", "metrics.json"}
    assert not report.failed(metrics)
    assert len(metrics["claims"]) == len(curvature.NOISE_VARIANCES) + 2
    for beliefs in metrics["rank_correlation"].values():
        assert len(beliefs) == 8
        # The curvature of a cross-entropy network is mostly Gauss-Newton: that sensor must see it.
        assert beliefs["secant + Gauss-Newton sensor"]["within"] > 0.8


def test_coverage_is_of_the_central_interval_of_90_percent() -> None:
    """Truths at quantiles of a standard normal: those from 5 % to 95 % lie inside."""
    quantiles = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    of_params = curvature.Calibration(quantiles, np.zeros(1000), np.ones(1000))
    assert of_params.coverage == pytest.approx(0.9)
    posterior = Posterior(
        curvature_mean={"w": jnp.ones(1000)}, curvature_variance={"w": jnp.full(1000, 4.0)}
    )
    assert curvature.coverage(posterior, {"w": 1 + 2 * quantiles}) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_params": 10}, "num_params must be at least 1000"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"network_steps": 3}, "network_steps must be at least 60"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        curvature.Config(**options)
