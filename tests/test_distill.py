import dataclasses
import os
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn.datasets import load_wine
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from recon import distill, explanations, models, oracles, victims
from recon.distill import (
    Bank,
    Hyper,
    Student,
    checkpoint,
    losses,
    objective,
    training,
    unlabelled,
)
from recon.distill import hyper as hypers_
from recon.oracles import Cost, View

DIM, OUTPUTS, N = 6, 3, 12


LINEAR = distill.student("linear", DIM, OUTPUTS)
MLP = distill.student("mlp", DIM, OUTPUTS, width=8)


@pytest.fixture(scope="module")
def weights():
    return jax.random.normal(jax.random.key(0), (OUTPUTS, DIM))


@pytest.fixture(scope="module")
def bank(weights):
    """A linear victim: its Jacobian is `weights` everywhere."""
    x = jax.random.normal(jax.random.key(1), (N, DIM))
    return distill.buy(lambda x: weights @ x, x)


@pytest.fixture(scope="module")
def curved():
    """A victim with a different Jacobian at every query."""
    f, variables = models.logits(models.mlp(8, OUTPUTS)), MLP.init(jax.random.key(2))
    x = jax.random.normal(jax.random.key(3), (N, DIM))
    return distill.buy(lambda x: f(variables, x), x)


@pytest.fixture(scope="module")
def probe(weights):
    x = jax.random.normal(jax.random.key(4), (50, DIM))
    classes = jnp.argmax(x @ weights.T, axis=1)
    return distill.Probe(x, (classes + 1) % OUTPUTS, classes)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


start = partial(training._start, many=False)  # jitted: op by op they compile for seconds
step = partial(training._step, many=False)


def for_loss(bank, loss):
    return bank.top() if loss == "top" else bank


# --- the bank


def test_a_bank_holds_the_replies_of_the_victim(weights, bank):
    np.testing.assert_allclose(
        bank.gradient, np.broadcast_to(weights, (N, OUTPUTS, DIM)), rtol=1e-6
    )
    logits = np.asarray(bank.x @ weights.T)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(bank.probabilities, odds / odds.sum(1, keepdims=True), rtol=1e-5)
    assert np.array_equal(bank.label, logits.argmax(1))
    assert np.array_equal(bank.top().gradient, np.asarray(weights)[bank.label])
    assert np.array_equal(bank.hard().probabilities.argmax(1), bank.label)
    assert set(np.unique(bank.hard().probabilities)) == {0.0, 1.0}


def test_a_reply_does_not_depend_on_how_many_are_bought(weights):
    x = jax.random.normal(jax.random.key(5), (7, DIM))
    view = View(explanation="smoothgrad")
    oracle = oracles.from_jax(lambda x: jnp.sin(weights @ x), view=view, key=6)
    few, many = distill.buy(oracle, x[:3], chunk=2), distill.buy(oracle, x, chunk=4)
    np.testing.assert_allclose(few.gradient, many.gradient[:3], rtol=1e-5, atol=1e-6)
    assert float(jnp.std(many.gradient)) > 0


def test_costs_count_rows_and_numbers(weights, bank):
    assert bank.cost(4) == Cost(gradients=4, numbers=4 * OUTPUTS * (DIM + 1), rounds=1)
    assert bank.top().cost(4) == Cost(gradients=4, numbers=4 * (OUTPUTS + DIM), rounds=1)
    plain = distill.buy(
        oracles.from_jax(lambda x: weights @ x, view=View("logits", "none")), bank.x
    )
    assert plain.cost(5) == Cost(values=5, numbers=5 * OUTPUTS, rounds=1)
    assert bank.hard().cost(4) == Cost(gradients=4, numbers=4 * (OUTPUTS * DIM + 1), rounds=1)
    with pytest.raises(ValueError, match=r"13 queries is not in 0 \.\.\. 12"):
        bank.cost(13)
    with pytest.raises(ValueError, match="whole Jacobians"):
        plain.top()
    with pytest.raises(ValueError, match=r"expected \(n, d\)"):
        distill.buy(lambda x: x, bank.x[0])
    with pytest.raises(ValueError, match="queries are int32, expected floats"):
        distill.buy(lambda x: x, jnp.ones((2, DIM), jnp.int32))


@pytest.mark.parametrize("kind", ["counting_host", "counting_traced"])
@pytest.mark.parametrize("explanation", ["jacobian", "none"])
def test_a_bank_costs_what_the_victim_counted(kind, explanation, request):
    for budget in (3, 7):
        seen = request.getfixturevalue(kind)(victims.random_network(jax.random.key(0), DIM, 4, 2))
        oracle = dataclasses.replace(seen.oracle, view=View(explanation=explanation))
        x = jax.random.normal(jax.random.key(1), (7, DIM))
        distill.buy(oracle, x[:budget], chunk=3)
        counted = seen.cost
        assert distill.buy(oracle, x, chunk=3).cost(budget) == counted


def softmax(logits):
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


@pytest.mark.parametrize("outputs", ["logits", "probabilities", "log_probabilities", "label"])
def test_one_victim_seen_through_any_outputs_is_one_bank(weights, bank, outputs):
    def answer(x):
        logits = x @ np.asarray(weights).T
        shown = {"logits": logits, "probabilities": softmax(logits)}
        shown |= {"log_probabilities": np.log(softmax(logits)), "label": logits.argmax(1)}
        return shown[outputs], np.broadcast_to(weights, (len(x), OUTPUTS, DIM))

    got = distill.buy(oracles.from_host(answer, view=View(outputs)), bank.x)
    want = bank.hard() if outputs == "label" else bank
    np.testing.assert_allclose(got.probabilities, want.probabilities, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got.gradient, bank.gradient, rtol=1e-6)
    assert np.array_equal(got.label, bank.label)
    assert got.cost(3) == want.cost(3)


