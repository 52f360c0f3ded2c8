"""The kinks of a line seen whole: the line with every input of the second layer raised.

At q = z_1 the second layer sees max(q, 0).  At max(q, delta), delta tiny, it sees the same but for
delta: its units and all deeper ones are on or off as before, and every input is on.  So the line
raised has the kinks of the line without those of the first layer, each with the jump a n^T that it
had, a [K] as known, but n [h_1] whole, where the line showed it for the inputs that were on.

Jacobians at two of its points differ by the sum of the jumps between them: for each input, K
equations for the n of those kinks at which it was off.  So one query shows up to K kinks, and what
was known before, of inputs that were on, tells whether it did.  (Our own construction.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact.deep import lift
from recon.exact.deep.cells import Chart
from recon.exact.deep.known import Layer
from recon.exact.deep.lift import Partial
from recon.exact.deep.rows import Rows
from recon.exact.deep.segment import Ask
from recon.exact.deep.track import Kink, Track

DELTA = 1e-8  # of the point's size: how far inputs are raised
APART = 0.1  # of jumps of length one, the least singular value that tells them apart
FITS = 1e-7  # of the Jacobians: what a sum of jumps may leave


class _Jump(NamedTuple):
    """A kink, the number of its row (-1: none), and its jump [K] for that row."""

    kink: Kink
    row: int
    jump: np.ndarray


class _Group(NamedTuple):
    """Neighbouring kinks of a line that can be told apart, and how many come before them."""

    jumps: list[_Jump]
    first: int


def seen(
    ask: Ask, first: Layer, chart: Chart, found: Rows, track: Track
) -> list[tuple[Partial, Kink]]:
    """The rows of `found` whole, of which the line has a kink, as far as they are told.

    found: what kinks show of the layer after `first`, one row for those of one unit.
    """
    jumps = _jumps(first, chart, found, track)
    cuts = np.arctan([track.ends[0], *(kink.t for kink, _, _ in jumps), track.ends[1]])
    places = np.tan((cuts[1:] + cuts[:-1]) / 2)
    rows, todo = dict[int, np.ndarray](), _groups(found, jumps)
    while todo:
        ends = np.array([[group.first, group.first + len(group.jumps)] for group in todo])
        asked, at = np.unique(ends, return_inverse=True)
        q = (track.u + places[asked, None] * track.v) @ first.weights.T + first.bias
        gradient = (ask(chart.x(all_on(q))).gradient @ chart.place)[at.reshape(ends.shape)]
        failed = []
        for group, pair in zip(todo, gradient, strict=True):
            whole = _solved(found, rows, group, pair)
            rows.update(whole)
            if not whole and len(group.jumps) > 1:
                half = len(group.jumps) // 2
                failed.append(_Group(group.jumps[:half], group.first))
                failed.append(_Group(group.jumps[half:], group.first + half))
        todo = failed
    pairs, on = [], np.ones(len(first.bias), bool)
    for kink, i, _ in jumps:
        if i in rows and not found.seen[i].all():
            q = first.weights @ kink.x + first.bias
            part = Partial(np.maximum(q, 0), (on,), rows.pop(i), float(found.bias[i]), on)
            pairs.append((part, kink))
    return pairs


def all_on(q: np.ndarray) -> np.ndarray:
    """Points q [n, h] raised so little that every input of the second layer is on."""
    return np.maximum(q, DELTA * (1 + np.abs(q).max(1, keepdims=True)))


def _jumps(first: Layer, chart: Chart, found: Rows, track: Track) -> list[_Jump]:
    """All kinks of the line that are none of the first layer."""
    number = {id(kink): i for i, parts in enumerate(found.parts) for _, kink in parts}
    jumps = []
    for kink in track.kinks:
        i = number.get(id(kink), -1)
        q, normal = first.weights @ kink.x + first.bias, kink.normal @ chart.place
        if i >= 0:
            row = np.where(q > 0, found.weights[i], 0)
            jumps.append(_Jump(kink, i, kink.jump * (normal @ row / (row @ row))))
        elif lift.owner([first], q, normal).unit is None:
            jumps.append(_Jump(kink, i, kink.jump))
    return jumps


def _groups(found: Rows, jumps: list[_Jump]) -> list[_Group]:
    """Kinks of rows that are not whole yet, as many together as are told apart."""
    groups, told = list[_Group](), found.whole
    for place, jump in enumerate(jumps):
        inside = [other.row for other in groups[-1].jumps] if groups else []
        if jump.row < 0 or told[jump.row] or jump.row in inside:
            continue
        if groups:
            start = groups[-1].first
            longer = _Group(jumps[start : place + 1], start)
            seen = found.seen | told[:, None]
            if all(other.row >= 0 for other in longer.jumps) and _apart(longer, seen):
                groups[-1] = longer
                continue
            told[inside] = True
        groups.append(_Group([jump], place))
    return groups


def _sums(group: _Group) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a group's rows [m], and the sum [K, m] of the jumps of each."""
    rows, at = np.unique([jump.row for jump in group.jumps], return_inverse=True)
    return rows, np.stack([jump.jump for jump in group.jumps], 1) @ np.eye(len(rows))[at]


def _apart(group: _Group, seen: np.ndarray) -> bool:
    """Whether for each input [h] the jumps of rows for which it is not in `seen` [m, h] are told
    apart.
    """
    rows, jumps = _sums(group)
    length = np.linalg.norm(jumps, axis=0)
    if not length.all():
        return False
    for open_ in np.unique(~seen[rows].T, axis=0):
        some = (jumps / length)[:, open_]
        if open_.sum() > len(some) or np.linalg.svd(some)[1].min(initial=1.0) < APART:
            return False
    return True


def _solved(
    found: Rows, told: dict[int, np.ndarray], group: _Group, pair: np.ndarray
) -> dict[int, np.ndarray]:
    """The whole rows [h] of a group's kinks, by their numbers, from Jacobians [2, K, h] before and
    after them all; none where what was known before does not fit, or does not tell.

    told: rows that are whole by now.
    """
    seen, weights = found.seen.copy(), found.weights.copy()
    for i, row in told.items():
        seen[i], weights[i] = True, row
    if not _apart(group, seen):
        return {}
    rows, jumps = _sums(group)
    seen, weights = seen[rows], np.where(seen, weights, 0)[rows]
    rest = pair[1] - pair[0] - jumps @ weights
    for open_ in np.unique(~seen.T, axis=0):
        here = (open_ == ~seen.T).all(1)
        part = np.linalg.lstsq(jumps[:, open_], rest[:, here], rcond=None)[0]
        weights[np.ix_(open_, here)] = part
        rest[:, here] -= jumps[:, open_] @ part
    if np.linalg.norm(rest) > FITS * np.linalg.norm(pair):
        return {}
    return dict(zip(rows.tolist(), weights, strict=True))
