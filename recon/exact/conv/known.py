"""Convolutions with ReLU and 2x2 max-pools that are known: their outputs and exact Jacobians."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, int, int]


class Layer(NamedTuple):
    """A kernel [a, a, c, o] and biases [o]."""

    kernel: np.ndarray
    bias: np.ndarray


class Image(NamedTuple):
    """y [h, w, c] at a point x [d], and the rows of its Jacobian [h w c, d], sparse; those of its
    Jacobian in the biases of all layers, first one first [h w c, n].
    """

    y: np.ndarray
    rows: Any
    shifts: np.ndarray


@lru_cache(maxsize=32)
def windows(shape: Shape, side: int) -> np.ndarray:
    """Numbers [h', w', 4, side^2 c] of the inputs, in an image of this shape, of the four positions
    that each pixel after the pool is the largest of.
    """
    numbers = np.arange(np.prod(shape)).reshape(shape)
    view = np.lib.stride_tricks.sliding_window_view(numbers, (side, side), axis=(0, 1))
    h, w = view.shape[0] // 2, view.shape[1] // 2
    fours = view.transpose(0, 1, 3, 4, 2)[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1)
    return np.ascontiguousarray(fours.swapaxes(1, 2).reshape(h, w, 4, -1))


def sums(kernel: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of an image [h, w, c] at the four positions of each pixel, [h', w', 4, o], biases apart."""
    at = windows(y.shape, len(kernel))
    return np.asarray(y.reshape(-1)[at] @ kernel.reshape(-1, kernel.shape[-1]))


def matrix(kernel: np.ndarray, shape: Shape, position: np.ndarray, on: np.ndarray) -> Any:
    """The Jacobian [h' w' o, h w c], sparse, where each pixel [h', w', o] has this position."""
    from scipy import sparse

    at, (h, w, o) = windows(shape, len(kernel)), position.shape
    p, q, c = np.nonzero(on)
    columns = at[p, q, position[p, q, c]]
    entries = kernel.reshape(-1, o).T[c]
    starts = np.concatenate([[0], np.cumsum(on.reshape(-1))]) * at.shape[-1]
    size = (h * w * o, int(np.prod(shape)))
    return sparse.csr_array((entries.reshape(-1), columns.reshape(-1), starts), shape=size)


def image(layers: Sequence[Layer], shape: Shape, x: np.ndarray) -> Image:
    """What the layers make of x [d], an image of this shape."""
    from scipy import sparse

    y, rows = x.reshape(shape), sparse.eye_array(x.size, format="csr")
    shifts = np.zeros((x.size, 0))
    for kernel, bias in layers:
        z = sums(kernel, y)
        top = z.max(2) + bias
        step = matrix(kernel, y.shape, z.argmax(2), top > 0)
        own = (top > 0)[..., None] * np.eye(len(bias))
        rows, shifts = step @ rows, np.hstack([step @ shifts, own.reshape(-1, len(bias))])
        y = np.maximum(top, 0)
    return Image(y, rows, shifts)


def span(layers: Sequence[Layer], side: int) -> int:
    """The side in pixels of what a window of this side sees above the layers."""
    for kernel, _ in reversed(layers):
        side = 2 * (side - 1) + len(kernel) + 1
    return side


def outputs(layers: Sequence[Layer], y: np.ndarray) -> np.ndarray:
    """What the layers make of an image [h, w, c]."""
    for kernel, bias in layers:
        y = np.maximum(sums(kernel, y).max(2) + bias, 0)
    return y
