"""Convolutional victims of `depth`: cells, what is measured of them, and trained ones."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from recon import cells, data, victims
from recon.data import Examples
from recon.exact.conv.known import Layer
from recon.experiments import EXPERIMENTS, convolutional
from recon.experiments.convolutional import PAPER, Cell, Sizes

SMALL = Sizes((18, 18, 1), ((3, 3), (3, 6)), (12, 5))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))


@pytest.fixture(autouse=True)
def precision():
    with jax.enable_x64(True):
        yield


def planted(seed=0):
    return jax.tree.map(np.asarray, victims.random_convolutional(jax.random.key(seed), *SMALL))


def layers(network):
    """As an attack returns them: kernels of length one, channels in another order."""
    found, of, length = [], np.arange(1), np.ones(1)
    for kernel, bias in zip(network.kernels, network.shifts, strict=True):
        kernel = kernel[:, :, of] * length[:, None]
        length = np.sqrt(np.sum(kernel**2, (0, 1, 2)))
        of = np.arange(len(bias))[::-1]
        found.append(Layer((kernel / length)[..., of], (bias / length)[of]))
        length = length[of]
    return found


def test_kernels_are_compared_whatever_their_order_and_length():
    true = planted()
    found = layers(true)
    assert convolutional.kernel_error(found, true) < 1e-15
    found[1].kernel[0, 0, 0, 0] += 1e-6
    assert 9e-7 < convolutional.kernel_error(found, true) < 1.1e-6
    assert convolutional.kernel_error(found[:1], true) == np.inf
    found[1] = Layer(found[1].kernel[..., 1:], found[1].bias[1:])
    assert convolutional.kernel_error(found, true) == np.inf  # a channel is lacking
    found = layers(true)
    found[0].kernel[..., 0] = found[0].kernel[..., 1]
    assert convolutional.kernel_error(found, true) == np.inf  # twice the same


def test_a_victim_is_measured_once(monkeypatch):
    small = EXPERIMENTS["depth"].small()
    few = replace(small, shapes=(), convolutional=((SMALL, "", 1),))
    (row,) = few.run()
    assert set(few.shown) <= set(row)
    assert row["runs"] == 1
    assert row["sizes"] == "18x18x1-3x3x3-3x3x6-12-5"
    assert row["convolutions"] <= row["runs"]
    assert row["exact"] <= row["ok"] <= row["runs"]
    assert row["beyond"] == 0
    assert row["conv_queries"] < row["queries"]
    monkeypatch.setattr(convolutional, "timed", lambda _: pytest.fail("again"))
    assert few.run() == [row]
    assert cells.load(convolutional.settings(Cell(SMALL, "", 1, 0, 1_000, 1_000, 1_000))) is None


def test_a_shape_is_measured_once(monkeypatch):
    few = replace(EXPERIMENTS["depth"].small(), convolutional=())
    few = replace(few, shapes=few.shapes[:1])
    rows = few.run()
    assert all(set(few.shown) <= set(row) for row in rows)
    monkeypatch.setattr(type(few), "_cell", lambda *_: pytest.fail("again"))
    assert few.run() == rows


def test_a_trained_victim_answers_as_its_model_does(monkeypatch):
    """On two classes of noise, with the model of the paper and a step of training."""
    rng = np.random.default_rng(0)
    parts = [Examples(rng.random((64, 784), np.float32), rng.integers(10, size=64)) for _ in "abc"]
    images = data.Dataset("mnist", 10, (28, 28, 1), *parts)
    monkeypatch.setattr(data, "load", lambda name: images)
    cell = Cell(PAPER, "mnist", 5, 0, 20, 100, 8)
    true = convolutional._victim(cell, None, images)
    assert sum(np.size(a) for a in true.arrays().values()) == 21_840
    same = victims.classifier(images, "conv", 5, convolutional.Training(steps=20))
    want = same.oracle.value(images.test.x)
    assert np.allclose(true(images.test.x.astype(float)), want, atol=1e-5)
    asked = []

    def attack(oracle, *, shape, key, data):
        asked.append(data)
        from recon.exact import Status
        from recon.exact.conv.recovery import Convolutions
        from recon.oracles import Cost

        unit = layers(true)
        done = Convolutions(true, Status.RECOVERED, Cost(7), layers=tuple(unit), fresh=30)
        return replace(done, searched=Cost(5))

    monkeypatch.setattr(convolutional.exact, "convolutional", attack)
    (row,) = convolutional.measure(cell)
    assert asked[0].shape == (8, 784)
    assert row["status"] == "RECOVERED"
    assert row["convolutions"]
    assert (row["queries"], row["conv_queries"], row["agreement"]) == (7, 5, 1.0)
    assert row["error"] == row["wrong_share"] == 0
    whole = convolutional.summary(PAPER, "mnist", [row, row | {"ok": False, "convolutions": False}])
    assert (whole["runs"], whole["ok"], whole["exact"], whole["convolutions"]) == (2, 1, 1, 1)
    assert whole["hidden"] == 80
