"""Figures 2 to 4 in the paper's layout: accuracy of the student against queries asked."""

from __future__ import annotations

from typing import Any

from recon.figures.style import BLUE, GREY, INK, ORANGE, Row, caption, column, levels, panels

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gradient": ("gradient", {"color": BLUE, "linestyle": "-", "marker": "o"}),
    "gradient-whole": (
        "gradient, all rows a step",
        {"color": BLUE, "linestyle": (0, (1, 1)), "marker": "s", "mfc": "white"},
    ),
    "gradient-autodiff": (
        "gradient, no surrogate",
        {"color": GREY, "linestyle": "-", "marker": "x"},
    ),
    "gradient-undecayed": (
        "gradient, no weight decay",
        {"color": GREY, "linestyle": "--", "marker": "o", "mfc": "white"},
    ),
    "smoothgrad": (
        "SmoothGrad",
        {"color": INK, "linestyle": (0, (4, 1.5)), "marker": "s", "mfc": "white"},
    ),
    "smoothgrad-own": (
        "SmoothGrad, of both",
        {"color": INK, "linestyle": (0, (1, 1)), "marker": "v", "mfc": "white"},
    ),
    "top": (
        "gradient of the top class",
        {"color": GREY, "linestyle": "-.", "marker": "^", "mfc": "white"},
    ),
    "membership": ("membership", {"color": ORANGE, "linestyle": ":", "marker": "D"}),
    "membership-entropy": (
        "membership, cross-entropy",
        {"color": ORANGE, "linestyle": (0, (1, 3)), "marker": "v", "mfc": "white"},
    ),
    "gradient-ensemble": (
        "gradient, four of eight students",
        {"color": BLUE, "linestyle": "-.", "marker": "^"},
    ),
    "membership-ensemble": (
        "membership, four of eight students",
        {"color": ORANGE, "linestyle": "-.", "marker": "^", "mfc": "white"},
    ),
    "gradient+pool": (
        "gradient, and unasked images",
        {"color": BLUE, "linestyle": "--", "marker": "P", "mfc": "white"},
    ),
    "membership+pool": (
        "membership, and unasked images",
        {"color": ORANGE, "linestyle": "--", "marker": "X", "mfc": "white"},
    ),
}
MODELS = {"linear": "1-layer", "mlp": "2-layer", "conv": "convolutional"}


def figure2(figure: Any, rows: list[Row]) -> None:
    """A panel for each victim, rebuilt with its own class from images."""
    _draw(figure, rows, "Rebuilt with a student of the same class")


def figure3(figure: Any, rows: list[Row]) -> None:
    """A panel for each victim and the student of another class."""
    _draw(figure, rows, "Rebuilt with a student of another class")


def figure4(figure: Any, rows: list[Row]) -> None:
    """A panel for each victim, asked about Gaussian noise."""
    _draw(figure, rows, "Queries that are no images: x ~ N(0, I)")


def _draw(figure: Any, rows: list[Row], title: str) -> None:
    """Mean and range over seeds against a logarithmic budget; the victim's own accuracy dashed."""
    failed = [row for row in rows if row["failure"] is not None]
    rows = [row for row in rows if row["failure"] is None]
    pairs = list(dict.fromkeys((row["victim"], row["student"]) for row in rows))
    kinds = [kind for kind in KINDS if kind in set(column(rows, "kind"))]
    axes = panels(figure, len(pairs), 2.4 + 2.7 * len(pairs), 3.6, sharey=True)
    for axis, (victim, student) in zip(axes, pairs, strict=True):
        mine = [row for row in rows if (row["victim"], row["student"]) == (victim, student)]
        for kind in kinds:
            _curve(axis, [row for row in mine if row["kind"] == kind], *KINDS[kind])
        own = 100 * mine[0]["victim_accuracy"]
        axis.axhline(own, color=INK, linestyle="--", linewidth=0.9, label="the victim itself")
        axis.set_title(_title(victim, student))
        budgets = levels(mine, "budget")
        axis.set(xscale="log", xlabel="queries")
        axis.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axis.minorticks_off()
    axes[0].set(ylabel="accuracy on test images, %", ylim=(0, 102))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(title)
    seeds = sorted({len(_seeds(rows, pair)) for pair in pairs})
    text = (
        f"{rows[0]['dataset']}. Lines: the mean over {' to '.join(map(str, seeds))} seeds; bands: "
        "lowest to highest. A gradient is the whole Jacobian of the logits, but for the top class."
    )
    caption(figure, text + (f" {len(failed)} students failed and are left out." if failed else ""))


def _seeds(rows: list[Row], pair: tuple[str, str]) -> set[int]:
    return {row["seed"] for row in rows if (row["victim"], row["student"]) == pair}


def _curve(axis: Any, rows: list[Row], label: str, look: dict[str, Any]) -> None:
    budgets = levels(rows, "budget")
    cells = [[100 * row["accuracy"] for row in rows if row["budget"] == b] for b in budgets]
    axis.fill_between(
        budgets, [*map(min, cells)], [*map(max, cells)], alpha=0.18, lw=0, color=look["color"]
    )
    axis.plot(budgets, [sum(cell) / len(cell) for cell in cells], **look, label=label)


def _title(victim: str, student: str) -> str:
    victim, student = (MODELS.get(name, name) for name in (victim, student))
    return victim if victim == student else f"{victim} rebuilt with {student}"
