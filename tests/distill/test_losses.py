"""The losses against their formulas, and their derivatives against differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import DIM, MLP, OUTPUTS, N, batch_of, for_loss

from recon import distill, explanations
from recon.distill import Hyper, Student, losses, objective

joint = jax.jit(objective.joint, static_argnums=1)


def parts(bank, loss, key=7, **settings):
    hyper = Hyper(loss=loss, weight=0.5, **settings)
    variables = MLP.init(jax.random.key(8))
    total, (l_g, l_m) = joint(
        variables, MLP, hyper, batch_of(for_loss(bank, loss)), jax.random.key(key)
    )
    return float(total), float(l_g), float(l_m)


def test_the_joint_loss_is_the_papers(curved):
    variables = MLP.init(jax.random.key(8))
    logits = np.asarray(MLP.apply(variables, curved.x), np.float64)
    rows = jax.vmap(lambda x: explanations.jacobian(lambda z: MLP.apply(variables, z), x))
    jacobians = np.asarray(jax.jit(rows)(curved.x), np.float64)
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

        return jax.jit(jax.value_and_grad(loss))(MLP.init(jax.random.key(8)))

    in_turn = slope()
    monkeypatch.setattr(losses, "UNROLLED", 0)
    for a, b in zip(*map(jax.tree.leaves, (in_turn, slope())), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_projection_is_unbiased_for_the_frobenius_norm(curved):
    batch, hyper = batch_of(curved), Hyper(loss="projection")
    variables = MLP.init(jax.random.key(8))
    keys = jax.random.split(jax.random.key(9), 4000)
    draws = jax.vmap(lambda key: joint(variables, MLP, hyper, batch, key)[1][0])(keys)
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

        @jax.jit
        def value(w):
            return objective.joint(w, student, hyper, batch, jax.random.key(12))[0]

        direction = jax.random.normal(jax.random.key(13), w.shape)
        slope = float(jnp.sum(jax.jit(jax.grad(value))(w) * direction))
        step = 1e-6 * direction
        np.testing.assert_allclose(slope, (value(w + step) - value(w - step)) / 2e-6, rtol=1e-6)


def test_a_smoothed_student_is_held_against_its_own_smoothgrad(curved):
    """Without noise it is the plain gradient; with noise, of few points as of many, another one."""
    plain = parts(curved, "jacobian")[1]
    np.testing.assert_allclose(parts(curved, "jacobian", points=3, sigma=0.0)[1], plain, rtol=1e-5)
    smooth = parts(curved, "jacobian", points=400, sigma=0.5)[1]
    variables = MLP.init(jax.random.key(8))

    def one(x, target):
        rows = explanations.smoothgrad(
            lambda z: MLP.apply(variables, z), x, jax.random.key(14), n=2000, sigma=0.5
        )
        return jnp.sum((rows - target) ** 2)

    expected = float(jax.jit(jax.vmap(one))(curved.x, curved.gradient).mean()) / 2.0
    np.testing.assert_allclose(smooth, expected, rtol=0.02)
    assert abs(smooth - plain) > 0.05 * plain

    few, batch = Hyper(loss="projection", points=1, sigma=0.5), batch_of(curved)
    keys = jax.random.split(jax.random.key(15), 4000)
    draws = jax.vmap(lambda key: joint(variables, MLP, few, batch, key)[1][0])(keys)
    error = float(draws.std()) / np.sqrt(len(draws))
    assert abs(float(draws.mean()) - expected) < 4 * error + 0.01 * expected
    assert error < 0.03 * expected
