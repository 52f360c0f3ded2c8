"""The bench of training steps: PyTorch computes the same loss, and readings take turns."""

import jax
import numpy as np
import pytest

from recon import distill
from recon.distill import Hyper
from recon.experiments import steps, torch_steps
from recon.experiments.students import student


@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize(
    ("loss", "form"),
    [("membership", ""), ("top", ""), *(("jacobian", form) for form in torch_steps.FORMS)],
)
def test_pytorch_computes_the_same_loss(model, loss, form):
    pytest.importorskip("torch", reason="the bench extra is not installed")
    trained, hyper = student(model, steps.SHAPE, steps.CLASSES), Hyper(budget=5, loss=loss)
    bank = steps.replies(5, loss, 0)
    state = distill.start(jax.random.key(0), hyper, bank, trained)
    peer = torch_steps.step(
        state.variables["params"], bank, loss, form, hyper.weight, hyper.learning_rate
    )
    ours = steps.Ours(state, hyper, bank, trained, 1)
    for _ in range(2):  # the second after a step of Adam
        np.testing.assert_allclose(float(ours()), peer(), rtol=1e-3)


def test_readings_take_turns_after_one_that_is_not_counted():
    heard = []
    calls = {name: lambda name=name: heard.append(name) for name in ("a", "b")}
    seconds = steps.in_turn(calls, repeats=2)
    assert "".join(heard) == 3 * "ab"
    assert seconds.keys() == {"a", "b"}
    assert min(seconds.values()) >= 0


def test_without_pytorch_there_is_no_ratio(monkeypatch):
    monkeypatch.setattr(torch_steps, "available", lambda: None)
    row = steps.Steps(repeats=1, batch=4)._step("mlp", "top")
    assert row["milliseconds"] > 0
    assert (row["other"], row["other_milliseconds"], row["ratio"]) == (None, None, None)
