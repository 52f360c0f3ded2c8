"""The figure of the comparison: every method on every network."""

from __future__ import annotations

import math
from typing import Any

from recon.reports.style import BLUE, GREY, INK, ORANGE, Row, caption, levels, panels

LOOKS = {
    "tangent": ("o", BLUE),
    "tangent, width unknown": ("s", BLUE),
    "bisect": ("^", INK),
    "membership": ("v", INK),
    "ART": ("D", ORANGE),
    "gradients alone": ("|", GREY),
}
MEASURES = {
    "queries": "queries, of either kind",
    "numbers": "numbers received",
    "seconds": "seconds, warm",
    "error": "worst relative error",
}
RIGHT = ("ok", "reference")  # filled; everything else is hollow


def bench(figure: Any, rows: list[Row]) -> None:
    """A panel for each measure, a line for each network, a point for each run."""
    rows = [row | {"queries": _queries(row)} for row in rows]
    networks = list(dict.fromkeys(row["network"] for row in rows))[::-1]
    methods = [name for name in LOOKS if any(row["method"] == name for row in rows)]
    axes = panels(figure, len(MEASURES), 11.5, 5.2, sharey=True)
    for axis, (name, label) in zip(axes, MEASURES.items(), strict=True):
        for k, method in enumerate(methods):
            marker, color = LOOKS[method]
            look = {"marker": marker, "color": color, "linestyle": "none", "ms": 5}
            shift = 0.35 - 0.7 * k / max(len(methods) - 1, 1)
            for right in (True, False):
                of = [
                    row
                    for row in rows
                    if row["method"] == method
                    and row[name] is not None
                    and math.isfinite(row[name])
                    and (row["outcome"] in RIGHT) == right
                    and not (method == "gradients alone" and name != "seconds")
                ]
                x = [row[name] for row in of]
                y = [networks.index(row["network"]) + shift for row in of]
                axis.plot(x, y, **look, mfc=color if right else "white", mew=1)
            axis.plot([], [], **look, label=method)
        for line in range(len(networks) - 1):
            axis.axhline(line + 0.5, color="#e6e6e6", linewidth=0.6)
        axis.set(xscale="log", xlabel=label)
        axis.grid(visible=False, axis="y")
    axes[0].set_yticks(range(len(networks)), networks)
    axes[0].set(ylabel="network, d-h-K", ylim=(-0.5, len(networks) - 0.5))
    axes[0].tick_params(axis="y", length=0)
    axes[-1].legend(loc="lower right")
    ours = [row for row in rows if row["method"].startswith("tangent")]
    theirs = [row for row in rows if row["method"] == "ART" and row["outcome"] != "not defined"]
    title = f"Tangents are right in {_right(ours)} runs"
    figure.suptitle(title + (f", ART in {_right(theirs)}" if theirs else ""))
    refused: dict[int, list[str]] = {}
    for row in rows:
        methods = refused.setdefault(row["outputs"], [])
        if row["outcome"] == "not defined" and row["method"] not in methods:
            methods.append(row["method"])
    undefined = [f"{' and '.join(who)} for K = {k}" for k, who in refused.items() if who]
    text = f"Up to {len(levels(rows, 'run'))} random networks a line, without biases. "
    text += "Hollow: wrong, raised an exception, or killed at the time limit. "
    caption(figure, text + (f"Not defined: {'; '.join(undefined)}." if undefined else ""))


def _queries(row: Row) -> int | None:
    return None if row["gradients"] is None else row["gradients"] + row["values"]


def _right(rows: list[Row]) -> str:
    return f"{sum(row['outcome'] == 'ok' for row in rows)} of {len(rows)}"
