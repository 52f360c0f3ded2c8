"""Reconstruction by gradient matching (sections 4 and 5): a student trained on a victim's replies.

    bank       queries bought once, and what the victim replied
    declared   whether a service shows what it says, before many are bought
    students   a model as the functions that training needs
    hyper      every setting, declared once
    losses     the forms of l_G and l_M
    objective  their sum l_J
    unlabelled inputs that were not asked about (ours, not the paper's)
    steps      one step, and the state between two
    training   a run, many runs; the switch between backends
    devices    runs over many devices, of one process or several
    checks     settings that a bank or a student cannot serve
    probe      accuracy and agreement with the victim
    ensemble   several students that answer as one (ours, not the paper's)
    checkpoint a run on disk between chunks of steps

    bank = distill.buy(victim, x)
    run = distill.train(key, distill.Hyper(), bank, distill.student("conv", shape, 10), probe)

The optimizer and every number in `Hyper` are our own choices; the paper gives none.
"""

from recon.distill import devices
from recon.distill.bank import Bank, buy
from recon.distill.checkpoint import CheckpointError
from recon.distill.hyper import Hyper
from recon.distill.losses import LOSSES, OUTPUTS
from recon.distill.probe import Probe, evaluate
from recon.distill.steps import start, step
from recon.distill.students import Student, knowing, student, warp
from recon.distill.training import Run, advance, train, train_many

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
    "devices",
    "evaluate",
    "knowing",
    "start",
    "step",
    "student",
    "train",
    "train_many",
    "warp",
]
