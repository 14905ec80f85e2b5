"""The figures."""

from collections.abc import Sequence
from pathlib import Path

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


def draw(
    config: Config, answers: Sequence[Answer], retrained: dict[str, dict[str, Retrained]]
) -> None:
    """Draw all figures."""
    draw_memories(answers, config.out / "memory.png")
    draw_streams(answers, config.out / "stream.png")
    draw_calibration(answers, config.out / "predictive.png")
    draw_comparison(answers, retrained, config.out / "comparison.png")


def draw_memories(answers: Sequence[Answer], path: Path) -> None:
    """Posteriors of the implied memories, of every layer and stage."""
    plt = figures.pyplot()
    panels = (
        ("Ornstein-Uhlenbeck", "implied_beta1", "from the Ornstein-Uhlenbeck gradient"),
        ("local level", "implied_beta1", "from the local level"),
        ("precision walk", "implied_beta2", "from the precision walk"),
    )
    figure, grid = plt.subplots(
        len(answers),
        len(panels),
        figsize=(figures.WIDTH, 2.9 * len(answers) + 0.5),
        layout="constrained",
        squeeze=False,
    )
    colours = (figures.BLUE, figures.ORANGE, figures.GREEN)
    for answer, row in zip(answers, grid, strict=True):
        stages = answer.stream.values["stage"].values
        for axes, (model, site, title) in zip(row, panels, strict=True):
            fit = answer.fits[model]
            for j, stage in enumerate(stages):
                draws = fit.posterior[site].sel(stage=stage)
                draws = draws.stack(sample=("chain", "draw")).transpose("layer", "sample").values
                steps = 1 / np.maximum(1 - draws, 1e-7)
                low, median, high = np.quantile(steps, (0.05, 0.5, 0.95), axis=1)
                y = np.arange(len(median)) + 0.22 * (j - (len(stages) - 1) / 2)
                axes.errorbar(
                    median,
                    y,
                    xerr=(median - low, high - median),
                    fmt="o" if fit.converged(stage) else "x",
                    color=colours[j % len(colours)],
                    ms=5,
                    capsize=2,
                    label=str(stage),
                )
            default = 1 / (1 - DEFAULTS[site])
            axes.axvline(default, color="0.4", ls="--", lw=1)
            axes.set(xscale="log", xlim=(0.9, 3e4), title=title)
            axes.set_yticks(range(len(answer.stream.layers.names)), answer.stream.layers.names)
            axes.invert_yaxis()
            symbol = r"\beta_1" if site.endswith("1") else r"\beta_2"
            axes.set_xlabel(rf"memory $1/(1 - {symbol})$ in steps", fontsize=9)
            axes.title.set_fontsize(9)
        row[0].set_ylabel(answer.stream.name)
        for axes in row[1:]:
            axes.set_yticklabels([])
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside upper center", fontsize=8)
    figure.supxlabel(
        "Median and 90 % interval; a cross where chains do not agree. Dashed: Adam's default.",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_streams(answers: Sequence[Answer], path: Path) -> None:
    """What is believed of one raw stream, at the posterior median of the hyper-parameters."""
    plt = figures.pyplot()
    answer = answers[0]
    stages = answer.stream.values["stage"].values
    figure, grid = plt.subplots(
        len(stages),
        1,
        figsize=(figures.WIDTH, 2.1 * len(stages)),
        layout="constrained",
        squeeze=False,
    )
    posterior = answer.fits["Ornstein-Uhlenbeck"].posterior
    typical = posterior.median(("chain", "draw"))
    position = answer.stream.layers.position
    column = int(position.argmax())  # the first of the last layer
    layer = int(position[column])
    for axes, stage in zip(grid[:, 0], stages, strict=True):
        cell = typical.sel(stage=stage).isel(layer=layer)
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
        axes.fill_between(
            steps,
            mean - 2 * sd,
            mean + 2 * sd,
            color=figures.BLUE,
            alpha=0.25,
            lw=0,
            label="± 2 sd",
        )
        largest = np.nanquantile(np.abs(y[shown]), 0.99) * 1.2
        axes.set(ylim=(-largest, largest), ylabel=str(stage))
    grid[0, 0].legend(ncols=3, fontsize=8, loc="upper right")
    label = answer.stream.values["param"].values[column]
    grid[0, 0].set_title(f"{answer.stream.name}, {label}, in units of its root mean square")
    grid[-1, 0].set_xlabel("step of the stage")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_calibration(answers: Sequence[Answer], path: Path) -> None:
    """Where held-out gradients fall among replicates: flat if the predictive is right."""
    plt = figures.pyplot()
    models = list(answers[0].fits)
    figure, grid = plt.subplots(
        len(answers),
        len(models),
        figsize=(figures.WIDTH, 2.2 * len(answers) + 0.4),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for answer, row in zip(answers, grid, strict=True):
        for axes, model in zip(row, models, strict=True):
            axes.hist(
                answer.scores[model].ranks,
                bins=20,
                range=(0, 1),
                density=True,
                color=figures.SKY,
                ec="w",
            )
            axes.axhline(1, color="k", lw=0.8)
            axes.set_title(
                f"{model}\n90 % covers {100 * answer.scores[model].intervals:.1f} %", fontsize=8
            )
        row[0].set_ylabel(answer.stream.name)
    figure.supxlabel("rank of a held-out gradient among replicates one step ahead", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_comparison(
    answers: Sequence[Answer], retrained: dict[str, dict[str, Retrained]], path: Path
) -> None:
    """Held-out log predictive density of every model, and accuracies of training again."""
    plt = figures.pyplot()
    columns = 2 if retrained else 1
    figure, grid = plt.subplots(
        len(answers),
        columns,
        figsize=(figures.WIDTH, 2.7 * len(answers) + 0.3),
        layout="constrained",
        squeeze=False,
    )
    for answer, row in zip(answers, grid, strict=True):
        left = row[0]
        base = answer.scores["no memory"]
        names = [name for name in answer.scores if name != "no memory"]
        count = answer.stream.num_held_out
        gains, errors = [], []
        for name in names:
            difference = answer.scores[name].held_out - base.held_out
            gains.append(difference.sum() / count)
            errors.append(np.std(difference) * np.sqrt(len(difference)) / count)
        positions = np.arange(len(names))[::-1]
        colours = [figures.BLUE if name in answer.fits else "0.6" for name in names]
        left.barh(positions, gains, 0.6, xerr=errors, color=colours, ecolor="k", capsize=2)
        left.set_yticks(positions, names)
        left.axvline(0, color="k", lw=0.8)
        left.set_title(answer.stream.name, fontsize=9)
        left.set_xlabel("log predictive density over no memory,\nnats a held-out gradient (± se)")
        if not retrained:
            continue
        right = row[1]
        for j, (setting, outcome) in enumerate(retrained[answer.stream.name].items()):
            rates = list(outcome.test)
            values = np.stack([outcome.test[rate] for rate in rates])
            colour = (figures.BLACK, figures.BLUE, figures.GREEN, figures.ORANGE, figures.PURPLE)[
                j % 5
            ]
            right.plot(rates, values.mean(1), "o-", color=colour, label=setting, ms=4)
            right.fill_between(rates, values.min(1), values.max(1), color=colour, alpha=0.15, lw=0)
        right.set(xscale="log", xlabel="learning rate", ylabel="test accuracy")
        right.set_xticks(LEARNING_RATES, [f"{rate:g}" for rate in LEARNING_RATES])
        right.minorticks_off()
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)
    plt.close(figure)
