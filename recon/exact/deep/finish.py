"""The network of layers and an output: signs, plain layers without a slope, sharper biases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recon.exact.deep import known, output
from recon.exact.deep.known import Layer, Layers
from recon.exact.deep.layer import GATE
from recon.exact.deep.output import Output

NOTHING = 1e-8  # of the largest weight: a slope that is none
WHOLE = 1e-5  # how far a flip may be from no or yes
NEAR = 20.0  # times the median distance: replies from beyond sharpen nothing


def plain(layers: Layers, out: Output) -> list[Layer]:
    """All layers, the output last, without a slope on the outputs before the last hidden layer.

    A unit with the wrong sign leaves -V_j w_j in the slope, which tells it.  What is left, of units
    that are on everywhere, passes through a unit of its own for each input: max(y, 0) = y.
    """
    hidden = layers[-1]
    weights, slope, offset = out
    if len(layers) > 1 and slope.any():
        gated = np.any(hidden.weights <= -GATE, axis=1)  # these have no other sign
        rows = np.where(gated[:, None], 0, hidden.weights)
        system = (weights.T[:, :, None] * rows[:, None, :]).reshape(len(hidden.bias), -1)
        share = np.linalg.lstsq(system.T, slope.reshape(-1), rcond=1e-10)[0]
        flip = np.abs(share + 1) < WHOLE
        rest = slope + weights[:, flip] @ hidden.weights[flip]
        sign = np.where(flip, -1.0, 1.0)
        offset = offset + weights[:, flip] @ hidden.bias[flip]
        hidden = Layer(hidden.weights * sign[:, None], hidden.bias * sign)
        size = float(np.abs(weights).max(initial=0.0) * np.abs(rows).max(initial=0.0))
        used = np.abs(rest).max(0) > NOTHING * max(size, float(np.abs(slope).max()))
        hidden = Layer(
            np.concatenate([hidden.weights, np.eye(len(used))[used]]),
            np.append(hidden.bias, np.zeros(int(used.sum()))),
        )
        weights = np.concatenate([weights, rest[:, used]], axis=1)
    return [*layers[:-1], hidden, Layer(weights, offset)]


def values(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    """f [n, K] of whole networks."""
    y = known.after(layers[:-1], x)
    return y @ layers[-1].weights.T + layers[-1].bias


def sharpened(layers: Sequence[Layer], x: np.ndarray, value: np.ndarray) -> list[Layer]:
    """The network with biases corrected by all replies near the origin, with no query.

    A kink is placed by replies from afar, and so is the bias that it shows; with the masks as they
    are, f is affine in all biases at once.  Kept where it does not make the worst reply worse.
    """
    size = np.linalg.norm(x, axis=1)
    near = size <= NEAR * np.median(size)
    x, value = x[near], value[near]
    off = value - values(layers, x)
    before = known.before(layers[:-1], x)
    slope = np.broadcast_to(layers[-1].weights, (len(x), *layers[-1].weights.shape))
    parts = [np.broadcast_to(np.eye(value.shape[1]), (len(x),) + 2 * (value.shape[1],))]
    for layer, z in zip(layers[-2::-1], before[::-1], strict=True):
        slope = slope * (z > 0)[:, None, :]
        parts.append(slope)
        slope = slope @ layer.weights
    system = np.concatenate(parts, axis=2).reshape(off.size, -1)
    length = np.linalg.norm(system, axis=0)
    step = np.linalg.lstsq(
        system / np.where(length > 0, length, 1.0), off.reshape(-1), rcond=1e-10
    )[0] / np.where(length > 0, length, 1.0)
    made, end = [], 0
    for layer in layers[::-1]:
        start, end = end, end + len(layer.bias)
        made.append(Layer(layer.weights, layer.bias + step[start:end]))
    better = made[::-1]
    return better if np.abs(value - values(better, x)).max() < np.abs(off).max() else list(layers)


def of(layers: Layers, out: Output, x: np.ndarray, value: np.ndarray) -> list[Layer]:
    """The whole network: plain, its output fitted again with the right signs, and sharpened."""
    made = plain(layers, out)
    again = output.fit(made[:-1], x, value, made[-1].weights)
    if again is not None and not again.output.slope.any() and not len(again.bad):
        made[-1] = Layer(again.output.weights, again.output.offset)
    return sharpened(made, x, value)
