"""The hyperparameters of every student, in one table; the paper gives none."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from recon.distill import Hyper
from recon.experiments.subjects import KINDS

SWEEPS = {
    "pool": ("sweep", "sweep_masks", "sweep_long", "sweep_wide"),
    "gaussian": (
        *("sweep_gaussian", "sweep_masks_gaussian", "sweep_decay_gaussian"),
        *("sweep_long_gaussian", "sweep_wide_gaussian"),
    ),
}
FIELDS = (
    *("learning_rate", "weight", "weight_decay", "surrogate", "narrow", "steps", "batch"),
    "outputs",
)
# Where the queries are from, student, kind of query, budget, and FIELDS: the best of the committed
# rows of SWEEPS at that budget, chosen on validation images.  Larger budgets have the settings of
# the largest here; what is not here is untuned.
TABLE: tuple[tuple[Any, ...], ...] = (
    ("pool", "linear", "gradient", 1, 0.03, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "linear", "gradient", 10, 0.01, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "linear", "gradient", 100, 0.03, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "linear", "top", 1, 0.003, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "linear", "top", 10, 0.01, 1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "linear", "top", 100, 0.03, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "linear", "membership", 1, 0.003, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "linear", "membership", 10, 0.03, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "linear", "membership", 100, 0.01, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "linear", "membership-entropy", 1, 0.003, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "linear", "membership-entropy", 10, 0.01, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "linear", "membership-entropy", 100, 0.03, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "mlp", "gradient", 1, 0.003, 0.1, 0.3, 0.5, 0.2, 3000, 64, "odds"),
    ("pool", "mlp", "gradient", 10, 0.02, 0.1, 0.3, 4.0, 0.02, 12000, 16, "odds"),
    ("pool", "mlp", "gradient", 100, 0.003, 0.1, 0.3, 0.5, 0.1, 12000, 16, "odds"),
    ("pool", "mlp", "top", 1, 0.03, 1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "mlp", "top", 10, 0.01, 1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "mlp", "top", 100, 0.003, 1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "mlp", "membership", 1, 0.003, 0.1, 0.3, None, 0.2, 3000, 64, "odds"),
    ("pool", "mlp", "membership", 10, 0.003, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "mlp", "membership", 100, 0.01, 0.1, 0.3, None, 0.2, 3000, 64, "odds"),
    ("pool", "mlp", "membership-entropy", 1, 0.003, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "mlp", "membership-entropy", 10, 0.003, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "mlp", "membership-entropy", 100, 0.01, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "conv", "gradient", 10, 0.01, 0.1, 1.0, 0.5, 0.1, 12000, 16, "odds"),
    ("pool", "conv", "gradient", 100, 0.01, 0.1, 0.3, 0.5, 0.1, 12000, 16, "odds"),
    ("pool", "conv", "top", 10, 0.03, 1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "conv", "top", 100, 0.01, 1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("pool", "conv", "membership", 10, 0.003, 0.1, 0.3, None, 0.2, 3000, 64, "odds"),
    ("pool", "conv", "membership", 100, 0.01, 0.1, 0.3, None, 0.2, 3000, 64, "odds"),
    ("pool", "conv", "membership-entropy", 10, 0.003, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("pool", "conv", "membership-entropy", 100, 0.01, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("gaussian", "linear", "gradient", 1, 0.01, 0.01, 0.0, None, 0.2, 2000, 64, "odds"),
    ("gaussian", "linear", "gradient", 10, 0.01, 0.01, 0.0, None, 0.2, 2000, 64, "odds"),
    ("gaussian", "linear", "gradient", 100, 0.01, 0.01, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("gaussian", "linear", "membership", 1, 0.001, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("gaussian", "linear", "membership", 10, 0.01, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
    ("gaussian", "linear", "membership", 100, 0.001, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("gaussian", "mlp", "gradient", 1, 0.01, 0.1, 0.3, 0.5, 0.2, 3000, 64, "odds"),
    ("gaussian", "mlp", "gradient", 10, 0.003, 0.01, 0.3, None, 0.2, 3000, 64, "odds"),
    ("gaussian", "mlp", "gradient", 100, 0.01, 0.1, 0.3, 0.5, 0.2, 3000, 64, "odds"),
    ("gaussian", "mlp", "membership", 1, 0.003, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("gaussian", "mlp", "membership", 10, 0.003, 0.1, 0.3, None, 0.2, 3000, 64, "odds"),
    ("gaussian", "mlp", "membership", 100, 0.01, 0.1, 1.0, None, 0.2, 3000, 64, "odds"),
    ("gaussian", "conv", "gradient", 10, 0.01, 0.1, 1.0, 0.5, 0.1, 12000, 16, "odds"),
    ("gaussian", "conv", "gradient", 100, 0.01, 0.1, 0.3, 0.5, 0.2, 3000, 64, "odds"),
    ("gaussian", "conv", "membership", 10, 0.001, 0.1, 0.0, None, 0.2, 2000, 64, "odds"),
    ("gaussian", "conv", "membership", 100, 0.01, 0.1, 0.0, None, 0.2, 2000, 64, "entropy"),
)
HYPER: dict[tuple[str, str, str], dict[int, Hyper]] = {}
for _of, _budget, _values in ((row[:3], row[3], row[4:]) for row in TABLE):
    _setting = Hyper(budget=_budget, **dict(zip(FIELDS, _values, strict=True)))
    HYPER.setdefault(_of, {})[_budget] = _setting
UNASKED, FEWEST = 64, 4_000  # inputs and least steps of "+pool" kinds: first choices, not swept


def hyper(
    student: str, kind: str, budget: int = 10, distribution: str = "pool"
) -> tuple[Hyper, bool]:
    """The settings for a student, a query kind and a budget, and whether they were tuned.

    They are those of the largest tuned budget that is not above this one, or of the smallest.  A
    kind with a hyphen or a plus has those of what stands before it, where it has none of its
    own.  SmoothGrad is matched with the settings of plain gradients, so that the two differ in
    what the victim replies alone.
    """
    plain = re.split("[-+]", kind)[0]
    plain = "gradient" if plain == "smoothgrad" else plain
    tuned = HYPER.get((distribution, student, kind)) or HYPER.get((distribution, student, plain))
    found = Hyper()
    if tuned is not None:
        found = tuned[max((b for b in tuned if b <= budget), default=min(tuned))]
    found = replace(found, budget=budget, **KINDS[kind].fixed)
    if not KINDS[kind].pool:
        return found, tuned is not None
    return replace(found, unasked=UNASKED, steps=max(found.steps, FEWEST)), False
