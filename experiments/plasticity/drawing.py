"""Figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import figures
from experiments.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, WIDTH
from experiments.plasticity.claims import Tables
from experiments.plasticity.methods import Method
from experiments.plasticity.results import Found
from experiments.report import interval

MAIN = {
    "adam_3e-3": BLACK,
    "l2_init": ORANGE,
    "continual_backprop": PURPLE,
    "adam_restarted": SKY,
    "hazard_filter": GREEN,
    "layer_hypotheses": BLUE,
}
ABLATIONS = {
    "hazard_filter": GREEN,
    "to_zero": ORANGE,
    "variance_only": BLUE,
    "mean_only": RED,
    "no_hazard": BLACK,
}
KINDS = {"field": BLACK, "told": SKY, "ours": BLUE}
LEGEND = {"field": "of the field", "told": "told when tasks begin", "ours": "beliefnav"}


def draw(
    tables: Tables, methods: Mapping[str, Method], sensitivity: Mapping[str, Any], folder: Path
) -> None:
    """Draw what there is."""
    labels = tables.best.get("random_labels", {})
    if labels:
        curves(labels, methods, folder / "accuracy.png")
    if len(tables.best) > 1:
        overview(tables, methods, folder / "streams.png")
    if sensitivity:
        settings(sensitivity, folder / "sensitivity.png")


def curves(of: Mapping[str, Found], methods: Mapping[str, Method], path: Path) -> None:
    """Online accuracy of every task: main methods, and parts of the hazard filter, if there are."""
    shown = {"methods": {k: c for k, c in MAIN.items() if k in of}}
    if any(name in of for name in list(ABLATIONS)[1:]):
        shown["parts of the hazard filter"] = {k: c for k, c in ABLATIONS.items() if k in of}
    with figures.page(path, 1, len(shown), 5.4, sharey=True, squeeze=False) as ((*panels,),):
        for axes, (title, colours) in zip(panels, shown.items(), strict=True):
            for name, color in colours.items():
                online = of[name].lives.online
                tasks = np.arange(1, 1 + online.shape[1])
                mean, low, high = np.clip([interval(x) for x in online.T], 0, 1).T
                thick = 4 if methods[name].kind == "told" else 1.5  # others may lie on it
                axes.plot(tasks, mean, color=color, lw=thick, label=methods[name].label)
                axes.fill_between(tasks, low, high, color=color, alpha=0.2, lw=0)
            axes.set(xlabel="task", title=title)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13))
        panels[0].set(ylabel="online accuracy (mean, 95 % interval)", ylim=(0, 1))


def overview(tables: Tables, methods: Mapping[str, Method], path: Path) -> None:
    """Mean score over all tasks, of every method on every stream: two settings each."""
    found = tables.best
    names = [
        n for n in methods if any(n in of for of in found.values()) and methods[n].kind in KINDS
    ]
    rows = -(-len(found) // 5)
    options = {"width": 1.3 * WIDTH, "sharey": True, "squeeze": False}
    height = rows * (0.2 * len(names) + 0.9) + 0.5
    with figures.page(path, rows, min(5, len(found)), height, **options) as panels:
        for axes in panels.flat[len(found) :]:
            axes.set_axis_off()
        for axes, (stream, of) in zip(panels.flat, found.items(), strict=False):
            for row, name in enumerate(names):
                for table, face in ((of, None), (tables.at_one.get(stream, {}), "white")):
                    if name in table:
                        scores = table[name].lives.online.mean(1)
                        mean, low, high = np.clip(interval(scores), 0, 1)
                        color = KINDS[methods[name].kind]
                        axes.plot([low, high], [row, row], color=color, lw=1)
                        axes.plot(mean, row, "o", color=color, mfc=face or color, ms=4)
            axes.set_title(stream.replace("_", " "), fontsize=8)
            axes.grid(axis="y", lw=0.3)
            if not tables.classifies[stream]:
                axes.set(xlabel="mean square error")
            axes.locator_params(axis="x", nbins=4)
        for axes in panels[:, 0]:
            axes.set_yticks(range(len(names)), [methods[name].label for name in names])
        panels[0, 0].invert_yaxis()
        for kind, color in KINDS.items():
            panels.flat[0].plot([], [], "o", color=color, ms=4, label=LEGEND[kind])
        panels.flat[0].plot([], [], "o", color=BLACK, mfc="white", ms=4, label="at one setting")
        figures.legend_above(panels.flat[0])


def settings(sensitivity: Mapping[str, Any], path: Path) -> None:
    """Mean score over all tasks, as a setting varies around its one value."""
    with figures.page(path, 1, len(sensitivity), 3.8, squeeze=False) as ((*panels,),):
        for axes, (stream, of) in zip(panels, sensitivity.items(), strict=True):
            for curve, entry in of.items():
                mean, low, high = np.clip(entry["scores"], 0, 1).T
                factor = np.array(entry["values"]) / entry["values"][len(mean) // 2]
                (line,) = axes.plot(factor, mean, ".-", label=curve.replace("_", " "))
                axes.fill_between(factor, low, high, color=line.get_color(), alpha=0.2, lw=0)
            axes.set(xscale="log", xlabel="setting / its one value", title=stream.replace("_", " "))
        panels[0].set_ylabel("online accuracy, mean over tasks")
        figures.legend_above(panels[0])
