"""Units of a middle layer that are on at nearly all points, read off Jacobians: no query.

Such a unit shows no kink, and J is nowhere in the span of the rows found.  Where all inputs are on,
J = A W + B R in the rows W of these units and the rows R found that are on: what all J span beside
R is W, but for multiples of rows of R.  Where a unit of R is off it has no part of its own, and
what J has along its row is A times that multiple, the same at all these points; which tells its
side, too.  How several such units mix is not identifiable, nor are their biases, as far as they are
on; a kink where one switches shows its bias.  Where all inputs are on, a linear program leads along
its row to where it is off, if it ever is (`off`).  (Our own construction.)
"""

from __future__ import annotations

from itertools import product

import numpy as np

from recon.exact.deep import aim, cells, halve, known
from recon.exact.deep.lift import Partial
from recon.exact.deep.rows import Rows
from recon.exact.deep.search import Search
from recon.exact.deep.track import Track

SPAN = 1e-9  # of the largest singular value: rank
SAME = 1e-6  # of a part along a row: how far it may be from a multiple
MOST = 2  # units that are on everywhere
LEAST = 3  # inputs on which a kink shows whose it is
SPARE = 2  # equations more than unknowns, at least
OPEN = 8  # units that were never seen off
BOXES = (1.0, 10.0, 100.0)  # of the usual one, in which such a unit may switch off


def rows(s: Search, found: Rows, ask: bool = False) -> Rows | None:
    """Rows of the few units that are on everywhere, beside those found [m, h]; None where none is
    told.

    ask: for what no reply tells yet, a query for each unit that was never seen off.
    """
    x = s.log.points
    there = aim.near(s) & ~known.beside(s.layers, x)
    where, layer = aim.all_on(s), found.layer()
    inner = aim.inner(s, where, s.log.reply.gradient[there])
    whole = np.linalg.norm(inner, axis=(1, 2))
    y = known.after(s.layers, x[there][whole > 0])
    inner = inner[whole > 0] / whole[whole > 0, None, None]
    if not len(inner) or not len(layer.bias):
        return None
    basis = aim.span(found)
    rest = inner - inner @ basis.T @ basis
    more = _spanned(rest)
    if len(more) > len(least := aim.fewest(inner, basis)) > 0:  # others are on at some points
        more = least
        few = np.linalg.norm(rest - rest @ more.T @ more, axis=(1, 2)) < halve.LEFT
        inner, y = inner[few], y[few]
    if (
        len(basis) < len(layer.bias)
        or not 0 < len(more) <= MOST
        or len(basis) + len(more) >= inner.shape[2]
    ):
        return None
    along = inner @ np.linalg.pinv(np.concatenate([layer.weights, more]))
    parts, of = along[..., : len(basis)], along[..., len(basis) :]
    weights, open_ = more.copy(), list[np.ndarray]()
    for j, z in enumerate((y @ layer.weights.T + layer.bias).T):
        told = [_multiple(of[side], parts[side, :, j]) for side in (z > 0, z <= 0)]
        right_one = [a for a in told if a is not None]
        if len(right_one) == 1:
            weights += np.outer(right_one[0], layer.weights[j])
        elif right_one or not ask:
            return None
        else:
            open_.append(layer.weights[j] * (1 if np.median(z) > 0 else -1))
    if open_:
        return rows(s, found) if _asked(s, where, np.stack(open_)) else None
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    size = np.linalg.norm(x, axis=1)
    z = known.after(s.layers, x[size <= aim.OUT * np.median(size)]) @ weights.T
    sign = np.where(np.abs(z.max(0)) > np.abs(z.min(0)), 1.0, -1.0)
    bias = 2 * np.abs(np.minimum((sign * z).min(0), 0)) + np.abs(z).max(0)
    kinks = [[pair for pair in s.seen[len(s.layers)] if _of(pair[0], w)] for w in weights]
    for j, (pairs, w) in enumerate(zip(kinks, sign[:, None] * weights, strict=True)):
        if pairs:
            part = pairs[0][0]
            bias[j] = part.bias * (part.weights @ w) / (part.weights @ part.weights)
    none = np.zeros(len(bias), int)
    seen = np.ones(weights.shape, bool)
    return Rows(weights * sign[:, None], bias, seen, tuple(map(tuple, kinks)), none, none)


def off(s: Search, found: Rows) -> Track | None:
    """A kink of one of these units, between a point where the known ones `found` [m, h] explain all
    and the nearest where they do not; None where no unit is told, or none switches off.
    """
    always = rows(s, found, ask=True)
    if always is None:
        return None
    where = aim.all_on(s)
    middle, basis = cells.centre(where, s.box), aim.span(found)
    if middle is None:
        return None

    def share(_: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return aim.outside(s, where, basis, gradient)

    there = aim.inside(s)
    x, gradient = s.log.points[there], s.log.reply.gradient[there]
    foul = x[share(x, gradient) > halve.LEFT]
    for box, row in product(BOXES, always.weights):
        low = cells.deepest(where, row @ where.map, middle[0], box * s.box)
        if low is None or not len(foul):
            continue
        end = s.chart.x(low[None])
        if share(end, s.log(end).gradient)[0] <= halve.LEFT:
            return s.halved(share, end[0], foul[np.argmin(np.linalg.norm(foul - end, axis=1))])
    return None


def _asked(s: Search, where: cells.Region, low: np.ndarray) -> bool:
    """Ask where rows [m, h] of few units are the least, if that was not asked; whether it was."""
    middle, before = cells.centre(where, s.box), s.log.count
    if middle is None or len(low) > OPEN:
        return False
    for row in low:
        q = cells.deepest(where, row @ where.map, middle[0], s.box)
        if q is not None:
            s.log(s.chart.x(q[None]))
    return s.log.count > before


def _spanned(rows: np.ndarray) -> np.ndarray:
    """An orthonormal basis [m, h] of what Jacobians of length one leave, [n, K, h]."""
    flat = rows.reshape(-1, rows.shape[2])
    _, values, right = np.linalg.svd(flat, full_matrices=False)
    return np.asarray(right[values > SPAN * np.sqrt(len(flat))])


def _of(part: Partial, row: np.ndarray) -> bool:
    """Whether a kink is of the unit of this row [h], as far as it was seen."""
    if part.seen.sum() < LEAST:
        return False
    along = part.weights @ row / (part.weights @ part.weights)
    off = np.linalg.norm(along * part.weights - np.where(part.seen, row, 0))
    return bool(off < SAME * np.linalg.norm(row[part.seen]))


def _multiple(of: np.ndarray, part: np.ndarray) -> np.ndarray | None:
    """The multiples [e] that make parts [n, K] of what J has of the new rows, of [n, K, e]."""
    a, b = of.reshape(-1, of.shape[2]), part.reshape(-1)
    if len(a) < a.shape[1] + SPARE:
        return None
    found, _, rank, _ = np.linalg.lstsq(a, b, rcond=SPAN)
    size = max(float(np.abs(b).max()), float(np.abs(a).max()))
    return found if rank == a.shape[1] and np.abs(a @ found - b).max() < SAME * size else None
