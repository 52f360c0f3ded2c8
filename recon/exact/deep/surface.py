"""A unit of the second layer as its kinks show it, where the first layer is wider than the input.

With z_1 = M x + b, rows m_i, a unit of the second layer is, whatever the signs s_i of the first,

    z(x) = L x + l + sum_i c_i |m_i x + b_i|,    c_i = s_i w_i / 2,    L = sum_i s_i c_i m_i.

A kink at p shows z(p) = 0 and the gradient L + sum_i c_i sign(m_i p + b_i) m_i: d + 1 linear
equations for (L, l, c); once signs are known, for w and the bias.  More kinks of a unit are had at
will: from one, a linear program leads along the unit's own plane, inside its cell, to a vertex
where up to d - 1 planes of the first layer meet; two replies just beyond all of them show how the
gradient changes, n' - n = sum_i 2 c_i sign_i m_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact.deep import cells
from recon.exact.deep.known import Layer
from recon.exact.deep.segment import Ask

RANK = 1e-9  # of the largest singular value
OPEN = 1e-6  # a coefficient that moves so much in the null space is not known
AGREE = 1e-6  # of the gradients' size: what kinks of one unit leave
TRIES = 12  # vertices that a step chooses from
HOPS = 6  # from a kink to one, at most
NEAR, ROOM = 1e-7, 1e-4  # of 1 + |x|: a plane through a vertex; how far others must be
STEEP = 1e-4  # a plane's least angle with the planes that it meets
BESIDE = 1e-5  # of 1 + |x|: how far beside the plane it is asked
RAISED = 1e-3  # of that: how far beyond the planes of the first layer
FAR = 30.0  # times the size of inputs: no vertex is farther


class Sight(NamedTuple):
    """A kink of one unit: where [d], and the gradient of z there [d], where |V_j| = 1."""

    x: np.ndarray
    slope: np.ndarray


class Solved(NamedTuple):
    """The unknowns, which of the c_i or w_i are not determined [h], and how many numbers lack."""

    numbers: np.ndarray
    open: np.ndarray
    lack: int


def equations(first: Layer, signed: bool, x: np.ndarray) -> np.ndarray:
    """[d + 1, n] of a kink at x, for the unknowns (L, l, c), or (bias, w) where signs are known."""
    z = first.weights @ x + first.bias
    if signed:
        rows = np.column_stack([np.zeros(len(x)), (first.weights * (z > 0)[:, None]).T])
        level = np.concatenate([[1.0], np.maximum(z, 0)])
    else:
        sides = first.weights * np.sign(z)[:, None]
        rows = np.column_stack([np.eye(len(x)), np.zeros(len(x)), sides.T])
        level = np.concatenate([x, [1.0], np.abs(z)])
    return np.concatenate([rows, level[None] / (1 + np.linalg.norm(x))])


def solve(first: Layer, signed: bool, seen: Sequence[Sight]) -> Solved | None:
    """What kinks of a unit tell; None where they contradict each other."""
    a = np.concatenate([equations(first, signed, sight.x) for sight in seen])
    b = np.concatenate([np.append(sight.slope, 0.0) for sight in seen])
    left, values, right = np.linalg.svd(a)
    rank = int(np.sum(values > RANK * values[0]))
    numbers = right[:rank].T @ ((left[:, :rank].T @ b) / values[:rank])
    if np.linalg.norm(a @ numbers - b) > AGREE * np.linalg.norm(b):
        return None
    free = np.linalg.norm(right[rank:], axis=0)[-len(first.bias) :]
    return Solved(numbers, free > OPEN, len(numbers) - rank)


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

    direction [K]: of the unit's jumps.  None where there is no such vertex, or not this unit.
    """
    best = _best(first, signed, seen, solved, rng)
    if best is None:
        return None
    sight, vertex = best
    size = min(BESIDE * (1 + np.linalg.norm(vertex.x)), 0.1 * vertex.room)
    start = vertex.x + RAISED * size * vertex.beyond
    reply = ask(np.stack([start + size * vertex.across, start - size * vertex.across]))
    jump = reply.gradient[0] - reply.gradient[1]
    slope = direction @ jump
    noise = 1e-8 * np.linalg.norm(reply.gradient)
    if np.linalg.norm(jump - np.outer(direction, slope)) > noise:
        return None
    if (slope @ vertex.across) * (sight.slope @ vertex.across) < 0:
        slope = -slope
    return _on(vertex, start, slope)


