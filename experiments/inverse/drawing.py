"""The figures."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from experiments import figures
from experiments.inverse import coverage
from experiments.inverse.results import CONTROL, OUTSIDE, Results, identified, recovered

LEAST = 1e-10
"""Errors below are drawn here."""
BLOCKS = 100
"""Into so many a recording is cut where its residual is drawn."""


def draw(folder: Path, results: Results) -> None:
    """All figures."""
    draw_recovered(folder / "inverse.png", results)
    draw_noise(folder / "noise.png", results)
    draw_outside(folder / "outside.png", results)


def draw_recovered(path: Path, results: Results) -> None:
    """Errors of numbers, what is unexplained, and which rules are named."""
    names, rows = list(results.learners), recovered(results)
    places = {name: i for i, name in enumerate(names)}
    with figures.page(
        path, 1, 3, 4.8, width=13.0, sharey=True, gridspec_kw={"width_ratios": [2, 1.6, 1]}
    ) as panels:
        errors, left, rules = panels
        parameters = list(dict.fromkeys(row["parameter"] for row in rows))
        for k, parameter in enumerate(parameters):
            some = [r for r in rows if r["parameter"] == parameter and r["error"] is not None]
            colour = figures.CYCLE[k % len(figures.CYCLE)]
            for r in some:
                unit = abs(r["true"]) or 1
                half = max((r["high"] - r["low"]) / 2 / unit, LEAST)
                at = places[r["learner"]] + 0.09 * (k - len(parameters) / 2)
                errors.plot([LEAST, half], [at, at], color=colour, lw=1, alpha=0.4)
                fill = colour if r["curved"] else "none"
                errors.plot(max(r["error"], LEAST), at, "o", ms=4, color=colour, mfc=fill)
            errors.plot([], [], "o", ms=4, color=colour, label=parameter)
        errors.axvline(0.01, color="0.5", ls=":", lw=1)
        errors.set(
            xscale="log", xlabel="error, as a share of the truth", ylim=(len(names) - 0.5, -1.5)
        )
        errors.set_yticks(range(len(names)), names)
        errors.legend(fontsize=7, ncols=len(parameters), loc="upper center", columnspacing=1.0)
        errors.set_title("what is inferred; lines: half of the 95 % interval")
        for name, i in places.items():
            said = results.said[name]
            left.plot(said["unexplained"], i, "o", color=figures.BLUE, ms=5)
            left.plot(said["rounding"], i, "|", color="black", ms=12)
        left.plot([], [], "o", color=figures.BLUE, label="not explained")
        left.plot([], [], "|", color="black", ms=12, label="rounding of the parameters")
        for name, colour in zip(OUTSIDE, (figures.RED, figures.ORANGE), strict=True):
            left.axvline(results.said[name]["unexplained"], color=colour, lw=1, label=name)
        left.set(xscale="log", xlabel="share of the movement", title="what is left")
        left.legend(fontsize=7, loc="lower right")
        _draw_names(rules, results, names)


def _draw_names(axes: Any, results: Results, names: list[str]) -> None:
    """Which method names which rule: a filled mark where it is right."""
    methods = identified(results)
    for k, said in enumerate(methods.values()):
        for i, name in enumerate(names):
            true = results.learners[name].kind
            good = said[name] == true
            colour = figures.GREEN if good else figures.RED
            axes.plot(k, i, "s", ms=10, color=colour, mfc=colour if good else "none")
            if not good:
                axes.text(k + 0.16, i, said[name] or "none", fontsize=6, va="center")
    axes.set_xticks(range(len(methods)), [m.replace(" ", "\n") for m in methods])
    axes.set(xlim=(-0.5, len(methods)), title="the rule that is named")


def draw_noise(path: Path, results: Results) -> None:
    """Coverage, the width of intervals, and memories that are told."""
    with figures.page(path, 1, 3, 3.8, width=13.0) as panels:
        joint, widths, ends = panels
        noises = list(next(iter(results.noisy.values())))
        fits = results.fits
        low, high = (stats.binom.ppf(q, fits, coverage.LEVEL) / fits for q in (0.025, 0.975))
        joint.axhspan(low, high, color="0.9", label=f"95 % of {fits} fits, if it is right")
        for k, (name, of) in enumerate(results.coverage.items()):
            colour = figures.CYCLE[k]
            found = [of[f"{s:g}"] for s in noises]
            joint.plot(noises, [c["joint"] for c in found], "o-", color=colour, label=name)
            joint.plot(noises, [c["narrow"]["joint"] for c in found], "x:", color=colour)
            for j, parameter in enumerate(found[0]["widths"]):
                if parameter.endswith("noise"):
                    continue
                line = ("-", "--", "-.", ":")[j]
                values = [c["widths"][parameter] for c in found]
                label = f"{name}: {parameter}"
                widths.plot(noises, values, line, marker="o", ms=3, color=colour, label=label)
        joint.plot([], [], "x:", color="0.3", label="half the width")
        joint.set(
            ylim=(0, 1.02), title="regions of 90 % that hold the truth", ylabel="share of fits"
        )
        joint.legend(fontsize=7)
        widths.set(yscale="log", title="half width of 90 % intervals", ylabel="logs, odds, decay")
        widths.legend(fontsize=6, ncols=2)
        for k, (memory, of) in enumerate(results.ends.items()):
            values = [of[f"{s:g}"] for s in noises]
            ends.plot(noises, values, "o-", color=figures.CYCLE[k], label=f"{memory} steps")
        ends.axhline(coverage.TOLD, color="0.5", ls=":", label="told below")
        ends.set(yscale="log", title=f"memory of squares, from {coverage.STEPS} steps")
        ends.set(ylabel="upper end of the interval / lower end")
        ends.legend(fontsize=7)
        for axes in panels:
            axes.set(xscale="log", xlabel="noise of execution, as a share of the step")


def draw_outside(path: Path, results: Results) -> None:
    """Where learners depart from the family, and that Adam does not."""
    with figures.page(path, 1, 3, 4.0, width=13.0, sharey=True) as panels:
        for axes, name in zip(panels, (CONTROL, *OUTSIDE), strict=True):
            said = results.said[name]
            steps, rows = np.shape(said["residual"])
            blocks = np.array_split(np.asarray(said["residual"]), min(BLOCKS, steps))
            size = np.stack([np.sqrt((block**2).mean(0)) for block in blocks], 1)
            extent = (-0.5, steps - 0.5, rows - 0.5, -0.5)
            scale = {"vmin": -11, "vmax": -3, "cmap": "magma"}
            axes.imshow(np.log10(size + 1e-12), aspect="auto", extent=extent, **scale)
            above = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            for a, b in said["steps"]:
                axes.plot([a - 0.5, b - 0.5], [1.01, 1.01], color=figures.GREEN, lw=4, **above)
            named = len(said["coordinates"])
            title = f"{'Adam' if name == CONTROL else name}: {said['verdict']}"
            title += f"\n{named} coordinates, {len(said['steps'])} windows of ten are named"
            axes.set(xlabel="step", xlim=extent[:2])
            axes.set_title(title, pad=10)
        panels[0].set_ylabel("coordinate")
        shown = panels[0].images[0]  # all have one scale
        label = "log10 of the residual (root mean square)"
        panels[0].figure.colorbar(shown, ax=panels, label=label)
        figures.note(panels[0], "green bar: windows that are named")
