"""Convolutions as products of matrices, for CPUs, and max-pools; images are [..., h, w, channels].

On a CPU XLA has a fast path for a convolution, but not for images of few pixels nor for all of
its derivatives, and none inside a scan.  Products of matrices are fast wherever they stand, and
their derivatives of any order are products again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from recon import masks

MANY = 16  # channels from which sums of pixels cost less than products,
LARGE = 1e8  # and multiplications from which the time saved is more than that of compiling


def convolve(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **rest: Any) -> jax.Array:
    """What `jax.lax.conv_general_dilated` gives `nn.Conv`: x [n, h, w, c] -> [n, h', w', o].

    kernel [a, b, c, o]; `rest` is what `nn.Conv` says of layout and groups when it is not told
    otherwise.  The a b shifted images stand side by side, and are one product with the kernel;
    kernels of 3x3 that move by one pixel are `winograd`'s, where
    sides are even and there is much to multiply.
    """
    a, b, inputs, outputs = kernel.shape
    around = jax.lax.padtype_to_pads(x.shape[1:3], (a, b), strides, padding)
    x = jnp.pad(x, [(0, 0), *around, (0, 0)])
    down, right = strides
    rows, columns = (x.shape[1] - a) // down + 1, (x.shape[2] - b) // right + 1
    even = rows % 2 == columns % 2 == 0 and min(rows, columns) > 2
    large = inputs >= MANY and len(x) * rows * columns * kernel.size >= LARGE
    if (a, b, down, right) == (3, 3, 1, 1) and even and large:
        return winograd(x, kernel)
    high, wide = down * (rows - 1) + 1, right * (columns - 1) + 1
    shifted = [x[:, i : i + high : down, j : j + wide : right] for i in range(a) for j in range(b)]
    product = jnp.concatenate(shifted, -1).reshape(-1, a * b * inputs) @ kernel.reshape(-1, outputs)
    return product.reshape(-1, rows, columns, outputs)


def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution: x [n, h + 2, w + 2, c], h and w even, kernel [3, 3, c, o] -> [n, h, w, o].

    Winograd's F(2x2, 3x3) (Lavin and Gray 2016, section 4.1): of each 4x4 pixels, two apart, 16
    sums meet 16 sums of the kernel, and sums of these products are 2x2 pixels of the result.
    That takes 16 multiplications where the definition takes 36, and copies each pixel four times
    and not nine.  Off by a few eps of the largest value.  Parts are cut by `split`, whose
    derivative is one copy; that of an index is a sum of padded arrays, 30 times as long.
    """

    def pixels(pair: Iterable[jax.Array], axis: int) -> list[jax.Array]:
        even, odd = pair
        last = even.shape[axis] - 1
        a, b, c, d = (
            jax.lax.slice_in_dim(every, start, start + last, axis=axis)
            for start in (0, 1)
            for every in (even, odd)
        )
        return [a - c, b + c, c - b, b - d]

    def weights(kernel: jax.Array) -> list[jax.Array]:
        a, b, c = (part[0] for part in jax.lax.split(kernel, (1, 1, 1)))
        return [a, (a + b + c) / 2, (a - b + c) / 2, c]

    def two(m: list[jax.Array]) -> jax.Array:
        return jnp.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]])

    n, high, wide, c = x.shape
    pairs = x.reshape(n, high // 2, 2, wide // 2, 2 * c)
    rows = pixels((part[:, :, 0] for part in jax.lax.split(pairs, (1, 1), axis=2)), 1)
    blocks = [part for row in rows for part in pixels(jax.lax.split(row, (c, c), axis=3), 2)]
    kernels = [part for row in weights(kernel) for part in weights(row)]
    products = [block.reshape(-1, c) @ part for block, part in zip(blocks, kernels, strict=True)]
    y = two([two(products[i : i + 4]) for i in range(0, 16, 4)])
    y = y.reshape(2, 2, n, high // 2 - 1, wide // 2 - 1, -1)
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(n, high - 2, wide - 2, -1)


def convolve_pool(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, padding: str, temperature: Any = None
) -> jax.Array:
    """A convolution, ReLU, and a 2x2 max-pool as one product: x [..., h, w, c] -> [..., h', w', o].

    kernel [side, side, c, o] with an odd side, bias [o].  A pixel after the pool is the largest of
    four sums over a window of (side + 1)^2 pixels, and these windows lie two pixels apart: so in
    an image of 2x2 blocks the four are one product of (side + 1)^2 / 4 neighbouring blocks with
    four shifted kernels side by side.  Of equal maxima the first has the gradient.  Why not
    `nn.Conv`: on a CPU a step that matches gradients takes a third of its time for `conv`, and a
    quarter for `conv_large`.
    """
    side, inputs = len(kernel), x.shape[-1]
    if padding == "SAME":
        around = [(side // 2, side // 2)] * 2
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + around + [(0, 0)])
    *batch, height, across, _ = x.shape
    rows, columns = (height - side + 1) // 2, (across - side + 1) // 2
    if not rows or not columns:  # a side of one pixel is not pooled
        y = convolve(x.reshape(-1, height, across, inputs), kernel, (1, 1), "VALID")
        y = _plus(y.reshape(*batch, *y.shape[1:]), bias)
        return pool(masks.relu(y, temperature, 3), temperature)
    blocks = side // 2 + 1  # that a window spans
    high, wide = rows + blocks - 1, columns + blocks - 1
    x = x[..., : 2 * high, : 2 * wide, :].reshape(*batch, high, 2, wide, 2, inputs)
    x = jnp.swapaxes(x, -4, -3).reshape(*batch, high, wide, 4 * inputs)
    x = jnp.concatenate([x[..., j : j + columns, :] for j in range(blocks)], axis=-1)
    x = jax.lax.optimization_barrier(x)  # two copies of long pieces, not one of short ones
    x = jnp.concatenate([x[..., i : i + rows, :, :] for i in range(blocks)], axis=-1)
    shifted = [
        jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in (0, 1) for j in (0, 1)
    ]
    weights = jnp.concatenate(shifted, axis=-1).reshape(blocks, 2, blocks, 2, inputs, -1)
    weights = jnp.swapaxes(weights, 1, 2).reshape(blocks * blocks * 4 * inputs, -1)
    sums = (x.reshape(-1, len(weights)) @ weights).reshape(*batch, rows, columns, 4, -1)
    if temperature is None:
        return jax.nn.relu(_plus(masks.largest(sums), bias))
    sums = _plus(sums, bias)
    zero = jnp.zeros_like(sums[..., :1, :])  # off is one more choice
    choices = jnp.concatenate([zero, sums], axis=-2)
    return masks.largest(choices, temperature, masks.spread(sums, 4))


def pool(x: jax.Array, temperature: Any = None) -> jax.Array:
    """The maximum of each 2x2 window; an odd last row or column is dropped.

    A side of one pixel is not pooled, so that no image is too small.  Equal maxima share the
    gradient; with a `temperature` the first has it.  Written with reshape: on a CPU `nn.max_pool`
    is slower.
    """
    *batch, height, across, channels = x.shape
    a, b = min(2, height), min(2, across)
    x = x[..., : height // a * a, : across // b * b, :]
    x = x.reshape(*batch, height // a, a, across // b, b, channels)
    if temperature is None:
        return x.max(axis=(-4, -2))
    x = jnp.swapaxes(x, -4, -3).reshape(*batch, height // a, across // b, a * b, channels)
    return masks.largest(x, temperature, masks.spread(x, 4))


def _plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))
