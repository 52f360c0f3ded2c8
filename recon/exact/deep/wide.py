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

With one output the direction names no unit, but for its sign.  Each kink is a unit of its own
until one that is complete explains it, and all kinks of the first line are touched (`presumed`), so
that no second line is needed for the planes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from recon.exact.deep import first, held, known, output, surface
from recon.exact.deep.known import Layer
from recon.exact.deep.layer import Last
from recon.exact.deep.search import FAR, Search, Stuck
from recon.exact.deep.surface import Sight, Solved
from recon.exact.deep.track import Kink, Track

SAME = 1e-6  # directions of jumps that differ less are one unit's
CLOSE = 1e-7  # relative: a kink on a plane
SIGN = 1e-4  # how far a sign may be from one
WIDEST = 8  # times the inputs: more planes are of a victim that bends smoothly
FAILS = 3  # steps of one unit that show nothing
MORE = 4  # units than twice as many as need be, tried for signs
LINES = 4  # through the point, at most
AGAIN = 3  # queries repeated where a unit cannot be completed
TURNS = 40
DEEPER = 0.65  # directions of jumps a kink: more than units of a last hidden layer have
FEW = 12  # kinks that do not tell that


class Unit(NamedTuple):
    """A unit of the second layer: the direction of its jumps [K], and its kinks."""

    direction: np.ndarray
    seen: list[Sight]


def last(s: Search, planes: first.Planes, fresh: int, others: np.ndarray) -> Last:
    """The second and last hidden layer; Stuck where it is not found.  `s.layers` gets the first.

    fresh: how many standard normal points the network must meet, and others [m, d] besides.
    """
    if len(planes.offset) > WIDEST * s.dim:
        raise Stuck(f"Layer 1: {len(planes.offset)} planes, too many for {s.dim} inputs.")
    star = _Star(s, Layer(planes.normal, planes.offset))
    if not star.alone:
        star.line()
        kinks = sum(len(unit.seen) for unit in star.units)
        if kinks > FEW and len(star.units) > DEEPER * kinks:
            raise Stuck("Layer 1 is wider than the input, and more hidden layers than one follow.")
    tried: list[bytes] = []
    for _ in range(TURNS):
        if not star.signed and not star.sign():
            if not star.missed():
                star.line()
            continue
        star.complete_all()
        layers, _ = star.layers()
        fit = star.fit(layers)
        if fit is None:
            star.line()
            continue
        s.layers = layers[:1]
        ends = held.disagreement(s, layers, fit, fresh, others)
        if isinstance(ends, np.ndarray):
            return Last(layers[1], fit.output, ends)
        if ends[1].tobytes() in tried:  # and the segment to it showed nothing
            star.line()
            continue
        tried.append(ends[1].tobytes())
        star.search(ends[1] - star.origin, (0.0, 1.0))
    raise Stuck(f"Layer 2: {len(star.units)} units, and not all of them.")


