"""Lines on which one position of one layer moves: the corner pixel, with all else far away.

Pixels outside the corner window are so large that every unit which the window does not dominate is
far from its switch.  Of the layer wanted only the first of the four positions of pixel (0, 0) sees
the corner pixel, so on x + t v every channel's pixel is max(0, moving, three fixed sums), the
layers before change in one pixel, and all behind is one constant matrix: the Jacobian's jump of
channel c is a_c n^T, with the same a_c [K] on all lines in these surroundings.  So the jump names
the channel; where several kinks lie between two replies, those of channels met before are told
apart by their names.  What channels that are wholly known change by is no kink: what they may
change by is left out, then those changes are taken that explain the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from recon.exact.conv import known
from recon.exact.conv.known import Image, Layer, Shape
from recon.exact.deep.log import Log
from recon.exact.deep.search import Stuck

FAR = 2e4  # of pixels outside the window
STARTS = (-3e2, 0.0, 3e2)  # t asked first on lines
BENT = 10.0  # t around which the middle of an interval changes from linear to geometric
TINY = 1e-11  # of the Jacobian: what rounding explains of a jump
QUIET = 1e-9  # of it: what channels that are known leave of one
DEPENDENT = 1e-9  # of directions of length one, that are none of their own
SAME = 1e-8  # how far directions of jumps may part and be one
SPREAD = 50.0  # condition of jumps that may be told apart by their names
MOST = 256  # points on a line
NARROW = 1e-6  # intervals below are given up


class Changed(Exception):
    """The network behind the layer is another one than before in these surroundings."""


class Point(NamedTuple):
    """A reply at x [d], at t on its line, with what the layers before make of x."""

    t: float
    x: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    image: Image


Changes = list[tuple[np.ndarray, np.ndarray]]  # strength [K] and row [w] of each


class Line(NamedTuple):
    """u + t v, and the points asked on it, in order."""

    u: np.ndarray
    v: np.ndarray
    points: list[Point]


class Kink(NamedTuple):
    """Channel `name` changes between two points: Jacobian's jump = its direction times row^T.

    row [w] is known up to the span of the columns of known [w, m], and orthogonal to them: w are
    the pixels of the window.  These are what the layers before may change by, and channels known.
    """

    name: int
    row: np.ndarray
    known: np.ndarray
    left: Point
    right: Point


@dataclass
class Corner:
    """One draw of the surroundings, and what was seen in them.

    names: directions a_c [K], of length one, of the channels met; lines: the points of each;
    settled: of two points, what channels that are wholly known may change by.
    """

    log: Log
    shape: Shape
    below: Sequence[Layer]
    side: int  # of the window, in pixels
    rng: np.random.Generator
    last: int  # of the queries noted in the log, that may be asked
    names: list[np.ndarray] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    kinks: list[Kink] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.window = self.pixels(self.side)
        self.around = np.setdiff1d(np.arange(np.prod(self.shape)), self.window)
        self.far = FAR * self.rng.standard_normal(int(np.prod(self.shape)))
        self.behind: np.ndarray | None = None  # the Jacobian outside the window
        self.settled: Callable[[Point, Point], Changes] = lambda *_: []

    def pixels(self, side: int) -> np.ndarray:
        """Numbers of the pixels of the corner's window of this side."""
        numbers = np.arange(np.prod(self.shape)).reshape(self.shape)
        return numbers[:side, :side].reshape(-1)

    def direction(self) -> np.ndarray:
        """Of a line [w]: a random one of the pixels that the moving position alone sees."""
        along = np.zeros((self.side, self.side, self.shape[2]))
        few = 2 ** len(self.below)
        along[:few, :few] = self.rng.standard_normal((few, few, self.shape[2]))
        return along.reshape(-1) / np.linalg.norm(along)

    def line(self, window: np.ndarray, along: np.ndarray, t: tuple[float, ...] = STARTS) -> Line:
        """A line through these contents of the window [w], asked at t; raises Changed."""
        u, v = self.far.copy(), np.zeros(len(self.far))
        u[self.window], v[self.window] = window, along
        line = Line(u, v, [])
        line.points.extend(self.asked(line, np.array(t)))
        self.lines.append(line)
        return line

    def asked(self, line: Line, t: np.ndarray) -> list[Point]:
        """Points at t [n] of the line; raises Changed."""
        if self.log.count + len(t) > self.last:
            raise Stuck("its queries are spent before it is told")
        x = line.u + t[:, None] * line.v
        reply = self.log(x)
        points = [
            Point(float(at), row, value, gradient, known.image(self.below, self.shape, row))
            for at, row, value, gradient in zip(t, x, *reply, strict=True)
        ]
        for point in points:
            behind = point.gradient[:, self.around]
            if self.behind is None:
                self.behind = behind
            if np.abs(behind - self.behind).max(initial=0.0) > TINY * np.abs(behind).max():
                raise Changed
        return points

    def search(self, window: np.ndarray, along: np.ndarray) -> list[Kink]:
        """All kinks of the layer on a line; raises Changed."""
        line = self.line(window, along)
        found: list[Kink] = []
        todo = [*pairwise(line.points)]
        while todo:
            apart = []
            for left, right in todo:
                kinks = self._kinks(left, right)
                if kinks is None and right.t - left.t > NARROW:
                    apart.append((left, right))
                found += kinks or []
            if not apart:
                break
            if len(line.points) > MOST:
                raise Stuck("lines at the corner hold too many kinks")
            new = self.asked(line, np.array([_middle(a.t, b.t) for a, b in apart]))
            line.points.extend(new)
            todo = []
            for (left, right), middle in zip(apart, new, strict=True):
                todo += [(left, middle), (middle, right)]
        line.points.sort(key=lambda point: point.t)
        self.kinks += found
        return found

    def _kinks(self, left: Point, right: Point) -> list[Kink] | None:
        """The kinks between; None where they cannot be told apart."""
        scale, before = float(np.linalg.norm(left.gradient)), self._before(left, right)
        jump = (right.gradient - left.gradient)[:, self.window]
        jump = jump - (jump @ before) @ before.T
        noise, changes = TINY * scale, self.settled(left, right)
        if changes:
            noise = QUIET * scale
            jump, before = _unsettled(jump, before, changes, noise)
        u, size, vt = np.linalg.svd(jump, full_matrices=False)
        rank = int(np.sum(size > noise))
        if rank == 0:
            return []
        u, vt = u[:, :rank], size[:rank, None] * vt[:rank]
        if rank == 1:
            name, row = self._name(u[:, 0]), vt[0]
            row = row if self.names[name] @ u[:, 0] > 0 else -row
            return [Kink(name, row, before, left, right)]
        if rank == len(jump) or not self.names:
            return None
        names = np.array(self.names)
        (members,) = np.nonzero(np.linalg.norm(names - (names @ u) @ u.T, axis=1) < SAME)
        if len(members) != rank or np.linalg.cond(names[members]) > SPREAD:
            return None
        rows = np.linalg.solve((u.T @ names[members].T), vt)
        return [
            Kink(int(i), row, before, left, right) for i, row in zip(members, rows, strict=True)
        ]

    def _before(self, left: Point, right: Point) -> np.ndarray:
        """An orthonormal basis [w, m] of what the layers before change between."""
        if not self.below:
            return np.zeros((len(self.window), 0))
        channels = left.image.y.shape[-1]  # of pixel (0, 0), the only one that changes
        change = (right.image.rows[:channels] - left.image.rows[:channels]).toarray()
        return _basis(change[:, self.window])

    def _name(self, direction: np.ndarray) -> int:
        for i, name in enumerate(self.names):
            if abs(name @ direction) > 1 - SAME:
                return i
        self.names.append(direction)
        return len(self.names) - 1


