"""The first layer of a victim of one output: kinks of a line, presumed and touched.

With one output the difference of two gradients proves nothing: any number of kinks may be behind
it.  Where the tangents of neighbouring replies meet between them, one kink is presumed; all that
are presumed are touched together (`first.touched`), which costs two queries for many of them and
tells those of the first layer.  The others are kinks of deeper units, or several: they are split
just beside the meeting point, on its longer side, where two kinks of equal sign part and a single
one answers with the gradient of the far end.  The search ends with the first layer; what it left
open is read once that is known (`masked`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from recon.exact import certify
from recon.exact.deep import first, segment
from recon.exact.deep.known import Layer
from recon.exact.deep.segment import Ask, Point
from recon.exact.deep.track import Kink, Track
from recon.replies import Reply

PARTS = 3  # of the kinks bracketed on one side, of which the widest is bracketed on both at once
APART = 0.02  # from the span of the others, a normal of length one that is touched with them
MOST, EACH = 256, 16  # points, and more for each rank: else the victim bends smoothly
TRIES = 3  # of a touch that tells nothing


class Found(NamedTuple):
    """A line as far as it was searched, and the first layer, where it shows one; votes [m]: which
    kinks of the line passed a touch.
    """

    track: Track
    layer: Layer | None
    votes: np.ndarray


class _Gap(NamedTuple):
    """Two neighbouring replies that differ, and the kink presumed between; None: several."""

    left: Point
    right: Point
    kink: Kink | None

    @property
    def ends(self) -> tuple[float, float]:
        return self.left.s, self.right.s


def search(
    ask: Ask,
    u: np.ndarray,
    v: np.ndarray,
    eps: float,
    scale: float,
    asked: tuple[np.ndarray, Reply],
    rng: np.random.Generator,
    planes: first.Planes | None = None,
    tracks: Sequence[Track] = (),
) -> Found:
    """The whole line u + t v, where replies at places t [n] were asked for already.

    planes: of the first layer that are known, from these tracks, and that the line does not cross.
    """
    line = segment.Line(ask, u, v, None, eps, scale, None, 0)
    points = line.first(asked)
    real: dict[tuple[float, float], bool] = {}  # kinks touched, by the replies around
    most = MOST + EACH * first.rank([line.track(points), *tracks])
    while True:
        points.sort(key=lambda p: p.s)
        gaps = _gaps(line, points)
        line.kinks = [gap.kink for gap in gaps if gap.kink is not None]
        wide = [gap for gap in gaps if not segment.narrow(gap.left.s, gap.right.s)]
        cuts = [gap for gap in wide if gap.kink is None]
        new = [gap for gap in gaps if gap.kink and gap.ends not in real and not _beside(gap)]
        if not cuts and new:
            every = [*tracks, line.track(points)]
            of = first.rank(every)
            _touch(ask, new, real, of, rng)
            kinks = [gap.kink for gap in gaps if gap.kink and real.get(gap.ends)]
            whole = first.joined(planes, first.stacked(kinks)) if kinks else planes
            made = None if whole is None else first.signed(whole, every, of)
            if made is not None:
                break
        cuts += [gap for gap in wide if real.get(gap.ends) is False]
        if not cuts:  # units are missing: two kinks of unlike sign may be on the shorter side
            cuts = _widest([g for g in wide if g.ends not in real and not _beside(g, True)])
        if not cuts or len(points) + len(cuts) > most:
            made = None
            break
        points += line.ask(np.array([_cut(line, gap) for gap in cuts]))
    votes = np.array([real.get(gap.ends, False) for gap in gaps if gap.kink], float)
    return Found(line.track(points), made, votes)


def _widest(gaps: list[_Gap]) -> list[_Gap]:
    """The part of the gaps that is the likeliest to hold several kinks."""
    return sorted(gaps, key=lambda gap: gap.left.s - gap.right.s)[: -(-len(gaps) // PARTS)]


def _gaps(line: segment.Line, points: list[Point]) -> list[_Gap]:
    """Where neighbouring points differ."""
    gaps = []
    for left, right in pairwise(points):
        jump = right.gradient - left.gradient
        start, slope = right.start - left.start, right.slope - left.slope
        noise = left.noise + right.noise + 1e-300
        if not line.nothing(jump, start, slope, left.t, noise):
            kink = line.single(jump, start, slope, left, right, noise)
            gaps.append(_Gap(left, right, kink if isinstance(kink, Kink) else None))
    return gaps


def _beside(gap: _Gap, both: bool = False) -> bool:
    """Whether a kink was bracketed on one side, or on both."""
    assert gap.kink is not None
    return segment.bracketed(gap.kink.t, gap.left.t, gap.right.t, both)


def _cut(line: segment.Line, gap: _Gap) -> float:
    """Where to split: halfway, or beside the kink presumed, on the longer side."""
    if gap.kink is None:
        return (gap.left.s + gap.right.s) / 2
    return line.s_of(segment.beside(gap.kink.t, gap.left.s, gap.right.s))


def _touch(
    ask: Ask,
    gaps: list[_Gap],
    real: dict[tuple[float, float], bool],
    rank: int,
    rng: np.random.Generator,
) -> None:
    """Note which of the kinks presumed are planes of the whole space."""
    planes = first.stacked([gap.kink for gap in gaps if gap.kink])
    most = max(1, min(rank // 2, certify.group_size(planes.normal.shape[1])))
    todo = [(group, 0) for group in _groups(planes.normal, most, rng)]
    while todo:
        group, turn = todo.pop()
        found = first.touched(ask, planes, group, first.RADII[turn], rng, short=True)
        if found is None and turn + 1 < TRIES:
            todo += [(half, turn + 1) for half in np.array_split(group, min(2, len(group)))]
            continue
        for i, passed in zip(group, np.zeros(len(group)) if found is None else found, strict=True):
            real[gaps[i].ends] = bool(passed)


def _groups(normal: np.ndarray, most: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The numbers of normals [m, d] in groups of so many at most, far from dependent in each, as
    those of one deeper unit may nearly be.
    """
    groups, bases = list[list[int]](), list[np.ndarray]()
    for i in rng.permutation(len(normal)):
        for group, basis in zip(groups, bases, strict=True):
            rest = normal[i] - basis[: len(group)].T @ (basis[: len(group)] @ normal[i])
            if len(group) < most and np.linalg.norm(rest) > APART:
                basis[len(group)] = rest / np.linalg.norm(rest)
                group.append(int(i))
                break
        else:
            groups.append([int(i)])
            bases.append(np.zeros((most, normal.shape[1])))
            bases[-1][0] = normal[i]
    return [np.array(group) for group in groups]
