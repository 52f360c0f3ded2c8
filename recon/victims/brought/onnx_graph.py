"""ONNX graphs as victims: evaluated in JAX operator by operator, so that JAX differentiates them.

Every float initializer is a parameter, so the graph is asked in its own precision.  The input is
one array; its first axis is the batch and is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from recon import oracles
from recon.victims.brought.common import (
    Brought,
    Options,
    as_users_have_it,
    cannot_strip,
    canonical,
    check_logits,
    need,
    view_of,
)
from recon.victims.brought.onnx_operators import OPERATORS, Attributes

ENDS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
THROUGH = ("Identity", "ZipMap")  # what changes no number


class Node(NamedTuple):
    """One operator, the names of its inputs ("" for none) and outputs, and its attributes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    version: int


class Start(NamedTuple):
    """The input: its name, the shape of one, its dtype, and whether it has an axis for a batch."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    batched: bool


@dataclass(frozen=True, eq=False)
class Graph:
    """f(params, x [d]) -> [K]: the nodes that `output` needs, in order.

    known: initializers that are not floats.
    """

    nodes: tuple[Node, ...]
    known: dict[str, np.ndarray]
    start: Start
    output: str

    def __call__(self, params: Any, x: jax.Array) -> Any:
        return self.array(params, x).reshape(-1)

    def array(self, params: Any, x: jax.Array) -> Any:
        """The output in the shape the graph gives it."""
        name, shape, dtype, batched = self.start
        there: dict[str, Any] = {**self.known, **params}
        there[name] = x.astype(canonical(dtype)).reshape((1, *shape) if batched else shape)
        with as_users_have_it():
            for node in self.nodes:
                inputs = [there[name] if name else None for name in node.inputs]
                out = OPERATORS[node.kind](node.attributes, node.version, *inputs)
                there[node.outputs[0]] = out
        return there[self.output]


def victim(model: Any, options: Options) -> Brought:
    """A `ModelProto` with one input and one output of numbers, or one beside labels.

    A softmax or sigmoid at the end makes it a service of probabilities; `logits` leaves it out.
    skl2onnx's [1 - p, p] of two classes counts as the sigmoid it comes from.  ValueError lists
    operators that there are not.
    """
    onnx = need("onnx", "onnx")
    graph, nodes = model.graph, _nodes(onnx, model)
    arrays = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    start = _input(onnx, [a for a in graph.input if a.name not in arrays], options)
    made = {name: node for node in nodes for name in node.outputs}
    name = f"ONNX graph of {len(nodes)} operators"
    output = _through(made, _output(graph, onnx))
    end, last = _end(made, output, arrays)
    if options.logits and end is None:
        raise cannot_strip(name)
    output = output if last is None else last.inputs[0]  # a view of JAX's is of logits
    needed = _needed(made, nodes, output)
    missing = sorted({node.kind for node in needed} - set(OPERATORS))
    if missing:
        raise ValueError(
            f"the ONNX graph has operators that are not supported: {', '.join(missing)}; there are "
            f"{', '.join(OPERATORS)}"
        )
    used = {a for node in needed for a in node.inputs}
    if others := sorted(used & {a for node in needed for a in node.outputs[1:]}):
        raise ValueError(f"the ONNX graph uses second outputs of operators: {', '.join(others)}")
    params = {a: b for a, b in arrays.items() if a in used and b.dtype.kind == "f"}
    known = {a: b for a, b in arrays.items() if a in used and b.dtype.kind != "f"}
    f, dim = Graph(tuple(needed), known, start, output), math.prod(start.shape)
    made_of = jax.eval_shape(f.array, params, jax.ShapeDtypeStruct((dim,), start.dtype))
    if last is not None and end != "sigmoid" and not _whole(last, made_of.shape):
        raise ValueError(f"{name} ends in a softmax that is not over all of its outputs")
    outputs = made_of.size
    view = options.view or view_of(None if options.logits else end, outputs, name)
    oracle = oracles.from_jax(f, params, view)
    if end is None and options.view is None:
        check_logits(oracle, dim, name)
    return Brought(oracle, dim, name)


def _input(onnx: Any, inputs: list[Any], options: Options) -> Start:
    """The one input of the graph; ValueError if it is none that can be asked row by row."""
    if len(inputs) != 1:
        raise ValueError(f"the ONNX graph has {len(inputs)} inputs, not one")
    tensor = inputs[0].type.tensor_type
    dims = [a.dim_value or None for a in tensor.shape.dim]
    shape = options.sizes((dims[1:] if len(dims) > 1 else dims) or None)
    if shape is None:
        raise ValueError(
            "the ONNX graph does not say the shape of its input: give shape= (--shape)"
        )
    if len(dims) > 1 and dims[0] not in (None, 1):
        raise ValueError(f"the ONNX graph takes batches of {dims[0]} alone: export it for one row")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if dtype.kind != "f":
        raise ValueError(f"the ONNX graph takes {dtype}, which has no gradient")
    return Start(inputs[0].name, shape, dtype, len(dims) != 1)


def _nodes(onnx: Any, model: Any) -> list[Node]:
    versions = {a.domain: a.version for a in model.opset_import}
    return [
        Node(
            a.op_type if a.domain in DOMAINS else f"{a.domain}.{a.op_type}",
            tuple(a.input),
            tuple(a.output),
            {b.name: _plain(onnx, onnx.helper.get_attribute_value(b)) for b in a.attribute},
            versions.get(a.domain, versions.get("", 1)),
        )
        for a in model.graph.node
    ]


def _plain(onnx: Any, value: Any) -> Any:
    """An attribute as Python's or NumPy's own."""
    if isinstance(value, bytes):
        return value.decode()
    return onnx.numpy_helper.to_array(value) if hasattr(value, "dims") else value


def _output(graph: Any, onnx: Any) -> str:
    """The one output of floats, a tensor's or a ZipMap's."""
    floats = [
        a.name
        for a in graph.output
        if a.type.WhichOneof("value") != "tensor_type"
        or np.dtype(onnx.helper.tensor_dtype_to_np_dtype(a.type.tensor_type.elem_type)).kind == "f"
    ]
    if len(floats) != 1:
        raise ValueError(f"the ONNX graph has {len(floats)} outputs of floats, not one")
    return str(floats[0])


def _through(made: dict[str, Node], name: str) -> str:
    """The name under which a value is made, behind nodes that change no number."""
    while name in made and made[name].kind in THROUGH:
        name = made[name].inputs[0]
    return name


def _end(
    made: dict[str, Node], output: str, arrays: dict[str, np.ndarray]
) -> tuple[str | None, Node | None]:
    """softmax or sigmoid where one makes the output, and its node."""
    last = made.get(output)
    if last is not None and last.kind == "Concat" and len(last.inputs) == 2:
        first, second = (made.get(a) for a in last.inputs)
        if first is not None and first.kind == "Sub" and first.inputs[1] == last.inputs[1]:
            one = arrays.get(first.inputs[0])
            last = second if one is not None and np.all(one == 1) else last
    if last is None or last.kind not in ENDS:
        return None, None
    return ENDS[last.kind], last


def _whole(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether a softmax of an array of this shape is over all its numbers."""
    axis = node.attributes.get("axis", -1 if node.version >= 13 else 1)
    over = shape[axis : None if node.version < 13 else (axis % len(shape)) + 1]
    return math.prod(over) == math.prod(shape)


def _needed(made: dict[str, Node], nodes: Sequence[Node], output: str) -> list[Node]:
    """The nodes on the way to the output, in the order of the graph, which is topological."""
    wanted, todo = set(), [output]
    while todo:
        name = todo.pop()
        if name in made and name not in wanted:
            todo += made[name].inputs
        wanted.add(name)
    return [node for node in nodes if wanted & set(node.outputs)]
