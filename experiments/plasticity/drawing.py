"""Figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import figures
from experiments.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, WIDTH
from experiments.plasticity.methods import METHODS
from experiments.plasticity.results import AT_ONCE, Result, last
from experiments.report import interval

MAIN = {
    "adam_3e-3": BLACK,
    "l2_init": ORANGE,
    "continual_backprop": PURPLE,
    "oracle": SKY,
    "two_hypothesis": GREEN,
    "hazard_filter": BLUE,
}
ABLATIONS = {
    "hazard_filter": BLUE,
    "to_zero": ORANGE,
    "variance_only": GREEN,
    "mean_only": RED,
    "no_hazard": BLACK,
}
KINDS = {"field": BLACK, "told": SKY, "ours": BLUE, "ablation": ORANGE, "reference": BLACK}
LEGEND = {"field": "of the field", "told": "told when tasks begin, or how long they are"}
LEGEND |= {"ours": "beliefnav", "ablation": "parts of the hazard filter"}

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
    with figures.page(path, 1, 2, 5.4, sharey=True) as panels:
        for axes, shown, title in zip(
            panels, (MAIN, ABLATIONS), ("methods", "parts of the hazard filter"), strict=True
        ):
            for name, color in shown.items():
                if name in of:
                    _band(axes, of[name].lives.online, color, METHODS[name].label)
            axes.set(xlabel="task", title=title)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13))
        panels[0].set(ylabel="online accuracy (mean, 95 % interval)", ylim=(0, 1))


def networks(of: Results, path: Path) -> None:
    """What becomes of the networks: dead units, rank, norm, distance from the start."""
    titles = {
        "dead": "share of dead units",
        "rank": "effective rank",
        "norm": "norm of the weights",
        "distance": "distance from the start",
    }
    with figures.page(path, 1, 4, 3.4) as panels:
        for axes, (field, title) in zip(panels, titles.items(), strict=True):
            for name, color in MAIN.items():
                if name in of:
                    _band(axes, getattr(of[name].lives, field), color, METHODS[name].label)
            axes.set(xlabel="task", title=title)
        figures.legend_above(panels[0])


def around_switches(result: Result, path: Path) -> None:
    """The believed probability of a switch before and after one: every switch, and their mean."""
    before = AT_ONCE
    switch = result.lives.switch_probability  # [seed, task, step]
    around = np.concatenate([switch[:, :-1, -before:], switch[:, 1:, : AT_ONCE + 1]], -1)
    around = around.reshape(-1, around.shape[-1])
    steps = np.arange(-before, AT_ONCE + 1)
    with figures.page(path, 1, 2, 3.4) as (left, right):
        left.plot(steps, around.T, color="0.8", lw=0.3)
        left.plot([], [], color="0.8", label="every switch")
        left.plot(steps, around.mean(0), color=GREEN, label="their mean")
        left.axvline(0, color="0.5", lw=0.8, ls=":")
        left.set(xlabel="steps after the task has switched")
        left.set_ylabel("probability of a switch, = reset")
        left.legend()
        peak = switch.max(-1)
        right.plot(np.arange(1, 1 + len(peak[0])), peak.T, ".", color="0.6", ms=3)
        right.set(xlabel="task", ylabel="largest probability in a task", ylim=(-0.02, 1.05))


def overview(found: Mapping[str, Results], path: Path) -> None:
    """Score in the last tenth of the tasks, of every method on every stream, with intervals."""
    names = list(dict.fromkeys(m for of in found.values() for m in of))
    options = {"width": 1.3 * WIDTH, "sharey": True, "squeeze": False}
    with figures.page(path, 1, len(found), 0.24 * len(names) + 1.4, **options) as ((*panels,),):
        for axes, (stream, of) in zip(panels, found.items(), strict=True):
            for row, name in enumerate(names):
                if name in of:
                    mean, low, high = interval(last(of[name].lives))
                    color = KINDS[METHODS[name].kind]
                    axes.plot([low, high], [row, row], color=color, lw=1)
                    axes.plot(mean, row, "o", color=color, ms=4)
            axes.set_title(stream.replace("_", "\n"), fontsize=8)
            axes.grid(axis="y", lw=0.3)
            regression = stream == "slow_regression"
            axes.set(xlabel="square error" if regression else "accuracy")
            if regression:
                axes.set_xlim(0, 0.03)
        panels[0].set_yticks(range(len(names)), [METHODS[name].label for name in names])
        panels[0].invert_yaxis()
        for kind, color in KINDS.items():
            if kind != "reference":
                panels[-1].plot([], [], "o", color=color, ms=4, label=LEGEND[kind])
        figures.legend_above(panels[-1])


def _band(axes: Any, values: np.ndarray, color: str, label: str) -> None:
    """Mean over seeds [seed, task], with its 95 % interval."""
    tasks = np.arange(1, 1 + values.shape[1])
    mean, low, high = np.array([interval(column) for column in values.T]).T
    axes.plot(tasks, mean, color=color, label=label)
    axes.fill_between(tasks, low, high, color=color, alpha=0.2, lw=0)
