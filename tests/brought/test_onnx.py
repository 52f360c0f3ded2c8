"""ONNX graphs: every operator against ONNX's own evaluation, and what stands at the end."""

import jax
import numpy as np
import pytest
from agree import held
from scipy.special import expit, ndtr

from recon import exact, oracles
from recon.victims import brought
from recon.victims.brought.onnx_operators import OPERATORS

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
FLOAT, DOUBLE, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64

R = np.random.default_rng(0)


def normal(*shape):
    return R.standard_normal(shape)


def node(kind, *more, out="y", **attributes):
    """A node that takes x first."""
    domain = "ai.onnx.ml" if kind in ("Scaler", "ZipMap") else ""
    return onnx.helper.make_node(kind, ["x", *more], [out], domain=domain, **attributes)


def model(nodes, arrays=None, shape=(1, 6), version=20, outputs=(("y", DOUBLE),), dtype=DOUBLE):
    """A graph of x `shape` with initializers, float ones in the graph's dtype."""
    make, info = onnx.helper, onnx.helper.make_tensor_value_info
    kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    initializers = [
        onnx.numpy_helper.from_array(
            np.asarray(a).astype(kind) if np.asarray(a).dtype.kind == "f" else np.asarray(a), name
        )
        for name, a in (arrays or {}).items()
    ]
    graph = make.make_graph(
        nodes,
        "graph",
        [info("x", dtype, shape)],
        [info(name, dtype if of == DOUBLE else of, None) for name, of in outputs],
        initializers,
    )
    opsets = [make.make_opsetid("", version), make.make_opsetid("ai.onnx.ml", 1)]
    return make.make_model(graph, opset_imports=opsets, ir_version=9)


def evaluated(graph, shape=(1, 6)):
    """forward(x [n, d]) -> [n, K] by ONNX's reference, one row at a time."""
    session = reference.ReferenceEvaluator(graph)
    return lambda x: np.stack([session.run(["y"], {"x": a.reshape(shape)})[0].ravel() for a in x])


