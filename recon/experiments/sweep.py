"""Hyperparameters of the students, chosen on images that are neither test nor pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

import jax
import numpy as np

from recon import data
from recon.distill import OUTPUTS, Hyper
from recon.experiments.cells import Note, SettingsError, quiet
from recon.experiments.common import Row, Tell, silent
from recon.experiments.students import CONVOLUTIONAL, across_seeds, check, in_range, once
from recon.experiments.subjects import KINDS, load, subject_of, trained


@dataclass(frozen=True)
class Sweep:
    """Learning rate, lambda, steps and batch of each student and kind of query.

    Claim:   none of the paper's: it gives no hyperparameters.
    Command: scripts/run.py sweep
    Time:    35 minutes on 2 CPU cores, most of it conv; a run that is killed goes on.
    Expect:  log-odds better than cross-entropy wherever both are tried.

    The victim is trained on the train part less `held_out` images, and students are scored on
    those; the test part is not read.  A setting's score at a budget is the mean validation
    agreement with the victim over seeds, since a student is to be the victim, with its mistakes:
    by accuracy a one-layer student that beats its victim would be preferred.  The best go into
    `recon.experiments.hyper.TABLE`, which a test holds to the committed rows.
    More: --steps 2000 6000 --batches 16 64 --conv-seeds 3.
    """

    shown: ClassVar[tuple[str, ...]] = (
        "student",
        "kind",
        "budget",
        "learning_rate",
        "weight",
        "outputs",
        "weight_decay",
        "surrogate",
        "narrow",
        "steps",
        "batch",
        "agreement",
        "worst_agreement",
        "settings",
        "runs",
        "seconds",
    )
    students: tuple[str, ...] = ("linear", "mlp", "conv")
    """Students; each rebuilds a victim of its own class."""
    kinds: tuple[str, ...] = ("gradient", "smoothgrad", "top", "membership", "membership-entropy")
    """Kinds of queries."""
    budgets: tuple[int, ...] = (1, 10, 100)
    """How many queries; each has a best setting."""
    conv_budgets: tuple[int, ...] = (10, 100)
    """The same for convolutional students, which one query leaves near chance."""
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    """Adam's, at the start of its decay."""
    weights: tuple[float, ...] = (0.1, 1.0)
    """Lambda; membership queries have none."""
    outputs: tuple[str, ...] = tuple(OUTPUTS)
    """How l_M compares probabilities."""
    weight_decays: tuple[float, ...] = (0.0,)
    """Of AdamW."""
    surrogates: tuple[float, ...] = ()
    """Widths of the masks' surrogate derivative; none: autodiff.  Membership queries have none."""
    narrows: tuple[float, ...] = (0.2,)
    """The surrogate's width at the last step, as a share of the first."""
    steps: tuple[int, ...] = (2_000,)
    """Training steps."""
    batches: tuple[int, ...] = (64,)
    """Queries a step."""
    seeds: int = 2
    """Draws of the queries and of the first weights."""
    conv_seeds: int = 1
    """The same for convolutional students, which take most of the time."""
    held_out: int = 10_000
    """Training images that students are scored on, and the victim does not see."""
    distribution: str = "pool"
    """What is asked: pool or gaussian."""
    dataset: str = "mnist"
    """The data set."""
    victim_steps: int = 4_000
    """Training steps of the victim."""
    mapper: str = "auto"
    """As in fig2_mnist."""
    together: bool = False
    """As in fig2_mnist."""
    download: bool = False
    """Download the data set where it is not on disk."""
    seed: int = 0
    """Seed of the split, the victim, the queries and the students."""

    def small(self) -> Sweep:
        """Digits, the linear student, a grid of two by two."""
        few = replace(self, dataset="digits", students=("linear",), kinds=("gradient",))
        few = replace(
            few, seeds=1, budgets=(10, 100), learning_rates=(1e-3, 1e-2), weights=(0.1, 1.0)
        )
        return replace(few, steps=(100,), held_out=200, victim_steps=1_000, together=True)

    def run(self, tell: Tell = silent, note: Note = quiet) -> list[Row]:
        """Rows, one a student; `tell` hears each.  Errors as those of `Matching.run`."""
        numbers = {
            "steps": self.steps,
            "a batch": self.batches,
            "seeds": (self.seeds,),
            "conv_seeds": (self.conv_seeds,),
            "victim_steps": (self.victim_steps,),
        }
        named = (self.students, self.kinds, self.distribution, self.dataset, self.mapper)
        check(*named, numbers, self.seed)
        for kind in self.kinds:
            if KINDS[kind].pool or KINDS[kind].members > 1:
                raise SettingsError(f"{kind} has the settings of another kind, which is swept")
        once("a student", self.students)
        once("a comparison", self.outputs)
        for name in self.outputs:
            if name not in OUTPUTS:
                raise SettingsError(
                    f"there is no comparison {name!r}; there are {', '.join(OUTPUTS)}"
                )
        in_range("a learning rate", self.learning_rates, 0, above=True)
        in_range("a weight", self.weights, 0)
        in_range("a weight decay", self.weight_decays, 0)
        if self.surrogates:
            in_range("a surrogate's width", self.surrogates, 0, above=True)
        in_range("narrow", self.narrows, 0, above=True)
        for name in self.students:
            in_range("a budget", self._size(name)[0], 1)
        rows: list[Row] = []
        used = [n for name in self.students for n in self._size(name)[0]]
        with jax.enable_x64(False):
            dataset = load(self.dataset, self.seed, self.download, self.distribution, used)
            try:
                dataset = data.validation(dataset, self.held_out, self.seed)
            except ValueError as error:
                raise SettingsError(str(error)) from error
            for name in self.students:
                for row in self._student(dataset, name, note):
                    rows.append(row)
                    tell(row)
        return rows

    def _student(self, dataset: data.Dataset, name: str, note: Note) -> Iterator[Row]:
        victim = trained(dataset, name, self.seed, self.victim_steps, note)
        budgets, seeds = self._size(name)
        most = max(budgets)
        subject = subject_of(dataset, victim, self.distribution, most, seeds, self.seed)
        names = {"dataset": dataset.name, "student": name, "distribution": self.distribution}
        hypers = {kind: self.grid(kind, budgets) for kind in self.kinds}
        options = (self.mapper, self.together, note)
        for row in across_seeds(subject, name, hypers, seeds, self.seed, *options):
            yield names | row

    def _size(self, name: str) -> tuple[tuple[int, ...], int]:
        """The budgets and the number of seeds of a student."""
        if name in CONVOLUTIONAL:
            return self.conv_budgets, self.conv_seeds
        return self.budgets, self.seeds

    def grid(self, kind: str, budgets: tuple[int, ...]) -> list[Hyper]:
        """Every setting with every budget."""
        weights = self.weights
        widths: list[tuple[Any, Any]] = [*product(self.surrogates, self.narrows)]
        if KINDS[kind].loss == "membership":
            weights, widths = (Hyper().weight,), []
        widths = widths or [(None, Hyper().narrow)]
        settings = (self.outputs, self.steps, self.batches, self.learning_rates, weights)
        options = (widths, self.weight_decays, budgets)
        grid = [
            Hyper(
                learning_rate=rate,
                weight=weight,
                budget=budget,
                weight_decay=decay,
                surrogate=surrogate,
                narrow=narrow,
                steps=steps,
                batch=batch,
                outputs=outputs,
            )
            for outputs, steps, batch, rate, weight, (surrogate, narrow), decay, budget in product(
                *settings, *options
            )
        ]
        # What the kind fixes leaves some settings equal.
        return [*dict.fromkeys(replace(setting, **KINDS[kind].fixed) for setting in grid)]

    def summary(self, rows: list[Row]) -> list[Row]:
        """The best setting of each student, kind and budget."""
        return best(rows)

    def seconds(self, rows: list[Row]) -> float:
        """The training time of all students."""
        return sum(row["seconds"] for row in rows)


