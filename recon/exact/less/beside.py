"""Values beside the planes of a known network: units that are really several show there.

Far out units with parallel rows are one: w_1 max(t + b_1, 0) + w_2 max(t + b_2, 0) of t = n x has
the tangents of W max(t + b, 0), W = w_1 + w_2, W b = w_1 b_1 + w_2 b_2, on both sides.  But these
meet at t = -b, where that sum has no kink; so just beside -b, on one side or both, its values are
others.  A point lies beside the planes of d / 2 units at once (`touch`), and another one on their
other sides.
"""

from __future__ import annotations

import numpy as np

from recon.exact import certify, regions, touch
from recon.networks import TwoLayer

RADIUS = 10.0  # times the root of d
OFFSET = 1e-6  # from the plane
SHRINK, TRIES = 2.0, 30  # of a radius at which logits part too far


def points(network: TwoLayer, limit: float, rng: np.random.Generator) -> np.ndarray:
    """Two points [n, d] for each group of units, whose rows have length one; limit: how far logits
    may part.
    """
    left, dim = np.arange(network.width), network.rows.shape[1]
    out = [np.zeros((0, dim))]
    while len(left):
        some = left[: certify.group_size(dim)]
        rows, keep, inverse = touch.factor(network.rows[some], np.ones(len(some), bool))
        side = OFFSET * rng.choice([-1.0, 1.0], len(some))
        level = np.where(keep, np.stack([side, -side]) - network.bias[some], 0.0)
        along = rng.standard_normal((2, dim))
        radius = RADIUS * dim**0.5
        for _ in range(TRIES):
            if dim > 1:
                pair = touch.pairs(along, rows, inverse, level, np.full(2, radius))[:, 0]
            else:
                pair = level @ rows
            if regions.spread(network(pair)).max() <= regions.USUAL * limit:
                break
            radius /= SHRINK
        out.append(pair)
        left = np.concatenate([some[~keep], left[len(some) :]])
    return np.concatenate(out)
