"""Model files: what is opened without trust, and `recon attack --model` on them."""

import json
import os
import pickle
import re
from itertools import pairwise
from pathlib import Path

import jax
import joblib
import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from recon import networks, oracles
from recon.cli import main
from recon.victims import brought
from recon.victims.brought.files import READERS, dense_layers

X, Y = load_wine(return_X_y=True)
os.environ.setdefault("KERAS_BACKEND", "jax")
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.filterwarnings(
    "ignore:Stochastic Optimizer", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


@pytest.fixture(scope="module")
def wine():
    mlp = MLPClassifier(20, max_iter=400, random_state=0)
    return make_pipeline(StandardScaler(), mlp).fit(X, Y)


@pytest.fixture
def folder(wine, tmp_path, monkeypatch):
    """A folder with net.joblib and inputs.csv, in which commands run."""
    monkeypatch.chdir(tmp_path)
    joblib.dump(wine, "net.joblib")
    names = ",".join(f'"{a}"' for a in load_wine().feature_names)
    np.savetxt("inputs.csv", X, delimiter=",", header=names, comments="")
    return tmp_path


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


# --- files


@pytest.mark.parametrize("suffix", [".joblib", ".pkl", ".pickle", ".pt", ".pth", ".pt2", ".h5"])
def test_no_file_runs_code_without_trust(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f"net{suffix}").write_bytes(pickle.dumps(Trap()))
    if suffix in (".pt", ".pth", ".pt2"):
        pytest.importorskip("torch")
    if suffix == ".h5":
        pytest.importorskip("keras")
    with pytest.raises(ValueError, match=r"was not opened: .*--trust"):
        brought.load(f"net{suffix}")
    assert not Path("sprung").exists()
    if suffix == ".joblib":
        brought.load(f"net{suffix}", trust=True)  # and with it the trap works
        assert Path("sprung").exists()


def test_skops_files_open_without_trust_unless_they_hold_something_else(wine, tmp_path):
    io = pytest.importorskip("skops.io")
    io.dump(wine, tmp_path / "net.skops")
    oracle = brought.oracle(brought.load(tmp_path / "net.skops"))
    np.testing.assert_array_equal(oracle.values(X).argmax(1), wine.predict(X))
    io.dump(Other(), tmp_path / "other.skops")
    with pytest.raises(ValueError, match=r"types that skops does not know .*Other.*--trust"):
        brought.load(tmp_path / "other.skops")
    assert isinstance(brought.load(tmp_path / "other.skops", trust=True), Other)


class Other:
    pass


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    for name, sentence in (
        ("net.onnx", "there is no file"),
        ("net.txt", "net.txt is none of .onnx"),
    ):
        if name == "net.txt":
            (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=sentence):
            brought.load(tmp_path / name)
    (tmp_path / "net.joblib").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"net.joblib could not be read: \w+Error"):
        brought.load(tmp_path / "net.joblib", trust=True)


def test_every_suffix_is_in_the_table_of_the_module():
    rows = brought.files.__doc__ or ""
    assert set(re.findall(r"\.[a-z0-9]+", rows.partition("What can run")[0])) >= set(READERS)


def test_dense_layers_are_read_in_order_and_turned_the_right_way():
    r = np.random.default_rng(0)
    sizes = (3, 7, 7, 2)
    kernels = [r.standard_normal(a) for a in pairwise(sizes)]
    biases = [r.standard_normal(a) for a in sizes[1:]]
    numbers = (2, 4, 10)  # 10 after 4, not before
    torch = {f"{i}.weight": a.T for i, a in zip(numbers, kernels, strict=True)}
    torch |= {f"{i}.bias": a for i, a in zip(numbers, biases, strict=True)}
    flax = {f"params/Dense_{i}/kernel": a for i, a in zip(numbers, kernels, strict=True)}
    flax |= {f"params/Dense_{i}/bias": a for i, a in zip(numbers, biases, strict=True)}
    x = r.standard_normal((9, 3))
    truth = x
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        truth = (np.maximum(truth, 0) if i else truth) @ kernel + bias
    for arrays in (torch, flax, dict(reversed(torch.items()))):
        model = dense_layers(arrays)
        assert (model.dim, model.name) == (3, "MLP 3-7-7-2")
        np.testing.assert_allclose(brought.oracle(model).values(x), truth, rtol=1e-4, atol=1e-5)
    for arrays, sentence in (
        ({**torch, "2.weight": np.ones((6, 3))}, "4 takes 7 inputs, and the layer before it has 6"),
        ({**torch, "3.weight": np.ones((6, 3, 1))}, "3 is no dense layer"),
        ({"1.running_mean": np.ones(3)}, "1 is no dense layer; it has \\['running_mean'\\]"),
        ({}, "there are no arrays"),
    ):
        with pytest.raises(ValueError, match=sentence):
            dense_layers(arrays)


