"""Figures and claims, from the rows of experiments alone: no accelerator, no rerun.

A figure is a function that fills an empty matplotlib figure from rows; it has the name of
its experiment in FIGURES.  This file is the only one that imports matplotlib, and only when
a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recon import tables
from recon.reports import attack, bench, filters, matching, plane, saliency, theory
from recon.reports import claims as claims
from recon.reports.style import STYLE, Row

FIGURES: dict[str, Callable[[Any, list[Row]], None]] = {
    "lemma2": theory.lemma2,
    "lemma3": theory.lemma3,
    "theorem1": theory.theorem1,
    "figure1": plane.figure1,
    "queries": attack.queries,
    "robust": attack.robust,
    "depth": attack.depth,
    "bench-exact": bench.bench,
    "fig2-mnist": matching.figure2,
    "fig3-mnist": matching.figure3,
    "fig4-mnist": matching.figure4,
    "fig2-cifar10": matching.figure2,
    "fig3-cifar10": matching.figure3,
    "fig4-cifar10": matching.figure4,
    "saliency": saliency.saliency,
    "filters-mnist": filters.filters,
}


def folder(results: Path, name: str) -> Path:
    """Where the rows of experiment `name` lie."""
    return results / name.replace("-", "_")


def draw(name: str, place: str | Path) -> Path:
    """Draw the figure of experiment `name` from the rows in `place`; returns the PNG's path.

    KeyError if the experiment has no figure, FileNotFoundError if it has no rows yet.
    """
    fill = FIGURES[name]
    rows, _ = tables.read(place)
    path = Path(place) / f"{Path(place).name}.png"
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
