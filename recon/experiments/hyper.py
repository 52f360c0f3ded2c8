"""The hyperparameters of every student, from hyper.csv; the paper gives none.

hyper.csv is written by `recon tune --choose` from the committed rows of results/tune: for each
data set, queries, student, reply, recipe and budget the best on validation images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from recon import tables
from recon.distill import Hyper
from recon.experiments.services import DEEP, NOISE, RECIPES, REPLIES

FILE = Path(__file__).with_name("hyper.csv")
NARROW = "vgg11-quarter"  # whose settings every deep student has
KEY = ("dataset", "queries", "student", "reply", "recipe")
SET = ("budget", "loss", "sigma", "points", "unlabelled")  # by what is asked, or by a recipe
TUNED = tuple(f.name for f in fields(Hyper) if f.name not in SET)


@cache
def table() -> Mapping[tuple[Any, ...], dict[int, dict[str, Any]]]:
    """For each KEY the settings by budget, as hyper.csv holds them."""
    found: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
    for row in tables.rows(FILE):
        settings = {name: row[name] for name in TUNED if row.get(name) is not None}
        of = found.setdefault(tuple(row[name] for name in KEY), {})
        of[int(row["budget"] or 0)] = settings
    return found


def hyper(
    dataset: str, queries: str, student: str, reply: str, recipe: str = "plain", budget: int = 10
) -> tuple[Hyper, bool]:
    """The settings of a student, and whether they were chosen for this data set.

    They are those of the largest tuned budget that is not above this one, or of the smallest.
    Looked for in turn: the recipe's own, the plain ones; those of the whole Jacobian, for the top
    class alone and for all else that explains; then the same of MNIST, which are not tuned for
    another data set; then Hyper().
    SmoothGrad has the settings of plain gradients, so that the two differ in what the victim
    replies alone; medoids and means have the pool's, standardised noise those of N(0, I).  Those of
    VGG11 and ResNet-18 were chosen for a quarter of the width of the first.
    """
    asked = "gaussian" if queries in NOISE else "pool"
    answered = "gradient" if reply == "smoothgrad" else reply
    service, chosen = REPLIES[reply], RECIPES[recipe]
    replies = (answered, "gradient") if service.view.axes else (answered,)
    found, tuned = Hyper(), False
    students = (student, NARROW) if student in DEEP else (student,)
    ways = product((dataset, "mnist"), students, replies, (recipe, "plain"))
    for place, of, shown, way in dict.fromkeys(ways):
        by_budget = table().get((place, asked, of, shown, way))
        if by_budget is not None and found == Hyper():
            best = by_budget[max((b for b in by_budget if b <= budget), default=min(by_budget))]
            found, tuned = Hyper(**best), place == dataset and shown == answered
    weight = found.weight if service.weight is None else service.weight
    given: dict[str, Any] = {"budget": budget, "loss": service.loss, "weight": weight}
    found = replace(found, **given | dict(chosen.fixed))
    tuned = tuned and "unlabelled" not in chosen.fixed  # first choices, not swept
    return replace(found, steps=max(found.steps, chosen.steps)), tuned


def best(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each KEY and budget the setting with the highest mean agreement over seeds.

    An attacker knows its budget.  A student is to be the victim, with its mistakes: by accuracy
    a one-layer student that beats its victim would be preferred.  Of equals the first; a setting
    with a student that failed is not chosen.
    """
    scores: dict[tuple, dict[tuple, list[Mapping[str, Any]]]] = {}
    for row in rows:
        of = scores.setdefault(tuple(row[name] for name in (*KEY, "budget")), {})
        of.setdefault(tuple(row.get(name) for name in TUNED), []).append(row)
    chosen = []
    for key, settings in scores.items():
        means = {
            values: sum(row["agreement"] for row in of) / len(of)
            for values, of in settings.items()
            if all(row["failure"] is None for row in of)
        }
        if means:
            top = max(means, key=means.__getitem__)
            chosen.append(
                dict(zip((*KEY, "budget"), key, strict=True))
                | dict(zip(TUNED, top, strict=True))
                | {
                    "agreement": means[top],
                    "worst_agreement": min(means.values()),
                    "settings": len(settings),
                    "runs": sum(map(len, settings.values())),
                }
            )
    return chosen
