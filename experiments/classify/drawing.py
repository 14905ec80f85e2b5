"""The figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import figures

if TYPE_CHECKING:
    import xarray as xr


def draw_learning(trainings: Mapping[str, Any], path: Path) -> None:
    """Training loss and test accuracy per epoch: mean and range over seeds of every rule.

    Args:
        trainings: rule -> an object with ``train_loss`` and ``test_accuracy``, [seed, epoch].
        path: PNG file to write.
    """
    with figures.page(path, 1, 2) as (left, right):
        for name, training in trainings.items():
            epochs = np.arange(1, training.train_loss.shape[1] + 1)
            marker = "o" if len(epochs) < 8 else None
            figures.band(left, epochs, training.train_loss, marker=marker, label=name)
            figures.band(right, epochs, training.test_accuracy, marker=marker)
        left.set(yscale="log", xlabel="epoch", ylabel="training loss (nats)")
        left.legend(title="rule (mean and range over seeds)")
        lowest = min(training.test_accuracy[:, -1].min() for training in trainings.values())
        right.set(xlabel="epoch", ylabel="test accuracy", ylim=(max(0.0, 1 - 3 * (1 - lowest)), 1))


def draw_posterior(
    groups: Mapping[str, "xr.Dataset"], rule: str, fitted_steps: tuple[float, float], path: Path
) -> None:
    """Recorded gradients with what the rule believed, and the fitted landscape model.

    Args:
        groups: ``observed_data``, ``filter_stats`` and ``posterior``.
        rule: name of the rule that was recorded.
        fitted_steps: the first and last step that the model was fitted to.
        path: PNG file to write.
    """
    posterior, stats = groups["posterior"], groups["filter_stats"]
    labels = posterior["param"].values
    with figures.page(path, 3, len(labels), 8.0, squeeze=False) as axes:
        for (top, middle, bottom), label in zip(axes.T, labels, strict=True):
            observed = groups["observed_data"]["gradient"].sel(param=label)
            steps, mean = observed["step"].values, stats["gradient_mean"].sel(param=label)
            top.plot(steps, observed, ".", ms=2.5, color="0.7", label="gradient of a batch")
            for panel in (top, middle):
                panel.axvspan(*fitted_steps, color=figures.ORANGE, alpha=0.12, lw=0)
                panel.plot(steps, mean, lw=0.8, color=figures.BLUE, label=f"{rule}: posterior mean")
            if "gradient_variance" in stats:
                sd = np.sqrt(stats["gradient_variance"].sel(param=label))
                band = {
                    "color": figures.SKY,
                    "alpha": 0.6,
                    "lw": 0,
                    "label": "± 2 standard deviations",
                }
                for panel in (top, middle):
                    panel.fill_between(steps, mean - 2 * sd, mean + 2 * sd, **band)
            top.fill_between([], [], color=figures.ORANGE, alpha=0.3, label="fitted by NUTS")
            top.set_title(label)
            middle.set_xlabel("step")
            draws = posterior.sel(param=label)
            share, memory = draws["signal_fraction"], draws["autocorrelation"]
            style = {"ms": 2, "alpha": 0.5, "color": figures.ORANGE}
            bottom.plot(memory.values.ravel(), share.values.ravel(), ".", **style)
            bottom.set(xlim=(0, 1), ylim=(0, 1), xlabel="correlation of the gradient")
        for panel, name in zip(
            axes[:, 0], ("gradient", "belief, enlarged", "signal share of variance"), strict=True
        ):
            panel.set_ylabel(name)
        figures.legend_above(axes[0, 0])
        figures.note(
            axes[0, 0],
            "Above: recorded gradients, and the belief about their mean. Middle: the belief alone. "
            "Below: posterior draws\nof the landscape model that was fitted to the shaded steps; "
            "the prior of the model is uniform over the square.",
        )
