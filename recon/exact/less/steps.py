"""SmoothGrad beside the planes of a known network: units that are really several show there.

Far out, units with parallel rows are one, and with one output nothing but values in between their
planes tells.  SmoothGrad of n points around an x on the plane of a unit, and of no other, has the
unit on at k of n points: the share k / n of its gradient.  Of several units there would be shares
of each, or, away from all their planes, none or all.  A point lies on the planes of d / 2 units at
once (`touch`), and so far out that all others are away from it by more than any noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from recon.exact import certify, touch
from recon.networks import TwoLayer

RADIUS = 1e5  # times the root of d: how far out
ROUNDS = 4  # a unit may be on at all of the points, or at none
MOST = 1_000  # points of a mean
CLOSE = 1e-6  # to a whole number
ROUNDING = 256.0  # eps

Ask = Callable[[np.ndarray], np.ndarray]  # z [n, d] -> mean gradients [n, K, d]


def seen(network: TwoLayer, ask: Ask, rng: np.random.Generator, eps: float) -> bool:
    """Whether every unit, of rows of length one, has shares k / n on its plane, and not only 0 and
    1, with one n for all.
    """
    left, shares = np.arange(network.width), list[float]()
    for _ in range(ROUNDS):
        again = list[int]()
        for group, pair in _touched(network, left, rng):
            found = [
                _shares(network, group, z, g, eps) for z, g in zip(pair, ask(pair), strict=True)
            ]
            good = np.array([each for each in found if each is not None]).reshape(-1, len(group))
            inner = (good > 1e-3) & (good < 1 - 1e-3)
            shares += good[inner].tolist()
            again += group[~inner.any(0)].tolist()
        left = np.array(again, int)
        if not len(left):
            break
    off = np.array(shares)[None] * np.arange(1, MOST)[:, None]
    close = np.abs(off - np.round(off)) < max(CLOSE, 1e4 * eps)
    return not len(left) and bool(close.all(1).any())


def _touched(
    network: TwoLayer, left: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of units whose rows are independent, and two points [2, d] on all their planes."""
    dim = network.rows.shape[1]
    while len(left):
        some = left[: certify.group_size(dim)]
        rows, keep, inverse = touch.factor(network.rows[some], np.ones(len(some), bool))
        level = np.where(keep, -network.bias[some], 0.0)[None]
        along = rng.standard_normal((1, dim)) if dim > 1 else np.zeros((1, 1))
        if dim > 1:
            (pair,) = touch.pairs(along, rows, inverse, level, np.array([RADIUS * dim**0.5]))
        else:
            pair = np.repeat(level * rows, 2, 0)
        yield some[keep], pair
        left = np.concatenate([some[~keep], left[len(some) :]])


def _shares(
    network: TwoLayer, group: np.ndarray, z: np.ndarray, mean: np.ndarray, eps: float
) -> np.ndarray | None:
    """The shares of a group's units in the mean gradient [K, d] at z [d], if they explain it."""
    on = network.rows @ z + network.bias > 0
    on[group] = False
    rest = mean - network.slope - (network.weights * on) @ network.rows
    weights, rows = network.weights[:, group], network.rows[group]
    basis = np.einsum("kj,jd->kdj", weights, rows).reshape(-1, len(group))
    share = np.linalg.lstsq(basis, rest.reshape(-1))[0]
    size = float(np.linalg.norm(network.weights))
    wrong = float(np.abs(basis @ share - rest.reshape(-1)).max(initial=0.0))
    return share if wrong <= ROUNDING * eps * size else None
