"""From the kinks of an ended search to the units of a network.

Each kink's jump J = g_r - g_l = w n^T (rank one) and intercept o = w b are a unit, and the
tangent at the cell nearest the origin is the rest.  With every unit oriented so that it is
off in that cell,

    f(x) = slope x + offset + sum_i w_i max(n_i x + b_i, 0)

exactly, whatever the signs of the victim's own weights: no linear program and no value
queries (Algorithm 1b) are needed for the signs, and rows need not be independent.  Units
that share a hyperplane, antiparallel ones too, are one kink; what they add up to elsewhere
is in `slope`.  Orienting away from the origin also keeps the rounding errors of far units
out of the values near it.

All in NumPy: a search hands over arrays, and nothing is compiled for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from recon.exact import arrays, lines
from recon.exact.lines import Settings, State
from recon.networks import TwoLayer

BLURRED = 512.0  # eps: an intercept's error above which it is measured again nearer the origin


def read_off(s: Settings, state: State) -> tuple[TwoLayer, np.ndarray]:
    """The network of an ended search, its rows of length one, and the rounding error [h] of
    each unit's intercept w b, as it enters the values.
    """
    iv = lines.intervals(s, state)
    left, right = iv.left[iv.kink], iv.right[iv.kink]
    offset, noise = lines.intercepts(state)
    home = int(np.argmin(np.abs(state.angle)))
    inward = state.angle[right] <= state.angle[home]
    sign = np.where(inward, -1.0, 1.0)
    rows, weights = np.empty((len(left), s.dim)), np.empty((len(left), s.outputs))
    bias = np.empty(len(left))

    def some(start: int) -> None:  # few at a time, which stay in the cache
        a = slice(start, start + s.chunk)
        jump = state.gradient[right[a]]
        jump -= state.gradient[left[a]]
        size = np.maximum(jump.max((1, 2)), -jump.min((1, 2)))
        peak = np.where(size > 0, size, 1.0)[:, None]  # so that squares do not overflow or vanish
        shift = (offset[right[a]] - offset[left[a]]) * sign[a, None] / peak
        jump *= (sign[a] / peak[:, 0])[:, None, None]
        row = np.matmul((jump @ state.v)[:, None], jump)[:, 0]
        size = np.sqrt(arrays.squares(row))
        size = np.where(size > 0, size, 1.0)  # a shift of the intercept alone is no unit
        row *= (np.where((row @ state.v > 0) == inward[a], -1.0, 1.0) / size)[:, None]
        weight = np.matmul(jump, row[:, :, None])[:, :, 0]
        square = np.sum(weight**2, 1)
        bias[a] = np.sum(weight * shift, 1) / np.where(square > 0, square, 1.0)
        rows[a], weights[a] = row, weight * peak

    arrays.each(some, range(0, len(left), s.chunk), s.large)
    slope, constant = state.gradient[home].copy(), offset[home].copy()
    return TwoLayer(rows, bias, weights.T, slope, constant), noise[left] + noise[right]


def far_points(
    s: Settings, state: State, network: TwoLayer, error: np.ndarray, seed: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Units [m] whose kink lay far out on the line, and a query [m, d] near the origin for each.

    Replies from a distance r carry errors in proportion to r, which go into the bias of a
    unit met there.  At its own query such a unit is on and the others of them off, so that
    the deviation of the value is the error of its intercept.
    """
    near = float(np.linalg.norm(state.u))
    poor = error > BLURRED * s.eps * float(state.scale) * near
    (far,) = np.nonzero(poor & (np.abs(network.bias) < near))
    rows, bias = network.rows[far], network.bias[far]
    x = np.random.default_rng(seed).standard_normal((len(far), s.dim))
    target = 2 * np.eye(len(far)) - 1
    return far, x + (target - bias[None] - x @ rows.T) @ np.linalg.pinv(rows).T


def sharpen(network: TwoLayer, far: np.ndarray, x: np.ndarray, value: np.ndarray) -> TwoLayer:
    """The network with the biases of the units `far` corrected by values [m, K] at far_points."""
    rows, bias = network.rows[far], network.bias.copy()
    weights = network.weights[:, far]
    on = x @ rows.T + bias[None, far] > 0
    system = np.einsum("nm,km->nkm", on, weights).reshape(-1, len(far))
    bias[far] += np.linalg.lstsq(system, (value - network(x)).reshape(-1))[0]
    return replace(network, bias=bias)
