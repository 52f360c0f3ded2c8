"""Units of the last hidden layer told by replies that were asked already.

Where all known units are on, f is linear but for the units of the next layer.  If that is the last,
those of its units that are known can be taken off.  What is left differs between two points by the
units that are missing and switch between them: where that is one, the difference of the Jacobians
has rank one and both tangents meet on its plane, which is then known without a query.  Of n points
with m units missing about m n^2 / 2^(m + 1) pairs differ so, and each unit that is found leaves one
less to the others.  Of other pairs the rank tells how many switch between them.
(Our own construction.)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon.exact.deep import known, segment
from recon.exact.deep.rows import Rows
from recon.exact.deep.search import Ends, Search
from recon.exact.deep.track import Track
from recon.replies import Reply

BLUR = 100.0  # eps of replies from which known units were taken off, relative to theirs
MOST, EACH = 200, 2  # points, the last ones, and more for each input: all pairs are looked at
ONE = 1e-6  # of a square, what rounding may take from it
SPARE = 2  # directions more than the highest rank to be told


def rest(s: Search, rows: Rows, x: np.ndarray) -> Reply:
    """What f and its gradient leave, without the units `rows`, at points [n, d] asked already where
    all units of the layers before are on.
    """
    value, gradient = (part.copy() for part in s.log(x))
    if not len(rows.bias):
        return Reply(value, gradient)
    layers, jumps = s.with_jumps(rows)
    weights = np.stack([jumps[len(s.layers), j] for j in range(len(rows.bias))], 1)
    z, slope = known.before(layers, x)[-1], known.tangents(layers, x[0])[-1][1]
    value -= np.maximum(z, 0) @ weights.T
    gradient -= ((z > 0)[:, None] * weights) @ slope
    return Reply(value, gradient)


def find(s: Search, rows: Rows, x: np.ndarray, alone: bool) -> Track | Ends | None:
    """A kink of one missing unit between two of the points [n, d], if any two show one alone; else
    two between which the fewest switch; None where none does.  No pair is taken twice.

    rows: those of the next layer that are known; alone: no two points for several.
    """
    if len(x) < 2:
        return None
    x = x[-MOST - EACH * len(s.layers[-1].bias) :]
    value, gradient = rest(s, rows, x)
    eps, scale = BLUR * s.log.eps, s.log.scale
    pairs = np.stack(np.triu_indices(len(x), 1), 1)
    # a few random directions of the span that all lie in: ranks are the same; likewise of outputs
    most = (1 if alone else value.shape[1]) + SPARE
    directions = s.rng.standard_normal((s.layers[0].bias.size, most))
    inner = gradient @ np.linalg.qr(s.layers[0].weights.T @ directions)[0]
    if most < value.shape[1]:
        inner = np.linalg.qr(s.rng.standard_normal((value.shape[1], most)))[0].T @ inner
    jump = inner[pairs[:, 1]] - inner[pairs[:, 0]]
    count, told = np.full(len(pairs), 2), np.ones(len(pairs), bool)
    if alone:  # of rank one tr (D D^T)^2 is (tr D D^T)^2, which is sooner told
        square = jump @ jump.swapaxes(1, 2)
        trace = np.trace(square, axis1=1, axis2=2)
        told = np.einsum("nij,nij->n", square, square) >= (1 - ONE) * trace**2
    sizes = np.linalg.svd(jump[told], compute_uv=False)
    count[told] = (sizes > segment.ROUNDING * eps * scale).sum(1)
    apart = np.linalg.norm(x[pairs[:, 1]] - x[pairs[:, 0]], axis=1)
    order = np.lexsort([apart, count])
    for low, high, several in np.column_stack([pairs, count > 1])[order[count[order] > 0]]:
        state = len(s.layers), x[low].tobytes() + x[high].tobytes()
        if state in s.tried:
            continue
        if several and alone:
            return None
        s.tried.add(state)
        if several:
            return x[low], x[high]
        ends = Reply(value[[low, high]], gradient[[low, high]])
        track = segment.certain(x[low], x[high], ends, eps, scale, close=True)
        if isinstance(track, Track):
            seen = known.crossings(s.with_jumps(rows)[0], track.u, track.v, *track.ends)
            reply = s.log(x[[low, high]])
            return replace(track, **reply._asdict(), seen=tuple(cross.t for cross in seen))
    return None
