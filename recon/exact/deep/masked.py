"""Kinks of the second layer on a line of a victim of one output, from the first layer's masks.

Behind the first layer, y = max(z_1, 0), the victim is a function of y whose gradient G [h_1]
changes at deeper kinks alone.  A reply shows the entries of G of the inputs that are on there,
however many units of the first layer switch between: neighbours that agree on what both show have
no deeper kink between.  Replies that agree are one piece of the line, and what they leave open of
its G is seen by one more: at max(z_1, delta), delta tiny, every input is on, and all deeper units
are as they were.  Two pieces differ by the whole row of the unit that switches between, up to
scale, and by its bias; so its place is known as well.  A reply of that kind just beside it tells
one kink from two of equal sign.  (Our own construction.)
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from recon.exact.deep import raised, segment
from recon.exact.deep.cells import Chart
from recon.exact.deep.known import Layer
from recon.exact.deep.lift import Partial
from recon.exact.deep.segment import Ask
from recon.exact.deep.track import Kink, Track

AGREE = 1e-7  # of G: what it differs by where no unit switches
ROUNDS = 60  # at most


class _Piece(NamedTuple):
    """Replies from t = low to t = high that agree, one of them at t: the value of G [h] and its
    offset, where f = G y + offset, which that one shows best, off by `noise` in units of rounding;
    seen [h]: the entries shown.
    """

    low: float
    high: float
    t: float
    gradient: np.ndarray
    offset: float
    seen: np.ndarray
    noise: float


def read(
    ask: Ask, first: Layer, chart: Chart, track: Track
) -> tuple[Track, list[tuple[Partial, Kink]]]:
    """The track with the kinks it has, and what those of deeper units show of the second layer."""
    line = _Line(first, track)
    pieces = line.joined(line.pieces(track.t, track.value, track.gradient, chart, False))
    for _ in range(ROUNDS):
        t = line.asked(pieces)
        if not len(t) or len(pieces) + len(t) > segment.MOST:
            break
        reply = ask(chart.x(raised.all_on(line.z(t))))
        pieces = line.joined(pieces + line.pieces(t, reply.value, reply.gradient, chart, True))
    return line.result(track, pieces)


class _Line:
    """u + t v in the first layer's outputs: z = start + t slope."""

    def __init__(self, first: Layer, track: Track) -> None:
        self.first, self.u, self.v = first, track.u, track.v
        self.start = first.weights @ track.u + first.bias
        self.slope = first.weights @ track.v
        self.switch = -self.start / np.where(self.slope != 0, self.slope, 1e-300)

    def z(self, t: np.ndarray) -> np.ndarray:
        """[n, h] at places t [n]."""
        return self.start + np.asarray(t)[:, None] * self.slope

    def pieces(
        self, t: np.ndarray, value: np.ndarray, gradient: np.ndarray, chart: Chart, whole: bool
    ) -> list[_Piece]:
        """One for each reply; whole: these are at points raised, where every input is on."""
        z = self.z(t)
        seen = (z > 0) | whole
        g = np.where(seen, gradient[:, 0] @ chart.place, 0)
        y = raised.all_on(z) if whole else np.maximum(z, 0)
        offset = value[:, 0] - (g * y).sum(1)
        noise = np.abs(value[:, 0]) + np.abs(g * y).sum(1)
        return [_Piece(*row) for row in zip(t, t, t, g, offset, seen, noise, strict=True)]

    def joined(self, pieces: list[_Piece]) -> list[_Piece]:
        """The pieces in order, neighbours that agree as one."""
        found: list[_Piece] = []
        for piece in sorted(pieces, key=lambda p: p.low):
            if found and _agree(found[-1], piece):
                last = found.pop()
                best, other = (last, piece) if last.noise < piece.noise else (piece, last)
                merged = np.where(best.seen, best.gradient, other.gradient)
                piece = best._replace(
                    low=last.low, high=piece.high, gradient=merged, seen=best.seen | other.seen
                )
            found.append(piece)
        return found

    def asked(self, pieces: list[_Piece]) -> np.ndarray:
        """Where to see more."""
        at = [p.t for p in pieces if not p.seen.all()]
        for left, right in pairwise(pieces):
            if not (left.seen.all() and right.seen.all()):
                continue
            place = self.place(left, right)
            low, high = np.arctan([left.high, right.low])
            if segment.narrow(low, high):
                continue
            if place is None:
                at.append(float(np.tan((low + high) / 2)))
            elif not segment.bracketed(place, left.high, right.low):
                at.append(segment.beside(place, low, high))
        return np.array(at)

    def place(self, left: _Piece, right: _Piece) -> float | None:
        """Where a unit switches, if one does between; None where that cannot be."""
        inner = self.switch[(self.switch > left.high) & (self.switch < right.low)]
        t = np.array([left.high, *np.sort(inner), right.low])
        h = np.maximum(self.z(t), 0) @ (right.gradient - left.gradient) + right.offset - left.offset
        (at,) = np.nonzero((h[1:] > 0) != (h[:-1] > 0))
        if len(at) != 1:
            return None
        i = int(at[0])
        return float(t[i] + (t[i + 1] - t[i]) * (h[i] / (h[i] - h[i + 1])))

    def result(
        self, track: Track, pieces: list[_Piece]
    ) -> tuple[Track, list[tuple[Partial, Kink]]]:
        """What `read` returns."""
        kinks, found, lost = list[Kink](), list[tuple[Partial, Kink]](), 0
        on = np.ones(len(self.start), bool)
        for left, right in pairwise(pieces):
            place = self.place(left, right)
            if place is None or not (left.seen.all() and right.seen.all()):
                lost += 1
                continue
            row, bias = right.gradient - left.gradient, right.offset - left.offset
            z = self.z(np.array([place]))[0]
            kink = self.kink(place, row * (z > 0))
            length = float(np.linalg.norm(row))
            kinks.append(kink)
            found.append((Partial(np.maximum(z, 0), (on,), row / length, bias / length, on), kink))
        cuts = np.array([piece.high for piece in pieces])
        for i in np.flatnonzero(np.abs(self.switch) < segment.REACH):
            piece = pieces[min(int(np.searchsorted(cuts, self.switch[i])), len(pieces) - 1)]
            if piece.seen[i] and piece.gradient[i]:
                row = np.where(np.arange(len(on)) == i, np.sign(self.slope[i]) * piece.gradient, 0)
                kinks.append(self.kink(float(self.switch[i]), row))
        kinks.sort(key=lambda kink: kink.t)
        return replace(track, kinks=tuple(kinks), seen=(), lost=lost), found

    def kink(self, t: float, row: np.ndarray) -> Kink:
        """The kink at t where G changes by a row [h] of inputs that are on."""
        jump = row @ self.first.weights
        sign = 1.0 if jump @ self.v > 0 else -1.0
        length = float(np.linalg.norm(jump))
        return Kink(t, self.u + t * self.v, sign * jump / length, np.array([sign * length]))


def _agree(a: _Piece, b: _Piece) -> bool:
    """Whether no deeper unit switches between two pieces, as far as both show."""
    both = a.seen & b.seen
    size = max(float(np.linalg.norm(p.gradient)) for p in (a, b))
    return (
        bool(both.any()) and float(np.linalg.norm((a.gradient - b.gradient)[both])) <= AGREE * size
    )
