"""Recovered networks as modules of flax; imported only where one is asked for."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import linen as nn

from recon.networks.convolutional import Convolutional
from recon.networks.deep import Deep
from recon.networks.two_layer import TwoLayer


class ReLUNetwork(nn.Module):
    """Dense layers with ReLU between them, x [..., d] -> [..., K]; `slope` adds a linear part."""

    widths: tuple[int, ...]
    outputs: int
    slope: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Values [..., K] in the dtype of the variables and of x."""
        y = x
        for i, width in enumerate(self.widths):
            y = nn.relu(nn.Dense(width, name=f"hidden_{i}")(y))
        y = nn.Dense(self.outputs, name="output")(y)
        return y + nn.Dense(self.outputs, use_bias=False, name="slope")(x) if self.slope else y


class ConvolutionalNetwork(nn.Module):
    """Convolutions with ReLU and 2x2 max-pools, then dense layers, x [..., d] -> [..., K]."""

    shape: tuple[int, int, int]
    kernels: tuple[tuple[int, int], ...]  # side and channels of each
    widths: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Values [..., K] in the dtype of the variables and of x."""
        y = x.reshape(*x.shape[:-1], *self.shape)
        for i, (side, channels) in enumerate(self.kernels):
            y = nn.Conv(channels, (side, side), padding="VALID", name=f"convolution_{i}")(y)
            y = nn.max_pool(nn.relu(y), (2, 2), (2, 2))
        y = y.reshape(*x.shape[:-1], -1)
        return ReLUNetwork(self.widths, self.outputs, name="head")(y)


def flax(network: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The module and its variables {"params": ...}, NumPy arrays in the network's own dtype.

    A two-layer network without units is linear: its slope is the kernel of the output.  One
    whose slope is zero has none in the module.
    """
    if isinstance(network, Convolutional):
        return _convolutional(network)
    return _deep(network) if isinstance(network, Deep) else _two_layer(network)


def _convolutional(network: Convolutional) -> tuple[nn.Module, dict[str, Any]]:
    _, head = _deep(network.head)
    layers = zip(network.kernels, network.shifts, strict=True)
    params = {
        f"convolution_{i}": {"kernel": np.asarray(kernel), "bias": np.asarray(shift)}
        for i, (kernel, shift) in enumerate(layers)
    } | {"head": head["params"]}
    kernels = tuple((k.shape[0], k.shape[-1]) for k in network.kernels)
    of = network.shape, kernels, network.head.widths, network.outputs
    return ConvolutionalNetwork(*of), {"params": params}


def _deep(network: Deep) -> tuple[ReLUNetwork, dict[str, Any]]:
    names = [*(f"hidden_{i}" for i in range(network.depth)), "output"]
    layers = zip(names, network.weights, network.biases, strict=True)
    return _of(network, {name: _dense(*arrays) for name, *arrays in layers})


def _two_layer(network: TwoLayer) -> tuple[ReLUNetwork, dict[str, Any]]:
    if not network.width:
        linear = {"output": _dense(network.slope, network.offset)}
        return ReLUNetwork((), network.outputs), {"params": linear}
    params = {
        "hidden_0": _dense(network.rows, network.bias),
        "output": _dense(network.weights, network.offset),
    }
    if np.any(network.slope):
        params["slope"] = {"kernel": np.asarray(network.slope).T}
    return _of(network, params)


def _of(network: Any, params: dict[str, Any]) -> tuple[ReLUNetwork, dict[str, Any]]:
    module = ReLUNetwork(network.widths, network.outputs, "slope" in params)
    return module, {"params": params}


def _dense(matrix: Any, vector: Any) -> dict[str, np.ndarray]:
    """Of `nn.Dense`, whose kernel is [in, out]."""
    return {"kernel": np.asarray(matrix).T, "bias": np.asarray(vector)}
