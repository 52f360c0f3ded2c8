"""One-layer models from one gradient, and what is not taken for one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import victim

from recon import oracles
from recon.exact import one_layer
from recon.oracles import Cost
from recon.victims import oracle_of


@given(st.sampled_from([1, 2, 40]), st.integers(0, 10**6))
@settings(max_examples=20)
def test_linear_model_from_one_gradient(dim, seed):
    w = np.random.default_rng(seed).normal(size=dim)

    def fn(x):
        return x @ w, np.tile(w, (len(x), 1))

    found, cost = one_layer.learn_linear(oracles.from_host(fn), dim)
    np.testing.assert_array_equal(found, w)
    assert cost == Cost(gradients=1, values=1, numbers=dim + 2, rounds=2)


def sigmoid(params: tuple[np.ndarray, float], x: jax.Array) -> jax.Array:
    w, bias = params
    return jax.nn.sigmoid(w @ x + bias)


def logistic(w: np.ndarray, bias: float = 0.0) -> oracles.Oracle:
    return oracles.from_jax(sigmoid, (w, bias))


@given(st.sampled_from([1, 2, 40]), st.integers(0, 10**6), st.floats(-3, 3))
@settings(max_examples=20)
def test_logistic_model_from_one_gradient_and_one_value(dim, seed, log_scale):
    w = 10**log_scale * np.random.default_rng(seed).normal(size=dim)
    found, cost = one_layer.learn_logistic(logistic(w), dim)
    np.testing.assert_allclose(found, w, rtol=1e-12)
    assert cost == Cost(gradients=1, values=1, numbers=dim + 2, rounds=2)
    elsewhere, _ = one_layer.learn_logistic(logistic(w), dim, x=w / (w @ w))
    np.testing.assert_allclose(elsewhere, w, rtol=1e-12)


@pytest.mark.parametrize("along", [1000.0, -1000.0, 40.0])
def test_a_saturated_sigmoid_says_so(along):
    w = np.array([1.0, -2.0, 0.5])
    with pytest.raises(ValueError, match="saturated"):
        one_layer.learn_logistic(logistic(w), 3, x=along * w / (w @ w))


@pytest.mark.parametrize("bias", [0.5, 1e-6])
def test_other_models_are_not_taken_for_one_layer(bias):
    w = np.array([1.0, -2.0, 0.5])
    with pytest.raises(ValueError, match="not sigmoid"):
        one_layer.learn_logistic(logistic(w, bias), 3)
    with pytest.raises(ValueError, match="not sigmoid"):
        one_layer.learn_logistic(oracles.from_jax(lambda x: jnp.sum(x) + 0.5), 3)
    with pytest.raises(ValueError, match="saturated"):
        one_layer.learn_logistic(oracle_of(victim(0, 3, 2)), 3)
    with pytest.raises(ValueError, match="not <w, x>"):
        one_layer.learn_linear(oracles.from_jax(lambda x: jnp.sum(x) + bias), 3)
    with pytest.raises(ValueError, match="not <w, x>"):
        one_layer.learn_linear(oracle_of(victim(0, 3, 2)), 3)
    with pytest.raises(ValueError, match="not <w, x>"):
        one_layer.learn_linear(logistic(w), 3)


def test_one_layer_refuses_other_shapes():
    with pytest.raises(ValueError, match="K = 3"):
        one_layer.learn_linear(oracles.from_jax(lambda x: x), 3)
    with pytest.raises(ValueError, match="dim 0"):
        one_layer.learn_linear(oracles.from_jax(jnp.sum), 0)
    with pytest.raises(ValueError, match="shape"):
        one_layer.learn_logistic(logistic(np.ones(3)), 3, x=np.ones(2))
