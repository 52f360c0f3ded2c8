"""Rows of the last hidden layer that were seen in part, filled in from replies asked already.

In the outputs y of the layer before, J is V_j w_j summed over the units that are on, on the inputs
that are on, and a constant for signs that are not known yet.  With known units taken off, two
replies differ, on the inputs that are on at both, by the units that are not known whole and switch
between them.  Where the difference is that of one alone, V_j r^T with V_j as its kink showed it,
and r is as known where w_j was seen, r shows the other weights too.  No query; it takes two
outputs.
(Our own construction.)
"""

from __future__ import annotations

import numpy as np

from recon.exact.deep import known, lift
from recon.exact.deep.lift import Partial
from recon.exact.deep.rows import Rows
from recon.exact.deep.search import Search
from recon.exact.deep.track import Kink

NEAR = 20.0  # times the median distance: replies from beyond take no part
FITS = 1e-7  # of the largest Jacobian: what may be left
LEAST = 1e-3  # of a unit's jump: what is known of it, at least
BOTH = 2  # inputs, at least, on which a row is as it was seen


def rows(s: Search, whole: Rows, part: Rows) -> list[tuple[Partial, Kink]]:
    """More of the rows `part`, where replies show it; whole: the other rows of the layer."""
    if not len(part.bias) or s.log.reply.value.shape[1] == 1:
        return []
    on, inner = _inner(s, whole)
    weights, size = _strengths(s, part), float(np.abs(inner).max(initial=0.0))
    layer, found = part.layer(), list[tuple[Partial, Kink]]()
    for j, (row, bias, seen) in enumerate(zip(*layer, part.seen, strict=True)):
        strength = float(np.linalg.norm(weights[:, j]))
        along = np.einsum("k,nkh->nh", weights[:, j] / strength**2, inner)
        other = inner - weights[:, j][:, None] * along[:, None]
        grown, known_ = row.copy(), seen.copy()
        for i in range(len(on)):
            both = on & on[i]
            left = np.abs(np.where(both[:, None], other - other[i], 0)).max((1, 2))
            step = np.where(both, along - along[i], 0)
            old = step * seen
            sign = np.sign(old @ row)
            off = np.abs(old - sign[:, None] * np.where(both, row * seen, 0)).max(1) * strength
            good = (np.maximum(left, off) < FITS * size) & (both & ~known_).any(1)
            good &= ((both & seen & (np.abs(row) > LEAST)).sum(1) >= BOTH) & (sign != 0)
            for k in np.flatnonzero(good)[:1]:
                new = both[k] & ~known_
                grown[new], known_ = sign[k] * step[k, new], known_ | new
        if (known_ & ~seen).any():
            first, kink = part.parts[j][0]
            length = float(np.linalg.norm(grown))
            found.append(
                (
                    first._replace(weights=grown / length, bias=float(bias) / length, seen=known_),
                    kink,
                )
            )
    return found


def _strengths(s: Search, some: Rows) -> np.ndarray:
    """Output weights [K, m] of rows of length one, as jumps show them."""
    return np.stack(list(s.with_jumps(some)[1].values()), 1)


def _inner(s: Search, whole: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Which inputs of the layer are on at replies [n, h], and the Jacobians [n, K, h] in them, zero
    where they are off, without the units `whole`.
    """
    points, gradient = s.log.points, s.log.reply.gradient
    size = np.linalg.norm(points, axis=1)
    near = (size <= NEAR * np.median(size)) & ~known.beside(s.layers, points)
    z, slope = lift.slopes(s.layers, known.before(s.layers[:1], points[near])[0])
    on, slope = z > 0, np.broadcast_to(slope, (*z.shape, slope.shape[2]))
    inner = np.zeros((len(on), gradient.shape[1], on.shape[1]))
    told = np.ones(len(on), bool)
    for i, (mask, jacobian) in enumerate(zip(on, gradient[near] @ s.chart.place, strict=True)):
        base = slope[i][mask]
        a, _, rank, _ = np.linalg.lstsq(base.T, jacobian.T, rcond=1e-9)
        told[i] = rank == mask.sum()
        inner[i][:, mask] = a.T
    on, inner, y = on[told], inner[told], np.maximum(z[told], 0)
    if len(whole.bias):
        layer = whole.layer()
        active = y @ layer.weights.T + layer.bias > 0
        parts = np.einsum("km,nm,mh->nkh", _strengths(s, whole), active, layer.weights)
        inner = inner - parts * on[:, None]
    return on, inner
