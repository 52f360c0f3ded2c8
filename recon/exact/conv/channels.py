"""Kernels and their signs from kinks at the corner.

A kink of a channel is a change between the moving position 0 and nothing, or between it and a
fixed position o: its row is (B_0 - B_o) w or B_0 w up to scale, B_o [pixels, weights] the pull-back
of position o through the layers before, which are known.  o shows in how far the row reaches.
Stacked, the kinks of one channel are linear equations for its weights w; where inputs were off in
all of them some weights stay open, and other window contents show these.  The sign: among three
fixed positions the largest sum is the rival of w, the smallest that of -w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact.conv import known
from recon.exact.conv.corner import Corner, Kink

FITS = 1e-7  # what a kink may leave of its row
OPEN = 1e-8  # singular values below, of the largest, leave weights open
VISIBLE = 1e-8  # of the largest entry of a row: what belongs to it
PART = 2.0**-10  # of a vote
DEPENDENT = 1e-6  # parts beyond of what is known, that are none


class Kernel(NamedTuple):
    """Weights [n] of a channel, of length one, and a basis [n, m] of what is open in them.

    The Jacobian jumps by `strength` [K] times the change of the channel's row.
    """

    weights: np.ndarray
    open: np.ndarray
    strength: np.ndarray


def reach(kink: Kink, corner: Corner) -> tuple[int, int]:
    """Rows and columns of pixels that the row of a kink reaches."""
    size = np.abs(kink.row).reshape(corner.side, corner.side, -1).max(2)
    size = size > VISIBLE * size.max()
    return tuple(int(np.flatnonzero(size.any(axis))[-1]) + 1 for axis in (1, 0))  # type: ignore[return-value]


def position(kink: Kink, corner: Corner, side: int) -> int:
    """The rival position of a kink, 0 for none, where kernels have this side: the first whose
    windows hold the row, up to what is known.
    """
    own, step = known.span(corner.below, side), 2 ** len(corner.below)
    numbers = np.arange(len(kink.row)) // (len(kink.row) // corner.side**2)
    down, right = np.divmod(numbers, corner.side)
    for rival in range(3):
        beyond = (down >= own + step * (rival // 2)) | (right >= own + step * (rival % 2))
        part, row = kink.known[beyond], kink.row[beyond]
        if part.size:
            row = row - part @ np.linalg.lstsq(part, row, rcond=DEPENDENT)[0]
        if np.abs(row).max(initial=0.0) < VISIBLE * np.abs(kink.row).max():
            return rival
    return 3


def pulled(kink: Kink, corner: Corner, side: int) -> np.ndarray:
    """The map [w, n] from weights to the row of a kink, up to what is known."""
    image = kink.left.image
    at = known.windows(image.y.shape, side)[0, 0]
    rows = image.rows[at[0]]
    if rival := position(kink, corner, side):
        rows = rows - image.rows[at[rival]]
    pull = rows.toarray()[:, corner.window].T
    return np.asarray(pull - kink.known @ (kink.known.T @ pull))


def solved(kinks: Sequence[Kink], corner: Corner, side: int) -> Kernel | None:
    """The kernel, up to its sign, that explains the kinks of one channel; None where none does.

    Unknowns: the weights, and of each kink its scale; a solution without scales is open.
    """
    maps = [pulled(kink, corner, side) for kink in kinks]
    height, width = maps[0].shape
    a = np.zeros((height * len(kinks), width + len(kinks)))
    for i, (kink, pull) in enumerate(zip(kinks, maps, strict=True)):
        rows = slice(i * height, (i + 1) * height)
        a[rows, :width] = pull
        a[rows, width + i] = -kink.row / np.linalg.norm(kink.row)
    _, size, vt = np.linalg.svd(np.linalg.qr(a, mode="r"))
    size = np.append(size, np.zeros(len(vt) - len(size)))
    null = vt[size < OPEN * size[0]]
    u, scales, _ = np.linalg.svd(null[:, width:])
    if not len(scales) or scales[0] < FITS:
        return None
    if len(scales) > 1 and scales[1] > FITS:  # kinks that share no weights
        return Kernel(np.zeros(width), np.eye(width), np.zeros(len(corner.names[0])))
    one, rest = u[:, 0] @ null, u[:, 1:].T @ null
    length = float(np.linalg.norm(one[:width]))
    row = one[width] / np.linalg.norm(kinks[0].row) / length
    name = corner.names[kinks[0].name]
    return Kernel(one[:width] / length, rest[:, :width].T, name / row)


def side(corner: Corner, most: int) -> int | None:
    """The side of the kernels behind all kinks so far, at most `most`; None for none."""
    if not corner.kinks:
        return None
    far = max(max(reach(kink, corner)) for kink in corner.kinks)
    for a in range(1, most + 1):
        if known.span(corner.below, a + 1) < far:
            continue
        if all(solved([kink], corner, a) is not None for kink in corner.kinks):
            return a
    return None


def sign(weights: np.ndarray, kinks: Sequence[Kink], corner: Corner, side: int) -> float:
    """The sum of what its kinks say of the sign of a kernel: a whole vote each where a position has
    a rival, a part of one where none and biases may be larger; 0 where they do not say.
    """
    votes = [0.0]
    for kink in kinks:
        y = kink.left.image.y
        fixed = y.reshape(-1)[known.windows(y.shape, side)[0, 0, 1:]] @ weights
        if rival := position(kink, corner, side):
            votes.append(float(fixed.argmax() == rival - 1) - float(fixed.argmin() == rival - 1))
        elif (fixed > 0).all() or (fixed < 0).all():
            votes.append(-PART * float(np.sign(fixed[0])))
    return sum(votes)
