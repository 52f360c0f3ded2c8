"""recon run and recon tune: measure, show, write, draw."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

# The bar is drawn by a thread, which must not import while etils replaces `__import__`.
from rich import markup as _  # noqa: F401
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from recon.cli.common import RESULTS, Names, console, present, refuse, show, summary

BAR = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
)


@dataclasses.dataclass(frozen=True)
class Data:
    """Where images come from."""

    data_dir: Path | None = None
    """Folder that holds mnist/ and cifar10/ as their official files [$RECON_DATA]."""
    download: bool = False
    """Download the data set where it is not on disk."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Run experiments: rows, a record and, for some, a figure in results/NAME.

    A run that is killed goes on where it was.  `recon list` says what there is.
    """

    names: Names
    """Experiments, as `recon list` names them."""
    small: bool = False
    """A small form on digits, seconds to a few minutes; written only where --out says."""
    full: bool = False
    """Students at full width, five seeds at least: for an accelerator."""
    out: Path | None = None
    """Folder to write to [results/NAME]."""
    only: tuple[str, ...] = ()
    """Of an experiment with students, the cells to measure: victim=conv budget=10,100 seed=0."""
    workers: int = 1
    """Processes that measure cells side by side."""
    dask: str | None = None
    """Address of a dask scheduler whose workers measure cells, as tcp://host:8786."""
    devices: int | None = None
    """Devices that share the runs of a program; of all processes where JAX is told of several
    (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID)."""
    data: tyro.conf.OmitArgPrefixes[Data] = Data()


@dataclasses.dataclass(frozen=True)
class Tune(Run):
    """Run grids of hyperparameters on held-out images: rows in results/tune/NAME.

    --choose writes the best of all committed grids into the table that experiments use.
    """

    names: Names = ()
    """Grids; none: all of them."""
    choose: bool = False
    """Only write hyper.csv anew from the committed rows."""


def run(argv: Sequence[str]) -> int:
    """`recon run`."""
    from recon.experiments import EXPERIMENTS

    args = tyro.cli(Run, prog="recon run", args=argv)
    return _measure(args, EXPERIMENTS, RESULTS, "experiment")


def tune(argv: Sequence[str]) -> int:
    """`recon tune`."""
    from recon import tables
    from recon.experiments import hyper
    from recon.experiments.tune import GRIDS, choose

    args = tyro.cli(Tune, prog="recon tune", args=argv)
    if args.choose:
        rows = choose(args.out or RESULTS)
        console.print(f"Wrote {tables.write_text(hyper.FILE, tables.text_of(rows))}")
        return 0
    args = dataclasses.replace(args, names=args.names or tuple(GRIDS))
    return _measure(args, GRIDS, RESULTS / "tune", "grid")


def _measure(args: Run, known: dict[str, Any], results: Path, what: str) -> int:
    from recon.data import DataError
    from recon.experiments import Rebuild, SettingsError
    from recon.workers import WorkerError

    names = [name.replace("_", "-") for name in args.names]
    if not names:
        return refuse(f"Which {what}? There are {', '.join(known)}.")
    for name in names:
        if name not in known:
            return refuse(f"There is no {what} {name!r}; there are {', '.join(known)}.")
    if args.data.data_dir is not None:
        os.environ["RECON_DATA"] = str(args.data.data_dir)
    if args.data.download:
        os.environ["RECON_DOWNLOAD"] = "1"
    if args.out is not None and len(names) > 1:
        return refuse("--out is for one name.")
    for name in names:
        folder = args.out or results / name.replace("-", "_")
        place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        written = args.out is not None or not args.small
        if written and not (place.is_dir() and os.access(place, os.W_OK)):  # not after hours
            return refuse(f"{folder} cannot be written: {place} is no folder, or read-only.")
        try:
            experiment = known[name]
            if args.full:
                if not isinstance(experiment, Rebuild):
                    raise SettingsError(f"{name} has no students, and so no --full form")
                experiment = experiment.full()
            experiment = experiment.small() if args.small else experiment
            _one(name, experiment, args, folder if written else None)
        except (SettingsError, WorkerError, DataError, ImportError) as error:
            return refuse(error)
    return 0


