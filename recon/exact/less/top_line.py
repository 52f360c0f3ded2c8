"""Planes of units along a line, from the top label, its logit and that logit's gradient.

The service shows f = max_k z_k, which is continuous and piecewise linear.  Along a line its kinks
are of two kinds: a unit's plane, where the label stays, and a switch of the class, where it does
not.  Two neighbouring replies with one label enclose no unit if their gradients are equal.  If
not, and their tangents meet between them, they are presumed to enclose one:

      same label, other gradient        another label
        g_r - g_l = w n^T, n x + b = 0    a switch where the tangents meet, and perhaps units
        where the tangents meet           beside it: asked just past it, on its longer side

Where the gradients of all classes are sums of the rows presumed, these are units'; else the planes
are asked beside, all at once (`top_touch`).  Those found to be several, and intervals
whose tangents do not meet inside, are split.  A switch that what is known adds up to needs no
query: a unit that hid beside it would be a direction of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact.less.chords import Wild
from recon.exact.less.top_replies import SUMS, Log
from recon.exact.less.top_touch import Planes, touched

FIRST, FIRST_UNKNOWN = 0.6, 12  # first points on a line: per unit told, or without
CROWDED = 0.92  # of the intervals hold something: all are halved
REACH = 1.5e4  # the ends of a line, in standard deviations
MANY = 1 << 13  # replies on a line at most
NARROW = 1e-8  # radians: kinks as close count as one
BESIDE, CLOSE = 1e-2, 2e-9  # how far past a meeting point an interval is split: of it; in radians


class Line(NamedTuple):
    """x = u + tan(angle) v."""

    u: np.ndarray  # [d]
    v: np.ndarray  # [d]

    def at(self, angle: np.ndarray) -> np.ndarray:
        """Points [n, d]."""
        return self.u[None] + np.tan(angle)[:, None] * self.v[None]


class Intervals(NamedTuple):
    """Between neighbours on the line, [n - 1] each."""

    left: np.ndarray  # numbers of the replies at the ends
    right: np.ndarray
    low: np.ndarray  # their angles
    high: np.ndarray
    meet: np.ndarray  # angle where the tangents meet, inf if nowhere
    inside: np.ndarray  # whether that is between the ends
    same: np.ndarray  # whether the labels are equal
    full: np.ndarray  # whether anything changes
    convex: np.ndarray  # whether f bends upwards, as it must where classes switch


def intervals(log: Log, line: Line, angle: np.ndarray, at: np.ndarray) -> Intervals:
    """The intervals between the replies `at` [n] at the angles [n], in order."""
    order = np.argsort(angle)
    left, right, low, high = at[order][:-1], at[order][1:], angle[order][:-1], angle[order][1:]
    same = log.label[left] == log.label[right]
    full = ~same | (np.linalg.norm(log.gradient[right] - log.gradient[left], axis=1) > log.tiny)
    slope, t = log.gradient[at[order]] @ line.v, np.tan(angle[order])
    offset = log.value[at[order]] - slope * t
    bend = np.diff(slope)
    with np.errstate(divide="ignore", invalid="ignore"):
        meet = np.arctan(np.where(bend != 0, -np.diff(offset) / bend, np.inf))
    return Intervals(
        *(left, right, low, high, meet, (low < meet) & (meet < high), same, full, bend > 0)
    )


def search(
    log: Log, line: Line, known: Planes, width: int | None, rng: np.random.Generator
) -> Planes:
    """Planes that the line crosses and that are not known."""
    first = FIRST_UNKNOWN if width is None else max(4, int(np.ceil(FIRST * width)))
    inner = np.pi * ((np.arange(first) + 0.5) / first - 0.5)
    end = np.arctan(REACH)
    angle = np.concatenate([[-end], inner, [end]])
    at = log.ask(line.at(angle))
    sure: set[tuple[int, int]] = set()  # intervals known to hold one unit, or one switch alone
    several: dict[tuple[int, int], int] = {}  # others, and how often they were split in vain
    crowded = True
    while True:
        iv = intervals(log, line, angle, at)
        ends = list(zip(iv.left.tolist(), iv.right.tolist(), strict=True))
        tries = np.array([several.get(e, -1) for e in ends])
        open_ = iv.full & np.array([e not in sure for e in ends]) & (iv.high - iv.low > NARROW)
        open_ &= ~_explained(log, line, known, iv, open_ & iv.same)
        crowded = crowded and bool(np.mean(iv.full) > CROWDED)
        whole = iv.inside & (tries < 0) & (iv.same | iv.convex) & ~_crossed(line, known, iv)
        split = open_ & (~whole | crowded)
        switch = open_ & whole & ~iv.same & ~split
        presumed = np.flatnonzero(open_ & whole & iv.same)
        if not split.any() and not len(presumed):
            units = _planes(log, line, iv, np.flatnonzero(_held(iv, ends, sure)))
            switch &= ~_spanned(log, iv, known.and_(units).rows)
            if not switch.any():
                return units
        elif not split.any():
            units = _planes(log, line, iv, presumed)
            held = _planes(log, line, iv, np.flatnonzero(_held(iv, ends, sure)))
            real = _confirmed(log, known.and_(held), units, log.label[iv.left[presumed]])
            real = real if real.all() else touched(log, units, rng)
            sure |= {ends[i] for i in presumed[real]}
            several |= {ends[i]: 0 for i in presumed[~real]}
            continue
        else:
            switch &= False
        place = np.flatnonzero(split)
        step = np.array([-CLOSE, CLOSE])[None]
        new = np.concatenate([_split_at(iv, tries)[place], (iv.meet[switch, None] + step).ravel()])
        if len(at) + len(new) > MANY:
            raise Wild(f"{len(at)} replies on a line leave {int(open_.sum())} gaps unexplained.")
        asked = log.ask(line.at(new))
        angle, at = np.concatenate([angle, new]), np.concatenate([at, asked])
        for i, middle in zip(place, asked.tolist(), strict=False):
            left, right = ends[i]
            if tries[i] >= 0:  # the half that is not empty passes on what was known of the whole
                several |= {(left, middle): tries[i] + 1} if _equal(log, middle, right) else {}
                several |= {(middle, right): tries[i] + 1} if _equal(log, left, middle) else {}


def _held(iv: Intervals, ends: list[tuple[int, int]], sure: set[tuple[int, int]]) -> np.ndarray:
    """Which intervals [n - 1] hold a unit: one that was touched, or that is bracketed."""
    known = np.array([e in sure for e in ends]) | (iv.high - iv.low <= NARROW)
    return iv.full & iv.same & iv.inside & known


def _confirmed(log: Log, known: Planes, units: Planes, label: np.ndarray) -> np.ndarray:
    """Which planes [m], presumed from gradients of one class each, other classes' confirm.

    Of two units taken for one, the sum of rows is another in another class: its gradients are no
    sums of the rows presumed.
    """
    parts = log.parts(known.and_(units).rows)
    if parts is None:
        return np.zeros(len(label), bool)
    shown = np.abs(parts[:, len(known.bias) :]) > log.shown
    return np.asarray((shown & (log.label[:, None] != label[None])).any(0))


def _spanned(log: Log, iv: Intervals, rows: np.ndarray) -> np.ndarray:
    """Whether the jumps [n - 1] of the gradient are sums of the rows [m, d].

    Fewer rows than dimensions add up to no other unit's: such an interval holds none.
    """
    if len(rows) >= log.dim:
        return np.zeros(len(iv.left), bool)
    basis = np.linalg.qr(rows.T)[0]
    jump = log.gradient[iv.right] - log.gradient[iv.left]
    return np.linalg.norm(jump - jump @ basis @ basis.T, axis=1) <= SUMS * log.scale


def _equal(log: Log, a: int, b: int) -> bool:
    jump = np.linalg.norm(log.gradient[a] - log.gradient[b])
    return bool(log.label[a] == log.label[b] and jump <= log.tiny)


def _split_at(iv: Intervals, tries: np.ndarray) -> np.ndarray:
    """Where to ask inside each interval, an angle.

    Just past the meeting point, where kinks that bend alike must part, on its longer side; then
    so close to it, on either side, that a unit whose touch told nothing is bracketed.
    """
    width = iv.high - iv.low
    to_right = iv.high - iv.meet > iv.meet - iv.low
    beside = np.where(tries <= 0, BESIDE * width, CLOSE)
    past = iv.meet + np.where(to_right, beside, -beside)
    away = np.where(iv.meet < iv.low, iv.low + 0.3 * width, iv.high - 0.3 * width)
    away = np.where(np.isfinite(iv.meet), away, iv.low + 0.5 * width)
    fits = iv.inside & (tries >= 0) & (tries < 4) & (iv.low < past) & (past < iv.high)
    return np.where(fits, past, np.where(iv.inside, iv.low + 0.5 * width, away))


def _planes(log: Log, line: Line, iv: Intervals, which: np.ndarray) -> Planes:
    """The planes that intervals [m] of one kink each enclose, n v > 0."""
    jump = log.gradient[iv.right[which]] - log.gradient[iv.left[which]]
    size = np.linalg.norm(jump, axis=1) * np.where(jump @ line.v > 0, 1.0, -1.0)
    rows = jump / size[:, None]
    return Planes(rows, -np.einsum("md,md->m", rows, line.at(iv.meet[which])))


def _crossings(line: Line, planes: Planes) -> np.ndarray:
    """The angles [m] at which the line crosses the planes."""
    along = planes.rows @ line.v
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.arctan(-(planes.rows @ line.u + planes.bias) / along)


def _crossed(line: Line, known: Planes, iv: Intervals) -> np.ndarray:
    """Whether each interval holds a known plane."""
    angle = np.sort(_crossings(line, known))
    return np.searchsorted(angle, iv.high) > np.searchsorted(angle, iv.low)


def _explained(log: Log, line: Line, known: Planes, iv: Intervals, which: np.ndarray) -> np.ndarray:
    """Whether the known planes that intervals hold make all of their jumps, for `which` [n - 1]."""
    out = np.zeros(len(which), bool)
    angle = _crossings(line, known)
    for i in np.flatnonzero(which & _crossed(line, known, iv)):
        rows = known.rows[(iv.low[i] < angle) & (angle < iv.high[i])]
        jump = log.gradient[iv.right[i]] - log.gradient[iv.left[i]]
        left_over = jump - np.linalg.lstsq(rows.T, jump)[0] @ rows
        out[i] = np.linalg.norm(left_over) <= 1e2 * log.tiny and len(rows) < log.dim
    return out
