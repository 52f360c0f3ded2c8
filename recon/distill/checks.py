"""Settings held against a bank and a student before anything is trained."""

from __future__ import annotations

import numpy as np

from recon.distill.bank import Bank
from recon.distill.losses import LOSSES, OUTPUTS, Hyper, Student


def check(hyper: Hyper, bank: Bank, student: Student, chunk: int) -> None:
    """ValueError, in one sentence, for settings that the bank cannot serve."""
    if hyper.loss not in LOSSES:
        raise ValueError(f"no loss {hyper.loss!r}; there are {', '.join(LOSSES)}")
    if hyper.outputs not in OUTPUTS:
        raise ValueError(f"no comparison {hyper.outputs!r}; there are {', '.join(OUTPUTS)}")
    for name, value in (("steps", hyper.steps), ("batch", hyper.batch), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    budgets = np.atleast_1d(hyper.budget)
    if budgets.min() < 1 or budgets.max() > len(bank):
        worst = budgets.max() if budgets.max() > len(bank) else budgets.min()
        raise ValueError(f"a budget of {worst} queries is not in 1 ... {len(bank)}, the pool")
    if hyper.unasked and (bank.unasked is None or student.warp is None):
        raise ValueError("unasked inputs need a bank that holds some and a student with a warp")
    if hyper.surrogate is not None and student.surrogate is None:
        raise ValueError("a surrogate's width needs a student that has one (Student.surrogate)")
    if hyper.surrogate is not None and not np.min(hyper.surrogate) > 0:
        raise ValueError(f"a surrogate's width must be above 0, got {np.min(hyper.surrogate):g}")
    if hyper.surrogate is not None and not np.min(hyper.narrow) > 0:
        raise ValueError(f"narrow must be above 0, got {np.min(hyper.narrow):g}")
    if not np.min(hyper.weight_decay) >= 0:
        raise ValueError(f"weight_decay must be 0 or more, got {np.min(hyper.weight_decay):g}")
    matching, axes = LOSSES[hyper.loss]
    if matching is not None and (bank.gradient is None or bank.gradient.ndim != axes):
        shape = None if bank.gradient is None else bank.gradient.shape
        want = "(N, K, d)" if axes == 3 else "(N, d)"
        raise ValueError(f"the loss {hyper.loss!r} needs gradients {want}, the bank has {shape}")