def test_a_missing_library_is_one_sentence(folder, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    Path("net.onnx").write_bytes(b"")
    assert main(["attack", "--model", "net.onnx"]) == 2
    assert "pip install 'recon[onnx]'" in capsys.readouterr().err


# --- recon attack --model


def attacked(capsys, *argv):
    code = main(["attack", *argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_model_in_a_file_is_recovered_and_held_against_itself(folder, wine, capsys):
    argv = ["--model", "net.joblib", "--trust", "--data", "inputs.csv", "--out", "stolen.npz"]
    code, printed = attacked(capsys, *argv)
    assert (code, printed["ok"], printed["dim"], printed["checked"]) == (0, True, 13, len(X))
    assert printed["same_answers"] == 1
    assert printed["max_error"] < 1e-10
    assert printed["numbers"] == printed["queries"] * 3 * 14
    network = networks.load("stolen.npz")
    np.testing.assert_array_equal(network(X).argmax(1), wine.predict(X))
    oracle = brought.oracle(wine)
    reply, _ = oracles.ask(oracle, X)
    np.testing.assert_allclose(network(X), reply.value, rtol=1e-4, atol=1e-3)  # asked in float32
    assert main(["attack", *argv[:-2]]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "scikit-learn MLPClassifier behind StandardScaler" in out
    assert "at 178 of your inputs, asked apart from the attack" in out
    assert "before the softmax" in out
    code, again = attacked(capsys, "--model", "stolen.npz")
    assert (code, again["checked"], again["found_width"]) == (0, 1000, network.width)


def test_a_model_that_is_no_two_layer_network_is_a_failure_that_is_said(folder, capsys):
    model = MLPRegressor(hidden_layer_sizes=(9,), activation="tanh", max_iter=5).fit(X[:, :3], Y)
    joblib.dump(model, "net.pkl")
    code, printed = attacked(capsys, "--model", "net.pkl", "--trust", "--budget", "200")
    assert (code, printed["ok"], printed["same_answers"]) == (1, False, None)
    assert printed["queries"] <= 200
    assert main(["attack", "--model", "net.pkl", "--trust", "--budget", "0", "--out", "s.npz"]) == 1
    assert "Not saved" in capsys.readouterr().err
    assert not Path("s.npz").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model", "net.joblib"], "net.joblib was not opened: it is a pickle"),
        (["--model", "none.onnx"], "there is no file none.onnx"),
        (["--trust"], "--trust is for a model in a file: give --model"),
        (["--model", "net.joblib", "--width", "5"], "--width is for random networks"),
        (["--model", "net.joblib", "--no-width-known"], "--width-known is for random networks"),
        (["--model", "net.joblib", "--trust", "--data", "no.csv"], "no.csv could not be read"),
        (
            ["--model", "net.joblib", "--trust", "--data", "few.npy"],
            "data must be numbers of shape",
        ),
        (["--model", "net.joblib", "--trust", "--data", "text.csv"], "text.csv could not be read"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(options, sentence, folder, capsys):
    np.save("few.npy", X[:, :5])
    Path("text.csv").write_text("a,b\n1,two\n")
    assert main(["attack", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err.strip().splitlines()[-1]


# --- README


def _sklearn(path):
    joblib.dump(
        make_pipeline(StandardScaler(), MLPClassifier(20, max_iter=400, random_state=0)).fit(X, Y),
        path,
    )


def _torch(path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(13, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(1, 13),)), path)


def _keras(path):
    keras = pytest.importorskip("keras")
    sizes = [keras.layers.Dense(20, "relu"), keras.layers.Dense(3, "softmax")]
    keras.Sequential([keras.Input((13,)), *sizes]).save(path)


def _onnx(path):
    onnx = pytest.importorskip("onnx")
    make, r = onnx.helper, np.random.default_rng(0)
    sizes = {"a": (13, 20), "b": (20,), "c": (20, 3)}
    nodes = [make.make_node("Gemm", ["x", "a", "b"], ["h"]), make.make_node("Relu", ["h"], ["r"])]
    nodes += [make.make_node("Gemm", ["r", "c"], ["y"])]
    ends = [make.make_tensor_value_info(*a) for a in (("x", 1, (None, 13)), ("y", 1, (None, 3)))]
    arrays = [
        onnx.numpy_helper.from_array(r.standard_normal(size).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    onnx.save(make.make_model(make.make_graph(nodes, "g", ends[:1], ends[1:], arrays)), path)


MAKERS = {".joblib": _sklearn, ".pt2": _torch, ".keras": _keras, ".onnx": _onnx}
COMMANDS = re.findall(r"^recon (attack --model [^#\n]*)", README, flags=re.M)


@pytest.mark.parametrize("suffix", MAKERS)
def test_the_commands_of_the_readme_work_as_written(suffix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (command,) = (a for a in COMMANDS if suffix in a)
    np.savetxt(
        "inputs.csv", X if suffix == ".joblib" else (X - X.mean(0)) / X.std(0), delimiter=","
    )
    argv = command.split()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        MAKERS[suffix](argv[2])
        code, printed = attacked(capsys, *argv[1:])
    assert (code, printed["ok"]) == (0, True), printed["message"]
    assert printed["same_answers"] == 1
