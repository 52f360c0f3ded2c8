"""Figures 2 to 4 of the paper on MNIST: classifiers rebuilt by matching what a victim replies.

A cell is a victim, a student, a kind of query, a seed and the budgets trained together; finished
ones are kept (`recon.experiments.cells`), so a killed run goes on when it is started again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import numpy as np

from recon import data
from recon.distill import Hyper
from recon.experiments.cells import Note, SettingsError, quiet
from recon.experiments.common import Row, Tell, silent
from recon.experiments.hyper import hyper
from recon.experiments.students import CONVOLUTIONAL, across_seeds, check, in_range, once
from recon.experiments.subjects import load, subject_of, trained


@dataclass(frozen=True)
class Matching:
    """What the three figures share: victims rebuilt from queries of several kinds and budgets.

    A seed draws the queries and the student's first weights.  One set of queries is bought for a
    victim and a kind; seed s asks those from row s N / seeds on, so budgets are nested (10 are
    among 100), kinds are compared on the same queries, and seeds overlap as little as N lets
    them: where a budget is the whole pool, all seeds have the same queries.  Students are
    scored on the test part, victims trained on the train part; neither is ever queried.
    """

    by: ClassVar[tuple[str, ...]] = ("victim", "student", "kind", "budget")
    shown: ClassVar[tuple[str, ...]] = (
        *by,
        "runs",
        "accuracy",
        "accuracy_min",
        "accuracy_max",
        "agreement",
        "victim_accuracy",
        "gradient_loss",
        "seconds",
    )
    victims: tuple[str, ...] = ("linear", "mlp", "conv")
    """Victims; "mlp:conv" is a victim mlp rebuilt with a student of class conv."""
    kinds: tuple[str, ...] = ("gradient", "membership")
    """Kinds of queries: gradient, smoothgrad, top, membership and others of `subjects.KINDS`."""
    distribution: str = "pool"
    """What is asked: pool (images of the data set) or gaussian."""
    budgets: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
    """How many queries."""
    conv_budgets: tuple[int, ...] | None = None
    """The same where victim or student is convolutional; none: as the others."""
    seeds: int = 5
    """Draws of the queries and of the student's first weights."""
    conv_seeds: int = 3
    """The same where victim or student is convolutional."""
    dataset: str = "mnist"
    """The data set."""
    victim_steps: int = 4_000
    """Training steps of the victim."""
    steps: int | None = None
    """Training steps of every student, in place of the tuned number."""
    mapper: str = "auto"
    """Students at once (vmap) or in turn (loop); auto: vmap, on a CPU a loop."""
    together: bool = False
    """Pad all budgets of a seed to one batch size: less to compile, more to compute."""
    download: bool = False
    """Download the data set where it is not on disk."""
    seed: int = 0
    """Seed of the split, the victims, the queries and the students."""

    def small(self) -> Matching:
        """Digits, few steps, kinds in their main form: a minute on a laptop."""
        kinds = tuple(kind for kind in self.kinds if kind != "membership-entropy")
        few = replace(
            self, kinds=kinds, dataset="digits", budgets=(1, 10, 100), seeds=2, conv_seeds=1
        )
        few = replace(few, conv_budgets=None)
        return replace(few, victim_steps=1_000, steps=400, together=True, mapper="vmap")

    def run(self, tell: Tell = silent, note: Note = quiet) -> list[Row]:
        """Rows, one a student; `tell` hears each.

        SettingsError for settings that make no sense, DataError where the data is missing, both
        before anything is trained.
        """
        pairs = self.pairs()
        rows: list[Row] = []
        with jax.enable_x64(False):
            asked = [budget for pair in pairs for budget in self._size(*pair)[0]]
            dataset = load(self.dataset, self.seed, self.download, self.distribution, asked)
            for victim, student in pairs:
                for row in self._pair(dataset, victim, student, note):
                    rows.append(row)
                    tell(row)
        return rows

    def summary(self, rows: list[Row]) -> list[Row]:
        """The mean over seeds, and the lowest and highest accuracy."""
        cells: dict[tuple, list[Row]] = {}
        for row in rows:
            cells.setdefault(tuple(row[name] for name in self.by), []).append(row)
        return [_mean(cell, self.by) for cell in cells.values()]

    def seconds(self, rows: list[Row]) -> float:
        """The training time of all students; victims and replies are not in it."""
        return sum(row["seconds"] for row in rows)

    def _pair(self, dataset: data.Dataset, name: str, model: str, note: Note) -> Iterator[Row]:
        budgets, seeds = self._size(name, model)
        victim = trained(dataset, name, self.seed, self.victim_steps, note)
        subject = subject_of(dataset, victim, self.distribution, max(budgets), seeds, self.seed)
        names = {"dataset": dataset.name, "victim": name, "student": model}
        names |= {"distribution": self.distribution}
        hypers: dict[str, list[Hyper]] = {}
        tuned = {}
        for kind in self.kinds:
            for budget in sorted(budgets):
                found, tuned[kind] = hyper(model, kind, budget, self.distribution)
                settings = replace(found, steps=self.steps or found.steps)
                hypers.setdefault(kind, []).append(settings)
        options = (self.mapper, self.together, note)
        for row in across_seeds(subject, model, hypers, seeds, self.seed, *options):
            yield names | row | {"tuned": tuned[row["kind"]]}

    def _size(self, victim: str, student: str) -> tuple[tuple[int, ...], int]:
        """The budgets and the number of seeds of a pair."""
        if {victim, student} & {*CONVOLUTIONAL}:
            return self.conv_budgets or self.budgets, self.conv_seeds
        return self.budgets, self.seeds

    def pairs(self) -> list[tuple[str, str]]:
        """(victim, student); SettingsError in one sentence for what cannot be run."""
        for name in self.victims:
            if name.count(":") > 1:
                raise SettingsError(f"a victim is MODEL or MODEL:STUDENT, got {name!r}")
        pairs = [(v.partition(":")[0], v.rpartition(":")[2]) for v in self.victims]
        numbers = {
            "seeds": (self.seeds,),
            "conv_seeds": (self.conv_seeds,),
            "steps": (1 if self.steps is None else self.steps,),
            "victim_steps": (self.victim_steps,),
        }
        models = [name for pair in pairs for name in pair]
        named = (models, self.kinds, self.distribution, self.dataset, self.mapper)
        check(*named, numbers, self.seed)
        once("a victim", [":".join(pair) for pair in pairs])
        for pair in pairs:
            in_range("a budget", self._size(*pair)[0], 1)
        return pairs


