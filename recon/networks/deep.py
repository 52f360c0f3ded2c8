"""The record of a deep network: dense layers, one after the other, with ReLU between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import jax

from recon.networks.record import Record, Sizes, affine, relu, through


@partial(jax.tree_util.register_dataclass, data_fields=["weights", "biases"], meta_fields=[])
@dataclass(frozen=True, repr=False)
class Deep(Record):
    """f(x) = y_L with y_0 = x, y_l = max(weights_l y_(l-1) + biases_l, 0) for l < L, and no ReLU
    at the end: y_L = weights_L y_(L-1) + biases_L.

    weights: a tuple of L arrays [h_l, h_(l-1)], biases: of L arrays [h_l], where h_0 = d and
    h_L = K.  At least one hidden layer: L >= 2.
    """

    function: ClassVar[str] = (
        "f(x) = y of the last layer, y = max(weights_i y + biases_i, 0) for i = 0, 1, ... from "
        "y = x on, without the max in the last layer"
    )
    weights: tuple[Any, ...]
    biases: tuple[Any, ...]

    def __call__(self, x: Any) -> Any:
        """Values [n, K] for x [n, d], or [K] for x [d]; NumPy's where all are NumPy's."""
        return self.sums(x)[-1]

    def sums(self, x: Any) -> list[Any]:
        """What each layer adds up to, [n, h_l] or [h_l] for l = 1 ... L: before the ReLU."""
        sums = [affine(x, self.weights[0], self.biases[0])]
        for weights, biases in zip(self.weights[1:], self.biases[1:], strict=True):
            sums.append(affine(relu(sums[-1]), weights, biases))
        return sums

    def gradient(self, x: Any) -> Any:
        """Jacobians [n, K, d] for x [n, d]; at a kink, the side where the unit is off.

        weights_L D_(L-1) weights_(L-1) ... D_1 weights_1, D_l the diagonal of which units are on,
        from the left: K rows are carried down the layers.
        """
        *sums, _ = self.sums(x)
        rows = self.weights[-1][None]
        for below, weights in zip(reversed(sums), reversed(self.weights[:-1]), strict=True):
            on = (below > 0).astype(weights.dtype)
            rows = through(on[:, None, :] * rows, weights)
        return rows

    @property
    def sizes(self) -> Sizes:
        """(d, h_1, ..., K)."""
        return self.weights[0].shape[-1], *(weights.shape[-2] for weights in self.weights)

    def arrays(self) -> dict[str, Any]:
        """weights_0, biases_0, weights_1, ...: numbered from 0, as Python has them."""
        layers = zip(self.weights, self.biases, strict=True)
        return {
            f"{name}_{i}": array
            for i, layer in enumerate(layers)
            for name, array in zip(("weights", "biases"), layer, strict=True)
        }

    @staticmethod
    def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
        """Of `arrays`, for sizes (d, h_1, ..., K); ValueError without a hidden layer."""
        if len(sizes) < 3:
            raise ValueError(f"sizes {sizes} have no hidden layer")
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (below, width) in enumerate(pairwise(sizes)):
            shapes |= {f"weights_{i}": (width, below), f"biases_{i}": (width,)}
        return shapes
