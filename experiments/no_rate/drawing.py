"""The figures."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import figures
from experiments.no_rate.arms import DEFAULT, RULE
from experiments.no_rate.results import OURS, RIVALS, Results, ratios
from experiments.no_rate.stress import GUESSES
from experiments.report import interval
from experiments.tasks.catalogue import HELD_OUT

TITLES = {
    "tuned": "to Adam, rate tuned",
    "tuned cosine": "to Adam with cosine, rate tuned",
    "tuned average": "to Adam with an average, both tuned",
    "default": "to Adam at 1e-3",
}
LOSSES = ("noisy_quadratic", "text_transformer", "digits_autoencoder")
"""Tasks that score a loss."""


def _named(task: str) -> str:
    return task.replace("_", " ") + (" (held out)" if task in HELD_OUT else "")


def draw(path: Path, results: Results) -> None:
    """Ratios of the rule to four kinds of Adam, by task, and its distance along the way."""
    tasks = list(results.benched.scores)
    with figures.page(path, 1, 5, 3.6, width=15.0) as axes:
        for panel, (name, rival) in zip(axes, RIVALS.items(), strict=False):
            found = ratios(results.benched, OURS, rival)
            y = np.arange(len(tasks))[::-1]
            mean, low, high = np.array([found[task] for task in tasks]).T
            colours = [figures.ORANGE if task in HELD_OUT else figures.BLUE for task in tasks]
            for at in range(len(tasks)):
                error = [[mean[at] - low[at]], [high[at] - mean[at]]]
                panel.errorbar(mean[at], y[at], xerr=error, fmt="o", ms=4, color=colours[at])
            panel.axvline(1, color="0.6", lw=0.8, zorder=0)
            panel.set_yticks(y, [_named(task) for task in tasks] if panel is axes[0] else [])
            panel.set(title=TITLES[name], xlabel="ratio of test errors or losses")
            panel.grid(axis="x", color="0.9")
        _draw_distances(axes[-1], results)


def _draw_distances(axes: Any, results: Results) -> None:
    """The learned distance over the way of the average in the end, along the path."""
    for k, (task, paths) in enumerate(results.benched.paths.items()):
        path = paths[RULE]
        shown = np.median(path["distance"] / path["average largest"][:, None], 0)
        style = "--" if k >= len(figures.CYCLE) else "-"
        axes.loglog(path["steps"], shown, style, label=task.replace("_", " "))
    axes.axhline(1, color="0.6", lw=0.8, zorder=0)
    axes.set(xlabel="step", title="Learned distance / largest way")
    axes.legend(fontsize=6)


def draw_arms(path: Path, results: Results) -> None:
    """Test error or loss of every arm on every task, with intervals over seeds."""
    tasks = list(results.benched.scores)
    columns = min(4, len(tasks))
    rows = -(-len(tasks) // columns)
    options = {"width": 3.4 * columns + 1.5, "squeeze": False, "sharey": True}
    with figures.page(path, rows, columns, 4.2 * rows, **options) as axes:
        for panel in axes.ravel()[len(tasks) :]:
            panel.set_axis_off()
        for panel, task in zip(axes.ravel(), tasks, strict=False):
            scores = results.benched.scores[task]
            y = np.arange(len(scores))[::-1]
            found = np.array([interval(scored.error) for scored in scores.values()])
            best = np.nanmin(found[:, 0])
            for at, arm, (mean, low, high) in zip(y, scores, found, strict=True):
                if not np.isfinite([mean, low, high]).all() or mean > 4 * best:
                    panel.plot(1, at, ">", ms=5, color="0.5", transform=panel.get_yaxis_transform())
                    continue
                colour = figures.ORANGE if arm.startswith(RULE) else figures.BLUE
                style = {"fmt": "o", "ms": 4, "color": colour}
                panel.errorbar(mean, at, xerr=[[mean - low], [high - mean]], **style)
            panel.axvline(found[list(scores).index(OURS), 0], color=figures.ORANGE, lw=0.6)
            panel.set_yticks(y, [arm.replace("_", " ") for arm in scores])
            score = "loss" if task in LOSSES else "test error"
            panel.set(title=_named(task), xlabel=score)
            panel.grid(axis="x", color="0.9")
        figures.note(axes[0, 0], "An arrow: more than four times the least, or diverged.")


def draw_stress(path: Path, results: Results) -> None:
    """Distances from first guesses, errors on problems, and losses through a switch."""
    with figures.page(path, 1, 4, 3.6, width=14.0) as axes:
        for panel, (task, of_rules) in zip(axes, results.stressed.guesses.items(), strict=False):
            _draw_guesses(panel, task, of_rules)
        _draw_problems(axes[2], results)
        if "after a switch" in results.stressed.problems:
            _draw_switch(axes[3], results)


def _draw_guesses(axes: Any, task: str, of_rules: Any) -> None:
    for rule, style in zip(of_rules, ("-", ":"), strict=True):
        shown = np.median(of_rules[rule]["distance"], 1)  # [guess, stretch]
        colours = (figures.BLUE, figures.ORANGE, figures.GREEN)
        for colour, guess, line in zip(colours, GUESSES, shown, strict=True):
            label = f"{rule.replace('_', ' ')} from {guess:g}"
            axes.loglog(of_rules[rule]["steps"], line, style, color=colour, label=label)
    axes.set(xlabel="step", title=f"Learned distance, {task.replace('_', ' ')}")
    axes.legend(fontsize=6)


def _draw_problems(axes: Any, results: Results) -> None:
    """Errors of the rule, of its last iterate, and of Adam at its default."""
    problems = results.stressed.problems
    y = np.arange(len(problems))[::-1]
    shown = ((RULE, "average", figures.ORANGE), (RULE, "last", figures.SKY))
    shown = (*shown, (DEFAULT, "last", figures.BLACK))
    for k, (arm, reading, colour) in enumerate(shown):
        found = [interval(of_arms[arm][f"{reading} error"]) for of_arms in problems.values()]
        mean, low, high = np.array(found).T
        label = f"{arm.replace('_', ' ')}, {reading}"
        style = {"fmt": "o", "ms": 4, "color": colour, "label": label}
        axes.errorbar(mean, y - 0.2 * (k - 1), xerr=[mean - low, high - mean], **style)
    axes.set_yticks(y, list(problems))
    axes.set(xlabel="test error", title="Other batches and tasks", xscale="log")
    axes.xaxis.set_minor_formatter("")
    axes.legend(fontsize=6)


def _draw_switch(axes: Any, results: Results) -> None:
    """Training loss along the path, and the learned distance."""
    for arm, colour in ((RULE, figures.ORANGE), (DEFAULT, figures.BLACK)):
        path = results.stressed.problems["after a switch"][arm]
        label = arm.replace("_", " ")
        axes.semilogy(path["steps"], path["loss"].mean(0), color=colour, label=label)
    axes.set(xlabel="step", ylabel="loss of the batches, nats", title="Labels permuted in mid-run")
    axes.legend()