def _mean(cell: list[Row], by: tuple[str, ...]) -> Row:
    """One row for rows that differ in the seed; students that failed count as runs, no more."""
    good = [row for row in cell if row["failure"] is None]
    row = {name: cell[0][name] for name in by}
    row |= {"runs": len(cell), "failed": len(cell) - len(good)}
    for name in ("accuracy", "agreement", "victim_accuracy", "gradient_loss", "seconds"):
        values = [r[name] for r in good if r[name] is not None]
        row[name] = float(np.mean(values)) if values else None
    accuracies = [r["accuracy"] for r in good]
    row["accuracy_min"] = min(accuracies, default=None)
    row["accuracy_max"] = max(accuracies, default=None)
    return row


@dataclass(frozen=True)
class Figure2(Matching):
    """Figure 2 on MNIST: the student is of the victim's class, the queries are images.

    Claim:   one gradient query rebuilds the one-layer network; 100 times fewer gradient than
             membership queries rebuild the two-layer network, and the convolutional one to 95 %
             (10 against 1,000); SmoothGrad makes practically no difference (section 5.1).
    Command: scripts/run.py fig2_mnist
    Time:    42 minutes on 1 CPU core.  A run that is killed goes on.
    Expect:  one-layer with one gradient query within 0.3 points of the victim, every seed;
             convolutional with ten 93 to 99 %, and with a hundred the victim itself, up to one
             answer in 400.

    "gradient" is the whole Jacobian of the logits, K d numbers; "top" the gradient of the
    largest logit alone, which services mostly return and the paper does not use.
    """

    kinds: tuple[str, ...] = ("gradient", "smoothgrad", "top", "membership", "membership-entropy")


