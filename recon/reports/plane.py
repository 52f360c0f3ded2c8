"""Figure 1: Algorithm 1a in the plane."""

from __future__ import annotations

import math
from typing import Any

from recon.reports.style import (
    BLUE,
    BOUND,
    INK,
    MARKERS,
    ORANGE,
    POINTS,
    Row,
    caption,
    column,
    panels,
)


def figure1(figure: Any, rows: list[Row]) -> None:
    """The plane with its cells, the line and what was asked; beside it how the search closed in."""
    kinds = {kind: [r for r in rows if r["kind"] == kind] for kind in ("unit", "query", "kink")}
    queries, kinks = kinds["query"], kinds["kink"]
    (plane, search) = panels(figure, 2, 9.5, 4.6, width_ratios=(1.1, 1))
    xs, ys = column(queries, "x"), column(queries, "y")
    middle = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    half = 0.56 * max(max(xs) - min(xs), max(ys) - min(ys))
    box = (middle[0] - half, middle[0] + half, middle[1] - half, middle[1] + half)
    plane.plot(xs[:2], ys[:2], color=INK, linewidth=1, zorder=2)
    along = (xs[1] - xs[0], ys[1] - ys[0])
    aside = (-along[1] / math.hypot(*along), along[0] / math.hypot(*along))
    labels: list[tuple[float, float]] = []
    for k, (kink, marker) in enumerate(zip(kinks, MARKERS, strict=False)):
        mine = [q for q in queries if q["search"] == k]
        style = POINTS | {"marker": marker, "mfc": (INK, "white")[k % 2]}
        plane.plot(column(mine, "x"), column(mine, "y"), **style, zorder=3)
        truth = kink["t"] - kink["error"]
        distance = [abs(q["t"] - truth) for q in mine]
        search.plot([q["order"] + 1 for q in mine], distance, **style, label=f"search {k + 1}")
        ring = {"marker": "o", "ms": 13, "mfc": "none", "mec": ORANGE, "mew": 2}
        plane.plot(kink["x"], kink["y"], **ring, zorder=4)
        away = [(-1) ** k * 0.3 * half * a for a in aside]
        labels.append((kink["x"] + away[0], kink["y"] + away[1]))
        plane.annotate(
            f"$Z_{k + 1}$ = ({kink['gradient_x']:.2f}, {kink['gradient_y']:.2f})",
            (kink["x"], kink["y"]),
            xytext=labels[-1],
            ha="center",
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": ORANGE, "shrinkB": 7},
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": ORANGE},
        )
    _cells(plane, kinds["unit"], box, queries[:2], labels)
    plane.set(xlim=box[:2], ylim=box[2:], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    plane.grid(visible=False)
    plane.set_title("Cells, the line u + tv, and the points asked")
    search.axhline(queries[0]["epsilon"], **BOUND, label="ε, where a search ends")
    search.set(yscale="log", xlabel="gradient query", ylabel="distance to the kink, in t")
    search.set_ylim(bottom=search.get_ylim()[0] / 20)
    search.set_title("Each search halves its interval")
    search.legend(loc="lower left")
    figure.suptitle("Figure 1 from a real run: a gradient change along a line is a hidden unit")
    error = max(row["error"] for row in kinks)
    caption(
        figure,
        f"d = h = 2, one planted victim. {len(queries)} gradient queries; kinks found within "
        f"{error:.1g} of the truth in t, ε = {queries[0]['epsilon']:.2g}.",
    )


def _cells(
    axis: Any,
    units: list[Row],
    box: tuple[float, float, float, float],
    ends: list[Row],
    taken: list[tuple[float, float]],
) -> None:
    """Shade the cells of the victim, draw its hyperplanes and write each cell's gradient.

    The text stands where it is farthest from edges, hyperplanes, line and places taken.
    """
    side = 240
    xs = [box[0] + (box[1] - box[0]) * (k + 0.5) / side for k in range(side)]
    ys = [box[2] + (box[3] - box[2]) * (k + 0.5) / side for k in range(side)]
    cell = [
        [sum((u["x"] * x + u["y"] * y > 0) << k for k, u in enumerate(units)) for x in xs]
        for y in ys
    ]
    axis.imshow(cell, extent=box, origin="lower", cmap="Greys", vmin=-1, vmax=9, zorder=0)
    reach = 2 * max(map(abs, box))
    for k, (unit, dash) in enumerate(zip(units, ("--", "-."), strict=False)):
        way = (-unit["y"], unit["x"])
        label = rf"$\langle A_{k + 1}, x\rangle = 0$"
        style = {"color": BLUE, "linestyle": dash, "linewidth": 1.2, "label": label, "zorder": 1}
        axis.plot(*[[-reach * w, reach * w] for w in way], **style)
    axis.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="white")
    (x0, y0), (x1, y1) = [(end["x"], end["y"]) for end in ends]
    length = math.hypot(x1 - x0, y1 - y0)
    normals = [(u["x"], u["y"]) for u in units] + [((y0 - y1) / length, (x1 - x0) / length)]
    shifts = [0.0] * len(units) + [(x0 * y1 - x1 * y0) / length]
    wide, high = 0.15 * (box[1] - box[0]), 0.03 * (box[3] - box[2])  # half of a text, roughly

    def room(point: tuple[float, float]) -> float:
        x, y = point
        lines = [
            abs(a * x + b * y + c) - wide * abs(a) - high * abs(b)
            for (a, b), c in zip(normals, shifts, strict=True)
        ]
        edges = [x - box[0] - wide, box[1] - x - wide, y - box[2] - high, box[3] - y - high]
        labels = [max(abs(x - a) - 2 * wide, abs(y - b) - 2 * high) for a, b in taken]
        return min(*lines, *edges, *labels)

    for code in range(1 << len(units)):
        inside = [(x, y) for j, y in enumerate(ys) for i, x in enumerate(xs) if cell[j][i] == code]
        if len(inside) < 0.02 * side**2:
            continue
        on = [u for k, u in enumerate(units) if code >> k & 1]
        gradient = [sum(u[name] for u in on) for name in ("gradient_x", "gradient_y")]
        place = max(inside, key=room)
        text = "∇f = 0" if not on else "∇f = ({:.2f}, {:.2f})".format(*gradient)
        axis.annotate(text, place, ha="center", va="center", fontsize=8, color="#333333")