def test_views_no_student_can_be_trained_on_are_refused(bank):
    for view, message in (
        (View("none"), "needs outputs logits or probabilities"),
        (View("label", "none"), "labels alone do not say how many classes"),
        (View("label", "top"), "labels alone do not say how many classes"),
        (View(of="probabilities"), "needs of logits"),
    ):
        with pytest.raises(oracles.ViewError, match=message):
            distill.buy(oracles.from_jax(lambda x: x, view=view), bank.x)
    logits = oracles.from_host(lambda x: 5 * x[:, :3], view=View("probabilities", "none"))
    with pytest.raises(oracles.ReplyError, match="are these logits"):
        distill.buy(logits, bank.x)


# --- the losses


def batch_of(bank, rows=N):
    return losses.Batch(
        x=bank.x[:rows],
        outputs=bank.outputs[:rows],
        gradient=bank.gradient[:rows],
        label=bank.label[:rows],
        weights=jnp.full(rows, 1 / rows),
        scales=losses.Scales(jnp.float32(2.0), jnp.float32(3.0)),
    )


def parts(bank, loss, key=7, **settings):
    hyper = Hyper(loss=loss, weight=0.5, **settings)
    variables = MLP.init(jax.random.key(8))
    total, (l_g, l_m) = objective.joint(
        variables, MLP, hyper, batch_of(for_loss(bank, loss)), jax.random.key(key)
    )
    return float(total), float(l_g), float(l_m)


def test_the_joint_loss_is_the_papers(curved):
    variables = MLP.init(jax.random.key(8))
    logits = np.asarray(MLP.apply(variables, curved.x), np.float64)
    rows = jax.vmap(lambda x: explanations.jacobian(lambda z: MLP.apply(variables, z), x))
    jacobians = np.asarray(rows(curved.x), np.float64)
    shifted = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    l_m = -(np.asarray(curved.probabilities) * shifted).sum(1).mean()
    square = (jacobians - np.asarray(curved.gradient)) ** 2
    whole = square.sum((1, 2)).mean() / 2.0
    own = np.take_along_axis(square.sum(2), np.asarray(curved.label)[:, None], 1).mean() / 2.0
    np.testing.assert_allclose(parts(curved, "jacobian"), (whole + l_m / 2, whole, l_m), rtol=1e-5)
    np.testing.assert_allclose(parts(curved, "top"), (own + l_m / 2, own, l_m), rtol=1e-5)
    np.testing.assert_allclose(parts(curved, "membership"), (l_m, 0, l_m), rtol=1e-5)


def test_the_rows_of_a_jacobian_taken_at_once_and_in_turn_agree(curved, monkeypatch):
    def slope():
        def loss(variables):
            batch = batch_of(curved)
            return objective.joint(
                variables, MLP, Hyper(loss="jacobian"), batch, jax.random.key(0)
            )[0]

        return jax.value_and_grad(loss)(MLP.init(jax.random.key(8)))

    in_turn = slope()
    monkeypatch.setattr(losses, "UNROLLED", 0)
    for a, b in zip(*map(jax.tree.leaves, (in_turn, slope())), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_projection_is_unbiased_for_the_frobenius_norm(curved):
    batch, hyper = batch_of(curved), Hyper(loss="projection")
    variables = MLP.init(jax.random.key(8))
    keys = jax.random.split(jax.random.key(9), 4000)
    draws = jax.vmap(lambda key: objective.joint(variables, MLP, hyper, batch, key)[1][0])(keys)
    error = float(draws.std()) / np.sqrt(len(draws))
    assert abs(float(draws.mean()) - parts(curved, "jacobian")[1]) < 4 * error
    assert error < 0.02 * float(draws.mean())


def test_the_log_odds_are_centred_logits_and_an_underflow_is_finite():
    logits = jnp.array([[3.0, -40.0, 1.0], [200.0, 0.0, 0.0]], jnp.float32)
    odds = losses.log_odds(jax.nn.softmax(logits))
    np.testing.assert_allclose(odds[0], logits[0] - logits[0].mean(), rtol=1e-5)
    assert np.isfinite(odds).all()


def test_log_odds_fix_the_bias_of_a_saturated_reply_where_the_entropy_does_not():
    rows, bias = jax.random.normal(jax.random.key(1), (3, DIM)), jnp.array([8.0, -3.0, 1.0])
    bank = distill.buy(lambda x: rows @ x + bias, jnp.zeros((1, DIM)))
    student = Student(
        lambda key: (jnp.zeros_like(rows), jnp.zeros(3)), lambda w, x: x @ w[0].T + w[1][None]
    )
    far = {}
    for outputs in ("entropy", "odds"):
        hyper = Hyper(outputs=outputs, steps=500, learning_rate=0.1, budget=1, weight=1.0)
        w, b = distill.train(jax.random.key(2), hyper, bank, student).variables
        np.testing.assert_allclose(w, rows, atol=0.02)
        far[outputs] = np.abs((b - b.mean()) - (bias - bias.mean())).max()
    assert far["odds"] < 1e-3 < far["entropy"]


@pytest.mark.parametrize(
    ("loss", "outputs"), [("jacobian", "entropy"), ("projection", "odds"), ("top", "odds")]
)
def test_the_second_order_gradient_agrees_with_finite_differences(curved, loss, outputs):
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v, for_loss(curved, loss)
        )
        batch, hyper = batch_of(wide), Hyper(loss=loss, outputs=outputs)
        batch = batch._replace(
            weights=jnp.full(N, 1 / N), scales=losses.Scales(jnp.float64(2.0), jnp.float64(3.0))
        )
        student = Student(MLP.init, lambda w, x: jnp.tanh(x @ w[:DIM].T) @ w[DIM:])
        w = jax.random.normal(jax.random.key(10), (DIM + OUTPUTS, DIM))
        w = jnp.concatenate([w[:DIM], jax.random.normal(jax.random.key(11), (DIM, OUTPUTS)).T])

        def apply(w, x):
            return jnp.tanh(x @ w[:DIM].T) @ w[DIM:].T

        student = dataclasses.replace(student, apply=apply)

        def value(w):
            return objective.joint(w, student, hyper, batch, jax.random.key(12))[0]

        direction = jax.random.normal(jax.random.key(13), w.shape)
        slope = float(jnp.sum(jax.grad(value)(w) * direction))
        step = 1e-6 * direction
        np.testing.assert_allclose(slope, (value(w + step) - value(w - step)) / 2e-6, rtol=1e-6)


