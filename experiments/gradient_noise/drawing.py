"""The figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from beliefnav import beliefs, filters
from experiments import figures
from experiments.gradient_noise.beliefs import Answer
from experiments.gradient_noise.config import Config
from experiments.gradient_noise.training import LEARNING_RATES, Retrained
from models import gradient_noise

DEFAULTS = {"implied_beta1": 0.9, "implied_beta2": 0.999}
"""Of Adam."""
MEMORIES = (
    ("Ornstein-Uhlenbeck", "implied_beta1", "from the Ornstein-Uhlenbeck gradient"),
    ("local level", "implied_beta1", "from the local level"),
    ("precision walk", "implied_beta2", "from the precision walk"),
)
COLOURS = (figures.BLUE, figures.ORANGE, figures.GREEN)
"""Of the stages."""


def draw(
    config: Config, answers: Sequence[Answer], retrained: dict[str, dict[str, Retrained]]
) -> None:
    """Draw all figures."""
    draw_memories(answers, config.folder / "memory.png")
    draw_streams(answers[0], config.folder / "stream.png")
    draw_calibration(answers, config.folder / "predictive.png")
    draw_comparison(answers, retrained, config.folder / "comparison.png")


def draw_memories(answers: Sequence[Answer], path: Path) -> None:
    """Posteriors of the implied memories, of every layer and stage."""
    height = 2.9 * len(answers) + 0.5
    with figures.page(path, len(answers), len(MEMORIES), height, squeeze=False) as grid:
        for answer, row in zip(answers, grid, strict=True):
            names = answer.stream.layers.names
            for axes, (model, site, title) in zip(row, MEMORIES, strict=True):
                _draw_memory(axes, answer, model, site)
                axes.set(xscale="log", xlim=(0.9, 3e4), title=title)
                axes.set_yticks(range(len(names)), names if axes is row[0] else [])
                axes.invert_yaxis()
                symbol = r"\beta_1" if site.endswith("1") else r"\beta_2"
                axes.set_xlabel(rf"memory $1/(1 - {symbol})$ in steps")
            row[0].set_ylabel(answer.stream.name)
        figures.legend_above(grid[0, 0])
        figures.note(
            grid[0, 0],
            "Median and 90 % interval; a cross where chains do not agree. Dashed: Adam's default.",
        )


def _draw_memory(axes: Any, answer: Answer, model: str, site: str) -> None:
    """The memories that one model implies, in steps."""
    fit, stages = answer.fits[model], answer.stream.values["stage"].values
    for j, stage in enumerate(stages):
        draws = fit.posterior[site].sel(stage=stage)
        draws = draws.stack(sample=("chain", "draw")).transpose("layer", "sample").values
        steps = 1 / np.maximum(1 - draws, 1e-7)
        low, median, high = np.quantile(steps, (0.05, 0.5, 0.95), axis=1)
        axes.errorbar(
            median,
            np.arange(len(median)) + 0.22 * (j - (len(stages) - 1) / 2),
            xerr=(median - low, high - median),
            fmt="o" if fit.converged(stage) else "x",
            color=COLOURS[j % len(COLOURS)],
            ms=5,
            capsize=2,
            label=str(stage),
        )
    axes.axvline(1 / (1 - DEFAULTS[site]), color="0.4", ls="--", lw=1)


def draw_streams(answer: Answer, path: Path) -> None:
    """What is believed of one raw stream, at the posterior median of the hyper-parameters."""
    stages = answer.stream.values["stage"].values
    typical = answer.fits["Ornstein-Uhlenbeck"].posterior.median(("chain", "draw"))
    position = answer.stream.layers.position
    column = int(position.argmax())  # the first of the last layer
    label = answer.stream.values["param"].values[column]
    with figures.page(path, len(stages), 1, 2.1 * len(stages), squeeze=False) as grid:
        for axes, stage in zip(grid[:, 0], stages, strict=True):
            cell = typical.sel(stage=stage).isel(layer=int(position[column]))
            rho = gradient_noise.memory_of(float(cell["correlation"]))
            signal = float(cell["signal_to_noise_ratio"])
            belief = beliefs.UnknownNoise(
                beliefs.OrnsteinUhlenbeck(rho, signal * (1 - rho**2), 1.0), 1.0, 1.0
            )
            y = answer.stream.values["gradient"].sel(stage=stage).isel(param=column).values
            believed, _ = filters.filter_recording(belief, jnp.asarray(y, jnp.float32))
            shown = slice(0, min(300, len(y)))
            mean = np.asarray(believed.gradient_mean)[shown]
            sd = np.sqrt(np.asarray(believed.gradient_variance))[shown]
            steps = np.arange(len(mean))
            axes.plot(steps, y[shown], ".", ms=3, color="0.6", label="gradient of a batch")
            axes.plot(steps, mean, color=figures.BLUE, lw=1.2, label="filtered mean")
            band = {"color": figures.SKY, "alpha": 0.4, "lw": 0}
            axes.fill_between(
                steps, mean - 2 * sd, mean + 2 * sd, label="± 2 standard deviations", **band
            )
            largest = np.nanquantile(np.abs(y[shown]), 0.99) * 1.2
            axes.set(ylim=(-largest, largest), ylabel=str(stage))
        figures.legend_above(grid[0, 0])
        grid[0, 0].set_title(f"{answer.stream.name}, {label}, in units of its root mean square")
        grid[-1, 0].set_xlabel("step of the stage")


def draw_calibration(answers: Sequence[Answer], path: Path) -> None:
    """Where held-out gradients fall among replicates: flat if the predictive is right."""
    models = list(answers[0].fits)
    shape, height = (len(answers), len(models)), 2.2 * len(answers) + 0.4
    style = {"bins": 20, "range": (0, 1), "density": True, "color": figures.SKY, "ec": "w"}
    with figures.page(path, *shape, height, squeeze=False, sharey=True) as grid:
        for answer, row in zip(answers, grid, strict=True):
            for axes, model in zip(row, models, strict=True):
                score = answer.scores[model]
                axes.hist(score.ranks, **style)
                axes.axhline(1, color="k", lw=0.8)
                axes.set_title(f"{model}\n90 % covers {100 * score.intervals:.1f} %", fontsize=8)
            row[0].set_ylabel(f"{answer.stream.name}: density")
        figures.note(grid[0, 0], "rank of a held-out gradient among replicates one step ahead")


def draw_comparison(
    answers: Sequence[Answer], retrained: dict[str, dict[str, Retrained]], path: Path
) -> None:
    """Held-out log predictive density of every model, and accuracies of training again."""
    shape, height = (len(answers), 2 if retrained else 1), 2.7 * len(answers) + 0.3
    with figures.page(path, *shape, height, squeeze=False) as grid:
        for answer, (left, *others) in zip(answers, grid, strict=True):
            base = answer.scores["no memory"]
            names = [name for name in answer.scores if name != "no memory"]
            count = answer.stream.num_held_out
            differences = [answer.scores[name].held_out - base.held_out for name in names]
            gains = [difference.sum() / count for difference in differences]
            errors = [np.std(d) * np.sqrt(len(d)) / count for d in differences]
            positions = np.arange(len(names))[::-1]
            colours = [figures.BLUE if name in answer.fits else "0.6" for name in names]
            left.barh(positions, gains, 0.6, xerr=errors, color=colours, ecolor="k", capsize=2)
            left.set_yticks(positions, names)
            left.axvline(0, color="k", lw=0.8)
            left.set_title(f"{answer.stream.name} (blue: learned)")
            left.set_xlabel(
                "log predictive density over no memory,\nnats a held-out gradient (± se)"
            )
            for right in others:
                for setting, outcome in retrained[answer.stream.name].items():
                    values = np.stack(list(outcome.test.values()), 1)
                    figures.band(right, list(outcome.test), values, marker="o", ms=4, label=setting)
                right.set(xscale="log", xlabel="learning rate", ylabel="test accuracy")
                right.set_xticks(LEARNING_RATES, [f"{rate:g}" for rate in LEARNING_RATES])
                right.minorticks_off()
                right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
