"""Halving between a reply that the units found so far explain and one that they do not.

What a Jacobian leaves outside of the span of all rows found comes from units that are missing and
on.  Between a point that leaves nothing and one that does, a missing unit switches on; halving
finds it, whatever other kinks lie between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recon.exact.deep import segment
from recon.exact.deep.track import Track
from recon.replies import Reply

LEFT = 1e-7  # of a Jacobian: what may lie outside of the span
ALONE = 1e-7  # of the segment: halved no further
BRACKET = 1e-4  # of it: two points so close bracket a kink
TURNS = 64  # at most
BLIND = 4  # points in a row that do not tell
GOLDEN = 0.5 * (5**0.5 - 1)  # multiples of it, less whole numbers, lie all over

Share = Callable[[np.ndarray, np.ndarray], np.ndarray]
Guess = Callable[[np.ndarray, np.ndarray, Reply], float]  # low, high [d], and the reply at high


def nearest(x: np.ndarray, share: np.ndarray) -> tuple[int, int] | None:
    """The numbers of the two nearest points x [n, d] of which one leaves nothing, and the other
    does; share [n]: what each leaves, nan where that is not told.  None where there are none.
    """
    (clean,), (foul,) = np.nonzero(share <= LEFT), np.nonzero(share > LEFT)
    if not len(clean) or not len(foul):
        return None
    apart = np.linalg.norm(x[clean][:, None] - x[foul], axis=2)
    i, j = np.unravel_index(int(np.argmin(apart)), apart.shape)
    return int(clean[i]), int(foul[j])


def halved(
    log: Any,
    share: Share,
    low: np.ndarray,
    high: np.ndarray,
    ends: tuple[Reply, Reply],
    guess: Guess | None = None,
) -> Track | None:
    """The kink between a point x [d] that leaves nothing and one that does, once it is alone.

    share: of points [n, d] and Jacobians [n, K, d] there, what each leaves [n]; ends: the replies;
    guess: where the kink seems to be, as a share of the way.
    """
    at_low, at_high = ends
    length, turn, blind = float(np.linalg.norm(high - low)), 0, 0
    while (left := float(np.linalg.norm(high - low))) > ALONE * length and turn < TURNS:
        both = Reply(*(np.stack(pair) for pair in zip(at_low, at_high, strict=True)))
        found = segment.certain(low, high, both, log.eps, log.scale, left < BRACKET * length)
        if isinstance(found, Track):
            return found
        turn += 1
        if guess is not None and left > BRACKET * length:  # beside it, on either side in turn
            beside = segment.BESIDE * length / left * (1 if turn % 2 else -1)
            place = guess(low, high, at_high) + beside
            found = place if 0 < place < 1 else 0.5
        at = turn * GOLDEN % 1 if blind else 0.5 if turn % 3 == 0 else found
        x = low + at * (high - low)
        reply = log(x[None])
        here = Reply(reply.value[0], reply.gradient[0])
        outside = share(x[None], reply.gradient)[0]
        blind = blind + 1 if np.isnan(outside) else 0
        if blind > BLIND:
            return None
        if blind:
            continue
        if outside <= LEFT:
            low, at_low = x, here
        else:
            high, at_high = x, here
    return None
