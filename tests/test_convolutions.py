"""Convolutions and pools as products against those of flax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from recon import convolutions, masks, models


@pytest.mark.parametrize(
    ("height", "width", "inputs", "kernel", "padding"),
    [
        (12, 12, 2, 5, "VALID"),
        (11, 8, 1, 5, "VALID"),
        (5, 9, 3, 5, "VALID"),
        (7, 6, 2, 5, "SAME"),
        (8, 5, 2, 3, "SAME"),
        (1, 4, 2, 3, "SAME"),
    ],
)
def test_a_convolution_with_its_pool_is_that_of_flax(height, width, inputs, kernel, padding):
    layer = models._ConvPool(4, kernel, padding)
    x_key, init_key, direction_key = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(x_key, (2, height, width, inputs))
    variables = layer.init(init_key, x)
    variables["params"]["bias"] += 0.1

    def flax(variables, x):
        y = nn.relu(nn.Conv(4, (kernel, kernel), padding=padding).apply(variables, x))
        window = (min(2, y.shape[1]), min(2, y.shape[2]))
        return nn.max_pool(y, window, window)

    np.testing.assert_allclose(layer.apply(variables, x), flax(variables, x), rtol=1e-5, atol=1e-5)
    direction = jax.random.normal(direction_key, flax(variables, x).shape)

    def slopes(f):  # first order, and through it second order
        def gradient(variables, x):
            return jax.grad(lambda x: jnp.vdot(direction, f(variables, x)))(x)

        return gradient(variables, x), jax.grad(lambda v: jnp.sum(gradient(v, x) ** 2))(variables)

    for ours, theirs in zip(*map(jax.tree.leaves, map(slopes, (layer.apply, flax))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "inputs", "outputs", "side", "stride", "padding"),
    [
        (5, 7, 4, 3, 3, 1, "SAME"),
        (1, 2, 3, 4, 3, 1, "SAME"),
        (8, 6, 3, 5, 3, 2, "SAME"),
        (5, 7, 2, 3, 3, 2, "SAME"),
        (8, 5, 3, 2, 1, 2, "SAME"),
        (5, 6, 2, 3, 3, 1, "VALID"),
    ],
)
def test_products_are_the_convolution_of_flax(
    height, width, inputs, outputs, side, stride, padding
):
    layer = partial(nn.Conv, outputs, (side, side), stride, padding=padding, use_bias=False)
    flax, ours = layer(), layer(conv_general_dilated=convolutions.convolve)
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (3, 2, height, width, inputs))
    kernels = jax.random.normal(keys[1], (3, side, side, inputs, outputs)) / side
    shape = jax.eval_shape(flax.apply, {"params": {"kernel": kernels[0]}}, x[0]).shape
    direction, target = jax.random.normal(keys[2], shape), jax.random.normal(keys[3], x[0].shape)

    def all_orders(module, kernel, x):
        """Values, both first derivatives, and the derivatives of a gradient that is matched."""

        def values(kernel, x):
            return module.apply({"params": {"kernel": kernel}}, x)

        def weighed(kernel, x):
            return jnp.sum(direction * jnp.tanh(values(kernel, x)))

        def matched(kernel, x):
            return jnp.sum((jax.grad(weighed, 1)(kernel, x) - target) ** 2)

        return values(kernel, x), *(jax.grad(f, (0, 1))(kernel, x) for f in (weighed, matched))

    expected = jax.jit(jax.vmap(partial(all_orders, flax)))(kernels, x)
    once = partial(all_orders, ours)
    each = map(jax.jit(once), kernels, x)
    looped = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    for found in (looped, jax.jit(jax.vmap(once))(kernels, x)):
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            scale = float(jnp.abs(b).max())
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale)


def test_of_equal_maxima_the_first_has_the_gradient():
    gradient = jax.grad(lambda x: masks.largest(x).sum())(jnp.ones((2, 4, 3)))
    np.testing.assert_array_equal(gradient, jnp.zeros((2, 4, 3)).at[:, 0].set(1))


def test_equal_maxima_share_the_gradient():
    pooled = jax.grad(lambda x: convolutions.pool(x).sum())
    flat = pooled(jnp.ones((4, 4, 1)))
    np.testing.assert_allclose(flat, np.full((4, 4, 1), 0.25))
    clear = jnp.arange(16.0).reshape(4, 4, 1)
    expected = np.zeros((4, 4, 1))
    expected[1::2, 1::2] = 1
    np.testing.assert_array_equal(pooled(clear), expected)
