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
from experiments.task_switch.inferring import Together
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
ABBREVIATIONS = (
    "BOCPD: Bayesian online change-point detection. "
    "OU: the best linear filter, of an Ornstein-Uhlenbeck optimum."
)
RECOVERED = (
    "Lines: theory. Circles: found by search for the cheapest policy, the optimum known. "
    "Crosses: belief and policy found together."
)
CURVED = (figures.BLACK, figures.BLUE, figures.ORANGE)
"""Colours of three curvatures."""
CIRCLE: dict[str, Any] = {"ls": "", "marker": "o", "ms": 5, "mfc": "w"}


def draw(
    config: Config,
    settings: Sequence[Setting],
    together: Sequence[Together],
    tracked: Tracked,
    followed: Followed,
    inferred: Inferred,
) -> None:
    """Draw all figures."""
    folder = config.folder
    draw_recovery(settings, together, folder / "recovery.png")
    draw_tracking(config, tracked, folder / "tracking.png")
    draw_trajectories(followed, folder / "trajectories.png")
    draw_resets(followed, folder / "resets.png")
    draw_run_lengths(inferred, folder / "run_lengths.png")
    draw_intervals(inferred, folder / "intervals.png")


def draw_recovery(settings: Sequence[Setting], together: Sequence[Together], path: Path) -> None:
    """Rates and reset fractions that a search found, on those of the theory."""
    discounts = sorted({s.discount for s in settings})
    curvatures, hazards = np.geomspace(0.05, 10, 100), np.geomspace(0.01, 5, 100)
    shades = (figures.BLACK, figures.BLUE, figures.GREEN, figures.ORANGE)
    with figures.page(path, 1, 3) as (left, *others):
        for discount, colour in zip(discounts, shades, strict=False):
            rates = control.anticipation(curvatures, 0.0, discount=discount).rate
            left.plot(curvatures, rates, color=colour, label=f"γ = {discount:g}")
            found = [s for s in settings if s.discount == discount]
            measured = [s.rate[1] for s in found]
            left.plot([s.curvature for s in found], measured, mec=colour, **CIRCLE)
        left.set(xscale="log", yscale="log", xlabel="curvature h", ylabel="rate r of approach")
        left.set_title("how fast weights follow")
        left.legend()
        for panel, discount in zip(others, (discounts[0], discounts[-1]), strict=True):
            for curvature, colour in zip(recovery.CURVATURES, CURVED, strict=True):
                theory = control.anticipation(curvature, hazards, discount=discount)
                reset = 1 - np.asarray(theory.weight)
                panel.plot(hazards, reset, color=colour, label=f"h = {curvature:g}")
                found = [s for s in settings if (s.discount, s.curvature) == (discount, curvature)]
                pulled = [(s.hazard, s.reset[1]) for s in found if s.hazard > 0]
                panel.plot(*zip(*pulled, strict=True), mec=colour, **CIRCLE)
                same = [s for s in together if s.curvature == curvature and discount == 0]
                crosses = [s.hazard for s in same], [s.reset[1] for s in same]
                panel.plot(*crosses, "x", ms=8, color=colour)
            panel.set(
                xscale="log", xlabel="hazard λ, switches per unit of time", ylim=(-0.03, 1.03)
            )
            panel.set_title(f"how far they are pulled back, γ = {discount:g}")
            panel.legend()
        others[0].set_ylabel("reset fraction 1 - w")
        figures.note(left, RECOVERED)


