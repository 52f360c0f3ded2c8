"""Which inputs, of many, tell the most of what is open in the rows of the dense layer.

At a point the equations of feature f are A (`rows.parts`), and what is open is a projection N_f:
the point tells |A N_f|^2 of it, summed over the features that are on.  What points T ask for weighs
it, W_f the sum of their A^T A: |A N_f W_f^(1/2)|^2, up to a projection.
"""

from __future__ import annotations

import numpy as np

NEW = 1e-6  # what a point must tell


def told(parts: np.ndarray, on: np.ndarray, open_: np.ndarray) -> np.ndarray:
    """What each point of these A, and features on [n, f], tells: [n]."""
    n, (f, size, _) = len(on), open_.shape
    loose = (on.astype(float) @ open_.reshape(f, -1)).reshape(n, size, size)
    return np.asarray(((parts @ loose) * parts).sum((1, 2)))


def wanted(parts: np.ndarray, on: np.ndarray) -> np.ndarray:
    """What points ask of each feature, [f, n, n]: the sum of A^T A."""
    square = np.swapaxes(parts, 1, 2) @ parts
    n, size, _ = square.shape
    return (on.T.astype(float) @ square.reshape(n, -1)).reshape(-1, size, size)


def chosen(
    parts: np.ndarray, on: np.ndarray, open_: np.ndarray, want: np.ndarray, count: int
) -> list[int]:
    """Numbers of at most `count` points, each the best after those before it."""
    open_, found = open_.copy(), list[int]()
    for _ in range(count):
        worth = told(parts, on, open_ @ want @ open_)
        worth[found] = 0
        best = int(worth.argmax())
        if worth[best] < NEW:
            break
        found.append(best)
        (at,) = np.nonzero(on[best])
        seen = parts[best] @ open_[at]
        inner = np.linalg.pinv(seen @ parts[best].T, rcond=1e-8, hermitian=True)
        open_[at] -= np.swapaxes(seen, 1, 2) @ inner @ seen
    return found
