"""The figure of the demo: recovered rows beside the true ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from recon.reports.style import Row, caption, column, levels

SHOWN = 10  # units drawn as images
TITLES = {"classifier": "Classifier with biases", "scalar": "Scalar network, Equation 1"}


def demo_rows(figure: Any, rows: list[Row]) -> None:
    """The heaviest units as 8 x 8 images, true above recovered, and |cosine| of all with all."""
    names = list(dict.fromkeys(column(rows, "network")))
    figure.set_size_inches(11, 2.3 * len(names) + 0.4)
    parts = figure.subfigures(len(names), 2, width_ratios=(4, 1), squeeze=False)
    worst = 0.0
    for (left, right), name in zip(parts, names, strict=True):
        mine = [row for row in rows if row["network"] == name]
        worst = max(worst, max(abs(row["true"] - row["recovered"]) for row in mine))
        units = levels(mine, "unit")
        images = {
            kind: np.array([column([r for r in mine if r["unit"] == u], kind) for u in units])
            for kind in ("true", "recovered")
        }
        _images(left, images, TITLES.get(name, name))
        _cosines(right, images)
    figure.suptitle("Recovered rows are the true rows")
    caption(
        figure,
        f"Rows of length one, the heaviest units first; largest difference {worst:.1g} in a pixel. "
        "A kink does not tell the sign of its row: it is turned to the true one.",
    )


def _images(figure: Any, images: dict[str, np.ndarray], title: str) -> None:
    """Units as images of gray; each pair of true and recovered shares its scale."""
    shown = min(SHOWN, len(images["true"]))
    axes = figure.subplots(2, SHOWN, squeeze=False)
    for line, (kind, of) in zip(axes, images.items(), strict=True):
        for unit, axis in enumerate(line):
            axis.set_axis_off()
            if unit >= shown:
                continue
            side = round(of.shape[1] ** 0.5)
            most = np.abs(images["true"][unit]).max()
            axis.imshow(of[unit].reshape(side, -1), cmap="gray", vmin=-most, vmax=most)
        line[0].text(
            -0.25, 0.5, kind, rotation=90, ha="center", va="center", transform=line[0].transAxes
        )
    figure.suptitle(f"{title}: {shown} of {len(images['true'])} units", fontsize=9, weight="normal")


def _cosines(figure: Any, images: dict[str, np.ndarray]) -> None:
    axis = figure.subplots()
    cosines = np.abs(images["true"] @ images["recovered"].T)
    shades = axis.imshow(cosines, cmap="Greys", vmin=0, vmax=1)
    axis.set(xlabel="recovered unit", ylabel="true unit", xticks=[], yticks=[])
    axis.grid(visible=False)
    bar = figure.colorbar(shades, ax=axis, ticks=[0, 0.5, 1])
    bar.set_label("|cosine|")
