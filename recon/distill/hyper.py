"""The settings of a run, each declared once: what checks, saved runs, tables and sweeps go by.

A new setting is a line of `Hyper` and the place where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import numpy as np

from recon.distill.losses import LOSSES, OUTPUTS
from recon.explanations import SIGMA


def _meta(doc: str, least: Any = None, **more: Any) -> dict[str, Any]:
    """The metadata of a field.

    traced: may be an array under vmap, where other fields define a compile; least: the lowest
    value, itself left out where `above`; whole: a whole number; optional: None is a value;
    needs: a field that must be neither None nor 0 for this one to matter; choices: the names
    there are; doc: a line.
    """
    rest = {"traced": False, "above": False, "whole": False, "optional": False}
    return rest | {"needs": None, "choices": None, "doc": doc, "least": least} | more


_TRACED: dict[str, Any] = {"traced": True}
_ABOVE: dict[str, Any] = {"traced": True, "above": True}
_RATE = _meta("the optimizer's, at the start of a cosine decay to zero", 0, **_ABOVE)
_WEIGHT = _meta("lambda, of l_M in l_J = l_G + lambda l_M", 0, **_TRACED)
_BUDGET = _meta(
    "leading rows of the bank in use; None: all", 1, whole=True, optional=True, **_TRACED
)
_SIGMA = _meta("noise of the student's own SmoothGrad", 0, needs="points", **_TRACED)
_DECAY = _meta("decoupled, a share of the weights a unit of the learning rate", 0, **_TRACED)
_TEMPERATURE = _meta(
    "of the masks' surrogate derivative at the first step; None: autodiff, which sees no masks",
    0,
    optional=True,
    **_ABOVE,
)
_COOLING = _meta("last temperature as a share of the first", 0, needs="temperature", **_ABOVE)
_STEPS = _meta("T, the steps of the optimizer", 1, whole=True)
_BATCH = _meta("rows a step, or the whole budget where that is less", 1, whole=True)
_LOSS = _meta("what l_G compares", choices=tuple(LOSSES))
_OUTPUTS = _meta("how l_M compares the values", choices=tuple(OUTPUTS))
_POINTS = _meta("of each of two means of its own SmoothGrad; 0: its plain gradient", 0, whole=True)
_OPTIMIZER = _meta("what makes a step of a slope", choices=("adam", "muon"))
_UNLABELLED = _meta("inputs a step that were not asked about; 0: none", 0, whole=True)


@dataclass(frozen=True)
class Hyper:
    """The settings of a run; what each is stands in the metadata of its field.

    Traced fields may be arrays under vmap; the others define a compile.  The defaults are our own
    choices; the paper gives none.
    """

    learning_rate: Any = field(default=2e-3, metadata=_RATE)
    weight: Any = field(default=0.1, metadata=_WEIGHT)
    budget: Any = field(default=None, metadata=_BUDGET)
    sigma: Any = field(default=SIGMA, metadata=_SIGMA)
    weight_decay: Any = field(default=0.0, metadata=_DECAY)
    temperature: Any = field(default=None, metadata=_TEMPERATURE)
    cooling: Any = field(default=0.2, metadata=_COOLING)
    steps: int = field(default=3000, metadata=_STEPS)
    batch: int = field(default=64, metadata=_BATCH)
    loss: str = field(default="projection", metadata=_LOSS)
    outputs: str = field(default="entropy", metadata=_OUTPUTS)
    points: int = field(default=0, metadata=_POINTS)
    unlabelled: int = field(default=0, metadata=_UNLABELLED)
    optimizer: str = field(default="adam", metadata=_OPTIMIZER)


jax.tree_util.register_dataclass(
    Hyper,
    data_fields=[f.name for f in fields(Hyper) if f.metadata["traced"]],
    meta_fields=[f.name for f in fields(Hyper) if not f.metadata["traced"]],
)
_FIELDS = {f.name: f for f in fields(Hyper)}


def describe(name: str) -> str:
    """What a setting must be, as the end of a sentence: "a whole number of at least 1"."""
    meta = _FIELDS[name].metadata
    if meta["choices"] is not None:
        return f"one of {', '.join(meta['choices'])}"
    number = "a whole number" if meta["whole"] else "a finite number"
    bound = f"above {meta['least']}" if meta["above"] else f"of at least {meta['least']}"
    return f"{number} {bound}{' or None' if meta['optional'] else ''}"


def refusal(name: str, given: Any) -> str:
    """Why a setting cannot have this value, or these (an array), in a sentence; empty if it can."""
    meta = _FIELDS[name].metadata
    if given is None and meta["optional"]:
        return ""
    if meta["choices"] is not None:
        fits = isinstance(given, str) and given in meta["choices"]
        return "" if fits else f"{name} must be {describe(name)}, got {given!r}"
    words = f"{name} must be {describe(name)}, got"
    kinds = "iu" if meta["whole"] else "fiu"
    static = not meta["traced"] and not isinstance(given, int | np.integer)
    if static or np.asarray(given).dtype.kind not in kinds:
        return f"{words} {given!r}"
    for value in np.ravel(given):
        above = value > meta["least"] if meta["above"] else value >= meta["least"]
        if not (np.isfinite(value) and above):
            return f"{words} {value:g}"
    return ""


def settled(hyper: Hyper, rows: int) -> Hyper:
    """The settings with the budget as a number: all rows of the bank where none was given."""
    return hyper if hyper.budget is not None else replace(hyper, budget=rows)
