"""Recover two networks trained on digits through gradient queries alone, and rebuild a third.

    recon demo                      less than a minute on two cores
    recon demo --width 16 --seed 1  other networks; --help lists the options

Exit code: 0 if both networks were recovered, 1 if not, 2 for settings that make no sense.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from recon import data, exact, reports, tables
from recon.demo import deep, digits
from recon.experiments.common import EXACT, Row
from recon.experiments.mnist import SMALL
from recon.networks import TwoLayer
from recon.reports.demo import demo_rows
from recon.reports.matching import LABELS, figure2

T = TypeVar("T")
Results = dict[tuple[str, str], digits.Attacked]  # by network and method

TASK = {"classifier": "ten digits, biases", "scalar": "5-9 or 0-4, no biases (Equation 1)"}
METHOD = {"tangent": "tangents", "bisect": "Algorithm 1", "membership": "Appendix C"}
PICTURE = "rows.png"
REBUILT = "matching.png"
REBUILD = replace(SMALL, replies=("gradient", "top", "membership"), recipes=("plain",))
OUTSIDE = "not defined for it"  # biases, or more outputs than one
LEGEND = (
    "Right: of the {tested} test digits. tangents: recon.exact.recover, its certificate included. "
    "h: one gradient query a unit, the floor for one output. Error: worst |difference| / rms over "
    "{points:,} Gaussian x. Same: test digits on which victim and recovered network agree. Warm, "
    "first: seconds of the whole attack, compiled before or not. Algorithm 1 and Appendix C are "
    "told h and the separation of the rows."
)

REBUILDING = (
    "Accuracy on {tested} test digits, in percent, of students trained on replies to that many "
    "images; mean of {seeds} seeds. gradient: the Jacobian of all logits; membership: the "
    "probabilities alone. Settings were chosen on MNIST, not for digits."
)


@dataclass(frozen=True)
class Args:
    """Train two networks on digits, recover them through gradient queries alone, show how well."""

    out: Path = Path("demo_output")
    """Folder to write networks, table and pictures to."""
    seed: int = 0
    """Seed of training, attack and drawing."""
    width: int = 32
    """Hidden units of either network."""
    budget: int | None = None
    """Most gradient queries to ask of a network."""


def main(argv: Sequence[str]) -> int:
    """Run the demo; returns the exit code."""
    args = tyro.cli(Args, prog="recon demo", description=Args.__doc__, args=argv)
    if args.width < 1 or (args.budget is not None and args.budget < 0):
        print("width must be at least 1, and budget at least 0.", file=sys.stderr)
        return 2
    return demo(args)


def demo(args: Args) -> int:
    """Train, attack, print and write."""
    start, console = time.perf_counter(), Console(highlight=False)
    console.print(
        "Networks with one hidden layer, trained on scikit-learn's digits (8 x 8 pixels), are "
        "recovered from their values and gradients at points of the attack's choice."
    )
    keys = jax.random.split(jax.random.key(args.seed), (len(digits.NETWORKS), 2))
    subjects: list[digits.Subject] = []
    attacked: Results = {}
    with Stages(console) as stage:
        for name, (train_key, _) in zip(digits.NETWORKS, keys, strict=True):
            subject = stage(f"Training the {name}", digits.train, name, train_key, args.width)
            stage.say(f"Trained the {_title(subject)}")
            subjects.append(subject)
        for method in exact.METHODS:
            for subject, (_, attack_key) in zip(subjects, keys, strict=True):
                if method not in digits.methods(subject):
                    continue
                text = f"{METHOD[method]} on the {subject.name}: compiling, then attacking twice"
                got = stage(text, digits.attack, subject, method, attack_key, args.budget)
                attacked[subject.name, method] = got
                stage.say(_outcome(got))
        failed = _failures(attacked)
        written = []
        (args.out / PICTURE).unlink(missing_ok=True)  # of an earlier run
        if not failed:
            try:
                written = [stage("Drawing", _draw, args.out, subjects, attacked)]
            except ModuleNotFoundError as error:
                stage.say(f"No pictures: {error}; pip install 'recon[plot]' brings it.")
        deep_key = jax.random.fold_in(jax.random.key(args.seed), 1)
        found = stage("Training and recovering a deep network", deep.recover, deep_key, args.budget)
        stage.say(deep.sentence(found.row))
        if not found.recovery.ok:
            failed["deep"] = f"The deep classifier was not recovered. {found.recovery}"
        rebuilt, pictures = _rebuild(args, stage)
        written += pictures
    for subject in subjects:
        told = attacked[subject.name, "tangent"].row["width_told"]
        console.print(f"[bold]{_title(subject)}; h {'told' if told else 'not told'}[/]")
        console.print(_table(subject, attacked))
        console.print()
    console.print(
        LEGEND.format(points=digits.POINTS, tested=len(data.digits().test.y)), style="dim"
    )
    console.print(
        f"[bold]\nA larger classifier, 64-128-10, {100 * rebuilt[0]['victim_accuracy']:.1f} % "
        "right: not recovered exactly, but rebuilt by matching gradients[/]"
    )
    console.print(_rebuilt(rebuilt))
    tested = len(data.digits().test.y)
    console.print(REBUILDING.format(tested=tested, seeds=REBUILD.panels[0].seeds), style="dim")
    seconds = time.perf_counter() - start  # the imports took a second or two before
    rows = [got.row for got in attacked.values()]
    record = tables.run_record(seeds=[args.seed], seconds=seconds, width=args.width)
    tables.write(args.out, rows, record)
    tables.write(args.out / "matching", rebuilt, record)
    tables.write(args.out / "deep", [found.row], record)
    written += [
        args.out / "deep",
        args.out / "rows.csv",
        args.out / "run.json",
        args.out / "matching",
    ]
    for subject in subjects:
        network = attacked[subject.name, "tangent"].recovery.network
        written.append(subject.network.save(args.out / f"{subject.name}_true.npz"))
        path = args.out / f"{subject.name}_recovered.npz"
        if subject.name not in failed and network is not None:
            written.append(network.save(path))
        else:
            path.unlink(missing_ok=True)  # of an earlier run
    console.print(f"Wrote to {args.out}: {', '.join(path.name for path in written)}")
    console.print(f"{seconds:.0f} s in all")
    for sentence in failed.values():
        print(sentence, file=sys.stderr)
    return 1 if failed else 0


def _failures(attacked: Results) -> dict[str, str]:
    """A sentence for each network not recovered, or certified and yet not the victim."""
    failed = {}
    for (name, method), got in attacked.items():
        if method == "tangent" and not got.recovery.ok:
            failed[name] = f"The {name} was not recovered. {got.recovery}"
        elif method == "tangent" and got.row["max_error"] > EXACT:
            error = got.row["max_error"]
            failed[name] = f"The {name} was certified, but is wrong by {error:.1e}: please report."
    return failed


class Stages:
    """Names what is being done while it is: a spinner on a terminal, a line elsewhere."""

    def __init__(self, console: Console):
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self.console = console
        self.progress = Progress(*columns, console=console, transient=True)

    def __enter__(self) -> Stages:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, text: str, run: Callable[..., T], *args: Any) -> T:
        """run(*args), named by `text` as long as it takes."""
        if not self.console.is_terminal:
            self.say(f"{text} ...")
        task = self.progress.add_task(text, total=None)
        try:
            return run(*args)
        finally:
            self.progress.remove_task(task)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text)


def _title(subject: digits.Subject) -> str:
    width, dim = subject.network.rows.shape
    return (
        f"{subject.name} {dim}-{width}-{subject.outputs}, {TASK[subject.name]}: "
        f"{100 * subject.accuracy:.1f} % right"
    )


def _outcome(got: digits.Attacked) -> str:
    row = got.row
    took = f"{row['seconds']:.2g} s warm, {row['seconds_first']:.3g} s with compilation"
    who = f"{METHOD[row['method']]} on the {row['network']}"
    asked = f"{row['queries']:,} queries, {took}"
    if not row["ok"]:
        return f"[red]{who}: {got.recovery}[/] {asked}"
    return f"{who}: {row['units_found']} units, {asked}"


def _queries(row: Row) -> str:
    gradients, values = row["gradients"], row["values"]
    if not values:
        return f"{gradients:,}"
    return f"{gradients:,} + {values:,} values" if gradients else f"{values:,} values"


def _table(subject: digits.Subject, attacked: Results) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head, least in (
        ("method", 11),
        ("units", 5),
        ("queries", 18),
        ("rounds", 6),
        ("error", 7),
        ("same", 7),
        ("warm", 5),
        ("first", 5),
    ):
        table.add_column(head, min_width=least, justify="left" if head == "method" else "right")
    for method, name in METHOD.items():
        if (subject.name, method) not in attacked:
            table.add_row(name, "", OUTSIDE)
            continue
        row = attacked[subject.name, method].row
        table.add_row(
            name,
            f"{row['units_found']}/{row['width']}",
            _queries(row),
            f"{row['rounds']:,}",
            f"{row['max_error']:.1e}" if row["ok"] else "failed",
            f"{row['agree']}/{row['tested']}" if row["ok"] else "",
            f"{row['seconds']:.2f}",
            f"{row['seconds_first']:.1f}",
            style="bold" if method == "tangent" else None,
        )
        if method == "tangent":
            table.add_row("h", "", f"{row['width']}", style="dim")
    return table


def _rebuild(args: Args, stage: Stages) -> tuple[list[Row], list[Path]]:
    """Rows of students that match gradients, and the picture of them, if it can be drawn."""
    text = "Rebuilding a classifier from replies about 1, 10 and 100 digits"
    rows = stage(text, REBUILD.run)
    stage.say(f"Rebuilt a classifier {len(rows)} times")
    path = args.out / REBUILT
    path.unlink(missing_ok=True)  # of an earlier run
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        reports.save(path, figure2, rows)
    except ModuleNotFoundError:  # said before
        return rows, []
    return rows, [path]


def _rebuilt(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head in ("queries", *(LABELS.get(reply, reply) for reply in REBUILD.replies)):
        table.add_column(head, justify="right")
    means = {(row["reply"], row["budget"]): row for row in REBUILD.summary(rows)}
    for budget in REBUILD.panels[0].budgets:
        cells = [means[reply, budget]["accuracy"] for reply in REBUILD.replies]
        shown = ["failed" if cell is None else f"{100 * cell:.1f}" for cell in cells]
        table.add_row(f"{budget:,}", *shown)
    return table


def _draw(out: Path, subjects: Sequence[digits.Subject], attacked: Results) -> Path:
    """The picture of both; its path."""
    rows: list[Row] = []
    for subject in subjects:
        network = attacked[subject.name, "tangent"].recovery.network
        if isinstance(network, TwoLayer):
            rows += digits.row_rows(subject, network)
    out.mkdir(parents=True, exist_ok=True)
    reports.save(out / PICTURE, demo_rows, rows)
    return out / PICTURE
