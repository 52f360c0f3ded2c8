"""Two hidden layers of which the first is wider than the input: d < h_1.

Jacobians then have full rank wherever they are looked at, and no region shows whole rows.  But a
unit of the last hidden layer, with output weights V_j, jumps by V_j n^T at every kink: the
direction of the jump names the unit, its length the scale of n.  All lines searched go through
one point, from which the signs of n alternate along each; so each kink is d + 1 linear equations
for its unit, whatever the signs of the first layer (`surface`).

    planes   of the whole space (`first`); those that a second line does not meet are none
    signs    what lacks of a few units is seen beyond vertices; L_j = sum_i s_i c_ji m_i is a linear
             system for the signs of the first layer, whose solution must be +-1
    units    of the others, with signs known, less is to be seen
    output   and fresh points; where one is not met, the segment to it shows what is missing
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact.deep import first, known, layer, output, surface
from recon.exact.deep.known import Layer
from recon.exact.deep.layer import Last
from recon.exact.deep.search import FAR, Search, Stuck
from recon.exact.deep.surface import Sight, Solved
from recon.exact.deep.track import Kink, Track

SAME = 1e-6  # directions of jumps that differ less are one unit's
SIGN = 1e-4  # how far a sign may be from one
FAILS = 3  # steps of one unit that show nothing, in a row
LINES = 4  # through the point, at most
TURNS = 40
STEPS = 40  # of one unit, at most
CLOSE = 1e-7  # relative: a kink on a plane


class Unit(NamedTuple):
    """A unit of the second layer: the direction of its jumps [K], and its kinks."""

    direction: np.ndarray
    seen: list[Sight]


def last(s: Search, planes: first.Planes, fresh: int, others: np.ndarray) -> Last:
    """The second and last hidden layer; Stuck where it is not found.  `s.layers` gets the first.

    fresh: how many standard normal points the network must meet, and others [m, d] besides.
    """
    if s.log.value[0].shape[1] < 2:
        raise Stuck(f"Layer 1 is wider than the {s.dim} inputs: that takes two outputs.")
    wide = _Wide(s, planes)
    wide.line()
    wide.confirm()
    bad: np.ndarray | None = None
    for _ in range(TURNS):
        if not wide.signed and not wide.sign():
            wide.line()
            continue
        for unit in wide.units:
            wide.complete(unit)
        layers, _ = wide.layers()
        fit = wide.fit(layers)
        if fit is None:
            wide.line()
            continue
        s.layers = layers[:1]
        ends = layer.disagreement(s, layers, fit, fresh, others)
        if isinstance(ends, np.ndarray):
            return Last(layers[1], fit.output, ends)
        if bad is not None and (bad == ends[1]).all():  # the segment to it showed nothing
            wide.line()
            continue
        bad = ends[1]
        wide.search(bad - wide.origin, (0.0, 1.0))
    raise Stuck(f"Layer 2: {len(wide.units)} units, and not all of them.")


class _Wide:
    def __init__(self, s: Search, planes: first.Planes) -> None:
        self.s, self.signed, self.lines = s, False, 1
        self.first = Layer(planes.normal, planes.offset)
        self.tracks = s.tracks[-1:]
        self.origin = s.tracks[-1].x[np.argmin(np.abs(s.tracks[-1].t))]
        self.units: list[Unit] = []
        self.take(s.tracks[-1])

    def line(self) -> None:
        """Search another line through the origin."""
        if self.lines == LINES:
            raise Stuck(f"Layer 2: {len(self.units)} units, of several layers or not all.")
        self.lines += 1
        self.search(self.s.rng.standard_normal(self.s.dim), None)

    def search(self, v: np.ndarray, ends: tuple[float, float] | None) -> None:
        """Search the line, or the part of it between `ends`, from the origin along v."""
        layers, jumps = self.layers()
        track = self.s.search(self.origin, v, ends, layers, jumps, self.s.dim // 2)
        self.tracks.append(track)
        self.take(track)

    def layers(self) -> tuple[list[Layer], dict[tuple[int, int], np.ndarray]]:
        """The layers known so far, and the jumps of their units."""
        solved = [surface.solve(self.first, True, unit.seen) if self.signed else None for unit in self.units]
        whole = [(unit, a.numbers) for unit, a in zip(self.units, solved, strict=True) if a is not None and not a.lack]
        if not whole:
            return [self.first], {}
        rows = np.array([numbers for _, numbers in whole])
        jumps = {(1, j): unit.direction for j, (unit, _) in enumerate(whole)}
        return [self.first, Layer(rows[:, 1:], rows[:, 0])], jumps

    def fit(self, layers: list[Layer]) -> output.Fit | None:
        """The output layer on these.  Units that are missing switch on no line through the origin,
        and so change nothing there but a slope.
        """
        if len(layers) < 2:
            return None
        points, value = self.s.log.points, self.s.log.reply.value
        whole = output.fit(layers, points, value, robust=False)
        if whole is not None:
            return whole
        x = np.concatenate([track.x for track in self.tracks])
        inner = output.fit(layers, x, np.concatenate([track.value for track in self.tracks]), robust=False)
        if inner is None:
            return None
        size = np.abs(value).max(1) + np.median(np.abs(value))
        met = np.abs(inner.output(layers, points) - value).max(1) < layer.WRONG * size
        return output.Fit(inner.output, np.flatnonzero(met), np.flatnonzero(~met))

    def plane(self, kink: Kink) -> bool:
        """Whether a kink is one of the first layer."""
        weights, bias = self.first
        on = np.abs(weights @ kink.x + bias) < CLOSE * (1 + np.linalg.norm(kink.x))
        return bool((on & (np.abs(weights @ kink.normal) > 1 - CLOSE)).any())

    def take(self, track: Track) -> None:
        """Note what the kinks of a line through the origin show of units of the second layer."""
        start = float((self.origin - track.u) @ track.v / (track.v @ track.v))
        for way in (-1.0, 1.0):
            passed: dict[int, int] = {}
            for kink in sorted(track.kinks, key=lambda kink: way * kink.t):
                if way * (kink.t - start) < 0 or self.plane(kink):
                    continue
                length = float(np.linalg.norm(kink.jump))
                j = self.unit(kink.jump / length)
                passed[j] = passed.get(j, 0) + 1
                sign = way if passed[j] % 2 == 0 else -way
                if abs(kink.t) < FAR:
                    self.units[j].seen.append(Sight(kink.x, sign * length * kink.normal))

    def unit(self, direction: np.ndarray) -> int:
        """The number of the unit whose jumps have this direction."""
        for j, unit in enumerate(self.units):
            if np.linalg.norm(unit.direction - direction) < SAME:
                return j
        self.units.append(Unit(direction, []))
        return len(self.units) - 1

    def confirm(self) -> None:
        """Drop planes that the last line does not meet."""
        track = self.tracks[-1]
        met = np.array([kink.t for kink in track.kinks] + list(track.seen))
        keep = np.zeros(len(self.first.bias), bool)
        for at in known.crossings([self.first], track.u, track.v, *track.ends):
            near = np.abs(met - at.t) < CLOSE * (1 + abs(at.t))
            keep[at.unit] = near.any()
        if not keep.all():
            self.planes(Layer(self.first.weights[keep], self.first.bias[keep]))

    def planes(self, planes: Layer) -> None:
        """Begin again with other planes of the first layer."""
        self.first, self.units, self.signed = planes, [], False
        for track in self.tracks:
            self.take(track)

    def complete(self, unit: Unit) -> Solved | None:
        """All numbers of a unit, after what queries it takes; None where they are not to be had."""
        fails, made = 0, 0
        while True:
            solved = surface.solve(self.first, self.signed, unit.seen) if unit.seen else None
            if solved is None or not solved.lack:
                return solved
            if fails == FAILS or made > STEPS:
                return None
            ask, rng = self.s.log, self.s.rng
            seen = surface.step(ask, self.first, self.signed, unit.seen, solved, unit.direction, rng)
            if seen is None:
                fails += 1
                continue
            made += 1
            unit.seen.append(seen)

    def sign(self) -> bool:
        """Find the signs of the first layer from a few units; whether they are found."""
        weights, bias = self.first
        height, dim = weights.shape
        solved = [surface.solve(self.first, False, unit.seen) if unit.seen else None for unit in self.units]
        lack = [np.inf if one is None else one.lack for one in solved]
        rows, right = [], []
        for j in np.argsort(lack):
            got = self.complete(self.units[j])
            if got is None:
                continue
            _, along, c = np.split(got.numbers, [1, dim + 1])
            size = np.linalg.norm(c)
            rows.append((c[:, None] * weights).T / size)
            right.append(along / size)
            if dim * len(rows) < height:
                continue
            sign, _, rank, _ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=1e-10)
            if rank == height and np.abs(np.abs(sign) - 1).max() < SIGN:
                sign = np.sign(sign)
                self.first, self.signed = Layer(weights * sign[:, None], bias * sign), True
                return True
        return False
