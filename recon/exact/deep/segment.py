"""All kinks of a piecewise linear function on a line or a segment, from its tangents.

A reply gives the tangent at its point.  Between two replies whose tangents differ lies a kink;
the difference of their Jacobians, D, is the sum of the jumps a n^T of all kinks between, a [K]
the change of the outputs along the normal n [d].  With K >= 2 outputs:

- D of rank one, whose tangents meet in one point between: one kink, where they meet;
- else several: split at `splits.middle`, where tangents meet in the metric of (D D^T)^-1, which
  lies among the kinks whatever their signs.

Where J has rank one on both sides (a bottleneck of one active unit, or K = 1) a D of rank one
proves nothing: the kink is bracketed by two replies beside it.

Kinks that known layers are to have on the line cost nothing while D is explained by them: by the
jumps last seen there, or by any jumps along their normals, where these are few beside the rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from recon.exact import splits
from recon.exact.deep.track import Kink, Known, Track
from recon.replies import Reply

Ask = Callable[[np.ndarray], Reply]

REACH = 1e5  # of a line, in t
ROUNDING = 256.0  # eps: what a difference of gradients must exceed, beside the largest seen
BESIDE = 1e-5  # of the segment's length, or of 1 + |t|: how far beside a kink it is bracketed
NARROW = 1e-9  # of the segment: intervals below are given up
MOST = 1 << 12  # points of a line, after which what is left is given up: the victim bends smoothly
GRID = 4  # first points of a line between its ends


class Point(NamedTuple):
    """A reply on the line: at t, s in the search's own coordinate, and its tangent."""

    s: float
    t: float
    value: np.ndarray
    gradient: np.ndarray
    start: np.ndarray  # [K] the tangent's value at u
    slope: np.ndarray  # [K] and its slope along v
    noise: float  # rounding of `start`
    rank: int  # of the Jacobian: 0, 1 or 2 for more


def search(
    ask: Ask,
    u: np.ndarray,
    v: np.ndarray,
    ends: tuple[float, float] | None,
    eps: float,
    scale: float = 0.0,
    known: Known | None = None,
    few: int = 0,
    asked: tuple[np.ndarray, Reply] | None = None,
) -> Track:
    """Every kink of the victim on u + t v, t between `ends`, or on the whole line.

    eps: rounding unit of the replies; scale: the largest gradient seen before; few: how many
    known kinks at most may explain a difference by any jumps.  asked: places t [n] and replies
    there.
    """
    line = Line(ask, u, v, ends, eps, scale, known, few)
    return line.run(asked)


def certain(
    low: np.ndarray, high: np.ndarray, ends: Reply, eps: float, scale: float, close: bool
) -> Track | float:
    """The one kink between two points x [d] with replies there, if it is certainly one; else where
    to ask next, as a share of the way.

    close: the points are so close that they bracket a kink whose jump proves nothing.
    """
    line = Line(lambda x: ends, low, high - low, (0.0, 1.0), eps, scale, None, 0)
    left, right = line.ask(np.array([0.0, 1.0]), ends)
    jump, start = right.gradient - left.gradient, right.start - left.start
    noise = left.noise + right.noise
    found = line.single(jump, start, right.slope - left.slope, left, right, noise)
    if not isinstance(found, Kink):
        return 0.5
    if not close and max(left.rank, right.rank) < 2:  # just beside it, on either side
        after = found.t < 1 - 2 * BESIDE
        return found.t + BESIDE if after else max(found.t - BESIDE, 0.5 * found.t)
    t = np.array([0.0, 1.0])
    return Track(low, high - low, (0.0, 1.0), t, *ends, (found,), (), 0)


