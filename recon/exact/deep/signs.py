"""The signs of a layer's rows, read off every Jacobian seen.

J is a sum over the units that are on, each times its row: it lies in their span, and each unit has
a side of its plane on which it has no part.  A Jacobian outside of the span shows that a unit is
missing there; so do parts of units that are off, at few points.
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
SPAN = 1e-6  # of a Jacobian: what may lie outside of the span of rows that are on
OFF = 1e-5  # of a unit's part where it is on: what it may have where it is off
AT_ONCE = 64  # Jacobians held against a layer
PART = 1e-7  # of a Jacobian: what a unit has of one where it counts as on
IDLE = 2  # units without a part in any
FEW = 0.05, 0.25  # of the Jacobians, of one output and of more, may lie outside of a layer's span
# for a unit that is missing


class Lack(NamedTuple):
    """The layer of this number lacks a unit that is off at the first of two points, and on at the
    other; share: of points [n, d] and Jacobians there, above nought where it is on, nan where that
    is not told.
    """

    number: int
    ends: Ends
    share: halve.Share


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

    Where hardly more inputs are on than there are rows, their span holds what a missing unit adds,
    and it shows as parts of units that are off.
    """
    x, gradient = s.log.points, s.log.reply.gradient
    size = np.linalg.norm(x, axis=1)
    (near,) = np.nonzero((size < 100 * np.median(size)) & ~known.beside(s.layers, x))
    seen, few = list[_Parts](), FEW[s.log.outputs > 1] * len(near)
    for i in _batches(near):
        seen.append(_parts(s, rows.layer(), x[i], gradient[i]))
        if sum((part.outside > SPAN).sum() for part in seen) > few:
            return None
    z, outside, part = (np.concatenate(some) for some in zip(*seen, strict=True))
    good = outside <= SPAN
    most = np.where(good[:, None], part, 0).max(0, initial=0.0)
    (idle,) = np.nonzero(most < PART)
    if good.sum() < TESTS or len(idle) > IDLE:
        return None
    most[idle] = np.inf
    has = (part > OFF * most) & good[:, None]
    sides = [(has & side).sum(0) / np.maximum(side.sum(0), 1) for side in (z > 0, z <= 0)]
    sign = _told(s, rows, np.where(sides[0] > sides[1], 1.0, -1.0), idle, near)
    if sign is None:
        return None
    made = rows.layer(sign)

    def share(x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        z, outside, part = _parts(s, made, x, gradient)
        wrong = ((z <= 0) & (part > OFF * most)).any(1) | (outside > SPAN)
        return np.where(np.isnan(outside), np.nan, wrong)

    shares = np.concatenate([share(x[i], gradient[i]) for i in _batches(near)])
    clean, foul = near[shares == 0], near[shares > 0]
    if len(foul) > few or len(clean) < TESTS:
        return None
    left_to_ask = [i for i in foul if (len(s.layers), x[i].tobytes()) not in s.tried]
    if not left_to_ask:
        return made if not len(foul) else None
    shares = np.full(len(x), np.nan)
    shares[clean], shares[left_to_ask] = 0.0, 1.0
    pair = halve.nearest(x, shares)
    assert pair is not None
    low, at = pair
    s.tried.add((len(s.layers), x[at].tobytes()))
    return Lack(_lacking([*s.layers, made], s, x[at], gradient[at]), (x[low], x[at]), share)


def _told(
    s: Search, rows: Rows, sign: np.ndarray, idle: np.ndarray, near: np.ndarray
) -> np.ndarray | None:
    """The signs [m] with those of the rows `idle`, of which one is on where J is not in the span of
    the other rows that are on; None where no point tells one, or two contradict.
    """
    if not len(idle):
        return sign
    x, gradient, sign = s.log.points[near], s.log.reply.gradient[near], sign.copy()
    z, jacobian = lift.slopes([*s.layers, rows.layer(sign)], known.before(s.layers[:1], x)[0])
    inner = gradient @ s.chart.place
    size = np.linalg.norm(inner, axis=(1, 2))
    on = z > 0
    on[:, idle] = False
    for j in idle:
        ways = set[bool]()
        for i in np.flatnonzero(size > 0):
            base = jacobian[i][on[i]]
            norms = np.linalg.norm(base, axis=1)
            base = base[norms > 0] / norms[norms > 0][:, None]
            a = np.linalg.lstsq(base.T, inner[i].T, rcond=1e-9)[0]
            if np.linalg.norm(inner[i] - a.T @ base) > SPAN * size[i]:
                ways.add(bool(z[i, j] > 0))
        if len(ways) != 1:
            return None
        sign[j] *= 1.0 if ways.pop() else -1.0
    return sign


def _batches(near: np.ndarray) -> list[np.ndarray]:
    return [near[start : start + AT_ONCE] for start in range(0, len(near), AT_ONCE)]


class _Parts(NamedTuple):
    """At n points: z [n, h] of a layer, the share of each Jacobian outside of the span of its rows
    [n], nan where that is not told, and their parts in it [n, h].
    """

    z: np.ndarray
    outside: np.ndarray
    part: np.ndarray


def _parts(s: Search, layer: Layer, x: np.ndarray, gradient: np.ndarray) -> _Parts:
    """Of Jacobians [n, K, d] at points [n, d]."""
    z, jacobian = lift.slopes([*s.layers, layer], known.before(s.layers[:1], x)[0])
    inner = gradient @ s.chart.place
    norms, whole = np.linalg.norm(jacobian, axis=2), np.linalg.norm(inner, axis=(1, 2))
    told = (norms.min(1) > 1e-9 * norms.max(1)) & (whole > 0)
    outside, part = np.full(len(x), np.nan), np.zeros(z.shape)
    left, values, right = np.linalg.svd(
        jacobian[told] / norms[told][:, :, None], full_matrices=False
    )
    full = np.sum(values > 1e-9 * values[:, :1], 1) == len(layer.bias)
    told[told] = full
    left, values, right = left[full], values[full], right[full]
    inner = inner[told] / whole[told, None, None]
    along = inner @ right.swapaxes(1, 2)
    outside[told] = np.linalg.norm(inner - along @ right, axis=(1, 2))
    part[told] = np.linalg.norm(along / values[:, None] @ left.swapaxes(1, 2), axis=1)
    return _Parts(z, outside, part)


def _lacking(layers: Layers, s: Search, x: np.ndarray, gradient: np.ndarray) -> int:
    """The number of the first layer whose rows that are on do not span the Jacobian at x."""
    inner = gradient @ s.chart.place
    for number, (z, slope) in enumerate(lift.tangents(layers, known.before(layers[:1], x)[0])):
        if number and not all(lift.spanned(slope[z > 0], row) for row in inner if row.any()):
            return number
    return len(layers) - 1