def draw_tracking(config: Config, tracked: Tracked, path: Path) -> None:
    """Errors of the beliefs, what wrong hazards cost, and how the hazard is learned."""
    with figures.page(path, 1, 3, 4.0) as (left, middle, right):
        order = sorted(tracked.error, key=lambda name: tracked.error[name])
        values = [tracked.error[name] for name in order]
        left.barh(order, values, color=[COLOURS[name] for name in order])
        for row, value in enumerate(values):
            left.text(value * 1.05, row, f"{value:.3f}", va="center", fontsize=8)
        left.invert_yaxis()
        left.set(xscale="log", xlim=(0.04, 2.5), xlabel="mean square error of the optimum")
        left.set_title("errors where the optimum switches")
        for name, error in tracked.sweep.items():
            middle.plot(tracking.ASSUMED, error, "o-", ms=3, color=COLOURS[name], label=name)
        fine = np.geomspace(tracking.ASSUMED[0], tracking.ASSUMED[-1], 100)
        theory = [tracking.steady_error(p, config.hazard) for p in fine]
        middle.plot(fine, theory, "--", lw=1, color="k", label="OU, exact")
        for name, (error, _) in tracked.learned.items():
            middle.axhline(error, ls=":", lw=1.2, color=COLOURS[name])
        middle.axvline(config.hazard, color="0.7", lw=1)
        middle.set(xscale="log", xlabel="assumed hazard", ylabel="mean square error")
        middle.set_title("wrong hazards; dotted: learned")
        middle.legend(fontsize=7)
        steps = np.arange(len(tracked.learning))
        cumulative = np.cumsum(tracked.learning, 1)
        low, high = (tracking.GRID[(cumulative >= q).argmax(1)] for q in (0.05, 0.95))
        colour = COLOURS["BOCPD"]
        right.fill_between(steps, low, high, step="mid", alpha=0.3, lw=0, color=colour)
        right.plot(steps, tracked.learning @ tracking.GRID, color=colour, label="BOCPD")
        right.axhline(config.hazard, color="0.3", ls="--", lw=1, label="truth")
        right.set(xscale="log", yscale="log", xlim=(10, len(steps)), xlabel="step")
        right.set(ylabel="hazard", title="hazard learned online, 90 %")
        right.legend()
        figures.note(left, ABBREVIATIONS)


def draw_trajectories(followed: Followed, path: Path) -> None:
    """Weights on their way through switches, and when these were suspected."""
    steps = np.arange(navigation.SHOWN_STEPS)
    shown = ("no forgetting", "OU", "two hypotheses", "BOCPD", "oracle")
    options: dict[str, Any] = {"sharex": True, "height_ratios": (1, 1, 1, 0.6)}
    with figures.page(path, 4, 1, 8.0, **options) as rows:
        for j, (axes, curvature) in enumerate(zip(rows[:-1], navigation.CURVATURES, strict=True)):
            axes.axhline(0, color="0.8", lw=1)
            axes.step(steps, followed.optima[:, j], where="mid", color="k", lw=2, label="optimum")
            for name in shown:
                style = {"color": COLOURS[name], "ls": ":" if name == "oracle" else "-"}
                axes.plot(steps, followed.shown[name].params[:, j], lw=1.4, label=name, **style)
            axes.set_ylabel(f"weight, curvature {curvature:g}")
        for name in ("two hypotheses", "BOCPD"):
            suspected = followed.shown[name].switch_probability
            rows[-1].plot(steps, suspected, color=COLOURS[name], lw=1.2)
        rows[-1].set(xlabel="step", ylabel="probability\nof a switch now", ylim=(-0.05, 1.05))
        for axes in rows:
            for switch in navigation.SHOWN_SWITCHES:
                axes.axvline(switch, color="0.7", lw=0.8, ls="--")
        rows[0].set_title("three switches of the task (dashed), which only the oracle is told of")
        figures.legend_above(rows[0])
        figures.note(rows[0], ABBREVIATIONS)


def draw_resets(followed: Followed, path: Path) -> None:
    """How much is reset when a switch is suspected, and what is left of a task after its end."""
    with figures.page(path, 1, 2, 4.4) as (left, right):
        line = np.linspace(0, 1, 50)
        weights = navigation.anticipated(navigation.RESET_HAZARD)[1:]
        for j, (curvature, colour) in enumerate(
            zip(navigation.CURVATURES[1:], CURVED[1:], strict=True)
        ):
            label = f"curvature {curvature:g}"
            left.plot(line, 1 - (1 - line) * weights[j], color=colour, label=label)
            for name, marker in (("two hypotheses", "o"), ("BOCPD", "x")):
                resets = followed.resets[name]
                style = {**CIRCLE, "marker": marker, "mec": colour}
                left.plot(resets.switch_probability, resets.measured[:, j], **style)
        for name, marker in (("two hypotheses", "o"), ("BOCPD", "x")):
            left.plot([], [], **{**CIRCLE, "marker": marker, "mec": "k"}, label=f"measured, {name}")
        left.set(xlabel="probability π of a switch", ylabel="reset fraction of the set-point")
        left.set_title(
            f"weights of which nothing was seen, hazard {navigation.RESET_HAZARD:g} a step"
        )
        left.legend(title="line: 1 - (1 - π) w", title_fontsize=8)
        lags = np.arange(-1, navigation.LAGS)
        styles = {"BOCPD": "o-", "OU": "--", navigation.STATIONARY: ":"}
        for j, (curvature, colour) in enumerate(zip(navigation.CURVATURES, CURVED, strict=True)):
            for name, style in styles.items():
                kept = np.r_[1.0, followed.retained[name][:, j]]
                label = f"curvature {curvature:g}" if name == "BOCPD" else None
                right.plot(lags, kept, style, ms=4, color=colour, label=label)
        for style, label in (("--", "OU"), (":", "BOCPD, same steps, no switches")):
            right.plot([], [], style, color="0.4", label=label)
        right.axhline(0, color="0.8", lw=1)
        right.axvline(-0.5, color="0.7", lw=0.8)
        right.set(xlabel="steps since the switch", ylabel="share of the old optimum still believed")
        right.set_title("what is left of a task after its end; solid: BOCPD")
        right.set_ylim(top=1.6)  # room for the legend
        right.legend(loc="upper right", ncols=2)
        figures.note(left, ABBREVIATIONS)


