"""The first layer: which kinks of a line are hyperplanes of the whole space.

A unit of the first layer switches on a hyperplane; a deeper one on a surface that bends wherever
a unit before it switches.  So candidates are touched elsewhere, many at once: two replies beside
a point that lies on all of their planes; the jump is a sum over those that are real there.  All
normals, of every layer, lie in the span of the first layer's rows, whose rank is that of all
Jacobians seen; groups are half of it at most.

Signs cost nothing: J = C W with C_i = 0 where unit i is off.  Every reply then tests the layer:
J lies in its span and each C_i vanishes on one side of its plane alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact import certify, touch
from recon.exact.deep.known import Layer
from recon.exact.deep.segment import Ask
from recon.exact.deep.track import Kink, Track

MARGIN = 1e-5  # how far beside a plane it is touched, relative to the radius
DRAWS = 64  # of signs, of which the shortest step is taken
RADII = (1.0, 3.0, 10.0, 0.3)  # of the touching points, in turn
REAL = 1e-8  # of the gradients' size: a jump
SAME = 1e-7  # planes that differ less are one
DOUBTFUL = 2  # planes more than inputs that may be deeper kinks, until they are touched again
TURNS = 6  # of touches, at most
OUTSIDE = 1e-8  # of the Jacobians: what may lie outside of the layer's span
BOTH = 1e-6  # of a unit's part in them where it is on: what it may have where it is off
SPAN = 1e-9  # of the largest singular value: rank


class Planes(NamedTuple):
    """Candidates: normals [m, d] of length one and offsets [m], normal x + offset = 0."""

    normal: np.ndarray
    offset: np.ndarray
    votes: np.ndarray  # [m] touches passed less touches failed


def stacked(kinks: Sequence[Kink]) -> Planes:
    """The planes of kinks."""
    normal = np.array([kink.normal for kink in kinks])
    offset = -np.array([kink.normal @ kink.x for kink in kinks])
    return Planes(normal, offset, np.zeros(len(kinks)))


def joined(a: Planes | None, b: Planes) -> Planes:
    """Both."""
    return b if a is None else Planes(*(np.concatenate(both) for both in zip(a, b, strict=True)))


def of_kinks(kinks: Sequence[Kink], passed: np.ndarray | None = None) -> Planes:
    """The planes of kinks, each once; those on two lines have passed a touch.

    passed [m]: the touches that each kink has passed, by default none.
    """
    dim = len(kinks[0].x) if kinks else 0
    normal, offset, votes = np.zeros((0, dim)), np.zeros(0), np.zeros(0)
    passed = np.zeros(len(kinks)) if passed is None else passed
    for kink, vote in zip(kinks, passed, strict=True):
        level = -float(kink.normal @ kink.x)
        cosine = normal @ kink.normal
        same = np.abs(np.abs(cosine) - 1) < SAME
        same &= np.abs(offset - np.sign(cosine) * level) < 10 * SAME * (1 + abs(level))
        if same.any():
            votes[np.argmax(same)] += 2 + vote
            continue
        normal = np.concatenate([normal, kink.normal[None]])
        offset, votes = np.append(offset, level), np.append(votes, vote)
    return Planes(normal, offset, votes)


def rank(tracks: Sequence[Track]) -> int:
    """Of all Jacobians seen: the width of the first layer, where it is below d."""
    rows = _rows(tracks)
    values = np.linalg.svd(rows, compute_uv=False) if len(rows) else np.zeros(0)
    return int(np.sum(values > SPAN * max(values.max(initial=0.0), 1.0)))


def toward(tracks: Sequence[Track], planes: Planes, v: np.ndarray) -> np.ndarray:
    """The part of v [d] along which no plane is crossed, of what Jacobians seen span; all of it
    where nothing is left.

    On such a line the first layer's units that are missing switch, and none of those known.
    """
    known = _span(planes.normal)
    rows = _rows(tracks)
    missing = _span(rows - (rows @ known.T) @ known)
    return (missing @ v) @ missing if len(missing) else v


def _rows(tracks: Sequence[Track]) -> np.ndarray:
    """All rows of Jacobians seen [n, d], of length one."""
    rows = np.concatenate([t.gradient.reshape(-1, t.gradient.shape[2]) for t in tracks])
    size = np.linalg.norm(rows, axis=1)
    used = size > SPAN * size.max(initial=0.0)
    return np.asarray(rows[used] / size[used, None])


def _span(rows: np.ndarray) -> np.ndarray:
    """An orthonormal basis [r, d] of rows [n, d], of length one or what was left of such."""
    if not len(rows):
        return rows
    _, values, basis = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(basis[values > SPAN * max(values[0], 1.0)])


def touched(
    ask: Ask,
    planes: Planes,
    which: np.ndarray,
    radius: float,
    rng: np.random.Generator,
    short: bool = False,
) -> np.ndarray | None:
    """Whether each of the planes `which` is real beside a random point on all of them.

    Two queries; None where the jump is not a sum over them, or the victim is flat there.  short:
    cross nearly parallel planes the same way (`_short`), not each in a random one.
    """
    rows, keep, inverse = touch.factor(planes.normal[which], np.ones(len(which), bool))
    sign = _short(rows, inverse, rng) if short else rng.choice([-1.0, 1.0], len(which))
    step = (np.where(keep, MARGIN * radius * sign, 0.0) @ inverse) @ rows
    foot = touch.pairs(
        rng.standard_normal((1, rows.shape[1])),
        rows,
        inverse,
        np.where(keep, -planes.offset[which], 0.0)[None],
        np.array([radius]),
    )[0, 0]
    reply = ask(np.stack([foot + step, foot - step]))
    size = float(np.linalg.norm(reply.gradient, axis=(1, 2)).sum())
    if size == 0:
        return None
    jump = reply.gradient[0] - reply.gradient[1]
    a = np.stack([touch.coefficients(rows, inverse, row) for row in jump])
    if np.linalg.norm(jump - a @ rows) > SPAN * size:
        return None
    return (np.linalg.norm(a, axis=0) > REAL * size) & keep


def _short(rows: np.ndarray, inverse: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signs [m] of a short vector's products with rows [m, d], all of one size.

    Planes of one deeper unit can be nearly parallel; crossed the same way they take a short step,
    which no other plane is likely to cut.
    """
    signs = np.where(rng.standard_normal((DRAWS, rows.shape[1])) @ rows.T > 0, 1.0, -1.0)
    return np.asarray(signs[np.argmin(((signs @ inverse) * signs).sum(1))])


