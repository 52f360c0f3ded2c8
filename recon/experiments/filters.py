"""Which of the victim's convolutional filters a student has: weights, not answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from recon import distill
from recon.experiments import students
from recon.experiments.common import Row, grouped
from recon.experiments.rebuild import Rebuild
from recon.experiments.students import Cell
from recon.workers import quiet

FOUND = 0.9  # the cosine from which on a filter counts as found
LAYERS = ("Conv_0", "Conv_1")
TINY = 1e-12  # a filter that died has cosine 0, not nan


def measure(
    group: Sequence[Cell], note: Callable[[str], None] = quiet, devices: int | None = None
) -> list[Row]:
    """A row for each filter of each layer of the group's students."""
    with jax.enable_x64(False):
        trained, rows = students.train(group, note, devices), []
        for i, cell in enumerate(group):
            variables = jax.tree.map(lambda v, i=i: v[i], trained.run.variables)
            score = distill.evaluate(trained.student, variables, students.probe(cell))
            of = students.identity(cell)
            of |= {"accuracy": float(score[0]), "agreement": float(score[1])}
            of |= {"seconds": trained.seconds, "failure": trained.run.failures[i] or None}
            pairs = paired(trained.victim.variables["params"], variables["params"])
            for layer, (theirs, ours) in pairs.items():
                for k in range(theirs.shape[-1]):
                    row = of | {"layer": layer, "filter": k}
                    rows.append(row | _beside(theirs[..., k], ours[..., k]))
        return rows


@dataclass(frozen=True)
class Filters(Rebuild):
    """The filters of convolutional students beside their victim's, a row for each.

    A student's filters come in an order and a scale of their own, which the next layer undoes:
    the first layer's are paired with the victim's one to one, for the highest sum of cosines, and
    the second layer's are compared after their inputs are put in that order and scale.
    """

    columns: ClassVar[tuple[str, ...]] = (
        *("victim", "reply", "budget", "seed", "layer", "filters", "found"),
        *("cosine_median", "cosine_min", "accuracy", "agreement"),
    )
    measure: ClassVar[Callable[..., list[Row]]] = staticmethod(measure)

    def summary(self, rows: list[Row]) -> list[Row]:
        """How many filters of each layer were found."""
        few = []
        for cell in grouped(rows, ("victim", "student", "reply", "budget", "seed", "layer")):
            cosines = [row["cosine"] for row in cell]
            found = {"filters": len(cell), "found": sum(cosine > FOUND for cosine in cosines)}
            found |= {"cosine_median": float(np.median(cosines)), "cosine_min": min(cosines)}
            few.append(cell[0] | found)
        return few

    def seconds(self, rows: list[Row]) -> float:
        """The training time of all students."""
        return sum({row["seconds"] for row in rows})


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
