"""Settings held against a bank and a student before anything is trained."""

from __future__ import annotations

import operator
from typing import Any

import jax
import numpy as np

from recon.distill.bank import Bank
from recon.distill.losses import LOSSES, OUTPUTS, Hyper, Student
from recon.distill.probe import Probe

ABOVE, LEAST = (operator.gt, "above"), (operator.ge, "at least")


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
    if hyper.loss not in LOSSES:
        raise ValueError(f"no loss {hyper.loss!r}; there are {', '.join(LOSSES)}")
    if hyper.outputs not in OUTPUTS:
        raise ValueError(f"no comparison {hyper.outputs!r}; there are {', '.join(OUTPUTS)}")
    _numbers(hyper, chunk, measure, many)
    for name, array in (("queries", bank.x), ("probabilities", bank.probabilities)):
        if np.ndim(array) != 2:
            raise ValueError(f"{name} have shape {np.shape(array)}, expected two axes")
    budgets = np.atleast_1d(hyper.budget)
    if budgets.min() < 1 or budgets.max() > len(bank):
        worst = budgets.max() if budgets.max() > len(bank) else budgets.min()
        raise ValueError(f"a budget of {worst} queries is not in 1 ... {len(bank)}, the pool")
    if hyper.unasked and (bank.unasked is None or student.warp is None):
        raise ValueError("unasked inputs need a bank that holds some and a student with a warp")
    if hyper.surrogate is not None and student.surrogate is None:
        raise ValueError("a surrogate's width needs a student that has one (Student.surrogate)")
    matching, axes = LOSSES[hyper.loss]
    if matching is not None and (bank.gradient is None or bank.gradient.ndim != axes):
        shape = None if bank.gradient is None else bank.gradient.shape
        want = "(N, K, d)" if axes == 3 else "(N, d)"
        raise ValueError(f"the loss {hyper.loss!r} needs gradients {want}, the bank has {shape}")
    _shapes(bank, student, probe)


def _numbers(hyper: Hyper, chunk: int, measure: int, many: bool) -> None:
    whole = (
        ("steps", hyper.steps, 1),
        ("batch", hyper.batch, 1),
        ("chunk", chunk, 1),
        ("points", hyper.points, 0),
        ("unasked", hyper.unasked, 0),
        ("measure", measure, 0),
    )
    for name, value, least in whole:
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not np.issubdtype(np.asarray(hyper.budget).dtype, np.integer):
        raise ValueError(f"a budget must be a whole number, got {hyper.budget!r}")
    numbers: list[tuple[str, Any, tuple[Any, str]]] = [
        ("learning_rate", hyper.learning_rate, ABOVE),
        ("weight", hyper.weight, LEAST),
        ("sigma", hyper.sigma, LEAST),
        ("weight_decay", hyper.weight_decay, LEAST),
    ]
    if hyper.surrogate is not None:
        numbers.append(("a surrogate's width", hyper.surrogate, ABOVE))
        numbers.append(("narrow", hyper.narrow, ABOVE))
    for name, given in [("budget", hyper.budget), *(number[:2] for number in numbers)]:
        if np.ndim(given) > many:
            runs = "one for each run" if many else "one number; many runs are for train_many"
            raise ValueError(f"{name} has shape {np.shape(given)}, expected {runs}")
    for name, given, (allowed, words) in numbers:
        if not isinstance(given, int | float) and np.asarray(given).dtype.kind not in "fiu":
            raise ValueError(f"{name} must be a number, got {given!r}")
        for value in np.ravel(given):
            if not (np.isfinite(value) and allowed(value, 0)):
                raise ValueError(f"{name} must be {words} 0 and finite, got {value:g}")


def _shapes(bank: Bank, student: Student, probe: Probe | None) -> None:
    rows, outputs = bank.probabilities.shape
    dim = bank.x.shape[1]
    shapes = [("queries", bank.x, (rows, dim)), ("labels", bank.label, (rows,))]
    if bank.gradient is not None:
        want = (rows, dim) if bank.gradient.ndim == 2 else (rows, outputs, dim)
        shapes.append(("gradients", bank.gradient, want))
    if bank.unasked is not None:
        shapes.append(("unasked inputs", bank.unasked, (max(1, len(bank.unasked)), dim)))
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
    logits = jax.eval_shape(student.apply, variables, x).shape
    if logits != (rows, outputs):
        raise ValueError(
            f"the student's logits have shape {logits}, the victim's replies {(rows, outputs)}"
        )