class Line:
    """A search of u + t v under way; the arguments are those of `search`."""

    def __init__(
        self,
        ask: Ask,
        u: np.ndarray,
        v: np.ndarray,
        ends: tuple[float, float] | None,
        eps: float,
        scale: float,
        known: Known | None,
        few: int,
    ) -> None:
        self.ask_victim, self.u, self.v, self.eps, self.scale = ask, u, v, eps, scale
        self.whole = ends is None
        self.ends = (-REACH, REACH) if ends is None else ends
        none = Known(np.zeros(0), np.zeros((0, len(u))), np.zeros((0, 1)))
        self.known = none if known is None else known
        self.few = few
        self.kinks: list[Kink] = []
        self.seen: list[float] = []
        self.lost = 0

    def s_of(self, t: float) -> float:
        return float(np.arctan(t)) if self.whole else t

    def ask(self, s: np.ndarray, reply: Reply | None = None) -> list[Point]:
        t = np.tan(s) if self.whole else s
        x = self.u + t[:, None] * self.v
        reply = self.ask_victim(x) if reply is None else reply
        size = np.sqrt(np.einsum("nkd,nkd->n", reply.gradient, reply.gradient))
        self.scale = max(self.scale, float(size.max(initial=0.0)))
        points = []
        for i in range(len(t)):
            gradient, value = reply.gradient[i], reply.value[i]
            slope = gradient @ self.v
            noise = self.eps * (float(np.abs(value).max()) + size[i] * float(np.linalg.norm(x[i])))
            start = value - t[i] * slope
            points.append(
                Point(s[i], t[i], value, gradient, start, slope, ROUNDING * noise, rank(gradient))
            )
        return points

    def first(self, asked: tuple[np.ndarray, Reply] | None) -> list[Point]:
        """The points to begin with, in order."""
        low, high = (self.s_of(t) for t in self.ends)
        if asked is not None:
            (near,) = np.nonzero(np.abs(asked[0]) < REACH)  # farther ones place kinks badly
            order = near[np.argsort(asked[0][near])]
            reply = Reply(*(a[order] for a in asked[1]))
            points = self.ask(np.array([self.s_of(t) for t in asked[0][order]]), reply)
            ends = self.ask(np.array([low, high]))
            return [ends[0], *points, ends[1]]
        if self.whole:
            return self.ask(np.concatenate([[low], np.arctan(grid()), [high]]))
        return self.ask(np.array([low, high]))

    def run(self, asked: tuple[np.ndarray, Reply] | None) -> Track:
        points = self.first(asked)
        todo = list(zip(points[:-1], points[1:], [0] * (len(points) - 1), strict=True))
        while todo:
            splits_at = []
            for left, right, tries in todo:
                at = self.judge(left, right, tries)
                if at is None:
                    continue
                if narrow(left.s, right.s):
                    self.lost += 1
                    continue
                if not left.s < at < right.s:
                    at = (left.s + right.s) / 2
                splits_at.append((left, right, tries, at))
            if not splits_at:
                break
            if len(points) + len(splits_at) > MOST:
                self.lost += len(splits_at)
                break
            new = self.ask(np.array([at for *_, at in splits_at]))
            points += new
            todo = []
            for (left, right, tries, _), middle in zip(splits_at, new, strict=True):
                todo += [(left, middle, tries + 1), (middle, right, tries + 1)]
        return self.track(points)

    def track(self, points: list[Point]) -> Track:
        """What was seen, from all points."""
        points = sorted(points, key=lambda p: p.t)
        return Track(
            self.u,
            self.v,
            self.ends,
            np.array([p.t for p in points]),
            np.array([p.value for p in points]),
            np.array([p.gradient for p in points]),
            tuple(sorted(self.kinks, key=lambda k: k.t)),
            tuple(sorted(self.seen)),
            self.lost,
        )

    def judge(self, left: Point, right: Point, tries: int) -> float | None:
        """Where to split the interval; None where all its kinks are known, or noted now."""
        jump = right.gradient - left.gradient
        start, slope = right.start - left.start, right.slope - left.slope
        noise = left.noise + right.noise + 1e-300
        inside = np.flatnonzero((self.known.t > left.t) & (self.known.t < right.t))
        if self.nothing(jump, start, slope, left.t, noise):
            return None
        if len(inside) == 0:
            return self.one(left, right, jump, start, slope, noise, tries)
        # what is expected: with the jumps last seen there
        at, normal, last = (part[inside] for part in self.known)
        along = normal @ self.v
        if len(inside) <= self.few:  # with any jumps along the known normals
            a = np.linalg.lstsq(normal.T, jump.T, rcond=1e-9)[0]
            rest = (jump - a.T @ normal, start + a.T @ (along * at), slope - a.T @ along)
            if self.nothing(*rest, left.t, 1e3 * noise, 30.0):
                strong = np.linalg.norm(a, axis=1) > self.tiny(30.0)
                self.seen += list(at[strong])
                return None
        if np.isfinite(last).all():
            rest = (jump - last.T @ normal, start + last.T @ (along * at), slope - last.T @ along)
            if self.nothing(*rest, left.t, 1e3 * noise, 30.0):
                self.seen += list(at)
                return None
            # What is left may look like one kink and be none: a deeper unit that switches here
            # changes the jumps before it along its own.  Only where to split is taken from it.
            guess = self.single(*rest, left, right, 1e3 * noise, 30.0)
            if isinstance(guess, Kink) and tries % 2 == 0:
                beside = at[np.argmin(np.abs(at - guess.t))]
                return self.s_of((float(beside) + guess.t) / 2)
        found = self.single(jump, start, slope, left, right, noise)
        if isinstance(found, Kink) and max(left.rank, right.rank) > 1:
            near = np.abs(at - found.t)
            i = int(np.argmin(near))
            if near[i] < 1e-7 * (1 + abs(found.t)) and abs(normal[i] @ found.normal) > 1 - 1e-8:
                self.seen.append(float(at[i]))
            else:
                self.kinks.append(found)
            return None
        cuts = np.concatenate([[left.s], [self.s_of(t) for t in at], [right.s]])
        gaps = np.diff(cuts)
        if len(at) == 1:  # one beside others: close by it, on the longer side
            i = int(np.argmax(gaps))
            share = 1e-3 if tries % 2 else 0.3
            return float(cuts[1] + (gaps[i] * share if i else -gaps[i] * share))
        middle = 1 + int(np.argmax(gaps[1:-1]))
        return float(cuts[middle] + gaps[middle] / 2)

    def tiny(self, times: float = 1.0) -> float:
        return times * ROUNDING * self.eps * self.scale

    def nothing(
        self,
        jump: np.ndarray,
        start: np.ndarray,
        slope: np.ndarray,
        t: float,
        noise: float,
        times: float = 1.0,
    ) -> bool:
        small = float(np.linalg.norm(jump)) <= self.tiny(times)
        return small and float(np.abs(start + t * slope).max()) <= noise

    def single(
        self,
        jump: np.ndarray,
        start: np.ndarray,
        slope: np.ndarray,
        left: Point,
        right: Point,
        noise: float,
        times: float = 1.0,
    ) -> Kink | float | None:
        """The only kink between; or a place among several; None where neither is to be seen."""
        row = slope @ jump
        square = float(row @ row)
        if square == 0:
            return None
        weight = jump @ row / square
        rest = float(np.linalg.norm(jump - np.outer(weight, row)))
        strength = float(weight @ weight)
        meet = -float(weight @ start) / (strength * float(row @ self.v))
        apart = float(np.abs(start + meet * slope).max())
        if len(jump) > 1 and (rest > self.tiny(4 * times) or apart > 4 * noise):
            along = np.stack([start, slope], 1)
            return float(np.tan(splits.middle(jump[None], along[None])[0]))
        if not left.t <= meet <= right.t:
            return None
        length = float(np.linalg.norm(row))
        sign = 1.0 if row @ self.v > 0 else -1.0
        normal = sign * row / length
        return Kink(meet, self.u + meet * self.v, normal, sign * weight * length)

    def one(
        self,
        left: Point,
        right: Point,
        jump: np.ndarray,
        start: np.ndarray,
        slope: np.ndarray,
        noise: float,
        tries: int,
    ) -> float | None:
        found = self.single(jump, start, slope, left, right, noise)
        middle = (left.s + right.s) / 2
        if found is None:
            return middle
        if not isinstance(found, Kink):
            at, width = self.s_of(found), right.s - left.s
            good = left.s + 0.02 * width < at < right.s - 0.02 * width
            return at if good and tries % 3 < 2 else middle
        if max(left.rank, right.rank) < 2:
            beside = BESIDE * ((1 + abs(found.t)) if self.whole else self.ends[1] - self.ends[0])
            if right.t - found.t > 1.5 * beside:
                return self.s_of(found.t + beside)
            if found.t - left.t > 1.5 * beside:
                return self.s_of(found.t - beside)
        self.kinks.append(found)
        return None


