"""Figures of the theory: Lemmas 2 and 3, Theorem 1."""

from __future__ import annotations

from typing import Any

from recon.reports.style import (
    BOUND,
    EXACT,
    GREY,
    MARKERS,
    OURS,
    POINTS,
    Row,
    caption,
    column,
    levels,
    measured,
    panels,
)


def lemma2(figure: Any, rows: list[Row]) -> None:
    """P(|t1 - t2| <= epsilon): measured, exact, Lemma 2's bound and the linear one."""
    separations, dims = levels(rows, "separation"), levels(rows, "dim")
    axes = panels(figure, len(separations), 10, 3.5, sharey=True)
    for axis, separation in zip(axes, separations, strict=True):
        cell = [row for row in rows if row["separation"] == separation]
        curve = sorted((r for r in cell if r["dim"] == dims[0]), key=lambda r: r["epsilon"])
        x = column(curve, "epsilon")
        axis.plot(x, column(curve, "bound"), **BOUND, label="Lemma 2")
        axis.plot(x, column(curve, "sharp_bound"), **OURS, label="linear bound (ours)")
        axis.plot(x, column(curve, "exact"), **EXACT, label="exact (ours)")
        for dim, marker in zip(dims, MARKERS, strict=False):
            points = [row for row in cell if row["dim"] == dim]
            measured(axis, points, "epsilon", "probability", marker=marker, label=f"d = {dim}")
        axis.set(xscale="log", yscale="log", ylim=(1e-5, 2))
        axis.set(xlabel=r"$\epsilon$", title=f"c = {separation:g}")
    axes[0].set_ylabel(r"$P(|t_1 - t_2| \leq \epsilon)$")
    axes[0].legend(loc="lower right", handlelength=2.6, borderaxespad=0)
    figure.suptitle("Lemma 2 holds, and is loose: the true probability is linear in ε")
    caption(
        figure,
        f"Markers: {rows[0]['draws']:,} draws of (u, v) for each d, 95 % Clopper-Pearson "
        "intervals. |⟨a, b⟩| = 1 − c.",
    )


def lemma3(figure: Any, rows: list[Row]) -> None:
    """P(|t| >= l): measured, exact and Lemma 3's bound; beside it their ratio."""
    dims = levels(rows, "dim")
    (left, right) = panels(figure, 2, 8, 3.5)
    curve = sorted((r for r in rows if r["dim"] == dims[0]), key=lambda r: r["reach"])
    x, exact = column(curve, "reach"), r"exact: $(2/\pi)\,\arctan(1/l)$"
    left.plot(x, column(curve, "bound"), **BOUND, label=r"Lemma 3: $2/(\pi l)$")
    left.plot(x, column(curve, "exact"), **EXACT, label=exact)
    right.axhline(1, **BOUND)
    right.plot(x, [r["exact"] / r["bound"] for r in curve], **EXACT)
    for k, (dim, marker) in enumerate(zip(dims, MARKERS, strict=False)):
        points = [row for row in rows if row["dim"] == dim]
        measured(left, points, "reach", "probability", marker=marker, label=f"d = {dim}")
        ratio = [
            {"reach": r["reach"] * 1.08**k}  # side by side, as the intervals grow
            | {name: r[name] / r["bound"] for name in ("probability", "low", "high")}
            for r in points
        ]
        measured(right, ratio, "reach", "probability", marker=marker)
    left.set(xscale="log", yscale="log", xlabel="$l$", ylabel=r"$P(|t| \geq l)$")
    left.set(ylim=(4e-4, 2), title="Probability")
    right.set(xscale="log", xlabel="$l$", ylabel="P / bound", title="As a share of the bound")
    left.legend(loc="lower left", handlelength=2.6)
    figure.suptitle("Lemma 3 holds, and is tight: a kink's place on the line is a Cauchy variable")
    caption(
        figure,
        f"Markers: {rows[0]['draws']:,} draws of (u, v) for each d, 95 % Clopper-Pearson "
        "intervals.",
    )


def theorem1(figure: Any, rows: list[Row]) -> None:
    """Failure rate against delta, and queries a unit against h, both beside their bounds."""
    (left, right) = panels(figure, 2, 9, 3.9)
    deltas, widths = levels(rows, "delta"), levels(rows, "width")
    paper = [row for row in rows if row["rule"] == "paper"]
    for place, delta in enumerate(deltas):
        ends = [place - 0.4, place + 0.4]
        labels = ("Theorem 1: δ", "Lemma 3's half: δ/2") if place == 0 else (None, None)
        left.plot(ends, [delta] * 2, **BOUND, label=labels[0])
        left.plot(ends, [delta / 2] * 2, **EXACT, label=labels[1])
    for k, (width, marker) in enumerate(zip(widths, MARKERS, strict=False)):
        aside = 0.6 * ((k + 0.5) / len(widths) - 0.5)
        points = [
            row | {"place": deltas.index(row["delta"]) + aside}
            for row in paper
            if row["width"] == width
        ]
        measured(left, points, "place", "failure_rate", marker=marker, label=f"h = {width}")
    left.set_xticks(range(len(deltas)), [f"{delta:g}" for delta in deltas])
    left.set(xlabel="δ asked for", ylabel="failure rate", title="Failures, all of them notified")
    left.grid(visible=False, axis="x")
    left.legend(loc="upper left", ncols=2)
    for rule, line in (("paper", BOUND), ("sharp", OURS)):
        for delta, marker in zip(deltas, MARKERS, strict=False):
            cell = sorted(
                (r for r in rows if r["rule"] == rule and r["delta"] == delta),
                key=lambda r: r["width"],
            )
            filled = "none" if rule == "paper" else GREY
            label = f"δ = {delta:g}" if rule == "paper" else None
            right.plot(column(cell, "width"), column(cell, "bound_per_unit"), **line)
            right.plot(
                column(cell, "width"),
                column(cell, "gradients_per_unit"),
                **(POINTS | {"marker": marker, "mfc": filled, "label": label}),
            )
    right.plot([], [], **BOUND, label=r"$\log_2(2l/\epsilon)$, ε from Lemma 2")
    right.plot([], [], **OURS, label="the same, ε from the linear bound (ours)")
    right.set(xscale="log", xlabel="hidden units h", ylabel="gradient queries a unit")
    right.set_xticks(widths, [str(width) for width in widths])
    right.minorticks_off()
    right.set_ylim(0, 1.45 * max(row["bound_per_unit"] for row in rows))
    right.set(title="Queries: h log h, on the bound")
    right.legend(loc="upper left", ncols=1)
    figure.suptitle("Theorem 1 holds: failures stay under δ, queries grow as h log(h/δ)")
    runs = levels(paper, "runs")
    caption(
        figure,
        f"d = 2h; {runs[0]} to {runs[-1]} random victims a point, 95 % Clopper-Pearson intervals. "
        "2h value queries for the signs come on top.",
    )