def test_a_smoothed_student_is_held_against_its_own_smoothgrad(curved):
    """Many points and no noise give the plain gradient; with noise, another one."""
    plain = parts(curved, "jacobian")[1]
    np.testing.assert_allclose(parts(curved, "jacobian", points=3, sigma=0.0)[1], plain, rtol=1e-5)
    smooth = parts(curved, "jacobian", points=400, sigma=0.5)[1]
    variables = MLP.init(jax.random.key(8))

    def one(x, target):
        rows = explanations.smoothgrad(
            lambda z: MLP.apply(variables, z), x, jax.random.key(14), n=2000, sigma=0.5
        )
        return jnp.sum((rows - target) ** 2)

    expected = float(jax.vmap(one)(curved.x, curved.gradient).mean()) / 2.0
    np.testing.assert_allclose(smooth, expected, rtol=0.02)
    assert abs(smooth - plain) > 0.05 * plain


# --- binary classifiers and regressions


ONE = distill.student("mlp", DIM, 1, width=32)


@pytest.fixture(scope="module")
def scalar():
    """A curved scalar function, its banks as a binary classifier and as a regression."""
    variables = ONE.init(jax.random.key(2))

    def f(x):
        return 3 * ONE.apply(variables, x) - 0.5

    x = jax.random.normal(jax.random.key(3), (40, DIM))
    return f, distill.buy(f, x), distill.buy(oracles.from_jax(f, view=View("values")), x)


def test_one_logit_is_a_binary_classifier_in_every_loss(scalar):
    f, bank, _ = scalar
    logits = np.asarray(f(bank.x), np.float64)[:, 0]
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(bank.probabilities[:, 0], p, rtol=1e-5)
    assert np.array_equal(bank.label, logits > 0)
    assert 0 < bank.label.sum() < 40
    np.testing.assert_allclose(losses.log_odds(bank.probabilities)[:, 0], logits, rtol=1e-3)
    z = np.linspace(-3, 3, 40)
    batch = batch_of(bank, 40)
    entropy, odds = (
        np.asarray(losses.OUTPUTS[name][0](jnp.asarray(z[:, None], jnp.float32), batch))
        for name in ("entropy", "odds")
    )
    by_hand = p * np.log1p(np.exp(-z)) + (1 - p) * np.log1p(np.exp(z))
    np.testing.assert_allclose(entropy, by_hand, rtol=1e-4)
    np.testing.assert_allclose(odds, (z - logits) ** 2 / 3.0, rtol=1e-2, atol=1e-4)
    assert np.array_equal(bank.top().gradient, bank.gradient[:, 0])  # also where class 0 is named
    assert np.array_equal(bank.hard().probabilities[:, 0], bank.label)
    rows = [losses.LOSSES[name][0] for name in ("jacobian", "top")]
    pull = partial(jnp.matmul, precision="highest")
    both = [
        row(lambda c: pull(c, jnp.ones((1, DIM))), b, None)
        for row, b in zip(rows, (batch, batch_of(bank.top(), 40)), strict=True)
    ]
    np.testing.assert_allclose(*both, rtol=1e-5)


@pytest.mark.parametrize("outputs", losses.OUTPUTS)
def test_scalar_victims_are_rebuilt_and_scored_by_what_they_are(scalar, outputs):
    f, binary, regression = scalar
    bank = regression if outputs == "values" else binary
    x = jax.random.normal(jax.random.key(5), (200, DIM))
    victim = f(x)[:, 0] if outputs == "values" else np.asarray(f(x)[:, 0] > 0, int)
    probe = distill.Probe(x, victim, victim)
    hyper = Hyper(outputs=outputs, steps=800, learning_rate=0.02, temperature=0.5)
    run = distill.train(jax.random.key(6), hyper, bank, ONE, probe)
    assert run.ok
    first = distill.evaluate(ONE, ONE.init(jax.random.key(6)), probe)[1]
    assert run.curves["agreement"][-1] > max(0.93, first + 0.2)
    flipped = probe._replace(victim=-victim if outputs == "values" else 1 - victim)
    assert distill.evaluate(ONE, run.variables, flipped)[1] < 0.1  # nothing agrees with anything


def test_the_loss_of_a_regression_is_the_share_of_the_variance(scalar):
    _, _, bank = scalar
    hyper = Hyper(outputs="values", budget=30)
    state = start(jax.random.key(7), hyper, bank, ONE)
    values = np.asarray(bank.values)[:30]
    np.testing.assert_allclose(state.scales.outputs, values.var(), rtol=1e-5)
    error = np.asarray(ONE.apply(state.variables, bank.x[:30])) - values
    got = step(state, hyper, bank, ONE, 30)[1]["membership"]
    np.testing.assert_allclose(got, (error**2).mean() / values.var(), rtol=1e-4)


