"""How a student is compared with the replies: the rows of l_G and of l_M (section 4).

l_G compares gradients, or, where a service shows something else, the same of the student: its own
explanation (`_shown`, ours, not the paper's).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recon.explanations import OUTPUTS as EXPLAINED
from recon.explanations import SHOWN


class Batch(NamedTuple):
    """n rows of a bank, their weights [n] (sum one), and what l_G and l_M are divided by.

    outputs [n, K]: probabilities, of a binary classifier the one of class 1, or values; view: what
    the service shows, where that is matched.
    """

    x: jax.Array
    outputs: jax.Array
    gradient: Any
    label: jax.Array
    weights: jax.Array
    scales: Scales
    view: Any = None


class Scales(NamedTuple):
    """Means over the rows of a budget: of |J|^2, and of |log-odds|^2 or |values - their mean|^2."""

    gradient: jax.Array
    outputs: jax.Array


UNROLLED = 32  # classes up to which a Jacobian's rows are taken one after another on a CPU
# Cotangents [n, K] of the logits -> the student's rows [m, n, d]: exactly, m = 1, or m = 2 means of
# independent noise.
Pull = Callable[[jax.Array], jax.Array]
Apply = Callable[[jax.Array], jax.Array]  # inputs [n, d] -> logits [n, K]


def _jacobian(pull: Pull, batch: Batch, key: Any) -> jax.Array:
    """|J - J^|_F^2 for each row, [n]: K backward passes of the batch.

    On a CPU one after another, which is a quarter faster for the convolutional student than all
    at once, but takes longer to compile, in proportion to K.
    """
    n, outputs = batch.outputs.shape
    basis = jnp.broadcast_to(jnp.eye(outputs, dtype=batch.x.dtype), (n, outputs, outputs))
    if jax.default_backend() == "cpu" and outputs <= UNROLLED:
        left = jnp.zeros_like(batch.weights)
        for k in range(outputs):
            left += _product(pull(basis[:, k]) - batch.gradient[None, :, k], 1)
        return left
    return _product(jax.vmap(pull, 1, 2)(basis) - batch.gradient[None], (1, 2))


def _projection(pull: Pull, batch: Batch, key: Any) -> jax.Array:
    """|r^T J - r^T J^|^2 for r ~ N(0, I_K), [n]: one backward pass, unbiased for |J - J^|_F^2."""
    r = jax.random.normal(key, batch.outputs.shape, batch.x.dtype)
    return _product(pull(r) - jnp.einsum("nk,nkd->nd", r, batch.gradient)[None], 1)


def _top(pull: Pull, batch: Batch, key: Any) -> jax.Array:
    """|g - g^|^2 for the logit of the victim's class, [n]: one backward pass."""
    return _product(pull(_class(batch)) - batch.gradient[None], 1)


def _class(batch: Batch) -> jax.Array:
    """The victim's class as cotangents [n, K]."""
    outputs = batch.outputs.shape[1]
    if outputs == 1:  # the one logit is both classes'
        return jnp.ones(batch.outputs.shape, batch.x.dtype)
    return jax.nn.one_hot(batch.label, outputs, dtype=batch.x.dtype)


