"""What a reply says once all convolutions are known: the gradients in the features.

J = M R, R [features that are on, d] the Jacobian of the features at x, which is known; where its
rows are independent M [K, f] is read off, and what is left of J is that of a channel that is
missing, or of a convolution that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact.conv import known
from recon.exact.conv.known import Layer, Shape
from recon.replies import Reply

DEPENDENT = 1e-8  # of the rows of R
LEFT = 1e-8  # of a Jacobian, that convolutions may leave unexplained
ROWS = 1e-6  # of the largest singular value of what is left: those above are rows
INSIDE, OWN = 1e-8, 1e-2  # of a vector: what may lie outside of its window; a part that is one


class Reading(NamedTuple):
    """value [K] and the features y [f] at x [d], M [K, f] where they are on, else zero.

    rest [K] = f - J x: what biases add, those of the convolutions shift [K, n] times themselves.
    off: what the convolutions leave of the Jacobian, relative to it; nan where the features' rows
    depend on each other; left [K, d]: that, where it is more than rounding.
    """

    x: np.ndarray
    value: np.ndarray
    y: np.ndarray
    slope: np.ndarray
    rest: np.ndarray
    shift: np.ndarray
    off: float
    left: np.ndarray


def read(layers: Sequence[Layer], shape: Shape, x: np.ndarray, reply: Reply) -> list[Reading]:
    """Of each point x [n, d]."""
    return [_read(layers, shape, *row) for row in zip(x, *reply, strict=True)]


def _read(
    layers: Sequence[Layer], shape: Shape, x: np.ndarray, value: np.ndarray, jacobian: np.ndarray
) -> Reading:
    image = known.image(layers, shape, x)
    y = image.y.reshape(-1)
    slope = np.zeros((len(value), len(y)))
    (on,) = np.nonzero(y > 0)
    left, length = jacobian, max(float(np.linalg.norm(jacobian)), 1e-300)
    apart = True
    if len(on):
        q, triangle = np.linalg.qr(image.rows[on].toarray().T)
        size = np.abs(np.diag(triangle))
        apart = len(size) == len(on) and bool(size.min() >= DEPENDENT * size.max())
        if apart:
            slope[:, on] = np.linalg.solve(triangle, q.T @ jacobian.T).T
            left = jacobian - (jacobian @ q) @ q.T
    off = float(np.linalg.norm(left)) / length if apart else np.nan
    rest, shift = value - jacobian @ x, slope @ image.shifts
    return Reading(x, value, y, slope, rest, shift, off, left[: 0 if off < LEFT else None])


def places(of: Reading, layers: Sequence[Layer], shape: Shape) -> list[tuple[int, int]]:
    """Pixels (i, j) where windows begin in which missing channels of the last layer are on.

    The rows that these add to the Jacobian lie in a window each, up to rows of known channels: of
    what the Jacobian's rows and theirs span, some vector with a part of the former does.  Best
    first; none where what is left of the Jacobian has as many rows as there are outputs.
    """
    _, size, rows = np.linalg.svd(of.left, full_matrices=False)
    rank = int(np.sum(size > ROWS * size[0])) if len(size) else 0
    if not 0 < rank < len(of.left):
        return []
    image = known.image(layers, shape, of.x)
    seen = image.rows[np.flatnonzero(image.y > 0)].toarray().T
    both = np.linalg.qr(np.hstack([rows[:rank].T, seen]))[0].reshape(*shape, -1)
    side, step, found = known.span(layers, 1), 2 ** (len(layers) - 1), []
    side -= step  # of one position, not of four
    for i in range(0, shape[0] - side + 1, step):
        for j in range(0, shape[1] - side + 1, step):
            part = both[i : i + side, j : j + side].reshape(-1, both.shape[-1])
            _, inside, v = np.linalg.svd(part, full_matrices=False)
            share = np.linalg.norm(v[inside > 1 - INSIDE][:, :rank])
            if share > OWN:
                found.append((share, (i, j)))
    return [place for _, place in sorted(found, reverse=True)]
