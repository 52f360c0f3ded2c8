"""Inputs at which chosen features of known convolutions are on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recon.exact.conv import known
from recon.exact.conv.known import Layer, Shape

STEPS = 20  # at most
CLEAR = 0.25  # of the mean size of sums: how far above zero those of features are to be
DEPENDENT = 1e-3  # of the largest singular value: moves below are not made


def on(layers: Sequence[Layer], shape: Shape, x: np.ndarray, features: np.ndarray) -> np.ndarray:
    """x [d], moved as little as may be until these features (numbers [n]) of the last layer are on,
    or as many as come to be: Newton's steps for their sums, which are linear piece by piece.
    """
    *below, (kernel, bias) = layers
    for _ in range(STEPS):
        image = known.image(below, shape, x)
        sums = known.sums(kernel, image.y)
        top = (sums.max(2) + bias).reshape(-1)
        lacks = CLEAR * np.abs(top).mean() - top[features]
        if (lacks <= 0).all():
            break
        wanted = np.isin(np.arange(len(top)), features).reshape(sums.shape[0], sums.shape[1], -1)
        rows = (known.matrix(kernel, image.y.shape, sums.argmax(2), wanted) @ image.rows)[features]
        x = x + np.linalg.lstsq(rows.toarray(), np.maximum(lacks, 0), rcond=DEPENDENT)[0]
    return x