def orient(planes: Planes, tracks: Sequence[Track]) -> tuple[Layer, float, float]:
    """The layer of these planes with signs; how far J leaves their span, relative to it; and the
    largest coefficient of a unit that is off, relative to where it is on.
    """
    normal, offset, _ = planes
    gradient = np.concatenate([t.gradient for t in tracks])
    x = np.concatenate([t.x for t in tracks])
    flat = gradient.reshape(-1, gradient.shape[2])
    a = flat @ np.linalg.pinv(normal)
    outside = float(np.linalg.norm(flat - a @ normal)) / max(float(np.linalg.norm(flat)), 1e-300)
    a = np.linalg.norm(a.reshape(*gradient.shape[:2], -1), axis=1)
    side = x @ normal.T + offset > 0
    above, below = (np.where(on, a, 0).max(0) for on in (side, ~side))
    sign = np.where(above > below, 1.0, -1.0)
    wrong = np.minimum(above, below) / np.maximum(np.maximum(above, below), 1e-300)
    return Layer(normal * sign[:, None], offset * sign), outside, float(wrong.max(initial=0.0))


def signed(planes: Planes, tracks: Sequence[Track], of: int) -> Layer | None:
    """The layer of these planes, if every Jacobian seen, which are of rank `of`, bears it out."""
    if not 0 < len(planes.offset) <= of:
        return None
    made, outside, wrong = orient(planes, tracks)
    return made if outside < OUTSIDE and wrong < BOTH else None


class Found(NamedTuple):
    """The first layer, or else the planes that are real as far as seen, and why they are none;
    votes [m]: of all candidates, in the order of kinks.
    """

    layer: Layer | None
    planes: Planes
    votes: np.ndarray
    why: str

    @property
    def wide(self) -> bool:
        """Whether the planes are more than the inputs, and all that is to be had."""
        return self.layer is None and not self.why


def layer(
    ask: Ask, tracks: Sequence[Track], rng: np.random.Generator, before: np.ndarray | None = None
) -> Found:
    """The first layer among the kinks of lines; only its planes where they are more than inputs.

    before: votes of the first candidates, from a search of fewer lines.
    """
    planes = of_kinks([kink for track in tracks for kink in track.kinks])
    votes, tried = planes.votes.copy(), np.zeros(len(planes.votes), bool)
    if before is not None:
        votes[: len(before)] = np.maximum(before, votes[: len(before)])
        tried[: len(before)] = True
    (_, _, dim), of = tracks[0].gradient.shape, rank(tracks)
    if not len(votes):
        return Found(None, planes._replace(normal=np.zeros((0, dim))), votes, "no kink")
    group = max(1, min(of // 2, certify.group_size(dim)))
    why, idle = "no plane", 0
    for turn in range(TURNS):
        real = votes > 0
        if not tried.all():
            todo = ~tried & ~real
        elif real.sum() <= of and (turn < 2 or real.sum() < of < dim):
            todo = ~real
        else:
            todo = real
        which = rng.permutation(np.flatnonzero(todo))
        parts = len(which) if turn and len(which) <= 6 else -(-len(which) // group)
        for part in np.array_split(which, max(parts, 1)):
            if not len(part):
                continue
            for again in range(3):
                found = touched(ask, planes, part, RADII[(turn + again) % 4], rng)
                if found is not None:
                    break
            else:
                continue
            doubt = real.sum() > of or turn > 1
            votes[part] += np.where(found, 1, np.where(votes[part] > 0, -1 if doubt else 0, 0))
        tried[:] = True
        idle = idle + 1 if ((votes > 0) == real).all() else 0
        real = votes > 0
        whole = Planes(*(part[real] for part in planes))
        if of == dim and real.sum() > of + (DOUBTFUL if turn < 3 else 0):
            return Found(None, whole, votes, "")
        why = f"{int(real.sum())} planes of rank {of}"
        if not real.any() or real.sum() > of:
            continue
        made, outside, wrong = orient(whole, tracks)
        why = f"{why}, {outside:.0e} outside, {wrong:.0e} wrong"
        if outside < OUTSIDE and wrong < BOTH:
            return Found(made, whole, votes, "")
        if idle and real.sum() < of:  # what is missing switches where the victim is flat
            break
    return Found(None, Planes(*(part[votes > 0] for part in planes)), votes, why)
