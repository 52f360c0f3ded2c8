"""A network of known layers and an output, held against replies, rays and fresh points.

What it misses of one of them tells the unit that it lacks: between that point and one that it meets
f less the network is linear, but for what switches between, so that the replies say where it
vanishes.  One query beside on either side mostly brackets the unit's kink.  (Our own construction.)
"""

from __future__ import annotations

import numpy as np

from recon.exact.deep import aim, cells, lift, output
from recon.exact.deep.known import Layers
from recon.exact.deep.output import Fit, Output
from recon.exact.deep.rows import Rows
from recon.exact.deep.search import Search
from recon.exact.deep.track import Track
from recon.exact.recovery import repeated
from recon.replies import Reply

WRONG = 1e-7  # relative: a value that the network does not meet
ABSENT = 1e-4  # relative: more, and a unit is wrong there, however close to a kink
ALONG = 1e-6  # a cosine less one: two directions that are one
PART = 8  # fresh points asked at once
OUT = 10.0  # how far out random rays are asked


def disagreement(
    s: Search, layers: Layers, fit: Fit, fresh: int, others: np.ndarray
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Two points, of which the network meets the first and not the second; else the fresh
    points [m, d], which are all met.  First replies asked before, also those that had no part in
    the fit.

    Rays of the orthant are asked before, each once: a plane of the second layer that meets the
    orthant parts one of them from the others or from the origin, so that all of them make a
    complete test.  Where the first layer is wider than the input there are no such rays, and
    random ones are asked.
    """
    points, value = s.log.points, s.log.reply.value
    off = np.abs(fit.output(layers, points) - value).max(1)
    absent = off > ABSENT * (np.abs(value).max(1) + np.median(np.abs(value)))
    absent = np.flatnonzero(absent & output.within(points, output.FAR))
    if len(missed := fit.bad if len(fit.bad) else absent):
        bad = points[s.rng.choice(missed)]
        return points[fit.good[np.argmin(np.linalg.norm(points[fit.good] - bad, axis=1))]], bad
    x = s.unit * s.rng.standard_normal((repeated(fresh, s.failed), s.dim))
    x = np.concatenate([x, others])
    width = len(layers[0].bias)
    which: list[int] = []
    if s.chart.place.size:
        left = [int(i) for i in s.rng.permutation(width) if i not in s.rays]
        which = left[: max(0, aim.rays(s) - len(s.rays))]
        rays = [cells.ray(width, i, s.box, s.rng) for i in which]
        far = s.chart.x(np.array(rays).reshape(-1, width))
    else:
        far = OUT * s.rng.standard_normal((aim.RAYS * width // (2 * s.dim), s.dim))
    queue = np.concatenate([far, x[s.rng.permutation(len(x))]])
    met = points[fit.good[0]]
    for start in range(0, len(queue), PART):
        part = queue[start : start + PART]
        s.rays.update(which[start : start + PART])
        value = s.log(part).value
        size = np.abs(value).max(1) + np.median(np.abs(value))
        wrong = np.abs(fit.output(layers, part) - value).max(1) > WRONG * size
        if (~wrong).any():
            met = part[np.argmin(wrong)]
        if wrong.any():
            s.failed += start + len(part) > len(far)
            return met, part[np.argmax(wrong)]
    return x


def missed(
    s: Search, layers: Layers, out: Output, met: np.ndarray, end: np.ndarray
) -> Track | None:
    """The kink of a unit that the network lacks, between a point [d] that it meets and one that it
    misses: there f less the network is linear, but for what switches between.
    """

    def share(x: np.ndarray, _: np.ndarray) -> np.ndarray:
        value = s.log(x).value
        off = np.abs(out(layers, x) - value).max(1)
        return off / (np.abs(value).max(1) + np.median(np.abs(s.log.reply.value)))

    def guess(low: np.ndarray, high: np.ndarray, at_high: Reply) -> float:
        left = at_high.value - out(layers, high[None])[0]
        slope = (at_high.gradient - out.gradient(layers, high)) @ (high - low)
        return 1 - float(left @ slope) / max(float(slope @ slope), 1e-300)

    return s.halved(share, met, end, guess)


def doubt(s: Search, rows: Rows, layers: Layers, out: Output, track: Track) -> None:
    """Forget a weight that a lift saw wrongly: where its input switches, what the network leaves of
    f has a kink along that unit's output weights.
    """
    number = len(s.layers)
    unit = lift.owner(s.layers, *s.local(track.kinks[0])).unit
    if unit is None or unit[0] != number - 1 or len(out.weights) == 1:
        return
    low, high = (track.gradient[i] - out.gradient(layers, track.x[i]) for i in (0, -1))
    direction = np.linalg.svd(high - low)[0][:, 0]
    length = np.linalg.norm(out.weights, axis=0)
    along = np.abs(direction @ out.weights) / np.where(length > 0, length, np.inf)
    j = int(np.argmax(along))
    if along[j] < 1 - ALONG:
        return
    whose = {id(part.weights) for part, _ in rows.parts[j]}
    first = dict[int, int]()
    for part, kink in s.seen[number]:
        first[id(kink)] = min(first.get(id(kink), part.seen.size), int(part.seen.sum()))
    s.seen[number] = [
        (part, kink)
        for part, kink in s.seen[number]
        if not (id(part.weights) in whose and part.seen[unit[1]])
        or part.seen.sum() == first[id(kink)]
    ]
