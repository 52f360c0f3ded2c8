"""Networks read back from .npz and JSON, of whichever kind, or a sentence that says why not.

Both hold named arrays, and the sizes from which all shapes follow, so that a file that lost
something is not taken for a smaller network.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from recon.networks.convolutional import Convolutional
from recon.networks.deep import Deep
from recon.networks.two_layer import FIELDS, TwoLayer

OF_DEEP = re.compile(r"(weights|biases)_\d+")
OF_CONVOLUTIONAL = re.compile(r"(kernels|shifts)_\d+")
HEAD = ("function", "dtype", "sizes")  # of the JSON, beside the arrays
# what NumPy and the zip archive raise where the bytes are not an archive of arrays
UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, OverflowError),
    *(SyntaxError, zipfile.BadZipFile, zlib.error, MemoryError),
)


def load(path: str | Path) -> TwoLayer | Deep | Convolutional:
    """The network saved at `path`, with NumPy arrays; ValueError if the file is not one."""
    data = io.BytesIO(Path(path).read_bytes())  # a file that cannot be opened is an OSError
    try:
        with np.load(data, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _network(arrays, arrays.pop("sizes", None))
    except UNREADABLE as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} is not a saved network: {first}") from error


def from_json(text: str) -> TwoLayer | Deep | Convolutional:
    """The network of its `to_json`, with NumPy arrays; ValueError if the text is not one."""
    try:
        found = json.loads(text)
        dtype = np.dtype(found["dtype"])
        arrays = {name: np.asarray(a, dtype) for name, a in found.items() if name not in HEAD}
        return _network(arrays, found.get("sizes"))
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"this is no network in JSON: {error!r}") from error


def _network(arrays: dict[str, np.ndarray], sizes: Any) -> TwoLayer | Deep | Convolutional:
    """The network of named arrays; ValueError where one is missing or has another shape.

    sizes: None in files of two-layer networks that are older than they.
    """
    kind: type[TwoLayer] | type[Deep] | type[Convolutional] = TwoLayer
    for other, name in ((Deep, OF_DEEP), (Convolutional, OF_CONVOLUTIONAL)):
        kind = other if any(map(name.fullmatch, arrays)) else kind
    if kind is TwoLayer:
        _whole(arrays, FIELDS)
        if sizes is None:
            sizes = (arrays["slope"].shape[-1], len(arrays["bias"]), len(arrays["slope"]))
    known = np.asarray([] if sizes is None else sizes)
    if known.ndim != 1 or known.dtype.kind not in "iu" or (known < 0).any():
        raise ValueError("it does not say its sizes")
    sizes = tuple(known.tolist())
    shapes = kind.shapes(sizes)
    _whole(arrays, shapes)
    if kind is not TwoLayer and (more := [name for name in arrays if name not in shapes]):
        raise ValueError(f"its sizes have no {', '.join(more)}")
    checked = {name: _shaped(name, arrays[name], shape) for name, shape in shapes.items()}
    if kind is TwoLayer:
        return TwoLayer(**checked)
    kernels, shifts, weights, biases = (
        tuple(a for name, a in checked.items() if name.startswith(begin))
        for begin in ("kernels", "shifts", "weights", "biases")
    )
    dense = Deep(weights, biases)
    return dense if kind is Deep else Convolutional(kernels, shifts, dense, sizes[1:4])


def _whole(arrays: dict[str, np.ndarray], names: Any) -> None:
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"it lacks {', '.join(missing)}")


def _shaped(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array, if it holds numbers of this shape; lists do not show the size of no units."""
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (np.floating, np.integer)):
        raise ValueError(f"{name} does not hold real numbers but {array.dtype}")
    if array.size == 0 and 0 in shape:
        return array.reshape(shape)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, its sizes say {shape}")
    return array
