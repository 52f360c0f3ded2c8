"""Which channels of a layer are on in its corner pixel, and what they say of its biases."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from recon.exact.conv import known
from recon.exact.conv.corner import Corner, Line, Point

REST = 1e-9  # of the Jacobian at the corner, that channels may leave unexplained


class State(NamedTuple):
    """Which channels are on in the corner pixel at a point [o], and what biases of the layers
    before add to each sum there [o]; off: what they leave of the Jacobian.
    """

    on: np.ndarray
    before: np.ndarray
    off: float


def read(
    corner: Corner, point: Point, side: int, weights: np.ndarray, strengths: np.ndarray
) -> State:
    """Read off the Jacobian in the pixels that only the corner pixel of the layer sees.

    side: of the kernels; weights [n, o] and strengths [o, K], signed: of the channels.
    """
    alone = corner.pixels(2 ** (len(corner.below) + 1))
    sums, rows = _rows(point, side, weights)
    parts, jacobian = _parts(point, alone, rows, strengths)
    on, _, rank, _ = np.linalg.lstsq(parts, jacobian, rcond=1e-10)
    if rank < len(on):  # not told apart here
        on = np.full(len(on), np.nan)
        return State(on, on, 0.0)
    off = np.linalg.norm(parts @ on.round() - jacobian) / np.linalg.norm(point.gradient)
    before = sums - rows @ point.x
    return State(on.round(), before, max(float(off), np.abs(on - on.round()).max() * REST))


def left(
    point: Point, pixels: np.ndarray, side: int, weights: np.ndarray, strengths: np.ndarray
) -> float:
    """What channels leave of the Jacobian in these pixels, however much of each is taken."""
    parts, jacobian = _parts(point, pixels, _rows(point, side, weights)[1], strengths)
    rest = jacobian - parts @ np.linalg.lstsq(parts, jacobian, rcond=1e-10)[0]
    return float(np.linalg.norm(rest) / np.linalg.norm(point.gradient))


def _rows(point: Point, side: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest of the four sums of each channel [o], biases apart, and its row [o, d]."""
    image = point.image
    at = known.windows(image.y.shape, side)[0, 0]
    sums = image.y.reshape(-1)[at] @ weights
    position, channel = sums.argmax(0), np.arange(weights.shape[1])
    rows = np.stack([image.rows[at[o]].T @ weights for o in range(4)])
    return sums[position, channel], rows[position, :, channel]


def _parts(
    point: Point, pixels: np.ndarray, rows: np.ndarray, strengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each channel adds, where it is on, to the Jacobian in these pixels, [K p, o], and it."""
    parts = strengths[:, :, None] * rows[:, None, pixels]
    return parts.reshape(len(parts), -1).T, point.gradient[:, pixels].reshape(-1)


def equations(
    lines: Sequence[Line], states: Sequence[Sequence[State]], strengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """rows [m, o] and rest [m] with rows b = rest: f - J x changes by biases b [o] alone."""
    rows, rest = [np.zeros((0, len(strengths)))], [np.zeros(0)]
    for line, each in zip(lines, states, strict=True):
        told = [(p, s) for p, s in zip(line.points, each, strict=True) if np.isfinite(s.on).all()]
        constant = [
            point.value - point.gradient @ point.x - strengths.T @ (state.on * state.before)
            for point, state in told
        ]
        for i, ((_, one), (_, two)) in enumerate(pairwise(told)):
            if (one.on != two.on).any():
                rows.append(strengths.T * (two.on - one.on))
                rest.append(constant[i + 1] - constant[i])
    return np.concatenate(rows), np.concatenate(rest)
