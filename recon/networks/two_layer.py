"""The record of a two-layer network: one hidden layer of ReLU units, and a linear part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax

from recon.networks.record import Record, Sizes, affine, relu, row, through

FIELDS = ("rows", "bias", "weights", "slope", "offset")


@partial(jax.tree_util.register_dataclass, data_fields=list(FIELDS), meta_fields=[])
@dataclass(frozen=True, repr=False)
class TwoLayer(Record):
    """f(x) = weights max(rows x + bias, 0) + slope x + offset.

    rows [h, d], bias [h], weights [K, h], slope [K, d], offset [K].  Equation 1 of
    the paper is the case K = 1 with bias, slope and offset zero.  `slope` holds what
    units that are active everywhere, or antiparallel, add up to.
    """

    function: ClassVar[str] = "f(x) = weights max(rows x + bias, 0) + slope x + offset"
    rows: Any
    bias: Any
    weights: Any
    slope: Any
    offset: Any

    def __call__(self, x: Any) -> Any:
        """Values [n, K] for x [n, d], or [K] for x [d]; NumPy's where all are NumPy's."""
        on = relu(affine(x, self.rows, self.bias))
        return on @ self.weights.T + x @ self.slope.T + row(self.offset, x)

    def gradient(self, x: Any) -> Any:
        """Jacobians [n, K, d] for x [n, d]; at a kink, the side where the unit is off."""
        on = (affine(x, self.rows, self.bias) > 0).astype(self.weights.dtype)
        return through(on[:, None, :] * self.weights[None], self.rows) + self.slope[None]

    @property
    def sizes(self) -> Sizes:
        """(d, h, K)."""
        width, dim = self.rows.shape[-2:]
        return dim, width, self.weights.shape[-2]

    def arrays(self) -> dict[str, Any]:
        """The fields."""
        return {name: getattr(self, name) for name in FIELDS}

    @staticmethod
    def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
        """Of `arrays`, for sizes (d, h, K); ValueError for more or fewer."""
        dim, width, outputs = sizes
        shapes = ((width, dim), (width,), (outputs, width), (outputs, dim), (outputs,))
        return dict(zip(FIELDS, shapes, strict=True))