def test_what_fits_no_regression_or_binary_classifier_is_refused(scalar, curved):
    _, binary, regression = scalar
    key, floats = jax.random.key(0), distill.Probe(binary.x, np.ones(40), np.ones(40))
    whole = floats._replace(y=np.ones(40, int), victim=np.ones(40, int))
    values = Hyper(outputs="values")
    for hyper, bank, student, probe, message in (
        (Hyper(), regression, ONE, None, "'entropy' are for classes; this bank needs values"),
        (values, binary, ONE, None, "for regression; this bank needs entropy or odds"),
        (values, regression, ONE, whole, "probe labels are int64, expected floats"),
        (Hyper(), binary, ONE, floats, "probe labels are float64, expected whole numbers"),
        (
            Hyper(unlabelled=3),
            dataclasses.replace(binary, unlabelled=binary.x),
            dataclasses.replace(ONE, warp=lambda key, x: x),
            None,
            "two classes or more",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            distill.train(key, hyper, bank, student, probe)
    with pytest.raises(ValueError, match="a regression names no class"):
        regression.hard()
    logits = dataclasses.replace(curved, probabilities=jnp.log(curved.probabilities))
    with pytest.raises(ValueError, match="row 0: probabilities below 0: are these logits"):
        distill.train(key, Hyper(), logits, MLP)
    absolute = dataclasses.replace(curved, gradient=abs(curved.gradient))
    with pytest.warns(UserWarning, match="none of 216 numbers of the gradients is below 0"):
        distill.train(key, Hyper(steps=1), absolute, MLP)


# --- victims that are not JAX, students by name or by module


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


# --- training


def test_one_step_is_what_it_was():
    """Golden numbers: if they move, so do all results."""
    weights = jnp.cos(jnp.arange(OUTPUTS * DIM, dtype=jnp.float32)).reshape(OUTPUTS, DIM)
    x = jnp.sin(jnp.arange(4 * DIM, dtype=jnp.float32)).reshape(4, DIM)
    bank = distill.buy(lambda x: jnp.tanh(weights @ x), x)
    variables = {
        "params": {
            "hidden": {
                "kernel": weights.T @ jnp.ones((OUTPUTS, 8)) / 9,
                "bias": jnp.zeros(8) + 0.1,
            },
            "output": {"kernel": jnp.tile(weights[:, :1].T, (8, 1)), "bias": jnp.zeros(OUTPUTS)},
        }
    }
    student = dataclasses.replace(MLP, init=lambda key: variables)
    hyper = Hyper(loss="jacobian", budget=4, steps=2, weight_decay=0.1, temperature=0.5)
    state = start(jax.random.key(0), hyper, bank, student)
    seen = []
    for _ in range(2):
        state, losses_ = step(state, hyper, bank, student, None)
        seen.append([float(losses_[name]) for name in ("loss", "gradient", "membership")])
    np.testing.assert_allclose(seen, GOLDEN, rtol=1e-6)


GOLDEN = [[5.165556, 5.0525312, 1.1302493], [5.0542054, 4.941361, 1.1284449]]


def test_one_gradient_query_rebuilds_a_linear_victim(weights, bank, probe):
    run = distill.train(
        jax.random.key(15),
        Hyper(budget=1, steps=800, learning_rate=0.05, loss="jacobian"),
        bank,
        LINEAR,
        probe,
        measure=2,
    )
    assert run.ok
    assert run.failures == ("",)
    kernel = np.asarray(run.variables["params"]["output"]["kernel"])
    np.testing.assert_allclose(kernel.T, weights, atol=0.05)
    assert run.measured == (500, 800)
    assert run.curves["agreement"].shape == (2,)
    assert run.curves["agreement"][-1] >= 0.9
    assert run.curves["accuracy"][-1] <= 0.1  # the labels of `probe` are never the victim's
    assert all(run.curves[name].shape == (800,) for name in ("loss", "gradient", "membership"))
    assert run.curves["gradient"][-1] < 1e-3 < run.curves["gradient"][0]


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_every_loss_goes_down(curved, loss):
    hyper = Hyper(budget=N, steps=200, learning_rate=0.02, loss=loss)
    run = distill.train(jax.random.key(16), hyper, for_loss(curved, loss), MLP)
    loss = run.curves["loss"]
    if hyper.loss == "membership":  # the cross-entropy cannot go below the victim's own
        own = np.asarray(curved.probabilities)
        loss = loss + (own * np.log(own)).sum(1).mean()
    assert np.median(loss[-20:]) < 0.8 * np.median(loss[:20])


def test_only_the_budget_is_seen(curved):
    """Rows beyond the budget may hold anything."""
    spoiled = jax.tree.map(lambda v: v.at[5:].set(jnp.nan) if v.dtype == jnp.float32 else v, curved)
    for batch in (3, 64):
        hyper = Hyper(budget=5, steps=5, batch=batch)
        clean, dirty = (distill.train(jax.random.key(17), hyper, b, MLP) for b in (curved, spoiled))
        assert dirty.ok
        assert same(clean.variables, dirty.variables)


def test_only_the_budget_is_seen_beside_a_run_that_sees_the_whole_bank(curved):
    spoiled = dataclasses.replace(curved, gradient=curved.gradient.at[-1].set(jnp.nan))
    budgets, keys = np.array([5, len(curved)]), jax.random.split(jax.random.key(17), 2)
    hypers = Hyper(budget=budgets, steps=5)
    clean, dirty = (distill.train_many(keys, hypers, b, MLP) for b in (curved, spoiled))
    assert clean.ok
    assert not dirty.failures[0]
    assert dirty.failures[1]
    first = [jax.tree.map(lambda v: v[0], run.variables) for run in (clean, dirty)]
    assert same(*first)


def test_a_whole_bank_is_used_as_rows_of_its_number_are(curved):
    hyper = Hyper(budget=len(curved), outputs="odds")
    state = start(jax.random.key(18), hyper, curved, MLP)
    steps = [step(state, hyper, curved, MLP, rows) for rows in (None, len(curved))]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), *(losses for _, losses in steps))


def test_a_budget_within_the_batch_is_used_whole(curved):
    state = start(jax.random.key(18), Hyper(budget=4), curved, MLP)
    wide = step(state, Hyper(budget=4, loss="jacobian"), curved, MLP, rows=9)[1]
    exact = step(state, Hyper(budget=4, loss="jacobian"), curved, MLP, rows=4)[1]
    np.testing.assert_allclose(wide["loss"], exact["loss"], rtol=1e-5)
    gradients = np.asarray(curved.gradient[:4])
    np.testing.assert_allclose(state.scales.gradient, (gradients**2).sum((1, 2)).mean(), rtol=1e-5)


