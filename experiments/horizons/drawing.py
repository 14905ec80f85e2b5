"""The figure."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import figures
from experiments.horizons.memory import NAMES, Shares
from experiments.horizons.noise import NOISES, Coefficients, Unknown
from experiments.horizons.planning import Costate, Paths, rate

COLOURS = {0.0: figures.BLUE, 1.0: figures.GREEN, 10.0: figures.RED}
ZERO = 0.03
"""Where a discount of zero stands on a logarithmic axis."""
DISCOUNT_TICKS = [ZERO, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"]
LEAST = 1e-16
"""Shares below are drawn here: rounding."""


def draw(
    file: Path,
    paths: dict[float, Paths],
    ratios: dict[float, float],
    integrals: Costate,
    shares: Shares,
    coefficients: Coefficients,
    second: dict[str, Unknown],
) -> None:
    """Paths and rates above; below, whether a past velocity says anything, and when."""
    with figures.page(file, 2, 3, 6.8) as ((position, plane, ratio), (costate, share, noisy)):
        _draw_paths(position, plane, paths)
        _draw_ratio(ratio, ratios)
        _draw_costate(costate, integrals)
        _draw_shares(share, shares)
        _draw_noise(noisy, coefficients, second)


def _draw_paths(position: Any, plane: Any, paths: dict[float, Paths]) -> None:
    """Paths in one direction and in two: closed forms, and least action."""
    for g, colour in COLOURS.items():
        p, style = paths[g], {"color": colour}
        exact = np.exp(-rate(1.0, g) * p.times)
        dots = np.linspace(0, np.searchsorted(p.times, 6.0), 13).astype(int)
        position.plot(p.times, exact, **style)
        position.plot(p.times[dots], p.unit[dots], "o", ms=4, mfc="none", **style)
        exact = -3 * np.exp(-np.outer(p.times, rate(np.array([1 / 9, 1.0]), g)))
        plane.plot(*exact.T, **style, label=rf"$\gamma$ = {g:g}")
        dots = np.linspace(0, len(p.times) - 1, 13).astype(int)
        plane.plot(*p.plane[dots].T, "o", ms=4, mfc="none", **style)
    position.set(
        xlabel="time", ylabel=r"parameter $\theta_t$", title="Path, curvature 1", xlim=(0, 6)
    )
    x, y = np.meshgrid(np.linspace(-3.3, 0.5, 60), np.linspace(-3.3, 0.5, 60))
    plane.contour(x, y, x**2 / 18 + y**2 / 2, 12, colors="0.8", linewidths=0.6, zorder=0)
    plane.set(
        xlabel=r"$\theta_1$ (flat)", ylabel=r"$\theta_2$ (steep)", title="Curvatures 1/9 and 1"
    )
    plane.plot([], [], "-", color="0.4", label="closed form")
    plane.plot([], [], "o", ms=4, mfc="none", color="0.4", label="least action")
    plane.legend(loc="lower right")


def _draw_ratio(ratio: Any, ratios: dict[float, float]) -> None:
    """The rate at curvature 4 over that at curvature 1."""
    grid = np.geomspace(ZERO, 200, 200)
    ratio.semilogx(grid, rate(4.0, grid) / rate(1.0, grid), color="0.4", label="closed form")
    shown = {max(g, ZERO): value for g, value in ratios.items()}
    ratio.semilogx(list(shown), list(shown.values()), "o", color=figures.BLUE, label="measured")
    for level, name in ((4, "gradient descent"), (2, "descent with $H^{-1/2}$")):
        ratio.axhline(level, color="0.8", lw=0.8, zorder=0)
        side = {"ha": "right", "va": "bottom"} if level == 2 else {"ha": "left", "va": "top"}
        ratio.text(200 if level == 2 else ZERO, level, name, fontsize=8, **side)
    ratio.set(xlabel=r"discount $\gamma$", ylabel="rate at 4 / rate at 1", ylim=(1.9, 4.1))
    ratio.set_xticks(*DISCOUNT_TICKS)
    ratio.set_title("Steep against flat")
    ratio.legend(fontsize=8, loc="center left")


def _draw_costate(axes: Any, integrals: Costate) -> None:
    """The velocity of one path, and what the two integrals say of it."""
    t = integrals.times
    every = slice(None, None, max(1, len(t) // 40))
    axes.plot(t, integrals.future, color=figures.BLUE, label="integral of gradients to come")
    axes.plot(t, integrals.past, "--", color=figures.RED, label="of gradients seen, scaled")
    axes.plot(
        t[every], integrals.velocity[every], "o", ms=4, mfc="none", color="k", label="velocity"
    )
    axes.set(xlabel="time", ylabel="velocity", xlim=(0, 6))
    axes.set_title(r"The velocity of a plan, $\gamma$ = 1")
    axes.legend(fontsize=8, loc="lower right")


def _draw_shares(axes: Any, shares: Shares) -> None:
    """What only the past velocity explains, for every policy on both losses."""
    rows: dict[str, tuple[float, ...]] = {}
    for g in shares.unlimited[NAMES[0]]:
        rows[rf"plan, $\gamma$ = {g:g}"] = tuple(shares.unlimited[name][g] for name in NAMES)
    rows["plan of duration 2, and time"] = tuple(shares.finite[name] for name in NAMES)
    rows["... time left out"] = tuple(shares.without_time[name] for name in NAMES)
    labels = {"H^(-1/2)": "descent with $H^{-1/2}$", "random diagonal": "descent, random diagonal"}
    for kind in shares.preconditioned[NAMES[0]]:
        label = labels.get(kind, kind)
        rows[label] = tuple(shares.preconditioned[name][kind] for name in NAMES)
    rows["heavy ball"] = tuple(shares.heavy_ball[name] for name in NAMES)
    rows["heavy ball, and time"] = tuple(shares.heavy_ball_with_time[name] for name in NAMES)
    for j, (name, marker) in enumerate(zip(NAMES, "os", strict=True)):
        values = [max(row[j], LEAST) for row in rows.values()]
        axes.semilogx(values, range(len(rows)), marker, ms=5, label=f"{name} loss")
    axes.axvline(1e-6, color="0.7", lw=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="share of the variance of velocity", xlim=(LEAST / 3, 30))
    axes.set_title("Explained by past velocity only")
    axes.legend(fontsize=7, loc="lower left")


def _draw_noise(axes: Any, known: Coefficients, second: dict[str, Unknown]) -> None:
    """The coefficient of the past displacement, against the noise."""
    axes.semilogx(NOISES, known.predicted, color=figures.BLUE, label="$(1 - G)(1 - K)$")
    circle = {"ms": 5, "mfc": "none"}
    axes.semilogx(NOISES, known.searched, "o", color=figures.BLUE, label="search", **circle)
    axes.semilogx(
        NOISES, known.regressed, "x", color=figures.GREEN, label="navigator, with its $K$"
    )
    unknown = second["unknown curvature"].coefficient
    axes.semilogx(NOISES, unknown, "s--", color=figures.RED, label="unknown curvature", **circle)
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel="variance $R$ of the noise of a gradient", ylim=(-0.75, 1.35))
    axes.set_ylabel("coefficient of the past displacement")
    axes.set_title("When the past counts")
    axes.legend(fontsize=8, loc="upper left")
