"""What a service shows of one answer: its outputs, an explanation of them, and in which form.

Every explanation is a pure function of (f, x, key): f maps one input [d] to K logits, x is one
input [d], and key is a JAX key that only the noisy ones use.  `vmap` over x and key for a batch.
The paper writes "the gradient" and does not say of what for ten classes; its Figure 2 agrees
with the full Jacobian of the logits alone, so that is the gradient query here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recon.paths import Path

POINTS, SIGMA = 20, 0.2  # of SmoothGrad, as results/saliency chose them
CHANNELS = 3  # of pictures, the last axis of their numbers
BYTE = 255

Function = Callable[[jax.Array], jax.Array]
Explanation = Callable[[Function, jax.Array, Any], jax.Array]


def value_and_jacobian(f: Function, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """f(x) [K] and its Jacobian [K, d] at x [d], from one pass forward."""
    value, pull = jax.vjp(f, x)
    (rows,) = jax.vmap(pull)(jnp.eye(value.shape[0], dtype=value.dtype))
    return value, rows


def jacobian(f: Function, x: jax.Array, key: Any = None) -> jax.Array:
    """The Jacobian [K, d] of the logits f(x) [K] at x [d]: the paper's gradient query."""
    return value_and_jacobian(f, x)[1]


def input_x_gradient(f: Function, x: jax.Array, key: Any = None) -> jax.Array:
    """The Jacobian [K, d] with each column times its input: "input x gradient"."""
    return jacobian(f, x) * x[None]


def top_gradient(f: Function, x: jax.Array, key: Any = None) -> jax.Array:
    """The gradient [d] of the largest logit of f(x) [K] at x [d], the first of equals.

    What explanation services mostly return; the paper does not use it.
    """
    return class_gradient(f, x, jnp.argmax(f(x)))


def class_gradient(f: Function, x: jax.Array, label: Any) -> jax.Array:
    """The gradient [d] of logit `label`, an integer in 0 ... K-1 that may be traced."""
    value, pull = jax.vjp(f, x)
    (row,) = pull(jax.nn.one_hot(label, value.shape[0], dtype=value.dtype))
    out: jax.Array = row
    return out


def smoothgrad(
    f: Function,
    x: jax.Array,
    key: Any,
    explain: Explanation = jacobian,
    n: int = POINTS,
    sigma: Any = SIGMA,
) -> jax.Array:
    """The mean of `explain` at x + z_1, ..., x + z_n, shaped as one of them (section 4).

    z_i ~ N(0, sigma^2 I): sigma is a standard deviation, in units of x.  The paper prints
    N(0, sigma I), which could mean a variance; we read it as the SmoothGrad authors define it.
    `top_gradient` names the class afresh at every noisy point; for one class throughout use
    `smooth_top_gradient`.  POINTS and SIGMA are our own choices, by a criterion that the
    experiment `saliency` states (the paper's stand in its missing Appendix D).  ValueError if
    n < 1.
    """
    if n < 1:
        raise ValueError(f"SmoothGrad averages over n >= 1 points, got n = {n}")
    noise = jax.random.normal(key, (n, *x.shape), x.dtype)
    at = x[None] + jnp.asarray(sigma, x.dtype) * noise
    return jax.vmap(lambda z: explain(f, z, None))(at).mean(axis=0)


def smooth_top_gradient(
    f: Function, x: jax.Array, key: Any, n: int = POINTS, sigma: Any = SIGMA
) -> jax.Array:
    """SmoothGrad [d] of the logit that is largest at x itself, at every noisy point."""
    label = jnp.argmax(f(x))
    return smoothgrad(f, x, key, lambda g, z, _: class_gradient(g, z, label), n, sigma)


def integrated_gradients(
    f: Function, x: jax.Array, key: Any = None, path: Path | None = None
) -> jax.Array:
    """Integrated gradients [K, d] of the logits f(x) [K] at x [d], by the rule of `path`.

    (x - baseline) times the mean of Jacobians on the way (Sundararajan, Taly and Yan, 2017); rows
    sum to f(x) - f(baseline), to within the rule's error.
    """
    path = Path() if path is None else path
    shares, weights, start = (
        jnp.asarray(a, x.dtype) for a in (path.shares, path.weights, path.start(len(x)))
    )
    at = start[None] + shares[:, None] * (x - start)[None]
    rows = jax.vmap(lambda z: jacobian(f, z))(at)
    return jnp.tensordot(weights, rows, 1) * (x - start)[None]


