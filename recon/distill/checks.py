"""Settings held against a bank and a student before anything is trained."""

from __future__ import annotations

from dataclasses import fields

import jax
import numpy as np

from recon.distill.bank import Bank
from recon.distill.hyper import Hyper, refusal
from recon.distill.losses import LOSSES
from recon.distill.probe import Probe
from recon.distill.students import Student


def check(
    hyper: Hyper,
    bank: Bank,
    student: Student,
    probe: Probe | None,
    chunk: int,
    measure: int,
    many: bool,
) -> None:
    """ValueError, in one sentence, for settings that the bank or the student cannot serve."""
    _settings(hyper, many)
    for name, value, least in (("chunk", chunk, 1), ("measure", measure, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    for name, array in (("queries", bank.x), ("probabilities", bank.probabilities)):
        if np.ndim(array) != 2:
            raise ValueError(f"{name} have shape {np.shape(array)}, expected two axes")
    if np.max(hyper.budget) > len(bank):
        most = np.max(hyper.budget)
        raise ValueError(f"a budget of {most} queries is more than the {len(bank)} of the bank")
    if hyper.unlabelled and (bank.unlabelled is None or student.warp is None):
        raise ValueError("unlabelled inputs need a bank that holds some and a student with a warp")
    if hyper.temperature is not None and student.surrogate is None:
        raise ValueError("a temperature needs a student with masks that have one (its `surrogate`)")
    matching, axes = LOSSES[hyper.loss]
    if matching is not None and (bank.gradient is None or bank.gradient.ndim != axes):
        shape = None if bank.gradient is None else bank.gradient.shape
        want = "(N, K, d)" if axes == 3 else "(N, d)"
        raise ValueError(f"the loss {hyper.loss!r} needs gradients {want}, the bank has {shape}")
    _shapes(bank, student, probe, hyper.temperature is not None)


def _settings(hyper: Hyper, many: bool) -> None:
    for f in fields(hyper):
        given, each = getattr(hyper, f.name), many and f.metadata["traced"]
        if np.ndim(given) > each:
            runs = "one for each run" if each else "one value; many runs are for train_many"
            raise ValueError(f"{f.name} has shape {np.shape(given)}, expected {runs}")
        if sentence := refusal(f.name, given):
            raise ValueError(sentence)


def _shapes(bank: Bank, student: Student, probe: Probe | None, masked: bool) -> None:
    rows, outputs = bank.probabilities.shape
    dim = bank.x.shape[1]
    shapes = [("queries", bank.x, (rows, dim)), ("labels", bank.label, (rows,))]
    if bank.gradient is not None:
        want = (rows, dim) if bank.gradient.ndim == 2 else (rows, outputs, dim)
        shapes.append(("gradients", bank.gradient, want))
    if bank.unlabelled is not None:
        shapes.append(("unlabelled inputs", bank.unlabelled, (max(1, len(bank.unlabelled)), dim)))
    if probe is not None:
        points = max(1, len(probe.x))
        shapes += [("probe inputs", probe.x, (points, dim)), ("probe labels", probe.y, (points,))]
        shapes.append(("probe classes", probe.victim, (points,)))
    for name, given, want in shapes:
        if np.shape(given) != want:
            raise ValueError(f"{name} have shape {np.shape(given)}, expected {want}")
    label = np.asarray(bank.label)
    if label.min() < 0 or label.max() >= outputs:
        raise ValueError(f"labels are not all in 0 ... {outputs - 1}")
    variables = jax.eval_shape(student.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct(bank.x.shape, bank.x.dtype)
    if masked and student.surrogate is not None:
        try:
            jax.eval_shape(student.surrogate, variables, x, jax.ShapeDtypeStruct((), x.dtype))
        except TypeError as error:
            raise ValueError(
                f"the student's surrogate takes no (variables, x, temperature): {error}"
            ) from error
    logits = jax.eval_shape(student.apply, variables, x).shape
    if logits != (rows, outputs):
        raise ValueError(
            f"the student's logits have shape {logits}, the victim's replies {(rows, outputs)}"
        )
