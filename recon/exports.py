"""Recovered networks as models of other libraries: scikit-learn, PyTorch, ONNX.

All three have dense layers with ReLU between them, so the linear part of a two-layer network
becomes pairs of units, x = max(x, 0) - max(-x, 0), one pair for each direction it has (`dense`); a
deep network has its own layers.  Everything is float64, and each export answers as the network
does, to rounding.  The libraries are imported where they are used; PyTorch and ONNX are extras,
`pip install recon[torch]`, `recon[onnx]`.  Of flax: `network.to_flax()`.

    exports.to_sklearn(network)          a fitted MLPRegressor; classifier=True: an MLPClassifier
    exports.to_torch(network)            nn.Sequential(Linear, ReLU, ..., Linear)
    exports.to_onnx(network)             a ModelProto, x [n, d] -> y [n, K]
    exports.write(network, folder)       files of all that can be written here
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon.networks import Deep, Network, TwoLayer
from recon.victims.brought.common import need

OPSET, IR = 17, 8  # of ONNX: the oldest with all that is used, so that older runtimes read it


class Layer(NamedTuple):
    """y = matrix x + bias, in float64."""

    matrix: np.ndarray  # [out, in]
    bias: np.ndarray  # [out]


def dense(network: Network) -> list[Layer]:
    """The network as dense layers with ReLU between them.

    Of a two-layer network two: its units and two more for each rank of its slope, and the output.
    A hidden layer without units gets one of zeros, as no library has layers of none.
    """
    layers = _two(network) if isinstance(network, TwoLayer) else _all(network)
    for i in range(len(layers) - 1):
        if not len(layers[i].bias):
            after = layers[i + 1]
            layers[i] = Layer(np.zeros((1, layers[i].matrix.shape[1])), np.zeros(1))
            layers[i + 1] = Layer(np.zeros((len(after.bias), 1)), after.bias)
    return layers


def _two(network: TwoLayer) -> list[Layer]:
    rows, bias, weights, slope, offset = (
        np.asarray(array, np.float64) for array in network.arrays().values()
    )
    left, right = factors(slope)
    return [
        Layer(
            np.concatenate([rows, right, -right]),
            np.concatenate([bias, np.zeros(2 * len(right))]),
        ),
        Layer(np.concatenate([weights, left, -left], axis=1), offset),
    ]


def _all(network: Deep) -> list[Layer]:
    layers = zip(network.weights, network.biases, strict=True)
    return [Layer(*(np.asarray(array, np.float64) for array in layer)) for layer in layers]


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


def to_sklearn(network: Network, classifier: bool = False) -> Any:
    """A fitted MLPRegressor whose `predict` gives f(x): [n, K], or [n] where K = 1.

    classifier: an MLPClassifier of classes 0 ... K-1 instead, f being its logits; of one logit,
    of classes 0 and 1.  Of two logits it has the difference, as scikit-learn does.
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if classifier and network.outputs == 2:
        network = _difference(network)
    layers = dense(network)
    outputs = network.outputs
    none = np.zeros((2, network.dim))
    settings = {"hidden_layer_sizes": tuple(len(layer.bias) for layer in layers[:-1])}
    # one step on nothing sets whatever attributes this version of scikit-learn has
    if classifier:
        classes = np.arange(max(outputs, 2))
        model = MLPClassifier(**settings).partial_fit(none, classes[:2], classes=classes)
    else:
        truth = np.zeros((2, outputs)) if outputs > 1 else np.zeros(2)
        model = MLPRegressor(**settings).partial_fit(none, truth)
    model.coefs_ = [layer.matrix.T.copy() for layer in layers]
    model.intercepts_ = [layer.bias.copy() for layer in layers]
    return model


def _difference(network: Network) -> Network:
    """The second of two outputs less the first."""

    def less(array: Any) -> np.ndarray:
        return np.asarray(array)[1:] - np.asarray(array)[:1]

    if isinstance(network, TwoLayer):
        names = ("weights", "slope", "offset")
        return replace(network, **{name: less(getattr(network, name)) for name in names})
    (*weights, matrix), (*biases, offset) = network.weights, network.biases
    return Deep((*weights, less(matrix)), (*biases, less(offset)))


def to_torch(network: Network) -> Any:
    """nn.Sequential(Linear, ReLU, ..., Linear) in float64, in eval mode."""
    torch = need("torch", "torch")
    layers = dense(network)
    linear = [torch.nn.Linear(*layer.matrix.shape[::-1], dtype=torch.float64) for layer in layers]
    between = [(each, torch.nn.ReLU()) for each in linear[:-1]]
    module = torch.nn.Sequential(*chain.from_iterable(between), linear[-1])
    names = [f"{2 * i}.{part}" for i in range(len(layers)) for part in ("weight", "bias")]
    arrays = (torch.from_numpy(array.copy()) for array in chain.from_iterable(layers))
    module.load_state_dict(dict(zip(names, arrays, strict=True)))
    return module.eval()


def to_onnx(network: Network) -> Any:
    """A ModelProto of Gemm with Relu between them in float64: input x [n, d], output y [n, K]."""
    onnx = need("onnx", "onnx")
    make, kind = onnx.helper, onnx.TensorProto.DOUBLE
    layers = dense(network)
    nodes, arrays, last = [], [], len(layers) - 1
    for i, layer in enumerate(layers):
        names = [f"weights_{i}", f"biases_{i}"]
        arrays += [onnx.numpy_helper.from_array(a, b) for a, b in zip(layer, names, strict=True)]
        reads, writes = f"on_{i - 1}" if i else "x", f"sums_{i}" if i < last else "y"
        nodes.append(make.make_node("Gemm", [reads, *names], [writes], transB=1))
        nodes += [make.make_node("Relu", [writes], [f"on_{i}"])] if i < last else []
    sizes = {"x": network.dim, "y": network.outputs}
    x, y = (make.make_tensor_value_info(a, kind, ["n", size]) for a, size in sizes.items())
    graph = make.make_graph(nodes, "recovered", [x], [y], arrays)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model)
    return model


def _save_sklearn(network: Network, path: Path) -> None:
    import joblib  # scikit-learn's own

    joblib.dump(to_sklearn(network), path)


def _save_torch(network: Network, path: Path) -> None:
    need("torch", "torch").save(to_torch(network).state_dict(), path)


def _save_onnx(network: Network, path: Path) -> None:
    path.write_bytes(to_onnx(network).SerializeToString())


class Format(NamedTuple):
    """A file of a recovered network: the library it needs, what it is, how it is written."""

    library: str
    what: str
    save: Callable[[Network, Path], None]


FORMATS = {
    "network.joblib": Format("sklearn", "scikit-learn MLPRegressor: joblib.load", _save_sklearn),
    "network.pt": Format("torch", "PyTorch state_dict of Linear, ReLU, ..., Linear", _save_torch),
    "network.onnx": Format("onnx", "ONNX, float64, x [n, d] to y [n, K]", _save_onnx),
}


def available() -> list[str]:
    """The names of FORMATS whose library is installed."""
    return [n for n, of in FORMATS.items() if importlib.util.find_spec(of.library) is not None]


def write(network: Network, folder: Path) -> list[str]:
    """Write a file of FORMATS for each library that is installed; the names of those written."""
    names = available()
    for name in names:
        FORMATS[name].save(network, folder / name)
    return names
