"""ReLU and max-pool, and what the derivative of their masks is taken to be.

A student that matches gradients depends on its weights twice: through the weights themselves, and
through its masks, that is which units are on and which pixel of a window is the largest.  Masks
are steps: their derivative is zero but for a spike where they flip, which automatic
differentiation never sees.  So Adam is led by a part of the slope alone.  A convolutional student
then stalls where it still misses 25 % of the victim's squared Jacobian on ten images of MNIST;
with a surrogate it misses 3 to 4 % (`gradient_loss` in results/masks_mnist).

A surrogate spreads the spike out, as is done for spiking networks (Neftci, Mostafa and Zenke
2019): values and first derivatives stay exactly what they are, and where a derivative is
differentiated again a mask counts as a softmax.  Its `temperature` is in units of the standard
deviation of the layer's own sums at that input: warm finds the way, cold is exact.  Ours, not
the paper's.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def relu(x: jax.Array, temperature: Any = None, units: int = 1) -> jax.Array:
    """max(x, 0), with derivative 0 at 0; the last `units` axes are one input's layer.

    `temperature`, above 0, gives the mask a surrogate derivative; None leaves it to autodiff.
    """
    if temperature is None:
        return jax.nn.relu(x)
    scale = jnp.expand_dims(spread(x, units), -2)
    return largest(jnp.stack([jnp.zeros_like(x), x], axis=-2), temperature, scale)


def largest(x: jax.Array, temperature: Any = None, scale: jax.Array | None = None) -> jax.Array:
    """The largest over the axis before the last: x [..., p, c] -> [..., c]; of equals the first.

    `temperature`, above 0, in units of `scale` [..., 1, 1], gives the mask a surrogate derivative.
    """
    if temperature is None:
        # a product with a constant mask, whose second derivative costs nothing
        first = jnp.argmax(jax.lax.stop_gradient(x), axis=-2)
        return jnp.sum(x * jax.nn.one_hot(first, x.shape[-2], axis=-2, dtype=x.dtype), axis=-2)
    temperature = jnp.asarray(temperature, x.dtype)
    out: jax.Array = _largest(x, temperature if scale is None else temperature * scale)
    return out


def spread(x: jax.Array, units: int) -> jax.Array:
    """The standard deviation over the last `units` axes, kept, as a constant; 1 where it is 0."""
    size = jax.lax.stop_gradient(jnp.std(x, axis=tuple(range(-units, 0)), keepdims=True))
    return jnp.where(size > 0, size, 1)


@jax.custom_jvp
def _largest(x: jax.Array, temperature: jax.Array) -> jax.Array:
    return jnp.max(x, axis=-2)


@_largest.defjvp
def _(primals: Any, tangents: Any) -> Any:
    x, temperature = primals
    return _largest(x, temperature), jnp.sum(_mask(x, temperature) * tangents[0], axis=-2)


@jax.custom_jvp
def _mask(x: jax.Array, temperature: jax.Array) -> jax.Array:
    return jax.nn.one_hot(jnp.argmax(x, axis=-2), x.shape[-2], axis=-2, dtype=x.dtype)


@_mask.defjvp
def _(primals: Any, tangents: Any) -> Any:
    x, temperature = primals
    soft, change = jax.nn.softmax(x / temperature, axis=-2), tangents[0]
    change = change - jnp.sum(soft * change, axis=-2, keepdims=True)
    return _mask(x, temperature), soft * change / temperature
