"""Which of the victim's convolutional filters a student has: weights, not answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from recon import data, distill
from recon.experiments.cells import Note, SettingsError
from recon.experiments.common import Row
from recon.experiments.hyper import hyper
from recon.experiments.matching import Matching
from recon.experiments.students import rows_from, student
from recon.experiments.subjects import KINDS, subject_of, trained

FOUND = 0.9  # the cosine from which on a filter counts as found
LAYERS = ("Conv_0", "Conv_1")
TINY = 1e-12  # a filter that died has cosine 0, not nan


@dataclass(frozen=True)
class Filters(Matching):
    """The filters of the convolutional student beside its victim's: ours, not the paper's.

    Claim:   none of the paper's: it compares answers, never weights.
    Command: scripts/run.py filters_mnist
    Time:    2 minutes on 1 CPU core; a run that is killed starts anew.
    Expect:  ten gradient queries show eight to ten of the ten filters of the first layer, with
             cosines above 0.97, and of the twenty of the second from none to more than half, by
             the draw of the images; ten membership queries none.

    A student's filters come in an order and a scale of their own, which the next layer undoes:
    the first layer's are paired with the victim's one to one, for the highest sum of cosines, and
    the second layer's are compared after their inputs are put in that order and scale.
    """

    shown: ClassVar[tuple[str, ...]] = (
        *("victim", "kind", "budget", "seed", "layer", "filters", "found"),
        *("cosine_median", "cosine_min", "accuracy", "agreement"),
    )
    victims: tuple[str, ...] = ("conv",)
    budgets: tuple[int, ...] = (10,)

    def small(self) -> Filters:
        """Digits, few steps."""
        return replace(self, dataset="digits", victim_steps=1_000, steps=400)

    def pairs(self) -> list[tuple[str, str]]:
        """As those of `Matching`; one student each of a conv victim, of the same class."""
        pairs = super().pairs()
        if any(pair != ("conv", "conv") for pair in pairs):
            raise SettingsError("filters are those of a victim conv and a student conv")
        for kind in self.kinds:
            if KINDS[kind].pool or KINDS[kind].members > 1:
                raise SettingsError(f"filters are not paired for {kind} students")
        return pairs

    def summary(self, rows: list[Row]) -> list[Row]:
        """How many filters of each layer were found."""
        names = ("victim", "student", "kind", "budget", "seed", "layer")
        cells: dict[tuple, list[Row]] = {}
        for row in rows:
            cells.setdefault(tuple(row[name] for name in names), []).append(row)
        few = []
        for cell in cells.values():
            cosines = [row["cosine"] for row in cell]
            few.append(
                cell[0]
                | {
                    "filters": len(cell),
                    "found": sum(cosine > FOUND for cosine in cosines),
                    "cosine_median": float(np.median(cosines)),
                    "cosine_min": min(cosines),
                }
            )
        return few

    def seconds(self, rows: list[Row]) -> float:
        """The training time of all students."""
        return sum({row["seconds"] for row in rows})

    def _pair(self, dataset: data.Dataset, name: str, model: str, note: Note) -> Iterator[Row]:
        victim = trained(dataset, name, self.seed, self.victim_steps, note)
        budgets, seeds = self._size(name, model)
        subject = subject_of(dataset, victim, self.distribution, max(budgets), seeds, self.seed)
        form = student(model, dataset.shape, dataset.classes)
        for kind in self.kinds:
            bank = subject.bank(kind)
            for budget in sorted(budgets):
                found, _ = hyper(model, kind, budget, self.distribution)
                loss, steps = KINDS[kind].loss, self.steps or found.steps
                settings = replace(found, loss=loss, steps=steps)
                for seed in range(seeds):
                    note(f"{name}, {kind} x {budget:,}, seed {seed}")
                    key = jax.random.fold_in(jax.random.key(self.seed), seed)
                    asked = rows_from(bank, seed * len(bank) // seeds, budget)
                    start = time.perf_counter()
                    run = distill.train(key, settings, asked, form, subject.probe)
                    row: Row = {"dataset": dataset.name, "victim": name, "student": model}
                    row |= {"kind": kind, "seed": seed}
                    row |= {
                        "budget": budget,
                        "accuracy": float(run.curves["accuracy"][-1]),
                        "agreement": float(run.curves["agreement"][-1]),
                        "seconds": time.perf_counter() - start,
                        "failure": run.failures[0] or None,
                    }
                    pairs = paired(victim.variables["params"], run.variables["params"])
                    for layer, (theirs, ours) in pairs.items():
                        for k in range(theirs.shape[-1]):
                            of = {"layer": layer, "filter": k}
                            yield row | of | _beside(theirs[..., k], ours[..., k])


def paired(
    theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The kernels [side, side, inputs, filters] of both, filter beside filter, for each of LAYERS.

    `theirs` and `ours` are the flax parameters of two networks of one class; the returned kernels
    of `ours` are in the order of `theirs`, and in its scale where an input is a filter's output.
    """
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    order, scale = np.arange(0), np.arange(0)
    for layer in LAYERS:
        a, b = (np.asarray(params[layer]["kernel"], np.float64) for params in (theirs, ours))
        if pairs:
            b = b[:, :, order] * scale[:, None]
        flat_a, flat_b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
        long_a, long_b = (np.linalg.norm(flat, axis=0) for flat in (flat_a, flat_b))
        cosines = flat_a.T @ flat_b / np.maximum(np.outer(long_a, long_b), TINY)
        _, order = linear_sum_assignment(cosines, maximize=True)
        scale = long_b[order] / np.maximum(long_a, TINY)
        pairs[layer] = a, b[..., order]
    return pairs


def _beside(theirs: np.ndarray, ours: np.ndarray) -> Row:
    """The cosine of two kernels, and pictures of their first inputs: 255 the largest weight."""
    long = np.linalg.norm(theirs) * np.linalg.norm(ours)
    row: Row = {"cosine": float(np.sum(theirs * ours) / max(long, TINY)), "side": len(theirs)}
    for name, kernel in (("theirs", theirs), ("ours", ours)):
        first = kernel[..., 0] / max(np.abs(kernel[..., 0]).max(), TINY)
        row[name] = np.round(127.5 + 127.5 * first).astype(np.uint8).tobytes().hex()
    return row
