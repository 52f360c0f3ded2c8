"""Inputs where a class that was never on top may be.

Every reply with value f at x says of such a class u that z_u(x) <= f.  Classes as the seen ones
are, W_ui ~ N(0, s^2), that keep to all of this are drawn (Gibbs, one weight after another: as
hidden units are not negative, each has an upper bound alone).  Each is followed uphill to where it
would be on top by most; of the inputs found, that one is asked where most of them would be on top.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from recon.exact.less.top_replies import Log
from recon.networks import TwoLayer

DRAWN = 96  # classes
SWEEPS = 12
BOUNDS = 512  # replies that they keep to, at most
STEPS = 40  # uphill
RADII = (1.0, 3.0, 30.0)  # times standard normal


def unseen(
    log: Log, network: TwoLayer, seen: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """An input [d] where a class not seen [K] may well be on top, and the chance that one is."""
    weights, slope, offset = (a[seen] for a in (network.weights, network.slope, network.offset))
    like = rng.integers(len(weights), size=DRAWN)
    drawn, constant = _drawn(log, network, weights[like], slope[like], offset[like], rng)
    radius = rng.choice(RADII, DRAWN) * log.dim**0.5

    def excess(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By how much each class drawn [m] is above all others at its x [m, d]; W - W_k, S - S_k"""
        y = np.maximum(x @ network.rows.T + network.bias[None], 0)
        z = y @ weights.T + x @ slope.T + offset[None]
        k, at = z.argmax(1), np.arange(len(x))
        own = np.sum(y * drawn, 1) + np.sum(x * slope[like], 1) + constant
        return own - z[at, k], drawn - weights[k], slope[like] - slope[k]

    x = rng.standard_normal((DRAWN, log.dim))
    x *= (radius / np.linalg.norm(x, axis=1))[:, None]
    best, most = x, np.full(DRAWN, -np.inf)
    for i in range(STEPS):
        above, more, tilt = excess(x)
        best, most = np.where((above > most)[:, None], x, best), np.maximum(above, most)
        on = x @ network.rows.T + network.bias[None] > 0
        way = (more * on) @ network.rows + tilt
        size = np.linalg.norm(way, axis=1, keepdims=True)
        x = x + way / np.where(size > 0, size, 1.0) * radius[:, None] / (2 + i)
        x *= np.minimum(1, radius / np.linalg.norm(x, axis=1))[:, None]
    y = np.maximum(best @ network.rows.T + network.bias[None], 0)
    top = (y @ weights.T + best @ slope.T + offset[None]).max(1)
    own = y @ drawn.T + best @ slope[like].T + constant[None]
    chance = (own > top[:, None]).mean(1)
    return best[chance.argmax()], float(chance.max())


def _drawn(
    log: Log,
    network: TwoLayer,
    weights: np.ndarray,
    slope: np.ndarray,
    offset: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """W [m, h] and c [m] of classes that were never on top, starting from those of seen ones."""
    number = rng.permutation(len(log.x))[:BOUNDS]
    x = log.x[number]
    hidden = np.maximum(x @ network.rows.T + network.bias[None], 0)
    hidden = np.concatenate([hidden, np.ones((len(hidden), 1))], 1)
    free = log.value[number, None] - x @ slope.T  # [n, m]
    drawn = np.concatenate([weights, offset[:, None]], 1)
    room = np.maximum(free - hidden @ drawn.T, 0)
    spread = np.append(np.sqrt(np.mean(weights**2, 0)), np.abs(offset).max(initial=1e-3))
    spread[:-1] = np.sqrt(np.mean(spread[:-1] ** 2)) if len(spread) > 1 else 0.0
    for _ in range(SWEEPS):
        for j in range(drawn.shape[1] if spread[0] > 0 else 0):
            a = hidden[:, j, None]
            with np.errstate(divide="ignore", invalid="ignore"):
                bound = np.where(a > 0, drawn[:, j][None] + room / a, np.inf).min(0)
            share = np.maximum(ndtr(bound / spread[j]), 1e-300)
            value = ndtri(share * rng.uniform(1e-9, 1, len(drawn))) * spread[j]
            room = np.maximum(room - a * (value - drawn[:, j])[None], 0)
            drawn[:, j] = value
    return drawn[:, :-1], drawn[:, -1]