IMAGE = (1, 2, 6, 5)
V = normal(6)
CASES = {
    **{kind: ([node(kind)], {}) for kind in ("Abs", "Elu", "Exp", "Identity", "LeakyRelu")},
    **{kind: ([node(kind)], {}) for kind in ("Neg", "Relu", "Softplus", "Tanh", "Gelu")},
    **{kind: ([node(kind, "v")], {"v": V}) for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    "Gelu tanh": ([node("Gelu", approximate="tanh")], {}),
    "PRelu": ([node("PRelu", "v")], {"v": V}),
    "Log, Sqrt": ([node("Exp", out="e"), *[
        onnx.helper.make_node("Sqrt", ["e"], ["s"]), onnx.helper.make_node("Log", ["s"], ["y"])
    ]], {}),
    "Pow": ([node("Pow", "two")], {"two": 2.0}),
    "Pow of a whole number": ([node("Pow", "two")], {"two": np.int64(3)}),
    "MatMul": ([node("MatMul", "w")], {"w": normal(6, 4)}),
    "Gemm": ([node("Gemm", "w", "b", transB=1, alpha=0.5, beta=2.0)],
             {"w": normal(4, 6), "b": normal(4)}),
    "Gemm of x turned": ([node("Reshape", "to", out="t"), onnx.helper.make_node(
        "Gemm", ["t", "w"], ["y"], transA=1)], {"to": np.array([2, 3]), "w": normal(2, 4)}),
    "Clip": ([node("Clip", "low", "high")], {"low": -0.5, "high": 0.7}),
    "Clip above": ([node("Clip", "", "high")], {"high": 0.7}),
    "Concat": ([node("Concat", "v", axis=1)], {"v": normal(1, 3)}),
    "Transpose": ([node("Reshape", "to", out="t"), onnx.helper.make_node(
        "Transpose", ["t"], ["y"], perm=[1, 0])], {"to": np.array([2, 3])}),
    "Squeeze": ([node("Squeeze", "axes")], {"axes": np.array([0])}),
    "Unsqueeze": ([node("Unsqueeze", "axes")], {"axes": np.array([0, 3])}),
    "ReduceMean": ([node("ReduceMean", "axes", keepdims=0)], {"axes": np.array([1])}),
    "ReduceSum": ([node("ReduceSum")], {}),
    "Gather": ([node("Gather", "at", axis=1)], {"at": np.array([4, 0])}),
    "Slice": ([node("Slice", "i", "j", "axes", "step")], {
        "i": np.array([5]), "j": np.array([-(2**63)]), "axes": np.array([1]),
        "step": np.array([-2])}),
    "Pad": ([node("Pad", "pads", "value")], {"pads": np.array([0, 1, 0, 2]), "value": 3.0}),
    "Cast": ([node("Cast", to=FLOAT, out="f"),
              onnx.helper.make_node("Cast", ["f"], ["y"], to=DOUBLE)], {}),
    "Constant": ([onnx.helper.make_node("Constant", [], ["v"], value_floats=[2.0] * 6),
                  node("Cast", to=FLOAT, out="f"), onnx.helper.make_node("Mul", ["f", "v"], ["m"]),
                  onnx.helper.make_node("Cast", ["m"], ["y"], to=DOUBLE)], {}),
    "Scaler": ([node("Scaler", offset=[1.0] * 6, scale=[2.0, 1.0, 0.5, 4.0, 1.0, 1.0])], {}),
    "Reshape by Shape": ([node("Shape", out="all"), *[
        onnx.helper.make_node("Gather", ["all", "zero"], ["first"]),
        onnx.helper.make_node("Unsqueeze", ["first", "zeros"], ["one"]),
        onnx.helper.make_node("Concat", ["one", "rest"], ["to"], axis=0),
        node("Reshape", "to")]],
        {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1])}),
}  # fmt: skip
IMAGES = {
    "Conv": ([node("Conv", "k", "b", strides=[2, 1], pads=[1, 0, 2, 1])], "kb"),
    "Conv in groups": ([node("Conv", "g", dilations=[2, 1], group=2)], "g"),
    "Conv of the same size": ([node("Conv", "k", strides=[2, 2], auto_pad="SAME_UPPER")], "k"),
    "Conv padded below": ([node("Conv", "k", strides=[2, 2], auto_pad="SAME_LOWER")], "k"),
    "Conv unpadded": ([node("Conv", "k", auto_pad="VALID")], "k"),
    "MaxPool": ([node("MaxPool", kernel_shape=[2, 2], strides=[2, 1], pads=[0, 1, 0, 0])], ""),
    "AveragePool": ([node("AveragePool", kernel_shape=[3, 2], pads=[1, 1, 1, 0])], ""),
    "AveragePool with padding": ([node(
        "AveragePool", kernel_shape=[3, 2], pads=[1, 1, 1, 0], count_include_pad=1)], ""),
    "GlobalAveragePool": ([node("GlobalAveragePool")], ""),
    "GlobalMaxPool": ([node("GlobalMaxPool")], ""),
    "BatchNormalization": ([node("BatchNormalization", *"smtv")], "smtv"),
    "Flatten": ([node("Flatten", axis=2)], ""),
    "Dropout": ([node("Dropout")], ""),
    "Reshape": ([node("Reshape", "to")], "to"),
}  # fmt: skip
PARTS = {"k": normal(3, 2, 3, 2), "b": normal(3), "g": normal(4, 1, 2, 2), "s": normal(2)}
PARTS |= {"m": normal(2), "t": normal(2), "v": np.array([0.5, 2.0]), "to": np.array([0, -1])}


@pytest.mark.parametrize("case", CASES)
def test_operators_of_rows(case):
    nodes, arrays = CASES[case]
    graph = model(nodes, arrays)
    if case in ("Cast", "Constant"):  # a step that rounds to float32
        oracle = brought.oracle(graph)
        with jax.enable_x64(True):
            got = oracle.values(normal(4, 6))
        assert got.shape == (4, 6)
        x = normal(4, 6).astype(np.float32)
        np.testing.assert_allclose(oracle.values(x), evaluated(graph)(x.astype(float)), rtol=1e-6)
        return
    by_hand = {  # ONNX's own has constants in float32
        "Gelu": lambda x: x * ndtr(x),
        "Gelu tanh": lambda x: x * expit(np.sqrt(8 / np.pi) * (x + 0.044715 * x**3)),
    }
    held(brought.oracle(graph), by_hand.get(case, evaluated(graph)), 6)


