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
SURE, UNSURE = 2.0, 2  # Jacobians a dimension on both sides of a row that is sure; rows a time
WIDE = 10.0  # times the box: where a side lies that is not in it
OUT = 100.0  # times the median distance: points beyond are not used
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
        self.s, self.tested, self.flat = s, 0, False
        self.order = s.rng.permutation(len(s.layers[0].bias))
        self.asked = self.blind = self.rows = 0
        self.ends: dict[bytes, int] = {}  # halved towards, which left something: rows known then

    @property
    def enough(self) -> bool:
        """Whether so many vertices left nothing that no unit seems to be missing."""
        width = len(self.order)
        return self.tested >= (min(width, FEW) if len(self.s.layers) == 1 else VERTICES)

    @property
    def given_up(self) -> bool:
        """Whether units that are missing cannot be found so, as far as seen."""
        return self.flat or self.blind >= BLIND

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
        used = np.array([self.ends.get(point.tobytes(), -1) == self.rows for point in x], bool)
        return np.where(used & (left > LEFT), np.nan, left)

    def wider(self, where: cells.Region, basis: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The basis with what is left at the point, of [n, d] that were asked, where the fewest of
        the missing units are on.
        """
        seen = inner(self.s, where, self.s.log.reply.gradient[self.s.log.at(x)])
        return np.concatenate([basis, fewest(seen, basis)])

    def along(
        self, where: cells.Region, middle: np.ndarray, basis: np.ndarray, x: np.ndarray
    ) -> np.ndarray:
        """Ask far along a random combination of what Jacobians at points [n, d] leave, and far
        against it, [m, d]: units that are missing are on at one of the two, mostly.
        """
        s = self.s
        seen = _of_length_one(inner(s, where, s.log.reply.gradient[s.log.at(x)]))
        seen = seen.reshape(-1, seen.shape[2])
        rest = seen - seen @ basis.T @ basis
        _, values, right = np.linalg.svd(rest, full_matrices=False)
        missing = right[values > LEFT]
        cost = s.rng.standard_normal(len(missing)) @ missing @ where.map
        ends = [cells.deepest(where, sign * cost, middle, s.box) for sign in (1.0, -1.0)]
        q = [end for end in ends if end is not None]
        x = s.chart.x(np.array(q).reshape(len(q), len(s.layers[0].bias)))
        if q:
            s.log(x)
        return x

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
                self.flat = True
                return None
            middle = found[0]
        basis = span(rows)
        self.rows = len(basis)
        if len(basis) >= len(where.shift) or len(where.shift) > where.map.shape[1]:
            self.flat = True
            return None
        points = np.concatenate([np.zeros((0, s.dim)), *inside])
        left = self.left(where, basis, points)
        pair, wider = halve.nearest(points, left), basis
        if pair is None and len(points):  # some are on everywhere here
            wider = self.wider(where, basis, points)
            pair = halve.nearest(points, self.left(where, wider, points))
        capped = len(wider) == len(basis) and bool((left > LEFT).any())  # ranks tell nothing
        if pair is None and not (capped and self.asked and middle is not None):
            x = self.vertices(where, middle)
            if not len(x):
                self.flat = True
                return None
            s.log(x)
            inside.append(x)
            left = self.left(where, basis, x)
            if not (left > LEFT).any():
                self.tested += int((left <= LEFT).sum())
                return None
            points = np.concatenate(inside)
            pair, wider = halve.nearest(points, self.left(where, basis, points)), basis
        ranks = s.log.outputs > 1  # with one output they tell nothing
        if pair is None and ranks:
            middle = np.full(len(where.shift), 0.01 * s.box) if middle is None else middle
            inside.append(self.along(where, middle, basis, points))
            points = np.concatenate(inside)
            wider = self.wider(where, basis, points)
            pair = halve.nearest(points, self.left(where, wider, points))
        basis = wider
        self.tested = 0
        if pair is None:  # too many are missing, or a row is none of this layer's
            if ranks:
                self.sides(rows)
            self.no_use()
            return None
        low, high = points[list(pair)]
        self.ends[high.tobytes()] = self.rows

        def share(_: np.ndarray, gradient: np.ndarray) -> np.ndarray:
            return outside(s, where, basis, gradient)

        track = s.halved(share, low, high)
        if track is None:  # a kink that was seen already, or the victim is flat between
            self.no_use()
        return track

    def sides(self, rows: Rows) -> int:
        """Ask where the rows are on, or off, that are the least sure: on the side that was seen the
        least of, so that `possible` tells; how many queries that took.

        One row of a deeper unit, a sum of this layer's, hides from all Jacobians that one is
        missing.
        """
        s = self.s
        where, there, layer = all_on(s), inside(s), rows.layer()
        z = known.before([*s.layers, layer], s.log.points[there])[-1]
        on = (z > 0).sum(0)
        fewer = np.minimum(on, len(z) - on)
        unsure = ~marked(s, rows) & (fewer * s.log.outputs < SURE * len(where.shift))
        before = s.log.count
        for i in sorted(np.flatnonzero(unsure), key=lambda i: (rows.kept[i], fewer[i]))[:UNSURE]:
            part = where.beyond(layer.weights[i], layer.bias[i], on[i] > fewer[i])
            for box in (s.box, WIDE * s.box):
                middle = cells.centre(part, box)
                if middle is None:
                    continue
                found = [cells.vertex(part, middle[0], box, s.rng) for _ in range(AT_ONCE)]
                q = [one for one in found if one is not None]
                if q:
                    s.log(s.chart.x(np.array(q)))
                    break
        return s.log.count - before

    def no_use(self) -> None:
        """Note that no pair of points showed anything."""
        self.blind += 1


def fewest(seen: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """What the basis leaves [m, h] of that of Jacobians [n, K, h] where the fewest missing units
    are on, as far as ranks tell: those of all units behind are higher; m is 0 where none does.
    """
    seen = _of_length_one(seen)
    _, values, right = np.linalg.svd(seen - seen @ basis.T @ basis, full_matrices=False)
    missing = (values > LEFT).sum(1)
    whole = (np.linalg.svd(seen, compute_uv=False) > LEFT).sum(1)
    told = (missing > 0) & (missing < whole)
    if not told.any():
        return np.zeros((0, basis.shape[1]))
    least = int(np.argmin(np.where(told, missing, missing.max() + 1)))
    return np.asarray(right[least, : missing[least]])


def _of_length_one(seen: np.ndarray) -> np.ndarray:
    """Those of the Jacobians [n, K, h] that are not zero."""
    size = np.linalg.norm(seen, axis=(1, 2))
    return np.asarray(seen[size > 0] / size[size > 0, None, None])


def near(s: Search) -> np.ndarray:
    """At which points asked all known units are on, and which are not very far out: [n]."""
    size = np.linalg.norm(s.log.points, axis=1)
    return inside(s) & (size <= OUT * np.median(size))


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
    far = known.BESIDE * (1 + np.linalg.norm(z, axis=1))  # from its plane, to tell the side
    next_ = (z @ layer.weights.T + layer.bias).T
    on, off = next_ > far, next_ < -far
    swap = on.mean(1, keepdims=True) > 0.5
    fewer, others = np.where(swap, off, on), np.where(swap, on, off)
    told = np.zeros(len(on), bool)
    for some in (fewer, others):
        todo = np.flatnonzero(~told)
        sums = (some[todo].astype(float) @ gram).reshape(-1, len(basis), len(basis))
        small = UNSEEN * np.trace(sums, axis1=1, axis2=2) + 1e-300
        # (sums / small + 1)^-1 keeps what no J shows, and nothing of what one does
        sums = sums / small[:, None, None] + np.eye(len(basis))
        part = np.linalg.solve(sums, within[todo, :, None])[:, :, 0]
        left = np.hypot(np.linalg.norm(part, axis=1), np.linalg.norm(beyond[todo], axis=1))
        told[todo] = left > APART
    seen_well = fewer.sum(1) * s.log.outputs >= SURE * len(z[0])
    return told & ~(seen_well & (np.linalg.norm(beyond, axis=1) > APART))


def marked(s: Search, rows: Rows) -> np.ndarray:
    """Which candidates hold a kink found so: [m]."""
    return np.array([any(id(kink) in s.sure for _, kink in parts) for parts in rows.parts], bool)
