"""The operators of ONNX that MLPs, convolutional networks and skl2onnx's scalers use, in JAX.

Each takes its node's attributes, the version of the operator set, and its inputs, one of them or
none traced.  What is known before (shapes, axes) is NumPy's and stays so.
Source: the operators' schemas, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from recon.victims.brought.common import canonical

Attributes = dict[str, Any]


def _xp(*inputs: Any) -> Any:
    """NumPy where all inputs are known, else JAX's."""
    return np if all(isinstance(a, (np.ndarray, np.generic)) for a in inputs) else jnp


def _elementwise(name: str) -> Callable:
    return lambda _a, _v, *inputs: getattr(_xp(*inputs), name)(*inputs)


def _activation(function: Callable) -> Callable:
    return lambda _a, _v, x: function(x)


def _axes(a: Attributes, known: Any) -> Any:
    """The axes of a node, an attribute in old operator sets and an input in new ones."""
    axes = a.get("axes") if known is None else np.asarray(known).tolist()
    return None if axes is None else tuple(axes)


def _gemm(a: Attributes, _v: int, x: Any, y: Any, z: Any = None) -> Any:
    x, y = (b.T if a.get(name) else b for b, name in ((x, "transA"), (y, "transB")))
    out = (x @ y) * np.asarray(a.get("alpha", 1.0), x.dtype)
    return out if z is None else out + z * np.asarray(a.get("beta", 1.0), x.dtype)


def _softmax(function: Callable) -> Callable:
    def of(a: Attributes, version: int, x: Any) -> Any:
        if version >= 13:
            return function(x, axis=a.get("axis", -1))
        axis = a.get("axis", 1) % max(x.ndim, 1)  # of all axes from this one on
        flat = x.reshape(*x.shape[:axis], -1)
        return function(flat, axis=-1).reshape(x.shape)

    return of


def _flatten(a: Attributes, _v: int, x: Any) -> Any:
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _reshape(a: Attributes, _v: int, x: Any, to: Any) -> Any:
    shape = [int(b) for b in np.asarray(to)]
    if not a.get("allowzero"):
        shape = [x.shape[i] if b == 0 else b for i, b in enumerate(shape)]
    return x.reshape(shape)


def _squeeze(a: Attributes, _v: int, x: Any, axes: Any = None) -> Any:
    return _xp(x).squeeze(x, axis=_axes(a, axes))


def _unsqueeze(a: Attributes, _v: int, x: Any, axes: Any = None) -> Any:
    return _xp(x).expand_dims(x, axis=_axes(a, axes))


def _reduce(name: str) -> Callable:
    def of(a: Attributes, _v: int, x: Any, axes: Any = None) -> Any:
        over = _axes(a, axes)
        if over in (None, ()) and a.get("noop_with_empty_axes"):
            return x
        return getattr(_xp(x), name)(x, axis=over or None, keepdims=bool(a.get("keepdims", 1)))

    return of


def _gather(a: Attributes, _v: int, x: Any, at: Any) -> Any:
    return _xp(x, at).take(x, at, axis=a.get("axis", 0))


