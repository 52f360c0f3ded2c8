"""Figures 2 to 4 in the paper's layout: accuracy of the student against queries asked."""

from __future__ import annotations

from collections import Counter
from typing import Any

from recon.reports.style import BLUE, GREY, INK, MARKERS, ORANGE, Row, caption, levels, panels

WHITE = {"mfc": "white"}
LOOKS: dict[tuple[str, str], dict[str, Any]] = {  # of replies and recipes
    ("gradient", "plain"): {"color": BLUE, "linestyle": "-", "marker": "o"},
    ("smoothgrad", "plain"): {"color": INK, "linestyle": (0, (4, 1.5)), "marker": "s"} | WHITE,
    ("top", "plain"): {"color": GREY, "linestyle": "-.", "marker": "^"} | WHITE,
    ("membership", "plain"): {"color": ORANGE, "linestyle": ":", "marker": "D"},
    ("membership", "cross-entropy"): {"color": ORANGE, "linestyle": (0, (1, 3)), "marker": "v"}
    | WHITE,
}
LABELS = {"smoothgrad": "SmoothGrad", "top": "gradient of the top class"}
MODELS = {
    **{"linear": "1-layer", "mlp": "2-layer", "conv": "convolutional"},
    **{"vgg11": "VGG11", "resnet18": "ResNet-18", "resnet18-half": "ResNet-18, half width"},
}


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
    usual = rows[0]["queries"]
    kinds = list(dict.fromkeys(_kind(row, usual) for row in rows))
    axes = panels(figure, len(pairs), 2.4 + 2.7 * len(pairs), 3.6, sharey=True)
    for axis, (victim, student) in zip(axes, pairs, strict=True):
        mine = [row for row in rows if (row["victim"], row["student"]) == (victim, student)]
        for i, kind in enumerate(kinds):
            of = [row for row in mine if _kind(row, usual) == kind]
            _curve(axis, of, *_look(*kind, i))
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
    names = ("queries", "reply", "recipe", "budget")
    cells = Counter((*_pair(row), *(row[name] for name in names)) for row in rows)
    seeds = sorted({min(cells.values()), max(cells.values())})
    text = (
        f"{rows[0]['dataset']}. Lines: the mean over {' to '.join(map(str, seeds))} seeds; bands: "
        "lowest to highest. A gradient is the whole Jacobian of the logits, but for the top class."
    )
    caption(figure, text + (f" {len(failed)} students failed and are left out." if failed else ""))


def _kind(row: Row, usual: str) -> tuple[str, str]:
    """The reply, and the recipe with the queries where they are not the usual ones."""
    other = [] if row["queries"] == usual else [row["queries"]]
    recipe = [] if other and row["recipe"] == "plain" else [row["recipe"]]
    return row["reply"], ", ".join(recipe + other)


def _pair(row: Row) -> tuple[str, str]:
    return row["victim"], row["student"]


def _look(reply: str, recipe: str, i: int) -> tuple[str, dict[str, Any]]:
    """Label and style; of what has none of its own, grey with a marker in turn."""
    label = LABELS.get(reply, reply) + ("" if recipe == "plain" else f", {recipe}")
    other = {"color": GREY, "linestyle": (0, (2, 1 + i)), "marker": MARKERS[i % len(MARKERS)]}
    return label, LOOKS.get((reply, recipe), other)


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