def draw_run_lengths(inferred: Inferred, path: Path) -> None:
    """One stream: what was seen, which run lengths were believed, and switches in hindsight."""
    steps = np.arange(len(inferred.switched))
    lengths = hyperparameters.run_lengths(inferred.switched)
    shown = inferred.run_length[:, : int(lengths.max() * 1.5) + 5].T
    first = inferred.fit.target.stream["gradient"].isel(param=0).values
    options: dict[str, Any] = {"sharex": True, "height_ratios": (1, 1.4, 0.7)}
    with figures.page(path, 3, 1, 7.0, **options) as (top, middle, bottom):
        top.plot(steps, -first, ".", color="0.6", label="seen, minus the gradient at 0")
        top.step(steps, inferred.optimum, where="mid", color="k", lw=1.8, label="optimum")
        top.set_ylabel("optimum")
        top.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
        top.set_title("one stream, hyper-parameters drawn from their posterior", loc="left")
        scale = {"cmap": "Blues", "shading": "nearest", "vmin": 0, "vmax": 1}
        image = middle.pcolormesh(steps, np.arange(len(shown)), np.sqrt(shown), **scale)
        middle.plot(steps, lengths, color=figures.RED, lw=1.2, ls="--", label="truth")
        middle.set_ylabel("run length (steps),\nas believed then")
        middle.legend(loc="upper left")
        bar = middle.figure.colorbar(image, ax=middle, label="probability")
        ticks = np.array([0, 0.1, 0.3, 0.6, 1.0])
        bar.set_ticks(np.sqrt(ticks), labels=[f"{t:g}" for t in ticks])
        bottom.bar(steps, inferred.switches["switch"].mean(("chain", "draw")), width=1.0)
        for switch in np.flatnonzero(inferred.switched):
            bottom.axvline(switch, color=figures.RED, lw=1.2, ls="--", zorder=0)
        bottom.set(xlabel="step", ylabel="probability of\na switch, in hindsight", ylim=(0, 1.05))


def draw_intervals(inferred: Inferred, path: Path) -> None:
    """Hazards of all streams, and run lengths of the first in hindsight, with the truth."""
    chosen = np.linspace(5, len(inferred.switched) - 1, 16).astype(int)
    hazards = inferred.fit.posterior["hazard"].transpose("param", "chain", "draw")
    lengths = inferred.switches["run_length"].isel(step=chosen).transpose("step", "chain", "draw")
    truth = hyperparameters.run_lengths(inferred.switched)[chosen]
    told = np.full(len(hazards), hyperparameters.TRUTH["hazard"])
    with figures.page(path, 1, 2, 4.4) as (left, right):
        for axes, draws, true, rows in (
            (left, hazards.values, told, np.arange(len(told))),
            (right, lengths.values, truth, chosen),
        ):
            low, median, high = np.quantile(draws.reshape(len(draws), -1), (0.05, 0.5, 0.95), 1)
            style = {"fmt": "o", "ms": 4, "color": figures.BLUE, "label": "median, 90 % interval"}
            axes.errorbar(median, rows, xerr=(median - low, high - median), **style)
            axes.plot(true, rows, "|", color=figures.RED, ms=12, mew=2, label="truth")
        left.set(xlabel="hazard, switches a step", ylabel="stream", title="every stream")
        left.set_yticks(np.arange(len(told)))
        right.set(xlabel="run length (steps) in hindsight", ylabel="step", title="the first stream")
        figures.legend_above(left)