class _Vertex(NamedTuple):
    """Where a unit's plane meets planes of the first layer (numbers); the distance to others; the
    directions, of length one, along these planes across the unit's, and beyond these within it.
    """

    x: np.ndarray
    planes: np.ndarray
    room: float
    across: np.ndarray
    beyond: np.ndarray


def _best(
    first: Layer, signed: bool, seen: Sequence[Sight], solved: Solved, rng: np.random.Generator
) -> tuple[Sight, _Vertex] | None:
    """Of several vertices the one with most planes whose coefficients are wanted, and a kink beside
    it.  Across planes with known coefficients the unit's surface is followed without a query.
    """
    best, most = None, 0
    enough = min(solved.lack, len(seen[0].x) - 1)
    box = FAR * (1 + min(float(np.abs(sight.x).max()) for sight in seen))
    for _ in range(TRIES):
        sight = seen[rng.integers(len(seen))]
        cost = solved.open * rng.exponential(1.0, len(first.bias))
        for _ in range(HOPS):
            vertex = _vertex(first, sight, cost, box)
            if vertex is None:
                break
            gain = int(solved.open[vertex.planes].sum())
            if gain > most:
                best, most = (sight, vertex), gain
            if gain:
                break
            turn = -np.sign(first.weights[vertex.planes] @ sight.x + first.bias[vertex.planes])
            weight = (1 if signed else 2) * solved.numbers[-len(first.bias) :][vertex.planes]
            slope = sight.slope + (turn * weight) @ first.weights[vertex.planes]
            hop = _on(vertex, vertex.x + 0.01 * vertex.room * vertex.beyond, slope)
            if hop is None:
                break
            sight = hop
        if most >= enough:
            break
    return best


def _vertex(first: Layer, sight: Sight, cost: np.ndarray, box: float) -> _Vertex | None:
    """The vertex of the unit's plane in the cell of a kink where planes [h] cost least."""
    weights, bias = first
    sides, dim, length = np.sign(weights @ sight.x + bias), len(sight.x), np.linalg.norm(sight.slope)
    rows, normal = weights * sides[:, None], sight.slope / length
    x = cells.lowest(
        cost @ rows, -rows, bias * sides, [(-box, box)] * dim, (normal[None], normal[None] @ sight.x)
    )
    if x is None:
        return None
    gap = np.abs(weights @ x + bias)
    near = gap < NEAR * (1 + np.abs(x).max())
    room = float(gap[~near].min(initial=np.inf))
    if not 0 < near.sum() < dim or room < ROOM * (1 + np.abs(x).max()):
        return None
    solved = np.linalg.pinv(np.concatenate([normal[None], weights[near]]))
    x = x - solved @ np.append(normal @ (x - sight.x), weights[near] @ x + bias[near])
    across, beyond = solved[:, 0], -solved[:, 1:] @ sides[near]
    across, beyond = across / np.linalg.norm(across), beyond / np.linalg.norm(beyond)
    return _Vertex(x, np.flatnonzero(near), room, across, beyond)


def _on(vertex: _Vertex, start: np.ndarray, slope: np.ndarray) -> Sight | None:
    """The kink beside `start` beyond a vertex, where the unit has this slope."""
    steep = slope @ vertex.across
    if abs(steep) < STEEP * np.linalg.norm(slope):
        return None
    return Sight(start - vertex.across * (slope @ (start - vertex.x)) / steep, slope)
