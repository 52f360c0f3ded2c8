"""Recovered networks as models of other libraries: scikit-learn, PyTorch, ONNX.

All three have dense layers with ReLU between them, so the linear part of a network becomes pairs
of units, x = max(x, 0) - max(-x, 0), one pair for each direction it has (`dense`).  Everything is
float64, and each export answers as the network does, to rounding.  The libraries are imported
where they are used; PyTorch and ONNX are extras, `pip install recon[torch]`, `recon[onnx]`.

    exports.to_sklearn(network)          a fitted MLPRegressor; classifier=True: an MLPClassifier
    exports.to_torch(network)            nn.Sequential(Linear, ReLU, Linear)
    exports.to_onnx(network)             a ModelProto, x [n, d] -> y [n, K]
    exports.write(network, folder)       files of all that can be written here
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon.networks import TwoLayer
from recon.victims.brought.common import need

OPSET, IR = 17, 8  # of ONNX: the oldest with all that is used, so that older runtimes read it


class Dense(NamedTuple):
    """f(x) = second max(first x + bias, 0) + offset, in float64."""

    first: np.ndarray  # [m, d]
    bias: np.ndarray  # [m]
    second: np.ndarray  # [K, m]
    offset: np.ndarray  # [K]


def dense(network: TwoLayer) -> Dense:
    """The network as two dense layers: its units, and two more for each rank of its slope.

    Where it has neither, one unit of zeros, as no library has layers of none.
    """
    rows, bias, weights, slope, offset = (
        np.asarray(getattr(network, name), np.float64)
        for name in ("rows", "bias", "weights", "slope", "offset")
    )
    left, right = factors(slope)
    first = np.concatenate([rows, right, -right])
    second = np.concatenate([weights, left, -left], axis=1)
    bias = np.concatenate([bias, np.zeros(2 * len(right))])
    if not len(first):
        first, second, bias = np.zeros((1, rows.shape[1])), np.zeros((len(offset), 1)), np.zeros(1)
    return Dense(first, bias, second, offset)


def factors(slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """slope [K, d] as left [K, r] right [r, d], exact where r is the number of rows not zero.

    That many, or fewer where the singular values fall below rounding.
    """
    used = np.flatnonzero(slope.any(axis=1))
    u, s, v = np.linalg.svd(slope[used], full_matrices=False)
    rank = int((s > np.finfo(np.float64).eps * s.max(initial=0.0)).sum())
    if rank < len(used):
        left = np.zeros((len(slope), rank))
        left[used] = u[:, :rank] * s[None, :rank]
        return left, v[:rank]
    return np.eye(len(slope))[:, used], slope[used]


def to_sklearn(network: TwoLayer, classifier: bool = False) -> Any:
    """A fitted MLPRegressor whose `predict` gives f(x): [n, K], or [n] where K = 1.

    classifier: an MLPClassifier of classes 0 ... K-1 instead, f being its logits; of one logit,
    of classes 0 and 1.  Of two logits it has the difference, as scikit-learn does.
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if classifier and len(network.offset) == 2:
        parts = (network.weights, network.slope, network.offset)
        weights, slope, offset = (np.asarray(part)[1:] - np.asarray(part)[:1] for part in parts)
        network = replace(network, weights=weights, slope=slope, offset=offset)
    layers = dense(network)
    outputs, width = layers.second.shape
    none, settings = np.zeros((2, layers.first.shape[1])), {"hidden_layer_sizes": (width,)}
    # one step on nothing sets whatever attributes this version of scikit-learn has
    if classifier:
        classes = np.arange(max(outputs, 2))
        model = MLPClassifier(**settings).partial_fit(none, classes[:2], classes=classes)
    else:
        truth = np.zeros((2, outputs)) if outputs > 1 else np.zeros(2)
        model = MLPRegressor(**settings).partial_fit(none, truth)
    model.coefs_ = [layers.first.T.copy(), layers.second.T.copy()]
    model.intercepts_ = [layers.bias, layers.offset]
    return model


def to_torch(network: TwoLayer) -> Any:
    """nn.Sequential(Linear, ReLU, Linear) in float64, in eval mode."""
    torch = need("torch", "torch")
    layers = dense(network)
    width, dim = layers.first.shape
    settings = {"dtype": torch.float64}
    module = torch.nn.Sequential(
        torch.nn.Linear(dim, width, **settings),
        torch.nn.ReLU(),
        torch.nn.Linear(width, len(layers.offset), **settings),
    )
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    arrays = (torch.from_numpy(array.copy()) for array in layers)
    module.load_state_dict(dict(zip(names, arrays, strict=True)))
    return module.eval()


def to_onnx(network: TwoLayer) -> Any:
    """A ModelProto of two Gemm and a Relu in float64: input x [n, d], output y [n, K]."""
    onnx = need("onnx", "onnx")
    make, kind = onnx.helper, onnx.TensorProto.DOUBLE
    layers = dense(network)
    nodes = [
        make.make_node("Gemm", ["x", "first", "bias"], ["hidden"], transB=1),
        make.make_node("Relu", ["hidden"], ["on"]),
        make.make_node("Gemm", ["on", "second", "offset"], ["y"], transB=1),
    ]
    sizes = {"x": layers.first.shape[1], "y": len(layers.offset)}
    x, y = (make.make_tensor_value_info(a, kind, ["n", size]) for a, size in sizes.items())
    arrays = [onnx.numpy_helper.from_array(a, name) for name, a in layers._asdict().items()]
    graph = make.make_graph(nodes, "recovered", [x], [y], arrays)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model)
    return model


def _save_sklearn(network: TwoLayer, path: Path) -> None:
    import joblib  # scikit-learn's own

    joblib.dump(to_sklearn(network), path)


def _save_torch(network: TwoLayer, path: Path) -> None:
    need("torch", "torch").save(to_torch(network).state_dict(), path)


def _save_onnx(network: TwoLayer, path: Path) -> None:
    path.write_bytes(to_onnx(network).SerializeToString())


class Format(NamedTuple):
    """A file of a recovered network: the library it needs, what it is, how it is written."""

    library: str
    what: str
    save: Callable[[TwoLayer, Path], None]


FORMATS = {
    "network.joblib": Format("sklearn", "scikit-learn MLPRegressor: joblib.load", _save_sklearn),
    "network.pt": Format("torch", "PyTorch state_dict of Linear, ReLU, Linear", _save_torch),
    "network.onnx": Format("onnx", "ONNX, float64, x [n, d] to y [n, K]", _save_onnx),
}


def available() -> list[str]:
    """The names of FORMATS whose library is installed."""
    return [n for n, of in FORMATS.items() if importlib.util.find_spec(of.library) is not None]


def write(network: TwoLayer, folder: Path) -> list[str]:
    """Write a file of FORMATS for each library that is installed; the names of those written."""
    names = available()
    for name in names:
        FORMATS[name].save(network, folder / name)
    return names
