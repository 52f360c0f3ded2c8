"""The surrogate of a mask's derivative changes nothing else, and is what autodiff misses."""

import math
from functools import partial

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from recon import masks, models


def test_without_a_temperature_relu_is_relu_and_the_first_of_equals_has_the_gradient():
    x = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(masks.relu(x), jax.nn.relu(x))
    for temperature in (None, 0.5):
        gradient = jax.grad(lambda x, t=temperature: masks.largest(x, t).sum())(jnp.ones((2, 4, 3)))
        np.testing.assert_array_equal(gradient, jnp.zeros((2, 4, 3)).at[:, 0].set(1))
        on = jax.grad(lambda x, t=temperature: masks.relu(x, t).sum())(x)
        np.testing.assert_array_equal(on, x > 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_mask_steps_by_one_however_wide_its_derivative(dtype):
    with jax.enable_x64(True):
        at = jnp.linspace(-20, 20, 4001, dtype=dtype)

        @jax.jit
        def slope(at, temperature):
            def one(a):
                return masks.largest(jnp.stack([jnp.zeros_like(a), a])[:, None], temperature)[0]

            return jax.vmap(jax.grad(jax.grad(one)))(at)

        for temperature in (0.25, 1.0):
            slopes = slope(at, temperature)
            assert slopes.dtype == dtype
            assert slopes.min() >= 0
            area = float(slopes.sum()) * 0.01
            np.testing.assert_allclose(area, 1, rtol=1e-3)
            spread = math.sqrt(float(jnp.sum(slopes * at**2)) * 0.01)
            np.testing.assert_allclose(spread, temperature * math.pi / math.sqrt(3), rtol=1e-3)


def test_the_surrogate_is_the_slope_of_the_expected_loss_that_autodiff_misses():
    """E |w 1[w.x > 0] - v 1[v.x > 0]|^2 for x ~ N(0, I), whose slope in w is known.

    It is |w|^2/2 + |v|^2/2 - w.v (pi - t)/pi with t the angle between w and v.
    """
    v, w = jnp.array([1.0, 0.2, -0.3]), jnp.array([0.8, 1.0, 0.5])
    x = jax.random.normal(jax.random.key(0), (300_000, 3))

    def expected(w):
        cosine = w @ v / jnp.linalg.norm(w) / jnp.linalg.norm(v)
        return (w @ w + v @ v) / 2 - w @ v * (jnp.pi - jnp.arccos(cosine)) / jnp.pi

    @partial(jax.jit, static_argnums=1)
    def loss(w, temperature):
        def one(x):
            return masks.relu((w @ x)[None], temperature)[0]

        found = jax.vmap(jax.grad(one))(x)
        on = (x @ v > 0).astype(x.dtype)
        return jnp.mean(jnp.sum((found - on[:, None] * v[None]) ** 2, axis=1))

    truth, slope = jax.jit(jax.grad(expected))(w), jax.jit(jax.grad(loss), static_argnums=1)
    np.testing.assert_allclose(loss(w, None), jax.jit(expected)(w), rtol=0.01)
    error = {
        t: float(jnp.linalg.norm(slope(w, t) - truth) / jnp.linalg.norm(truth))
        for t in (None, 0.05)
    }
    assert error[0.05] < 0.03
    assert error[None] > 0.15


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("linear", (8, 8, 1)),
        ("mlp", (8, 8, 1)),
        ("conv", (8, 8, 1)),
        ("conv", (16, 17, 2)),
        ("conv", (1, 9, 1)),
    ],
)
def test_values_and_gradients_are_the_same_whatever_the_temperature(name, shape):
    module = models.build(name, shape, 10)
    f, g = models.logits(module), models.surrogate(module)
    random = np.random.default_rng(1)
    x = random.uniform(size=(3, math.prod(shape))).astype(np.float32)
    variables, direction = drawn.variables(module, x[0]), drawn.normal(random, 3, 10)

    @jax.jit
    def both(temperature):
        plain, pull = jax.vjp(lambda x: f(variables, x), x)
        other, draw = jax.vjp(lambda x: g(variables, x, temperature), x)
        return (plain, *pull(direction)), (other, *draw(direction))

    for temperature in (0.01, 1.0):
        for ours, theirs in zip(*both(temperature), strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vgg11", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_deep_models_have_surrogates_too(name):
    module, x = models.build(name, (8, 8, 1), 10), jnp.zeros((2, 64))
    variables = jax.eval_shape(module.init, jax.random.key(0), x[0])

    def matching(variables, x, temperature):
        slope = jax.grad(lambda x: models.surrogate(module)(variables, x, temperature).sum())(x)
        return jnp.sum(slope**2)

    found = jax.eval_shape(jax.grad(matching), variables, x, 0.5)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, variables)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_a_row_does_not_see_the_others_of_its_batch(name):
    module = models.build(name, (8, 8, 1), 10)
    g = models.surrogate(module)
    x = np.random.default_rng(1).uniform(size=(3, 64)).astype(np.float32)
    variables = drawn.variables(module, x[0])

    def matching(variables, x):
        slope = jax.grad(lambda x: g(variables, x, 0.5)[..., 0].sum())(x)
        return jnp.sum(slope**2)

    slope = jax.jit(jax.grad(matching))
    whole, alone = slope(variables, x), [slope(variables, row) for row in x]
    for a, *each in zip(*map(jax.tree.leaves, (whole, *alone)), strict=True):
        np.testing.assert_allclose(a, sum(each), rtol=1e-3, atol=1e-4)


def test_a_layer_whose_units_are_all_equal_has_a_finite_slope():
    def matching(x):
        return jnp.sum(jax.grad(lambda x: masks.relu(x, 0.5).sum())(x) ** 2)

    assert np.isfinite(jax.jit(jax.grad(matching))(jnp.zeros(4))).all()


class _Own(nn.Module):
    """A module of a user's, that knows nothing of masks."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(4)(x)))


class _OwnWithMasks(nn.Module):
    @nn.compact
    def __call__(self, x, *, temperature=None):
        hidden = masks.relu(nn.Dense(4, name="hidden")(x), temperature)
        return nn.Dense(3)(hidden)


def test_a_surrogate_needs_a_module_that_takes_a_temperature():
    with pytest.raises(ValueError, match=r"^_Own has no surrogate: its __call__ needs .*\(x, temp"):
        models.surrogate(_Own())
    module, x = _OwnWithMasks(), jnp.ones((1, 2))
    variables = drawn.variables(module, x)

    def matching(variables, temperature):
        f = models.surrogate(module)
        return jnp.sum(jax.grad(lambda x: f(variables, x, temperature).sum())(x) ** 2)

    slope = jax.jit(jax.grad(matching), static_argnums=1)
    first, other = (slope(variables, t)["params"]["hidden"] for t in (None, 1.0))
    np.testing.assert_array_equal(first["bias"], 0)  # to autodiff a bias moves no mask
    assert np.abs(other["bias"]).max() > 1e-3
