"""The hyperparameters of every student, in one table; the paper gives none."""

from __future__ import annotations

from dataclasses import replace

from recon.distill import Hyper
from recon.experiments.subjects import KINDS

# (student, query kind) -> its settings, as `scripts/run.py sweep` chose them on validation images
# (results/sweep); budget and loss come from the experiment.  What is not here is untuned.
HYPER: dict[tuple[str, str], Hyper] = {
    ("linear", "gradient"): Hyper(1e-2, 0.1, steps=2_000, outputs="odds"),
    ("linear", "smoothgrad"): Hyper(1e-2, 0.1, steps=2_000, outputs="odds"),
    ("linear", "top"): Hyper(1e-2, 1.0, steps=2_000, outputs="odds"),
    ("linear", "membership"): Hyper(1e-2, steps=2_000, outputs="odds"),
    ("mlp", "gradient"): Hyper(1e-2, 1.0, steps=2_000, outputs="odds"),
    ("mlp", "smoothgrad"): Hyper(3e-3, 0.1, steps=2_000, outputs="odds"),
    ("mlp", "top"): Hyper(1e-3, 0.1, steps=2_000, outputs="odds"),
    ("mlp", "membership"): Hyper(3e-3, steps=2_000, outputs="odds"),
}


def hyper(student: str, kind: str) -> tuple[Hyper, bool]:
    """The settings for a student and a query kind, and whether they were tuned.

    A kind with a hyphen has those of what stands before it, where it has none of its own.
    """
    found = HYPER.get((student, kind)) or HYPER.get((student, kind.partition("-")[0]))
    untuned = Hyper(steps=4_000, unasked=64) if KINDS[kind].pool else Hyper()
    return replace(found or untuned, **KINDS[kind].fixed), found is not None