@dataclass(frozen=True)
class Figure3(Matching):
    """Figure 3 on MNIST: the student is of another class than the victim.

    Claim:   a two-layer student rebuilds the one-layer network from 100 times fewer gradient
             than membership queries; the reverse takes 10 times fewer at first; a convolutional
             student of the two-layer network does much better than the reverse (section 5.2).
    Command: scripts/run.py fig3_mnist
    Time:    24 minutes on 1 CPU core that another run shared.  A run that is killed goes on.
    Expect:  a one-layer student stays below its two-layer victim, whatever it asks.
    """

    victims: tuple[str, ...] = ("linear:mlp", "mlp:linear", "mlp:conv", "conv:mlp")


@dataclass(frozen=True)
class Figure4(Matching):
    """Figure 4 on MNIST: the queries are x ~ N(0, I_d), not images.

    Claim:   at least 1,000 times fewer gradient than membership queries for the two-layer
             network; convolutional: 84 % from 10 gradient, 71 % from 10,000 membership queries
             (section 5.3).
    Command: scripts/run.py fig4_mnist
    Time:    17 minutes on 1 CPU core.  A run that is killed goes on.
    Expect:  two-layer: ten gradient queries as much as several thousand membership queries;
             convolutional: ten 74 to 80 %, below the paper's 84, which 100 reach.

    Images have pixels in [0, 1] and the queries are neither scaled nor cut to that range; the
    paper does not say how its images were scaled.  There is no pool to run out of: a budget may
    be any number.
    """

    distribution: str = "gaussian"


@dataclass(frozen=True)
class Pool(Matching):
    """What the images that are not asked about add, where few are asked: ours, not the paper's.

    Claim:   the paper's: ten gradient queries rebuild the convolutional network to 95 %, as 1,000
             membership queries do (section 5.1); its attacker leaves unasked images unused.
    Command: scripts/run.py pool_mnist
    Time:    65 minutes on 1 CPU core that another run shared; a run that is killed goes on.
    Expect:  convolutional, ten gradient queries: 93 to 99 % as the paper does it, 97 to 98 % with
             the pool, every seed; ten membership queries stay below 95 % with it.

    "+pool" kinds train on the same replies and on the 10,000 unlabelled images of the pool, see
    `recon.distill.consistency`; the settings of "+pool" kinds are first choices, made on the
    validation part and not swept.
    """

    victims: tuple[str, ...] = ("mlp", "conv")
    kinds: tuple[str, ...] = ("gradient", "gradient+pool", "membership", "membership+pool")
    budgets: tuple[int, ...] = (10, 100, 1_000)


@dataclass(frozen=True)
class Large(Matching):
    """The larger convolutional network, 32 and 64 filters and 512 units, beside the small one.

    Claim:   the paper's for its convolutional network, of a size it does not give: 95 % from ten
             gradient or 1,000 membership queries (section 5.1).
    Command: scripts/run.py large_mnist
    Time:    25 minutes on 2 CPU cores.
    Expect:  ten gradient queries below the small network's: ten Jacobians are 78,400 numbers, and
             it has 1,663,370 parameters.

    The settings are the untuned defaults: those of the small network make it diverge.
    """

    victims: tuple[str, ...] = ("conv_large",)
    budgets: tuple[int, ...] = (10, 1_000)
    steps: int | None = 2_000


