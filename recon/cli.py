"""The command line: parse, call, print.

    recon attack --dim 100 --width 64       recover a random network from its gradients
    recon run fig2-mnist --data-dir DIR     an experiment: rows, record and figure in results/
    recon run fig2-mnist --small            the same in a minute, only shown
    recon tune masks --data-dir DIR         a grid of hyperparameters
    recon plot all                          figures and claims again, from the committed rows
    recon list                              what can be run, its claim and how long it takes
    recon demo                              networks trained on digits, recovered and rebuilt

Exit code: 0 for success, 1 where a network was not recovered, 2 for what makes no sense.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

RESULTS = Path("results")
WIDE = 160  # columns of a table that no terminal bounds
console = Console(stderr=True)  # progress and messages; what is asked for goes to stdout
Names = Annotated[tuple[str, ...], tyro.conf.Positional]


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
    out: Path | None = None
    """Folder to write to [results/NAME]."""
    only: tuple[str, ...] = ()
    """Of an experiment with students, the cells to measure: victim=conv budget=10,100 seed=0."""
    workers: int = 1
    """Processes that measure cells side by side."""
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


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw figures, and write claims.md, again from their rows; nothing is measured."""

    names: Names = ("all",)
    """Experiments, claims, or all: those with rows."""
    results: Path = RESULTS
    """The results folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch on the first word; returns the exit code."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help"):
        print((__doc__ or "").rpartition("\n\nExit")[0])
        return 0
    if name not in COMMANDS:
        return _refuse(f"There is no command {name!r}; there are {', '.join(COMMANDS)}.")
    try:
        return COMMANDS[name](rest)
    except BrokenPipeError:  # of `recon list | head`
        sys.stderr.close()
        return 0


def _refuse(sentence: Any) -> int:
    print(sentence, file=sys.stderr)
    return 2


# --- recon run, recon tune ----------------------------------------------------------------------


def _run(argv: Sequence[str]) -> int:
    from recon.experiments import EXPERIMENTS

    args = tyro.cli(Run, prog="recon run", args=argv)
    return _measure(args, EXPERIMENTS, RESULTS, "experiment")


def _tune(argv: Sequence[str]) -> int:
    from recon import tables
    from recon.experiments import hyper, tune

    args = tyro.cli(Tune, prog="recon tune", args=argv)
    if args.choose:
        rows = tune.choose(args.out or RESULTS)
        console.print(f"Wrote {tables.write_text(hyper.FILE, tables.text_of(rows))}")
        return 0
    args = dataclasses.replace(args, names=args.names or tuple(tune.GRIDS))
    return _measure(args, tune.GRIDS, RESULTS / "tune", "grid")


def _measure(args: Run, known: dict[str, Any], results: Path, what: str) -> int:
    from recon.data import DataError
    from recon.experiments import SettingsError

    names = [name.replace("_", "-") for name in args.names]
    for name in names:
        if name not in known:
            return _refuse(f"There is no {what} {name!r}; there are {', '.join(known)}.")
    if args.data.data_dir is not None:
        os.environ["RECON_DATA"] = str(args.data.data_dir)
    if args.data.download:
        os.environ["RECON_DOWNLOAD"] = "1"
    if args.out is not None and len(names) > 1:
        return _refuse("--out is for one name.")
    for name in names:
        folder = args.out or results / name.replace("-", "_")
        place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        written = args.out is not None or not args.small
        if written and not (place.is_dir() and os.access(place, os.W_OK)):  # not after hours
            return _refuse(f"{folder} cannot be written: {place} is no folder, or read-only.")
        try:
            experiment = known[name].small() if args.small else known[name]
            _one(name, experiment, args, folder if written else None)
        except (SettingsError, DataError, ImportError) as error:
            return _refuse(error)
    return 0


def _one(name: str, experiment: Any, args: Run, folder: Path | None) -> None:
    """One experiment: measure, show, write, draw."""
    from recon import reports, tables
    from recon.experiments import Rebuild, Summarised

    start, done = time.perf_counter(), 0
    options: dict[str, Any] = {}
    with console.status(f"{name} ...") as status:

        def note(text: str) -> None:
            status.update(f"{name}: {text}")

        def tell(row: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            note(_brief(row, experiment))
            if not console.is_terminal and isinstance(experiment, Rebuild):  # a log has lines
                console.print(_brief(row, experiment), soft_wrap=True)

        if isinstance(experiment, Rebuild):
            options = {"note": note, "only": _only(args.only), "processes": args.workers}
        rows = experiment.run(tell, **options)
    seconds = time.perf_counter() - start
    few = experiment.summary(rows) if isinstance(experiment, Summarised) else rows
    _print(_rows_table(name, few, experiment))
    if folder is None:
        return
    record = tables.run_record(
        command=_command(name, args, what="tune" if folder.parent.name == "tune" else "run"),
        seeds=sorted({row["seed"] for row in rows if "seed" in row})
        or [getattr(experiment, "seed", 0)],
        seconds=experiment.seconds(rows) if isinstance(experiment, Rebuild) else seconds,
    )
    console.print(f"Wrote {tables.write(folder, rows, record)} after {seconds:.0f} s")
    tables.write_text(folder / "table.md", tables.markdown(few, experiment.shown))
    if name in reports.FIGURES:
        try:
            console.print(f"Drew {reports.draw(name, folder)}")
        except ModuleNotFoundError as error:
            console.print(f"No figure: {error}; pip install 'recon[plot]' brings it.")


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
    small = " --small" if args.small else ""
    return f"recon {what} {name}{small}" + (f" --only {' '.join(args.only)}" if args.only else "")


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


def _print(table: Table) -> None:
    out = Console()
    if not out.is_terminal:
        out.width = WIDE
    out.print(table)


# --- recon attack -------------------------------------------------------------------------------


def _attack(argv: Sequence[str]) -> int:
    from recon.experiments.single import Attack, described

    @dataclasses.dataclass(frozen=True)
    class Args:
        """Recover one random network through its oracle alone."""

        attack: tyro.conf.OmitArgPrefixes[Attack] = dataclasses.field(default_factory=Attack)
        json: bool = False
        """Print one JSON object, nothing else."""
        out: Path | None = None
        """Save the recovered network here, as .npz."""

    args = tyro.cli(Args, prog="recon attack", description=Args.__doc__, args=argv)
    attack = args.attack
    try:
        with console.status(f"Attacking a {attack.shape} network ..."):
            summary, recovery = attack.run()
    except ValueError as error:
        return _refuse(error)
    if args.json:
        print(json.dumps(summary))
    else:
        table = Table(title=f"{attack.method} on {attack.shape}", show_header=False)
        table.add_column(style="bold")
        table.add_column()
        for name, text in described(summary).items():
            colour = "green" if summary["ok"] else "red"
            table.add_row(name, f"[{colour}]{text}[/]" if name == "status" else text)
        _print(table)
    if args.out is not None:
        if recovery.ok and recovery.network is not None:
            console.print(f"Saved {recovery.network.save(args.out)}")
        else:
            console.print("Not saved: the network was not recovered.")
    return 0 if recovery.ok else 1


# --- recon plot, recon list, recon demo ---------------------------------------------------------


def _plot(argv: Sequence[str]) -> int:
    from recon import reports

    args = tyro.cli(Plot, prog="recon plot", args=argv)
    names = tuple(name.replace("_", "-") for name in args.names)
    known = (*reports.FIGURES, "claims", "all")
    for name in names:
        if name not in known:
            return _refuse(f"There is no figure for {name!r}; there are {', '.join(known)}.")
    if not args.results.is_dir():
        return _refuse(f"{args.results} is no folder: it should hold the committed rows.")
    if "all" in names:
        places = {name: reports.folder(args.results, name) for name in reports.FIGURES}
        names = (*(n for n, place in places.items() if (place / "rows.csv").exists()), "claims")
    for name in names:
        try:
            console.print(f"Drew {reports.write(name, args.results)}")
        except FileNotFoundError:
            folder = reports.folder(args.results, name)
            print(f"{folder} holds no rows: `recon run {name}` comes first.", file=sys.stderr)
            return 1
    return 0


@dataclasses.dataclass(frozen=True)
class List:
    """What `recon run` can run: the claim it tests, and how long that takes."""

    markdown: bool = False
    """As the table of the README."""


def _list(argv: Sequence[str]) -> int:
    if tyro.cli(List, prog="recon list", args=argv).markdown:
        print(experiments_table(), end="")
        return 0
    table = Table(title="recon run NAME", title_justify="left")
    for column in ("name", "claim", "time"):
        table.add_column(column, overflow="fold")
    for name, of in _heads().items():
        table.add_row(name, of.claim, of.time)
    table.add_row("tune", "recon tune: grids of hyperparameters, nine of them", "8-35 minutes each")
    _print(table)
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


def _demo(argv: Sequence[str]) -> int:
    from recon.demo import main

    return main(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "attack": _attack,
    "run": _run,
    "tune": _tune,
    "plot": _plot,
    "list": _list,
    "demo": _demo,
}
