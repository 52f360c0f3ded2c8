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


class Reading(NamedTuple):
    """value [K] and the features y [f] at x [d], M [K, f] where they are on, else zero.

    rest [K] = f - J x: what biases add, those of the convolutions shift [K, n] times themselves.
    off: what the convolutions leave of the Jacobian, relative to it; nan where the features' rows
    depend on each other; left [d]: of each of its columns.
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
    rest, shift, left = value - jacobian @ x, slope @ image.shifts, np.linalg.norm(left, axis=0)
    return Reading(x, value, y, slope, rest, shift, off, left)
