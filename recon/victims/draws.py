"""Draws victims of every sort.  The distributions are our own choice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from recon.networks import TwoLayer
from recon.oracles import View
from recon.victims.odd import BENDS, BREAKS, NOISE, Function, Odd

VISIBLE = 0.1  # weights of victims whose replies are rounded to decimals, which show no less
ROWS = 200  # of the user's data
TOLD = ("data", "precision", "boxes", "fixed")  # what else users tell, where all gradients show


def random_odd(seed: Any, view: View, told: str = "") -> Odd:
    """A victim behind a view, by a seed of NumPy's generators; d and h from 1 to 12, K 1 to 10.

    told: one of TOLD, that the user tells: data or a precision, or a box of its own for every
    input, in which some may not change ("fixed").
    """
    rng = np.random.default_rng(seed)
    some = lambda p: bool(rng.random() < p)  # noqa: E731
    kind = str(rng.choice(BENDS if some(0.7) else BREAKS)) if some(0.15) else "relu"
    dim, width = (int(n) for n in rng.integers(1, 13, 2))
    outputs = int(rng.choice([2, 3, 10] if view.outputs == "top" else [1, 2, 3, 10]))
    network = _network(rng, dim, width, outputs)
    full = view.explanation in ("jacobian", "input_x_gradient")
    shift, scale, tells = np.zeros(dim), np.ones(dim), dict[str, Any]()
    if told == "precision":
        tells = {"precision": 10.0 ** rng.uniform(-12, -6)}
    elif told:
        shift, scale, tells = _domain(rng, dim, told)
    elif full and some(0.2):
        low, high = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))[rng.integers(3)]
        shift, scale = np.full(dim, (high + low) / 2), np.full(dim, (high - low) / 2)
        tells = {"box": (low, high)}
    elif full and some(0.25):
        scale = 10.0 ** rng.uniform(-3, 4, dim)
    network = _moved(network, shift, scale)
    value, gradient = _bent(rng, network, kind)
    dtype = str(rng.choice(["float64", "float32", "float16"], p=[0.85, 0.12, 0.03]))
    shows = np.abs(network.weights).max() > VISIBLE
    decimals = int(rng.integers(2, 9)) if some(0.08) and shows else None
    shape = dim, width, outputs
    return Odd(kind, view, value, gradient, *shape, shift, scale, dtype, decimals, tells, rng)


def _domain(
    rng: np.random.Generator, dim: int, told: str
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Where inputs lie [d] and how far they spread [d], and what the user tells of it."""
    scale = 10.0 ** rng.uniform(-3, 4, dim)
    shift = scale * rng.uniform(-3, 3, dim)
    still = rng.random(dim) < (0.3 if told != "boxes" else 0.0)
    still[rng.integers(dim)] = False
    scale = np.where(still, 0.0, scale)
    if told == "data":
        return shift, scale, {"data": shift + scale * rng.standard_normal((ROWS, dim))}
    return shift, scale, {"box": (shift - scale, shift + scale)}


def _moved(network: TwoLayer, shift: np.ndarray, scale: np.ndarray) -> TwoLayer:
    """The network as a function of x = shift + scale z; inputs that do not change count as z."""
    scale = np.where(scale > 0, scale, 1.0)
    rows, slope = network.rows / scale, network.slope / scale
    bias, offset = network.bias - rows @ shift, network.offset - slope @ shift
    return replace(network, rows=rows, bias=bias, slope=slope, offset=offset)


def _network(rng: np.random.Generator, dim: int, width: int, outputs: int) -> TwoLayer:
    """With one oddity, or several."""
    some = lambda p: bool(rng.random() < p)  # noqa: E731
    rows = rng.standard_normal((width, dim)) / dim**0.5
    bias = rng.choice([0.0, 0.5, 3.0]) * rng.standard_normal(width)
    weights = 2 * rng.standard_normal((outputs, width)) / width**0.5
    slope, offset = np.zeros((outputs, dim)), some(0.7) * rng.standard_normal(outputs)
    unit, other = rng.integers(width), rng.integers(width)
    if some(0.1):
        rows = rows * (rng.random(rows.shape) < 0.4)
    if some(0.1):
        weights = weights * (rng.random(weights.shape) < 0.5)
    if some(0.1):  # repeated or opposite, on one plane or two parallel ones
        sign = rng.choice([-1.0, 1.0])
        rows[unit], bias[unit] = sign * rows[other], rng.choice([sign, 0.3]) * bias[other]
    if some(0.1):
        rows[unit] = rows[other] + 10 ** rng.uniform(-8, -2) * rng.standard_normal(dim)
    if some(0.05):
        rows[unit] = 0
    if some(0.1):  # off or on nearly everywhere
        bias[unit] = rng.choice([-1.0, 1.0]) * 10 ** rng.uniform(0.3, 4)
    if some(0.05):
        weights[:, unit] *= 10 ** rng.uniform(-10, -3)
    if some(0.05):
        weights[rng.integers(outputs)] = 0
    if some(0.1):  # as of leaky ReLU, of max-pooling and of a residual path
        slope = rng.standard_normal(slope.shape)
    size = 10.0 ** rng.choice([-6, -3, 0, 3, 6], p=[0.05, 0.05, 0.8, 0.05, 0.05])
    return TwoLayer(rows, bias, size * weights, size * slope, size * offset)


def _bent(rng: np.random.Generator, network: TwoLayer, kind: str) -> tuple[Function, Function]:
    """Values and Jacobians of a network of a kind made of this one."""
    a, b, w = network.rows, network.bias, network.weights
    if kind == "tanh":
        return (
            lambda x: np.tanh(x @ a.T + b) @ w.T,
            lambda x: ((1 - np.tanh(x @ a.T + b) ** 2)[:, None] * w) @ a,
        )
    if kind == "clipped":
        most = float(np.abs(w).sum(1).mean()) / 2
        inside = lambda x: np.abs(network(x)) < most  # noqa: E731
        return (
            lambda x: np.clip(network(x), -most, most),
            lambda x: network.gradient(x) * inside(x)[:, :, None],
        )
    if kind == "twice":
        after = rng.standard_normal((len(w), len(w)))
        return (
            lambda x: np.maximum(network(x), 0) @ after.T,
            lambda x: np.einsum("kj,nj,njd->nkd", after, network(x) > 0, network.gradient(x)),
        )
    if kind == "noise":
        off = lambda z: z * (1 + NOISE * rng.standard_normal(z.shape))  # noqa: E731
        return lambda x: off(network(x)), lambda x: off(network.gradient(x))
    if kind == "dropout":
        kept = lambda x: 2.0 * (rng.random((len(x), 1, len(b))) < 0.5) * w  # noqa: E731
        return (
            lambda x: (kept(x) * np.maximum(x @ a.T + b, 0)[:, None]).sum(2),
            lambda x: (kept(x) * (x @ a.T + b > 0)[:, None]) @ a,
        )
    return network, network.gradient
