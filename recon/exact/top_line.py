"""Planes of units along a line, from the top label, its logit and that logit's gradient.

The service shows f = max_k z_k, which is continuous and piecewise linear.  Along a line its kinks
are of two kinds: a unit's plane, where the label stays, and a switch of the class, where it does
not.  Two neighbouring replies with one label enclose no unit if their gradients are equal.  If
not, and their tangents meet between them, they are presumed to enclose one:

      same label, other gradient        another label
        g_r - g_l = w n^T, n x + b = 0    a switch where the tangents meet, and perhaps units
        where the tangents meet           beside it: asked just past it, on its longer side

Presumed units are tested all at once (`touch`): two points on either side of all their planes
differ in gradient by sum_i W_ki n_i, whatever the class k that is on top there; two units taken
for one have their planes elsewhere, and their coefficient is zero.  Two queries for a group.
Those found to be several, and intervals whose tangents do not meet inside, are split.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact.top_replies import Log

FIRST, FIRST_UNKNOWN = 0.8, 16  # first points on a line: per unit told, or without
CROWDED = 0.8  # of the intervals hold something: all are halved
REACH = 1.5e4  # the ends of a line, in standard deviations
NARROW = 1e-8  # radians: kinks as close count as one
BESIDE, CLOSE = 1e-2, 2e-9  # how far past a meeting point an interval is split: of it; in radians
STEP = 1e-6  # how far beside its planes a touch asks, relative to the point
RETRIES = 3  # touches that cross something unknown, or another class
ROOM = 0.8  # of the dimensions may be rows touched at once: their systems stay well conditioned


class Line(NamedTuple):
    """x = u + tan(angle) v."""

    u: np.ndarray  # [d]
    v: np.ndarray  # [d]

    def at(self, angle: np.ndarray) -> np.ndarray:
        """Points [n, d]."""
        return self.u[None] + np.tan(angle)[:, None] * self.v[None]


class Planes(NamedTuple):
    """n_i x + b_i = 0, rows of length one."""

    rows: np.ndarray  # [m, d]
    bias: np.ndarray  # [m]

    def and_(self, other: Planes) -> Planes:
        return Planes(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


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
            real = touched(log, units, rng)
            sure |= {ends[i] for i in presumed[real]}
            several |= {ends[i]: 0 for i in presumed[~real]}
            continue
        else:
            switch &= False
        place = np.flatnonzero(split)
        step = np.array([-CLOSE, CLOSE])[None]
        new = np.concatenate([_split_at(iv, tries)[place], (iv.meet[switch, None] + step).ravel()])
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


def _spanned(log: Log, iv: Intervals, rows: np.ndarray) -> np.ndarray:
    """Whether the jumps [n - 1] of the gradient are sums of the rows [m, d].

    Fewer rows than dimensions add up to no other unit's: such an interval holds none.
    """
    if len(rows) >= log.dim:
        return np.zeros(len(iv.left), bool)
    basis = np.linalg.qr(rows.T)[0]
    jump = log.gradient[iv.right] - log.gradient[iv.left]
    return np.linalg.norm(jump - jump @ basis @ basis.T, axis=1) <= 1e-9 * log.scale


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


def _explained(
    log: Log, line: Line, known: Planes, iv: Intervals, which: np.ndarray
) -> np.ndarray:
    """Whether the known planes that intervals hold make all of their jumps, for `which` [n - 1]."""
    out = np.zeros(len(which), bool)
    angle = _crossings(line, known)
    for i in np.flatnonzero(which & _crossed(line, known, iv)):
        rows = known.rows[(iv.low[i] < angle) & (angle < iv.high[i])]
        jump = log.gradient[iv.right[i]] - log.gradient[iv.left[i]]
        left_over = jump - np.linalg.lstsq(rows.T, jump)[0] @ rows
        out[i] = np.linalg.norm(left_over) <= 1e2 * log.tiny and len(rows) < log.dim
    return out


def touched(log: Log, units: Planes, rng: np.random.Generator) -> np.ndarray:
    """Which of the planes [m] are units': those across which the gradient jumps far from the line.

    All false where nothing could be told, as in one dimension.
    """
    real = np.zeros(len(units.bias), bool)
    todo = np.arange(len(real))
    for _ in range(RETRIES):
        groups = beside(Planes(units.rows[todo], units.bias[todo]), rng)
        if not groups:
            break
        asked = log.ask(np.concatenate([pair for _, pair in groups])).reshape(-1, 2)
        again = np.zeros(0, int)
        for (group, _), (plus, minus) in zip(groups, asked, strict=True):
            rows, jump = units.rows[todo[group]], log.gradient[plus] - log.gradient[minus]
            part = np.linalg.lstsq(rows.T, jump)[0]
            unexplained = np.linalg.norm(jump - part @ rows) > 1e-6 * log.scale
            if log.label[plus] != log.label[minus] or unexplained:
                again = np.concatenate([again, todo[group]])
            else:
                real[todo[group]] = np.abs(part) > 1e4 * log.tiny
        todo = again
    return real


def beside(units: Planes, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Groups of planes, and for each two points [2, d] on either side of all planes in it."""
    count, dim = units.rows.shape
    if dim == 1 or not count:
        return []
    parts = -(-count // max(1, int(ROOM * dim)))
    groups = [np.arange(i, count, parts) for i in range(parts)]
    return [(group, _pair(units.rows[group], units.bias[group], rng)) for group in groups]


def _pair(rows: np.ndarray, bias: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two points [2, d] beside all planes, on either side of each, somewhere along them."""
    inverse = np.linalg.pinv(rows)
    away = rng.standard_normal(rows.shape[1])
    foot = away - inverse @ (rows @ away + bias)
    foot -= inverse @ (rows @ foot + bias)
    step = inverse @ np.ones(len(bias))
    step *= STEP * (1 + np.linalg.norm(foot)) / max(np.linalg.norm(step), 1.0)
    return np.stack([foot + step, foot - step])
