"""Attack a random victim, or run an experiment.

    python scripts/run.py exact --dim 100 --width 64     attack; --help lists the options
    python scripts/run.py lemma2                         rows, record and figure in results/lemma2/
    python scripts/run.py lemma2 --small                 the same in seconds, only shown
    python scripts/run.py fig2-mnist --data-dir FOLDER   FOLDER holds the official files in mnist/
    python scripts/run.py claims                         results/claims.md from the committed rows

Exit code of `exact`: 0 if the network was recovered, 1 if not, 2 for settings that make no sense.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from recon import figures, tables
from recon.data import DataError
from recon.experiments import (
    EXPERIMENTS,
    Attack,
    Experiment,
    Resumable,
    Row,
    SettingsError,
    Summarised,
    claims,
)

RESULTS = Path("results")
WIDE = 160  # columns of a table that no terminal bounds
console = Console(stderr=True)  # progress and messages; what is asked for goes to stdout


@dataclasses.dataclass(frozen=True)
class ExactArgs:
    """Recover one random victim through its oracle alone."""

    attack: Annotated[Attack, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Attack)
    json: bool = False
    """Print one JSON object, nothing else."""
    out: Path | None = None
    """Save the recovered network here, as .npz."""


@dataclasses.dataclass(frozen=True)
class ExperimentArgs:
    """Run an experiment and write its rows, its record and its figure."""

    small: bool = False
    """A small form, seconds to a few minutes; written only where --out says."""
    out: Path | None = None
    """Folder to write to [results/NAME]."""


@dataclasses.dataclass(frozen=True)
class ResumableArgs(ExperimentArgs):
    """The same for an experiment with data and settings; killed, it goes on where it was."""

    data_dir: Path | None = None
    """Folder with mnist/ and cifar10/ in their official files [$RECON_DATA]."""


@dataclasses.dataclass(frozen=True)
class ClaimsArgs:
    """Write the paper's claims beside our committed rows."""

    results: Path = RESULTS
    """The results folder; claims.md is written there."""


def main(argv: Sequence[str]) -> int:
    """Dispatch on the first word; returns the exit code."""
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("-h", "--help"):
        print(__doc__, *map(_line, EXPERIMENTS.items()), sep="\n")
        return 0
    if name == "exact":
        return exact(tyro.cli(ExactArgs, prog="run.py exact", args=rest))
    if name == "claims":
        folder = tyro.cli(ClaimsArgs, prog="run.py claims", args=rest).results
        if not folder.is_dir():
            print(f"{folder} is no folder: it should hold the committed rows.", file=sys.stderr)
            return 2
        console.print(f"Wrote {tables.write_text(folder / claims.FILE, claims.markdown(folder))}")
        return 0
    key = name.replace("-", "_")
    if key not in EXPERIMENTS:
        names = ", ".join(["exact", "claims", *EXPERIMENTS])
        print(f"There is no experiment {name!r}; there are {names}.", file=sys.stderr)
        return 2
    experiment, args = _parse(name, EXPERIMENTS[key], rest)
    folder = _folder(key, args)
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    written = args.out is not None or not args.small
    if written and not (place.is_dir() and os.access(place, os.W_OK)):  # told now, not after hours
        print(f"{folder} cannot be written: {place} is no folder, or read-only.", file=sys.stderr)
        return 2
    try:
        return run(key, experiment, args)
    except (SettingsError, DataError, ImportError) as error:
        print(f"{error}", file=sys.stderr)
        return 2


def _parse(
    name: str, experiment: Experiment, argv: Sequence[str]
) -> tuple[Experiment, ExperimentArgs]:
    """The experiment to run; of a resumable one every setting is an option."""
    experiment = experiment.small() if "--small" in argv else experiment
    options: dict[str, Any] = {
        "prog": f"run.py {name}",
        "description": type(experiment).__doc__,
        "args": argv,
    }
    if not isinstance(experiment, Resumable):
        return experiment, tyro.cli(ExperimentArgs, **options)
    kind: Any = type(experiment)
    settings = Annotated[kind, tyro.conf.arg(name="")], dataclasses.field(default=experiment)
    fields = [("settings", *settings)]
    both = dataclasses.make_dataclass("Args", fields, bases=(ResumableArgs,), frozen=True)
    args: Any = tyro.cli(both, **options)
    if args.data_dir is not None:
        os.environ["RECON_DATA"] = str(args.data_dir)
    return args.settings, args


