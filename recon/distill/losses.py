"""What a student is trained on: l_J = l_G + lambda l_M (section 4), on one batch of replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recon.explanations import SIGMA

TRACED, STATIC = {"traced": True}, {"traced": False}


@dataclass(frozen=True)
class Hyper:
    """The settings of a run.  Traced fields may be arrays under vmap; static ones define a compile.

    learning_rate: Adam's, at the start of a cosine decay to zero; weight: lambda of l_M;
    budget: the leading rows of the bank in use; sigma: the noise of the student's own SmoothGrad.
    steps: T; batch: rows a step, or the whole budget where that is less; loss: a row of LOSSES;
    outputs: a row of OUTPUTS, how l_M compares probabilities;
    points: how many noisy points the student's gradient is averaged over, 0 for its plain gradient;
    unasked: inputs a step that were not asked about (see `consistency`), 0 for none;
    weight_decay: of AdamW, a share of the weights for each unit of the learning rate;
    surrogate: width of the masks' surrogate derivative (see `recon.masks`) at the first step; None
    for autodiff, which sees no masks; narrow: the width at the last step, as a share of that.
    Defaults are our own choices.
    """

    learning_rate: Any = field(default=2e-3, metadata=TRACED)
    weight: Any = field(default=0.1, metadata=TRACED)
    budget: Any = field(default=10, metadata=TRACED)
    sigma: Any = field(default=SIGMA, metadata=TRACED)
    weight_decay: Any = field(default=0.0, metadata=TRACED)
    surrogate: Any = field(default=None, metadata=TRACED)
    narrow: Any = field(default=0.2, metadata=TRACED)
    steps: int = field(default=3000, metadata=STATIC)
    batch: int = field(default=64, metadata=STATIC)
    loss: str = field(default="projection", metadata=STATIC)
    outputs: str = field(default="entropy", metadata=STATIC)
    points: int = field(default=0, metadata=STATIC)
    unasked: int = field(default=0, metadata=STATIC)


jax.tree_util.register_dataclass(
    Hyper,
    data_fields=[f.name for f in fields(Hyper) if f.metadata["traced"]],
    meta_fields=[f.name for f in fields(Hyper) if not f.metadata["traced"]],
)


@dataclass(frozen=True)
class Student:
    """A model to be trained: init(key) -> variables; apply(variables, x [n, d]) -> logits [n, K].

    `apply` treats every row alone (no BatchNorm in training mode): the gradients of a whole batch
    then come from one backward pass of the batch.  `warp`, (key, x [n, d]) -> [n, d], changes
    inputs in ways that should not change their class; only `Hyper.unasked` needs it.  `surrogate`,
    (variables, x, width), is `apply` with masks of that width; only `Hyper.surrogate` needs it.
    Hashed by its functions: keep one Student for many runs and they share what was compiled.
    """

    init: Callable[[Any], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    warp: Callable[[Any, jax.Array], jax.Array] | None = None
    surrogate: Callable[[Any, jax.Array, Any], jax.Array] | None = None


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


def joint(
    variables: Any, student: Student, hyper: Hyper, batch: Batch, key: Any, width: Any = None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """l_J = l_G + lambda l_M of a batch, and (l_G, l_M); without l_G it is l_M.

    l_G is divided by the mean of |J|^2 over the budget, so that 1 is the error of a constant
    student and one learning rate and lambda serve all victims (our choice).  l_M is the
    cross-entropy between the victim's probabilities and the student's, or another row of OUTPUTS.
    `width` is that of the student's masks at this step, None for autodiff.
    """

    def apply(x: jax.Array) -> jax.Array:
        if width is None:
            return student.apply(variables, x)
        assert student.surrogate is not None  # checks.check
        return student.surrogate(variables, x, width)

    matching, _ = LOSSES[hyper.loss]
    noise_key, loss_key = jax.random.split(key)
    logits, pull = jax.vjp(apply, batch.x)
    l_m = jnp.sum(batch.weights * OUTPUTS[hyper.outputs](logits, batch))
    if matching is None:
        return l_m, (jnp.zeros_like(l_m), l_m)
    pull = _smoothed(apply, hyper, batch.x, noise_key) if hyper.points else _first(pull)
    l_g = jnp.sum(batch.weights * matching(pull, batch, loss_key)) / batch.scales.gradient
    return l_g + jnp.asarray(hyper.weight, l_m.dtype) * l_m, (l_g, l_m)


def _first(pull: Callable[[jax.Array], tuple[jax.Array]]) -> Pull:
    return lambda cotangent: pull(cotangent)[0]


def _smoothed(
    apply: Callable[[jax.Array], jax.Array], hyper: Hyper, x: jax.Array, key: Any
) -> Pull:
    """The student's SmoothGrad with fresh noise: cotangents [n, K] -> averaged rows [n, d].

    With few points the loss is biased by the variance of their mean; with 0 points the plain
    gradient is held against the victim's smoothed one, which costs `points` times less.
    """
    n, dim = x.shape
    noise = jax.random.normal(key, (hyper.points, n, dim), x.dtype)
    at = x[None] + jnp.asarray(hyper.sigma, x.dtype) * noise
    _, pull = jax.vjp(apply, at.reshape(-1, dim))

    def smooth(cotangent: jax.Array) -> jax.Array:
        (rows,) = pull(jnp.tile(cotangent, (hyper.points, 1)))
        return rows.reshape(hyper.points, n, dim).mean(axis=0)

    return smooth
