"""Hyperparameters of the students, chosen on images that are neither test nor pool."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from recon import tables
from recon.distill import Hyper
from recon.experiments import hyper
from recon.experiments.common import Row
from recon.experiments.rebuild import Panel, Rebuild
from recon.experiments.services import GRADIENTS, REPLIES


@dataclass(frozen=True)
class Tune(Rebuild):
    """A grid of settings for each student, reply and budget, scored on held-out training images.

    The victim is trained on the train part less `held_out` images, and students are scored on
    those; the test part is not read.  Fields of `Hyper` that the grid does not vary have their
    defaults.
    """

    columns: ClassVar[tuple[str, ...]] = (
        *(*hyper.KEY, "budget", *hyper.TUNED),
        *("agreement", "worst_agreement", "settings", "runs"),
    )
    held_out: int = 10_000

    def small(self) -> Tune:
        """Digits, the first student, two settings."""
        few = replace(super().small(), panels=(Panel("linear", budgets=(10,), seeds=1),))
        rates = ("learning_rate", (1e-3, 1e-2))
        return replace(few, held_out=200, steps=100, grid=(rates,))  # type: ignore[return-value]

    def base(self, queries: str, student: str, reply: str, recipe: str, budget: int) -> Any:
        """Untuned settings, which the grid is to replace."""
        return Hyper(budget=budget, loss=REPLIES[reply].loss), False

    def summary(self, rows: list[Row]) -> list[Row]:
        """The best setting of each student, reply and budget."""
        return hyper.best(rows)


DENSE = tuple(Panel(name, (1, 10, 100), seeds=2) for name in ("linear", "mlp"))
MLP, CONV = DENSE[1], Panel("conv", (10, 100), seeds=1)
BOTH, GRADIENT, LABELS = ("gradient", "membership"), ("gradient",), ("membership",)
FIRST = {"learning_rate": (3e-3, 1e-2, 3e-2), "weight": (0.1, 1.0), "outputs": ("entropy", "odds")}
FIRST |= {"steps": (2_000,)}
NOISE = FIRST | {"learning_rate": (1e-3, 3e-3, 1e-2), "weight": (0.01, 0.1, 1.0)}
MASKS = {"learning_rate": (3e-3, 1e-2), "weight": (0.1,), "outputs": ("odds",), "steps": (3_000,)}
MASKS |= {"weight_decay": (0.3, 1.0), "temperature": (0.5,)}
DECAY = MASKS | {"weight": (0.01, 0.1), "weight_decay": (0.1, 0.3, 1.0), "temperature": (None,)}
LONG = MASKS | {"cooling": (0.1,), "steps": (12_000,), "batch": (16,)}
NARROW = LONG | {"learning_rate": (1e-2,), "weight_decay": (1.0,), "temperature": (0.5, 1.0)}
WIDE = LONG | {"learning_rate": (1e-2, 2e-2), "weight_decay": (0.3,)}
WIDE |= {"temperature": (2.0, 4.0), "cooling": (0.02,)}
CIFAR: dict[str, Any] = {
    "learning_rate": (0.03,),
    "weight": (0.01, 0.1),
    "weight_decay": (0.3, 1.0),
}
CIFAR |= {"temperature": (0.5,), "cooling": (0.1,), "steps": (12_000,), "batch": (16,)}
CIFAR |= {"outputs": ("odds",), "optimizer": ("muon",)}
SHOWN = CIFAR | {"learning_rate": (0.01, 0.03), "weight_decay": (0.1, 0.3), "weight": (0.1,)}
SHOWN |= {"temperature": (None,), "steps": (4_000,), "batch": (64,)}
DEEP = CIFAR | {"temperature": (None,), "steps": (1_000,), "batch": (32,), "weight": (0.1,)}
DEEP |= {"learning_rate": (0.01, 0.03), "weight_decay": (0.1, 0.3)}
LATE = DEEP | {"learning_rate": (0.03,), "weight_decay": (0.3,), "steps": (3_000,)}
GRIDS = {
    name: Tune(about, panels, replies, recipes, (queries,), grid=tuple(grid.items()))
    for name, about, panels, replies, recipes, queries, grid in (
        ("first", "Learning rate, lambda and outputs, by autodiff; 35 minutes on 2 CPU cores.",
         (*DENSE, CONV), (*GRADIENTS, "membership"), ("plain", "cross-entropy"), "pool", FIRST),
        ("first-gaussian", "The same for Gaussian queries; 12 minutes.",
         (*DENSE, CONV), BOTH, ("plain",), "gaussian", NOISE),
        ("masks", "A surrogate derivative of the masks and weight decay; 15 minutes.",
         (MLP, CONV), BOTH, ("plain",), "pool", MASKS),
        ("masks-gaussian", "The same for Gaussian queries; 15 minutes.",
         (MLP, CONV), BOTH, ("plain",), "gaussian", MASKS),
        ("decay-gaussian", "Weight decay by autodiff, Gaussian queries; 8 minutes.",
         (MLP,), GRADIENT, ("plain",), "gaussian", DECAY),
        ("long", "Four times the steps of `masks`, a quarter of the queries a step; 15 minutes.",
         (MLP, CONV), GRADIENT, ("plain",), "pool", LONG),
        ("long-gaussian", "The same for conv students of Gaussian queries; 15 minutes.",
         (CONV,), GRADIENT, ("plain",), "gaussian", NARROW),
        ("wide", "`long` with masks that start wide and end narrow; 8 minutes.",
         (MLP,), GRADIENT, ("plain",), "pool", WIDE),
        ("wide-gaussian", "The same for Gaussian queries; 8 minutes.",
         (MLP,), GRADIENT, ("plain",), "gaussian", WIDE),
    )
}  # fmt: skip
GRIDS |= {
    name: Tune(about, (panel,), reply, ("plain",), (queries,), "cifar10", grid=tuple(grid.items()))
    for name, about, panel, reply, queries, grid in (
        ("cifar10", "CIFAR-10: lambda and weight decay, by Muon, about the mean pixel; 15 minutes.",
         Panel("conv", (10, 100), seeds=1), GRADIENT, "pool", CIFAR),
        ("cifar10-labels", "The same from membership queries; 5 minutes.",
         Panel("conv", (1_000, 10_000), seeds=1), LABELS, "pool", SHOWN),
        ("cifar10-gaussian", "The same for Gaussian queries; 10 minutes.",
         Panel("conv", (10,), seeds=1), GRADIENT, "gaussian", CIFAR),
        ("cifar10-gaussian-labels", "The same for Gaussian membership queries; 3 minutes.",
         Panel("conv", (10_000,), seeds=1), LABELS, "gaussian", SHOWN),
        ("cifar10-deep", "CIFAR-10: VGG11 of a quarter of its width, by autodiff; 20 minutes.",
         Panel("vgg11-quarter", (100,), seeds=1), GRADIENT, "pool", DEEP),
        ("cifar10-deep-labels", "The same from membership queries; 10 minutes.",
         Panel("vgg11-quarter", (1_000,), seeds=1), LABELS, "pool", DEEP),
        ("cifar10-deep-long", "Three times the steps of `cifar10-deep`; 8 minutes.",
         Panel("vgg11-quarter", (100,), seeds=1), GRADIENT, "pool", LATE),
        ("cifar10-deep-labels-long", "The same from membership queries; 8 minutes.",
         Panel("vgg11-quarter", (1_000,), seeds=1), LABELS, "pool",
         LATE | {"learning_rate": (0.01,)}),
    )
}  # fmt: skip


def choose(results: Path) -> list[Row]:
    """The rows of hyper.csv: the best of all grids with rows in results/tune."""
    rows: list[Row] = []
    for name in GRIDS:
        place = results / "tune" / name.replace("-", "_")
        if (place / "rows.csv").exists():
            rows += tables.read(place)[0]
    kept = (*hyper.KEY, "budget", *hyper.TUNED)
    # SmoothGrad has the settings of plain gradients.
    best = [row for row in hyper.best(rows) if row["reply"] != "smoothgrad"]
    return [{name: row.get(name) for name in kept} for row in best]
