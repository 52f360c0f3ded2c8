"""How a student is compared with the replies: the rows of l_G and of l_M (section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Batch(NamedTuple):
    """n rows of a bank, their weights [n] (sum one), and what l_G and "odds" are divided by."""

    x: jax.Array
    probabilities: jax.Array
    gradient: Any
    label: jax.Array
    weights: jax.Array
    scales: Scales


class Scales(NamedTuple):
    """Means over the rows of a budget: of |J|^2, and of the squared centred log-probabilities."""

    gradient: jax.Array
    odds: jax.Array


UNROLLED = 32  # classes up to which a Jacobian's rows are taken one after another on a CPU
Pull = Callable[[jax.Array], jax.Array]  # cotangents [n, K] of the logits -> rows [n, d]


def _jacobian(pull: Pull, batch: Batch, key: Any) -> jax.Array:
    """|J - J^|_F^2 for each row, [n]: K backward passes of the batch.

    On a CPU one after another, which is a quarter faster for the convolutional student than all
    at once, but takes longer to compile, in proportion to K.
    """
    n, outputs = batch.probabilities.shape
    basis = jnp.broadcast_to(jnp.eye(outputs, dtype=batch.x.dtype), (n, outputs, outputs))
    if jax.default_backend() == "cpu" and outputs <= UNROLLED:
        left = jnp.zeros_like(batch.weights)
        for k in range(outputs):
            left += _square(pull(basis[:, k]) - batch.gradient[:, k], 1)
        return left
    return _square(jax.vmap(pull, 1, 1)(basis) - batch.gradient, (1, 2))


def _projection(pull: Pull, batch: Batch, key: Any) -> jax.Array:
    """|r^T J - r^T J^|^2 for r ~ N(0, I_K), [n]: one backward pass, unbiased for |J - J^|_F^2."""
    r = jax.random.normal(key, batch.probabilities.shape, batch.x.dtype)
    return _square(pull(r) - jnp.einsum("nk,nkd->nd", r, batch.gradient), 1)


def _top(pull: Pull, batch: Batch, key: Any) -> jax.Array:
    """|g - g^|^2 for the logit of the victim's class, [n]: one backward pass."""
    hot = jax.nn.one_hot(batch.label, batch.probabilities.shape[1], dtype=batch.x.dtype)
    return _square(pull(hot) - batch.gradient, 1)


def log_odds(probabilities: jax.Array) -> jax.Array:
    """The log-probabilities [n, K] less their mean over K: logits, but for a shift of all K."""
    return _centred(jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny)))


def _centred(logits: jax.Array) -> jax.Array:
    return logits - jnp.mean(logits, axis=1, keepdims=True)


def _entropy(logits: jax.Array, batch: Batch) -> jax.Array:
    """The cross-entropy of the student's probabilities with the victim's, [n]."""
    return -jnp.sum(batch.probabilities * jax.nn.log_softmax(logits), axis=1)


def _odds(logits: jax.Array, batch: Batch) -> jax.Array:
    """The squared distance of the log-odds, [n], in units of the victim's own.

    The slope of the cross-entropy is the difference of two probabilities: on a saturated reply
    nothing of it is left, though the log-odds are still all there.
    """
    return _square(_centred(logits) - log_odds(batch.probabilities), 1) / batch.scales.odds


def _square(x: jax.Array, axis: Any) -> jax.Array:
    return jnp.sum(x * x, axis=axis)


# Each loss, and how many axes the bank's gradient has for it; None: membership, no l_G.
LOSSES: dict[str, tuple[Callable[[Pull, Batch, Any], jax.Array] | None, int]] = {
    "jacobian": (_jacobian, 3),
    "projection": (_projection, 3),
    "top": (_top, 2),
    "membership": (None, 0),
}

OUTPUTS: dict[str, Callable[[jax.Array, Batch], jax.Array]] = {"entropy": _entropy, "odds": _odds}