class _Star:
    """Lines through one point, and what their kinks show of the second layer."""

    def __init__(self, s: Search, planes: Layer) -> None:
        self.s, self.signed, self.lines, self.steady = s, False, 1, False
        self.alone = s.log.outputs == 1
        track = s.tracks[-1]
        self.origin = track.x[np.argmin(np.abs(track.t))]
        self.tracks: list[Track] = [track]
        self.begin(planes)

    def line(self) -> None:
        """Search another line through the origin."""
        if self.lines == LINES:
            raise Stuck(f"Layer 2: {len(self.units)} units, of several layers or not all.")
        self.lines += 1
        self.search(self.s.rng.standard_normal(self.s.dim), None)
        if self.alone or self.lines == 2:
            self.confirm()
        if self.alone:
            self.missed()

    def search(self, v: np.ndarray, ends: tuple[float, float] | None) -> None:
        """Search the line, or the part of it between `ends`, from the origin along v."""
        layers, jumps = self.layers()
        track = self.s.search(self.origin, v, ends, layers, jumps, self.s.dim // 2)
        self.tracks.append(track)
        self.take(track)

    def layers(self) -> tuple[list[Layer], dict[tuple[int, int], np.ndarray]]:
        """The layers as far as known, and the jumps of their units."""
        rows: list[np.ndarray] = []
        jumps = {}
        for unit in self.units if self.signed else ():
            solved = surface.solve(self.first, True, unit.seen)
            if solved is not None and not solved.lack:
                jumps[1, len(rows)] = unit.direction
                rows.append(solved.numbers)
        if not rows:
            return [self.first], {}
        numbers = np.stack(rows)
        return [self.first, Layer(numbers[:, 1:], numbers[:, 0])], jumps

    def take(self, track: Track) -> None:
        """Note what the kinks of a line through the origin show of units of the second layer."""
        start = float((self.origin - track.u) @ track.v / (track.v @ track.v))
        for way in (-1.0, 1.0):
            passed: dict[int, int] = {}
            for kink in sorted(track.kinks, key=lambda kink: way * kink.t):
                if way * (kink.t - start) < 0 or abs(kink.t) > FAR or self.plane(kink):
                    continue
                length = float(np.linalg.norm(kink.jump))
                j = self.unit(kink.jump / length, Sight(kink.x, length * kink.normal))
                if self.alone and self.units[j].seen:  # and known, so it tells nothing
                    continue
                passed[j] = passed.get(j, 0) + 1
                sign = way if passed[j] % 2 == 0 else -way
                self.units[j].seen.append(Sight(kink.x, sign * length * kink.normal))

    def plane(self, kink: Kink) -> bool:
        """Whether a kink is one of the first layer."""
        weights, bias = self.first
        on = np.abs(weights @ kink.x + bias) < CLOSE * (1 + np.linalg.norm(kink.x))
        return bool((on & (np.abs(weights @ kink.normal) > 1 - CLOSE)).any())

    def unit(self, direction: np.ndarray, sight: Sight) -> int:
        """The number of the unit that a kink whose jump has this direction belongs to."""
        for j, unit in enumerate(self.units):
            if self.same(unit, direction, sight):
                return j
        self.units.append(Unit(direction, []))
        return len(self.units) - 1

    def same(self, unit: Unit, direction: np.ndarray, sight: Sight) -> bool:
        """Whether a kink is this unit's: by the direction of its jump, or, of one output, by the
        unit's numbers, once they are known.
        """
        if np.linalg.norm(unit.direction - direction) > SAME:
            return False
        if not self.alone:
            return True
        solved = surface.solve(self.first, self.signed, unit.seen) if unit.seen else None
        if solved is None or solved.lack:
            return False
        slope = surface.slopes(self.first, self.signed, sight.x) @ solved.numbers
        level = surface.values(self.first, self.signed, sight.x[None]) @ solved.numbers
        size = float(np.linalg.norm(slope))
        near = abs(float(level[0])) < CLOSE * size * (1 + np.linalg.norm(sight.x))
        cosine = abs(slope @ sight.slope) / max(size * float(np.linalg.norm(sight.slope)), 1e-300)
        return bool(near and cosine > 1 - CLOSE)

    def confirm(self) -> None:
        """Drop planes that the last line does not meet."""
        track = self.tracks[-1]
        met = np.array([kink.t for kink in track.kinks] + list(track.seen))
        keep = np.zeros(len(self.first.bias), bool)
        for at in known.crossings([self.first], track.u, track.v, *track.ends):
            keep[at.unit] = (np.abs(met - at.t) < CLOSE * (1 + abs(at.t))).any()
        if not keep.all():
            self.begin(Layer(*(part[keep] for part in self.first)))

    def begin(self, planes: Layer) -> None:
        """Take the lines for those of other planes."""
        self.first, self.signed = planes, False
        self.units: list[Unit] = []
        for track in self.tracks:
            self.take(track)

    def missed(self) -> bool:
        """Find planes that no touch showed: units seen in one plane are touched; whether any is."""
        rows: list[np.ndarray] = []
        for unit in self.units:
            normals = np.stack([sight.slope / np.linalg.norm(sight.slope) for sight in unit.seen])
            alone = np.abs(normals @ normals[0]).min() > 1 - CLOSE
            if alone and not any(abs(row[:-1] @ normals[0]) > 1 - CLOSE for row in rows):
                rows.append(np.append(normals[0], -normals[0] @ unit.seen[0].x))
        if not rows:
            return False
        both = np.stack(rows)
        planes = first.Planes(both[:, :-1], both[:, -1], np.zeros(len(both)))
        real = np.zeros(len(both), bool)
        for part in np.array_split(np.arange(len(both)), -(-len(both) // max(1, self.s.dim // 2))):
            for radius in first.RADII:
                found = first.touched(self.s.log, planes, part, radius, self.s.rng)
                if found is not None:
                    real[part] = found
                    break
        if real.any():
            rows = [np.column_stack(self.first), both[real]]
            self.begin(Layer(np.concatenate(rows)[:, :-1], np.concatenate(rows)[:, -1]))
        return bool(real.any())

    def complete(self, unit: Unit) -> Solved | None:
        """All numbers of a unit, after what queries it takes; None where they are not to be had."""
        s, fails, least = self.s, 0, math.inf
        while fails < FAILS:
            solved = surface.solve(self.first, self.signed, unit.seen)
            if solved is None or not solved.lack:
                return solved
            fails += solved.lack >= least
            least = solved.lack
            where = self.first, self.signed, unit.seen, solved
            seen = surface.step(s.log, *where, unit.direction, s.rng)
            unit.seen.extend([] if seen is None else [seen])
        if not self.steady:
            self.steady = s.log.repeats(AGAIN)
        if not self.steady:
            raise Stuck("The victim's answers to one query differ.")
        return None

    def complete_all(self) -> None:
        """Complete every unit; kinks of one output, each taken for a unit, are those of one that is
        complete where its numbers say so.
        """
        todo, self.units = self.units, []
        while todo:
            unit = todo.pop(0)
            self.units.append(unit)
            if self.complete(unit) is not None and self.alone:
                todo = [u for u in todo if not self.same(unit, u.direction, u.seen[0])]

    def sign(self) -> bool:
        """Find the signs of the first layer from a few units; whether they are found."""
        weights, bias = self.first
        height, dim = weights.shape
        if not height:
            return False
        solved = [surface.solve(self.first, False, unit.seen) for unit in self.units]
        lack = [math.inf if one is None else one.lack for one in solved]
        need = -(-height // dim)
        systems, right = list[np.ndarray](), list[np.ndarray]()
        for unit in [self.units[j] for j in np.argsort(lack)[: 2 * need + MORE]]:
            got = self.complete(unit)
            if got is None:
                continue
            _, along, c = np.split(got.numbers, [1, dim + 1])
            if not c.any():  # it bends nowhere
                continue
            systems.append((c[:, None] * weights).T / np.linalg.norm(c))
            right.append(along / np.linalg.norm(c))
            if len(systems) < need:
                continue
            a, b = np.concatenate(systems), np.concatenate(right)
            sign, _, rank, _ = np.linalg.lstsq(a, b, rcond=1e-10)
            if rank == height and np.abs(np.abs(sign) - 1).max() < SIGN:
                sign = np.sign(sign)
                self.first, self.signed = Layer(weights * sign[:, None], bias * sign), True
                break
        return self.signed

    def fit(self, layers: list[Layer]) -> output.Fit | None:
        """The output layer on these.  Units that are missing switch on no line through the origin,
        and so change nothing there but a slope: these lines give it, and tell what is not met.
        """
        if len(layers) < 2:
            return None
        points, value = self.s.log.points, self.s.log.reply.value
        whole = output.fit(layers, points, value)
        if whole is not None:
            return whole
        x, on_lines = (
            np.concatenate(part)
            for part in zip(*((t.x, t.value) for t in self.tracks), strict=True)
        )
        inner = output.fit(layers, x, on_lines)
        if inner is None:
            return None
        size = np.abs(value).max(1) + np.median(np.abs(value))
        met = np.abs(inner.output(layers, points) - value).max(1) < held.WRONG * size
        return output.Fit(inner.output, np.flatnonzero(met), np.flatnonzero(~met))
