"""The bench of training steps: PyTorch computes the same loss, and readings take turns."""

import jax
import numpy as np
import pytest

from recon import distill
from recon.distill import Hyper
from recon.experiments.bench import steps, torch_steps


@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize(
    ("loss", "form"),
    [("membership", ""), ("top", ""), *(("jacobian", form) for form in torch_steps.FORMS)],
)
def test_pytorch_computes_the_same_loss(model, loss, form):
    pytest.importorskip("torch", reason="the bench extra is not installed")
    trained, hyper = distill.student(model, steps.SHAPE, steps.CLASSES), Hyper(budget=5, loss=loss)
    bank = steps.replies(5, loss, 0)
    state = distill.start(jax.random.key(0), hyper, bank, trained)
    peer = torch_steps.step(
        state.variables["params"], bank, loss, form, hyper.weight, hyper.learning_rate
    )
    ours = steps.Ours(state, hyper, bank, trained, 1)
    for _ in range(2):  # the second after a step of Adam
        np.testing.assert_allclose(float(ours()), peer(), rtol=1e-3)


@pytest.mark.parametrize("model", ["vgg11-quarter", "resnet18-quarter"])
@pytest.mark.parametrize("loss", ["membership", "projection"])
def test_pytorch_computes_the_same_loss_of_deep_students(model, loss, monkeypatch):
    torch = pytest.importorskip("torch", reason="the bench extra is not installed")
    plain = distill.student(model, steps.DEEP_SHAPE, steps.CLASSES)
    trained = distill.Student(plain.init, plain.apply)  # compiles with the directions below
    hyper = Hyper(budget=2, loss=loss)
    bank = steps.replies(2, loss, 0, steps.DEEP_SHAPE)
    state = distill.start(jax.random.key(0), hyper, bank, trained)
    params = jax.device_get(state.variables["params"])
    r = np.random.default_rng(0).normal(size=(2, steps.CLASSES)).astype(np.float32)
    monkeypatch.setattr(jax.random, "normal", lambda *_: jax.numpy.asarray(r))
    monkeypatch.setattr(torch, "randn", lambda *_: torch.from_numpy(r))
    peer = torch_steps.step(params, bank, loss, "", hyper.weight, hyper.learning_rate)
    ours = steps.Ours(state, hyper, bank, trained, 1)
    np.testing.assert_allclose(float(ours()), peer(), rtol=1e-4)
    np.testing.assert_allclose(float(ours()), peer(), rtol=2e-2)  # after a step of Adam


def test_readings_take_turns_after_one_that_is_not_counted():
    heard = []
    calls = {name: lambda name=name: heard.append(name) for name in ("a", "b")}
    seconds = steps.in_turn(calls, repeats=2)
    assert "".join(heard) == 3 * "ab"
    assert seconds.keys() == {"a", "b"}
    assert min(seconds.values()) >= 0


def test_without_pytorch_there_is_no_ratio(monkeypatch):
    monkeypatch.setattr(torch_steps, "available", lambda: None)
    row = steps.Steps()._step("mlp", steps.SHAPE, 4, "top", "top", 2, 1, 1.0)
    assert row["gflop"] > 0
    assert row["share"] == pytest.approx(row["gflop"] / row["milliseconds"] * 1e3)
    assert row["milliseconds"] > 0
    assert all(row[name] is None for name in ("other", "other_loss", "other_milliseconds", "ratio"))