def _shown(apply: Apply, batch: Batch, key: Any) -> jax.Array:
    """|s(E) - s(E^)|^2, [n]: what the service shows of its explanation E of the outputs, and the
    same of the student, by the rows of `explanations` that the view names.

    Of one class: the victim's.  Of all, where s is linear: E of r^T f for r ~ N(0, I_K), as in
    `_projection`, one backward pass; else the explanations of all K outputs.
    """
    view, (n, outputs) = batch.view, batch.outputs.shape
    form, explain = SHOWN[view.shown], view.explain
    key, row_key = jax.random.split(key)
    if view.axes == 2:
        of, target = _class(batch)[:, None], batch.gradient
    elif form.linear:
        of = jax.random.normal(key, (n, 1, outputs), batch.x.dtype)
        target = jnp.einsum("nqk,nkd->nqd", of, batch.gradient)
    else:
        of = jnp.broadcast_to(jnp.eye(outputs, dtype=batch.x.dtype), (n, outputs, outputs))
        target = batch.gradient

    def one(x: jax.Array, of: jax.Array, key: Any) -> jax.Array:
        """What is shown of outputs that `of` [q, K] combines, at one input [d]."""
        outputs: Any = EXPLAINED[view.of]
        return form.match(explain(lambda z: of @ outputs(apply(z[None])[0]), x, key))

    own = jax.vmap(one)(batch.x, of, jax.random.split(row_key, n))
    return _square((own - target).reshape(n, -1), 1)


def log_odds(probabilities: jax.Array) -> jax.Array:
    """The log-probabilities [n, K] less their mean over K: logits, but for a shift of all K.

    Of one probability, a binary classifier's, the logit itself.
    """
    tiny = jnp.finfo(probabilities.dtype).tiny
    odds = jnp.log(jnp.maximum(probabilities, tiny))
    if probabilities.shape[1] == 1:
        return odds - jnp.log(jnp.maximum(1 - probabilities, tiny))
    return _centred(odds)


def _centred(logits: jax.Array) -> jax.Array:
    if logits.shape[1] == 1:
        return logits
    return logits - jnp.mean(logits, axis=1, keepdims=True)


def _entropy(logits: jax.Array, batch: Batch) -> jax.Array:
    """The cross-entropy of the student's probabilities with the victim's, [n]."""
    if logits.shape[1] == 1:
        p, z = batch.outputs[:, 0], logits[:, 0]
        return -p * jax.nn.log_sigmoid(z) - (1 - p) * jax.nn.log_sigmoid(-z)
    return -jnp.sum(batch.outputs * jax.nn.log_softmax(logits), axis=1)


def _odds(logits: jax.Array, batch: Batch) -> jax.Array:
    """The squared distance of the log-odds, [n], in units of the victim's own.

    The slope of the cross-entropy is the difference of two probabilities: on a saturated reply
    nothing of it is left, though the log-odds are still all there.
    """
    return _square(_centred(logits) - log_odds(batch.outputs), 1) / batch.scales.outputs


def _values(values: jax.Array, batch: Batch) -> jax.Array:
    """The squared distance of a regression's values, [n], in units of their variance."""
    return _square(values - batch.outputs, 1) / batch.scales.outputs


def _square(x: jax.Array, axis: Any) -> jax.Array:
    return jnp.sum(x * x, axis=axis)


def _product(left: jax.Array, axis: Any) -> jax.Array:
    """|E left|^2 over `axis`, unbiased: the square of one exact error, or the product of two whose
    noise is independent; left [m, n, ...], as a Pull gives it.
    """
    return jnp.sum(left[0] * left[-1], axis=axis)


class Loss(NamedTuple):
    """A form of l_G.

    rows: the distances [n] of a batch, by the student's pull; None: membership, no l_G; axes: how
    many the bank's gradient may have; whole: whether it takes the student itself, an Apply.
    """

    rows: Callable[[Any, Batch, Any], jax.Array] | None
    axes: tuple[int, ...]
    whole: bool = False


LOSSES: dict[str, Loss] = {
    "jacobian": Loss(_jacobian, (3,)),
    "projection": Loss(_projection, (3,)),
    "top": Loss(_top, (2,)),
    "membership": Loss(None, (0,)),
    "shown": Loss(_shown, (2, 3), whole=True),
}

# Each form of l_M, and whether it compares classes or the values of a regression.
OUTPUTS: dict[str, tuple[Callable[[jax.Array, Batch], jax.Array], str]] = {
    "entropy": (_entropy, "classes"),
    "odds": (_odds, "classes"),
    "values": (_values, "regression"),
}
