"""The victim's filters of the first layer, and the student's beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from recon.reports.style import INK, Row, caption, levels


def filters(figure: Any, rows: list[Row]) -> None:
    """A row of filters for the victim and for each kind of query, of the first draw."""
    draws = len({row["seed"] for row in rows})
    rows = [row for row in rows if row["layer"] == rows[0]["layer"] and row["seed"] == 0]
    lines = list(dict.fromkeys((row["reply"], row["budget"]) for row in rows))
    channels = levels(rows, "filter")
    figure.set_size_inches(0.72 * len(channels) + 1.4, 0.95 * (len(lines) + 1) + 0.9)
    axes = figure.subplots(len(lines) + 1, len(channels), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
    of = {(row["reply"], row["budget"], row["filter"]): row for row in rows}
    for k, channel in enumerate(channels):
        _show(axes[0][k], of[*lines[0], channel], "theirs", f"{channel + 1}")
        for line, axis in zip(lines, axes[1:, k], strict=True):
            row = of[*line, channel]
            _show(axis, row, "ours", f"{row['cosine']:.3f}")
    for axis, name in zip(
        axes[:, 0], ["the victim"] + [f"{b:,}\n{k}" for k, b in lines], strict=True
    ):
        axis.set_ylabel(name, color=INK)
    figure.suptitle("Filters of the first layer")
    accuracy = ", ".join(f"{k} {100 * of[k, b, channels[0]]['accuracy']:.1f} %" for k, b in lines)
    caption(
        figure,
        "The student's filters in the order of the victim's, and below each the cosine of the two; "
        f"white is the largest weight, grey none. The first of {draws} draws of the queries; "
        f"accuracy of these students: {accuracy}.",
    )


def _show(axis: Any, row: Row, name: str, label: str) -> None:
    grey = np.frombuffer(bytes.fromhex(row[name]), np.uint8).reshape(row["side"], -1)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_xlabel(label, fontsize=7.5)