def best(rows: list[Row]) -> list[Row]:
    """For each student, kind and budget the setting with the highest mean agreement.

    An attacker knows its budget.  Of equals the first; a setting with a student that failed is
    not chosen.
    """
    setting = (
        *("learning_rate", "weight", "outputs", "weight_decay", "surrogate", "narrow"),
        *("steps", "batch"),
    )
    scores: dict[tuple, dict[tuple, list[Row]]] = {}
    for row in rows:
        of = scores.setdefault((row["student"], row["kind"], row["budget"]), {})
        of.setdefault(tuple(_said(row)[name] for name in setting), []).append(row)
    chosen = []
    for (student, kind, budget), settings in scores.items():
        means = {
            values: float(np.mean([row["agreement"] for row in of]))
            for values, of in settings.items()
            if all(row["failure"] is None for row in of)
        }
        if not means:
            continue
        top = max(means, key=means.__getitem__)
        chosen.append(
            {"student": student, "kind": kind, "budget": budget}
            | dict(zip(setting, top, strict=True))
            | {
                "agreement": means[top],
                "worst_agreement": min(means.values()),
                "settings": len(settings),
                "runs": sum(map(len, settings.values())),
                "seconds": sum(row["seconds"] for of in settings.values() for row in of),
            }
        )
    return chosen


def _said(row: Row) -> Row:
    """The row with the settings that rows older than these do not name."""
    surrogate = row.get("surrogate")
    narrow = None if surrogate is None else 0.2
    return {"weight_decay": 0.0, "surrogate": surrogate, "narrow": narrow} | row
