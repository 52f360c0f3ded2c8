"""What the records of all kinds of networks share: their sizes, their files, their arithmetic."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Sizes = tuple[int, ...]


class Record:
    """A network made of named arrays, whose shapes follow from its sizes."""

    function: ClassVar[str]  # what is computed, in words that stand in the JSON

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """Inputs d, the hidden units of each layer, outputs K."""

    @abstractmethod
    def arrays(self) -> dict[str, Any]:
        """The arrays, by the names they have in files."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'-'.join(map(str, self.sizes))})"

    @property
    def dim(self) -> int:
        """Inputs d."""
        return self.sizes[0]

    @property
    def outputs(self) -> int:
        """Outputs K."""
        return self.sizes[-1]

    @property
    def widths(self) -> Sizes:
        """Hidden units of each layer."""
        return self.sizes[1:-1]

    @property
    def width(self) -> int:
        """Hidden units h, of all layers together."""
        return sum(self.widths)

    @property
    def depth(self) -> int:
        """Hidden layers."""
        return len(self.widths)

    def save(self, path: str | Path) -> Path:
        """Write the arrays, and the sizes, as .npz; returns the path written."""
        path = Path(path).with_suffix(".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {name: np.asarray(array) for name, array in self.arrays().items()}
        np.savez(path, sizes=np.array(self.sizes), **arrays)
        return path

    def to_json(self) -> str:
        """The network as one JSON object that `networks.from_json` reads back bit for bit.

        ValueError for numbers that are not finite, which JSON has not.
        """
        arrays = {name: np.asarray(array) for name, array in self.arrays().items()}
        head = {
            "function": self.function,
            "dtype": str(np.result_type(*arrays.values())),
            "sizes": list(self.sizes),
        }
        plain = {name: array.tolist() for name, array in arrays.items()}
        return json.dumps(head | plain, allow_nan=False) + "\n"

    def to_flax(self) -> tuple[Any, dict[str, Any]]:
        """A flax linen module and its variables: `module.apply(variables, x)` is the network's."""
        from recon.networks import modules  # flax, only where it is asked for

        return modules.flax(self)


def affine(x: Any, matrix: Any, vector: Any) -> Any:
    """matrix x + vector, for x [n, d] or [d]."""
    return x @ matrix.T + row(vector, x)


def row(vector: Any, x: Any) -> Any:
    """A vector with as many axes as x: nothing is broadcast silently."""
    return vector[None] if x.ndim == 2 else vector


def relu(sums: Any) -> Any:
    """max(sums, 0), in NumPy where they are NumPy's: float64 stays so without x64."""
    return sums * (sums > 0).astype(sums.dtype)


def through(rows: Any, matrix: Any) -> Any:
    """rows [n, K, h] times matrix [h, d]: [n, K, d], as one product of matrices."""
    n, outputs, width = rows.shape
    return (rows.reshape(n * outputs, width) @ matrix).reshape(n, outputs, matrix.shape[1])
