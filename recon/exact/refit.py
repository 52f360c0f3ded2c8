"""A network read off a few rounded replies, fitted anew to many that a certificate asked.

Which units are on at a point is known but beside their hyperplanes.  Elsewhere all Jacobians are

    J(x) = sum of w_i n_i^T over units on  +  slope,

linear in the products w_i n_i^T: one regression over n points averages what rounding did to each
(some n / 4 of them tell of a unit), and the best matrix of rank one of each product is w_i and
n_i.  Given these, values are linear in the biases and the offset.
"""

from __future__ import annotations

import numpy as np

from recon.exact import certify
from recon.networks import TwoLayer
from recon.replies import Reply

TELL = 8  # points on either side of a hyperplane, at least


def refit(network: TwoLayer, x: np.ndarray, reply: Reply, scale: float, eps: float) -> TwoLayer:
    """The network of unit rows by the replies [n, K], [n, K, d] at x [n, d]; units that these do
    not tell of, and all where they are too few, as they were.
    """
    clear = ~certify.sides(network, x, scale, eps).any(1)
    x, value, gradient = x[clear], *(np.asarray(part, float)[clear] for part in reply)
    on = (x @ network.rows.T + network.bias[None] > 0).astype(float)
    told = np.minimum(on.sum(0), len(on) - on.sum(0)) >= TELL
    if not told.any():
        return network
    a = np.column_stack([on[:, told], np.ones(len(on))])
    rest = gradient - np.einsum("nh,kh,hd->nkd", on * ~told, network.weights, network.rows)
    found, _, rank, _ = np.linalg.lstsq(a, rest.reshape(len(on), -1), rcond=1e-10)
    if rank < a.shape[1] or not np.isfinite(found).all():
        return network
    *jumps, slope = found.reshape(-1, *gradient.shape[1:])
    rows, weights, bias = (part.copy() for part in (network.rows, network.weights, network.bias))
    left, size, right = np.linalg.svd(
        np.array(jumps).reshape(-1, *slope.shape), full_matrices=False
    )
    sign = np.where(np.sum(right[:, 0] * rows[told], 1) < 0, -1.0, 1.0)[:, None]
    rows[told], weights[:, told] = right[:, 0] * sign, (left[:, :, 0] * size[:, :1] * sign).T
    known = np.einsum("nh,kh,nh->nk", on, weights, x @ rows.T + bias[None] * ~told)
    outputs = np.broadcast_to(np.eye(len(slope)), (len(x), *[len(slope)] * 2))
    a = np.concatenate([on[:, None, told] * weights[None, :, told], outputs], 2)
    far = certify.size(value, x, scale)
    rest = (value - known - x @ slope.T) / far[:, None]
    a = (a / far[:, None, None]).reshape(-1, a.shape[2])
    solved = np.linalg.lstsq(a, rest.ravel(), rcond=1e-10)[0]
    bias[told] = solved[: told.sum()]
    return TwoLayer(rows, bias, weights, slope, solved[told.sum() :])
