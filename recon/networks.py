"""Records of recovered functions: pytrees that can be called, saved and loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

FUNCTION = "f(x) = weights max(rows x + bias, 0) + slope x + offset"


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

    def to_json(self) -> str:
        """The network as one JSON object that `from_json` reads back bit for bit.

        ValueError for numbers that are not finite, which JSON has not.
        """
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        dtype = str(np.result_type(*arrays.values()))
        plain = {name: array.tolist() for name, array in arrays.items()}
        return json.dumps({"function": FUNCTION, "dtype": dtype, **plain}, allow_nan=False) + "\n"


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


def from_json(text: str) -> TwoLayer:
    """The network of `TwoLayer.to_json`, with NumPy arrays; ValueError if the text is not one."""
    try:
        found = json.loads(text)
        arrays = {f.name: np.asarray(found[f.name], found["dtype"]) for f in fields(TwoLayer)}
        outputs, dim = arrays["slope"].shape
        width = len(arrays["bias"])
        shapes = {"rows": (width, dim), "bias": (width,), "weights": (outputs, width)}
        for name, shape in (shapes | {"offset": (outputs,)}).items():
            arrays[name] = arrays[name].reshape(shape)  # lists do not show the size of no units
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this is no network in JSON: {error!r}") from error
    return TwoLayer(**arrays)


@dataclass(frozen=True)
class Deep:
    weights: tuple
    biases: tuple

    @property
    def widths(self):
        return tuple(len(b) for b in self.biases[:-1])

    @property
    def width(self):
        return sum(self.widths)

    def __call__(self, x):
        y = x
        for i, (w, b) in enumerate(zip(self.weights, self.biases)):
            y = y @ w.T + b
            if i < len(self.weights) - 1:
                y = np.maximum(y, 0)
        return y