def _folder(name: str, args: ExperimentArgs) -> Path:
    return RESULTS / name if args.out is None else args.out


def _line(item: tuple[str, Experiment]) -> str:
    name, experiment = item
    return f"    {name:20} {(type(experiment).__doc__ or '').splitlines()[0]}"


def exact(args: ExactArgs) -> int:
    """One attack; prints a table or a JSON object, saves the network where asked."""
    try:
        with console.status(f"Attacking a {_shape(args.attack)} victim, twice ..."):
            summary, recovery = args.attack.run()
    except ValueError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(summary))
    else:
        _print(_attack_table(args.attack, summary))
    if args.out is not None:
        if recovery.ok and recovery.network is not None:
            console.print(f"Saved {recovery.network.save(args.out)}")
        else:
            console.print("Not saved: the network was not recovered.")
    return 0 if recovery.ok else 1


def _print(table: Table) -> None:
    out = Console()
    if not out.is_terminal:
        out.width = WIDE
    out.print(table)


def _shape(attack: Attack) -> str:
    return f"{attack.dim}-{attack.width}-{attack.outputs}"


def _attack_table(attack: Attack, summary: dict[str, Any]) -> Table:
    colour = "green" if summary["ok"] else "red"
    table = Table(title=f"{attack.method} on {_shape(attack)}", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    per_unit = summary["queries"] / attack.width
    error, certificate = summary["max_error"], summary["certificate"]
    for name, text in {
        "status": f"[{colour}]{summary['message']}[/]",
        "units": f"{summary['found_width'] or 'none'} found, {attack.width} true",
        "queries": f"{summary['queries']:,}: {summary['gradient_queries']:,} gradients, "
        f"{summary['value_queries']:,} values",
        "a unit": f"{per_unit:.2f} queries (floor for gradients: 1)",
        "numbers": f"{summary['numbers']:,} received",
        "rounds": f"{summary['rounds']:,} batches, one after the other",
        "worst error": _none(error, "relative, over 10,000 Gaussian x"),
        "certificate": _none(certificate, "relative, over fresh queries"),
        "time": f"{summary['seconds']:.3g} s warm, "
        f"{summary['seconds_with_compile']:.3g} s with compilation",
    }.items():
        table.add_row(name, text)
    return table


def _none(number: float | None, of_what: str) -> str:
    return "not reached" if number is None else f"{number:.2g} {of_what}"


def run(name: str, experiment: Experiment, args: ExperimentArgs) -> int:
    """One experiment: measure, show, write, draw."""
    start = time.perf_counter()
    with console.status(f"{name} ...") as status:

        def note(text: str) -> None:
            status.update(f"{name}: {text}")

        def tell(row: Row) -> None:
            note(_brief(row, experiment))
            if not console.is_terminal and isinstance(experiment, Resumable):
                console.print(_brief(row, experiment), soft_wrap=True)  # a log of hours has lines

        if isinstance(experiment, Resumable):
            rows = experiment.run(tell, note)
        else:
            rows = experiment.run(tell)
    seconds = time.perf_counter() - start
    few = experiment.summary(rows) if isinstance(experiment, Summarised) else rows
    _print(_rows_table(name, few, experiment))
    if args.small and args.out is None:
        return 0
    folder = _folder(name, args)
    settings = json.loads(json.dumps(dataclasses.asdict(experiment)))  # type: ignore[call-overload]
    took = experiment.seconds(rows) if isinstance(experiment, Resumable) else seconds
    record = tables.run_record(seeds=[experiment.seed], seconds=took, settings=settings)
    console.print(f"Wrote {tables.write(folder, rows, record)} after {seconds:.0f} s")
    tables.write_text(folder / "table.md", tables.markdown(few, experiment.shown))
    if name in figures.FIGURES:
        try:
            console.print(f"Drew {figures.draw(name, folder)}")
        except ModuleNotFoundError as error:
            console.print(f"No figure: {error}; pip install 'recon[plot]' brings it.")
    return 0


def _brief(row: Row, experiment: Experiment) -> str:
    return ", ".join(f"{k} {_shown(row[k])}" for k in experiment.shown if k in row)


def _rows_table(name: str, rows: list[Row], experiment: Experiment) -> Table:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
