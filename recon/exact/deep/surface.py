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
TRIES = 6  # linear programs a step
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
    sight: Sight,
    wanted: Solved,
    direction: np.ndarray,
    rng: np.random.Generator,
) -> Sight | None:
    """One more kink of the unit, beyond planes whose coefficients are wanted; two queries.

    direction [K]: of the unit's jumps.  None where there is no such vertex, or not this unit.
    """
    found = _vertex(first, sight, wanted, rng)
    if found is None:
        return None
    x, planes, room = found
    sides = np.sign(first.weights[planes] @ sight.x + first.bias[planes])
    length = np.linalg.norm(sight.slope)
    solved = np.linalg.pinv(np.concatenate([sight.slope[None] / length, first.weights[planes]]))
    gaps = np.append(0.0, first.weights[planes] @ x + first.bias[planes])
    gaps[0] = sight.slope @ (x - sight.x) / length
    x = x - solved @ gaps
    across, beyond = solved[:, 0], -solved[:, 1:] @ sides
    across = across / np.linalg.norm(across)
    size = min(BESIDE * (1 + np.linalg.norm(x)), 0.1 * room)
    start = x + RAISED * size * beyond / max(float(np.linalg.norm(beyond)), 1e-300)
    reply = ask(np.stack([start + size * across, start - size * across]))
    jump = reply.gradient[0] - reply.gradient[1]
    slope = direction @ jump * np.sign(sight.slope @ across)
    noise = 1e-8 * np.linalg.norm(reply.gradient)
    if np.linalg.norm(jump - np.outer(direction, direction @ jump)) > noise + 1e-6 * length:
        return None
    slope = slope if (slope @ across) * (sight.slope @ across) > 0 else -slope
    if abs(slope @ across) < 1e-3 * abs(sight.slope @ across):
        return None
    return Sight(start - across * (slope @ (start - x)) / (slope @ across), slope)


def _vertex(
    first: Layer, sight: Sight, wanted: Solved, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """A vertex of the unit's plane in the cell of a kink: where, the planes that meet there
    (numbers), and how far off the others are; the one of several with most wanted planes.
    """
    z = first.weights @ sight.x + first.bias
    sides, dim = np.sign(z), len(sight.x)
    rows, length = first.weights * sides[:, None], np.linalg.norm(sight.slope)
    equal = sight.slope[None] / length, np.array([sight.slope @ sight.x / length])
    box = FAR * (1 + np.abs(sight.x).max())
    best, most = None, 0
    for _ in range(TRIES):
        cost = (wanted.open * rng.exponential(1.0, len(z))) @ rows
        x = cells.lowest(cost, -rows, first.bias * sides, [(-box, box)] * dim, equal)
        if x is None:
            continue
        gap = np.abs(first.weights @ x + first.bias)
        near = gap < 1e-7 * (1 + np.abs(x).max())
        gain = int((near & wanted.open).sum())
        room = float(gap[~near].min(initial=np.inf))
        if near.sum() < dim and gain > most and room > 1e-4 * (1 + np.abs(x).max()):
            best, most = (x, np.flatnonzero(near), room), gain
        if most >= min(wanted.lack, dim - 1):
            break
    return best
