"""Random networks with a known truth: two-layer ones inside the paper's assumptions and outside
them, deep and convolutional ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon import oracles
from recon.networks import Convolutional, Deep, Network, TwoLayer
from recon.networks.convolutional import Shape, image_sizes


def random_network(
    key: Any, dim: int, width: int, outputs: int = 1, bias: bool = False
) -> TwoLayer:
    """A random two-layer network that meets the paper's assumptions (1-3) almost surely.

    Rows are uniform on the unit sphere (assumption 1), weights standard normal; with
    `bias`, hidden and output biases are standard normal too.  The distributions are our
    own choice, the paper names none.  Float64 under `jax.enable_x64(True)`.
    """
    row_key, weight_key, bias_key, offset_key = jax.random.split(key, 4)
    rows = jax.random.normal(row_key, (width, dim))
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return TwoLayer(
        rows=rows,
        bias=jax.random.normal(bias_key, (width,)) if bias else jnp.zeros(width),
        weights=jax.random.normal(weight_key, (outputs, width)),
        slope=jnp.zeros((outputs, dim)),
        offset=jax.random.normal(offset_key, (outputs,)) if bias else jnp.zeros(outputs),
    )


def random_deep(key: Any, sizes: Sequence[int], bias: float = 0.5) -> Deep:
    """A random deep ReLU network of sizes (d, h_1, ..., K).

    Weights are normal of variance 2 / fan-in (He, Zhang, Ren and Sun, 2015,
    arXiv:1502.01852), which keeps the size of the signal from layer to layer; biases are `bias`
    times standard normal, our own choice.  Float64 under `jax.enable_x64(True)`.  ValueError
    without a hidden layer or for a layer of none.
    """
    sizes = tuple(sizes)
    if len(sizes) < 3 or min(sizes) < 1:
        raise ValueError(f"sizes are inputs, hidden units of each layer, outputs, not {sizes}")
    keys = jax.random.split(key, (len(sizes) - 1, 2))
    layers = [*zip(keys, pairwise(sizes), strict=True)]
    return Deep(
        weights=tuple(
            jax.random.normal(key, (width, below)) * (2 / below) ** 0.5
            for (key, _), (below, width) in layers
        ),
        biases=tuple(bias * jax.random.normal(key, (width,)) for (_, key), (_, width) in layers),
    )


def random_unusual(key: Any, kind: str, sizes: Sequence[int]) -> Deep:
    """A `random_deep` network of sizes (d, h_1, ..., K) with biases or units out of the common; the
    kinds are our own choice.

    no biases, large biases: of size 0 and 2; dead, rare, always on: by its bias one unit of each
    hidden layer is on at none of 1,000 standard normal inputs, at one in a hundred, at all.
    """
    if kind not in UNUSUAL:
        raise ValueError(f"no kind {kind!r}; there are {', '.join(UNUSUAL)}")
    bias, share = UNUSUAL[kind]
    network_key, key = jax.random.split(key)
    network = random_deep(network_key, sizes, bias)
    if share is None:
        return network
    y, biases = jax.random.normal(key, (1_000, network.dim)), list[Any]()
    for weights, bias_ in zip(network.weights[:-1], network.biases[:-1], strict=True):
        z = y @ weights.T + bias_[None]
        spread = z[:, 0].std() * (0.0 if 0 < share < 1 else 1.0 - 2.0 * share)
        by = -jnp.quantile(z[:, 0], 1 - share) - spread
        biases.append(bias_.at[0].add(by))
        y = jnp.maximum(z.at[:, 0].add(by), 0)
    return replace(network, biases=(*biases, network.biases[-1]))


# Of `random_unusual`: the size of biases, and the share of inputs that a unit is on at, if told.
UNUSUAL: dict[str, tuple[float, float | None]] = {
    "no biases": (0.0, None),
    "large biases": (2.0, None),
    "dead": (0.5, 0.0),
    "rare": (0.5, 0.01),
    "always on": (0.5, 1.0),
}


def random_convolutional(
    key: Any,
    shape: Shape = (28, 28, 1),
    kernels: Sequence[tuple[int, int]] = ((5, 10), (5, 20)),
    dense: Sequence[int] = (50, 10),
    bias: float = 0.3,
) -> Convolutional:
    """A random convolutional network; by default of the sizes of `models.conv` for MNIST.

    kernels: (side, channels) of each convolution; dense: hidden units, and outputs.  Weights
    N(0, 1 / inputs), which is LeCun's normal, biases N(0, `bias`^2).  Float64 under
    `jax.enable_x64(True)`.
    """
    sizes = (len(kernels), *shape, *(n for pair in kernels for n in pair), *dense)
    keys = iter(jax.random.split(key, 2 * (len(kernels) + len(dense))))
    images = image_sizes(sizes)
    normal = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
    shapes = [(a, a, c, o) for (*_, c), (a, o) in zip(images[:-1], kernels, strict=True)]
    flat = pairwise((math.prod(images[-1]), *dense))
    return Convolutional(
        tuple(normal(*s) / math.prod(s[:3]) ** 0.5 for s in shapes),
        tuple(bias * normal(s[3]) for s in shapes),
        Deep(
            tuple(normal(width, below) / below**0.5 for below, width in flat),
            tuple(bias * normal(width) for width in dense),
        ),
        shape,
    )


def oracle_of(network: Network | Convolutional) -> oracles.Oracle:
    """The oracle of a recorded network; all of one kind and shape share a compiled attack."""
    return oracles.from_jax(type(network).__call__, network)


def _biases(key: Any, dim: int, width: int) -> TwoLayer:
    return random_network(key, dim, width, bias=True)


def _wide(key: Any, dim: int, width: int) -> TwoLayer:
    return random_network(key, dim, 3 * dim)


def _outputs(key: Any, dim: int, width: int) -> TwoLayer:
    return random_network(key, dim, width, outputs=10)


def _faint(key: Any, dim: int, width: int) -> TwoLayer:
    network = random_network(key, dim, width)
    return replace(network, weights=network.weights.at[:, 0].set(1e-9))


def _far(key: Any, dim: int, width: int) -> TwoLayer:
    network = random_network(key, dim, width)
    return replace(network, bias=network.bias.at[0].set(-1e6))


def _paired(key: Any, dim: int, width: int, sign: float) -> TwoLayer:
    """Every odd unit's row is `sign` times the row before it.

    The first, third, ... pair share their hyperplane, the others are parallel.
    """
    network = random_network(key, dim, width, bias=True)
    first = np.arange(0, width - 1, 2)
    same = first[::2]
    return replace(
        network,
        rows=network.rows.at[first + 1].set(sign * network.rows[first]),
        bias=network.bias.at[same + 1].set(sign * network.bias[same]),
    )


KINDS: dict[str, Callable[[Any, int, int], TwoLayer]] = {
    "biases": _biases,
    "wide": _wide,
    "antiparallel": partial(_paired, sign=-1.0),
    "repeated": partial(_paired, sign=1.0),
    "faint": _faint,
    "far": _far,
    "outputs": _outputs,
}


def random_outside(key: Any, kind: str, dim: int, width: int) -> TwoLayer:
    """A random two-layer network outside the paper's assumptions; the kinds are our own choice.

    biases: hidden and output biases; wide: 3 `dim` units, whatever `width` says;
    antiparallel, repeated: units in pairs whose rows are negatives or copies, the pairs
    in turn on one hyperplane and on two parallel ones; faint: unit 0 has weight 1e-9;
    far: unit 0 is off within 1e6 of the origin; outputs: 10 outputs.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind](key, dim, width)
