"""Units that are missing, found by what they add to Jacobians: no line is searched for them.

Where all known units are on, J = C W in the outputs y of the last known layer: it lies in the
span of the next layer's rows.  What J leaves outside of the span of the rows found so far comes
from units that are missing and on.  A point that leaves nothing has all of them off; between it
and one that leaves something a missing unit switches on, and halving finds it, whatever deeper
kinks lie between.  Where the rays of the orthant and the origin leave nothing, no unit of the
second layer is missing that is ever on.
"""

from __future__ import annotations

import numpy as np

from recon.exact.deep import cells, halve, known
from recon.exact.deep.halve import LEFT
from recon.exact.deep.rows import Rows
from recon.exact.deep.search import Search
from recon.exact.deep.track import Track

AT_ONCE = 4  # vertices asked at once
BLIND = 4  # times without a point that leaves nothing, after which there seems to be none
APART = 1e-4  # of a row of length one: what is outside of a span
UNSEEN = 1e-14  # of the trace of J^T J summed: directions that no J shows
RAYS, FEW, VERTICES = 16, 8, 8  # that leave nothing: two hidden layers, more; later layers


def span(rows: Rows) -> np.ndarray:
    """An orthonormal basis [r, h] of the rows."""
    return _basis(rows.layer().weights)


def _basis(rows: np.ndarray) -> np.ndarray:
    """An orthonormal basis [r, h] of the span of rows [m, h]."""
    if not len(rows):
        return rows
    if len(rows) > rows.shape[1]:  # the same span, much sooner
        rows = np.asarray(np.linalg.qr(rows, mode="r"))
    try:
        _, values, right = np.linalg.svd(rows, full_matrices=False)
    except np.linalg.LinAlgError:  # gesdd is faster, and may not converge where gesvd does
        from scipy.linalg import svd  # slow to import

        _, values, right = svd(rows, full_matrices=False, lapack_driver="gesvd")
    return np.asarray(right[values > 1e-9 * values.max()])


def all_on(s: Search) -> cells.Region:
    """Where all units of the known layers are on."""
    return cells.region(s.layers, [np.ones(len(layer.bias), bool) for layer in s.layers])


def inner(s: Search, where: cells.Region, gradient: np.ndarray) -> np.ndarray:
    """Jacobians [n, K, h] in the outputs of the last known layer, of those [n, K, d] in x there."""
    return np.asarray(gradient @ s.chart.place @ np.linalg.pinv(where.map))


