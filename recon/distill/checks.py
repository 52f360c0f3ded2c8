"""Settings held against a bank and a student before anything is trained."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import jax
import numpy as np

from recon.distill.bank import Bank
from recon.distill.hyper import Hyper, refusal
from recon.distill.losses import LOSSES, OUTPUTS
from recon.distill.probe import Probe
from recon.distill.students import Student
from recon.explanations import numbers
from recon.replies import View, check_values

SURE = 100  # numbers none of which is below 0 by chance


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
    form, compared = "classes" if bank.values is None else "regression", OUTPUTS[hyper.outputs][1]
    if form != compared:
        fit = " or ".join(name for name, row in OUTPUTS.items() if row[1] == form)
        raise ValueError(f"outputs {hyper.outputs!r} are for {compared}; this bank needs {fit}")
    for name, array in (("queries", bank.x), ("the victim's outputs", bank.outputs)):
        if np.ndim(array) != 2:
            raise ValueError(f"{name} have shape {np.shape(array)}, expected two axes")
    if np.max(hyper.budget) > len(bank):
        most = np.max(hyper.budget)
        raise ValueError(f"a budget of {most} queries is more than the {len(bank)} of the bank")
    if hyper.unlabelled and (bank.unlabelled is None or student.warp is None):
        raise ValueError("unlabelled inputs need a bank that holds some and a student with a warp")
    if hyper.unlabelled and (form == "regression" or bank.outputs.shape[1] == 1):
        raise ValueError("unlabelled inputs need a victim of two classes or more, one logit each")
    if hyper.temperature is not None and student.surrogate is None:
        raise ValueError("a temperature needs a student with masks that have one (its `surrogate`)")
    matching, axes, whole = LOSSES[hyper.loss]
    if matching is not None and (bank.gradient is None or bank.gradient.ndim not in axes):
        shape = None if bank.gradient is None else bank.gradient.shape
        want = " or ".join("(N, K, d)" if a == 3 else "(N, d)" for a in axes)
        raise ValueError(f"the loss {hyper.loss!r} needs gradients {want}, the bank has {shape}")
    if whole and bank.view is None:
        raise ValueError(
            f"the loss {hyper.loss!r} needs a bank that says what is shown, Bank(..., view=View())"
        )
    if whole and hyper.points:
        raise ValueError(f"points are for losses that compare gradients, not for {hyper.loss!r}")
    if (
        matching is not None
        and bank.gradient.ndim == 2
        and form == "regression"
        and bank.outputs.shape[1] > 1
    ):
        raise ValueError(f"the loss {hyper.loss!r} needs classes, or a regression of one value")
    plain = matching is not None and not whole
    _shapes(bank, student, probe, hyper.temperature is not None, plain)
    _replies(bank, int(np.max(hyper.budget)), plain)


def _settings(hyper: Hyper, many: bool) -> None:
    for f in fields(hyper):
        given, each = getattr(hyper, f.name), many and f.metadata["traced"]
        if np.ndim(given) > each:
            runs = "one for each run" if each else "one value; many runs are for train_many"
            raise ValueError(f"{f.name} has shape {np.shape(given)}, expected {runs}")
        if sentence := refusal(f.name, given):
            raise ValueError(sentence)


def _replies(bank: Bank, budget: int, matching: bool) -> None:
    """What replies give away about themselves; that they are finite is seen by the run."""
    if bank.values is None:
        given = np.asarray(bank.probabilities)[:budget]
        given = given[np.isfinite(given).all(axis=1)]
        check_values(given, View("probabilities"))
    if matching and bank.view is not None and not bank.view.gradient:
        warnings.warn(
            f"the service's view is {bank.view}, which no student's gradients can match; its own "
            "explanations do with Hyper(loss='shown')",
            stacklevel=5,
        )
    elif matching:
        gradient = np.asarray(bank.gradient)[:budget]
        if gradient.size >= SURE and gradient.min() >= 0 and gradient.max() > 0:
            warnings.warn(
                f"none of {gradient.size} numbers of the gradients is below 0: absolute values, "
                "which View(shown='absolute') declares, or a victim that rises with every input",
                stacklevel=5,
            )


def _shapes(bank: Bank, student: Student, probe: Probe | None, masked: bool, plain: bool) -> None:
    rows, outputs = bank.outputs.shape
    dim = bank.x.shape[1]
    shapes: list[tuple[str, Any, tuple[int, ...]]] = [("queries", bank.x, (rows, dim))]
    if bank.values is None:
        shapes.append(("labels", bank.label, (rows,)))
    each: tuple[int, ...]
    if bank.gradient is not None:
        last = dim if plain or bank.view is None else numbers(bank.view.shown, dim)
        each = (last,) if bank.gradient.ndim == 2 else (outputs, last)
        shapes.append(("gradients", bank.gradient, (rows, *each)))
    if bank.unlabelled is not None:
        shapes.append(("unlabelled inputs", bank.unlabelled, (max(1, len(bank.unlabelled)), dim)))
    if probe is not None:
        points = max(1, len(probe.x))
        shapes.append(("probe inputs", probe.x, (points, dim)))
        for name, truth in (("probe labels", probe.y), ("probe classes", probe.victim)):
            real = np.issubdtype(np.asarray(truth).dtype, np.floating)
            if real != (bank.values is not None):
                kind = "whole numbers" if bank.values is None else "floats, a regression's values"
                raise ValueError(f"{name} are {np.asarray(truth).dtype}, expected {kind}")
            each = (outputs,) if real and (np.ndim(truth) == 2 or outputs > 1) else ()
            shapes.append((name, truth, (points, *each)))
    for name, given, want in shapes:
        if np.shape(given) != want:
            raise ValueError(f"{name} have shape {np.shape(given)}, expected {want}")
    classes = max(2, outputs)
    if bank.values is None and not np.isin(bank.label, np.arange(classes)).all():
        raise ValueError(f"labels are not all in 0 ... {classes - 1}")
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
            f"the student's outputs have shape {logits}, the victim's {(rows, outputs)}"
        )
