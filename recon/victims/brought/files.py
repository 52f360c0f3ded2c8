"""Models in files, and which of them can run code.

| suffix | what | runs code from the file? |
| --- | --- | --- |
| .onnx | ONNX | no: a graph of named operators |
| .safetensors | arrays, with a named architecture | no |
| .skops | scikit-learn, by skops | no: types that skops does not know are refused |
| .keras | Keras 3 | no: safe mode refuses lambdas; older Keras had holes, so 3.12 at least |
| .npz | a recovered network, by its `save` | no |
| .joblib, .pkl, .pickle | scikit-learn and others | yes, it is a pickle |
| .pt2 | torch.export | yes, PyTorch unpickles some of it and says not to trust it |
| .pt, .pth | TorchScript | yes, it is a program |
| .pt, .pth | torch.save of a module | yes, it is a pickle |
| .pt, .pth | torch.save of a state_dict, with a named architecture | no: `weights_only` |
| .h5, .hdf5 | old Keras | yes, lambdas are not refused |

What can run code is opened only with `trust=True` (`--trust`); .skops and .keras are then opened
without their checks.  A named architecture is "mlp", dense layers with ReLU between them, whose
sizes the arrays tell, or "MODULE:FUNCTION", your own code: a function without arguments that
returns the PyTorch or flax linen module.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recon import networks
from recon.victims.brought.common import need
from recon.victims.brought.dense import Dense

# Of an MLP of scikit-learn that was trained: records of numbers, which skops does not know.
HARMLESS = [
    f"sklearn.neural_network._stochastic_optimizers.{name}Optimizer" for name in ("Adam", "SGD")
]


def load(path: str | Path, trust: bool = False, architecture: str | None = None) -> Any:
    """The model in the file, to be given to `brought.oracle`.

    ValueError for a file that could run code without `trust`, that cannot be read, or whose
    architecture is missing; ModuleNotFoundError says what to install.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix not in READERS:
        raise ValueError(f"{path} is none of {', '.join(READERS)}")
    try:
        return READERS[path.suffix](path, trust, architecture)
    except (Refused, ModuleNotFoundError, MemoryError):
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} could not be read: {type(error).__name__}: {first}") from error


class Refused(ValueError):
    """A file that is not opened as it stands."""


def _risky(path: Path, trust: bool, why: str) -> None:
    if not trust:
        raise Refused(
            f"{path} was not opened: {why}, so opening it can run any code; if you trust where it "
            "is from, say trust=True (--trust)"
        )


def _joblib(path: Path, trust: bool, architecture: str | None) -> Any:
    _risky(path, trust, "it is a pickle")
    import joblib  # scikit-learn's own

    return joblib.load(path)


def _skops(path: Path, trust: bool, architecture: str | None) -> Any:
    io = need("skops.io", "skops")
    unknown = [name for name in io.get_untrusted_types(file=path) if name not in HARMLESS]
    if unknown and not trust:
        raise Refused(
            f"{path} was not opened: it holds types that skops does not know to be harmless "
            f"({', '.join(unknown)}); if you trust them, say trust=True (--trust)"
        )
    return io.load(path, trusted=[*HARMLESS, *unknown])


def _keras(path: Path, trust: bool, architecture: str | None) -> Any:
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = need("keras", "keras")
    version = tuple(int(a) for a in re.findall(r"\d+", keras.__version__)[:2])
    if path.suffix != ".keras":
        _risky(path, trust, "Keras does not check lambdas in it")
    elif version < (3, 12) and not trust:
        raise Refused(
            f"{path} was not opened: Keras {keras.__version__} can be made to run code by such "
            "files; Keras 3.12 or later cannot as far as is known, or say trust=True (--trust)"
        )
    return keras.saving.load_model(path, compile=False, safe_mode=not trust)


def _onnx(path: Path, trust: bool, architecture: str | None) -> Any:
    return need("onnx", "onnx").load(path)


def _exported(path: Path, trust: bool, architecture: str | None) -> Any:
    _risky(path, trust, "torch.export.load unpickles parts of it")
    return need("torch", "torch").export.load(path)


