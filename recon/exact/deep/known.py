"""The layers known so far, as functions: y_0 = x, z_l = W_l y_(l-1) + b_l, y_l = max(z_l, 0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recon.exact.deep.track import Known

BESIDE = 1e-6  # relative: so close to a known unit's surface a point is on either side


class Layer(NamedTuple):
    """Weights [h, h of the layer before] and biases [h]."""

    weights: np.ndarray
    bias: np.ndarray


Layers = Sequence[Layer]


def before(layers: Layers, x: np.ndarray) -> list[np.ndarray]:
    """z_l [n, h_l] of every layer at x [n, d]."""
    found, y = [], x
    for weights, bias in layers:
        found.append(y @ weights.T + bias)
        y = np.maximum(found[-1], 0)
    return found


def after(layers: Layers, x: np.ndarray) -> np.ndarray:
    """y [n, h] of the last layer at x [n, d]."""
    return np.maximum(before(layers, x)[-1], 0) if layers else x


def tangents(layers: Layers, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(z_l [h_l], its Jacobian [h_l, d]) of every layer at one point x [d]."""
    found, y, slope = [], x, None
    for weights, bias in layers:
        z = weights @ y + bias
        jacobian = weights if slope is None else weights @ slope
        found.append((z, jacobian))
        on = z > 0
        y, slope = np.where(on, z, 0), jacobian * on[:, None]
    return found


def normal(layers: Layers, x: np.ndarray, unit: int) -> np.ndarray:
    """The gradient [d] of one unit of the last layer, before its ReLU, at x [d]."""
    row = layers[-1].weights[unit]
    for layer, z in zip(layers[-2::-1], before(layers[:-1], x)[::-1], strict=True):
        row = np.where(z > 0, row, 0) @ layer.weights
    return np.asarray(row)


def beside(layers: Layers, x: np.ndarray) -> np.ndarray:
    """Which points [n, d] lie so close to where a known unit switches that it may be on or off."""
    found, y = np.zeros(len(x), bool), x
    for layer, z in zip(layers, before(layers, x), strict=True):
        size = np.linalg.norm(layer.weights, axis=1) * (1 + np.linalg.norm(y, axis=1)[:, None])
        found |= (np.abs(z) < BESIDE * size).any(1)
        y = np.maximum(z, 0)
    return found


class Crossing(NamedTuple):
    """Where a unit of a known layer switches on a line."""

    t: float
    layer: int
    unit: int


def crossings(
    layers: Layers, u: np.ndarray, v: np.ndarray, low: float, high: float
) -> list[Crossing]:
    """All switches of known units on u + t v, low < t < high, in order.

    Between the switches of the layers before a layer is linear, so two ends tell each.
    """
    found: list[Crossing] = []
    t = np.array([low, high])
    for number in range(len(layers)):
        z = before(layers[: number + 1], u + t[:, None] * v)[number]
        piece, unit = np.nonzero((z[:-1] > 0) != (z[1:] > 0))
        first, last = z[piece, unit], z[piece + 1, unit]
        at = t[piece] + (t[piece + 1] - t[piece]) * (first / (first - last))
        found += [
            Crossing(*row)
            for row in zip(at.tolist(), [number] * len(at), unit.tolist(), strict=True)
        ]
        t = np.sort(np.concatenate([t, at]))
    return sorted(found)


def expected(
    layers: Layers,
    jumps: dict[tuple[int, int], np.ndarray],
    u: np.ndarray,
    v: np.ndarray,
    low: float,
    high: float,
) -> Known:
    """The kinks of known layers on a line, for `segment.search`.

    jumps: of units (layer, unit), the jump [K] last seen for a gradient of length one.
    """
    t, normals, last = [], [], []
    for at, layer, unit in crossings(layers, u, v, low, high):
        slope = normal(layers[: layer + 1], u + at * v, unit)
        length = float(np.linalg.norm(slope))
        if length < 1e-12:
            continue
        sign = 1.0 if slope @ v > 0 else -1.0
        jump = jumps.get((layer, unit))
        t.append(at)
        normals.append(sign * slope / length)
        last.append(None if jump is None else jump * length)
    outputs = next((len(a) for a in last if a is not None), 1)
    nan = np.full(outputs, np.nan)
    return Known(
        np.array(t),
        np.array(normals).reshape(len(t), len(u)),
        np.array([nan if a is None else a for a in last]).reshape(len(t), outputs),
    )