@dataclass(frozen=True)
class Forms(Matching):
    """The same replies matched in two forms each: what a cheaper form of l_G costs in accuracy.

    Claim:   none of the paper's: it does not say how a student was made to match.
    Command: scripts/run.py forms_mnist
    Time:    79 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  a projection of the Jacobian, one backward pass a step, as good as the whole
             Jacobian, ten; for the convolutional student SmoothGrad replies are matched better by
             its own SmoothGrad, two points with ten queries, at some ten times the cost.

    "gradient" and "smoothgrad" are what the figures use: a fresh random projection a step, and the
    student's plain gradient held against the victim's smoothed one.  "gradient-whole" matches
    all rows of the Jacobian, "smoothgrad-own" the student's own average over eight noisy points.
    Settings are those tuned for the cheaper form; "seconds" are a student's.
    """

    victims: tuple[str, ...] = ("mlp", "conv")
    kinds: tuple[str, ...] = ("gradient", "gradient-whole", "smoothgrad", "smoothgrad-own")
    budgets: tuple[int, ...] = (10, 100)
    seeds: int = 3


@dataclass(frozen=True)
class Masks(Matching):
    """What a surrogate derivative of the masks and weight decay each add: ours, not the paper's.

    Claim:   none of the paper's: it does not say how a student was made to match.
    Command: scripts/run.py masks_mnist
    Time:    8 minutes on 1 CPU core.
    Expect:  without the surrogate ("gradient-autodiff") l_G stays seven times as high
             (convolutional) or more and the mean is 13 points (2-layer) and 6 (convolutional)
             behind, 6 and 4 where autodiff had settings of its own (fig2_mnist at recon
             20bfe9db5491); without weight decay ("gradient-undecayed") the fit is worse too, the
             2-layer student 4 points behind and the convolutional one 14.

    All else is as tuned for "gradient", see `recon.masks`; two of the three draws of queries
    are not those of fig2_mnist.
    """

    victims: tuple[str, ...] = ("mlp", "conv")
    kinds: tuple[str, ...] = ("gradient", "gradient-autodiff", "gradient-undecayed")
    budgets: tuple[int, ...] = (10,)
    seeds: int = 3


@dataclass(frozen=True)
class Ensemble(Matching):
    """Several students of the same replies answer as one: ours, not the paper's.

    Claim:   the paper's: ten gradient queries rebuild the convolutional network to 95 % (section
             5.1), with Gaussian ones to 84 % (5.3); it has one student.
    Command: scripts/run.py ensemble_mnist
    Time:    45 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  with ten gradient queries half a point more for the 2-layer network and one for the
             convolutional one: an ensemble does not mend a poor draw of images; nothing from a
             hundred on.  Ten membership queries are not helped.

    Kinds that end in "-ensemble" train eight students from first weights of their own; the four
    that fit the replies best answer by the mean of their logits (`recon.distill.ensemble`).  The
    single students beside them are among the eight.
    """

    victims: tuple[str, ...] = ("mlp", "conv")
    kinds: tuple[str, ...] = ("gradient", "gradient-ensemble", "membership", "membership-ensemble")
    budgets: tuple[int, ...] = (10, 100, 1_000, 10_000)
    conv_budgets: tuple[int, ...] | None = (10,)


@dataclass(frozen=True)
class EnsembleGaussian(Ensemble):
    """`ensemble_mnist` with Gaussian queries, those of fig4_mnist: ours, not the paper's.

    Claim:   the paper's: ten Gaussian gradient queries rebuild the convolutional network to 84 %,
             and the two-layer network as well as 1,000 times as many membership queries do
             (section 5.3); it has one student.
    Command: scripts/run.py ensemble_gaussian
    Time:    36 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  with ten gradient queries four points more for the 2-layer network, one more with a
             thousand membership queries; for the convolutional one two draws gain and one loses
             more.
    """

    distribution: str = "gaussian"
