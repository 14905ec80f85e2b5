"""Figures of learning, and what all figures have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

WIDTH = 10.0
"""Width of a figure in inches."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
"""Okabe and Ito's colours, which remain distinct to the colour-blind."""


def learning_curves(trainings: Mapping[str, Any], path: Path) -> None:
    """Training loss and test accuracy per epoch: mean and range over seeds of every rule.

    Args:
        trainings: rule -> an object with ``train_loss`` and ``test_accuracy``, [seed, epoch].
        path: PNG file to write.
    """
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.8), layout="constrained")
    for name, training in trainings.items():
        epochs = np.arange(1, training.train_loss.shape[1] + 1)
        marker = "o" if len(epochs) < 8 else None
        for axes, values in ((left, training.train_loss), (right, training.test_accuracy)):
            (line,) = axes.plot(epochs, values.mean(0), marker=marker, label=name)
            axes.fill_between(
                epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.2, lw=0
            )
    left.set(yscale="log", xlabel="epoch", ylabel="training loss (nats)")
    right.set(xlabel="epoch", ylabel="test accuracy")
    right.legend(title="rule")
    lowest = min(training.test_accuracy[:, -1].min() for training in trainings.values())
    right.set_ylim(bottom=max(0.0, 1 - 3 * (1 - lowest)))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def gradient_posterior(
    groups: Mapping[str, "xr.Dataset"], rule: str, fitted_steps: tuple[float, float], path: Path
) -> None:
    """Recorded gradients with what the rule believed, and the fitted landscape model.

    Args:
        groups: ``observed_data``, ``filter_stats`` and ``posterior``.
        rule: name of the rule that was recorded.
        fitted_steps: the first and last step that the model was fitted to.
        path: PNG file to write.
    """
    plt = pyplot()
    posterior, stats = groups["posterior"], groups["filter_stats"]
    labels = posterior["param"].values
    figure, axes = plt.subplots(
        2, len(labels), figsize=(WIDTH, 5.6), layout="constrained", squeeze=False
    )
    for (top, bottom), label in zip(axes.T, labels, strict=True):
        observed = groups["observed_data"]["gradient"].sel(param=label)
        steps = observed["step"].values
        top.plot(steps, observed, ".", ms=2.5, color="0.6", label="gradient of a batch")
        mean = stats["gradient_mean"].sel(param=label)
        (line,) = top.plot(steps, mean, lw=1.2, label=f"{rule}: posterior mean")
        if "gradient_variance" in stats:
            sd = np.sqrt(stats["gradient_variance"].sel(param=label))
            band = {"color": line.get_color(), "alpha": 0.25, "lw": 0}
            top.fill_between(steps, mean - 2 * sd, mean + 2 * sd, label="± 2 sd", **band)
        top.axvspan(*fitted_steps, color="C3", alpha=0.07, lw=0, label="fitted by NUTS")
        top.set_title(label, fontsize=9)
        top.set_xlabel("step")
        draws = posterior.sel(param=label)
        bottom.plot(
            draws["autocorrelation"].values.ravel(),
            draws["signal_fraction"].values.ravel(),
            ".",
            ms=2,
            alpha=0.4,
            color="C3",
        )
        bottom.set(xlim=(0, 1), ylim=(0, 1), xlabel="correlation of the gradient")
    axes[0, 0].set_ylabel("gradient")
    axes[1, 0].set_ylabel("signal share of variance")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=len(names), loc="outside upper center", fontsize=8)
    figure.supxlabel(
        "Above: recorded gradients and the belief about them. Below: posterior draws of the"
        " landscape model fitted to the shaded steps; its prior is uniform.",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def pyplot() -> Any:
    """Matplotlib's pyplot, drawing to files."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot
