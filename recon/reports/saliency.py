"""Saliency maps over the points and the noise of SmoothGrad, as the paper's missing Appendix D."""

from __future__ import annotations

from typing import Any

import numpy as np

from recon.reports.matching import MODELS
from recon.reports.style import INK, ORANGE, Row, caption, column, levels


def saliency(figure: Any, rows: list[Row]) -> None:
    """A row of maps for each victim and N, a column for each sigma; dark is large."""
    scored = [row for row in rows if row["victim"] is not None]
    victims = list(dict.fromkeys(column(scored, "victim")))
    points = [n for n in levels(scored, "points") if n]
    sigmas = [sigma for sigma in levels(scored, "sigma") if sigma]
    lines = [(victim, n) for victim in victims for n in points]
    figure.set_size_inches(1.1 * (len(sigmas) + 2), 1.25 * len(lines) + 1.0)
    axes = figure.subplots(len(lines), len(sigmas) + 1, squeeze=False)
    of = {(row["victim"], row["points"], row["sigma"]): row for row in scored}
    image = next(row for row in rows if row["victim"] is None)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for line, (victim, n) in enumerate(lines):
        first = axes[line][0]
        if n == points[0]:
            plain = of[victim, 0, 0.0]
            _show(first, plain, f"gradient, {100 * plain['inside']:.1f} %")
        elif n == points[1]:
            _show(first, image, "the image")
        else:
            first.remove()
        axes[line][1].set_ylabel(f"{MODELS.get(victim, victim)}\nN = {n}", color=INK)
        for axis, sigma in zip(axes[line][1:], sigmas, strict=True):
            row = of[victim, n, sigma]
            _show(axis, row, f"{100 * row['inside']:.1f} %, {row['repeat']:.2f}")
            if line == 0:
                axis.set_title(f"sigma = {sigma:g}", fontsize=7.5)
            if row["chosen"]:
                axis.spines[:].set(visible=True, color=ORANGE, linewidth=2.5)
    figure.suptitle("SmoothGrad of the largest logit")
    caption(
        figure,
        f"{rows[0]['dataset']}, an image held out of the victim's training part. Below each map, "
        "as means over images: the share of |g| on and next to what is drawn, and the cosine of "
        "two maps with different noise. Framed: what is used everywhere.",
    )


def _show(axis: Any, row: Row, label: str) -> None:
    grey = np.frombuffer(bytes.fromhex(row["map"]), np.uint8)
    shape = (row["height"], len(grey) // row["height"])
    axis.imshow(255 - grey.reshape(shape), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.grid(visible=False)
    axis.set_xlabel(label, fontsize=7.5)
