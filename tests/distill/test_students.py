"""Victims that are not JAX, students by name or by module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn.datasets import load_wine
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from small import DIM, OUTPUTS

from recon import distill, models, oracles
from recon.distill import Hyper, Student
from recon.oracles import View


class Own(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(nn.relu(nn.Dense(32)(x)))


@pytest.fixture(scope="module")
def wine():
    x, y = load_wine(return_X_y=True)
    x = StandardScaler().fit_transform(x).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order].astype(np.int32)


def rebuilt(oracle, x, y, classes):
    """Agreement on 58 inputs of a student of 120 queries."""
    bank, net = distill.buy(oracle, x[:120]), distill.student(Own(3), 13)
    run = distill.train(
        jax.random.key(0),
        Hyper(steps=400, learning_rate=1e-2),
        bank,
        net,
        distill.Probe(x[120:], y[120:], classes),
        chunk=400,
    )
    assert (
        str(bank) == "Bank(x [120, 13], probabilities [120, 3], gradient [120, 3, 13], label [120])"
    )
    assert str(run).startswith("Run(ok, loss ")
    return run.curves["agreement"][-1]


def test_a_scikit_learn_victim_is_rebuilt(wine):
    x, y = wine
    m = MLPClassifier((16,), solver="lbfgs", max_iter=200, random_state=0).fit(x[:120], y[:120])
    (a, w), (b, _) = m.coefs_, m.intercepts_

    def answer(x):
        return m.predict_proba(x), np.einsum("dh,nh,hk->nkd", a, x @ a + b > 0, w)

    oracle = oracles.from_host(answer, view=View("probabilities"))
    assert rebuilt(oracle, x, y, m.predict(x[120:])) > 0.9
    with pytest.raises(ValueError, match="give it through oracles"):
        distill.buy(lambda row: m.predict_proba(row[None])[0], x[:3])


def test_a_pytorch_victim_is_rebuilt(wine):
    torch = pytest.importorskip("torch", reason="the victim is a PyTorch model")
    x, y = wine
    torch.manual_seed(0)
    layers = torch.nn.Linear(13, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    model = torch.nn.Sequential(*layers)
    with torch.no_grad():  # a random victim, with answers that differ
        model[2].weight *= 5

    def answer(x):
        rows = torch.tensor(x)
        gradient = torch.func.vmap(torch.func.jacrev(model))(rows)
        return model(rows).detach().numpy(), gradient.detach().numpy()

    classes = model(torch.tensor(x[120:])).argmax(1).numpy()
    assert rebuilt(oracles.from_host(answer), x, y, classes) > 0.9


def test_students_by_name_or_module_are_one_object_and_fit_their_inputs():
    assert distill.student("mlp", DIM, 3) is distill.student("mlp", (DIM,), 3)
    assert distill.student("mlp", DIM, 3) is not distill.student("mlp", DIM, 3, width=9)
    own = distill.student(Own(3), 13)
    assert own is distill.student(Own(3), 13)
    assert own.surrogate is None
    assert own.warp is None
    assert distill.student("conv", (8, 8, 1), 10).warp is not None
    for given, options, message in (
        (("mlp", 4), {}, "needs its number of classes"),
        (("other", 4, 2), {}, "no model 'other'"),
        (("mlp", 4, 2), {"depth": 3}, r"has no 'depth'; there are \['bias', 'width'\]"),
        (("conv", 64, 2), {}, r"needs images \(height, width, channels\), not \(64,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            distill.student(*given, **options)
    net = Own(OUTPUTS)
    by_hand = Student(
        lambda key: net.init(key, jnp.zeros(DIM)), models.logits(net), None, models.logits(net)
    )
    bank = distill.buy(lambda x: x[:OUTPUTS], jnp.eye(DIM))
    with pytest.raises(ValueError, match=r"takes no \(variables, x, temperature\)"):
        distill.train(jax.random.key(0), Hyper(temperature=0.5), bank, by_hand)


@pytest.mark.parametrize("model", ["linear", pytest.param("conv", marks=pytest.mark.slow)])
def test_a_centred_student_is_the_same_function_of_what_is_left(model):
    plain, about = (distill.student(model, (8, 8, 1), 3, centre=c) for c in (0.0, 0.5))
    assert distill.student(model, (8, 8, 1), 3, centre=0.5) is about
    variables = jax.jit(plain.init)(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (4, 64))
    np.testing.assert_array_equal(about.apply(variables, x), plain.apply(variables, x - 0.5))
    np.testing.assert_array_equal(
        about.surrogate(variables, x, 0.5), plain.surrogate(variables, x - 0.5, 0.5)
    )


def test_a_bias_undoes_the_centre():
    """So a centred student can still be its victim."""
    plain, about = (distill.student("mlp", 6, 3, centre=c) for c in (0.0, 0.5))
    variables = jax.jit(plain.init)(jax.random.key(0))
    hidden = variables["params"]["hidden"]
    moved = hidden | {"bias": hidden["bias"] + 0.5 * hidden["kernel"].sum(axis=0)}
    variables_about = {"params": variables["params"] | {"hidden": moved}}
    x = jax.random.uniform(jax.random.key(1), (4, 6))
    np.testing.assert_allclose(
        about.apply(variables_about, x), plain.apply(variables, x), atol=1e-5
    )
