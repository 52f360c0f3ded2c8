"""What a student is trained on: l_J = l_G + lambda l_M (section 4), on one batch of replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from recon.distill.hyper import Hyper
from recon.distill.losses import LOSSES, OUTPUTS, Batch, Pull
from recon.distill.students import Student


def joint(
    variables: Any, student: Student, hyper: Hyper, batch: Batch, key: Any, temperature: Any = None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """l_J = l_G + lambda l_M of a batch, and (l_G, l_M); without l_G it is l_M.

    l_G is divided by the mean of |J|^2 over the budget, so that 1 is the error of a constant
    student and one learning rate and lambda serve all victims (our choice).  l_M is the
    cross-entropy between the victim's probabilities and the student's, or another row of OUTPUTS.
    `temperature` is that of the student's masks at this step, None for autodiff.
    """

    def apply(x: jax.Array) -> jax.Array:
        if temperature is None:
            return student.apply(variables, x)
        assert student.surrogate is not None  # checks.check
        return student.surrogate(variables, x, temperature)

    matching, _, whole = LOSSES[hyper.loss]
    noise_key, loss_key = jax.random.split(key)
    logits, pull = jax.vjp(apply, batch.x)
    l_m = jnp.sum(batch.weights * OUTPUTS[hyper.outputs][0](logits, batch))
    if matching is None:
        return l_m, (jnp.zeros_like(l_m), l_m)
    own: Any = apply
    if not whole:
        own = _smoothed(apply, hyper, batch.x, noise_key) if hyper.points else _first(pull)
    l_g = jnp.sum(batch.weights * matching(own, batch, loss_key)) / batch.scales.gradient
    return l_g + jnp.asarray(hyper.weight, l_m.dtype) * l_m, (l_g, l_m)


def _first(pull: Callable[[jax.Array], tuple[jax.Array]]) -> Pull:
    return lambda cotangent: pull(cotangent)[0][None]


def _smoothed(
    apply: Callable[[jax.Array], jax.Array], hyper: Hyper, x: jax.Array, key: Any
) -> Pull:
    """The student's SmoothGrad with fresh noise: cotangents [n, K] -> two means of rows [2, n, d].

    The square of one mean's error would have the variance of that mean added, and hold students to
    gradients that change little; the product of two independent errors does not (`losses`), so one
    point each will do.  With 0 points the plain gradient is held against the victim's smoothed one.
    """
    n, dim = x.shape
    noise = jax.random.normal(key, (2, hyper.points, n, dim), x.dtype)
    at = x[None, None] + jnp.asarray(hyper.sigma, x.dtype) * noise
    _, pull = jax.vjp(apply, at.reshape(-1, dim))

    def smooth(cotangent: jax.Array) -> jax.Array:
        (rows,) = pull(jnp.tile(cotangent, (2 * hyper.points, 1)))
        return rows.reshape(noise.shape).mean(axis=1)

    return smooth
