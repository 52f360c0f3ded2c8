"""recon plot and recon list: from committed rows and from heads; nothing is measured."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from recon.cli.common import RESULTS, Names, console, present, refuse, show


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw figures, and write tables and claims.md, again from rows; nothing is measured."""

    names: Names = ("all",)
    """Experiments, claims, or all: those with rows."""
    results: Path = RESULTS
    """The results folder."""


def plot(argv: Sequence[str]) -> int:
    """`recon plot`."""
    from recon import reports, tables
    from recon.experiments import EXPERIMENTS

    args = tyro.cli(Plot, prog="recon plot", args=argv)
    names = tuple(name.replace("_", "-") for name in args.names)
    known = (*EXPERIMENTS, "claims", "all")
    for name in names:
        if name not in known:
            return refuse(f"There is no experiment {name!r}; there are {', '.join(known)}.")
    if not args.results.is_dir():
        return refuse(f"{args.results} is no folder: it should hold the committed rows.")
    places = {name: reports.folder(args.results, name) for name in EXPERIMENTS}
    if "all" in names:
        names = (*(n for n, place in places.items() if (place / "rows.csv").exists()), "claims")
    for name in names:
        if name == "claims":
            text = reports.claims.markdown(args.results)
            console.print(f"Wrote {tables.write_text(args.results / reports.claims.FILE, text)}")
            continue
        try:
            rows, _ = tables.read(places[name])
        except FileNotFoundError:
            print(f"{places[name]} holds no rows: `recon run {name}` comes first.", file=sys.stderr)
            return 1
        present(name, EXPERIMENTS[name], places[name], rows)
    return 0


@dataclasses.dataclass(frozen=True)
class List:
    """What `recon run` can run: the claim it tests, and how long that takes."""

    markdown: bool = False
    """As the table of the README."""


def list_(argv: Sequence[str]) -> int:
    """`recon list`."""
    if tyro.cli(List, prog="recon list", args=argv).markdown:
        print(experiments_table(), end="")
        return 0
    table = Table(title="recon run NAME", title_justify="left")
    for column in ("name", "claim", "time"):
        table.add_column(column, overflow="fold")
    for name, of in _heads().items():
        table.add_row(name, of.claim, of.time)
    table.add_row("tune", "recon tune: grids of hyperparameters, nine of them", "8-35 minutes each")
    show(table)
    return 0


def _heads() -> dict[str, Any]:
    from recon.experiments import EXPERIMENTS, head

    def short(of: Any) -> Any:
        return of._replace(time=of.time.partition(";")[0].rstrip("."))

    return {name: short(head(experiment)) for name, experiment in EXPERIMENTS.items()}


def experiments_table() -> str:
    """The README's table of experiments."""
    from recon import tables

    rows = [{"name": f"`{n}`", "what": of.title, "time": of.time} for n, of in _heads().items()]
    return tables.markdown(rows)
