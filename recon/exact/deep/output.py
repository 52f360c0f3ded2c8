"""The last layer, by linear regression: f = V max(z, 0) + U y + c over all replies.

z: of the last hidden layer, y: outputs of the one before.  Signs of z are not needed, as
max(z, 0) - max(-z, 0) = z is linear in y; U takes that up, and units that are on everywhere.
A unit that is missing, but is on at nearly all replies or at few, spoils few of them: least
absolute deviations (by reweighting) meet the others exactly, and the rest tell where it switches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon.exact.deep import known
from recon.exact.deep.known import Layers

EXACT = 1e-8  # of the largest value: what a fit may leave
NEAR = 20.0  # times the median distance: replies from beyond are left out
SPARE = 2  # replies more than unknowns, at least
TURNS = 12  # of reweighting
MOST_BAD = 0.3  # of the replies


class Output(NamedTuple):
    """weights [K, h], slope [K, h before] and offset [K]."""

    weights: np.ndarray
    slope: np.ndarray
    offset: np.ndarray

    def __call__(self, layers: Layers, x: np.ndarray) -> np.ndarray:
        """Values [n, K] at x [n, d]."""
        z = known.before(layers, x)
        y = np.maximum(z[-2], 0) if len(z) > 1 else x
        return np.maximum(z[-1], 0) @ self.weights.T + y @ self.slope.T + self.offset


class Fit(NamedTuple):
    """An output layer, and the replies that it does not meet (row numbers), good ones first."""

    output: Output
    good: np.ndarray
    bad: np.ndarray


def fit(layers: Layers, x: np.ndarray, value: np.ndarray, robust: bool = True) -> Fit | None:
    """The output layer behind these hidden layers; None where too few replies are met exactly."""
    size = np.linalg.norm(x, axis=1)
    (near,) = np.nonzero(size <= NEAR * np.median(size))
    value = value[near]
    z = known.before(layers, x[near])
    hidden = np.maximum(z[-1], 0)
    linear = np.maximum(z[-2], 0) if len(z) > 1 else np.zeros((len(near), 0))
    scale = max(float(np.abs(value).max()), 1e-300)
    for slope in (linear[:, :0], linear):
        a = np.column_stack([hidden, slope, np.ones(len(near))])
        length = np.linalg.norm(a, axis=0)
        a = a / np.where(length > 0, length, 1.0)
        even = 1 / np.linalg.norm(a, axis=1)  # far replies are to weigh no more than near ones
        weight, rank = even, 0
        for _ in range(TURNS if robust else 1):
            solved, _, of, _ = np.linalg.lstsq(
                a * weight[:, None], value * weight[:, None], rcond=1e-12
            )
            rank = int(of)
            off = np.abs(a @ solved - value).max(1) / scale
            if off.max() < EXACT:
                break
            weight = even / np.sqrt(np.maximum(off * even, 1e-10))
            weight = weight / weight.max()
        good = off < EXACT
        if good.sum() < rank + SPARE or good.mean() < 1 - MOST_BAD:
            continue
        if not good.all() and good.sum() < 1.2 * rank + SPARE:
            continue
        solved = solved / np.where(length > 0, length, 1.0)[:, None]
        count = hidden.shape[1]
        full = np.zeros((value.shape[1], linear.shape[1]))
        full[:, : slope.shape[1]] = solved[count:-1].T
        return Fit(Output(solved[:count].T, full, solved[-1]), near[good], near[~good])
    return None
