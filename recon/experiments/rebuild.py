"""Classifiers rebuilt by matching what a victim replies: the measurement behind most tables.

`plan` says which students there are, as plain data; `students.measure` makes a row of each.
Variants are rows of `recon.experiments.mnist` and `cifar10`, not classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from recon import data, victims, workers
from recon.distill import Hyper
from recon.distill.hyper import refusal
from recon.experiments import students
from recon.experiments.common import Only, Row, SettingsError, Tell, columns, grouped, silent
from recon.experiments.hyper import hyper
from recon.experiments.services import NOISE, QUERIES, RECIPES, REPLIES
from recon.experiments.students import Cell
from recon.workers import quiet

BUDGETS = (1, 10, 100, 1_000, 10_000)
NARROW = {"vgg11": "vgg11-quarter", "resnet18-half": "resnet18-quarter"}  # in small forms
BY = columns("victim student queries reply recipe budget")
SHOWN = (
    *("victim", "student", "queries", "reply", "recipe", "budget", "runs", "failed"),
    *("accuracy", "median", "lowest", "highest", "agreement", "victim_accuracy"),
    *("gradient_loss", "seconds"),
)


class Where(NamedTuple):
    """Where students are trained.

    workers: processes side by side; dask: a scheduler's address, in their stead; devices: how many
    share the runs of a program, None: each worker has its own one.
    """

    workers: int = 1
    dask: str | None = None
    devices: int | None = None


HERE = Where()


class Panel(NamedTuple):
    """One victim with its student, and with how many seeds each budget is measured.

    student: "" for the victim's class; seeds: for every budget, or one number each; recipes,
    replies, queries: in place of those of the experiment, where not empty.
    """

    victim: str
    budgets: tuple[int, ...] = BUDGETS
    recipes: tuple[str, ...] = ()
    replies: tuple[str, ...] = ()
    seeds: int | tuple[int, ...] = 5
    student: str = ""
    queries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rebuild:
    """Students of victims: a cell for each panel, kind of queries, reply, recipe, budget, seed.

    A seed draws the queries and the student's first weights, and depends on nothing else: 10
    queries are among the 100 of the same seed, every reply and recipe is measured on the same
    ones, and two experiments that share a cell share its row.  Students are scored on the test
    part, victims trained on the train part; neither is ever queried.
    """

    columns: ClassVar[tuple[str, ...]] = SHOWN
    by: ClassVar[tuple[str, ...]] = BY
    about: str
    panels: tuple[Panel, ...]
    replies: tuple[str, ...] = ("gradient", "membership")
    recipes: tuple[str, ...] = ("plain",)
    queries: tuple[str, ...] = ("pool",)
    dataset: str = "mnist"
    victim_steps: int | None = None
    """Training steps of every victim, in place of those of `victims.schedule`."""
    steps: int | None = None
    """Training steps of every student, in place of the tuned number."""
    grid: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Fields of `Hyper` that are varied, with the values each takes."""
    held_out: int = 0
    """Training images that students are scored on in place of the test part."""
    small_steps: int = 400

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns a person looks at first, those of the grid among them."""
        new = tuple(name for name, _ in self.grid if name not in self.columns)
        at = self.columns.index("budget") + 1
        return (*self.columns[:at], *new, *self.columns[at:])

    def small(self) -> Rebuild:
        """Digits, few steps, the first values, narrow networks: a minute on a laptop."""

        def few_of(panel: Panel) -> Panel:
            budgets = tuple(b for b in panel.budgets if b <= 100)[-2:] or (100,)
            victim, student = (NARROW.get(name, name) for name in (panel.victim, panel.student))
            return panel._replace(victim=victim, student=student, budgets=budgets, seeds=1)

        panels = tuple(map(few_of, self.panels))
        grid = tuple((name, values[-1:]) for name, values in self.grid)
        few = replace(self, panels=panels, grid=grid, dataset="digits", victim_steps=1_000)
        return replace(few, steps=self.small_steps)

    def full(self) -> Rebuild:
        """Networks at full width and five seeds at least: for an accelerator."""

        def whole(panel: Panel) -> Panel:
            victim, student = (name.removesuffix("-half") for name in (panel.victim, panel.student))
            seeds = (panel.seeds,) if isinstance(panel.seeds, int) else panel.seeds
            many = tuple(max(5, n) for n in seeds * (len(panel.budgets) // len(seeds)))
            return panel._replace(victim=victim, student=student, seeds=many)

        return replace(self, panels=tuple(map(whole, self.panels)))

    def plan(self) -> list[Cell]:
        """Every cell, those that share replies one after the other."""
        found: list[Cell] = []
        for panel in self.panels:
            seeds = panel.seeds
            of = (seeds,) * len(panel.budgets) if isinstance(seeds, int) else seeds
            services = panel.replies or self.replies, panel.recipes or self.recipes
            axes = panel.queries or self.queries, *services, zip(panel.budgets, of, strict=True)
            for queries, reply, recipe, (budget, runs) in product(*axes):
                if reply in RECIPES[recipe].replies:
                    found += self._cells(panel, queries, reply, recipe, budget, runs)
        return found

    def _cells(
        self, panel: Panel, queries: str, reply: str, recipe: str, budget: int, runs: int
    ) -> Iterable[Cell]:
        student = panel.student or panel.victim
        base, tuned = self.base(queries, student, reply, recipe, budget)
        base = replace(base, steps=self.steps or base.steps)
        names = [name for name, _ in self.grid]
        varied: dict[Hyper, None] = {}  # what a recipe or a reply fixes leaves some equal
        for values in product(*(values for _, values in self.grid)):
            one = replace(base, **dict(zip(names, values, strict=True)))
            if REPLIES[reply].loss == "membership":
                one = replace(one, weight=Hyper().weight, temperature=None)
            varied[replace(one, **RECIPES[recipe].fixed)] = None
        training = victims.schedule(self.dataset, panel.victim)
        training = replace(training, steps=self.victim_steps or training.steps)
        for one in varied:
            for seed in range(runs):
                who = self.dataset, panel.victim, student
                yield Cell(*who, queries, reply, recipe, seed, one, training, tuned, self.held_out)

    def base(
        self, queries: str, student: str, reply: str, recipe: str, budget: int
    ) -> tuple[Hyper, bool]:
        """The settings that the grid varies, and whether they were tuned."""
        return hyper(self.dataset, queries, student, reply, recipe, budget)

    measure: ClassVar[Callable[..., list[Row]]] = staticmethod(students.measure)

    def run(
        self,
        tell: Tell = silent,
        note: Callable[[str], None] = quiet,
        only: Only | None = None,
        where: Where = HERE,
        count: Callable[[int, int], None] = workers.uncounted,
    ) -> list[Row]:
        """Rows, one a student; `tell` hears each, `note` what is done, `count` the cells.

        only: values by column, of which cells are measured.  SettingsError for what cannot be
        run, DataError where the data is missing, both before anything is trained; WorkerError
        where there are no such workers, or they die.
        """
        todo, rows = chosen(self.plan(), only or {}), list[Row]()
        with jax.enable_x64(False):
            check(todo)
            together = students.groups(todo, where.devices)
            for cell in todo:
                students.victim_of(cell, note)
            measure = type(self).measure
            if where.devices is not None:
                measure = partial(measure, devices=where.devices)

            def named(group: Sequence[Cell]) -> Any:
                return [type(self).measure.__module__, where.devices, *students.settings(group)]

            beside = where.workers, note, where.dask, count
            for found in workers.map_cells(measure, together, named, *beside):
                rows += found
                for row in found:
                    tell(row)
        return rows

    def summary(self, rows: list[Row]) -> list[Row]:
        """Mean, median, lowest and highest accuracy over seeds; failed students only count."""
        by = (*self.by, *(name for name, _ in self.grid))
        return [_mean(cell, by) for cell in grouped(rows, by)]

    def seconds(self, rows: list[Row]) -> float:
        """The training time of all students; victims and replies are not in it."""
        return sum(row["seconds"] for row in rows)


def chosen(todo: Sequence[Cell], only: Only) -> list[Cell]:
    """The cells whose columns have one of the values; SettingsError where none has."""
    known = [students.identity(cell) for cell in todo]
    for name, values in only.items():
        if known and name not in known[0]:
            raise SettingsError(f"there is no column {name!r}; there are {', '.join(known[0])}")
        there = list(dict.fromkeys(str(of[name]) for of in known))
        for value in values:
            if value not in there:
                raise SettingsError(f"no {name} is {value!r}; there are {', '.join(there)}")
    left = [
        cell
        for cell, of in zip(todo, known, strict=True)
        if all(str(of[name]) in values for name, values in only.items())
    ]
    if not left:
        raise SettingsError("nothing is left to measure")
    return left


def check(todo: Sequence[Cell]) -> None:
    """SettingsError, in one sentence, for a cell that cannot be measured; nothing is trained."""
    from recon import models  # flax is heavy

    for cell in todo:
        for what, name, rows in (
            ("victim", cell.victim, models.MODELS),
            ("student", cell.student, models.MODELS),
            ("reply", cell.reply, REPLIES),
            ("recipe", cell.recipe, RECIPES),
            ("kind of queries", cell.queries, QUERIES),
            ("data set", cell.dataset, data.DATASETS),
        ):
            if name not in rows:
                raise SettingsError(f"there is no {what} {name!r}; there are {', '.join(rows)}")
        for field in fields(Hyper):
            if refused := refusal(field.name, getattr(cell.hyper, field.name)):
                raise SettingsError(refused)
        recipe = RECIPES[cell.recipe]
        if recipe.known and cell.victim != cell.student:
            raise SettingsError("a student that knows layers is of its victim's class")
        if recipe.fixed.get("unlabelled") and cell.queries in NOISE:
            raise SettingsError(f"unlabelled images are not of the kind of {cell.queries} queries")
    for cell in todo:
        budget, pool = int(cell.hyper.budget), len(students.load(*students.place(cell)).pool.x)
        if cell.queries not in NOISE and budget > pool:
            raise SettingsError(
                f"a budget of {budget:,} is not in 1 ... {pool:,}, the pool of {cell.dataset}"
            )


def _mean(cell: list[Row], by: Sequence[str]) -> Row:
    good = [row for row in cell if row["failure"] is None]
    row = {name: cell[0][name] for name in by}
    row |= {"runs": len(cell), "failed": len(cell) - len(good)}
    for name in ("accuracy", "agreement", "victim_accuracy", "gradient_loss", "seconds"):
        values = [r[name] for r in good if r[name] is not None]
        row[name] = float(np.mean(values)) if values else None
    accuracies = sorted(r["accuracy"] for r in good)
    row["median"] = float(np.median(accuracies)) if accuracies else None
    row["lowest"] = min(accuracies, default=None)
    row["highest"] = max(accuracies, default=None)
    return row
