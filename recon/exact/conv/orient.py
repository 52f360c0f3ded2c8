"""Which side of a unit of the dense layer is its on: the one that leaves the simplest linear part.

v max(-z, 0) = v max(z, 0) - v z, so that rows are told with any choice, and the linear part P takes
up v_j u_j^T of units taken for on where they are off.  What no row explains of P, E, is of units
that are on at all points: where these are fewer than the outputs, their span is left out, and
P = E - sum over flipped units of v_j u_j^T tells each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WHOLE = 1e-5  # how far a flip may be from no or yes
NOTHING = 1e-7  # of the linear part: what rows leave of it
SPARE = 10  # features more than units and outputs


class Sides(NamedTuple):
    """Which units are to be flipped [h], and an orthonormal basis [K, a] of what the linear part is
    made of then.
    """

    flip: np.ndarray
    basis: np.ndarray


def sides(names: np.ndarray, slope: np.ndarray, rows: np.ndarray) -> Sides | None:
    """Of slope [K, f] and rows [h, f], nan where not told; None where too little is."""
    outputs = names.shape[1]
    use = np.isfinite(rows).any(1)
    while True:
        at = np.isfinite(rows[use]).all(0) & np.isfinite(slope).all(0)
        if at.sum() >= use.sum() + outputs + SPARE:
            break
        if not use.any():
            return None
        use[np.flatnonzero(use)[np.isfinite(rows[use]).sum(1).argmin()]] = False
    u, p = rows[use][:, at], slope[:, at]
    across = np.linalg.pinv(u, rcond=1e-9)
    left, size, _ = np.linalg.svd(p - p @ across @ u)
    basis = left[:, : int(np.sum(size > NOTHING * np.linalg.norm(p)))]
    basis = spanned(np.hstack([basis, names[~use].T]))
    if basis.shape[1] >= outputs:
        return None
    rest = np.linalg.svd(basis)[0][:, basis.shape[1] :].T if basis.size else np.eye(outputs)
    seen, held = rest @ p @ across, rest @ names[use].T
    share = (seen * held).sum(0) / (held**2).sum(0)
    flip = np.zeros(len(names), bool)
    flip[use] = np.abs(share + 1) < WHOLE
    if np.abs(share + flip[use]).max(initial=0.0) > WHOLE:
        return None
    return Sides(flip, basis)


def spanned(vectors: np.ndarray) -> np.ndarray:
    """An orthonormal basis [K, a] of what columns [K, n] span."""
    u, size, _ = np.linalg.svd(vectors, full_matrices=False)
    return np.asarray(u[:, : int(np.sum(size > NOTHING))])