def test_runs_at_once_and_in_turn_agree_and_budgets_share_a_compile(curved, probe):
    keys = jax.random.split(jax.random.key(19), 3)
    hypers = Hyper(
        budget=np.array([4, 6, 9]), learning_rate=np.array([0.01, 0.02, 0.03]), steps=40, batch=4
    )
    more = {"weight_decay": np.array([0.0, 0.1, 1.0]), "temperature": np.array([0.1, 0.5, 1.0])}
    hypers = dataclasses.replace(hypers, weight=jnp.array([0.0, 0.1, 1.0]), **more)
    runs = {
        mapper: distill.train_many(keys, hypers, curved, MLP, probe, mapper=mapper)
        for mapper in ("vmap", "loop")
    }
    single = distill.train(
        keys[2],
        dataclasses.replace(
            hypers, budget=9, learning_rate=0.03, weight=1.0, weight_decay=1.0, temperature=1.0
        ),
        curved,
        MLP,
        probe,
    )
    assert runs["vmap"].curves["loss"].shape == (3, 40)
    assert runs["vmap"].curves["accuracy"].shape == (3, 1)
    for a, b in zip(*(jax.tree.leaves(r.variables) for r in runs.values()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (runs["loop"].variables, single.variables)), strict=True):
        np.testing.assert_allclose(a[2], b, rtol=1e-5, atol=1e-6)
    assert runs["loop"].curves["loss"].shape == (3, 40)
    assert runs["loop"].failures == ("", "", "")

    before = training._scan._cache_size()
    for budget, rate, weight in ((5, 0.1, 0.2), (7, 0.2, 0.3), (12, 0.3, 0.4)):
        hyper = Hyper(budget=budget, learning_rate=rate, weight=weight, steps=2, batch=4)
        distill.train(keys[0], hyper, curved, MLP)
    assert training._scan._cache_size() <= before + 2  # the first step's arrays are not committed


def test_a_scan_and_a_loop_take_the_same_steps(curved, monkeypatch):
    hyper = Hyper(budget=N, steps=30, batch=4)
    state = start(jax.random.key(20), hyper, curved, MLP)
    scan = distill.advance(state, hyper, curved, MLP, 4, False, 30)
    monkeypatch.setattr(training, "_convolves", lambda *_: True)
    loop = distill.advance(state, hyper, curved, MLP, 4, False, 30)
    np.testing.assert_allclose(loop[1]["loss"], scan[1]["loss"], rtol=1e-3)
    assert int(loop[0].done) == int(scan[0].done) == 30


@pytest.mark.parametrize(
    ("model", "convolves"), [("mlp", False), ("conv", False), ("vgg11", False)]
)
def test_only_models_with_convolutions_of_xla_are_kept_out_of_a_scan(model, convolves):
    assert (
        training._convolves(distill.student(model, (32, 32, 3), 10), 32 * 32 * 3, jnp.float32)
        is convolves
    )


def test_an_own_convolution_is_kept_out_of_a_scan():
    def apply(kernel, x):
        images, layout = x.reshape(-1, 4, 4, 1), ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return y.sum(axis=(1, 2))

    own = distill.Student(lambda key: jax.random.normal(key, (3, 3, 1, 2)), apply)
    assert training._convolves(own, 16, jnp.float32)


# --- failures


def explode(variables, x):
    """Logits that overflow as soon as a parameter is 0.3 from its start."""
    w = variables["w"]
    return x @ jnp.where(jnp.abs(w - 1) > 0.3, jnp.inf, w)


EXPLODING = Student(lambda key: {"w": jnp.ones((DIM, OUTPUTS))}, explode)


def test_a_loss_that_turns_nan_stops_its_run_and_keeps_the_last_good_variables(curved):
    hyper = Hyper(budget=N, steps=300, learning_rate=np.array([1e-5, 1e-2]), weight=1.0)
    keys = jax.random.split(jax.random.key(21), 2)
    for mapper in ("vmap", "loop"):
        run = distill.train_many(keys, hyper, curved, EXPLODING, mapper=mapper, chunk=100)
        assert not run.ok
        assert run.failures[0] == ""
        assert "run 1 stopped at step" in run.failures[1]
        bad = int(np.isfinite(run.curves["loss"][1]).sum())
        assert 0 < bad < 300
        assert f"step {bad + 1} of 300" in run.failures[1]
        assert np.isfinite(run.curves["loss"][0]).all()
        assert np.isfinite(run.variables["w"]).all()
        assert not np.array_equal(run.variables["w"][1], np.ones((DIM, OUTPUTS)))


def test_a_failed_run_does_no_more_steps(curved):
    hyper = Hyper(budget=N, steps=10_000, learning_rate=0.1, weight=1.0)
    seen = []
    probe = distill.Probe(curved.x, curved.label, curved.label)
    run = distill.train(
        jax.random.key(22),
        hyper,
        curved,
        EXPLODING,
        probe,
        chunk=10,
        measure=500,
        progress=lambda done, curves: seen.append(done),
    )
    assert not run.ok
    assert seen == list(range(10, 10 * len(seen) + 1, 10))
    assert len(seen) <= 2
    assert run.measured == (5000, 10_000)
    assert run.curves["agreement"].shape == (2,)
    assert run.curves["loss"].shape == (10_000,)


def outside(meta):
    """Values a setting cannot have, from its metadata."""
    if meta["choices"] is not None:
        return ["other", 3]
    below = meta["least"] if meta["above"] else meta["least"] - 1
    wrong = [below, np.nan, np.inf, -np.inf, "1", 1j, True] + [None] * (not meta["optional"])
    return wrong + [2.5] * meta["whole"]


