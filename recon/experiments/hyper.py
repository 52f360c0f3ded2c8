"""The hyperparameters of every student, in one table; the paper gives none."""

from __future__ import annotations

import re
from dataclasses import replace

from recon.distill import Hyper
from recon.experiments.subjects import KINDS

# Where the queries are from -> (student, query kind) -> its settings: the best of the committed
# rows of SWEEPS, chosen on validation images; budget and loss come from the experiment.  What is
# not here is untuned.
SWEEPS = {
    "pool": ("sweep", "sweep_masks"),
    "gaussian": ("sweep_gaussian", "sweep_masks_gaussian", "sweep_decay_gaussian"),
}
POOL = {"steps": 4_000, "unasked": 64}  # of "+pool" kinds: first choices, not swept
HYPER: dict[str, dict[tuple[str, str], Hyper]] = {
    "pool": {
        ("linear", "gradient"): Hyper(3e-2, 0.1, steps=2_000, outputs="odds"),
        ("linear", "top"): Hyper(1e-2, 1.0, steps=2_000, outputs="odds"),
        ("linear", "membership"): Hyper(1e-2, steps=2_000, outputs="odds"),
        ("linear", "membership-entropy"): Hyper(1e-2, steps=2_000, outputs="entropy"),
        ("mlp", "gradient"): Hyper(
            3e-3, 0.1, weight_decay=0.3, surrogate=0.5, steps=3_000, outputs="odds"
        ),
        ("mlp", "top"): Hyper(3e-3, 1.0, steps=2_000, outputs="odds"),
        ("mlp", "membership"): Hyper(3e-3, steps=2_000, outputs="odds"),
        ("mlp", "membership-entropy"): Hyper(3e-3, steps=2_000, outputs="entropy"),
        ("conv", "gradient"): Hyper(
            1e-2, 0.1, weight_decay=1.0, surrogate=0.5, steps=3_000, outputs="odds"
        ),
        ("conv", "top"): Hyper(1e-2, 1.0, steps=2_000, outputs="odds"),
        ("conv", "membership"): Hyper(3e-3, weight_decay=0.3, steps=3_000, outputs="odds"),
        ("conv", "membership-entropy"): Hyper(3e-3, steps=2_000, outputs="entropy"),
    },
    "gaussian": {
        ("linear", "gradient"): Hyper(1e-2, 0.01, steps=2_000, outputs="odds"),
        ("linear", "membership"): Hyper(1e-3, steps=2_000, outputs="odds"),
        ("mlp", "gradient"): Hyper(3e-3, 0.01, weight_decay=0.3, steps=3_000, outputs="odds"),
        ("mlp", "membership"): Hyper(1e-2, weight_decay=1.0, steps=3_000, outputs="odds"),
        ("conv", "gradient"): Hyper(
            1e-2, 0.1, weight_decay=1.0, surrogate=0.5, steps=3_000, outputs="odds"
        ),
        ("conv", "membership"): Hyper(3e-3, steps=2_000, outputs="entropy"),
    },
}


def hyper(student: str, kind: str, distribution: str = "pool") -> tuple[Hyper, bool]:
    """The settings for a student and a query kind, and whether they were tuned.

    A kind with a hyphen or a plus has those of what stands before it, where it has none of its
    own.  SmoothGrad is matched with the settings of plain gradients, so that the two differ in
    what the victim replies alone.
    """
    swept, plain = HYPER[distribution], re.split("[-+]", kind)[0]
    plain = "gradient" if plain == "smoothgrad" else plain
    tuned = swept.get((student, kind)) or swept.get((student, plain))
    fixed = {**KINDS[kind].fixed, **(POOL if KINDS[kind].pool else {})}
    return replace(tuned or Hyper(), **fixed), tuned is not None and not KINDS[kind].pool
