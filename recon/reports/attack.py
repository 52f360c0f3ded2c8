"""Figures of the tangent method: what it asks and what it survives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from recon.reports.style import (
    BLUE,
    EXACT,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    POINTS,
    Row,
    caption,
    column,
    levels,
    panels,
)


def queries(figure: Any, rows: list[Row]) -> None:
    """Queries a unit against h, with the width told and not told; mean, min and max."""
    axes = panels(figure, 2, 8.5, 3.7, sharey=True)
    widths = levels(rows, "width")
    for axis, known in zip(axes, (True, False), strict=True):
        cells = [row for row in rows if row["width_known"] == known]
        axis.axhline(1, **EXACT, label="floor: h rows of d numbers")
        forms = sorted({(row["outputs"], row["bias"]) for row in cells})
        for k, ((outputs, bias), marker) in enumerate(zip(forms, MARKERS, strict=False)):
            of = [row for row in cells if (row["outputs"], row["bias"]) == (outputs, bias)]
            of.sort(key=lambda row: row["width"])
            x = [row["width"] * 1.08 ** (k - (len(forms) - 1) / 2) for row in of]
            mean = column(of, "queries_per_unit")
            spread = [
                [row["queries_per_unit"] - row["queries_per_unit_min"] for row in of],
                [row["queries_per_unit_max"] - row["queries_per_unit"] for row in of],
            ]
            label = f"K = {outputs}, {'biases' if bias else 'no biases'}"
            style = POINTS | {"marker": marker, "capsize": 2, "label": label}
            axis.errorbar(x, mean, yerr=spread, **style)
        axis.set(xscale="log", xlabel="hidden units h")
        axis.set_xticks(widths, [str(width) for width in widths])
        axis.minorticks_off()
        axis.set_title("Width known" if known else "Width unknown")
        axis.margins(x=0.2)
    axes[0].set(ylabel="gradient queries a unit")
    axes[0].set_ylim(bottom=0, top=1.5 * max(column(rows, "queries_per_unit_max")))
    for axis in axes:
        axis.legend(loc="upper right")
    right = sum(row["exact"] for row in rows)
    figure.suptitle(f"{right} of {sum(row['runs'] for row in rows)} networks exact, certified")
    caption(
        figure,
        f"d = 2h. Mean, smallest and largest of {rows[0]['runs']} random victims a point, the "
        "certificate's queries included. Algorithm 1 asks 36 to 45 a unit (results/bench_exact).",
    )


OUTCOMES = {
    "exact": ("exact", {"facecolor": BLUE, "edgecolor": INK}),
    "near_only": ("right near, wrong far out", {"facecolor": "#9ec3e6", "hatch": "..."}),
    "failed": ("truthful failure", {"facecolor": "white", "edgecolor": GREY, "hatch": "///"}),
    "wrong": ("wrong, said to be right", {"facecolor": ORANGE, "edgecolor": INK, "hatch": "xx"}),
}


def robust(figure: Any, rows: list[Row]) -> None:
    """Shares of exact, truthfully failed and wrong results, for each kind of victim or view."""
    kinds = list(dict.fromkeys(column(rows, "kind")))[::-1]
    axes = panels(figure, 2, 12, 2.5 + 0.17 * len(kinds), sharey=True)
    for axis, known in zip(axes, (True, False), strict=True):
        for place, kind in enumerate(kinds):
            cell = [r for r in rows if r["kind"] == kind and r["width_known"] == known]
            total, left = sum(row["victims"] for row in cell), 0.0
            for name, (label, style) in OUTCOMES.items():
                share = 100 * sum(row[name] for row in cell) / total
                shown = label if place == 0 else None
                axis.barh(place, share, left=left, height=0.66, label=shown, **style)
                left += share
            exact = sum(row["exact"] for row in cell)
            axis.text(101, place, f"{exact:,}/{total:,}", va="center", fontsize=7)
        axis.set(xlim=(0, 115), ylim=(-0.6, len(kinds) - 0.4), xlabel="victims, %")
        axis.set_xticks(range(0, 101, 20))
        axis.set_title("Width known" if known else "Width unknown")
        axis.grid(visible=False, axis="y")
    names = [kind.split(" by ")[0].removeprefix("any: ") for kind in kinds]
    axes[0].set_yticks(range(len(kinds)), names, fontsize=7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    attacks, wrong, near, exact, told = (
        sum(row[name] or 0 for row in rows)
        for name in ("victims", "wrong", "near_only", "exact_identifiable", "identifiable")
    )
    title = (
        f"{attacks:,} attacks: {wrong or 'no'} wrong network{'s' * (wrong != 1)} said to be right"
    )
    figure.suptitle(f"{title}, {near or 'none'} right near only")
    caption(
        figure,
        "Counts: exact of all. Exact: to the digits promised (first rows: within 1e-11 on Gaussian "
        "points and 1e7 times farther out); right near: but for rare inputs. Kinds: recon.victims; "
        f"views: victims of all sorts, of which what is shown tells {told:,}; {exact:,} of these "
        "were exact; told: what users say of their inputs.",
    )


def depth(figure: Any, rows: list[Row]) -> None:
    """Queries against hidden units for each depth of dense layers, with the fitted laws; errors."""
    left, right = panels(figure, 2, 8.5, 3.9)
    series: dict[int, list[Row]] = {}
    rows = [
        row
        for row in rows
        if row["sizes"].replace("-", "").isdigit() and "float32" not in row["victim"]
    ]
    for row in rows:
        sizes = [int(size) for size in row["sizes"].split("-")]
        halved = all(b == max(a // 2, 4) for a, b in pairwise(sizes[:-1]))
        if row["victim"] == "random" and row["outputs"] == 10 and halved:
            series.setdefault(row["depth"], []).append(row)
    for (layers, of), marker in zip(sorted(series.items()), MARKERS, strict=False):
        of.sort(key=lambda row: row["hidden"])
        units = column(of, "hidden")
        asked = [row["queries_per_unit"] * row["hidden"] for row in of]
        whole = [i for i, row in enumerate(of) if row["ok"] == row["runs"]]
        x, y = (np.log([values[i] for i in whole]) for values in (units, asked))
        power, start = np.polyfit(x, y, 1) if len(whole) > 1 else (np.nan, np.nan)
        law = f"{np.exp(start):.1f} $n^{{{power:.2f}}}$"
        name = f"{layers} hidden layer{'s' if layers > 1 else ''}: {law}"
        left.plot(units, asked, **(POINTS | {"marker": marker}), label=name)
        left.plot(units, np.exp(start) * np.array(units) ** power, color=GREY, linewidth=0.8)
    ends = [min(column(rows, "hidden")), max(column(rows, "hidden"))]
    left.plot(ends, ends, **EXACT, label="one query a unit")
    left.set(xscale="log", yscale="log", xlabel="hidden units n, all layers", ylabel="queries")
    left.set_title("Each layer half as wide as the one before, ten outputs")
    left.legend(loc="lower right")
    for layers, marker in zip(levels(rows, "depth"), MARKERS, strict=False):
        of = [row for row in rows if row["depth"] == layers and row["exact"] > row["ok"] / 2]
        errors = [max(row["median_error"], 1e-17) for row in of]
        label = f"{layers} hidden layer{'s' if layers > 1 else ''}"
        right.plot(column(of, "hidden"), errors, **(POINTS | {"marker": marker}), label=label)
    right.set(xscale="log", yscale="log", xlabel="hidden units n, all layers")
    right.set(ylabel="median of the largest error")
    right.set_title("Shapes of which most that are certified are exact")
    right.legend(loc="upper left", ncols=2)
    right.set_ylim(top=1e-10)
    ticks = [16, 32, 64, 128, 256]
    for axis in (left, right):
        axis.minorticks_off()
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
    left.set_yticks([*ticks, 512, 1024], [*map(str, ticks), "512", "1,024"])
    ok, runs = (sum(column(rows, name)) for name in ("exact", "runs"))
    figure.suptitle(f"{ok} of {runs} networks recovered exactly, depth and widths not told")
    caption(
        figure,
        "Gradient queries, the certificate's included; means over the victims of a shape, laws "
        "fitted to shapes without a failure. Errors over 10,000 normal inputs, beside the rms. "
        "Replies in float64.",
    )