@pytest.mark.parametrize("case", IMAGES)
def test_operators_of_images(case):
    nodes, names = IMAGES[case]
    arrays = {"to": PARTS["to"]} if names == "to" else {a: PARTS[a] for a in names}
    graph = model(nodes, arrays, IMAGE)
    oracle = brought.bring(graph)
    assert oracle.dim == 60
    held(oracle.oracle, evaluated(graph, IMAGE), 60)


def test_every_operator_is_tested():
    nodes = [a for some, _ in (*CASES.values(), *IMAGES.values()) for a in some]
    ends = {"Softmax", "LogSoftmax", "Sigmoid"}  # below
    assert {a.op_type for a in nodes} | ends == set(OPERATORS)


@pytest.mark.parametrize("version", [11, 20])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_makes_a_view_and_logits_leaves_it_out(kind, version):
    dense = onnx.helper.make_node("MatMul", ["x", "w"], ["z"])
    last = [
        onnx.helper.make_node(kind, ["z"], ["p"]),
        onnx.helper.make_node("Identity", ["p"], ["y"]),
    ]
    graph = model([dense, *last], {"w": normal(6, 4)}, version=version)
    view = brought.oracle(graph).view
    assert (
        str(view)
        == {
            "Softmax": "probabilities, jacobian of probabilities",
            "LogSoftmax": "log_probabilities, jacobian of log_probabilities",
        }[kind]
    )
    held(brought.oracle(graph), evaluated(graph), 6)
    weights = onnx.numpy_helper.to_array(graph.graph.initializer[0])
    oracle = brought.oracle(graph, logits=True)
    assert oracle.view == oracles.View()
    held(oracle, lambda x: x @ weights, 6)
    got = exact.recover(brought.oracle(graph), dim=6, key=0)
    assert got.ok == brought.oracle(graph).view.outputs.endswith("probabilities"), str(got)


@pytest.mark.parametrize("version", [11, 20])
def test_a_softmax_within_the_graph_is_evaluated(version):
    for kind in ("Softmax", "LogSoftmax", "Sigmoid"):
        nodes = [
            node("Reshape", "to", out="t"),
            onnx.helper.make_node(kind, ["t"], ["s"], **({} if kind == "Sigmoid" else {"axis": 1})),
            onnx.helper.make_node("Flatten", ["s"], ["y"], axis=0),
        ]
        graph = model(nodes, {"to": np.array([1, 2, 3])}, version=version)
        if kind == "Softmax" and version == 11:  # over all six: probabilities after all
            with pytest.raises(ValueError, match="returns probabilities, as far as 16 inputs"):
                brought.oracle(graph)
        if kind != "Sigmoid" and version == 11:
            continue
        held(brought.oracle(graph, view=oracles.View()), evaluated(graph), 6)


def test_sigmoids_are_probabilities_where_there_is_one():
    one = [onnx.helper.make_node("MatMul", ["x", "w"], ["z"])]
    one += [onnx.helper.make_node("Sigmoid", ["z"], ["y"])]
    graph = model(one, {"w": normal(6, 1)})
    assert brought.oracle(graph).view.outputs == "probabilities"
    held(brought.oracle(graph), evaluated(graph), 6)
    graph = model(one, {"w": normal(6, 3)})
    with pytest.raises(ValueError, match=r"sigmoids of 3 outputs.*--logits"):
        brought.oracle(graph)
    assert brought.oracle(graph, logits=True).view == oracles.View()