def _torch(path: Path, trust: bool, architecture: str | None) -> Any:
    torch = need("torch", "torch")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            scripted = any(name.split("/")[1:2] == ["code"] for name in file.namelist())
        if scripted:
            _risky(path, trust, "TorchScript is a program")
            return torch.jit.load(path, map_location="cpu")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        _risky(path, trust, "it is a pickle of more than arrays")
        loaded = torch.load(path, map_location="cpu", weights_only=False)
    return loaded if hasattr(loaded, "forward") else _built(path, loaded, architecture)


def _safetensors(path: Path, trust: bool, architecture: str | None) -> Any:
    arrays = need("safetensors.numpy", "safetensors").load_file(path)
    return _built(path, arrays, architecture)


def _npz(path: Path, trust: bool, architecture: str | None) -> Any:
    return networks.load(path)


READERS: dict[str, Callable[[Path, bool, str | None], Any]] = {
    ".onnx": _onnx,
    ".safetensors": _safetensors,
    ".skops": _skops,
    ".keras": _keras,
    ".npz": _npz,
    **dict.fromkeys((".joblib", ".pkl", ".pickle"), _joblib),
    ".pt2": _exported,
    **dict.fromkeys((".pt", ".pth"), _torch),
    **dict.fromkeys((".h5", ".hdf5"), _keras),
}


def _built(path: Path, arrays: dict[str, Any], architecture: str | None) -> Any:
    """The named architecture with these arrays as its parameters."""
    if architecture is None:
        raise Refused(
            f"{path} holds arrays without an architecture: name it, architecture='mlp' "
            "(--architecture mlp) or 'MODULE:FUNCTION'"
        )
    if architecture == "mlp":
        return dense_layers({name: np.asarray(array) for name, array in arrays.items()})
    module_name, _, function = architecture.partition(":")
    if not function:
        raise Refused(f"no architecture {architecture!r}; there are mlp and MODULE:FUNCTION")
    sys.path.insert(0, os.getcwd())
    try:
        module = getattr(importlib.import_module(module_name), function)()
    finally:
        sys.path.remove(os.getcwd())
    if hasattr(module, "load_state_dict"):
        torch = need("torch", "torch")
        module.load_state_dict({name: torch.as_tensor(a) for name, a in arrays.items()})
        return module
    return module, _nested(arrays)


def _nested(arrays: dict[str, Any]) -> dict[str, Any]:
    """Variables of a flax module from names as params/Dense_0/kernel, or with dots."""
    variables: dict[str, Any] = {}
    for name, array in arrays.items():
        *above, last = re.split(r"[./]", name)
        inner = variables
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = array
    return variables if "params" in variables else {"params": variables}


def dense_layers(arrays: dict[str, np.ndarray]) -> Dense:
    """Dense layers with ReLU between them, in the order of the numbers in their names.

    A matrix is [out, in] (PyTorch's `weight`) or, called `kernel`, [in, out] (flax's, Keras's);
    ValueError where the sizes make no chain.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, part = name.replace("/", ".").rpartition(".")
        layers.setdefault(layer, {})[part] = array
    chain: list[tuple[np.ndarray, np.ndarray]] = []
    for layer in sorted(layers, key=lambda a: [int(b) for b in re.findall(r"\d+", a)] or [0]):
        parts = dict(layers[layer])
        kernel = parts.pop("kernel", None)
        kernel = parts.pop("weight").T if kernel is None and "weight" in parts else kernel
        if kernel is None or kernel.ndim != 2 or set(parts) - {"bias"}:
            raise Refused(f"architecture mlp: {layer} is no dense layer; it has {[*layers[layer]]}")
        if chain and chain[-1][0].shape[1] != kernel.shape[0]:
            raise Refused(
                f"architecture mlp: {layer} takes {kernel.shape[0]} inputs, and the layer before "
                f"it has {chain[-1][0].shape[1]} outputs"
            )
        chain.append((kernel, parts.get("bias", np.zeros(kernel.shape[1], kernel.dtype))))
    if not chain:
        raise Refused("architecture mlp: there are no arrays")
    sizes = "-".join(str(a) for a in (chain[0][0].shape[0], *(len(b) for _, b in chain)))
    return Dense(chain, "relu", f"MLP {sizes}", note="ReLU was taken to stand between its layers.")
