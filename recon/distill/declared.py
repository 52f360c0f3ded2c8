"""Whether a service shows what it declares: a few queries, before many are bought.

Two steps between two inputs of the user's own, at two places, and the first query once more.  The
explanation must say how the outputs change in a step, have the form that is declared, and be the
same when asked again.  Students need no piecewise linear victim, so a change may be off by a
share, CLOSE.  Our own construction; `recon.probe` holds what it has in common with `exact`.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np

from recon import explanations, oracles, probe
from recon.oracles import Cost, Reply, View, ViewError

STEP = 2.0**-11  # of the distance of two inputs
PLACES = (0.25, 0.6)  # between the two
CLOSE = 0.1  # relative, of a change that is as said: of all but other explanations
NOISE = 1e-5  # relative, between two replies to one query
AGAIN = 3  # the row that asks the first query once more
QUERIES = 7
EXACT = 20  # steps of a path from which on sums are nearly what they are to be


def hold(oracle: Any, x: np.ndarray, chunk: int | None) -> Cost:
    """What it took to hold the oracle to its view, beside the inputs x [N, d]; nothing where it
    explains nothing.

    ViewError, a sentence, where replies contradict the view; a warning where they differ by chance.
    """
    view: View = oracle.view
    if not view.axes:
        return Cost()
    at = points(x)
    reply, cost = oracles.ask(oracle, at, chunk=chunk)
    at = at.astype(np.float64)
    gradient = np.asarray(reply.gradient, np.float64)
    value = np.asarray(reply.value, np.float64)
    noise = max(map(_apart, (gradient, value)))
    if noise > NOISE and not view.explanation.startswith("smooth"):
        warnings.warn(
            f"two replies to one query differ by {noise:.1g} of their size: noise, or a model with "
            "dropout left on; service.averaged(oracle, n) asks n times and averages",
            stacklevel=4,
        )
    sentence = _form(view, gradient)
    if not sentence and noise <= NOISE:
        kinds = [a.dtype for a in reply if a.dtype.kind == "f"]
        eps = max((float(jnp.finfo(kind).eps) for kind in kinds), default=0.0)
        steps = np.arange(len(at)) != AGAIN
        sentence = _contradiction(view, at[steps], Reply(value[steps], gradient[steps]), eps)
    if sentence:
        raise ViewError(
            f"{sentence} The view is {view}; a student can match what is shown where it is "
            f"declared, as one of {', '.join(explanations.SHOWN)}. (probe=False asks no questions.)"
        )
    return cost


def points(x: np.ndarray) -> np.ndarray:
    """Queries [7, d]: p, p + e, p + 2 e, p, q, q + e, q + 2 e, between the first two inputs that
    differ, or one and the origin.
    """
    apart = np.flatnonzero((x != x[:1]).any(axis=1))
    first, second = x[0], x[apart[0]] if len(apart) else np.zeros_like(x[0])
    if not (first != second).any():
        second = np.ones_like(first)
    p, q = ([share, share + STEP, share + 2 * STEP] for share in PLACES)
    shares = np.array([*p, p[0], *q])[:, None]
    return np.asarray(first[None] + shares * (second - first)[None], x.dtype)


def _apart(a: np.ndarray) -> float:
    """How far the two replies to the first query are apart, relative to the largest."""
    size = np.abs(a).max()
    return float(np.abs(a[AGAIN] - a[0]).max() / size) if size > 0 else 0.0


def _form(view: View, gradient: np.ndarray) -> str:
    """Explanations that are not in the form declared: to show them so once more changes them."""
    shown = explanations.SHOWN[view.shown].show
    if view.shown.startswith("channel"):
        low = view.shown == "channel_max" and (gradient < 0).any()
        return "Some explanations are below 0, which the largest sizes are not." if low else ""
    again = np.asarray(shown(jnp.asarray(gradient)), np.float64)
    if np.abs(again - gradient).max() <= 1e-5 * np.abs(gradient).max():
        return ""
    return f"The explanations are not in the form {view.shown}: to show them so changes them."


def _contradiction(view: View, x: np.ndarray, reply: Reply, eps: float) -> str:
    """What the explanations at the steps contradict of what the outputs do, if they can tell.

    x [6, d]; the explanations [6, K, d] or [6, d] in a form that leaves them what they are.
    """
    plain = explanations.SHOWN["plain"].match
    smooth = view.explanation.startswith("smooth")
    value, rows = reply.value, reply.gradient
    if smooth or explanations.SHOWN[view.shown].match is not plain or view.outputs == "label":
        return ""
    rows = rows if view.axes == 3 else rows[:, None]
    if view.outputs == "logits" and view.axes == 3 and (said := probe.odds(x, value, rows, eps)):
        return said
    if probe.decimals(value) is not None:  # of so few digits a small step shows nothing
        return ""
    value, hidden = _explained(view, value)
    if view.axes == 2:
        classes = value.argmax(1)
        steady = (classes.reshape(2, 3) == classes[::3, None]).all()
        if not steady or (hidden and value.shape[1] > 1):
            return ""
        value, hidden = np.take_along_axis(value, classes[:, None], 1), False
    if view.path is not None:
        if view.path.steps < EXACT:
            return ""
        return _incomplete(_centred(value, hidden), _centred(rows, hidden))
    if view.explanation == "input_x_gradient":
        rows = np.divide(rows, x[:, None], out=np.zeros_like(rows), where=x[:, None] != 0)
    eps = max(eps, float(np.finfo(np.float32).eps))
    value = _centred(value, hidden)
    change = _centred(rows, hidden)
    if probe.mismatch(x, value, change, eps, CLOSE) <= 1:
        return ""
    if view.explanation == "jacobian" and (said := probe.products(x, value, change, eps)):
        return said
    return probe.unlike(x, value, rows, eps, CLOSE)


def _explained(view: View, value: np.ndarray) -> tuple[np.ndarray, bool]:
    """The outputs [n, K] that are explained, and whether what all have in common is hidden."""
    alone, shows_odds = value.shape[1] == 1, view.outputs in ("probabilities", "log_probabilities")
    with np.errstate(all="ignore"):
        z = np.log(value) if view.outputs == "probabilities" else value
        if shows_odds and alone:
            z = z - np.log(-np.expm1(z))
    if view.of == "logits":
        return z, shows_odds
    return np.asarray(explanations.OUTPUTS[view.of](jnp.asarray(z)), np.float64), False


def _centred(a: np.ndarray, hidden: bool) -> np.ndarray:
    """Outputs [n, K] or explanations [n, K, d] less their mean over K, where that is hidden."""
    return a - a.mean(1, keepdims=True) if hidden and a.shape[1] > 1 else a


def _incomplete(value: np.ndarray, rows: np.ndarray) -> str:
    """Integrated gradients whose sums [n, K] do not change as the values [n, K] do."""
    seen, said = (a[3] - a[0] for a in (value, rows.sum(2)))
    if np.abs(seen - said).max() <= 2 * CLOSE * np.abs(seen).max() + 1e-6 * np.abs(value).max():
        return ""
    return (
        "The explanations do not sum to what the outputs change by, as integrated gradients do: "
        "they are of something else."
    )
