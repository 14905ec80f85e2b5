"""Figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, WIDTH, pyplot
from experiments.plasticity.methods import METHODS
from experiments.plasticity.results import AT_ONCE, Result, interval, last

MAIN = {
    "adam_3e-3": (BLACK, "Adam 3e-3"),
    "l2_init": (ORANGE, "L2-Init"),
    "continual_backprop": (PURPLE, "continual backprop"),
    "oracle": (SKY, "oracle (told when)"),
    "two_hypothesis": (GREEN, "two hypotheses"),
    "hazard_filter": (BLUE, "hazard filter"),
}
ABLATIONS = {
    "hazard_filter": (BLUE, "hazard filter"),
    "to_zero": (ORANGE, "pull to zero"),
    "variance_only": (GREEN, "forgets, no pull"),
    "mean_only": (RED, "pull, does not forget"),
    "no_hazard": (BLACK, "hazard 0"),
}
KINDS = {"field": BLACK, "told": SKY, "ours": BLUE, "ablation": ORANGE, "reference": BLACK}

Results = Mapping[str, Result]


def draw(found: Mapping[str, Results], folder: Path) -> None:
    """Draw what there is."""
    labels = found.get("random_labels", {})
    if labels:
        curves(labels, folder / "accuracy.png")
        networks(labels, folder / "networks.png")
    if "two_hypothesis" in labels:
        around_switches(labels["two_hypothesis"], folder / "switches.png")
    if len(found) > 1:
        overview(found, folder / "streams.png")


def curves(of: Results, path: Path) -> None:
    """Online accuracy of every task: main methods, and parts of the hazard filter."""
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 3.8), sharey=True, layout="constrained")
    for axes, shown, title in zip(
        panels, (MAIN, ABLATIONS), ("methods", "parts of the hazard filter"), strict=True
    ):
        for name, (color, label) in shown.items():
            if name in of:
                _band(axes, of[name].lives.online, color, label)
        axes.set(xlabel="task", title=title)
        axes.legend(fontsize=8, ncols=2, loc="upper center")
    panels[0].set(ylabel="online accuracy", ylim=(0, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def networks(of: Results, path: Path) -> None:
    """What becomes of the networks: dead units, rank, norm, distance from the start."""
    plt = pyplot()
    figure, panels = plt.subplots(1, 4, figsize=(WIDTH, 3.2), layout="constrained")
    titles = {
        "dead": "dead units (share)",
        "rank": "effective rank",
        "norm": "norm",
        "distance": "distance from the start",
    }
    for axes, (field, title) in zip(panels, titles.items(), strict=True):
        for name, (color, label) in MAIN.items():
            if name in of:
                _band(axes, getattr(of[name].lives, field), color, label)
        axes.set(xlabel="task", title=title)
        axes.title.set_fontsize(9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def around_switches(result: Result, path: Path) -> None:
    """The believed probability of a switch before and after one: every switch, and their mean."""
    plt = pyplot()
    before = AT_ONCE
    switch = result.lives.switch_probability  # [seed, task, step]
    around = np.concatenate([switch[:, :-1, -before:], switch[:, 1:, : AT_ONCE + 1]], -1)
    around = around.reshape(-1, around.shape[-1])
    steps = np.arange(-before, AT_ONCE + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.4), layout="constrained")
    left.plot(steps, around.T, color="0.8", lw=0.3)
    left.plot(steps, around.mean(0), color=GREEN, label="mean")
    left.axvline(0, color="0.5", lw=0.8, ls=":")
    left.set(xlabel="steps after the task has switched", ylabel="probability of a switch, = reset")
    left.legend(fontsize=8)
    peak = switch.max(-1)
    right.plot(np.arange(1, 1 + len(peak[0])), peak.T, ".", color="0.6", ms=3)
    right.set(xlabel="task", ylabel="largest probability in a task", ylim=(-0.02, 1.05))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def overview(found: Mapping[str, Results], path: Path) -> None:
    """Score in the last tenth of the tasks, of every method on every stream, with intervals."""
    plt = pyplot()
    names = list(dict.fromkeys(m for of in found.values() for m in of))
    figure, panels = plt.subplots(
        1,
        len(found),
        figsize=(1.3 * WIDTH, 0.24 * len(names) + 1.2),
        sharey=True,
        layout="constrained",
    )
    for axes, (stream, of) in zip(np.atleast_1d(panels), found.items(), strict=True):
        for row, name in enumerate(names):
            if name in of:
                mean, low, high = interval(last(of[name].lives))
                color = KINDS[METHODS[name].kind]
                axes.plot([low, high], [row, row], color=color, lw=1)
                axes.plot(mean, row, "o", color=color, ms=4)
        axes.set_title(stream.replace("_", "\n"), fontsize=8)
        axes.grid(axis="y", lw=0.3)
        axes.tick_params(labelsize=7)
        if stream == "slow_regression":
            axes.set(xlabel="square error", xlim=(0, 0.03))
        else:
            axes.set(xlabel="accuracy")
    first: Any = np.atleast_1d(panels)[0]
    first.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    first.invert_yaxis()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _band(axes: Any, values: np.ndarray, color: str, label: str) -> None:
    """Mean over seeds [seed, task], with its 95 % interval."""
    tasks = np.arange(1, 1 + values.shape[1])
    mean, low, high = np.array([interval(column) for column in values.T]).T
    axes.plot(tasks, mean, color=color, label=label)
    axes.fill_between(tasks, low, high, color=color, alpha=0.2, lw=0)
