"""The biases of a network whose rows and weights are known, from values at ordinary points.

f(x) = c + slope x + sum_j w_j max(n_j x + b_j, 0) is linear in b and c once it is known which units
are on, and at points some CLEAR times as far out as biases reach, n_j x alone tells nearly always:

    f(x) - slope x - sum_{on} w_j n_j x = c + sum_{on} w_j b_j,        q equations a point,

so that a little more than (h + q) / q points do.  Patterns are then taken anew from the biases
found, until nothing changes (Newton's method); what is more than rounding in the end tells that
the rows and weights do not hold near the origin.  Points are chosen so that the equations, which
are known before anything is asked, are as independent as they can be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon.exact import regions
from recon.exact.less.odds import Log
from recon.networks import TwoLayer

FIRST = 2.0**10  # how far out it is first asked, to learn the size of biases
SOME = 2  # points there
CLEAR = 64.0
FARTHER, TRIES = 16.0, 3
SPARE, MORE = 1.1, 2  # equations over unknowns, and points on top
POOL, DRAWS, LARGE, FEW = 4, 16, 256, 3  # candidates a point, choices of points; for many units
STEPS = 20
LEVEL = 512.0  # noises that rounding may explain


def solved(
    log: Log, network: TwoLayer, scale: np.ndarray, limit: float, rng: np.random.Generator
) -> tuple[TwoLayer, bool]:
    """The network with biases and offset, and whether all values bear them out.

    network: without biases; scale [d]: of inputs; limit: how far logits may part where one asks.
    Raises Spent.
    """

    def drawn(count: int, radius: float) -> np.ndarray:
        x = radius * scale[None] * rng.standard_normal((count, log.dim))
        apart = np.maximum(regions.spread(network(x)), 1e-300)
        return np.asarray(x * np.minimum(1.0, regions.USUAL * limit / apart)[:, None])

    log.z = np.zeros((0, len(network.offset)))
    first = drawn(SOME, FIRST)
    number = log.ask(first)
    basis = log.basis
    weights = basis.T @ network.weights
    length = float(np.median(np.linalg.norm(network.rows * scale[None], axis=1))) if network.width else 1.0
    strength = float(np.sqrt((weights**2).sum() / 2 / len(weights))) or 1.0
    off = log.f(number) - network(first) @ basis
    radius = CLEAR * float(np.sqrt(np.mean(off**2))) / strength / length
    radius = max(radius, 1.0) if np.isfinite(radius) else FIRST
    good = False
    q = basis.shape[1]
    count = int(np.ceil(SPARE * (network.width + q) / q)) + MORE - SOME
    for _ in range(TRIES):
        pool = drawn(POOL * count, radius)
        log.ask(_independent(pool, count, network, weights, rng))
        network, good = _newton(log, network, weights)
        if good:
            break
        radius *= FARTHER
    return network, good


def _independent(
    pool: np.ndarray,
    count: int,
    network: TwoLayer,
    weights: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Of some choices of `count` points from the pool the one with the best equations."""
    draws = DRAWS if network.width <= LARGE else FEW
    choices = [rng.permutation(len(pool))[:count] for _ in range(draws)]
    strength = np.linalg.norm(weights, axis=0)
    alike = weights / np.where(strength > 0, strength, 1.0)
    worst = [
        np.linalg.svd(_system(pool[some] @ network.rows.T > 0, alike), compute_uv=False)[-1]
        for some in choices
    ]
    return np.asarray(pool[choices[int(np.argmax(worst))]])


def _system(on: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Equations [n q, h + q] for the biases and the offset."""
    q = len(weights)
    by_bias = on[:, None] * weights[None]
    by_offset = np.broadcast_to(np.eye(q)[None], (len(on), q, q))
    return np.concatenate([by_bias, by_offset], 2).reshape(len(on) * q, -1)


def _newton(log: Log, network: TwoLayer, weights: np.ndarray) -> tuple[TwoLayer, bool]:
    number = np.flatnonzero(log.usable)
    x, f, noise = log.x[number], log.f(number), log.noise(number)
    along, straight = x @ network.rows.T, x @ network.slope.T @ log.basis
    heavy = np.repeat(1 / noise, len(weights))
    bias, before, wrong = np.zeros(network.width), None, np.inf
    offset = np.zeros(len(weights))
    for _ in range(STEPS):
        on = along + bias[None] > 0
        if before is not None and (on == before).all():
            break
        before = on
        left = (f - straight - (on * along) @ weights.T).reshape(-1)
        system = _system(on, weights)
        found = np.linalg.lstsq(system * heavy[:, None], left * heavy, rcond=1e-13)[0]
        bias, offset = np.split(found, [network.width])
        wrong = float((np.abs(system @ found - left) * heavy).max())
    network = replace(network, bias=bias, offset=log.basis @ offset)
    return network, wrong <= LEVEL * (1 + network.width / 64) ** 0.5