def _batch_norm(a: Attributes, _v: int, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    if a.get("training_mode"):
        raise ValueError("BatchNormalization in training mode is not supported")
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scale, bias, mean, var = (b.reshape(shape) for b in (scale, bias, mean, var))
    return (x - mean) / jnp.sqrt(var + np.asarray(a.get("epsilon", 1e-5), x.dtype)) * scale + bias


def _windows(a: Attributes, size: tuple[int, ...], kernel: tuple[int, ...]) -> tuple:
    """Strides, dilations and the padding (before, after) of every axis of an image."""
    n = len(size)
    strides, dilations = (tuple(a.get(b) or (1,) * n) for b in ("strides", "dilations"))
    auto = a.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        wide = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        total = [
            max((-(-m // s) - 1) * s + w - m, 0)
            for m, s, w in zip(size, strides, wide, strict=True)
        ]
        less = [(t // 2, t - t // 2) for t in total]
        return strides, dilations, [p if auto == "SAME_UPPER" else p[::-1] for p in less]
    pads = a.get("pads") or (0,) * 2 * n
    pads = (0,) * 2 * n if auto == "VALID" else pads
    return strides, dilations, list(zip(pads[:n], pads[n:], strict=True))


def _conv(a: Attributes, _v: int, x: Any, kernel: Any, bias: Any = None) -> Any:
    strides, dilations, pads = _windows(a, x.shape[2:], kernel.shape[2:])
    out = lax.conv_general_dilated(
        *(x, kernel, strides, pads),
        rhs_dilation=dilations,
        feature_group_count=a.get("group", 1),
    )
    return out if bias is None else out + bias.reshape(1, -1, *(1,) * (x.ndim - 2))


def _pool(start: float, reduce: Callable, mean: bool) -> Callable:
    def of(a: Attributes, _v: int, x: Any) -> Any:
        if a.get("ceil_mode"):
            raise ValueError("pooling with ceil_mode is not supported")
        kernel = tuple(a["kernel_shape"])
        strides, dilations, pads = _windows(a, x.shape[2:], kernel)

        def over(x: Any) -> Any:
            whole = ((1, 1, *kernel), (1, 1, *strides), [(0, 0), (0, 0), *pads], None)
            initial = np.asarray(start, x.dtype)
            return lax.reduce_window(x, initial, reduce, *whole, (1, 1, *dilations))

        if not mean:
            return over(x)
        count = math.prod(kernel) if a.get("count_include_pad") else over(np.ones(x.shape, x.dtype))
        return over(x) / jnp.asarray(count, x.dtype)

    return of


def _global(name: str) -> Callable:
    return lambda _a, _v, x: getattr(jnp, name)(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def _clip(a: Attributes, _v: int, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = (a.get(b) if c is None else c for b, c in (("min", low), ("max", high)))
    return _xp(x).clip(x, *(b if b is None else _xp(b).asarray(b, x.dtype) for b in (low, high)))


def _cast(a: Attributes, _v: int, x: Any) -> Any:
    from onnx import helper

    to = helper.tensor_dtype_to_np_dtype(a["to"])
    return x.astype(to if _xp(x) is np else canonical(to))


def _pad(
    a: Attributes, _v: int, x: Any, pads: Any = None, value: Any = None, axes: Any = None
) -> Any:
    if a.get("mode", "constant") != "constant":
        raise ValueError(f"Pad of mode {a['mode']!r} is not supported")
    pads = np.asarray(a["pads"] if pads is None else pads).reshape(2, -1).tolist()
    widths = [(0, 0)] * x.ndim
    over = range(x.ndim) if axes is None else np.asarray(axes).tolist()
    for axis, low, high in zip(over, *pads, strict=True):
        widths[axis] = (low, high)
    value = a.get("value", 0) if value is None else value
    return jnp.pad(x, widths, constant_values=jnp.asarray(value, x.dtype).reshape(()))


def _slice(
    _a: Attributes, _v: int, x: Any, start: Any, end: Any, axes: Any = None, step: Any = None
) -> Any:
    over = range(len(start)) if axes is None else np.asarray(axes).tolist()
    steps = [1] * len(start) if step is None else np.asarray(step).tolist()
    cut = [slice(None)] * x.ndim
    for axis, i, j, k in zip(over, start.tolist(), end.tolist(), steps, strict=True):
        cut[axis] = slice(i, j if abs(j) < 2**31 - 1 else None, k)
    return x[tuple(cut)]


def _scaler(a: Attributes, _v: int, x: Any) -> Any:
    return (x - np.asarray(a["offset"], x.dtype)) * np.asarray(a["scale"], x.dtype)


def _prelu(_a: Attributes, _v: int, x: Any, slope: Any) -> Any:
    return jnp.where(x >= 0, x, slope * x)


def _constant(a: Attributes, _v: int) -> Any:
    (value,) = a.values()
    return np.asarray(value)


def _leaky(a: Attributes, _v: int, x: Any) -> Any:
    return jnp.where(x >= 0, x, x * np.asarray(a.get("alpha", 0.01), x.dtype))


def _elu(a: Attributes, _v: int, x: Any) -> Any:
    return jax.nn.elu(x, np.asarray(a.get("alpha", 1.0), x.dtype))


def _gelu(a: Attributes, _v: int, x: Any) -> Any:
    return jax.nn.gelu(x, approximate=a.get("approximate", "none") == "tanh")


OPERATORS: dict[str, Callable] = {
    "Abs": _elementwise("abs"),
    "Add": _elementwise("add"),
    "AveragePool": _pool(0.0, lax.add, True),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda a, _v, *x: _xp(*x).concatenate(x, axis=a["axis"]),
    "Constant": _constant,
    "Conv": _conv,
    "Div": lambda _a, _v, x, y: x / y if jnp.issubdtype(x.dtype, jnp.floating) else x // y,
    "Dropout": lambda _a, _v, x, *_: x,
    "Elu": _elu,
    "Exp": _elementwise("exp"),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("max"),
    "Identity": lambda _a, _v, x: x,
    "LeakyRelu": _leaky,
    "Log": _elementwise("log"),
    "LogSoftmax": _softmax(jax.nn.log_softmax),
    "MatMul": _elementwise("matmul"),
    "Max": lambda _a, _v, *x: _folded("maximum", x),
    "MaxPool": _pool(-np.inf, lax.max, False),
    "Min": lambda _a, _v, *x: _folded("minimum", x),
    "Mul": _elementwise("multiply"),
    "Neg": _elementwise("negative"),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": lambda _a, _v, x, y: x ** y.astype(x.dtype),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Relu": _activation(jax.nn.relu),
    "Reshape": _reshape,
    "Scaler": _scaler,
    "Shape": lambda a, _v, x: np.asarray(x.shape[a.get("start", 0) : a.get("end")], np.int64),
    "Sigmoid": _activation(jax.nn.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax(jax.nn.softmax),
    "Softplus": _activation(jax.nn.softplus),
    "Sqrt": _elementwise("sqrt"),
    "Squeeze": _squeeze,
    "Sub": _elementwise("subtract"),
    "Tanh": _activation(jnp.tanh),
    "Transpose": lambda a, _v, x: _xp(x).transpose(x, a.get("perm")),
    "Unsqueeze": _unsqueeze,
}


def _folded(name: str, inputs: tuple) -> Any:
    out = inputs[0]
    for other in inputs[1:]:
        out = getattr(_xp(out, other), name)(out, other)
    return out
