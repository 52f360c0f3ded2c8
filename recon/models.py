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

from recon import convolutions, masks

Shape = tuple[int, ...]  # an image: (height, width, channels)
FIRST, GROUP = 64, 16  # channels of the first layer of VGG11 and ResNet-18, and of a group


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
    """`nn.Conv` and its variables, ReLU, and a 2x2 max-pool."""

    channels: int
    kernel: int
    padding: str

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return convolutions.convolve_pool(x, kernel, bias, self.padding, temperature)


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
    first: int  # channels of the first convolution

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        x = _images(x, self.shape)
        for stage in ((1,), (2,), (4, 4), (8, 8), (8, 8)):
            for times in stage:
                x = masks.relu(_conv_norm(x, times * self.first, 3), temperature, 3)
            x = convolutions.pool(x, temperature)
        return nn.Dense(self.outputs)(_flat(x))


class _ResNet18(nn.Module):
    """A 3x3 stem without pooling (the form used for small images), 4 x 2 residual blocks."""

    shape: Shape
    outputs: int
    first: int  # channels of the stem

    @nn.compact
    def __call__(self, x: jax.Array, temperature: Any = None) -> jax.Array:
        relu = partial(masks.relu, temperature=temperature, units=3)
        x = relu(_conv_norm(_images(x, self.shape), self.first, 3))
        for times in (1, 2, 4, 8):
            for block in range(2):
                channels, stride = times * self.first, 2 if block == 0 and times > 1 else 1
                y = relu(_conv_norm(x, channels, 3, stride))
                y = _conv_norm(y, channels, 3)
                if stride > 1:
                    x = _conv_norm(x, channels, 1, stride)
                x = relu(x + y)
        return nn.Dense(self.outputs)(x.mean(axis=(-3, -2)))


def _conv_norm(x: jax.Array, channels: int, side: int, stride: int = 1) -> jax.Array:
    """`nn.Conv` without bias that keeps the size but for its stride, and GroupNorm.

    The one switch by backend: on a CPU the same convolution, of the same variables, as products
    of matrices.
    """
    products = convolutions.convolve if jax.default_backend() == "cpu" else None
    conv = nn.Conv(channels, (side, side), stride, use_bias=False, conv_general_dilated=products)
    norm = nn.GroupNorm(
        None, group_size=GROUP, reduction_axes=(-3, -2, -1), use_fast_variance=False
    )
    out: jax.Array = norm(conv(x))
    return out


def _images(x: jax.Array, shape: Shape) -> jax.Array:
    """x [..., d] -> [..., height, width, channels]; a ValueError names both if d does not fit."""
    if x.shape[-1] != math.prod(shape):
        raise ValueError(f"inputs of {x.shape[-1]} numbers are not images of shape {shape}")
    return x.reshape(*x.shape[:-1], *shape)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))


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


def vgg11(shape: Shape, classes: int, factor: float = 1) -> nn.Module:
    """VGG11 for small images: one dense layer, GroupNorm; no pooling of a one-pixel side.

    64 to 512 channels, times `factor`; ValueError if that leaves GroupNorm no whole groups.
    """
    return _VGG11(shape, classes, _first(factor))


def resnet18(shape: Shape, classes: int, factor: float = 1) -> nn.Module:
    """ResNet-18 for small images: 3x3 stem of stride 1, GroupNorm; `factor` as for `vgg11`."""
    return _ResNet18(shape, classes, _first(factor))


def _first(factor: float) -> int:
    """The channels of a first layer, times the factor; later layers have whole multiples of it."""
    channels = FIRST * factor
    if not channels > 0 or channels % GROUP:
        raise ValueError(
            f"a factor of {factor} leaves {channels:g} of {FIRST} channels, which are not whole "
            f"groups of {GROUP}; 1, 1/2 and 1/4 do"
        )
    return int(channels)


MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "linear": linear,
    "mlp": lambda shape, classes: mlp(128, classes),
    "conv": conv,
    "conv_large": conv_large,
    "vgg11": vgg11,
    "vgg11-half": partial(vgg11, factor=1 / 2),
    "vgg11-quarter": partial(vgg11, factor=1 / 4),
    "resnet18": resnet18,
    "resnet18-half": partial(resnet18, factor=1 / 2),
    "resnet18-quarter": partial(resnet18, factor=1 / 4),
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
