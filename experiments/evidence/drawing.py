"""The figures."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import figures
from experiments.evidence.compared import PARTS, Difference
from experiments.evidence.results import Results
from experiments.evidence.streams import STAGES
from experiments.evidence.within_adam import B1, B2, GRID

COLOURS = (figures.BLUE, figures.ORANGE, figures.GREEN)
MARKERS = {"digits": "o", "fashion_mnist": "s"}
LIMIT = 0.01
"""Nats around 0 that are drawn to a linear scale; beyond them it is logarithmic."""


def draw(folder: Path, results: Results) -> None:
    """Both figures."""
    draw_rules(folder / "evidence.png", results)
    draw_within(folder / "within_adam.png", results)


def draw_rules(path: Path, results: Results) -> None:
    """The three scores of all rules, on all streams."""
    found = {name: compared.differences() for name, compared in results.streams.items()}
    rules = [rule for rule in next(iter(found.values())) if rule != "adam"]
    with figures.page(path, 1, len(PARTS), 5.2, width=13.0, sharey=True) as panels:
        for axes, part in zip(panels, PARTS, strict=True):
            axes.axvline(0, color="0.6", lw=1)
            for row, rule in enumerate(rules):
                _draw_rule(axes, row, [(name, of[rule][part]) for name, of in found.items()])
            axes.set_xscale("symlog", linthresh=LIMIT)
            axes.set(title=part, xlabel="nats a reading more than Adam", ylim=(len(rules), -1))
            axes.set_yticks(range(len(rules)), rules)
            axes.grid(axis="y", color="0.9")
        for name in found:
            data, stage = name.split(", ")
            panels[0].plot([], [], MARKERS[data], color=_colour(stage), label=name)
        figures.legend_above(panels[0])


def _colour(stage: str) -> str:
    return COLOURS[STAGES.index(stage)]


def _draw_rule(axes: Any, row: int, found: list[tuple[str, Difference | str]]) -> None:
    said = [(name, x) for name, x in found if isinstance(x, Difference)]
    if not said:
        axes.text(0, row, "says nothing", ha="center", va="center", fontsize=7, color="0.4")
    for k, (name, difference) in enumerate(said):
        data, stage = name.split(", ")
        at = row + 0.5 * ((k + 0.5) / len(said) - 0.5)
        value, low, high = difference.trimmed_mean
        colour = _colour(stage)
        axes.plot([low, high], [at, at], color=colour, lw=1, alpha=0.6)
        axes.plot(value, at, MARKERS[data], color=colour, ms=4)


def draw_within(path: Path, results: Results) -> None:
    """Adam at all pairs of memories: how well it predicts against how well it trains."""
    tasks = results.within
    with figures.page(path, 1, 2 * len(tasks), 3.8, width=6.5 * len(tasks)) as panels:
        for k, (name, task) in enumerate(tasks.items()):
            scatter, grid = panels[2 * k], panels[2 * k + 1]
            score = task.scores["both"].mean(1)
            error = task.trained.results["test error"]
            for j, b2 in enumerate(B2):
                chosen = [i for i, pair in enumerate(GRID) if pair[1] == b2]
                spread = error[chosen].std(1, ddof=1) / np.sqrt(error.shape[1])
                scatter.errorbar(
                    score[chosen],
                    error[chosen].mean(1),
                    spread,
                    fmt="osD^v"[j],
                    ms=4,
                    lw=1,
                    color=figures.CYCLE[j],
                    label=f"β2 = {b2:g}",
                )
            scatter.set(
                xlabel="nats a reading of mean and square",
                ylabel="test error in the end",
                title=f"{name}: 25 pairs of memories",
            )
            scatter.legend(fontsize=7)
            shown = grid.imshow(error.mean(1).reshape(len(B1), len(B2)), cmap="cividis")
            grid.figure.colorbar(shown, ax=grid, shrink=0.8)
            grid.set_xticks(range(len(B2)), [f"{x:g}" for x in B2])
            grid.set_yticks(range(len(B1)), [f"{x:g}" for x in B1])
            grid.set(xlabel="β2", ylabel="β1", title=f"{name}: test error")
            best = int(score.argmax())
            grid.plot(best % len(B2), best // len(B2), "*", color="white", mec="black", ms=12)
        figures.note(panels[0], "star: the pair that predicts best")
