"""A unit of the second layer as its kinks show it, where the first layer is wider than the input.

With z_1 = M x + b, rows m_i, a unit of the second layer is, whatever the signs s_i of the first,

    z(x) = L x + l + sum_i c_i |m_i x + b_i|,    c_i = s_i w_i / 2,    L = sum_i s_i c_i m_i.

A kink at p shows z(p) = 0 and the gradient L + sum_i c_i sign(m_i p + b_i) m_i: d + 1 linear
equations for (l, L, c); once signs are known, for the bias and w.  More kinks are had at will,
where d - 1 planes of the first layer meet the unit's surface: two replies beside such a vertex show
the gradient in a cell beyond, and so the coefficients of all of these planes.  Along the line where
d - 1 planes meet, their terms vanish: where the others are known, so are the zeros of z.  Else a
linear program leads from a kink along the unit's own plane, inside its cell, to a vertex.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact.deep import cells
from recon.exact.deep.known import Layer
from recon.exact.deep.segment import Ask

RANK = 1e-9  # of the largest singular value
OPEN = 1e-6  # what moves so much in the null space is not known
AGREE = 1e-6  # of the gradients' size: what kinks of one unit leave
LINES, PROGRAMS = 40, 6  # a step chooses from
BESIDE = 1e-5  # of 1 + |x|: how far beside the surface it is asked
RAISED = 1e-3  # of that: how far beyond the planes of the first layer
NEAR, ROOM = 1e-7, 1e-4  # of 1 + |x|: a plane through a vertex; how far others must be
STEEP = 1e-4  # of the gradient: what a vertex must show of it along the planes that meet there
FAR = 30.0  # times the size of the nearest kink: no vertex is farther


class Sight(NamedTuple):
    """A kink of one unit: where [d], and the gradient of z there [d], where |V_j| = 1."""

    x: np.ndarray
    slope: np.ndarray


class Solved(NamedTuple):
    """The numbers of a unit [n], (l, L, c) or (bias, w); a basis [lack, n] of what is not known of
    them; and which of the c_i or w_i are not [h].
    """

    numbers: np.ndarray
    free: np.ndarray
    open: np.ndarray

    @property
    def lack(self) -> int:
        return len(self.free)


class Vertex(NamedTuple):
    """Where planes of the first layer meet a unit's surface.

    room: the distance to other planes; across, beyond: directions of length one, along these planes
    and into the cell to look at; steep: the slope of z along `across`.
    """

    x: np.ndarray
    room: float
    across: np.ndarray
    beyond: np.ndarray
    steep: float


def values(first: Layer, signed: bool, x: np.ndarray) -> np.ndarray:
    """z at points [n, d] as a linear function of a unit's numbers [n, numbers]."""
    z, one = x @ first.weights.T + first.bias, np.ones((len(x), 1))
    return np.concatenate([one, np.maximum(z, 0)] if signed else [one, x, np.abs(z)], axis=1)


def slopes(first: Layer, signed: bool, x: np.ndarray) -> np.ndarray:
    """The gradient of z at x [d] as a linear function of a unit's numbers [d, numbers]."""
    sign, none = np.sign(first.weights @ x + first.bias), np.zeros((len(x), 1))
    if signed:
        return np.concatenate([none, (first.weights * (sign > 0)[:, None]).T], axis=1)
    return np.concatenate([none, np.eye(len(x)), (first.weights * sign[:, None]).T], axis=1)


def solve(first: Layer, signed: bool, seen: Sequence[Sight]) -> Solved | None:
    """What kinks of a unit tell; None where they contradict each other."""
    x = np.stack([sight.x for sight in seen])
    level = values(first, signed, x) / (1 + np.linalg.norm(x, axis=1))[:, None]
    a = np.concatenate([level, *(slopes(first, signed, sight.x) for sight in seen)])
    b = np.concatenate([np.zeros(len(x)), *(sight.slope for sight in seen)])
    left, sizes, right = np.linalg.svd(a)
    rank = int(np.sum(sizes > RANK * sizes[0]))
    numbers = right[:rank].T @ ((left[:, :rank].T @ b) / sizes[:rank])
    if np.linalg.norm(a @ numbers - b) > AGREE * np.linalg.norm(b):
        return None
    free = right[rank:]
    return Solved(numbers, free, np.linalg.norm(free[:, -len(first.bias) :], axis=0) > OPEN)


