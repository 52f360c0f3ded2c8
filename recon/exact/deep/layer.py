"""One layer after those that are known: its rows, their signs, and whether it is the last.

Each turn searches a segment where many known units are on, holds all candidates against every
line searched, and then asks in turn:

- does an output layer on these rows meet all replies?  Then it is the last, and fresh points
  decide; where one is not met, what the network leaves of f there shows what is missing (`held`);
- does every Jacobian seen lie in the span of the rows that are on, and no other?  Then the layer
  is complete as far as seen, with signs, and the next begins;
- else rows seen in part are lifted, a unit that is on nearly everywhere is led to where it is off
  (`through`), or the next segment is searched.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from recon.exact.deep import aim, cells, fill, held, lift, output, peel, through
from recon.exact.deep.known import Layer
from recon.exact.deep.output import Output
from recon.exact.deep.rows import Rows
from recon.exact.deep.search import Incomplete, Search, Stuck
from recon.exact.deep.signs import Lack, signed
from recon.exact.deep.track import Track

VAIN = 60  # turns of a layer, beside one for each of its rows
DEEPER = 0.15  # of the whole rows seen are false: there are deeper kinks
FIRST = 2  # of them, before missing units are aimed at
LIFTS = 4, 8  # a turn, and units of the layer before for one more
DOUBT = 20  # turns without a new row, after which units taken to be on everywhere are doubted
STILL = 6  # turns without a new row, after which what is missing is taken to be on everywhere
QUIET = 2  # turns without a new row, after which segments lie anywhere
EMPTY = 4  # segments without any row, after which there is no such layer
GATED = 4  # units with weights that are never seen, tried with either sign
GATE = 1e6  # what stands for them
STRAY = 0.03  # of the kinks may be of no known kind


class Last(NamedTuple):
    """The last hidden layer and the output on it; fresh [m, d]: points that it met."""

    layer: Layer
    output: Output
    fresh: np.ndarray


def find(s: Search, fresh: int, others: np.ndarray) -> Layer | Last:
    """The next layer; Stuck where it is not found, Incomplete where the one before lacks units, as
    nothing lies behind it and no output on it meets the replies.

    fresh: how many standard normal points bound the share of inputs on which a network that meets
    them is wrong; others [m, d]: points that it must meet besides.
    """
    number = len(s.layers)
    if number not in s.seen:
        s.seen[number] = []
        if number == 1 and s.log.outputs == 1:
            s.read()
        else:
            s.take(s.tracks)
            if number == 1:
                s.raise_()
    walk, aim_ = _Walk(s), aim.Aim(s)
    lifts = LIFTS[0] + len(s.layers[-1].bias) // LIFTS[1]
    quiet, count, need, blind, peeling, segments = 0, 0, True, 0, False, 0
    found = s.candidates()
    good = fair = _fair(s)
    deeper = _false(found, fair) > DEEPER
    lack, s.ends = s.ends, None
    turn = -1
    while (turn := turn + 1) - count <= VAIN:
        aims = (turn >= FIRST or number == 1) and deeper and not aim_.given_up and not aim_.enough
        if lack is not None:
            s.take([s.between(*lack, good)])
            lack = None
        elif need and aims and blind == aim_.blind:
            track = aim_.find(fair, walk.inside)
            if track is not None:
                s.sure.add(id(track.kinks[0]))
                s.take([track])
        elif peeling := not deeper and number == 1 and _peel(s, aim_, fair):
            pass
        elif need:
            blind = aim_.blind
            track = through.off(s, fair) if quiet and deeper else None
            if track is not None:
                s.sure.add(id(track.kinks[0]))
            else:
                track = walk.next(turn, quiet)
                segments += track is not None
            if track is not None:
                s.take([track])
        found, fair = s.candidates(), _fair(s)
        filled = [] if deeper else fill.rows(s, fair, found.some(~found.whole))
        if filled:
            s.seen[number] += filled
            found, fair = s.candidates(), _fair(s)
        good = fair
        if len(aim.span(fair)) < len(fair.bias):  # some are of deeper units
            good = fair.some((fair.kept >= 2) | aim.marked(s, fair))
        if len(good.bias) != count and s.log.outputs > 1:  # with one, ranks tell nothing
            aim_.tested = aim_.blind = blind = 0
        quiet, count = quiet + 1 if len(good.bias) == count else 0, len(good.bias)
        if quiet > DOUBT and number - 1 in s.always:
            s.always.discard(number - 1)
            raise Incomplete(number - 1)
        tries = [good, fair] if len(fair.bias) > count else [good]
        tries += _gated(found, fair) if quiet >= 2 else []
        fitted = _best(s, tries, len(fair.bias), not peeling and (quiet >= QUIET or not deeper))
        if peeling and (fitted is None or len(fitted[1].bad)):
            continue
        if fitted is not None:
            some, fit = fitted
            layers = [*s.layers, some.layer()]
            ends = held.disagreement(s, layers, fit, fresh, others)
            if isinstance(ends, np.ndarray):
                return Last(some.layer(), fit.output, ends)
            if quiet >= QUIET and number - 1 in s.always:
                s.always.discard(number - 1)
                raise Incomplete(number - 1, ends)
            asked = s.log.count
            track = held.missed(s, layers, fit.output, *ends)
            if track is not None:
                held.doubt(s, some, layers, fit.output, track)
            s.take([s.between(*ends, some) if track is None else track])
            need = not s.lift(s.candidates(), lifts)
            if s.log.count == asked:  # it shows nothing new
                aim_.sides(fair)
                need = True
            continue
        deeper = _false(found, fair) > DEEPER
        aims = deeper and not aim_.given_up and not aim_.enough
        if aims and turn + 1 >= FIRST and blind == aim_.blind:
            need = True
            continue
        if number > 1 and segments > EMPTY and not len(fair.bias):
            s.deepest = number - 1
            raise Incomplete(s.deepest)
        if number == s.deepest:
            need = not (quiet and s.lift(found, lifts))
            continue
        layer = signed(s, good) if aim_.enough or count == len(fair.bias) else None
        if layer is None and quiet >= STILL and (always := through.rows(s, fair)) is not None:
            layer = signed(s, fair.plus(always))
            if isinstance(layer, Layer) and not all(always.parts):
                s.always.add(number)
        if isinstance(layer, Lack):
            if layer.number < number:
                raise Incomplete(layer.number, layer.ends)
            if not _missing(s, layer):
                lack = layer.ends
            continue
        if layer is None and aim_.enough and aim_.sides(fair):
            continue
        if layer is not None and (quiet or aim_.enough):
            strays = _strays(s, layer)
            stray = [any(id(kink) in strays for _, kink in parts) for parts in found.parts]
            if strays and s.lift(found.some(np.array(stray)), lifts):
                continue
            if len(strays) <= STRAY * len(s.seen[number]):
                return layer
        need = not (quiet and s.lift(found, lifts)) or quiet > 3
    raise Stuck(f"Layer {number + 1}: {count} units, and not all of them.")


def _missing(s: Search, lack: Lack) -> bool:
    """See a kink of a unit that is missing, and more of its row where that can be; whether one was
    seen.
    """
    before = s.log.count
    track = s.halved(lack.share, *lack.ends)
    s.tried.update((len(s.layers), x.tobytes()) for x in s.log.points[before:])
    if track is None:
        return False
    s.sure.add(id(track.kinks[0]))
    s.take([track])
    found = s.candidates()
    s.lift(found.some(aim.marked(s, found)), LIFTS[0])
    return True


def _fair(s: Search) -> Rows:
    """The candidates that are whole, and rows of the next layer as far as is known."""
    found = s.candidates()
    fair = found.some(found.whole & found.right)
    return fair.some(aim.possible(s, fair))


def _peel(s: Search, aim_: aim.Aim, fair: Rows) -> bool:
    """See missing units by points where all inputs are on; False where nothing is to be seen.

    These are the rays that a test is to ask in any case (`held`); only then a segment.
    """
    if s.log.reply.value.shape[1] == 1:
        return False
    kinks, ask = 0, len(s.rays) < aim.rays(s)
    while True:
        got = peel.find(s, fair, s.log.points[aim.inside(s)], alone=bool(kinks) or ask)
        if not isinstance(got, Track):
            break
        s.tracks.append(got)
        s.take([got])
        before, fair, kinks = len(fair.bias), _fair(s), kinks + 1
        if len(fair.bias) <= before:  # it was none of the last layer
            return False
    if got is not None:
        s.take([s.between(*got, fair)])
    elif ask and not kinks:
        s.log(aim_.vertices(None, None))
    return bool(kinks) or ask or got is not None


def _false(found: Rows, fair: Rows) -> float:
    """Of the candidates that are whole, the share that are no rows of the next layer."""
    return 1 - len(fair.bias) / max(1, int(found.whole.sum()))


class _Walk:
    """Segments where many known units are on: from ray to ray of the orthant for the second
    layer, else between vertices of a region; anywhere where these show nothing new.
    """

    def __init__(self, s: Search) -> None:
        self.s = s
        self.order = s.rng.permutation(len(s.layers[0].bias))
        self.last: np.ndarray | None = None
        self.inside: list[np.ndarray] = []  # points asked where all known units are on

    def next(self, turn: int, quiet: int) -> Track | None:
        """Search the next segment; None where there is no such region.

        quiet: turns without a new row, after which it is anywhere.
        """
        s = self.s
        found = s.candidates()
        rows = found.some(found.whole & found.right)
        if len(s.layers) == 1:
            width = len(self.order)
            start = 0.01 * s.box * s.rng.random(width) if self.last is None else self.last
            unit = int(self.order[(turn + 1) % width])
            s.rays.add(unit)
            self.last = cells.ray(width, unit, s.box, s.rng)
            ends = s.chart.x(np.stack([start, self.last]))
            if self.inside:
                ends[0] = self.inside[-1][-1]  # as it was asked
            return self.kept(s.between(ends[0], ends[1], rows))
        masks = _masks(s) if quiet < QUIET else None
        if masks is None:
            x = s.rng.standard_normal((2, s.dim)) * s.rng.choice([1.0, 3.0])
            return s.between(x[0], x[1], rows)
        where = cells.region(s.layers, masks)
        middle = cells.centre(where, s.box)
        if middle is None:
            return None
        box = s.box * (1, 4, 2)[turn % 3]
        a, b = (cells.vertex(where, middle[0], box, s.rng) for _ in range(2))
        if a is None or b is None:
            return None
        ends = s.chart.x(np.stack([a, b]))
        track = s.between(ends[0], ends[1], rows)
        return self.kept(track) if all(mask.all() for mask in masks) else track

    def kept(self, track: Track) -> Track:
        """The track, its points noted as those where all known units are on."""
        self.inside.append(track.x)
        return track


def _masks(s: Search) -> list[np.ndarray] | None:
    """Of a cell where many units are on."""
    masks = [np.ones(len(s.layers[0].bias), bool)]
    for number in range(2, len(s.layers) + 1):
        found = cells.most(s.layers[:number], masks, s.box, s.rng)
        if found is None or not found.any():
            return None
        masks.append(found)
    return masks


def _gated(found: Rows, fair: Rows) -> list[Rows]:
    """The rows with those of units that never switch while some of their inputs are on.

    Such a unit is off wherever one of these is on, or else a reply would show its weight; or on,
    if its sign is wrong.  A large negative weight says so, and the slope of the output makes up
    for the sign.
    """
    part = np.flatnonzero(~found.whole & (found.broken == 0) & (found.kept >= 2))
    if not 0 < len(part) <= GATED:
        return []
    made = []
    for signs in product((1.0, -1.0), repeat=len(part)):
        both, sign = found.some(part), np.array(signs)
        weights = np.where(both.seen, sign[:, None] * both.weights, -GATE)
        made.append(fair.plus(both._replace(weights=weights, bias=sign * both.bias)))
    return made


def _best(s: Search, tries: list[Rows], least: int, robust: bool) -> tuple[Rows, output.Fit] | None:
    """The rows with an output that meets most replies; robustly, where they are many enough."""
    best: tuple[Rows, output.Fit] | None = None
    for i, rows in enumerate(tries):
        if not len(rows.bias):
            continue
        layers = [*s.layers, rows.layer()]
        _, jumps = s.with_jumps(rows)
        guess = np.stack(list(jumps.values()), 1)
        fit = output.fit(layers, s.log.points, s.log.reply.value, guess)
        if fit is None and robust and len(rows.bias) >= least and i < 2:
            fit = output.most(layers, s.log.points, s.log.reply, s.chart.place)
        if fit is not None and (best is None or len(fit.good) > len(best[1].good)):
            best = rows, fit
            if not len(fit.bad):
                break
    return best


def _strays(s: Search, layer: Layer) -> set[int]:
    """Which kinks (by id) are neither of this next layer nor in the span of its rows that are on:
    a unit that is missing switches there, or is on.
    """
    strays = set[int]()
    for _, kink in s.seen[len(s.layers)]:
        of = lift.owner([*s.layers, layer], *s.local(kink))
        if of.unit is None and of.outside <= len(s.layers):
            strays.add(id(kink))
    return strays
