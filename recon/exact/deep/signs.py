"""The signs of a layer's rows, read off every Jacobian seen.

J is a sum over the units that are on, each times its row: it lies in their span, and each unit has
a side of its plane on which it has no part.  A Jacobian outside of the span shows that a unit is
missing there.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from recon.exact.deep import halve, known, lift
from recon.exact.deep.known import Layer, Layers
from recon.exact.deep.rows import Rows
from recon.exact.deep.search import Ends, Search

SWAPS = 8  # rows left out in turn, where they depend on each other
TESTS = 5  # Jacobians that show the signs, at least
AT_ONCE = 64  # Jacobians held against a layer
FEW = 0.05  # of the Jacobians may lie outside of a layer's span for a unit that is missing


class Lack(NamedTuple):
    """The layer of this number lacks a unit that is off at the first of two points, and on at the
    other.
    """

    number: int
    ends: Ends


def signed(s: Search, rows: Rows) -> Layer | Lack | None:
    """The layer of these rows with signs, if every Jacobian seen bears it out.

    A row of a deeper unit can keep what it predicts by chance; it depends on the others, and the
    one to leave out is the one without which no unit has a part in J on both of its sides.
    """
    if not len(rows.bias):
        return None
    order = np.argsort(-rows.kept, kind="stable")
    rows, chosen, basis = rows.some(order), [], np.zeros((0, rows.weights.shape[1]))
    for i, row in enumerate(rows.layer().weights):
        rest = row - basis.T @ (basis @ row)
        if np.linalg.norm(rest) > 1e-6:
            chosen.append(i)
            basis = np.concatenate([basis, (rest / np.linalg.norm(rest))[None]])
    left_out = np.setdiff1d(np.arange(len(order)), chosen)
    layer = _oriented(s, rows.some(np.array(chosen)))
    for out, back in product(chosen[::-1][:SWAPS], left_out[:1]):
        if layer is not None:
            break
        layer = _oriented(s, rows.some(np.array([i for i in (*chosen, back) if i != out])))
    return layer


def _oriented(s: Search, rows: Rows) -> Layer | Lack | None:
    """Independent rows with signs: J has no part of those that are off, and nothing outside of
    their span; None where it has.  Where that is so at few points alone, a unit is missing there.
    """
    layer = rows.layer()
    x, gradient = s.log.points, s.log.reply.gradient
    above, below = np.zeros(len(layer.bias)), np.zeros(len(layer.bias))
    size, clean, foul = np.linalg.norm(x, axis=1), list[int](), list[int]()
    (near,) = np.nonzero((size < 100 * np.median(size)) & ~known.beside(s.layers, x))
    for start in range(0, len(near), AT_ONCE):
        i = near[start : start + AT_ONCE]
        z, jacobian = lift.slopes([*s.layers, layer], known.before(s.layers[:1], x[i])[0])
        inner = gradient[i] @ s.chart.place
        norms, whole = np.linalg.norm(jacobian, axis=2), np.linalg.norm(inner, axis=(1, 2))
        told = (norms.min(1) > 1e-9 * norms.max(1)) & (whole > 0)
        i, z, inner = i[told], z[told], inner[told] / whole[told, None, None]
        left, values, right = np.linalg.svd(
            jacobian[told] / norms[told][:, :, None], full_matrices=False
        )
        told = np.sum(values > 1e-9 * values[:, :1], 1) == len(layer.bias)
        i, z, inner, left, values, right = (a[told] for a in (i, z, inner, left, values, right))
        along = inner @ right.swapaxes(1, 2)
        good = np.linalg.norm(inner - along @ right, axis=(1, 2)) <= 1e-6
        clean, foul = clean + i[good].tolist(), foul + i[~good].tolist()
        if len(foul) > FEW * len(near):
            return None
        a = np.linalg.norm(along / values[:, None] @ left.swapaxes(1, 2), axis=1)[good]
        above = np.maximum(above, np.where(z[good] > 0, a, 0).max(0, initial=0.0))
        below = np.maximum(below, np.where(z[good] > 0, 0, a).max(0, initial=0.0))
    most, least = np.maximum(above, below), np.minimum(above, below)
    if len(clean) < TESTS or most.min() < 1e-7 or (least > 1e-5 * most).any():
        return None
    made = rows.layer(np.where(above > below, 1.0, -1.0))
    left_to_ask = [i for i in foul if (len(s.layers), x[i].tobytes()) not in s.tried]
    if not left_to_ask:
        return made if not foul else None
    share = np.full(len(x), np.nan)
    share[clean], share[left_to_ask] = 0.0, 1.0
    pair = halve.nearest(x, share)
    assert pair is not None
    low, at = pair
    s.tried.add((len(s.layers), x[at].tobytes()))
    return Lack(_lacking([*s.layers, made], s, x[at], gradient[at]), (x[low], x[at]))


def _lacking(layers: Layers, s: Search, x: np.ndarray, gradient: np.ndarray) -> int:
    """The number of the first layer whose rows that are on do not span the Jacobian at x."""
    inner = gradient @ s.chart.place
    for number, (z, slope) in enumerate(lift.tangents(layers, known.before(layers[:1], x)[0])):
        if number and not all(lift.spanned(slope[z > 0], row) for row in inner if row.any()):
            return number
    return len(layers) - 1
