"""The figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beliefnav import control
from experiments import figures
from experiments.task_switch import hyperparameters, navigation, recovery, tracking
from experiments.task_switch.config import Config
from experiments.task_switch.hyperparameters import Inferred
from experiments.task_switch.navigation import Followed
from experiments.task_switch.recovery import Setting
from experiments.task_switch.tracking import Tracked

COLOURS = {
    "BOCPD": figures.BLUE,
    "two hypotheses": figures.GREEN,
    "run-length reset": figures.PURPLE,
    "OU": figures.ORANGE,
    "no forgetting": figures.RED,
    "oracle": "0.5",
}
CURVED = (figures.BLACK, figures.BLUE, figures.ORANGE)
"""Colours of three curvatures."""


def draw(
    config: Config,
    settings: Sequence[Setting],
    tracked: Tracked,
    followed: Followed,
    inferred: Inferred,
) -> None:
    """Draw all figures."""
    draw_recovery(settings, config.out / "recovery.png")
    draw_tracking(config, tracked, config.out / "tracking.png")
    draw_trajectories(followed, config.out / "trajectories.png")
    draw_resets(followed, config.out / "resets.png")
    draw_run_lengths(inferred, config.out / "run_lengths.png")
    draw_forests(inferred, config.out)


def draw_recovery(settings: Sequence[Setting], path: Path) -> None:
    """Rates and reset fractions that a search found, on those of the theory."""
    plt = figures.pyplot()
    discounts = sorted({s.discount for s in settings})
    pulled = [discounts[0], discounts[-1]]
    figure, axes = plt.subplots(1, 3, figsize=(figures.WIDTH, 3.6), layout="constrained")
    curvatures = np.geomspace(0.05, 10, 100)
    shades = (figures.BLACK, figures.BLUE, figures.GREEN, figures.ORANGE)
    for discount, colour in zip(discounts, shades, strict=False):
        rates = control.anticipation(curvatures, 0.0, discount=discount).rate
        axes[0].plot(curvatures, rates, color=colour, label=f"γ = {discount:g}")
        found = [s for s in settings if s.discount == discount]
        axes[0].plot(
            [s.curvature for s in found], [s.rate[1] for s in found], "o", ms=5, mfc="w", mec=colour
        )
    axes[0].set(xscale="log", yscale="log", xlabel="curvature h", ylabel="rate r of approach")
    axes[0].set_title("how fast weights follow", fontsize=10)
    axes[0].legend(fontsize=8)
    hazards = np.geomspace(0.01, 5, 100)
    for panel, discount in zip(axes[1:], pulled, strict=True):
        for curvature, colour in zip(recovery.CURVATURES, CURVED, strict=True):
            theory = control.anticipation(curvature, hazards, discount=discount)
            label = f"h = {curvature:g}"
            panel.plot(hazards, 1 - np.asarray(theory.weight), color=colour, label=label)
            found = [
                s
                for s in settings
                if s.discount == discount and s.curvature == curvature and s.hazard > 0
            ]
            panel.plot(
                [s.hazard for s in found],
                [s.reset[1] for s in found],
                "o",
                ms=5,
                mfc="w",
                mec=colour,
            )
        panel.set(xscale="log", xlabel="hazard λ, switches per unit of time", ylim=(-0.03, 1.03))
        panel.set_title(f"how far they are pulled back, γ = {discount:g}", fontsize=10)
        panel.legend(fontsize=8)
    axes[1].set_ylabel("reset fraction 1 - w")
    figure.supxlabel("Lines: theory. Circles: found by search for the cheapest policy.", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_tracking(config: Config, tracked: Tracked, path: Path) -> None:
    """Errors of the beliefs, what wrong hazards cost, and how the hazard is learned."""
    plt = figures.pyplot()
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(figures.WIDTH, 3.8), layout="constrained"
    )
    order = sorted(tracked.error, key=lambda name: tracked.error[name])
    values = [tracked.error[name] for name in order]
    left.barh(order, values, color=[COLOURS[name] for name in order])
    for row, value in enumerate(values):
        left.text(value * 1.05, row, f"{value:.3f}", va="center", fontsize=8)
    left.invert_yaxis()
    left.set(xscale="log", xlim=(0.04, 2.5), xlabel="mean square error of the optimum")
    left.set_title("beliefs about an optimum that switches", fontsize=10)
    for name, error in tracked.sweep.items():
        middle.plot(tracking.ASSUMED, error, "o-", ms=3, color=COLOURS[name], label=name)
    fine = np.geomspace(tracking.ASSUMED[0], tracking.ASSUMED[-1], 100)
    theory = [tracking.steady_error(p, config.hazard) for p in fine]
    middle.plot(fine, theory, "--", lw=1, color="k", label="OU, exact")
    for name, (error, _) in tracked.learned.items():
        middle.axhline(error, ls=":", lw=1.2, color=COLOURS[name])
    middle.axvline(config.hazard, color="0.7", lw=1)
    middle.set(xscale="log", xlabel="assumed hazard", ylabel="mean square error")
    middle.set_title("wrong hazards; dotted: learned", fontsize=10)
    middle.legend(fontsize=7)
    steps = np.arange(len(tracked.learning))
    cumulative = np.cumsum(tracked.learning, 1)
    low, high = (tracking.GRID[(cumulative >= q).argmax(1)] for q in (0.05, 0.95))
    right.fill_between(steps, low, high, step="mid", alpha=0.3, lw=0, color=COLOURS["BOCPD"])
    right.plot(steps, tracked.learning @ tracking.GRID, color=COLOURS["BOCPD"], label="BOCPD")
    right.axhline(config.hazard, color="0.3", ls="--", lw=1, label="truth")
    right.set(xscale="log", yscale="log", xlim=(10, len(steps)), xlabel="step", ylabel="hazard")
    right.set_title("hazard learned online (90 %)", fontsize=10)
    right.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_trajectories(followed: Followed, path: Path) -> None:
    """Weights on their way through switches, and when these were suspected."""
    plt = figures.pyplot()
    steps = np.arange(navigation.SHOWN_STEPS)
    figure, rows = plt.subplots(
        4,
        1,
        figsize=(figures.WIDTH, 8.0),
        layout="constrained",
        sharex=True,
        height_ratios=(1, 1, 1, 0.6),
    )
    shown = ("no forgetting", "OU", "two hypotheses", "BOCPD", "oracle")
    for j, (axes, curvature) in enumerate(zip(rows[:-1], navigation.CURVATURES, strict=True)):
        axes.axhline(0, color="0.8", lw=1)
        axes.step(steps, followed.optima[:, j], where="mid", color="k", lw=2, label="optimum")
        for name in shown:
            axes.plot(
                steps,
                followed.shown[name].params[:, j],
                color=COLOURS[name],
                lw=1.4,
                ls=":" if name == "oracle" else "-",
                label=name,
            )
        axes.set_ylabel(f"weight, curvature {curvature:g}")
    rows[0].legend(ncols=6, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for name in ("two hypotheses", "BOCPD"):
        rows[-1].plot(steps, followed.shown[name].switch_probability, color=COLOURS[name], lw=1.2)
    rows[-1].set(xlabel="step", ylabel="probability\nof a switch now", ylim=(-0.05, 1.05))
    figure.suptitle("weights through three switches of the task, which only the oracle is told of")
    for axes in rows:
        for switch in navigation.SHOWN_SWITCHES:
            axes.axvline(switch, color="0.7", lw=0.8, ls="--")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_resets(followed: Followed, path: Path) -> None:
    """How much is reset when a switch is suspected, and what is left of a task after its end."""
    plt = figures.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 4.0), layout="constrained")
    flat = navigation.CURVATURES[1:]
    for j, (curvature, colour) in enumerate(zip(flat, CURVED[1:], strict=True)):
        weight = navigation.anticipated(navigation.RESET_HAZARD)[j + 1]
        line = np.linspace(0, 1, 50)
        left.plot(line, 1 - (1 - line) * weight, color=colour, label=f"curvature {curvature:g}")
        for name, marker in (("two hypotheses", "o"), ("BOCPD", "x")):
            resets = followed.resets[name]
            left.plot(
                resets.switch_probability,
                resets.measured[:, j],
                marker,
                ms=4.5,
                mfc="w",
                mec=colour,
            )
    left.plot([], [], "o", ms=4.5, mfc="w", mec="k", label="measured, two hypotheses")
    left.plot([], [], "x", ms=4.5, mec="k", label="measured, BOCPD")
    left.set(xlabel="probability π of a switch", ylabel="reset fraction of the set-point")
    left.set_title(
        f"weights of which nothing was seen, hazard {navigation.RESET_HAZARD:g}", fontsize=10
    )
    left.legend(fontsize=8, title="line: 1 - (1 - π) w", title_fontsize=8)
    lags = np.arange(-1, navigation.LAGS)
    for j, (curvature, colour) in enumerate(zip(navigation.CURVATURES, CURVED, strict=True)):
        for name, style in (("BOCPD", "o-"), ("OU", "--"), (navigation.STATIONARY, ":")):
            kept = np.r_[1.0, followed.retained[name][:, j]]
            label = f"curvature {curvature:g}" if name == "BOCPD" else None
            right.plot(lags, kept, style, ms=4, color=colour, label=label)
    for style, label in (("--", "OU"), (":", "BOCPD, same steps, no switches")):
        right.plot([], [], style, color="0.4", label=label)
    right.axhline(0, color="0.8", lw=1)
    right.axvline(-0.5, color="0.7", lw=0.8)
    right.set(xlabel="steps since the switch", ylabel="share of the old optimum still believed")
    right.set_title("what is left of a task after its end; solid: BOCPD", fontsize=10)
    right.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_run_lengths(inferred: Inferred, path: Path) -> None:
    """One stream: what was seen, which run lengths were believed, and switches in hindsight."""
    plt = figures.pyplot()
    steps = np.arange(len(inferred.switched))
    figure, (top, middle, bottom) = plt.subplots(
        3,
        1,
        figsize=(figures.WIDTH, 7.0),
        layout="constrained",
        sharex=True,
        height_ratios=(1, 1.4, 0.7),
    )
    first = inferred.fit.target.stream["gradient"].isel(param=0).values
    top.plot(steps, -first, ".", color="0.6", label="seen, minus the gradient at 0")
    top.step(steps, inferred.optimum, where="mid", color="k", lw=1.8, label="optimum")
    top.legend(fontsize=8, ncols=2)
    top.set_title("one stream, with hyper-parameters drawn from their posterior", fontsize=10)
    lengths = hyperparameters.run_lengths(inferred.switched)
    longest = int(lengths.max() * 1.5) + 5
    shown = inferred.run_length[:, :longest].T
    image = middle.pcolormesh(
        steps,
        np.arange(len(shown)),
        np.sqrt(shown),
        cmap="Blues",
        shading="nearest",
        vmin=0,
        vmax=1,
    )
    middle.plot(steps, lengths, color=figures.RED, lw=1.2, ls="--", label="truth")
    middle.set_ylabel("run length, as believed then")
    middle.legend(fontsize=8, loc="upper left")
    bar = figure.colorbar(image, ax=middle, label="probability")
    ticks = np.array([0, 0.1, 0.3, 0.6, 1.0])
    bar.set_ticks(np.sqrt(ticks), labels=[f"{t:g}" for t in ticks])
    bottom.bar(steps, inferred.switches["switch"].mean(("chain", "draw")), width=1.0)
    for switch in np.flatnonzero(inferred.switched):
        bottom.axvline(switch, color=figures.RED, lw=1.2, ls="--", zorder=0)
    bottom.set(xlabel="step", ylabel="probability of\na switch, in hindsight", ylim=(0, 1.05))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_forests(inferred: Inferred, folder: Path) -> None:
    """Hazards of all streams, and run lengths of one in hindsight, as arviz draws them."""
    steps = len(inferred.switched)
    chosen = np.linspace(5, steps - 1, 16).astype(int)
    lengths = inferred.switches[["run_length"]].isel(step=chosen).astype(float)
    forest(
        inferred.fit.posterior[["hazard"]],
        "hazard of every stream; red: truth",
        np.full(inferred.fit.posterior.sizes["param"], hyperparameters.TRUTH["hazard"]),
        folder / "hazards.png",
    )
    forest(
        lengths,
        "run length of one stream in hindsight, at some steps; red: truth",
        hyperparameters.run_lengths(inferred.switched)[chosen],
        folder / "hindsight.png",
    )


def forest(draws: Any, title: str, truth: np.ndarray, path: Path) -> None:
    """A forest plot, by arviz of either major, with the truth of every row."""
    import arviz

    plt = figures.pyplot()
    arviz.plot_forest(draws, combined=True)
    figure = plt.gcf()
    axes = figure.axes[-1]
    # Rows go down; arviz 0.x has a tick for each, 1.x counts them.
    ticks = np.asarray(axes.get_yticks())
    rows = ticks if len(ticks) == len(truth) else np.arange(len(truth))
    axes.plot(truth, rows[::-1], "|", color=figures.RED, ms=12, mew=2, zorder=5)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
