"""PyTorch modules, exported and scripted ones, from memory and from files."""

import numpy as np
import pytest
from agree import held

from recon import exact, oracles
from recon.victims import brought

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def tanh(*end, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3), *end)


def relu(width=12, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))


def forward(model, shape=(5,)):
    """forward(x [n, d]) -> [n, K] of the module in its own dtype, in eval mode."""

    def of(x):
        model.eval()
        with torch.no_grad():
            dtype = next(model.parameters()).dtype
            return model(torch.tensor(x, dtype=dtype).reshape(-1, *shape)).numpy()

    return of


def test_an_image_model_in_training_is_asked_in_eval_mode_and_left_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Dropout(), nn.Linear(16, 3)),
    ).double()
    model(torch.randn(20, 1, 6, 6, dtype=torch.float64))
    model[5].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    taken = brought.bring(model, shape=(1, 6, 6))
    with torch.no_grad():
        replies = [oracles.ask(taken.oracle, np.eye(36))[0] for _ in range(2)]
    np.testing.assert_array_equal(replies[0].gradient, replies[1].gradient)
    assert "asked in eval mode" in taken.note
    assert [m.training for m in model] == [True] * 5 + [False, True]
    assert all(torch.equal(state[name], a) for name, a in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    held(taken.oracle, forward(model, (1, 6, 6)), 36)


def test_the_dtype_is_the_models_and_half_precision_is_never_exact():
    for dtype, shown in ((torch.float32, np.float32), (torch.float64, np.float64)):
        model = tanh().to(dtype)
        reply = held(brought.oracle(model), forward(model), 5, exact=dtype == torch.float64)
        assert reply.value.dtype == reply.gradient.dtype == shown
    for dtype in (torch.float16, torch.bfloat16):
        model = relu().to(dtype)
        oracle = brought.oracle(model)
        value = oracle(np.eye(5)).value
        assert str(value.dtype) in str(dtype)
        with torch.no_grad():
            truth = model(torch.eye(5, dtype=dtype)).float().numpy()
        np.testing.assert_array_equal(value.astype(np.float32), truth)
        found = exact.recover(oracle, dim=5, key=0)
        assert not found.ok
        assert "Ask the model in float32" in str(found)


@pytest.mark.parametrize(
    ("end", "view"),
    [
        ((nn.Softmax(dim=1),), "probabilities, jacobian of probabilities"),
        ((nn.LogSoftmax(dim=1),), "log_probabilities, jacobian of log_probabilities"),
        ((nn.Linear(3, 1), nn.Sigmoid()), "probabilities, jacobian of probabilities"),
        ((nn.Sequential(nn.Tanh(), nn.Softmax(dim=1)),), "probabilities, jacobian of probabil"),
    ],
)
def test_a_softmax_at_the_end_makes_a_view_and_logits_leaves_it_out(end, view, tmp_path):
    model = tanh(*end).double()
    oracle = brought.oracle(model)
    assert str(oracle.view).startswith(view)
    held(oracle, forward(model), 5)
    got = exact.recover(oracle, dim=5, key=0)  # tanh units
    assert got.status is exact.Status.UNFIT
    assert got.cost.queries <= 10
    logits = brought.oracle(model, logits=True)
    assert logits.view == oracles.View()
    flat = [m for m in model.modules() if not isinstance(m, nn.Sequential)]
    held(logits, forward(nn.Sequential(*flat[:-1])), 5)
    program = torch.export.export(model.eval(), (torch.zeros(1, 5, dtype=torch.float64),))
    assert str(brought.oracle(program).view).startswith(view)
    held(brought.oracle(program, logits=True), forward(nn.Sequential(*flat[:-1])), 5)


def test_ends_that_cannot_be_left_out_or_told_are_one_sentence():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tanh()

        def forward(self, x):
            return self.inner(x).softmax(1)

    with pytest.raises(ValueError, match="PyTorch Own returns probabilities, as far as 16 inputs"):
        brought.oracle(Own())
    for model in (Own(), tanh()):
        with pytest.raises(ValueError, match="has no softmax or sigmoid at its end"):
            brought.oracle(model, logits=True)
    with pytest.raises(ValueError, match="sigmoids of 3 outputs"):
        brought.oracle(tanh(nn.Sigmoid()))
    view = oracles.View("probabilities", of="probabilities")
    own = Own()
    held(brought.oracle(own, view=view), forward(own), 5, exact=False)


def test_models_without_gradients_or_tensors_are_one_sentence():
    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    class Pair(nn.Linear):
        def forward(self, x):
            return x, x

    with pytest.raises(ValueError, match="outputs have no gradient: does it detach them"):
        oracles.ask(brought.oracle(Detached(5, 2)), np.eye(5))
    with pytest.raises(ValueError, match="returns tuple, not a tensor"):
        oracles.ask(brought.oracle(Pair(5, 2), view=oracles.View()), np.eye(5))


def test_recovery_counts_what_the_module_was_asked():
    model = relu().double()
    rows = []
    model.register_forward_hook(lambda module, x, out: rows.append(len(x[0])))
    oracle = brought.oracle(model)
    rows.clear()
    found = exact.recover(oracle, dim=5, key=0)
    assert found.ok
    assert sum(rows) == found.cost.queries
    x = np.random.default_rng(0).standard_normal((50, 5))
    np.testing.assert_allclose(found.network(x), forward(model)(x), atol=1e-9)


def dynamic(model, dtype=torch.float32):
    shapes = ({0: torch.export.Dim("n")},)
    return torch.export.export(model, (torch.zeros(2, 5, dtype=dtype),), dynamic_shapes=shapes)


FILES = {
    "dynamic.pt2": lambda m, path: torch.export.save(dynamic(m), path),
    "one.pt2": lambda m, path: torch.export.save(
        torch.export.export(m, (torch.zeros(1, 5),)), path
    ),
    "four.pt2": lambda m, path: torch.export.save(
        torch.export.export(m, (torch.zeros(4, 5),)), path
    ),
    "script.pt": lambda m, path: torch.jit.script(m).save(str(path)),
    "module.pth": lambda m, path: torch.save(m, path),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_can_run_code_need_trust(name, tmp_path):
    model, path = tanh().eval(), tmp_path / name
    FILES[name](model, path)
    with pytest.raises(ValueError, match=rf"{name} was not opened: .*can run any code.*--trust"):
        brought.load(path)
    taken = brought.bring(brought.load(path, trust=True))
    assert taken.dim == 5
    held(taken.oracle, forward(model), 5, exact=False, rows=6)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_arrays_alone_need_an_architecture_and_no_trust(suffix, tmp_path, monkeypatch):
    model, path = relu(), tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        pytest.importorskip("safetensors.torch").save_file(model.state_dict(), path)
    with pytest.raises(ValueError, match="arrays without an architecture: name it"):
        brought.load(path)
    taken = brought.bring(brought.load(path, architecture="mlp"))
    assert (taken.dim, taken.name) == (5, "MLP 5-12-3")
    x = np.random.default_rng(0).standard_normal((20, 5))
    np.testing.assert_allclose(taken.oracle.values(x), forward(model)(x), rtol=1e-4, atol=1e-5)
    (tmp_path / f"mine_{suffix[1:]}.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    found = brought.load(path, architecture=f"mine_{suffix[1:]}:net")
    np.testing.assert_array_equal(forward(found)(x), forward(model)(x))


def test_a_script_that_ends_in_a_softmax_is_refused_and_an_exported_one_is_not():
    model = tanh(nn.Softmax(dim=1)).eval()
    with pytest.raises(ValueError, match="returns probabilities"):
        brought.oracle(torch.jit.script(model))
    assert brought.oracle(dynamic(model)).view.outputs == "probabilities"
    held(brought.oracle(dynamic(model), logits=True), forward(model[:-1]), 5, exact=False)


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm1d(3)], ids=["dropout", "norm"])
def test_what_was_exported_or_scripted_in_training_mode(layer):
    model = tanh(layer, nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"is in training mode .*: export it after model.eval"):
        brought.oracle(dynamic(model.train()))
    script = torch.jit.script(model)
    held(brought.oracle(script), forward(model), 5, exact=False)
    assert script.training
    assert brought.bring(dynamic(model.eval())).dim == 5
