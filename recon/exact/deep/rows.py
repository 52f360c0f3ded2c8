"""Candidates for rows of the next layer, and which of them every line searched bears out.

A kink in the region where all known units are on shows a whole row w of the next layer (or of a
deeper one, in whose cell it lies alone).  A row of the next layer predicts, from the known layers,
every place where its unit switches on every line searched so far: a deeper one does not keep what
it predicts.  So most candidates are told apart without a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact.deep import known
from recon.exact.deep.known import Layer, Layers
from recon.exact.deep.lift import Partial
from recon.exact.deep.track import Kink, Track

CLOSE = 1e-6  # relative to 1 + |t|: a kink at the place predicted
FAR = 1e4  # of a whole line, in t: beyond, nothing is predicted
SAME, ALONE = 1e-6, 1e-8  # rows that differ less are one; where one weight and the bias tell
MARGIN = 4  # times more predictions of a row must hold than fail
LEAST = 1e-9  # of a row: what is seen in both must not be less


class Rows(NamedTuple):
    """Candidates w [m, h] and beta [m], with |(w, beta)| one: w y + beta = 0 where they switch.

    seen [m, h]: the inputs whose weights are known, the others are zero; parts: of each the kinks
    it was merged from; kept, broken: how many predictions were borne out, and were not.
    """

    weights: np.ndarray
    bias: np.ndarray
    seen: np.ndarray
    parts: tuple[tuple[tuple[Partial, Kink], ...], ...]
    kept: np.ndarray
    broken: np.ndarray

    def some(self, which: np.ndarray) -> Rows:
        """Those chosen, by a mask or numbers; copies."""
        chosen = tuple(self.parts[i] for i in np.arange(len(self.bias))[which])
        rest = (a[which] for a in (self.kept, self.broken))
        return Rows(self.weights[which], self.bias[which], self.seen[which], chosen, *rest)

    def plus(self, other: Rows) -> Rows:
        """Both."""
        return Rows(
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.bias, other.bias]),
            np.concatenate([self.seen, other.seen]),
            self.parts + other.parts,
            np.concatenate([self.kept, other.kept]),
            np.concatenate([self.broken, other.broken]),
        )

    @property
    def whole(self) -> np.ndarray:
        """Which of them are known in all inputs [m]."""
        return np.asarray(self.seen.all(1))

    @property
    def right(self) -> np.ndarray:
        """Which of them keep what they predict, but for few exceptions [m]."""
        return np.asarray((self.broken == 0) | (self.kept > MARGIN * self.broken))

    def layer(self, sign: np.ndarray | None = None) -> Layer:
        """The layer of these rows, with lengths of one, with signs [m] or as they are."""
        length = np.linalg.norm(np.where(self.seen, self.weights, 0), axis=1)
        length = length * (1 if sign is None else sign)
        return Layer(self.weights / length[:, None], self.bias / length)


def _ratios(weights: np.ndarray, bias: np.ndarray, seen: np.ndarray, part: Partial) -> np.ndarray:
    """By what a part must be multiplied to agree with each of the rows [m] on the inputs seen in
    both; nan where it does not, or nothing is seen in both.
    """
    both = seen & part.seen[None]
    ours = np.column_stack([np.where(both, weights, 0), bias])
    other = np.column_stack([np.where(both, part.weights[None], 0), np.full(len(bias), part.bias)])
    square = np.sum(other**2, 1)
    ratio = np.sum(ours * other, 1) / np.maximum(square, 1e-300)
    size = np.linalg.norm(ours, axis=1)
    count = both.sum(1)
    close = np.where(count > 1, SAME, ALONE) * size
    fits = (count > 0) & (size > LEAST) & (np.sqrt(square) > LEAST) & (ratio != 0)
    fits &= np.linalg.norm(ours - ratio[:, None] * other, axis=1) <= close
    return np.where(fits, ratio, np.nan)


def merged(found: Sequence[tuple[Partial, Kink]], width: int) -> Rows:
    """Candidates from what kinks show: those of one unit agree, up to scale, where seen in both."""
    weights, bias, seen = np.zeros((0, width)), np.zeros(0), np.zeros((0, width), bool)
    parts: list[tuple[tuple[Partial, Kink], ...]] = []
    for first in sorted(found, key=lambda pair: -int(pair[0].seen.sum())):
        part, again = first[0], True
        kinks: tuple[tuple[Partial, Kink], ...] = (first,)
        while again:  # what has grown may meet others
            ratios = _ratios(weights, bias, seen, part)
            again = bool(np.isfinite(ratios).any())
            if again:
                i = int(np.flatnonzero(np.isfinite(ratios))[0])
                new = part.seen & ~seen[i]
                grown = np.where(new, ratios[i] * part.weights, weights[i])
                part = part._replace(weights=grown, bias=float(bias[i]), seen=seen[i] | new)
                kinks = parts.pop(i) + kinks
                keep = np.arange(len(bias)) != i
                weights, bias, seen = weights[keep], bias[keep], seen[keep]
        length = np.hypot(np.linalg.norm(part.weights), part.bias)
        weights = np.concatenate([weights, part.weights[None] / length])
        bias = np.append(bias, part.bias / length)
        seen = np.concatenate([seen, part.seen[None]])
        parts.append(kinks)
    none = np.zeros(len(bias), int)
    return Rows(weights, bias, seen, tuple(parts), none, none)


class Pieces(NamedTuple):
    """A line cut where known units switch: t [n] and y [n, h] of the last layer there, which is
    linear between; on [n - 1, h] its units that are on between.
    """

    t: np.ndarray
    y: np.ndarray
    on: np.ndarray


def pieces(layers: Layers, track: Track) -> Pieces:
    """The line of a track, as known layers cut it; not farther than FAR."""
    low, high = max(track.ends[0], -FAR), min(track.ends[1], FAR)
    inner = [c.t for c in known.crossings(layers, track.u, track.v, low, high)]
    t = np.array([low, *inner, high])
    y = known.after(layers, track.u + t[:, None] * track.v)
    middle = (t[1:] + t[:-1]) / 2
    on = known.before(layers, track.u + middle[:, None] * track.v)[-1] > 0
    return Pieces(t, y, on)


def predicted(rows: Rows, cut: Pieces) -> tuple[np.ndarray, np.ndarray]:
    """Places [c] where candidates switch on a line, and which of them each is."""
    z = cut.y @ rows.weights.T + rows.bias
    hidden = cut.on.astype(float) @ (~rows.seen).astype(float).T > 0  # inputs unseen are on
    piece, unit = np.nonzero(((z[:-1] > 0) != (z[1:] > 0)) & ~hidden)
    first, last = z[piece, unit], z[piece + 1, unit]
    at = cut.t[piece] + (cut.t[piece + 1] - cut.t[piece]) * (first / (first - last))
    return at, unit


def weighed(rows: Rows, tracks: Sequence[Track], cuts: Sequence[Pieces]) -> Rows:
    """The candidates with how many of their predictions hold.

    Two switches between neighbouring replies may leave no trace, and one where the victim is flat
    leaves none: these count as nothing.
    """
    kept, broken = np.zeros(len(rows.bias), int), np.zeros(len(rows.bias), int)
    for track, cut in zip(tracks, cuts, strict=True):
        at, unit = predicted(rows, cut)
        met = np.sort(np.array([k.t for k in track.kinks] + list(track.seen)))
        if len(met):
            i = np.clip(np.searchsorted(met, at), 1, len(met) - 1) if len(met) > 1 else 0 * unit
            near = np.abs(at - met[i])
            near = np.minimum(near, np.abs(at - met[i - 1])) if len(met) > 1 else near
        else:
            near = np.full(len(at), np.inf)
        good = near < CLOSE * (1 + np.abs(at))
        np.add.at(kept, unit[good], 1)
        cell = np.searchsorted(track.t, at)
        flat = np.append(~track.gradient.any((1, 2)), False)
        dead = flat[cell] & flat[np.maximum(cell - 1, 0)]
        for j in np.flatnonzero(~good & ~dead):
            if ((cell == cell[j]) & (unit == unit[j])).sum() == 1:
                broken[unit[j]] += 1
    return rows._replace(kept=kept, broken=broken)
