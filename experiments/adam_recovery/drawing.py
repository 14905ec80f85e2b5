"""The figures."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import figures
from experiments.adam_recovery.means_and_variances import LEARNING_RATES
from experiments.adam_recovery.results import TOLERANCE, Results
from experiments.adam_recovery.slopes import (
    DISCOUNTS,
    EXPECTED,
    POLICIES,
    Reading,
)

COLOURS = {
    "ballistic": figures.BLUE,
    "newton": figures.RED,
    "gradient_descent": figures.GREEN,
}
PLAN_COLOURS = {
    "certainty-equivalent": figures.BLUE,
    "averaged": figures.ORANGE,
    "cautious": figures.GREEN,
}
FULL: dict[str, Any] = {"marker": "o", "ms": 4, "ls": "-"}
DASHED: dict[str, Any] = {"marker": "s", "ms": 4, "mfc": "none", "ls": "--"}
ZERO = 0.1
"""Where a discount of zero stands on a logarithmic axis."""


def draw(path: Path, results: Results) -> None:
    """The three regimes for both readings, between them, and where the second moment fails."""
    with figures.page(path, 2, 2, 7.4) as axes:
        filtered, sampled = results.filtered, results.sampled
        lowest = next(iter(sampled.second_moment.values()))
        _draw_regimes(axes[0, 0], filtered.variance, lowest)
        axes[0, 0].set(
            xlabel="noise variance of the generator",
            title="Adam's belief: $V = E[y^2]$, low signal",
        )
        _draw_regimes(axes[0, 1], filtered.curvature, sampled.curvature)
        axes[0, 1].set(xlabel="curvature of the generator", title="Secant belief: $V = E[h]$")
        axes[0, 1].legend(fontsize=8, loc="lower left")
        _draw_between(axes[1, 0], results)
        _draw_failure(axes[1, 1], results)


def _draw_regimes(axes: Any, filtered: Reading, sampled: Reading) -> None:
    """Gains of every coordinate, centred on the geometric mean of what was filtered."""
    shown = slice(None, None, max(1, len(filtered.truth) // 150))
    center = np.log(filtered.truth).mean()
    ends = np.array([filtered.truth.min(), filtered.truth.max()])
    for name, policy in POLICIES.items():
        colour, label = COLOURS[name], name.replace("_", " ")
        measured = filtered.log_gain(policy)
        level = measured.mean()
        axes.loglog(
            filtered.truth[shown],
            np.exp(measured - level)[shown],
            ".",
            ms=3,
            color=colour,
            label=f"{label}, filter",
        )
        axes.loglog(
            sampled.truth,
            np.exp(sampled.log_gain(policy) - level),
            "o",
            ms=6,
            mfc="none",
            color=colour,
            label=f"{label}, NUTS",
        )
        axes.loglog(
            ends,
            np.exp(EXPECTED[name] * (np.log(ends) - center)),
            "-",
            lw=0.8,
            color="k",
            label=f"slopes {', '.join(f'{x:g}' for x in EXPECTED.values())}"
            if name == "ballistic"
            else None,
        )
    axes.set_ylabel("|step| / |mean|, relative")


def _draw_between(axes: Any, results: Results) -> None:
    """Slopes of finite horizons against the discount, for several time steps."""
    rows = results.between
    held = sorted({row.time_step for row in rows if row.exact_hold})[1::2]
    styles = [(False, 1.0, "replanning", figures.BLUE)]
    colours = (figures.SKY, figures.PURPLE, figures.ORANGE, figures.RED)
    styles += [(True, dt, rf"held for {dt:g}", c) for dt, c in zip(held, colours, strict=False)]
    grid = np.geomspace(ZERO, max(DISCOUNTS), 60)
    for exact_hold, time_step, label, colour in styles:
        chosen = [r for r in rows if (r.exact_hold, r.time_step) == (exact_hold, time_step)]
        x = [max(r.discount, ZERO) for r in chosen]
        theory = [
            results.filtered.curvature.derived(float(g), time_step, exact_hold)
            for g in grid[grid > 1.5 * ZERO]
        ]
        axes.semilogx(grid[grid > 1.5 * ZERO], theory, "-", lw=1, color=colour)
        axes.semilogx(x, [r.measured[1] for r in chosen], "o", ms=5, color=colour, label=label)
        axes.semilogx(x, [r.measured[0] for r in chosen], "x", ms=6, color=colour)
    for slope, name in ((-1, "Newton"), (-0.5, "ballistic"), (0, "gradient descent")):
        axes.axhline(slope, color="0.8", lw=0.8, zorder=0)
        axes.text(1.05 * max(DISCOUNTS), slope + 0.015, name, ha="right", fontsize=8, color="0.4")
    axes.plot([], [], "-", color="0.4", label="local exponent, averaged")
    axes.plot([], [], "x", color="0.4", label="on the variance")
    axes.set_xticks([ZERO, 0.3, 1, 3, 10, 30], ["0", "0.3", "1", "3", "10", "30"])
    axes.set(xlabel=r"discount $\gamma$", ylabel="slope", title="Between the regimes")
    axes.set_ylim(-1.06, 0.32)
    axes.legend(fontsize=7, loc="upper left")


def _draw_failure(axes: Any, results: Results) -> None:
    """The ballistic slope on the noise variance as the signal grows."""
    failure, sampled = results.failure, results.sampled
    ratios, law = failure.ratios, r"slope of $(R + P)^{-1/2}$"
    axes.semilogx(ratios, failure.measured, "o", ms=5, color=figures.BLUE, label="Adam's filter")
    axes.semilogx(ratios, failure.derived, "-", lw=1, color="k", label=law)
    ballistic = POLICIES["ballistic"]
    for readings, marker, colour, label in (
        (sampled.second_moment, "s", figures.ORANGE, "NUTS, $E[y^2]$"),
        (sampled.variance, "D", figures.GREEN, "NUTS, noise variance"),
    ):
        values = [reading.slope(ballistic) for reading in readings.values()]
        axes.semilogx(list(readings), values, marker, ms=7, mfc="none", color=colour, label=label)
    limit, end = failure.within(TOLERANCE), 2 * ratios[-1]
    axes.axhspan(-0.5 - TOLERANCE, -0.5 + TOLERANCE, color="0.9", lw=0, zorder=0)
    if limit < ratios[-1]:
        style = {"color": figures.RED, "zorder": 0}
        axes.axvspan(limit, end, alpha=0.08, lw=0, **style)
        axes.text(limit * 1.3, -0.02, "$E[y^2]$ is not Var", va="top", fontsize=9, **style)
    axes.set(
        xlabel="signal to noise $P/R$ (geometric mean)",
        ylabel="slope of the ballistic step on $R$",
        title="Where the second moment fails",
        ylim=(-0.56, 0.0),
        xlim=(ratios[0] / 2, end),
    )
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 0.9))


def draw_beyond(path: Path, results: Results) -> None:
    """Full observation, means and variances, and dual control."""
    with figures.page(path, 2, 3, 6.6) as axes:
        _draw_observed(axes[0, 0], results)
        _draw_costs(axes[0, 1], results)
        _draw_networks(axes[0, 2], results)
        _draw_gains(axes[1], results)


def _draw_observed(axes: Any, results: Results) -> None:
    """Slopes on variance and curvature as the noise is taken away."""
    observed = results.observed
    for table, name, colour in (
        (observed.secant, "secant", figures.BLUE),
        (observed.adam, "$E[y^2]$", figures.ORANGE),
    ):
        for column, number, style in ((1, "h", FULL), (0, "R", DASHED)):
            label = f"{name}, on ${number}$"
            axes.semilogx(observed.noise, table[:, column], **style, color=colour, label=label)
    for level in (0, -0.25, -0.5, -1):
        axes.axhline(level, color="0.8", lw=0.8, zorder=0)
    axes.set(
        xlabel="noise variance $R$ (geometric mean)",
        ylabel="slope of the step",
        title="Fully observed: to the left",
        ylim=(-1.08, 0.35),
    )
    axes.legend(fontsize=7, ncols=2, loc="upper center")


def _draw_costs(axes: Any, results: Results) -> None:
    """What plans pay more than the certainty-equivalent one, for every noise."""
    costs, styles = results.costs, ("-", "--", ":")
    axes.axhline(0, color=PLAN_COLOURS["certainty-equivalent"], label="certainty-equivalent")
    for name in ("averaged", "cautious"):
        for j, style in enumerate(styles):
            axes.errorbar(
                costs.dispersions,
                100 * costs.versus[name][:, j],
                100 * costs.error[name][:, j],
                fmt=f"o{style}",
                ms=4,
                color=PLAN_COLOURS[name],
                label=None if j else name,
            )
    for noise, style in zip(costs.noises, styles, strict=True):
        axes.plot([], [], style, color="0.4", label=f"noise {noise:g}")
    axes.set(
        xlabel="dispersion of the curvature",
        ylabel="extra cost, % of the least possible",
        title="Quadratics",
    )
    axes.legend(fontsize=7, loc="lower left")


def _draw_networks(axes: Any, results: Results) -> None:
    """Training losses, mean and range over seeds."""
    for name, colour in PLAN_COLOURS.items():
        loss = results.networks[name].loss.T
        figures.band(axes, LEARNING_RATES, loss, marker="o", ms=4, color=colour, label=name)
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="learning rate", ylabel="training loss (nats)", title="A network on digits")
    axes.legend(fontsize=7, loc="upper center")


def _draw_gains(row: Any, results: Results) -> None:
    """Dual control: all gains, the part of probing, and the first move."""
    left, middle, right = row
    panels = (
        (left, "dual control", lambda s: 100 * s.gain()),
        (left, "of which probing", lambda s: 100 * s.gain(over="anticipating")),
        (middle, "averaged", lambda s: 100 * s.gain("averaged")),
        (middle, "cautious", lambda s: 100 * s.gain("cautious")),
        (right, "dual control", lambda s: s.first_move["optimal"]),
        (right, "anticipating only", lambda s: s.first_move["anticipating"]),
    )
    dispersions = sorted({c for c, _ in results.solutions})
    colours = (figures.SKY, figures.GREEN, figures.ORANGE, figures.RED)
    for i, (axes, label, value) in enumerate(panels):
        style = DASHED if i % 2 else FULL
        for c, colour in zip(dispersions, colours, strict=False):
            chosen = {r: value(s) for (c_, r), s in results.solutions.items() if c_ == c}
            axes.semilogx(list(chosen), list(chosen.values()), **style, color=colour)
        axes.plot([], [], **style, color="0.4", label=label)
    for c, colour in zip(dispersions, colours, strict=False):
        left.plot([], [], color=colour, label=f"dispersion {c:g}")
    first = next(iter(results.solutions.values())).first_move["certainty-equivalent"]
    middle.axhline(0, color="k", lw=0.8)
    right.axhline(first, color="k", lw=0.8, label="certainty-equivalent")
    middle.set_yscale("symlog", linthresh=1)
    left.set(title="Gain over certainty equivalence", ylabel="gain in %")
    left.set_ylim(top=1.6 * left.get_ylim()[1])  # room for the legend
    middle.set(title="Gain of other plans over it", ylabel="gain in %")
    right.set(title="First move", ylabel="first move")
    right.set_ylim(top=1.2 * right.get_ylim()[1])
    for axes in (left, middle, right):
        axes.set_xlabel("noise variance $R$ of a reading")
        axes.legend(fontsize=7, loc="upper right" if axes is middle else "upper left")
