"""What an attack on a deep network knows: every reply, the lines searched, the layers found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from recon.exact.deep import (
    cells,
    first,
    halve,
    known,
    lift,
    masked,
    presumed,
    raised,
    rows,
    segment,
)
from recon.exact.deep.cells import Chart
from recon.exact.deep.known import Layer
from recon.exact.deep.lift import Partial
from recon.exact.deep.log import Log
from recon.exact.deep.rows import Rows
from recon.exact.deep.track import Kink, Track
from recon.replies import Reply

FAR = 1e3  # of a whole line, in t: kinks beyond are placed too badly to be used
DOUBTS = 3  # kinks that a known layer cannot have, after which it is taken up again
LINES = 4  # for the first layer

Seen = list[tuple[Partial, Kink]]
Ends = tuple[np.ndarray, np.ndarray]  # two points [d]


class Asked(NamedTuple):
    """Replies at places t [n] of the line u + t v."""

    u: np.ndarray
    v: np.ndarray
    t: np.ndarray
    reply: Reply


class Stuck(Exception):
    """Why the layer under way cannot be found."""


class Incomplete(Exception):
    """The layer of this number (0 for the first) lacks a unit, which switches between `ends`."""

    def __init__(self, number: int, ends: Ends | None = None) -> None:
        super().__init__(number)
        self.number, self.ends = number, ends


@dataclass
class Search:
    """The state of an attack; `seen` holds what kinks show of each layer but the first."""

    log: Log
    dim: int
    rng: np.random.Generator
    unit: np.ndarray  # [d] deviations of the normal inputs that are asked fresh
    tracks: list[Track] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    chart: Chart = field(default_factory=lambda: Chart(np.zeros((0, 0)), np.zeros(0)))
    box: float = 1.0
    seen: dict[int, Seen] = field(default_factory=dict)
    tried: set[tuple[int, bytes]] = field(
        default_factory=set
    )  # lifts that led to nothing; pairs (`peel`)
    doubts: dict[int, int] = field(default_factory=dict)
    deepest: int = -1  # the number of the layer that is known to be the last
    failed: int = 0  # tests on fresh points that a network did not pass
    ends: Ends | None = None  # between which a unit of the layer under way switches
    rays: set[int] = field(default_factory=set)  # of the orthant, that were asked
    always: set[int] = field(default_factory=set)  # layers with units that never switched
    sure: set[int] = field(default_factory=set)  # kinks (by id) of units found missing (`aim`)
    _pieces: dict[tuple[int, int], rows.Pieces] = field(default_factory=dict)
    _candidates: tuple[tuple[int, ...], Rows] | None = None  # of so many layers, kinks and lines

    def line(self, asked: Asked | None, before: first.Found | None = None) -> first.Found:
        """Search a whole line for the first layer: a new one, or u, v and the replies at places
        t [n] of it.

        before: what other lines showed; planes known are not crossed again where others lack.
        """
        if asked is None:
            u, v = self.rng.standard_normal((2, self.dim))
            v = v if before is None else first.toward(self.tracks, before.planes, v)
            t = segment.grid()
            reply = self.log(u + t[:, None] * v)
        else:
            u, v, t, reply = asked
            self.log.keep(u + t[:, None] * v, reply)
        votes, known_ = (None, None) if before is None else (before.votes, before.planes)
        if reply.gradient.shape[1] > 1:
            planes = [] if known_ is None else [Layer(known_.normal, known_.offset)]
            few = first.rank(self.tracks) // 3 if self.tracks else 0
            self.search(u, v, None, planes, {}, few, (t, reply))
            return first.layer(self.log, self.tracks, self.rng, votes)
        more = self.log.eps, self.log.scale, (t, reply), self.rng, known_, self.tracks
        track, layer, passed = presumed.search(self.log, u, v, *more)
        self.tracks.append(track)
        if layer is not None:
            return first.Found(layer, first.of_kinks([]), passed, "")
        votes = first.of_kinks(track.kinks, passed).votes if votes is None else votes
        return first.layer(self.log, self.tracks, self.rng, votes)

    def begin(self, asked: Asked | None = None) -> first.Planes | None:
        """Find the first layer, and the scale of its outputs; Stuck where it is not found.

        asked: replies on a line that were asked for already.  Where the layer is wider than the
        input, only its planes.
        """
        found = (
            self.line(asked) if not self.tracks else first.layer(self.log, self.tracks, self.rng)
        )
        for _ in range(LINES - 1):
            if found.layer is not None or found.wide:
                break
            found = self.line(None, found)
        if found.wide:
            return found.planes
        if found.layer is None:
            raise Stuck(f"Layer 1: {found.why}.")
        self.layers, self.chart = [found.layer], cells.chart(found.layer)
        near = np.concatenate([track.x[np.abs(track.t) < 2] for track in self.tracks])
        self.box = 2 * float(np.maximum(known.before(self.layers, near)[0], 0).max())
        return None

    def with_jumps(self, rows_: Rows) -> tuple[list[Layer], dict[tuple[int, int], np.ndarray]]:
        """The layers with these rows as one more, and the jumps last seen of its units (layer,
        unit), for a gradient of length one.
        """
        layers, jumps = list(self.layers), dict[tuple[int, int], np.ndarray]()
        if len(rows_.bias):
            layers.append(rows_.layer())
            for j, parts in enumerate(rows_.parts):
                kink = parts[-1][1]
                row = known.normal(layers, kink.x, j)
                jumps[len(layers) - 1, j] = kink.jump / np.linalg.norm(row)
        return layers, jumps

    def between(self, start: np.ndarray, end: np.ndarray, rows_: Rows) -> Track:
        """Search the segment from x [d] to x [d], where known units and these rows have kinks."""
        layers, jumps = self.with_jumps(rows_)
        # normals of deeper kinks lie in the span of the rows that are on: a third does not span it
        v, few = end - start, max(2, len(rows_.bias) // 3)
        last = (start + v)[None]  # the end, but for rounding
        if self.log.asked(end[None])[0] and not self.log.asked(last)[0]:
            self.log.keep(last, self.log(end[None]))
        return self.search(start, v, (0.0, 1.0), layers, jumps, few)

    def search(
        self,
        u: np.ndarray,
        v: np.ndarray,
        ends: tuple[float, float] | None,
        layers: Sequence[Layer],
        jumps: dict[tuple[int, int], np.ndarray],
        few: int,
        asked: tuple[np.ndarray, Reply] | None = None,
    ) -> Track:
        """Search u + t v where these layers have kinks; see `known.expected`, `segment.search`."""
        low, high = (-segment.REACH, segment.REACH) if ends is None else ends
        expected = known.expected(layers, jumps, u, v, low, high)
        eps, scale = self.log.eps, self.log.scale
        track = segment.search(self.log, u, v, ends, eps, scale, expected, few, asked)
        self.tracks.append(track)
        return track

    def halved(
        self,
        share: halve.Share,
        low: np.ndarray,
        high: np.ndarray,
        guess: halve.Guess | None = None,
    ) -> Track | None:
        """Halve between points x [d], of which the first leaves nothing (`halve.halved`)."""
        value, gradient = self.log(np.stack([low, high]))
        ends = Reply(value[0], gradient[0]), Reply(value[1], gradient[1])
        track = halve.halved(self.log, share, low, high, ends, guess)
        if track is not None:
            self.tracks.append(track)
        return track

    def local(self, kink: Kink) -> tuple[np.ndarray, np.ndarray]:
        """A kink's place and normal in q."""
        q = self.layers[0].weights @ kink.x + self.layers[0].bias
        return q, kink.normal @ self.chart.place

    def take(self, tracks: Sequence[Track]) -> None:
        """Note what the kinks of lines show of the next layer; Incomplete where several cannot be,
        with the layers known.
        """
        number = len(self.layers)
        for kink in (kink for track in tracks for kink in track.kinks if abs(kink.t) < FAR):
            q, normal = self.local(kink)
            of = lift.owner(self.layers, q, normal)
            if np.linalg.norm(kink.normal - normal @ self.layers[0].weights) > lift.SPAN:
                of = lift.Owner(None, 0)
            if of.unit is not None:
                continue
            if of.outside < number:
                self.doubts[of.outside] = self.doubts.get(of.outside, 0) + 1
                if self.doubts[of.outside] >= DOUBTS:
                    self.doubts = {}
                    raise Incomplete(of.outside)
                continue
            part = lift.partial(self.layers, q, normal)
            if part is not None:
                self.seen[number].append((part, kink))

    def read(self) -> None:
        """Read what the first line shows of the second layer, where there is one output; others
        were searched for the first layer alone.
        """
        track, found = masked.read(self.log, self.layers[0], self.chart, self.tracks[0])
        self.tracks = [track]
        self.seen[1] += [pair for pair in found if abs(pair[1].t) < FAR]

    def raise_(self) -> None:
        """See rows of the second layer whole, of which the lines searched so far have kinks."""
        (first_,) = self.layers
        for track in self.tracks:
            self.seen[1] += raised.seen(self.log, first_, self.chart, self.candidates(), track)

    def candidates(self) -> Rows:
        """Rows of the next layer, merged from all that was seen and held against all lines."""
        seen = self.seen[len(self.layers)]
        state = len(self.layers), len(seen), len(self.tracks)
        if self._candidates is not None and self._candidates[0] == state:
            return self._candidates[1]
        found = rows.merged(seen, len(self.layers[-1].bias))
        cuts = []
        for track in self.tracks:
            key = len(self.layers), id(track)
            if key not in self._pieces:
                self._pieces[key] = rows.pieces(self.layers, track)
            cuts.append(self._pieces[key])
        found = rows.weighed(found, self.tracks, cuts)
        self._candidates = state, found
        return found

    def lift(self, found: Rows, most: int) -> int:
        """See more of candidates that are known in part, at most so many; how many that gave."""
        wanted = np.flatnonzero(~found.whole & found.right)
        made = tried = 0
        for i in sorted(wanted, key=lambda i: (-found.kept[i], -found.seen[i].sum())):
            for part, kink in sorted(found.parts[i], key=lambda pair: -pair[0].seen.sum()):
                state = id(kink), found.seen[i].tobytes()
                if tried >= most or state in self.tried:
                    continue
                here = part._replace(
                    weights=found.weights[i], bias=float(found.bias[i]), seen=found.seen[i]
                )
                before = self.log.count
                grown = lift.lifted(self.log, self.layers, self.chart, here, self.box, self.rng)
                tried += self.log.count > before
                if grown is not None:
                    self.seen[len(self.layers)].append((grown, kink))
                    made += 1
                    break
                self.tried.add(state)
        return made

    def back(self, number: int, ends: Ends | None) -> None:
        """Take up the layer of this number again, between these points first."""
        self.ends = ends
        del self.layers[number:]
        self.seen = {k: v for k, v in self.seen.items() if k <= number}
        self.tried.clear()
        self._pieces.clear()
        self._candidates = None
