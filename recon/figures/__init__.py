"""Figures, drawn from the rows of an experiment alone: no accelerator, no rerun.

A figure is a function that fills an empty matplotlib figure from rows; it has the name of
its experiment in FIGURES.  This file is the only one that imports matplotlib, and only when
a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recon import tables
from recon.figures import attack, bench, filters, matching, plane, saliency, theory
from recon.figures.style import STYLE, Row

FIGURES: dict[str, Callable[[Any, list[Row]], None]] = {
    "lemma2": theory.lemma2,
    "lemma3": theory.lemma3,
    "theorem1": theory.theorem1,
    "figure1": plane.figure1,
    "queries": attack.queries,
    "robust": attack.robust,
    "bench_exact": bench.bench,
    "fig2_mnist": matching.figure2,
    "fig3_mnist": matching.figure3,
    "fig4_mnist": matching.figure4,
    "saliency": saliency.saliency,
    "filters_mnist": filters.filters,
}


def draw(name: str, folder: str | Path) -> Path:
    """Draw the figure of experiment `name` from the rows in `folder`; returns the PNG's path.

    KeyError if the experiment has no figure, FileNotFoundError if it has no rows yet.
    """
    fill = FIGURES[name]
    rows, _ = tables.read(folder)
    path = Path(folder) / f"{name}.png"
    save(path, fill, rows)
    return path


def save(path: Path, fill: Callable[[Any, list[Row]], None], rows: list[Row]) -> None:
    """Fill a figure from rows and write it; the same rows give the same picture."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure()  # no pyplot: no global state, no display
        fill(figure, rows)
        figure.savefig(path, metadata={"Software": None})
