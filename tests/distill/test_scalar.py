"""Binary classifiers and regressions: victims with one output."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import DIM, MLP, batch_of, start, step

from recon import distill, oracles
from recon.distill import Hyper, losses
from recon.oracles import View

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
        row(lambda c: pull(c, jnp.ones((1, DIM)))[None], b, None)
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
    run = distill.train(jax.random.key(6), hyper, bank, ONE, probe, chunk=400)
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
