"""How every figure looks, and what figures share; matplotlib's objects come from the caller.

Every figure must be legible in greyscale: series differ in marker and line style, not in
colour alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]

INK, BLUE, ORANGE, GREY = "#1a1a1a", "#1f5fa8", "#d9730d", "#8a8a8a"
STYLE: Any = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
}
# how the three recurring kinds of curve look, in every figure
POINTS = {"color": INK, "linestyle": "none", "ms": 4.5, "mfc": "none"}
MARKERS = "os^vDP"
EXACT = {"color": BLUE, "linestyle": "-"}
BOUND = {"color": ORANGE, "linestyle": "--"}
OURS = {"color": GREY, "linestyle": "-."}


def panels(figure: Any, columns: int, width: float, height: float, **options: Any) -> list[Any]:
    """Axes side by side in a figure of width x height inches."""
    figure.set_size_inches(width, height)
    return list(figure.subplots(1, columns, squeeze=False, **options)[0])


def column(rows: Iterable[Row], name: str) -> list[Any]:
    """One column, in the order of the rows."""
    return [row[name] for row in rows]


def levels(rows: Iterable[Row], name: str) -> list[Any]:
    """The values a column takes, ascending."""
    return sorted({row[name] for row in rows})


def errors(rows: list[Row], value: str) -> list[list[float]]:
    """Distances from `value` down to `low` and up to `high`, as errorbar wants them."""
    return [
        [max(row[value] - row["low"], 0.0) for row in rows],
        [max(row["high"] - row[value], 0.0) for row in rows],
    ]


def measured(axis: Any, rows: list[Row], x: str, y: str, **style: Any) -> None:
    """Points with their confidence intervals."""
    points = sorted(rows, key=lambda row: row[x])
    axis.errorbar(
        column(points, x),
        column(points, y),
        yerr=errors(points, y),
        capsize=2,
        **(POINTS | style),
    )


def caption(figure: Any, text: str) -> None:
    """What was measured, and how often, in small print below."""
    lines = textwrap.fill(text, int(figure.get_figwidth() / 0.075))  # inches a letter, about
    figure.supxlabel(lines, fontsize=7.5, color="#555555", x=0.01, ha="left")
