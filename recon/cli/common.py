"""What the commands share: where they print, and how they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

RESULTS = Path("results")
WIDE = 160  # columns of a table that no terminal bounds
console = Console(stderr=True)  # progress and messages; what is asked for goes to stdout
Names = Annotated[tuple[str, ...], tyro.conf.Positional]


def refuse(sentence: Any) -> int:
    """Say why in one sentence; the exit code."""
    print(sentence, file=sys.stderr)
    return 2


def show(table: Table) -> None:
    """Print a table; in full width where no terminal bounds it."""
    out = Console()
    if not out.is_terminal:
        out.width = WIDE
    out.print(table)


def summary(experiment: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows a person reads."""
    from recon.experiments import Summarised

    return experiment.summary(rows) if isinstance(experiment, Summarised) else rows


def present(name: str, experiment: Any, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table of an experiment's rows into `folder`, and draw its figure, if it has one."""
    from recon import reports, tables

    text = tables.markdown(summary(experiment, rows), experiment.shown)
    console.print(f"Wrote {tables.write_text(folder / 'table.md', text)}")
    if name in reports.FIGURES:
        try:
            console.print(f"Drew {reports.draw(name, folder)}")
        except ModuleNotFoundError as error:
            console.print(f"No figure: {error}; pip install 'recon[plot]' brings it.")