def _middle(left: float, right: float) -> float:
    bent = np.arcsinh(np.array([left, right]) / BENT)
    return float(BENT * np.sinh(bent.mean()))


def _unsettled(
    jump: np.ndarray, before: np.ndarray, changes: Changes, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """A jump [K, w] less what known channels change by, and what it is known up to: no more than
    before, where it is told which of them do.

    What is left without their rows spans directions [K, n] of channels that are not known; what the
    jump has across these is theirs alone, each of their changes once or not at all.
    """
    strengths, rows = (np.array(parts) for parts in zip(*changes, strict=True))
    rows = rows - (rows @ before) @ before.T
    both = np.hstack([before, _basis(rows)])
    rest = jump - (jump @ both) @ both.T
    u, size, _ = np.linalg.svd(rest, full_matrices=False)
    u = u[:, size > noise]
    if u.shape[1] < len(jump):
        across = np.eye(len(jump)) - u @ u.T
        parts = np.einsum("mk,mw->kwm", strengths @ across, rows).reshape(-1, len(rows))
        right = (across @ jump).reshape(-1)
        times = np.linalg.lstsq(parts, right, rcond=DEPENDENT)[0].round()
        if np.linalg.norm(parts @ times - right) < noise and np.abs(times).max() <= 1:
            return jump - (strengths.T * times) @ rows, before
    return rest, both


def _basis(rows: np.ndarray) -> np.ndarray:
    """An orthonormal basis [w, m] of what rows [n, w] span."""
    length = np.linalg.norm(rows, axis=1)
    rows = rows[length > 0] / length[length > 0, None]
    u, size, _ = np.linalg.svd(rows.T, full_matrices=False)
    return np.asarray(u[:, size > DEPENDENT])
