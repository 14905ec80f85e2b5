"""The figures."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import figures
from experiments.certainty import bench, draws, regimes
from experiments.certainty.classifiers import INPUTS
from experiments.certainty.draws import Drawn
from experiments.certainty.results import Results, difference
from experiments.report import interval
from experiments.tasks import measuring

WINNERS = {
    "schedule": figures.BLUE,
    "average": figures.ORANGE,
    "together": figures.GREEN,
    "alike": "0.6",
}
SHOWN = {
    "constant": ("last iterate, constant rate", figures.BLACK),
    "linear": ("last iterate, linear to zero", figures.BLUE),
    "0": ("average, p = 0", figures.ORANGE),
    "2": ("average, p = 2", figures.RED),
    "8": ("average, p = 8", figures.PURPLE),
}
"""What is shown against the rate."""


def draw(path: Path, results: Results) -> None:
    """The noisy quadratic: losses by rate, the best rates, and where which of them wins."""
    with figures.page(path, 1, 3, 4.0, width=13.0) as (left, middle, right):
        _draw_losses(left, results)
        _draw_rates(middle, results)
        _draw_map(right, results)


def _draw_losses(axes: Any, results: Results) -> None:
    """Exact losses at all rates, and simulated ones at the best."""
    exact = results.exact
    for name, (label, colour) in SHOWN.items():
        arm = name if name in exact.schedules else f"average, p = {name}"
        axes.semilogx(exact.rates, exact.curves[name], color=colour, label=label)
        simulated = results.simulated[arm]
        style = {"fmt": "o", "ms": 4, "color": colour}
        axes.errorbar(
            exact.best_rates[name], simulated.simulated, 2 * simulated.standard_error, **style
        )
    for loss, label, style in (
        (exact.best_schedule.loss, "best of all schedules", "--"),
        (exact.together.loss, "rates and gains together", ":"),
        (exact.kalman, "curvatures known (Kalman)", "-"),
    ):
        axes.axhline(loss, ls=style, lw=1, color="0.4", label=label)
    axes.set(
        xlabel="largest rate",
        ylabel="expected loss in the end",
        xlim=(0.004, 2.1),
        ylim=(0.23, 0.8),
    )
    axes.set_title("Noisy quadratic: exact lines, simulated points")
    axes.legend(loc="upper left", fontsize=7)


def _draw_rates(axes: Any, results: Results) -> None:
    """The rates that are best for the last iterate, and for an average that is optimised too."""
    alone, together = results.exact.best_schedule, results.exact.together
    axes.plot(alone.rates, color=figures.BLUE, label="for the last iterate")
    axes.plot(together.rates, color=figures.GREEN, label="together with the gains of an average")
    axes.set(
        xlabel="step", ylabel="rate", ylim=(0, 1.1 * together.rates.max()), title="The best rates"
    )
    axes.legend(loc="upper left")


def _draw_map(axes: Any, results: Results) -> None:
    """The best average against the best schedule, by the carried start."""
    numbers = {p: regimes.carried_start(p.problem(), p.steps) for p in results.map}
    for winner, colour in WINNERS.items():
        chosen = [place for place, of in results.map.items() if of.winner == winner]
        x = [numbers[place] for place in chosen]
        y = [results.map[place].average_to_schedule for place in chosen]
        label = winner if winner == "alike" else f"{winner} best"
        axes.loglog(x, y, "o", ms=4, color=colour, label=label)
    for name, compared in results.regimes.items():
        if name == "start variance 100":  # the problem with noise x 0.01, in other units
            continue
        at = compared.carried_start, compared.average_to_schedule
        axes.plot(*at, "D", ms=6, mfc="none", color=figures.BLACK)
        left = name in ("standard", "noise flat, 1/200", "start variance 1/h")
        up = name in ("noise flat, 1/200", "start variance 1/h")
        options = {"fontsize": 6, "ha": "right" if left else "left"}
        offset = (-5 if left else 5, 6 if up else -9)
        axes.annotate(name, at, offset, textcoords="offset points", **options)
    axes.axhline(1, color="0.6", lw=0.8, zorder=0)
    axes.axvline(results.carried_start.threshold, color="0.6", lw=0.8, ls="--", zorder=0)
    axes.set(
        xlabel="carried start: what an average keeps of the start / least loss",
        ylabel="loss, best average / best schedule",
        title=f"Which wins, on {len(results.map)} problems",
    )
    axes.legend(loc="upper left")


COLOURS = {"adam": figures.BLUE, "momentum": figures.ORANGE, "muon": figures.GREEN}


def draw_bench(path: Path, results: Results) -> None:
    """Test errors and training losses of every arm, with intervals over seeds; bands of rates."""
    benched = results.benched.arms
    options = {"width": 3.0 * max(2, len(benched)) + 1, "squeeze": False, "sharey": True}
    with figures.page(path, 3, len(benched), 9.0, **options) as axes:
        for column, (task, of_task) in enumerate(benched.items()):
            for row, score in enumerate(("test error", "train nats")):
                panel = axes[row, column]
                _draw_arms(panel, of_task, score)
                panel.set_xlabel("loss" if task == "noisy_quadratic" else _NAMES[score])
            _draw_bands(axes[2, column], bench.bands(results.benched.tuned[task]))
            axes[0, column].set_title(task.replace("_", " "))
        figures.legend_above(axes[0, 0])


_NAMES = {"test error": "test error", "train nats": "training loss in nats"}


def _draw_arms(axes: Any, of_task: dict[str, measuring.Found], score: str) -> None:
    """Means and intervals of one score."""
    arms = (*bench.ARMS, bench.FREE)
    rules = bench.rules_of(of_task)
    for k, rule in enumerate(rules):
        found = [interval(of_task[f"{rule}, {arm}"].scores[score]) for arm in arms]
        mean, low, high = np.array(found).T
        y = _places(arms, k, len(rules))
        axes.errorbar(
            mean, y, xerr=[mean - low, high - mean], fmt="o", ms=4, color=COLOURS[rule], label=rule
        )
    axes.set_yticks(np.arange(len(arms))[::-1], arms)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="0.9")


def _draw_bands(axes: Any, widths: dict[str, float]) -> None:
    """The range of good rates of every arm, as a ratio."""
    arms = (*bench.ARMS, bench.FREE)
    rules = list(dict.fromkeys(name.split(", ")[0] for name in widths))
    for k, rule in enumerate(rules):
        x = [widths[f"{rule}, {arm}"] for arm in arms]
        axes.plot(x, _places(arms, k, len(rules)), "o", ms=4, color=COLOURS[rule])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("largest / smallest good rate")
    axes.set_yticks(np.arange(len(arms))[::-1], arms)
    axes.grid(axis="x", color="0.9")


def _places(arms: Any, k: int, count: int) -> np.ndarray:
    """Where the k-th of so many points stands in the row of each arm, from above."""
    return np.arange(len(arms))[::-1] - 0.2 * (k - (count - 1) / 2)


def draw_draws(path: Path, found: dict[str, Drawn]) -> None:
    """Nats above, Brier score below: all arms minus the tempered mean, on all inputs."""
    names = {"nats": "nats", "brier": "Brier score"}
    arms = [arm for arm in draws.ARMS if arm != "temperature"]
    options = {"width": 3.6 * max(2, len(found)) + 1, "squeeze": False, "sharey": True}
    with figures.page(path, 2, max(1, len(found)), 6.4, **options) as axes:
        for column, (task, drawn) in enumerate(found.items()):
            for panel, (score, label) in zip(axes[:, column], names.items(), strict=True):
                for k, inputs in enumerate(INPUTS):
                    of_arms = [difference(drawn, score, inputs, arm, "temperature") for arm in arms]
                    mean, low, high = np.array(of_arms).T
                    error, y = [mean - low, high - mean], _places(arms, k, len(INPUTS))
                    panel.errorbar(mean, y, xerr=error, fmt="o", ms=4, label=inputs)
                panel.axvline(0, color="0.6", lw=0.8, zorder=0)
                panel.set_xscale("symlog", linthresh=0.01)
                panel.set_yticks(np.arange(len(arms))[::-1], arms)
                panel.set_xlabel(f"{label}, minus that of the tempered mean")
            axes[0, column].set_title(task.replace("_", " "))
        if found:
            figures.legend_above(axes[0, 0])
