"""The record of a convolutional network: convolutions with ReLU and 2x2 max-pools, then a Deep."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from recon.networks.deep import Deep
from recon.networks.record import Record, Sizes, relu

Shape = tuple[int, int, int]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernels", "shifts", "head"],
    meta_fields=["shape"],
)
@dataclass(frozen=True, repr=False)
class Convolutional(Record):
    """f(x) = head(y), y = pool(max(kernels_i * y + shifts_i, 0)) for i = 0, 1, ... from y = x on.

    shape: (h, w, c) of the image, whose pixels x [d] holds row by row, channels last; kernels: a
    tuple of arrays [a, a, c, o], correlated at stride 1 without padding; shifts: of arrays [o].
    Pools take the maximum of 2x2 windows and drop an odd last row or column.
    """

    function: ClassVar[str] = (
        "f(x) = the head of y, y = the 2x2 max-pool of max(kernels_i correlated with y + shifts_i, "
        "0) for i = 0, 1, ... from the image x [h, w, c] on, without padding; the head has dense "
        "layers, weights_i y + biases_i, with max(., 0) between them"
    )
    kernels: tuple[Any, ...]
    shifts: tuple[Any, ...]
    head: Deep
    shape: Shape

    def __call__(self, x: Any) -> Any:
        """Values [n, K] for x [n, d], or [K] for x [d]; NumPy's where all are NumPy's."""
        if x.ndim == 1:
            return self(x[None])[0]
        return self.head(self.features(x))

    def features(self, x: Any) -> Any:
        """What the head is given: [n, f] for x [n, d]."""
        return _flat([*self._layers(x)][-1][1])

    def gradient(self, x: Any) -> Any:
        """Jacobians [n, K, d] for x [n, d]; at a kink, the side where the unit is off."""
        layers = [*self._layers(x)]
        rows = self.head.gradient(_flat(layers[-1][1]))
        images = image_sizes(self.sizes)
        for i, (quads, y) in reversed([*enumerate(layers)]):
            rows = rows.reshape(*rows.shape[:2], *y.shape[1:])
            rows = _unpooled(rows * (y > 0)[:, None].astype(rows.dtype), quads)
            rows = _flat(_spread(rows, self.kernels[i], images[i]), 2)
        return rows

    def _layers(self, x: Any) -> Iterator[tuple[Any, Any]]:
        """Of each convolution the sums [n, h, 2, w, 2, o] that are pooled, and y [n, h, w, o]."""
        y = x.reshape(len(x), *self.shape)
        for kernel, shift in zip(self.kernels, self.shifts, strict=True):
            quads = in_fours(correlate(y, kernel)) + shift.reshape(1, 1, 1, 1, 1, -1)
            y = relu(quads.max((2, 4)))
            yield quads, y

    @property
    def sizes(self) -> Sizes:
        """(convolutions, h, w, c, a_0, o_0, a_1, o_1, ..., h_1, ..., K): the last of the head."""
        sides = [n for kernel in self.kernels for n in (kernel.shape[0], kernel.shape[-1])]
        return len(self.kernels), *self.shape, *sides, *self.head.sizes[1:]

    @property
    def dim(self) -> int:
        """Inputs d = h w c."""
        return math.prod(self.shape)

    @property
    def widths(self) -> Sizes:
        """Channels of each convolution, hidden units of each dense layer."""
        return *(kernel.shape[-1] for kernel in self.kernels), *self.head.widths

    def __repr__(self) -> str:
        image = "x".join(map(str, self.shape))
        parts = [f"{k.shape[-1]} of {k.shape[0]}x{k.shape[1]}" for k in self.kernels]
        return f"Convolutional({', '.join([image, *parts, *map(str, self.head.sizes[1:])])})"

    def arrays(self) -> dict[str, Any]:
        """kernels_0, shifts_0, kernels_1, ..., and those of the head."""
        layers = zip(self.kernels, self.shifts, strict=True)
        named = {
            f"{name}_{i}": array
            for i, layer in enumerate(layers)
            for name, array in zip(("kernels", "shifts"), layer, strict=True)
        }
        return named | self.head.arrays()

    @staticmethod
    def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
        """Of `arrays`, for sizes as `sizes` has them; ValueError where they make no network."""
        images = image_sizes(sizes)
        count = len(images) - 1
        shapes: dict[str, tuple[int, ...]] = {}
        for i, ((*_, below), (*_, above)) in enumerate(pairwise(images)):
            side = sizes[4 + 2 * i]
            shapes |= {f"kernels_{i}": (side, side, below, above), f"shifts_{i}": (above,)}
        return shapes | Deep.shapes((math.prod(images[-1]), *sizes[4 + 2 * count :]))


def image_sizes(sizes: Sizes) -> list[Shape]:
    """(h, w, c) of the image, and of what each convolution makes of it; ValueError for none."""
    count = sizes[0] if len(sizes) > 4 else 0
    if count < 1 or len(sizes) < 4 + 2 * count + 2:
        raise ValueError(f"sizes {sizes} are of no convolutional network")
    images: list[Shape] = [(sizes[1], sizes[2], sizes[3])]
    for i in range(count):
        side, channels = sizes[4 + 2 * i : 6 + 2 * i]
        h, w, _ = images[-1]
        images.append(((h - side + 1) // 2, (w - side + 1) // 2, channels))
    if min(map(min, images)) < 1:
        raise ValueError(f"sizes {sizes} leave nothing of the image")
    return images


def correlate(y: Any, kernel: Any) -> Any:
    """y [..., h, w, c] and a kernel [a, a, c, o]: [..., h - a + 1, w - a + 1, o]."""
    a, b = kernel.shape[:2]
    rows, columns = y.shape[-3] - a + 1, y.shape[-2] - b + 1
    moved = (y[..., i : i + rows, j : j + columns, :] for i in range(a) for j in range(b))
    parts = (part @ kernel[divmod(n, b)] for n, part in enumerate(moved))
    return reduce(operator.add, parts)  # one at a time, as they are large


def in_fours(y: Any) -> Any:
    """[..., h, w, o] as [..., h // 2, 2, w // 2, 2, o]: 2x2 windows along the second and fourth."""
    *batch, h, w, o = y.shape
    return y[..., : h // 2 * 2, : w // 2 * 2, :].reshape(*batch, h // 2, 2, w // 2, 2, o)


def _unpooled(rows: Any, quads: Any) -> Any:
    """rows [n, K, h, w, o] handed to the first largest of each window: [n, K, 2 h, 2 w, o]."""
    xp = jnp if isinstance(quads, jax.Array) else np
    n, h, _, w, _, o = quads.shape
    fours = xp.swapaxes(quads, 2, 3).reshape(n, h, w, 4, o)
    first = fours.argmax(3)[:, :, :, None] == xp.arange(4)[None, None, None, :, None]
    first = xp.swapaxes(first.reshape(n, h, w, 2, 2, o), 2, 3)[:, None].astype(rows.dtype)
    return (rows[:, :, :, None, :, None] * first).reshape(*rows.shape[:2], 2 * h, 2 * w, o)


def _spread(rows: Any, kernel: Any, below: Shape) -> Any:
    """The transpose of `correlate`: rows [n, K, h', w', o] to [n, K, h, w, c], below (h, w, c)."""
    xp = jnp if isinstance(rows, jax.Array) else np
    a, b = kernel.shape[:2]
    h, w, _ = below
    more = [(0, 0), (0, 0), (a - 1, h - rows.shape[2]), (b - 1, w - rows.shape[3]), (0, 0)]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return correlate(xp.pad(rows, more), turned)


def _flat(y: Any, keep: int = 1) -> Any:
    return y.reshape(*y.shape[:keep], math.prod(y.shape[keep:]))
