"""Recovered networks in JSON and as models of other libraries answer as the networks do."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from recon import exports, networks
from recon.networks import Deep, TwoLayer
from recon.victims import brought


@st.composite
def drawn(draw):
    """Networks of all shapes: no units, no slope, a slope of low or full rank; points beside."""
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, width, outputs = draw(st.integers(1, 6)), draw(st.integers(0, 7)), draw(st.integers(1, 5))
    rank = draw(st.integers(0, min(dim, outputs)))
    slope = r.standard_normal((outputs, rank)) @ r.standard_normal((rank, dim))
    slope[: draw(st.integers(0, outputs))] = 0
    scale = 10.0 ** draw(st.integers(-6, 6))
    network = TwoLayer(
        r.standard_normal((width, dim)),
        r.standard_normal(width),
        r.standard_normal((outputs, width)),
        scale * slope,
        r.standard_normal(outputs),
    )
    return network, r.standard_normal((20, dim)) * 10.0 ** draw(st.integers(0, 4))


@st.composite
def drawn_deep(draw):
    """Deep networks of one to three hidden layers, some of no units; points beside."""
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hidden = draw(st.lists(st.integers(0, 6), min_size=1, max_size=3))
    sizes = [draw(st.integers(1, 6)), *hidden, draw(st.integers(1, 5))]
    weights = tuple(r.standard_normal((width, below)) for below, width in pairwise(sizes))
    network = Deep(weights, tuple(r.standard_normal(width) for width in sizes[1:]))
    return network, r.standard_normal((20, sizes[0])) * 10.0 ** draw(st.integers(0, 4))


def same(found, truth):
    assert found.shape == truth.shape
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, truth, rtol=1e-12, atol=1e-12 * np.abs(truth).max())


@given(drawn())
def test_two_dense_layers_are_the_network_in_as_few_units_as_its_slope_allows(made):
    network, x = made
    (first, bias), (second, offset) = exports.dense(network)
    same(np.maximum(x @ first.T + bias, 0) @ second.T + offset, network(x))
    rank = np.linalg.matrix_rank(network.slope) if network.slope.any() else 0
    assert len(first) == max(1, network.width + 2 * rank)


@given(drawn_deep())
def test_a_deep_network_has_its_own_layers(made):
    network, x = made
    *hidden, last = exports.dense(network)
    assert [len(layer.bias) for layer in hidden] == [max(1, width) for width in network.widths]
    y = x
    for matrix, bias in hidden:
        y = np.maximum(y @ matrix.T + bias, 0)
    same(y @ last.matrix.T + last.bias, network(x))


def test_a_slope_of_full_rank_is_kept_to_the_bit():
    slope = np.array([[0.1, 0.2, 0.3], [0, 0, 0], [0.7, 1e-9, 1 / 3]])
    left, right = exports.factors(slope)
    assert np.array_equal(left @ right, slope)
    assert right.shape == (2, 3)


@settings(max_examples=30)
@given(st.one_of(drawn(), drawn_deep()))
def test_scikit_learn(made):
    network, x = made
    outputs = network.outputs
    model = exports.to_sklearn(network)
    truth = network(x)
    same(model.predict(x), truth[:, 0] if outputs == 1 else truth)
    classifier = exports.to_sklearn(network, classifier=True)
    odds = classifier.predict_proba(x)
    if outputs == 1:
        np.testing.assert_allclose(odds[:, 1], expit(truth[:, 0]), rtol=1e-9, atol=1e-12)
        return
    np.testing.assert_allclose(odds, softmax(truth, axis=1), rtol=1e-9, atol=1e-12)
    top = np.sort(truth, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-9 * np.abs(truth).max()
    assert np.array_equal(classifier.predict(x)[clear], truth.argmax(1)[clear])


@settings(max_examples=30)
@given(st.one_of(drawn(), drawn_deep()))
def test_pytorch(made):
    torch = pytest.importorskip("torch")
    network, x = made
    module = exports.to_torch(network)
    assert not module.training
    with torch.no_grad():
        same(module(torch.from_numpy(x)).numpy(), network(x))


@settings(max_examples=30)
@given(st.one_of(drawn(), drawn_deep()))
def test_onnx(made):
    reference = pytest.importorskip("onnx.reference")
    network, x = made
    (y,) = reference.ReferenceEvaluator(exports.to_onnx(network)).run(None, {"x": x})
    same(y, network(x))


SMALL = TwoLayer(
    np.array([[1.0, -2.0]]),
    np.array([1.0]),
    np.array([[3.0], [1.0]]),
    np.array([[10.0, 20.0], [0.1, 0.0]]),
    np.array([5.0, -1.0]),
)


DEEP = Deep(
    (np.array([[1.0, -2.0], [0.5, 1.0]]), np.array([[3.0, 1.0]]), np.array([[2.0], [-1.0]])),
    (np.array([1.0, 0.0]), np.array([-1.0]), np.array([5.0, -1.0])),
)


@pytest.mark.parametrize("network", [SMALL, DEEP], ids=str)
def test_files_are_read_back_as_victims_that_answer_the_same(network, tmp_path):
    written = exports.write(network, tmp_path)
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())
    assert "network.joblib" in written
    x = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32).astype(float)
    for name in written:
        mlp = "mlp" if name.endswith(".pt") else None
        model = brought.load(tmp_path / name, trust=name.endswith("joblib"), architecture=mlp)
        values = brought.oracle(model).values(x)
        np.testing.assert_allclose(values, network(x), rtol=1e-5, atol=1e-5)  # asked in float32


def test_a_library_that_is_missing_leaves_its_file_out(tmp_path, monkeypatch):
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: name == "sklearn" or None)
    assert exports.write(SMALL, tmp_path) == ["network.joblib"]
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'recon\[onnx\]'"):
        exports.to_onnx(SMALL)


# --- JSON


@given(drawn(), st.sampled_from([np.float32, np.float64]))
def test_json_comes_back_bit_for_bit(made, dtype):
    network = TwoLayer(*(np.asarray(a, dtype) for a in vars(made[0]).values()))
    text = network.to_json()
    assert json.loads(text)["function"].startswith("f(x) = weights max(rows x + bias, 0)")
    back = networks.from_json(text)
    for name, array in vars(network).items():
        ours = getattr(back, name)
        assert (ours.dtype, ours.shape) == (dtype, array.shape)
        assert ours.tobytes() == array.tobytes()


def test_what_json_cannot_hold_and_what_is_no_network_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        replace(SMALL, offset=np.array([np.inf, 0.0])).to_json()
    for text in ("{}", "[]", "no", SMALL.to_json().replace("[1.0, -2.0]", "[1.0]")):
        with pytest.raises(ValueError, match="no network in JSON"):
            networks.from_json(text)
