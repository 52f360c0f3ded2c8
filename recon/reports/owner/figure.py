"""The figure of a report: queries beside those of other methods, and errors on inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from recon.reports.style import BLUE, BOUND, EXACT, INK, Row, caption, panels

LOOKS = [
    {"facecolor": BLUE, "edgecolor": INK},
    {"facecolor": "white", "edgecolor": INK},
    {"facecolor": "#cfcfcf", "edgecolor": INK, "hatch": "///"},
    {"facecolor": "#efefef", "edgecolor": INK, "hatch": "..."},
]
LEAST = 1e-17  # an error of zero, on a logarithmic axis


def draw(figure: Any, rows: list[Row]) -> None:
    """From the facts of one attack, alone in rows, that recovered its model."""
    (facts,) = rows
    left, right = panels(figure, 2, 10, 3.4, width_ratios=(1.25, 1))
    _queries(left, facts["comparison"])
    _errors(right, facts)
    units, queries = facts["width"], facts["queries"]
    figure.suptitle(f"{queries:,} queries recovered the {units:,} hidden units")
    text = "Computed: from the paper's constants, not run."
    if all(row["known"] != "computed" for row in facts["comparison"]):
        text = "Every method was run on the model, at the paper's constants."
    if len(facts["widths"]) > 1:
        text = f"The paper's methods are not defined for this model ({_with(facts)})."
    elif facts["undefined"]:
        text += f" The paper's methods are not defined for this model ({_with(facts)}); their"
        text += " counts are for one output and no biases."
    caption(figure, text)


def _with(facts: Row) -> str:
    return ", ".join(facts["undefined"])


def _queries(axis: Any, comparison: list[Row]) -> None:
    shown = [(row, look) for row, look in zip(comparison, LOOKS, strict=True) if row["queries"]]
    for place, (row, look) in enumerate(shown):
        axis.barh(-place, row["queries"], height=0.6, **look)
        about = "about " if row["known"] == "computed" else ""
        label = f" {about}{row['queries']:,}, {row['known'].partition(',')[0]}"
        axis.text(row["queries"], -place, label, va="center", fontsize=8)
    axis.set_yticks([-k for k in range(len(shown))], [row["what"] for row, _ in shown])
    most = max(row["queries"] for row, _ in shown)
    axis.set(xscale="log", xlim=(0.8, 40 * most), xlabel="queries (logarithmic)")
    axis.set_title("What it takes to copy the model")
    axis.grid(visible=False, axis="y")


def _errors(axis: Any, facts: Row) -> None:
    if facts["errors"] is None:
        axis.set_axis_off()
        return
    errors = np.maximum(facts["errors"], LEAST)
    share = 100 * np.arange(1, len(errors) + 1) / len(errors)
    axis.step(errors, share, where="post", **EXACT, label="copy against model")
    if facts["promise"] is not None:
        axis.axvline(facts["promise"], **BOUND, label="largest error promised")
    axis.set(xscale="log", ylim=(0, 104), xlabel="error / rms of the outputs, no unit")
    whose = "inputs of yours" if facts["own"] else "standard normal inputs"
    axis.set_ylabel(f"% of {facts['checked']:,} {whose}\nwith at most that error")
    axis.set_title("How close the copy is")
    axis.legend(loc="center")