def step(
    ask: Ask,
    first: Layer,
    signed: bool,
    seen: Sequence[Sight],
    solved: Solved,
    direction: np.ndarray,
    rng: np.random.Generator,
) -> Sight | None:
    """One more kink of the unit, beyond planes whose coefficients are wanted; two queries.

    direction [K]: of the unit's jumps.  None where no vertex is found, or not this unit there.
    """
    box = FAR * (1 + min(float(np.abs(sight.x).max()) for sight in seen))
    vertex = _on_a_line(first, signed, seen, solved, box, rng)
    if vertex is None:
        vertex = _on_a_plane(first, seen, solved, box, rng)
    if vertex is None:
        return None
    size = min(BESIDE * (1 + float(np.linalg.norm(vertex.x))), 0.1 * vertex.room)
    start = vertex.x + RAISED * size * vertex.beyond
    reply = ask(np.stack([start + size * vertex.across, start - size * vertex.across]))
    jump = reply.gradient[0] - reply.gradient[1]
    slope = direction @ jump
    slope = slope if (slope @ vertex.across) * vertex.steep > 0 else -slope
    noise = 1e-8 * float(np.linalg.norm(reply.gradient))
    off = abs(slope @ vertex.across - vertex.steep)
    if abs(vertex.steep) < max(1e3 * noise, STEEP * float(np.linalg.norm(slope))):
        return None
    if np.linalg.norm(jump - np.outer(direction, direction @ jump)) > noise or off > 100 * noise:
        return None
    return Sight(start - vertex.across * (slope @ (start - vertex.x)) / vertex.steep, slope)


def _on_a_line(
    first: Layer,
    signed: bool,
    seen: Sequence[Sight],
    solved: Solved,
    box: float,
    rng: np.random.Generator,
) -> Vertex | None:
    """A zero of z on a line where d - 1 planes meet, as many as can be of those wanted; of these
    all kinks lie on one side, and the other is looked at.
    """
    weights, bias = first
    sides = np.sign(weights @ seen[0].x + bias)
    (wanted,), (others,) = np.nonzero(solved.open), np.nonzero(~solved.open)
    for _ in range(LINES):
        order = np.concatenate([rng.permutation(wanted), rng.permutation(others)])
        planes = order[: weights.shape[1] - 1]
        _, sizes, right = np.linalg.svd(weights[planes])
        if sizes[-1] < STEEP:
            continue
        across, inverse = right[-1], np.linalg.pinv(weights[planes])
        foot = -inverse @ bias[planes]
        rest = np.delete(np.arange(len(bias)), planes)
        along = weights[rest] @ across
        t = -(weights[rest] @ foot + bias[rest]) / np.where(along != 0, along, 1e-300)
        t = np.concatenate([[-box], np.sort(t[np.abs(t) < box]), [box]])
        row = values(first, signed, foot + t[:, None] * across)
        known = np.abs(row @ solved.free.T).max(1, initial=0) < RANK * np.linalg.norm(row, axis=1)
        z = row @ solved.numbers
        (at,) = np.nonzero(known[1:] & known[:-1] & (z[1:] * z[:-1] < 0))
        if not len(at):
            continue
        at = at[np.argmin(np.minimum(np.abs(t[at]), np.abs(t[at + 1])))]
        steep = (z[at + 1] - z[at]) / (t[at + 1] - t[at])
        x = foot + (t[at] - z[at] / steep) * across
        room = float(np.abs(weights[rest] @ x + bias[rest]).min(initial=np.inf))
        if room < ROOM * (1 + np.abs(x).max()):
            continue
        beyond = -inverse @ sides[planes]
        return Vertex(x, room, across, beyond / np.linalg.norm(beyond), float(steep))
    return None


def _on_a_plane(
    first: Layer, seen: Sequence[Sight], solved: Solved, box: float, rng: np.random.Generator
) -> Vertex | None:
    """Of several vertices of the unit's plane, in the cells of its kinks, the one with most of the
    planes that are wanted.
    """
    weights, bias = first
    best, most, dim = None, 0, weights.shape[1]
    for _ in range(PROGRAMS):
        sight = seen[int(rng.integers(len(seen)))]
        sides, length = np.sign(weights @ sight.x + bias), float(np.linalg.norm(sight.slope))
        rows, normal = weights * sides[:, None], sight.slope / length
        cost = (solved.open * rng.exponential(1.0, len(bias))) @ rows
        equal = normal[None], normal[None] @ sight.x
        x = cells.lowest(cost, -rows, bias * sides, [(-box, box)] * dim, equal)
        if x is None:
            continue
        gap = np.abs(weights @ x + bias)
        near = gap < NEAR * (1 + np.abs(x).max())
        room = float(gap[~near].min(initial=np.inf))
        gain = int((near & solved.open).sum())
        if gain <= most or near.sum() >= dim or room < ROOM * (1 + np.abs(x).max()):
            continue
        inverse = np.linalg.pinv(np.concatenate([normal[None], weights[near]]))
        x = x - inverse @ np.append(normal @ (x - sight.x), weights[near] @ x + bias[near])
        across, beyond = inverse[:, 0], -inverse[:, 1:] @ sides[near]
        across, beyond = across / np.linalg.norm(across), beyond / np.linalg.norm(beyond)
        steep = float(sight.slope @ across)
        best, most = Vertex(x, room, across, beyond, steep), gain
        if most >= min(solved.lack, dim - 1):
            break
    return best