CELLS = ("panels", "replies", "recipes", "queries")  # settings that say which cells there are


def _one(name: str, experiment: Any, args: Run, folder: Path | None) -> None:
    """One experiment: measure, show, write, draw."""
    from recon import tables
    from recon.distill import devices
    from recon.experiments import Rebuild, SettingsError, Where

    cells = isinstance(experiment, Rebuild)
    if not cells and (args.only or args.dask or args.devices or args.workers > 1):
        raise SettingsError(f"{name} has no cells to choose from, or to measure elsewhere")
    settings = _settings(experiment)
    same = {name: value for name, value in settings.items() if name not in CELLS}
    if args.only and folder and not tables.fits(folder, same):
        raise SettingsError(f"{folder} holds rows of other settings: name another folder by --out")
    start = time.perf_counter()
    first = devices.join() if args.devices else True
    with Progress(*BAR, console=console, transient=True, speed_estimate_period=3_600) as bar:
        task = bar.add_task(name, total=None)

        def note(text: str) -> None:
            bar.update(task, description=f"{name}: {text}")

        def count(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        def tell(row: dict[str, Any]) -> None:
            note(_brief(row, experiment))
            if not console.is_terminal and cells:  # a log has lines
                console.print(_brief(row, experiment), soft_wrap=True)

        options: dict[str, Any] = {}
        if cells:
            where = Where(args.workers, args.dask, args.devices)
            options = {"note": note, "only": _only(args.only), "where": where, "count": count}
        rows = experiment.run(tell, **options)
    seconds = time.perf_counter() - start
    if not first:
        return
    others, earlier = tables.others(folder, rows) if args.only and folder else ([], [])
    if others:
        console.print(f"{len(others)} rows of other cells, already in {folder}, stay there.")
    rows = others + rows
    show(_rows_table(name, summary(experiment, rows), experiment))
    if folder is None:
        return
    record = tables.run_record(
        command=_command(name, args, what="tune" if folder.parent.name == "tune" else "run"),
        seeds=sorted({row["seed"] for row in rows if "seed" in row})
        or [getattr(experiment, "seed", 0)],
        seconds=experiment.seconds(rows) if cells else seconds,
        settings=settings,
    )
    record = tables.joined(record, earlier)
    console.print(f"Wrote {tables.write(folder, rows, record)} after {seconds:.0f} s")
    present(name, experiment, folder, rows)


def _settings(experiment: Any) -> dict[str, Any]:
    settings = dataclasses.asdict(experiment)
    for name in ("about", "small_steps"):  # what rows do not depend on
        settings.pop(name, None)
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _only(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    from recon.experiments import SettingsError

    found = {}
    for word in words:
        name, equals, values = word.partition("=")
        if not equals or not values:
            raise SettingsError(f"--only takes COLUMN=VALUE or COLUMN=VALUE,VALUE, got {word!r}")
        found[name] = tuple(values.split(","))
    return found


def _command(name: str, args: Run, what: str) -> str:
    form = "".join(f" --{form}" for form in ("small", "full") if getattr(args, form))
    return f"recon {what} {name}{form}" + (f" --only {' '.join(args.only)}" if args.only else "")


def _brief(row: dict[str, Any], experiment: Any) -> str:
    return ", ".join(f"{k} {_shown(row[k])}" for k in experiment.shown if k in row)


def _rows_table(name: str, rows: list[dict[str, Any]], experiment: Any) -> Table:
    table = Table(title=name)
    for column in experiment.shown:
        table.add_column(column.replace("_", " "), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*[_shown(row.get(column)) for column in experiment.shown])
    return table


def _shown(cell: Any) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if cell is None:
        return "-"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