def outside(s: Search, where: cells.Region, basis: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """The share of each Jacobian [n, K, d] that the rows do not span: [n], nan where J is zero."""
    whole = inner(s, where, gradient)
    rest = whole - whole @ basis.T @ basis
    size = np.linalg.norm(whole, axis=(1, 2))
    share = np.linalg.norm(rest, axis=(1, 2)) / np.where(size > 0, size, 1.0)
    return np.where(size > 1e-9 * s.log.scale, share, np.nan)


class Aim:
    """The search for missing units of the layer under way; `tested` vertices left nothing."""

    def __init__(self, s: Search) -> None:
        self.s, self.tested, self.given_up = s, 0, False
        self.order = s.rng.permutation(len(s.layers[0].bias))
        self.asked = self.blind = 0
        self.ends: set[bytes] = set()  # points that left something, halved towards

    @property
    def enough(self) -> bool:
        """Whether so many vertices left nothing that no unit seems to be missing."""
        width = len(self.order)
        return self.tested >= (min(width, FEW) if len(self.s.layers) == 1 else VERTICES)

    def vertices(self, where: cells.Region | None, middle: np.ndarray | None) -> np.ndarray:
        """The next points [m, d] to ask: rays of the orthant, or vertices of the region."""
        s, found = self.s, []
        for _ in range(AT_ONCE):
            if where is None or middle is None:
                unit = self.order[self.asked % len(self.order)]
                s.rays.add(int(unit))
                found.append(cells.ray(len(self.order), int(unit), s.box, s.rng))
            else:
                box = s.box * (1, 4, 2)[self.asked % 3]
                q = cells.vertex(where, middle, box, s.rng)
                found += [] if q is None else [q]
            self.asked += 1
        return s.chart.x(np.array(found).reshape(len(found), len(self.order)))

    def left(self, where: cells.Region, basis: np.ndarray, x: np.ndarray) -> np.ndarray:
        """What Jacobians leave at points [n, d] that were asked: [n]; nan where one was an end."""
        left = outside(self.s, where, basis, self.s.log.reply.gradient[self.s.log.at(x)])
        used = np.array([point.tobytes() in self.ends for point in x], bool)
        return np.where(used & (left > LEFT), np.nan, left)

    def wider(self, where: cells.Region, basis: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The basis with what is left at the point, of [n, d] that were asked, where the fewest of
        the missing units are on, as far as ranks tell: those of all units behind are higher.
        """
        seen = inner(self.s, where, self.s.log.reply.gradient[self.s.log.at(x)])
        size = np.linalg.norm(seen, axis=(1, 2))
        seen = seen[size > 0] / size[size > 0, None, None]
        _, values, right = np.linalg.svd(seen - seen @ basis.T @ basis, full_matrices=False)
        missing = (values > LEFT).sum(1)
        whole = (np.linalg.svd(seen, compute_uv=False) > LEFT).sum(1)
        told = (missing > 0) & (missing < whole)
        if not told.any():
            return basis
        least = int(np.argmin(np.where(told, missing, missing.max() + 1)))
        return np.concatenate([basis, right[least, : missing[least]]])

    def find(self, rows: Rows, inside: list[np.ndarray]) -> Track | None:
        """A segment with a kink of a missing unit, or None: vertices were tested, or no use.

        inside: points [m, d] asked where all known units are on; more are added.
        """
        s = self.s
        where = all_on(s)
        middle = None
        if len(s.layers) > 1:
            found = cells.centre(where, s.box)
            if found is None:
                self.given_up = True
                return None
            middle = found[0]
        basis = span(rows)
        if len(basis) >= len(where.shift) or len(where.shift) > where.map.shape[1]:
            self.given_up = True
            return None
        points = np.concatenate([np.zeros((0, s.dim)), *inside])
        pair = halve.nearest(points, self.left(where, basis, points))
        if pair is None:
            x = self.vertices(where, middle)
            if not len(x):
                self.given_up = True
                return None
            s.log(x)
            inside.append(x)
            left = self.left(where, basis, x)
            if not (left > LEFT).any():
                self.tested += int((left <= LEFT).sum())
                return None
            points = np.concatenate(inside)
            pair = halve.nearest(points, self.left(where, basis, points))
        if pair is None:  # some are on everywhere here
            basis = self.wider(where, basis, points)
            pair = halve.nearest(points, self.left(where, basis, points))
        self.tested = 0
        if pair is None:  # too many are missing
            self.no_use()
            return None
        low, high = points[list(pair)]
        self.ends.add(high.tobytes())

        def share(_: np.ndarray, gradient: np.ndarray) -> np.ndarray:
            return outside(s, where, basis, gradient)

        track = s.halved(share, low, high)
        if track is None:  # a kink that was seen already, or the victim is flat between
            self.no_use()
        return track

    def no_use(self) -> None:
        """Note that no pair of points showed anything."""
        self.blind += 1
        self.given_up = self.blind >= BLIND


def inside(s: Search) -> np.ndarray:
    """At which points asked all known units are on: [n]."""
    return np.all([(z > 0).all(1) for z in known.before(s.layers, s.log.points)], axis=0)


def rays(s: Search) -> int:
    """How many rays of the orthant a network must meet."""
    width = len(s.layers[0].bias)
    return min(width, max(RAYS, width // 4) if len(s.layers) == 1 else FEW)


def possible(s: Search, rows: Rows) -> np.ndarray:
    """Which candidates [m] can be rows of the next layer, by Jacobians where all units are on.

    On one of its sides a unit is off, and these lie in the span of the other rows: its own is not
    in the span of what was seen there, where rows are independent.  So nothing is told where
    Jacobians have full rank.
    """
    there = inside(s)
    z = known.before(s.layers, s.log.points[there])[-1]
    seen = inner(s, all_on(s), s.log.reply.gradient[there])
    size = np.linalg.norm(seen, axis=(1, 2))
    seen = seen / np.where(size > 0, size, 1.0)[:, None, None]
    basis = _basis(seen.reshape(-1, seen.shape[2]))
    if len(basis) in (0, seen.shape[2]) or not len(rows.bias):
        return np.ones(len(rows.bias), bool)
    layer, seen = rows.layer(), seen @ basis.T
    gram = (seen.swapaxes(1, 2) @ seen).reshape(len(seen), -1)
    within, beyond = layer.weights @ basis.T, layer.weights - layer.weights @ basis.T @ basis
    side = (z @ layer.weights.T + layer.bias > 0).T
    fewer = np.where(side.mean(1, keepdims=True) > 0.5, ~side, side)
    told = np.zeros(len(side), bool)
    for some in (fewer, ~fewer):
        todo = np.flatnonzero(~told)
        sums = (some[todo].astype(float) @ gram).reshape(-1, len(basis), len(basis))
        small = UNSEEN * np.trace(sums, axis1=1, axis2=2) + 1e-300
        # (sums / small + 1)^-1 keeps what no J shows, and nothing of what one does
        sums = sums / small[:, None, None] + np.eye(len(basis))
        part = np.linalg.solve(sums, within[todo, :, None])[:, :, 0]
        left = np.hypot(np.linalg.norm(part, axis=1), np.linalg.norm(beyond[todo], axis=1))
        told[todo] = left > APART
    return told


def marked(s: Search, rows: Rows) -> np.ndarray:
    """Which candidates hold a kink found so: [m]."""
    return np.array([any(id(kink) in s.sure for _, kink in parts) for parts in rows.parts], bool)