EXPLANATIONS: dict[str, Explanation] = {
    "jacobian": jacobian,
    "input_x_gradient": input_x_gradient,
    "top": top_gradient,
    "smoothgrad": partial(smoothgrad, explain=jacobian),
    "smooth_top": smooth_top_gradient,
    "integrated_gradients": integrated_gradients,
}


@cache
def axes(name: str) -> int:
    """Axes of a row of EXPLANATIONS for one input: 2 for [K, d], 1 for [d]."""
    x, key = jax.ShapeDtypeStruct((3,), jnp.float32), jax.eval_shape(lambda: jax.random.key(0))
    return len(jax.eval_shape(partial(EXPLANATIONS[name], lambda x: x[:2]), x, key).shape)


class Form(NamedTuple):
    """How an explanation [..., d] is shown.

    show: what the service makes of it, [..., d'], d' <= d; match: the same, for the explanation of
    a student that is trained to show it, so with a derivative: what rounding takes away is not
    made up again; linear: whether `match` of a sum is the sum, so that a student may be held to
    any combination of outputs.
    """

    show: Callable[[jax.Array], jax.Array]
    match: Callable[[jax.Array], jax.Array]
    linear: bool


def _same(rows: jax.Array) -> jax.Array:
    return rows


def _channels(rows: jax.Array) -> jax.Array:
    """Numbers [..., d] of pictures by their channels, [..., d / CHANNELS, CHANNELS]."""
    return rows.reshape(*rows.shape[:-1], -1, CHANNELS)


def _channel_sum(rows: jax.Array) -> jax.Array:
    return jnp.sum(_channels(rows), axis=-1)


def _channel_max(rows: jax.Array) -> jax.Array:
    """The largest size of a pixel's channels (Simonyan et al. 2013)."""
    return jnp.max(jnp.abs(_channels(rows)), axis=-1)


def _heat(rows: jax.Array) -> jax.Array:
    """Sizes as shares of the largest of each row, times BYTE; zeros stay zeros."""
    size = jnp.abs(rows)
    most = jnp.max(size, axis=-1, keepdims=True)
    return BYTE * size / jnp.where(most > 0, most, 1)


def _digits(places: int) -> Form:
    return Form(partial(jnp.round, decimals=places), _same, True)


# How explanations are shown: as they are, without their signs, as one number a pixel, to so many
# decimals, or as grey levels of a picture.
SHOWN: dict[str, Form] = {
    "plain": Form(_same, _same, True),
    "absolute": Form(jnp.abs, jnp.abs, False),
    "channel_sum": Form(_channel_sum, _channel_sum, True),
    "channel_max": Form(_channel_max, _channel_max, False),
    "digits_6": _digits(6),
    "digits_4": _digits(4),
    "digits_3": _digits(3),
    "heat_map": Form(lambda rows: jnp.round(_heat(rows)).astype(jnp.uint8), _heat, False),
}


@cache
def numbers(shown: str, dim: int) -> int:
    """Numbers d' that a row of SHOWN has for d inputs; ValueError where d does not fit."""
    try:
        at = jax.eval_shape(SHOWN[shown].show, jax.ShapeDtypeStruct((dim,), jnp.float32))
    except TypeError:
        raise ValueError(
            f"{shown} needs pictures of {CHANNELS} channels, not {dim} inputs"
        ) from None
    return int(at.shape[0])


def probabilities(logits: jax.Array) -> jax.Array:
    """The softmax of logits [..., K]; of one logit, which is a binary classifier's, the sigmoid."""
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)


def log_probabilities(logits: jax.Array) -> jax.Array:
    """The logarithm of `probabilities`, without underflow."""
    return jax.nn.log_sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.log_softmax(logits)


def label(logits: jax.Array) -> jax.Array:
    """The class [...] that logits [..., K] name: the first of the largest; of one, 1 above 0."""
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1)


def top(logits: jax.Array) -> jax.Array:
    """The first of the largest logits [..., K] and its value, [..., 2]: (k, logit k).

    k is a whole number in the logits' dtype; of one logit it is 0.
    """
    k = jnp.argmax(logits, axis=-1)
    return jnp.stack([k.astype(logits.dtype), jnp.max(logits, axis=-1)], axis=-1)


# What a service shows of its outputs f(x) [K]; "values" are those of a regression, and "top" is
# what most services show: a label and how sure they are of it.
OUTPUTS: dict[str, Callable[[jax.Array], jax.Array | None]] = {
    "logits": lambda logits: logits,
    "values": lambda values: values,
    "probabilities": probabilities,
    "log_probabilities": log_probabilities,
    "label": lambda logits: label(logits)[..., None],
    "top": top,
    "none": lambda logits: None,
}
