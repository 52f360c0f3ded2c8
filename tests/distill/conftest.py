"""Victims the tests of distillation share, bought once, and a probe of one of them."""

import jax
import jax.numpy as jnp
import pytest
from small import DIM, MLP, OUTPUTS, N

from recon import distill, models


@pytest.fixture(scope="session")
def weights():
    return jax.random.normal(jax.random.key(0), (OUTPUTS, DIM))


@pytest.fixture(scope="session")
def bank(weights):
    """A linear victim: its Jacobian is `weights` everywhere."""
    x = jax.random.normal(jax.random.key(1), (N, DIM))
    return distill.buy(lambda x: weights @ x, x)


@pytest.fixture(scope="session")
def curved():
    """A victim with a different Jacobian at every query."""
    f, variables = models.logits(models.mlp(8, OUTPUTS)), MLP.init(jax.random.key(2))
    x = jax.random.normal(jax.random.key(3), (N, DIM))
    return distill.buy(lambda x: f(variables, x), x)


@pytest.fixture(scope="session")
def probe(weights):
    x = jax.random.normal(jax.random.key(4), (50, DIM))
    classes = jnp.argmax(x @ weights.T, axis=1)
    return distill.Probe(x, (classes + 1) % OUTPUTS, classes)
