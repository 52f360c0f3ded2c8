"""The flax modules, and the only flax import; other files import this one when they need it.

Every module takes flat inputs x [..., d] with pixels in [0, 1] and answers with logits [..., K];
it knows its image shape (height, width, channels), so that nothing else has to.  The paper says
"one-layer", "two-layer", "convolutional", VGG11 and ResNet-18 (section 5) and gives no widths:
all widths here are our own choices.  Weights start from flax's defaults (LeCun normal, zero bias).

No module uses BatchNorm: in training it couples the inputs of a batch, so that the gradient with
respect to one input is not defined by that input alone.  VGG11 and ResNet-18 have GroupNorm
instead (16 channels a group), which also makes training and inference the same function.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from recon import masks

Shape = tuple[int, ...]  # an image: (height, width, channels)


class _Linear(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        return nn.Dense(self.outputs, name="output")(x)


class _MLP(nn.Module):
    width: int
    outputs: int
    bias: bool

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        sums = nn.Dense(self.width, use_bias=self.bias, name="hidden")(x)
        hidden = masks.relu(sums, temperature)
        return nn.Dense(self.outputs, use_bias=self.bias, name="output")(hidden)


class _ConvPool(nn.Module):
    """`nn.Conv` and its variables, ReLU, and a 2x2 max-pool, as one product of matrices.

    A pixel after the pool is the largest of four sums over a window of (side + 1)^2 pixels, and
    these windows lie two pixels apart: so in an image of 2x2 blocks the four are one product of
    (side + 1)^2 / 4 neighbouring blocks with four shifted kernels side by side.  Of equal maxima
    the first has the gradient.  Why not `nn.Conv`: on a CPU a step that matches gradients takes a
    third of its time for `conv`, and a quarter for `conv_large`.
    """

    channels: int
    kernel: int
    padding: str

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        side, inputs = self.kernel, x.shape[-1]
        shape = (side, side, inputs, self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        if self.padding == "SAME":
            around = [(side // 2, side // 2)] * 2
            x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + around + [(0, 0)])
        *batch, height, across, _ = x.shape
        rows, columns = (height - side + 1) // 2, (across - side + 1) // 2
        if not rows or not columns:  # a side of one pixel is not pooled
            images, layout = x.reshape(-1, height, across, inputs), ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(
                images, kernel, (1, 1), "VALID", dimension_numbers=layout
            )
            y = _plus(y.reshape(*batch, *y.shape[1:]), bias)
            return _pool(masks.relu(y, temperature, 3), temperature)
        blocks = side // 2 + 1  # that a window spans
        high, wide = rows + blocks - 1, columns + blocks - 1
        x = x[..., : 2 * high, : 2 * wide, :].reshape(*batch, high, 2, wide, 2, inputs)
        x = jnp.swapaxes(x, -4, -3).reshape(*batch, high, wide, 4 * inputs)
        x = jnp.concatenate([x[..., j : j + columns, :] for j in range(blocks)], axis=-1)
        x = jax.lax.optimization_barrier(x)  # two copies of long pieces, not one of short ones
        x = jnp.concatenate([x[..., i : i + rows, :, :] for i in range(blocks)], axis=-1)
        shifted = [
            jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
            for i in (0, 1)
            for j in (0, 1)
        ]
        weights = jnp.concatenate(shifted, axis=-1).reshape(blocks, 2, blocks, 2, inputs, -1)
        weights = jnp.swapaxes(weights, 1, 2).reshape(blocks * blocks * 4 * inputs, -1)
        sums = (x.reshape(-1, len(weights)) @ weights).reshape(*batch, rows, columns, 4, -1)
        if temperature is None:
            return nn.relu(_plus(masks.largest(sums), bias))
        sums = _plus(sums, bias)
        zero = jnp.zeros_like(sums[..., :1, :])  # off is one more choice
        return masks.largest(
            jnp.concatenate([zero, sums], axis=-2), temperature, masks.spread(sums, 4)
        )


class _Conv(nn.Module):
    """Two convolutions, each with ReLU and a 2x2 max-pool, then two dense layers."""

    shape: Shape
    outputs: int
    channels: tuple[int, int]
    dense: int
    kernel: int
    padding: str

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        x = _images(x, self.shape)
        for i, channels in enumerate(self.channels):
            x = _ConvPool(channels, self.kernel, self.padding, name=f"Conv_{i}")(x, temperature)
        x = masks.relu(nn.Dense(self.dense)(_flat(x)), temperature)
        return nn.Dense(self.outputs)(x)


class _VGG11(nn.Module):
    """Eight 3x3 convolutions with five max-pools between them, and one dense layer."""

    shape: Shape
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        x = _images(x, self.shape)
        for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
            for channels in stage:
                x = _norm(nn.Conv(channels, (3, 3), use_bias=False)(x))
                x = masks.relu(x, temperature, 3)
            x = _pool(x, temperature)
        return nn.Dense(self.outputs)(_flat(x))


class _ResNet18(nn.Module):
    """A 3x3 stem without pooling (the form used for small images), 4 x 2 residual blocks."""

    shape: Shape
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        relu = partial(masks.relu, temperature=temperature, units=3)
        conv = partial(nn.Conv, use_bias=False)
        x = relu(_norm(conv(64, (3, 3))(_images(x, self.shape))))
        for channels in (64, 128, 256, 512):
            for block in range(2):
                stride = 2 if block == 0 and channels > 64 else 1
                y = relu(_norm(conv(channels, (3, 3), strides=stride)(x)))
                y = _norm(conv(channels, (3, 3))(y))
                if stride > 1:
                    x = _norm(conv(channels, (1, 1), strides=stride)(x))
                x = relu(x + y)
        return nn.Dense(self.outputs)(x.mean(axis=(-3, -2)))


def _images(x: jax.Array, shape: Shape) -> jax.Array:
    """x [..., d] -> [..., height, width, channels]; a ValueError names both if d does not fit."""
    if x.shape[-1] != math.prod(shape):
        raise ValueError(f"inputs of {x.shape[-1]} numbers are not images of shape {shape}")
    return x.reshape(*x.shape[:-1], *shape)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))


def _plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def _pool(x: jax.Array, temperature: Any = None) -> jax.Array:
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


def _norm(x: jax.Array) -> jax.Array:
    norm = nn.GroupNorm(None, group_size=16, reduction_axes=(-3, -2, -1), use_fast_variance=False)
    out: jax.Array = norm(x)
    return out


def linear(shape: Shape, classes: int) -> nn.Module:
    """The one-layer network: softmax regression."""
    return _Linear(classes)


def mlp(width: int, outputs: int, bias: bool = True) -> nn.Module:
    """One hidden ReLU layer, x [..., d] -> logits [..., K]; without `bias`, Equation 1."""
    return _MLP(width, outputs, bias)


def conv(shape: Shape, classes: int) -> nn.Module:
    """10 and 20 channels of 5x5 without padding, 50 dense units.

    An image with a side below 16 pixels leaves nothing after two such layers; there
    (digits: 8x8) the kernels are 3x3 and keep the size.
    """
    small = min(shape[:2]) < 16
    return _Conv(shape, classes, (10, 20), 50, 3 if small else 5, "SAME" if small else "VALID")


def conv_large(shape: Shape, classes: int) -> nn.Module:
    """32 and 64 channels of 5x5 that keep the size, 512 dense units."""
    return _Conv(shape, classes, (32, 64), 512, 5, "SAME")


def vgg11(shape: Shape, classes: int) -> nn.Module:
    """VGG11 for small images: one dense layer, GroupNorm; no pooling of a one-pixel side."""
    return _VGG11(shape, classes)


def resnet18(shape: Shape, classes: int) -> nn.Module:
    """ResNet-18 for small images: 3x3 stem of stride 1, GroupNorm."""
    return _ResNet18(shape, classes)


MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "linear": linear,
    "mlp": lambda shape, classes: mlp(128, classes),
    "conv": conv,
    "conv_large": conv_large,
    "vgg11": vgg11,
    "resnet18": resnet18,
}


def build(name: str, shape: Shape, classes: int) -> nn.Module:
    """The module `name` of MODELS for images of `shape`; ValueError names those there are."""
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name](shape, classes)


@cache
def logits(module: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
    """The module as a function f(variables, x [d]) -> logits [K].

    It fits `oracles.from_jax(f, variables)`, and takes batches [..., d] too.  Equal modules give
    the same function object, so what was compiled for one serves the other.
    """

    def f(variables: Any, x: jax.Array) -> Any:
        return module.apply(variables, x)

    return f


@cache
def surrogate(module: nn.Module) -> Callable[[Any, jax.Array, Any], jax.Array]:
    """`logits` with a surrogate derivative of its masks: f(variables, x [..., d], temperature).

    Values and gradients are those of `logits`; see `recon.masks` for what differs after that.
    A ValueError refuses a module whose __call__ takes no `temperature`.
    """
    try:
        inspect.signature(module.__call__).bind(None, temperature=None)
    except TypeError:
        raise ValueError(
            f"{type(module).__name__} has no surrogate: its __call__ needs the arguments "
            "(x, temperature=None), and masks.relu(..., temperature) inside"
        ) from None

    def f(variables: Any, x: jax.Array, temperature: Any) -> Any:
        return module.apply(variables, x, temperature=temperature)

    return f


def parameters(name: str, shape: Shape, classes: int) -> int:
    """How many numbers the model `name` learns for images of `shape`; nothing is computed."""
    module, x = build(name, shape, classes), jnp.zeros(math.prod(shape))
    leaves = jax.tree.leaves(jax.eval_shape(module.init, jax.random.key(0), x))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def mlp_arrays(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an `mlp` by the field names of `networks.TwoLayer`.

    rows [h, d], bias [h], weights [K, h], slope [K, d] (zero), offset [K], in the
    parameters' own dtype; a missing bias is zero.
    """
    rows, weights = params["hidden"]["kernel"].T, params["output"]["kernel"].T
    width, dim = rows.shape
    outputs = weights.shape[0]
    return {
        "rows": rows,
        "bias": params["hidden"].get("bias", np.zeros(width, rows.dtype)),
        "weights": weights,
        "slope": np.zeros((outputs, dim), rows.dtype),
        "offset": params["output"].get("bias", np.zeros(outputs, rows.dtype)),
    }
