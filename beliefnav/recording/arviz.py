"""Recordings as arviz opens them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from beliefnav.recording.dataset import to_dataset

if TYPE_CHECKING:
    import xarray as xr

PyTree = Any

__all__ = ["to_arviz", "to_container", "to_groups"]


def to_arviz(
    opt_state: PyTree, params: PyTree, *, num_draws: int = 200, key: Array | None = None
) -> Any:
    """The recording as arviz opens it: InferenceData (arviz 0.x) or DataTree (arviz 1.x).

    Groups, all of dimensions (step, param):

    - ``observed_data``: ``gradient``;
    - ``constant_data``: ``displacement`` and ``params``;
    - ``filter_posterior``: draws of ``gradient``, of dimensions (chain, draw, step, param), from
      the Gaussian with the mean and variance believed after that step. They are independent from
      step to step: marginals of the filter, not paths. Absent where no gradient variance is
      believed;
    - ``filter_stats``: the other variables of `to_dataset`.

    Args:
        opt_state: as in `to_dataset`.
        params: as in `to_dataset`.
        num_draws: number of draws of ``filter_posterior``.
        key: random key of the draws; ``jax.random.key(0)`` if not given.

    Returns:
        The container of the installed arviz.

    Raises:
        ValueError: see `to_dataset`.
    """
    return to_container(to_groups(to_dataset(opt_state, params), num_draws=num_draws, key=key))


def to_groups(
    recording: "xr.Dataset", *, num_draws: int = 200, key: Array | None = None
) -> dict[str, "xr.Dataset"]:
    """The groups of `to_arviz`, to be joined with others before `to_container`.

    Args:
        recording: the result of `to_dataset`.
        num_draws: number of draws of ``filter_posterior``.
        key: random key of the draws; ``jax.random.key(0)`` if not given.

    Returns:
        Group name -> Dataset.
    """
    import xarray as xr

    groups = {
        "observed_data": recording[["gradient"]],
        "constant_data": recording[["displacement", "params"]],
    }
    stats = recording.drop_vars(["gradient", "displacement", "params"])
    if stats.data_vars:
        groups["filter_stats"] = stats
    if "gradient_variance" in stats:
        key = jax.random.key(0) if key is None else key
        mean, variance = stats["gradient_mean"].values, stats["gradient_variance"].values
        noise = np.asarray(jax.random.normal(key, (1, num_draws, *mean.shape)))
        groups["filter_posterior"] = xr.Dataset(
            {"gradient": (("chain", "draw", "step", "param"), mean + np.sqrt(variance) * noise)},
            coords={"chain": [0], "draw": np.arange(num_draws), **recording.coords},
        )
    return groups


def to_container(groups: Mapping[str, "xr.Dataset"]) -> Any:
    """Datasets as the container of the installed arviz, which has ``to_netcdf``.

    Args:
        groups: group name -> Dataset.

    Returns:
        InferenceData with arviz 0.x, DataTree with arviz 1.x.
    """
    import arviz
    import xarray as xr

    datasets: dict[str, Any] = dict(groups)
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(**datasets)
    return xr.DataTree.from_dict(datasets)
