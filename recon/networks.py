"""Records of recovered functions: pytrees that can be called, saved and loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "bias", "weights", "slope", "offset"],
    meta_fields=[],
)
@dataclass(frozen=True)
class TwoLayer:
    """f(x) = weights max(rows x + bias, 0) + slope x + offset.

    rows [h, d], bias [h], weights [K, h], slope [K, d], offset [K].  Equation 1 of
    the paper is the case K = 1 with bias, slope and offset zero.  `slope` holds what
    units that are active everywhere, or antiparallel, add up to.
    """

    rows: Any
    bias: Any
    weights: Any
    slope: Any
    offset: Any

    def __call__(self, x: Any) -> Any:
        """Values [n, K] for x [n, d], or [K] for x [d]; NumPy's where all are NumPy's."""
        hidden = x @ self.rows.T + _row(self.bias, x)
        on = hidden * (hidden > 0).astype(hidden.dtype)  # NumPy's float64 stays so without x64
        return on @ self.weights.T + x @ self.slope.T + _row(self.offset, x)

    def __repr__(self) -> str:
        width, dim = self.rows.shape
        return f"TwoLayer({dim}-{width}-{self.weights.shape[0]})"

    def gradient(self, x: Any) -> Any:
        """Jacobians [n, K, d] for x [n, d]; at a kink, the side where the unit is off."""
        on = (x @ self.rows.T + _row(self.bias, x) > 0).astype(self.weights.dtype)
        active = on[:, None, :] * self.weights[None]
        n, outputs, width = active.shape
        flat = active.reshape(n * outputs, width) @ self.rows  # one product of matrices
        return flat.reshape(n, outputs, self.rows.shape[1]) + self.slope[None]

    @property
    def width(self) -> int:
        """Hidden units h."""
        return self.rows.shape[0]

    def save(self, path: str | Path) -> Path:
        """Write the arrays as .npz; returns the path written."""
        path = Path(path).with_suffix(".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        np.savez(path, **arrays)
        return path


def _row(vector: Any, x: Any) -> Any:
    """A vector with as many axes as x: nothing is broadcast silently."""
    return vector[None] if x.ndim == 2 else vector


def load(path: str | Path) -> TwoLayer:
    """The network saved at `path`, with NumPy arrays; ValueError if the file is not one."""
    with np.load(path, allow_pickle=False) as file:
        missing = [f.name for f in fields(TwoLayer) if f.name not in file]
        if missing:
            raise ValueError(f"{path} is not a saved network: it lacks {', '.join(missing)}")
        return TwoLayer(**{f.name: file[f.name] for f in fields(TwoLayer)})
