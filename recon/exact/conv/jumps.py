"""Which units of the dense layer differ between two points, from their readings.

On features y that are on at both, M = df/dy differs by the sum of s_j v_j u_j^T over the units that
differ, s_j = 1 where unit j is on at the second alone and -1 where at the first: v_j [K] what it
adds to f, u_j its row.  Where they are fewer than the outputs, their v_j span the columns of the
difference: v_j names the unit, and the names in the span tell which ones differ, whatever is known
of rows.  A difference of rank one is a new unit's name; so is what two spans have in common where
that is one direction, as units have theirs in general position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact.conv.reading import Reading

NOTHING = 1e-10  # of M: differences that are none
SAME = 1e-7  # how far a name may lie from a span it belongs to
CLEAR = 1e-6  # of M: parts of a difference whose direction is told
WHOLE = 1e-6  # how far the number of changes of a unit may be from a whole number
SPARE = 4  # columns more than names that a span must have been seen in
FEW = 80  # spans compared


class Jump(NamedTuple):
    """A difference of M [K, m] on columns [m] (feature numbers), and an orthonormal basis [K, n] of
    its span; None where that is everything, or not told.
    """

    columns: np.ndarray
    change: np.ndarray
    span: np.ndarray | None


class Change(NamedTuple):
    """Numbers of the units that differ, and the name [K] of one more that was not known."""

    units: tuple[int, ...]
    new: np.ndarray | None = None


def between(left: Reading, right: Reading) -> Jump:
    """From one reading to another."""
    (columns,) = np.nonzero((left.y > 0) & (right.y > 0))
    scale = max(np.linalg.norm(left.slope), np.linalg.norm(right.slope))
    return jump(columns, (right.slope - left.slope)[:, columns], float(scale))


def jump(columns: np.ndarray, change: np.ndarray, scale: float) -> Jump:
    """A difference between slopes of this norm."""
    return Jump(columns, change, _span(change, scale))


def _span(change: np.ndarray, scale: float) -> np.ndarray | None:
    outputs, width = change.shape
    if width < outputs + SPARE:
        return None
    u, size, _ = np.linalg.svd(change, full_matrices=False)
    rank = int(np.sum(size > NOTHING * scale))
    if rank == outputs or (rank and size[rank - 1] < CLEAR * scale):
        return None
    return np.asarray(u[:, :rank])


def inside(names: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Numbers of the names [h, K] that lie in a span."""
    return np.flatnonzero(np.linalg.norm(names - (names @ span) @ span.T, axis=1) < SAME)


def explained(
    jump: Jump, names: np.ndarray, rows: np.ndarray, state: np.ndarray, scale: float
) -> Change | None:
    """The units whose change makes the jump; None where these are not told.

    names [h, K] and rows [h, f], nan where unknown, of the units known; state [h]: which are on
    before the jump.
    """
    turn = np.where(state, -1.0, 1.0)
    known = rows[:, jump.columns] * turn[:, None]
    span = jump.span
    if span is None:
        return _counted(jump.change, names, known, scale)
    rank = span.shape[1]
    own = inside(names, span)
    units = tuple(own.tolist())
    if len(units) == rank:
        return Change(units) if _agree(jump.change, names[own], known[own], scale) else None
    if rank == 1:
        return Change((), span[:, 0])
    if len(units) == rank - 1:
        at = np.isfinite(known[own]).all(0)
        rest = jump.change[:, at] - names[own].T @ known[own][:, at]
        left = _span(rest, scale)
        if left is not None and left.shape[1] == 1:
            return Change(units, left[:, 0])
    return None


def _agree(change: np.ndarray, names: np.ndarray, known: np.ndarray, scale: float) -> bool:
    """Whether the rows that such a change needs are those known."""
    if not len(names):
        return True
    off = np.linalg.pinv(names.T) @ change - known
    return bool(np.abs(off[np.isfinite(off)]).max(initial=0.0) < CLEAR * scale)


def _counted(
    change: np.ndarray, names: np.ndarray, known: np.ndarray, scale: float
) -> Change | None:
    """By rows alone: each unit changes once or not at all."""
    at = np.isfinite(known).all(0)
    if not len(names) or at.sum() * len(change) < len(names) + SPARE:
        return None
    parts = np.einsum("hk,hm->kmh", names, known[:, at]).reshape(-1, len(names))
    times, _, rank, _ = np.linalg.lstsq(parts, change[:, at].reshape(-1), rcond=1e-9)
    left = parts @ times.round() - change[:, at].reshape(-1)
    if rank < len(names) or np.linalg.norm(left) > WHOLE * scale:
        return None
    if not np.isin(times.round(), (0, 1)).all():
        return None
    return Change(tuple(np.flatnonzero(times.round()).tolist()))


def shared(spans: Sequence[np.ndarray], names: np.ndarray) -> np.ndarray | None:
    """A name [K] that is new, as the only direction two of the spans share; None for none."""
    spans = sorted((s for s in spans if s.shape[1]), key=lambda s: s.shape[1])[:FEW]
    for i, one in enumerate(spans):
        for other in spans[:i]:
            if one.shape[1] + other.shape[1] > len(one):
                continue
            u, size, _ = np.linalg.svd(one.T @ other)
            if size[0] < 1 - SAME**2 or (len(size) > 1 and size[1] > 1 - CLEAR):
                continue
            name = one @ u[:, 0]
            if np.linalg.norm(name - other @ (other.T @ name)) > SAME:
                continue
            if not len(names) or np.abs(names @ name).max() < 1 - SAME:
                return np.asarray(name)
    return None
