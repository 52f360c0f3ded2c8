"""The hyperparameters of every student, in one table; the paper gives none."""

from __future__ import annotations

from dataclasses import replace

from recon.distill import Hyper
from recon.experiments.subjects import KINDS

# Where the queries are from -> (student, query kind) -> its settings, as `scripts/run.py sweep` and
# `sweep_gaussian` chose them on validation images (results/sweep, results/sweep_gaussian); budget
# and loss come from the experiment.  What is not here is untuned.
HYPER: dict[str, dict[tuple[str, str], Hyper]] = {
    "pool": {
        ("linear", "gradient"): Hyper(3e-2, 0.1, steps=2_000, outputs="odds"),
        ("linear", "smoothgrad"): Hyper(3e-2, 0.1, steps=2_000, outputs="odds"),
        ("linear", "top"): Hyper(1e-2, 1.0, steps=2_000, outputs="odds"),
        ("linear", "membership"): Hyper(1e-2, steps=2_000, outputs="odds"),
        ("linear", "membership-entropy"): Hyper(1e-2, steps=2_000, outputs="entropy"),
        ("mlp", "gradient"): Hyper(1e-2, 0.1, steps=2_000, outputs="odds"),
        ("mlp", "smoothgrad"): Hyper(1e-2, 0.1, steps=2_000, outputs="odds"),
        ("mlp", "top"): Hyper(3e-3, 1.0, steps=2_000, outputs="odds"),
        ("mlp", "membership"): Hyper(3e-3, steps=2_000, outputs="odds"),
        ("mlp", "membership-entropy"): Hyper(3e-3, steps=2_000, outputs="entropy"),
        ("conv", "gradient"): Hyper(1e-2, 0.1, steps=2_000, outputs="odds"),
        ("conv", "smoothgrad"): Hyper(1e-2, 1.0, steps=2_000, outputs="odds"),
        ("conv", "top"): Hyper(1e-2, 1.0, steps=2_000, outputs="odds"),
        ("conv", "membership"): Hyper(1e-2, steps=2_000, outputs="odds"),
        ("conv", "membership-entropy"): Hyper(3e-3, steps=2_000, outputs="entropy"),
    },
    "gaussian": {
        ("linear", "gradient"): Hyper(1e-2, 0.01, steps=2_000, outputs="odds"),
        ("linear", "membership"): Hyper(1e-3, steps=2_000, outputs="odds"),
        ("mlp", "gradient"): Hyper(3e-3, 0.01, steps=2_000, outputs="odds"),
        ("mlp", "membership"): Hyper(3e-3, steps=2_000, outputs="odds"),
        ("conv", "gradient"): Hyper(3e-3, 0.01, steps=2_000, outputs="odds"),
        ("conv", "membership"): Hyper(3e-3, steps=2_000, outputs="entropy"),
    },
}


def hyper(student: str, kind: str, distribution: str = "pool") -> tuple[Hyper, bool]:
    """The settings for a student and a query kind, and whether they were tuned.

    A kind with a hyphen has those of what stands before it, where it has none of its own.
    """
    swept, plain = HYPER[distribution], kind.partition("-")[0]
    tuned = swept.get((student, kind)) or swept.get((student, plain))
    untuned = Hyper(steps=4_000, unasked=64) if KINDS[kind].pool else Hyper()
    return replace(tuned or untuned, **KINDS[kind].fixed), tuned is not None
