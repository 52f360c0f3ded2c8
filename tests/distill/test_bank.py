"""What a bank holds, what it costs, and which views it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import DIM, OUTPUTS, N

from recon import distill, oracles, victims
from recon.oracles import Cost, View


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
    for name, one in (("smoothgrad", "smooth_top"), ("input_x_gradient", None)):
        other = distill.buy(
            oracles.from_jax(lambda x: weights @ x, view=View(explanation=name), key=0), bank.x
        )
        if one is not None:
            assert other.top().view == View(explanation=one)
            continue
        with pytest.raises(ValueError, match=f"of one class {name} are not bought"):
            other.top()
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
    assert got.cost(3) == want.cost(3) + got.before


def test_views_no_student_can_be_trained_on_are_refused(bank):
    for view, message in (
        (View("none"), "needs outputs logits or probabilities"),
        (View("label", "none"), "labels alone do not say how many classes"),
        (View("label", "top"), "labels alone do not say how many classes"),
    ):
        with pytest.raises(oracles.ViewError, match=message):
            distill.buy(oracles.from_jax(lambda x: x, view=view), bank.x)
    logits = oracles.from_host(lambda x: 5 * x[:, :3], view=View("probabilities", "none"))
    with pytest.raises(oracles.ReplyError, match="are these logits"):
        distill.buy(logits, bank.x)
