"""The hyperparameters of every student, in one table; the paper gives none."""

from __future__ import annotations

from recon.distill import Hyper

# (student, query kind) -> its settings, as `scripts/run.py sweep` chose them on validation images
# (results/sweep); budget and loss come from the experiment.  What is not here is untuned.
HYPER: dict[tuple[str, str], Hyper] = {}


def hyper(student: str, kind: str) -> tuple[Hyper, bool]:
    """The settings for a student and a query kind, and whether they were tuned."""
    found = HYPER.get((student, kind))
    return (Hyper(), False) if found is None else (found, True)