@pytest.mark.parametrize("f", dataclasses.fields(Hyper), ids=lambda f: f.name)
def test_every_setting_is_held_to_what_it_declares(curved, f):
    for value in outside(f.metadata):
        sentence = f"{f.name} must be {hypers_.describe(f.name)}, got"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            distill.train(jax.random.key(23), Hyper(**{f.name: value}), curved, MLP)
    if f.metadata["choices"] is None:
        with pytest.raises(ValueError, match=rf"{f.name} has shape \(2,\), expected one value"):
            distill.train(jax.random.key(23), Hyper(**{f.name: np.ones(2)}), curved, MLP)
        assert not hypers_.refusal(f.name, f.metadata["least"] + 1)
    assert not hypers_.refusal(f.name, getattr(Hyper(), f.name))
    assert f.metadata["doc"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 13}, "budget of 13 queries is more than the 12 of the bank"),
        ({"loss": "top"}, r"needs gradients \(N, d\)"),
        ({"temperature": 0.5}, r"needs a student with masks that have one \(its `surrogate`\)"),
        ({"unlabelled": 4}, "unlabelled inputs need a bank that holds some"),
    ],
)
def test_settings_that_do_not_fit_are_refused(curved, change, message):
    plain = dataclasses.replace(MLP, surrogate=None)
    with pytest.raises(ValueError, match=message):
        distill.train(jax.random.key(23), Hyper(**change), curved, plain)


def test_without_a_budget_the_whole_bank_is_used(curved):
    runs = [
        distill.train(jax.random.key(23), Hyper(budget=budget, steps=3), curved, MLP)
        for budget in (None, len(curved), 3)
    ]
    assert same(runs[0].variables, runs[1].variables)
    assert not same(runs[0].variables, runs[2].variables)


def test_weight_decay_is_decoupled_from_the_loss(curved):
    free, held = (Hyper(budget=N, weight_decay=decay) for decay in (0.0, 0.5))
    state = start(jax.random.key(3), free, curved, MLP)
    steps = [step(state, hyper, curved, MLP, rows=N)[0].variables for hyper in (free, held)]
    for before, a, b in zip(*map(jax.tree.leaves, (state.variables, *steps)), strict=True):
        np.testing.assert_allclose(b, a - free.learning_rate * 0.5 * before, atol=1e-7)


def test_a_surrogate_cools_and_fits_what_autodiff_does_not(curved):
    """The same student, start and steps; only what a mask's derivative is taken to be differs."""
    left = {}
    for temperature in (None, 0.5):
        hyper = Hyper(1e-2, 0.1, budget=N, steps=2000, outputs="odds", temperature=temperature)
        run = distill.train(jax.random.key(40), hyper, curved, MLP)
        left[temperature] = run.curves["gradient"][-100:].mean()
    assert left[0.5] < 0.5 * left[None]


def test_other_misuse_is_refused(curved):
    keys = jax.random.split(jax.random.key(24), 2)
    for none in (keys[:0], keys[0]):
        with pytest.raises(ValueError, match="needs one key a run, got none"):
            distill.train_many(none, Hyper(), curved, MLP)
    with pytest.raises(ValueError, match="no mapper 'map'; there are vmap, loop"):
        distill.train_many(keys, Hyper(), curved, MLP, mapper="map")
    plain = Bank(curved.x, curved.probabilities, None, curved.label)
    with pytest.raises(ValueError, match="the bank has None"):
        distill.train(keys[0], Hyper(), plain, MLP)
    with pytest.raises(ValueError, match="measure must be a whole number of at least 0, got -1"):
        distill.train(keys[0], Hyper(), curved, MLP, measure=-1)
    run = distill.train(keys[0], Hyper(loss="membership", steps=3), plain, MLP)
    assert run.ok
    assert not np.any(run.curves["gradient"])


def test_shapes_that_do_not_fit_are_refused(curved, probe):
    key, hyper = jax.random.key(41), Hyper(steps=2)
    wider = distill.student("mlp", DIM, OUTPUTS + 1, width=8)
    with pytest.raises(ValueError, match=r"outputs have shape \(12, 4\), the victim's \(12"):
        distill.train(key, hyper, curved, wider)
    for change, message in (
        ({"gradient": curved.gradient[:, :, 1:]}, r"gradients have shape \(12, 3, 5\), expected"),
        ({"gradient": curved.gradient[:, 1:]}, r"gradients have shape \(12, 2, 6\), expected"),
        ({"label": curved.label[1:]}, r"labels have shape \(11,\), expected \(12,\)"),
        ({"x": curved.x[1:]}, r"queries have shape \(11, 6\), expected \(12, 6\)"),
        ({"unlabelled": curved.x[:, 1:]}, r"unlabelled inputs have shape \(12, 5\)"),
        ({"unlabelled": curved.x[:0]}, r"unlabelled inputs have shape \(0, 6\)"),
        ({"label": curved.label + 1}, r"labels are not all in 0 \.\.\. 2"),
        (
            {"probabilities": curved.label},
            r"the victim's outputs have shape \(12,\), expected two axes",
        ),
    ):
        broken = dataclasses.replace(curved, **change)
        with pytest.raises(ValueError, match=message):
            distill.train(key, dataclasses.replace(hyper, budget=5), broken, MLP)
    for change, message in (
        ({"x": probe.x[:, 1:]}, r"probe inputs have shape \(50, 5\)"),
        ({"y": probe.y[1:]}, r"probe labels have shape \(49,\)"),
        ({"victim": probe.victim[1:]}, r"probe classes have shape \(49,\)"),
        ({"x": probe.x[:0]}, r"probe inputs have shape \(0, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            distill.train(key, hyper, curved, MLP, probe._replace(**change))


@pytest.mark.parametrize("many", [False, True])
def test_a_reply_that_is_not_finite_fails_the_run(curved, probe, many):
    broken = dataclasses.replace(curved, gradient=curved.gradient.at[3, 1, 2].set(jnp.inf))
    go = distill.train_many if many else distill.train
    keys = jax.random.split(jax.random.key(42), 1) if many else jax.random.key(42)
    run = go(keys, Hyper(budget=N, steps=20), broken, MLP, probe, chunk=5)
    assert run.failures[0].startswith("run 0 stopped at step 1 of 20: a reply,")
    assert np.isnan(run.curves["loss"]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.variables))
    fine = go(
        keys, Hyper(budget=3, steps=20), broken, MLP, probe, chunk=5
    )  # a row that is not in use
    assert fine.ok


def test_probabilities_that_are_not_finite_fail_the_run_whatever_is_drawn(curved):
    odd = curved.probabilities.at[3].set(jnp.nan)
    broken = dataclasses.replace(curved, probabilities=odd)
    for seed in range(5):
        hyper = Hyper(budget=10, batch=1, steps=1)
        run = distill.train(jax.random.key(seed), hyper, broken, MLP)
        assert "stopped at step 1 of 1" in run.failures[0]


@pytest.mark.parametrize("outputs", losses.OUTPUTS)
def test_a_constant_victim_is_no_failure(curved, outputs):
    view = View("values" if outputs == "values" else "logits")
    constant = oracles.from_jax(lambda x: jnp.zeros(OUTPUTS) + 0 * x.sum(), view=view)
    flat = distill.buy(constant, curved.x)
    hyper = Hyper(budget=N, steps=300, learning_rate=1e-2, outputs=outputs)
    run = distill.train(jax.random.key(45), hyper, flat, MLP)
    assert run.ok
    assert run.curves["gradient"][-1] < 0.01 * run.curves["gradient"][0]


def test_a_last_step_that_overflows_fails_the_run(curved):
    hyper = Hyper(budget=N, steps=1, learning_rate=3e38, weight_decay=3e38)
    run = distill.train(jax.random.key(43), hyper, curved, MLP)
    assert "stopped at step 1 of 1" in run.failures[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.variables))