def test_a_binary_classifier_of_skl2onnx_is_its_one_logit():
    make = onnx.helper.make_node
    nodes = [
        make("MatMul", ["x", "w"], ["z"]),
        make("Sigmoid", ["z"], ["p"]),
        make("Sub", ["one", "p"], ["q"]),
        make("Concat", ["q", "p"], ["both"], axis=1),
        make("ArgMax", ["both"], ["label"], axis=1),  # not supported, and not needed
        make("ZipMap", ["both"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    graph = model(
        nodes, {"w": normal(6, 1), "one": [1.0]}, outputs=[("label", INT64), ("y", DOUBLE)]
    )
    weights = onnx.numpy_helper.to_array(graph.graph.initializer[0])
    held(brought.oracle(graph, logits=True), lambda x: x @ weights, 6)
    held(brought.oracle(graph), lambda x: 1 / (1 + np.exp(-x @ weights)), 6)


def test_float32_graphs_are_asked_in_float32_and_recovered(tmp_path):
    make = onnx.helper.make_node
    nodes = [make("Gemm", ["x", "w", "b"], ["h"]), make("Relu", ["h"], ["r"])]
    nodes += [make("Gemm", ["r", "v"], ["z"]), make("Softmax", ["z"], ["y"])]
    arrays = {"w": normal(6, 9), "b": normal(9), "v": normal(9, 3)}
    graph = model(nodes, arrays, ("n", 6), dtype=FLOAT)
    onnx.save(graph, tmp_path / "net.onnx")
    oracle = brought.oracle(brought.load(tmp_path / "net.onnx"), logits=True)
    assert oracle.values(np.zeros((1, 6))).dtype == np.float32
    found = exact.recover(oracle, dim=6, key=0)
    assert found.ok
    assert found.network.width == 9
    x = normal(50, 6)
    truth = np.maximum(x @ arrays["w"] + arrays["b"], 0) @ arrays["v"]
    np.testing.assert_allclose(found.network(x), truth, atol=1e-4)


def test_what_is_not_supported_is_named(tmp_path):
    make = onnx.helper.make_node
    second = make("Cast", ["mask"], ["y"], to=DOUBLE)
    lstm = make("LSTM", ["x", "w", "w"], ["y"], hidden_size=2)
    for graph, sentence in (
        (model([lstm, make("Erf", ["y"], ["z"])], {"w": V}), "not supported: LSTM; there are Abs,"),
        (model([node("Relu")], shape=(1, None)), r"does not say the shape.*--shape"),
        (model([node("Add", "x2")]), None),
        (model([node("Relu")], shape=(4, 6)), "takes batches of 4 alone"),
        (model([make("Relu", ["x"], ["y"], domain="mine")]), "not supported: mine.Relu"),
        (
            model([make("Dropout", ["x"], ["d", "mask"]), second]),
            "second outputs of operators: mask",
        ),
        (model([node("Relu")], dtype=INT64, outputs=[("y", FLOAT)]), "takes int64, which has no"),
        (model([node("Relu")], outputs=[("y", INT64)]), "has 0 outputs of floats, not one"),
        (model([node("MaxPool", kernel_shape=[2], ceil_mode=1)], shape=(1, 2, 5)), "ceil_mode"),
        (model([node("Pad", "p", mode="edge")], {"p": np.zeros(4, int)}), "Pad of mode 'edge'"),
        (model([node("Relu")]), "no softmax or sigmoid at its end"),
        (model([node("Softmax", axis=1)], shape=(1, 2, 3)), "not over all of its outputs"),
    ):
        if sentence is None:
            graph.graph.input.append(onnx.helper.make_tensor_value_info("x2", DOUBLE, (1, 6)))
            sentence = "has 2 inputs, not one"
        with pytest.raises(ValueError, match=sentence):
            brought.oracle(graph, logits="no softmax" in sentence)
    held(
        brought.oracle(model([node("Relu")], shape=(1, None)), shape=(6,)), lambda x: x * (x > 0), 6
    )
    (tmp_path / "net.onnx").write_bytes(b"\xff no graph")
    with pytest.raises(ValueError, match=r"net.onnx could not be read: "):
        brought.load(tmp_path / "net.onnx")
