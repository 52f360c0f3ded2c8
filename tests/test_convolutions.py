"""Convolutions and pools as products against those of flax."""

from functools import partial

import drawn
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
    random = np.random.default_rng(1)
    x = drawn.normal(random, 2, height, width, inputs)
    variables = drawn.variables(layer, x)
    variables["params"]["bias"] -= np.float32(0.6)  # on either side of zero

    def flax(variables, x):
        y = nn.relu(nn.Conv(4, (kernel, kernel), padding=padding).apply(variables, x))
        window = (min(2, y.shape[1]), min(2, y.shape[2]))
        return nn.max_pool(y, window, window)

    direction = drawn.normal(random, *jax.eval_shape(flax, variables, x).shape)

    @partial(jax.jit, static_argnums=0)
    def all_orders(f, variables, x):  # values, the first order, and through it the second
        def gradient(variables, x):
            return jax.grad(lambda x: jnp.vdot(direction, f(variables, x)))(x)

        matched = jax.grad(lambda v: jnp.sum(gradient(v, x) ** 2))(variables)
        return f(variables, x), (gradient(variables, x), matched)

    (ours, *slopes), (theirs, *others) = (all_orders(f, variables, x) for f in (layer.apply, flax))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(*map(jax.tree.leaves, (slopes, others)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [pytest.param(4, 4, marks=pytest.mark.slow), (6, 10)])
def test_winograds_sums_are_the_convolution(height, width):
    draw = partial(drawn.normal, np.random.default_rng(2))
    x, kernel = draw(2, height + 2, width + 2, 3), draw(3, 3, 3, 5)
    direction, target = draw(2, height, width, 5), draw(*x.shape)

    @partial(jax.jit, static_argnums=0)
    def all_orders(f, kernel, x):
        def matched(kernel, x):
            slope = jax.grad(lambda x: jnp.sum(direction * jnp.tanh(f(x, kernel))))(x)
            return jnp.sum((slope - target) ** 2)

        return f(x, kernel), jax.grad(matched, (0, 1))(kernel, x)

    def convolution(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)

    found, expected = (all_orders(f, kernel, x) for f in (convolutions.winograd, convolution))
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))


def test_large_convolutions_of_3x3_are_winograds():
    def products(images):
        x, kernel = jnp.zeros((images, 8, 8, 64)), jnp.zeros((3, 3, 64, 64))
        convolve = partial(convolutions.convolve, strides=(1, 1), padding="SAME")
        return str(jax.make_jaxpr(convolve)(x, kernel)).count("dot_general")

    assert (products(8), products(64)) == (1, 16)


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
    draw = partial(drawn.normal, np.random.default_rng(1))
    x = draw(3, 2, height, width, inputs)
    kernels = draw(3, side, side, inputs, outputs) / np.float32(side)
    shape = jax.eval_shape(flax.apply, {"params": {"kernel": kernels[0]}}, x[0]).shape
    direction, target = draw(*shape), draw(*x[0].shape)

    def all_orders(module, kernel, x):
        """Values, both first derivatives, and the derivatives of a gradient that is matched."""

        def values(kernel, x):
            return module.apply({"params": {"kernel": kernel}}, x)

        def weighed(kernel, x):
            return jnp.sum(direction * jnp.tanh(values(kernel, x)))

        def matched(kernel, x):
            return jnp.sum((jax.grad(weighed, 1)(kernel, x) - target) ** 2)

        return values(kernel, x), *(jax.grad(f, (0, 1))(kernel, x) for f in (weighed, matched))

    def each(module):
        found = map(jax.jit(partial(all_orders, module)), kernels, x)
        return jax.tree.map(lambda *parts: np.stack(parts), *found)

    expected = each(flax)
    for found in (each(ours), jax.jit(jax.vmap(partial(all_orders, ours)))(kernels, x)):
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