def grid() -> np.ndarray:
    """The first places t [n] of a whole line."""
    return np.tan(((np.arange(GRID) + 0.5) / GRID - 0.5) * np.pi)


def narrow(low: float, high: float) -> bool:
    """Whether an interval of the search's coordinate is given up."""
    return high - low < NARROW * (abs(low) + abs(high) + 1e-3)


def beside(t: float, low: float, high: float) -> float:
    """A place just beside t on a whole line, towards the farther of two ends, given as arctan."""
    s = float(np.arctan(t))
    return t + (1 if high - s > s - low else -1) * BESIDE * (1 + abs(t))


def bracketed(t: float, low: float, high: float, both: bool = False) -> bool:
    """Whether one of the places low and high, or both, is just beside t on a whole line."""
    return (max if both else min)(t - low, high - t) < 1.5 * BESIDE * (1 + abs(t))


def rank(gradient: np.ndarray) -> int:
    """Of a Jacobian [K, d]: 0, 1, or 2 for two and more."""
    size = np.linalg.norm(gradient, axis=1)
    i = int(np.argmax(size))
    if size[i] == 0:
        return 0
    row = gradient[i] / size[i]
    rest = gradient - np.outer(gradient @ row, row)
    return 2 if float(np.linalg.norm(rest)) > 1e-9 * size[i] else 1