def test_an_answer_that_is_not_finite_names_no_class(probe):
    silent = Student(lambda key: {}, lambda variables, x: jnp.full((len(x), OUTPUTS), jnp.nan))
    right = probe._replace(y=jnp.zeros_like(probe.y), victim=jnp.zeros_like(probe.victim))
    assert distill.evaluate(silent, {}, right) == (0.0, 0.0)


# --- checkpoints


class Killed(Exception):
    pass


def killed_at(step):
    def progress(done, curves):
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("many", [False, True])
def test_a_killed_run_goes_on_to_the_same_bits(curved, probe, tmp_path, many):
    keys = jax.random.split(jax.random.key(25), 2) if many else jax.random.key(25)
    go = distill.train_many if many else distill.train
    hyper = Hyper(budget=9, steps=40, batch=4, weight_decay=0.1, temperature=0.5)
    options = {"chunk": 20, "measure": 1}
    whole = go(keys, hyper, curved, MLP, probe, **options)
    with pytest.raises(Killed):
        go(
            keys,
            hyper,
            curved,
            MLP,
            probe,
            save=tmp_path / "run",
            progress=killed_at(20),
            **options,
        )
    seen = []
    resumed = go(
        keys,
        hyper,
        curved,
        MLP,
        probe,
        save=tmp_path / "run",
        progress=lambda done, curves: seen.append((done, curves["loss"].shape[0])),
        **options,
    )
    assert seen == [(40, 20)]
    assert whole.measured == resumed.measured == (20, 40)
    assert same((whole.variables, whole.curves), (resumed.variables, resumed.curves))
    again = go(keys, hyper, curved, MLP, probe, save=tmp_path / "run", **options)
    assert same((whole.variables, whole.curves), (again.variables, again.curves))
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_other_settings_are_not_taken_for_the_saved_run(curved, bank, tmp_path):
    key, hyper, save = jax.random.key(26), Hyper(steps=4), tmp_path / "run.npz"
    distill.train(key, hyper, curved, MLP, save=save)
    other = dataclasses.replace(hyper, learning_rate=0.5, budget=3)
    cases = [
        ((key, other, curved), {}, r"other settings \(budget, learning_rate\)"),
        ((key, hyper, bank), {}, r"\(bank\)"),
        ((jax.random.key(1), hyper, curved), {}, r"\(initial variables, key\)"),
        ((key, hyper, curved), {"chunk": 3}, r"\(chunk\)"),
    ]
    for (key_, hyper_, bank_), options, message in cases:
        with pytest.raises(ValueError, match=message):
            distill.train(key_, hyper_, bank_, MLP, save=save, **options)
    scaled = dataclasses.replace(MLP, apply=lambda v, x: 2 * MLP.apply(v, x))
    masked = dataclasses.replace(MLP, surrogate=lambda v, x, t: MLP.apply(v, x) * t)
    frozen = [jnp.full((1, OUTPUTS), value) for value in (1.0, 2.0)]  # constants, as of told layers
    told = [dataclasses.replace(MLP, apply=lambda v, x, c=c: MLP.apply(v, x) * c) for c in frozen]
    distill.train(key, hyper, curved, told[0], save=tmp_path / "told")
    with pytest.raises(ValueError, match=r"other settings \(student\)"):
        distill.train(key, hyper, curved, told[1], save=tmp_path / "told")
    for student_ in (scaled, masked):
        with pytest.raises(ValueError, match=r"other settings \(student\)"):
            distill.train(key, hyper, curved, student_, save=save)
    whole = save.read_bytes()
    with np.load(save) as file:
        arrays = dict(file)
    for name in ("state0", "curve loss", "settings"):
        np.savez(save, **{k: v for k, v in arrays.items() if k != name})
        with pytest.raises(ValueError, match=r"run.npz is not a saved run"):
            distill.train(key, hyper, curved, MLP, save=save)
    for damaged in (whole[:100], b"", whole[: len(whole) // 2] + b"?" * (len(whole) // 2)):
        save.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run.npz is not a saved run"):
            distill.train(key, hyper, curved, MLP, save=save)
    save.write_bytes(whole)
    assert distill.train(key, hyper, curved, MLP, save=save).ok


def test_runs_in_turn_keep_all_that_was_trained_where_a_disk_fills_up(
    curved, tmp_path, monkeypatch
):
    keys, hyper = jax.random.split(jax.random.key(44), 2), Hyper(steps=6)
    expected = distill.train_many(keys, hyper, curved, MLP, mapper="loop")
    savez, calls = np.savez, []

    def full(path, **arrays):
        calls.append(path)
        if len(calls) == 2:  # after the trial: the first chunk of the first run
            raise OSError(28, os.strerror(28))
        savez(path, **arrays)

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(distill.CheckpointError, match="No space left on device") as error:
        distill.train_many(keys, hyper, curved, MLP, mapper="loop", save=tmp_path / "a.run")
    assert same(error.value.run.variables, expected.variables)
    assert {file.name for file in tmp_path.iterdir()} <= {"a.run.0.npz", "a.run.1.npz"}
    assert (tmp_path / "a.run.1.npz").exists()


def test_a_folder_that_cannot_be_written_is_said_before_the_first_step(curved, tmp_path):
    (tmp_path / "file").write_text("in the way")
    called = []
    with pytest.raises(distill.CheckpointError, match=r"could not be saved to .*run\.npz") as error:
        distill.train(
            jax.random.key(27),
            Hyper(steps=4),
            curved,
            MLP,
            save=tmp_path / "file" / "run.npz",
            progress=lambda done, curves: called.append(done),
        )
    assert error.value.run is None
    assert called == []
    with pytest.raises(distill.CheckpointError, match="cannot be looked for: File name too long"):
        distill.train(jax.random.key(27), Hyper(steps=4), curved, MLP, save=tmp_path / ("a" * 300))


def test_a_disk_that_fills_up_does_not_lose_the_result(curved, tmp_path, monkeypatch):
    key, hyper = jax.random.key(28), Hyper(steps=6)
    expected = distill.train(key, hyper, curved, MLP, chunk=2)
    savez, calls = np.savez, []

    def full(path, **arrays):
        calls.append(path)
        if len(calls) > 2:  # the trial before the first step and the first chunk fit
            raise OSError(28, os.strerror(28))
        savez(path, **arrays)

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(distill.CheckpointError, match="No space left on device") as error:
        distill.train(key, hyper, curved, MLP, chunk=2, save=tmp_path / "run.npz")
    assert len(calls) == 4
    assert same(error.value.run.variables, expected.variables)
    monkeypatch.undo()
    # What was saved while there was room is whole, and the run goes on from it.
    resumed = distill.train(key, hyper, curved, MLP, chunk=2, save=tmp_path / "run.npz")
    assert same(resumed.variables, expected.variables)


# --- inputs that were not asked about


def test_a_warp_is_the_identity_on_a_flat_image_and_moves_no_pixel_far():
    shape = (12, 12, 2)
    dot = jnp.zeros(shape).at[6, 6].set(1.0).reshape(1, -1)
    bent = distill.warp(shape)(jax.random.key(1), jnp.tile(dot, (50, 1))).reshape(50, *shape)
    assert bent.dtype == jnp.float32
    assert np.isfinite(bent).all()
    rows, columns = np.nonzero(np.asarray(bent).max(axis=(0, 3)))
    assert np.abs(np.stack([rows, columns]) - 6).max() <= 3
    np.testing.assert_allclose(bent[..., 0], bent[..., 1], atol=1e-6)
    assert len(np.unique(np.asarray(bent).reshape(50, -1), axis=0)) == 50


def test_only_confident_names_of_unlabelled_inputs_count():
    student = Student(MLP.init, lambda w, x: x @ w, lambda key, x: x)
    x, hyper = jnp.ones((4, 1)), Hyper(unlabelled=8)
    sure, unsure = jnp.array([[9.0, 0.0]]), jnp.array([[0.1, 0.0]])
    loss = [
        float(unlabelled.inconsistency(sure, w, student, hyper, x, jax.random.key(0)))
        for w in (sure, unsure)
    ]
    p = np.asarray(jax.nn.softmax(sure[0]))
    # one class alone lacks log 2 of entropy, less what is left of it
    assert loss[0] == pytest.approx(np.log(2), rel=1e-4)
    assert loss[1] == pytest.approx(np.log(2) + (p * np.log(p)).sum(), rel=1e-4)
    balanced = jnp.array([[9.0, 0.0], [0.0, 9.0]])
    even = unlabelled.inconsistency(
        balanced, balanced, student, Hyper(unlabelled=4_000), jnp.eye(2), jax.random.key(0)
    )
    assert even == pytest.approx(-(p * np.log(p)).sum(), rel=0.3)


def test_a_mean_of_weights_forgets_the_first_ones_first():
    mean = jnp.zeros(())
    for done in range(2_000):
        mean = unlabelled.averaged(mean, jnp.ones(()), jnp.int32(done))
    assert mean == pytest.approx(1.0, abs=1e-3)
    assert unlabelled.averaged(jnp.ones(()), jnp.full((), 3.0), jnp.int32(0)) == 3.0


def test_a_run_with_unlabelled_inputs_gives_the_mean_of_its_weights_and_resumes(tmp_path, curved):
    student = Student(MLP.init, MLP.apply, lambda key, x: x)
    bank = dataclasses.replace(curved, unlabelled=100 * curved.x)
    hyper = Hyper(unlabelled=4, budget=4, steps=20)
    whole = distill.train(jax.random.key(3), hyper, bank, student, chunk=10)
    state = start(jax.random.split(jax.random.key(3), 1)[0], hyper, bank, student)
    assert state.average is not None
    plain = distill.train(
        jax.random.key(3), dataclasses.replace(hyper, unlabelled=0), bank, student, chunk=10
    )
    assert np.array_equal(whole.curves["loss"][:8], plain.curves["loss"][:8])  # alone at first
    assert not np.array_equal(whole.curves["loss"][8:], plain.curves["loss"][8:])
    saved = tmp_path / "run"

    class Stop(Exception):
        pass

    def stop(done, losses):
        raise Stop

    with pytest.raises(Stop):
        distill.train(jax.random.key(3), hyper, bank, student, chunk=10, save=saved, progress=stop)
    again = distill.train(jax.random.key(3), hyper, bank, student, chunk=10, save=saved)
    assert same(whole.variables, again.variables)
