"""What all figures have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from beliefnav._files import written_beside

WIDTH = 10.0
"""Width of a figure in inches."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
"""Okabe and Ito's colours, which remain distinct to the colour-blind."""
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)
"""The order in which lines without a colour of their own take these."""


@contextmanager
def page(
    path: Path, rows: int = 1, columns: int = 1, height: float = 3.8, **options: Any
) -> Iterator[Any]:
    """The axes of a new figure, which is saved in the end.

    Args:
        path: PNG file to write.
        rows: number of rows of axes.
        columns: number of columns.
        height: of the figure, in inches.
        **options: further ones of ``matplotlib.pyplot.subplots``, and ``width`` in inches.

    Yields:
        One axes, or an array of them, of as many dimensions as are longer than 1.
    """
    import matplotlib

    matplotlib.use("agg")
    from cycler import cycler
    from matplotlib import pyplot

    options = {"layout": "constrained", "figsize": (options.pop("width", WIDTH), height)} | options
    style: dict[Any, Any] = {"axes.prop_cycle": cycler(color=CYCLE), "legend.fontsize": 8}
    style |= {"font.size": 9, "axes.titlesize": 10}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(rows, columns, **options)
        try:
            yield axes
            with written_beside(path) as unfinished:
                figure.savefig(unfinished, dpi=120)
        finally:
            pyplot.close(figure)


def legend_above(axes: Any) -> None:
    """One legend for the whole figure, above all panels, with what one of them shows."""
    handles, labels = axes.get_legend_handles_labels()
    columns = len(labels) if len("".join(labels)) < 100 else 3
    axes.figure.legend(handles, labels, ncols=columns, loc="outside upper center")


def note(axes: Any, text: str) -> None:
    """Say below all panels how they are to be read."""
    axes.figure.supxlabel(text, fontsize=9)


def band(axes: Any, x: Any, values: np.ndarray, **line: Any) -> None:
    """A line of the mean over the first axis of ``values``, in a band of its range."""
    (drawn,) = axes.plot(x, values.mean(0), **line)
    low, high = values.min(0), values.max(0)
    axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2, lw=0)
