"""Reconstruction by gradient matching (sections 4 and 5): a student trained on a victim's replies.

    bank       queries bought once, and what the victim replied
    losses     l_G, l_M and their sum l_J
    consistency inputs that were not asked about (ours, not the paper's)
    training   one step, a run, many runs; the switch between backends
    checks     settings that a bank or a student cannot serve
    probe      accuracy and agreement with the victim
    ensemble   several students that answer as one (ours, not the paper's)
    checkpoint a run on disk between chunks of steps

    bank = distill.buy(victim, x)
    run = distill.train(key, distill.Hyper(), bank, distill.Student(init, apply), probe)

The optimizer and every number in `Hyper` are our own choices; the paper gives none.
"""

from recon.distill.bank import Bank, buy
from recon.distill.checkpoint import CheckpointError
from recon.distill.consistency import warp
from recon.distill.losses import LOSSES, OUTPUTS, Hyper, Student
from recon.distill.probe import Probe, evaluate
from recon.distill.training import Run, advance, start, step, train, train_many

__all__ = [
    "LOSSES",
    "OUTPUTS",
    "Bank",
    "CheckpointError",
    "Hyper",
    "Probe",
    "Run",
    "Student",
    "advance",
    "buy",
    "evaluate",
    "start",
    "step",
    "train",
    "train_many",
    "warp",
]
